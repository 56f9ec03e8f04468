// SPDX-License-Identifier: Apache-2.0

// Package fleetrollout brings an artefact to every device that matches, by making Deployments.
//
// What to do next is decided by pure functions, one policy a file: plan.go lists them. The rest of
// the package only finds out what they are to decide by, and carries out what they have decided.
package fleetrollout

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/controller/devices"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/internal/metrics"
	"rpi-connect.dev/operator/internal/reflector"
)

// +kubebuilder:rbac:groups=rpi-connect.dev,resources=fleetrollouts,verbs=get;list;watch
// +kubebuilder:rbac:groups=rpi-connect.dev,resources=fleetrollouts/status,verbs=patch
// +kubebuilder:rbac:groups=rpi-connect.dev,resources=fleetrollouts/finalizers,verbs=update
// +kubebuilder:rbac:groups=rpi-connect.dev,resources=deployments,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=apps,resources=controllerrevisions,verbs=get;create

const (
	// coalesce is how long a rollout waits after a change of a Deployment for more of them: with a
	// thousand devices something changes all the time.
	coalesce = time.Second
	// statusInterval is the least time between two writes of the status that only count on.
	statusInterval = 5 * time.Second
)

// Cache indexes.
const (
	indexArtefact = "spec.artefactRef.name"
	indexDevice   = "rpi-connect.dev/delivered-device" // of Deployments
)

// Options are what all FleetRollouts share.
type Options struct {
	// Client reads from the cache and writes; Live reads past the cache.
	Client client.Client
	Live   client.Reader
	// Indexer adds indexes to the cache.
	Indexer client.FieldIndexer
	// Clock tells the time.
	Clock clock.PassiveClock
	// Devices finds devices in listings that are shared with other kinds.
	Devices *devices.Finder
}

// controller is what the FleetRollouts of all organisations share.
type controller struct {
	Options
	ledger *ledger
}

// Kind is what the loop knows of FleetRollouts. A rollout has no remote object: it observes, and
// makes Deployments, which have one each.
func Kind(options Options) (lifecycle.Kind[*v1alpha1.FleetRollout], error) {
	c := &controller{Options: options, ledger: newLedger()}
	err := options.Indexer.IndexField(context.Background(), &v1alpha1.Deployment{}, indexDevice, func(obj client.Object) []string {
		if d, ok := obj.(*v1alpha1.Deployment); ok && d.Status.DeviceID != "" {
			return []string{d.Status.DeviceID}
		}
		return nil
	})
	return lifecycle.Kind[*v1alpha1.FleetRollout]{
		New:     func() *v1alpha1.FleetRollout { return &v1alpha1.FleetRollout{} },
		NewList: func() client.ObjectList { return &v1alpha1.FleetRolloutList{} },
		Noun:    "rollout",
		Source:  source{options.Devices},
		Forget:  c.forget,
		Indexes: map[string]func(*v1alpha1.FleetRollout) []string{indexArtefact: func(r *v1alpha1.FleetRollout) []string {
			if r.Spec.ArtefactRef == nil {
				return nil
			}
			return []string{r.Spec.ArtefactRef.Name}
		}},
		Watch: c.watch,
		Connect: func(obj *v1alpha1.FleetRollout, conn *lifecycle.Connection) lifecycle.Remote {
			return &pass{controller: c, obj: obj, conn: conn}
		},
	}, err
}

// source wakes rollouts when their devices change. It is on demand: a rollout says which devices it
// wants to hear of, and may need no more than the listing of a query.
type source struct{ *devices.Finder }

// Subscribe implements [lifecycle.Source].
func (s source) Subscribe(subscription reflector.Subscription) {
	subscription.OnDemand = true
	s.Finder.Subscribe(subscription)
}

func (c *controller) forget(rollout types.NamespacedName) {
	c.ledger.forget(rollout)
	metrics.ForgetRollout(rollout.Namespace, rollout.Name)
}

// watch has a rollout looked at when one of its Deployments, its Artefact, or one of the annotations
// changes by which a person approves and resumes.
func (c *controller) watch(b *builder.Builder) {
	b.Watches(&v1alpha1.FleetRollout{}, &handler.EnqueueRequestForObject{}, builder.WithPredicates(predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		DeleteFunc: func(event.DeleteEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			was, is := e.ObjectOld.GetAnnotations(), e.ObjectNew.GetAnnotations()
			return was[v1alpha1.AnnotationApprove] != is[v1alpha1.AnnotationApprove] ||
				was[v1alpha1.AnnotationResumeRequestedAt] != is[v1alpha1.AnnotationResumeRequestedAt]
		},
	}))
	b.Watches(&v1alpha1.Artefact{}, handler.EnqueueRequestsFromMapFunc(c.usersOf))
	b.Watches(&v1alpha1.Deployment{}, handler.Funcs{
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			was, isDeployment := e.ObjectOld.(*v1alpha1.Deployment)
			is, isDeploymentToo := e.ObjectNew.(*v1alpha1.Deployment)
			if isDeployment && isDeploymentToo && !equality.Semantic.DeepEqual(was.Status, is.Status) {
				enqueueRollout(is, queue)
			}
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			enqueueRollout(e.Object, queue)
		},
	})
}

func enqueueRollout(child client.Object, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
	if name := child.GetLabels()[v1alpha1.LabelRollout]; name != "" {
		queue.AddAfter(reconcile.Request{NamespacedName: types.NamespacedName{Namespace: child.GetNamespace(), Name: name}}, coalesce)
	}
}

