// SPDX-License-Identifier: Apache-2.0

package budget_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"rpi-connect.dev/operator/internal/connectclient/budget"
)

// One operator never goes over the limit by its own doing, however the answers
// come, and lets nobody who may go starve.
func TestNeverOverTheLimit(t *testing.T) {
	ms := func(low, spread int) func(*server) {
		return func(s *server) {
			s.latency = func() time.Duration { return time.Duration(low+s.random.IntN(spread)) * time.Millisecond }
		}
	}
	for name, set := range map[string]func(*server){
		"as documented":           func(*server) {},
		"reset rounded down":      func(s *server) { s.rounding = math.Floor },
		"reset rounded":           func(s *server) { s.rounding = math.Round },
		"an answer in a moment":   ms(0, 1),
		"answers of half minutes": ms(100, 30_000),
		"every tenth is lost":     func(s *server) { s.loses = 0.1 },
		"a small window":          func(s *server) { s.limit = 20 },
		"a short window":          func(s *server) { s.limit, s.window = 50, 10*time.Second },
		"a shorter one":           func(s *server) { s.limit, s.window = 20, 5*time.Second },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			s := newServer(w)
			set(s)
			b := budget.New(budget.Config{Now: w.now})
			served := map[budget.Priority]int{}
			var work func(p budget.Priority)
			work = func(p budget.Priority) {
				s.insist(b, p, func(time.Duration) {
					served[p]++
					w.in(time.Duration(w.random.IntN(1000))*time.Millisecond, func() { work(p) })
				})
			}
			for range 5 { // more than the window has
				work(budget.Write)
				work(budget.Poll)
				work(budget.Background)
			}
			w.runFor(4 * time.Hour)
			mustNotBeThrottled(t, s)
			for _, p := range []budget.Priority{budget.Write, budget.Poll, budget.Background} {
				if served[p] == 0 {
					t.Errorf("%s starved", p)
				}
			}
			windows := float64(4*time.Hour)/float64(s.window) + 1
			if used := float64(s.requests) / windows / float64(s.limit); used < 0.5 {
				t.Errorf("only %.0f %% of the limit was used", 100*used)
			}
		})
	}
}

// Whatever writes, polls and listings do, who cancels gets through at once.
func TestUrgentGetsThrough(t *testing.T) {
	for name, older := range map[string]bool{"in a window": false, "at a plain rate": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			s := newServer(w)
			s.older = older
			b := budget.New(budget.Config{Now: w.now})
			s.send(b, budget.Background)
			w.runFor(time.Second)
			w.every(100*time.Millisecond, func() { // thrice what the plain rate lets go
				s.send(b, budget.Write)
				s.send(b, budget.Poll)
				s.send(b, budget.Background)
			})
			var slowest time.Duration
			cancelled := 0
			w.every(90*time.Second+30*time.Millisecond, func() { // 40 an hour of the 50 that nobody else may touch
				s.insist(b, budget.Urgent, func(took time.Duration) {
					slowest = max(slowest, took)
					cancelled++
				})
			})
			w.runFor(3 * time.Hour)
			if cancelled != 119 || slowest > 0 {
				t.Errorf("%d of 119 got through, the slowest after %s", cancelled, slowest)
			}
			mustNotBeThrottled(t, s)
		})
	}
}

// Without headers the plain rate holds, and hundreds of callers are all served
// within what the rate makes of it.
func TestPlainRate(t *testing.T) {
	w := newWorld()
	s := newServer(w)
	s.older = true
	b := budget.New(budget.Config{Now: w.now, QPS: 10})
	served := 0
	var slowest time.Duration
	for range 1000 {
		s.insist(b, budget.Write, func(took time.Duration) {
			served++
			slowest = max(slowest, took)
		})
	}
	w.runFor(time.Minute)
	if served > 60*10+12 {
		t.Errorf("%d requests in a minute of 10 a second", served)
	}
	w.runFor(2 * time.Minute)
	if served != 1000 {
		t.Errorf("%d of 1000 were served, the slowest after %s", served, slowest)
	}
	t.Logf("1000 callers at 10/s: the slowest after %s", slowest.Round(time.Second))
}

