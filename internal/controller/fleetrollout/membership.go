// SPDX-License-Identifier: Apache-2.0

package fleetrollout

import (
	"cmp"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/devices"
)

// member is a device that takes part.
type member struct {
	device  connectclient.Device
	state   state
	retryAt time.Time // of one that waits for its next attempt
	misfit  string    // why the artefact does not fit it
	batch   *batch    // nil if it is incompatible

	last     *child // the newest attempt of the present revision
	back     *child // that brings it back
	busy     bool   // a Deployment of an earlier revision has not ended
	inTheWay *child // has brought it this artefact before, and has to let go of it
}

// readMembers finds out where each device is, in the order in which they are updated.
func (p *planner) readMembers() {
	p.byDevice = make(map[string]*member, len(p.devices))
	p.members = make([]*member, 0, len(p.devices))
	for _, d := range p.devices {
		m := &member{device: d}
		p.members = append(p.members, m)
		p.byDevice[d.ID] = m
	}
	p.sortMembers()
	for _, c := range p.children {
		if m, ok := p.byDevice[c.device]; ok {
			m.take(c, p.status.Revision, p.wanted)
		}
	}
	for _, m := range p.members {
		p.readMember(m)
	}
}

// take sorts a Deployment to its device.
func (m *member) take(c *child, revision int64, artefact artefactRef) {
	switch {
	case c.revision == revision && c.rollback():
		m.back = c
	case c.revision == revision:
		if m.last == nil || m.last.attempt < c.attempt {
			m.last = c
		}
	case c.waitsForAnother():
		// It never begins by itself, and nobody can cancel the other one: what is made next takes its place.
	case c.state != withdrawn && !c.state.ended():
		m.busy = true
	case (c.state == succeeded || c.state == failed) && c.artefact() == artefact && !c.mirrored:
		m.inTheWay = c // of those that failed, one that never reported back still has the deployment
	}
}

// readMember finds out where a device is.
func (p *planner) readMember(m *member) {
	if m.last != nil {
		m.state = m.last.state
	}
	switch m.state {
	case withdrawn:
		m.state = waiting
	case failed:
		if limit, backoff := retries(p.spec); m.last.attempt <= limit && !m.last.mirrored {
			m.state, m.retryAt = waiting, m.last.since.Add(backoff)
			p.lookAt(m.retryAt)
		}
	case overridden:
		if m.last.mirrored {
			p.lookAt(m.last.since.Add(claimPatience))
		}
	case pending:
		if !m.last.since.IsZero() {
			p.lookAt(m.last.since.Add(deadlinesOf(p.spec).pending))
		}
	}
	if m.state == waiting && m.last == nil && p.compatible != nil {
		if m.misfit = devices.Misfit(*p.compatible, m.device.Filters); m.misfit != "" {
			m.state = incompatible
		}
	}
}

func retries(spec *v1alpha1.FleetRolloutSpec) (limit int, backoff time.Duration) {
	if spec.Retry == nil {
		return 0, 0
	}
	limit = 1
	if spec.Retry.Limit != nil {
		limit = int(*spec.Retry.Limit)
	}
	return limit, durationOr(spec.Retry.Backoff, 5*time.Minute)
}

// sortMembers puts the devices into the order in which they are updated.
func (p *planner) sortMembers() {
	if p.spec.Order == v1alpha1.OrderName {
		slices.SortFunc(p.members, func(a, b *member) int {
			return cmp.Or(strings.Compare(a.device.Name, b.device.Name), strings.Compare(a.device.ID, b.device.ID))
		})
		return
	}
	places := make(map[string]uint64, len(p.members))
	for _, m := range p.members {
		places[m.device.ID] = place(p.rollout.Name, m.device.ID)
	}
	slices.SortFunc(p.members, func(a, b *member) int {
		return cmp.Or(cmp.Compare(places[a.device.ID], places[b.device.ID]), strings.Compare(a.device.ID, b.device.ID))
	})
}

// place is where a device is in a rollout: spread out, and the same each time. Another rollout has
// another order, so that it is not always the same devices that go first.
func place(rollout, device string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(rollout + "/" + device))
	// The last bytes of the id hardly reach the upper bits of FNV: mix them (the finalizer of MurmurHash3).
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return x
}
