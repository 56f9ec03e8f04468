// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"time"

	"rpi-connect.dev/operator/internal/connectclient"
)

// ErrPending is what [Store.Await] and [Store.Lookup] give while the answer is on
// its way. The waiter is woken when it is there; there is nothing to report and
// nothing to retry.
var ErrPending = errors.New("waiting for the organisation to be listed")

// Store is the snapshot of one organisation's objects of one kind, or of a part of
// them. It is safe for concurrent use.
//
// A resource that waits for several things is woken once, for whatever comes
// first, and has to ask again for what it still needs. One that has waited for an
// hour is woken to ask again, so nobody has to tell that a resource is gone.
type Store[T any] struct {
	reflector *Reflector[T]
	token     connectclient.Secret
	scope     string
	client    *connectclient.Client
	trigger   chan struct{} // there may be something to do earlier than was thought

	mu       sync.Mutex
	stop     context.CancelFunc // of its goroutine; nil before Start
	ended    bool               // nobody lists any more; another store may have taken over
	tick     uint64             // orders what is read and what is written
	snapshot snapshot[T]
	waiters  waiters[T]
	doubts   doubts
	skewed   map[Waiter]skew

	listedFrom time.Time   // when the last complete listing began; zero: never
	reading    *reading[T] // a listing that has begun and not ended
	failure    error       // of the last attempt to list; nil after a complete one
	schedule   schedule

	latest latest[T]
	late   []Waiter // who came too late for it, and is to be woken
}

// latest is what was told last: who was about to wait when it was told must not
// miss it.
type latest[T any] struct {
	changes []change[T]
	told    map[Waiter]uint64 // who was woken since, and when
}

// skew is a time from elsewhere that had not come yet when it was first seen.
type skew struct{ asked, counts time.Time }

func newStore[T any](r *Reflector[T], token connectclient.Secret, scope string) *Store[T] {
	return &Store[T]{
		reflector: r,
		token:     token,
		scope:     scope,
		client:    r.options.API.ClientFor(token),
		trigger:   make(chan struct{}, 1),
		snapshot:  newSnapshot[T](),
		waiters:   newWaiters[T](),
		doubts:    newDoubts(),
		skewed:    map[Waiter]skew{},
		schedule:  schedule{resync: time.Now().Add(r.options.Interval)},
		latest:    latest[T]{told: map[Waiter]uint64{}},
	}
}

// Await returns nil when the snapshot stems from a listing that began at notBefore
// or later; zero stands for any listing. If there is none, it asks for one,
// remembers the waiter to be woken, and returns at once: [ErrPending], or why the
// last attempt failed. A token that Connect refuses is always an error, however
// fresh the snapshot.
//
// A time that has not come yet is from a clock that is ahead of ours. It counts as
// the moment when the waiter asked with it for the first time.
func (s *Store[T]) Await(notBefore time.Time, w Waiter) error {
	s = s.lock()
	defer s.mu.Unlock()
	notBefore = s.clamp(notBefore, w)
	if s.fresh(notBefore) {
		return nil
	}
	s.waiters.forSnapshot(w, notBefore)
	s.kickNow()
	if s.failure != nil {
		return s.failure
	}
	return ErrPending
}

// Fresh tells whether the snapshot stems from a listing that began at notBefore or
// later, and asks for nothing.
func (s *Store[T]) Fresh(notBefore time.Time) bool {
	s = s.successor()
	defer s.mu.Unlock()
	return s.fresh(notBefore)
}

func (s *Store[T]) fresh(notBefore time.Time) bool {
	return !s.refused() && !s.listedFrom.IsZero() && !s.listedFrom.Before(notBefore)
}

// refused tells whether Connect refuses the token.
func (s *Store[T]) refused() bool { return errors.Is(s.failure, connectclient.ErrUnauthorized) }

// AwaitKeys wakes the waiter once an object with one of the keys has appeared,
// changed or vanished.
func (s *Store[T]) AwaitKeys(w Waiter, keys ...string) {
	s = s.lock()
	defer s.mu.Unlock()
	s.waiters.forKeys(w, keys)
	s.catchUp(w, func(c change[T]) bool {
		return slices.ContainsFunc(keys, func(key string) bool { return slices.Contains(c.keys, key) })
	})
}

// AwaitMatch wakes the waiter once an object has appeared, changed or vanished that
// matches, or did before it changed. It takes the place of what the waiter wanted
// to match before. The function must be quick, and must not use the store.
func (s *Store[T]) AwaitMatch(w Waiter, match func(T) bool) {
	s = s.lock()
	defer s.mu.Unlock()
	s.waiters.forMatch(w, match)
	s.catchUp(w, func(c change[T]) bool { return c.matches(match) })
}

// catchUp wakes a waiter at once that has looked at the snapshot before the latest
// listing ended, or the operator wrote something, and comes to wait only now. Whoever
// was woken after that has looked at it since. The lock is held.
func (s *Store[T]) catchUp(w Waiter, concerned func(change[T]) bool) {
	knows := s.latest.told[w]
	if slices.ContainsFunc(s.latest.changes, func(c change[T]) bool { return c.at > knows && concerned(c) }) {
		s.wakeLate(w)
	}
}

