// SPDX-License-Identifier: Apache-2.0

package reflector_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/reflector"
)

// A listing wakes those who wait for what has changed, each once, and nobody else.
func TestAListingWakesWhomItConcerns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := start(t, reflector.Collection[thing]{})
		o.shows(things(10)...)
		listOnce(t, o, store)
		is := func(content string) func(thing) bool {
			return func(one thing) bool { return one.Content == content }
		}
		store.AwaitKeys(waiter("of a key"), "thing 3", "thing 4")
		store.AwaitKeys(waiter("of a key that nobody has"), "thing 77")
		store.AwaitKeys(waiter("of a key that comes"), "thing 10")
		store.AwaitKeys(waiter("of a key that goes"), "thing 5")
		store.AwaitMatch(waiter("of what comes to match"), is("new"))
		store.AwaitMatch(waiter("of what matches nothing"), is("other"))
		store.AwaitMatch(waiter("of what ceases to match"), func(one thing) bool { return one.Name == "thing 5" })

		changed := append(things(10), thing{ID: "10", Name: "thing 10"})
		changed[3].Content = "new"
		changed[5].Name = "renamed"
		o.shows(changed...)
		pass(12 * time.Minute)
		told := o.woken()
		if len(told) != 1 {
			t.Fatalf("woken: %+v, want one wake", told)
		}
		for name, want := range map[string]bool{
			"of a key": true, "of a key that nobody has": false, "of a key that comes": true, "of a key that goes": true,
			"of what comes to match": true, "of what matches nothing": false, "of what ceases to match": true,
		} {
			if wakes(told[0], waiter(name)) != want {
				t.Errorf("who waits %s is woken: %t", name, !want)
			}
		}

		changed[3].Content = "newer"
		o.shows(changed...)
		pass(12 * time.Minute)
		if told := o.woken(); len(told) != 1 || len(told[0].Waiters) != 0 || !slices.Equal(told[0].IDs, []string{"00003"}) {
			t.Errorf("woken: %+v, want nobody a second time", told)
		}
	})
}

// Many kinds of resources share a collection: each hears of its own waiters, and of
// every change.
func TestManySubscribersShareACollection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api, err := connectclient.New(connectclient.Options{Transport: announcing{}})
		if err != nil {
			t.Fatal(err)
		}
		o := &organisation{}
		r := reflector.New(reflector.Options{API: api}, reflector.Collection[thing]{
			List: func(*connectclient.Client, string) reflector.Pager[thing] { return &listing{of: o} },
			ID:   func(one thing) string { return one.ID },
		})
		told := map[string][]reflector.Notification{}
		for _, name := range []string{"Device", "Deployment", "FleetRollout"} {
			r.Subscribe(reflector.Subscription{
				Name:   name,
				Notify: func(n reflector.Notification) { o.does(func() { told[name] = append(told[name], n) }) },
				Wanted: func(context.Context, connectclient.Secret) bool { return name == "Deployment" },
			})
		}
		go func() { _ = r.Start(t.Context()) }()
		store := r.Of(token)
		one := types.NamespacedName{Namespace: "fleet", Name: "one"}
		wantPending(t, store.Await(time.Time{}, reflector.Waiter{Subscriber: "Device", Resource: one}))
		wantPending(t, store.Await(time.Time{}, reflector.Waiter{Subscriber: "Deployment", Resource: one}))
		pass(time.Second)
		o.does(func() {
			if len(told["Device"]) != 1 || len(told["Deployment"]) != 1 || len(told["FleetRollout"]) != 0 {
				t.Errorf("told: %+v", told)
			}
			clear(told)
		})
		o.shows(thing{ID: "new"})
		pass(12 * time.Minute) // one that wants the token is enough
		o.does(func() {
			for _, name := range []string{"Device", "Deployment", "FleetRollout"} {
				if n := told[name]; len(n) != 1 || !slices.Equal(n[0].IDs, []string{"new"}) || len(n[0].Waiters) != 0 {
					t.Errorf("%s is told %+v", name, n)
				}
			}
		})
	})
}

// Who has looked at the snapshot, and comes to wait only after the listing has ended
// that changed it, is not forgotten.
func TestWhoComesLateIsWoken(t *testing.T) {
	for name, await := range map[string]func(*reflector.Store[thing], reflector.Waiter){
		"for a key":   func(s *reflector.Store[thing], w reflector.Waiter) { s.AwaitKeys(w, "thing 0") },
		"for a match": func(s *reflector.Store[thing], w reflector.Waiter) { s.AwaitMatch(w, anything) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o, store := start(t, reflector.Collection[thing]{})
				listOnce(t, o, store)
				if len(store.Find("thing 0")) != 0 { // nothing there
					t.Fatal("it is there already")
				}
				o.shows(things(1)...)
				pass(12 * time.Minute)
				o.woken()

				await(store, bob) // late
				if told := o.woken(); len(told) != 1 || !wakes(told[0], bob) {
					t.Fatalf("woken: %+v, want who came late", told)
				}
				await(store, bob) // after he has looked again
				pass(time.Minute)
				if told := o.woken(); len(told) != 0 {
					t.Errorf("woken: %+v, want nobody twice", told)
				}
			})
		})
	}
}

