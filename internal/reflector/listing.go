// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"rpi-connect.dev/operator/internal/connectclient"
)

// reading is a listing that has begun and not ended.
type reading[T any] struct {
	pager   Pager[T]
	began   uint64    // by the store's ticks
	from    time.Time // by the clock of snapshots
	since   time.Time // by the real clock
	pages   int       // that were read
	skipped int       // rows, as far as they have been counted
}

// outcome gathers whom a listing, or the failure of one, concerns.
type outcome[T any] struct {
	everyone bool
	// changes were made behind the operator's back.
	changes []change[T]
	// doubtful are the objects that have come into doubt.
	doubtful []change[T]
	waiters  map[Waiter]struct{}
	// silent: of this snapshot nobody needs to hear what has changed, because
	// there was none before.
	silent bool
	// more: it belongs to the listing that was told last.
	more bool
}

func (o *outcome[T]) wake(waiters ...Waiter) {
	if o.waiters == nil {
		o.waiters = map[Waiter]struct{}{}
	}
	for _, w := range waiters {
		o.waiters[w] = struct{}{}
	}
}

// list reads the collection, or goes on reading it where an earlier attempt failed,
// page by page into the snapshot.
func (s *Store[T]) list(ctx context.Context) {
	r := s.open()
	pages := 0
	var told outcome[T]
	for more := true; more; {
		s.mu.Lock()
		asked := s.nextTick()
		s.mu.Unlock()
		var rows []T
		var err error
		rows, more, err = r.pager.Next(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.fail(err, pages, &told)
			break
		}
		pages++
		r.pages++
		compared := s.compare(rows)
		s.mu.Lock()
		s.see(compared, asked, &told)
		if !more {
			s.complete(r, &told)
		}
		s.mu.Unlock()
	}
	observeSkipped(s.reflector.collection.Name, r.pager.Skipped()-r.skipped)
	r.skipped = r.pager.Skipped()
	s.publish(told)
}

// open begins a listing, or takes up the one that failed, unless that is so old that
// it tells more of the past than reading it again costs.
func (s *Store[T]) open() *reading[T] {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.reading; r != nil && time.Since(r.since) < s.reflector.options.Interval+3*s.spacing(r.pages) {
		return r
	}
	s.reading = &reading[T]{
		pager: s.reflector.collection.List(s.client, s.scope),
		began: s.nextTick(),
		from:  s.now(),
		since: time.Now(),
	}
	return s.reading
}

// seenRow is an object that was read, next to what was known of it.
type seenRow[T any] struct {
	id    string
	row   *T
	keys  []string // if it is not as it was
	known *T
	same  bool
}

// compare compares what was read with the snapshot. It is most of the work, and is
// done without the lock: everybody goes on reading the snapshot meanwhile.
func (s *Store[T]) compare(rows []T) []seenRow[T] {
	seen := make([]seenRow[T], len(rows))
	s.mu.Lock()
	for i := range rows {
		id := s.reflector.collection.ID(rows[i])
		seen[i] = seenRow[T]{id: id, row: &rows[i]}
		if known, ok := s.snapshot.byID[id]; ok {
			seen[i].known = known.object
		}
	}
	s.mu.Unlock()
	for i := range seen {
		if seen[i].known != nil && reflect.DeepEqual(*seen[i].known, *seen[i].row) {
			seen[i].same = true
		} else {
			seen[i].keys = s.reflector.keys(*seen[i].row)
		}
	}
	return seen
}

// see takes over objects that were asked for at that tick, except for what the
// operator itself wrote later. The lock is held.
func (s *Store[T]) see(rows []seenRow[T], asked uint64, told *outcome[T]) {
	for i := range rows {
		seen := &rows[i]
		if gone, ok := s.doubts.gone.at(seen.id); ok && gone > asked {
			continue
		}
		known, ok := s.snapshot.byID[seen.id]
		switch {
		case ok && known.written > asked:
			continue
		case ok && known.object == seen.known && seen.same:
			known.seen, known.doubt = asked, false
		default:
			changed := change[T]{after: seen.row, id: seen.id, keys: seen.keys}
			if ok {
				changed.before, changed.keys = known.object, union(seen.keys, known.keys)
			}
			told.changes = append(told.changes, changed)
			s.snapshot.set(seen.id, entry[T]{object: seen.row, keys: seen.keys, seen: asked})
		}
		s.doubts.gone.forget(seen.id)
		told.wake(s.doubts.answered(seen.id)...)
	}
}

