// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Renewal defines whether a key is followed by a new one.
// +kubebuilder:validation:Enum=Never;BeforeExpiry;Always
type Renewal string

const (
	// RenewalNever is one key, and that is it.
	RenewalNever Renewal = "Never"
	// RenewalBeforeExpiry is a new key in time before an unused one expires.
	RenewalBeforeExpiry Renewal = "BeforeExpiry"
	// RenewalAlways is also a new key once a device has used the one before.
	RenewalAlways Renewal = "Always"
)

// AuthKeySpec defines what a device that signs in with the key becomes, and where
// the key goes.
// +kubebuilder:validation:XValidation:rule="!has(self.renewBefore) || !has(self.ttlDays) || duration(self.renewBefore).getSeconds() * 10 <= self.ttlDays * 777600",message="renewBefore must leave at least a tenth of the lifetime of ttlDays days: make it shorter, or ttlDays larger"
type AuthKeySpec struct {
	CommonSpec `json:",inline"`

	// description of the key in the organisation. Default: the name of this
	// resource.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule="self.matches('\\\\S')",message="description must not be blank: leave it out to use the resource's name"
	Description string `json:"description,omitempty"`

	// deviceName is the name that the device gets when it signs in with the
	// key. Default: the device's host name.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule="self.matches('\\\\S')",message="deviceName must not be blank: leave it out instead"
	DeviceName string `json:"deviceName,omitempty"`

	// tags that the device gets when it signs in with the key: at most 10, each
	// of at most 30 lower-case letters, digits, underscores and hyphens.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	// +kubebuilder:validation:XValidation:rule="self.all(a, self.exists_one(b, a == b))",message="tags must name each tag once"
	Tags []Tag `json:"tags,omitempty"`

	// ttlDays is how many days the key can be used from when it is made, 1 to
	// 90. Default: 1. A change makes a new key.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=90
	TTLDays int32 `json:"ttlDays,omitempty"`

	// secret says where the key goes: a Secret in this namespace, which the
	// operator creates. One that belongs to something else is never
	// overwritten.
	// +optional
	// +kubebuilder:default={key: "auth.key"}
	Secret AuthKeySecret `json:"secret,omitzero"`

	// renewal says whether the key is followed by a new one: "Never";
	// "BeforeExpiry", in time before an unused key expires; "Always", also once
	// a device has used it. The key before is revoked as soon as the new one is
	// in the Secret. Default: Never.
	// +optional
	// +kubebuilder:default=Never
	Renewal Renewal `json:"renewal,omitempty"`

	// renewBefore is how long before its expiry a key is renewed, such as 8h.
	// It must leave at least a tenth of the lifetime. Default: a third of the
	// lifetime.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}([.][0-9]{1,9})?(h|m|s|ms)){1,4}$') && duration(self) > duration('0s')",message="renewBefore must be longer than nothing, in hours, minutes and seconds, such as 8h or 1h30m: there is no unit for days, write 24h"
	RenewBefore *metav1.Duration `json:"renewBefore,omitempty"`
}

// AuthKeySecret defines where the key goes.
// +kubebuilder:validation:XValidation:rule="!has(self.labels) || self.labels.all(k, !k.startsWith('rpi-connect.dev/'))",message="labels under rpi-connect.dev/ are the operator's own: choose another prefix"
// +kubebuilder:validation:XValidation:rule="!has(self.annotations) || self.annotations.all(k, !k.startsWith('rpi-connect.dev/'))",message="annotations under rpi-connect.dev/ are the operator's own: choose another prefix"
type AuthKeySecret struct {
	// name of the Secret. Default: the name of this resource.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="secret.name must be the name of a Secret: lower-case letters, digits, hyphens and dots, such as pi5-001"
	Name string `json:"name,omitempty"`

	// key of the Secret's data that holds the auth key. Default: auth.key, the
	// name of the file that rpi-connect looks for.
	// +optional
	// +kubebuilder:default="auth.key"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')",message="secret.key must be a key of a Secret's data: letters, digits, hyphens, underscores and dots, such as auth.key"
	Key string `json:"key,omitempty"`

	// labels of the Secret.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.size() <= 317 && k.matches('^([a-z0-9][-a-z0-9.]*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))",message="each name of a label must be letters, digits, hyphens, underscores and dots, at most 63, with a domain and a slash before them or without, such as example.com/team"
	Labels map[string]LabelValue `json:"labels,omitempty"`

	// annotations of the Secret.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	Annotations map[string]string `json:"annotations,omitempty"`
}

