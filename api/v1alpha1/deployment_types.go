// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// DeploymentSpec defines what is deployed to which device.
// +kubebuilder:validation:XValidation:rule="has(self.artefactRef) != has(self.artefactID)",message="set exactly one of artefactRef and artefactID"
// +kubebuilder:validation:XValidation:rule="has(self.artefactRef) == has(oldSelf.artefactRef) && (!has(self.artefactRef) || self.artefactRef == oldSelf.artefactRef)",message="artefactRef cannot be changed: a Deployment runs once, create a new one instead"
// +kubebuilder:validation:XValidation:rule="has(self.artefactID) == has(oldSelf.artefactID) && (!has(self.artefactID) || self.artefactID == oldSelf.artefactID)",message="artefactID cannot be changed: a Deployment runs once, create a new one instead"
// +kubebuilder:validation:XValidation:rule="self.device == oldSelf.device",message="device cannot be changed: a Deployment runs once, create a new one instead"
// +kubebuilder:validation:XValidation:rule="(has(self.force) && self.force) == (has(oldSelf.force) && oldSelf.force)",message="force cannot be changed: a Deployment runs once, create a new one instead"
type DeploymentSpec struct {
	CommonSpec `json:",inline"`

	// artefactRef names the Artefact, in this namespace, to deploy. The
	// Deployment waits until it is Ready. It cannot be changed.
	// +optional
	ArtefactRef *ArtefactReference `json:"artefactRef,omitempty"`

	// artefactID is the id, in the organisation, of an artefact that has no
	// Artefact here. It cannot be changed.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('\\\\S')",message="artefactID must not be blank"
	ArtefactID string `json:"artefactID,omitempty"`

	// device says which device to deploy to. It must match exactly one; the
	// Deployment waits until there is one. It cannot be changed.
	// +required
	Device DeviceReference `json:"device,omitzero"`

	// cancel set to true cancels the deployment, if it can still be cancelled;
	// one that has not been made yet is not made. Default: false.
	// +optional
	Cancel bool `json:"cancel,omitempty"`

	// force set to true deploys even if the device has the artefact already,
	// because it was reflashed or because a script shall run again, and even
	// if the artefact is not made for the device. It deploys once, too: to
	// deploy again, create another Deployment. Default: false. It cannot be
	// changed.
	// +optional
	Force bool `json:"force,omitempty"`

	// pendingDeadline is how long the device may take to pick the deployment
	// up, such as 24h; after that it is cancelled. Default: as long as it
	// takes.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,9})?(h|m|s|ms)){1,4}$') && duration(self) > duration('0s')",message="pendingDeadline must be longer than nothing, in hours, minutes and seconds, such as 12h or 1h30m: there is no unit for days, write 24h"
	PendingDeadline *metav1.Duration `json:"pendingDeadline,omitempty"`

	// inProgressDeadline is how long the device may take from picking the
	// deployment up to reporting how it went, such as 2h; after that the
	// Deployment ends with the reason DeadlineExceeded. Connect cannot cancel what
	// a device has begun, so the device may still finish. Default: as long as it
	// takes.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,9})?(h|m|s|ms)){1,4}$') && duration(self) > duration('0s')",message="inProgressDeadline must be longer than nothing, in hours, minutes and seconds, such as 2h or 1h30m: there is no unit for days, write 24h"
	InProgressDeadline *metav1.Duration `json:"inProgressDeadline,omitempty"`
}

// ArtefactReference names an Artefact in the resource's own namespace.
type ArtefactReference struct {
	// name of the Artefact.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="artefactRef.name must be the name of an Artefact resource: lower-case letters, digits, hyphens and dots, such as kiosk-v1.0"
	Name string `json:"name"`
}

// DeviceReference names a device, in exactly one way.
// +kubebuilder:validation:XValidation:rule="(has(self.id) ? 1 : 0) + (has(self.name) ? 1 : 0) + (has(self.serialNumber) ? 1 : 0) + (has(self.query) ? 1 : 0) == 1",message="set exactly one of id, name, serialNumber and query"
type DeviceReference struct {
	// id of the device in the organisation.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('\\\\S')",message="device.id must not be blank"
	ID string `json:"id,omitempty"`

	// name of the device in the organisation, to the letter.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule="self.matches('\\\\S')",message="device.name must not be blank"
	Name string `json:"name,omitempty"`

	// serialNumber of the device, as /proc/cpuinfo shows it. It stays the same
	// when the device is reflashed or renamed.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('\\\\S')",message="device.serialNumber must not be blank"
	SerialNumber string `json:"serialNumber,omitempty"`

	// query in Connect's own words, such as "model:5 tag:lab": free text (a name
	// or serial number) and the qualifiers model:, memory:, os: and tag:, all of
	// which must match. No model:, memory: or os: matches a device whose client
	// is older than 2.9.0.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule="self.matches('\\\\S')",message="device.query must not be blank"
	Query string `json:"query,omitempty"`
}

// DeploymentOutcome is how a Deployment ended. It is never left again.
// +kubebuilder:validation:Enum=Succeeded;Failed;Cancelled;Superseded;DeadlineExceeded
type DeploymentOutcome string