// complete takes over that a listing has come to its end. The lock is held.
func (s *Store[T]) complete(r *reading[T], told *outcome[T]) {
	told.silent = s.listedFrom.IsZero()
	told.everyone = s.refused()
	s.reading, s.failure = nil, nil
	s.listedFrom = r.from
	if r.pager.Whole() {
		s.resolveAll(r.began, told)
	}
	s.askAgain(r.began)
	told.wake(s.waiters.satisfied(s.listedFrom)...)
	s.schedule.listed(s.spacing(r.pages), s.reflector.options.Interval)
	observeListing(s.reflector.collection.Name, nil)
}

// fail takes over that an attempt has failed after so many pages. Whoever waits for
// a fresher snapshot hears of it once: while listings keep failing nothing changes
// for them.
func (s *Store[T]) fail(err error, pages int, told *outcome[T]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, refused := s.failure, s.refused()
	switch {
	case errors.Is(err, connectclient.ErrDeferred):
		// Pacing is nobody's failure: the snapshot is just late.
	case refused && !errors.Is(err, connectclient.ErrUnsupported):
		// A refused token stays refused until it is seen to work. It has worked where the API says that it has
		// no such collection.
	default:
		s.failure = err
	}
	told.everyone = s.refused() != refused
	told.silent = s.listedFrom.IsZero()
	if before == nil && s.failure != nil {
		for w := range s.waiters.fresh {
			told.wake(w)
		}
		for _, q := range s.doubts.open {
			if !q.single {
				told.wake(slices.Collect(maps.Keys(q.waiters))...)
			}
		}
	}
	if s.reading.pages == 0 {
		s.reading = nil
	}
	s.schedule.failed(s.again(err, pages))
	observeListing(s.reflector.collection.Name, err)
}

// publish wakes whom the outcome concerns.
func (s *Store[T]) publish(told outcome[T]) {
	s.mu.Lock()
	if !told.more {
		s.latest = latest[T]{told: map[Waiter]uint64{}}
	}
	if !told.silent {
		// From here on, who comes to wait is compared with it.
		at := s.nextTick()
		for _, c := range told.changes {
			c.at = at
			s.latest.changes = append(s.latest.changes, c)
		}
	}
	told.wake(s.late...)
	s.late = nil
	told.wake(s.waiters.impatient()...)
	told.wake(s.waiters.keyed(told.changes)...)
	matchers, since := s.waiters.matchers(), s.nextTick()
	s.mu.Unlock()

	told.wake(matched(matchers, told.changes)...)

	s.mu.Lock()
	for w := range told.waiters {
		s.latest.told[w] = since
		s.dropWaiter(w)
	}
	s.mu.Unlock()
	s.notify(told)
}

// publishLate wakes who came too late for what was told last.
func (s *Store[T]) publishLate(context.Context) { s.publish(outcome[T]{more: true}) }

// notify tells each subscriber what concerns it.
func (s *Store[T]) notify(told outcome[T]) {
	all := Notification{Token: s.token, Everyone: told.everyone}
	if !told.silent {
		observeDrift(s.reflector.collection.Name, len(told.changes))
		for _, changes := range [][]change[T]{told.changes, told.doubtful} {
			for i := range changes {
				all.IDs = append(all.IDs, changes[i].id)
				all.Keys = append(all.Keys, changes[i].keys...)
			}
		}
	}
	waiters := map[string][]types.NamespacedName{}
	for w := range told.waiters {
		waiters[w.Subscriber] = append(waiters[w.Subscriber], w.Resource)
	}
	for _, subscriber := range s.reflector.subscriptions {
		n := all
		n.Waiters = waiters[subscriber.Name]
		if n.Everyone || len(n.Waiters)+len(n.IDs) > 0 {
			subscriber.Notify(n)
		}
	}
}
