// SPDX-License-Identifier: Apache-2.0

package reflector_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/reflector"
)

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

func TestDemandForANewerSnapshot(t *testing.T) {
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
			t.Error("the snapshot was lost in the outage")
		}
		if told := o.woken(); len(told) != 0 {
			t.Errorf("woken: %+v, want nobody", told)
		}
	})
}

func anything(thing) bool { return true }

// A collection that one kind only looks things up in is listed all the time as soon as
// another kind has to be kept equal to it, and by one reflector, whoever starts it.
func TestOneFollowerIsEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api, err := connectclient.New(connectclient.Options{Transport: announcing{}})
		if err != nil {
			t.Fatal(err)
		}
		o := newOrganisation(api, reflector.Collection[thing]{})
		followed := false
		o.subscribe("Looker", func(s *reflector.Subscription) { s.OnDemand = true })
		o.subscribe("Follower", func(s *reflector.Subscription) {
			s.Wanted = func(context.Context, connectclient.Secret) bool { return followed }
		})
		store := o.run(t)
		go func() { _ = o.reflector.Start(t.Context()) }()
		listings := func(d time.Duration) int {
			wantPending(t, store.Await(time.Now(), alice))
			pass(time.Minute)
			before := o.listed()
			pass(d)
			return o.listed() - before
		}
		if n := listings(time.Hour); n != 0 {
			t.Errorf("%d listings while nobody waits", n)
		}
		followed = true
		if n := listings(time.Hour); n < 5 || n > 7 {
			t.Errorf("%d listings in an hour, want one every ten minutes", n)
		}
		if part := o.reflector.Part(token, "some"); part.Await(time.Time{}, bob) == nil {
			t.Error("a part is known before it is listed")
		}
		pass(time.Minute)
		before := o.listed()
		if pass(time.Hour); o.listed()-before > 7 {
			t.Errorf("%d listings, want none of a part that nobody waits for", o.listed()-before)
		}
	})
}

func TestOnDemandListsWhileSomebodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := startOnDemand(t)
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
		o.does(func() { o.wanted = false })
		pass(24 * time.Hour)
		if n := o.listed(); n != 1 {
			t.Errorf("%d listings, want none for a token that nobody uses", n)
		}
	})
}
