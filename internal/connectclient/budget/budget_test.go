// SPDX-License-Identifier: Apache-2.0

package budget_test

import (
	"math"
	"testing"
	"time"

	"rpi-connect.dev/operator/internal/connectclient/budget"
)

// desk is a budget whose clock and whose answers are in the test's hands.
type desk struct {
	*testing.T
	*budget.Budget
	time time.Time
}

func newDesk(t *testing.T, config budget.Config) *desk {
	d := &desk{T: t, time: time.Date(2026, 3, 1, 10, 30, 0, 0, time.UTC)}
	config.Now = func() time.Time { return d.time }
	if config.Jitter == nil {
		config.Jitter = func() float64 { return 0 }
	}
	d.Budget = budget.New(config)
	return d
}

func (d *desk) wait(by time.Duration) { d.time = d.time.Add(by) }

// take sends a request that must be let through.
func (d *desk) take(p budget.Priority) *budget.Ticket {
	d.Helper()
	ticket, err := d.Take(p)
	if err != nil {
		d.Fatalf("%s: %v until %s", p, err, refusalOf(err).Until.Sub(d.time))
	}
	return ticket
}

// call sends a request that is answered at once.
func (d *desk) call(p budget.Priority, answer budget.Answer) {
	d.Helper()
	d.take(p).Done(answer)
}

// refused asks for a request that must be refused, and tells when to come back.
func (d *desk) refused(p budget.Priority, why budget.Reason) time.Duration {
	d.Helper()
	_, err := d.Take(p)
	if err == nil {
		d.Fatalf("%s may go; want %s", p, why)
	}
	refusal := refusalOf(err)
	if refusal.Reason != why {
		d.Fatalf("%s is refused as %s; want %s", p, refusal.Reason, why)
	}
	if !refusal.Until.After(d.time) {
		d.Fatalf("%s is refused until %s, which is not to come", p, refusal.Until)
	}
	return refusal.Until.Sub(d.time)
}

// remaining checks what may still be spent.
func (d *desk) remaining(want int) {
	d.Helper()
	if got := d.State().Remaining; got != want {
		d.Errorf("%d remaining, want %d", got, want)
	}
}

// announce is an answer with headers.
func announce(status, limit, remaining int, reset time.Duration) budget.Answer {
	return budget.Answer{StatusCode: status, HasHeaders: true, Limit: limit, Remaining: remaining, Reset: reset}
}

func TestFloors(t *testing.T) {
	tests := map[string]struct {
		limit, reserve            int
		urgent, write, background int // how many each may spend of a full window
	}{
		"the vendor's":           {limit: 5000, urgent: 5000, write: 4950, background: 4500},
		"half for others":        {limit: 5000, reserve: 50, urgent: 5000, write: 4950, background: 2500},
		"no reserve":             {limit: 5000, reserve: -1, urgent: 5000, write: 4950, background: 4950},
		"a reserve of all":       {limit: 5000, reserve: 1000, urgent: 5000, write: 4950, background: 500},
		"a small window":         {limit: 20, urgent: 20, write: 19, background: 18},
		"two requests":           {limit: 2, urgent: 2, write: 1, background: 1},
		"one request is for all": {limit: 1, urgent: 1, write: 1, background: 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for p, want := range map[budget.Priority]int{
				budget.Urgent: test.urgent, budget.Write: test.write, budget.Poll: test.background, budget.Background: test.background,
			} {
				d := newDesk(t, budget.Config{ReservePercent: test.reserve})
				d.call(p, announce(200, test.limit, test.limit, 30*time.Minute))
				spent := 0
				for {
					if _, err := d.Take(p); err != nil {
						break
					}
					spent++
				}
				if spent != want {
					t.Errorf("%s spent %d, want %d", p, spent, want)
				}
			}
		})
	}
}

// Answers overtake each other; what may be spent must never be more than the
// server has left.
func TestRemaining(t *testing.T) {
	at := func(remaining int) budget.Answer { return announce(200, 100, remaining, 30*time.Minute) }

	t.Run("requests on their way are taken off", func(t *testing.T) {
		d := newDesk(t, budget.Config{})
		d.call(budget.Write, at(50))
		d.take(budget.Write)
		d.take(budget.Write)
		d.remaining(48)
	})
	t.Run("an older answer raises nothing", func(t *testing.T) {
		d := newDesk(t, budget.Config{})
		d.call(budget.Write, at(50))
		first, second := d.take(budget.Write), d.take(budget.Write)
		second.Done(at(48))
		d.remaining(47)
		first.Done(at(49))
		d.remaining(48)
	})
	t.Run("another program spends too", func(t *testing.T) {
		d := newDesk(t, budget.Config{})
		d.call(budget.Write, at(50))
		d.call(budget.Write, at(7))
		d.remaining(7)
	})
	t.Run("an answer to a later request is believed even if it is higher", func(t *testing.T) {
		d := newDesk(t, budget.Config{})
		d.call(budget.Write, at(50))
		d.call(budget.Write, at(90))
		d.remaining(90)
	})
	t.Run("a lost answer may have been counted", func(t *testing.T) {
		d := newDesk(t, budget.Config{})
		d.call(budget.Write, at(50))
		lost, overtaken := d.take(budget.Write), d.take(budget.Write)
		lost.Done(budget.Answer{})
		d.remaining(48)
		overtaken.Done(at(49)) // was it counted before the lost one?
		d.remaining(48)
	})
	t.Run("after an outage the header is right again", func(t *testing.T) {
		d := newDesk(t, budget.Config{})
		d.call(budget.Write, at(50))
		for range 40 {
			d.call(budget.Write, budget.Answer{})
		}
		d.remaining(10)
		d.call(budget.Write, at(49))
		d.remaining(49)
	})
	t.Run("a request that was never sent costs nothing", func(t *testing.T) {
		d := newDesk(t, budget.Config{})
		d.call(budget.Write, at(50))
		d.take(budget.Write).Release()
		d.remaining(50)
	})
	t.Run("only the first report of a ticket counts", func(t *testing.T) {
		d := newDesk(t, budget.Config{})
		d.call(budget.Write, at(50))
		ticket := d.take(budget.Write)
		ticket.Done(at(49))
		ticket.Done(budget.Answer{})
		ticket.Release()
		d.remaining(49)
		if n := d.State().InFlight; n != 0 {
			t.Errorf("%d in flight", n)
		}
	})
}

