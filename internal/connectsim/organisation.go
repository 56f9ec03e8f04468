// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Organisation is one organisation and all that is in it. Its methods reach
// behind the API, as another person or program would.
type Organisation struct {
	server *Server
	name   string

	artefacts   *collection[Artefact]
	authKeys    *collection[AuthKey]
	identities  *collection[Identity]
	devices     *collection[Device]
	deployments map[string]*Deployment   // by id
	runs        map[string][]*Deployment // by device, the newest last
	sequence    int                      // orders what is made in the same second
}

// AddOrganisation makes an organisation that the token (rporg_…) opens.
func (s *Server) AddOrganisation(token string) *Organisation {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &Organisation{
		server:      s,
		name:        fmt.Sprintf("organisation-%d", len(s.organisations)+1),
		artefacts:   newCollection(byName),
		authKeys:    newCollection[AuthKey](nil), // its order changes with time
		identities:  newCollection(byDescription),
		devices:     newCollection(byDeviceName),
		deployments: map[string]*Deployment{},
		runs:        map[string][]*Deployment{},
	}
	s.organisations = append(s.organisations, o)
	s.byToken[token] = o
	return o
}

func byName(a, b *Artefact) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
}
func byDescription(a, b *Identity) int {
	return cmp.Or(strings.Compare(a.Description, b.Description), strings.Compare(a.ID, b.ID))
}
func byDeviceName(a, b *Device) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
}

// Name is the organisation's name in the journal.
func (o *Organisation) Name() string { return o.name }

// AddToken lets another token open the organisation too.
func (o *Organisation) AddToken(token string) {
	o.server.mu.Lock()
	defer o.server.mu.Unlock()
	o.server.byToken[token] = o
}

// RevokeToken makes a token invalid.
func (s *Server) RevokeToken(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byToken, token)
}

// Organisation returns the organisation that a token opens; nil if it opens none.
func (s *Server) Organisation(token string) *Organisation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byToken[token]
}

// collection keeps objects by id and, where it can, in the order in which they
// are listed, so that a page of ten thousand costs a page.
type collection[T any] struct {
	byID   map[string]*T
	order  func(a, b *T) int // nil: the order is not kept
	sorted []*T
}

func newCollection[T any](order func(a, b *T) int) *collection[T] {
	return &collection[T]{byID: map[string]*T{}, order: order}
}

func (c *collection[T]) add(id string, object *T) {
	c.byID[id] = object
	if c.order == nil {
		c.sorted = append(c.sorted, object)
		return
	}
	at, _ := slices.BinarySearchFunc(c.sorted, object, c.order)
	c.sorted = slices.Insert(c.sorted, at, object)
}

func (c *collection[T]) remove(id string) {
	object, ok := c.byID[id]
	if !ok {
		return
	}
	delete(c.byID, id)
	at := slices.Index(c.sorted, object)
	c.sorted = slices.Delete(c.sorted, at, at+1)
}

// change lets the object be changed in a way that may move it.
func (c *collection[T]) change(id string, object *T, change func()) {
	c.remove(id)
	change()
	c.add(id, object)
}

// alter changes an object, if it is there, behind the API's back.
func alter[T any](o *Organisation, c *collection[T], id string, change func(*T)) {
	o.server.mu.Lock()
	defer o.server.mu.Unlock()
	if object, found := c.byID[id]; found {
		c.change(id, object, func() { change(object) })
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

// newID is a UUID, as ids are in practice.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}

const base58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

// NewSecret returns 24 base58 characters after the prefix: "rporg_", "rpoak_",
// "rpdev_".
func NewSecret(prefix string) string {
	var b [24]byte
	_, _ = rand.Read(b[:]) // never fails
	for i := range b {
		b[i] = base58[int(b[i])%len(base58)]
	}
	return prefix + string(b[:])
}

// stamp is how the API writes times.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func stampOrNil(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return stamp(t)
}

// tagged makes null of no tags impossible: the API always shows a list.
func tagged(tags []string) []string {
	if tags == nil {
		return []string{}
	}
	return tags
}

// object is the JSON of one object.
type object map[string]any
