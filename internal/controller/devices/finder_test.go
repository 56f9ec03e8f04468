// SPDX-License-Identifier: Apache-2.0

package devices_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/internal/controller/devices"
	"rpi-connect.dev/operator/internal/reflector"
)

// env is a finder in front of a simulated Connect. Time is synctest's.
type env struct {
	*testing.T
	sim    *connectsim.Server
	org    *connectsim.Organisation
	token  connectclient.Secret
	finder *devices.Finder

	mu    sync.Mutex
	woken map[string]int
}

// direct carries requests to the simulator without a network, which synctest would not
// wait for.
type direct struct{ sim *connectsim.Server }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	recorder := httptest.NewRecorder()
	d.sim.ServeHTTP(recorder, r)
	return recorder.Result(), nil
}

func newEnv(t *testing.T, options connectsim.Options) *env {
	t.Helper()
	sim, token := connectsim.New(options), connectsim.NewSecret("rporg_")
	api, err := connectclient.New(connectclient.Options{Transport: direct{sim}})
	if err != nil {
		t.Fatal(err)
	}
	s := &env{
		T: t, sim: sim, org: sim.AddOrganisation(token), token: connectclient.NewSecret(token),
		finder: devices.New(reflector.Options{API: api, Interval: 10 * time.Minute}),
		woken:  map[string]int{},
	}
	s.finder.Subscribe(reflector.Subscription{Name: "Deployment", OnDemand: true, Notify: func(n reflector.Notification) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, w := range n.Waiters {
			s.woken[w.Name]++
		}
	}})
	ctx, stop := context.WithCancel(t.Context())
	go func() { _ = s.finder.Start(ctx) }()
	t.Cleanup(func() {
		stop()
		synctest.Wait()
	})
	synctest.Wait()
	return s
}

func waiter(name string) reflector.Waiter {
	return reflector.Waiter{Subscriber: "Deployment", Resource: types.NamespacedName{Namespace: "fleet", Name: name}}
}

// wakes tells whether the resource was woken since it last was asked for.
func (s *env) wakes(name string) bool {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.woken[name]
	delete(s.woken, name)
	return n > 0
}

