// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// minted remembers which auth keys this process has made. Keys have no names, so a
// key that another AuthKey has just made, and whose Secret is not in the cache yet,
// looks like one that was lost.
type minted struct {
	mu       sync.Mutex
	underWay map[string]int                  // by likeness: POSTs whose answer is still to come
	newest   map[types.NamespacedName]string // the id of an AuthKey's newest key
	known    map[string]bool                 // these ids
}

func newMinted() *minted {
	return &minted{underWay: map[string]int{}, newest: map[types.NamespacedName]string{}, known: map[string]bool{}}
}

// begin notes that a key of this likeness is being made; the function it returns,
// that it is no longer.
func (m *minted) begin(likeness string) (end func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.underWay[likeness]++
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.underWay[likeness]--; m.underWay[likeness] == 0 {
			delete(m.underWay, likeness)
		}
	}
}

// unsure tells whether keys of this likeness are being made whose ids nobody knows
// yet.
func (m *minted) unsure(likeness string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.underWay[likeness] > 0
}

// note remembers the newest key of an AuthKey; older ones are revoked or recorded.
func (m *minted) note(resource types.NamespacedName, id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.known, m.newest[resource])
	m.newest[resource], m.known[id] = id, true
}

// here tells whether this process has made the key.
func (m *minted) here(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known[id]
}

// forget is for an AuthKey that is gone, or whose key could not be stored.
func (m *minted) forget(resource types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.known, m.newest[resource])
	delete(m.newest, resource)
}
