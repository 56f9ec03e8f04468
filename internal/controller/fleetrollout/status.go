// SPDX-License-Identifier: Apache-2.0

package fleetrollout

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
)

const (
	// secondPrecision is what the API server keeps of a time.
	secondPrecision = time.Second
	// soon is when a pass follows that goes on where another one has ended.
	soon = 100 * time.Millisecond
	// maxFailures is how many failed devices the status names.
	maxFailures = 20
	// maxText bounds the name of a device and what is said of its failure, in bytes.
	maxText = 256
)

// report brings the plan into the status, and says what to tell the user.
func (p *planner) report() {
	p.countDevices()
	p.listFailures()
	p.status.Batches = p.stage.reports
	p.status.Phase = p.phase()
	p.status.PauseReason = p.pauseReason()
	p.status.Batch = p.batchName()
	if p.status.Phase == v1alpha1.RolloutComplete {
		p.status.Batch = ""
	}
	p.outcome = p.say()
	p.closeHistory()
}

func (p *planner) countDevices() {
	n := map[state]int{}
	for _, m := range p.members {
		n[p.display(m)]++
	}
	p.status.Devices = v1alpha1.FleetDeviceCounts{
		Members: count(len(p.members)), Waiting: count(n[waiting]), Pending: count(n[pending]), InProgress: count(n[inProgress]),
		Deferred: count(n[deferred]), Succeeded: count(n[succeeded]), Failed: count(n[failed]),
		Overridden: count(n[overridden]), Incompatible: count(n[incompatible]),
	}
	p.status.Progress = fmt.Sprintf("%d/%d", n[succeeded], len(p.members))
}

// display is what a device is counted as. One that is brought back counts by that: when it is back,
// it has got another deployment.
func (p *planner) display(m *member) state {
	switch {
	case m.back == nil || m.back.state == withdrawn:
		return m.state
	case m.back.state == succeeded:
		return overridden
	default:
		return m.back.state
	}
}

func (p *planner) listFailures() {
	p.status.Failures = nil
	for _, c := range p.failures.all[:min(len(p.failures.all), maxFailures)] {
		p.status.Failures = append(p.status.Failures, v1alpha1.FleetFailure{Device: p.nameOf(c), Reason: shortened(c.failureReason())})
	}
}

// phase is where the rollout is.
func (p *planner) phase() v1alpha1.FleetRolloutPhase {
	switch {
	case p.rollback.active && p.rollback.remaining == 0:
		return v1alpha1.RolloutRolledBack
	case p.rollback.active && p.spec.Paused:
		return v1alpha1.RolloutPaused
	case p.rollback.active:
		return v1alpha1.RolloutRollingBack
	case p.failures.stopped:
		return v1alpha1.RolloutPaused
	case p.complete():
		return v1alpha1.RolloutComplete
	case p.spec.Paused:
		return v1alpha1.RolloutPaused
	case p.unready != "" && (p.toBegin() || len(p.members) == 0):
		return v1alpha1.RolloutPending
	case !p.window.open && p.toBegin():
		return v1alpha1.RolloutWaitingForWindow
	case p.stage.hold == soaking:
		return v1alpha1.RolloutSoaking
	case p.stage.hold == awaitingApproval:
		return v1alpha1.RolloutAwaitingApproval
	default:
		return v1alpha1.RolloutProgressing
	}
}

// complete tells whether nothing is left to do: nobody waits, and nobody is being updated. Without any
// device that is no news while the artefact is missing, too.
func (p *planner) complete() bool {
	for _, m := range p.members {
		if m.state == waiting || m.state.active() {
			return false
		}
	}
	return p.stage.hold == notHeld && (p.unready == "" || len(p.members) > 0)
}

func (p *planner) pauseReason() v1alpha1.FleetPauseReason {
	switch {
	case p.failures.stopped && !p.rollback.active:
		return v1alpha1.PausedByFailures
	case p.status.Phase == v1alpha1.RolloutPaused:
		return v1alpha1.PausedBySpec
	default:
		return ""
	}
}

func (p *planner) batchName() string {
	if p.rollback.active {
		return v1alpha1.BatchRollback
	}
	return p.batches[p.stage.batch].name
}

// say is what the conditions tell the user.
func (p *planner) say() lifecycle.Outcome {
	if p.window.invalid != "" {
		return lifecycle.Stalled(v1alpha1.ReasonInvalid, "%s.", p.window.invalid)
	}
	artefact, batch := p.wanted.name, p.status.Batch
	switch p.status.Phase {
	case v1alpha1.RolloutRolledBack:
		return lifecycle.Stalled(v1alpha1.ReasonRolledBack, "The devices that ran %s have been brought back to %s%s. Correct the artefact and name the new one in spec.artefactRef.",
			artefact, p.rollback.to.name, p.notBack())
	case v1alpha1.RolloutRollingBack:
		return lifecycle.Waiting(v1alpha1.ReasonRollingBack, "Too many devices have failed with %s: bringing those that run it back to %s%s.", artefact, p.rollback.to.name, p.untilWindow())
	case v1alpha1.RolloutPaused:
		return p.sayPaused()
	case v1alpha1.RolloutPending:
		return lifecycle.Waiting(v1alpha1.ReasonArtefactNotReady, "%s", p.unready)
	case v1alpha1.RolloutWaitingForWindow:
		return lifecycle.Waiting(v1alpha1.ReasonWaitingForWindow, "Devices may begin again at %s.", stamp(p.window.next))
	case v1alpha1.RolloutSoaking:
		return lifecycle.Waiting(v1alpha1.ReasonSoaking, "Batch %s is over; the next one begins at %s.", batch, stamp(p.stage.until))
	case v1alpha1.RolloutAwaitingApproval:
		return lifecycle.Waiting(v1alpha1.ReasonAwaitingApproval, "Batch %s is over; for the next one to begin, add {artefact: %s, batch: %s} to spec.approvals.", batch, artefact, batch)
	case v1alpha1.RolloutComplete:
		return lifecycle.Ready(v1alpha1.ReasonComplete, "%s", p.sayComplete())
	case v1alpha1.RolloutProgressing:
	}
	if p.stage.hold == unproven {
		return lifecycle.Waiting(v1alpha1.ReasonProgressing, "Batch %s is not enough for the next one to begin: %s.", batch, p.stage.why)
	}
	if c, reason, message := p.stuck(); c != nil {
		return lifecycle.Stalled(reason, "No device can be updated: the Deployment %s says: %s", c.obj.Name, message)
	}
	return lifecycle.Waiting(v1alpha1.ReasonProgressing, "Updating the devices of batch %s to %s.", batch, artefact)
}

