// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Annotations and the finalizer that the operator puts on resources, or reads
// from them.
const (
	// AnnotationID is a copy of status.id that survives a backup, which drops
	// the status. A user writes it to a new resource to import a remote object
	// by its id. It counts only while status.id is empty: afterwards the
	// operator puts back what was changed.
	AnnotationID = "rpi-connect.dev/id"

	// AnnotationOrigin says how the remote object came to be and for which
	// resource: "created <id> for <namespace>/<name>", or "adopted …", and
	// "instead of <id> with the token <hash>" where it has taken the place of one
	// that was gone. Like the
	// id it survives a backup, so that a restored resource deletes what it
	// created and not what it adopted. On a copy of the manifest, which has
	// another name or namespace, it says nothing.
	AnnotationOrigin = "rpi-connect.dev/origin"

	// AnnotationCreateIntent is on a resource while its remote object is
	// being created. It is what keeps a crash from creating it twice. Leave
	// it alone.
	AnnotationCreateIntent = "rpi-connect.dev/create-intent"

	// AnnotationUnanswered keeps the create intents whose outcome was never
	// learnt, so that what a request made although its answer was lost is
	// still found when it appears late. Leave it alone.
	AnnotationUnanswered = "rpi-connect.dev/unanswered-requests"

	// AnnotationConfirmOrganisation confirms that a resource moves to another
	// organisation: its value is the hash of the new access token, which the
	// message of the reason OrganisationChanged shows. What the resource had
	// in the organisation before is left there.
	AnnotationConfirmOrganisation = "rpi-connect.dev/confirm-organisation"

	// AnnotationReconcileRequestedAt asks the operator to look at the remote
	// object now: any new value counts, the time for example.
	AnnotationReconcileRequestedAt = "rpi-connect.dev/reconcile-requested-at"

	// AnnotationSuspend set to "true" makes the operator leave the resource
	// alone, also while it is being deleted.
	AnnotationSuspend = "rpi-connect.dev/suspend"

	// AnnotationWithdrawn is "true" on a Deployment that its FleetRollout has
	// cancelled for now, or keeps from beginning because another Deployment
	// brings the artefact to the device: it is made again when the device may
	// begin. Leave it alone.
	AnnotationWithdrawn = "rpi-connect.dev/withdrawn"

	// Finalizer keeps a resource until its remote object is dealt with.
	Finalizer = "rpi-connect.dev/finalizer"
)

// SecretKeyReference names a key of a Secret in the resource's own namespace.
type SecretKeyReference struct {
	// name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="name must be the name of a Secret: lower-case letters, digits, hyphens and dots, such as pi5-001"
	Name string `json:"name"`

	// key in the Secret's data.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')",message="key must be a key of a Secret's data: letters, digits, hyphens, underscores and dots, such as token"
	Key string `json:"key"`
}

// AccessTokenReference names the Secret that holds the access token of an
// organisation.
type AccessTokenReference struct {
	// name of the Secret. Default: connect-access-token.
	// +optional
	// +kubebuilder:default=connect-access-token
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="name must be the name of a Secret: lower-case letters, digits, hyphens and dots, such as pi5-001"
	Name string `json:"name,omitempty"`

	// key in the Secret's data. Default: token.
	// +optional
	// +kubebuilder:default=token
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')",message="key must be a key of a Secret's data: letters, digits, hyphens, underscores and dots, such as token"
	Key string `json:"key,omitempty"`
}

// DeletionPolicy defines what becomes of the remote object when its resource is
// deleted.
// +kubebuilder:validation:Enum=Delete;Orphan
type DeletionPolicy string

const (
	// DeletionPolicyDelete deletes the remote object with the resource.
	DeletionPolicyDelete DeletionPolicy = "Delete"
	// DeletionPolicyOrphan leaves the remote object in the organisation.
	DeletionPolicyOrphan DeletionPolicy = "Orphan"
)

// CommonSpec is what the spec of every kind has.
type CommonSpec struct {
	// accessTokenSecretRef names the Secret, in this namespace, with the access
	// token (rporg_…) of the organisation that this resource belongs to. One
	// Secret stands for one organisation; put a new token into it to rotate it,
	// and everything that uses it continues at once. White space, quotes and
	// the word Bearer around the token are ignored. Default: the key "token" of
	// "connect-access-token".
	// +optional
	// +kubebuilder:default={name: connect-access-token, key: token}
	AccessTokenSecretRef AccessTokenReference `json:"accessTokenSecretRef,omitzero"`

	// deletionPolicy says what becomes of the remote object when this resource
	// is deleted: "Delete" deletes it (a key is revoked, a deployment that is
	// still pending is cancelled), "Orphan" leaves it in the organisation and
	// needs no access token. If it is not set, what the operator created is
	// deleted and what it adopted is left, except that a DeviceIdentity and a
	// Device are always left.
	// +optional
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`
}

// CommonStatus is what the status of every kind has.
type CommonStatus struct {
	// id of the remote object in the organisation. It is authoritative; the
	// annotation rpi-connect.dev/id is a copy of it.
	// +optional
	ID string `json:"id,omitempty"`

	// adopted is true if the remote object existed before this resource.
	// +optional
	Adopted bool `json:"adopted,omitempty"`

	// accessTokenHash is the first 8 hexadecimal digits of the SHA-256 of the
	// access token with which the remote object was last seen. It tells a new
	// token of the same organisation from one that opens another organisation.
	// +optional
	AccessTokenHash string `json:"accessTokenHash,omitempty"`

	// observedGeneration is the generation of the spec that this status is
	// about; -1 until the operator has looked at the resource.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// lastHandledReconcileAt is the value of the annotation
	// rpi-connect.dev/reconcile-requested-at that was answered last.
	// +optional
	LastHandledReconcileAt string `json:"lastHandledReconcileAt,omitempty"`

	// conditions tell how the resource is. Ready is True when the remote side
	// is as the spec says, Unknown while the operator works or waits
	// (Reconciling is then True), False when a person must act or it ended
	// badly (Stalled is then True). The reason says what to do about it.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Tag is a label of a device in Connect.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=30
// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9_-]+$')",message="a tag must be of lower-case letters, digits, underscores and hyphens, such as lab_2"
type Tag = string
