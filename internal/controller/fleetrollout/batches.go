// SPDX-License-Identifier: Apache-2.0

package fleetrollout

import (
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// batch is a part of the members.
type batch struct {
	name    string
	spec    *v1alpha1.FleetBatch // nil for the rest
	members []*member
	count   map[state]int
	begun   bool // a Deployment has been made for one of them
	started time.Time
	ended   time.Time // when the last of them has ended, as far as the Deployments tell
}

// assignBatches divides the members. Who has begun stays in the batch in which it began, even if the
// tags or sizes have changed since; then the batches are filled in the order of the members.
func (p *planner) assignBatches() {
	eligible := slices.DeleteFunc(slices.Clone(p.members), func(m *member) bool { return m.state == incompatible })
	byName := map[string]*batch{}
	for i := range p.spec.Batches {
		b := &batch{name: p.spec.Batches[i].Name, spec: &p.spec.Batches[i], count: map[state]int{}}
		p.batches, byName[b.name] = append(p.batches, b), b
	}
	rest := &batch{name: v1alpha1.BatchRest, count: map[state]int{}}
	p.batches, byName[rest.name] = append(p.batches, rest), rest
	for _, m := range eligible {
		if m.last != nil {
			m.batch = byName[m.last.batch] // nil if there is no such batch any more
		}
		if m.batch != nil {
			m.batch.members = append(m.batch.members, m)
		}
	}
	for _, b := range p.batches {
		b.fill(eligible)
		b.read()
	}
}

// fill adds members that are in no batch yet.
func (b *batch) fill(eligible []*member) {
	room := len(eligible)
	if b.spec != nil && b.spec.Size != nil {
		room = scaled(b.spec.Size, len(eligible), true) - len(b.members)
	}
	for _, m := range eligible {
		if room <= 0 {
			return
		}
		if m.batch == nil && b.takes(m) {
			m.batch, b.members = b, append(b.members, m)
			room--
		}
	}
}

func (b *batch) takes(m *member) bool {
	if b.spec == nil {
		return true
	}
	for _, tag := range b.spec.Tags {
		if !slices.Contains(m.device.Tags, tag) {
			return false
		}
	}
	return true
}

// read counts the members by where they are, and finds out when they began and ended.
func (b *batch) read() {
	for _, m := range b.members {
		b.count[m.state]++
		if m.last != nil {
			b.note(m)
		}
	}
}

// note takes over from a member that has begun when the batch began and ended.
func (b *batch) note(m *member) {
	b.begun = true
	if created := m.last.obj.CreationTimestamp.Time; b.started.IsZero() || created.Before(b.started) {
		b.started = created
	}
	if m.state.ended() && m.last.since.After(b.ended) {
		b.ended = m.last.since
	}
}

// over tells whether none of the members is being updated or has still to begin.
func (b *batch) over() bool { return b.count[waiting]+b.count[pending]+b.count[inProgress] == 0 }

// unproven tells what is missing until the next batch may begin: enough devices that have succeeded.
// Failures that a person has accepted count as proof.
func (b *batch) unproven(accepted int) string {
	least := 1
	if b.spec.MinSucceeded != nil {
		least = int(*b.spec.MinSucceeded)
	}
	if b.count[succeeded]+accepted >= least {
		return ""
	}
	return fmt.Sprintf("at least %d of its devices must have succeeded, and %d have (%d are deferred, %d overridden): tag other devices for it, or lower its minSucceeded",
		least, b.count[succeeded], b.count[deferred], b.count[overridden])
}

// belowSuccess tells whether fewer of the devices that ended have succeeded than successPercent
// wants. Failures that a person has accepted do not count.
func (b *batch) belowSuccess(accepted int) bool {
	if b.spec == nil || !b.over() {
		return false
	}
	percent := 100
	if b.spec.SuccessPercent != nil {
		percent = int(*b.spec.SuccessPercent)
	}
	ended := b.count[succeeded] + max(0, b.count[failed]-accepted)
	return b.count[succeeded]*100 < percent*ended
}

// hold is why the next batch does not begin.
type hold int

const (
	notHeld  hold = iota
	busy          // devices are being updated
	unproven      // too few have succeeded
	soaking
	awaitingApproval
)

// stage is how far the batches are.
type stage struct {
	batch   int  // up to which members may be updated
	hold    hold // why the next one does not begin
	why     string
	until   time.Time // the end of the soak time
	reports []v1alpha1.FleetBatchStatus
}

// readStage finds the batch that is being updated, and why the next one has not begun.
func (p *planner) readStage() {
	p.stage.batch = len(p.batches) - 1
	for i, b := range p.batches {
		ended := p.endOfBatch(i)
		p.stage.reports = append(p.stage.reports, b.report(p.reportOf(b.name), ended, p.proven(i)))
		if p.stage.hold != notHeld {
			continue
		}
		if p.stage.hold, p.stage.why = p.holds(i, ended); p.stage.hold != notHeld {
			p.stage.batch = i
		}
	}
}

// holds tells whether the batch keeps the next one from beginning.
func (p *planner) holds(i int, ended time.Time) (hold, string) {
	b, accepted := p.batches[i], p.failures.acceptedIn(p.batches[i])
	following := p.batches[i+1:]
	switch {
	case p.passed(i):
		return notHeld, ""
	case !b.over():
		return busy, ""
	case !slices.ContainsFunc(following, func(next *batch) bool { return len(next.members) > 0 }):
		return notHeld, "" // there is nobody to protect
	}
	if !p.proven(i) {
		return unproven, b.unproven(accepted)
	}
	if soak := durationOr(b.spec.SoakTime, 0); p.now.Before(ended.Add(soak)) {
		p.stage.until = ended.Add(soak)
		p.lookAt(p.stage.until)
		return soaking, ""
	}
	if b.spec.Approval == v1alpha1.ApprovalManual && !p.approved(b.name) {
		return awaitingApproval, ""
	}
	return notHeld, ""
}

// passed tells whether a later batch has begun.
func (p *planner) passed(i int) bool {
	return slices.ContainsFunc(p.batches[i+1:], func(next *batch) bool { return next.begun })
}

// proven tells whether enough devices have succeeded for the batch to soak, and not only to have nobody
// at work.
func (p *planner) proven(i int) bool {
	b := p.batches[i]
	return b.spec == nil || p.failures.action == v1alpha1.FailureActionContinue || p.passed(i) || b.unproven(p.failures.acceptedIn(b)) == ""
}

// approved tells whether a person has approved the batch for the present artefact.
func (p *planner) approved(batch string) bool {
	if p.rollout.Annotations[v1alpha1.AnnotationApprove] == p.wanted.name+"/"+batch {
		return true
	}
	return slices.Contains(p.spec.Approvals, v1alpha1.FleetApproval{Artefact: p.wanted.name, Batch: batch})
}

// endOfBatch is when a batch was over: as the status says, or else as its Deployments tell. Zero if
// it is not. One that proves nothing yet is not over: it soaks once enough devices have succeeded.
func (p *planner) endOfBatch(i int) time.Time {
	b := p.batches[i]
	switch {
	case !b.over() || !b.begun || !p.proven(i):
		return time.Time{}
	case p.reportOf(b.name) != nil && p.reportOf(b.name).EndedAt != nil:
		return p.reportOf(b.name).EndedAt.Time
	case b.count[deferred] > 0:
		return p.now // the last of them was deferred just now
	default:
		return b.ended
	}
}

// reportOf is what the status said of a batch; nil if nothing.
func (p *planner) reportOf(name string) *v1alpha1.FleetBatchStatus {
	for i := range p.was.Batches {
		if p.was.Batches[i].Name == name && p.was.Revision == p.status.Revision {
			return &p.was.Batches[i]
		}
	}
	return nil
}

func (b *batch) report(before *v1alpha1.FleetBatchStatus, ended time.Time, proven bool) v1alpha1.FleetBatchStatus {
	r := v1alpha1.FleetBatchStatus{
		Name: b.name, Members: count(len(b.members)), Succeeded: count(b.count[succeeded]),
		Failed: count(b.count[failed]), Deferred: count(b.count[deferred]),
		StartedAt: timestampOf(b.started), EndedAt: timestampOf(ended),
	}
	if before != nil && before.StartedAt != nil {
		r.StartedAt = before.StartedAt
	}
	if proven && before != nil && before.EndedAt != nil {
		r.EndedAt = before.EndedAt // a device that came back later does not begin it anew
	}
	return r
}

// scaled is a number, or a percentage of all.
func scaled(value *intstr.IntOrString, all int, roundUp bool) int {
	n, err := intstr.GetScaledValueFromIntOrPercent(value, all, roundUp)
	if err != nil {
		return 0 // the schema allows nothing else
	}
	return n
}

func timestampOf(at time.Time) *metav1.Time {
	if at.IsZero() {
		return nil
	}
	t := metav1.NewTime(at.Truncate(secondPrecision))
	return &t
}
