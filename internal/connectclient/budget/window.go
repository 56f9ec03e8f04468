// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"cmp"
	"math"
	"time"
)

const (
	// rounding is by how much the announced time to the reset may be off: it
	// is in whole seconds, and nobody has said which way they are rounded.
	rounding = time.Second
	// drift is how far two clocks may move apart within a window.
	drift = time.Second
	// assumedLength is how long a window is taken to last until a header says
	// so. The documentation says an hour.
	assumedLength = time.Hour
	// assumedLimit is how many requests a window has until a header says so. The
	// documentation says 5,000.
	assumedLimit = 5000
	// longestWindow is the longest time to a reset that is believed. Longer
	// ones are not seconds from now but something else, like an epoch.
	longestWindow = 24 * time.Hour
)

// window is the announced window we are in, as far as it is known.
type window struct {
	known   bool
	assumed bool // it began by our clock; no header has confirmed it

	limit     int
	remaining int // by the headers
	lost      int // requests without an answer, which may have been counted

	length           time.Duration // as far as is known: the longest time to a reset that was announced
	resetAt          time.Time     // the end that we go by
	earliest, latest time.Time     // between these the last announced end is

	began   uint64 // the order of the moment when the window was first known
	learned uint64 // … when a header was last believed
	lostAt  uint64 // … when an answer was last lost
}

// place is which window an answer speaks of.
type place int

const (
	gone      place = iota // one that is over: the answer is a straggler
	current                // the one that we are in
	corrected              // the one that we are in, but it ends at another time than we thought
	next                   // one of which nothing was known
)

// observe takes over what the headers of an answer say, as far as they can be understood. It returns
// false for a straggler of a window that is over, which says nothing about this one.
func (w *window) observe(a Answer, sent, got moment) bool {
	limit := a.Limit
	if limit <= 0 || limit > math.MaxInt32 {
		limit = cmp.Or(w.limit, assumedLimit)
	}
	where := w.locate(a.Reset, sent, got)
	if where == gone {
		return false
	}
	if where == next {
		w.limit, w.remaining, w.lost = limit, limit, 0
	}
	if where != current {
		w.began = got.order
	}
	remaining := min(a.Remaining, limit)
	switch {
	case remaining < 0:
		w.lose(got) // of this request, too, nobody knows whether it was counted
		return true
	case where != current || sent.order > w.learned:
		w.limit, w.remaining = limit, remaining
	default:
		w.remaining = min(w.remaining, remaining)
	}
	w.learned = got.order
	if sent.order > w.lostAt {
		w.lost = 0 // this header knows of them
	}
	return true
}

// locate finds out which window it is that ends after so long, and takes over its end.
func (w *window) locate(reset time.Duration, sent, got moment) place {
	sentInThisWindow := sent.order >= w.began // a request that is about to go can begin it
	if reset < 0 || reset > longestWindow {   // not understood
		switch {
		case !w.known:
			w.assume(got)
			return next
		case sentInThisWindow:
			return current
		default:
			return gone
		}
	}
	// Whatever the rounding, and however long either way took:
	earliest, latest := sent.at.Add(reset-rounding), got.at.Add(reset+rounding)
	later := !w.known || earliest.After(w.latest.Add(drift))
	earlier := !later && latest.Before(w.earliest.Add(-drift))
	w.length = max(w.length, reset)
	where := corrected
	switch {
	case !later && !earlier && !w.assumed:
		w.narrow(earliest, latest)
		return current
	case later && !w.assumed:
		where = next
	case !later && !sentInThisWindow:
		return gone
	}
	w.known, w.assumed = true, false
	w.earliest, w.latest = earliest, latest
	w.resetAt = announced(latest)
	return where
}

// assume begins a window of which no header says when it ends: as documented, at the top of the
// hour.
func (w *window) assume(now moment) {
	w.known, w.assumed = true, true
	w.resetAt = now.at.Add(assumedLength - now.at.Sub(now.at.Truncate(assumedLength)))
	w.earliest, w.latest = w.resetAt, w.resetAt
	w.length = assumedLength
}

// narrow takes over what another answer shows of the end of the window: a slow
// one leaves it vague, a quick one makes it exact.
func (w *window) narrow(earliest, latest time.Time) {
	if earliest.After(w.earliest) {
		w.earliest = earliest
	}
	if latest.Before(w.latest) {
		w.latest = latest
	}
	if w.earliest.After(w.latest) { // the clocks have drifted
		w.earliest, w.latest = earliest, latest
	}
	// Users read this: it moves only if it was really wrong.
	if w.resetAt.Before(w.earliest.Add(-drift)) || w.resetAt.After(w.latest.Add(drift)) {
		w.resetAt = announced(w.latest)
	}
}

// announced is the end of the window as an answer announced it that came at once.
func announced(latest time.Time) time.Time { return latest.Add(-rounding) }

// shownEnd is the end of the window for people, to the second. Only here is it rounded: that takes
// away the monotonic clock's reading, without which a clock that is set would move the end.
func (w *window) shownEnd() time.Time { return w.resetAt.Round(time.Second) }

// lose counts a request that ended without a header.
func (w *window) lose(now moment) {
	w.lost++
	w.lostAt = now.order
}

// over is when the window has safely ended, by whatever rounding and drift.
func (w *window) over() time.Time { return w.resetAt.Add(rounding + drift) }

// roll begins the next window when this one is over. How long it lasts nobody has
// said yet; the next header does.
func (w *window) roll(now moment) {
	if !w.known || now.at.Before(w.over()) {
		return
	}
	w.resetAt = w.resetAt.Add(now.at.Sub(w.resetAt).Truncate(assumedLength) + assumedLength)
	w.remaining, w.lost = w.limit, 0
	w.assumed = true
	w.began = now.order
}
