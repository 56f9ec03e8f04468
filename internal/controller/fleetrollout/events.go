// SPDX-License-Identifier: Apache-2.0

package fleetrollout

import (
	"fmt"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// announce tells the story of the rollout by what has changed since the last pass: when batches begin
// and end, and when the phase changes; never of single devices.
func (p *planner) announce() {
	p.announceBatches()
	p.announceOverridden()
	if p.was.Phase != p.status.Phase && !p.completeAgain() {
		p.announcePhase()
	}
}

// completeAgain tells whether the revision was complete before: a device that was deferred came back, or
// one that joined was updated.
func (p *planner) completeAgain() bool {
	return p.status.Phase == v1alpha1.RolloutComplete && p.was.Revision == p.status.Revision &&
		len(p.was.History) > 0 && p.was.History[0].Outcome == string(v1alpha1.RolloutComplete)
}

func (p *planner) announceBatches() {
	for i := range p.stage.reports {
		is, was := &p.stage.reports[i], p.reportOf(p.stage.reports[i].Name)
		begins := is.StartedAt != nil && (was == nil || was.StartedAt == nil)
		ends := is.EndedAt != nil && (was == nil || was.EndedAt == nil)
		if begins {
			p.event(false, v1alpha1.EventBatchBegun, fmt.Sprintf("Batch %s begins: %d devices get %s.", is.Name, is.Members, p.wanted.name))
		}
		if ends && p.status.Phase != v1alpha1.RolloutComplete {
			p.event(false, v1alpha1.EventBatchEnded, fmt.Sprintf("Batch %s is over: %d succeeded, %d failed, %d deferred.", is.Name, is.Succeeded, is.Failed, is.Deferred))
		}
	}
}

// announceOverridden names the first device that is left alone, and because of whom.
func (p *planner) announceOverridden() {
	if p.was.Devices.Overridden > 0 && p.was.Revision == p.status.Revision {
		return
	}
	for _, m := range p.members {
		if m.state == overridden && m.last != nil && m.back == nil {
			p.event(false, v1alpha1.EventOverridden, fmt.Sprintf("%s got another deployment meanwhile, by %s: devices like it are left alone for this revision.", p.nameOf(m.last), m.last.by))
			return
		}
	}
}

func (p *planner) announcePhase() {
	switch p.status.Phase {
	case v1alpha1.RolloutPaused, v1alpha1.RolloutRolledBack:
		p.event(p.failures.stopped, p.outcome.Reason, p.outcome.Message)
	case v1alpha1.RolloutRollingBack:
		p.event(true, v1alpha1.ReasonRollingBack, fmt.Sprintf("Rolling back to %s: %s.", p.rollback.to.name, orElse(p.failures.why, "too many devices have failed")))
	case v1alpha1.RolloutComplete, v1alpha1.RolloutSoaking, v1alpha1.RolloutAwaitingApproval, v1alpha1.RolloutWaitingForWindow:
		p.event(false, p.outcome.Reason, p.outcome.Message)
	case v1alpha1.RolloutProgressing:
		switch p.was.Phase {
		case v1alpha1.RolloutPaused:
			p.event(false, v1alpha1.EventResumed, "The rollout goes on.")
		case v1alpha1.RolloutAwaitingApproval:
			p.event(false, v1alpha1.EventApproved, fmt.Sprintf("Approved: batch %s begins.", p.status.Batch))
		default:
		}
	default:
	}
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
