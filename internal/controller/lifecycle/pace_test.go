// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"testing"
	"time"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// passes counts how often a resource is worked on within some time, if each pass ends with the
// outcome and something wakes it all the time.
func passes(outcome func(pass int) Outcome, lasting time.Duration, wakes bool) int {
	var p pace
	n := 0
	for now := noon; now.Before(noon.Add(lasting)); {
		if wait := p.wait("kiosk", now); wait > 0 {
			if wakes {
				now = now.Add(10 * time.Millisecond)
				continue
			}
			now = now.Add(wait)
		}
		n++
		next := p.next(outcome(n), now)
		if next <= 0 || wakes {
			next = 10 * time.Millisecond
		}
		now = now.Add(next)
	}
	return n
}

func TestNothingBypassesTheBackoff(t *testing.T) {
	for name, outcome := range map[string]func(int) Outcome{
		"asks to look again": func(int) Outcome { return RequeueWithBackoff() },
		"asks to look again after each listing that it waited for": func(n int) Outcome {
			if n%2 == 0 {
				return NoChange(0)
			}
			return RequeueWithBackoff()
		},
		"waits for a device that is listed and not there": func(int) Outcome {
			return Waiting(v1alpha1.ReasonDeviceNotFound, "Waiting.").WithBackoff()
		},
	} {
		t.Run("a resource that "+name, func(t *testing.T) {
			for _, wakes := range []bool{false, true} {
				if n := passes(outcome, 5*time.Second, wakes); n > 8 && !wakes || n > 16 {
					t.Errorf("it is worked on %d times in 5 s, being woken all the time: %t", n, wakes)
				}
				if n := passes(outcome, time.Hour, wakes); n > 140 {
					t.Errorf("it is worked on %d times in an hour, being woken all the time: %t", n, wakes)
				}
			}
		})
	}
}

func TestRequeuesHaveAFloor(t *testing.T) {
	ready := Ready(v1alpha1.ReasonUsable, "It is usable.")
	for name, test := range map[string]struct {
		asks       time.Duration
		inAMinute  int
		inTwoHours int
	}{
		"by a clock that is ahead, always in a moment": {time.Millisecond, 10, 130},
		"always in a second":                           {time.Second, 10, 130},
		"every ten seconds":                            {10 * time.Second, 7, 721},
		"in an hour":                                   {time.Hour, 1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			outcome := func(int) Outcome { return ready.WithRequeueAfter(test.asks) }
			if n := passes(outcome, time.Minute, false); n > test.inAMinute {
				t.Errorf("it is worked on %d times in a minute", n)
			}
			if n := passes(outcome, 2*time.Hour, false); n > test.inTwoHours {
				t.Errorf("it is worked on %d times in two hours", n)
			}
		})
	}
}

// Three looks in a second or less are free; from then on they take longer and longer, until the resource
// asks for a minute or more: that begins anew. Whoever asks for none is left alone, however often it is
// woken.
func TestHurriesAreCounted(t *testing.T) {
	const moment, day = time.Millisecond, 24 * time.Hour
	var p pace
	for i, look := range []struct{ asks, in time.Duration }{
		{moment, moment}, {time.Second, time.Second}, {moment, moment}, {moment, time.Second}, {moment, 2 * time.Second}, {moment, 4 * time.Second},
		{time.Minute, time.Minute}, {moment, moment}, {0, 0}, {moment, moment}, {0, 0}, {0, 0}, {moment, moment}, {moment, time.Second},
		{0, 0}, {moment, 2 * time.Second}, {day, day}, {moment, moment},
	} {
		if got := p.next(NoChange(look.asks), noon); got != look.in {
			t.Errorf("look %d, asked for in %s, comes in %s, want %s", i, look.asks, got, look.in)
		}
	}
}

