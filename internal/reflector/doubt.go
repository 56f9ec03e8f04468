// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"rpi-connect.dev/operator/internal/connectclient"
)

// How absence is proven.
//
// An object that a whole listing did not show is in doubt: it may be gone, or have
// moved to a page that had been read already. So it stays in the snapshot, and whoever
// has it is woken to ask for it ([Store.Lookup]). An id that was never seen is in
// doubt in the same way: a listing that should have shown it may have missed it, or
// have begun before the object was made.
//
// A question is answered by one request for the object, a few times per listing. The
// rest, because an organisation may lose thousands of objects at once, and
// everything where the API has no such request, is answered by listings, which are
// brought forward: what two whole listings in a row have not shown is gone, if both
// began after it was seen or asked for. The second began after the first had ended,
// and an object does not hide from both by moving once.

// singleProofs is how many objects are asked for one by one per listing.
const singleProofs = 10

// doubts are the ids of which somebody wants to know whether they are there, and
// those of which it is known that they are not.
type doubts struct {
	open map[string]*question
	// single are the open ones that wait for a request of their own, in order.
	single []string
	left   int       // how many such requests may still be made before the next listing
	due    time.Time // when the next one may be made
	pause  time.Duration
	// listing asks for the next listing to be brought forward.
	listing bool
	// gone are ids that are proven not to be there, or were deleted by the
	// operator, and when.
	gone recent
}

// question is an id that somebody asks for.
type question struct {
	waiters map[Waiter]struct{}
	asked   uint64    // the tick
	missed  bool      // a whole listing that began later has ended without showing it
	second  bool      // the listing after that was brought forward for it
	single  bool      // it waits for a request of its own
	failure error     // of that request
	last    time.Time // when it was asked, by the real clock
}

// idle tells whether nobody wants to know any more. Those who have just heard of a
// failure are about to ask again.
func (q *question) idle() bool { return len(q.waiters) == 0 && time.Since(q.last) > retryMax }

func newDoubts() doubts {
	return doubts{open: map[string]*question{}, left: singleProofs}
}

// Lookup finds an object by its id for somebody who concludes something from its
// absence. It is found, or proven not to be there; or [ErrPending] while that is in
// doubt, or why it cannot be found out now. The waiter is woken when it is decided.
func (s *Store[T]) Lookup(id string, w Waiter) (object T, found bool, err error) {
	s = s.lock()
	defer s.mu.Unlock()
	if known, ok := s.snapshot.byID[id]; ok && !known.doubt {
		return *known.object, true, nil
	}
	if _, gone := s.doubts.gone.at(id); gone || id == "" {
		return object, false, nil
	}
	q := s.ask(id)
	if waits := s.waiters.of(w); !slices.Contains(waits.ids, id) {
		waits.ids = append(waits.ids, id)
	}
	q.waiters[w], q.last = struct{}{}, time.Now()
	s.kickNow()
	switch {
	case q.failure != nil:
		return object, false, q.failure
	case !q.single && s.failure != nil:
		return object, false, s.failure
	default:
		return object, false, ErrPending
	}
}

// ask opens a question, or returns the one that is open. The lock is held.
func (s *Store[T]) ask(id string) *question {
	q, ok := s.doubts.open[id]
	if ok {
		return q
	}
	q = &question{waiters: map[Waiter]struct{}{}, asked: s.nextTick()}
	s.doubts.open[id] = q
	if s.mayAskSingly() {
		q.single = true
		s.doubts.single = append(s.doubts.single, id)
	} else {
		s.doubts.listing = true
	}
	return q
}

// mayAskSingly tells whether one more object may be asked for by itself.
func (s *Store[T]) mayAskSingly() bool {
	return s.reflector.collection.Get != nil && s.scope == "" && s.client.Revision() != connectclient.RevisionOlder &&
		s.doubts.left > len(s.doubts.single)
}

// answered closes the question about an id, if there is one, and returns who asked.
func (d *doubts) answered(id string) []Waiter {
	q, ok := d.open[id]
	if !ok {
		return nil
	}
	delete(d.open, id)
	if q.single {
		d.single = slices.DeleteFunc(d.single, func(other string) bool { return other == id })
	}
	return slices.Collect(maps.Keys(q.waiters))
}

// dropWaiter forgets that the waiter asked for the ids. The questions stay for a
// while: mostly it was woken, and is about to ask again.
func (d *doubts) dropWaiter(w Waiter, ids []string) {
	for _, id := range ids {
		if q, ok := d.open[id]; ok {
			delete(q.waiters, w)
		}
	}
}

// byListing leaves all open questions to the next listing.
func (d *doubts) byListing() {
	for _, id := range d.single {
		d.open[id].single = false
	}
	d.listing = d.listing || len(d.single) > 0
	d.single = nil
}

