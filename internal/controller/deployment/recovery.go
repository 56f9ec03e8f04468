// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
)

// search looks for a deployment that this resource has made without living to record it, or that it
// may adopt.
func (e *external) search(ctx context.Context) (lifecycle.Observation, error) {
	if seen, err := e.recover(ctx); err != nil || seen.Relation == lifecycle.Recovered {
		return seen, err
	}
	// Whoever goes has nothing to find but what it has made; and while what it has made may be in
	// another organisation, nothing is made here.
	if e.conn.Settling || e.otherOrganisation || !e.obj.DeletionTimestamp.IsZero() {
		return lifecycle.AbsentObject(), nil
	}
	if e.goneDevice != "" {
		return e.unanswerable(), nil
	}
	if waits, err := e.resolve(ctx); err != nil || waits != nil {
		return unresolved(waits), err
	}
	if taken, err := e.claimDevice(ctx); err != nil || taken != nil {
		return unresolved(taken), err
	}
	all, err := e.history(ctx, e.device.ID)
	if errors.Is(err, connectclient.ErrNotFound) {
		return e.deviceGone()
	}
	if err != nil {
		return lifecycle.Observation{}, err
	}
	e.missing.found(e.conn.Waiter.Resource)
	if len(all) > 0 {
		e.newest = all[0].ID
	}
	return e.adopt(ctx, all)
}

// recover looks for what earlier requests have made whose answers were lost. A device that is known
// with this access token tells that a request to it, with whatever token, went to the organisation
// that this one opens.
func (e *external) recover(ctx context.Context) (lifecycle.Observation, error) {
	for _, intent := range e.conn.Sent {
		seen, here, err := e.recoverFrom(ctx, intent)
		if err != nil || seen.Relation == lifecycle.Recovered {
			return seen, err
		}
		if device := parseNote(intent.Note).Device; device != "" && !here {
			e.goneDevice = device
		}
	}
	for _, intent := range e.conn.SentElsewhere {
		seen, here, err := e.recoverFrom(ctx, intent)
		if err != nil || seen.Relation == lifecycle.Recovered {
			return seen, err
		}
		e.otherOrganisation = e.otherOrganisation || !here
	}
	return lifecycle.Observation{}, nil
}

// recoverFrom looks for what a request has made where it was sent to: the spec may mean another
// device by now. It tells whether that device is here.
func (e *external) recoverFrom(ctx context.Context, intent lifecycle.Intent) (seen lifecycle.Observation, here bool, err error) {
	before := parseNote(intent.Note)
	if before.Device == "" {
		return lifecycle.Observation{}, false, nil
	}
	all, err := e.history(ctx, before.Device)
	if errors.Is(err, connectclient.ErrNotFound) {
		return lifecycle.Observation{}, false, nil // the device is gone, and its deployments with it
	}
	if err != nil {
		return lifecycle.Observation{}, false, err
	}
	found, err := e.unowned(ctx, lost(all, before))
	if err != nil || found == nil {
		return lifecycle.Observation{}, true, err
	}
	seen, err = e.report(ctx, lifecycle.Recovered, found)
	seen.Proof, seen.Request = "it is newer than what the device had before the request whose answer was lost", &intent
	return seen, true, err
}

// unanswerable is the observation of a request whose answer was lost, to a device that is gone since, and its
// deployments with it. Whatever has the device's name now may be the same board, which has had the artefact.
func (e *external) unanswerable() lifecycle.Observation {
	return lifecycle.NotCreated(lifecycle.Stalled(v1alpha1.ReasonNotFound,
		"The answer to the request to deploy was lost, and the device %s that it was sent to is no longer in the organisation: "+
			"nobody knows whether it got the artefact. To deploy again, create a new Deployment.", e.goneDevice))
}

// lateEffect finds the deployment that an earlier request of this resource has made after a later
// one, which it superseded.
func (e *external) lateEffect(ctx context.Context, all []connectclient.Deployment, superseded *connectclient.Deployment) (*connectclient.Deployment, error) {
	for _, intent := range e.conn.Sent {
		before := parseNote(intent.Note)
		if before.Device != superseded.DeviceID || before.Artefact != superseded.ArtefactID {
			continue
		}
		found, err := e.unowned(ctx, lost(all, note{Device: before.Device, Artefact: before.Artefact, Newest: superseded.ID}))
		if err != nil || found != nil {
			return found, err
		}
	}
	return nil, nil
}

