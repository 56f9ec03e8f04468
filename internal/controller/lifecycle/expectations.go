// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"time"

	"k8s.io/apimachinery/pkg/util/resourceversion"
)

const (
	// catchUpMin and catchUpMax bound how soon a resource is looked at again whose newest version
	// the cache does not have yet.
	catchUpMin, catchUpMax = 20 * time.Millisecond, time.Second
	// lostTouch is when a cache that has not caught up is used all the same: its watch was broken
	// off, or the cluster was restored from a backup and counts from an earlier version. Writes
	// that name the version still fail on what is outdated.
	lostTouch = 10 * time.Second
)

// expectation is the newest version of an object that this process has written. The cache shows it
// a moment later; a pass that begins before that would decide by what is past, and look at the
// organisation for what it knows already.
type expectation struct {
	version string
	at      time.Time
	waits   int // how often the cache was found to be behind
}

// expect remembers a write.
func (e *expectation) expect(version string, now time.Time) {
	*e = expectation{version: version, at: now}
}

// behind tells whether what was written is newer than the version given, and if so, when to look
// again.
func (e *expectation) behind(version string, now time.Time) (after time.Duration, behind bool) {
	if e.version == "" || now.Sub(e.at) > lostTouch {
		return 0, false
	}
	order, err := resourceversion.CompareResourceVersion(version, e.version)
	if err != nil || order >= 0 {
		e.waits = 0
		return 0, false
	}
	after = min(catchUpMin<<min(e.waits, 10), catchUpMax)
	e.waits++
	return after, true
}
