// SPDX-License-Identifier: Apache-2.0

package fleetrollout

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// ledger is what this process has written of rollouts, and the cache may not show yet. It keeps
// spec.maxConcurrent from being exceeded because of a cache that is behind.
type ledger struct {
	mu sync.Mutex
	of map[types.NamespacedName]*entries
}

// entries are those of one rollout.
type entries struct {
	// compared says that the cache has once been found to have all that the API server has: what
	// the process before has made is not missed.
	compared bool
	// created are the Deployments that were made and have not been seen in the cache.
	created map[string]created
	// members are the hashes of the devices of a snapshot, by the revision.
	members map[int64]map[uint64]bool
	// status is when the status was written last.
	status time.Time
}

type created struct {
	obj *v1alpha1.Deployment
	at  time.Time
}

func newLedger() *ledger { return &ledger{of: map[types.NamespacedName]*entries{}} }

// entries returns those of a rollout. One worker at a time works on a rollout, so what it returns is
// that one's alone.
func (l *ledger) entries(rollout types.NamespacedName) *entries {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.of[rollout]
	if !ok {
		e = &entries{created: map[string]created{}, members: map[int64]map[uint64]bool{}}
		l.of[rollout] = e
	}
	return e
}

func (l *ledger) forget(rollout types.NamespacedName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.of, rollout)
}

// untilStatus is how long a status has still to wait that only counts on.
func (l *ledger) untilStatus(rollout types.NamespacedName, now time.Time) time.Duration {
	return max(0, statusInterval-now.Sub(l.entries(rollout).status))
}

func (l *ledger) noteStatus(rollout types.NamespacedName, now time.Time) {
	l.entries(rollout).status = now
}
