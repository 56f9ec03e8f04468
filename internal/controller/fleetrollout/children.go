// SPDX-License-Identifier: Apache-2.0

package fleetrollout

import (
	"context"
	"encoding/json"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// unseen is how long a Deployment that was made may not be in the cache, until the API server is
// asked whether it is there.
const unseen = 10 * time.Second

// children returns the Deployments of the rollout: those of the cache, and those that were made and
// are not in it yet. It says so if the cache is too far behind to decide by.
func (p *pass) children(ctx context.Context) (found []*child, behind bool, err error) {
	var list v1alpha1.DeploymentList
	if err := p.Client.List(ctx, &list, p.ours()...); err != nil {
		return nil, false, err
	}
	own := p.ledger.entries(client.ObjectKeyFromObject(p.obj))
	if !own.compared {
		if own.compared, err = p.caughtUp(ctx, list.Items); err != nil || !own.compared {
			return nil, !own.compared, err
		}
	}
	now, deadlines := p.Clock.Now(), deadlinesOf(&p.obj.Spec)
	add := func(obj *v1alpha1.Deployment) {
		if c, ok := readChild(obj, deadlines, p.neighbours(ctx), now); ok {
			found = append(found, c)
		}
	}
	for i := range list.Items {
		obj := &list.Items[i]
		delete(own.created, obj.Name)
		switch owner := metav1.GetControllerOf(obj); {
		case owner == nil:
			behind = true
			if err := p.adopt(ctx, obj); err != nil {
				return nil, false, err
			}
		case owner.UID == p.obj.UID:
			add(obj)
		default: // of a rollout of the same name that is gone: it goes, too
		}
	}
	for name, c := range own.created {
		if now.Sub(c.at) > unseen {
			if gone, err := p.gone(ctx, c.obj); err != nil || gone {
				delete(own.created, name)
				return nil, true, err
			}
		}
		add(c.obj)
	}
	return found, behind, nil
}

// ours selects the Deployments of the rollout. They are the cache's own: nobody may change them.
func (p *pass) ours() []client.ListOption {
	return []client.ListOption{
		client.InNamespace(p.obj.Namespace), client.MatchingLabels{v1alpha1.LabelRollout: p.obj.Name}, client.UnsafeDisableDeepCopy,
	}
}

// caughtUp tells whether the cache has the rollout and its Deployments as the API server has them. A
// cache is filled from a server that may itself be behind what the process before has written.
func (p *pass) caughtUp(ctx context.Context, cached []v1alpha1.Deployment) (bool, error) {
	live := &v1alpha1.FleetRollout{}
	if err := p.Live.Get(ctx, client.ObjectKeyFromObject(p.obj), live); err != nil {
		return false, err
	}
	if live.UID != p.obj.UID || live.ResourceVersion != p.obj.ResourceVersion {
		return false, nil
	}
	known := make(map[types.UID]bool, len(cached))
	for i := range cached {
		known[cached[i].UID] = true
	}
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("DeploymentList"))
	if err := p.Live.List(ctx, list, client.InNamespace(p.obj.Namespace), client.MatchingLabels{v1alpha1.LabelRollout: p.obj.Name}); err != nil {
		return false, err
	}
	for i := range list.Items {
		if !known[list.Items[i].UID] {
			return false, nil
		}
	}
	return true, nil
}

// gone tells whether a Deployment that was made is not there any more.
func (p *pass) gone(ctx context.Context, obj *v1alpha1.Deployment) (bool, error) {
	live := &v1alpha1.Deployment{}
	err := p.Live.Get(ctx, client.ObjectKeyFromObject(obj), live)
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	return err == nil && live.UID != obj.UID, err
}

// adopt takes over a Deployment that a rollout of the same name has left: it was deleted with
// --cascade=orphan.
func (p *pass) adopt(ctx context.Context, obj *v1alpha1.Deployment) error {
	owner := metav1.NewControllerRef(p.obj, v1alpha1.GroupVersion.WithKind("FleetRollout"))
	return p.patch(ctx, obj, map[string]any{"metadata": map[string]any{"uid": obj.UID, "ownerReferences": []metav1.OwnerReference{*owner}}})
}

// neighbours finds other Deployments to the device of a child.
func (p *pass) neighbours(ctx context.Context) neighbour {
	return func(c *v1alpha1.Deployment, sameArtefact bool) *v1alpha1.Deployment {
		var list v1alpha1.DeploymentList
		if err := p.Client.List(ctx, &list, client.MatchingFields{indexDevice: c.Spec.Device.ID}, client.UnsafeDisableDeepCopy); err != nil {
			return nil // the cache does not fail; then it is somebody
		}
		var best *v1alpha1.Deployment
		for i := range list.Items {
			other := &list.Items[i]
			switch {
			case other.UID == c.UID || metav1.IsControlledBy(other, p.obj) || !other.DeletionTimestamp.IsZero():
			case sameArtefact && (other.Status.ID == "" || other.Status.ArtefactID != c.Status.ArtefactID):
			case best == nil || best.CreationTimestamp.Before(&other.CreationTimestamp):
				best = other
			}
		}
		return best
	}
}

