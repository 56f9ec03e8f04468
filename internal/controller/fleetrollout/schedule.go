// SPDX-License-Identifier: Apache-2.0

package fleetrollout

import (
	"fmt"
	"time"
	_ "time/tzdata" // a container image may have none

	cron "github.com/netresearch/go-cron"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// window is whether devices may begin now.
type window struct {
	open    bool
	next    time.Time // when they may again; zero if they may now, or never
	invalid string    // why the schedule cannot be understood
}

// schedule gives the starts of a window, in its time zone.
type schedule = cron.ScheduleWithPrev

var cronParser = cron.MustNewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)

// readWindow finds out whether devices may begin now, and when that changes.
func (p *planner) readWindow() {
	p.window = window{open: true}
	p.status.NextWindow = nil
	if p.spec.Schedule == nil {
		return
	}
	var until time.Time
	p.window, until = windowAt(*p.spec.Schedule, p.now)
	p.status.NextWindow = timestampOf(p.window.next)
	p.lookAt(p.window.next)
	p.lookAt(until)
}

// windowAt tells whether devices may begin at a time, and until when; zero if for ever.
func windowAt(schedule v1alpha1.FleetSchedule, now time.Time) (w window, until time.Time) {
	if at := schedule.NotBefore; at != nil && now.Before(at.Time) {
		w, _ := windowAt(v1alpha1.FleetSchedule{Windows: schedule.Windows}, at.Time)
		if w.open {
			w.next = at.Time
		}
		w.open = false
		return w, time.Time{}
	}
	if len(schedule.Windows) == 0 {
		return window{open: true}, time.Time{}
	}
	for i, spec := range schedule.Windows {
		starts, err := parseWindow(spec)
		if err != nil {
			return window{invalid: fmt.Sprintf("spec.schedule.windows[%d]: %s", i, err)}, time.Time{}
		}
		// A window is open from its start, inclusive, to its end, exclusive. Windows that overlap are
		// one.
		if last := lastStart(starts, now); !last.IsZero() {
			if end := last.Add(spec.Duration.Duration); end.After(now) && end.After(until) {
				w.open, until = true, end
			}
		}
		if next := starts.Next(now); !next.IsZero() && (w.next.IsZero() || next.Before(w.next)) {
			w.next = next
		}
	}
	if w.open {
		w.next = time.Time{}
	}
	return w, until
}

// lastStart is the latest start that is not after now. Prev does not know of the starts that the clock
// has skipped in spring, Next does; and where hours come twice in autumn, Prev may answer with one that
// is still to come.
func lastStart(starts schedule, now time.Time) time.Time {
	last := starts.Prev(now.Add(time.Second))
	for back := 3 * time.Hour; last.After(now); back *= 2 {
		last = starts.Prev(now.Add(-back))
	}
	if last.IsZero() {
		return last
	}
	for next := starts.Next(last); !next.IsZero() && !next.After(now); next = starts.Next(next) {
		last = next
	}
	return last
}

// parseWindow understands when a window starts. Its errors say what to correct.
func parseWindow(spec v1alpha1.FleetWindow) (schedule, error) {
	zone := spec.TimeZone
	if zone == "" {
		zone = "UTC"
	}
	location, err := time.LoadLocation(zone)
	if err != nil {
		return nil, fmt.Errorf("timeZone %q is not in the time zone database: use a name such as Europe/London", zone)
	}
	parsed, err := cronParser.Parse("CRON_TZ=" + zone + " " + spec.Start)
	if err != nil {
		return nil, fmt.Errorf("start %q is no cron expression: %w", spec.Start, err)
	}
	starts, ok := parsed.(schedule)
	if !ok {
		return nil, fmt.Errorf("start %q is no time of the day: write five fields, such as \"0 2 * * *\"", spec.Start)
	}
	if starts.Next(time.Date(2026, 1, 1, 0, 0, 0, 0, location)).IsZero() {
		return nil, fmt.Errorf("start %q never comes", spec.Start)
	}
	return starts, nil
}
