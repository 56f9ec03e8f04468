// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/accesstoken"
)

// pass is one run of the story for one resource.
type pass[O Object] struct {
	*Reconciler[O]
	req    reconcile.Request
	obj    O   // the resource, with the status as it becomes during the pass
	stored O   // the resource as the API server has it
	held   O   // with what holds although the pass does not come to its end
	holds  int // how many of the events go with that
	known  *remembered

	record   Record
	sent     sent    // found at the start: these requests may have been carried out
	sentLost bool    // somebody has taken them off the resource
	sending  *Intent // of this pass
	unlooked bool    // the budget let nobody look at the organisation
	token    connectclient.Secret
	remote   Remote
	events   []Event
}

func (r *Reconciler[O]) begin(req reconcile.Request, obj O, known *remembered) *pass[O] {
	p := &pass[O]{Reconciler: r, req: req, obj: obj, known: known, record: recordOf(obj), sent: sentOf(obj)}
	p.stored, _ = obj.DeepCopyObject().(O)
	p.held = p.stored
	if p.deleting() && p.record.Origin == Imported {
		p.record = Record{} // it takes nothing over any more, but may have made something
	}
	p.recallSent()
	if known.paused {
		known.lookSince, known.paused = r.Clock.Now(), false
	}
	if value := p.requested(); value != "" {
		known.freshness.onRequest(value, r.Clock.Now())
	}
	return p
}

// recallSent brings back the requests that somebody has taken off the resource since this process has
// seen or written them, and drops those that are of no consequence any more. What was of consequence when
// the resource was deleted is looked for to the end.
func (p *pass[O]) recallSent() {
	now := p.Clock.Now()
	if deleted := p.obj.GetDeletionTimestamp(); deleted != nil && deleted.Time.Before(now) {
		now = deleted.Time
	}
	if p.sent.intent != nil && p.sent.intent.At.Equal(p.known.unsent) {
		p.sent.intent = nil // the note was written although its answer was lost
	}
	p.sent = p.sent.mattering(now)
	noted, known := p.memory.sentBy(p.obj.GetUID())
	if !known {
		p.memory.noteSent(p.obj.GetUID(), p.sent)
		return
	}
	noted = noted.mattering(now)
	p.sentLost = noted.takenOff(p.sent)
	if p.sent.intent == nil {
		p.sent.intent = noted.intent
	}
	if len(p.sent.unanswered) == 0 {
		p.sent.unanswered = noted.unanswered
	}
}

// connect opens the resource's organisation. A token that is known to be refused is not tried
// again before it is time, and nobody goes by what was seen with it.
func (p *pass[O]) connect(ctx context.Context) (Remote, error) {
	token, err := p.Tokens.Token(ctx, tokenRef(p.obj))
	if err != nil {
		return nil, err
	}
	return p.open(token)
}

func (p *pass[O]) open(token connectclient.Secret) (Remote, error) {
	p.token = token
	api := p.API.ClientFor(token)
	if p.obj.GetCommonStatus().AccessTokenHash == token.Fingerprint() {
		api.Budget().Vouch()
	}
	if state := api.Budget().State(); state.Unauthorized && p.Clock.Now().Before(state.NextProbe) {
		return nil, connectclient.ErrUnauthorized
	}
	p.remote = p.kind.Connect(p.obj, &Connection{
		Waiter:        p.waiter(p.req),
		Token:         token,
		Client:        api,
		NotBefore:     p.notBefore(),
		Requested:     p.requested() != "",
		Record:        p.record,
		Moved:         p.moved(),
		Sent:          p.sentHere(),
		SentElsewhere: p.sentElsewhere(),
		Settling:      p.unsettled(),
		Answered:      p.answered,
		WentHere:      p.wentHere,
		Owner:         p.owner,
		Claims:        p.Claims,
		Holder:        p.holder(),
		Event:         p.recordEvent,
	})
	return p.remote, nil
}

// release gives back what the remote object holds.
func (p *pass[O]) release() {
	releaser, ok := p.remote.(Releaser)
	if !ok {
		return
	}
	until := time.Time{}
	if s, _ := p.memory.sentBy(p.obj.GetUID()); s.intent != nil {
		until = s.intent.At.Add(p.SettleTime)
	}
	releaser.Release(until)
}

// longestDelay is how long the budget may keep a resource waiting until what was listed before does
// not count any more. No window of the budget is longer.
const longestDelay = time.Hour

// notBefore is how fresh the listings must be that the pass goes by.
func (p *pass[O]) notBefore() time.Time {
	notBefore := p.known.freshness.notBefore
	if p.record.ID == "" && p.kind.LooksFirst != nil && p.kind.LooksFirst(p.obj) {
		notBefore = latest(notBefore, p.known.lookSince, p.Clock.Now().Add(-longestDelay))
	}
	if p.sent.intent != nil && p.record.ID == "" {
		notBefore = latest(notBefore, p.sent.intent.At)
	}
	// What a request has made that is not there when the time to settle is over will not come. What
	// an earlier listing did not show may have come since.
	for _, intent := range p.sent.all() {
		if p.age(intent.At) >= p.SettleTime {
			notBefore = latest(notBefore, p.begun(intent.At).Add(p.SettleTime))
		}
	}
	return notBefore
}

func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }

// holder is the resource as other resources see it.
func (p *pass[O]) holder() Holder {
	return Holder{NamespacedName: p.req.NamespacedName, UID: p.obj.GetUID(), Age: p.obj.GetCreationTimestamp().Time, Created: p.record.Origin == Created || p.record.ID == ""}
}

// recordEvent keeps an event until the status that it belongs to is written.
func (p *pass[O]) recordEvent(e Event) { p.events = append(p.events, e) }

func suspended(obj Object) bool { return obj.GetAnnotations()[v1alpha1.AnnotationSuspend] == "true" }

func (p *pass[O]) suspended() bool { return suspended(p.obj) }

func (p *pass[O]) deleting() bool { return !p.obj.GetDeletionTimestamp().IsZero() }

// progressReason is the reason that says what the pass is about.
func (p *pass[O]) progressReason() string {
	switch {
	case p.deleting():
		return v1alpha1.ReasonDeleting
	case p.record.ID == "":
		return v1alpha1.ReasonCreating
	default:
		return v1alpha1.ReasonUpdating
	}
}

// requested returns the user's request to look at the remote side now, if it has not been answered
// yet.
func (p *pass[O]) requested() string {
	value := p.obj.GetAnnotations()[v1alpha1.AnnotationReconcileRequestedAt]
	if value == p.obj.GetCommonStatus().LastHandledReconcileAt {
		return ""
	}
	return value
}

// done tells whether the resource has come to its end.
func (p *pass[O]) done() (Outcome, bool) {
	if p.kind.Done == nil {
		return Outcome{}, false
	}
	return p.kind.Done(p.obj)
}

func (p *pass[O]) hasFinalizer() bool {
	return slices.Contains(p.obj.GetFinalizers(), v1alpha1.Finalizer)
}

func tokenRef(obj Object) accesstoken.Ref {
	ref := obj.GetCommonSpec().AccessTokenSecretRef
	return accesstoken.Ref{Namespace: obj.GetNamespace(), Name: ref.Name, Key: ref.Key}
}