// Headers that are understood in part, or not at all, never mean that there is no limit. What they
// do say counts, and the next that are whole are believed again.
func TestHeadersThatCannotBe(t *testing.T) {
	for name, test := range map[string]struct {
		nonsense         budget.Answer
		limit, remaining int
		ends             time.Duration
	}{
		"no limit":                 {announce(200, 0, 7, time.Minute), 5000, 7, time.Minute},
		"a negative limit":         {announce(200, -5, 3, time.Minute), 5000, 3, time.Minute},
		"a huge limit":             {announce(200, math.MaxInt, 3, time.Minute), 5000, 3, time.Minute},
		"the largest limit":        {announce(200, math.MaxInt32, 3, time.Minute), math.MaxInt32, 3, time.Minute},
		"more than any limit":      {announce(200, -1, 9000, time.Minute), 5000, 5000, time.Minute},
		"negative remaining":       {announce(200, 100, -1, time.Minute), 100, 99, time.Minute},
		"a negative reset":         {announce(200, 100, 3, -time.Minute), 100, 3, 30 * time.Minute},
		"the longest reset":        {announce(200, 100, 3, 24*time.Hour), 100, 3, 24 * time.Hour},
		"an epoch":                 {announce(200, 100, 0, 1_770_000_000*time.Second), 100, 0, 30 * time.Minute},
		"a limit and nothing else": {announce(200, 100, -1, -1), 100, 99, 30 * time.Minute},
		"nothing but their names":  {announce(200, -1, -1, -1), 5000, 4999, 30 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, budget.Config{})
			d.call(budget.Write, test.nonsense)
			state := d.State()
			if !state.HeadersKnown || state.Limit != test.limit || state.Remaining != test.remaining || state.ResetAt.Sub(d.time) != test.ends {
				t.Errorf("they made it %+v", state)
			}
			d.wait(26 * time.Hour) // whatever was believed is over
			d.call(budget.Write, announce(200, 100, 500, time.Minute))
			d.remaining(100) // no more than the limit
			if got := d.State().ResetAt.Sub(d.time); got != time.Minute {
				t.Errorf("the window ends in %s", got)
			}
		})
	}
}

