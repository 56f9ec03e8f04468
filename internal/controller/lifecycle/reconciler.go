// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/accesstoken"
)

// How soon a resource is looked at again after an outage: first after
// backoffMin, doubling to backoffMax.
const (
	backoffMin = 500 * time.Millisecond
	backoffMax = time.Minute
)

// Environment is what the reconcilers of all kinds share.
type Environment struct {
	// Client reads from the cache and writes; Live reads past the cache.
	Client client.Client
	Live   client.Reader
	// Tokens finds access tokens, API opens organisations with them.
	Tokens *accesstoken.Source
	API    *connectclient.API
	Events events.EventRecorder
	Clock  clock.PassiveClock
	// MaxConcurrentReconciles is how many resources of a kind are worked on
	// at the same time.
	MaxConcurrentReconciles int
}

// Reconciler runs the story of every resource of one kind.
type Reconciler[O Object] struct {
	Environment
	kind    Kind[O]
	gvk     schema.GroupVersionKind
	demands *demands
	takings *takings
	written *written
	backoff workqueue.TypedRateLimiter[reconcile.Request]
	queue   workqueue.TypedRateLimitingInterface[reconcile.Request]
}

// Reconcile makes the remote side of one resource what its spec says, and its
// status what the remote side is.
func (r *Reconciler[O]) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	obj := r.kind.New()
	if err := r.Client.Get(ctx, req.NamespacedName, obj); err != nil {
		r.forget(req)
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if r.written.aheadOf(req.NamespacedName, obj.GetResourceVersion(), r.Clock.Now()) {
		return reconcile.Result{RequeueAfter: catchUp}, nil
	}
	p := r.begin(req, obj)
	ended := p.run(ctx)
	if apierrors.IsConflict(ended) {
		// The cache was behind. The newer version is on its way and may change
		// everything, so nothing of this pass stands.
		return reconcile.Result{RequeueAfter: r.backoff.When(req)}, nil
	}
	verdict, err := judge(ended, p.doing(), r.Clock.Now())
	if err != nil {
		return reconcile.Result{}, err
	}
	if err := p.settle(ctx, verdict); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	return r.next(ctx, req, verdict), nil
}

// run is the story of a resource. How it ended comes as an error, because it may
// end at any step; mostly it is a [Verdict].
func (p *pass[O]) run(ctx context.Context) error {
	if p.suspended() {
		return quiet(0)
	}
	if p.deleting() {
		return p.finalize(ctx)
	}
	if verdict, done := p.done(); done {
		return verdict
	}
	remote, err := p.connect(ctx)
	if err != nil {
		return err
	}
	seen, err := remote.Observe(ctx)
	if err != nil {
		return err
	}
	if err := p.claim(ctx, seen); err != nil {
		return err
	}
	if seen.Exists {
		err = p.attach(ctx, seen)
	} else {
		seen, err = p.create(ctx, remote)
	}
	if err == nil && seen.Outdated {
		seen, err = p.update(ctx, remote, seen.ID)
	}
	if err != nil {
		return err
	}
	return seen.Verdict
}

// update changes the remote object. One that has vanished since it was seen is
// looked for before anything else.
func (p *pass[O]) update(ctx context.Context, remote Remote, id string) (Observation, error) {
	seen, err := remote.Update(ctx, id)
	if errors.Is(err, connectclient.ErrNotFound) {
		p.demands.onLoss(p.req.NamespacedName, p.Clock.Now())
		return Observation{}, Verdict{Backoff: true}
	}
	return seen, err
}

// next says when to look again.
func (r *Reconciler[O]) next(ctx context.Context, req reconcile.Request, verdict Verdict) reconcile.Result {
	if verdict.Cause != nil {
		log.FromContext(ctx).Info("Connect is unavailable", "cause", verdict.Cause.Error())
	}
	if verdict.Backoff {
		return reconcile.Result{RequeueAfter: r.backoff.When(req)}
	}
	r.backoff.Forget(req)
	return reconcile.Result{RequeueAfter: verdict.Again}
}

func (r *Reconciler[O]) forget(req reconcile.Request) {
	r.demands.forget(req.NamespacedName)
	r.takings.forget(req.NamespacedName)
	r.written.forget(req.NamespacedName)
	r.backoff.Forget(req)
	if r.kind.Forget != nil {
		r.kind.Forget(req.NamespacedName)
	}
}
