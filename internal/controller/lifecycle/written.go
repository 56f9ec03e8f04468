// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
)

const (
	// catchUp is how soon a resource is looked at again whose newest version the
	// cache does not have yet.
	catchUp = 20 * time.Millisecond
	// lostTouch is when a cache that has not caught up is used all the same: its
	// watch was broken off, or the cluster was restored from a backup and counts
	// from an earlier version. Writes that name the version still fail on what is
	// outdated.
	lostTouch = 10 * time.Second
)

// written remembers the newest version of each resource that this process has
// written. The cache shows it a moment later; a pass that begins before that would
// decide by what is past, and look at the organisation for what it knows already.
type written struct {
	mu       sync.Mutex
	versions map[types.NamespacedName]version
}

type version struct {
	number string
	at     time.Time
}

func newWritten() *written { return &written{versions: map[types.NamespacedName]version{}} }

func (w *written) note(resource types.NamespacedName, number string, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.versions[resource] = version{number: number, at: now}
}

// aheadOf tells whether what was written is newer than the version given.
func (w *written) aheadOf(resource types.NamespacedName, number string, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	newest, ok := w.versions[resource]
	if !ok || now.Sub(newest.at) > lostTouch {
		return false
	}
	order, err := resourceversion.CompareResourceVersion(number, newest.number)
	return err == nil && order < 0
}

func (w *written) forget(resource types.NamespacedName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.versions, resource)
}