// Once a window is known, headers that are understood in part count down what is left of it.
func TestHalfUnderstoodHeadersInAKnownWindow(t *testing.T) {
	known := func(t *testing.T) *desk {
		d := newDesk(t, budget.Config{})
		d.call(budget.Write, announce(200, 100, 50, 20*time.Minute))
		return d
	}
	t.Run("a number without its end lowers it", func(t *testing.T) {
		d := known(t)
		d.call(budget.Write, announce(200, -1, 12, -1))
		d.remaining(12)
		if got := d.State().ResetAt.Sub(d.time); got != 20*time.Minute {
			t.Errorf("the window ends in %s", got)
		}
	})
	t.Run("a number without its end is no news from an overtaken answer", func(t *testing.T) {
		d := known(t)
		overtaken := d.take(budget.Write)
		d.call(budget.Write, announce(200, 100, 30, 20*time.Minute))
		overtaken.Done(announce(200, -1, 40, -1))
		d.remaining(30)
	})
	t.Run("a number without its end lowers it, whatever was answered meanwhile", func(t *testing.T) {
		d := known(t)
		slow := d.take(budget.Write)
		d.call(budget.Write, announce(200, 100, 30, 20*time.Minute))
		slow.Done(announce(200, -1, 12, -1))
		d.remaining(12)
	})
	t.Run("an end without a number counts the request", func(t *testing.T) {
		d := known(t)
		for range 10 {
			d.call(budget.Write, announce(200, -1, -1, 20*time.Minute))
		}
		d.remaining(40)
	})
	t.Run("no headers at all count the request", func(t *testing.T) {
		d := known(t)
		for range 10 {
			d.call(budget.Write, budget.Answer{StatusCode: 200})
		}
		d.remaining(40)
	})
	t.Run("the next window begins without a number", func(t *testing.T) {
		d := known(t)
		for range 30 {
			d.call(budget.Write, budget.Answer{})
		}
		d.wait(20 * time.Minute)
		d.call(budget.Write, announce(200, -1, -1, time.Hour))
		d.remaining(99)
	})
	t.Run("a stale answer of the last window lowers nothing", func(t *testing.T) {
		d := known(t)
		staleAnswer := d.take(budget.Urgent)
		d.wait(21 * time.Minute)
		d.remaining(99)
		staleAnswer.Done(announce(200, -1, 0, -1))
		d.remaining(100)
	})
	t.Run("the request that begins the next window counts in it", func(t *testing.T) {
		d := known(t)
		d.wait(21 * time.Minute)
		d.call(budget.Write, announce(200, -1, 12, -1))
		d.remaining(12)
	})
	t.Run("a 429 to the request that begins the next window stops", func(t *testing.T) {
		d := known(t)
		d.wait(21 * time.Minute)
		d.call(budget.Write, announce(429, -1, -1, -1))
		d.refused(budget.Urgent, budget.Exhausted)
	})
	t.Run("a 429 of zeros stops until the end it names", func(t *testing.T) {
		d := known(t)
		d.call(budget.Write, announce(429, 0, 0, 20*time.Minute))
		d.refused(budget.Urgent, budget.Exhausted)
		d.wait(19 * time.Minute)
		d.refused(budget.Urgent, budget.Exhausted)
		d.wait(time.Minute + 3*time.Second)
		d.take(budget.Urgent)
	})
	t.Run("a 429 that names no end stops until the known one", func(t *testing.T) {
		d := known(t)
		d.call(budget.Write, announce(429, -1, -1, -1))
		if got := d.refused(budget.Urgent, budget.Exhausted); got < 20*time.Minute || got > 20*time.Minute+3*time.Second {
			t.Errorf("it stops for %s", got)
		}
	})
}

// A spent window that ends in this very second keeps nobody for longer than clocks may be off.
func TestAWindowThatEndsNow(t *testing.T) {
	d := newDesk(t, budget.Config{})
	d.call(budget.Write, announce(200, 100, 0, 0))
	if got := d.refused(budget.Urgent, budget.Exhausted); got > 3*time.Second {
		t.Errorf("it keeps them for %s", got)
	}
}

// The end of a window is announced in whole seconds by answers that take time.
func TestResetStaysTheSame(t *testing.T) {
	top := time.Date(2026, 3, 1, 11, 0, 0, 0, time.UTC)
	d := newDesk(t, budget.Config{})
	var shown time.Time
	for i := range 1000 {
		ticket := d.take(budget.Write)
		left := top.Sub(d.time).Seconds()
		d.wait(time.Duration(i*7%1900) * time.Millisecond)
		round := []func(float64) float64{math.Floor, math.Ceil, math.Round}[i%3]
		ticket.Done(announce(200, 5000, 4999-i, time.Duration(round(left))*time.Second))
		if i == 0 {
			shown = d.State().ResetAt
		}
		if got := d.State().ResetAt; got != shown {
			t.Fatalf("answer %d moved the reset from %s to %s", i, shown, got)
		}
	}
	if shown.Sub(top).Abs() > time.Second {
		t.Errorf("the reset is shown as %s", shown)
	}
	d.remaining(4000)
}

// The first answer of the hour takes half a minute. Those that follow are quick:
// they are of the same window, and show when it really ends.
func TestSlowFirstAnswer(t *testing.T) {
	d := newDesk(t, budget.Config{})
	ticket := d.take(budget.Write)
	d.wait(30 * time.Second)
	ticket.Done(announce(200, 100, 50, 30*time.Minute))
	for i := range 10 {
		d.call(budget.Write, announce(200, 100, 49-i, 30*time.Minute-30*time.Second))
	}
	d.remaining(40)
	if got, want := d.State().ResetAt, time.Date(2026, 3, 1, 11, 0, 0, 0, time.UTC); !got.Equal(want) {
		t.Errorf("the reset is shown as %s", got)
	}
}

