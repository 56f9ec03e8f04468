// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/accesstoken"
	"rpi-connect.dev/operator/internal/reflector"
)

// Cache indexes that the loop looks resources up by.
const (
	indexSecret = "rpi-connect.dev/secret" //nolint:gosec // the name of an index
	indexClaim  = "rpi-connect.dev/claim"
)

// errorBackoff is the longest time between two attempts after an error that nobody knows, such as
// an API server that does not answer: when it is back, everything goes on within seconds.
const errorBackoff = 5 * time.Second

// SetupWithManager starts the loop for one kind: its resources, their Secrets and the organisation
// wake it, and nothing else does.
func SetupWithManager[O Object](mgr ctrl.Manager, env Environment, kind Kind[O]) error {
	r := newReconciler(env, kind)
	var err error
	if r.gvk, err = apiutil.GVKForObject(kind.New(), mgr.GetScheme()); err != nil {
		return err
	}
	if err := r.index(context.Background(), mgr.GetFieldIndexer()); err != nil {
		return fmt.Errorf("index %s: %w", r.gvk.Kind, err)
	}
	r.subscribe()
	if err := mgr.Add(manager.RunnableFunc(kind.Source.Start)); err != nil {
		return err
	}
	b := ctrl.NewControllerManagedBy(mgr).
		For(kind.New(), builder.WithPredicates(r.predicates())).
		Watches(kind.New(), handler.Funcs{DeleteFunc: r.enqueueContenders}).
		WatchesMetadata(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.usersOfSecret),
			builder.WithPredicates(predicate.ResourceVersionChangedPredicate{})).
		WatchesRawSource(source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
			r.queue = queue
			return nil
		})).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: env.MaxConcurrentReconciles,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](backoffMin, errorBackoff),
		})
	if kind.Watch != nil {
		kind.Watch(b)
	}
	if err := b.Complete(r); err != nil {
		return fmt.Errorf("set up the %s controller: %w", r.gvk.Kind, err)
	}
	return nil
}

// subscribe has the loop told of everything outside of the cluster that concerns its resources.
func (r *Reconciler[O]) subscribe() {
	r.kind.Source.Subscribe(reflector.Subscription{Name: r.gvk.Kind, Notify: r.enqueue, Wanted: r.wanted})
	r.Claims.wake = r.trigger
	r.Tokens.OnTouched(r.reconsider)
	r.Tokens.UsedBy(r.uses)
	r.Tokens.OnRetired(r.kind.Source.Retire)
	r.Health.OnChange(r.enqueueUsers)
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

// secrets names the Secrets whose change concerns the resource.
func (r *Reconciler[O]) secrets(obj O) []string {
	names := []string{obj.GetCommonSpec().AccessTokenSecretRef.Name}
	if r.kind.Secrets != nil {
		names = append(names, r.kind.Secrets(obj)...)
	}
	return names
}

// predicates keep the loop from being woken by its own writes: of an update only the spec, the
// deletion and the annotations that a user sets matter, and that somebody takes off what the
// operator has put on the resource.
func (r *Reconciler[O]) predicates() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		was, isObject := e.ObjectOld.(O)
		is, isObjectToo := e.ObjectNew.(O)
		if !isObject || !isObjectToo {
			return false
		}
		return subject(was) != subject(is) || imported(was) != imported(is) || disowned(was, is) || stripped(was, is) || r.sentTakenOff(is)
	}}
}

// stripped tells whether an update took something off the resource that the operator had put there.
func stripped(was, is Object) bool {
	record := recordOf(is)
	before, after := was.GetAnnotations(), is.GetAnnotations()
	lostFinalizer := len(finalizersOf(was)) > len(finalizersOf(is)) && is.GetDeletionTimestamp().IsZero()
	lostRecord := record.Own() && !record.Restored && before[v1alpha1.AnnotationID] == record.ID &&
		(after[v1alpha1.AnnotationID] != record.ID || after[v1alpha1.AnnotationOrigin] != before[v1alpha1.AnnotationOrigin])
	lostStatus := meta.FindStatusCondition(was.GetCommonStatus().Conditions, v1alpha1.ConditionReady) != nil &&
		meta.FindStatusCondition(is.GetCommonStatus().Conditions, v1alpha1.ConditionReady) == nil
	return lostFinalizer || lostRecord || lostStatus
}

// sentTakenOff tells whether somebody took off the resource which requests may have been carried out.
func (r *Reconciler[O]) sentTakenOff(is Object) bool {
	noted, _ := r.memory.sentBy(is.GetUID())
	now := r.Clock.Now()
	return noted.mattering(now).takenOff(sentOf(is).mattering(now))
}

