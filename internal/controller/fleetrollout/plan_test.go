// SPDX-License-Identifier: Apache-2.0

package fleetrollout

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
)

type spec = v1alpha1.FleetRolloutSpec

func TestEveryDeviceIsUpdatedOnce(t *testing.T) {
	f := newFleet(t, 25, func(s *spec) { s.MaxConcurrent = num(4) })
	f.until(v1alpha1.RolloutComplete)
	f.says("True Complete: 25 of 25 devices run v1.")
	if f.postsOf("v1") != 25 || f.most != 4 {
		t.Errorf("%d deployments, %d at the same time; want 25 and 4", f.postsOf("v1"), f.most)
	}
	before := f.writes
	for range 100 {
		f.step()
	}
	if f.writes != before {
		t.Errorf("a rollout that is complete is written %d times", f.writes-before)
	}
	f.devices = append(f.devices, testDevice(100))
	f.until(v1alpha1.RolloutProgressing)
	f.until(v1alpha1.RolloutComplete)
	f.says("26 of 26")
}

func TestMaxConcurrentIsAShareOfTheDevices(t *testing.T) {
	for _, test := range []struct {
		devices int
		max     string
		want    int
	}{{40, "25%", 10}, {3, "10%", 1}, {1, "1%", 1}, {7, "100%", 7}} {
		f := newFleet(t, test.devices, func(s *spec) { s.MaxConcurrent = pct(test.max) })
		f.until(v1alpha1.RolloutComplete)
		if f.most != test.want {
			t.Errorf("%s of %d devices: %d at the same time, want %d", test.max, test.devices, f.most, test.want)
		}
	}
}

func TestOrder(t *testing.T) {
	order := func(rollout string, by v1alpha1.FleetOrder) []string {
		f := newFleet(t, 20, func(s *spec) { s.MaxConcurrent, s.Order = num(1), by })
		f.rollout.Name = rollout
		var began []string
		for f.rollout.Status.Phase != v1alpha1.RolloutComplete {
			f.step()
			for _, c := range f.children {
				if !slices.Contains(began, c.Spec.Device.ID) {
					began = append(began, c.Spec.Device.ID)
				}
			}
		}
		return began
	}
	byName := order("kiosk", v1alpha1.OrderName)
	if !slices.IsSorted(byName) {
		t.Errorf("by name: %v", byName)
	}
	byHash := order("kiosk", v1alpha1.OrderHash)
	if slices.IsSorted(byHash) || !slices.Equal(byHash, order("kiosk", v1alpha1.OrderHash)) {
		t.Errorf("by hash: %v", byHash)
	}
	if slices.Equal(byHash, order("signs", v1alpha1.OrderHash)) {
		t.Error("two rollouts begin with the same devices")
	}
}

func TestBatchesBeginInOrder(t *testing.T) {
	f := newFleet(t, 0, func(s *spec) {
		s.MaxConcurrent = num(50)
		s.Batches = []v1alpha1.FleetBatch{
			{Name: "lab", Tags: []string{"lab"}},
			{Name: "one", Size: num(1)},
			{Name: "some", Size: pct("5%"), SoakTime: span(3 * time.Hour)},
			{Name: "gate", Size: num(2), Approval: v1alpha1.ApprovalManual},
		}
	})
	for i := range 100 {
		tags := []string{}
		if i%25 == 0 {
			tags = append(tags, "lab")
		}
		f.devices = append(f.devices, testDevice(i, tags...))
	}
	f.until(v1alpha1.RolloutSoaking)
	f.says("Batch some is over; the next one begins at 2027-03-01 15:")
	soaked := f.now
	if n := f.postsOf("v1"); n != 4+1+5 {
		t.Errorf("%d devices were updated before the soak time, want 10", n)
	}
	f.until(v1alpha1.RolloutAwaitingApproval)
	if f.now.Sub(soaked) < 3*time.Hour {
		t.Errorf("soaked for %s", f.now.Sub(soaked))
	}
	f.says("add {artefact: v1, batch: gate} to spec.approvals")
	for range 600 {
		f.step()
	}
	if n := f.postsOf("v1"); n != 12 {
		t.Errorf("%d devices were updated before the approval, want 12", n)
	}
	f.annotate(v1alpha1.AnnotationApprove, "v0/gate")
	f.step()
	if f.postsOf("v1") != 12 {
		t.Error("the approval of another artefact counts")
	}
	f.annotate(v1alpha1.AnnotationApprove, "v1/gate")
	f.until(v1alpha1.RolloutComplete)
	if f.postsOf("v1") != 100 {
		t.Errorf("%d devices were updated, want 100", f.postsOf("v1"))
	}
	var names []string
	for i, b := range f.rollout.Status.Batches {
		names = append(names, fmt.Sprint(b.Name, " ", b.Members))
		if i > 0 && b.StartedAt.Time.Before(f.rollout.Status.Batches[i-1].EndedAt.Time) {
			t.Errorf("%s began before %s was over", b.Name, f.rollout.Status.Batches[i-1].Name)
		}
	}
	if got := strings.Join(names, ", "); got != "lab 4, one 1, some 5, gate 2, rest 88" {
		t.Error(got)
	}
	want := "RevisionBegun BatchBegun BatchEnded BatchBegun BatchEnded BatchBegun BatchEnded Soaking BatchBegun BatchEnded AwaitingApproval Approved BatchBegun Complete"
	if got := strings.Join(f.events, " "); got != want {
		t.Errorf("the story is\n%s, want\n%s", got, want)
	}
}