func TestNextWindow(t *testing.T) {
	spent := announce(200, 100, 0, 10*time.Second)
	fresh := announce(200, 100, 99, time.Hour)

	t.Run("is not begun by a clock that is a second early", func(t *testing.T) {
		d := newDesk(t, budget.Config{})
		d.call(budget.Urgent, spent) // with 10.9 s to go, rounded down
		until := d.refused(budget.Urgent, budget.Exhausted)
		d.wait(10900 * time.Millisecond)
		d.refused(budget.Urgent, budget.Exhausted)
		d.wait(until - 10900*time.Millisecond)
		d.take(budget.Urgent)
	})
	t.Run("is assumed to be full until a header says more", func(t *testing.T) {
		d := newDesk(t, budget.Config{})
		d.call(budget.Urgent, spent)
		d.wait(time.Minute)
		d.remaining(100)
		d.call(budget.Urgent, announce(200, 100, 42, time.Hour)) // others were quicker
		d.remaining(42)
	})
	t.Run("is replaced by the next, even if no header ever comes", func(t *testing.T) {
		d := newDesk(t, budget.Config{})
		d.call(budget.Urgent, spent)
		d.wait(time.Minute)
		for range 100 {
			d.call(budget.Urgent, budget.Answer{})
		}
		until := d.refused(budget.Urgent, budget.Exhausted)
		d.wait(until)
		d.take(budget.Urgent)
	})
	t.Run("is not known to a stale answer of the last", func(t *testing.T) {
		d := newDesk(t, budget.Config{})
		d.call(budget.Urgent, announce(200, 100, 50, 10*time.Second))
		staleAnswer, throttled := d.take(budget.Urgent), d.take(budget.Urgent)
		d.wait(40 * time.Second)
		d.call(budget.Urgent, fresh)
		reset := d.State().ResetAt
		staleAnswer.Done(spent)
		throttled.Done(announce(429, 100, 0, 0))
		d.remaining(99)
		if state := d.State(); !state.StoppedUntil.IsZero() || state.ResetAt != reset {
			t.Errorf("a stale answer made it %+v", state)
		}
	})
	t.Run("is not known to a stale answer of the last, while it is assumed", func(t *testing.T) {
		d := newDesk(t, budget.Config{})
		d.call(budget.Urgent, announce(200, 100, 50, 10*time.Second))
		staleAnswer := d.take(budget.Urgent)
		d.wait(40 * time.Second)
		d.remaining(99)
		staleAnswer.Done(spent)
		d.remaining(100)
	})
	t.Run("has not begun if the server says so", func(t *testing.T) {
		d := newDesk(t, budget.Config{})
		d.call(budget.Urgent, spent)
		d.wait(13 * time.Second)
		d.call(budget.Urgent, announce(429, 100, 0, 2*time.Second)) // its clock is slow
		d.refused(budget.Urgent, budget.Exhausted)
	})
	t.Run("begins with an answer to a request of the last", func(t *testing.T) {
		d := newDesk(t, budget.Config{})
		d.call(budget.Urgent, announce(200, 100, 1, time.Second))
		ticket := d.take(budget.Urgent)
		d.refused(budget.Urgent, budget.Exhausted)
		d.wait(1200 * time.Millisecond)
		ticket.Done(fresh)
		d.remaining(99)
	})
	t.Run("may end earlier than was said", func(t *testing.T) {
		d := newDesk(t, budget.Config{})
		d.call(budget.Urgent, announce(200, 100, 50, 40*time.Minute))
		d.call(budget.Urgent, announce(200, 100, 30, 10*time.Minute)) // our clock stood still for a while
		d.remaining(30)
		if got := d.State().ResetAt.Sub(d.time); got != 10*time.Minute {
			t.Errorf("the reset is in %s", got)
		}
	})
}

// What users are told is the same for all who are refused, however often. When they come back is not:
// first come, first served, and all of them soon after the reset.
func TestRefusalsAreStable(t *testing.T) {
	d := newDesk(t, budget.Config{})
	d.call(budget.Write, announce(200, 5000, 300, time.Hour)) // 10:30, and the reset is at 11:30
	ends := d.time.Add(time.Hour)
	previous := d.time
	for range 500 {
		d.wait(time.Second)
		_, err := d.Take(budget.Background)
		refusal := refusalOf(err)
		if !refusal.Ends.Equal(ends) {
			t.Fatalf("shown as %s, want %s", refusal.Ends, ends)
		}
		if !refusal.Until.After(previous) {
			t.Fatalf("first until %s, then until %s", previous, refusal.Until)
		}
		if late := refusal.Until.Sub(ends); late < 0 || late >= time.Minute {
			t.Fatalf("it comes back %s after the reset", late)
		}
		previous = refusal.Until
	}
}

// Thousands of writers wait for the reset. They do not come back in one instant; who goes first comes
// back first; and it does not take long in a window that is short.
func TestComingBackAfterTheReset(t *testing.T) {
	for _, length := range []time.Duration{6 * time.Second, time.Minute, time.Hour} {
		t.Run(length.String(), func(t *testing.T) {
			d := newDesk(t, budget.Config{})
			d.call(budget.Urgent, announce(200, 5000, 0, length))
			first, last := map[budget.Priority]time.Time{}, map[budget.Priority]time.Time{}
			perSecond := map[time.Duration]int{}
			opens := d.time.Add(length + 2*time.Second)
			for range 3000 {
				for _, p := range []budget.Priority{budget.Background, budget.Write, budget.Urgent, budget.Poll} {
					at := d.time.Add(d.refused(p, budget.Exhausted))
					if first[p].IsZero() {
						first[p] = at
					} else if !at.After(last[p]) {
						t.Fatalf("%s: one until %s, the next until %s", p, last[p], at)
					}
					last[p] = at
					if p == budget.Write {
						perSecond[at.Sub(opens).Truncate(time.Second)]++
					}
				}
			}
			if !first[budget.Urgent].Equal(opens) {
				t.Errorf("the first comes %s after the window has opened", first[budget.Urgent].Sub(opens))
			}
			if first[budget.Write].Before(last[budget.Urgent]) || first[budget.Background].Before(last[budget.Write]) || first[budget.Poll].Before(last[budget.Write]) {
				t.Errorf("first %v, last %v", first, last)
			}
			for p, at := range last {
				if span := at.Sub(opens); span > length/60 {
					t.Errorf("%s: the last comes %s after the window has opened", p, span)
				}
			}
			if length == time.Hour {
				for second, n := range perSecond {
					if n > 3000/4 {
						t.Errorf("%d writers come in second %s", n, second)
					}
				}
			}
		})
	}
}

