// SPDX-License-Identifier: Apache-2.0

package accesstoken_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	registry "sigs.k8s.io/controller-runtime/pkg/metrics"

	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/accesstoken"
	"rpi-connect.dev/operator/internal/metrics"
)

func (c *cluster) hasRetired(want ...string) {
	c.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	var got []string
	for _, token := range c.retired {
		got = append(got, token.Reveal())
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		c.Errorf("%q have retired, want %q", got, want)
	}
}

func TestRotatedTokenRetiresAtOnce(t *testing.T) {
	other := tokenRef
	other.Name = "other"
	for name, test := range map[string]struct {
		happens func(*cluster)
		want    []string
	}{
		"not while nothing changes": {func(c *cluster) {
			c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
			c.holds(tokenRef, "rporg_one")
			c.put(tokenRef.Name, map[string]string{"token": "rporg_one", "note": "paid the bill"})
			c.holds(tokenRef, "rporg_one")
		}, nil},
		"when another value is read": {func(c *cluster) {
			c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
			c.holds(tokenRef, "rporg_one")
			c.put(tokenRef.Name, map[string]string{"token": "rporg_two"})
			c.holds(tokenRef, "rporg_two")
			c.holds(tokenRef, "rporg_two")
		}, []string{"rporg_one"}},
		"not while another Secret has it": {func(c *cluster) {
			for _, name := range []string{tokenRef.Name, other.Name} {
				c.put(name, map[string]string{"token": "rporg_one"})
			}
			c.holds(tokenRef, "rporg_one")
			c.holds(other, "rporg_one")
			c.put(tokenRef.Name, map[string]string{"token": "rporg_two"})
			c.holds(tokenRef, "rporg_two")
		}, nil},
		"when the last Secret that had it changes": {func(c *cluster) {
			for _, name := range []string{tokenRef.Name, other.Name} {
				c.put(name, map[string]string{"token": "rporg_one"})
			}
			c.holds(tokenRef, "rporg_one")
			c.holds(other, "rporg_one")
			for _, name := range []string{tokenRef.Name, other.Name} {
				c.put(name, map[string]string{"token": "rporg_two"})
			}
			c.holds(tokenRef, "rporg_two")
			c.holds(other, "rporg_two")
		}, []string{"rporg_one"}},
		"not when it disappears, because it serves deletions": {func(c *cluster) {
			c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
			c.holds(tokenRef, "rporg_one")
			c.put(tokenRef.Name, map[string]string{})
			c.misses(tokenRef)
			c.remove(tokenRef.Name)
			c.misses(tokenRef)
		}, nil},
		"when another comes after it has disappeared": {func(c *cluster) {
			c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
			c.holds(tokenRef, "rporg_one")
			c.remove(tokenRef.Name)
			c.misses(tokenRef)
			for range 2 { // the fake API server begins to count versions anew
				c.put(tokenRef.Name, map[string]string{"token": "rporg_two"})
			}
			c.holds(tokenRef, "rporg_two")
		}, []string{"rporg_one"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			test.happens(c)
			c.hasRetired(test.want...)
		})
	}
}

// names has a resource name the place, or none.
func (c *cluster) names(ref accesstoken.Ref, named bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.named[ref] = named
}

// inTime runs a story in simulated time, with a source that sweeps.
func inTime(t *testing.T, story func(c *cluster)) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.UsedBy(func(context.Context, accesstoken.Ref) bool { return false })
		c.UsedBy(func(_ context.Context, ref accesstoken.Ref) bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.named[ref]
		})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- c.Start(ctx) }()
		story(c)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// minutes lets time pass.
func (c *cluster) minutes(n int) {
	time.Sleep(time.Duration(n) * time.Minute)
	synctest.Wait()
}

func TestTokenRetiresWithItsUsers(t *testing.T) {
	inTime(t, func(c *cluster) {
		c.names(tokenRef, true)
		c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
		c.holds(tokenRef, "rporg_one")
		c.minutes(60)
		c.hasRetired()
		c.hasRead(1)

		c.names(tokenRef, false)
		c.minutes(2)
		c.hasRetired("rporg_one")
		if _, ok := c.LastGood(tokenRef); ok || len(c.RefsOf(connectclient.NewSecret("rporg_one"))) > 0 {
			t.Error("its place has not been forgotten")
		}
		c.minutes(60)
		c.hasRetired("rporg_one", "rporg_one") // once, and a reminder

		c.names(tokenRef, true)
		c.holds(tokenRef, "rporg_one")
		c.hasRead(2)
		c.minutes(60)
		c.hasRetired("rporg_one", "rporg_one")
	})
}

