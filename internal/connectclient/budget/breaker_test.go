// SPDX-License-Identifier: Apache-2.0

package budget_test

import (
	"testing"
	"time"

	"rpi-connect.dev/operator/internal/connectclient/budget"
)

// fuse is a breaker whose clock and whose outcomes are in the test's hands.
type fuse struct {
	*testing.T
	*budget.Breaker
	time time.Time
}

func newFuse(t *testing.T) *fuse {
	f := &fuse{T: t, time: noon}
	f.Breaker = budget.NewBreaker(func() time.Time { return f.time })
	return f
}

func (f *fuse) wait(by time.Duration) { f.time = f.time.Add(by) }

// try sends a request that must be let through.
func (f *fuse) try() *budget.Attempt {
	f.Helper()
	attempt, err := f.Try()
	if err != nil {
		f.Fatalf("%v until %s", err, refusalOf(err).Until.Sub(f.time))
	}
	return attempt
}

// refused asks for a request that must be refused, and tells when to come back.
func (f *fuse) refused() time.Duration {
	f.Helper()
	_, err := f.Try()
	if err == nil {
		f.Fatal("the request may go")
	}
	refusal := refusalOf(err)
	if refusal.Reason != budget.Outage || !refusal.Until.After(f.time) {
		f.Fatalf("%s until %s", refusal.Reason, refusal.Until.Sub(f.time))
	}
	return refusal.Until.Sub(f.time)
}

// blow has requests fail until the breaker opens, and returns how many that were.
func (f *fuse) blow() (failures int) {
	f.Helper()
	for !f.Open() && failures < 100 {
		f.try().End(budget.Failed)
		failures++
	}
	return failures
}

func TestBreakerOpensAfterAFewFailuresInARow(t *testing.T) {
	f := newFuse(t)
	if failures := f.blow(); failures != 5 {
		t.Errorf("it opens after %d failures", failures)
	}
	if f.Ready() {
		t.Error("it is ready")
	}
	if got := f.refused(); got < 2*time.Second || got > 2100*time.Millisecond {
		t.Errorf("the first probe goes in %s", got)
	}
}

func TestBreakerStaysClosed(t *testing.T) {
	for name, happens := range map[string]func(*fuse){
		"while a single route fails among others that work": func(f *fuse) {
			for range 100 {
				for range 3 {
					f.try().End(budget.Failed)
				}
				f.try().End(budget.Answered)
			}
		},
		"when callers give up": func(f *fuse) {
			for range 100 {
				f.try().End(budget.Inconclusive)
			}
		},
		"when requests are not sent": func(f *fuse) {
			for range 100 {
				f.try().End(budget.Unsent)
			}
		},
		"when requests that had hung fail after others were answered": func(f *fuse) {
			var hung []*budget.Attempt
			for range 100 {
				hung = append(hung, f.try())
			}
			f.try().End(budget.Answered)
			for _, attempt := range hung {
				attempt.End(budget.Failed)
			}
		},
		"when requests that had hung fail after others were answered, and callers gave up meanwhile": func(f *fuse) {
			var given, hung []*budget.Attempt
			for range 20 {
				given = append(given, f.try())
			}
			for range 20 {
				hung = append(hung, f.try())
			}
			answered := f.try()
			for _, attempt := range given {
				attempt.End(budget.Inconclusive)
			}
			answered.End(budget.Answered)
			for _, attempt := range hung {
				attempt.End(budget.Failed)
			}
		},
		"when one failure is told of many times": func(f *fuse) {
			attempt := f.try()
			for range 100 {
				attempt.End(budget.Failed)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFuse(t)
			happens(f)
			if f.Open() || !f.Ready() {
				t.Error("it is open")
			}
			f.try()
		})
	}
}

// A request that goes on for another, whose answer said nothing, counts like any other: it was sent
// after the last answer came.
func TestBreakerCountsWhatGoesOn(t *testing.T) {
	f := newFuse(t)
	f.try().End(budget.Inconclusive)
	f.try().End(budget.Answered)
	f.Continue().End(budget.Failed)
	if failures := f.blow(); failures != 4 {
		t.Errorf("it opens after %d more failures", failures)
	}
}

// While it is open one request goes at a time, after 2, 4, 8 seconds and then every 10, whoever comes
// first.
func TestBreakerProbes(t *testing.T) {
	f := newFuse(t)
	f.blow()
	for _, pause := range []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 10 * time.Second, 10 * time.Second, 10 * time.Second} {
		f.wait(pause - 1)
		f.refused()
		f.wait(1)
		if !f.Ready() {
			t.Error("no probe is due")
		}
		probe := f.try()
		if f.Ready() {
			t.Error("a second probe is due at once")
		}
		f.refused()
		if retryAt := probe.End(budget.Failed); !retryAt.After(f.time) {
			t.Errorf("whoever probed in vain is told to come back %s", retryAt.Sub(f.time))
		}
		f.refused()
	}
}

