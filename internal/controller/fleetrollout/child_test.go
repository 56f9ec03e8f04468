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

// One that another one had kept from beginning, and that has begun since, is at work, whatever its status
// still says.
func TestAClaimedDeploymentThatHasBegun(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		annotations map[string]string
		id          string
		want        state
	}{
		"has not":                               {nil, "", overridden},
		"has asked for a deployment":            {map[string]string{v1alpha1.AnnotationCreateIntent: `{"at":"2026-03-01T12:00:00Z","uid":"mine"}`}, "", pending},
		"may have asked before":                 {map[string]string{v1alpha1.AnnotationUnanswered: `[{"at":"2026-03-01T12:00:00Z","uid":"mine"}]`}, "", pending},
		"has a deployment":                      {map[string]string{v1alpha1.AnnotationID: "d1"}, "", pending},
		"has one that another one had before":   {map[string]string{v1alpha1.AnnotationID: "d1"}, "d1", overridden},
		"has an annotation of another resource": {map[string]string{v1alpha1.AnnotationCreateIntent: `{"at":"2026-03-01T12:00:00Z","uid":"its"}`}, "", overridden},
	} {
		t.Run(name, func(t *testing.T) {
			obj := &v1alpha1.Deployment{ObjectMeta: metav1.ObjectMeta{
				UID: "mine", CreationTimestamp: metav1.NewTime(now), Annotations: test.annotations,
				Labels: map[string]string{v1alpha1.LabelRevision: "1", v1alpha1.LabelAttempt: "1"},
			}}
			obj.Spec.Device.ID, obj.Status.ID = "device", test.id
			meta.SetStatusCondition(&obj.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonAlreadyClaimed})
			c, ok := readChild(obj, deadlinesOf(&v1alpha1.FleetRolloutSpec{}), func(*v1alpha1.Deployment, bool) *v1alpha1.Deployment { return nil }, now)
			if !ok || c.state != test.want {
				t.Fatalf("counts as %+v, want the state %d", c, test.want)
			}
		})
	}
}

// Where a Deployment is, by what it says of itself.
func TestWhereADeploymentIs(t *testing.T) {
	const made, ended = -30 * time.Minute, -10 * time.Minute // before now
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	cancelled := func(obj *v1alpha1.Deployment) { obj.Spec.Cancel = true }
	annotated := func(obj *v1alpha1.Deployment) {
		obj.Annotations = map[string]string{v1alpha1.AnnotationWithdrawn: "true"}
	}
	stalled := func(reason string) func(*v1alpha1.Deployment) {
		return func(obj *v1alpha1.Deployment) {
			meta.SetStatusCondition(&obj.Status.Conditions, metav1.Condition{
				Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: reason, LastTransitionTime: metav1.NewTime(now.Add(ended)),
			})
		}
	}
	over := func(outcome v1alpha1.DeploymentOutcome) func(*v1alpha1.Deployment) {
		return func(obj *v1alpha1.Deployment) {
			obj.Status.Outcome = outcome
			stalled(string(outcome))(obj)
		}
	}
	is := func(state string) func(*v1alpha1.Deployment) {
		return func(obj *v1alpha1.Deployment) { obj.Status.State = state }
	}
	all := func(changes ...func(*v1alpha1.Deployment)) func(*v1alpha1.Deployment) {
		return func(obj *v1alpha1.Deployment) {
			for _, change := range changes {
				change(obj)
			}
		}
	}
	for name, test := range map[string]struct {
		it    func(*v1alpha1.Deployment)
		want  state
		since time.Duration // before now; 0: nobody knows
	}{
		"it waits to be made":                                {func(*v1alpha1.Deployment) {}, pending, 0},
		"it waits for its device":                            {is("pending"), pending, made},
		"it is being installed":                              {is("in_progress"), inProgress, made},
		"it has succeeded":                                   {over(v1alpha1.DeploymentSucceeded), succeeded, ended},
		"it has failed":                                      {over(v1alpha1.DeploymentFailed), failed, ended},
		"its device never reported back":                     {over(v1alpha1.DeploymentDeadlineExceeded), failed, ended},
		"another one took its place":                         {over(v1alpha1.DeploymentSuperseded), overridden, ended},
		"somebody cancelled it in Connect":                   {over(v1alpha1.DeploymentCancelled), overridden, ended},
		"a user cancelled it":                                {all(cancelled, over(v1alpha1.DeploymentCancelled)), overridden, ended},
		"somebody cancelled it that was held":                {all(annotated, over(v1alpha1.DeploymentCancelled)), overridden, ended},
		"the rollout withdrew it":                            {all(annotated, cancelled, over(v1alpha1.DeploymentCancelled)), withdrawn, ended},
		"the rollout withdraws it":                           {all(annotated, cancelled, is("pending")), pending, made},
		"the rollout withdrew it before it was made":         {all(annotated, cancelled, stalled(v1alpha1.ReasonCancelled)), withdrawn, ended},
		"a user cancelled it before it was made":             {all(cancelled, stalled(v1alpha1.ReasonCancelled)), overridden, ended},
		"the rollout withdraws it before it was made":        {all(annotated, cancelled), pending, 0},
		"its device is not made for the artefact":            {stalled(v1alpha1.ReasonIncompatible), incompatible, ended},
		"its device is gone":                                 {stalled(v1alpha1.ReasonNotFound), failed, ended},
		"Connect refuses it":                                 {stalled(v1alpha1.ReasonInvalid), failed, ended},
		"it waits for a person":                              {stalled(v1alpha1.ReasonBillingRequired), pending, 0},
		"its device has not picked it up in time":            {all(is("pending"), func(obj *v1alpha1.Deployment) { obj.CreationTimestamp = metav1.NewTime(now.Add(-2 * time.Hour)) }), deferred, -2 * time.Hour},
		"it is withdrawn from a device that is out of touch": {all(annotated, cancelled, is("pending"), func(obj *v1alpha1.Deployment) { obj.CreationTimestamp = metav1.NewTime(now.Add(-2 * time.Hour)) }), pending, -2 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			obj := &v1alpha1.Deployment{}
			obj.CreationTimestamp = metav1.NewTime(now.Add(made))
			test.it(obj)
			got, since := stateOf(obj, time.Hour, now)
			if want := now.Add(test.since); got != test.want || test.since == 0 && !since.IsZero() || test.since != 0 && !since.Equal(want) {
				t.Errorf("it is %d since %s, want %d since %s", got, since, test.want, test.since)
			}
		})
	}
}

