// SPDX-License-Identifier: Apache-2.0

package budget_test

import (
	"container/heap"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"rpi-connect.dev/operator/internal/connectclient/budget"
)

// world is simulated time: what is to happen, in order.
type world struct {
	time   time.Time
	events events
	order  int
	random *rand.Rand
}

type event struct {
	at    time.Time
	order int
	do    func()
}

type events []event

func (e *events) Len() int { return len(*e) }
func (e *events) Less(i, j int) bool {
	a, b := (*e)[i], (*e)[j]
	if !a.at.Equal(b.at) {
		return a.at.Before(b.at)
	}
	return a.order < b.order
}
func (e *events) Swap(i, j int) { (*e)[i], (*e)[j] = (*e)[j], (*e)[i] }
func (e *events) Push(x any)    { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// newWorld begins in the middle of an hour, at no round second.
func newWorld() *world {
	return &world{
		time:   time.Date(2026, 3, 1, 10, 20, 7, 345e6, time.UTC),
		random: rand.New(rand.NewPCG(1, 2)),
	}
}

func (w *world) now() time.Time { return w.time }

func (w *world) in(d time.Duration, do func()) {
	w.order++
	heap.Push(&w.events, event{at: w.time.Add(max(d, 0)), order: w.order, do: do})
}

// every does something again and again.
func (w *world) every(d time.Duration, do func()) {
	var again func()
	again = func() {
		do()
		w.in(d, again)
	}
	w.in(d, again)
}

// runFor lets time pass.
func (w *world) runFor(d time.Duration) {
	end := w.time.Add(d)
	for len(w.events) > 0 && !w.events[0].at.After(end) {
		e := heap.Pop(&w.events).(event)
		w.time = e.at
		e.do()
	}
	w.time = end
}

// server is Connect: a limit in fixed windows that are aligned to the clock.
type server struct {
	*world
	limit    int
	window   time.Duration
	latency  func() time.Duration          // one way
	rounding func(seconds float64) float64 // of the announced time to the reset
	loses    float64                       // the share of answers that never arrive
	older    bool                          // announces no window
	status   int                           // of answers within the limit
	breaker  *budget.Breaker               // in front of it; nil for none

	began     time.Time
	used      int
	most      int // requests in one window
	requests  int // of ours
	throttled int // of those, answered with 429
}

func newServer(w *world) *server {
	return &server{
		world: w, limit: 5000, window: time.Hour, rounding: math.Ceil, status: 200,
		latency: func() time.Duration { return time.Duration(10+w.random.IntN(90)) * time.Millisecond },
	}
}

// spend counts a request, of ours or of another program.
func (s *server) spend() {
	if began := s.time.Truncate(s.window); began.After(s.began) {
		s.began, s.used = began, 0
	}
	s.used++
	s.most = max(s.most, s.used)
}

// receive counts a request of ours and answers it.
func (s *server) receive() budget.Answer {
	s.requests++
	s.spend()
	if s.older {
		return budget.Answer{StatusCode: s.status}
	}
	answer := budget.Answer{
		StatusCode: s.status,
		HasHeaders: true,
		Limit:      s.limit,
		Remaining:  max(0, s.limit-s.used),
		Reset:      time.Duration(s.rounding(s.began.Add(s.window).Sub(s.time).Seconds())) * time.Second,
	}
	switch {
	case s.status == 401:
		return budget.Answer{StatusCode: 401}
	case s.used > s.limit:
		s.throttled++
		answer.StatusCode = 429
	}
	return answer
}

// send asks the budget, and sends if it may. Either way takes its time, so
// requests and answers overtake each other.
func (s *server) send(b *budget.Budget, p budget.Priority) *budget.Refusal {
	end := func(budget.Outcome) {}
	if s.breaker != nil {
		attempt, err := s.breaker.Try()
		if err != nil {
			return refusalOf(err)
		}
		end = func(outcome budget.Outcome) { attempt.End(outcome) }
	}
	ticket, err := b.Take(p)
	if err != nil {
		end(budget.Unsent)
		return refusalOf(err)
	}
	s.in(s.latency(), func() {
		answer, outcome := s.receive(), budget.Answered
		if s.random.Float64() < s.loses {
			answer = budget.Answer{}
		}
		if answer.StatusCode == 0 || answer.StatusCode >= 500 {
			outcome = budget.Failed
		}
		s.in(s.latency(), func() {
			ticket.Done(answer)
			end(outcome)
		})
	})
	return nil
}

// refusalOf is what is behind an error of Take.
func refusalOf(err error) *budget.Refusal {
	refusal, _ := errors.AsType[*budget.Refusal](err)
	return refusal
}

// insist sends, and comes back when it is told to, until it gets through. It
// tells how long that took.
func (s *server) insist(b *budget.Budget, p budget.Priority, through func(time.Duration)) {
	began := s.time
	var try func()
	try = func() {
		if refusal := s.send(b, p); refusal != nil {
			s.in(refusal.Until.Sub(s.time), try)
			return
		}
		through(s.time.Sub(began))
	}
	try()
}

// fleet is running deployments that are polled as the controller does it.
type fleet struct {
	*server
	budget *budget.Budget
	poller *budget.Poller[string]
	every  func(key string) time.Duration // the interval, looked up after each poll
	last   map[string]time.Time
	gaps   map[string][]time.Duration // between two polls
	polls  int
}

func newFleet(s *server, config budget.Config, every func(key string) time.Duration) *fleet {
	config.Now = s.now
	b := budget.New(config)
	rate := func() float64 {
		if s.breaker != nil && !s.breaker.Ready() {
			return 0
		}
		return b.PollRate()
	}
	f := &fleet{
		server: s, budget: b, poller: budget.NewPoller[string](rate), every: every,
		last: map[string]time.Time{}, gaps: map[string][]time.Duration{},
	}
	s.in(0, f.turn)
	return f
}

func always(d time.Duration) func(string) time.Duration {
	return func(string) time.Duration { return d }
}

// start adds running deployments of which nothing is known yet, as after a restart.
func (f *fleet) start(n int) {
	for i := range n {
		key := fmt.Sprint("deployment-", i)
		f.poller.Seen(key, f.every(key), f.time.Add(-time.Hour))
		f.last[key] = f.time
	}
}

// turn hands out what is due, and waits as long as it is told.
func (f *fleet) turn() {
	for {
		key, ok, wait := f.poller.Next(f.time)
		switch {
		case ok && f.send(f.budget, budget.Poll) == nil:
			f.polls++
			f.gaps[key] = append(f.gaps[key], f.time.Sub(f.last[key]))
			f.last[key] = f.time
			f.poller.Seen(key, f.every(key), f.time)
		case ok:
		case wait == 0:
			f.in(time.Second, f.turn)
			return
		default:
			f.in(wait, f.turn)
			return
		}
	}
}

// forgetGaps begins a new measurement.
func (f *fleet) forgetGaps() { f.gaps, f.polls = map[string][]time.Duration{}, 0 }

// staleness is how long on average a deployment was not looked at, and the worst.
func (f *fleet) staleness(of func(key string) bool) (mean, worst time.Duration) {
	var sum time.Duration
	var n int
	for key, gaps := range f.gaps {
		if !of(key) {
			continue
		}
		for _, gap := range gaps {
			sum, n, worst = sum+gap, n+1, max(worst, gap)
		}
	}
	return sum / time.Duration(max(n, 1)), worst
}

func all(string) bool { return true }

func mustNotBeThrottled(t *testing.T, s *server) {
	t.Helper()
	if s.throttled > 0 {
		t.Errorf("%d of %d requests were answered with 429", s.throttled, s.requests)
	}
}
