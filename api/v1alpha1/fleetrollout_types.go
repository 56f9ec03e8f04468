// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Labels of the Deployments that a FleetRollout makes.
const (
	// LabelRollout is the name of the FleetRollout that made the Deployment.
	LabelRollout = "rpi-connect.dev/rollout"
	// LabelRevision is the revision of the rollout that the Deployment belongs to.
	LabelRevision = "rpi-connect.dev/revision"
	// LabelBatch is the batch of the device, or "rest" or "rollback".
	LabelBatch = "rpi-connect.dev/batch"
	// LabelAttempt counts the Deployments to the same device in the same revision,
	// from 1.
	LabelAttempt = "rpi-connect.dev/attempt"
)

// Annotations of a FleetRollout.
const (
	// AnnotationApprove approves a batch, as spec.approvals does: its value is
	// <artefact>/<batch>.
	AnnotationApprove = "rpi-connect.dev/approve"

	// AnnotationResumeRequestedAt resumes a rollout that failures have paused,
	// and accepts the failures so far: any new value counts, the time for example.
	AnnotationResumeRequestedAt = "rpi-connect.dev/resume-requested-at"
)

// Names of batches that are not in the spec.
const (
	// BatchRest is the batch of the devices that are in no other.
	BatchRest = "rest"
	// BatchRollback is the batch of the Deployments that bring a device back to
	// the artefact before.
	BatchRollback = "rollback"
)

// Reasons of a FleetRollout.
const (
	// ReasonProgressing: wait; devices are being updated.
	ReasonProgressing = "Progressing"
	// ReasonSoaking: wait; a batch is over, and the next one begins after its
	// soakTime.
	ReasonSoaking = "Soaking"
	// ReasonAwaitingApproval: approve the batch in spec.approvals, or leave it; the
	// next one does not begin by itself.
	ReasonAwaitingApproval = "AwaitingApproval"
	// ReasonWaitingForWindow: wait; devices may begin in the next window of
	// spec.schedule.
	ReasonWaitingForWindow = "WaitingForWindow"
	// ReasonPaused: set spec.paused to false to go on.
	ReasonPaused = "Paused"
	// ReasonFailuresExceeded: see why the devices failed; then name another
	// artefact, raise maxFailures, or accept the failures with the annotation
	// rpi-connect.dev/resume-requested-at.
	ReasonFailuresExceeded = "FailuresExceeded"
	// ReasonRollingBack: wait; devices are brought back to the artefact before.
	ReasonRollingBack = "RollingBack"
	// ReasonRolledBack: correct the artefact, and name the new one in
	// spec.artefactRef; the devices have been brought back to the one before.
	ReasonRolledBack = "RolledBack"
	// ReasonComplete: nothing to do; every device runs the artefact, but for those
	// that the message counts.
	ReasonComplete = "Complete"
)

