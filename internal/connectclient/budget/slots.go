// SPDX-License-Identifier: Apache-2.0

package budget

import "time"

// slots paces requests where the API announces no window: a bucket of tokens that
// holds a second's worth, and two more that only the urgent may use: one for
// writes, the last one for cancelling and deleting. So whoever saturates the rate
// leaves the next token to those who go first.
type slots struct {
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
func (s *slots) take(p Priority, now time.Time) (time.Time, bool) {
	s.fill(now)
	needed := float64(1 + min(p, Poll))
	if s.tokens >= needed-1e-6 { // the sum of many fractions may miss by a little
		s.tokens--
		return time.Time{}, true
	}
	first := now.Add(s.worth(needed - s.tokens))
	slot := s.next[p].Add(s.worth(1))
	if slot.Before(first) || slot.After(now.Add(furthestSlot)) {
		slot = first
	}
	s.next[p] = slot
	return slot, false
}

func (s *slots) fill(now time.Time) {
	full := max(1, s.qps) + float64(Poll)
	if s.filled.IsZero() {
		s.tokens = full
	}
	if now.After(s.filled) {
		s.tokens = min(full, s.tokens+now.Sub(s.filled).Seconds()*s.qps)
		s.filled = now
	}
}

// worth is how long it takes until so many tokens have come, at most an hour.
func (s *slots) worth(tokens float64) time.Duration {
	return time.Duration(min(tokens/s.qps, time.Hour.Seconds())*float64(time.Second)) + 1
}
