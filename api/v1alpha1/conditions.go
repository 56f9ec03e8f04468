// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// Condition types. Ready, Reconciling and Stalled follow kstatus, so that Argo
// CD, Flux and `kubectl wait` understand them.
const (
	// ConditionReady says whether the remote side is as the spec says.
	ConditionReady = "Ready"
	// ConditionReconciling is True while Ready is Unknown, and absent
	// otherwise.
	ConditionReconciling = "Reconciling"
	// ConditionStalled is True while Ready is False, and absent otherwise.
	ConditionStalled = "Stalled"
	// ConditionSuspended is True while the annotation
	// rpi-connect.dev/suspend keeps the operator away.
	ConditionSuspended = "Suspended"
	// ConditionSynced is False where Connect does not take over a part of
	// the spec although the resource is Ready.
	ConditionSynced = "Synced"
)

// The reasons of a single kind stand with its types.

// Reasons of conditions that every kind uses. A reason says what to do about it;
// the message says the details.
const (
	// ReasonAvailable: nothing to do; the remote object is there.
	ReasonAvailable = "Available"
	// ReasonCreating: nothing to do; waiting for the request budget to create it.
	ReasonCreating = "Creating"
	// ReasonUpdating: nothing to do; waiting for the request budget to look at it or
	// change it.
	ReasonUpdating = "Updating"
	// ReasonDeleting: nothing to do; waiting for the request budget, or for Connect,
	// to delete it.
	ReasonDeleting = "Deleting"
	// ReasonSuspended: remove the annotation rpi-connect.dev/suspend to go on.
	ReasonSuspended = "Suspended"
	// ReasonAccessTokenMissing: create the Secret, or the key in it, that
	// spec.accessTokenSecretRef names.
	ReasonAccessTokenMissing = "AccessTokenMissing"
	// ReasonAccessTokenRejected: put a valid access token into the Secret.
	ReasonAccessTokenRejected = "AccessTokenRejected"
	// ReasonThrottled: wait; the hourly request budget is spent, and the
	// message says until when.
	ReasonThrottled = "Throttled"
	// ReasonInvalid: correct the spec; Connect refuses it, and the message has
	// its words.
	ReasonInvalid = "Invalid"
	// ReasonBillingRequired: set up billing for the organisation.
	ReasonBillingRequired = "BillingRequired"
	// ReasonConflict: choose another name or key; the one in the spec belongs
	// to something else in the organisation.
	ReasonConflict = "Conflict"
	// ReasonAlreadyClaimed: delete this resource or the other one that the
	// message names; both are about the same remote object.
	ReasonAlreadyClaimed = "AlreadyClaimed"
	// ReasonConnectUnavailable: wait; Connect cannot be reached or answers with
	// errors.
	ReasonConnectUnavailable = "ConnectUnavailable"
	// ReasonNotFound: do what the message says; nothing in the organisation has
	// the recorded id any more, or the one in the annotation rpi-connect.dev/id.
	ReasonNotFound = "NotFound"
	// ReasonOrganisationChanged: put back the access token of the organisation
	// that has the remote object, or confirm the move as the message says; the
	// token opens an organisation that does not have it.
	ReasonOrganisationChanged = "OrganisationChanged"
	// ReasonForbidden: use the access token of an administrator; Connect does
	// not allow this one to do it.
	ReasonForbidden = "Forbidden"
	// ReasonWriteRefused: do what the message says; the Kubernetes API server
	// refuses what the operator has to write.
	ReasonWriteRefused = "WriteRefused"
	// ReasonDeletionRefused: do what the message says, or set
	// spec.deletionPolicy to Orphan; Connect refuses to delete it.
	ReasonDeletionRefused = "DeletionRefused"
)

// Reasons of events that are not reasons of conditions too.
const (
	// EventRevisionBegun: a rollout begins to bring another artefact.
	EventRevisionBegun = "RevisionBegun"
	// EventBatchBegun: the first device of a batch has begun.
	EventBatchBegun = "BatchBegun"
	// EventBatchEnded: a batch is over.
	EventBatchEnded = "BatchEnded"
	// EventApproved: a person has approved a batch, and the next one begins.
	EventApproved = "Approved"
	// EventResumed: a rollout that was paused goes on.
	EventResumed = "Resumed"
	// EventOverridden: a device got another deployment, and is left alone.
	EventOverridden = "Overridden"
	// EventCreated: the remote object was created.
	EventCreated = "Created"
	// EventAdopted: a remote object that was there already was taken over.
	EventAdopted = "Adopted"
	// EventUpdated: the remote object was changed.
	EventUpdated = "Updated"
	// EventDeleted: the remote object was deleted.
	EventDeleted = "Deleted"
	// EventArtefactRetained: Connect keeps an artefact that has been deployed.
	EventArtefactRetained = "ArtefactRetained"
	// EventOrphaned: a resource has gone although its remote object stays.
	EventOrphaned = "Orphaned"
	// EventRestored: the operator's annotations and its finalizer were removed
	// from a resource, and have been put back.
	EventRestored = "Restored"
	// EventSecretWritten: an auth key was written to its Secret.
	EventSecretWritten = "SecretWritten"
	// EventKeyLost: a key may be left in the organisation that is in no
	// Secret.
	EventKeyLost = "KeyLost"
	// EventKeyRevoked: a key that is in no Secret was revoked.
	EventKeyRevoked = "KeyRevoked"
	// EventStateChanged: a deployment's state changed.
	EventStateChanged = "StateChanged"
)
