// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/connectclient/budget"
	"rpi-connect.dev/operator/internal/controller/devices"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/internal/reflector"
)

// +kubebuilder:rbac:groups=rpi-connect.dev,resources=deployments,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=rpi-connect.dev,resources=deployments/status,verbs=patch

// deployments is what the Deployments of all organisations share.
type deployments struct {
	client  client.Client
	clock   clock.PassiveClock
	devices *devices.Finder
	polls   *polls
}

// deploymentKind runs deployments to completion.
//
// A deployment is made once: what the device's list of deployments shows is
// looked at before, and again if an answer was lost. While it runs it is looked
// at in turns, as often as the budget lasts; when it is over, never again.
func deploymentKind(options reflector.Options, c client.Client, clk clock.PassiveClock, pollMin, pollMax time.Duration) lifecycle.Kind[*v1alpha1.Deployment] {
	all := &deployments{
		client:  c,
		clock:   clk,
		polls:   newPolls(options.API, clk, pollMin, pollMax),
		devices: devices.New(options),
	}
	return lifecycle.Kind[*v1alpha1.Deployment]{
		New:          func() *v1alpha1.Deployment { return &v1alpha1.Deployment{} },
		NewList:      func() client.ObjectList { return &v1alpha1.DeploymentList{} },
		Organisation: all,
		Done:         finished,
		Forget:       all.polls.forget,
		Indexes:      map[string]func(*v1alpha1.Deployment) []string{indexArtefact: byArtefact, indexDevice: byDevice},
		Watch: func(b *builder.Builder) {
			b.Watches(&v1alpha1.Artefact{}, handler.EnqueueRequestsFromMapFunc(all.deploying))
		},
		Connect: func(obj *v1alpha1.Deployment, conn *lifecycle.Connection) lifecycle.Remote {
			return &deployment{deployments: all, obj: obj, conn: conn}
		},
	}
}

// Start looks at devices and running deployments until the context ends.
func (d *deployments) Start(ctx context.Context) error {
	d.polls.start(ctx)
	return d.devices.Start(ctx)
}

// Subscribe says whom to wake.
func (d *deployments) Subscribe(s reflector.Subscription) {
	d.polls.wake = s.Notify
	d.devices.Subscribe(s)
}

// Retry asks for devices again; running deployments have their turns.
func (d *deployments) Retry(token connectclient.Secret) { d.devices.Retry(token) }

// Cache indexes of Deployments.
const (
	indexArtefact = "spec.artefactRef.name"
	indexDevice   = "status.deviceID"
)

func byArtefact(obj *v1alpha1.Deployment) []string {
	if obj.Spec.ArtefactRef == nil {
		return nil
	}
	return []string{obj.Spec.ArtefactRef.Name}
}

// byDevice names the device of a deployment that runs.
func byDevice(obj *v1alpha1.Deployment) []string {
	if obj.Status.DeviceID == "" || obj.Status.State == "" || stateOf(obj).Terminal() {
		return nil
	}
	return []string{obj.Status.DeviceID}
}

// deploying returns the Deployments of an Artefact.
func (d *deployments) deploying(ctx context.Context, artefact client.Object) []reconcile.Request {
	var list v1alpha1.DeploymentList
	if err := d.client.List(ctx, &list, client.InNamespace(artefact.GetNamespace()), client.MatchingFields{indexArtefact: artefact.GetName()}); err != nil {
		log.FromContext(ctx).Error(err, "list Deployments from the cache")
	}
	requests := make([]reconcile.Request, len(list.Items))
	for i := range list.Items {
		requests[i].NamespacedName = client.ObjectKeyFromObject(&list.Items[i])
	}
	return requests
}

func stateOf(obj *v1alpha1.Deployment) connectclient.DeploymentState {
	return connectclient.DeploymentState(obj.Status.State)
}

// finished says again of a deployment that is over what was said when it ended:
// nobody looks at it any more.
func finished(obj *v1alpha1.Deployment) (lifecycle.Verdict, bool) {
	ready := meta.FindStatusCondition(obj.Status.Conditions, v1alpha1.ConditionReady)
	if !stateOf(obj).Terminal() || ready == nil {
		return lifecycle.Verdict{}, false
	}
	return lifecycle.Verdict{Ready: ready.Status, Reason: ready.Reason, Message: ready.Message}, true
}