// A resource that is gone tells nobody. Whoever has waited for long is asked, by being
// woken, and who does not answer is forgotten.
func TestWhoIsGoneIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := startOnDemand(t)
		listOnce(t, o, store)
		store.AwaitKeys(alice, "thing 1")
		pass(50 * time.Minute)
		if told := o.woken(); len(told) != 0 {
			t.Errorf("woken: %+v, want patience", told)
		}
		pass(25 * time.Minute)
		if told := o.woken(); len(told) != 1 || !wakes(told[0], alice) {
			t.Errorf("woken: %+v, want who has waited for an hour", told)
		}
		before := o.listed()
		pass(time.Hour)
		if n := o.listed() - before; n > 1 {
			t.Errorf("%d listings for nobody", n)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		o, store := startOnDemand(t)
		listOnce(t, o, store)
		store.AwaitKeys(alice, "thing 1")
		store.AwaitMatch(alice, anything)
		wantDoubt(t, store, "other", alice)
		o.reflector.Forget(alice) // or it is told
		before := o.listed()
		pass(time.Hour)
		if n := o.listed() - before; n > 2 { // those that were asked for
			t.Errorf("%d listings for nobody", n)
		}
		if told := o.woken(); len(told) != 0 {
			t.Errorf("woken: %+v, want nobody", told)
		}
	})
}

// A token that nothing uses any more costs nothing and leaves nothing behind, whatever
// waits; and who waits goes on, should it still be there.
func TestARetiredTokenLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, _ := start(t, reflector.Collection[thing]{})
		before := runtime.NumGoroutine()
		for i := range 1000 {
			rotated := connectclient.NewSecret(fmt.Sprint("rporg_rotated", i))
			wantPending(t, o.reflector.Of(rotated).Await(time.Time{}, alice))
			wantPending(t, o.reflector.Part(rotated, "tag:lab").Await(time.Time{}, bob))
			pass(time.Millisecond)
			o.reflector.Of(rotated).AwaitKeys(alice, "thing 1")
			o.reflector.Retire(rotated)
			o.reflector.Retire(rotated) // twice does not hurt
		}
		pass(time.Second)
		if n := runtime.NumGoroutine(); n > before+100 { // the test runner has some of its own
			t.Errorf("%d goroutines are left", n-before)
		}
		woken := 0
		for _, n := range o.woken() {
			woken += len(n.Waiters)
		}
		if woken != 3000 {
			t.Errorf("%d are woken", woken)
		}
		listed := o.listed()
		pass(24 * time.Hour)
		if n := o.listed(); n != listed {
			t.Errorf("%d listings with tokens that are retired", n-listed)
		}
	})
}

// A listing that is on its way when its token is retired changes nothing any more.
func TestRetireInTheMiddleOfAListing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := start(t, reflector.Collection[thing]{})
		o.shows(things(1)...)
		o.meanwhile(func() { time.Sleep(time.Second) })
		wantPending(t, store.Await(time.Time{}, alice))
		synctest.Wait()
		o.reflector.Retire(token)
		if told := o.woken(); len(told) != 1 || !wakes(told[0], alice) {
			t.Errorf("woken: %+v, want who waits", told)
		}
		pass(time.Minute)
		if told := o.woken(); len(told) != 0 {
			t.Errorf("woken: %+v, want nobody", told)
		}
		if _, found := store.Get("00000"); found {
			t.Error("the snapshot was filled")
		}
		// What is written then goes to the store that takes over, if there is one.
		store.Put(thing{ID: "made"})
		wantPending(t, store.Await(time.Time{}, alice))
		pass(time.Second)
		if _, found := o.reflector.Known(token, "00000"); !found {
			t.Error("nobody has taken over")
		}
	})
}

// A store that nobody wants ends although somebody is noted as waiting: that one is
// woken, and a new store serves it if it is still there.
func TestAnUnwantedStoreDoesNotLoseWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := start(t, reflector.Collection[thing]{})
		listOnce(t, o, store)
		store.AwaitKeys(alice, "thing 0")
		o.does(func() { o.wanted = false })
		pass(12 * time.Minute)
		if told := o.woken(); len(told) != 1 || !wakes(told[0], alice) {
			t.Fatalf("woken: %+v, want who waits", told)
		}
		wantPending(t, store.Await(time.Time{}, alice))
		pass(time.Second)
		wantNoError(t, store.Await(time.Time{}, alice))
	})
}

