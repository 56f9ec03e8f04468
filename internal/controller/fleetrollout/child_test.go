// SPDX-License-Identifier: Apache-2.0

package fleetrollout

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// A Deployment of the rollout that finds another one of the same artefact on its device counts as that
// one does; when that one is gone, or was withdrawn, its device has to begin anew, in its turn.
func TestAnotherDeploymentOnTheDevice(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ofState := func(state string) *v1alpha1.Deployment {
		other := &v1alpha1.Deployment{}
		other.CreationTimestamp = metav1.NewTime(now)
		other.Status.State = state
		return other
	}
	withdrawnOne := ofState("cancelled")
	withdrawnOne.Annotations = map[string]string{v1alpha1.AnnotationWithdrawn: "true"}
	withdrawnOne.Spec.Cancel = true
	withdrawnOne.Status.Outcome = v1alpha1.DeploymentCancelled
	failedOne := ofState("failed")
	failedOne.Status.Outcome = v1alpha1.DeploymentFailed

	for name, test := range map[string]struct {
		other *v1alpha1.Deployment
		held  bool
		want  state
	}{
		"is pending":                               {ofState("pending"), true, pending},
		"is in progress":                           {ofState("in_progress"), true, inProgress},
		"has failed":                               {failedOne, true, failed},
		"was withdrawn, and this one waits":        {withdrawnOne, true, withdrawn},
		"is gone for long, and this one waits":     {nil, true, withdrawn},
		"was withdrawn, and this one may go ahead": {withdrawnOne, false, pending},
		"is gone for long":                         {nil, false, pending},
		"is not to be found":                       {nil, true, overridden},
	} {
		t.Run("it "+name, func(t *testing.T) {
			c := &child{obj: &v1alpha1.Deployment{}}
			c.obj.CreationTimestamp = metav1.NewTime(now)
			if strings.Contains(name, "for long") {
				c.obj.CreationTimestamp = metav1.NewTime(now.Add(-2 * time.Hour))
			}
			if test.held {
				c.obj.Annotations = map[string]string{v1alpha1.AnnotationWithdrawn: "true"}
			}
			c.mirror(test.other, time.Hour, now)
			if c.state != test.want {
				t.Errorf("counts as %d, not as %d", c.state, test.want)
			}
			p := &planner{input: input{children: []*child{c}}}
			if p.holdMirrored(); (len(p.hold) == 1) == test.held {
				t.Errorf("%d are to be held", len(p.hold))
			}
		})
	}
}