// deployment is the remote twin of one Deployment.
type deployment struct {
	*deployments
	obj  *v1alpha1.Deployment
	conn *lifecycle.Connection

	artefactID string
	device     connectclient.Device
	newest     string // the id of the device's newest deployment, before the POST
	cancelled  bool   // in this pass, by us
}

func (d *deployment) Observe(ctx context.Context) (lifecycle.Observation, error) {
	if d.conn.ID != "" {
		return d.follow(ctx)
	}
	return d.search(ctx)
}

// follow looks at the deployment that was made, if it is its turn; otherwise
// what is known of it stands.
func (d *deployment) follow(ctx context.Context) (lifecycle.Observation, error) {
	turn := d.polls.takeTurn(d.conn.Resource)
	if d.obj.Status.State != "" && !turn && d.conn.NotBefore.IsZero() {
		if !d.polls.waits(d.conn.Token, d.conn.Resource) {
			d.polls.due(d.conn.Token, d.conn.Resource) // the operator has just started
		}
		return d.known(d.conn.ID), nil
	}
	seen, err := d.conn.Client.Deployments.Get(connectclient.WithPriority(ctx, budget.Poll), d.conn.ID)
	switch {
	case errors.Is(err, connectclient.ErrNotFound):
		d.polls.forget(d.conn.Resource)
		return lifecycle.Observation{}, lifecycle.Stalled(v1alpha1.ReasonNotFound,
			"The deployment %s is no longer in the organisation; its device may have been removed. To deploy again, create a new Deployment.", d.conn.ID)
	case err != nil && d.obj.Status.State != "" && passes(err):
		d.polls.seen(d.conn.Token, d.conn.Resource, d.interval())
		return d.known(d.conn.ID), nil // a poll that did not get through changes nothing
	case err != nil:
		return lifecycle.Observation{}, err
	}
	return d.report(ctx, seen)
}

// passes tells whether an error is one that the next poll may not meet.
func passes(err error) bool {
	return errors.Is(err, connectclient.ErrUnavailable) || errors.Is(err, connectclient.ErrThrottled) || errors.Is(err, connectclient.ErrDeferred)
}

// report mirrors what Connect says of the deployment.
func (d *deployment) report(ctx context.Context, seen *connectclient.Deployment) (lifecycle.Observation, error) {
	status := &d.obj.Status
	if status.State != string(seen.State) && status.State != "" {
		d.conn.Event(lifecycle.Event{
			Warning: seen.State == connectclient.DeploymentFailed, Reason: v1alpha1.EventStateChanged, Action: "Deploy",
			Message: fmt.Sprintf("The deployment went from %s to %s.", status.State, seen.State),
		})
	}
	if seen.State == connectclient.DeploymentFailed || seen.State == connectclient.DeploymentCancelled {
		verdict, err := d.unsuccessful(ctx, seen)
		if err != nil {
			return lifecycle.Observation{}, err
		}
		d.mirror(seen)
		d.polls.forget(d.conn.Resource)
		return lifecycle.Observation{Exists: true, ID: seen.ID, Verdict: verdict}, nil
	}
	d.mirror(seen)
	if !seen.State.Terminal() {
		d.polls.seen(d.conn.Token, d.conn.Resource, d.interval())
	}
	return d.known(seen.ID), nil
}

func (d *deployment) mirror(seen *connectclient.Deployment) {
	status := &d.obj.Status
	status.DeviceID, status.ArtefactID = seen.DeviceID, seen.ArtefactID
	status.State, status.StateReason = string(seen.State), seen.StateReason
	status.CreatedAt, status.UpdatedAt = timeOrNil(seen.CreatedAt), timeOrNil(seen.UpdatedAt)
	if !d.obj.Spec.Cancel || seen.State != connectclient.DeploymentInProgress {
		meta.RemoveStatusCondition(&status.Conditions, v1alpha1.ConditionSynced) // nothing is left that could not be cancelled
	}
}

