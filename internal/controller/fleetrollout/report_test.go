// SPDX-License-Identifier: Apache-2.0

package fleetrollout

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// What a person reads of failures says how many there were, of how many, and what is tolerated.
func TestWhatIsSaidOfFailures(t *testing.T) {
	t.Run("of one too many", func(t *testing.T) {
		f := newFleet(t, 3, func(s *spec) { s.FailurePolicy = &v1alpha1.FleetFailurePolicy{MaxFailures: num(0)} })
		f.fails[f.devices[1].ID] = true
		f.until(v1alpha1.RolloutPaused)
		f.says("Paused: 1 device has failed, and spec.failurePolicy tolerates 0: pi-0001 (does not boot). To go on")
	})
	t.Run("of as many as are tolerated", func(t *testing.T) {
		f := newFleet(t, 3, func(s *spec) { s.FailurePolicy = &v1alpha1.FleetFailurePolicy{MaxFailures: num(1)} })
		f.fails[f.devices[1].ID] = true
		f.until(v1alpha1.RolloutComplete)
	})
	t.Run("of more than are named", func(t *testing.T) {
		f := newFleet(t, 5, func(s *spec) { s.FailurePolicy = &v1alpha1.FleetFailurePolicy{MaxFailures: num(0)} })
		f.fails["v1"] = true
		f.until(v1alpha1.RolloutPaused)
		f.says("Paused: 5 devices have failed, and spec.failurePolicy tolerates 0: pi-0000 (does not boot), pi-0001 (does not boot), pi-0002 (does not boot). To go on")
	})
	t.Run("of a batch", func(t *testing.T) {
		f := newFleet(t, 10, func(s *spec) {
			s.Batches = []v1alpha1.FleetBatch{{Name: "canary", Tags: []string{"canary"}, SuccessPercent: new(int32(50))}}
			s.FailurePolicy = &v1alpha1.FleetFailurePolicy{MaxFailures: pct("100%")}
		})
		for i := range 3 {
			f.devices[i].Tags = []string{"canary"}
			f.fails[f.devices[i].ID] = i > 0
		}
		f.until(v1alpha1.RolloutPaused)
		f.says("Paused: in the batch canary 2 of 3 devices have failed, fewer than its successPercent have succeeded: pi-0001 (does not boot), pi-0002")
		if f.postsOf("v1") != 3 {
			t.Errorf("%d devices began", f.postsOf("v1"))
		}
		delete(f.fails, f.devices[1].ID)
		f.edit(func(s *spec) { s.Batches[0].SuccessPercent = new(int32(33)) }) // one of three
		f.until(v1alpha1.RolloutComplete)
	})
}