// FleetRolloutSpec defines which devices run which artefact, and how they get
// there.
// +kubebuilder:validation:XValidation:rule="has(self.artefactRef) != has(self.artefactID)",message="set exactly one of artefactRef and artefactID"
// +kubebuilder:validation:XValidation:rule="!has(self.rollbackTo) || !has(self.artefactRef) || self.rollbackTo.name != self.artefactRef.name",message="rollbackTo must be another Artefact than artefactRef"
type FleetRolloutSpec struct {
	CommonSpec `json:",inline"`

	// artefactRef names the Artefact, in this namespace, that the devices are to
	// run. The rollout waits until it is Ready. A change begins a new revision.
	// +optional
	ArtefactRef *ArtefactReference `json:"artefactRef,omitempty"`

	// artefactID is the id, in the organisation, of an artefact that has no
	// Artefact here. A change begins a new revision.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('\\\\S')",message="artefactID must not be blank"
	ArtefactID string `json:"artefactID,omitempty"`

	// devices defines which devices take part.
	// +required
	Devices FleetDevices `json:"devices,omitzero"`

	// membership defines whether devices that come to match later are updated too
	// (Continuous), or only those that matched when the revision began (Snapshot).
	// +optional
	// +kubebuilder:default=Continuous
	Membership FleetMembership `json:"membership,omitempty"`

	// order defines in which order devices are updated within a batch: Hash is
	// spread out and always the same, Name is by the name of the device.
	// +optional
	// +kubebuilder:default=Hash
	Order FleetOrder `json:"order,omitempty"`

	// maxConcurrent is how many devices may be updated at the same time: a number,
	// or a percentage of the devices that take part, such as "25%", rounded up.
	// A device counts from the moment its Deployment is created until it succeeds,
	// fails, or is deferred.
	// +optional
	// +kubebuilder:default=10
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=4
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 1 && self <= 100000 : self.matches('^([1-9][0-9]?|100)%$')",message="maxConcurrent must be a number of devices from 1, or a percentage from 1% to 100%"
	MaxConcurrent *intstr.IntOrString `json:"maxConcurrent,omitempty"`

	// batches are updated one after the other. Devices that are in none of them
	// come last, in the batch "rest".
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=20
	Batches []FleetBatch `json:"batches,omitempty"`

	// approvals approve batches whose approval is Manual. An approval is of one
	// artefact, so that it never carries over to the next.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	Approvals []FleetApproval `json:"approvals,omitempty"`

	// failurePolicy defines how many failures are tolerated, and what happens
	// then. Default: more than 10 % of the devices pause the rollout.
	// +optional
	FailurePolicy *FleetFailurePolicy `json:"failurePolicy,omitempty"`

	// retry defines whether a device that failed is tried again. Default: it is
	// not.
	// +optional
	Retry *FleetRetry `json:"retry,omitempty"`

	// deadlines bound how long a device is waited for. They apply to Deployments
	// that are made from then on.
	// +optional
	Deadlines *FleetDeadlines `json:"deadlines,omitempty"`

	// schedule defines when devices may begin. Default: at any time.
	// +optional
	Schedule *FleetSchedule `json:"schedule,omitempty"`

	// rollbackTo names the Artefact that devices are brought back to when the
	// failure policy says Rollback. Default: the artefact of the last revision
	// that completed.
	// +optional
	RollbackTo *ArtefactReference `json:"rollbackTo,omitempty"`

	// paused set to true pauses the rollout: no device begins from then on, what
	// is pending is cancelled, and what is in progress is watched to its end.
	// Default: false.
	// +optional
	Paused bool `json:"paused,omitempty"`

	// historyLimit is for how many revisions before the present one the
	// Deployments are kept, once they have ended.
	// +optional
	// +kubebuilder:default=2
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10
	HistoryLimit *int32 `json:"historyLimit,omitempty"`
}

// FleetDevices defines devices: all that match query, or are named by names or
// serialNumbers, without those that have one of excludeTags.
// +kubebuilder:validation:XValidation:rule="(has(self.all) && self.all) || has(self.query) || has(self.names) || has(self.serialNumbers)",message="say which devices take part: set query, names or serialNumbers, or all: true"
// +kubebuilder:validation:XValidation:rule="!(has(self.all) && self.all) || !(has(self.query) || has(self.names) || has(self.serialNumbers))",message="all: true includes every device: leave query, names and serialNumbers out"
type FleetDevices struct {
	// query in Connect's own words, such as "tag:kiosk model:5".
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule="self.matches('\\\\S')",message="devices.query must not be blank"
	Query string `json:"query,omitempty"`

	// names of devices, to the letter.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1000
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=256
	Names []string `json:"names,omitempty"`

	// serialNumbers of devices, as /proc/cpuinfo shows them.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1000
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=128
	SerialNumbers []string `json:"serialNumbers,omitempty"`

	// all set to true includes every device of the organisation. Default: false.
	// +optional
	All bool `json:"all,omitempty"`

	// excludeTags leave out every device that has one of them.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:XValidation:rule="self.all(a, self.exists_one(b, a == b))",message="excludeTags must name each tag once"
	ExcludeTags []Tag `json:"excludeTags,omitempty"`
}

// FleetMembership defines when the devices of a rollout are determined.
// +kubebuilder:validation:Enum=Continuous;Snapshot
type FleetMembership string

// When the devices of a rollout are determined.
const (
	// MembershipContinuous includes devices that come to match later.
	MembershipContinuous FleetMembership = "Continuous"
	// MembershipSnapshot includes the devices that matched when the revision began.
	MembershipSnapshot FleetMembership = "Snapshot"
)

// FleetOrder defines in which order devices are updated.
// +kubebuilder:validation:Enum=Hash;Name
type FleetOrder string

// In which order devices are updated.
const (
	// OrderHash is by a hash of the device's id.
	OrderHash FleetOrder = "Hash"
	// OrderName is by the device's name.
	OrderName FleetOrder = "Name"
)