func TestABatchThatProvesNothing(t *testing.T) {
	canary := func(least *int32) func(*spec) {
		return func(s *spec) {
			s.Batches = []v1alpha1.FleetBatch{{Name: "canary", Size: num(2), MinSucceeded: least}}
		}
	}
	t.Run("holds the next one up while its devices are offline", func(t *testing.T) {
		f := newFleet(t, 10, canary(nil))
		for _, d := range f.devices {
			f.offline[d.ID] = true
		}
		for range 3 * 24 * 60 {
			f.step()
		}
		if f.postsOf("v1") != 2 {
			t.Errorf("%d devices have a deployment, want 2", f.postsOf("v1"))
		}
		f.says("Unknown Progressing: Batch canary is not enough for the next one to begin: at least 1 of its devices must have succeeded, and 0 have (2 are deferred")
		clear(f.offline)
		f.until(v1alpha1.RolloutComplete)
	})
	t.Run("soaks once its devices have come back", func(t *testing.T) {
		f := newFleet(t, 10, canary(nil))
		f.rollout.Spec.Batches[0].SoakTime = span(3 * time.Hour)
		for _, d := range f.devices {
			f.offline[d.ID] = true
		}
		for range 12 * 60 {
			f.step()
		}
		clear(f.offline)
		f.until(v1alpha1.RolloutSoaking)
		back := f.now
		f.until(v1alpha1.RolloutComplete)
		if soaked := f.now.Sub(back); soaked < 3*time.Hour {
			t.Errorf("the fleet was updated %s after the canary", soaked)
		}
	})
	t.Run("soaks anew when others have taken the place of its devices", func(t *testing.T) {
		f := newFleet(t, 10, func(s *spec) {
			s.Batches = []v1alpha1.FleetBatch{{Name: "canary", Tags: []string{"canary"}, SoakTime: span(3 * time.Hour)}}
		})
		f.devices[0].Tags = []string{"canary"}
		f.until(v1alpha1.RolloutSoaking)
		f.devices = f.devices[1:]
		for range 12 * 60 {
			f.step()
		}
		f.devices[4].Tags = []string{"canary"}
		f.until(v1alpha1.RolloutSoaking)
		again := f.now
		f.until(v1alpha1.RolloutComplete)
		if soaked := f.now.Sub(again); soaked < 3*time.Hour {
			t.Errorf("the fleet was updated %s after the new canary", soaked)
		}
	})
	t.Run("unless nothing has to be proven", func(t *testing.T) {
		f := newFleet(t, 10, canary(new(int32(0))))
		for _, d := range f.devices {
			f.offline[d.ID] = true
		}
		f.until(v1alpha1.RolloutComplete)
		f.says("0 of 10 devices run v1; 10 deferred")
	})
	t.Run("has no device", func(t *testing.T) {
		f := newFleet(t, 10, func(s *spec) { s.Batches = []v1alpha1.FleetBatch{{Name: "canary", Tags: []string{"canary"}}} })
		f.step()
		f.says("Batch canary is not enough")
		if f.postsOf("v1") != 0 {
			t.Error("the fleet is updated without its canary")
		}
	})
	t.Run("comes last", func(t *testing.T) {
		f := newFleet(t, 2, func(s *spec) {
			s.Batches = []v1alpha1.FleetBatch{{Name: "canary", Size: num(5)}, {Name: "more", Size: pct("50%"), Approval: v1alpha1.ApprovalManual}}
		})
		f.until(v1alpha1.RolloutComplete)
	})
}

// A device that joins a batch that is long over has still to be updated.
func TestADeviceThatJoinsThePassedBatch(t *testing.T) {
	f := newFleet(t, 4, func(s *spec) { s.Batches = []v1alpha1.FleetBatch{{Name: "canary", Tags: []string{"canary"}}} })
	f.devices[0].Tags = []string{"canary"}
	f.until(v1alpha1.RolloutComplete)
	f.devices = append(f.devices, testDevice(100, "canary"))
	f.reconcile()
	if s := f.rollout.Status; s.Phase != v1alpha1.RolloutProgressing || s.Devices.Pending != 1 {
		t.Errorf("it is %s: %+v", s.Phase, s.Devices)
	}
	f.until(v1alpha1.RolloutComplete)
	f.says("5 of 5")
}

// A batch is not over while one of its devices has still to begin, waits or is being updated.
func TestABatchThatIsNotOver(t *testing.T) {
	canary := func(most int32) func(*spec) {
		return func(s *spec) {
			s.MaxConcurrent = num(most)
			s.Batches = []v1alpha1.FleetBatch{{Name: "canary", Size: num(2), MinSucceeded: new(int32(0))}, {Name: "some", Size: num(2)}}
		}
	}
	isBusy := func(f *fleet, posts int) {
		f.t.Helper()
		if s := f.rollout.Status; s.Batch != "canary" || s.Batches[0].EndedAt != nil || f.postsOf("v1") != posts || len(s.Batches) != 3 {
			f.t.Errorf("batch %s, %+v, %d deployments", s.Batch, s.Batches, f.postsOf("v1"))
		}
	}
	t.Run("one waits for its device, and one for its turn", func(t *testing.T) {
		f := newFleet(t, 8, canary(1))
		f.reconcile()
		isBusy(f, 1)
		f.step()
		isBusy(f, 1)
	})
	t.Run("one waits for its device, and one is being updated", func(t *testing.T) {
		f := newFleet(t, 8, canary(8))
		f.reconcile()
		for _, c := range f.children {
			f.offline[c.Spec.Device.ID] = true
			break
		}
		f.step()
		isBusy(f, 2)
	})
}

// Where the status was lost, the Deployments tell when a batch was over: when the last of its devices
// ended, in whatever order they did, or when the last that was waited for was put off.
func TestWhenABatchWasOverByItsDeployments(t *testing.T) {
	for _, last := range []int{0, 1} {
		f := newFleet(t, 6, func(s *spec) {
			s.Order, s.Batches = v1alpha1.OrderName, []v1alpha1.FleetBatch{{Name: "canary", Size: num(2), SoakTime: span(3 * time.Hour)}}
		})
		f.reconcile()
		f.offline[f.devices[last].ID] = true
		f.step()
		f.step() // the other one has succeeded
		for range 20 {
			f.step()
		}
		clear(f.offline)
		f.until(v1alpha1.RolloutSoaking)
		over := f.now
		for range 30 {
			f.step()
		}
		f.rollout.Status = v1alpha1.FleetRolloutStatus{}
		f.step()
		if got := f.rollout.Status.Batches[0].EndedAt; got == nil || !got.Time.Equal(over) {
			t.Errorf("it was over at %s, want %s", got, over)
		}
		f.says("the next one begins at " + over.Add(3*time.Hour).Format("2006-01-02 15:04"))
	}
	f := newFleet(t, 6, func(s *spec) {
		s.Order, s.Batches = v1alpha1.OrderName, []v1alpha1.FleetBatch{{Name: "canary", Size: num(2), SoakTime: span(3 * time.Hour)}}
	})
	f.offline[f.devices[1].ID] = true
	f.until(v1alpha1.RolloutSoaking)
	if got := f.rollout.Status.Batches[0].EndedAt; !got.Time.Equal(f.now) || f.now.Before(epoch.Add(time.Hour)) {
		t.Errorf("it was over at %s, want %s, when the device was put off", got, f.now)
	}
}