func TestBreakerClosesWithTheFirstAnswer(t *testing.T) {
	f := newFuse(t)
	f.blow()
	f.wait(2 * time.Second)
	if retryAt := f.try().End(budget.Answered); !retryAt.IsZero() {
		t.Error("whoever was answered is told to come back")
	}
	for range 100 {
		f.try()
	}
	if failures := f.blow(); failures != 5 {
		t.Errorf("it opens again after %d failures", failures)
	}
	if got := f.refused(); got < 2*time.Second || got > 2100*time.Millisecond {
		t.Errorf("the first probe of the next outage goes in %s", got)
	}
}

// A probe that hangs for a minute keeps nobody from probing.
func TestBreakerDoesNotWaitForAProbe(t *testing.T) {
	f := newFuse(t)
	f.blow()
	f.wait(2 * time.Second)
	hanging := f.try()
	f.wait(4 * time.Second)
	f.try().End(budget.Answered)
	hanging.End(budget.Failed)
	if f.Open() {
		t.Error("a probe that hung outweighs a later answer")
	}
}

// A probe that was not sent after all, because the budget did not let it go, is not used up.
func TestBreakerProbeThatWasNotSent(t *testing.T) {
	f := newFuse(t)
	f.blow()
	f.wait(2 * time.Second)
	for range 10 {
		f.try().End(budget.Unsent)
	}
	f.try().End(budget.Failed)
	f.wait(4 * time.Second)
	probe := f.try()
	f.wait(8 * time.Second)
	f.try()
	probe.End(budget.Unsent) // another has taken its place
	f.refused()
}

// What was on its way when the breaker opened does not put the probes off.
func TestBreakerStragglers(t *testing.T) {
	f := newFuse(t)
	var flock []*budget.Attempt
	for range 20 {
		flock = append(flock, f.try())
	}
	for _, attempt := range flock {
		attempt.End(budget.Failed)
	}
	if got := f.refused(); got > 2*time.Second+100*time.Millisecond {
		t.Errorf("the first probe goes in %s", got)
	}
	f.wait(2 * time.Second)
	f.try()
}

// A thousand who were refused go on within seconds, and not in one instant.
func TestComingBackAfterAnOutage(t *testing.T) {
	f := newFuse(t)
	f.blow()
	seen := map[time.Duration]bool{}
	for range 1000 {
		until := f.refused()
		if until < 2*time.Second || until > 7*time.Second {
			t.Fatalf("one comes back in %s", until)
		}
		seen[until.Truncate(10*time.Millisecond)] = true
	}
	if len(seen) < 200 {
		t.Errorf("a thousand share %d moments", len(seen))
	}
}

// Half an hour of 503 for a thousand running deployments, and for a hundred callers who insist.
func TestOutageIsCheap(t *testing.T) {
	w := newWorld()
	s := newServer(w)
	s.breaker = budget.NewBreaker(w.now)
	f := newFleet(s, budget.Config{}, always(15*time.Second))
	f.start(1000)
	w.runFor(30 * time.Minute)

	s.status, s.older = 503, true // nothing of what is answered is the API's
	before := s.requests
	served := 0
	for range 100 {
		s.insist(f.budget, budget.Write, func(time.Duration) { served++ })
	}
	w.runFor(30 * time.Minute)
	cost := s.requests - before
	t.Logf("%d requests", cost)
	if cost > 300 {
		t.Errorf("%d requests in 30 minutes of 503", cost)
	}

	s.status, s.older = 200, false
	served, f.polls = 0, 0
	for range 100 {
		s.insist(f.budget, budget.Write, func(time.Duration) { served++ })
	}
	w.runFor(20 * time.Second)
	if served != 100 || f.polls == 0 {
		t.Errorf("20 seconds after the outage %d of 100 have gone on, and %d polls", served, f.polls)
	}
	w.runFor(2 * time.Hour)
	mustNotBeThrottled(t, s)
}

// Polls are all that goes, so a poll is what finds out that the API is back.
func TestPollsAloneEndAnOutage(t *testing.T) {
	w := newWorld()
	s := newServer(w)
	s.breaker = budget.NewBreaker(w.now)
	f := newFleet(s, budget.Config{}, always(15*time.Second))
	f.start(500)
	w.runFor(30 * time.Minute)

	s.status, s.older = 503, true
	before := s.requests
	w.runFor(time.Minute)
	cost := s.requests - before
	t.Logf("%d requests in a minute of 503", cost)
	if cost > 60 {
		t.Errorf("%d requests in a minute of 503", cost)
	}
	s.status, s.older = 200, false
	before = s.requests
	w.runFor(15 * time.Second)
	if s.breaker.Open() || s.requests-before < 2 {
		t.Errorf("15 seconds after the outage there were %d polls", s.requests-before)
	}
}
