// SPDX-License-Identifier: Apache-2.0

// Package deployment runs Deployments to completion.
package deployment

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/connectclient/budget"
	"rpi-connect.dev/operator/internal/controller/devices"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/internal/reflector"
)

// +kubebuilder:rbac:groups=rpi-connect.dev,resources=deployments,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=rpi-connect.dev,resources=deployments/status,verbs=patch

// Options are what a user sets, and what all Deployments share.
type Options struct {
	// API reaches Connect.
	API *connectclient.API
	// Client reads from the cache.
	Client client.Client
	// Clock tells the time.
	Clock clock.PassiveClock
	// Devices finds devices in listings that are shared with other kinds.
	Devices *devices.Finder
	// PollMin and PollMax bound the time between two looks at a running deployment.
	PollMin, PollMax time.Duration
	// SettleTime is how long after a POST whose outcome is unknown what it made may still appear.
	SettleTime time.Duration
}

// controller is what the Deployments of all organisations share.
type controller struct {
	client     client.Client
	clock      clock.PassiveClock
	devices    *devices.Finder
	polls      *polls
	missing    *missing
	settleTime time.Duration
}

// Kind is what the loop knows of Deployments.
//
// A deployment is made once: what the device's list of deployments shows is looked at before, and
// again if an answer was lost. While it runs it is polled as often as the budget lasts; when it is
// over, never again.
func Kind(options Options) lifecycle.Kind[*v1alpha1.Deployment] {
	c := &controller{
		client: options.Client, clock: options.Clock, devices: options.Devices,
		polls: newPolls(options.API, options.Clock, options.PollMin, options.PollMax), missing: newMissing(),
		settleTime: options.SettleTime,
	}
	return lifecycle.Kind[*v1alpha1.Deployment]{
		New:        func() *v1alpha1.Deployment { return &v1alpha1.Deployment{} },
		NewList:    func() client.ObjectList { return &v1alpha1.DeploymentList{} },
		Noun:       "deployment",
		LooksFirst: func(*v1alpha1.Deployment) bool { return true }, // names move from one device to another
		Source:     c,
		Done:       finished,
		Reset:      reset,
		Forget:     c.forget,
		Indexes: map[string]func(*v1alpha1.Deployment) []string{
			indexArtefact: byArtefact, indexDevice: byDevice, indexTarget: byTarget,
		},
		Watch: func(b *builder.Builder) {
			b.Watches(&v1alpha1.Artefact{}, handler.EnqueueRequestsFromMapFunc(c.waitingFor), builder.WithPredicates(artefactPredicates()))
		},
		Connect: func(obj *v1alpha1.Deployment, conn *lifecycle.Connection) lifecycle.Remote {
			return &external{controller: c, obj: obj, conn: conn}
		},
	}
}

// Start looks at devices and running deployments until the context ends.
func (c *controller) Start(ctx context.Context) error {
	c.polls.start(ctx)
	return c.devices.Start(ctx)
}

// Subscribe says whom to tell of devices and of deployments that are due. Devices are only looked up.
func (c *controller) Subscribe(s reflector.Subscription) {
	c.polls.notify = s.Notify
	s.OnDemand = true
	c.devices.Subscribe(s)
}

// Retry asks for devices again; running deployments are polled anyway.
func (c *controller) Retry(token connectclient.Secret) { c.devices.Retry(token) }

// Retire forgets a token that nothing uses any more.
func (c *controller) Retire(token connectclient.Secret) {
	c.devices.Retire(token)
	c.polls.retire(token)
}

// Forget drops a Deployment that is gone.
func (c *controller) Forget(waiter reflector.Waiter) { c.devices.Forget(waiter) }

func (c *controller) forget(resource types.NamespacedName) {
	c.polls.forget(resource)
	c.missing.found(resource)
}

// finished says again of a Deployment that is over what was said when it ended: nobody looks at it
// any more.
func finished(obj *v1alpha1.Deployment) (lifecycle.Outcome, bool) {
	if obj.Status.Outcome == "" {
		return lifecycle.Outcome{}, false
	}
	return terminalOutcome(obj), true
}