func TestThrottled(t *testing.T) {
	tests := map[string]struct {
		answer budget.Answer
		want   time.Duration
		why    budget.Reason
	}{
		"until the reset":                   {announce(429, 5000, 0, 10*time.Minute), 10*time.Minute + 2500*time.Millisecond, budget.Exhausted},
		"though some should remain":         {announce(429, 5000, 9, 10*time.Minute), 10*time.Minute + 2500*time.Millisecond, budget.Exhausted},
		"for a minute if nobody says more":  {budget.Answer{StatusCode: 429}, time.Minute, budget.Exhausted},
		"for as long as Retry-After says":   {budget.Answer{StatusCode: 429, RetryAfter: 20 * time.Second}, 20 * time.Second, budget.Exhausted},
		"Retry-After of a 503":              {budget.Answer{StatusCode: 503, RetryAfter: 20 * time.Second}, 20 * time.Second, budget.Pacing},
		"Retry-After of a success":          {budget.Answer{StatusCode: 200, RetryAfter: 20 * time.Second}, 20 * time.Second, budget.Pacing},
		"Retry-After of a week is not kept": {budget.Answer{StatusCode: 503, RetryAfter: 7 * 24 * time.Hour}, time.Hour, budget.Pacing},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, budget.Config{Jitter: func() float64 { return 0.5 }})
			d.call(budget.Write, budget.Answer{StatusCode: 200})
			d.call(budget.Write, test.answer)
			if got := d.refused(budget.Urgent, test.why); got != test.want {
				t.Errorf("it stops for %s, want %s", got, test.want)
			}
			if got := d.refused(budget.Background, test.why); got <= test.want || got > test.want+test.want/60 {
				t.Errorf("others are stopped for %s, want a little more than %s", got, test.want)
			}
			_, err := d.Take(budget.Urgent)
			if shown := refusalOf(err).Ends; test.why == budget.Exhausted && !shown.Equal(d.time.Add(test.want)) || test.why == budget.Pacing && !shown.IsZero() {
				t.Errorf("it is shown to end at %s", shown)
			}
			if got := d.State().StoppedUntil.Sub(d.time); got != test.want {
				t.Errorf("the state says %s", got)
			}
			if rate := d.PollRate(); rate != 0 {
				t.Errorf("%f polls a second while nobody goes", rate)
			}
			d.wait(test.want)
			d.take(budget.Urgent)
			if !d.State().StoppedUntil.IsZero() {
				t.Error("the state still says so")
			}
		})
	}
}

// The story of a token that never worked, until its organisation makes it work.
func TestRejectedToken(t *testing.T) {
	d := newDesk(t, budget.Config{})
	d.call(budget.Write, budget.Answer{StatusCode: 401})

	for _, p := range []budget.Priority{budget.Urgent, budget.Background} {
		if got := d.refused(p, budget.Unauthorized); got != 30*time.Minute {
			t.Errorf("the next probe is in %s", got)
		}
	}
	d.wait(time.Minute)
	if state := d.State(); !state.Unauthorized || state.NextProbe.Sub(d.time) != 29*time.Minute || d.PollRate() != 0 {
		t.Errorf("the state says %+v", state)
	}

	d.wait(29 * time.Minute)
	if d.PollRate() == 0 {
		t.Error("a poll cannot be the probe")
	}
	probe := d.take(budget.Background)
	if got := d.refused(budget.Urgent, budget.Unauthorized); got > time.Second {
		t.Errorf("while the probe is on its way others are put off for %s", got)
	}
	d.wait(time.Second)
	probe.Done(budget.Answer{StatusCode: 401})
	if got := d.refused(budget.Urgent, budget.Unauthorized); got != 30*time.Minute {
		t.Errorf("the second probe is in %s", got)
	}

	d.wait(30 * time.Minute)
	d.take(budget.Background).Release()      // could not connect: it was no probe
	for _, status := range []int{500, 502} { // which say nothing of the token
		d.take(budget.Background).Done(budget.Answer{StatusCode: status})
		if got := d.refused(budget.Urgent, budget.Unauthorized); got != 30*time.Minute {
			t.Errorf("after a probe that got %d the next is in %s", status, got)
		}
		d.wait(30 * time.Minute)
	}

	d.call(budget.Background, announce(200, 100, 50, time.Hour))
	if state := d.State(); state.Unauthorized || !state.NextProbe.IsZero() {
		t.Errorf("after a good answer the state says %+v", state)
	}
	d.take(budget.Urgent)
	d.take(budget.Urgent)
}

