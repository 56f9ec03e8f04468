// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// DeviceSpec defines a device, its name and its tags.
// +kubebuilder:validation:XValidation:rule="self.device == oldSelf.device",message="device cannot be changed: it is what this resource stands for, create another Device for another one"
type DeviceSpec struct {
	CommonSpec `json:",inline"`

	// device says which device is meant, in exactly one way. It is looked for
	// until it is there; from then on it is known by its id, whatever it is
	// called. It cannot be changed.
	// +required
	Device SingleDeviceReference `json:"device,omitzero"`

	// name that the device has in the organisation. If it is left out, the
	// device's name is left alone.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule="self.matches('\\\\S')",message="name must not be blank: leave it out to leave the device's name alone"
	Name string `json:"name,omitempty"`

	// tags that the device has: at most 10, each of at most 30 lower-case
	// letters, digits, underscores and hyphens. If they are left out, the
	// device's tags are left alone; an empty list removes all of them.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	// +kubebuilder:validation:XValidation:rule="self.all(a, self.exists_one(b, a == b))",message="tags must name each tag once"
	Tags []Tag `json:"tags,omitzero"`
}

// SingleDeviceReference names one device, in exactly one way.
// +kubebuilder:validation:XValidation:rule="(has(self.id) ? 1 : 0) + (has(self.name) ? 1 : 0) + (has(self.serialNumber) ? 1 : 0) == 1",message="set exactly one of id, name and serialNumber: the serial number is what survives a reflash"
type SingleDeviceReference struct {
	// id of the device in the organisation. A device that was removed and
	// signs in again has another one.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('\\\\S')",message="device.id must not be blank"
	ID string `json:"id,omitempty"`

	// name that the device has when this resource finds it, to the letter. To
	// give it another one, set spec.name.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule="self.matches('\\\\S')",message="device.name must not be blank"
	Name string `json:"name,omitempty"`

	// serialNumber of the board, as /proc/cpuinfo shows it. It stays the same
	// when the device is reflashed, renamed, or removed and signed in again.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('\\\\S')",message="device.serialNumber must not be blank"
	SerialNumber string `json:"serialNumber,omitempty"`
}

// DeviceStatus reports what Connect knows about the device.
type DeviceStatus struct {
	CommonStatus `json:",inline"`

	// name that the device has in the organisation.
	// +optional
	Name string `json:"name,omitempty"`

	// serialNumber of the board. Where the device was removed and its board
	// has signed in again, under another id, it is known by this.
	// +optional
	SerialNumber string `json:"serialNumber,omitempty"`

	// tags that the device has in the organisation.
	// +optional
	// +listType=atomic
	Tags []string `json:"tags,omitempty"`

	// board that the device is; empty if its client is older than 2.9.0.
	// +optional
	Board *DeviceBoard `json:"board,omitempty"`

	// os that the device runs; empty if its client is older than 2.9.0.
	// +optional
	OS *DeviceOS `json:"os,omitempty"`

	// kernelArchitecture is that of its kernel, such as aarch64; empty if its
	// client is older than 2.9.0.
	// +optional
	KernelArchitecture string `json:"kernelArchitecture,omitempty"`
}

// DeviceBoard is a device's hardware.
type DeviceBoard struct {
	// model of the board, such as "Raspberry Pi 5".
	// +optional
	Model string `json:"model,omitempty"`

	// revision of the model.
	// +optional
	Revision string `json:"revision,omitempty"`

	// memory of the board, such as "8 GB".
	// +optional
	Memory string `json:"memory,omitempty"`
}

// DeviceOS is a device's operating system.
type DeviceOS struct {
	// name of the operating system, such as "Raspberry Pi OS".
	// +optional
	Name string `json:"name,omitempty"`

	// version of the operating system, such as "13 (Trixie)".
	// +optional
	Version string `json:"version,omitempty"`
}

// Device is a Raspberry Pi that is, or will be, in the organisation: its name
// and its tags are kept as the spec says, and what it is made of is shown.
//
// It creates nothing. A device signs in by itself, with an AuthKey or a
// DeviceIdentity; until then the resource waits for it, with the reason
// DeviceNotFound. Name and tags that somebody changes elsewhere are put back
// when the organisation is listed the next time.
//
// A device that is removed from the organisation and signs in again is another
// one to Connect, with another id. The resource follows it, by the serial
// number of its board, and says so with an event.
//
// Two resources for one device cannot be: the second is Stalled with the
// reason AlreadyClaimed. A Deployment to the same device is no rival.
//
// The older revision of the API cannot change devices. Then the resource is
// Ready all the same, and where the device is not as the spec says, the
// condition Synced is False with the reason NotSupported.
//
// Deleting the resource leaves the device alone, unless spec.deletionPolicy is
// Delete. Delete removes the device from the organisation and signs it out: it
// can be reached through Connect again only after it has signed in anew.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=connect,shortName=rpidev
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Device",type=string,JSONPath=`.status.name`
// +kubebuilder:printcolumn:name="Model",type=string,JSONPath=`.status.board.model`
// +kubebuilder:printcolumn:name="OS",type=string,JSONPath=`.status.os.version`
// +kubebuilder:printcolumn:name="Tags",type=string,JSONPath=`.status.tags`
// +kubebuilder:printcolumn:name="Serial",type=string,priority=1,JSONPath=`.status.serialNumber`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="ID",type=string,priority=1,JSONPath=`.status.id`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Device struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec defines a device, its name and its tags.
	// +required
	Spec DeviceSpec `json:"spec,omitzero"`

	// status reports what Connect knows about the device.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status DeviceStatus `json:"status,omitzero"`
}

// GetCommonSpec returns the part of the spec that every kind has.
func (d *Device) GetCommonSpec() *CommonSpec { return &d.Spec.CommonSpec }

// GetCommonStatus returns the part of the status that every kind has.
func (d *Device) GetCommonStatus() *CommonStatus { return &d.Status.CommonStatus }

// DeviceList is a list of Devices.
// +kubebuilder:object:root=true
type DeviceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []Device `json:"items"`
}

// Reasons of a Device, and of a Deployment that waits for one.
const (
	// ReasonDeviceNotFound: wait for the device to sign in, or correct
	// spec.device, in a new resource where it cannot be changed.
	ReasonDeviceNotFound = "DeviceNotFound"
	// ReasonDeviceAmbiguous: make spec.device match one device only, by its
	// serial number for example.
	ReasonDeviceAmbiguous = "DeviceAmbiguous"
	// ReasonNotSupported: change the device in Connect itself; the API's older
	// revision cannot change devices.
	ReasonNotSupported = "NotSupported"
)

func init() { register(&Device{}, &DeviceList{}) }
