// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"errors"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/connectclient/budget"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
)

// toBeCancelled tells whether there is a reason to cancel a deployment that, as far as it was seen,
// can still be cancelled.
func (e *external) toBeCancelled() bool {
	if e.obj.Status.Outcome != "" {
		return false
	}
	switch stateOf(e.obj) {
	case connectclient.DeploymentPending:
		return e.obj.Spec.Cancel || e.deadlineOver()
	case connectclient.DeploymentInProgress:
		return e.obj.Spec.Cancel && !e.cancelRefused()
	default:
		return false
	}
}

// cancelRefused tells whether Connect has refused to cancel this very spec's deployment, which is in
// progress.
func (e *external) cancelRefused() bool {
	synced := meta.FindStatusCondition(e.obj.Status.Conditions, v1alpha1.ConditionSynced)
	return synced != nil && synced.Status == metav1.ConditionFalse && synced.ObservedGeneration == e.obj.Generation
}

// Update implements [lifecycle.Updater]: it cancels. There is nothing else that can be changed of a
// deployment.
func (e *external) Update(ctx context.Context, id string) (lifecycle.Observation, error) {
	cancelled, err := e.conn.Client.Deployments().Cancel(ctx, id)
	if err == nil {
		e.cancelled = true
		return e.report(ctx, lifecycle.Mine, cancelled)
	}
	if !errors.Is(err, connectclient.ErrNotCancellable) {
		return lifecycle.Observation{}, err
	}
	// It has moved on meanwhile, or is past stopping: look where it is.
	seen, err := e.conn.Client.Deployments().Get(connectclient.WithPriority(ctx, budget.Urgent), id)
	if err != nil {
		return lifecycle.Observation{}, err
	}
	if seen.State == connectclient.DeploymentInProgress {
		meta.SetStatusCondition(&e.obj.Status.Conditions, metav1.Condition{
			Type: v1alpha1.ConditionSynced, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonInProgress,
			Message:            "Connect cannot cancel the deployment any more, because the device is installing it.",
			ObservedGeneration: e.obj.Generation,
		})
	}
	observation, err := e.report(ctx, lifecycle.Mine, seen)
	if err == nil && observation.Outdated {
		observation.Outcome = observation.Outcome.WithBackoff() // Connect contradicts itself
	}
	return observation, err
}

// Delete implements [lifecycle.Deleter]: it cancels what no device has picked up yet. Everything
// else has happened.
func (e *external) Delete(ctx context.Context, id string) (lifecycle.Deletion, error) {
	e.polls.forget(e.conn.Waiter.Resource)
	if state := stateOf(e.obj); state != "" && state != connectclient.DeploymentPending {
		return lifecycle.AlreadyGone(), nil
	}
	_, err := e.conn.Client.Deployments().Cancel(ctx, id)
	switch {
	case errors.Is(err, connectclient.ErrNotFound):
		return lifecycle.AlreadyGone(), nil
	case errors.Is(err, connectclient.ErrNotCancellable):
		return e.refusedCancel(ctx, id)
	case err != nil:
		return lifecycle.Deletion{}, err
	}
	return lifecycle.Removed(v1alpha1.ReasonCancelled, "Cancelled the deployment "+id+"."), nil
}

// refusedCancel looks why a deployment cannot be cancelled: it has moved on, or a device could still
// pick it up.
func (e *external) refusedCancel(ctx context.Context, id string) (lifecycle.Deletion, error) {
	seen, err := e.conn.Client.Deployments().Get(connectclient.WithPriority(ctx, budget.Urgent), id)
	switch {
	case errors.Is(err, connectclient.ErrNotFound):
		return lifecycle.AlreadyGone(), nil
	case err != nil:
		return lifecycle.Deletion{}, err
	case seen.State != connectclient.DeploymentPending:
		return lifecycle.AlreadyGone(), nil
	}
	pending := lifecycle.Waiting(v1alpha1.ReasonDeleting, "Connect refuses to cancel the deployment, which no device has picked up yet; the operator keeps trying.").WithBackoff()
	return lifecycle.Deletion{Pending: &pending}, nil
}
