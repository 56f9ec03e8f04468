// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"rpi-connect.dev/operator/internal/connectclient"
)

func TestInterval(t *testing.T) {
	const least, most = 15 * time.Second, 10 * time.Minute
	polls := newPolls(nil, clocktesting.NewFakePassiveClock(noon), least, most)
	for name, test := range map[string]struct {
		state     connectclient.DeploymentState
		unchanged time.Duration
		want      time.Duration
	}{
		"one that has just begun is looked at often":           {connectclient.DeploymentInProgress, 0, least},
		"and for some time":                                    {connectclient.DeploymentInProgress, 4*least - 1, least},
		"then less often":                                      {connectclient.DeploymentInProgress, 4 * least, 2 * least},
		"one that no device has picked up less from the start": {connectclient.DeploymentPending, 0, 2 * least},
		"and less and less":                                    {connectclient.DeploymentPending, 2 * least, 4 * least},
		"one that hangs for a day is not forgotten":            {connectclient.DeploymentInProgress, 24 * time.Hour, most},
		"nor is one that waits for a year":                     {connectclient.DeploymentPending, 365 * 24 * time.Hour, most},
		"a state that nobody knows is like pending":            {"paused", 0, 2 * least},
		"one that Connect's clock has in the future":           {connectclient.DeploymentInProgress, -time.Hour, least},
	} {
		t.Run(name, func(t *testing.T) {
			if got := polls.interval(test.state, test.unchanged); got != test.want {
				t.Errorf("it is looked at after %s, want %s", got, test.want)
			}
		})
	}
}

// The longer nothing happens the longer a deployment is left alone, within the
// bounds that the user has set.
func TestIntervalGrowsWithinItsBounds(t *testing.T) {
	for _, bounds := range []struct{ least, most time.Duration }{
		{15 * time.Second, 10 * time.Minute},
		{time.Second, time.Hour},
		{time.Minute, time.Minute},
		{time.Minute, 90 * time.Second},
	} {
		polls := newPolls(nil, clocktesting.NewFakePassiveClock(noon), bounds.least, bounds.most)
		for _, state := range []connectclient.DeploymentState{connectclient.DeploymentPending, connectclient.DeploymentInProgress} {
			var before time.Duration
			for unchanged := time.Duration(0); unchanged < 3*time.Hour; unchanged += 7 * time.Second {
				got := polls.interval(state, unchanged)
				if got < bounds.least || got > bounds.most || got < before {
					t.Fatalf("%s for %s, from %s to %s: looked at after %s, before that after %s", state, unchanged, bounds.least, bounds.most, got, before)
				}
				before = got
			}
		}
	}
}
