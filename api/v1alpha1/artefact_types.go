// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ArtefactSpec defines the artefact that the organisation is to have.
// +kubebuilder:validation:XValidation:rule="has(self.name) == has(oldSelf.name) && (!has(self.name) || self.name == oldSelf.name)",message="name cannot be changed: an artefact never changes, create a new Artefact instead"
// +kubebuilder:validation:XValidation:rule="self.uri == oldSelf.uri",message="uri cannot be changed: an artefact never changes, create a new Artefact under a new name instead"
// +kubebuilder:validation:XValidation:rule="self.checksum == oldSelf.checksum",message="checksum cannot be changed: an artefact never changes, create a new Artefact under a new name instead"
type ArtefactSpec struct {
	CommonSpec `json:",inline"`

	// name of the artefact in the organisation, where it is unique. Default:
	// the name of this resource. It cannot be changed.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule="self.matches('\\\\S')",message="name must not be blank: leave it out to use the resource's name"
	Name string `json:"name,omitempty"`

	// uri where devices fetch the artefact themselves, over http, https, ftp or
	// sftp, or from their own disk with a file: URI. It must stay reachable from
	// the devices' networks for as long as the artefact is deployed; it need not
	// be reachable from Connect or from the cluster. User info and query are sent
	// to Connect, but never shown in messages, events or logs. An artefact is a
	// zstd-compressed tar (.tar.zst). It cannot be changed.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule="self.matches('^((https?|ftp|sftp)://[^/?#\\\\s]+[^\\\\s]*|file:/[^\\\\s]+)$')",message="uri must be an absolute http, https, ftp, sftp or file URI, such as https://updates.example.com/kiosk-v1.0.tar.zst or file:///srv/kiosk-v1.0.tar.zst"
	URI string `json:"uri"`

	// checksum is the SHA-256 of the artefact, in 64 hexadecimal digits, as
	// `sha256sum` prints it. Devices refuse what does not match. It cannot be
	// changed.
	// +required
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="self.matches('^[0-9a-fA-F]{64}$')",message="checksum must be a SHA-256 in 64 hexadecimal digits, as sha256sum prints it"
	Checksum string `json:"checksum"`

	// compatibleWith says which devices the artefact is made for. Connect does not
	// know of it: a Deployment to another device is not sent (reason
	// Incompatible), unless its spec.force is true. It can be changed. Default:
	// any device.
	// +optional
	CompatibleWith *Compatibility `json:"compatibleWith,omitempty"`
}

// Compatibility describes devices in the words of Connect's device filters. A
// device of which Connect knows nothing, because its client is older than
// 2.9.0, fits none.
// +kubebuilder:validation:XValidation:rule="has(self.models) || has(self.os) || has(self.minMemory)",message="say at least one of models, os and minMemory, or leave compatibleWith out"
type Compatibility struct {
	// models are those of which the device must be one, as after "model:" in a
	// query: "5", "cm5", "500", "zero2w".
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.all(a, self.exists_one(b, a == b))",message="models must name each model once"
	Models []string `json:"models,omitempty"`

	// os are the operating systems of which the device must have one, as after
	// "os:" in a query: "raspios-13".
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.all(a, self.exists_one(b, a == b))",message="os must name each system once"
	OS []string `json:"os,omitempty"`

	// minMemory is the least memory that the device must have, as after "memory:"
	// in a query.
	// +optional
	// +kubebuilder:validation:Enum="256mb";"512mb";"1gb";"2gb";"4gb";"8gb";"16gb"
	MinMemory string `json:"minMemory,omitempty"`
}

// ArtefactStatus reports the observed state of the artefact.
type ArtefactStatus struct {
	CommonStatus `json:",inline"`
}

// Artefact is an update that can be deployed to devices: a name, where devices
// fetch it, and its checksum.
//
// An artefact never changes: a new version is a new Artefact under a new name.
// If the organisation has an artefact of this name already, it is adopted when
// uri and checksum are the same; otherwise the resource is Stalled with the
// reason Conflict, and the message shows both. An artefact that somebody
// removes from the organisation is made again.
//
// Deleting the resource deletes the artefact if the operator created it; see
// spec.deletionPolicy. Connect never deletes an artefact that has been
// deployed, or for which a deployment was merely tried: then the resource
// goes, the artefact stays, and a Warning event ArtefactRetained says so.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=connect,shortName=rpiart
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="ID",type=string,priority=1,JSONPath=`.status.id`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Artefact struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec defines the artefact that the organisation is to have.
	// +required
	Spec ArtefactSpec `json:"spec,omitzero"`

	// status reports the observed state of the artefact.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status ArtefactStatus `json:"status,omitzero"`
}

// GetCommonSpec returns the part of the spec that every kind has.
func (a *Artefact) GetCommonSpec() *CommonSpec { return &a.Spec.CommonSpec }

// GetCommonStatus returns the part of the status that every kind has.
func (a *Artefact) GetCommonStatus() *CommonStatus { return &a.Status.CommonStatus }

// ArtefactList is a list of Artefacts.
// +kubebuilder:object:root=true
type ArtefactList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []Artefact `json:"items"`
}

func init() { register(&Artefact{}, &ArtefactList{}) }