// A thousand and ten thousand running deployments: no 429, and each is seen about
// once every A/B, from the first hour on. So it is where an hour passes in a
// minute, which is how the benchmarks do it.
func TestPollsFitTheBudget(t *testing.T) {
	for _, test := range []struct {
		running int
		every   time.Duration
		hour    time.Duration
	}{
		{1, 15 * time.Second, time.Hour},
		{10, 15 * time.Second, time.Hour},
		{100, 15 * time.Second, time.Hour},
		{1000, 15 * time.Second, time.Hour},
		{1000, 15 * time.Minute, time.Hour},
		{10_000, 15 * time.Second, time.Hour},
		{1000, 250 * time.Millisecond, time.Minute},
		{10_000, 250 * time.Millisecond, time.Minute},
	} {
		t.Run(fmt.Sprintf("%d every %s in an hour of %s", test.running, test.every, test.hour), func(t *testing.T) {
			w := newWorld()
			s := newServer(w)
			s.window = test.hour
			f := newFleet(s, budget.Config{}, always(test.every))
			f.start(test.running)

			w.runFor(test.hour / 60) // after a restart
			if share := float64(s.used) / float64(s.limit); share > 0.05 {
				t.Errorf("the first minute took %.0f %% of the window", 100*share)
			}
			w.runFor(w.time.Truncate(test.hour).Add(test.hour).Sub(w.time)) // to the next full hour
			w.runFor(3 * test.hour)
			f.forgetGaps()
			w.runFor(10 * test.hour)

			fair := time.Duration(float64(test.running) / 4500 * float64(test.hour))
			want := max(fair, test.every)
			mean, worst := f.staleness(all)
			t.Logf("wanted every %s, the budget allows %s: seen every %s on average, at worst %s, %.0f polls an hour",
				test.every, fair, mean.Round(time.Millisecond), worst.Round(time.Second), float64(f.polls)/10)
			if ratio := float64(mean) / float64(want); ratio > 1.25 || ratio < 0.99 {
				t.Errorf("the mean is %.2f of what it should be", ratio)
			}
			if ratio := float64(worst) / float64(want); ratio > 1.5 {
				t.Errorf("the worst is %.2f of what it should be", ratio)
			}
			mustNotBeThrottled(t, s)
		})
	}
}

// Under load all intervals stretch by the same factor: those who change are seen
// most often, and those who do not still get their turn.
func TestStretchIsFair(t *testing.T) {
	w := newWorld()
	s := newServer(w)
	pending := func(key string) bool { return strings.HasSuffix(key, "0") }
	f := newFleet(s, budget.Config{}, func(key string) time.Duration {
		if pending(key) {
			return 15 * time.Minute
		}
		return 15 * time.Second
	})
	f.start(1000)
	w.runFor(2 * time.Hour)
	f.forgetGaps()
	w.runFor(26 * time.Hour)

	slow, worst := f.staleness(pending)
	fast, _ := f.staleness(func(key string) bool { return !pending(key) })
	stretched := float64(slow) / float64(fast)
	t.Logf("900 of 15 s are seen every %s, 100 of 15 min every %s (at worst %s)", fast.Round(time.Second), slow.Round(time.Minute), worst.Round(time.Minute))
	if stretched < 0.8*60 || stretched > 1.2*60 {
		t.Errorf("intervals of 1:60 became 1:%.0f", stretched)
	}
	mustNotBeThrottled(t, s)
}

// When the load goes, whoever remains is seen at its own interval again at once.
func TestIntervalsShrinkAgain(t *testing.T) {
	w := newWorld()
	s := newServer(w)
	f := newFleet(s, budget.Config{}, always(15*time.Second))
	f.start(1000)
	w.runFor(20 * time.Minute)
	stretched, _ := f.staleness(all)
	for i := 5; i < 1000; i++ {
		f.poller.Forget(fmt.Sprint("deployment-", i))
	}
	w.runFor(15 * time.Second)
	f.forgetGaps()
	w.runFor(5 * time.Minute)
	mean, worst := f.staleness(all)
	t.Logf("from %s to %s", stretched.Round(time.Second), mean.Round(time.Second))
	if stretched < 2*time.Minute || worst > 20*time.Second {
		t.Errorf("seen every %s before, every %s and at worst %s after", stretched, mean, worst)
	}
}

// Polls leave the reserve to others, whatever another program spends.
func TestAnotherProgram(t *testing.T) {
	for seed := range uint64(10) {
		w := newWorld()
		w.random = rand.New(rand.NewPCG(1, seed))
		s := newServer(w)
		f := newFleet(s, budget.Config{}, always(15*time.Second))
		f.start(1000)
		w.every(time.Second, s.spend) // 3,600 an hour
		w.runFor(6 * time.Hour)
		mustNotBeThrottled(t, s)
		if perHour := f.polls / 6; perHour < 900 {
			t.Errorf("%d polls an hour, though others and the reserve left 900", perHour)
		}
	}
}

