// SPDX-License-Identifier: Apache-2.0

package fleetrollout

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rpi-connect.dev/operator/api/v1alpha1"
)

func at(t *testing.T, text string) time.Time {
	t.Helper()
	parsed, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestWindows(t *testing.T) {
	night := v1alpha1.FleetWindow{Start: "0 2 * * *", Duration: *span(3 * time.Hour), TimeZone: "Europe/London"}
	skipped := v1alpha1.FleetWindow{Start: "30 1 * * *", Duration: *span(time.Hour), TimeZone: "Europe/London"}
	late := v1alpha1.FleetWindow{Start: "0 23 * * sat", Duration: *span(4 * time.Hour)}
	far := v1alpha1.FleetWindow{Start: "42 2 * * *", Duration: *span(9 * time.Minute), TimeZone: "Antarctica/Troll"}
	often := v1alpha1.FleetWindow{Start: "* * * * *", Duration: *span(720 * time.Hour)}
	for name, test := range map[string]struct {
		windows []v1alpha1.FleetWindow
		now     string
		open    bool
		change  string // when it closes, or opens
	}{
		"before it":                              {[]v1alpha1.FleetWindow{night}, "2027-01-10T01:59:59Z", false, "2027-01-10T02:00:00Z"},
		"at its start":                           {[]v1alpha1.FleetWindow{night}, "2027-01-10T02:00:00Z", true, "2027-01-10T05:00:00Z"},
		"in it":                                  {[]v1alpha1.FleetWindow{night}, "2027-01-10T04:59:59Z", true, "2027-01-10T05:00:00Z"},
		"at its end":                             {[]v1alpha1.FleetWindow{night}, "2027-01-10T05:00:00Z", false, "2027-01-11T02:00:00Z"},
		"in summer":                              {[]v1alpha1.FleetWindow{night}, "2027-07-10T01:00:00Z", true, "2027-07-10T04:00:00Z"},
		"on the morning of the change in spring": {[]v1alpha1.FleetWindow{night}, "2027-03-28T01:30:00Z", true, "2027-03-28T04:00:00Z"},
		"whose start the clock skips":            {[]v1alpha1.FleetWindow{skipped}, "2027-03-28T01:45:00Z", true, "2027-03-28T02:30:00Z"},
		"whose start comes twice, at first":      {[]v1alpha1.FleetWindow{skipped}, "2027-10-31T00:30:00Z", true, "2027-10-31T01:30:00Z"},
		"whose start comes twice, then":          {[]v1alpha1.FleetWindow{skipped}, "2027-10-31T02:15:00Z", true, "2027-10-31T02:30:00Z"},
		"before the day's hours come twice":      {[]v1alpha1.FleetWindow{far}, "2026-10-24T23:15:09Z", false, "2026-10-25T02:42:00Z"},
		"over midnight, by the day of its start": {[]v1alpha1.FleetWindow{late}, "2027-01-10T02:00:00Z", true, "2027-01-10T03:00:00Z"},
		"two, the nearer one":                    {[]v1alpha1.FleetWindow{night, late}, "2027-01-09T12:00:00Z", false, "2027-01-09T23:00:00Z"},
		"two, the nearer one, however listed":    {[]v1alpha1.FleetWindow{late, night}, "2027-01-09T12:00:00Z", false, "2027-01-09T23:00:00Z"},
		"two that overlap":                       {[]v1alpha1.FleetWindow{night, late}, "2027-01-10T02:30:00Z", true, "2027-01-10T05:00:00Z"},
		"one that never ends":                    {[]v1alpha1.FleetWindow{often}, "2027-01-10T02:30:30Z", true, "2027-02-09T02:30:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			w, until := windowAt(v1alpha1.FleetSchedule{Windows: test.windows}, at(t, test.now))
			change := until
			if !w.open {
				change = w.next
			}
			if w.open != test.open || !change.Equal(at(t, test.change)) || w.invalid != "" {
				t.Errorf("open %t until/next %s, want %t %s", w.open, change.UTC(), test.open, test.change)
			}
		})
	}
}

