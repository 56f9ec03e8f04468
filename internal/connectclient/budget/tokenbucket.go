// SPDX-License-Identifier: Apache-2.0

package budget

import "time"

// tokenBucket paces requests where the API announces no window: a bucket of tokens that
// holds a second's worth, and two more that only the urgent may use: one for
// writes, the last one for cancelling and deleting. So whoever saturates the rate
// leaves the next token to those who go first.
type tokenBucket struct {
	qps    float64
	tokens float64
	filled time.Time
	// next is the last time that was given to somebody, by priority.
	next [Background + 1]time.Time
}

// furthestSlot is how far ahead slots are given out. Those who ask more often than
// that share slots; to queue them further would let a few impatient ones put all
// others off for hours.
const furthestSlot = time.Minute

// take returns true, or when to come back. Those who are refused are given
// successive times, so that hundreds of them do not come back together.
func (b *tokenBucket) take(p Priority, now time.Time) (time.Time, bool) {
	b.fill(now)
	needed := float64(1 + min(p, Poll))
	if b.tokens >= needed-1e-6 { // the sum of many fractions may miss by a little
		b.tokens--
		return time.Time{}, true
	}
	first := now.Add(b.worth(needed - b.tokens))
	slot := b.next[p].Add(b.worth(1))
	if slot.Before(first) || slot.After(now.Add(furthestSlot)) {
		slot = first
	}
	b.next[p] = slot
	return slot, false
}

func (b *tokenBucket) fill(now time.Time) {
	full := max(1, b.qps) + float64(Poll)
	if b.filled.IsZero() {
		b.tokens = full
	}
	if now.After(b.filled) {
		b.tokens = min(full, b.tokens+now.Sub(b.filled).Seconds()*b.qps)
		b.filled = now
	}
}

// worth is how long it takes until so many tokens have come, at most an hour.
func (b *tokenBucket) worth(tokens float64) time.Duration {
	return time.Duration(min(tokens/b.qps, time.Hour.Seconds())*float64(time.Second)) + 1
}