// What is known of one object is found in whatever part of the organisation has shown
// it.
func TestKnownInAPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, _ := start(t, reflector.Collection[thing]{})
		o.shows(things(1)...)
		wantPending(t, o.reflector.Part(token, "tag:lab").Await(time.Time{}, alice))
		pass(time.Second)
		if one, found := o.reflector.Known(token, "00000"); !found || one.Name != "thing 0" {
			t.Errorf("Known = %v, %t", one, found)
		}
		if _, found := o.reflector.Known(token, "other"); found {
			t.Error("what nobody has seen is known")
		}
		if _, found := o.reflector.Known(connectclient.NewSecret("rporg_other"), "00000"); found {
			t.Error("it is known in another organisation")
		}
	})
}

// Several objects share a key, and are found by it in a stable order. An empty key is
// none.
func TestObjectsShareAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := start(t, reflector.Collection[thing]{
			Keys: func(one thing) []string { return []string{one.Name, one.Name, one.Content} },
		})
		o.shows(thing{ID: "b", Name: "twin"}, thing{ID: "a", Name: "twin"}, thing{ID: "c", Name: "other"})
		listOnce(t, o, store)
		ids := func(key string) (ids []string) {
			for _, one := range store.Find(key) {
				ids = append(ids, one.ID)
			}
			return ids
		}
		if got := ids("twin"); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("found %v", got)
		}
		if got := ids(""); len(got) != 0 {
			t.Errorf("without a key found %v", got)
		}
		store.Put(thing{ID: "a", Name: "other"})
		store.Remove("c")
		if !slices.Equal(ids("twin"), []string{"b"}) || !slices.Equal(ids("other"), []string{"a"}) {
			t.Errorf("found %v and %v", ids("twin"), ids("other"))
		}
	})
}

// Everybody reads the snapshot while a listing is compared with it.
func TestReadersGoOnWhileAListingIsCompared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var store *reflector.Store[thing]
		var o *organisation
		o, store = start(t, reflector.Collection[thing]{Keys: func(one thing) []string {
			if store != nil {
				_, _ = store.Get(one.ID) // would never return if the lock were held
				_ = store.Find(one.Name)
			}
			return []string{one.Name}
		}})
		o.shows(things(10)...)
		listOnce(t, o, store)
		store.Put(thing{ID: "a", Name: "one more"})
		o.shows(things(20)...)
		pass(12 * time.Minute)
		if _, found := store.Get("00019"); !found {
			t.Error("the listing has not ended")
		}
	})
}

// A failure is told those who wait for a snapshot, not those who wait for a change.
func TestAFailureConcernsWhoWaitsForASnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := start(t, reflector.Collection[thing]{})
		listOnce(t, o, store)
		store.AwaitKeys(bob, "thing 1")
		pass(time.Minute)
		o.fails(fmt.Errorf("away: %w", connectclient.ErrUnavailable))
		demanded := time.Now()
		wantPending(t, store.Await(demanded, alice))
		if told := o.woken(); len(told) != 1 || !wakes(told[0], alice) || wakes(told[0], bob) {
			t.Errorf("woken: %+v", told)
		}
		if err := store.Await(demanded, alice); !errors.Is(err, connectclient.ErrUnavailable) {
			t.Errorf("Await = %v", err)
		}
		if _, _, err := store.Lookup("other", bob); !errors.Is(err, connectclient.ErrUnavailable) {
			t.Errorf("Lookup = %v", err)
		}
	})
}

// What the operator writes is in no listing as a change: whoever waits for such an
// object is told at once, also who was about to wait.
func TestWhatIsWrittenWakesWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := start(t, reflector.Collection[thing]{})
		o.shows(thing{ID: "1", Name: "one"}, thing{ID: "2", Name: "two"})
		listOnce(t, o, store)
		woken := func(what string, want ...reflector.Waiter) {
			t.Helper()
			pass(time.Second)
			told := o.woken()
			for _, w := range []reflector.Waiter{alice, bob} {
				if slices.ContainsFunc(told, func(n reflector.Notification) bool { return wakes(n, w) }) != slices.Contains(want, w) {
					t.Errorf("%s: woken: %+v, want %v", what, told, want)
				}
			}
		}
		store.AwaitKeys(alice, "uno")
		store.AwaitMatch(bob, func(one thing) bool { return one.Content == "new" })
		store.Put(thing{ID: "2", Name: "two", Content: "other"})
		woken("something else")
		store.Put(thing{ID: "1", Name: "uno", Content: "old"})
		woken("the name", alice)
		store.Put(thing{ID: "1", Name: "uno", Content: "new"})
		woken("the content", bob)
		store.AwaitKeys(bob, "two")
		pass(time.Second)
		o.woken()
		store.AwaitKeys(bob, "two")
		store.Remove("2")
		woken("the removal", bob)
		store.AwaitKeys(alice, "two") // it has looked before the removal
		woken("the removal, late", alice)
	})
}
