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
	mu   sync.Mutex
	of   map[types.NamespacedName]*remembered
	sent map[types.UID]sent // copies of what is on the API server, for when somebody takes it off
}

// remembered is what the loop remembers of one resource. The work queue gives a resource to one
// worker at a time, which alone touches it.
type remembered struct {
	uid         types.UID
	firstSeen   time.Time // by this process
	lookSince   time.Time // how old the listings may be that a POST rests on, for kinds that look first
	paused      bool      // the last pass waited for something else than a listing
	unsent      time.Time // when a request was to be noted that was not sent, because nobody knows whether it is
	freshness   freshness
	expectation expectation
	pace        pace
}

func newMemory() *memory {
	return &memory{of: map[types.NamespacedName]*remembered{}, sent: map[types.UID]sent{}}
}

// noteSent remembers the requests that are noted on a resource.
func (m *memory) noteSent(resource types.UID, s sent) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sent[resource] = s
}

// sentBy returns the requests that were noted on a resource when this process last read or wrote
// them, and whether it has.
func (m *memory) sentBy(resource types.UID) (sent, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.sent[resource]
	return s, ok
}

// hasAnother tells whether what is remembered under the name is another resource's.
func (m *memory) hasAnother(resource types.NamespacedName, uid types.UID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	known, ok := m.of[resource]
	return ok && known.uid != uid
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
	delete(m.sent, known.uid)
	return known.uid, true
}
