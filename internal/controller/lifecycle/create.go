// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
)

// create makes the remote object, exactly once.
//
// The API has no idempotency key, so the intent is on the API server before the POST leaves, in the
// same write as the finalizer, and the id follows at once. Whoever finds an intent without an id
// looks at the organisation before doing anything (see [Connection.NotBefore]), and gives what the
// POST has made the time to appear.
func (p *pass[O]) create(ctx context.Context, remote Remote, seen Observation) (Observation, error) {
	creator, creates := remote.(Creator)
	switch {
	case !seen.Outcome.IsZero(), !creates:
		return seen, nil
	case p.record.Origin == Imported:
		return NotKnown(Stalled(v1alpha1.ReasonNotFound,
			"There is no %s with the id %q to take over: correct the annotation %s, or remove it to have a new one made.",
			p.kind.Noun, p.record.ID, v1alpha1.AnnotationID)), nil
	}
	if outcome, settling := p.settling(seen); settling {
		return NotKnown(outcome), nil
	}
	ready, err := creator.Prepare(ctx)
	if err != nil {
		return Observation{}, err
	}
	if ready.Missing != nil {
		return NotKnown(*ready.Missing), nil
	}
	reserved, release, err := p.reserve(ctx)
	if err != nil {
		return Observation{}, err
	}
	defer release()
	if err := p.recordIntent(ctx, ready); err != nil {
		return Observation{}, err
	}
	made, err := creator.Create(reserved)
	if err != nil {
		return p.notCreated(ctx, err)
	}
	if !made.exists() {
		return NotKnown(made.Outcome), p.withdrawIntent(ctx)
	}
	// The remote object exists: neither a shutdown nor a newer version of the resource may keep its
	// id from being stored.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if err := p.recordCreated(ctx, remote, made); err != nil {
		return Observation{}, err
	}
	if holder, taken := p.Claims.Take(objectClaim(p.gvk.Kind, made.ID), p.holder(), true); taken {
		// An older resource that looks for the same natural key has found it before it was on record here.
		made.Outcome, made.Outdated = p.claimedBy(holder.Namespace, holder.Name, holder.UID), false
	}
	return made, nil
}

// settling tells whether what an earlier POST has made may still appear, and says when to look
// again. The API keeps a kind with a natural key from being created twice; all others wait.
func (p *pass[O]) settling(seen Observation) (Outcome, bool) {
	if seen.Settled || !p.unsettled() {
		return Outcome{}, false
	}
	return p.awaitEffect(p.sent.all()[0].At)
}

// unsettled tells whether what an earlier POST has made may still appear, and would be made twice by
// another one.
func (p *pass[O]) unsettled() bool {
	sent := p.sent.all()
	return len(sent) > 0 && p.kind.NaturalKey == nil && p.age(sent[0].At) < p.SettleTime
}

// age is how long ago something was, by whichever clock.
func (p *pass[O]) age(at time.Time) time.Duration { return p.Clock.Now().Sub(p.begun(at)) }

// begun is when something was, by whichever clock. What another machine's clock has in the future
// was not before this process saw it.
func (p *pass[O]) begun(at time.Time) time.Time {
	if at.After(p.Clock.Now()) {
		return p.known.firstSeen
	}
	return at
}

// awaitEffect waits for what a POST has made that was sent at the given time, with looks in between
// that come ever less often.
func (p *pass[O]) awaitEffect(sent time.Time) (Outcome, bool) {
	waited := p.age(sent)
	if waited >= p.SettleTime {
		return Outcome{}, false
	}
	p.known.freshness.require(p.Clock.Now())
	outcome := Outcome{}
	if waited >= unnoticed {
		outcome = Waiting(p.progressReason(), "The answer to a request was lost: waiting until it is certain whether it was carried out.")
	}
	// Twice as long as it has taken so far, and once more at the end.
	outcome.RequeueAfter = min(max(waited, time.Second), max(p.SettleTime-waited, 10*time.Millisecond))
	return outcome, true
}

// reserve takes the permission to send the POST before anything is written about it. An API that is
// down is looked at before it is sent anything new.
func (p *pass[O]) reserve(ctx context.Context) (context.Context, func(), error) {
	reserved, release, err := p.API.ClientFor(p.token).Reserve(ctx, "create "+p.kind.Noun)
	if errors.Is(err, connectclient.ErrUnavailable) {
		p.known.freshness.require(p.Clock.Now())
	}
	return reserved, release, err
}

// recordIntent puts the intent and the finalizer on the resource, and makes sure that the resource
// was current: the write names the version that was read. What an earlier request was about, and
// whose answer was lost, is kept for as long as it may matter.
func (p *pass[O]) recordIntent(ctx context.Context, ready Preparation) error {
	intent := Intent{At: p.Clock.Now(), UID: p.obj.GetUID(), TokenHash: p.token.Fingerprint(), Note: ready.Note, Unlooked: p.unlooked}
	if ready.Matters > 0 {
		intent.Until = intent.At.Add(ready.Matters)
	}
	p.sending = &intent
	err := p.noteSent(ctx, exactVersion, addFinalizer, sent{&intent, p.unanswered()}, nil)
	if err != nil {
		p.known.unsent = intent.At
	}
	return err
}

