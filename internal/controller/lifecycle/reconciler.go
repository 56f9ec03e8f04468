// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"
	"errors"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/accesstoken"
	"rpi-connect.dev/operator/internal/reflector"
)

// Environment is what the reconcilers of all kinds share.
type Environment struct {
	// Client reads from the cache and writes; Live reads past the cache.
	Client client.Client
	Live   client.Reader
	// Tokens finds access tokens, API opens organisations with them, and Health tells everybody
	// when a token is refused or accepted again.
	Tokens *accesstoken.Source
	API    *connectclient.API
	Health *TokenHealth
	Events events.EventRecorder
	Clock  clock.PassiveClock
	// SettleTime is how long after a POST whose outcome is unknown what it made may still appear.
	// Before it is over no second POST is sent of a kind that the API would create twice.
	SettleTime time.Duration
	// MaxConcurrentReconciles is how many resources of a kind are worked on at the same time.
	MaxConcurrentReconciles int
}

// Reconciler runs the story of every resource of one kind.
type Reconciler[O Object] struct {
	Environment
	Claims *Claims

	kind   Kind[O]
	gvk    schema.GroupVersionKind
	memory *memory
	queue  workqueue.TypedRateLimitingInterface[reconcile.Request]
}

// newReconciler is the loop for one kind, before anything wakes it.
func newReconciler[O Object](env Environment, kind Kind[O]) *Reconciler[O] {
	return &Reconciler[O]{Environment: env, Claims: newClaims(env.Clock), kind: kind, memory: newMemory()}
}

// Reconcile makes the remote side of one resource what its spec says, and its status what the
// remote side is.
func (r *Reconciler[O]) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	obj := r.kind.New()
	if err := r.Client.Get(ctx, req.NamespacedName, obj); err != nil {
		r.forget(req)
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if r.memory.hasAnother(req.NamespacedName, obj.GetUID()) {
		r.forget(req) // it was deleted, and made again, between two passes
	}
	known := r.memory.recall(req.NamespacedName, obj.GetUID(), r.Clock.Now())
	if after, behind := known.expectation.behind(obj.GetResourceVersion(), wallClock()); behind {
		return reconcile.Result{RequeueAfter: after}, nil
	}
	if wait := known.pace.wait(subject(obj), wallClock()); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	p := r.begin(req, obj, known)
	defer p.release()
	outcome, err := p.run(ctx)
	known.paused = pauses(outcome, err)
	outcome, err = p.finalOutcome(outcome, err)
	if err != nil {
		return reconcile.Result{}, err
	}
	if outcome, err = p.writeStatus(ctx, outcome); err != nil {
		return reconcile.Result{}, err
	}
	return r.next(ctx, known, outcome), nil
}

// pauses tells whether a pass ended because of something else than a listing or the budget: when the
// resource goes on, what was listed before may have moved.
func pauses(outcome Outcome, err error) bool {
	if err != nil {
		return !errors.As(err, new(listingError)) && !errors.Is(err, connectclient.ErrThrottled) && !errors.Is(err, connectclient.ErrDeferred)
	}
	return !outcome.Listed && !outcome.Scheduled
}

// run is the story of a resource.
func (p *pass[O]) run(ctx context.Context) (Outcome, error) {
	if p.suspended() {
		return NoChange(0), nil
	}
	if p.deleting() {
		return p.finalize(ctx)
	}
	if err := p.restore(ctx); err != nil {
		return Outcome{}, err
	}
	if outcome, done := p.done(); done {
		return outcome, nil
	}
	remote, err := p.connect(ctx)
	if err != nil {
		return Outcome{}, err
	}
	seen, err := p.observe(ctx, remote)
	if err != nil {
		return Outcome{}, err
	}
	if outcome, changed := p.organisationChanged(seen); changed {
		p.discard() // what was gathered is about something else
		if !p.moveConfirmed() {
			return outcome, nil
		}
		return RequeueWithBackoff(), p.beginAnew(ctx)
	}
	if outcome, claimed, err := p.claim(ctx, seen); err != nil || claimed {
		p.discard() // it is about somebody else's object
		return outcome, err
	}
	switch seen.Relation {
	case Absent:
		seen, err = p.create(ctx, remote, seen)
	case Recovered, Adoptable:
		err = p.attach(ctx, seen)
	case Mine:
		err = p.keep(ctx, seen)
	case Foreign, Unknown:
		return seen.Outcome, nil
	}
	if err == nil && seen.Outdated && seen.Relation != Absent {
		p.hold(seen)
		seen, err = p.update(ctx, remote, seen)
	}
	if err != nil {
		return Outcome{}, err
	}
	p.noteOrganisation(seen)
	return seen.Outcome, nil
}

