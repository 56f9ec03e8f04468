// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/accesstoken"
)

// letGo is what a user can do about a deletion that cannot go on.
const letGo = "To let the resource go and leave the remote object behind, set spec.deletionPolicy to Orphan."

// finalize removes the remote object if it is the resource's to remove, and lets
// the resource go.
func (p *pass[O]) finalize(ctx context.Context) error {
	switch {
	case !p.hasFinalizer():
		return quiet(0)
	case p.orphans(), recordedID(p.obj) == "" && p.intent == nil:
		return p.release(ctx)
	}
	if _, done := p.done(); done {
		return p.release(ctx)
	}
	remote, err := p.connectToDelete(ctx)
	if err != nil {
		return p.cannotDelete(ctx, err)
	}
	id, err := p.toDelete(ctx, remote)
	if err != nil {
		return p.cannotDelete(ctx, err)
	}
	if id == "" {
		return p.release(ctx)
	}
	if err := remote.Delete(ctx, id); err != nil {
		return p.cannotDelete(ctx, err)
	}
	p.announce(Event{Reason: v1alpha1.EventDeleted, Action: "Delete", Message: "Deleted it in the organisation."})
	return p.release(ctx)
}

// toDelete returns the id of what the resource has to delete; empty if there is
// nothing, or if it is somebody else's.
func (p *pass[O]) toDelete(ctx context.Context, remote Remote) (string, error) {
	id := recordedID(p.obj)
	seen, err := remote.Observe(ctx)
	var verdict Verdict
	switch {
	case errors.As(err, &verdict):
		// Something about the resource is wrong. That does not matter any
		// more for what was recorded as its own.
		if p.obj.GetAnnotations()[v1alpha1.AnnotationOrigin] == "" {
			return "", nil
		}
		seen = Observation{Exists: true, ID: id}
	case err != nil:
		return "", err
	case seen.ID == "", seen.ID != id && !seen.Ours:
		return "", nil
	}
	if err := p.claim(ctx, seen); errors.As(err, &verdict) {
		return "", nil // it is its owner's to decide
	} else if err != nil {
		return "", err
	}
	return seen.ID, nil
}

// orphans tells whether the remote object stays when the resource goes.
func (p *pass[O]) orphans() bool {
	switch p.obj.GetCommonSpec().DeletionPolicy {
	case v1alpha1.DeletionPolicyOrphan:
		return true
	case v1alpha1.DeletionPolicyDelete:
		return false
	default:
		origin := p.obj.GetAnnotations()[v1alpha1.AnnotationOrigin]
		return p.kind.OrphanUnlessTold || origin == originAdopted || origin == "" && p.intent == nil
	}
}

// connectToDelete opens the organisation with the token there is, or else with
// the last good one: a Secret that was deleted before the resources that use it
// must not leave their remote objects running.
func (p *pass[O]) connectToDelete(ctx context.Context) (Remote, error) {
	remote, err := p.connect(ctx)
	if _, ok := errors.AsType[*accesstoken.MissingError](err); ok {
		if token, ok := p.Tokens.LastGood(tokenRef(p.obj)); ok {
			return p.open(token), nil
		}
	}
	return remote, err
}

// cannotDelete decides what becomes of a resource whose remote object could not
// be deleted.
func (p *pass[O]) cannotDelete(ctx context.Context, err error) error {
	var missing *accesstoken.MissingError
	var retained Retained
	noToken := errors.As(err, &missing)
	rejected := errors.Is(err, connectclient.ErrUnauthorized)
	switch {
	case errors.As(err, &retained):
		p.announce(Event{Warning: true, Reason: retained.Reason, Action: "Delete", Message: retained.Message})
		return p.release(ctx)
	case noToken || rejected:
		if terminating, nsErr := p.namespaceTerminating(ctx); nsErr != nil {
			return nsErr
		} else if terminating {
			return p.leaveBehind(ctx)
		}
	}
	switch {
	case noToken:
		return Waiting(v1alpha1.ReasonAccessTokenMissing, "%s. %s", missing, letGo)
	case rejected:
		return Stalled(v1alpha1.ReasonAccessTokenRejected, "Connect refuses the access token: put a valid one into the Secret. %s", letGo)
	case errors.Is(err, connectclient.ErrInvalid):
		return Stalled(v1alpha1.ReasonDeletionRefused, "Connect refuses the deletion: %s. %s", connectclient.Message(err), letGo)
	}
	return err
}

// leaveBehind lets the resource go although its remote object stays: its
// namespace ends, and with it the only token. The warning is about the
// Namespace, because a namespace that ends takes no new events.
func (p *pass[O]) leaveBehind(ctx context.Context) error {
	namespace := &corev1.Namespace{}
	namespace.Name = p.req.Namespace
	namespace.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	p.Events.Eventf(namespace, nil, corev1.EventTypeWarning, v1alpha1.EventLeftBehind, "Delete", "%s",
		fmt.Sprintf("%s %s was let go without an access token that works; in the organisation, %s stays behind.", p.gvk.Kind, p.req.NamespacedName, orUnknown(recordedID(p.obj))))
	return p.release(ctx)
}

func orUnknown(id string) string {
	if id == "" {
		return "what it may have created"
	}
	return id
}

func (p *pass[O]) namespaceTerminating(ctx context.Context) (bool, error) {
	namespace := &corev1.Namespace{}
	if err := p.Live.Get(ctx, types.NamespacedName{Name: p.req.Namespace}, namespace); err != nil {
		return false, fmt.Errorf("read namespace %s: %w", p.req.Namespace, err)
	}
	return !namespace.DeletionTimestamp.IsZero(), nil
}

// release takes the finalizer off.
func (p *pass[O]) release(ctx context.Context) error {
	if err := p.patchMetadata(ctx, exactVersion, removeFinalizer, nil); err != nil {
		return err
	}
	return quiet(0)
}
