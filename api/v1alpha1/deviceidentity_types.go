// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// DeviceIdentitySpec defines a device that may sign in with its own key.
type DeviceIdentitySpec struct {
	CommonSpec `json:",inline"`

	// publicKey is the public half of the device's P-256 key, as PEM: the one
	// in the one-time-programmable memory of a Raspberry Pi. How the PEM is
	// formatted does not matter. It cannot be changed.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="self.matches('^\\\\s*-----BEGIN PUBLIC KEY-----[A-Za-z0-9+/=\\\\s]+-----END PUBLIC KEY-----\\\\s*$')",message="publicKey must be one PEM block, from -----BEGIN PUBLIC KEY----- to -----END PUBLIC KEY-----"
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="publicKey cannot be changed: another key is another device, create a new DeviceIdentity instead"
	PublicKey string `json:"publicKey"`

	// description of the identity in the organisation. If it is left out, an
	// identity that exists keeps its own, which often holds the device's serial
	// number, and a new one gets the name of this resource.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule="self.matches('\\\\S')",message="description must not be blank: leave it out to use the resource's name"
	Description string `json:"description,omitempty"`

	// deviceName is the name that the device gets when it signs in. If it is
	// left out, an identity that exists keeps its own. Connect ignores it once
	// the device has signed in.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule="self.matches('\\\\S')",message="deviceName must not be blank: leave it out instead"
	DeviceName string `json:"deviceName,omitempty"`

	// tags that the device gets when it signs in: at most 10, each of at most
	// 30 lower-case letters, digits, underscores and hyphens. If they are left
	// out, an identity that exists keeps its own; an empty list removes them.
	// Connect ignores them once the device has signed in.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	// +kubebuilder:validation:XValidation:rule="self.all(a, self.exists_one(b, a == b))",message="tags must name each tag once"
	Tags []Tag `json:"tags,omitempty"`

	// signing says who proves that the device's private key is at hand. It is
	// needed only to register a key that is not registered yet.
	// +optional
	Signing *Signing `json:"signing,omitempty"`
}

// Signing defines where the signature that registers a key comes from.
// +kubebuilder:validation:XValidation:rule="!(has(self.privateKeySecretRef) && has(self.signature))",message="privateKeySecretRef and signature exclude each other: set the one that fits where the private key is"
type Signing struct {
	// privateKeySecretRef names a Secret with the private key, as PKCS#8 or
	// SEC1 PEM: the operator signs. For keys that do not live in a device.
	// +optional
	PrivateKeySecretRef *SecretKeyReference `json:"privateKeySecretRef,omitempty"`

	// signature is the signature of status.signingRequest.digest: ECDSA, ASN.1
	// DER, in base64, as `rpi-fw-crypto`, fastboot or openssl make it. It is
	// checked before anything is sent.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9+/=\\\\s]+$')",message="signature must be base64 (of the DER form), without a header"
	Signature string `json:"signature,omitempty"`
}

// SigningRequest is what the device has to sign.
type SigningRequest struct {
	// digest is the SHA-256, in hexadecimal, of the request that will be sent.
	// It reveals nothing of it, and changes with the access token, the spec and
	// the API's address.
	// +required
	Digest string `json:"digest"`
}

// DeviceIdentityStatus reports the observed state of the identity.
type DeviceIdentityStatus struct {
	CommonStatus `json:",inline"`

	// deviceName that the identity has in the organisation.
	// +optional
	DeviceName string `json:"deviceName,omitempty"`

	// tags that the identity has in the organisation.
	// +optional
	// +listType=atomic
	Tags []string `json:"tags,omitempty"`

	// createdAt is when the identity was registered.
	// +optional
	CreatedAt *metav1.Time `json:"createdAt,omitempty"`

	// signingRequest is what has to be signed, while a signature is awaited.
	// +optional
	SigningRequest *SigningRequest `json:"signingRequest,omitempty"`
}

// DeviceIdentity lets one device sign in to the organisation with the key it
// was made with, without a secret that would have to reach it.
//
// A key that the organisation knows already is adopted, whoever registered it:
// this is how a fleet that was provisioned with the vendor's provisioner is
// taken over, and nothing of it is changed that the spec does not say. A key
// that it does not know must be registered with a signature of the device's
// private key. Either the operator makes it (spec.signing.privateKeySecretRef),
// or it publishes status.signingRequest.digest, says in the Ready message how
// to sign it, and waits for spec.signing.signature.
//
// Once the device has signed in, the identity has been exchanged for the
// device: Connect then ignores deviceName and tags without saying so. The
// operator notices, sets the condition Synced to False with the reason
// IdentityExchanged, and stops trying.
//
// Deleting the resource leaves the identity in the organisation, unless
// spec.deletionPolicy is Delete. Deleting an exchanged identity deletes its
// device too and signs it out.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=deviceidentities,categories=connect,shortName=rpiid
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Device",type=string,JSONPath=`.status.deviceName`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="ID",type=string,priority=1,JSONPath=`.status.id`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type DeviceIdentity struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec defines a device that may sign in with its own key.
	// +required
	Spec DeviceIdentitySpec `json:"spec,omitzero"`

	// status reports the observed state of the identity.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status DeviceIdentityStatus `json:"status,omitzero"`
}

// GetCommonSpec returns the part of the spec that every kind has.
func (d *DeviceIdentity) GetCommonSpec() *CommonSpec { return &d.Spec.CommonSpec }

// GetCommonStatus returns the part of the status that every kind has.
func (d *DeviceIdentity) GetCommonStatus() *CommonStatus { return &d.Status.CommonStatus }

// DeviceIdentityList is a list of DeviceIdentities.
// +kubebuilder:object:root=true
type DeviceIdentityList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []DeviceIdentity `json:"items"`
}

// Reasons of a DeviceIdentity.
const (
	// ReasonAwaitingSignature: sign status.signingRequest.digest with the
	// device's key, and put the signature into spec.signing.signature.
	ReasonAwaitingSignature = "AwaitingSignature"
	// ReasonSignatureInvalid: sign status.signingRequest.digest anew; the
	// signature is stale or made with another key.
	ReasonSignatureInvalid = "SignatureInvalid"
	// ReasonIdentityExchanged: manage the device's name and tags with a Device;
	// the identity has become a device, and Connect ignores deviceName and tags
	// from then on.
	ReasonIdentityExchanged = "IdentityExchanged"
)

func init() { register(&DeviceIdentity{}, &DeviceIdentityList{}) }