// disowned tells whether a user has taken the record off a resource that has it from a backup only:
// what it says was told to be wrong, or gone.
func disowned(was, is Object) bool { return recordOf(was).Restored && recordOf(is).ID == "" }

// imported is the id that a user has written to a resource that has nothing on record.
func imported(obj Object) string {
	if record := recordOf(obj); record.Origin == Imported {
		return record.ID
	}
	return ""
}

// enqueue passes on whom a listing concerns. It runs on the listing's goroutine, which has no one
// to report an error to: the cache it reads does not fail.
func (r *Reconciler[O]) enqueue(n reflector.Notification) {
	ctx := context.Background()
	for _, waiter := range n.Waiters {
		r.trigger(waiter)
	}
	if n.Everyone {
		r.enqueueUsers(n.Token)
	}
	for _, id := range n.IDs {
		r.enqueueClaimants(ctx, claimID(id), n.Token)
	}
	for _, key := range n.Keys {
		r.enqueueClaimants(ctx, claimKey(key), n.Token)
	}
}

// trigger has one resource looked at.
func (r *Reconciler[O]) trigger(resource types.NamespacedName) {
	if r.queue != nil {
		r.queue.Add(reconcile.Request{NamespacedName: resource})
	}
}

// enqueueUsers has everything looked at that uses the token.
func (r *Reconciler[O]) enqueueUsers(token connectclient.Secret) {
	for _, ref := range r.Tokens.RefsOf(token) {
		for _, req := range r.requests(context.Background(), client.MatchingFields{indexSecret: ref.Name}, client.InNamespace(ref.Namespace)) {
			r.trigger(req.NamespacedName)
		}
	}
}

// enqueueClaimants has everything looked at that has the claim in the token's organisation.
func (r *Reconciler[O]) enqueueClaimants(ctx context.Context, claim string, token connectclient.Secret) {
	for _, req := range r.claimants(ctx, claim, token) {
		r.trigger(req.NamespacedName)
	}
}

// claimants are the resources that have a claim, as far as they are where the token is used: many
// organisations can have objects of one name, and what happens in one is nothing to the others.
func (r *Reconciler[O]) claimants(ctx context.Context, claim string, token connectclient.Secret) []reconcile.Request {
	namespaces := sets.New[string]()
	for _, ref := range r.Tokens.RefsOf(token) {
		namespaces.Insert(ref.Namespace)
	}
	var claimants []reconcile.Request
	for _, namespace := range sets.List(namespaces) {
		claimants = append(claimants, r.requests(ctx, client.MatchingFields{indexClaim: claim}, client.InNamespace(namespace))...)
	}
	return claimants
}

// reconsider lets a token be tried again that was refused.
func (r *Reconciler[O]) reconsider(token connectclient.Secret) {
	r.API.ClientFor(token).Budget().Reconsider()
	r.kind.Source.Retry(token)
}

// wanted tells whether any resource of this kind still uses the token, which nobody has withdrawn.
func (r *Reconciler[O]) wanted(ctx context.Context, token connectclient.Secret) bool {
	if r.Tokens.Withdrawn(token) {
		return false
	}
	for _, ref := range r.Tokens.RefsOf(token) {
		if r.uses(ctx, ref) {
			return true
		}
	}
	return false
}

// uses tells whether any resource of this kind names the place of a token.
func (r *Reconciler[O]) uses(ctx context.Context, ref accesstoken.Ref) bool {
	found, err := r.list(ctx, client.MatchingFields{indexSecret: ref.Name}, client.InNamespace(ref.Namespace))
	if err != nil {
		return true // it cannot be told, so nothing is given up
	}
	for _, obj := range found {
		if tokenRef(obj) == ref {
			return true
		}
	}
	return false
}

func (r *Reconciler[O]) usersOfSecret(ctx context.Context, secret client.Object) []reconcile.Request {
	return r.requests(ctx, client.MatchingFields{indexSecret: secret.GetName()}, client.InNamespace(secret.GetNamespace()))
}

// enqueueContenders tells the others that the owner of their remote object is gone. Where its token is
// not known, they may be anywhere.
func (r *Reconciler[O]) enqueueContenders(ctx context.Context, e event.DeleteEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
	gone, ok := e.Object.(O)
	if !ok {
		return
	}
	r.Claims.ReleaseAll(gone.GetUID())
	token, known := r.Tokens.LastGood(tokenRef(gone))
	for _, claim := range r.claims(gone) {
		contenders := r.claimants(ctx, claim, token)
		if !known {
			contenders = r.requests(ctx, client.MatchingFields{indexClaim: claim})
		}
		for _, req := range contenders {
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

// list reads resources of this kind from the cache. They are the cache's own: nobody may change
// them.
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
