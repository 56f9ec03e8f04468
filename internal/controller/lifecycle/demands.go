// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// demands remembers which resources need a picture of the organisation that is
// newer than a moment: after a response was lost, what the POST made can only be
// in a listing that began later; and a user who asks for a look wants a new one.
//
// It is memory only. After a restart every picture is newer than the restart.
type demands struct {
	mu     sync.Mutex
	demand map[types.NamespacedName]demand
}

type demand struct {
	notBefore time.Time
	request   string // the user's request that it stems from, if any
	refused   bool   // it stems from a POST that Connect refused
}

func newDemands() *demands { return &demands{demand: map[types.NamespacedName]demand{}} }

// of returns how fresh a picture the resource needs; zero if any will do.
func (d *demands) of(resource types.NamespacedName) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.demand[resource].notBefore
}

// onRequest notes the user's request; the same request counts once, from the
// first time it is seen.
func (d *demands) onRequest(resource types.NamespacedName, request string, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.demand[resource].request != request {
		d.demand[resource] = demand{notBefore: now, request: request}
	}
}

// onLoss notes that nothing is known of the remote object any more: a POST was sent
// and its outcome is not known, or the object has vanished.
func (d *demands) onLoss(resource types.NamespacedName, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.demand[resource]
	d.demand[resource] = demand{notBefore: now, request: old.request}
}

// onRefusal notes that a POST was refused, and tells whether the picture that
// the POST was based on was already demanded because of a refusal: then there is
// nothing newer to be learnt.
func (d *demands) onRefusal(resource types.NamespacedName, now time.Time) (again bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.demand[resource]
	if old.refused {
		delete(d.demand, resource)
		return true
	}
	d.demand[resource] = demand{notBefore: now, request: old.request, refused: true}
	return false
}

// forget drops the demand: the resource is gone, or what it asked for was met.
func (d *demands) forget(resource types.NamespacedName) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.demand, resource)
}