// reset clears what the status says of a deployment in another organisation.
func reset(obj *v1alpha1.Deployment) {
	common := obj.Status.CommonStatus
	meta.RemoveStatusCondition(&common.Conditions, v1alpha1.ConditionSynced)
	obj.Status = v1alpha1.DeploymentStatus{CommonStatus: common}
}

func stateOf(obj *v1alpha1.Deployment) connectclient.DeploymentState {
	return connectclient.DeploymentState(obj.Status.State)
}

// external is the remote object of one Deployment.
type external struct {
	*controller
	obj  *v1alpha1.Deployment
	conn *lifecycle.Connection

	artefact  target // by resolve
	device    connectclient.Device
	newest    string // the id of the device's newest deployment, before the POST
	cancelled bool   // in this pass, by us
	claim     string // on the device, while it is looked at and deployed to

	// otherOrganisation: an earlier request, with another access token, may have gone to another one.
	otherOrganisation bool
	goneDevice        string // to which an earlier request was sent, whose answer was lost
}

// Observe implements [lifecycle.Remote].
func (e *external) Observe(ctx context.Context) (lifecycle.Observation, error) {
	switch record := e.conn.Record; {
	case record.Own():
		return e.follow(ctx)
	case record.ID != "":
		return e.imported(ctx)
	default:
		seen, err := e.search(ctx)
		seen.SameOrganisation = !e.otherOrganisation
		return seen, err
	}
}

// follow looks at the deployment that is on record, if it is due; otherwise what is known of it
// stands.
func (e *external) follow(ctx context.Context) (lifecycle.Observation, error) {
	if due := e.polls.takeDue(e.conn.Waiter.Resource); !due && !e.mustLook() {
		e.polls.ensure(e.conn.Token, e.conn.Waiter.Resource)
		return e.lastSeen(), nil
	}
	seen, err := e.conn.Client.Deployments().Get(connectclient.WithPriority(ctx, budget.Poll), e.conn.Record.ID)
	switch {
	case errors.Is(err, connectclient.ErrNotFound):
		return e.vanished(), nil
	case err != nil && e.obj.Status.State != "" && lifecycle.IsTransient(err):
		// A poll that did not get through changes nothing, and answers nothing.
		e.schedule()
		last := e.lastSeen()
		last.Outcome.Unanswered, last.Outcome.Backoff = e.conn.Requested, e.conn.Requested
		return last, nil
	case err != nil:
		return lifecycle.Observation{}, err
	case e.conn.Record.Restored:
		return e.restored(ctx, seen)
	case !e.isRecorded(seen):
		return lifecycle.ForeignObject(seen.ID, lifecycle.Stalled(v1alpha1.ReasonConflict,
			"The deployment %s is of another device or artefact than the one that was made for this resource: it is left alone.", seen.ID)), nil
	}
	return e.report(ctx, lifecycle.Mine, seen)
}

// mustLook tells whether what the status says is not enough.
func (e *external) mustLook() bool {
	return e.obj.Status.State == "" || e.conn.Requested || e.conn.Moved || !e.conn.NotBefore.IsZero() || e.deadlineOver()
}

// restored looks at a deployment that a backup has on record. What the backup does not have, the
// status, said what it was of; so it is compared with the spec, which may be another one by now.
func (e *external) restored(ctx context.Context, seen *connectclient.Deployment) (lifecycle.Observation, error) {
	if !e.obj.DeletionTimestamp.IsZero() {
		return e.report(ctx, lifecycle.Mine, seen)
	}
	unready, err := e.findArtefact(ctx)
	if err != nil || unready != nil && !e.artefact.gone {
		return unresolved(unready), err
	}
	unknown, err := e.findDevice()
	if err != nil {
		return lifecycle.Observation{}, err
	}
	otherArtefact := unready == nil && e.artefact.id != seen.ArtefactID
	otherDevice := unknown == nil && e.device.ID != seen.DeviceID
	if otherArtefact || otherDevice {
		return lifecycle.ForeignObject(seen.ID, lifecycle.ImportConflict("The deployment %s is of another device or another artefact than the spec", seen.ID)), nil
	}
	return e.report(ctx, lifecycle.Mine, seen)
}