// A program that eats the whole budget makes polls wait, not fail: when it has
// gone they go on.
func TestGreedyProgram(t *testing.T) {
	w := newWorld()
	s := newServer(w)
	f := newFleet(s, budget.Config{}, always(15*time.Second))
	f.start(10)
	w.runFor(time.Minute)
	s.used = s.limit
	before := s.requests
	w.runFor(30 * time.Minute)
	if wasted := s.requests - before; wasted > 3 {
		t.Errorf("%d requests against a spent budget", wasted)
	}
	w.runFor(time.Hour)
	f.forgetGaps()
	w.runFor(10 * time.Minute)
	if mean, _ := f.staleness(all); mean > 20*time.Second {
		t.Errorf("an hour later deployments are seen every %s", mean)
	}
}

// Two operators that do not know of each other: a replica that has lost its lease
// and not noticed, or another cluster.
func TestTwoReplicas(t *testing.T) {
	w := newWorld()
	s := newServer(w)
	one := newFleet(s, budget.Config{}, always(15*time.Second))
	two := newFleet(s, budget.Config{}, always(15*time.Second))
	one.start(1000)
	two.start(1000)
	w.runFor(6 * time.Hour)
	mustNotBeThrottled(t, s)
	t.Logf("%d and %d polls in six hours", one.polls, two.polls)
	if s.most > 4500+10 {
		t.Errorf("together they left %d of the reserve of 500", s.limit-s.most)
	}
	if ratio := float64(one.polls) / float64(two.polls); ratio < 0.8 || ratio > 1.25 {
		t.Errorf("they share the budget %d to %d", one.polls, two.polls)
	}
}

// An operator that is killed every seven minutes knows nothing when it starts, and
// the requests that it had sent are counted nowhere but by the server.
func TestRestarts(t *testing.T) {
	w := newWorld()
	s := newServer(w)
	restart := func() {
		f := newFleet(s, budget.Config{}, always(15*time.Second))
		f.start(1000)
		w.in(7*time.Minute, func() {
			for i := range 1000 {
				f.poller.Forget(fmt.Sprint("deployment-", i))
			}
		})
	}
	restart()
	w.every(7*time.Minute, restart)
	w.runFor(6 * time.Hour)
	mustNotBeThrottled(t, s)
	if s.most > 4500+9 {
		t.Errorf("%d requests in an hour with nine restarts", s.most)
	}
}

// A rejected token costs one request, and then two an hour, however many ask.
func TestBadTokenIsCheap(t *testing.T) {
	w := newWorld()
	s := newServer(w)
	s.status = 401
	b := budget.New(budget.Config{Now: w.now})
	waiting := 0
	for range 1000 {
		waiting++
		s.insist(b, budget.Background, func(time.Duration) { waiting-- })
	}
	w.runFor(10 * time.Minute)
	if s.requests != 1 {
		t.Errorf("%d requests in the first ten minutes", s.requests)
	}
	w.runFor(5 * time.Hour)
	if s.requests != 1+10 {
		t.Errorf("%d requests in five hours", s.requests)
	}
	s.status = 200
	w.runFor(31 * time.Minute)
	if waiting != 0 {
		t.Errorf("%d still wait after the probe that succeeded", waiting)
	}
}

// A device that is switched off for five days.
func TestOfflineDeviceIsCheap(t *testing.T) {
	w := newWorld()
	s := newServer(w)
	created := w.time
	f := newFleet(s, budget.Config{}, func(string) time.Duration {
		return budget.Backoff(30*time.Second, 30*time.Second, 15*time.Minute, w.time.Sub(created))
	})
	f.start(1)
	w.runFor(5 * 24 * time.Hour)
	t.Logf("%d requests", s.requests)
	if s.requests > 500 || s.requests < 480 {
		t.Errorf("%d requests in five days", s.requests)
	}
}

// An API that is down for three hours finds nobody who has given up.
func TestOutage(t *testing.T) {
	w := newWorld()
	s := newServer(w)
	f := newFleet(s, budget.Config{}, always(15*time.Second))
	f.start(100)
	w.runFor(30 * time.Minute)
	s.loses = 1
	w.runFor(3 * time.Hour)
	s.loses = 0
	w.runFor(time.Hour)
	f.forgetGaps()
	w.runFor(time.Hour)
	if mean, _ := f.staleness(all); mean > 90*time.Second {
		t.Errorf("an hour later deployments are seen every %s", mean)
	}
	mustNotBeThrottled(t, s)
}
