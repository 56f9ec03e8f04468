// SPDX-License-Identifier: Apache-2.0

package budget_test

import (
	"testing"
	"time"
	"unsafe"

	"rpi-connect.dev/operator/internal/connectclient/budget"
)

// setClock is a machine's clock that somebody sets: what it shows jumps, and the monotonic reading
// that time.Now keeps beside it goes on as if nothing had happened.
type setClock struct{ shown time.Time }

func newSetClock() *setClock { return &setClock{shown: time.Now()} }

func (c *setClock) now() time.Time { return c.shown }

// pass lets time pass.
func (c *setClock) pass(by time.Duration) { c.shown = c.shown.Add(by) }

// set changes what the clock shows. Package time has no way to do that, for good reasons: the second
// word of a time.Time that has a monotonic reading is that reading in nanoseconds.
func (c *setClock) set(by time.Duration) {
	c.shown = c.shown.Add(by)
	*(*int64)(unsafe.Add(unsafe.Pointer(&c.shown), unsafe.Sizeof(uint64(0)))) -= int64(by)
}

func TestSetClock(t *testing.T) {
	c := newSetClock()
	before := c.now()
	c.pass(time.Minute)
	c.set(-5 * time.Hour)
	if passed, shown := c.now().Sub(before), c.now().Round(0).Sub(before.Round(0)); passed != time.Minute || shown != time.Minute-5*time.Hour {
		t.Fatalf("%s have passed, and %s are shown to have", passed, shown)
	}
}

// Somebody sets the machine's clock, hours forth or back. What was waited for comes when it was due:
// neither early, nor hours late.
func TestClockThatIsSet(t *testing.T) {
	const wait = 20 * time.Minute
	for name, answers := range map[string][]budget.Answer{
		"the end of the window":             {announce(200, 100, 0, wait)},
		"the end of a 429":                  {announce(429, 100, 0, wait)},
		"the end of a Retry-After":          {{StatusCode: 503, RetryAfter: wait}},
		"the next probe of a refused token": {{StatusCode: 401}},
	} {
		for _, step := range []time.Duration{-26 * time.Hour, -time.Hour, -time.Minute, time.Minute, time.Hour, 26 * time.Hour} {
			t.Run(name+", set by "+step.String(), func(t *testing.T) {
				c := newSetClock()
				b := budget.New(budget.Config{Now: c.now, ProbeInterval: wait, Jitter: func() float64 { return 0 }})
				for _, answer := range answers {
					ticket, err := b.Take(budget.Urgent)
					if err != nil {
						t.Fatal(err)
					}
					ticket.Done(answer)
				}
				c.pass(time.Minute)
				c.set(step)
				_, err := b.Take(budget.Urgent)
				if err == nil {
					t.Fatal("it opens early")
				}
				if left := refusalOf(err).Until.Sub(c.now()); left < wait-time.Minute || left > wait {
					t.Fatalf("it is to open in %s", left)
				}
				c.pass(wait - time.Minute - time.Second)
				if _, err := b.Take(budget.Urgent); err == nil {
					t.Fatal("it opens early")
				}
				c.pass(time.Second + 3*time.Second)
				if _, err := b.Take(budget.Urgent); err != nil {
					t.Fatalf("it stays closed for %s", refusalOf(err).Until.Sub(c.now()))
				}
			})
		}
	}
}

// The same for a breaker, a plain rate and polls.
func TestClockThatIsSetPacesNobody(t *testing.T) {
	for _, step := range []time.Duration{-26 * time.Hour, 26 * time.Hour} {
		c := newSetClock()
		breaker := budget.NewBreaker(c.now)
		for range 5 {
			if attempt, err := breaker.Try(); err == nil {
				attempt.End(budget.Failed)
			}
		}
		c.set(step)
		if breaker.Ready() {
			t.Errorf("set by %s, the breaker lets a probe go early", step)
		}
		c.pass(2 * time.Second)
		if !breaker.Ready() {
			t.Errorf("set by %s, the breaker lets no probe go", step)
		}

		b := budget.New(budget.Config{Now: c.now})
		poller := budget.NewPoller[string](b.PollRate)
		poller.Seen("kiosk-1", time.Minute, c.now())
		poller.Next(c.now())
		c.set(step)
		if _, ok, wait := poller.Next(c.now()); ok || wait != time.Minute {
			t.Errorf("set by %s, the next poll is due in %s", step, wait)
		}
		for {
			if ticket, err := b.Take(budget.Write); err == nil {
				ticket.Done(budget.Answer{StatusCode: 200})
				continue
			}
			break
		}
		c.set(step)
		if _, err := b.Take(budget.Write); err == nil || refusalOf(err).Until.Sub(c.now()) > time.Second {
			t.Errorf("set by %s, the plain rate refuses: %v", step, err)
		}
	}
}
