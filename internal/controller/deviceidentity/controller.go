// SPDX-License-Identifier: Apache-2.0

// Package deviceidentity makes the organisation's device identities what DeviceIdentities say.
package deviceidentity

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/internal/reflector"
)

// +kubebuilder:rbac:groups=rpi-connect.dev,resources=deviceidentities,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=rpi-connect.dev,resources=deviceidentities/status,verbs=patch

// Kind is what the loop knows of DeviceIdentities. An identity is found by its public key, so one
// that a provisioner registered is taken over without a signature; a new one has to be signed with
// the device's private key, by the operator if it is given the key, or by whoever holds the device.
func Kind(options reflector.Options, secrets client.Reader) lifecycle.Kind[*v1alpha1.DeviceIdentity] {
	identities := reflector.New(options, reflector.Collection[connectclient.DeviceIdentity]{
		Name: "device-identities",
		List: func(c *connectclient.Client, _ string) reflector.Pager[connectclient.DeviceIdentity] {
			return c.DeviceIdentities().List()
		},
		Get: func(ctx context.Context, c *connectclient.Client, id string) (*connectclient.DeviceIdentity, error) {
			return c.DeviceIdentities().Get(ctx, id)
		},
		ID:   func(i connectclient.DeviceIdentity) string { return i.ID },
		Keys: func(i connectclient.DeviceIdentity) []string { return []string{fingerprint(i.PublicKey)} },
	})
	return lifecycle.Kind[*v1alpha1.DeviceIdentity]{
		New:             func() *v1alpha1.DeviceIdentity { return &v1alpha1.DeviceIdentity{} },
		NewList:         func() client.ObjectList { return &v1alpha1.DeviceIdentityList{} },
		Noun:            "device identity",
		NaturalKey:      func(obj *v1alpha1.DeviceIdentity) string { return fingerprint(obj.Spec.PublicKey) },
		Secrets:         signingSecrets,
		OrphanByDefault: true, // deleting an exchanged identity signs its device out
		Reset: func(obj *v1alpha1.DeviceIdentity) {
			common := obj.Status.CommonStatus
			meta.RemoveStatusCondition(&common.Conditions, v1alpha1.ConditionSynced)
			obj.Status = v1alpha1.DeviceIdentityStatus{CommonStatus: common}
		},
		Source: identities,
		Connect: func(obj *v1alpha1.DeviceIdentity, conn *lifecycle.Connection) lifecycle.Remote {
			return &external{obj: obj, conn: conn, store: identities.Of(conn.Token), secrets: secrets}
		},
	}
}

// external is the remote object of one DeviceIdentity.
type external struct {
	obj     *v1alpha1.DeviceIdentity
	conn    *lifecycle.Connection
	store   *reflector.Store[connectclient.DeviceIdentity]
	secrets client.Reader

	found  connectclient.DeviceIdentity  // by Observe
	signed *connectclient.SignedIdentity // by Prepare
}

// Observe implements [lifecycle.Remote].
func (e *external) Observe(context.Context) (lifecycle.Observation, error) {
	if err := lifecycle.Listed(e.conn, e.store); err != nil {
		return lifecycle.Observation{}, err
	}
	own := fingerprint(e.obj.Spec.PublicKey)
	if record := e.conn.Record; record.ID != "" {
		found, ok, err := e.store.Lookup(record.ID, e.conn.Waiter)
		switch {
		case err != nil:
			return lifecycle.Observation{}, lifecycle.FromListing(err)
		case ok && fingerprint(found.PublicKey) != own:
			return lifecycle.ForeignObject(found.ID, lifecycle.ImportConflict("The device identity %s has another public key", found.ID)), nil
		case ok && record.Own():
			return e.registered(lifecycle.Mine, found), nil
		case ok:
			return e.registered(lifecycle.Adoptable, found), nil
		}
	}
	for _, found := range e.store.Find(own) {
		_, there, err := e.store.Lookup(found.ID, e.conn.Waiter)
		if err != nil {
			return lifecycle.Observation{}, lifecycle.FromListing(err)
		}
		if !there {
			continue
		}
		if len(e.conn.Sent) > 0 {
			seen := e.registered(lifecycle.Recovered, found)
			seen.Proof = "it has the key of a request whose answer was lost"
			return seen, nil
		}
		return e.registered(lifecycle.Adoptable, found), nil
	}
	return lifecycle.AbsentObject(), nil
}