// stuck finds out whether everything that is under way waits for a person, such as for billing to be set
// up, and returns one such Deployment with what it says.
func (p *planner) stuck() (first *child, reason, message string) {
	for _, c := range p.children {
		if !c.state.active() {
			continue
		}
		ready := meta.FindStatusCondition(c.obj.Status.Conditions, v1alpha1.ConditionReady)
		if c.mirrored || ready == nil || ready.Status != metav1.ConditionFalse || ready.ObservedGeneration != c.obj.Generation {
			return nil, "", ""
		}
		if first == nil || c.obj.Name < first.obj.Name {
			first, reason, message = c, ready.Reason, ready.Message
		}
	}
	return first, reason, message
}

func (p *planner) sayPaused() lifecycle.Outcome {
	if !p.failures.stopped || p.rollback.active {
		return lifecycle.Waiting(v1alpha1.ReasonPaused, "spec.paused is true: no device begins; those that have begun are watched to their end.")
	}
	why := p.failures.why
	if why == "" {
		why = "too many devices had failed"
	}
	instead := ""
	if p.rollback.unknown {
		instead = " There is no other artefact to roll back to: set spec.rollbackTo."
	}
	return lifecycle.Stalled(v1alpha1.ReasonFailuresExceeded,
		"Paused: %s.%s To go on, name another artefact, raise maxFailures, or accept the failures with the annotation %s.", why, instead, v1alpha1.AnnotationResumeRequestedAt)
}

// untilWindow says that devices wait for the next window.
func (p *planner) untilWindow() string {
	if p.window.next.IsZero() {
		return ""
	}
	return ", which may begin at " + stamp(p.window.next)
}

// notBack says who could not be brought back.
func (p *planner) notBack() string {
	n := map[state]int{}
	for _, m := range p.members {
		if m.back != nil {
			n[m.back.state]++
		}
	}
	switch {
	case n[failed] > 0:
		return fmt.Sprintf(", but for %d that failed", n[failed])
	case n[deferred] > 0:
		return fmt.Sprintf(", but for %d that are offline and will be when they come back", n[deferred])
	default:
		return ""
	}
}

// sayComplete counts what there is to say of a rollout that is complete.
func (p *planner) sayComplete() string {
	d := p.status.Devices
	if d.Members == 0 {
		return "No device matches spec.devices. Devices that come to match are updated." + p.nobody()
	}
	said := []string{fmt.Sprintf("%d of %d devices run %s", d.Succeeded, d.Members, p.wanted.name)}
	for _, other := range []struct {
		n    int32
		text string
	}{
		{d.Deferred, "%d deferred until they come back"},
		{d.Failed, "%d failed"},
		{d.Overridden, "%d left alone, because they got another deployment"},
		{d.Incompatible, "%d incompatible" + p.someIncompatible()},
	} {
		if other.n > 0 {
			said = append(said, fmt.Sprintf(other.text, other.n))
		}
	}
	return strings.Join(said, "; ") + "." + p.nobody()
}

// someIncompatible names some of the devices that the artefact is not made for.
func (p *planner) someIncompatible() string {
	var some []string
	for _, m := range p.members {
		if m.state == incompatible && len(some) < named {
			some = append(some, strings.ReplaceAll(shortened(deviceName(m.device)), "%", "%%"))
		}
	}
	if len(some) == 0 {
		return ""
	}
	slices.Sort(some)
	return ", among them " + strings.Join(some, ", ")
}

// nobody says which names and serial numbers no device has.
func (p *planner) nobody() string {
	if len(p.missing) == 0 {
		return ""
	}
	some := make([]string, 0, named)
	for _, name := range p.missing[:min(named, len(p.missing))] {
		some = append(some, fmt.Sprintf("%q", shortened(name)))
	}
	return fmt.Sprintf(" %d of the names and serial numbers are of no device, among them %s.", len(p.missing), strings.Join(some, ", "))
}

// closeHistory says in the history how the revision ended.
func (p *planner) closeHistory() {
	if len(p.status.History) == 0 {
		return
	}
	last := &p.status.History[0]
	switch p.status.Phase {
	case v1alpha1.RolloutComplete, v1alpha1.RolloutRolledBack:
		if last.EndedAt == nil {
			last.EndedAt = p.timestamp()
		}
		last.Outcome = string(p.status.Phase)
		last.Succeeded, last.Failed = p.status.Devices.Succeeded, p.status.Devices.Failed
	default:
		// A device that came later is being updated: that the others are was true once, and is.
	}
}

func stamp(at time.Time) string { return at.UTC().Format("2006-01-02 15:04 MST") }

// shortened is a text of others, made short enough for one of many in a status.
func shortened(text string) string { return connectclient.Text(text, maxText) }

func count(n int) int32 { return int32(min(n, 1<<31-1)) } //nolint:gosec // bounded
