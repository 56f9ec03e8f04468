// SPDX-License-Identifier: Apache-2.0

package fleetrollout

import (
	"time"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
)

// input is everything that a plan follows from.
type input struct {
	// rollout has the spec and the annotations as they are, and the status as it was written last.
	rollout *v1alpha1.FleetRollout
	// devices are those that take part; missing are the names and serial numbers that none has.
	devices []connectclient.Device
	missing []string
	// children are the Deployments of the rollout, of all revisions.
	children []*child
	// unready says why the artefact cannot be deployed now; empty if it can.
	unready string
	// compatible says what the artefact is made for; nil if for any device.
	compatible *v1alpha1.Compatibility
	now        time.Time
}

// plan is what follows from an input: what to do, and what to say.
type plan struct {
	create   []order
	withdraw []*child // to be cancelled, unless a device has begun
	hold     []*child // that may not begin by themselves
	remove   []*child
	status   v1alpha1.FleetRolloutStatus
	outcome  lifecycle.Outcome
	events   []lifecycle.Event
	// nextLook is when time alone changes the plan; zero if it never does.
	nextLook time.Time
}

// planner makes a plan. Each policy has a file of its own.
type planner struct {
	input
	plan

	spec     *v1alpha1.FleetRolloutSpec
	was      *v1alpha1.FleetRolloutStatus
	wanted   artefactRef
	members  []*member          // in the order of the rollout
	byDevice map[string]*member // the same, by the id of the device
	batches  []*batch           // in their order, "rest" last
	stage    stage              // how far the batches are
	window   window             // whether devices may begin now
	failures failures
	rollback rollback
}

// makePlan decides what to do next about a rollout. It depends on nothing but its input.
func makePlan(in input) plan {
	p := &planner{input: in, spec: &in.rollout.Spec, was: &in.rollout.Status}
	p.status = *in.rollout.Status.DeepCopy()
	p.wanted = refOf(p.spec.ArtefactRef, p.spec.ArtefactID)
	if begun := p.beginRevision(); begun {
		return p.plan
	}
	p.status.PlannedGeneration = p.rollout.Generation
	p.readMembers()
	p.assignBatches()
	p.readWindow()
	p.judgeFailures()
	p.readStage()
	p.planRollback()

	p.withdrawPending()
	p.holdMirrored()
	p.admit()
	p.prune()

	p.report()
	p.announce()
	return p.plan
}

// lookAt notes that the plan changes by itself at a time that is still to come.
func (p *planner) lookAt(at time.Time) {
	if !at.After(p.now) {
		return
	}
	if p.nextLook.IsZero() || at.Before(p.nextLook) {
		p.nextLook = at
	}
}

// event tells the user something once the status that goes with it is written.
func (p *planner) event(warning bool, reason, message string) {
	p.events = append(p.events, lifecycle.Event{Warning: warning, Reason: reason, Action: "Rollout", Message: message, OfStatus: true})
}