// unowned returns the first of some deployments that no other resource has on record.
func (e *external) unowned(ctx context.Context, candidates []connectclient.Deployment) (*connectclient.Deployment, error) {
	for i := range candidates {
		_, owned, err := e.conn.Owner(ctx, candidates[i].ID)
		if err != nil {
			return nil, err
		}
		if !owned {
			return &candidates[i], nil
		}
	}
	return nil, nil
}

// lost are what a request can have made: deployments of its artefact that are newer than the newest
// one before it.
func lost(all []connectclient.Deployment, before note) []connectclient.Deployment {
	var found []connectclient.Deployment
	for i := range all {
		if all[i].ID == before.Newest {
			return found
		}
		if all[i].ArtefactID == before.Artefact {
			found = append(found, all[i])
		}
	}
	if before.Newest != "" {
		return nil // what it was compared with is gone, so nobody knows what is newer
	}
	return found
}

// adopt decides what the device's deployments, the newest first, mean for this one.
func (e *external) adopt(ctx context.Context, all []connectclient.Deployment) (lifecycle.Observation, error) {
	choice, err := choose(all, e.artefact.id, e.obj.Spec.Force, func(d *connectclient.Deployment) (lifecycle.Owner, bool, error) { return e.ownerOf(ctx, d) })
	switch {
	case err != nil:
		return lifecycle.Observation{}, err
	case choice.owner != nil:
		return lifecycle.NotKnown(e.claimedBy(*choice.owner)), nil
	case choice.take != nil:
		seen, err := e.report(ctx, lifecycle.Adoptable, choice.take)
		seen.Note = "Nothing was deployed; to deploy the artefact again, create a Deployment with spec.force: true."
		return seen, err
	}
	if misfit := e.incompatible(); misfit != nil {
		return lifecycle.NotKnown(*misfit), nil
	}
	return lifecycle.AbsentObject(), nil
}

// ownerOf finds the Deployment that has a deployment. What one of the same FleetRollout has taken over
// counts as made by it: the rollout knows that the device has it, and wants something else now. What was
// cancelled it mostly has not got.
func (e *external) ownerOf(ctx context.Context, d *connectclient.Deployment) (owner lifecycle.Owner, owned bool, err error) {
	owner, owned, err = e.conn.Owner(ctx, d.ID)
	rollout := metav1.GetControllerOf(e.obj)
	if err != nil || !owned || owner.Created || rollout == nil || d.State == connectclient.DeploymentCancelled {
		return owner, owned, err
	}
	var theirs v1alpha1.Deployment
	if err := e.client.Get(ctx, owner.NamespacedName, &theirs); client.IgnoreNotFound(err) != nil {
		return owner, owned, err
	}
	other := metav1.GetControllerOf(&theirs)
	owner.Created = other != nil && other.UID == rollout.UID
	return owner, owned, nil
}

// choice is what becomes of a Deployment: it takes a deployment that is there, another resource has
// it, or, with neither, a new one is made.
type choice struct {
	take  *connectclient.Deployment
	owner *lifecycle.Owner
}

// choose decides by the device's deployments, the newest first, whether the artefact has to be
// deployed.
//
// The device runs it already, or is about to, if its newest deployment is of the artefact and has
// not failed. A success further back that no resource has on record is the past of this very
// manifest, applied anew; unless the newest deployment was made by a resource of this cluster, or is
// known to the same FleetRollout: then deploying the older artefact again is a step back that somebody
// wants.
func choose(all []connectclient.Deployment, artefactID string, force bool, ownerOf func(*connectclient.Deployment) (lifecycle.Owner, bool, error)) (choice, error) {
	if force || len(all) == 0 {
		return choice{}, nil
	}
	owner, owned, err := ownerOf(&all[0])
	switch {
	case err != nil:
		return choice{}, err
	case all[0].ArtefactID == artefactID && !unsuccessful(all[0].State) && owned:
		return choice{owner: &owner}, nil
	case all[0].ArtefactID == artefactID && !unsuccessful(all[0].State):
		return choice{take: &all[0]}, nil
	case owned && owner.Created:
		return choice{}, nil
	}
	for i := range all {
		if all[i].ArtefactID != artefactID || all[i].State != connectclient.DeploymentSucceeded {
			continue
		}
		if _, owned, err := ownerOf(&all[i]); err != nil {
			return choice{}, err
		} else if !owned {
			return choice{take: &all[i]}, nil
		}
	}
	return choice{}, nil
}