// find asks until there is an answer, as a resource does that is woken each time.
func (s *env) find(name string, ref v1alpha1.DeviceReference, notBefore time.Time) []connectclient.Device {
	s.Helper()
	for range 10 {
		found, err := s.finder.Find(s.token, ref, notBefore, waiter(name))
		if err == nil {
			return found
		}
		if !errors.Is(err, reflector.ErrPending) {
			s.Fatal(err)
		}
		for range 300 {
			if s.wakes(name) {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	s.Fatalf("%s is pending, and is not woken", name)
	return nil
}

func (s *env) names(name string, ref v1alpha1.DeviceReference) string {
	s.Helper()
	var names []string
	for _, device := range s.find(name, ref, time.Time{}) {
		names = append(names, device.Name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// asked is how many requests were made about devices since it was last called.
func (s *env) asked() int {
	synctest.Wait()
	n := s.sim.Count("GET /organisation/devices") + s.sim.Count("GET /organisation/devices/{id}")
	s.sim.ResetJournal()
	return n
}

func (s *env) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func byQuery(query string) v1alpha1.DeviceReference { return v1alpha1.DeviceReference{Query: query} }
func byName(name string) v1alpha1.DeviceReference   { return v1alpha1.DeviceReference{Name: name} }

func TestFind(t *testing.T) {
	for _, revision := range []connectsim.Revision{connectsim.Current, connectsim.Older} {
		synctest.Test(t, func(t *testing.T) {
			s := newEnv(t, connectsim.Options{Revision: revision})
			porch := s.org.AddDevice(connectsim.Device{Name: "porch", SerialNumber: "10000000abcdef01", Tags: []string{"lab"}, Model: "5"})
			s.org.AddDevice(connectsim.Device{Name: "attic", SerialNumber: "10000000abcdef02", Tags: []string{"lab"}})
			s.org.AddDevice(connectsim.Device{Name: "porch", SerialNumber: "10000000abcdef03"})
			for name, test := range map[string]struct {
				wanted v1alpha1.DeviceReference
				want   string
			}{
				"the id":                               {v1alpha1.DeviceReference{ID: porch.ID}, "porch"},
				"an id that nobody has":                {v1alpha1.DeviceReference{ID: "other"}, ""},
				"an id in capitals":                    {v1alpha1.DeviceReference{ID: strings.ToUpper(porch.ID)}, ""},
				"the name":                             {byName("attic"), "attic"},
				"a name that two have":                 {byName("porch"), "porch porch"},
				"a name that nobody has":               {byName("cellar"), ""},
				"a part of a name":                     {byName("att"), ""},
				"a name in other letters":              {byName("Attic"), ""},
				"the serial number":                    {v1alpha1.DeviceReference{SerialNumber: "10000000abcdef03"}, "porch"},
				"the serial number in capitals":        {v1alpha1.DeviceReference{SerialNumber: "10000000ABCDEF03"}, "porch"},
				"a serial number that nobody has":      {v1alpha1.DeviceReference{SerialNumber: "10000000abcdef0"}, ""},
				"a query":                              {byQuery("tag:lab"), "attic porch"},
				"a query for one":                      {byQuery("tag:lab model:5"), "porch"},
				"a query that nothing matches":         {byQuery("tag:lab model:4b"), ""},
				"free text, which Connect understands": {byQuery("abcdef02"), "attic"},
				"free text and a qualifier":            {byQuery("tag:lab POR"), "porch"},
				"something that only Connect may know": {byQuery("state:online"), ""},
			} {
				if got := s.names(name, test.wanted); got != test.want {
					t.Errorf("%s, %s: got %q, want %q", revision, name, got, test.want)
				}
			}
		})
	}
}

// Whoever found none, or several, is woken when that may have changed, and not before.
func TestWhoFindsNotExactlyOneIsWoken(t *testing.T) {
	lab := connectsim.Device{Name: "porch", SerialNumber: "10000000abcdef01", Tags: []string{"lab"}}
	for name, ref := range map[string]v1alpha1.DeviceReference{
		"a name": byName("porch"), "a serial number": {SerialNumber: "10000000ABCDEF01"},
		"a query": byQuery("tag:lab"), "free text": byQuery("porch"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newEnv(t, connectsim.Options{})
				if got := s.names("rollout", ref); got != "" {
					t.Fatalf("found %s", got)
				}
				s.org.AddDevice(connectsim.Device{Name: "other", SerialNumber: "2", Tags: []string{"home"}})
				s.pass(25 * time.Minute)
				if s.wakes("rollout") {
					t.Error("another device has woken it")
				}
				one := s.org.AddDevice(lab)
				s.pass(12 * time.Minute)
				if !s.wakes("rollout") || s.names("rollout", ref) != "porch" {
					t.Error("the device that came has not woken it")
				}
				s.pass(25 * time.Minute)
				s.asked()
				s.pass(time.Hour)
				if n := s.asked(); n > 0 {
					t.Errorf("%d requests, although nobody waits", n)
				}

				second := s.org.AddDevice(lab)
				if second.ID == one.ID {
					t.Skip("a board that signs in again stays one device")
				}
				if got := len(s.find("rollout", ref, time.Now())); got != 2 {
					t.Errorf("%d devices match", got)
				}
				s.org.RemoveDevice(second.ID)
				s.pass(12 * time.Minute)
				for range 3 { // while it is in doubt whether the second is gone, more than one look
					if s.wakes("rollout") {
						_ = s.find("rollout", ref, time.Time{})
					}
					s.pass(12 * time.Minute)
				}
				if got := s.find("rollout", ref, time.Time{}); len(got) != 1 || got[0].ID != one.ID {
					t.Errorf("found %v", got)
				}
			})
		})
	}
}

// A name has moved to another device: who wants to know that, says how new the listing
// has to be.
func TestFindInAFreshListing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newEnv(t, connectsim.Options{})
		first := s.org.AddDevice(connectsim.Device{Name: "porch", SerialNumber: "1"})
		if got := s.find("a", byName("porch"), time.Time{}); len(got) != 1 || got[0].ID != first.ID {
			t.Fatalf("found %v", got)
		}
		s.org.ChangeDevice(first.ID, func(d *connectsim.Device) { d.Name = "attic" })
		second := s.org.AddDevice(connectsim.Device{Name: "porch", SerialNumber: "2"})
		s.pass(2 * time.Second)
		if got := s.find("b", byName("porch"), time.Now()); len(got) != 1 || got[0].ID != second.ID {
			t.Errorf("found %v, want the one that has the name now", got)
		}

		// A device that was replaced is not counted twice while it is in doubt.
		s.org.RemoveDevice(second.ID)
		third := s.org.AddDevice(connectsim.Device{Name: "porch", SerialNumber: "3"})
		s.pass(2 * time.Second)
		if got := s.find("c", byName("porch"), time.Now()); len(got) != 1 || got[0].ID != third.ID {
			t.Errorf("found %v, want the one that is there", got)
		}
		if device, known := s.finder.Known(s.token, third.ID); !known || device.Name != "porch" {
			t.Errorf("Known: %v, %t", device, known)
		}
		if _, known := s.finder.Known(s.token, second.ID); known {
			t.Error("what is gone is known")
		}
	})
}