// wakeLate wakes waiters as soon as the store's goroutine comes to it. The lock is
// held.
func (s *Store[T]) wakeLate(waiters ...Waiter) {
	if len(waiters) > 0 {
		s.late = append(s.late, waiters...)
		s.kickNow()
	}
}

// Get finds an object by its id, as it was seen last. It proves nothing.
func (s *Store[T]) Get(id string) (T, bool) {
	s = s.successor()
	defer s.mu.Unlock()
	if found, ok := s.snapshot.byID[id]; ok {
		return *found.object, true
	}
	var none T
	return none, false
}

// Find returns all objects with the key, as they were seen last, by the order of
// their ids. It proves nothing.
func (s *Store[T]) Find(key string) []T {
	s = s.successor()
	defer s.mu.Unlock()
	return s.snapshot.found(key)
}

// All yields every object of the snapshot as it is now, in no order. It proves
// nothing.
func (s *Store[T]) All() iter.Seq[T] {
	s = s.successor()
	objects := s.snapshot.all()
	s.mu.Unlock()
	return func(yield func(T) bool) {
		for _, object := range objects {
			if !yield(*object) {
				return
			}
		}
	}
}

// Put records what the operator has just created or changed. It wakes those who wait
// for such an object, and nobody else.
func (s *Store[T]) Put(object T) {
	id, keys := s.reflector.collection.ID(object), s.reflector.keys(object)
	s = s.successor()
	defer s.mu.Unlock()
	now := s.nextTick()
	s.doubts.gone.forget(id)
	s.wakeLate(s.doubts.answered(id)...)
	written := change[T]{after: &object, id: id, keys: keys}
	if known, ok := s.snapshot.byID[id]; ok {
		written.before, written.keys = known.object, union(keys, known.keys)
	}
	s.tellWritten(written)
	s.snapshot.set(id, entry[T]{object: &object, keys: keys, written: now, seen: now})
}

// Remove records what the operator has just deleted. It needs no proof, and wakes
// those who wait for such an object, and nobody else.
func (s *Store[T]) Remove(id string) {
	s = s.successor()
	defer s.mu.Unlock()
	s.doubts.gone.note(id, s.nextTick())
	s.wakeLate(s.doubts.answered(id)...)
	if known, ok := s.snapshot.byID[id]; ok {
		s.tellWritten(change[T]{before: known.object, id: id, keys: known.keys})
	}
	s.snapshot.unset(id)
}

// tellWritten wakes those who wait for what the operator has written: no listing will
// show it as a change. The lock is held.
func (s *Store[T]) tellWritten(c change[T]) {
	c.at = s.tick
	one := []change[T]{c}
	s.latest.changes = append(s.latest.changes, c)
	s.wakeLate(s.waiters.keyed(one)...)
	s.wakeLate(matched(s.waiters.matchers(), one)...)
}

// lock returns the store that lists now, locked: itself, or if it has ended the one
// that takes over.
func (s *Store[T]) lock() *Store[T] {
	for {
		s.mu.Lock()
		if !s.ended {
			return s
		}
		s.mu.Unlock()
		s = s.reflector.Part(s.token, s.scope)
	}
}

// successor is the store to read and to write, locked: like lock, but if nobody has
// asked for another one since it ended, it stays itself.
func (s *Store[T]) successor() *Store[T] {
	s.mu.Lock()
	if !s.ended {
		return s
	}
	s.mu.Unlock()
	r := s.reflector
	r.mu.Lock()
	if next, ok := r.stores[s.token][s.scope]; ok {
		s = next
	}
	r.mu.Unlock()
	s.mu.Lock()
	return s
}

// clamp gives a time that is still to come the meaning that Await documents. The
// lock is held.
func (s *Store[T]) clamp(notBefore time.Time, w Waiter) time.Time {
	now := s.now()
	if known, ok := s.skewed[w]; ok && known.asked.Equal(notBefore) {
		return known.counts
	}
	if !notBefore.After(now) {
		delete(s.skewed, w)
		return notBefore
	}
	if len(s.skewed) >= remembered {
		clear(s.skewed) // costs each of them one more listing
	}
	s.skewed[w] = skew{asked: notBefore, counts: now}
	return now
}

// retry asks at once what could not be asked because the token was refused: it may
// be good now.
func (s *Store[T]) retry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused() {
		s.schedule.now()
	}
	s.doubts.due = time.Time{}
	s.kickNow()
}

// forget drops what a resource waits for.
func (s *Store[T]) forget(w Waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropWaiter(w)
	delete(s.skewed, w)
}

// dropWaiter ends all waits of a waiter. The lock is held.
func (s *Store[T]) dropWaiter(w Waiter) {
	if waits := s.waiters.drop(w); waits != nil {
		s.doubts.dropWaiter(w, waits.ids)
	}
}

// nextTick is a moment later than all before. The lock is held.
func (s *Store[T]) nextTick() uint64 {
	s.tick++
	return s.tick
}

func (s *Store[T]) now() time.Time { return s.reflector.options.Now() }

func (s *Store[T]) kickNow() {
	select {
	case s.trigger <- struct{}{}:
	default: // a trigger is waiting already
	}
}