// LabelValue is the value of a label: letters, digits, hyphens, underscores
// and dots, at most 63, or empty.
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:XValidation:rule="self.matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$')",message="the value of each label must be letters, digits, hyphens, underscores and dots, at most 63, or empty"
type LabelValue string

// AuthKeyStatus reports the observed state of the key. It never holds the key
// itself.
type AuthKeyStatus struct {
	CommonStatus `json:",inline"`

	// secretName is the Secret that holds the key.
	// +optional
	SecretName string `json:"secretName,omitempty"`

	// createdAt is when the key was made.
	// +optional
	CreatedAt *metav1.Time `json:"createdAt,omitempty"`

	// expiresAt is when the key can no longer be used.
	// +optional
	ExpiresAt *metav1.Time `json:"expiresAt,omitempty"`

	// exchangedAt is when a device signed in with the key.
	// +optional
	ExchangedAt *metav1.Time `json:"exchangedAt,omitempty"`
}

// AuthKey is a single-use key that signs one device in to the organisation,
// and the Secret it is delivered in.
//
// Connect shows a key once, when it is made. The operator makes sure
// beforehand that the Secret is its own, puts the key there and nowhere else,
// and revokes a key that could not be stored. The Secret carries the key's id
// and expiry as annotations; it goes with this resource.
//
// Changing description, deviceName or tags changes the key where Connect can
// do that; ttlDays, or a key that can no longer be edited, makes a new key and
// revokes the one before. If the Secret is deleted, or the key in it, a new
// key is made.
//
// Ready is True with the reason Usable while the key waits for its device, and
// Exchanged once a device has used it. A key that nobody used in time is
// Expired and leaves the Secret; one that somebody removed from the
// organisation is Revoked.
//
// Deleting the resource revokes the key. A device that has signed in with it
// is not affected.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=authkeys,categories=connect,shortName=rpikey
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Secret",type=string,JSONPath=`.status.secretName`
// +kubebuilder:printcolumn:name="Expires",type=string,JSONPath=`.status.expiresAt`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="ID",type=string,priority=1,JSONPath=`.status.id`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type AuthKey struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec defines what a device that signs in with the key becomes, and where the
	// key goes.
	// +required
	Spec AuthKeySpec `json:"spec"`

	// status reports the observed state of the key.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status AuthKeyStatus `json:"status,omitzero"`
}

// GetCommonSpec returns the part of the spec that every kind has.
func (a *AuthKey) GetCommonSpec() *CommonSpec { return &a.Spec.CommonSpec }

// GetCommonStatus returns the part of the status that every kind has.
func (a *AuthKey) GetCommonStatus() *CommonStatus { return &a.Status.CommonStatus }

// AuthKeyList is a list of AuthKeys.
// +kubebuilder:object:root=true
type AuthKeyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []AuthKey `json:"items"`
}

// Reasons of an AuthKey.
const (
	// ReasonUsable: use the key in the Secret.
	ReasonUsable = "Usable"
	// ReasonExchanged: nothing to do; a device has signed in with the key.
	ReasonExchanged = "Exchanged"
	// ReasonExpired: delete the AuthKey, or set spec.renewal; nobody used the
	// key in time.
	ReasonExpired = "Expired"
	// ReasonRevoked: delete the AuthKey, or its Secret to have a new key made;
	// somebody removed the key from the organisation.
	ReasonRevoked = "Revoked"
	// ReasonSecretConflict: choose another spec.secret.name, or do what the
	// message says; the Secret belongs to something else or cannot be written.
	ReasonSecretConflict = "SecretConflict"
)

func init() { register(&AuthKey{}, &AuthKeyList{}) }