// A device that is removed and comes back under its id is found again.
func TestFindAnIdThatComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newEnv(t, connectsim.Options{})
		for range 300 {
			s.org.AddDevice(connectsim.Device{Name: "other"})
		}
		device := s.org.AddDevice(connectsim.Device{Name: "porch"})
		ref := v1alpha1.DeviceReference{ID: device.ID}
		if got := s.names("a", ref); got != "porch" {
			t.Fatalf("found %q", got)
		}
		if n := s.asked(); n != 1 {
			t.Errorf("one id cost %d requests", n)
		}
		s.org.RemoveDevice(device.ID)
		if got := s.find("b", ref, time.Now()); len(got) != 0 {
			t.Errorf("found %v", got)
		}
		s.org.RestoreDevice(device)
		s.pass(12 * time.Minute)
		if !s.wakes("b") || s.names("b", ref) != "porch" {
			t.Error("it is not found again")
		}
	})
}

func fleet(s *env, n int) {
	for i := range n {
		s.org.AddDevice(connectsim.Device{Name: fmt.Sprintf("pi-%05d", i), Tags: []string{fmt.Sprint("unit-", i)}})
	}
}

// A narrow query in a large organisation costs a request, and one more each time that
// it is looked at while nothing matches.
func TestOneNarrowQueryIsCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newEnv(t, connectsim.Options{})
		fleet(s, 10_000)
		if got := s.names("found", byQuery("tag:unit-4711")); got != "pi-04711" {
			t.Errorf("found %q", got)
		}
		if got := s.names("waits", byQuery("tag:other")); got != "" {
			t.Errorf("found %q", got)
		}
		if n := s.asked(); n > 3 {
			t.Errorf("two queries cost %d requests", n)
		}
		s.pass(time.Hour)
		if n := s.asked(); n > 8 {
			t.Errorf("an hour of waiting cost %d requests", n)
		}
	})
}

// A few narrow queries in a large organisation have listings of their own.
func TestAFewNarrowQueriesAreCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newEnv(t, connectsim.Options{})
		fleet(s, 10_000)
		for i := range 8 {
			s.names(fmt.Sprint("waits", i), byQuery(fmt.Sprintf("tag:other-%d model:5", i)))
		}
		if n := s.asked(); n > 10 {
			t.Errorf("eight queries cost %d requests", n)
		}
		s.pass(30 * time.Minute)
		if n := s.asked(); n > 8*4 {
			t.Errorf("half an hour cost %d requests", n)
		}
	})
}

