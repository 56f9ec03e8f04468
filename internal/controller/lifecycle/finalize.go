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

// orphanHint is what a user can do about a deletion that cannot go on.
const orphanHint = "To let the resource go and leave the remote object behind, set spec.deletionPolicy to Orphan."

// finalize removes the remote object if it is the resource's to remove, and lets the resource go.
func (p *pass[O]) finalize(ctx context.Context) (Outcome, error) {
	if !p.hasFinalizer() {
		return NoChange(0), nil
	}
	removes := p.record.Own() && !p.orphansAdopted() || len(p.sent.all()) > 0
	if _, done := p.done(); done || p.orphansCreated() || !removes {
		return p.dropFinalizer(ctx)
	}
	remote, err := p.connectToDelete(ctx)
	if err != nil {
		return p.cannotDelete(ctx, err)
	}
	id, waits, err := p.toDelete(ctx, remote)
	switch {
	case err != nil:
		return p.cannotDelete(ctx, err)
	case waits != nil:
		return *waits, nil
	case id == "":
		return p.dropFinalizer(ctx)
	default:
		return p.delete(ctx, remote, id)
	}
}

// toDelete returns the id of what the resource has to remove; empty if there is nothing, or if it
// is not the resource's to remove. Where that cannot be told yet, it says what the deletion waits
// for.
func (p *pass[O]) toDelete(ctx context.Context, remote Remote) (id string, waits *Outcome, err error) {
	seen := Observation{Relation: Mine, ID: p.record.ID}
	if p.mustLook() {
		if seen, err = remote.Observe(ctx); err != nil {
			return "", nil, err
		}
	}
	if outcome, changed := p.organisationChanged(seen); changed && !p.moveConfirmed() {
		return "", &outcome, nil
	}
	if _, claimed, err := p.claim(ctx, seen); err != nil || claimed {
		return "", nil, err // it is its owner's to decide
	}
	switch seen.Relation {
	case Mine:
		if p.orphansAdopted() {
			return "", nil, nil
		}
		p.noteOrganisation(seen) // once it is deleted nothing else tells that it was here
		return seen.ID, nil, nil
	case Recovered:
		return seen.ID, nil, p.attach(ctx, seen)
	case Unknown:
		return "", &seen.Outcome, nil
	case Absent:
		if !seen.Settled {
			waits = p.lateEffect()
		}
		return "", waits, nil
	default:
		if p.sent.intent != nil && p.sent.intent.Unlooked && seen.Relation == Adoptable {
			p.recordEvent(Event{
				Warning: true, Reason: v1alpha1.EventOrphaned, Action: "Delete",
				Message: fmt.Sprintf("The %s %s stays in the organisation: a request whose answer was lost may have made it, or it was there before.", p.kind.Noun, seen.ID),
			})
		}
		return "", nil, nil
	}
}

// mustLook tells whether what is to be removed has to be seen first. What the status says is the
// resource's own it is, in the organisation where it was seen last; anything else may be somebody
// else's, or may still appear. After a deletion that went wrong, absence is proven by looking.
func (p *pass[O]) mustLook() bool {
	return !p.record.Own() || p.record.Restored || p.moved() || len(p.sent.all()) > 0 || !p.known.freshness.notBefore.IsZero()
}

// lateEffect keeps a resource whose request may still be carried out: nobody would remove what it
// makes.
func (p *pass[O]) lateEffect() *Outcome {
	for _, intent := range p.sent.all() {
		if outcome, settling := p.awaitEffect(intent.At); settling {
			return &outcome
		}
	}
	return nil
}

// delete removes the remote object and then lets the resource go.
func (p *pass[O]) delete(ctx context.Context, remote Remote, id string) (Outcome, error) {
	deleter, ok := remote.(Deleter)
	if !ok {
		return p.dropFinalizer(ctx)
	}
	deletion, err := deleter.Delete(ctx, id)
	p.Claims.Written(objectClaim(p.gvk.Kind, id), p.obj.GetUID())
	switch {
	case err != nil:
		if errors.Is(err, connectclient.ErrUnavailable) {
			p.known.freshness.require(p.Clock.Now())
		}
		return p.cannotDelete(ctx, err)
	case deletion.Pending != nil:
		return *deletion.Pending, nil
	}
	if deletion.Event != nil {
		p.recordEvent(*deletion.Event)
	}
	if waits := p.lateEffect(); waits != nil {
		return *waits, nil
	}
	return p.dropFinalizer(ctx)
}

