// SPDX-License-Identifier: Apache-2.0

// Package devices finds the devices that a resource means, for all kinds and with as
// few requests as can be.
//
// The organisation's devices are listed while somebody waits for one, and at the resync
// interval for kinds that are kept equal to them. A name or a serial number is looked up in the listing of all devices, which everybody shares.
// A query can be answered in two ways: by its own listing, which is short for a narrow
// query, or, if it consists of qualifiers only, from the listing of all. Whichever
// costs less is taken, see cost.go.
package devices

import (
	"context"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/reflector"
)

type (
	device = connectclient.Device
	store  = reflector.Store[device]
)

// Finder finds devices. It is safe for concurrent use.
type Finder struct {
	devices *reflector.Reflector[device]

	mu    sync.Mutex
	costs map[connectclient.Secret]*costs
}

// New returns a finder that lists nothing before [Finder.Start].
func New(options reflector.Options) *Finder {
	f := &Finder{costs: map[connectclient.Secret]*costs{}}
	f.devices = reflector.New(options, reflector.Collection[device]{
		Name: "devices",
		List: f.list,
		Get: func(ctx context.Context, c *connectclient.Client, id string) (*device, error) {
			return c.Devices().Get(ctx, id)
		},
		ID: func(d device) string { return d.ID },
		Keys: func(d device) []string {
			return []string{idKey(d.ID), nameKey(d.Name), serialKey(d.SerialNumber)}
		},
	})
	return f
}

// By what devices are waited for.
func idKey(id string) string         { return "id/" + id }
func nameKey(name string) string     { return "name/" + name }
func serialKey(serial string) string { return "serial/" + strings.ToLower(serial) }

// What is listed besides the whole organisation.
const (
	queryScope = "query/" // and what follows it
	countScope = "count"  // the first page of all: it says how many there are
)

func (f *Finder) list(c *connectclient.Client, scope string) reflector.Pager[device] {
	if query, ok := strings.CutPrefix(scope, queryScope); ok {
		return c.Devices().List(query)
	}
	return &counted{
		Listing:   c.Devices().List(""),
		firstOnly: scope == countScope,
		total:     func(total int) { f.learn(c.Token(), total) },
	}
}

// Key is what a device is waited for by that is known by its id, its name or its serial
// number; empty for a query.
func Key(ref v1alpha1.DeviceReference) string {
	switch {
	case ref.ID != "":
		return idKey(ref.ID)
	case ref.Name != "":
		return nameKey(ref.Name)
	case ref.SerialNumber != "":
		return serialKey(ref.SerialNumber)
	default:
		return ""
	}
}

// Subscribe has one more kind of resources woken. It must be called before
// [Finder.Start].
func (f *Finder) Subscribe(s reflector.Subscription) { f.devices.Subscribe(s) }

// Start lists until the context ends.
func (f *Finder) Start(ctx context.Context) error { return f.devices.Start(ctx) }

// Retry asks again what could not be asked because the token was refused.
func (f *Finder) Retry(token connectclient.Secret) { f.devices.Retry(token) }

// Forget drops what a resource waits for: it is gone.
func (f *Finder) Forget(w reflector.Waiter) { f.devices.Forget(w) }

// Retire forgets a token that nothing uses any more.
func (f *Finder) Retire(token connectclient.Secret) {
	f.devices.Retire(token)
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.costs, token)
}

// Known finds a device by its id in whatever listing has shown it, for its name
// mostly. It proves nothing, and asks for nothing.
func (f *Finder) Known(token connectclient.Secret, id string) (connectclient.Device, bool) {
	return f.devices.Known(token, id)
}

// Lookup finds a device by its id for somebody who concludes something from its absence,
// in a listing that began at notBefore or later, as [Finder.Find] does. Unlike that it
// waits for a listing even if any will do: of many who ask, none costs a request of its
// own.
func (f *Finder) Lookup(token connectclient.Secret, id string, notBefore time.Time, w reflector.Waiter) (found connectclient.Device, there bool, err error) {
	all := f.devices.Of(token)
	if err := all.Await(notBefore, w); err != nil {
		return device{}, false, err
	}
	return all.Lookup(id, w)
}

// Put records what the operator has changed.
func (f *Finder) Put(token connectclient.Secret, changed connectclient.Device) {
	f.devices.Of(token).Put(changed)
}

// Remove records that the operator has removed a device.
func (f *Finder) Remove(token connectclient.Secret, id string) { f.devices.Of(token).Remove(id) }

// AwaitName has the waiter woken when a device gets the name or gives it up.
func (f *Finder) AwaitName(token connectclient.Secret, name string, w reflector.Waiter) {
	f.devices.Of(token).AwaitKeys(w, nameKey(name))
}

// BySerialNumber returns the devices of a board as they were seen last. It proves
// nothing, and asks for nothing.
func (f *Finder) BySerialNumber(token connectclient.Secret, serial string) []connectclient.Device {
	return f.devices.Of(token).Find(serialKey(serial))
}

