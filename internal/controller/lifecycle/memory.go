// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// memory is what the loop remembers of resources. It is gone with the process, so nothing that must
// not be lost is only there.
type memory struct {
	mu      sync.Mutex
	of      map[types.NamespacedName]*remembered
	intents map[types.UID]*Intent // copies of those on the API server, for when somebody takes one off
}

// remembered is what the loop remembers of one resource. The work queue gives a resource to one
// worker at a time, which alone touches it.
type remembered struct {
	uid         types.UID
	firstSeen   time.Time // by this process
	lookSince   time.Time // how old the listings may be that a POST rests on, for kinds that look first
	paused      bool      // the last pass waited for something else than a listing
	freshness   freshness
	expectation expectation
	pace        pace
}

func newMemory() *memory {
	return &memory{of: map[types.NamespacedName]*remembered{}, intents: map[types.UID]*Intent{}}
}

// noteIntent remembers the intent of a resource; nil if it has none.
func (m *memory) noteIntent(resource types.UID, intent *Intent) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if intent == nil {
		delete(m.intents, resource)
		return
	}
	m.intents[resource] = intent
}

// intentOf returns the intent of a resource that this process has put there, or nil.
func (m *memory) intentOf(resource types.UID) *Intent {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.intents[resource]
}

// recall returns what is remembered of a resource. One that was deleted and made again under the
// same name is another.
func (m *memory) recall(resource types.NamespacedName, uid types.UID, now time.Time) *remembered {
	m.mu.Lock()
	defer m.mu.Unlock()
	known, ok := m.of[resource]
	if !ok || known.uid != uid {
		known = &remembered{uid: uid, firstSeen: now, lookSince: now}
		m.of[resource] = known
	}
	return known
}

// forget drops a resource that is gone, and returns its UID if it was known.
func (m *memory) forget(resource types.NamespacedName) (types.UID, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	known, ok := m.of[resource]
	delete(m.of, resource)
	if !ok {
		return "", false
	}
	delete(m.intents, known.uid)
	return known.uid, true
}
