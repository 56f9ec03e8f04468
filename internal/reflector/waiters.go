// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"slices"
	"time"
)

// patience is how long a resource waits without being woken. Then it is asked, by
// waking it, whether it still waits: one that is gone does not answer, and so
// leaves nothing behind.
const patience = time.Hour

// waiters are the resources that wait for something, and for what. Each is woken
// once, for whatever comes first, and then has to ask again.
type waiters[T any] struct {
	all   map[Waiter]*wait[T]
	byKey map[string]map[Waiter]struct{}
	// fresh are those who wait for a fresher snapshot, matching those with a
	// match.
	fresh, matching map[Waiter]struct{}
	last            time.Time // when somebody began to wait, by the real clock
}

// wait is what one resource waits for.
type wait[T any] struct {
	since     time.Time // by the real clock
	notBefore time.Time // if it is among the fresh
	keys      []string
	match     func(T) bool
	ids       []string // that it wants to know of whether they are there
}

func newWaiters[T any]() waiters[T] {
	return waiters[T]{
		all:   map[Waiter]*wait[T]{},
		byKey: map[string]map[Waiter]struct{}{},
		fresh: map[Waiter]struct{}{}, matching: map[Waiter]struct{}{},
	}
}

func (ws *waiters[T]) of(w Waiter) *wait[T] {
	waits, ok := ws.all[w]
	if !ok {
		ws.last = time.Now()
		waits = &wait[T]{since: ws.last}
		ws.all[w] = waits
	}
	return waits
}

// forSnapshot has the waiter wait for a snapshot that began at notBefore or later.
func (ws *waiters[T]) forSnapshot(w Waiter, notBefore time.Time) {
	ws.of(w).notBefore = notBefore
	ws.fresh[w] = struct{}{}
}

func (ws *waiters[T]) forKeys(w Waiter, keys []string) {
	waits := ws.of(w)
	for _, key := range keys {
		if slices.Contains(waits.keys, key) {
			continue
		}
		waits.keys = append(waits.keys, key)
		if ws.byKey[key] == nil {
			ws.byKey[key] = map[Waiter]struct{}{}
		}
		ws.byKey[key][w] = struct{}{}
	}
}

func (ws *waiters[T]) forMatch(w Waiter, match func(T) bool) {
	ws.of(w).match = match
	ws.matching[w] = struct{}{}
}

// drop forgets what the waiter waits for, and returns it; nil if it does not wait.
func (ws *waiters[T]) drop(w Waiter) *wait[T] {
	waits, ok := ws.all[w]
	if !ok {
		return nil
	}
	delete(ws.all, w)
	delete(ws.fresh, w)
	delete(ws.matching, w)
	for _, key := range waits.keys {
		delete(ws.byKey[key], w)
		if len(ws.byKey[key]) == 0 {
			delete(ws.byKey, key)
		}
	}
	return waits
}

// satisfied are those to whom a snapshot is fresh enough that began at that time.
func (ws *waiters[T]) satisfied(listedFrom time.Time) []Waiter {
	var found []Waiter
	for w := range ws.fresh {
		if !ws.all[w].notBefore.After(listedFrom) {
			found = append(found, w)
		}
	}
	return found
}

// impatient are those who have waited for long.
func (ws *waiters[T]) impatient() []Waiter {
	var found []Waiter
	before := time.Now().Add(-patience)
	for w, waits := range ws.all {
		if waits.since.Before(before) {
			found = append(found, w)
		}
	}
	return found
}

// keyed are those who wait for a key of one of the changes.
func (ws *waiters[T]) keyed(changes []change[T]) []Waiter {
	var found []Waiter
	for i := range changes {
		for _, key := range changes[i].keys {
			for w := range ws.byKey[key] {
				found = append(found, w)
			}
		}
	}
	return found
}

// matchers are those who wait for a match, to be compared without the lock.
func (ws *waiters[T]) matchers() map[Waiter]func(T) bool {
	matchers := make(map[Waiter]func(T) bool, len(ws.matching))
	for w := range ws.matching {
		matchers[w] = ws.all[w].match
	}
	return matchers
}

// matched are those of the matchers whom one of the changes concerns.
func matched[T any](matchers map[Waiter]func(T) bool, changes []change[T]) []Waiter {
	var found []Waiter
	for w, match := range matchers {
		if slices.ContainsFunc(changes, func(c change[T]) bool { return c.matches(match) }) {
			found = append(found, w)
		}
	}
	return found
}

// matches tells whether the object matches, or did before the change.
func (c change[T]) matches(match func(T) bool) bool {
	return c.before != nil && match(*c.before) || c.after != nil && match(*c.after)
}