// Find returns the devices that the reference means: by its id or its name to the
// letter, by its serial number in either case, or by a query in Connect's words. They
// stem from a listing that began at notBefore or later, zero stands for any;
// [reflector.ErrPending] while that is on its way or while it is in doubt which they
// are, or why the organisation cannot be listed now. With a zero notBefore an id costs
// one request, not a listing.
//
// If the answer is not exactly one device, the waiter is woken when that may have
// changed.
func (f *Finder) Find(token connectclient.Secret, ref v1alpha1.DeviceReference, notBefore time.Time, w reflector.Waiter) ([]connectclient.Device, error) {
	all := f.devices.Of(token)
	switch {
	case ref.ID != "":
		return byID(all, ref.ID, notBefore, w)
	case ref.Name != "":
		match := func(d device) bool { return d.Name == ref.Name }
		return byKey(all, nameKey(ref.Name), match, notBefore, w)
	case ref.SerialNumber != "":
		match := func(d device) bool { return strings.EqualFold(d.SerialNumber, ref.SerialNumber) }
		return byKey(all, serialKey(ref.SerialNumber), match, notBefore, w)
	}
	if q, local := parse(ref.Query); local {
		return f.byQuery(token, q, notBefore, w)
	}
	return f.byListing(token, strings.TrimSpace(ref.Query), notBefore, w)
}

// byID asks for the device even if no listing has shown it.
func byID(all *store, id string, notBefore time.Time, w reflector.Waiter) ([]device, error) {
	if !notBefore.IsZero() {
		if err := all.Await(notBefore, w); err != nil {
			return nil, err
		}
	}
	found, err := certain(all, []string{id}, everything, w)
	if err == nil && len(found) == 0 {
		all.AwaitKeys(w, idKey(id))
	}
	return found, err
}

func byKey(all *store, key string, match func(device) bool, notBefore time.Time, w reflector.Waiter) ([]device, error) {
	if err := all.Await(notBefore, w); err != nil {
		return nil, err
	}
	found, err := certain(all, idsOf(slices.Values(all.Find(key))), match, w)
	if err == nil && len(found) != 1 {
		all.AwaitKeys(w, key)
	}
	return found, err
}

// byListing answers a query from its own listing: Connect says what matches.
func (f *Finder) byListing(token connectclient.Secret, query string, notBefore time.Time, w reflector.Waiter) ([]device, error) {
	return byMatch(f.devices.Part(token, queryScope+query), everything, notBefore, w)
}

func byMatch(s *store, match func(device) bool, notBefore time.Time, w reflector.Waiter) ([]device, error) {
	if err := s.Await(notBefore, w); err != nil {
		return nil, err
	}
	found, err := certain(s, idsOf(matching(s.All(), match)), match, w)
	if err == nil && len(found) != 1 {
		s.AwaitMatch(w, match)
	}
	return found, err
}

// byQuery answers a query that can be answered from the listing of all, in the
// cheaper way.
func (f *Finder) byQuery(token connectclient.Secret, q query, notBefore time.Time, w reflector.Waiter) ([]device, error) {
	all := f.devices.Of(token)
	if all.Fresh(notBefore) {
		if ids := idsOf(matching(all.All(), q.matches)); len(ids) == 1 {
			if found, err := certain(all, ids, q.matches, w); len(found) == 1 && err == nil {
				f.answered(token, q)
				return found, nil
			}
		}
	}
	way, err := f.cheaper(token, q, w)
	if err != nil {
		return nil, err
	}
	var found []device
	if way == fromAll {
		found, err = byMatch(all, q.matches, notBefore, w)
	} else {
		found, err = f.byListing(token, q.String(), notBefore, w)
	}
	if err == nil && len(found) == 1 {
		f.answered(token, q)
	}
	return found, err
}

func everything(device) bool { return true }

func matching(devices iter.Seq[device], match func(device) bool) iter.Seq[device] {
	return func(yield func(device) bool) {
		for d := range devices {
			if match(d) && !yield(d) {
				return
			}
		}
	}
}

func idsOf(devices iter.Seq[device]) []string {
	var ids []string
	for d := range devices {
		ids = append(ids, d.ID)
	}
	slices.Sort(ids)
	return ids
}

// certain returns those of the devices that are surely there and still match. One of
// which that is in doubt matters only if it decides whether there is exactly one.
func certain(s *store, ids []string, match func(device) bool, w reflector.Waiter) ([]device, error) {
	var found []device
	var doubt error
	for _, id := range ids {
		d, there, err := s.Lookup(id, w)
		switch {
		case err != nil:
			doubt = err
		case there && match(d):
			found = append(found, d)
		}
	}
	if doubt != nil && len(found) < 2 {
		return nil, doubt
	}
	return found, nil
}