// The Secret is deleted before the resources that name it. What they made is deleted with the token
// that is remembered, however long it takes; after that nothing is left of it.
func TestLastGoodStaysAsLongAsItIsNamed(t *testing.T) {
	inTime(t, func(c *cluster) {
		c.names(tokenRef, true)
		c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
		c.holds(tokenRef, "rporg_one")
		c.remove(tokenRef.Name)
		c.minutes(3 * 24 * 60)
		if token, ok := c.LastGood(tokenRef); !ok || token.Reveal() != "rporg_one" {
			t.Error("the last good token has been forgotten")
		}
		c.hasRetired()
		c.names(tokenRef, false)
		c.minutes(10)
		if _, ok := c.LastGood(tokenRef); ok {
			t.Error("the last good token has not been forgotten")
		}
		c.hasRetired("rporg_one", "rporg_one")
	})
}

// A resource has just come and asked for its token; those who know of users do not see it yet.
func TestPlaceThatWasAskedForIsNotForgotten(t *testing.T) {
	inTime(t, func(c *cluster) {
		c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
		for range 20 {
			c.holds(tokenRef, "rporg_one")
			c.minutes(1)
		}
		c.hasRetired()
		c.hasRead(1)
	})
}

// Somebody rotates to another token and back. Nobody is told that the old one, which is the new one,
// has left.
func TestTokenThatComesBackIsNotRetiredLater(t *testing.T) {
	inTime(t, func(c *cluster) {
		c.names(tokenRef, true)
		for _, token := range []string{"rporg_one", "rporg_two", "rporg_one"} {
			c.put(tokenRef.Name, map[string]string{"token": token})
			c.holds(tokenRef, token)
		}
		c.hasRetired("rporg_one", "rporg_two")
		c.minutes(10)
		c.hasRetired("rporg_one", "rporg_two", "rporg_two")
	})
}

// A place of which nobody can say whether it is used is kept.
func TestNothingIsForgottenUnlessSomebodyKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- c.Start(ctx) }()
		c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
		c.holds(tokenRef, "rporg_one")
		c.minutes(60)
		c.hasRetired()
		stop()
		<-ended
	})
}

// Whoever is told of a token may ask the source about it.
func TestWhoeverIsToldMayAsk(t *testing.T) {
	c := newCluster(t)
	told := 0
	c.OnRetired(func(token connectclient.Secret) {
		told++
		if !c.Withdrawn(token) || len(c.RefsOf(token)) > 0 {
			t.Error("it is still somewhere")
		}
		c.holds(tokenRef, "rporg_two")
	})
	c.OnTouched(func(token connectclient.Secret) {
		told++
		if c.Withdrawn(token) || len(c.RefsOf(token)) != 1 {
			t.Error("it is nowhere")
		}
		c.holds(tokenRef, "rporg_two")
	})
	for _, token := range []string{"rporg_one", "rporg_two", "rporg_two"} {
		c.put(tokenRef.Name, map[string]string{"token": token})
		c.holds(tokenRef, token)
	}
	if told != 2 {
		t.Errorf("told %d times", told)
	}
}

func TestWithdrawn(t *testing.T) {
	one, other := connectclient.NewSecret("rporg_one"), tokenRef
	other.Name = "other"
	c := newCluster(t)
	withdrawn := func(want bool, when string) {
		t.Helper()
		if got := c.Withdrawn(one); got != want {
			t.Errorf("%s: withdrawn %t", when, got)
		}
	}
	withdrawn(true, "before it was ever seen")
	for _, ref := range []accesstoken.Ref{tokenRef, other} {
		c.put(ref.Name, map[string]string{"token": "rporg_one"})
		c.holds(ref, "rporg_one")
	}
	withdrawn(false, "in two Secrets")
	c.put(tokenRef.Name, map[string]string{})
	c.misses(tokenRef)
	withdrawn(false, "with one of the two emptied")
	c.remove(other.Name)
	c.misses(other)
	withdrawn(true, "with one of the two emptied and the other one gone")
	c.put(other.Name, map[string]string{"token": "rporg_one"})
	c.holds(other, "rporg_one")
	withdrawn(false, "with one of the two back again")
	c.put(other.Name, map[string]string{"token": "rporg_two"})
	c.holds(other, "rporg_two")
	withdrawn(true, "with the other one rotated")
}