// observe asks the kind what is there. A listing that the budget does not let go is no reason to
// keep a resource waiting that the API itself keeps from being created twice.
func (p *pass[O]) observe(ctx context.Context, remote Remote) (Observation, error) {
	seen, err := remote.Observe(ctx)
	_, creates := remote.(Creator)
	refused := errors.As(err, new(listingError)) && errors.Is(err, connectclient.ErrThrottled)
	if refused && creates && p.naturalKey(p.obj) != "" && p.record.ID == "" && p.sent.intent == nil {
		p.unlooked = true
		return AbsentObject(), nil
	}
	return seen, err
}

// update changes the remote object. One that has vanished since it was seen is looked for before
// anything else.
func (p *pass[O]) update(ctx context.Context, remote Remote, seen Observation) (Observation, error) {
	updater, ok := remote.(Updater)
	if !ok {
		return seen, nil
	}
	updated, err := updater.Update(ctx, seen.ID)
	p.Claims.Written(objectClaim(p.gvk.Kind, seen.ID), p.obj.GetUID())
	if errors.Is(err, connectclient.ErrNotFound) {
		p.known.freshness.require(p.Clock.Now())
		return NotKnown(RequeueWithBackoff()), nil
	}
	return updated, err
}

// finalOutcome turns how the pass ended into what the user is told. Of an error that nobody knows the
// work queue makes another attempt.
func (p *pass[O]) finalOutcome(outcome Outcome, err error) (Outcome, error) {
	switch {
	case err == nil:
		p.noteHealth()
		return outcome, nil
	case apierrors.IsConflict(err):
		// The cache was behind. The newer version is on its way and may change everything.
		p.discard()
		return RequeueWithBackoff(), nil
	}
	p.discard()
	p.noteHealth()
	final, known := outcomeOf(err, p.progressReason(), p.Clock.Now())
	if !known {
		return Outcome{}, err
	}
	return final, nil
}

// writeStatus writes the status. What the API server refuses to take is said in the status that it had.
func (p *pass[O]) writeStatus(ctx context.Context, outcome Outcome) (Outcome, error) {
	err := p.patchStatus(ctx, outcome)
	if err == nil {
		return outcome, nil
	}
	outcome, err = p.finalOutcome(Outcome{}, err)
	if err != nil || outcome.Reason != v1alpha1.ReasonWriteRefused {
		return outcome, err
	}
	p.held, p.holds = p.stored, 0
	p.discard()
	return outcome, p.patchStatus(ctx, outcome)
}

// hold keeps what has been observed and recorded, whatever becomes of the change that follows.
func (p *pass[O]) hold(seen Observation) {
	p.noteOrganisation(seen)
	p.held, _ = p.obj.DeepCopyObject().(O)
	p.holds = len(p.events)
}

// discard takes back what the pass has gathered for the status since it last held something: it did
// not come to its end.
func (p *pass[O]) discard() {
	p.obj, _ = p.held.DeepCopyObject().(O)
	p.events = append(p.events[:p.holds:p.holds], slices.DeleteFunc(p.events[p.holds:], func(e Event) bool { return e.OfStatus })...)
}

// next says when to look again, and logs how the pass ended.
func (r *Reconciler[O]) next(ctx context.Context, known *remembered, outcome Outcome) reconcile.Result {
	after := known.pace.next(outcome, wallClock())
	logger := log.FromContext(ctx)
	if outcome.Cause != nil {
		logger.Info("Connect is unavailable", "cause", outcome.Cause.Error())
	}
	if outcome.Ready == "" {
		logger.V(1).Info("Reconciled without news", "requeueAfter", after.String())
	} else {
		logger.V(1).Info("Reconciled", "ready", outcome.Ready, "reason", outcome.Reason, "message", outcome.Message, "requeueAfter", after.String())
	}
	return reconcile.Result{RequeueAfter: after}
}

// waiter is a resource as those know it who wake it.
func (r *Reconciler[O]) waiter(req reconcile.Request) reflector.Waiter {
	return reflector.Waiter{Subscriber: r.gvk.Kind, Resource: req.NamespacedName}
}

func (r *Reconciler[O]) forget(req reconcile.Request) {
	if uid, known := r.memory.forget(req.NamespacedName); known {
		r.Claims.ReleaseAll(uid)
	}
	r.kind.Source.Forget(r.waiter(req))
	if r.kind.Forget != nil {
		r.kind.Forget(req.NamespacedName)
	}
}