// A token that has worked before a restart gets the second chance of one that has worked since.
func TestVouchedToken(t *testing.T) {
	for name, story := range map[string]func(*desk){
		"before its first request": func(d *desk) {
			d.Vouch()
			d.call(budget.Write, budget.Answer{StatusCode: 401})
		},
		"after its first request": func(d *desk) {
			d.call(budget.Write, budget.Answer{StatusCode: 401})
			d.Vouch()
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, budget.Config{})
			story(d)
			d.Vouch() // as every resource does
			if got := d.refused(budget.Urgent, budget.Unproven); got != 5*time.Second {
				t.Errorf("the next request goes in %s", got)
			}
			d.wait(5 * time.Second)
			d.call(budget.Background, budget.Answer{StatusCode: 401})
			d.Vouch()
			if got := d.refused(budget.Urgent, budget.Unauthorized); got != 10*time.Second {
				t.Errorf("after the second 401 the next request goes in %s", got)
			}
		})
	}
}

// One 401 may be a gateway's. A token that was good is put in doubt by it, and tried again alone.
func TestFirstStrike(t *testing.T) {
	good := announce(200, 100, 50, time.Hour)
	struck := func(t *testing.T) *desk {
		d := newDesk(t, budget.Config{})
		d.call(budget.Write, good)
		d.call(budget.Write, budget.Answer{StatusCode: 401})
		if d.State().Unauthorized {
			t.Error("it is rejected")
		}
		if d.PollRate() != 0 {
			t.Error("polls are handed out")
		}
		return d
	}
	alone := func(t *testing.T, d *desk) *budget.Ticket {
		t.Helper()
		if got := d.refused(budget.Urgent, budget.Unproven); got != 5*time.Second {
			t.Errorf("the next request goes in %s", got)
		}
		d.wait(5 * time.Second)
		ticket := d.take(budget.Background)
		d.refused(budget.Urgent, budget.Unproven)
		return ticket
	}
	mustBeClear := func(t *testing.T, d *desk) {
		t.Helper()
		d.take(budget.Urgent)
		d.take(budget.Urgent)
		if d.State().Unauthorized {
			t.Error("it is rejected")
		}
	}
	for name, word := range map[string]budget.Answer{
		"a success":              good,
		"a missing object":       {StatusCode: 404},
		"an error of the API":    announce(500, 100, 50, time.Hour),
		"a 401 with its headers": announce(401, 100, 50, time.Hour),
	} {
		t.Run("is forgotten after "+name, func(t *testing.T) {
			d := struck(t)
			alone(t, d).Done(word)
			mustBeClear(t, d)
			d.call(budget.Write, budget.Answer{StatusCode: 401})
			if d.State().Unauthorized {
				t.Error("the next strike counts as the second")
			}
		})
	}
	for name, silence := range map[string]budget.Answer{
		"no answer":             {},
		"an error of a proxy":   {StatusCode: 502},
		"a 429 without headers": {StatusCode: 429},
	} {
		t.Run("is remembered after "+name, func(t *testing.T) {
			d := struck(t)
			alone(t, d).Done(silence)
			d.wait(2 * time.Minute)
			d.call(budget.Urgent, budget.Answer{StatusCode: 401})
			d.refused(budget.Urgent, budget.Unauthorized)
		})
	}
	t.Run("takes those along that were on their way", func(t *testing.T) {
		d := newDesk(t, budget.Config{})
		d.call(budget.Write, good)
		flock := []*budget.Ticket{d.take(budget.Write), d.take(budget.Write), d.take(budget.Write)}
		for _, ticket := range flock {
			ticket.Done(budget.Answer{StatusCode: 401})
		}
		if d.State().Unauthorized {
			t.Error("it is rejected in one moment")
		}
		alone(t, d).Done(good)
		mustBeClear(t, d)
	})
	t.Run("is outweighed by what was sent later", func(t *testing.T) {
		d := newDesk(t, budget.Config{})
		d.call(budget.Write, good)
		first, second := d.take(budget.Write), d.take(budget.Write)
		first.Done(budget.Answer{StatusCode: 401})
		second.Done(good)
		mustBeClear(t, d)
	})
	t.Run("is not outweighed by what was sent earlier", func(t *testing.T) {
		d := newDesk(t, budget.Config{})
		d.call(budget.Write, good)
		first, second := d.take(budget.Write), d.take(budget.Write)
		second.Done(budget.Answer{StatusCode: 401})
		first.Done(good)
		d.refused(budget.Urgent, budget.Unproven)
	})
	t.Run("is looked into at once when somebody says so", func(t *testing.T) {
		d := struck(t)
		d.Reconsider()
		d.call(budget.Background, good)
		mustBeClear(t, d)
	})
}

// The story of a token that worked, is revoked, and works again: it is tried soon, and less and less
// often.
func TestSecondStrike(t *testing.T) {
	good := announce(200, 1000, 500, 2*time.Hour)
	d := newDesk(t, budget.Config{})
	d.call(budget.Write, good)
	before, alongside := d.take(budget.Write), d.take(budget.Write)
	d.call(budget.Write, budget.Answer{StatusCode: 401})
	d.wait(5 * time.Second)
	d.call(budget.Write, budget.Answer{StatusCode: 401})
	before.Done(good) // was on its way before the token was revoked
	alongside.Done(budget.Answer{StatusCode: 401})

	for _, want := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second} {
		if got := d.refused(budget.Urgent, budget.Unauthorized); got != want {
			t.Errorf("the next probe is in %s, want %s", got, want)
		}
		d.wait(want)
		d.call(budget.Background, budget.Answer{StatusCode: 401})
	}
	probes := 4
	for began := d.time; d.time.Sub(began) < 2*time.Hour; probes++ {
		got := d.refused(budget.Urgent, budget.Unauthorized)
		if got > 30*time.Minute {
			t.Fatalf("the next probe is in %s", got)
		}
		d.wait(got)
		d.call(budget.Urgent, budget.Answer{StatusCode: 401})
	}
	if probes > 13 {
		t.Errorf("%d probes in two hours", probes)
	}
	d.wait(30 * time.Minute)
	d.call(budget.Background, good)
	d.take(budget.Urgent)
	d.take(budget.Urgent)
}