func TestOfflineDevicesBlockNothing(t *testing.T) {
	f := newFleet(t, 40, func(s *spec) { s.MaxConcurrent = num(3) })
	for i := range 5 {
		f.offline[f.devices[i*7].ID] = true
	}
	f.until(v1alpha1.RolloutComplete)
	f.says("True Complete: 35 of 40 devices run v1; 5 deferred until they come back.")
	for d := range f.offline { // one after the other
		delete(f.offline, d)
		f.step()
		f.until(v1alpha1.RolloutComplete)
	}
	f.says("40 of 40")
	if got := strings.Join(f.events, " "); got != "RevisionBegun BatchBegun Complete" {
		t.Errorf("the story is %s: none is of a single device", got)
	}
	if f.postsOf("v1") != 40 {
		t.Errorf("%d deployments, want 40", f.postsOf("v1"))
	}
}

func TestFailures(t *testing.T) {
	failing := func(t *testing.T, policy v1alpha1.FleetFailurePolicy, change ...func(*spec)) *fleet {
		f := newFleet(t, 100, append(change, func(s *spec) { s.MaxConcurrent, s.FailurePolicy = num(10), &policy })...)
		for i := range 20 {
			f.fails[f.devices[i*5].ID+" v1"] = true
		}
		return f
	}
	t.Run("pause the rollout", func(t *testing.T) {
		f := failing(t, v1alpha1.FleetFailurePolicy{MaxFailures: pct("5%")})
		f.until(v1alpha1.RolloutPaused)
		f.says("False FailuresExceeded: Paused: ")
		f.says("(does not boot)")
		if n := f.rollout.Status.Devices.Failed; n > 5+10 {
			t.Errorf("%d failures before it paused", n)
		}
		made := f.postsOf("v1")
		for range 1000 {
			f.step()
		}
		if f.postsOf("v1") != made {
			t.Error("devices begin while it is paused")
		}
		t.Run("until a person accepts them", func(t *testing.T) {
			f.annotate(v1alpha1.AnnotationResumeRequestedAt, "now")
			f.until(v1alpha1.RolloutProgressing)
			for f.rollout.Status.Phase != v1alpha1.RolloutComplete {
				f.step()
				if f.rollout.Status.Phase == v1alpha1.RolloutPaused {
					f.annotate(v1alpha1.AnnotationResumeRequestedAt, f.now.String())
				}
			}
			f.says("80 of 100 devices run v1; 20 failed.")
			if len(f.rollout.Status.Failures) != 20 {
				t.Errorf("%d failures are named", len(f.rollout.Status.Failures))
			}
		})
	})
	t.Run("stay too many when devices leave, or nothing relevant is changed", func(t *testing.T) {
		f := failing(t, v1alpha1.FleetFailurePolicy{MaxFailures: num(2)})
		f.until(v1alpha1.RolloutPaused)
		f.devices = slices.DeleteFunc(f.devices, func(d connectclient.Device) bool { return f.fails[d.ID+" v1"] })
		f.step()
		if f.rollout.Status.Phase != v1alpha1.RolloutPaused {
			t.Error("it resumes by itself")
		}
		f.says(": pi-00") // they are named although they have left
	})
	t.Run("stay too many when so many devices join that they would be tolerated", func(t *testing.T) {
		f := failing(t, v1alpha1.FleetFailurePolicy{MaxFailures: pct("5%")})
		f.until(v1alpha1.RolloutPaused)
		for i := range 1000 {
			f.devices = append(f.devices, testDevice(1000+i))
		}
		f.step()
		f.says("False FailuresExceeded: Paused: too many devices had failed.")
		f.edit(func(*spec) {}) // whoever edits the spec has seen it
		f.step()
		if f.rollout.Status.Phase != v1alpha1.RolloutProgressing {
			t.Errorf("after an edit it is %s", f.rollout.Status.Phase)
		}
	})
	t.Run("stay too many when a request to go on was made before they were", func(t *testing.T) {
		f := failing(t, v1alpha1.FleetFailurePolicy{MaxFailures: num(2)})
		f.annotate(v1alpha1.AnnotationResumeRequestedAt, "before")
		f.until(v1alpha1.RolloutPaused)
		for name, change := range map[string]func(){
			"taken off":              func() { f.annotate(v1alpha1.AnnotationResumeRequestedAt, "") },
			"there, and handled":     func() { f.annotate(v1alpha1.AnnotationResumeRequestedAt, "before") },
			"older than the status":  func() { f.rollout.Status = v1alpha1.FleetRolloutStatus{} },
			"there once the next is": func() {},
		} {
			if change(); name == "there, and handled" {
				f.rollout.Status.LastHandledResumeAt = "before"
			}
			f.step()
			if f.rollout.Status.Phase != v1alpha1.RolloutPaused {
				t.Errorf("the request is %s: it goes on", name)
			}
		}
	})
	t.Run("are tolerated by a new limit", func(t *testing.T) {
		f := failing(t, v1alpha1.FleetFailurePolicy{MaxFailures: num(2)})
		f.until(v1alpha1.RolloutPaused)
		f.edit(func(s *spec) { s.FailurePolicy.MaxFailures = num(20) })
		f.until(v1alpha1.RolloutComplete)
	})
	t.Run("are behind it with the next artefact", func(t *testing.T) {
		f := failing(t, v1alpha1.FleetFailurePolicy{MaxFailures: num(2)})
		f.until(v1alpha1.RolloutPaused)
		f.edit(func(s *spec) { s.ArtefactRef.Name = "v2" })
		f.until(v1alpha1.RolloutComplete)
		f.says("100 of 100 devices run v2.")
		if got := f.rollout.Status.History[1].Outcome; got != "Replaced" {
			t.Errorf("revision 1 ended as %q", got)
		}
	})
	t.Run("do not matter", func(t *testing.T) {
		f := failing(t, v1alpha1.FleetFailurePolicy{MaxFailures: num(0), Action: v1alpha1.FailureActionContinue})
		f.until(v1alpha1.RolloutComplete)
		f.says("80 of 100 devices run v1; 20 failed.")
	})
	t.Run("are retried", func(t *testing.T) {
		f := failing(t, v1alpha1.FleetFailurePolicy{MaxFailures: num(0)}, func(s *spec) { s.Retry = &v1alpha1.FleetRetry{Limit: new(int32(2)), Backoff: span(30 * time.Minute)} })
		began := f.now
		f.until(v1alpha1.RolloutPaused)
		if f.now.Sub(began) < time.Hour {
			t.Errorf("it gave up after %s", f.now.Sub(began))
		}
		for i := range 20 {
			delete(f.fails, f.devices[i*5].ID+" v1")
		}
		f.annotate(v1alpha1.AnnotationResumeRequestedAt, "now")
		f.until(v1alpha1.RolloutComplete)
		for what, n := range f.posts {
			if n > 3 {
				t.Errorf("%s was tried %d times", what, n)
			}
		}
	})
	t.Run("are retried by force where Connect says that the first attempt is on its way", func(t *testing.T) {
		f := newFleet(t, 3, func(s *spec) { s.MaxConcurrent, s.Retry = num(3), &v1alpha1.FleetRetry{Backoff: span(5 * time.Minute)} })
		f.reconcile()
		silent, broken, slow := f.devices[0].ID, f.devices[1].ID, f.devices[2].ID
		for _, c := range f.children {
			switch c.Spec.Device.ID {
			case silent:
				c.Status.State = string(connectclient.DeploymentInProgress)
				f.end(c, v1alpha1.DeploymentDeadlineExceeded, v1alpha1.ReasonDeadlineExceeded)
			case broken:
				c.Status.State = string(connectclient.DeploymentFailed)
				f.end(c, v1alpha1.DeploymentFailed, v1alpha1.ReasonFailed)
			}
		}
		f.offline[slow] = true
		f.now = f.now.Add(5 * time.Minute)
		forced := func(when string) {
			t.Helper()
			f.reconcile()
			for name, c := range f.children {
				if second := c.Labels[v1alpha1.LabelAttempt] == "2"; c.Spec.Force != (second && c.Spec.Device.ID == silent) {
					t.Errorf("%s, %s on %s is forced: %t", when, name, c.Spec.Device.ID, c.Spec.Force)
				}
			}
		}
		forced("at first")
		f.edit(func(s *spec) { s.Paused = true })
		f.reconcile()
		f.edit(func(s *spec) { s.Paused = false })
		forced("after a pause")
		if f.cancelled != 3 || len(f.children) != 5 {
			t.Errorf("%d were cancelled and %d are there, want 3 and 5", f.cancelled, len(f.children))
		}
	})
	t.Run("in a batch", func(t *testing.T) {
		f := newFleet(t, 50, func(s *spec) {
			s.FailurePolicy = &v1alpha1.FleetFailurePolicy{MaxFailures: num(40)}
			s.Batches = []v1alpha1.FleetBatch{{Name: "canary", Size: num(5)}}
		})
		f.fails["v1"] = true
		f.until(v1alpha1.RolloutPaused)
		f.says("in the batch canary 5 of 5 devices have failed, fewer than its successPercent have succeeded")
		if f.postsOf("v1") != 5 {
			t.Errorf("%d devices were updated, want 5", f.postsOf("v1"))
		}
		clear(f.fails)
		f.annotate(v1alpha1.AnnotationResumeRequestedAt, "now")
		f.until(v1alpha1.RolloutComplete)
		f.says("45 of 50 devices run v1; 5 failed.")
	})
	t.Run("a device that never reports back", func(t *testing.T) {
		f := newFleet(t, 3, func(s *spec) { s.FailurePolicy = &v1alpha1.FleetFailurePolicy{MaxFailures: num(1)} })
		f.reconcile()
		for _, c := range f.children {
			if c.Spec.Device.ID == f.devices[0].ID {
				c.Status.State = string(connectclient.DeploymentInProgress)
				f.end(c, v1alpha1.DeploymentDeadlineExceeded, v1alpha1.ReasonDeadlineExceeded)
			}
		}
		f.until(v1alpha1.RolloutComplete)
		f.says("2 of 3 devices run v1; 1 failed.")
		if got := f.rollout.Status.Failures[0].Reason; got != "did not report back within deadlines.inProgress" {
			t.Error(got)
		}
	})
}

