// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"

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

// deviceIdentityKind makes the organisation's device identities what
// DeviceIdentities say. An identity is found by its public key, so one that a
// provisioner registered is taken over without a signature; a new one has to be
// signed with the device's private key, by the operator if it is given the key,
// or by whoever holds the device.
func deviceIdentityKind(options reflector.Options, secrets client.Reader) lifecycle.Kind[*v1alpha1.DeviceIdentity] {
	identities := reflector.New(options, reflector.Collection[connectclient.DeviceIdentity]{
		Name: "device-identities",
		List: func(c *connectclient.Client, _ string) reflector.Pager[connectclient.DeviceIdentity] {
			return c.DeviceIdentities.List()
		},
		Get: func(ctx context.Context, c *connectclient.Client, id string) (*connectclient.DeviceIdentity, error) {
			return c.DeviceIdentities.Get(ctx, id)
		},
		ID:   func(i connectclient.DeviceIdentity) string { return i.ID },
		Keys: func(i connectclient.DeviceIdentity) []string { return []string{keyFingerprint(i.PublicKey)} },
	})
	return lifecycle.Kind[*v1alpha1.DeviceIdentity]{
		New:              func() *v1alpha1.DeviceIdentity { return &v1alpha1.DeviceIdentity{} },
		NewList:          func() client.ObjectList { return &v1alpha1.DeviceIdentityList{} },
		NaturalKey:       func(obj *v1alpha1.DeviceIdentity) string { return keyFingerprint(obj.Spec.PublicKey) },
		Secrets:          signingSecrets,
		OrphanUnlessTold: true, // deleting an exchanged identity signs its device out
		Organisation:     identities,
		Connect: func(obj *v1alpha1.DeviceIdentity, conn *lifecycle.Connection) lifecycle.Remote {
			return &deviceIdentity{obj: obj, conn: conn, store: identities.Of(conn.Token), secrets: secrets}
		},
	}
}

// deviceIdentity is the remote twin of one DeviceIdentity.
type deviceIdentity struct {
	obj     *v1alpha1.DeviceIdentity
	conn    *lifecycle.Connection
	store   *reflector.Store[connectclient.DeviceIdentity]
	secrets client.Reader

	found  connectclient.DeviceIdentity  // by Observe
	signed *connectclient.SignedIdentity // by Prepare
}

func (d *deviceIdentity) Observe(context.Context) (lifecycle.Observation, error) {
	if err := d.store.Await(d.conn.NotBefore, d.conn.Waiter); err != nil {
		return lifecycle.Observation{}, err
	}
	found, ok, err := d.store.Lookup(d.conn.ID, d.conn.Waiter)
	if err != nil {
		return lifecycle.Observation{}, err
	}
	if same := d.store.Find(keyFingerprint(d.obj.Spec.PublicKey)); !ok && len(same) > 0 {
		found, ok = same[0], true
	}
	if !ok {
		return lifecycle.Observation{}, nil
	}
	if keyFingerprint(found.PublicKey) != keyFingerprint(d.obj.Spec.PublicKey) {
		return lifecycle.Observation{}, lifecycle.Stalled(v1alpha1.ReasonConflict,
			"The device identity %s has another public key: correct the annotation %s, or remove it.", found.ID, v1alpha1.AnnotationID)
	}
	seen := d.registered(found)
	seen.Ours = d.conn.Intent != nil
	return seen, nil
}

// registered mirrors the identity into the status and says what is left to do.
func (d *deviceIdentity) registered(found connectclient.DeviceIdentity) lifecycle.Observation {
	d.found = found
	status := &d.obj.Status
	status.DeviceName, status.Tags = found.DeviceName, found.Tags
	status.CreatedAt = timeOrNil(found.CreatedAt)
	status.SigningRequest = nil
	if !d.ignored() {
		meta.RemoveStatusCondition(&status.Conditions, v1alpha1.ConditionSynced)
	}
	return lifecycle.Observation{
		Exists: true, ID: found.ID,
		Outdated: d.changes() != connectclient.DeviceIdentityUpdate{},
		Verdict:  lifecycle.Ready(v1alpha1.ReasonAvailable, "The device identity is registered."),
	}
}

// changes is what distinguishes the identity found from the spec. What the spec
// leaves out stays as it is, and what Connect has ignored once is not asked for
// again.
func (d *deviceIdentity) changes() connectclient.DeviceIdentityUpdate {
	var changes connectclient.DeviceIdentityUpdate
	spec := &d.obj.Spec
	if description := identityDescription(d.obj); description != d.found.Description {
		changes.Description = &description
	}
	if d.ignored() {
		return changes
	}
	if spec.DeviceName != "" && spec.DeviceName != d.found.DeviceName {
		changes.DeviceName = &spec.DeviceName
	}
	if spec.Tags != nil && !sameSet(spec.Tags, d.found.Tags) {
		changes.Tags = &spec.Tags
	}
	return changes
}

// ignored tells whether Connect has ignored this very spec before, because the
// identity has become a device. Nothing else in the API says so.
func (d *deviceIdentity) ignored() bool {
	synced := meta.FindStatusCondition(d.obj.Status.Conditions, v1alpha1.ConditionSynced)
	return synced != nil && synced.Status == metav1.ConditionFalse && synced.ObservedGeneration == d.obj.Generation
}