// A probe that the budget itself does not let go is not used up.
func TestProbeAgainstSpentBudget(t *testing.T) {
	d := newDesk(t, budget.Config{})
	d.call(budget.Write, announce(200, 100, 12, 40*time.Minute))
	d.call(budget.Write, budget.Answer{StatusCode: 401})
	d.wait(5 * time.Second)
	d.call(budget.Write, budget.Answer{StatusCode: 401})
	d.wait(30 * time.Minute)
	d.refused(budget.Background, budget.Exhausted)
	d.take(budget.Urgent)
}

// An older 401 does not outweigh a newer success, and a newer one does.
func TestLateRejection(t *testing.T) {
	d := newDesk(t, budget.Config{})
	d.call(budget.Write, announce(200, 100, 50, time.Hour))
	old := d.take(budget.Write)
	d.call(budget.Write, announce(200, 100, 49, time.Hour))
	old.Done(budget.Answer{StatusCode: 401})
	d.take(budget.Write)

	first, second, third := d.take(budget.Write), d.take(budget.Write), d.take(budget.Write)
	first.Done(budget.Answer{StatusCode: 401})
	second.Done(announce(200, 100, 48, time.Hour))
	third.Done(budget.Answer{StatusCode: 401})
	d.refused(budget.Write, budget.Unproven)
}

func TestUnprovenTokenGoesAlone(t *testing.T) {
	for name, test := range map[string]struct {
		answer budget.Answer
		proven bool
	}{
		"a success":             {budget.Answer{StatusCode: 200}, true},
		"a missing object":      {budget.Answer{StatusCode: 404}, true},
		"a success with window": {announce(200, 100, 50, time.Hour), true},
		"an error of the API":   {announce(500, 100, 50, time.Hour), true},
		"an error of a proxy":   {budget.Answer{StatusCode: 502}, false},
		"no answer":             {budget.Answer{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, budget.Config{})
			first := d.take(budget.Background)
			d.refused(budget.Urgent, budget.Unproven)
			first.Done(test.answer)
			d.take(budget.Background)
			_, err := d.Take(budget.Urgent)
			if proven := err == nil; proven != test.proven {
				t.Errorf("the second goes along: %t", proven)
			}
		})
	}
}

// A request that was let through before the token came into doubt, and is given back, is not the one
// that goes alone.
func TestGivingBackDoesNotSendASecondAlone(t *testing.T) {
	d := newDesk(t, budget.Config{})
	d.call(budget.Write, announce(200, 100, 50, time.Hour))
	before := d.take(budget.Write)
	d.call(budget.Write, budget.Answer{StatusCode: 401})
	d.wait(5 * time.Second)
	d.take(budget.Write)
	before.Release()
	d.refused(budget.Write, budget.Unproven)
}

// What was let through some time ago goes only if it still may.
func TestRenewal(t *testing.T) {
	for name, test := range map[string]struct {
		meanwhile []budget.Answer // to others, five seconds apart
		why       budget.Reason
	}{
		"a 429 has stopped everybody":  {[]budget.Answer{announce(429, 100, 0, time.Hour)}, budget.Exhausted},
		"others have spent the window": {[]budget.Answer{announce(200, 100, 1, time.Hour)}, budget.Exhausted},
		"the token has been rejected":  {[]budget.Answer{{StatusCode: 401}, {StatusCode: 401}}, budget.Unauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, budget.Config{})
			d.call(budget.Write, announce(200, 100, 50, time.Hour))
			ticket := d.take(budget.Write)
			for _, answer := range test.meanwhile {
				d.call(budget.Write, answer)
				d.wait(5 * time.Second)
			}
			err := ticket.Renew()
			if err == nil {
				t.Fatalf("it goes; want %s", test.why)
			}
			if got := refusalOf(err).Reason; got != test.why {
				t.Errorf("it is refused as %s; want %s", got, test.why)
			}
			ticket.Release()
			if n := d.State().InFlight; n != 0 {
				t.Errorf("%d in flight", n)
			}
		})
	}
	t.Run("it has the last of the window itself", func(t *testing.T) {
		d := newDesk(t, budget.Config{})
		d.call(budget.Write, announce(200, 100, 2, time.Hour)) // one is left to what is urgent
		ticket := d.take(budget.Write)
		d.refused(budget.Write, budget.Exhausted)
		if err := ticket.Renew(); err != nil {
			t.Error(err)
		}
	})
	t.Run("it is what finds out about the token", func(t *testing.T) {
		d := newDesk(t, budget.Config{})
		ticket := d.take(budget.Write)
		d.wait(time.Minute)
		if err := ticket.Renew(); err != nil {
			t.Fatal(err)
		}
		if in := d.refused(budget.Write, budget.Unproven); in > 100*time.Millisecond {
			t.Errorf("others come back in %s: it is not known when it was sent", in)
		}
		ticket.Done(announce(200, 100, 50, time.Hour))
		d.take(budget.Write)
	})
	t.Run("the window that it was taken in is over", func(t *testing.T) {
		d := newDesk(t, budget.Config{})
		d.call(budget.Write, announce(200, 100, 50, time.Minute))
		ticket := d.take(budget.Write)
		d.wait(2 * time.Minute)
		if err := ticket.Renew(); err != nil {
			t.Fatal(err)
		}
		ticket.Done(announce(429, 100, 0, time.Hour)) // of the new one
		d.refused(budget.Urgent, budget.Exhausted)
	})
}

