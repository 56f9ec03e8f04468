// SPDX-License-Identifier: Apache-2.0

package fleetrollout

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/intstr"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// failures are what went wrong in the present revision, and what follows from it.
type failures struct {
	action   v1alpha1.FleetFailureAction
	all      []*child        // who has failed, after the retries, the earliest first
	accepted map[string]bool // devices whose failure a person has accepted
	stopped  bool            // failures keep the rollout from going on
	why      string          // it stopped just now
}

// acceptedIn counts the members of the batch whose failure a person has accepted.
func (f *failures) acceptedIn(b *batch) int {
	n := 0
	for _, m := range b.members {
		if m.state == failed && f.accepted[m.device.ID] {
			n++
		}
	}
	return n
}

var defaultMaxFailures = intstr.FromString("10%")

// judgeFailures decides whether the rollout may go on. It stays stopped, whatever becomes of the
// devices, until a person accepts the failures, changes the spec so that they are tolerated, or
// begins a new revision.
func (p *planner) judgeFailures() {
	f := &p.failures
	most := &defaultMaxFailures
	f.action = v1alpha1.FailureActionPause
	if policy := p.spec.FailurePolicy; policy != nil {
		if policy.Action != "" {
			f.action = policy.Action
		}
		if policy.MaxFailures != nil {
			most = policy.MaxFailures
		}
	}
	p.collectFailures()
	resumed := p.resume()
	p.acceptFailures()
	if f.action == v1alpha1.FailureActionContinue {
		return
	}
	f.why = p.tooMany(most)
	wasStopped := p.was.PauseReason == v1alpha1.PausedByFailures && p.was.Revision == p.status.Revision
	f.stopped = f.why != "" || wasStopped && !resumed && p.was.PlannedGeneration == p.rollout.Generation
}

// collectFailures finds the devices that have failed for good, whether they still take part or not.
func (p *planner) collectFailures() {
	limit, _ := retries(p.spec)
	newest := map[string]*child{}
	for _, c := range p.children {
		if last, ok := newest[c.device]; p.current(c) && (!ok || last.attempt < c.attempt) {
			newest[c.device] = c
		}
	}
	for _, c := range newest {
		if c.state == failed && (c.attempt > limit || c.mirrored) {
			p.failures.all = append(p.failures.all, c)
		}
	}
	slices.SortFunc(p.failures.all, func(a, b *child) int {
		if order := a.since.Compare(b.since); order != 0 {
			return order
		}
		return strings.Compare(a.device, b.device)
	})
}

// resume notes that a person wants the rollout to go on: the failures so far are accepted. A request
// that is there when nothing is known of the rollout was made of an earlier life of it.
func (p *planner) resume() bool {
	requested := p.rollout.Annotations[v1alpha1.AnnotationResumeRequestedAt]
	if requested == p.was.LastHandledResumeAt {
		return false
	}
	p.status.LastHandledResumeAt = requested
	if requested == "" || p.was.Revision != p.status.Revision {
		return false
	}
	p.status.FailuresAcceptedAt = p.timestamp()
	return true
}

func (p *planner) acceptFailures() {
	p.failures.accepted = map[string]bool{}
	if p.status.FailuresAcceptedAt == nil {
		return
	}
	for _, c := range p.failures.all {
		if !c.since.After(p.status.FailuresAcceptedAt.Time) {
			p.failures.accepted[c.device] = true
		}
	}
}

// tooMany says why the failures are more than the policy tolerates; empty if they are not.
func (p *planner) tooMany(most *intstr.IntOrString) string {
	tolerated := scaled(most, len(p.members), false)
	if n := len(p.failures.all) - len(p.failures.accepted); n > tolerated {
		return fmt.Sprintf("%s failed, and spec.failurePolicy tolerates %d: %s", have(n), tolerated, p.someFailures())
	}
	for i, b := range p.batches {
		passed := slices.ContainsFunc(p.batches[i+1:], func(next *batch) bool { return next.begun })
		if accepted := p.failures.acceptedIn(b); !passed && b.belowSuccess(accepted) {
			return fmt.Sprintf("in the batch %s %d of %d devices have failed, fewer than its successPercent have succeeded: %s",
				b.name, b.count[failed], b.count[failed]+b.count[succeeded], p.someFailures())
		}
	}
	return ""
}

// have is a number of devices as the beginning of a sentence.
func have(n int) string {
	if n == 1 {
		return "1 device has"
	}
	return fmt.Sprintf("%d devices have", n)
}

// named is how many devices a message names.
const named = 3

// someFailures names some of the devices that have failed, and why.
func (p *planner) someFailures() string {
	var some []string
	for _, c := range p.failures.all {
		if !p.failures.accepted[c.device] && len(some) < named {
			some = append(some, fmt.Sprintf("%s (%s)", p.nameOf(c), shortened(c.failureReason())))
		}
	}
	return strings.Join(some, ", ")
}

// nameOf is how messages call the device of a child.
func (p *planner) nameOf(c *child) string {
	if m, ok := p.byDevice[c.device]; ok {
		return shortened(deviceName(m.device))
	}
	if c.obj.Status.DeviceName != "" {
		return shortened(c.obj.Status.DeviceName)
	}
	return c.device
}