// FleetBatch is a part of the devices. It is over when none of its devices is
// being updated and enough of them have succeeded.
type FleetBatch struct {
	// name of the batch.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="the name of a batch must be of lower-case letters, digits and hyphens, such as canary"
	// +kubebuilder:validation:XValidation:rule="!(self in ['rest', 'rollback'])",message="a batch must not be named rest or rollback: these names have a meaning of their own"
	Name string `json:"name"`

	// tags that a device must have, all of them, to be in the batch. Default: any
	// device.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	// +kubebuilder:validation:XValidation:rule="self.all(a, self.exists_one(b, a == b))",message="tags must name each tag once"
	Tags []Tag `json:"tags,omitempty"`

	// size is how many devices are in the batch: a number, or a percentage of the
	// devices that take part, such as "10%", rounded up. Default: all that have
	// the tags.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=4
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 1 && self <= 100000 : self.matches('^([1-9][0-9]?|100)%$')",message="size must be a number of devices from 1, or a percentage from 1% to 100%"
	Size *intstr.IntOrString `json:"size,omitempty"`

	// successPercent is how many of the devices that have ended must have
	// succeeded, in percent; fewer are treated like too many failures.
	// +optional
	// +kubebuilder:default=100
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	SuccessPercent *int32 `json:"successPercent,omitempty"`

	// minSucceeded is how many devices must have succeeded before the next batch
	// begins: a batch whose devices are all offline proves nothing.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100000
	MinSucceeded *int32 `json:"minSucceeded,omitempty"`

	// soakTime is how long to wait, after the batch is over, before the next one
	// begins, such as 1h. Default: not at all.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,9})?(h|m|s|ms)){1,4}$')",message="soakTime must be in hours, minutes and seconds, such as 1h or 1h30m: there is no unit for days, write 24h"
	SoakTime *metav1.Duration `json:"soakTime,omitempty"`

	// approval defines whether the next batch begins by itself (Automatic), or
	// waits for a person (Manual), who puts the batch into spec.approvals.
	// +optional
	// +kubebuilder:default=Automatic
	Approval FleetApprovalMode `json:"approval,omitempty"`
}

// FleetApprovalMode defines what the next batch waits for.
// +kubebuilder:validation:Enum=Automatic;Manual
type FleetApprovalMode string

// What the next batch waits for.
const (
	// ApprovalAutomatic waits for nobody.
	ApprovalAutomatic FleetApprovalMode = "Automatic"
	// ApprovalManual waits for a person.
	ApprovalManual FleetApprovalMode = "Manual"
)

// FleetApproval approves one batch for one artefact.
type FleetApproval struct {
	// artefact is the name in spec.artefactRef, or spec.artefactID.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Artefact string `json:"artefact"`

	// batch that is approved: the next one may begin.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Batch string `json:"batch"`
}

// FleetFailurePolicy defines how many failures are tolerated.
type FleetFailurePolicy struct {
	// maxFailures is how many devices may fail, after their retries: a number, or a
	// percentage of the devices that take part, such as "5%", rounded down.
	// +optional
	// +kubebuilder:default="10%"
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=4
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 0 && self <= 100000 : self.matches('^([0-9]|[1-9][0-9]|100)%$')",message="maxFailures must be a number of devices, or a percentage from 0% to 100%"
	MaxFailures *intstr.IntOrString `json:"maxFailures,omitempty"`

	// action defines what happens when more devices have failed, or a batch ends
	// below its successPercent: Pause waits for a person, Rollback brings the
	// devices that run the new artefact back to rollbackTo, Continue goes on.
	// +optional
	// +kubebuilder:default=Pause
	Action FleetFailureAction `json:"action,omitempty"`
}

// FleetFailureAction defines what happens after too many failures.
// +kubebuilder:validation:Enum=Pause;Rollback;Continue
type FleetFailureAction string

// What happens after too many failures.
const (
	// FailureActionPause pauses the rollout until a person resumes it.
	FailureActionPause FleetFailureAction = "Pause"
	// FailureActionRollback brings devices back to the artefact before.
	FailureActionRollback FleetFailureAction = "Rollback"
	// FailureActionContinue goes on.
	FailureActionContinue FleetFailureAction = "Continue"
)

// FleetRetry defines whether a device that failed is tried again.
type FleetRetry struct {
	// limit is how many times a device is tried again.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10
	Limit *int32 `json:"limit,omitempty"`

	// backoff is how long to wait after a failure, such as 5m.
	// +optional
	// +kubebuilder:default="5m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,9})?(h|m|s|ms)){1,4}$')",message="backoff must be in hours, minutes and seconds, such as 5m or 1h30m"
	Backoff *metav1.Duration `json:"backoff,omitempty"`
}

