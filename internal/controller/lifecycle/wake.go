// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/reflector"
)

// Cache indexes that the loop looks resources up by.
const (
	indexSecret = "rpi-connect.dev/secret" //nolint:gosec // the name of an index
	indexClaim  = "rpi-connect.dev/claim"
)

func claimID(id string) string   { return "id/" + id }
func claimKey(key string) string { return "key/" + key }

// Add starts the loop for one kind: its resources, their Secrets and the
// organisation wake it, and nothing else does.
func Add[O Object](mgr ctrl.Manager, env Environment, kind Kind[O]) error {
	gvk, err := apiutil.GVKForObject(kind.New(), mgr.GetScheme())
	if err != nil {
		return err
	}
	r := &Reconciler[O]{
		Environment: env,
		kind:        kind,
		gvk:         gvk,
		demands:     newDemands(),
		takings:     newTakings(),
		written:     newWritten(),
		backoff:     workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](backoffMin, backoffMax),
	}
	if err := r.index(context.Background(), mgr.GetFieldIndexer()); err != nil {
		return fmt.Errorf("index %s: %w", gvk.Kind, err)
	}
	kind.Organisation.Subscribe(reflector.Subscription{Name: gvk.Kind, Notify: r.wake, Wanted: r.wanted})
	env.Tokens.OnTouched(r.reconsider)
	if err := mgr.Add(kind.Organisation); err != nil {
		return err
	}
	b := ctrl.NewControllerManagedBy(mgr).
		For(kind.New(), builder.WithPredicates(r.concerns())).
		Watches(kind.New(), handler.Funcs{DeleteFunc: r.wakeRivals}).
		WatchesMetadata(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.usersOfSecret),
			builder.WithPredicates(predicate.ResourceVersionChangedPredicate{})).
		WatchesRawSource(source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
			r.queue = queue
			return nil
		})).
		WithOptions(controller.Options{MaxConcurrentReconciles: env.MaxConcurrentReconciles})
	if kind.Watch != nil {
		kind.Watch(b)
	}
	if err := b.Complete(r); err != nil {
		return fmt.Errorf("set up the %s controller: %w", gvk.Kind, err)
	}
	return nil
}

