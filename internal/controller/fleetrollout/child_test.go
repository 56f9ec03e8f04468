// SPDX-License-Identifier: Apache-2.0

package fleetrollout

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
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

// A device is offline, and somebody else's deployment of the old artefact waits for it: the rollout
// cannot cancel that one, and does not wait for it either.
func TestANewRevisionTakesThePlaceOfAnothersDeployment(t *testing.T) {
	for others, want := range map[string]int{"pending": 1, "in_progress": 0} {
		t.Run(others, func(t *testing.T) {
			f := newFleet(t, 1)
			f.reconcile()
			f.edit(func(s *v1alpha1.FleetRolloutSpec) { s.ArtefactRef.Name = "v2" })
			f.rollout.Status = f.plan().status // revision 2 has begun
			f.now = f.now.Add(24 * time.Hour)
			other := &v1alpha1.Deployment{}
			other.CreationTimestamp = metav1.NewTime(epoch)
			other.Status.State = others
			in := input{rollout: f.rollout, devices: f.devices, now: f.now}
			for _, obj := range f.children {
				obj.Status = v1alpha1.DeploymentStatus{}
				obj.Annotations = map[string]string{v1alpha1.AnnotationWithdrawn: "true"}
				meta.SetStatusCondition(&obj.Status.Conditions, metav1.Condition{
					Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonAlreadyClaimed, ObservedGeneration: obj.Generation,
				})
				c, _ := readChild(obj, deadlinesOf(&f.rollout.Spec), func(*v1alpha1.Deployment, bool) *v1alpha1.Deployment { return other }, f.now)
				in.children = append(in.children, c)
			}
			if got := makePlan(in); len(got.create) != want {
				t.Errorf("%d Deployments are made, want %d: %s %+v", len(got.create), want, got.status.Phase, got.status.Devices)
			}
		})
	}
}