// Nobody asks for the token of a Secret that was deleted: its resources are suspended. It is noticed
// all the same.
func TestWithdrawalIsNoticedByTheSweep(t *testing.T) {
	inTime(t, func(c *cluster) {
		c.names(tokenRef, true)
		c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
		c.holds(tokenRef, "rporg_one")
		c.remove(tokenRef.Name)
		c.minutes(1)
		if !c.Withdrawn(connectclient.NewSecret("rporg_one")) {
			t.Error("it has not been noticed")
		}
	})
}

// connect is Connect in memory.
type connect struct{}

func (connect) RoundTrip(r *http.Request) (*http.Response, error) {
	header := http.Header{}
	for name, value := range map[string]string{"Limit": "5000", "Remaining": "4321", "Reset": "1800"} {
		header.Set("X-Rate-Limit-"+name, value)
	}
	status := http.StatusOK
	if r.Method == http.MethodGet {
		status = http.StatusUnauthorized
		header = http.Header{}
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader("")), Request: r}, nil
}

// seriesOfTokens counts the metrics' series that are about a token.
func seriesOfTokens(t *testing.T) (n int) {
	t.Helper()
	families, err := registry.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, series := range family.GetMetric() {
			for _, label := range series.GetLabel() {
				if label.GetName() == "token" {
					n++
				}
			}
		}
	}
	return n
}

// A robot rotates the token every minute or so, a thousand times: one client is left, no goroutine and
// no series more than after the first.
func TestRotationsLeaveNothingBehind(t *testing.T) {
	c := newCluster(t)
	api, err := connectclient.New(connectclient.Options{Transport: connect{}, Observe: metrics.Observe})
	if err != nil {
		t.Fatal(err)
	}
	c.OnRetired(api.Retire)
	c.OnRetired(func(token connectclient.Secret) { metrics.Forget(token.Fingerprint()) })

	var clients []weak.Pointer[connectclient.Client]
	use := func(token connectclient.Secret) {
		organisation := api.ClientFor(token)
		if err := organisation.Devices().Delete(t.Context(), "p1"); err != nil {
			t.Fatal(err)
		}
		_, _ = organisation.Deployments().Get(t.Context(), "d1") // is answered with 401
	}
	rotate := func(i int) {
		before, rotated := c.LastGood(tokenRef)
		held := api.ClientFor(before) // by a pass that is under way
		token := connectclient.NewSecret(fmt.Sprint("rporg_", i))
		c.put(tokenRef.Name, map[string]string{"token": token.Reveal()})
		c.holds(tokenRef, token.Reveal())
		if rotated {
			_, _ = held.Deployments().Get(t.Context(), "d1")
		}
		use(token)
		clients = append(clients, weak.Make(api.ClientFor(token)))
	}
	rotate(0)
	series, goroutines := seriesOfTokens(t), runtime.NumGoroutine()
	for i := range 1000 {
		rotate(i + 1)
	}
	runtime.GC()
	runtime.GC()
	alive := 0
	for _, client := range clients {
		if client.Value() != nil {
			alive++
		}
	}
	if alive != 1 {
		t.Errorf("%d clients are left", alive)
	}
	if got := seriesOfTokens(t); got != series {
		t.Errorf("from %d series to %d", series, got)
	}
	if got := runtime.NumGoroutine(); got > goroutines+5 {
		t.Errorf("from %d goroutines to %d", goroutines, got)
	}
	token, _ := c.LastGood(tokenRef)
	api.Retire(token)
	metrics.Forget(token.Fingerprint())
	if got := seriesOfTokens(t); got != 0 {
		t.Errorf("%d series are left of the last", got)
	}
}
