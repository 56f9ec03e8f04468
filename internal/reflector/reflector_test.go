// SPDX-License-Identifier: Apache-2.0

package reflector_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/reflector"
)

// Time in these tests is synctest's: it passes when everybody waits for it, so
// hours take no time and nothing depends on how fast the machine is.

// thing is a remote object.
type thing struct{ ID, Name, Content string }

// organisation is what the listings show, and who was woken by them.
type organisation struct {
	t *testing.T

	mu       sync.Mutex
	things   []thing
	failure  error
	listings int
	during   func() // runs once, in the middle of the next listing
	notified []reflector.Notification
	wanted   bool
}

// listing shows all things on one page.
type listing struct{ of *organisation }

func (l *listing) Next(context.Context) ([]thing, bool, error) {
	o := l.of
	o.mu.Lock()
	o.listings++
	things, failure, during := slices.Clone(o.things), o.failure, o.during
	o.during = nil
	o.mu.Unlock()
	if during != nil {
		during()
	}
	if failure != nil {
		return nil, true, failure
	}
	return things, false, nil
}

func (*listing) Skipped() int { return 0 }
func (*listing) Whole() bool  { return true }

// shows makes the next listings show these things.
func (o *organisation) shows(things ...thing) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.things, o.failure = things, nil
}

// fails makes the next listings fail.
func (o *organisation) fails(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failure = err
}

// meanwhile does something in the middle of the next listing.
func (o *organisation) meanwhile(do func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.during = do
}

// woken returns whom the subscriber was told of since it was last called.
func (o *organisation) woken() []reflector.Notification {
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	notified := o.notified
	o.notified = nil
	return notified
}

func (o *organisation) listed() int {
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.listings
}

var (
	alice = waiter("alice")
	bob   = waiter("bob")
)

func waiter(name string) reflector.Waiter {
	return reflector.Waiter{Subscriber: "Thing", Resource: types.NamespacedName{Namespace: "fleet", Name: name}}
}

func wakes(n reflector.Notification, w reflector.Waiter) bool {
	return slices.Contains(n.Waiters, w.Resource)
}

// start returns the store of an organisation, with a reflector behind it that
// lists every ten minutes.
func start(t *testing.T, collection reflector.Collection[thing]) (*organisation, *reflector.Store[thing]) {
	t.Helper()
	api, err := connectclient.New(connectclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o := &organisation{t: t, wanted: true}
	collection.Name = "things"
	collection.List = func(*connectclient.Client, string) reflector.Pager[thing] { return &listing{of: o} }
	collection.ID = func(one thing) string { return one.ID }
	collection.Keys = func(one thing) []string { return []string{one.Name} }
	r := reflector.New(reflector.Options{API: api, Interval: 10 * time.Minute}, collection)
	r.Subscribe(reflector.Subscription{
		Name: "Thing",
		Notify: func(n reflector.Notification) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.notified = append(o.notified, n)
		},
		Wanted: func(context.Context, connectclient.Secret) bool {
			o.mu.Lock()
			defer o.mu.Unlock()
			return o.wanted
		},
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.Start(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-done
		synctest.Wait()
	})
	return o, r.Of(connectclient.NewSecret("rporg_test"))
}

// pass lets simulated time pass, which takes none, and everybody do what is due
// in it.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func wantPending(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, reflector.ErrPending) {
		t.Fatalf("Await = %v, want ErrPending", err)
	}
}

func wantNoError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("Await = %v, want nil", err)
	}
}

func TestManyWaitersShareOneListing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := start(t, reflector.Collection[thing]{})
		o.shows(thing{ID: "1", Name: "one"})

		wantPending(t, store.Await(time.Time{}, alice))
		wantPending(t, store.Await(time.Time{}, bob))

		told := o.woken()
		if len(told) != 1 || len(told[0].Waiters) != 2 || len(told[0].IDs) != 0 {
			t.Fatalf("woken: %+v, want one wake of both waiters and no drift", told)
		}
		wantNoError(t, store.Await(time.Time{}, alice))
		if found := store.Find("one"); len(found) != 1 || found[0].ID != "1" {
			t.Errorf("Find = %v", found)
		}
		if n := o.listed(); n != 1 {
			t.Errorf("%d listings, want 1", n)
		}
	})
}

func TestSteadyOrganisationWakesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := start(t, reflector.Collection[thing]{})
		o.shows(thing{ID: "1", Name: "one"})
		wantPending(t, store.Await(time.Time{}, alice))
		o.woken()

		pass(time.Hour)
		if n := o.listed(); n < 6 || n > 8 {
			t.Errorf("%d listings in an hour, want one every ten minutes or so", n)
		}
		if told := o.woken(); len(told) != 0 {
			t.Errorf("woken: %+v, want nobody", told)
		}
	})
}

func TestDriftWakesOnlyWhomItConcerns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := start(t, reflector.Collection[thing]{})
		o.shows(thing{ID: "1", Name: "one"}, thing{ID: "2", Name: "two"}, thing{ID: "3", Name: "three"})
		wantPending(t, store.Await(time.Time{}, alice))
		o.woken()

		o.shows(thing{ID: "1", Name: "one"}, thing{ID: "2", Name: "two", Content: "changed"}, thing{ID: "4", Name: "four"})
		pass(12 * time.Minute)

		told := o.woken()
		if len(told) != 1 {
			t.Fatalf("%d wakes, want 1", len(told))
		}
		slices.Sort(told[0].IDs)
		slices.Sort(told[0].Keys)
		if !slices.Equal(told[0].IDs, []string{"2", "3", "4"}) || !slices.Equal(told[0].Keys, []string{"four", "three", "two"}) {
			t.Errorf("woken by %v and %v", told[0].IDs, told[0].Keys)
		}
		if _, ok := store.Get("3"); !ok {
			t.Error("what one listing did not show is taken for gone")
		}
		pass(12 * time.Minute)
		if _, ok := store.Get("3"); ok {
			t.Error("what vanished is still there")
		}
	})
}

