// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"
	"errors"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
)

// What the origin annotation says: whether unset deletionPolicy may delete the
// remote object.
const (
	originCreated = "created"
	originAdopted = "adopted"
)

// create makes the remote object, exactly once.
//
// The API has no idempotency key, so the intent is on the API server before the
// POST leaves, in the same write as the finalizer, and the id follows at once.
// Whoever finds an intent without an id looks at the organisation before doing
// anything (see [Connection.NotBefore]).
func (p *pass[O]) create(ctx context.Context, remote Remote) (Observation, error) {
	if p.imported() {
		return Observation{}, Stalled(v1alpha1.ReasonNotFound,
			"There is nothing with the id %q to take over: correct the annotation %s, or remove it to have a new one made.",
			recordedID(p.obj), v1alpha1.AnnotationID)
	}
	note, err := remote.Prepare(ctx)
	if err != nil {
		return Observation{}, err
	}
	if err := p.recordIntent(ctx, note); err != nil {
		return Observation{}, err
	}
	seen, err := remote.Create(ctx)
	if err != nil {
		return Observation{}, p.notCreated(ctx, err)
	}
	// The remote object exists: neither a shutdown nor a newer version of the
	// resource may keep its id from being stored.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if err := p.record(ctx, seen.ID, originCreated); err != nil {
		return Observation{}, err
	}
	p.announce(*created(seen.ID))
	return seen, nil
}

// imported tells whether the recorded id was put there by the user rather than
// by the operator.
func (p *pass[O]) imported() bool {
	return recordedID(p.obj) != "" && p.obj.GetCommonStatus().ID == "" &&
		p.obj.GetAnnotations()[v1alpha1.AnnotationOrigin] == "" && p.intent == nil
}

// recordIntent puts the intent and the finalizer on the resource, and makes sure
// that the resource was current: either the write proves it, because it names
// the version that was read, or a read past the cache does. What an earlier intent
// was about is settled by now, so a new note may take its place.
func (p *pass[O]) recordIntent(ctx context.Context, note string) error {
	if p.intent != nil && p.intent.Note == note {
		live := p.kind.New()
		if err := p.Live.Get(ctx, p.req.NamespacedName, live); err != nil {
			return err
		}
		if live.GetUID() != p.obj.GetUID() || live.GetResourceVersion() != p.obj.GetResourceVersion() {
			return errOutdated(p.gvk, p.req.Name)
		}
		return nil
	}
	intent := Intent{At: p.Clock.Now(), UID: p.obj.GetUID(), Note: note}
	return p.patchMetadata(ctx, exactVersion, addFinalizer, map[string]any{
		v1alpha1.AnnotationCreateIntent: intent.annotation(),
	})
}

// notCreated sees to it that nothing is forgotten and nothing wrong is
// remembered after a POST that brought no object.
func (p *pass[O]) notCreated(ctx context.Context, err error) error {
	if errors.Is(err, connectclient.ErrOutcomeUnknown) {
		p.demands.onLoss(p.req.NamespacedName, p.Clock.Now())
		return err
	}
	invalid := errors.Is(err, connectclient.ErrInvalid)
	if !invalid && !errors.Is(err, connectclient.ErrBilling) && !errors.Is(err, connectclient.ErrNotFound) {
		return err // it was not sent, or the token was refused: the intent stands
	}
	// Refused: nothing was made, and nothing that turns up later is ours.
	if err := p.forgetIntent(ctx); err != nil {
		return err
	}
	if invalid && p.kind.NaturalKey != nil && !p.demands.onRefusal(p.req.NamespacedName, p.Clock.Now()) {
		// Somebody may have made the same object since the last listing;
		// the API does not say so in a way one could rely on. Look before
		// the user is told that the spec is wrong.
		return Verdict{Backoff: true}
	}
	return err
}

func (p *pass[O]) forgetIntent(ctx context.Context) error {
	return p.patchMetadata(ctx, anyVersion, leaveFinalizer, map[string]any{v1alpha1.AnnotationCreateIntent: nil})
}

// record stores the id of the remote object, and takes the intent off.
func (p *pass[O]) record(ctx context.Context, id, origin string) error {
	backoff := wait.Backoff{Duration: 50 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 9}
	var err error
	waitErr := wait.ExponentialBackoffWithContext(ctx, backoff, func(ctx context.Context) (bool, error) {
		err = p.patchMetadata(ctx, anyVersion, leaveFinalizer, map[string]any{
			v1alpha1.AnnotationID:           id,
			v1alpha1.AnnotationOrigin:       origin,
			v1alpha1.AnnotationCreateIntent: nil,
		})
		return err == nil || apierrors.IsNotFound(err), nil
	})
	if err == nil && waitErr == nil {
		p.noteIdentity(id, origin)
	}
	return errors.Join(err, waitErr)
}

// attach records a remote object that was there already: an earlier pass made it
// and did not live to say so, it was found by its natural key, or a user or a
// backup brought its id.
func (p *pass[O]) attach(ctx context.Context, seen Observation) error {
	annotations := p.obj.GetAnnotations()
	recorded := annotations[v1alpha1.AnnotationID] == seen.ID
	origin := annotations[v1alpha1.AnnotationOrigin]
	var event *Event
	switch {
	case !recorded && seen.Ours:
		origin, event = originCreated, created(seen.ID)
	case !recorded || origin == "":
		origin, event = originAdopted, adopted(seen.ID)
	case p.intent == nil && p.hasFinalizer():
		p.noteIdentity(seen.ID, origin)
		return nil
	}
	if err := p.patchMetadata(ctx, exactVersion, addFinalizer, map[string]any{
		v1alpha1.AnnotationID:           seen.ID,
		v1alpha1.AnnotationOrigin:       origin,
		v1alpha1.AnnotationCreateIntent: nil,
	}); err != nil {
		return err
	}
	p.noteIdentity(seen.ID, origin)
	if event != nil {
		p.announce(*event)
	}
	return nil
}

func created(id string) *Event {
	return &Event{Reason: v1alpha1.EventCreated, Action: "Create", Message: "Created it in the organisation, with the id " + id + "."}
}

func adopted(id string) *Event {
	return &Event{Reason: v1alpha1.EventAdopted, Action: "Adopt", Message: "Adopted what was in the organisation already, with the id " + id + "."}
}

// noteIdentity mirrors the recorded identity into the status.
func (p *pass[O]) noteIdentity(id, origin string) {
	status := p.obj.GetCommonStatus()
	status.ID, status.Adopted = id, origin == originAdopted
}

func (p *pass[O]) hasFinalizer() bool {
	return slices.Contains(p.obj.GetFinalizers(), v1alpha1.Finalizer)
}