// A device that is brought back counts by that, and as what it was while that has not begun.
func TestHowDevicesAreCountedThatAreBroughtBack(t *testing.T) {
	start := func(t *testing.T) *fleet {
		f := newFleet(t, 4, func(s *spec) {
			s.MaxConcurrent, s.RollbackTo = num(4), &v1alpha1.ArtefactReference{Name: "v0"}
			s.FailurePolicy = &v1alpha1.FleetFailurePolicy{MaxFailures: num(0), Action: v1alpha1.FailureActionRollback}
		})
		f.fails[f.devices[0].ID+" v1"] = true
		f.until(v1alpha1.RolloutRollingBack)
		return f
	}
	counts := func(f *fleet, want v1alpha1.FleetDeviceCounts) {
		t.Helper()
		want.Members = 4
		if got := f.rollout.Status.Devices; got != want {
			f.t.Errorf("%+v, want %+v", got, want)
		}
	}
	t.Run("in the end they have got another deployment", func(t *testing.T) {
		f := start(t)
		counts(f, v1alpha1.FleetDeviceCounts{Pending: 3, Failed: 1})
		f.until(v1alpha1.RolloutRolledBack)
		counts(f, v1alpha1.FleetDeviceCounts{Overridden: 3, Failed: 1})
		f.says("The devices that ran v1 have been brought back to v0. Correct the artefact")
	})
	t.Run("in a pause those that have not begun run what they ran", func(t *testing.T) {
		f := start(t)
		f.edit(func(s *spec) { s.Paused = true })
		f.reconcile()
		counts(f, v1alpha1.FleetDeviceCounts{Succeeded: 3, Failed: 1})
		f.says("spec.paused is true")
	})
	t.Run("one that fails again is named", func(t *testing.T) {
		f := start(t)
		f.fails[f.devices[1].ID+" v0"] = true
		f.until(v1alpha1.RolloutRolledBack)
		counts(f, v1alpha1.FleetDeviceCounts{Overridden: 2, Failed: 2})
		f.says("brought back to v0, but for 1 that failed. Correct")
	})
	t.Run("one that is offline is waited for no longer", func(t *testing.T) {
		f := start(t)
		f.offline[f.devices[1].ID] = true
		f.until(v1alpha1.RolloutRolledBack)
		counts(f, v1alpha1.FleetDeviceCounts{Overridden: 2, Failed: 1, Deferred: 1})
		f.says("but for 1 that are offline and will be when they come back. Correct")
	})
}

// Names that no device has are said at the end.
func TestNamesOfNoDevice(t *testing.T) {
	f := newFleet(t, 1)
	f.until(v1alpha1.RolloutComplete)
	f.says("1 of 1 devices run v1.")
	in := input{rollout: f.rollout, devices: f.devices, now: f.now, missing: []string{"a", "b", "c", "d"}}
	for _, obj := range f.children {
		c, _ := readChild(obj, deadlinesOf(&f.rollout.Spec), func(*v1alpha1.Deployment, bool) *v1alpha1.Deployment { return nil }, f.now)
		in.children = append(in.children, c)
	}
	if got := makePlan(in).outcome.Message; got != `1 of 1 devices run v1. 4 of the names and serial numbers are of no device, among them "a", "b", "c".` {
		t.Error(got)
	}
	if strings.Contains(f.message(), "are of no device") {
		t.Error(f.message())
	}
}

// What happens to a device that joins a rollout that was complete is told like anything else.
func TestTroubleAfterItWasComplete(t *testing.T) {
	f := newFleet(t, 3, func(s *spec) { s.FailurePolicy = &v1alpha1.FleetFailurePolicy{MaxFailures: num(0)} })
	f.until(v1alpha1.RolloutComplete)
	f.devices = append(f.devices, testDevice(100))
	f.fails[testDevice(100).ID] = true
	f.step()
	f.until(v1alpha1.RolloutPaused)
	if got := strings.Join(f.events, " "); got != "RevisionBegun BatchBegun Complete FailuresExceeded" {
		t.Errorf("the story is %s", got)
	}
}

// That it is complete is told also where somebody has emptied the history.
func TestAHistoryThatWasEmptied(t *testing.T) {
	f := newFleet(t, 3)
	f.step()
	f.rollout.Status.History = nil
	f.until(v1alpha1.RolloutComplete)
	if got := strings.Join(f.events, " "); got != "RevisionBegun BatchBegun Complete" {
		t.Errorf("the story is %s", got)
	}
}

// A status that only counts on is written every five seconds at most.
func TestUntilTheNextStatus(t *testing.T) {
	rollout := types.NamespacedName{Namespace: "default", Name: "kiosk"}
	l := newLedger()
	if got := l.untilStatus(rollout, epoch); got != 0 {
		t.Errorf("the first waits for %s", got)
	}
	l.noteStatus(rollout, epoch)
	for after, want := range map[time.Duration]time.Duration{0: 5 * time.Second, 2 * time.Second: 3 * time.Second, 5 * time.Second: 0, time.Hour: 0} {
		if got := l.untilStatus(rollout, epoch.Add(after)); got != want {
			t.Errorf("after %s the next one waits for %s, want %s", after, got, want)
		}
	}
}