// isRecorded tells whether a deployment is the one that the status describes.
func (e *external) isRecorded(seen *connectclient.Deployment) bool {
	status := &e.obj.Status
	return (status.DeviceID == "" || status.DeviceID == seen.DeviceID) && (status.ArtefactID == "" || status.ArtefactID == seen.ArtefactID)
}

// vanished is the observation of a deployment that was on record and is gone. It is not made again:
// nobody knows how far it has come.
func (e *external) vanished() lifecycle.Observation {
	e.polls.forget(e.conn.Waiter.Resource)
	e.obj.Status.State = ""                    // what was seen last does not hold any more
	if record := e.conn.Record; record.Own() { // so that nothing is made in its place, whatever becomes of the annotations
		e.obj.Status.ID, e.obj.Status.Adopted = record.ID, record.Origin == lifecycle.Adopted
	}
	return lifecycle.NotCreated(lifecycle.Stalled(v1alpha1.ReasonNotFound,
		"The deployment %s is no longer in the organisation; its device may have been removed. To deploy again, create a new Deployment.", e.conn.Record.ID))
}

// imported looks at a deployment that somebody has named, and takes it if it fits the spec.
func (e *external) imported(ctx context.Context) (lifecycle.Observation, error) {
	seen, err := e.conn.Client.Deployments().Get(connectclient.WithPriority(ctx, budget.Poll), e.conn.Record.ID)
	switch {
	case errors.Is(err, connectclient.ErrNotFound):
		return lifecycle.AbsentObject(), nil
	case err != nil:
		return lifecycle.Observation{}, err
	}
	if waits, err := e.resolve(ctx); err != nil || waits != nil {
		return unresolved(waits), err
	}
	if seen.DeviceID != e.device.ID || seen.ArtefactID != e.artefact.id {
		return lifecycle.ForeignObject(seen.ID, lifecycle.ImportConflict("The deployment %s is of another device or another artefact than the spec", seen.ID)), nil
	}
	if owner, owned, err := e.conn.Owner(ctx, seen.ID); err != nil || owned {
		return lifecycle.NotKnown(e.claimedBy(owner)), err
	}
	return e.report(ctx, lifecycle.Adoptable, seen)
}

// report mirrors what Connect says of the deployment.
func (e *external) report(ctx context.Context, relation lifecycle.Relation, seen *connectclient.Deployment) (lifecycle.Observation, error) {
	outcome, late, err := e.outcome(ctx, seen)
	if err != nil {
		return lifecycle.Observation{}, err
	}
	if late != nil {
		return e.report(ctx, lifecycle.Recovered, late)
	}
	was := e.obj.Status.State
	e.mirror(seen)
	e.obj.Status.Outcome = outcome
	e.obj.Status.Adopted = e.obj.Status.Adopted || relation == lifecycle.Adoptable // what is said of it depends on that
	if was != "" && was != e.obj.Status.State {
		e.conn.Event(lifecycle.Event{
			Warning: seen.State == connectclient.DeploymentFailed, Reason: v1alpha1.EventStateChanged, Action: "Deploy",
			Message: fmt.Sprintf("The deployment went from %s to %s.", was, e.obj.Status.State), OfStatus: true,
		})
	}
	e.schedule()
	observation := e.lastSeen()
	observation.Relation, observation.ID, observation.Unseen = relation, seen.ID, false
	return observation, nil
}

func (e *external) mirror(seen *connectclient.Deployment) {
	status := &e.obj.Status
	status.DeviceID, status.ArtefactID = seen.DeviceID, seen.ArtefactID
	status.State, status.StateReason = lifecycle.Text(string(seen.State)), seen.StateReason
	status.CreatedAt, status.UpdatedAt = lifecycle.Timestamp(seen.CreatedAt), lifecycle.Timestamp(seen.UpdatedAt)
	if !e.obj.Spec.Cancel || seen.State != connectclient.DeploymentInProgress {
		meta.RemoveStatusCondition(&status.Conditions, v1alpha1.ConditionSynced) // nothing is left that could not be cancelled
	}
}