// A Deployment whose labels or device somebody has spoilt is none of the rollout's.
func TestReadChild(t *testing.T) {
	for name, test := range map[string]struct {
		revision, attempt, device string
		want                      bool
	}{
		"it is as it was made":  {"3", "2", "d1", true},
		"without a revision":    {"", "2", "d1", false},
		"with another revision": {"three", "2", "d1", false},
		"without an attempt":    {"3", "", "d1", false},
		"with another attempt":  {"3", "second", "d1", false},
		"without a device":      {"3", "2", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			obj := &v1alpha1.Deployment{}
			obj.Labels = map[string]string{v1alpha1.LabelRevision: test.revision, v1alpha1.LabelAttempt: test.attempt, v1alpha1.LabelBatch: "canary"}
			obj.Spec.Device.ID = test.device
			c, ok := readChild(obj, deadlines{}, nil, epoch)
			if ok != test.want || ok && (c.revision != 3 || c.attempt != 2 || c.device != "d1" || c.batch != "canary") {
				t.Errorf("it is read: %t, %+v", ok, c)
			}
		})
	}
}

// Who has overridden a Deployment is named as people know it.
func TestWhoHasOverriddenADeployment(t *testing.T) {
	obj := &v1alpha1.Deployment{}
	obj.Labels = map[string]string{v1alpha1.LabelRevision: "1", v1alpha1.LabelAttempt: "1"}
	obj.Spec.Device.ID, obj.Status.Outcome = "d1", v1alpha1.DeploymentSuperseded
	byHand, ofRollout := &v1alpha1.Deployment{}, &v1alpha1.Deployment{}
	byHand.Name, ofRollout.Name = "hotfix", "signs-1-abcdefghij-1"
	ofRollout.Labels = map[string]string{v1alpha1.LabelRollout: "signs"}
	for want, other := range map[string]*v1alpha1.Deployment{
		"somebody in Connect": nil, "the Deployment hotfix": byHand, "the FleetRollout signs": ofRollout,
	} {
		c, _ := readChild(obj, deadlines{}, func(*v1alpha1.Deployment, bool) *v1alpha1.Deployment { return other }, epoch)
		if c.by != want {
			t.Errorf("it is %q, want %q", c.by, want)
		}
	}
}