// known says of the deployment what the status says.
func (d *deployment) known(id string) lifecycle.Observation {
	seen := lifecycle.Observation{Exists: true, ID: id, Outdated: d.toBeCancelled()}
	switch stateOf(d.obj) {
	case connectclient.DeploymentSucceeded:
		d.polls.forget(d.conn.Resource)
		seen.Verdict = lifecycle.Ready(v1alpha1.ReasonSucceeded, "The device runs the artefact.")
		return seen
	case connectclient.DeploymentPending:
		seen.Verdict = lifecycle.Waiting(v1alpha1.ReasonPending, "The deployment waits for the device to pick it up.")
		if left := d.untilDeadline(); left > 0 {
			seen.Verdict = seen.Verdict.LookAgain(left)
		}
	case connectclient.DeploymentInProgress:
		seen.Verdict = lifecycle.Waiting(v1alpha1.ReasonInProgress, "The device is installing the artefact.")
	default:
		seen.Verdict = lifecycle.Waiting(v1alpha1.ReasonInProgress, "Connect says that the deployment is %q.", d.obj.Status.State)
	}
	return seen
}

// interval is how long this deployment is left alone now.
func (d *deployment) interval() time.Duration {
	unchanged := time.Duration(0)
	if d.obj.Status.UpdatedAt != nil {
		unchanged = d.clock.Since(d.obj.Status.UpdatedAt.Time)
	}
	return d.polls.interval(stateOf(d.obj), unchanged)
}

// toBeCancelled tells whether there is a reason to cancel, and hope.
func (d *deployment) toBeCancelled() bool {
	switch stateOf(d.obj) {
	case connectclient.DeploymentPending:
		return d.obj.Spec.Cancel || d.obj.Spec.PendingDeadline != nil && d.untilDeadline() <= 0
	case connectclient.DeploymentInProgress:
		return d.obj.Spec.Cancel && !d.cancelRefused()
	default:
		return false
	}
}

// untilDeadline is how long a pending deployment may still wait; 0 if it has no
// deadline, or that is over.
func (d *deployment) untilDeadline() time.Duration {
	if d.obj.Spec.PendingDeadline == nil || d.obj.Status.CreatedAt == nil {
		return 0
	}
	return max(0, d.obj.Status.CreatedAt.Add(d.obj.Spec.PendingDeadline.Duration).Sub(d.clock.Now()))
}

// cancelRefused tells whether Connect has refused to cancel this very spec's
// deployment, which is in progress.
func (d *deployment) cancelRefused() bool {
	synced := meta.FindStatusCondition(d.obj.Status.Conditions, v1alpha1.ConditionSynced)
	return synced != nil && synced.Status == metav1.ConditionFalse && synced.ObservedGeneration == d.obj.Generation
}

// search looks for a deployment that this resource has made without living to
// record it, or that it may adopt.
func (d *deployment) search(ctx context.Context) (lifecycle.Observation, error) {
	if d.conn.Intent != nil {
		if seen, err := d.recover(ctx); err != nil || seen.Exists {
			return seen, err
		}
	}
	if d.obj.Spec.Cancel {
		return lifecycle.Observation{}, lifecycle.Stalled(v1alpha1.ReasonCancelled,
			"spec.cancel was true before the deployment was made, so it was not made.").LookAgain(0)
	}
	if err := d.resolve(ctx); err != nil {
		return lifecycle.Observation{}, err
	}
	// A rollout to thousands would take the whole hour's budget: it leaves the
	// reserve to other writes.
	all, err := d.conn.Client.Deployments.Newest(connectclient.WithPriority(ctx, budget.Poll), d.device.ID)
	if errors.Is(err, connectclient.ErrNotFound) {
		return lifecycle.Observation{}, d.deviceGone()
	}
	if err != nil {
		return lifecycle.Observation{}, err
	}
	if len(all) > 0 {
		d.newest = all[0].ID
	}
	return d.take(ctx, adoptable(all, d.artefactID, d.obj.Spec.Force))
}

// recover looks for what the POST of an earlier pass has made, where that pass had
// decided to make it: the spec may mean another device by now.
func (d *deployment) recover(ctx context.Context) (lifecycle.Observation, error) {
	before := parseNote(d.conn.Intent.Note)
	if before.Device == "" {
		return lifecycle.Observation{}, nil
	}
	all, err := d.conn.Client.Deployments.Newest(connectclient.WithPriority(ctx, budget.Write), before.Device)
	switch {
	case errors.Is(err, connectclient.ErrNotFound):
		return lifecycle.Observation{}, nil // the device is gone, and its deployments with it
	case err != nil:
		return lifecycle.Observation{}, err
	}
	seen, err := d.take(ctx, lost(all, before.Artefact, before.Newest))
	seen.Ours = true
	return seen, err
}

