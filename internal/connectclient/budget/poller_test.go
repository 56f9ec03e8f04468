// SPDX-License-Identifier: Apache-2.0

package budget_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"rpi-connect.dev/operator/internal/connectclient/budget"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// pollsPerSecond is a budget that lasts for so many.
func pollsPerSecond(rate float64) func() float64 { return func() float64 { return rate } }

// due is the deployments that are handed out at one moment, in order.
func due(p *budget.Poller[string], now time.Time) (keys []string) {
	for {
		key, ok, _ := p.Next(now)
		if !ok {
			return keys
		}
		keys = append(keys, key)
	}
}

func mustBeDue(t *testing.T, p *budget.Poller[string], now time.Time, want ...string) {
	t.Helper()
	if got := due(p, now); !slices.Equal(got, want) {
		t.Errorf("at %s %v are due, want %v", now.Sub(noon), got, want)
	}
}

func TestPollerKeepsIntervals(t *testing.T) {
	p := budget.NewPoller[string](pollsPerSecond(100))
	if _, ok, wait := p.Next(noon); ok || wait != 0 {
		t.Errorf("with nobody to look at it waits %s", wait)
	}
	p.Seen("quick", 15*time.Second, noon)
	p.Seen("slow", time.Minute, noon)
	mustBeDue(t, p, noon)
	if _, _, wait := p.Next(noon.Add(5 * time.Second)); wait != 10*time.Second {
		t.Errorf("it waits %s for the first", wait)
	}
	mustBeDue(t, p, noon.Add(15*time.Second), "quick")
	mustBeDue(t, p, noon.Add(29*time.Second))
	mustBeDue(t, p, noon.Add(60*time.Second), "quick", "slow")

	p.Seen("slow", 15*time.Second, noon.Add(61*time.Second)) // it began to change
	mustBeDue(t, p, noon.Add(76*time.Second), "quick", "slow")

	p.Forget("quick")
	p.Forget("quick")
	p.Forget("nobody")
	mustBeDue(t, p, noon.Add(time.Hour), "slow")
	if p.Len() != 1 {
		t.Errorf("%d are looked at", p.Len())
	}
}

// Looks are paid for: who has none left waits for the next, and nothing that was saved is spent while
// there is nothing to spend.
func TestPollerSpendsWhatTheRateBrings(t *testing.T) {
	rate := 0.4
	p := budget.NewPoller[string](func() float64 { return rate })
	p.Seen("one", time.Second, noon.Add(-time.Minute))
	p.Seen("other", time.Second, noon.Add(-time.Minute))
	if _, ok, _ := p.Next(noon); !ok {
		t.Error("the first look is not handed out")
	}
	if _, ok, wait := p.Next(noon.Add(1250 * time.Millisecond)); ok || wait != 1250*time.Millisecond {
		t.Errorf("with half a look earned it waits %s", wait)
	}

	saved := budget.NewPoller[string](func() float64 { return rate })
	mustBeDue(t, saved, noon)
	rate = 0
	saved.Seen("one", time.Second, noon.Add(-time.Minute))
	mustBeDue(t, saved, noon)
}

// The most overdue in proportion to its interval goes first.
func TestPollerOrder(t *testing.T) {
	p := budget.NewPoller[string](pollsPerSecond(100))
	mustBeDue(t, p, noon.Add(-time.Minute)) // from here on it earns
	p.Seen("a minute, twice overdue", time.Minute, noon.Add(-2*time.Minute))
	p.Seen("a quarter, thrice overdue", 15*time.Second, noon.Add(-45*time.Second))
	p.Seen("an hour, just due", time.Hour, noon.Add(-time.Hour))
	p.Seen("a second, hardly overdue", time.Second, noon.Add(-1100*time.Millisecond))
	mustBeDue(t, p, noon, "a quarter, thrice overdue", "a minute, twice overdue", "a second, hardly overdue", "an hour, just due")
}

// Of those that are overdue alike, the shorter interval goes first, whatever order they came in.
func TestPollerOrderOfEquals(t *testing.T) {
	for range 20 {
		p := budget.NewPoller[string](pollsPerSecond(100))
		mustBeDue(t, p, noon.Add(-time.Minute))
		p.Seen("a minute", time.Minute, noon.Add(-2*time.Minute))
		p.Seen("a quarter", 15*time.Second, noon.Add(-30*time.Second))
		p.Seen("an hour", time.Hour, noon.Add(-2*time.Hour))
		mustBeDue(t, p, noon, "a quarter", "a minute", "an hour")
	}
}

