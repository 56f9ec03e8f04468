// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/connectclient/budget"
)

const (
	// minSpacing is the shortest time between two listings of a collection.
	minSpacing = time.Second
	// What failed is tried again after retryMin, doubling to retryMax: an
	// outage costs a request a minute and is over a minute after it ended.
	retryMin = time.Second
	retryMax = time.Minute
	// retryFloor is the shortest time that an error's own word is taken for.
	retryFloor = 50 * time.Millisecond
)

// schedule is when to list. It goes by the real clock.
type schedule struct {
	// earliest is when the next listing may begin, whoever asks for it: after
	// the last one some time has to pass that goes by what it has cost.
	earliest time.Time
	// resync is when the next listing begins although nobody asks.
	resync time.Time
	pause  time.Duration // after failures
}

// listed plans the next listing after one that was complete.
func (c *schedule) listed(spacing, interval time.Duration) {
	now := time.Now()
	c.pause = 0
	c.earliest = now.Add(max(spacing, minSpacing))
	c.resync = now.Add(max(jitter(interval), spacing, minSpacing))
}

// failed plans the next attempt.
func (c *schedule) failed(wait time.Duration) {
	c.earliest = time.Now().Add(wait)
	c.resync = c.earliest
}

// now lets the next listing begin at once.
func (c *schedule) now() { *c = schedule{resync: time.Now()} }

// spacing is how long to wait after a listing of so many pages.
func (s *Store[T]) spacing(pages int) time.Duration { return s.client.Budget().Spacing(pages) }

// again is how long to wait after an attempt that failed after so many pages: until
// the error says, or longer each time. What was read is not read again, so the attempt
// has cost no more than the request that failed.
func (s *Store[T]) again(err error, pages int) time.Duration {
	if errors.Is(err, connectclient.ErrUnsupported) {
		return jitter(s.reflector.options.Interval) // until the API is another
	}
	if pages > 0 {
		s.schedule.pause = 0 // it gets on
	}
	wait := s.retryIn(err, &s.schedule.pause)
	if unsent(err) {
		return wait
	}
	return max(wait, s.spacing(1))
}

// unsent tells whether the budget did not let the request go, so that it has cost
// nothing.
func unsent(err error) bool {
	_, refused := errors.AsType[*budget.Refusal](err)
	return refused
}

// retryIn is how long to wait after the error, and lengthens the pause if the error
// does not know.
func (s *Store[T]) retryIn(err error, pause *time.Duration) time.Duration {
	if at, ok := connectclient.RetryAt(err); ok {
		return max(retryFloor, at.Sub(s.now()))
	}
	*pause = min(max(2**pause, retryMin), retryMax)
	return jitter(*pause)
}

// jitter spreads d by ±10 %, so that the collections of many organisations are
// not listed in the same second.
func jitter(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*0.2*float64(d)) //nolint:gosec // spreading load needs no cryptography
}

// start begins to list until the context ends.
func (s *Store[T]) start(ctx context.Context) {
	s.mu.Lock()
	ctx, s.stop = context.WithCancel(ctx) //nolint:gosec // end calls it
	s.mu.Unlock()
	go s.run(ctx)
}

// run does what is due: listings, questions about single objects, and waking who
// came late; until nobody wants the store any more.
func (s *Store[T]) run(ctx context.Context) {
	for ctx.Err() == nil {
		due, work := s.next()
		if wait := time.Until(due); wait > 0 {
			s.sleep(ctx, wait)
			continue
		}
		work(ctx)
	}
}

// sleep waits until there is something to do, or to be thought about again.
func (s *Store[T]) sleep(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-s.trigger:
	}
}

// next is what to do next, and when.
func (s *Store[T]) next() (due time.Time, work func(context.Context)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	due, work = s.schedule.resync, s.resync
	if s.demanded() {
		work = s.list
		if s.schedule.earliest.Before(due) {
			due = s.schedule.earliest
		}
	}
	if len(s.doubts.single) > 0 && s.doubts.due.Before(due) {
		due, work = s.doubts.due, s.prove
	}
	if len(s.late) > 0 {
		due, work = time.Time{}, s.publishLate
	}
	return due, work
}

// demanded tells whether somebody cannot go on without a listing. Those for whom the
// snapshot is fresh enough do not wait any more. The lock is held.
func (s *Store[T]) demanded() bool { return len(s.waiters.fresh) > 0 || s.doubts.listing }

// resync lists because it is time, unless nobody wants the store any more. A part of
// an organisation is listed only while somebody waits.
func (s *Store[T]) resync(ctx context.Context) {
	wanted, followed := s.reflector.wanted(ctx, s.token)
	ended := s.end(func() bool {
		unused := !followed || s.scope != "" || s.listedFrom.IsZero() && s.failure == nil
		return !wanted || unused && s.idle()
	})
	if !ended {
		s.list(ctx)
	}
}

// idle tells whether nobody waits. After a failure those who have just heard of it are
// about to ask again, and must not meet a store that knows nothing of it. The lock is
// held.
func (s *Store[T]) idle() bool {
	return len(s.waiters.all) == 0 && (s.failure == nil || time.Since(s.waiters.last) > s.reflector.options.Interval)
}

// end ends the store, if that is still right under its lock. Who waits is woken: it
// has to turn to the store that takes over, if it is still there.
func (s *Store[T]) end(right func() bool) bool {
	s.reflector.mu.Lock()
	s.mu.Lock()
	if s.ended || !right() {
		s.mu.Unlock()
		s.reflector.mu.Unlock()
		return false
	}
	s.ended = true
	s.reflector.drop(s)
	if s.stop != nil {
		s.stop()
	}
	var told outcome[T]
	for w := range s.waiters.all {
		told.wake(w)
	}
	s.waiters, s.doubts.open, s.doubts.single, s.late = newWaiters[T](), map[string]*question{}, nil, nil
	s.mu.Unlock()
	s.reflector.mu.Unlock()
	s.notify(told)
	return true
}