// registered mirrors the identity into the status and says what is left to do.
func (e *external) registered(relation lifecycle.Relation, found connectclient.DeviceIdentity) lifecycle.Observation {
	e.found = found
	status := &e.obj.Status
	status.DeviceName = lifecycle.Text(found.DeviceName)
	status.Tags = nil
	for _, tag := range found.Tags {
		status.Tags = append(status.Tags, lifecycle.Text(tag))
	}
	status.CreatedAt = lifecycle.Timestamp(found.CreatedAt)
	status.SigningRequest = nil
	if !e.ignored() || found.ID != status.ID { // what another identity with the key has become says nothing of this one
		meta.RemoveStatusCondition(&status.Conditions, v1alpha1.ConditionSynced)
	}
	return lifecycle.Observation{
		Relation: relation, ID: found.ID, Name: found.Description,
		Outdated: e.changes() != connectclient.DeviceIdentityUpdate{},
		Outcome:  lifecycle.Ready(v1alpha1.ReasonAvailable, "The device identity is registered."),
	}
}

// changes is what distinguishes the identity found from the spec. What the spec leaves out stays as
// it is: the description of an identity that a provisioner registered is often the only thing that
// names the device. What Connect has ignored once is not asked for again.
func (e *external) changes() connectclient.DeviceIdentityUpdate {
	var changes connectclient.DeviceIdentityUpdate
	spec := &e.obj.Spec
	if description := strings.TrimSpace(spec.Description); description != "" && description != strings.TrimSpace(e.found.Description) {
		changes.Description = &description
	}
	if e.ignored() {
		return changes
	}
	if name := strings.TrimSpace(spec.DeviceName); name != "" && name != strings.TrimSpace(e.found.DeviceName) {
		changes.DeviceName = &name
	}
	if spec.Tags != nil && !lifecycle.SameSet(spec.Tags, e.found.Tags) {
		changes.Tags = &spec.Tags
	}
	return changes
}

// ignored tells whether Connect has ignored this very spec before, because the identity has become
// a device. Nothing in the API says so, which is why the Synced condition is where it is remembered.
func (e *external) ignored() bool {
	synced := meta.FindStatusCondition(e.obj.Status.Conditions, v1alpha1.ConditionSynced)
	return synced != nil && synced.Status == metav1.ConditionFalse && synced.ObservedGeneration == e.obj.Generation
}

// Prepare implements [lifecycle.Creator]: it gets the signature without which a key cannot be
// registered.
func (e *external) Prepare(ctx context.Context) (lifecycle.Preparation, error) {
	public, err := connectclient.ParsePublicKeyPEM([]byte(e.obj.Spec.PublicKey))
	if err != nil {
		return lifecycle.Lacking(lifecycle.Stalled(v1alpha1.ReasonInvalid, "spec.publicKey: %s.", err)), nil
	}
	request := connectclient.NewIdentityRequest(e.conn.Client.BaseURL(), e.conn.Token, connectclient.DeviceIdentityCreate{
		PublicKeyPEM: e.obj.Spec.PublicKey,
		Description:  description(e.obj),
		DeviceName:   strings.TrimSpace(e.obj.Spec.DeviceName),
		Tags:         e.obj.Spec.Tags,
	})
	e.obj.Status.SigningRequest = nil
	if ref := e.privateKeyRef(); ref != nil {
		return e.sign(ctx, request, public, *ref)
	}
	digest := request.Digest()
	e.obj.Status.SigningRequest = &v1alpha1.SigningRequest{Digest: hex.EncodeToString(digest[:])}
	signing := e.obj.Spec.Signing
	if signing == nil || signing.Signature == "" {
		return lifecycle.Lacking(lifecycle.Waiting(v1alpha1.ReasonAwaitingSignature,
			"Sign the digest with the device's key and put the result into spec.signing.signature. With the device in fastboot: fastboot oem fwcrypto sign-hash %x", digest)), nil
	}
	if e.signed, err = request.Signed(public, signing.Signature); err != nil {
		return lifecycle.Lacking(lifecycle.Stalled(v1alpha1.ReasonSignatureInvalid,
			"spec.signing.signature is not this key's signature of status.signingRequest.digest: %s. Sign the digest anew: it changes with the access token, the spec and the API's address.", err)), nil
	}
	return lifecycle.Preparation{}, nil
}

func (e *external) privateKeyRef() *v1alpha1.SecretKeyReference {
	if e.obj.Spec.Signing == nil {
		return nil
	}
	return e.obj.Spec.Signing.PrivateKeySecretRef
}

