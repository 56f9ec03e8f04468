// SPDX-License-Identifier: Apache-2.0

package fleetrollout

import (
	"context"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
)

// newPass is a look at a rollout of two devices, one of which has its Deployment.
func newPass(t *testing.T) *pass {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, appsv1.AddToScheme, metav1.AddMetaToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	f := newFleet(t, 2)
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(f.rollout).
		WithIndex(&v1alpha1.Deployment{}, indexDevice, func(client.Object) []string { return nil }).
		Build()
	p := &pass{controller: &controller{Options: Options{Client: c, Live: c, Clock: clocktesting.NewFakePassiveClock(epoch)}, ledger: newLedger()}, obj: f.rollout}
	p.ledger.entries(client.ObjectKeyFromObject(p.obj)).compared = true
	p.make(t, f, 0)
	return p
}

func (p *pass) make(t *testing.T, f *fleet, device int) {
	t.Helper()
	o := order{device: f.devices[device], revision: 1, batch: v1alpha1.BatchRest, attempt: 1, artefact: artefactRef{name: "v1"}}
	if _, err := p.carryOut(t.Context(), nil, plan{create: []order{o}}); err != nil {
		t.Fatal(err)
	}
}

// look is a pass that changes nothing else.
func (p *pass) look(t *testing.T) {
	t.Helper()
	children, _, err := p.children(t.Context())
	if err == nil {
		_, err = p.carryOut(t.Context(), children, plan{})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (p *pass) policies(t *testing.T) (policies []v1alpha1.DeletionPolicy) {
	t.Helper()
	var list v1alpha1.DeploymentList
	if err := p.Live.List(t.Context(), &list); err != nil {
		t.Fatal(err)
	}
	for _, d := range list.Items {
		policies = append(policies, d.Spec.DeletionPolicy)
	}
	return policies
}

// What shall become of unfinished deployments when the rollout goes is said to each Deployment that has
// not ended, whatever has come between the edit and the next plan.
func TestTheDeletionPolicyReachesEveryDeployment(t *testing.T) {
	all := func(t *testing.T, p *pass, want v1alpha1.DeletionPolicy) {
		t.Helper()
		for _, policy := range p.policies(t) {
			if policy != want {
				t.Errorf("a Deployment has the policy %q, want %q", policy, want)
			}
		}
	}
	orphan := func(p *pass) {
		p.obj.Spec.DeletionPolicy = v1alpha1.DeletionPolicyOrphan
		p.obj.Generation++
	}
	t.Run("after an edit, and after it is taken back", func(t *testing.T) {
		p := newPass(t)
		p.look(t)
		all(t, p, "")
		orphan(p)
		p.look(t)
		all(t, p, v1alpha1.DeletionPolicyOrphan)
		p.obj.Spec.DeletionPolicy = v1alpha1.DeletionPolicyDelete
		p.look(t)
		all(t, p, "")
	})
	t.Run("after an edit that was noted as seen in an outage", func(t *testing.T) {
		p := newPass(t)
		orphan(p)
		lifecycle.SetOutcome(p.obj, lifecycle.Waiting(v1alpha1.ReasonThrottled, "The budget is spent."))
		p.look(t)
		all(t, p, v1alpha1.DeletionPolicyOrphan)
	})
	t.Run("also to one that the cache does not show yet", func(t *testing.T) {
		p := newPass(t)
		p.Client = interceptor.NewClient(p.Client.(client.WithWatch), interceptor.Funcs{
			List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error { return nil },
		})
		orphan(p)
		p.look(t)
		all(t, p, v1alpha1.DeletionPolicyOrphan)
	})
	t.Run("and not to one that has ended", func(t *testing.T) {
		p := newPass(t)
		var list v1alpha1.DeploymentList
		if err := p.Client.List(t.Context(), &list); err != nil {
			t.Fatal(err)
		}
		list.Items[0].Status.Outcome = v1alpha1.DeploymentSucceeded
		if err := p.Client.Update(t.Context(), &list.Items[0]); err != nil {
			t.Fatal(err)
		}
		orphan(p)
		p.look(t)
		all(t, p, "")
	})
}

// The rollout is deleted and applied anew: which devices matched when the one before began says nothing
// of this one. What is still there of that one goes first.
func TestTheSnapshotOfARolloutOfTheSameName(t *testing.T) {
	before := newPass(t)
	before.obj.Spec.Membership = v1alpha1.MembershipSnapshot
	before.obj.Status.Revision, before.obj.Status.Artefact = 1, "v1"
	in := &input{rollout: before.obj, devices: newFleet(t, 1).devices}
	if waits, err := before.restrict(t.Context(), in); err != nil || waits != nil || len(in.devices) != 1 {
		t.Fatalf("%d devices, %+v, %v", len(in.devices), waits, err)
	}

	after := &pass{controller: &controller{Options: before.Options, ledger: newLedger()}, obj: before.obj.DeepCopy()}
	after.obj.UID = "another"
	in = &input{rollout: after.obj, devices: newFleet(t, 3).devices}
	waits, err := after.restrict(t.Context(), in)
	if err != nil || waits == nil || !strings.Contains(waits.Message, `"kiosk-1-devices"`) || waits.RequeueAfter <= 0 {
		t.Fatalf("it does not wait: %+v, %v", waits, err)
	}
	gone := &appsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kiosk-1-devices"}}
	if err := after.Client.Delete(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	for _, devices := range []int{3, 4} { // one joins later
		in = &input{rollout: after.obj, devices: newFleet(t, devices).devices}
		if waits, err := after.restrict(t.Context(), in); err != nil || waits != nil || len(in.devices) != 3 {
			t.Errorf("%d devices of %d, %+v, %v", len(in.devices), devices, waits, err)
		}
	}
}

// A Deployment that has begun while the plan was made is not held back, and nothing begins in its place.
func TestNothingTakesThePlaceOfWhatHasBegun(t *testing.T) {
	p := newPass(t)
	children, _, err := p.children(t.Context())
	if err != nil || len(children) != 1 {
		t.Fatalf("%d children: %v", len(children), err)
	}
	began := children[0].obj.DeepCopy()
	began.Annotations = map[string]string{v1alpha1.AnnotationCreateIntent: "{}"}
	if err := p.Client.Update(t.Context(), began); err != nil {
		t.Fatal(err)
	}
	next := order{device: newFleet(t, 2).devices[1], revision: 1, batch: v1alpha1.BatchRest, attempt: 1, artefact: artefactRef{name: "v1"}}
	if behind, err := p.carryOut(t.Context(), children, plan{hold: children, create: []order{next}}); !behind || err != nil {
		t.Errorf("the plan is carried out: %t, %v", !behind, err)
	}
	var list v1alpha1.DeploymentList
	if err := p.Live.List(t.Context(), &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 1 || list.Items[0].Annotations[v1alpha1.AnnotationWithdrawn] != "" {
		t.Errorf("there are %d Deployments, with %v", len(list.Items), list.Items[0].Annotations)
	}
}