// Somebody of whom nothing is known goes at once, even if others of its interval
// were seen before it was added.
func TestPollerOfTheUnknown(t *testing.T) {
	p := budget.NewPoller[string](pollsPerSecond(100))
	p.Seen("seen", 15*time.Second, noon)
	p.Seen("unknown", 15*time.Second, noon.Add(-15*time.Minute))
	mustBeDue(t, p, noon, "unknown")
}

func TestPollerPace(t *testing.T) {
	rate := 0.5
	p := budget.NewPoller[string](func() float64 { return rate })
	for i := range 100 {
		p.Seen(fmt.Sprint(i), time.Second, noon.Add(-time.Hour))
	}
	handed := len(due(p, noon))
	if handed != 1 {
		t.Errorf("%d at once", handed)
	}
	now := noon
	for now.Before(noon.Add(100 * time.Second)) {
		_, ok, wait := p.Next(now)
		if ok {
			handed++
			continue
		}
		if wait <= 0 || wait > 2*time.Second {
			t.Fatalf("it waits %s", wait)
		}
		now = now.Add(wait)
	}
	if handed < 50 || handed > 51 {
		t.Errorf("%d in 100 seconds of half a poll", handed)
	}

	rate = 0
	due(p, now)
	for range 100 {
		now = now.Add(time.Minute)
		if got := due(p, now); len(got) > 0 {
			t.Fatalf("%v although nothing is left", got)
		}
	}
	rate = 10
	if got := len(due(p, now.Add(time.Hour))); got != 20 {
		t.Errorf("%d at once after a pause, want what two seconds bring", got)
	}
	if got := len(due(p, now)); got != 0 {
		t.Errorf("a clock that went back brought %d", got)
	}
}

func TestBackoff(t *testing.T) {
	pending := func(unchanged time.Duration) time.Duration {
		return budget.Backoff(30*time.Second, 30*time.Second, 15*time.Minute, unchanged)
	}
	inProgress := func(unchanged time.Duration) time.Duration {
		return budget.Backoff(15*time.Second, time.Minute, 15*time.Minute, unchanged)
	}
	for _, test := range []struct {
		of              func(time.Duration) time.Duration
		unchanged, want time.Duration
	}{
		{pending, -time.Minute, 30 * time.Second}, // the API's clock is ahead
		{pending, 0, 30 * time.Second},
		{pending, 29 * time.Second, 30 * time.Second},
		{pending, 30 * time.Second, time.Minute},
		{pending, 90 * time.Second, 2 * time.Minute},
		{pending, 210 * time.Second, 4 * time.Minute},
		{pending, 450 * time.Second, 8 * time.Minute},
		{pending, 930 * time.Second, 15 * time.Minute},
		{pending, 5 * 24 * time.Hour, 15 * time.Minute},
		{inProgress, 0, 15 * time.Second},
		{inProgress, 59 * time.Second, 15 * time.Second},
		{inProgress, time.Minute, 30 * time.Second},
		{inProgress, 3 * time.Minute, time.Minute},
		{inProgress, 24 * time.Hour, 15 * time.Minute},
	} {
		if got := test.of(test.unchanged); got != test.want {
			t.Errorf("unchanged for %s: every %s, want %s", test.unchanged, got, test.want)
		}
	}
	if got := budget.Backoff(0, 0, time.Minute, time.Hour); got != time.Minute {
		t.Errorf("from nothing: every %s", got)
	}
}

// Turns are given to running deployments as the budget allows. Whoever is handed
// out calls the API, with the priority Poll, and says what became of it.
func ExamplePoller() {
	now := noon
	b := budget.New(budget.Config{Now: func() time.Time { return now }})
	poller := budget.NewPoller[string](b.PollRate)
	poller.Seen("kiosk-1", 15*time.Second, now)

	for range 3 {
		key, ok, wait := poller.Next(now)
		if !ok {
			fmt.Println("nobody for", wait)
			now = now.Add(wait) // a timer; adding to the poller ends it early
			continue
		}
		if ticket, err := b.Take(budget.Poll); err == nil {
			ticket.Done(budget.Answer{StatusCode: 200}) // the call
			fmt.Println("look at", key)
		}
		// Still running: when to look again depends on how long nothing happened.
		poller.Seen(key, budget.Backoff(15*time.Second, time.Minute, 15*time.Minute, 2*time.Minute), now)
	}
	// Output:
	// nobody for 15s
	// look at kiosk-1
	// nobody for 30s
}
