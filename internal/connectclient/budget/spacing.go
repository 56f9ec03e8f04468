// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"cmp"
	"time"
)

const (
	// share is the part of an even pace that is kept after a piece of work: at 5,000 requests an
	// hour, half a second for each.
	share = 0.7
	// unannounced is how many times as long as its requests take at the plain rate a piece of work
	// is left alone where no window is announced.
	unannounced = 3
)

// Spacing is how long to leave a piece of reading alone that has cost so many requests, before it is
// done again because somebody asks: its share of the window, or more when so much is spent already
// that what is left would not last. It does not go beyond the end of the window, when all is new.
func (b *Budget) Spacing(requests int) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if !b.window.known {
		return time.Duration(unannounced * float64(requests) / b.config.QPS * float64(time.Second))
	}
	b.window.roll(now)
	if !b.window.assumed {
		b.ends.note(b.window.resetAt)
	}
	untilReset := b.window.resetAt.Sub(now.at)
	each := max(
		float64(b.ends.apart())/float64(max(b.window.limit, 1)),
		float64(untilReset)/float64(max(b.left(Urgent), 1)),
	)
	return time.Duration(min(share*float64(requests)*each, float64(untilReset)))
}

// ends measures how long a window lasts by when windows end. A header tells only how long the rest of
// one is: in the last minute of an hour that looks like a window of a minute.
type ends struct {
	last     time.Time
	shortest time.Duration // between two ends: one window, or several if some were not noticed
}

// note takes over when the present window ends. A small change is the same end, known better.
func (e *ends) note(end time.Time) {
	step := end.Sub(e.last)
	if !e.last.IsZero() && step > 2*(rounding+drift) {
		e.shortest = min(step, cmp.Or(e.shortest, step))
	}
	e.last = end
}

// apart is how far the ends of two windows are apart; as documented until two are known.
func (e *ends) apart() time.Duration {
	if e.shortest == 0 {
		return assumedLength
	}
	return e.shortest
}
