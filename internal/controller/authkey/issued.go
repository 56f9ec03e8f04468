// SPDX-License-Identifier: Apache-2.0

package authkey

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/types"
)

// issuedKeys remembers which auth keys this process has made. Keys have no names, so a key that
// another AuthKey has just made, and whose Secret is not in the cache yet, looks like one that was
// lost.
type issuedKeys struct {
	mu       sync.Mutex
	underWay map[string]int                  // by appearance: POSTs whose answer is still to come
	newest   map[types.NamespacedName]string // the id of an AuthKey's newest key
	known    map[string]bool                 // these ids
	limits   map[types.NamespacedName]*rate.Limiter
	needed   map[types.NamespacedName]time.Time // since when an AuthKey needs a new key
}

// An AuthKey makes no more keys than this, whatever the reasons: something is wrong if it wants to.
const (
	issueBurst = 10
	issueEvery = 30 * time.Second
)

func newIssuedKeys() *issuedKeys {
	return &issuedKeys{
		underWay: map[string]int{}, newest: map[types.NamespacedName]string{}, known: map[string]bool{},
		limits: map[types.NamespacedName]*rate.Limiter{}, needed: map[types.NamespacedName]time.Time{},
	}
}

// begin notes that the AuthKey makes a key of this appearance; the function it returns, that it has.
func (k *issuedKeys) begin(resource types.NamespacedName, appearance string) (end func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.limit(resource).Allow()
	k.underWay[appearance]++
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.underWay[appearance]--; k.underWay[appearance] == 0 {
			delete(k.underWay, appearance)
		}
	}
}

// unsure tells whether keys of this appearance are being made whose ids nobody knows yet.
func (k *issuedKeys) unsure(appearance string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.underWay[appearance] > 0
}

// note remembers the newest key of an AuthKey; older ones are revoked or recorded.
func (k *issuedKeys) note(resource types.NamespacedName, id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.known, k.newest[resource])
	k.newest[resource], k.known[id] = id, true
	delete(k.needed, resource)
}

// here tells whether this process has made the key.
func (k *issuedKeys) here(id string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.known[id]
}

// lost is for a key that could not be stored.
func (k *issuedKeys) lost(resource types.NamespacedName) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.known, k.newest[resource])
	delete(k.newest, resource)
}

// neededSince is since when the AuthKey needs a new key.
func (k *issuedKeys) neededSince(resource types.NamespacedName, now time.Time) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	if since, ok := k.needed[resource]; ok {
		return since
	}
	k.needed[resource] = now
	return now
}

// delay is how long the AuthKey has to wait before it makes another key.
func (k *issuedKeys) delay(resource types.NamespacedName) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	missing := 1 - k.limit(resource).Tokens()
	return max(0, time.Duration(missing*float64(issueEvery)))
}

func (k *issuedKeys) limit(resource types.NamespacedName) *rate.Limiter {
	if k.limits[resource] == nil {
		k.limits[resource] = rate.NewLimiter(rate.Every(issueEvery), issueBurst)
	}
	return k.limits[resource]
}

// forget is for an AuthKey that is gone.
func (k *issuedKeys) forget(resource types.NamespacedName) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.known, k.newest[resource])
	delete(k.newest, resource)
	delete(k.limits, resource)
	delete(k.needed, resource)
}
