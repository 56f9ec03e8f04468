// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/connectclient/budget"
)

// ErrPending is what [Store.Await] gives while the picture that was asked for is
// on its way. The waiter is woken when it is there; there is nothing to report
// and nothing to retry.
var ErrPending = errors.New("waiting for the organisation to be listed")

const (
	// A listing that failed is tried again after retryMin, doubling to
	// retryMax: an outage costs a request a minute and is over a minute
	// after it ended.
	retryMin = time.Second
	retryMax = time.Minute
)

// Store is the picture of one organisation's objects of one kind.
type Store[T any] struct {
	reflector *Reflector[T]
	client    *connectclient.Client
	part      part
	kick      chan struct{}

	mu      sync.Mutex
	byID    map[string]entry[T]
	byKey   map[string]string    // natural key → id
	removed map[string]time.Time // ids the operator deleted, until a listing begun later confirms it

	listedFrom time.Time                     // when the last complete listing began; zero: never
	demand     time.Time                     // the freshest picture anybody waits for
	waiters    map[types.NamespacedName]bool // true: it cannot go on without
	failure    error                         // of the last listing; nil after a complete one
	again      bool                          // somebody has reason to think that a refused token is good now
	pause      time.Duration                 // before the next attempt, after failures
	ended      bool                          // nobody lists any more; a new store has taken over
}

// entry is an object and when the operator itself wrote it: a listing that began
// before that tells nothing about it.
type entry[T any] struct {
	object  T
	written time.Time
}

func newStore[T any](r *Reflector[T], of part) *Store[T] {
	return &Store[T]{
		reflector: r,
		client:    r.options.API.Organisation(of.token),
		part:      of,
		kick:      make(chan struct{}, 1),
		byID:      map[string]entry[T]{},
		byKey:     map[string]string{},
		removed:   map[string]time.Time{},
		waiters:   map[types.NamespacedName]bool{},
	}
}

// Await returns nil when the picture stems from a listing that began at
// notBefore or later; zero stands for any listing. If there is none, it asks for
// one, remembers the waiter to be woken, and returns at once: [ErrPending], or
// why the last attempt failed. A token that Connect refuses is always an error,
// however fresh the picture.
func (s *Store[T]) Await(notBefore time.Time, waiter types.NamespacedName) error {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return s.reflector.Part(s.part.token, s.part.scope).Await(notBefore, waiter)
	}
	defer s.mu.Unlock()
	refused := errors.Is(s.failure, connectclient.ErrUnauthorized)
	if !refused && !s.listedFrom.IsZero() && !s.listedFrom.Before(notBefore) {
		return nil
	}
	s.waiters[waiter] = true
	if refused {
		return s.failure
	}
	if notBefore.After(s.demand) {
		s.demand = notBefore
	}
	s.kickNow()
	if s.failure != nil {
		return s.failure
	}
	return ErrPending
}

// AwaitNext remembers the waiter to be woken after the next listing, whenever that
// is due: what it looks for is not there now.
func (s *Store[T]) AwaitNext(waiter types.NamespacedName) {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		// It has not listed yet, and does so only if it is asked.
		_ = s.reflector.Part(s.part.token, s.part.scope).Await(s.now(), waiter)
		return
	}
	defer s.mu.Unlock()
	if _, waits := s.waiters[waiter]; !waits {
		s.waiters[waiter] = false
	}
}

// retry lists at once if the token was refused: it may be good now.
func (s *Store[T]) retry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(s.failure, connectclient.ErrUnauthorized) {
		s.again = true
		s.kickNow()
	}
}

func (s *Store[T]) kickNow() {
	select {
	case s.kick <- struct{}{}:
	default: // a kick is waiting already
	}
}

// Get finds an object by its id.
func (s *Store[T]) Get(id string) (T, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, ok := s.byID[id]
	return found.object, ok
}

// Find finds an object by its natural key.
func (s *Store[T]) Find(key string) (T, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, ok := s.byID[s.byKey[key]]
	return found.object, ok
}

// All returns every object of the picture, in no order.
func (s *Store[T]) All() []T {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]T, 0, len(s.byID))
	for _, e := range s.byID {
		all = append(all, e.object)
	}
	return all
}

// Put records what the operator has just created or changed. It wakes nobody.
func (s *Store[T]) Put(object T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.removed, s.reflector.collection.ID(object))
	s.set(entry[T]{object: object, written: s.now()})
}

// Remove records what the operator has just deleted. It wakes nobody.
func (s *Store[T]) Remove(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removed[id] = s.now()
	s.unset(id)
}

func (s *Store[T]) now() time.Time { return s.reflector.options.Now() }

func (s *Store[T]) set(e entry[T]) {
	id := s.reflector.collection.ID(e.object)
	s.unset(id)
	s.byID[id] = e
	if key := s.reflector.collection.Key(e.object); key != "" {
		s.byKey[key] = id
	}
}

func (s *Store[T]) unset(id string) {
	old, ok := s.byID[id]
	if !ok {
		return
	}
	delete(s.byID, id)
	if key := s.reflector.collection.Key(old.object); s.byKey[key] == id {
		delete(s.byKey, key)
	}
}