// unanswered are the requests found at the start as far as they matter beside a later one. Those of a
// kind with a natural key are refused while there is an object that has it; but it may be removed before
// they have been carried out.
func (p *pass[O]) unanswered() []Intent {
	remain := sent{unanswered: slices.Clone(p.sent.all())}
	if p.kind.NaturalKey != nil {
		for i := range remain.unanswered {
			remain.unanswered[i].Until = p.begun(remain.unanswered[i].At).Add(p.SettleTime)
		}
		remain = remain.mattering(p.Clock.Now())
	}
	return remain.unanswered[:min(len(remain.unanswered), maxUnanswered)]
}

// noteSent writes to the resource which requests may have been carried out, and other annotations
// with it. It is remembered before: whoever sees the write must not take for stripped what is over.
func (p *pass[O]) noteSent(ctx context.Context, exact bool, finalizer finalizerChange, s sent, others map[string]any) error {
	annotations := s.annotations()
	maps.Copy(annotations, others)
	before, _ := p.memory.sentBy(p.obj.GetUID())
	p.memory.noteSent(p.obj.GetUID(), s)
	err := p.patchMetadata(ctx, exact, finalizer, annotations)
	if err != nil {
		p.memory.noteSent(p.obj.GetUID(), before)
	}
	return err
}

// notCreated sees to it that nothing is forgotten and nothing wrong is remembered after a POST that
// brought no object.
func (p *pass[O]) notCreated(ctx context.Context, err error) (Observation, error) {
	now := p.Clock.Now()
	if errors.Is(err, connectclient.ErrOutcomeUnknown) {
		p.known.freshness.require(now)
		if p.kind.NaturalKey != nil {
			return Observation{}, err
		}
		if outcome, settling := p.awaitEffect(p.sending.At); settling {
			outcome.Cause = err
			return NotKnown(outcome), nil
		}
		return Observation{}, err
	}
	// Nothing was made, and nothing that turns up later stems from this request. It may stem from
	// an earlier one.
	if undo := p.withdrawIntent(ctx); undo != nil {
		return Observation{}, errors.Join(err, undo)
	}
	if !errors.Is(err, connectclient.ErrInvalid) || p.kind.NaturalKey == nil {
		return Observation{}, err
	}
	if !p.known.freshness.onRefusal(now) {
		// Somebody may have made the same object since the last listing, or the request before has
		// been carried out after all; the API does not say so in a way one could rely on. Look
		// before the user is told that the spec is wrong.
		return NotKnown(RequeueWithBackoff()), nil
	}
	return Observation{}, err
}

// answered notes that what a request has made was found. Until the time to settle is over something
// that repeats requests may have had it carried out once more.
func (p *pass[O]) answered(ctx context.Context, request Intent) error {
	until := request.At.Add(p.SettleTime)
	return p.amend(ctx, request, func(i *Intent) bool {
		sooner := i.Until.IsZero() || i.Until.After(until)
		if sooner {
			i.Until = until
		}
		return sooner
	})
}

// wentHere notes that a request that was sent with another access token went to the organisation that
// this one opens. What proves it may be gone the next time.
func (p *pass[O]) wentHere(ctx context.Context, request Intent) error {
	return p.amend(ctx, request, func(i *Intent) bool {
		i.TokenHash = p.token.Fingerprint()
		return true
	})
}

// amend changes what is noted of a request whose answer was lost.
func (p *pass[O]) amend(ctx context.Context, request Intent, change func(*Intent) bool) error {
	amended, changed := sent{unanswered: slices.Clone(p.sent.unanswered)}, false
	if p.sent.intent != nil {
		amended.intent = new(*p.sent.intent)
		changed = amended.intent.At.Equal(request.At) && change(amended.intent)
	}
	for i := range amended.unanswered {
		changed = amended.unanswered[i].At.Equal(request.At) && change(&amended.unanswered[i]) || changed
	}
	if !changed {
		return nil
	}
	p.sent = amended
	return p.noteSent(ctx, anyVersion, leaveFinalizer, amended, nil)
}

// withdrawIntent takes the intent off the resource after a request that was not carried out, or
// puts back the one that was there before. One that stayed would have what somebody else makes taken
// for what the request has made.
func (p *pass[O]) withdrawIntent(ctx context.Context) error {
	_, err := p.persist(ctx, func(ctx context.Context) error {
		return p.noteSent(ctx, anyVersion, leaveFinalizer, p.sent, nil)
	})
	return err
}