// sign signs with the private key in a Secret.
func (e *external) sign(ctx context.Context, request connectclient.IdentityRequest, public *ecdsa.PublicKey, ref v1alpha1.SecretKeyReference) (lifecycle.Preparation, error) {
	secret := &corev1.Secret{}
	switch err := e.secrets.Get(ctx, types.NamespacedName{Namespace: e.obj.Namespace, Name: ref.Name}, secret); {
	case apierrors.IsNotFound(err):
		return lifecycle.Lacking(lifecycle.Waiting(v1alpha1.ReasonAwaitingSignature,
			"Secret %q, which spec.signing.privateKeySecretRef names, does not exist: create it with the private key under %q.", ref.Name, ref.Key)), nil
	case err != nil:
		return lifecycle.Preparation{}, fmt.Errorf("read Secret %s/%s: %w", e.obj.Namespace, ref.Name, err)
	}
	text, ok := secret.Data[ref.Key]
	if !ok {
		return lifecycle.Lacking(lifecycle.Waiting(v1alpha1.ReasonAwaitingSignature,
			"Secret %q has nothing under %q: put the private key there.", ref.Name, ref.Key)), nil
	}
	private, err := connectclient.ParsePrivateKeyPEM(text)
	switch {
	case err != nil:
		return lifecycle.Lacking(lifecycle.Stalled(v1alpha1.ReasonSignatureInvalid, "The private key in Secret %q: %s.", ref.Name, err)), nil
	case !private.PublicKey.Equal(public):
		return lifecycle.Lacking(lifecycle.Stalled(v1alpha1.ReasonSignatureInvalid,
			"The private key in Secret %q does not belong to spec.publicKey: put the one there that does.", ref.Name)), nil
	}
	signature, err := request.Sign(private)
	if err != nil {
		return lifecycle.Preparation{}, err
	}
	e.signed, err = request.Signed(public, signature)
	return lifecycle.Preparation{}, err
}

// Create implements [lifecycle.Creator]: it registers the key. The older revision ignores tags at
// that: then the identity is outdated from its first moment, and Update sets them.
func (e *external) Create(ctx context.Context) (lifecycle.Observation, error) {
	made, err := e.conn.Client.DeviceIdentities().Create(ctx, e.signed)
	if err != nil {
		return lifecycle.Observation{}, err
	}
	e.store.Put(*made)
	return e.registered(lifecycle.Mine, *made), nil
}

// Update implements [lifecycle.Updater]: it changes what differs, and only that. What Connect
// ignores it ignores silently, because the identity has become a device: that is told once, and not
// tried again for the same spec. The description it never ignores for that reason.
func (e *external) Update(ctx context.Context, id string) (lifecycle.Observation, error) {
	asked := e.changes()
	changed, err := e.conn.Client.DeviceIdentities().Update(ctx, id, asked)
	if err != nil {
		return lifecycle.Observation{}, err
	}
	e.store.Put(*changed)
	seen := e.registered(lifecycle.Mine, *changed)
	left := e.changes()
	ignored := asked.DeviceName != nil && left.DeviceName != nil || asked.Tags != nil && left.Tags != nil
	if ignored {
		meta.SetStatusCondition(&e.obj.Status.Conditions, metav1.Condition{
			Type: v1alpha1.ConditionSynced, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonIdentityExchanged,
			Message:            "The identity has become a device, so Connect ignores spec.deviceName and spec.tags: manage the name and the tags of the device with a Device.",
			ObservedGeneration: e.obj.Generation,
		})
		seen = e.registered(lifecycle.Mine, *changed)
		left = e.changes()
	}
	switch {
	case asked.Description != nil && left.Description != nil:
		seen.Outcome = lifecycle.Stalled(v1alpha1.ReasonInvalid,
			"Connect refuses the spec: it answers as if it had changed the description to spec.description, and has not.")
	case left != connectclient.DeviceIdentityUpdate{}:
		seen.Outcome = lifecycle.RequeueWithBackoff() // somebody has changed it since it was seen
	case !ignored:
		e.conn.Event(lifecycle.Event{Reason: v1alpha1.EventUpdated, Action: "Update", Message: "Updated the device identity " + id + " in the organisation."})
	}
	return seen, nil
}

// Delete implements [lifecycle.Deleter]: it removes the identity, and with it the device that it may
// have become.
func (e *external) Delete(ctx context.Context, id string) (lifecycle.Deletion, error) {
	deletion := lifecycle.Removed(v1alpha1.EventDeleted, "Deleted the device identity "+id+" in the organisation, and with it the device that it may have become.")
	switch err := e.conn.Client.DeviceIdentities().Delete(ctx, id); {
	case errors.Is(err, connectclient.ErrNotFound):
		deletion = lifecycle.AlreadyGone()
	case err != nil:
		return lifecycle.Deletion{}, err
	}
	e.store.Remove(id)
	return deletion, nil
}

// description is what a new identity is called in the organisation.
func description(obj *v1alpha1.DeviceIdentity) string {
	if own := strings.TrimSpace(obj.Spec.Description); own != "" {
		return own
	}
	return obj.Name
}

// fingerprint identifies a public key however its PEM is formatted; empty if it is none.
func fingerprint(pem string) string {
	key, err := connectclient.ParsePublicKeyPEM([]byte(pem))
	if err != nil {
		return ""
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

func signingSecrets(obj *v1alpha1.DeviceIdentity) []string {
	if ref := obj.Spec.Signing; ref != nil && ref.PrivateKeySecretRef != nil {
		return []string{ref.PrivateKeySecretRef.Name}
	}
	return nil
}