func TestRollback(t *testing.T) {
	start := func(t *testing.T, change ...func(*spec)) *fleet {
		f := newFleet(t, 20, append(change, func(s *spec) {
			s.MaxConcurrent = num(3)
			s.FailurePolicy = &v1alpha1.FleetFailurePolicy{MaxFailures: num(2), Action: v1alpha1.FailureActionRollback}
		})...)
		return f
	}
	t.Run("brings devices back to the last artefact that was complete", func(t *testing.T) {
		f := start(t)
		f.until(v1alpha1.RolloutComplete)
		for i := range 10 {
			f.fails[f.devices[i*2].ID+" v2"] = true
		}
		f.most = 0
		f.edit(func(s *spec) { s.ArtefactRef.Name = "v2" })
		f.until(v1alpha1.RolloutRollingBack)
		f.until(v1alpha1.RolloutRolledBack)
		f.says("False RolledBack: The devices that ran v2 have been brought back to v1")
		if f.most > 3 {
			t.Errorf("%d at the same time", f.most)
		}
		for _, c := range f.children {
			if artefactOf(c) == "v2" && c.Status.Outcome == v1alpha1.DeploymentSucceeded {
				back := f.children[order{device: testDeviceOf(f, c), revision: 2, batch: v1alpha1.BatchRollback, attempt: 1}.name("kiosk")]
				if back == nil || artefactOf(back) != "v1" || back.Status.Outcome != v1alpha1.DeploymentSucceeded {
					t.Errorf("%s still runs v2", c.Spec.Device.ID)
				}
			}
		}
		posts := f.postsOf("v1")
		for range 1000 {
			f.step()
		}
		if f.postsOf("v1") != posts || f.rollout.Status.Phase != v1alpha1.RolloutRolledBack {
			t.Error("it does not come to rest")
		}
		f.edit(func(s *spec) { s.ArtefactRef.Name = "v3" })
		f.until(v1alpha1.RolloutComplete)
		f.says("20 of 20 devices run v3.")
	})
	t.Run("goes where the spec says", func(t *testing.T) {
		f := start(t, func(s *spec) { s.RollbackTo = &v1alpha1.ArtefactReference{Name: "v0"} })
		for i := range 10 {
			f.fails[f.devices[i*2].ID+" v1"] = true
		}
		f.until(v1alpha1.RolloutRolledBack)
		f.says("brought back to v0")
	})
	t.Run("passes over an artefact that was replaced before it was complete", func(t *testing.T) {
		f := start(t)
		f.until(v1alpha1.RolloutComplete)
		f.edit(func(s *spec) { s.ArtefactRef.Name = "v2" })
		f.reconcile()
		f.edit(func(s *spec) { s.ArtefactRef.Name = "v3" })
		for i := range 10 {
			f.fails[f.devices[i*2].ID+" v3"] = true
		}
		f.until(v1alpha1.RolloutRolledBack)
		f.says("brought back to v1")
	})
	t.Run("goes back to an artefact that was named by its id", func(t *testing.T) {
		f := start(t, func(s *spec) { s.ArtefactRef, s.ArtefactID = nil, "a1" })
		f.until(v1alpha1.RolloutComplete)
		for i := range 10 {
			f.fails[f.devices[i*2].ID+" v2"] = true
		}
		f.edit(func(s *spec) {
			s.ArtefactRef, s.ArtefactID, s.MaxConcurrent = &v1alpha1.ArtefactReference{Name: "v2"}, "", num(20)
		})
		f.reconcile()
		f.work()
		f.edit(func(s *spec) { s.Paused = true }) // so that only the status knows where it goes
		f.step()
		f.step()
		f.edit(func(s *spec) { s.Paused = false })
		f.until(v1alpha1.RolloutRolledBack)
		if f.postsOf("a1") != 20+10 {
			t.Errorf("%d were brought back, want 10", f.postsOf("a1")-20)
		}
		for name, c := range f.children {
			if c.Labels[v1alpha1.LabelBatch] == v1alpha1.BatchRollback && (c.Spec.ArtefactID != "a1" || c.Spec.ArtefactRef != nil) {
				t.Errorf("%s deploys %q, %+v", name, c.Spec.ArtefactID, c.Spec.ArtefactRef)
			}
		}
	})
	t.Run("goes on once it has begun, although nothing could be done for it yet", func(t *testing.T) {
		f := start(t, func(s *spec) {
			s.RollbackTo = &v1alpha1.ArtefactReference{Name: "v0"}
			s.Schedule = &v1alpha1.FleetSchedule{Windows: []v1alpha1.FleetWindow{{Start: "0 12 * * *", Duration: *span(10 * time.Minute)}}}
		})
		f.edit(func(s *spec) { s.MaxConcurrent = num(20) })
		for i := range 10 {
			f.fails[f.devices[i*2].ID+" v1"] = true
		}
		f.reconcile()
		f.work()
		f.now = f.now.Add(10 * time.Minute) // the window closes
		f.until(v1alpha1.RolloutRollingBack)
		if !slices.Contains(f.told, "Rolling back to v0: 10 devices have failed, and spec.failurePolicy tolerates 2: pi-0000 (does not boot), pi-0002 (does not boot), pi-0004 (does not boot).") {
			t.Errorf("told: %q", f.told)
		}
		f.edit(func(s *spec) { s.FailurePolicy.MaxFailures, s.RollbackTo.Name = num(20), "v5" })
		f.step()
		if f.rollout.Status.Phase != v1alpha1.RolloutRollingBack || f.postsOf("v0") > 0 {
			t.Errorf("it is %s, with %d on their way back", f.rollout.Status.Phase, f.postsOf("v0"))
		}
		f.until(v1alpha1.RolloutRolledBack)
		if f.postsOf("v0") != 10 {
			t.Errorf("%d have been brought back, want 10", f.postsOf("v0"))
		}
	})
	t.Run("waits for the end of what has begun", func(t *testing.T) {
		f := newFleet(t, 3, func(s *spec) {
			s.RollbackTo = &v1alpha1.ArtefactReference{Name: "v0"}
			s.FailurePolicy = &v1alpha1.FleetFailurePolicy{MaxFailures: num(0), Action: v1alpha1.FailureActionRollback}
		})
		f.reconcile()
		f.fails[f.devices[0].ID] = true
		f.offline[f.devices[1].ID] = true
		f.work()
		f.offline[f.devices[2].ID] = true // it is being installed
		for _, c := range f.children {
			if c.Spec.Device.ID == f.devices[1].ID {
				c.Status.State = string(connectclient.DeploymentSucceeded)
				f.end(c, v1alpha1.DeploymentSucceeded, v1alpha1.ReasonSucceeded)
			}
		}
		f.step()
		f.step()
		if f.rollout.Status.Phase != v1alpha1.RolloutRollingBack || f.postsOf("v0") != 1 {
			t.Errorf("it is %s, with %d on their way back", f.rollout.Status.Phase, f.postsOf("v0"))
		}
		clear(f.offline)
		f.until(v1alpha1.RolloutRolledBack)
		if f.postsOf("v0") != 2 {
			t.Errorf("%d were brought back, want 2", f.postsOf("v0"))
		}
	})
	t.Run("has nowhere to go", func(t *testing.T) {
		f := start(t)
		f.fails["v1"] = true
		f.until(v1alpha1.RolloutPaused)
		f.says("There is no other artefact to roll back to: set spec.rollbackTo.")
	})
	t.Run("goes on after a pause, and after the status was lost", func(t *testing.T) {
		f := start(t, func(s *spec) { s.RollbackTo = &v1alpha1.ArtefactReference{Name: "v0"} })
		for i := range 10 {
			f.fails[f.devices[i*2].ID+" v1"] = true
		}
		f.until(v1alpha1.RolloutRollingBack)
		f.step()
		f.edit(func(s *spec) { s.Paused = true })
		f.until(v1alpha1.RolloutPaused)
		f.edit(func(s *spec) { s.Paused = false })
		f.rollout.Status = v1alpha1.FleetRolloutStatus{}
		f.until(v1alpha1.RolloutRolledBack)
	})
}

