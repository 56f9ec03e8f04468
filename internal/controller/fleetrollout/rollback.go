// SPDX-License-Identifier: Apache-2.0

package fleetrollout

import "rpi-connect.dev/operator/api/v1alpha1"

// rollback brings the devices that run the artefact back to the one before.
type rollback struct {
	to        artefactRef
	active    bool
	targets   []*member // who runs the artefact, and has not been brought back
	unknown   bool      // there is nothing to go back to
	remaining int       // devices that are not back yet, or whose update has not ended
}

// planRollback begins to roll back when too many devices have failed and the policy says so. Once
// begun it goes on until the next revision.
func (p *planner) planRollback() {
	r := &p.rollback
	begun := p.was.RollbackTo != "" && p.was.Revision == p.status.Revision
	for _, c := range p.children {
		if c.revision == p.status.Revision && c.rollback() {
			begun, r.to = true, c.artefact()
		}
	}
	if begins := p.failures.action == v1alpha1.FailureActionRollback && p.failures.stopped; !begun && !begins {
		return
	}
	if r.to.name == "" {
		r.to = p.rollbackTarget()
	}
	if r.to.name == "" || r.to == p.wanted {
		r.unknown = true
		return
	}
	r.active = true
	p.status.RollbackTo = r.to.name
	for _, m := range p.members {
		switch {
		case m.state.active() && !m.last.mirrored:
			r.remaining++ // what it has begun ends first
		case m.state == succeeded && !m.last.mirrored:
			if m.back == nil || m.back.state == withdrawn {
				r.targets = append(r.targets, m)
			}
			if m.back == nil || m.back.state.active() || m.back.state == withdrawn {
				r.remaining++
			}
		}
	}
}

// rollbackTarget is the artefact to go back to: what the spec or the status says, or else that of the
// last revision that was complete.
func (p *planner) rollbackTarget() artefactRef {
	if p.was.RollbackTo != "" && p.was.Revision == p.status.Revision {
		return p.historic(p.was.RollbackTo)
	}
	if to := p.spec.RollbackTo; to != nil {
		return artefactRef{name: to.Name}
	}
	for _, r := range p.status.History {
		if r.Revision != p.status.Revision && r.Outcome == string(v1alpha1.RolloutComplete) {
			return artefactRef{name: r.Artefact, byID: r.ByID}
		}
	}
	return artefactRef{}
}

// historic is an artefact of which the status has only the name.
func (p *planner) historic(name string) artefactRef {
	for _, r := range p.status.History {
		if r.Artefact == name {
			return artefactRef{name: name, byID: r.ByID}
		}
	}
	return artefactRef{name: name}
}
