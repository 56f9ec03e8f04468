// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"sync"
	"time"
)

// Clock is a clock that can be moved: one that stands until it is told to move, or
// one that runs. Its Now fits [Options.Now]; as [Options.Clock] it can be moved
// through the admin interface too.
type Clock struct {
	mu sync.Mutex
	// now was the time when since was; a clock that stands has no since.
	now, since time.Time
}

// NewClock returns a clock that stands at a time.
func NewClock(at time.Time) *Clock { return &Clock{now: at} }

// NewRunningClock returns a clock that runs from a time on.
func NewRunningClock(at time.Time) *Clock { return &Clock{now: at, since: time.Now()} }

// Now returns what the clock shows.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since.IsZero() {
		return c.now
	}
	return c.now.Add(time.Since(c.since))
}

// Advance moves the clock; backwards if d is negative.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Set puts the clock to a time.
func (c *Clock) Set(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = at
	if !c.since.IsZero() {
		c.since = time.Now()
	}
}