func TestListingDoesNotUndoWhatWasWrittenMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := start(t, reflector.Collection[thing]{})
		o.shows(thing{ID: "1", Name: "one"}, thing{ID: "2", Name: "two"})
		wantPending(t, store.Await(time.Time{}, alice))
		o.woken()

		o.meanwhile(func() { // after the server has read its rows
			time.Sleep(time.Second) // simulated: what follows is written later than the listing began
			store.Put(thing{ID: "3", Name: "three"})
			store.Put(thing{ID: "1", Name: "one", Content: "new"})
			store.Remove("2")
		})
		pass(12 * time.Minute)
		if told := o.woken(); len(told) != 0 {
			t.Errorf("woken: %+v, want nobody: the operator did all of it", told)
		}
		if _, ok := store.Get("3"); !ok {
			t.Error("what was created during the listing is gone")
		}
		if one, _ := store.Get("1"); one.Content != "new" {
			t.Errorf("what was changed during the listing is %q again", one.Content)
		}
		if _, ok := store.Get("2"); ok {
			t.Error("what was deleted during the listing is back")
		}

		o.shows(thing{ID: "1", Name: "one", Content: "new"})
		pass(24 * time.Minute)
		if _, ok := store.Get("3"); ok {
			t.Error("two listings that began later did not remove what they do not show")
		}
	})
}

func TestDemandForANewerPicture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := start(t, reflector.Collection[thing]{})
		wantPending(t, store.Await(time.Time{}, alice))
		o.woken()

		pass(time.Minute)
		lost := time.Now()
		o.shows(thing{ID: "1", Name: "one"})
		wantPending(t, store.Await(lost, alice))
		if told := o.woken(); len(told) != 1 || !wakes(told[0], alice) {
			t.Fatalf("woken: %+v, want the waiter", told)
		}
		wantNoError(t, store.Await(lost, alice))
		if n := o.listed(); n != 2 {
			t.Errorf("%d listings, want 2", n)
		}
	})
}

func TestOutageTellsOnceAndHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := start(t, reflector.Collection[thing]{})
		outage := &connectclient.Error{Operation: "list things"}
		o.fails(outage)
		wantPending(t, store.Await(time.Time{}, alice))
		if told := o.woken(); len(told) != 1 || len(told[0].Waiters) != 1 {
			t.Fatalf("woken: %+v, want the waiter to hear of the failure", told)
		}
		if err := store.Await(time.Time{}, alice); !errors.Is(err, outage) {
			t.Fatalf("Await = %v, want the failure", err)
		}

		pass(10 * time.Minute)
		if told := o.woken(); len(told) != 0 {
			t.Errorf("woken: %+v, want silence while nothing changes", told)
		}
		if n := o.listed(); n > 20 {
			t.Errorf("%d attempts in ten minutes of outage", n)
		}

		o.shows()
		pass(2 * time.Minute)
		if told := o.woken(); len(told) != 1 || !wakes(told[0], alice) {
			t.Errorf("woken: %+v, want the waiter to hear that it is over", told)
		}
		wantNoError(t, store.Await(time.Time{}, alice))
	})
}

func TestOutageDoesNotChangeWhatIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := start(t, reflector.Collection[thing]{})
		o.shows(thing{ID: "1", Name: "one"})
		wantPending(t, store.Await(time.Time{}, alice))
		o.woken()

		o.fails(&connectclient.Error{Operation: "list things"})
		pass(time.Hour)
		wantNoError(t, store.Await(time.Time{}, alice))
		if _, ok := store.Get("1"); !ok {
			t.Error("the picture was lost in the outage")
		}
		if told := o.woken(); len(told) != 0 {
			t.Errorf("woken: %+v, want nobody", told)
		}
	})
}

func anything(thing) bool { return true }

func TestOnDemandListsWhileSomebodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := start(t, reflector.Collection[thing]{OnDemand: true})
		wantPending(t, store.Await(time.Time{}, alice))
		o.woken()
		store.AwaitMatch(alice, anything)
		pass(35 * time.Minute)
		if told := o.woken(); len(told) != 0 {
			t.Fatalf("woken: %+v, want nobody while nothing changes", told)
		}
		o.shows(thing{ID: "1", Name: "one"})
		pass(12 * time.Minute)
		if told := o.woken(); len(told) != 1 || !wakes(told[0], alice) {
			t.Fatalf("woken: %+v, want whoever waits for a change", told)
		}

		before := o.listed()
		pass(time.Hour)
		if n := o.listed(); n != before {
			t.Errorf("%d more listings, want none once nobody waits", n-before)
		}

		o.shows(thing{ID: "2", Name: "two"})
		wantPending(t, store.Await(time.Time{}, bob)) // on a store that has ended
		if told := o.woken(); len(told) != 1 || !wakes(told[0], bob) {
			t.Errorf("woken: %+v, want the waiter of the store that took over", told)
		}
		if _, ok := store.Get("2"); !ok {
			t.Error("the store that has ended does not show what the one shows that took over")
		}
	})
}

func TestRetiredTokenCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := start(t, reflector.Collection[thing]{})
		wantPending(t, store.Await(time.Time{}, alice))
		o.woken()
		o.mu.Lock()
		o.wanted = false
		o.mu.Unlock()
		pass(24 * time.Hour)
		if n := o.listed(); n != 1 {
			t.Errorf("%d listings, want none for a token that nobody uses", n)
		}
	})
}