// Prepare gets the signature without which a key cannot be registered.
func (d *deviceIdentity) Prepare(ctx context.Context) (string, error) {
	public, err := connectclient.ParsePublicKeyPEM([]byte(d.obj.Spec.PublicKey))
	if err != nil {
		return "", lifecycle.Stalled(v1alpha1.ReasonInvalid, "spec.publicKey: %s.", err)
	}
	request := connectclient.NewIdentityRequest(d.conn.Client.BaseURL(), d.conn.Token, connectclient.DeviceIdentityCreate{
		PublicKeyPEM: d.obj.Spec.PublicKey,
		Description:  identityDescription(d.obj),
		DeviceName:   d.obj.Spec.DeviceName,
		Tags:         d.obj.Spec.Tags,
	})
	d.obj.Status.SigningRequest = nil
	if ref := d.privateKeyRef(); ref != nil {
		return "", d.sign(ctx, request, public, *ref)
	}
	digest := request.Digest()
	d.obj.Status.SigningRequest = &v1alpha1.SigningRequest{Digest: hex.EncodeToString(digest[:])}
	signing := d.obj.Spec.Signing
	if signing == nil || signing.Signature == "" {
		return "", lifecycle.Waiting(v1alpha1.ReasonAwaitingSignature,
			"Sign the digest with the device's key and put the result into spec.signing.signature. With the device in fastboot: fastboot oem fwcrypto sign-hash %x", digest)
	}
	if d.signed, err = request.Signed(public, signing.Signature); err != nil {
		return "", lifecycle.Stalled(v1alpha1.ReasonSignatureInvalid,
			"spec.signing.signature is not this key's signature of status.signingRequest.digest: %s. Sign the digest anew: it changes with the access token, the spec and the API's address.", err)
	}
	return "", nil
}

func (d *deviceIdentity) privateKeyRef() *v1alpha1.SecretKeyReference {
	if d.obj.Spec.Signing == nil {
		return nil
	}
	return d.obj.Spec.Signing.PrivateKeySecretRef
}

// sign signs with the private key in a Secret.
func (d *deviceIdentity) sign(ctx context.Context, request connectclient.IdentityRequest, public *ecdsa.PublicKey, ref v1alpha1.SecretKeyReference) error {
	secret := &corev1.Secret{}
	switch err := d.secrets.Get(ctx, types.NamespacedName{Namespace: d.obj.Namespace, Name: ref.Name}, secret); {
	case apierrors.IsNotFound(err):
		return lifecycle.Waiting(v1alpha1.ReasonAwaitingSignature, "Secret %q, which spec.signing.privateKeySecretRef names, does not exist: create it with the private key under %q.", ref.Name, ref.Key)
	case err != nil:
		return fmt.Errorf("read Secret %s/%s: %w", d.obj.Namespace, ref.Name, err)
	}
	text, ok := secret.Data[ref.Key]
	if !ok {
		return lifecycle.Waiting(v1alpha1.ReasonAwaitingSignature, "Secret %q has nothing under %q: put the private key there.", ref.Name, ref.Key)
	}
	private, err := connectclient.ParsePrivateKeyPEM(text)
	switch {
	case err != nil:
		return lifecycle.Stalled(v1alpha1.ReasonSignatureInvalid, "The private key in Secret %q: %s.", ref.Name, err)
	case !private.PublicKey.Equal(public):
		return lifecycle.Stalled(v1alpha1.ReasonSignatureInvalid, "The private key in Secret %q does not belong to spec.publicKey: put the one there that does.", ref.Name)
	}
	signature, err := request.Sign(private)
	if err != nil {
		return err
	}
	d.signed, err = request.Signed(public, signature)
	return err
}

// Create registers the key. The older revision ignores tags at that: then the
// identity is outdated from its first moment, and Update sets them.
func (d *deviceIdentity) Create(ctx context.Context) (lifecycle.Observation, error) {
	made, err := d.conn.Client.DeviceIdentities.Create(ctx, d.signed)
	if err != nil {
		return lifecycle.Observation{}, err
	}
	d.store.Put(*made)
	return d.registered(*made), nil
}

// Update changes what differs, and only that. What Connect ignores it ignores
// silently, because the identity has become a device: that is told once, and
// not tried again for the same spec.
func (d *deviceIdentity) Update(ctx context.Context, id string) (lifecycle.Observation, error) {
	changed, err := d.conn.Client.DeviceIdentities.Update(ctx, id, d.changes())
	if err != nil {
		return lifecycle.Observation{}, err
	}
	d.store.Put(*changed)
	seen := d.registered(*changed)
	if !seen.Outdated {
		d.conn.Event(updated)
		return seen, nil
	}
	meta.SetStatusCondition(&d.obj.Status.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionSynced, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonIdentityExchanged,
		Message:            "The identity has become a device, so Connect ignores spec.deviceName and spec.tags: change the device itself.",
		ObservedGeneration: d.obj.Generation,
	})
	return d.registered(*changed), nil
}

// Delete removes the identity, and with it the device that it may have become.
func (d *deviceIdentity) Delete(ctx context.Context, id string) error {
	if err := d.conn.Client.DeviceIdentities.Delete(ctx, id); err != nil && !errors.Is(err, connectclient.ErrNotFound) {
		return err
	}
	d.store.Remove(id)
	return nil
}

func identityDescription(obj *v1alpha1.DeviceIdentity) string {
	if obj.Spec.Description != "" {
		return obj.Spec.Description
	}
	return obj.Name
}

// keyFingerprint identifies a public key however its PEM is formatted; empty if
// it is none.
func keyFingerprint(pem string) string {
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
	if obj.Spec.Signing == nil || obj.Spec.Signing.PrivateKeySecretRef == nil {
		return nil
	}
	return []string{obj.Spec.Signing.PrivateKeySecretRef.Name}
}