// What failed together does not come back together.
func TestBackoffsAreSpread(t *testing.T) {
	var soonest, latest time.Duration = time.Hour, 0
	for range 1000 {
		var p pace
		delay := p.next(RequeueWithBackoff(), noon)
		soonest, latest = min(soonest, delay), max(latest, delay)
	}
	if soonest < 450*time.Millisecond || soonest > 460*time.Millisecond || latest < 540*time.Millisecond || latest > 550*time.Millisecond {
		t.Errorf("a thousand come back after %s to %s, want 450ms to 550ms", soonest, latest)
	}
}

// A deadline that comes nearer is met when it is due.
func TestDeadlinesAreMet(t *testing.T) {
	var p pace
	deadline := noon.Add(10 * time.Minute)
	for now := noon; ; {
		left := deadline.Sub(now)
		if left <= 0 {
			if late := -left; late > 0 {
				t.Errorf("it is %s late", late)
			}
			return
		}
		p.wait("kiosk", now)
		step := min(p.next(Waiting(v1alpha1.ReasonPending, "It waits.").WithRequeueAfter(left), now), 30*time.Second)
		now = now.Add(step) // it is polled meanwhile
	}
}

func TestAChangeBeginsThePaceAnew(t *testing.T) {
	var p pace
	for range 10 {
		p.next(RequeueWithBackoff(), noon)
	}
	p.wait("before", noon)
	p.next(RequeueWithBackoff(), noon)
	if p.wait("before", noon) == 0 {
		t.Error("there is no backoff")
	}
	if wait := p.wait("after", noon); wait > 0 {
		t.Errorf("the resource was changed, and waits for %s all the same", wait)
	}
	if delay := p.next(RequeueWithBackoff(), noon); delay > time.Second {
		t.Errorf("the first backoff after a change is %s", delay)
	}
}

// What the budget has given a time to comes at that time. But a pass that needs two requests at once gets none
// of them while it uses up each that comes: it waits longer, until something else has come of it.
func TestTheBudgetsTimesAreKept(t *testing.T) {
	var p pace
	deferred := func(asks, want time.Duration) {
		t.Helper()
		if got := p.next(Outcome{RequeueAfter: asks, Scheduled: true}, noon); got != want {
			t.Fatalf("after %s, want %s", got, want)
		}
	}
	for range 2 {
		deferred(time.Hour, time.Hour)
		for range 10 {
			deferred(100*time.Millisecond, 100*time.Millisecond)
		}
		deferred(100*time.Millisecond, time.Second)
		deferred(3*time.Second, 3*time.Second)
		deferred(100*time.Millisecond, 2*time.Second)
		deferred(time.Hour, time.Hour)
		deferred(100*time.Millisecond, 4*time.Second)
		p.next(NoChange(0), noon)
	}
	if n := passes(func(int) Outcome { return Outcome{RequeueAfter: 100 * time.Millisecond, Scheduled: true} }, time.Hour, false); n > 80 {
		t.Errorf("it is worked on %d times in an hour", n)
	}
}

func TestSubject(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*v1alpha1.Artefact)
		other  bool
	}{
		"nothing":                   {func(*v1alpha1.Artefact) {}, false},
		"the status":                {func(a *v1alpha1.Artefact) { a.Status.ID, a.ResourceVersion = "a1", "7" }, false},
		"the operator's annotation": {func(a *v1alpha1.Artefact) { a.Annotations[v1alpha1.AnnotationCreateIntent] = "{}" }, false},
		"the spec":                  {func(a *v1alpha1.Artefact) { a.Generation++ }, true},
		"a request to look":         {func(a *v1alpha1.Artefact) { a.Annotations[v1alpha1.AnnotationReconcileRequestedAt] = "now" }, true},
		"a move that is confirmed":  {func(a *v1alpha1.Artefact) { a.Annotations[v1alpha1.AnnotationConfirmOrganisation] = "ab" }, true},
		"another of the same name":  {func(a *v1alpha1.Artefact) { a.UID = "other" }, true},
	} {
		before, after := newArtefact(), newArtefact()
		test.change(after)
		if other := subject(before) != subject(after); other != test.other {
			t.Errorf("%s changes: another subject: %t", name, other)
		}
	}
}
