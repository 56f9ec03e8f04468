// SPDX-License-Identifier: Apache-2.0

package budget

import (
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
	resetAt          time.Time     // the end as we show it
	earliest, latest time.Time     // between these the last announced end is

	began   uint64 // the order of the moment when the window was first known
	learned uint64 // … when a header was last believed
	lostAt  uint64 // … when an answer was last lost
}

// believable tells whether an answer announces a window that can be.
func believable(a Answer) bool {
	return a.HasHeaders && a.Limit > 0 && a.Limit <= math.MaxInt32 && a.Remaining >= 0 && a.Reset >= 0 && a.Reset <= longestWindow
}

// learn takes over what the headers of an answer say. It returns false for a
// straggler of a window that has ended, which says nothing about this one.
func (w *window) learn(a Answer, sent, got moment) bool {
	// Whatever the rounding, and however long either way took:
	earliest, latest := sent.at.Add(a.Reset-rounding), got.at.Add(a.Reset+rounding)
	later := !w.known || earliest.After(w.latest.Add(drift))
	earlier := !later && latest.Before(w.earliest.Add(-drift))
	sentInThisWindow := sent.order > w.began
	w.length = max(w.length, a.Reset)

	switch {
	case !later && !earlier && !w.assumed:
		w.narrow(earliest, latest)
		if remaining := min(a.Remaining, a.Limit); sent.order > w.learned {
			w.limit, w.remaining = a.Limit, remaining
		} else {
			w.remaining = min(w.remaining, remaining)
		}
	case later || sentInThisWindow:
		w.begin(a, earliest, latest, got)
	default:
		return false
	}
	w.learned = got.order
	if sent.order > w.lostAt {
		w.lost = 0 // this header knows of them
	}
	return true
}

// begin takes over a window that was not known before.
func (w *window) begin(a Answer, earliest, latest time.Time, got moment) {
	w.known, w.assumed = true, false
	w.limit, w.remaining = a.Limit, min(a.Remaining, a.Limit)
	w.earliest, w.latest = earliest, latest
	w.resetAt = announced(latest)
	w.began = got.order
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
func announced(latest time.Time) time.Time { return latest.Add(-rounding).Round(time.Second) }

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