func TestNotBefore(t *testing.T) {
	start := metav1.NewTime(at(t, "2027-01-10T12:00:00Z"))
	w, _ := windowAt(v1alpha1.FleetSchedule{NotBefore: &start}, at(t, "2027-01-09T12:00:00Z"))
	if w.open || !w.next.Equal(start.Time) {
		t.Errorf("%+v", w)
	}
	night := []v1alpha1.FleetWindow{{Start: "0 2 * * *", Duration: *span(time.Hour)}}
	w, _ = windowAt(v1alpha1.FleetSchedule{NotBefore: &start, Windows: night}, at(t, "2027-01-09T12:00:00Z"))
	if w.open || !w.next.Equal(at(t, "2027-01-11T02:00:00Z")) {
		t.Errorf("%+v", w)
	}
}

func TestWindowsThatMakeNoSense(t *testing.T) {
	for start, says := range map[string]string{
		"0 26 * * *":  "is no cron expression",
		"0 0 31 2 *":  "never comes",
		"0 2 * * foo": "is no cron expression",
	} {
		w, _ := windowAt(v1alpha1.FleetSchedule{Windows: []v1alpha1.FleetWindow{{Start: start, Duration: *span(time.Hour)}}}, epoch)
		if w.open || !strings.Contains(w.invalid, says) || !strings.Contains(w.invalid, "spec.schedule.windows[0]") {
			t.Errorf("%s: %q", start, w.invalid)
		}
	}
	w, _ := windowAt(v1alpha1.FleetSchedule{Windows: []v1alpha1.FleetWindow{{Start: "0 2 * * *", TimeZone: "Europe/Lodnon", Duration: *span(time.Hour)}}}, epoch)
	if w.open || !strings.Contains(w.invalid, "use a name such as Europe/London") {
		t.Errorf("%+v", w)
	}
}

func TestNothingBeginsOutsideOfAWindow(t *testing.T) {
	windows := func(end v1alpha1.FleetWindowEnd) func(*spec) {
		return func(s *spec) {
			s.MaxConcurrent = num(2)
			s.Deadlines = &v1alpha1.FleetDeadlines{Pending: span(24 * time.Hour)}
			s.Schedule = &v1alpha1.FleetSchedule{AtWindowEnd: end, Windows: []v1alpha1.FleetWindow{{Start: "0 2 * * *", Duration: *span(10 * time.Minute)}}}
		}
	}
	t.Run("and what is pending at its end is cancelled", func(t *testing.T) {
		f := newFleet(t, 20, windows(v1alpha1.WindowEndCancelPending))
		f.offline[f.devices[0].ID] = true
		began := map[string]bool{}
		for range 4 * 24 * 60 {
			f.step()
			for name, c := range f.children {
				if !began[name] && (f.now.Hour() != 2 || f.now.Minute() > 10) {
					t.Fatalf("%s began at %s", name, f.now)
				}
				began[name] = true
				if c.Status.Outcome == "" && c.Status.State == "pending" && (f.now.Hour() != 2 || f.now.Minute() >= 10) {
					t.Fatalf("%s is still pending at %s", name, f.now)
				}
			}
		}
		if f.cancelled == 0 {
			t.Error("nothing was cancelled")
		}
		f.says("Unknown WaitingForWindow: Devices may begin again at 2027-03-06 02:00 UTC.")
		if f.rollout.Status.NextWindow == nil {
			t.Error("the status does not say when it goes on")
		}
		clear(f.offline)
		f.until(v1alpha1.RolloutComplete)
		f.says("20 of 20")
	})
	t.Run("and what is pending is left, if the spec says so", func(t *testing.T) {
		f := newFleet(t, 3, windows(v1alpha1.WindowEndLeave))
		f.offline[f.devices[0].ID] = true
		f.until(v1alpha1.RolloutComplete)
		f.says("2 of 3 devices run v1; 1 deferred")
		if f.cancelled != 0 {
			t.Errorf("%d were cancelled", f.cancelled)
		}
	})
}