// recordCreated stores the id of the remote object that was made just now, and takes the intent
// off. If the resource has gone meanwhile, the object goes too.
func (p *pass[O]) recordCreated(ctx context.Context, remote Remote, made Observation) error {
	annotations := p.annotations(made.ID, Created)
	remain := sent{unanswered: p.unanswered()}
	gone, err := p.persist(ctx, func(ctx context.Context) error {
		return p.noteSent(ctx, anyVersion, leaveFinalizer, remain, annotations)
	})
	switch {
	case gone:
		return errors.Join(err, p.abandon(ctx, remote, made))
	case err != nil:
		return err
	}
	p.noteRecord(made.ID, Created)
	p.known.freshness.met()
	p.recordEvent(p.created(made))
	return nil
}

// persist makes a write of what nobody would know any more: neither a shutdown nor an API server that
// is away for a moment keeps it from being made. It tells whether the resource has gone meanwhile.
func (p *pass[O]) persist(ctx context.Context, write func(context.Context) error) (gone bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	backoff := wait.Backoff{Duration: 50 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 9}
	waitErr := wait.ExponentialBackoffWithContext(ctx, backoff, func(ctx context.Context) (bool, error) {
		err = write(ctx)
		gone = p.gone(ctx, err)
		return err == nil || gone, nil
	})
	return gone, errors.Join(err, waitErr)
}

// gone tells by the error of a write whether the resource is not there any more, or is another one
// under the same name. A conflict alone does not say so: many who write at the same time make one, too.
func (p *pass[O]) gone(ctx context.Context, err error) bool {
	if !apierrors.IsConflict(err) {
		return apierrors.IsNotFound(err)
	}
	there := p.kind.New()
	readErr := p.Live.Get(ctx, p.req.NamespacedName, there)
	return apierrors.IsNotFound(readErr) || readErr == nil && there.GetUID() != p.obj.GetUID()
}

// abandon removes what was made for a resource that has gone meanwhile: nobody would.
func (p *pass[O]) abandon(ctx context.Context, remote Remote, made Observation) error {
	deleter, ok := remote.(Deleter)
	if !ok || p.orphansCreated() {
		return nil
	}
	backoff := wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 8}
	var err error
	waitErr := wait.ExponentialBackoffWithContext(ctx, backoff, func(ctx context.Context) (bool, error) {
		_, err = deleter.Delete(ctx, made.ID)
		return err == nil, nil
	})
	if err == nil {
		return nil
	}
	return errors.Join(err, waitErr)
}

// attach records a remote object that was there already: an earlier pass made it and did not live
// to say so, it was found by its natural key, or a user brought its id.
func (p *pass[O]) attach(ctx context.Context, seen Observation) error {
	origin := Adopted
	if seen.Relation == Recovered {
		origin = Created
	}
	remain := sent{unanswered: p.sent.unanswered}
	switch {
	case p.sent.intent == nil:
	case p.kind.NaturalKey != nil && len(p.sent.unanswered) > 0, // it may have been any of them
		p.kind.NaturalKey == nil && seen.Request != nil && !seen.Request.At.Equal(p.sent.intent.At): // it was an earlier one
		remain.unanswered = p.unanswered() // what the newest one makes may still come
	}
	if err := p.noteSent(ctx, exactVersion, addFinalizer, remain, p.annotations(seen.ID, origin)); err != nil {
		if apierrors.IsConflict(err) && origin == Adopted { // the next pass may be about another object
			p.Claims.Release(objectClaim(p.gvk.Kind, seen.ID), p.obj.GetUID())
		}
		return err
	}
	p.noteRecord(seen.ID, origin)
	if origin == Created {
		p.recordEvent(p.created(seen))
		return nil
	}
	p.recordEvent(p.adopted(seen))
	return nil
}

// keep brings the record of the resource's own object up to date.
func (p *pass[O]) keep(ctx context.Context, seen Observation) error {
	if p.record.Restored && !p.recorded(seen.ID, p.record.Origin) || p.sent.intent != nil {
		remain := sent{unanswered: p.unanswered()} // they were for other objects, to take the place of this one
		if err := p.noteSent(ctx, exactVersion, addFinalizer, remain, p.annotations(seen.ID, p.record.Origin)); err != nil {
			return err
		}
	}
	p.noteRecord(seen.ID, p.record.Origin)
	return nil
}

func (p *pass[O]) created(seen Observation) Event {
	message := fmt.Sprintf("Created %s with the id %s.", p.named(seen), seen.ID)
	if seen.Proof != "" {
		message = fmt.Sprintf("Found %s with the id %s, which the operator created before: %s.", p.named(seen), seen.ID, seen.Proof)
	}
	return Event{Reason: v1alpha1.EventCreated, Action: "Create", Message: message}
}

func (p *pass[O]) adopted(seen Observation) Event {
	message := fmt.Sprintf("Adopted %s, which was in the organisation already, with the id %s.", p.named(seen), seen.ID)
	if seen.Note != "" {
		message += " " + seen.Note
	}
	return Event{Reason: v1alpha1.EventAdopted, Action: "Adopt", Message: message}
}

// named is how events call the remote object.
func (p *pass[O]) named(seen Observation) string {
	if seen.Name == "" {
		return "the " + p.kind.Noun
	}
	return fmt.Sprintf("the %s %q", p.kind.Noun, Text(seen.Name))
}