func testDeviceOf(f *fleet, c *v1alpha1.Deployment) connectclient.Device {
	for _, d := range f.devices {
		if d.ID == c.Spec.Device.ID {
			return d
		}
	}
	return connectclient.Device{}
}

func TestPause(t *testing.T) {
	f := newFleet(t, 10, func(s *spec) { s.MaxConcurrent = num(4) })
	f.reconcile()
	begun := 0
	for _, c := range f.children {
		if begun < 2 { // two of the four have begun
			c.Status.State = string(connectclient.DeploymentInProgress)
			begun++
		}
	}
	f.edit(func(s *spec) { s.Paused = true })
	f.reconcile()
	f.says("Unknown Paused: spec.paused is true")
	if got := f.rollout.Status.PauseReason; got != v1alpha1.PausedBySpec {
		t.Errorf("it is paused by %q", got)
	}
	if f.cancelled != 2 {
		t.Errorf("%d were cancelled, want the 2 that are pending", f.cancelled)
	}
	for range 100 {
		f.step()
	}
	if d := f.rollout.Status.Devices; d.Succeeded != 2 || d.Waiting != 8 {
		t.Errorf("%+v", d)
	}
	f.edit(func(s *spec) { s.Paused = false })
	f.until(v1alpha1.RolloutComplete)
	f.says("10 of 10")
	if got := f.rollout.Status.PauseReason; got != "" {
		t.Errorf("it is paused by %q", got)
	}
	for name, c := range f.children {
		if c.Labels[v1alpha1.LabelAttempt] != "1" {
			t.Errorf("%s is another attempt", name)
		}
	}
}