// usersOf returns the rollouts of an Artefact.
func (c *controller) usersOf(ctx context.Context, artefact client.Object) []reconcile.Request {
	var list v1alpha1.FleetRolloutList
	if err := c.Client.List(ctx, &list, client.InNamespace(artefact.GetNamespace()), client.MatchingFields{indexArtefact: artefact.GetName()}); err != nil {
		log.FromContext(ctx).Error(err, "list FleetRollouts from the cache")
	}
	requests := make([]reconcile.Request, len(list.Items))
	for i := range list.Items {
		requests[i].NamespacedName = client.ObjectKeyFromObject(&list.Items[i])
	}
	return requests
}

// pass is one look at a rollout.
type pass struct {
	*controller
	obj  *v1alpha1.FleetRollout
	conn *lifecycle.Connection
}

// Observe implements [lifecycle.Remote]: it makes a plan and carries it out. Remotely it changes
// nothing.
func (p *pass) Observe(ctx context.Context) (lifecycle.Observation, error) {
	if !p.obj.DeletionTimestamp.IsZero() {
		return lifecycle.NotKnown(lifecycle.NoChange(0)), nil // the Deployments go with it
	}
	group, err := p.Devices.FindAll(p.conn.Token, p.obj.Spec.Devices, p.conn.NotBefore, p.conn.Waiter)
	if err != nil {
		return lifecycle.Observation{}, lifecycle.FromListing(err)
	}
	children, behind, err := p.children(ctx)
	if err != nil || behind {
		return lifecycle.NotKnown(lifecycle.RequeueWithBackoff()), err
	}
	in := input{rollout: p.obj, devices: group.Devices, missing: group.Missing, children: children, now: p.Clock.Now()}
	if err := p.findArtefact(ctx, &in); err != nil {
		return lifecycle.Observation{}, err
	}
	if waits, err := p.restrict(ctx, &in); err != nil {
		return lifecycle.Observation{}, err
	} else if waits != nil {
		return lifecycle.NotKnown(*waits), nil
	}
	made := makePlan(in)
	if behind, err := p.carryOut(ctx, children, made); err != nil || behind {
		return lifecycle.NotKnown(lifecycle.RequeueWithBackoff()), err
	}
	return lifecycle.NotKnown(p.tell(made)), nil
}

// findArtefact finds out whether the artefact can be deployed, and what it is made for.
func (p *pass) findArtefact(ctx context.Context, in *input) error {
	ref := p.obj.Spec.ArtefactRef
	if ref == nil {
		return nil
	}
	var artefact v1alpha1.Artefact
	err := p.Client.Get(ctx, types.NamespacedName{Namespace: p.obj.Namespace, Name: ref.Name}, &artefact)
	switch {
	case apierrors.IsNotFound(err):
		in.unready = fmt.Sprintf("Waiting for the Artefact %q to be created.", ref.Name)
		return nil
	case err != nil:
		return err
	case !artefact.DeletionTimestamp.IsZero():
		in.unready = fmt.Sprintf("The Artefact %q is being deleted: waiting for it to be created anew.", ref.Name)
	case !meta.IsStatusConditionTrue(artefact.Status.Conditions, v1alpha1.ConditionReady) || artefact.Status.ID == "":
		in.unready = fmt.Sprintf("Waiting for the Artefact %q to be ready.", ref.Name)
	}
	in.compatible = artefact.Spec.CompatibleWith
	return nil
}

// tell takes the plan over into the status. What only counts on is not written each time.
func (p *pass) tell(made plan) lifecycle.Outcome {
	key := client.ObjectKeyFromObject(p.obj)
	metrics.ObserveRollout(key.Namespace, key.Name, string(made.status.Phase), counts(made.status.Devices))
	outcome := made.outcome
	if !made.nextLook.IsZero() {
		outcome.RequeueAfter, outcome.Scheduled = max(made.nextLook.Sub(p.Clock.Now()), soon), true // to the second
	}
	if len(made.events) == 0 && countsOn(&p.obj.Status, &made.status) {
		if wait := p.ledger.untilStatus(key, p.Clock.Now()); wait > 0 {
			later := lifecycle.NoChange(earlier(wait, outcome.RequeueAfter))
			later.Scheduled = true
			return later
		}
	}
	p.ledger.noteStatus(key, p.Clock.Now())
	common := p.obj.Status.CommonStatus
	p.obj.Status = made.status
	p.obj.Status.CommonStatus = common
	for _, e := range made.events {
		p.conn.Event(e)
	}
	return outcome
}

// countsOn tells whether two statuses differ in numbers only, which change all the time.
func countsOn(was, is *v1alpha1.FleetRolloutStatus) bool {
	if equality.Semantic.DeepEqual(was, is) {
		return false // nothing is written anyway
	}
	return was.Phase == is.Phase && was.Revision == is.Revision && was.Batch == is.Batch && was.PauseReason == is.PauseReason &&
		was.LastHandledResumeAt == is.LastHandledResumeAt && was.RollbackTo == is.RollbackTo &&
		is.Phase != v1alpha1.RolloutComplete && is.Phase != v1alpha1.RolloutRolledBack
}

func earlier(a, b time.Duration) time.Duration {
	if b > 0 && b < a {
		return b
	}
	return a
}

func counts(d v1alpha1.FleetDeviceCounts) map[string]int32 {
	return map[string]int32{
		"waiting": d.Waiting, "pending": d.Pending, "in_progress": d.InProgress, "deferred": d.Deferred, "succeeded": d.Succeeded,
		"failed": d.Failed, "overridden": d.Overridden, "incompatible": d.Incompatible,
	}
}