// Why a device has failed is said in the words of whoever knows it best.
func TestWhyADeviceHasFailed(t *testing.T) {
	stalled := []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonInvalid, Message: "Connect refuses the spec."}}
	for want, status := range map[string]v1alpha1.DeploymentStatus{
		"does not boot": {Outcome: v1alpha1.DeploymentFailed, StateReason: "does not boot"},
		"did not report back within deadlines.inProgress": {Outcome: v1alpha1.DeploymentDeadlineExceeded, StateReason: "installing"},
		"Connect refuses the spec.":                       {CommonStatus: v1alpha1.CommonStatus{Conditions: stalled}},
		"Connect gives no reason":                         {Outcome: v1alpha1.DeploymentFailed, CommonStatus: v1alpha1.CommonStatus{Conditions: stalled}},
	} {
		if got := (&child{obj: &v1alpha1.Deployment{Status: status}}).failureReason(); got != want {
			t.Errorf("it is said: %q, want %q", got, want)
		}
	}
	if got := (&child{obj: &v1alpha1.Deployment{}}).failureReason(); got != "Connect gives no reason" {
		t.Errorf("of one that says nothing it is said: %q", got)
	}
}

// The name of a Deployment says which rollout, revision and attempt it is of, and whether it goes back.
func TestNamesOfDeployments(t *testing.T) {
	o := order{device: testDevice(1), revision: 3, batch: v1alpha1.BatchRest, attempt: 2}
	hash := deviceHash(o.device.ID)
	if got := o.name("kiosk"); got != "kiosk-3-"+hash+"-2" {
		t.Error(got)
	}
	if o.batch = v1alpha1.BatchRollback; o.name("kiosk") != "kiosk-3-"+hash+"-back-2" {
		t.Error(o.name("kiosk"))
	}
}

// A device is offline, and somebody else's deployment of the old artefact waits for it: the rollout
// cannot cancel that one, and does not wait for it either, unless its own may begin when that one goes.
func TestANewRevisionTakesThePlaceOfAnothersDeployment(t *testing.T) {
	const mirrored = v1alpha1.ReasonAlreadyClaimed
	for name, test := range map[string]struct {
		others string // the state of somebody else's
		reason string // why the rollout's own does not go ahead
		held   bool
		want   int
	}{
		"it waits for its device":                                 {"pending", mirrored, true, 1},
		"it is being installed":                                   {"in_progress", mirrored, true, 0},
		"it waits, and the rollout's own is not held yet":         {"pending", mirrored, false, 0},
		"there is none, and the rollout's own is going":           {"", "", true, 0},
		"there is none, and the rollout's own waits for a person": {"", v1alpha1.ReasonBillingRequired, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, 1)
			f.reconcile()
			f.edit(func(s *v1alpha1.FleetRolloutSpec) { s.ArtefactRef.Name = "v2" })
			f.rollout.Status = f.plan().status // revision 2 has begun
			f.now = f.now.Add(24 * time.Hour)
			other := &v1alpha1.Deployment{}
			other.CreationTimestamp = metav1.NewTime(epoch)
			other.Status.State = test.others
			in := input{rollout: f.rollout, devices: f.devices, now: f.now}
			for _, obj := range f.children {
				obj.Status = v1alpha1.DeploymentStatus{}
				if test.held {
					obj.Annotations = map[string]string{v1alpha1.AnnotationWithdrawn: "true"}
				}
				if test.reason != "" {
					meta.SetStatusCondition(&obj.Status.Conditions, metav1.Condition{
						Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: test.reason, ObservedGeneration: obj.Generation,
					})
				}
				c, _ := readChild(obj, deadlinesOf(&f.rollout.Spec), func(*v1alpha1.Deployment, bool) *v1alpha1.Deployment { return other }, f.now)
				in.children = append(in.children, c)
			}
			got := makePlan(in)
			if len(got.create) != test.want {
				t.Errorf("%d Deployments are made, want %d: %s %+v", len(got.create), test.want, got.status.Phase, got.status.Devices)
			}
			if test.reason == mirrored && len(got.withdraw) > 0 {
				t.Error("another's deployment is cancelled")
			}
			if held := len(got.hold) == 1; held != (test.reason == mirrored && !test.held) {
				t.Errorf("it is held: %t", held)
			}
		})
	}
}