// orphansAdopted tells whether the remote object stays when the resource goes, because it was there
// before. It says nothing of what a request has made that was to take its place.
func (p *pass[O]) orphansAdopted() bool {
	return p.record.Origin == Adopted && p.obj.GetCommonSpec().DeletionPolicy == ""
}

// orphansCreated tells whether even what the operator made stays when the resource goes.
func (p *pass[O]) orphansCreated() bool {
	policy := p.obj.GetCommonSpec().DeletionPolicy
	return policy == v1alpha1.DeletionPolicyOrphan || policy == "" && p.kind.OrphanByDefault
}

// connectToDelete opens the organisation with the token there is, or else with the last good one: a
// Secret that was deleted before the resources that use it must not leave their remote objects
// running.
func (p *pass[O]) connectToDelete(ctx context.Context) (Remote, error) {
	remote, err := p.connect(ctx)
	if noToken(err) {
		if token, ok := p.Tokens.LastGood(tokenRef(p.obj)); ok {
			return p.open(token)
		}
	}
	return remote, err
}

// noToken tells whether there is no access token where the resource says.
func noToken(err error) bool {
	_, missing := errors.AsType[*accesstoken.MissingError](err)
	_, invalid := errors.AsType[*accesstoken.InvalidError](err)
	return missing || invalid
}

// cannotDelete decides what becomes of a resource whose remote object could not be deleted.
func (p *pass[O]) cannotDelete(ctx context.Context, err error) (Outcome, error) {
	rejected := errors.Is(err, connectclient.ErrUnauthorized)
	if noToken(err) || rejected {
		if terminating, nsErr := p.namespaceTerminating(ctx); nsErr != nil {
			return Outcome{}, nsErr
		} else if terminating {
			return p.orphan(ctx)
		}
	}
	switch {
	case noToken(err):
		outcome, _ := outcomeOf(err, v1alpha1.ReasonDeleting, p.Clock.Now())
		outcome.Message += " " + orphanHint
		return outcome, nil
	case rejected:
		p.noteHealth()
		return Stalled(v1alpha1.ReasonAccessTokenRejected, "Connect refuses the access token: put a valid one into the Secret. %s", orphanHint), nil
	case errors.Is(err, connectclient.ErrForbidden), errors.Is(err, connectclient.ErrInvalid), errors.Is(err, connectclient.ErrBilling):
		return Stalled(v1alpha1.ReasonDeletionRefused, "Connect refuses the deletion: %s. %s", connectclient.Message(err), orphanHint), nil
	}
	return Outcome{}, err
}

// orphan lets the resource vanish although its remote object stays: its namespace ends, and with
// it the only token. The warning is about the Namespace, whose events are kept elsewhere, because a
// namespace that ends takes no new events and its own end with it.
func (p *pass[O]) orphan(ctx context.Context) (Outcome, error) {
	what := p.record.ID
	if what == "" {
		what = "what it may have created"
	}
	outcome, err := p.dropFinalizer(ctx)
	if err != nil {
		return outcome, err
	}
	namespace := &corev1.Namespace{}
	namespace.Name = p.req.Namespace
	namespace.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	p.recordEvent(Event{
		Warning: true, Reason: v1alpha1.EventOrphaned, Action: "Delete", About: namespace,
		Message: fmt.Sprintf("%s %s was removed without an access token that works: %s stays in the organisation.", p.gvk.Kind, p.req.NamespacedName, what),
	})
	return outcome, nil
}

func (p *pass[O]) namespaceTerminating(ctx context.Context) (bool, error) {
	namespace := &corev1.Namespace{}
	if err := p.Live.Get(ctx, types.NamespacedName{Name: p.req.Namespace}, namespace); err != nil {
		return false, fmt.Errorf("read namespace %s: %w", p.req.Namespace, err)
	}
	return !namespace.DeletionTimestamp.IsZero(), nil
}

// dropFinalizer takes the finalizer off: the resource vanishes, and others may have what it claimed.
func (p *pass[O]) dropFinalizer(ctx context.Context) (Outcome, error) {
	if err := p.patchMetadata(ctx, exactVersion, removeFinalizer, nil); err != nil {
		return Outcome{}, err
	}
	p.Claims.ReleaseAll(p.obj.GetUID())
	return NoChange(0), nil
}
