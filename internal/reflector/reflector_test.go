// SPDX-License-Identifier: Apache-2.0

package reflector_test

import (
	"context"
	"errors"
	"iter"
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
	wakes    []reflector.Wake
	wanted   bool
}

func (o *organisation) list(context.Context, *connectclient.Client, string) iter.Seq2[thing, error] {
	o.mu.Lock()
	o.listings++
	things, failure, during := slices.Clone(o.things), o.failure, o.during
	o.during = nil
	o.mu.Unlock()
	return func(yield func(thing, error) bool) {
		if during != nil {
			during()
		}
		if failure != nil {
			yield(thing{}, failure)
			return
		}
		for _, one := range things {
			if !yield(one, nil) {
				return
			}
		}
	}
}

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

// woken returns the wakes since it was last called.
func (o *organisation) woken() []reflector.Wake {
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	wakes := o.wakes
	o.wakes = nil
	return wakes
}

func (o *organisation) listed() int {
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.listings
}

var (
	alice = types.NamespacedName{Namespace: "fleet", Name: "alice"}
	bob   = types.NamespacedName{Namespace: "fleet", Name: "bob"}
)

// start returns the store of an organisation, with a reflector behind it that
// lists every ten minutes.
func start(t *testing.T, collection reflector.Collection[thing]) (*organisation, *reflector.Store[thing]) {
	t.Helper()
	api, err := connectclient.New(connectclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o := &organisation{t: t, wanted: true}
	collection.Name, collection.List = "things", o.list
	collection.ID = func(one thing) string { return one.ID }
	collection.Key = func(one thing) string { return one.Name }
	r := reflector.New(reflector.Options{API: api, Interval: 10 * time.Minute}, collection)
	r.Notify(func(w reflector.Wake) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.wakes = append(o.wakes, w)
	}, func(context.Context, connectclient.Secret) bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.wanted
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

		wakes := o.woken()
		if len(wakes) != 1 || len(wakes[0].Waiters) != 2 || len(wakes[0].IDs) != 0 {
			t.Fatalf("woken: %+v, want one wake of both waiters and no drift", wakes)
		}
		wantNoError(t, store.Await(time.Time{}, alice))
		if found, ok := store.Find("one"); !ok || found.ID != "1" {
			t.Errorf("Find = %v, %v", found, ok)
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
		if wakes := o.woken(); len(wakes) != 0 {
			t.Errorf("woken: %+v, want nobody", wakes)
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

		wakes := o.woken()
		if len(wakes) != 1 {
			t.Fatalf("%d wakes, want 1", len(wakes))
		}
		slices.Sort(wakes[0].IDs)
		slices.Sort(wakes[0].Keys)
		if !slices.Equal(wakes[0].IDs, []string{"2", "3", "4"}) || !slices.Equal(wakes[0].Keys, []string{"four", "three", "two"}) {
			t.Errorf("woken by %v and %v", wakes[0].IDs, wakes[0].Keys)
		}
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
		if wakes := o.woken(); len(wakes) != 0 {
			t.Errorf("woken: %+v, want nobody: the operator did all of it", wakes)
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
		pass(12 * time.Minute)
		if _, ok := store.Get("3"); ok {
			t.Error("a listing that began later did not remove what it does not show")
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
		if wakes := o.woken(); len(wakes) != 1 || !slices.Contains(wakes[0].Waiters, alice) {
			t.Fatalf("woken: %+v, want the waiter", wakes)
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
		if wakes := o.woken(); len(wakes) != 1 || len(wakes[0].Waiters) != 1 {
			t.Fatalf("woken: %+v, want the waiter to hear of the failure", wakes)
		}
		if err := store.Await(time.Time{}, alice); !errors.Is(err, outage) {
			t.Fatalf("Await = %v, want the failure", err)
		}

		pass(10 * time.Minute)
		if wakes := o.woken(); len(wakes) != 0 {
			t.Errorf("woken: %+v, want silence while nothing changes", wakes)
		}
		if n := o.listed(); n > 20 {
			t.Errorf("%d attempts in ten minutes of outage", n)
		}

		o.shows()
		pass(2 * time.Minute)
		if wakes := o.woken(); len(wakes) != 1 || !slices.Contains(wakes[0].Waiters, alice) {
			t.Errorf("woken: %+v, want the waiter to hear that it is over", wakes)
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
		if wakes := o.woken(); len(wakes) != 0 {
			t.Errorf("woken: %+v, want nobody", wakes)
		}
	})
}

func TestOnDemandEndsWhenNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := start(t, reflector.Collection[thing]{OnDemand: true})
		wantPending(t, store.Await(time.Time{}, alice))
		o.woken()
		store.AwaitNext(alice)
		pass(12 * time.Minute)
		if wakes := o.woken(); len(wakes) != 1 || !slices.Contains(wakes[0].Waiters, alice) {
			t.Fatalf("woken: %+v, want whoever awaits the next listing", wakes)
		}

		pass(time.Hour)
		if n := o.listed(); n != 2 {
			t.Errorf("%d listings, want none once nobody waits", n)
		}

		store.AwaitNext(alice) // on a store that has ended
		if wakes := o.woken(); len(wakes) != 1 || !slices.Contains(wakes[0].Waiters, alice) {
			t.Errorf("woken: %+v, want the waiter of the store that took over", wakes)
		}
		pass(time.Hour)
		o.woken()

		o.shows(thing{ID: "1", Name: "one"})
		wantPending(t, store.Await(time.Time{}, bob))
		if wakes := o.woken(); len(wakes) != 1 || !slices.Contains(wakes[0].Waiters, bob) {
			t.Errorf("woken: %+v, want the waiter of the store that took over", wakes)
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