func TestANewRevision(t *testing.T) {
	f := newFleet(t, 12, func(s *spec) {
		s.MaxConcurrent = num(4)
		s.Batches = []v1alpha1.FleetBatch{{Name: "canary", Size: num(2)}}
	})
	f.until(v1alpha1.RolloutComplete)
	f.offline[f.devices[3].ID] = true
	f.edit(func(s *spec) { s.ArtefactRef.Name = "v2" })
	f.until(v1alpha1.RolloutComplete)
	f.says("11 of 12 devices run v2; 1 deferred")
	f.edit(func(s *spec) { s.ArtefactRef.Name = "v1" }) // git revert
	f.until(v1alpha1.RolloutComplete)
	if f.rollout.Status.Revision != 3 {
		t.Errorf("revision %d, want 3", f.rollout.Status.Revision)
	}
	if f.cancelled == 0 {
		t.Error("what was pending of the old revision was not cancelled")
	}
	for name, c := range f.children {
		if c.Labels[v1alpha1.LabelRevision] == "1" {
			t.Errorf("%s has not let go of what the new one was to adopt", name)
		}
	}
	if !slices.Contains(f.told, "Revision 3 begins: v1.") {
		t.Errorf("told: %q", f.told)
	}
	var outcomes []string
	for _, r := range f.rollout.Status.History {
		outcomes = append(outcomes, fmt.Sprint(r.Revision, " ", r.Artefact, " ", r.Outcome))
	}
	if got := strings.Join(outcomes, ", "); got != "3 v1 Complete, 2 v2 Complete, 1 v1 Complete" {
		t.Error(got)
	}
}

// A revision says that it begins, before anything is done for it.
func TestTheFirstPlanOfARevision(t *testing.T) {
	f := newFleet(t, 3)
	first := f.plan()
	if first.outcome.Message != "Revision 1 begins: v1." || len(first.create) != 0 || first.status.Revision != 1 {
		t.Errorf("%q, revision %d, %d Deployments", first.outcome.Message, first.status.Revision, len(first.create))
	}
}

// An artefact that is named by its id is as good as one with a name: it begins one revision.
func TestAnArtefactByItsID(t *testing.T) {
	f := newFleet(t, 3, func(s *spec) { s.ArtefactRef, s.ArtefactID = nil, "a1" })
	f.until(v1alpha1.RolloutComplete)
	f.says("3 of 3 devices run a1.")
	f.edit(func(s *spec) { s.ArtefactRef, s.ArtefactID = &v1alpha1.ArtefactReference{Name: "a1"}, "" })
	f.step()
	f.until(v1alpha1.RolloutComplete)
	if f.rollout.Status.Revision != 2 {
		t.Errorf("revision %d, want 2: an Artefact may have the name that is another one's id", f.rollout.Status.Revision)
	}
}

// What is about to go is not removed once more.
func TestWhatGoesIsRemovedOnce(t *testing.T) {
	f := newFleet(t, 5, func(s *spec) { s.HistoryLimit = new(int32(0)) })
	f.until(v1alpha1.RolloutComplete)
	f.edit(func(s *spec) { s.ArtefactRef.Name = "v2" })
	f.rollout.Status = f.plan().status
	if got := len(f.plan().remove); got != 5 {
		t.Fatalf("%d are removed, want 5", got)
	}
	for _, c := range f.children {
		c.DeletionTimestamp = &metav1.Time{Time: f.now}
	}
	if got := len(f.plan().remove); got != 0 {
		t.Errorf("%d are removed that go already", got)
	}
}

func TestOldRevisionsAreRemoved(t *testing.T) {
	f := newFleet(t, 5, func(s *spec) { s.HistoryLimit = new(int32(1)) })
	for i := range 12 {
		f.edit(func(s *spec) { s.ArtefactRef.Name = fmt.Sprint("v", i) })
		f.until(v1alpha1.RolloutComplete)
	}
	f.step()
	revisions := map[string]int{}
	for _, c := range f.children {
		revisions[c.Labels[v1alpha1.LabelRevision]]++
	}
	if fmt.Sprint(revisions) != "map[11:5 12:5]" {
		t.Error(revisions)
	}
	if len(f.rollout.Status.History) != 10 {
		t.Errorf("the history tells of %d revisions", len(f.rollout.Status.History))
	}
}