// What the artefact is made for is asked of devices that have not begun. Of one that has, its Deployment
// says so.
func TestAnArtefactThatIsMadeForOthersLater(t *testing.T) {
	f := newFleet(t, 2, func(s *spec) { s.MaxConcurrent = num(1) })
	f.reconcile()
	f.edit(func(s *spec) { s.Paused = true })
	f.reconcile()
	f.compat = &v1alpha1.Compatibility{Models: []string{"4b"}}
	f.reconcile()
	if got := f.rollout.Status.Devices; got.Waiting != 1 || got.Incompatible != 1 {
		t.Errorf("%+v", got)
	}
}

// A status that only counts on is put off; everything else is written at once.
func TestCountsOn(t *testing.T) {
	was := v1alpha1.FleetRolloutStatus{Phase: v1alpha1.RolloutProgressing, Revision: 2, Batch: "canary", PauseReason: "", LastHandledResumeAt: "a", RollbackTo: ""}
	was.Devices.Succeeded = 1
	for name, test := range map[string]struct {
		change func(*v1alpha1.FleetRolloutStatus)
		want   bool
	}{
		"nothing":    {func(*v1alpha1.FleetRolloutStatus) {}, false},
		"a number":   {func(s *v1alpha1.FleetRolloutStatus) { s.Devices.Succeeded++ }, true},
		"the phase":  {func(s *v1alpha1.FleetRolloutStatus) { s.Phase = v1alpha1.RolloutSoaking }, false},
		"revision":   {func(s *v1alpha1.FleetRolloutStatus) { s.Revision++ }, false},
		"the batch":  {func(s *v1alpha1.FleetRolloutStatus) { s.Batch = "rest" }, false},
		"a pause":    {func(s *v1alpha1.FleetRolloutStatus) { s.PauseReason = v1alpha1.PausedBySpec }, false},
		"a resume":   {func(s *v1alpha1.FleetRolloutStatus) { s.LastHandledResumeAt = "b" }, false},
		"a rollback": {func(s *v1alpha1.FleetRolloutStatus) { s.RollbackTo = "v0" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			is := was.DeepCopy()
			test.change(is)
			if got := countsOn(&was, is); got != test.want {
				t.Errorf("it is put off: %t", got)
			}
		})
	}
	for _, phase := range []v1alpha1.FleetRolloutPhase{v1alpha1.RolloutComplete, v1alpha1.RolloutRolledBack} {
		was := was
		was.Phase = phase
		is := was.DeepCopy()
		is.Devices.Succeeded++
		if countsOn(&was, is) {
			t.Errorf("%s: the last number is put off", phase)
		}
	}
}

// Which approval counts, and since when a window is waited for, is told.
func TestWhatIsSaidInARollbackOutsideOfAWindow(t *testing.T) {
	f := newFleet(t, 4, func(s *spec) {
		s.MaxConcurrent, s.RollbackTo = num(1), &v1alpha1.ArtefactReference{Name: "v0"}
		s.FailurePolicy = &v1alpha1.FleetFailurePolicy{MaxFailures: num(0), Action: v1alpha1.FailureActionRollback}
		s.Schedule = &v1alpha1.FleetSchedule{Windows: []v1alpha1.FleetWindow{{Start: "0 12 * * *", Duration: *span(7 * time.Minute)}}}
		s.Order = v1alpha1.OrderName
	})
	f.fails[f.devices[2].ID+" v1"] = true
	f.until(v1alpha1.RolloutRollingBack)
	f.says("bringing those that run it back to v0.")
	for f.now.Hour() == 12 && f.now.Minute() < 10 {
		f.step()
	}
	f.says("bringing those that run it back to v0, which may begin at 2027-03-02 12:00 UTC.")
	f.until(v1alpha1.RolloutRolledBack)
}