// schedule sees to it that the deployment is polled for as long as it runs, and not any longer.
func (e *external) schedule() {
	if e.obj.Status.Outcome != "" {
		e.polls.forget(e.conn.Waiter.Resource)
		return
	}
	e.polls.seen(e.conn.Token, e.conn.Waiter.Resource, e.polls.interval(stateOf(e.obj), e.sinceUpdate()))
}

// lastSeen is the observation of a deployment as the status has it.
func (e *external) lastSeen() lifecycle.Observation {
	observation := lifecycle.Observation{Relation: lifecycle.Mine, ID: e.conn.Record.ID, Unseen: true, Outdated: e.toBeCancelled()}
	if e.obj.Status.Outcome != "" {
		observation.Outcome = terminalOutcome(e.obj)
		return observation
	}
	observation.Outcome = runningOutcome(e.obj, e.clock.Now())
	return observation
}

// Prepare implements [lifecycle.Creator]: it notes what is deployed where, and the newest deployment
// before ours. What is newer later is ours.
func (e *external) Prepare(context.Context) (lifecycle.Preparation, error) {
	if e.obj.Spec.Cancel {
		return lifecycle.Lacking(lifecycle.Stalled(v1alpha1.ReasonCancelled,
			"spec.cancel was true before the deployment was made, so it was not made.").WithRequeueAfter(0)), nil
	}
	if e.obj.Annotations[v1alpha1.AnnotationWithdrawn] == "true" {
		return lifecycle.Lacking(lifecycle.Stalled(v1alpha1.ReasonAlreadyClaimed,
			"Another Deployment was bringing the artefact to the device: the FleetRollout makes this one anew when the device may begin.").WithRequeueAfter(0)), nil
	}
	return lifecycle.Preparation{Note: note{Device: e.device.ID, Artefact: e.artefact.id, Newest: e.newest}.String()}, nil
}

// Create implements [lifecycle.Creator].
func (e *external) Create(ctx context.Context) (lifecycle.Observation, error) {
	made, err := e.conn.Client.Deployments().Create(ctx, e.device.ID, e.artefact.id)
	if errors.Is(err, connectclient.ErrNotFound) {
		// The device was there a moment ago, so it is the artefact that is not.
		return lifecycle.NotCreated(lifecycle.Waiting(v1alpha1.ReasonArtefactNotReady,
			"Waiting for an artefact with the id %q to be in the organisation.", e.artefact.id).WithRequeueAfter(e.polls.max)), nil
	}
	if err != nil {
		return lifecycle.Observation{}, err
	}
	e.pollOthersNow(ctx)
	return e.report(ctx, lifecycle.Mine, made)
}

// pollOthersNow has the other deployments to the device looked at: the new one has taken the place
// of one that was pending.
func (e *external) pollOthersNow(ctx context.Context) {
	var others v1alpha1.DeploymentList
	if err := e.client.List(ctx, &others, client.MatchingFields{indexDevice: e.device.ID}); err != nil {
		return // they are polled anyway
	}
	for i := range others.Items {
		if name := client.ObjectKeyFromObject(&others.Items[i]); name != e.conn.Waiter.Resource {
			e.polls.due(e.conn.Token, name)
		}
	}
}

// Release implements [lifecycle.Releaser]: it gives back the devices that this pass or an earlier one
// has worked on, or keeps them for as long as a deployment may still be made there.
func (e *external) Release(until time.Time) {
	claims := map[string]bool{e.claim: true}
	for _, intent := range e.conn.Sent {
		claims[deviceClaim(parseNote(intent.Note).Device)] = true
	}
	for claim := range claims {
		if until.IsZero() {
			e.conn.Claims.Release(claim, e.conn.Holder.UID)
			continue
		}
		e.conn.Claims.KeepUntil(claim, e.conn.Holder.UID, until)
	}
}