// prove asks for the objects one by one that somebody wants to know of. It stops at
// the first request that fails, and goes on later.
func (s *Store[T]) prove(ctx context.Context) {
	told := outcome[T]{more: true}
	for ctx.Err() == nil {
		s.mu.Lock()
		if len(s.doubts.single) == 0 || s.doubts.left == 0 {
			s.doubts.byListing()
			s.mu.Unlock()
			break
		}
		id := s.doubts.single[0]
		if s.doubts.open[id].idle() {
			s.doubts.answered(id)
			s.mu.Unlock()
			continue
		}
		s.doubts.left--
		asked := s.nextTick()
		s.mu.Unlock()

		object, err := s.reflector.collection.Get(ctx, s.client, id)
		if ctx.Err() != nil || !s.resolve(id, object, err, asked, &told) {
			break
		}
	}
	s.publish(told)
}

// resolve takes over the answer to the request for one object, and tells whether to
// go on.
func (s *Store[T]) resolve(id string, object *T, err error, asked uint64, told *outcome[T]) (goOn bool) {
	var row []seenRow[T]
	if err == nil {
		row = s.compare([]T{*object}) // without the lock
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q, open := s.doubts.open[id]
	switch {
	case err == nil:
		s.doubts.pause = 0
		s.see(row, asked, told)
	case s.provenByGet(err):
		s.doubts.pause = 0
		if known, ok := s.snapshot.byID[id]; !ok || known.seen < asked { // it was not written meanwhile
			s.vanish(id, told)
		}
	case errors.Is(err, connectclient.ErrUnsupported), errors.Is(err, connectclient.ErrNotFound):
		// The revision that does not have the call, or may not have it, answers
		// everything so.
		s.doubts.byListing()
		return false
	default:
		if unsent(err) {
			s.doubts.left++
		}
		s.putOff(id, q, err, told)
		return false
	}
	if open { // it is answered under another id, or was written meanwhile
		told.wake(s.doubts.answered(id)...)
	}
	return true
}

// provenByGet tells whether the answer to a request for one object proves that it is
// not there. The older revision answers so to calls that it does not have, and what
// is not known to be the current one may be the older.
func (s *Store[T]) provenByGet(err error) bool {
	return errors.Is(err, connectclient.ErrNotFound) && s.client.Revision() == connectclient.RevisionCurrent
}

// putOff has the question asked again later, after the others. Those who wait for
// the answer hear of the trouble once. The lock is held.
func (s *Store[T]) putOff(id string, q *question, err error, told *outcome[T]) {
	s.doubts.due = time.Now().Add(s.retryIn(err, &s.doubts.pause))
	if q == nil {
		return
	}
	if at := slices.Index(s.doubts.single, id); at >= 0 {
		s.doubts.single = append(slices.Delete(s.doubts.single, at, at+1), id)
	}
	if q.failure != nil || errors.Is(err, connectclient.ErrDeferred) {
		return
	}
	q.failure = err
	told.wake(slices.Collect(maps.Keys(q.waiters))...)
}

// vanish takes an object out of the snapshot that is proven not to be there. The
// lock is held.
func (s *Store[T]) vanish(id string, told *outcome[T]) {
	if known, ok := s.snapshot.byID[id]; ok {
		s.snapshot.unset(id)
		told.changes = append(told.changes, change[T]{before: known.object, id: id, keys: known.keys})
	}
	s.doubts.gone.note(id, s.nextTick())
	told.wake(s.doubts.answered(id)...)
}

// resolveAll draws what follows from a whole listing that has ended: what it did not
// show is in doubt, and what was in doubt and still did not show is gone. The lock
// is held.
func (s *Store[T]) resolveAll(began uint64, told *outcome[T]) {
	for id, known := range s.snapshot.byID {
		switch {
		case known.seen >= began:
		case known.doubt:
			s.vanish(id, told)
		default:
			known.doubt = true
			told.doubtful = append(told.doubtful, change[T]{before: known.object, id: id, keys: known.keys})
		}
	}
	for id, q := range s.doubts.open {
		if _, known := s.snapshot.byID[id]; known || q.asked > began {
			continue
		}
		if q.missed {
			s.vanish(id, told)
		}
		q.missed = true
	}
}

// askAgain decides, after a listing, how the questions are answered that are still
// open: by requests of their own, as many as may be made again; the rest by listings.
// The next one is brought forward for what began too early to be answered by this one,
// and once more for what this one has missed; not each time that a listing is not
// whole. The lock is held.
func (s *Store[T]) askAgain(began uint64) {
	s.doubts.left, s.doubts.listing = singleProofs, false
	s.doubts.due, s.doubts.pause = time.Time{}, 0 // the API is there
	for id, q := range s.doubts.open {
		switch {
		case q.idle():
			s.doubts.answered(id)
		case q.single:
		case s.mayAskSingly():
			q.single = true
			s.doubts.single = append(s.doubts.single, id)
		case q.asked > began:
			s.doubts.listing = true
		case q.missed && !q.second:
			q.second, s.doubts.listing = true, true
		}
	}
}