// Many queries in a small organisation are answered from one listing.
func TestManyQueriesShareOneListing(t *testing.T) {
	for _, queries := range []int{5, 200} {
		synctest.Test(t, func(t *testing.T) {
			s := newEnv(t, connectsim.Options{})
			fleet(s, 150)
			refs := map[string]v1alpha1.DeviceReference{}
			for i := range queries {
				refs[fmt.Sprint("waits", i)] = byQuery(fmt.Sprintf("tag:other-%d memory:8gb", i))
			}
			for name, ref := range refs {
				_, _ = s.finder.Find(s.token, ref, time.Time{}, waiter(name))
			}
			for name, ref := range refs {
				if got := s.names(name, ref); got != "" {
					t.Errorf("found %q", got)
				}
			}
			if n := s.asked(); n > 5 {
				t.Errorf("%d queries cost %d requests", queries, n)
			}
			s.pass(time.Second)
			for name := range refs {
				s.wakes(name)
			}
			s.pass(31 * time.Minute)
			if n := s.asked(); n > 4*(2+1) { // the listing of all, and that of the first query
				t.Errorf("half an hour with %d queries cost %d requests", queries, n)
			}

			s.org.AddDevice(connectsim.Device{Name: "new", Tags: []string{"other-3"}, Memory: "8gb", Model: "5"})
			s.pass(12 * time.Minute)
			for name := range refs {
				if woken := s.wakes(name); woken != (name == "waits3") {
					t.Errorf("%s is woken: %t", name, woken)
				}
			}
			if got := s.names("waits3", refs["waits3"]); got != "new" {
				t.Errorf("found %q", got)
			}
		})
	}
}

// The same question in other words is the same question.
func TestEqualQueriesAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newEnv(t, connectsim.Options{})
		fleet(s, 10_000)
		for i, query := range []string{"tag:a tag:b model:5", "model:5 tag:b tag:a", "  tag:b   tag:a tag:b model:5 "} {
			s.names(fmt.Sprint("waits", i), byQuery(query))
		}
		if n := s.asked(); n != 1 {
			t.Errorf("one question cost %d requests", n)
		}
	})
}

// Names are found in the listing that everybody shares, and what is listed already
// answers a query for nothing.
func TestAListingThatIsThereIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newEnv(t, connectsim.Options{})
		fleet(s, 1000)
		for i := range 100 {
			if got := s.names(fmt.Sprint("named", i), byName(fmt.Sprintf("pi-%05d", i))); got == "" {
				t.Errorf("%d is not found", i)
			}
		}
		for i := range 100 {
			if got := s.names(fmt.Sprint("asked", i), byQuery(fmt.Sprintf("tag:unit-%d", i))); got == "" {
				t.Errorf("%d is not found", i)
			}
		}
		if n := s.asked(); n != 10 {
			t.Errorf("it cost %d requests", n)
		}
	})
}

// An outage is told, and what nobody needs any more is let go.
func TestTroubleAndRetirement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newEnv(t, connectsim.Options{})
		s.sim.Inject(connectsim.Fault{Status: http.StatusServiceUnavailable})
		for name, ref := range map[string]v1alpha1.DeviceReference{"name": byName("porch"), "query": byQuery("tag:lab"), "second": byQuery("tag:home"), "text": byQuery("porch"), "id": {ID: "x"}} {
			_, _ = s.finder.Find(s.token, ref, time.Time{}, waiter(name))
			s.pass(20 * time.Second)
			if _, err := s.finder.Find(s.token, ref, time.Time{}, waiter(name)); !errors.Is(err, connectclient.ErrUnavailable) {
				t.Errorf("%s: %v, want the outage", name, err)
			}
		}
		s.finder.Forget(waiter("name"))
		s.finder.Retire(s.token)
		s.asked()
		s.pass(24 * time.Hour)
		if n := s.asked(); n > 0 {
			t.Errorf("%d requests with a token that is retired", n)
		}
	})
}
