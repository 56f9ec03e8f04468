// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/connectclient/budget"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
)

// unsuccessful says how a deployment ended that did not succeed.
func (d *deployment) unsuccessful(ctx context.Context, seen *connectclient.Deployment) (lifecycle.Verdict, error) {
	if d.cancelled {
		return ending(d.obj.Spec, seen, false, d.obj.Spec.PendingDeadline != nil), nil
	}
	superseded, err := d.superseded(ctx, seen)
	if err != nil {
		return lifecycle.Verdict{}, err
	}
	return ending(d.obj.Spec, seen, superseded, overdue(d.obj.Spec, seen)), nil
}

// overdue tells whether the deployment ended after its deadline: if so, an earlier
// pass has cancelled it without living to say so.
func overdue(spec v1alpha1.DeploymentSpec, seen *connectclient.Deployment) bool {
	return spec.PendingDeadline != nil && !seen.UpdatedAt.Before(seen.CreatedAt.Add(spec.PendingDeadline.Duration))
}

// ending is the verdict on a deployment that failed or was cancelled. Nobody
// looks at it again, so it says all there is to say.
func ending(spec v1alpha1.DeploymentSpec, seen *connectclient.Deployment, superseded, overdue bool) lifecycle.Verdict {
	const again = "To deploy again, create a new Deployment."
	var verdict lifecycle.Verdict
	switch {
	case superseded:
		verdict = lifecycle.Stalled(v1alpha1.ReasonSuperseded, "A newer deployment to the same device took its place before the device picked it up.")
	case seen.State == connectclient.DeploymentFailed:
		verdict = lifecycle.Stalled(v1alpha1.ReasonFailed, "The deployment failed: %s. %s", orUnsaid(seen.StateReason), again)
	case overdue && !spec.Cancel:
		verdict = lifecycle.Stalled(v1alpha1.ReasonDeadlineExceeded, "No device picked the deployment up within spec.pendingDeadline, %s, so it was cancelled. %s", duration.HumanDuration(spec.PendingDeadline.Duration), again)
	default:
		verdict = lifecycle.Stalled(v1alpha1.ReasonCancelled, "The deployment was cancelled. %s", again)
	}
	return verdict.LookAgain(0)
}

func orUnsaid(reason string) string {
	if reason == "" {
		return "Connect gives no reason"
	}
	return strings.TrimRight(reason, ".")
}

// superseded tells whether the deployment ended because a newer one for the same
// device took its place. The API's pages disagree on what it is called then, so
// what counts is the device's list of deployments.
func (d *deployment) superseded(ctx context.Context, seen *connectclient.Deployment) (bool, error) {
	if d.obj.Status.State == string(connectclient.DeploymentInProgress) {
		return false, nil // only what is pending can be superseded
	}
	all, err := d.conn.Client.Deployments.Newest(connectclient.WithPriority(ctx, budget.Poll), seen.DeviceID)
	if errors.Is(err, connectclient.ErrNotFound) {
		return false, nil // the device is gone, and its deployments with it
	}
	if err != nil {
		return false, err
	}
	return supersededBy(seen, all), nil
}

// supersededBy tells whether a deployment ended at the moment when its successor
// in its device's list, which has the newest first, was made. One that ended
// earlier or later came to its own end. Where the API does not note when it ended,
// that there is a successor has to do.
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