func (r *Reconciler[O]) index(ctx context.Context, indexer client.FieldIndexer) error {
	indexes := map[string]func(O) []string{indexSecret: r.secrets, indexClaim: r.claims}
	maps.Copy(indexes, r.kind.Indexes)
	for name, values := range indexes {
		err := indexer.IndexField(ctx, r.kind.New(), name, func(obj client.Object) []string {
			return values(obj.(O)) //nolint:forcetypeassert // the index is of this type
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// claims lists what identifies the remote object that the resource is about.
func (r *Reconciler[O]) claims(obj O) []string {
	var claims []string
	if id := recordedID(obj); id != "" {
		claims = append(claims, claimID(id))
	}
	if key := r.naturalKey(obj); key != "" {
		claims = append(claims, claimKey(key))
	}
	return claims
}

func (r *Reconciler[O]) naturalKey(obj O) string {
	if r.kind.NaturalKey == nil {
		return ""
	}
	return r.kind.NaturalKey(obj)
}

// secrets names the Secrets whose change concerns the resource.
func (r *Reconciler[O]) secrets(obj O) []string {
	names := []string{obj.GetCommonSpec().AccessTokenSecretRef.Name}
	if r.kind.Secrets != nil {
		names = append(names, r.kind.Secrets(obj)...)
	}
	return names
}

// concerns keeps the loop from being woken by its own writes: of an update only
// the spec, the deletion and the annotations that a user sets matter.
func (r *Reconciler[O]) concerns() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		was, is := e.ObjectOld.GetAnnotations(), e.ObjectNew.GetAnnotations()
		changed := func(annotation string) bool { return was[annotation] != is[annotation] }
		recorded := was[v1alpha1.AnnotationCreateIntent] != "" && is[v1alpha1.AnnotationCreateIntent] == ""
		return e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() ||
			e.ObjectOld.GetDeletionTimestamp().IsZero() != e.ObjectNew.GetDeletionTimestamp().IsZero() ||
			changed(v1alpha1.AnnotationSuspend) || changed(v1alpha1.AnnotationReconcileRequestedAt) ||
			changed(v1alpha1.AnnotationID) && !changed(v1alpha1.AnnotationOrigin) && !recorded
	}}
}

// wake passes on whom a listing concerns. It runs on the listing's goroutine,
// which has no one to report an error to: the cache it reads does not fail.
func (r *Reconciler[O]) wake(w reflector.Notification) {
	ctx := context.Background()
	for _, waiter := range w.Waiters {
		r.queue.Add(reconcile.Request{NamespacedName: waiter})
	}
	if w.Everyone {
		for _, ref := range r.Tokens.RefsOf(w.Token) {
			r.wakeAll(ctx, client.MatchingFields{indexSecret: ref.Name}, client.InNamespace(ref.Namespace))
		}
	}
	for _, id := range w.IDs {
		r.wakeAll(ctx, client.MatchingFields{indexClaim: claimID(id)})
	}
	for _, key := range w.Keys {
		r.wakeAll(ctx, client.MatchingFields{indexClaim: claimKey(key)})
	}
}

func (r *Reconciler[O]) wakeAll(ctx context.Context, opts ...client.ListOption) {
	for _, req := range r.requests(ctx, opts...) {
		r.queue.Add(req)
	}
}

// reconsider lets a token be tried again that was refused.
func (r *Reconciler[O]) reconsider(token connectclient.Secret) {
	r.API.Organisation(token).Budget().Reconsider()
	r.kind.Organisation.Retry(token)
}

// wanted tells whether any resource of this kind still uses the token.
func (r *Reconciler[O]) wanted(ctx context.Context, token connectclient.Secret) bool {
	for _, ref := range r.Tokens.RefsOf(token) {
		if len(r.requests(ctx, client.MatchingFields{indexSecret: ref.Name}, client.InNamespace(ref.Namespace), client.Limit(1))) > 0 {
			return true
		}
	}
	return false
}

func (r *Reconciler[O]) usersOfSecret(ctx context.Context, secret client.Object) []reconcile.Request {
	return r.requests(ctx, client.MatchingFields{indexSecret: secret.GetName()}, client.InNamespace(secret.GetNamespace()))
}

// wakeRivals tells the others that the owner of their remote object is gone.
func (r *Reconciler[O]) wakeRivals(ctx context.Context, e event.DeleteEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
	gone, ok := e.Object.(O)
	if !ok {
		return
	}
	for _, claim := range r.claims(gone) {
		for _, req := range r.requests(ctx, client.MatchingFields{indexClaim: claim}) {
			queue.Add(req)
		}
	}
}

func (r *Reconciler[O]) requests(ctx context.Context, opts ...client.ListOption) []reconcile.Request {
	found, err := r.list(ctx, opts...)
	if err != nil {
		log.FromContext(ctx).Error(err, "list from the cache", "kind", r.gvk.Kind)
	}
	requests := make([]reconcile.Request, len(found))
	for i, obj := range found {
		requests[i].NamespacedName = client.ObjectKeyFromObject(obj)
	}
	return requests
}

// list reads resources of this kind from the cache. They are the cache's own:
// nobody may change them.
func (r *Reconciler[O]) list(ctx context.Context, opts ...client.ListOption) ([]O, error) {
	list := r.kind.NewList()
	if err := r.Client.List(ctx, list, append(opts, client.UnsafeDisableDeepCopy)...); err != nil {
		return nil, err
	}
	found := make([]O, 0, meta.LenList(list))
	err := meta.EachListItem(list, func(item runtime.Object) error {
		if obj, ok := item.(O); ok {
			found = append(found, obj)
		}
		return nil
	})
	return found, err
}