// FleetDeadlines bound how long a device is waited for.
type FleetDeadlines struct {
	// pending is how long a device may take to pick its deployment up. After that
	// it is deferred: it does not hold the others up, its deployment stays queued,
	// and it counts when the device comes back.
	// +optional
	// +kubebuilder:default="1h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,9})?(h|m|s|ms)){1,4}$') && duration(self) > duration('0s')",message="deadlines.pending must be longer than nothing, in hours, minutes and seconds, such as 1h or 1h30m: there is no unit for days, write 24h"
	Pending *metav1.Duration `json:"pending,omitempty"`

	// inProgress is how long a device may take from picking its deployment up to
	// reporting how it went. After that it counts as failed, although it may still
	// finish.
	// +optional
	// +kubebuilder:default="2h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,9})?(h|m|s|ms)){1,4}$') && duration(self) > duration('0s')",message="deadlines.inProgress must be longer than nothing, in hours, minutes and seconds, such as 2h or 1h30m: there is no unit for days, write 24h"
	InProgress *metav1.Duration `json:"inProgress,omitempty"`
}

// FleetSchedule defines when devices may begin.
type FleetSchedule struct {
	// notBefore is when the first device may begin, such as 2027-01-31T22:00:00Z.
	// Default: at once.
	// +optional
	NotBefore *metav1.Time `json:"notBefore,omitempty"`

	// windows are the times in which devices may begin. Default: at any time.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=20
	Windows []FleetWindow `json:"windows,omitempty"`

	// atWindowEnd defines what happens at the end of a window to deployments that
	// no device has picked up: CancelPending cancels them until the next window,
	// Leave leaves them, so that a device may begin outside of a window.
	// +optional
	// +kubebuilder:default=CancelPending
	AtWindowEnd FleetWindowEnd `json:"atWindowEnd,omitempty"`
}

// FleetWindow is a time that comes again and again.
type FleetWindow struct {
	// start of the window as a cron expression of five fields: minute, hour, day
	// (1-31), month, weekday. "0 2 * * *" is at 2 o'clock each day. Where both day
	// and weekday are given, both must match.
	// A start that the clock skips in spring happens at the moment of the change.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^\\\\s*(\\\\S+\\\\s+){4}\\\\S+\\\\s*$') && !self.contains('=')",message="start must be a cron expression of five fields, such as \"0 2 * * *\": the time zone goes into timeZone"
	Start string `json:"start"`

	// duration of the window, such as 3h, in real time.
	// +required
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,9})?(h|m|s|ms)){1,4}$') && duration(self) >= duration('1m')",message="duration must be at least 1m, in hours, minutes and seconds, such as 3h or 1h30m"
	Duration metav1.Duration `json:"duration"`

	// timeZone of start, such as Europe/London, as in the IANA time zone database.
	// +optional
	// +kubebuilder:default=UTC
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	TimeZone string `json:"timeZone,omitempty"`
}

// FleetWindowEnd defines what happens to what is pending at the end of a window.
// +kubebuilder:validation:Enum=CancelPending;Leave
type FleetWindowEnd string

// What happens to what is pending at the end of a window.
const (
	// WindowEndCancelPending cancels it until the next window.
	WindowEndCancelPending FleetWindowEnd = "CancelPending"
	// WindowEndLeave leaves it.
	WindowEndLeave FleetWindowEnd = "Leave"
)

// FleetRolloutPhase is where a rollout is.
// +kubebuilder:validation:Enum=Pending;Progressing;Soaking;AwaitingApproval;WaitingForWindow;Paused;RollingBack;RolledBack;Complete
type FleetRolloutPhase string

// Where a rollout is.
const (
	// RolloutPending: it waits for its Artefact.
	RolloutPending FleetRolloutPhase = "Pending"
	// RolloutProgressing: devices are being updated.
	RolloutProgressing FleetRolloutPhase = "Progressing"
	// RolloutSoaking: a batch is over, and the next one waits for the soak time.
	RolloutSoaking FleetRolloutPhase = "Soaking"
	// RolloutAwaitingApproval: a batch is over, and the next one waits for a person.
	RolloutAwaitingApproval FleetRolloutPhase = "AwaitingApproval"
	// RolloutWaitingForWindow: devices wait for spec.schedule.
	RolloutWaitingForWindow FleetRolloutPhase = "WaitingForWindow"
	// RolloutPaused: it was paused, by spec.paused or by failures.
	RolloutPaused FleetRolloutPhase = "Paused"
	// RolloutRollingBack: devices are brought back to the artefact before.
	RolloutRollingBack FleetRolloutPhase = "RollingBack"
	// RolloutRolledBack: they have been.
	RolloutRolledBack FleetRolloutPhase = "RolledBack"
	// RolloutComplete: every device runs the artefact, but for those that failed,
	// are deferred or were left alone.
	RolloutComplete FleetRolloutPhase = "Complete"
)