// Those who wait for the first answer ask less and less often, so that an API that
// hangs does not keep a thousand of them busy.
func TestUnprovenPatience(t *testing.T) {
	d := newDesk(t, budget.Config{})
	d.take(budget.Background)
	for _, step := range []struct{ after, want time.Duration }{
		{0, 100 * time.Millisecond},
		{time.Second, time.Second},
		{20 * time.Second, 5 * time.Second},
	} {
		d.wait(step.after)
		if got := d.refused(budget.Write, budget.Unproven); got != step.want {
			t.Errorf("%s later they are told to come back in %s", step.after, got)
		}
	}
}

// Hundreds who are refused by the plain rate come back one after another, and an
// impatient one does not put the others off.
func TestSlots(t *testing.T) {
	d := newDesk(t, budget.Config{QPS: 10})
	d.call(budget.Write, budget.Answer{StatusCode: 200})
	for {
		if _, err := d.Take(budget.Write); err != nil {
			break
		}
	}
	seen := map[time.Duration]bool{}
	for range 500 {
		seen[d.refused(budget.Write, budget.Pacing)] = true
	}
	if len(seen) != 500 {
		t.Errorf("500 callers share %d slots", len(seen))
	}
	for range 5000 {
		d.refused(budget.Write, budget.Pacing)
	}
	if got := d.refused(budget.Write, budget.Pacing); got > time.Minute {
		t.Errorf("an impatient caller puts the others off for %s", got)
	}
	if got := d.refused(budget.Background, budget.Pacing); got > time.Second {
		t.Errorf("it puts listings off for %s", got)
	}
	d.take(budget.Urgent) // the last token was kept
	if got := d.refused(budget.Urgent, budget.Pacing); got > 200*time.Millisecond {
		t.Errorf("the next cancel waits for %s", got)
	}
}

// A second's worth may go at once, and two more are kept for those who go first.
func TestBurst(t *testing.T) {
	d := newDesk(t, budget.Config{QPS: 10})
	d.call(budget.Write, budget.Answer{StatusCode: 200})
	d.wait(time.Second)
	for _, test := range []struct {
		p    budget.Priority
		many int
	}{{budget.Background, 10}, {budget.Poll, 0}, {budget.Write, 1}, {budget.Urgent, 1}} {
		for range test.many {
			d.take(test.p)
		}
		if got := d.refused(test.p, budget.Pacing); got > 100*time.Millisecond+1 {
			t.Errorf("%s: the one after %d comes back in %s", test.p, test.many, got)
		}
	}
}

// Whoever comes back at the time that it was given goes, however the rate divides a second.
func TestSlotsAreKept(t *testing.T) {
	for _, qps := range []float64{0.3, 3, 7, 3000} {
		d := newDesk(t, budget.Config{QPS: qps})
		d.call(budget.Write, budget.Answer{StatusCode: 200})
		for range 2 * int(qps+1) {
			if _, err := d.Take(budget.Write); err != nil {
				d.wait(refusalOf(err).Until.Sub(d.time))
				d.take(budget.Write)
			}
		}
	}
}

func TestPollRate(t *testing.T) {
	d := newDesk(t, budget.Config{QPS: 8})
	if got := d.PollRate(); got != 4 {
		t.Errorf("%g without a window, want half of the rate", got)
	}
	for _, test := range []struct {
		remaining int
		reset     time.Duration
		want      float64
	}{
		{5000, time.Hour, 4500. / 3600},
		{2300, 30 * time.Minute, 1},
		{511, 30 * time.Minute, 11. / 1800},
		{510, 30 * time.Minute, 0}, // the last ten are not worth it
		{500, 30 * time.Minute, 0},
		{3, 30 * time.Minute, 0},
		{5000, time.Second, 75}, // as if there were a minute left
	} {
		d := newDesk(t, budget.Config{})
		d.call(budget.Write, announce(200, 5000, 5000, time.Hour)) // so long are the windows
		d.call(budget.Write, announce(200, 5000, test.remaining, test.reset))
		if got := d.PollRate(); math.Abs(got-test.want) > 1e-9 {
			t.Errorf("%d for %s: %g, want %g", test.remaining, test.reset, got, test.want)
		}
	}
}