// carryOut does what the plan for the children says. What has been done when it fails is seen by the
// next pass. It says so if the plan rests on a cache that is behind.
func (p *pass) carryOut(ctx context.Context, children []*child, made plan) (behind bool, err error) {
	for _, c := range made.withdraw {
		if err := p.withdraw(ctx, c.obj); err != nil {
			return false, err
		}
	}
	for _, c := range made.hold {
		switch err := p.hold(ctx, c.obj); {
		case apierrors.IsConflict(err):
			return true, nil // it may have begun: nothing takes its place
		case err != nil:
			return false, err
		}
	}
	for _, c := range made.remove {
		trace(ctx, "Removing a Deployment", c.obj)
		err := p.Client.Delete(ctx, c.obj, client.Preconditions{UID: new(c.obj.UID)})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return false, err
		}
	}
	if err := p.syncDeletionPolicy(ctx, children); err != nil {
		return false, err
	}
	for _, o := range made.create {
		switch err := p.create(ctx, o); {
		case apierrors.IsAlreadyExists(err):
			behind = true
		case err != nil:
			return false, err
		}
	}
	return behind, nil
}

// withdraw has a Deployment cancelled, and notes on it that it was the rollout that did so.
func (p *pass) withdraw(ctx context.Context, obj *v1alpha1.Deployment) error {
	trace(ctx, "Withdrawing a Deployment", obj)
	return client.IgnoreNotFound(p.patch(ctx, obj, map[string]any{
		"metadata": map[string]any{"uid": obj.UID, "annotations": map[string]any{v1alpha1.AnnotationWithdrawn: "true"}},
		"spec":     map[string]any{"cancel": true},
	}))
}

// hold keeps a Deployment from beginning, unless it has done anything since it was read.
func (p *pass) hold(ctx context.Context, obj *v1alpha1.Deployment) error {
	trace(ctx, "Holding a Deployment back", obj)
	return client.IgnoreNotFound(p.patch(ctx, obj, map[string]any{
		"metadata": map[string]any{"uid": obj.UID, "resourceVersion": obj.ResourceVersion, "annotations": map[string]any{v1alpha1.AnnotationWithdrawn: "true"}},
	}))
}

// syncDeletionPolicy has what is unfinished left in place, or not, when the rollout goes, as its spec
// says by now. Whether a generation was observed does not matter: a pass that came to nothing may have.
func (p *pass) syncDeletionPolicy(ctx context.Context, children []*child) error {
	policy := childDeletionPolicy(p.obj)
	for _, c := range children {
		if c.obj.Status.Outcome != "" || c.obj.Spec.DeletionPolicy == policy {
			continue
		}
		var value any
		if policy != "" {
			value = policy
		}
		if err := client.IgnoreNotFound(p.patch(ctx, c.obj, map[string]any{
			"metadata": map[string]any{"uid": c.obj.UID}, "spec": map[string]any{"deletionPolicy": value},
		})); err != nil {
			return err
		}
	}
	return nil
}

func (p *pass) patch(ctx context.Context, obj *v1alpha1.Deployment, change map[string]any) error {
	text, err := json.Marshal(change)
	if err != nil {
		return err
	}
	return p.Client.Patch(ctx, obj.DeepCopy(), client.RawPatch(types.MergePatchType, text))
}

// create makes a Deployment. One of that name that is there already was made by this rollout, and
// the cache does not show it yet; or by one of the same name before, and is about to go.
func (p *pass) create(ctx context.Context, o order) error {
	obj := o.deployment(p.obj, deadlinesOf(&p.obj.Spec))
	trace(ctx, "Making a Deployment", obj)
	if err := p.Client.Create(ctx, obj); err != nil {
		return err
	}
	p.ledger.entries(client.ObjectKeyFromObject(p.obj)).created[obj.Name] = created{obj: obj, at: p.Clock.Now()}
	return nil
}

// trace logs what a rollout does to one of its Deployments, so that a reader of the log finds the one from
// the other.
func trace(ctx context.Context, does string, obj *v1alpha1.Deployment) {
	log.FromContext(ctx).V(1).Info(does, "child", obj.Name, "batch", obj.Labels[v1alpha1.LabelBatch], "deviceID", obj.Spec.Device.ID)
}