// FleetRolloutStatus reports how far the rollout is. Its size does not depend on
// the number of devices.
type FleetRolloutStatus struct {
	CommonStatus `json:",inline"`

	// phase is where the rollout is.
	// +optional
	Phase FleetRolloutPhase `json:"phase,omitempty"`

	// revision counts the changes of the artefact, from 1.
	// +optional
	Revision int64 `json:"revision,omitempty"`

	// artefact of the revision: the name in spec.artefactRef, or spec.artefactID.
	// +optional
	Artefact string `json:"artefact,omitempty"`

	// batch that is being updated.
	// +optional
	Batch string `json:"batch,omitempty"`

	// progress is how many devices have succeeded, of how many that take part.
	// +optional
	Progress string `json:"progress,omitempty"`

	// devices counts the devices by where they are.
	// +optional
	Devices FleetDeviceCounts `json:"devices,omitzero"`

	// batches report on the batches, in their order.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=21
	Batches []FleetBatchStatus `json:"batches,omitempty"`

	// failures are the first 20 devices that have failed. The others are in the
	// Deployments of the rollout.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=20
	Failures []FleetFailure `json:"failures,omitempty"`

	// pauseReason is why the rollout is paused: Spec or Failures.
	// +optional
	PauseReason FleetPauseReason `json:"pauseReason,omitempty"`

	// plannedGeneration is the generation of the spec that the newest plan rests
	// on. A generation that was only observed, in an outage for example, has not
	// been planned by.
	// +optional
	PlannedGeneration int64 `json:"plannedGeneration,omitempty"`

	// rollbackTo is the artefact that devices are brought back to, since too many
	// have failed.
	// +optional
	RollbackTo string `json:"rollbackTo,omitempty"`

	// failuresAcceptedAt is when a person has accepted the failures so far.
	// +optional
	FailuresAcceptedAt *metav1.Time `json:"failuresAcceptedAt,omitempty"`

	// lastHandledResumeAt is the last value of the annotation
	// rpi-connect.dev/resume-requested-at that was acted on.
	// +optional
	LastHandledResumeAt string `json:"lastHandledResumeAt,omitempty"`

	// nextWindow is when devices may begin again.
	// +optional
	NextWindow *metav1.Time `json:"nextWindow,omitempty"`

	// history reports on the last 10 revisions, the newest first.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	History []FleetRevision `json:"history,omitempty"`
}

// FleetPauseReason reports why a rollout is paused.
// +kubebuilder:validation:Enum=Spec;Failures
type FleetPauseReason string

// Why a rollout is paused.
const (
	// PausedBySpec: spec.paused is true.
	PausedBySpec FleetPauseReason = "Spec"
	// PausedByFailures: too many devices have failed.
	PausedByFailures FleetPauseReason = "Failures"
)

// FleetDeviceCounts counts devices. Every one that takes part is counted once.
type FleetDeviceCounts struct {
	// members is how many devices take part.
	// +optional
	Members int32 `json:"members"`
	// waiting have not begun.
	// +optional
	Waiting int32 `json:"waiting"`
	// pending have a Deployment that they have not picked up yet.
	// +optional
	Pending int32 `json:"pending"`
	// inProgress are installing.
	// +optional
	InProgress int32 `json:"inProgress"`
	// deferred have not picked their Deployment up within deadlines.pending. It
	// stays queued until they come back.
	// +optional
	Deferred int32 `json:"deferred"`
	// succeeded run the artefact.
	// +optional
	Succeeded int32 `json:"succeeded"`
	// failed is how many have failed, after their retries.
	// +optional
	Failed int32 `json:"failed"`
	// overridden got another deployment meanwhile, or somebody cancelled theirs.
	// They are left alone for this revision.
	// +optional
	Overridden int32 `json:"overridden"`
	// incompatible are not what the Artefact's compatibleWith says.
	// +optional
	Incompatible int32 `json:"incompatible"`
}

