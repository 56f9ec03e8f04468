// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/connectclient/budget"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
)

// longPending is after how long a deployment that no device has picked up is wondered about.
const longPending = time.Hour

// runningOutcome is what to say of a deployment that is not over, by what was seen of it last.
func runningOutcome(obj *v1alpha1.Deployment, now time.Time) lifecycle.Outcome {
	switch stateOf(obj) {
	case connectclient.DeploymentPending:
		outcome := lifecycle.Waiting(v1alpha1.ReasonPending, "The deployment waits for the device to pick it up.")
		if since := pendingSince(obj, now); now.Sub(since) >= longPending {
			outcome.Message = "The deployment has been waiting for the device to pick it up for more than an hour: the device is offline, or remote update is not turned on there (package rpi-connect-ota, then rpi-connect ota on)."
		}
		return outcome.WithRequeueAfter(left(obj.Spec.PendingDeadline, pendingSince(obj, now), now))
	case connectclient.DeploymentInProgress:
		return lifecycle.Waiting(v1alpha1.ReasonInProgress, "The device is installing the artefact.").
			WithRequeueAfter(left(obj.Spec.InProgressDeadline, notLater(obj.Status.UpdatedAt, now), now))
	default:
		return lifecycle.Waiting(v1alpha1.ReasonInProgress, "Connect says that the deployment is %q.", obj.Status.State)
	}
}

// pendingSince is when the deployment began to wait for its device: when it was made, or when the
// resource was that took it over.
func pendingSince(obj *v1alpha1.Deployment, now time.Time) time.Time {
	made := notLater(obj.Status.CreatedAt, now)
	if created := obj.CreationTimestamp.Time; created.After(made) && !created.After(now) {
		return created
	}
	return made
}

// notLater is a time of another machine's clock, which may be ahead of ours.
func notLater(at *metav1.Time, now time.Time) time.Time {
	if at.IsZero() || at.After(now) {
		return now
	}
	return at.Time
}

// left is how long a deadline is still to come; 0 if there is none, or it is over.
func left(deadline *metav1.Duration, since, now time.Time) time.Duration {
	if deadline == nil {
		return 0
	}
	return max(0, since.Add(deadline.Duration).Sub(now))
}

// deadlineOver tells whether a deadline of the state that was seen last is over.
func (e *external) deadlineOver() bool {
	now := e.clock.Now()
	switch stateOf(e.obj) {
	case connectclient.DeploymentPending:
		return e.obj.Spec.PendingDeadline != nil && left(e.obj.Spec.PendingDeadline, pendingSince(e.obj, now), now) == 0
	case connectclient.DeploymentInProgress:
		return e.obj.Spec.InProgressDeadline != nil && left(e.obj.Spec.InProgressDeadline, notLater(e.obj.Status.UpdatedAt, now), now) == 0
	default:
		return false
	}
}

// sinceUpdate is how long the state has not changed, as far as Connect says.
func (e *external) sinceUpdate() time.Duration {
	now := e.clock.Now()
	return now.Sub(notLater(e.obj.Status.UpdatedAt, now))
}

const again = "To deploy again, create a new Deployment."

// terminalOutcome is what to say of a deployment that is over. Nobody looks at it again, so it says
// all there is to say.
func terminalOutcome(obj *v1alpha1.Deployment) lifecycle.Outcome {
	var outcome lifecycle.Outcome
	switch obj.Status.Outcome {
	case v1alpha1.DeploymentSucceeded:
		outcome = lifecycle.Ready(v1alpha1.ReasonSucceeded, "The device reports success: the script has ended well, or the new image has booted.")
		if obj.Status.Adopted {
			outcome.Message = "The device had reported success with this artefact before, so nothing was deployed. To deploy it again, create a Deployment with spec.force: true."
		}
	case v1alpha1.DeploymentSuperseded:
		outcome = lifecycle.Stalled(v1alpha1.ReasonSuperseded, "A newer deployment to the same device took its place before the device picked it up.")
	case v1alpha1.DeploymentFailed:
		outcome = lifecycle.Stalled(v1alpha1.ReasonFailed, "The deployment failed: %s. %s", orUnsaid(obj.Status.StateReason), again)
	case v1alpha1.DeploymentDeadlineExceeded:
		outcome = deadlineExceeded(obj)
	case v1alpha1.DeploymentCancelled:
		outcome = lifecycle.Stalled(v1alpha1.ReasonCancelled, "The deployment was cancelled. %s", again)
	}
	return outcome.WithRequeueAfter(0)
}

func deadlineExceeded(obj *v1alpha1.Deployment) lifecycle.Outcome {
	if stateOf(obj) == connectclient.DeploymentInProgress {
		return lifecycle.Stalled(v1alpha1.ReasonDeadlineExceeded,
			"The device began to install the artefact and did not report back within spec.inProgressDeadline%s. Connect cannot cancel what a device has begun, so it may still finish. %s", within(obj.Spec.InProgressDeadline), again)
	}
	return lifecycle.Stalled(v1alpha1.ReasonDeadlineExceeded,
		"No device picked the deployment up within spec.pendingDeadline%s, so it was cancelled. %s", within(obj.Spec.PendingDeadline), again)
}