func TestMembersThatLeave(t *testing.T) {
	f := newFleet(t, 4)
	f.offline[f.devices[0].ID] = true
	f.until(v1alpha1.RolloutComplete)
	gone := f.devices[0]
	f.devices = f.devices[1:]
	f.step()
	if f.cancelled != 1 {
		t.Error("what was pending of a device that has left was not cancelled")
	}
	f.says("3 of 3")
	clear(f.offline)
	f.devices = append(f.devices, gone)
	f.step()
	f.until(v1alpha1.RolloutComplete)
	f.says("4 of 4")
}

func TestOverriddenDevicesAreLeftAlone(t *testing.T) {
	f := newFleet(t, 6)
	f.reconcile()
	for _, c := range f.children {
		switch c.Spec.Device.ID {
		case f.devices[0].ID:
			f.end(c, v1alpha1.DeploymentSuperseded, v1alpha1.ReasonSuperseded)
		case f.devices[1].ID: // somebody cancels it
			f.end(c, v1alpha1.DeploymentCancelled, v1alpha1.ReasonCancelled)
		}
	}
	f.until(v1alpha1.RolloutComplete)
	f.says("4 of 6 devices run v1; 2 left alone, because they got another deployment.")
	if n := len(slices.DeleteFunc(slices.Clone(f.events), func(e string) bool { return e != v1alpha1.EventOverridden })); n != 1 {
		t.Errorf("%d events tell of it, want 1", n)
	}
	f.edit(func(s *spec) { s.ArtefactRef.Name = "v2" })
	f.until(v1alpha1.RolloutComplete)
	f.says("6 of 6 devices run v2.")
}

func TestIncompatibleDevicesAreLeftOut(t *testing.T) {
	f := newFleet(t, 6)
	f.compat = &v1alpha1.Compatibility{Models: []string{"5"}}
	f.devices[2].Filters.Model = "4b"
	f.devices[3].Filters = connectclient.Filters{}
	f.until(v1alpha1.RolloutComplete)
	f.says("4 of 6 devices run v1; 2 incompatible, among them pi-0002, pi-0003.")

	f = newFleet(t, 6)
	f.compat = &v1alpha1.Compatibility{Models: []string{"4b"}}
	f.until(v1alpha1.RolloutComplete)
	if got := strings.Count(f.message(), "pi-"); got != named {
		t.Errorf("%d of six are named: %s", got, f.message())
	}
}

func TestDeploymentsThatWaitForAPerson(t *testing.T) {
	f := newFleet(t, 3)
	f.reconcile()
	for _, c := range f.children {
		c.Status.State, c.Status.CreatedAt = "", nil
		meta.SetStatusCondition(&c.Status.Conditions, metav1.Condition{
			Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonBillingRequired, Message: "Set up billing.", ObservedGeneration: c.Generation,
		})
	}
	f.reconcile()
	names := slices.Sorted(maps.Keys(f.children))
	f.says("False BillingRequired: No device can be updated: the Deployment " + names[0] + " says: Set up billing.")

	f.children[names[1]].Status.State = string(connectclient.DeploymentSucceeded)
	f.end(f.children[names[1]], v1alpha1.DeploymentSucceeded, v1alpha1.ReasonSucceeded)
	for range 20 { // whatever the order in which they are read
		f.reconcile()
		f.says("False BillingRequired: No device can be updated: the Deployment " + names[0])
	}
}

// An attempt of an earlier revision that never reported back still has the device's deployment.
func TestAnOldAttemptThatNeverReportedBackLetsGo(t *testing.T) {
	f := newFleet(t, 1, func(s *spec) { s.FailurePolicy = &v1alpha1.FleetFailurePolicy{Action: v1alpha1.FailureActionContinue} })
	f.reconcile()
	for _, c := range f.children {
		c.Status.State = string(connectclient.DeploymentInProgress)
		f.end(c, v1alpha1.DeploymentDeadlineExceeded, v1alpha1.ReasonDeadlineExceeded)
	}
	f.edit(func(s *spec) { s.ArtefactRef.Name, s.Paused = "v2", true })
	f.reconcile()
	f.edit(func(s *spec) { s.ArtefactRef.Name, s.Paused = "v1", false })
	f.reconcile()
	for name, c := range f.children {
		if artefactOf(c) == "v1" && c.Labels[v1alpha1.LabelRevision] == "1" {
			t.Errorf("%s is in the way", name)
		}
	}
	f.until(v1alpha1.RolloutComplete)
}

func TestNobodyToUpdate(t *testing.T) {
	f := newFleet(t, 0)
	f.reconcile()
	f.says("True Complete: No device matches spec.devices.")
	f.unready = "Waiting for the Artefact \"v1\" to be created."
	f.reconcile()
	f.says("Unknown ArtefactNotReady")
}

func TestAnArtefactThatIsNotReady(t *testing.T) {
	f := newFleet(t, 3)
	f.unready = "Waiting for the Artefact \"v1\" to be ready."
	f.until(v1alpha1.RolloutPending)
	f.says("Unknown ArtefactNotReady")
	if f.postsOf("v1") != 0 {
		t.Error("devices begin")
	}
	f.unready = ""
	f.until(v1alpha1.RolloutComplete)
	f.unready = "The Artefact \"v1\" is being deleted." // who runs it runs it
	f.step()
	f.says("True Complete")
}

// A policy that was corrected counts, also when something else came between the correction and the next
// plan that was noted as seen: an outage, a token that was not there.
func TestAPolicyThatIsCorrectedInAnOutage(t *testing.T) {
	f := newFleet(t, 10, func(s *spec) { s.MaxConcurrent = num(2) })
	for _, d := range f.devices[:4] {
		f.fails[d.ID] = true
	}
	f.until(v1alpha1.RolloutPaused)
	f.says("False FailuresExceeded")
	f.edit(func(s *spec) { s.FailurePolicy = &v1alpha1.FleetFailurePolicy{MaxFailures: pct("50%")} })
	lifecycle.SetOutcome(f.rollout, lifecycle.Waiting(v1alpha1.ReasonThrottled, "The budget is spent."))
	f.until(v1alpha1.RolloutComplete)
	f.says("6 of 10 devices run v1; 4 failed.")
}