// FleetBatchStatus reports on a batch.
type FleetBatchStatus struct {
	// name of the batch.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
	// members is how many devices are in it.
	// +optional
	Members int32 `json:"members"`
	// succeeded run the artefact.
	// +optional
	Succeeded int32 `json:"succeeded"`
	// failed is how many have failed, after their retries.
	// +optional
	Failed int32 `json:"failed"`
	// deferred have not picked their Deployment up.
	// +optional
	Deferred int32 `json:"deferred"`
	// startedAt is when the first device began.
	// +optional
	StartedAt *metav1.Time `json:"startedAt,omitempty"`
	// endedAt is when the batch was over.
	// +optional
	EndedAt *metav1.Time `json:"endedAt,omitempty"`
}

// FleetFailure is a device that has failed.
type FleetFailure struct {
	// device is the name of the device, or its id if it has none.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Device string `json:"device"`
	// reason is what the device or Connect says.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Reason string `json:"reason,omitempty"`
}

// FleetRevision reports on a revision.
type FleetRevision struct {
	// revision is its number.
	// +required
	Revision int64 `json:"revision"`
	// artefact is the name of its Artefact, or its id in the organisation.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Artefact string `json:"artefact"`
	// byID is true if artefact is an id in the organisation.
	// +optional
	ByID bool `json:"byID,omitempty"`
	// outcome is where the revision was seen last: the phase of the rollout, or
	// Replaced if the next revision began before it was complete.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Outcome string `json:"outcome,omitempty"`
	// startedAt is when it began.
	// +optional
	StartedAt *metav1.Time `json:"startedAt,omitempty"`
	// endedAt is when it was complete, rolled back or replaced.
	// +optional
	EndedAt *metav1.Time `json:"endedAt,omitempty"`
	// succeeded is how many devices had succeeded then.
	// +optional
	Succeeded int32 `json:"succeeded"`
	// failed is how many had failed then.
	// +optional
	Failed int32 `json:"failed"`
}

// FleetRollout brings an artefact to every device that matches, in batches, and
// stops when it goes wrong.
//
// It creates one Deployment per device, as a Job creates Pods, never more than
// spec.maxConcurrent at the same time. Changing spec.artefactRef is the update;
// changing it back is the way back. A device that has the artefact already is not
// updated again, and a device that is offline does not hold the others up: it is
// deferred, and counts when it comes back.
//
// Ready is True when every device runs the artefact, but for those that are
// deferred, failed within what spec.failurePolicy tolerates, or were left alone;
// the message says how many. It is Unknown while the rollout is under way, waits
// for its schedule or an approval, or is paused by spec.paused; and False when
// failures have paused it or it was rolled back: then correct the artefact, raise
// maxFailures, or accept the failures with the annotation
// rpi-connect.dev/resume-requested-at.
//
// Deleting the resource deletes its Deployments, which cancels those that are
// pending, unless spec.deletionPolicy is Orphan.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=connect,shortName=rpirollout
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63",message="the name of a FleetRollout must be no longer than 63 characters, because it becomes a label of its Deployments"
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Artefact",type=string,JSONPath=`.status.artefact`
// +kubebuilder:printcolumn:name="Batch",type=string,JSONPath=`.status.batch`
// +kubebuilder:printcolumn:name="Progress",type=string,JSONPath=`.status.progress`
// +kubebuilder:printcolumn:name="Failed",type=integer,JSONPath=`.status.devices.failed`
// +kubebuilder:printcolumn:name="Deferred",type=integer,JSONPath=`.status.devices.deferred`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type FleetRollout struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec defines which devices run which artefact, and how they get there.
	// +required
	Spec FleetRolloutSpec `json:"spec,omitzero"`

	// status reports how far the rollout is.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status FleetRolloutStatus `json:"status,omitzero"`
}

// GetCommonSpec returns the part of the spec that every kind has.
func (r *FleetRollout) GetCommonSpec() *CommonSpec { return &r.Spec.CommonSpec }

// GetCommonStatus returns the part of the status that every kind has.
func (r *FleetRollout) GetCommonStatus() *CommonStatus { return &r.Status.CommonStatus }

// FleetRolloutList is a list of FleetRollouts.
// +kubebuilder:object:root=true
type FleetRolloutList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []FleetRollout `json:"items"`
}

func init() { register(&FleetRollout{}, &FleetRolloutList{}) }
