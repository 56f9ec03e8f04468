// SPDX-License-Identifier: Apache-2.0

package fleetrollout

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
)

// fleet is a rollout and its devices without a cluster: what the plan asks for is done at once, and
// devices do what they are told to.
type fleet struct {
	t        *testing.T
	rollout  *v1alpha1.FleetRollout
	devices  []connectclient.Device
	children map[string]*v1alpha1.Deployment
	now      time.Time
	unready  string
	compat   *v1alpha1.Compatibility

	offline map[string]bool
	fails   map[string]bool // by the device, or "artefact" or "device artefact"

	events    []string       // their reasons
	told      []string       // their messages
	posts     map[string]int // by device and artefact
	most      int            // active at the same moment
	limit     int            // how many may be active when one more begins; 0: any number
	uids      int
	lastPlan  plan
	writes    int
	cancelled int
}

var epoch = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

func newFleet(t *testing.T, n int, change ...func(*v1alpha1.FleetRolloutSpec)) *fleet {
	f := &fleet{
		t: t, now: epoch, children: map[string]*v1alpha1.Deployment{},
		offline: map[string]bool{}, fails: map[string]bool{}, posts: map[string]int{},
		rollout: &v1alpha1.FleetRollout{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kiosk", UID: "rollout", Generation: 1},
			Spec: v1alpha1.FleetRolloutSpec{
				ArtefactRef: &v1alpha1.ArtefactReference{Name: "v1"},
				Devices:     v1alpha1.FleetDevices{All: true},
			},
		},
	}
	for i := range n {
		f.devices = append(f.devices, testDevice(i))
	}
	for _, c := range change {
		c(&f.rollout.Spec)
	}
	return f
}

func testDevice(i int, tags ...string) connectclient.Device {
	return connectclient.Device{ID: fmt.Sprintf("device-%04d", i), Name: fmt.Sprintf("pi-%04d", i), Tags: tags, Filters: connectclient.Filters{Model: "5"}}
}

// edit changes the spec, as a user does.
func (f *fleet) edit(change func(*v1alpha1.FleetRolloutSpec)) {
	change(&f.rollout.Spec)
	f.rollout.Generation++
}

func (f *fleet) annotate(key, value string) {
	if f.rollout.Annotations == nil {
		f.rollout.Annotations = map[string]string{}
	}
	f.rollout.Annotations[key] = value
}

// plan makes a plan of what is there.
func (f *fleet) plan() plan {
	in := input{rollout: f.rollout, devices: f.devices, unready: f.unready, compatible: f.compat, now: f.now}
	none := func(*v1alpha1.Deployment, bool) *v1alpha1.Deployment { return nil }
	for _, obj := range f.children {
		if c, ok := readChild(obj, deadlinesOf(&f.rollout.Spec), none, f.now); ok {
			in.children = append(in.children, c)
		}
	}
	return makePlan(in)
}

// reconcile does what the plan asks for, until it asks for nothing more at this moment.
func (f *fleet) reconcile() plan {
	f.t.Helper()
	for range 1000 {
		p := f.plan()
		f.lastPlan = p
		before, _ := json.Marshal(f.rollout.Status)
		common := f.rollout.Status.CommonStatus
		f.rollout.Status = p.status
		f.rollout.Status.CommonStatus = common
		lifecycle.SetOutcome(f.rollout, p.outcome)
		if after, _ := json.Marshal(f.rollout.Status); string(after) != string(before) {
			f.writes++
		}
		for _, e := range p.events {
			f.events, f.told = append(f.events, e.Reason), append(f.told, e.Message)
		}
		for _, c := range p.withdraw {
			if c.state != pending && c.state != deferred {
				f.t.Fatalf("%s is withdrawn while it is %v", c.obj.Name, c.state)
			}
			obj := f.children[c.obj.Name]
			obj.Annotations = map[string]string{v1alpha1.AnnotationWithdrawn: "true"}
			obj.Spec.Cancel = true
			obj.Generation++
			f.cancel(obj)
		}
		for _, c := range p.remove {
			if !c.state.ended() && c.state != withdrawn {
				f.t.Fatalf("%s is removed while it is %v", c.obj.Name, c.state)
			}
			if f.children[c.obj.Name] == nil {
				f.t.Fatalf("%s is removed twice", c.obj.Name)
			}
			delete(f.children, c.obj.Name)
		}
		for _, o := range p.create {
			f.create(o)
		}
		f.most = max(f.most, f.active())
		if n := f.beginning(); len(p.create) > 0 && f.limit > 0 && n > f.limit {
			f.t.Fatalf("%d devices are updated at the same time, and %d may be", n, f.limit)
		}
		if len(p.withdraw)+len(p.remove)+len(p.create) == 0 && (p.nextLook.IsZero() || p.nextLook.Sub(f.now) > soon) {
			return p
		}
	}
	f.t.Fatal("the plan never comes to rest")
	return plan{}
}

