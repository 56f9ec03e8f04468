// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/reflector"
)

// noon is now, wherever a test needs one.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// The queues of tokens that were rotated end, although the operator goes on: the bubble of simulated
// time would not end with one of their goroutines left.
func TestRotatedTokensLeaveNoQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api, err := connectclient.New(connectclient.Options{})
		if err != nil {
			t.Fatal(err)
		}
		woken := make(chan reflector.Notification, 1)
		polls := newPolls(api, clock.RealClock{}, 15*time.Second, 15*time.Minute)
		polls.notify = func(n reflector.Notification) { woken <- n }
		polls.start(context.Background())
		deployment := types.NamespacedName{Namespace: "lab", Name: "kiosk"}
		for i := range 1000 {
			token := connectclient.NewSecret(fmt.Sprint("rporg_", i))
			polls.due(token, deployment)
			if n := <-woken; n.Token != token || len(n.Waiters) != 1 || n.Waiters[0] != deployment {
				t.Fatalf("woken are %v", n.Waiters)
			}
			if !polls.takeDue(deployment) {
				t.Fatal("it is not due")
			}
			polls.retire(token)
			if n := <-woken; n.Token != token || len(n.Waiters) != 1 {
				t.Fatalf("woken are %v, want what waited in the queue", n.Waiters)
			}
			polls.retire(token) // it is told of twice
		}
		if len(polls.queues)+len(polls.of) != 0 {
			t.Errorf("%d queues and %d waiting deployments are left", len(polls.queues), len(polls.of))
		}
	})
}

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
