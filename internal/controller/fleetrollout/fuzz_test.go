// SPDX-License-Identifier: Apache-2.0

package fleetrollout

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// Whatever is written for a window: it is open or it will be, or what is said says what to correct; it
// closes after it has opened, and is open for no longer than it lasts.
func FuzzWindows(f *testing.F) {
	for _, start := range []string{
		"0 2 * * *", "*/15 1-5 * * mon,FRI", "30 1 * * *", "0 0 29 2 *", "0 0 31 2 *", "59 23 31 12 7", "@hourly", "@every 1h", "TZ=UTC 0 2 * * *",
		"CRON_TZ=Asia/Tokyo 0 2 * * *", "0 2 * * * *", "", "* * * * *", "0 26 * * *", "0 2 L * *", "0 2 * * 5#3", "0 2 1W * *", "-1 2 * * *", "0 2 * * \x00",
	} {
		f.Add(start, "Europe/London", int64(1_772_366_400), int64(3600))
	}
	f.Add("30 1 * * *", "Europe/London", int64(1_774_747_800), int64(3600)) // on the day that has no such time
	f.Add("0 0 * * *", "America/Sao_Paulo", int64(0), int64(60))
	f.Add("0 2 * * *", "../../etc/passwd", int64(-1), int64(0))
	f.Add("0 2 * * *", "Local", int64(1<<33), int64(720*3600))
	f.Add("0 2 * * *", "UTC 1 1 1 1 1", int64(1_772_366_400), int64(60))
	f.Fuzz(func(t *testing.T, start, zone string, now, lasts int64) {
		at := time.Unix(now%(1<<33), 0).UTC()
		duration := time.Duration(1+(lasts&0xffffff)%(720*3600)) * time.Second
		schedule := v1alpha1.FleetSchedule{Windows: []v1alpha1.FleetWindow{{Start: start, TimeZone: zone, Duration: metav1.Duration{Duration: duration}}}}
		w, until := windowAt(schedule, at)
		switch {
		case w.invalid != "":
			if w.open || !w.next.IsZero() || !strings.HasPrefix(w.invalid, "spec.schedule.windows[0]: ") || utf8.ValidString(start+zone) && !utf8.ValidString(w.invalid) {
				t.Fatalf("%+v", w)
			}
			return
		case w.open && (!until.After(at) || until.Sub(at) > duration || !w.next.IsZero()):
			t.Fatalf("open until %s, which is %s from now, and lasts %s: %+v", until, until.Sub(at), duration, w)
		case !w.open && !w.next.IsZero() && !w.next.After(at):
			t.Fatalf("closed, and opens in the past: %+v at %s", w, at)
		}
		if w.open {
			return
		}
		if w.next.IsZero() {
			return // it comes no more within the years that a schedule is searched for
		}
		if opened, _ := windowAt(schedule, w.next); !opened.open {
			t.Fatalf("closed at %s, when it opens", w.next)
		}
		if before, _ := windowAt(schedule, w.next.Add(-time.Second)); before.open {
			t.Fatalf("open before %s, when it opens", w.next)
		}
		schedule.NotBefore = &metav1.Time{Time: w.next.Add(time.Second)}
		if early, _ := windowAt(schedule, w.next); early.open {
			t.Fatalf("open at %s, before notBefore", w.next)
		}
	})
}

// Whatever stands in the labels and the status of a Deployment, it is read as one of the states, and its
// name is that of one attempt alone.
func FuzzChild(f *testing.F) {
	f.Add("3", "1", "canary", "pending", "", "AlreadyClaimed", true, true)
	f.Add("-1", "99999999999999999999", v1alpha1.BatchRollback, "in_progress", "Cancelled", "Cancelled", false, true)
	f.Add("0x3", "1", "", "succeeded", "Succeeded", "", false, false)
	f.Add("1", "1", "rest", "queued", "", "Incompatible", true, false)
	f.Add("+1", "01", "rest", "failed", "Superseded", "NotFound", false, false)
	f.Fuzz(func(t *testing.T, revision, attempt, batch, state, outcome, reason string, stalled, withdrawn bool) {
		obj := &v1alpha1.Deployment{}
		obj.Labels = map[string]string{v1alpha1.LabelRevision: revision, v1alpha1.LabelAttempt: attempt, v1alpha1.LabelBatch: batch}
		obj.CreationTimestamp = metav1.NewTime(epoch)
		obj.Spec.Device.ID = "device"
		obj.Status.State, obj.Status.Outcome = state, v1alpha1.DeploymentOutcome(outcome)
		status := metav1.ConditionUnknown
		if stalled {
			status = metav1.ConditionFalse
		}
		obj.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: status, Reason: reason, LastTransitionTime: metav1.NewTime(epoch)}}
		if withdrawn {
			obj.Spec.Cancel, obj.Annotations = true, map[string]string{v1alpha1.AnnotationWithdrawn: "true"}
		}
		other := obj.DeepCopy()
		other.Name = "other"
		for _, n := range []neighbour{
			func(*v1alpha1.Deployment, bool) *v1alpha1.Deployment { return nil },
			func(*v1alpha1.Deployment, bool) *v1alpha1.Deployment { return other },
		} {
			c, ok := readChild(obj, deadlines{time.Hour, time.Hour}, n, epoch.Add(30*time.Minute))
			if !ok {
				continue
			}
			if c.state == waiting || c.state > 8 || c.state.active() && c.state.ended() {
				t.Fatalf("state %d", c.state)
			}
			if c.state == overridden && !c.mirrored && c.by == "" {
				t.Fatal("overridden by nobody")
			}
			o := order{device: testDevice(1), revision: c.revision, batch: c.batch, attempt: c.attempt}
			again := o
			again.attempt++
			if name := o.name("kiosk"); len(name) > 253 || name == again.name("kiosk") || name != o.name("kiosk") {
				t.Fatalf("the name is %q", name)
			}
		}
	})
}
