// SPDX-License-Identifier: Apache-2.0

package fleetrollout

import (
	"slices"

	"k8s.io/apimachinery/pkg/util/intstr"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// maxCreates bounds the Deployments that one pass makes, so that a pass stays short. The next one
// follows at once.
const maxCreates = 50

var defaultMaxConcurrent = intstr.FromInt32(10)

// admit has Deployments made for the devices that may begin now.
func (p *planner) admit() {
	if !p.mayBegin() {
		return
	}
	free := p.free()
	if p.rollback.active {
		p.admitBack(free)
		return
	}
	for _, m := range p.candidates() {
		if free <= 0 {
			return
		}
		p.begin(m, m.last, order{device: m.device, revision: p.status.Revision, batch: m.batch.name, attempt: attempt(m), artefact: p.wanted, force: unreported(m)})
		free--
	}
}

// mayBegin tells whether any device may begin now.
func (p *planner) mayBegin() bool {
	if p.spec.Paused || !p.window.open || !p.rollback.active && p.unready != "" {
		return false
	}
	return !p.failures.stopped || p.rollback.active
}

// free is how many devices may begin. Whatever is at work counts: of earlier revisions too, and of
// devices that do not take part any more.
func (p *planner) free() int {
	most := &defaultMaxConcurrent
	if p.spec.MaxConcurrent != nil {
		most = p.spec.MaxConcurrent
	}
	free := max(1, scaled(most, len(p.members), true))
	for _, c := range p.children {
		if c.state.active() {
			free--
		}
	}
	return free
}

// candidates are the members that have still to begin, as far as the batches have come.
func (p *planner) candidates() []*member {
	var found []*member
	for _, b := range p.batches[:p.stage.batch+1] {
		for _, m := range b.members {
			if m.state == waiting && !m.busy && !p.now.Before(m.retryAt) {
				found = append(found, m)
			}
		}
	}
	return found
}

// admitBack has the devices brought back that run the artefact.
func (p *planner) admitBack(free int) {
	for _, m := range p.rollback.targets {
		if free <= 0 {
			return
		}
		if !m.busy {
			p.begin(m, m.back, order{device: m.device, revision: p.status.Revision, batch: v1alpha1.BatchRollback, attempt: 1, artefact: p.rollback.to})
			free--
		}
	}
}

// begin has a Deployment made. What is in its way is removed first, and has to be gone: the
// Deployment that was withdrawn and has its name, and the one of an earlier revision that brought the
// device this artefact, which lets go of it so that the new one adopts it.
func (p *planner) begin(m *member, former *child, o order) {
	switch {
	case former != nil && former.state == withdrawn:
		p.removeChild(former)
	case m.inTheWay != nil && o.artefact == m.inTheWay.artefact():
		p.removeChild(m.inTheWay)
	case len(p.create) == maxCreates:
		p.lookAt(p.now.Add(soon))
	default:
		p.create = append(p.create, o)
	}
}

// attempt is the number of the Deployment that a member is to get: the same one again if it was
// withdrawn.
func attempt(m *member) int {
	switch {
	case m.last == nil:
		return 1
	case m.last.state == withdrawn:
		return m.last.attempt
	default:
		return m.last.attempt + 1
	}
}

// unreported tells whether the attempt before has not ended at Connect: the device began, and did
// not report back. Another attempt has to be forced, because Connect says that the artefact is on
// its way.
func unreported(m *member) bool {
	return m.last != nil && m.last.obj.Status.Outcome == v1alpha1.DeploymentDeadlineExceeded
}

// withdrawPending has the Deployments cancelled that no device shall begin with any more: of earlier
// revisions, of devices that do not take part, and of all devices while nobody may begin. Who has
// begun meanwhile is watched to its end.
func (p *planner) withdrawPending() {
	for _, c := range p.children {
		if c.state != pending && c.state != deferred || c.mirrored || c.cancelling() || !c.obj.DeletionTimestamp.IsZero() {
			continue
		}
		if p.unwanted(c) {
			p.withdraw = append(p.withdraw, c)
		}
	}
}

// holdMirrored keeps the Deployments from beginning that found another one of the same artefact on
// their devices: when that one goes, they would, whatever maxConcurrent, a pause or a window say.
func (p *planner) holdMirrored() {
	for _, c := range p.children {
		if c.mirrored && !c.held() && c.obj.DeletionTimestamp.IsZero() {
			p.hold = append(p.hold, c)
		}
	}
}

// unwanted tells whether no device shall begin with the Deployment.
func (p *planner) unwanted(c *child) bool {
	_, takesPart := p.byDevice[c.device]
	switch {
	case c.revision != p.status.Revision, !takesPart, p.spec.Paused:
		return true
	case p.failures.stopped && !c.rollback(), p.rollback.active && !c.rollback():
		return true
	case !p.window.open:
		return p.spec.Schedule.AtWindowEnd != v1alpha1.WindowEndLeave
	default:
		return false
	}
}

// toBegin tells whether a member waits for nothing but its turn.
func (p *planner) toBegin() bool {
	return slices.ContainsFunc(p.members, func(m *member) bool { return m.state == waiting })
}
