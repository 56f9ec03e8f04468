// SPDX-License-Identifier: Apache-2.0

package fleetrollout

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
)

// maxHistory is how many revisions the status tells of.
const maxHistory = 10

// replaced is the outcome of a revision that was not complete when the next one began.
const replaced = "Replaced"

// beginRevision begins a new revision if the artefact is another one, and tells whether it has. The
// status says so before any Deployment of the revision is made: whoever goes on after a crash knows
// what they belong to. Where the status was lost, the Deployments tell.
func (p *planner) beginRevision() bool {
	number, artefact := p.lastRevision()
	if number > p.status.Revision {
		p.status.Revision, p.status.Artefact = number, artefact.name
		p.status.History = append([]v1alpha1.FleetRevision{p.newRevision(number, artefact)}, p.status.History...)
	}
	if number > 0 && artefact == p.wanted {
		return false
	}
	p.closeRevision()
	p.status = v1alpha1.FleetRolloutStatus{
		CommonStatus:        p.status.CommonStatus,
		Phase:               v1alpha1.RolloutProgressing,
		Revision:            number + 1,
		Artefact:            p.wanted.name,
		LastHandledResumeAt: p.rollout.Annotations[v1alpha1.AnnotationResumeRequestedAt],
		History:             append([]v1alpha1.FleetRevision{p.newRevision(number+1, p.wanted)}, p.status.History...),
	}
	p.status.History = p.status.History[:min(len(p.status.History), maxHistory)]
	p.event(false, v1alpha1.EventRevisionBegun, fmt.Sprintf("Revision %d begins: %s.", number+1, p.wanted.name))
	p.outcome = lifecycle.Waiting(v1alpha1.ReasonProgressing, "Revision %d begins: %s.", number+1, p.wanted.name)
	p.lookAt(p.now.Add(soon))
	return true
}

// lastRevision is the newest revision that has begun, by the status and by the Deployments.
func (p *planner) lastRevision() (int64, artefactRef) {
	number, artefact := p.status.Revision, artefactRef{name: p.status.Artefact}
	if len(p.status.History) > 0 && p.status.History[0].Revision == number {
		artefact.byID = p.status.History[0].ByID
	}
	for _, c := range p.children {
		if c.revision > number && !c.rollback() {
			number, artefact = c.revision, c.artefact()
		}
	}
	return number, artefact
}

func (p *planner) newRevision(number int64, artefact artefactRef) v1alpha1.FleetRevision {
	return v1alpha1.FleetRevision{Revision: number, Artefact: artefact.name, ByID: artefact.byID, StartedAt: p.timestamp()}
}

// closeRevision says in the history how the revision ended that is replaced by the next one.
func (p *planner) closeRevision() {
	if len(p.status.History) == 0 || p.status.History[0].EndedAt != nil {
		return
	}
	last := &p.status.History[0]
	last.Outcome, last.EndedAt = replaced, p.timestamp()
	last.Succeeded, last.Failed = p.status.Devices.Succeeded, p.status.Devices.Failed
}

// current are the children of the present revision that bring its artefact.
func (p *planner) current(c *child) bool { return c.revision == p.status.Revision && !c.rollback() }

// prune removes the Deployments of revisions that are older than spec.historyLimit says, once they
// have ended.
func (p *planner) prune() {
	limit := int64(2)
	if p.spec.HistoryLimit != nil {
		limit = int64(*p.spec.HistoryLimit)
	}
	revisions := map[int64]bool{}
	for _, c := range p.children {
		if c.revision < p.status.Revision {
			revisions[c.revision] = true
		}
	}
	var old []int64
	for r := range revisions {
		old = append(old, r)
	}
	slices.Sort(old)
	expired := old[:max(0, len(old)-int(limit))]
	for _, c := range p.children {
		if slices.Contains(expired, c.revision) && (c.state.ended() || c.state == withdrawn) {
			p.removeChild(c)
		}
	}
}

// removeChild has a Deployment deleted that has ended: nothing is asked of Connect for that.
func (p *planner) removeChild(c *child) {
	if c.obj.DeletionTimestamp.IsZero() && !slices.Contains(p.remove, c) {
		p.remove = append(p.remove, c)
	}
}

func (p *planner) timestamp() *metav1.Time {
	at := metav1.NewTime(p.now.Truncate(secondPrecision))
	return &at
}
