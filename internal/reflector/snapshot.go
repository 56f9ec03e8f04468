// SPDX-License-Identifier: Apache-2.0

package reflector

import "slices"

// snapshot is the objects that are known, by their id and their keys.
type snapshot[T any] struct {
	byID  map[string]*entry[T]
	byKey map[string][]string // ids, in no order
}

// entry is one object, and what is known of how true it is. Times are ticks of the
// store.
type entry[T any] struct {
	object  *T // is replaced, and never changed
	keys    []string
	written uint64 // when the operator itself wrote it last
	seen    uint64 // when it was written, or was asked for and found
	doubt   bool   // the last listing that was whole did not show it
}

func newSnapshot[T any]() snapshot[T] {
	return snapshot[T]{byID: map[string]*entry[T]{}, byKey: map[string][]string{}}
}

// set replaces what is known under the id.
func (p *snapshot[T]) set(id string, e entry[T]) {
	p.unset(id)
	p.byID[id] = &e
	for _, key := range e.keys {
		p.byKey[key] = append(p.byKey[key], id)
	}
}

func (p *snapshot[T]) unset(id string) {
	old, ok := p.byID[id]
	if !ok {
		return
	}
	delete(p.byID, id)
	for _, key := range old.keys {
		ids := slices.DeleteFunc(p.byKey[key], func(other string) bool { return other == id })
		if len(ids) == 0 {
			delete(p.byKey, key)
		} else {
			p.byKey[key] = ids
		}
	}
}

// found returns the objects with the key, by the order of their ids.
func (p *snapshot[T]) found(key string) []T {
	ids := slices.Sorted(slices.Values(p.byKey[key]))
	objects := make([]T, len(ids))
	for i, id := range ids {
		objects[i] = *p.byID[id].object
	}
	return objects
}

// all returns every object, in no order.
func (p *snapshot[T]) all() []*T {
	objects := make([]*T, 0, len(p.byID))
	for _, e := range p.byID {
		objects = append(objects, e.object)
	}
	return objects
}

// change is what became of one object: before is nil for one that has appeared,
// after for one that has vanished.
type change[T any] struct {
	before, after *T
	id            string
	keys          []string // of both
	at            uint64   // when it was told, or written
}

// union is the keys of an object before and after a change.
func union(after, before []string) []string {
	keys := slices.Clone(after)
	for _, key := range before {
		if !slices.Contains(after, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// recent remembers the latest few of many ids, and when they were noted. It is
// bounded: of more than it can keep, the older half is forgotten.
type recent struct{ new, old map[string]uint64 }

// remembered is how many ids a recent keeps at least.
const remembered = 10_000

func (r *recent) note(id string, at uint64) {
	if r.new == nil || len(r.new) >= remembered {
		r.new, r.old = map[string]uint64{}, r.new
	}
	r.new[id] = at
}

func (r *recent) at(id string) (uint64, bool) {
	if at, ok := r.new[id]; ok {
		return at, true
	}
	at, ok := r.old[id]
	return at, ok
}

func (r *recent) forget(id string) {
	delete(r.new, id)
	delete(r.old, id)
}