// take takes the first of some deployments that is nobody else's.
func (d *deployment) take(ctx context.Context, candidates []connectclient.Deployment) (lifecycle.Observation, error) {
	for i := range candidates {
		claimed, err := d.conn.Claimed(ctx, candidates[i].ID)
		if err != nil {
			return lifecycle.Observation{}, err
		}
		if !claimed {
			return d.report(ctx, &candidates[i])
		}
	}
	return lifecycle.Observation{}, nil
}

// adoptable is the device's newest deployment, if it is of the artefact and makes
// another one unnecessary.
func adoptable(all []connectclient.Deployment, artefactID string, force bool) []connectclient.Deployment {
	if force || len(all) == 0 || all[0].ArtefactID != artefactID {
		return nil
	}
	switch all[0].State {
	case connectclient.DeploymentFailed, connectclient.DeploymentCancelled:
		return nil
	default:
		return all[:1]
	}
}

// lost is what the POST of an earlier pass can have made: deployments of the
// artefact that are newer than the newest one before it.
func lost(all []connectclient.Deployment, artefactID, newestBefore string) []connectclient.Deployment {
	var found []connectclient.Deployment
	for i := range all {
		if all[i].ID == newestBefore {
			break
		}
		if all[i].ArtefactID == artefactID {
			found = append(found, all[i])
		}
	}
	return found
}

// Prepare notes what is deployed where, and the newest deployment before ours:
// what is newer later is ours.
func (d *deployment) Prepare(context.Context) (string, error) {
	return note{Device: d.device.ID, Artefact: d.artefactID, Newest: d.newest}.String(), nil
}

func (d *deployment) Create(ctx context.Context) (lifecycle.Observation, error) {
	made, err := d.conn.Client.Deployments.Create(ctx, d.device.ID, d.artefactID)
	if errors.Is(err, connectclient.ErrNotFound) {
		// The device was there a moment ago, so it is the artefact that is not.
		return lifecycle.Observation{}, errors.Join(err, lifecycle.Waiting(v1alpha1.ReasonArtefactNotReady,
			"Waiting for an artefact with the id %q to be in the organisation.", d.artefactID).LookAgain(d.polls.max))
	}
	if err != nil {
		return lifecycle.Observation{}, err
	}
	d.hurryOthers(ctx)
	return d.report(ctx, made)
}

// hurryOthers has the other deployments to the device looked at: the new one has
// taken the place of one that was pending.
func (d *deployment) hurryOthers(ctx context.Context) {
	var others v1alpha1.DeploymentList
	if err := d.client.List(ctx, &others, client.MatchingFields{indexDevice: d.device.ID}); err != nil {
		return // their own turn will come
	}
	for i := range others.Items {
		if name := client.ObjectKeyFromObject(&others.Items[i]); name != d.conn.Resource {
			d.polls.due(d.conn.Token, name)
		}
	}
}

// Update cancels: there is nothing else that can be changed of a deployment.
func (d *deployment) Update(ctx context.Context, id string) (lifecycle.Observation, error) {
	cancelled, err := d.conn.Client.Deployments.Cancel(ctx, id)
	if err == nil {
		d.cancelled = true
		return d.report(ctx, cancelled)
	}
	if !errors.Is(err, connectclient.ErrNotCancellable) {
		return lifecycle.Observation{}, err
	}
	// It has moved on meanwhile, or is past stopping: look where it is.
	seen, err := d.conn.Client.Deployments.Get(connectclient.WithPriority(ctx, budget.Urgent), id)
	if err != nil {
		return lifecycle.Observation{}, err
	}
	if seen.State == connectclient.DeploymentInProgress {
		meta.SetStatusCondition(&d.obj.Status.Conditions, metav1.Condition{
			Type: v1alpha1.ConditionSynced, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonInProgress,
			Message:            "Connect cannot cancel the deployment any more, because the device is installing it.",
			ObservedGeneration: d.obj.Generation,
		})
	}
	return d.report(ctx, seen)
}

// Delete cancels what no device has picked up yet. Everything else has happened.
func (d *deployment) Delete(ctx context.Context, id string) error {
	d.polls.forget(d.conn.Resource)
	if state := stateOf(d.obj); state != "" && state != connectclient.DeploymentPending {
		return nil
	}
	_, err := d.conn.Client.Deployments.Cancel(ctx, id)
	if errors.Is(err, connectclient.ErrNotFound) || errors.Is(err, connectclient.ErrInvalid) {
		return nil
	}
	return err
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
