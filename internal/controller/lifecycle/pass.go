// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/accesstoken"
	"rpi-connect.dev/operator/internal/reflector"
)

// pass is one run of the story for one resource.
type pass[O Object] struct {
	*Reconciler[O]
	req    reconcile.Request
	obj    O       // the resource, with the status as it becomes during the pass
	stored O       // the resource as the API server has it
	intent *Intent // found at the start: an earlier pass may have sent a POST
	events []Event
}

func (r *Reconciler[O]) begin(req reconcile.Request, obj O) *pass[O] {
	p := &pass[O]{Reconciler: r, req: req, obj: obj, intent: intentOf(obj)}
	p.stored, _ = obj.DeepCopyObject().(O)
	if value := p.requested(); value != "" {
		r.demands.onRequest(req.NamespacedName, value, r.Clock.Now())
	}
	return p
}

// connect opens the resource's organisation.
func (p *pass[O]) connect(ctx context.Context) (Remote, error) {
	token, err := p.Tokens.Token(ctx, tokenRef(p.obj))
	if err != nil {
		return nil, err
	}
	return p.open(token), nil
}

func (p *pass[O]) open(token connectclient.Secret) Remote {
	notBefore := p.demands.of(p.req.NamespacedName)
	if p.intent != nil && p.intent.At.After(notBefore) {
		notBefore = p.intent.At
	}
	return p.kind.Connect(p.obj, &Connection{
		Resource:  p.req.NamespacedName,
		Waiter:    reflector.Waiter{Subscriber: p.gvk.Kind, Resource: p.req.NamespacedName},
		Token:     token,
		Client:    p.API.Organisation(token),
		NotBefore: notBefore,
		ID:        recordedID(p.obj),
		Intent:    p.intent,
		Claimed:   p.claimed,
		Event:     p.announce,
	})
}

// announce keeps an event until the status that it belongs to is written.
func (p *pass[O]) announce(e Event) { p.events = append(p.events, e) }

func (p *pass[O]) suspended() bool {
	return p.obj.GetAnnotations()[v1alpha1.AnnotationSuspend] == "true"
}

func (p *pass[O]) deleting() bool { return !p.obj.GetDeletionTimestamp().IsZero() }

// doing is the reason that says what the pass is about.
func (p *pass[O]) doing() string {
	switch {
	case p.deleting():
		return v1alpha1.ReasonDeleting
	case recordedID(p.obj) == "":
		return v1alpha1.ReasonCreating
	default:
		return v1alpha1.ReasonUpdating
	}
}

// requested returns the user's request to look at the remote side now, if it has
// not been answered yet.
func (p *pass[O]) requested() string {
	value := p.obj.GetAnnotations()[v1alpha1.AnnotationReconcileRequestedAt]
	if value == p.obj.GetCommonStatus().LastHandledReconcileAt {
		return ""
	}
	return value
}

// done tells whether the resource has come to its end.
func (p *pass[O]) done() (Verdict, bool) {
	if p.kind.Done == nil {
		return Verdict{}, false
	}
	return p.kind.Done(p.obj)
}

func tokenRef(obj Object) accesstoken.Ref {
	ref := obj.GetCommonSpec().AccessTokenSecretRef
	return accesstoken.Ref{Namespace: obj.GetNamespace(), Name: ref.Name, Key: ref.Key}
}

// recordedID is the remote id that is noted on the resource: in the annotation,
// which survives a backup and is where a user puts one to import by id, or in
// the status.
func recordedID(obj Object) string {
	if id := obj.GetAnnotations()[v1alpha1.AnnotationID]; id != "" {
		return id
	}
	return obj.GetCommonStatus().ID
}
