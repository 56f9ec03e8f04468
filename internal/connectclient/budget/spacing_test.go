// SPDX-License-Identifier: Apache-2.0

package budget_test

import (
	"testing"
	"time"

	"rpi-connect.dev/operator/internal/connectclient/budget"
)

// announcedLeft is an answer that announces what is left of a window.
func announcedLeft(limit, remaining int, reset time.Duration) budget.Answer {
	return budget.Answer{StatusCode: 200, HasHeaders: true, Limit: limit, Remaining: remaining, Reset: reset}
}

func (d *desk) wantSpacing(requests int, want time.Duration) {
	d.Helper()
	if got := d.Spacing(requests); (got - want).Abs() > want/100 {
		d.Errorf("%d requests are kept %s apart, want %s", requests, got, want)
	}
}

// Half a second for each request, whatever is left of the hour when it is first seen.
func TestSpacingGoesByTheWindow(t *testing.T) {
	for _, reset := range []time.Duration{time.Hour, 30 * time.Minute, 3 * time.Minute, 40 * time.Second} {
		d := newDesk(t, budget.Config{})
		d.call(budget.Background, announcedLeft(5000, 4999, reset))
		d.wantSpacing(50, 25200*time.Millisecond)
		d.wantSpacing(1, 504*time.Millisecond)
		d.wantSpacing(0, 0)
		d.wantSpacing(10_000, reset)
	}
}

// Once windows are seen to follow each other more quickly, they are shorter.
func TestSpacingLearnsHowLongAWindowIs(t *testing.T) {
	for _, window := range []time.Duration{6 * time.Second, time.Minute, time.Hour} {
		d := newDesk(t, budget.Config{})
		for range 40 {
			reset := window - time.Duration(d.time.UnixNano())%window
			d.call(budget.Background, announcedLeft(5000, 4999, reset.Round(time.Second)))
			_ = d.Spacing(1)
			d.wait(window * 3 / 4)
		}
		d.call(budget.Background, announcedLeft(5000, 4999, window))
		d.wantSpacing(5000, time.Duration(0.7*float64(window)))
	}
}

// An end that is known better, by no more than roundings and clocks may be off, is no new window.
func TestSpacingKnowsACorrection(t *testing.T) {
	d := newDesk(t, budget.Config{})
	d.call(budget.Background, announcedLeft(5000, 4999, time.Hour))
	d.wantSpacing(1, 504*time.Millisecond)
	d.call(budget.Background, announcedLeft(5000, 4999, time.Hour+4*time.Second))
	d.wait(50 * time.Minute)
	d.wantSpacing(1, 504*time.Millisecond)
}

// When much is spent already, what is left has to last until the reset, and no longer.
func TestSpacingStretchesWhatIsLeft(t *testing.T) {
	d := newDesk(t, budget.Config{})
	d.call(budget.Background, announcedLeft(5000, 600, 30*time.Minute))
	d.wantSpacing(10, 21*time.Second) // 3 s a request, and 70 % of it
	d.wantSpacing(1000, 30*time.Minute)
	d.call(budget.Background, announcedLeft(5000, 4900, 30*time.Minute))
	d.wantSpacing(10, 5040*time.Millisecond)
}

// Without a window the plain rate takes its place.
func TestSpacingWithoutAWindow(t *testing.T) {
	d := newDesk(t, budget.Config{QPS: 10})
	d.wantSpacing(50, 15*time.Second)
	d = newDesk(t, budget.Config{QPS: 0.5})
	d.wantSpacing(1, 6*time.Second)
}