// How a Deployment ends.
const (
	// DeploymentSucceeded: the device reports success.
	DeploymentSucceeded DeploymentOutcome = "Succeeded"
	// DeploymentFailed: the device, or Connect, reports a failure.
	DeploymentFailed DeploymentOutcome = "Failed"
	// DeploymentCancelled: it was cancelled, by spec.cancel or by another person.
	DeploymentCancelled DeploymentOutcome = "Cancelled"
	// DeploymentSuperseded: a newer deployment to the device took its place.
	DeploymentSuperseded DeploymentOutcome = "Superseded"
	// DeploymentDeadlineExceeded: spec.pendingDeadline or spec.inProgressDeadline
	// was over.
	DeploymentDeadlineExceeded DeploymentOutcome = "DeadlineExceeded"
)

// DeploymentStatus reports the observed state of the deployment.
type DeploymentStatus struct {
	CommonStatus `json:",inline"`

	// deviceID is the id of the device.
	// +optional
	DeviceID string `json:"deviceID,omitempty"`

	// deviceName is the name that the device had when it was found.
	// +optional
	DeviceName string `json:"deviceName,omitempty"`

	// artefactID is the id of the artefact.
	// +optional
	ArtefactID string `json:"artefactID,omitempty"`

	// state is Connect's own word: pending, in_progress, succeeded, failed or
	// cancelled.
	// +optional
	State string `json:"state,omitempty"`

	// stateReason is what the device or Connect says about a failed deployment: at
	// most 1 KiB, without control characters and without what looks like a secret.
	// +optional
	StateReason string `json:"stateReason,omitempty"`

	// outcome is how the deployment ended; empty until it has. Nothing is asked of
	// Connect from then on.
	// +optional
	Outcome DeploymentOutcome `json:"outcome,omitempty"`

	// createdAt is when the deployment was made.
	// +optional
	CreatedAt *metav1.Time `json:"createdAt,omitempty"`

	// updatedAt is when its state changed last.
	// +optional
	UpdatedAt *metav1.Time `json:"updatedAt,omitempty"`
}

// Deployment deploys one artefact to one device, once.
//
// It is a run to completion, like a Job: it is made once and never retried,
// and a state that is final is never left. To try again, create a new
// Deployment. It waits for its Artefact to be Ready and for its device to
// exist. A newer deployment to the same device supersedes one that is still
// pending.
//
// If the device has the artefact already, or is about to get it, the
// deployment that is there is adopted instead of updating the device again,
// unless spec.force is true. So a manifest that is applied in a new cluster,
// or restored from a backup, deploys nothing twice. A deployment that another
// Deployment has is not adopted: then this one is Stalled with the reason
// AlreadyClaimed.
//
// Succeeded means what the device reports, and no more: its script has ended
// well, or the new image has booted.
//
// A deployment stays pending, for days if need be, while the device is
// offline, has remote update turned off, or holds the deployment back;
// spec.pendingDeadline ends that.
//
// Deleting the resource cancels a deployment that is still pending, unless
// spec.deletionPolicy is Orphan or it was adopted.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=connect,shortName=rpideploy
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Device",type=string,JSONPath=`.status.deviceName`
// +kubebuilder:printcolumn:name="Artefact",type=string,JSONPath=`.spec.artefactRef.name`
// +kubebuilder:printcolumn:name="State",type=string,priority=1,JSONPath=`.status.state`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="ID",type=string,priority=1,JSONPath=`.status.id`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Deployment struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec defines what is deployed to which device.
	// +required
	Spec DeploymentSpec `json:"spec,omitzero"`

	// status reports the observed state of the deployment.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status DeploymentStatus `json:"status,omitzero"`
}

// GetCommonSpec returns the part of the spec that every kind has.
func (d *Deployment) GetCommonSpec() *CommonSpec { return &d.Spec.CommonSpec }

// GetCommonStatus returns the part of the status that every kind has.
func (d *Deployment) GetCommonStatus() *CommonStatus { return &d.Status.CommonStatus }

// DeploymentList is a list of Deployments.
// +kubebuilder:object:root=true
type DeploymentList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []Deployment `json:"items"`
}

// Reasons of a Deployment.
const (
	// ReasonArtefactNotReady: wait, or look at the Artefact.
	ReasonArtefactNotReady = "ArtefactNotReady"
	// ReasonPending: wait; the device has not picked the deployment up yet.
	ReasonPending = "Pending"
	// ReasonInProgress: wait; the device is installing.
	ReasonInProgress = "InProgress"
	// ReasonSucceeded: nothing to do; the device reports success.
	ReasonSucceeded = "Succeeded"
	// ReasonFailed: look at status.stateReason; a new attempt is a new
	// Deployment.
	ReasonFailed = "Failed"
	// ReasonCancelled: nothing to do; it was cancelled.
	ReasonCancelled = "Cancelled"
	// ReasonSuperseded: nothing to do; a newer deployment took its place.
	ReasonSuperseded = "Superseded"
	// ReasonDeadlineExceeded: see why the device was offline, or did not report
	// back; a deadline of the spec is over.
	ReasonDeadlineExceeded = "DeadlineExceeded"
	// ReasonIncompatible: deploy to another device, correct the Artefact's
	// compatibleWith, or set spec.force on a new Deployment; the artefact is not
	// made for the device, and nothing was sent.
	ReasonIncompatible = "Incompatible"
)

func init() { register(&Deployment{}, &DeploymentList{}) }