func unsuccessful(state connectclient.DeploymentState) bool {
	return state == connectclient.DeploymentFailed || state == connectclient.DeploymentCancelled
}

func deviceClaim(deviceID string) string { return "device/" + deviceID }

// claimDevice keeps two Deployments from looking at a device at the same time, both seeing that
// nothing is there, and both deploying; also while a request is under way whose answer was lost.
func (e *external) claimDevice(ctx context.Context) (*lifecycle.Outcome, error) {
	claim := deviceClaim(e.device.ID)
	holder, taken := e.conn.Claims.Take(claim, e.conn.Holder, false)
	if taken {
		return e.waitFor(ctx, holder.NamespacedName, holder)
	}
	e.claim = claim
	var others v1alpha1.DeploymentList
	if err := e.client.List(ctx, &others, client.MatchingFields{indexTarget: e.device.ID}); err != nil {
		return nil, err
	}
	for i := range others.Items {
		if other := &others.Items[i]; other.UID != e.obj.UID && e.underWay(other) {
			return e.waitFor(ctx, client.ObjectKeyFromObject(other), lifecycle.Holder{UID: other.UID})
		}
	}
	return nil, nil
}

// underWay tells whether a request of another Deployment may still be carried out.
func (e *external) underWay(other *v1alpha1.Deployment) bool {
	intents := lifecycle.SentIntents(other)
	return len(intents) > 0 && e.clock.Now().Sub(intents[0].At) < e.settleTime
}

// waitForDevice is how long a Deployment waits for another one that works on its device, if it is
// not woken earlier.
const waitForDevice = 30 * time.Second

// waitFor says what a Deployment waits for whose device another one works on.
func (e *external) waitFor(ctx context.Context, other types.NamespacedName, holder lifecycle.Holder) (*lifecycle.Outcome, error) {
	e.conn.Claims.Wait(holder, e.conn.Waiter.Resource)
	var theirs v1alpha1.Deployment
	if err := e.client.Get(ctx, other, &theirs); client.IgnoreNotFound(err) != nil {
		return nil, err
	}
	if !e.obj.Spec.Force && e.sameArtefact(&theirs) {
		outcome := e.alreadyClaimed(other)
		return &outcome, nil
	}
	outcome := lifecycle.NoChange(waitForDevice)
	return &outcome, nil
}

// sameArtefact tells whether another Deployment deploys the same artefact.
func (e *external) sameArtefact(theirs *v1alpha1.Deployment) bool {
	if theirs.Status.ArtefactID != "" {
		return theirs.Status.ArtefactID == e.artefact.id
	}
	if mine, their := e.obj.Spec.ArtefactRef, theirs.Spec.ArtefactRef; mine != nil && their != nil {
		return *mine == *their && theirs.Namespace == e.obj.Namespace
	}
	return theirs.Spec.ArtefactID != "" && theirs.Spec.ArtefactID == e.artefact.id
}

// claimedBy is the outcome of a Deployment whose work is another one's. It is woken when that one is
// gone.
func (e *external) claimedBy(owner lifecycle.Owner) lifecycle.Outcome {
	e.conn.Claims.Wait(lifecycle.Holder{UID: owner.UID}, e.conn.Waiter.Resource)
	return e.alreadyClaimed(owner.NamespacedName)
}

func (e *external) alreadyClaimed(owner types.NamespacedName) lifecycle.Outcome {
	e.polls.forget(e.conn.Waiter.Resource)
	return lifecycle.Stalled(v1alpha1.ReasonAlreadyClaimed,
		"Deployment %s deploys the same artefact to the same device: delete one of the two, or create one with spec.force: true to deploy it again.", owner)
}

// note is what an intent remembers of a deployment from before the POST.
type note struct {
	Device   string `json:"device"`
	Artefact string `json:"artefact"`
	Newest   string `json:"newest,omitempty"` // the id of the device's newest deployment; empty if it had none
}

func parseNote(text string) note {
	var n note
	if json.Unmarshal([]byte(text), &n) != nil {
		return note{} // what somebody has spoilt names no device
	}
	return n
}

func (n note) String() string {
	text, err := json.Marshal(n)
	if err != nil {
		panic(err) // three strings always marshal
	}
	return string(text)
}