// create makes a Deployment, and with it a deployment at Connect, unless the device has the artefact.
func (f *fleet) create(o order) {
	obj := o.deployment(f.rollout, deadlinesOf(&f.rollout.Spec))
	if _, exists := f.children[obj.Name]; exists {
		f.t.Fatalf("%s is made twice", obj.Name)
	}
	f.uids++
	obj.UID, obj.Generation = types.UID(fmt.Sprint(f.uids)), 1
	obj.CreationTimestamp = metav1.NewTime(f.now)
	made := metav1.NewTime(f.now)
	obj.Status.CreatedAt, obj.Status.DeviceID, obj.Status.DeviceName = &made, o.device.ID, o.device.Name
	obj.Status.State = string(connectclient.DeploymentPending)
	for _, other := range f.children {
		if other.Spec.Device.ID == o.device.ID && other.Status.State == string(connectclient.DeploymentPending) && other.Status.Outcome == "" {
			f.end(other, v1alpha1.DeploymentSuperseded, v1alpha1.ReasonSuperseded)
		}
	}
	f.children[obj.Name] = obj
	f.posts[o.device.ID+" "+o.artefact.name]++
}

func (f *fleet) cancel(obj *v1alpha1.Deployment) {
	if obj.Status.State == string(connectclient.DeploymentPending) {
		f.cancelled++
		f.end(obj, v1alpha1.DeploymentCancelled, v1alpha1.ReasonCancelled)
	}
}

func (f *fleet) end(obj *v1alpha1.Deployment, outcome v1alpha1.DeploymentOutcome, reason string) {
	obj.Status.Outcome = outcome
	status := metav1.ConditionFalse
	if outcome == v1alpha1.DeploymentSucceeded {
		status = metav1.ConditionTrue
	}
	meta.SetStatusCondition(&obj.Status.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionReady, Status: status, Reason: reason, Message: reason, ObservedGeneration: obj.Generation, LastTransitionTime: metav1.NewTime(f.now),
	})
}

// active counts what is at work at Connect, but for what waits for an offline device.
func (f *fleet) active() int {
	n := 0
	for _, obj := range f.children {
		if obj.Status.Outcome == "" && !f.offline[obj.Spec.Device.ID] {
			n++
		}
	}
	return n
}

// work has every device go one step on.
func (f *fleet) work() {
	for _, obj := range f.children {
		device := obj.Spec.Device.ID
		switch {
		case obj.Status.Outcome != "" || f.offline[device]:
		case obj.Status.State == string(connectclient.DeploymentPending):
			obj.Status.State = string(connectclient.DeploymentInProgress)
		case f.fails[device], f.fails[artefactOf(obj)], f.fails[device+" "+artefactOf(obj)]:
			obj.Status.State, obj.Status.StateReason = string(connectclient.DeploymentFailed), "does not boot"
			f.end(obj, v1alpha1.DeploymentFailed, v1alpha1.ReasonFailed)
		default:
			obj.Status.State = string(connectclient.DeploymentSucceeded)
			f.end(obj, v1alpha1.DeploymentSucceeded, v1alpha1.ReasonSucceeded)
		}
	}
}

func artefactOf(obj *v1alpha1.Deployment) string {
	return refOf(obj.Spec.ArtefactRef, obj.Spec.ArtefactID).name
}

// step has a minute go by.
func (f *fleet) step() plan {
	f.t.Helper()
	f.now = f.now.Add(time.Minute)
	f.work()
	return f.reconcile()
}

// until has time go by until the rollout is in a phase, for a week at most.
func (f *fleet) until(phase v1alpha1.FleetRolloutPhase) {
	f.t.Helper()
	f.reconcile()
	for range 7 * 24 * 60 {
		if f.rollout.Status.Phase == phase {
			return
		}
		f.step()
	}
	f.t.Fatalf("the rollout is %s, and never %s: %+v", f.rollout.Status.Phase, phase, f.rollout.Status.Devices)
}

// message is what Ready says.
func (f *fleet) message() string {
	ready := meta.FindStatusCondition(f.rollout.Status.Conditions, v1alpha1.ConditionReady)
	return fmt.Sprintf("%s %s: %s", ready.Status, ready.Reason, ready.Message)
}

func (f *fleet) says(text string) {
	f.t.Helper()
	if got := f.message(); !strings.Contains(got, text) {
		f.t.Errorf("the rollout says %q, want %q", got, text)
	}
}

// postsOf counts the deployments of an artefact that were made.
func (f *fleet) postsOf(artefact string) int {
	n := 0
	for what, posts := range f.posts {
		if strings.HasSuffix(what, " "+artefact) {
			n += posts
		}
	}
	return n
}

func pct(s string) *intstr.IntOrString { v := intstr.FromString(s); return &v }
func num(n int32) *intstr.IntOrString  { v := intstr.FromInt32(n); return &v }
func span(d time.Duration) *metav1.Duration {
	return &metav1.Duration{Duration: d}
}