func TestALostStatus(t *testing.T) {
	f := newFleet(t, 20, func(s *spec) {
		s.MaxConcurrent = num(3)
		s.Batches = []v1alpha1.FleetBatch{{Name: "canary", Size: num(2), SoakTime: span(time.Hour)}}
	})
	f.edit(func(s *spec) { s.ArtefactRef.Name = "v2" })
	for range 300 {
		f.rollout.Status = v1alpha1.FleetRolloutStatus{} // again and again
		f.step()
	}
	f.until(v1alpha1.RolloutComplete)
	if f.postsOf("v2") != 20 || f.rollout.Status.Revision != 1 {
		t.Errorf("%d deployments, revision %d", f.postsOf("v2"), f.rollout.Status.Revision)
	}
}

func TestTheStatusIsBounded(t *testing.T) {
	size := 1_000
	if testing.Short() {
		size = 100
	}
	f := newFleet(t, size, func(s *spec) {
		s.MaxConcurrent = pct("100%")
		s.FailurePolicy = &v1alpha1.FleetFailurePolicy{Action: v1alpha1.FailureActionContinue}
		for i := range 20 {
			s.Batches = append(s.Batches, v1alpha1.FleetBatch{Name: fmt.Sprint(strings.Repeat("b", 60), i), Size: num(10), MinSucceeded: new(int32(0))})
		}
	})
	for i := range f.devices {
		f.devices[i].Name = strings.Repeat("n", 4096)
		f.fails[f.devices[i].ID] = i%2 == 0
	}
	for i := range 12 {
		f.edit(func(s *spec) { s.ArtefactRef.Name = fmt.Sprint(strings.Repeat("a", 250), i) })
		f.reconcile()
	}
	f.until(v1alpha1.RolloutComplete)
	text, err := json.Marshal(f.rollout.Status)
	if err != nil || len(text) > 32<<10 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
}

// histories is for a longer run: make soak.
var histories = flag.Uint64("histories", 15, "number of random histories, of 400 steps each")

// TestWhateverHappens plays random histories: edits, pauses, devices that fail, come, go, and are offline.
func TestWhateverHappens(t *testing.T) {
	for seed := range *histories {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			most := int32(1 + r.IntN(8))
			f := newFleet(t, 5+r.IntN(40), func(s *spec) {
				s.MaxConcurrent = num(most)
				s.Batches = []v1alpha1.FleetBatch{{Name: "canary", Size: num(2), MinSucceeded: new(int32(0))}, {Name: "some", Size: pct("20%"), SoakTime: span(30 * time.Minute)}}
				s.Retry = &v1alpha1.FleetRetry{Limit: new(int32(r.IntN(2))), Backoff: span(5 * time.Minute)}
				s.FailurePolicy = &v1alpha1.FleetFailurePolicy{MaxFailures: num(3), Action: []v1alpha1.FleetFailureAction{v1alpha1.FailureActionPause, v1alpha1.FailureActionContinue, v1alpha1.FailureActionRollback}[r.IntN(3)]}
				s.RollbackTo = &v1alpha1.ArtefactReference{Name: "v0"}
			})
			version := 1
			for range 400 {
				switch d := f.devices[r.IntN(len(f.devices))]; r.IntN(12) {
				case 0:
					f.offline[d.ID] = !f.offline[d.ID]
				case 1:
					f.fails[d.ID] = !f.fails[d.ID] && r.IntN(3) == 0
				case 2:
					f.edit(func(s *spec) { s.Paused = !s.Paused })
				case 3:
					if r.IntN(8) == 0 {
						version = 1 + r.IntN(3)
						f.edit(func(s *spec) { s.ArtefactRef.Name = fmt.Sprint("v", version) })
					}
				case 4:
					f.devices = append(f.devices, testDevice(100+r.IntN(1_000_000)))
				case 5:
					if len(f.devices) > 5 {
						f.devices = slices.DeleteFunc(f.devices, func(other connectclient.Device) bool { return other.ID == d.ID })
					}
				case 6:
					f.annotate(v1alpha1.AnnotationResumeRequestedAt, fmt.Sprint(r.Int()))
				case 7:
					if r.IntN(10) == 0 {
						f.rollout.Status = v1alpha1.FleetRolloutStatus{}
					}
				}
				f.limit = int(most)
				f.step()
				if counted := f.rollout.Status.Devices; counted.Members != counted.Waiting+counted.Pending+counted.InProgress+counted.Deferred+counted.Succeeded+counted.Failed+counted.Overridden+counted.Incompatible {
					t.Fatalf("not every device is counted once: %+v", counted)
				}
			}
			clear(f.offline)
			clear(f.fails)
			f.edit(func(s *spec) { s.Paused, s.ArtefactRef.Name = false, "v9" })
			f.until(v1alpha1.RolloutComplete)
			f.says(fmt.Sprintf("True Complete: %d of %d devices run v9.", len(f.devices), len(f.devices)))
			for what, n := range f.posts {
				if strings.HasSuffix(what, " v9") && n != 1 {
					t.Errorf("%s: %d deployments", what, n)
				}
			}
		})
	}
}

// beginning counts the Deployments that take up one of maxConcurrent.
func (f *fleet) beginning() int {
	n := 0
	none := func(*v1alpha1.Deployment, bool) *v1alpha1.Deployment { return nil }
	for _, obj := range f.children {
		if c, ok := readChild(obj, deadlinesOf(&f.rollout.Spec), none, f.now); ok && c.state.active() {
			n++
		}
	}
	return n
}

func BenchmarkPlanOfTenThousand(b *testing.B) {
	f := newFleet(&testing.T{}, 10_000, func(s *spec) { s.MaxConcurrent = num(50) })
	for range 150 {
		f.step()
	}
	b.ReportAllocs()
	for b.Loop() {
		f.plan()
	}
}