// run lists when the interval is over, when a listing failed and its retry is
// due, and when somebody waits; until nobody wants the store any more.
func (s *Store[T]) run(ctx context.Context) {
	timer := time.NewTimer(0)
	if !timer.Stop() {
		<-timer.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			if s.end(ctx) {
				return
			}
		case <-s.kick:
			if !s.demanded() {
				continue
			}
		}
		timer.Reset(s.list(ctx))
	}
}

// end stops the store if nobody wants it any more.
func (s *Store[T]) end(ctx context.Context) bool {
	if !s.reflector.collection.OnDemand && s.reflector.wanted(ctx, s.part.token) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiters) > 0 {
		return false
	}
	s.ended = true
	s.reflector.drop(s)
	return true
}

// demanded tells whether a kick still stands for something: not if a listing has
// satisfied it meanwhile, nor while a failed listing waits for its retry.
func (s *Store[T]) demanded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.again {
		s.again = false
		return true
	}
	return s.failure == nil && (s.listedFrom.IsZero() || s.listedFrom.Before(s.demand))
}

// list reads the collection once, updates the picture, wakes whom it concerns,
// and returns how long to wait for the next time.
func (s *Store[T]) list(ctx context.Context) time.Duration {
	began := s.now()
	seen, err := s.read(ctx)
	if ctx.Err() != nil {
		return s.reflector.options.Interval
	}

	s.mu.Lock()
	before := s.failure
	var changed []T
	if err == nil {
		changed = s.replace(seen, began)
	} else {
		changed = s.merge(seen, began)
	}
	wait := s.after(err)
	wake := s.wakeFor(before, err == nil, changed)
	s.mu.Unlock()

	observe(s.reflector.collection.Name, err, len(changed))
	if wake.Everyone || len(wake.Waiters)+len(wake.IDs) > 0 {
		s.reflector.wake(wake)
	}
	return wait
}

// read lists the collection. While resources cannot go on without, to be created
// for example, the listing goes before mere drift detection.
func (s *Store[T]) read(ctx context.Context) (map[string]T, error) {
	priority := budget.Background
	s.mu.Lock()
	for _, needed := range s.waiters {
		if needed {
			priority = budget.Write
		}
	}
	s.mu.Unlock()

	seen := map[string]T{}
	for object, err := range s.reflector.collection.List(connectclient.WithPriority(ctx, priority), s.client, s.part.scope) {
		if err != nil {
			return seen, err
		}
		seen[s.reflector.collection.ID(object)] = object
	}
	return seen, nil
}

// replace makes the picture what a complete listing says, except for what the
// operator itself wrote after the listing began. It returns what differs.
func (s *Store[T]) replace(seen map[string]T, began time.Time) []T {
	changed := s.merge(seen, began)
	for id, e := range s.byID {
		if _, ok := seen[id]; !ok && e.written.Before(began) {
			s.unset(id)
			changed = append(changed, e.object)
		}
	}
	maps.DeleteFunc(s.removed, func(_ string, at time.Time) bool { return at.Before(began) })
	if s.listedFrom.IsZero() {
		// Everybody who is interested in the first picture waits for it.
		changed = nil
	}
	s.listedFrom = began
	return changed
}

// merge takes over what a listing showed, without concluding anything from what
// it did not show: that is all that a broken-off listing is good for.
func (s *Store[T]) merge(seen map[string]T, began time.Time) []T {
	var changed []T
	for id, object := range seen {
		if !s.removed[id].Before(began) {
			continue
		}
		known, ok := s.byID[id]
		if ok && (!known.written.Before(began) || equal(known.object, object)) {
			continue
		}
		s.set(entry[T]{object: object})
		changed = append(changed, object)
	}
	return changed
}

// after remembers how the listing ended and says when the next one is due.
func (s *Store[T]) after(err error) time.Duration {
	switch {
	case err == nil:
		s.failure, s.pause = nil, 0
		return jitter(s.reflector.options.Interval)
	case errors.Is(err, connectclient.ErrDeferred):
		// Pacing is nobody's failure: the picture is just late.
	case errors.Is(s.failure, connectclient.ErrUnauthorized):
		// A refused token stays refused until it is seen to work.
	default:
		s.failure = err
	}
	if errors.Is(err, connectclient.ErrUnsupported) {
		return jitter(s.reflector.options.Interval) // until the API is another
	}
	if at, ok := connectclient.RetryAt(err); ok {
		return max(0, at.Sub(s.now()))
	}
	s.pause = min(max(2*s.pause, retryMin), retryMax)
	return jitter(s.pause)
}

// wakeFor says whom the listing concerns. While listings keep failing nobody is
// woken a second time: nothing has changed for them.
func (s *Store[T]) wakeFor(before error, complete bool, changed []T) Wake {
	wake := Wake{
		Token:    s.part.token,
		Everyone: errors.Is(before, connectclient.ErrUnauthorized) != errors.Is(s.failure, connectclient.ErrUnauthorized),
	}
	if complete || s.failure != nil && before == nil {
		wake.Waiters = slices.Collect(maps.Keys(s.waiters))
	}
	if complete {
		clear(s.waiters)
	}
	for _, object := range changed {
		wake.IDs = append(wake.IDs, s.reflector.collection.ID(object))
		if key := s.reflector.collection.Key(object); key != "" {
			wake.Keys = append(wake.Keys, key)
		}
	}
	return wake
}

// jitter spreads d by ±10 %, so that the collections of many organisations are
// not listed in the same second.
func jitter(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*0.2*float64(d)) //nolint:gosec // spreading load needs no cryptography
}
