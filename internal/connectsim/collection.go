// SPDX-License-Identifier: Apache-2.0

package connectsim

import "slices"

// collection keeps objects by id, by keys that they can be found by, and in an
// order, so that finding one costs nothing and a page of ten thousand a page.
type collection[T any] struct {
	byID   map[string]*T
	byKey  map[string][]*T
	keys   func(*T) []string
	order  func(a, b *T) int
	sorted []*T
}

// newCollection returns an empty one. The order is total: no two objects are equal
// in it. Empty keys are none.
func newCollection[T any](order func(a, b *T) int, keys func(*T) []string) *collection[T] {
	return &collection[T]{byID: map[string]*T{}, byKey: map[string][]*T{}, keys: keys, order: order}
}

func (c *collection[T]) add(id string, object *T) {
	c.byID[id] = object
	at, _ := slices.BinarySearchFunc(c.sorted, object, c.order)
	c.sorted = slices.Insert(c.sorted, at, object)
	for _, key := range c.keys(object) {
		if key != "" {
			c.byKey[key] = append(c.byKey[key], object)
		}
	}
}

func (c *collection[T]) remove(id string) {
	object, ok := c.byID[id]
	if !ok {
		return
	}
	delete(c.byID, id)
	at, _ := slices.BinarySearchFunc(c.sorted, object, c.order)
	c.sorted = slices.Delete(c.sorted, at, at+1)
	for _, key := range c.keys(object) {
		left := slices.DeleteFunc(c.byKey[key], func(other *T) bool { return other == object })
		if len(left) == 0 {
			delete(c.byKey, key)
			continue
		}
		c.byKey[key] = left
	}
}

// find returns the first object with a key; nil if there is none.
func (c *collection[T]) find(key string) *T {
	if found := c.byKey[key]; len(found) > 0 {
		return found[0]
	}
	return nil
}

// change lets an object be changed in a way that may move it, or change its keys;
// it returns false if there is none.
func (c *collection[T]) change(id string, change func(*T)) bool {
	object, found := c.byID[id]
	if !found {
		return false
	}
	c.remove(id)
	change(object)
	c.add(id, object)
	return true
}

// get answers the object whose id is in the path.
func get[T any](c *call, all *collection[T], show func(*T) object) reply {
	found, is := all.byID[c.PathValue("id")]
	if !is {
		return c.notFound()
	}
	return ok(show(found))
}

// toChange returns the object whose id is in the path, and what the body says of it; or the answer, if
// there is no such object or body.
func toChange[T any](c *call, all *collection[T]) (found *T, p params, refusal *reply) {
	found, is := all.byID[c.PathValue("id")]
	p, valid := c.params(false)
	answer := reply{}
	switch {
	case !is:
		answer = c.notFound()
	case !valid:
		answer = c.bad("The body cannot be parsed")
	default:
		return found, p, nil
	}
	return nil, nil, &answer
}

// alter changes an object, if it is there, behind the API's back.
func alter[T any](o *Organisation, c *collection[T], id string, change func(*T)) {
	o.server.mu.Lock()
	defer o.server.mu.Unlock()
	if c.change(id, change) {
		o.server.touch()
	}
}

// copies returns the objects as they are now.
func copies[T any](objects []*T) []T {
	all := make([]T, len(objects))
	for i, object := range objects {
		all[i] = *object
	}
	return all
}