// within is a deadline as a part of a sentence.
func within(deadline *metav1.Duration) string {
	if deadline == nil {
		return ""
	}
	return ", " + duration.HumanDuration(deadline.Duration)
}

func orUnsaid(reason string) string {
	if reason == "" {
		return "Connect gives no reason"
	}
	return strings.TrimRight(reason, ".")
}

// outcome tells how a deployment has ended, as it was just seen; empty if it has not. A deployment
// that was superseded by what an earlier request of this resource has made too late is continued by
// that one.
func (e *external) outcome(ctx context.Context, seen *connectclient.Deployment) (v1alpha1.DeploymentOutcome, *connectclient.Deployment, error) {
	switch seen.State {
	case connectclient.DeploymentSucceeded:
		return v1alpha1.DeploymentSucceeded, nil, nil
	case connectclient.DeploymentFailed, connectclient.DeploymentCancelled:
		return e.unsuccessful(ctx, seen)
	case connectclient.DeploymentInProgress:
		now, since := e.clock.Now(), metav1.NewTime(seen.UpdatedAt)
		if deadline := e.obj.Spec.InProgressDeadline; deadline != nil && left(deadline, notLater(&since, now), now) == 0 {
			return v1alpha1.DeploymentDeadlineExceeded, nil, nil
		}
		return "", nil, nil
	default:
		return "", nil, nil
	}
}

func (e *external) unsuccessful(ctx context.Context, seen *connectclient.Deployment) (v1alpha1.DeploymentOutcome, *connectclient.Deployment, error) {
	overdue := overdue(e.obj, seen, e.clock.Now())
	if e.cancelled {
		return endOutcome(e.obj.Spec, seen, false, e.obj.Spec.PendingDeadline != nil), nil, nil
	}
	if e.obj.Status.State == string(connectclient.DeploymentInProgress) {
		return endOutcome(e.obj.Spec, seen, false, overdue), nil, nil // only what is pending can be superseded
	}
	all, err := e.history(ctx, seen.DeviceID)
	if errors.Is(err, connectclient.ErrNotFound) {
		return endOutcome(e.obj.Spec, seen, false, overdue), nil, nil // the device is gone, and its deployments with it
	}
	if err != nil {
		return "", nil, err
	}
	superseded := supersededBy(seen, all)
	if superseded {
		if late, err := e.lateEffect(ctx, all, seen); err != nil || late != nil {
			return "", late, err
		}
	}
	return endOutcome(e.obj.Spec, seen, superseded, overdue), nil, nil
}

// overdue tells whether the deployment ended after its deadline: if so, an earlier pass has
// cancelled it without living to say so.
func overdue(obj *v1alpha1.Deployment, seen *connectclient.Deployment, now time.Time) bool {
	since := seen.CreatedAt
	if created := obj.CreationTimestamp.Time; created.After(since) && !created.After(now) {
		since = created
	}
	deadline := obj.Spec.PendingDeadline
	return deadline != nil && !seen.UpdatedAt.Before(since.Add(deadline.Duration))
}

// endOutcome is the outcome of a deployment that failed or was cancelled.
func endOutcome(spec v1alpha1.DeploymentSpec, seen *connectclient.Deployment, superseded, overdue bool) v1alpha1.DeploymentOutcome {
	switch {
	case superseded:
		return v1alpha1.DeploymentSuperseded
	case seen.State == connectclient.DeploymentFailed:
		return v1alpha1.DeploymentFailed
	case overdue && !spec.Cancel:
		return v1alpha1.DeploymentDeadlineExceeded
	default:
		return v1alpha1.DeploymentCancelled
	}
}

// history returns all of the device's deployments, the newest first.
func (e *external) history(ctx context.Context, deviceID string) ([]connectclient.Deployment, error) {
	return e.conn.Client.Deployments().History(connectclient.WithPriority(ctx, budget.Poll), deviceID)
}

// supersededBy tells whether a deployment ended at the moment when its successor in its device's
// list, which has the newest first, was made. One that ended earlier or later came to its own end.
// Where the API does not note when it ended, that there is a successor has to do.
func supersededBy(seen *connectclient.Deployment, all []connectclient.Deployment) bool {
	const sameMoment = 5 * time.Second
	at := slices.IndexFunc(all, func(d connectclient.Deployment) bool { return d.ID == seen.ID })
	if at <= 0 {
		return false
	}
	if !seen.UpdatedAt.After(seen.CreatedAt) {
		return true
	}
	return all[at-1].CreatedAt.Sub(seen.UpdatedAt).Abs() <= sameMoment
}
