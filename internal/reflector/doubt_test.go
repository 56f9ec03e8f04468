// SPDX-License-Identifier: Apache-2.0

package reflector_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/connectclient/budget"
	"rpi-connect.dev/operator/internal/reflector"
)

func wantFound(t *testing.T, store *reflector.Store[thing], id string) {
	t.Helper()
	if one, found, err := store.Lookup(id, alice); !found || one.ID != id || err != nil {
		t.Errorf("Lookup(%s) = %v, %t, %v; want it found", id, one, found, err)
	}
}

func wantAbsent(t *testing.T, store *reflector.Store[thing], id string) {
	t.Helper()
	if one, found, err := store.Lookup(id, alice); found || err != nil {
		t.Errorf("Lookup(%s) = %v, %t, %v; want it proven not to be there", id, one, found, err)
	}
}

func wantDoubt(t *testing.T, store *reflector.Store[thing], id string, w reflector.Waiter) {
	t.Helper()
	if one, found, err := store.Lookup(id, w); found || !errors.Is(err, reflector.ErrPending) {
		t.Fatalf("Lookup(%s) = %v, %t, %v; want ErrPending", id, one, found, err)
	}
}

// What one listing did not show may be there: who has it is woken to ask, and it is
// asked for by itself.
func TestWhatOneListingMissedIsAskedFor(t *testing.T) {
	for name, there := range map[string]bool{"it is there": true, "it is gone": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o, store := startCurrent(t, reflector.Collection[thing]{Get: single})
				o.shows(things(3)...)
				listOnce(t, o, store)
				wantFound(t, store, "00001")

				if there {
					o.hides("00001")
				} else {
					o.shows(things(3)[0], things(3)[2])
				}
				pass(12 * time.Minute)
				if told := o.woken(); len(told) != 1 || !slices.Equal(told[0].IDs, []string{"00001"}) || !slices.Equal(told[0].Keys, []string{"thing 1"}) {
					t.Fatalf("woken: %+v, want those who have what is in doubt", told)
				}
				if _, seen := store.Get("00001"); !seen || len(store.Find("thing 1")) != 1 {
					t.Error("what is in doubt is not shown any more")
				}
				if ids := o.lookedUp(); len(ids) != 0 {
					t.Errorf("%v were asked for, although nobody wants to know", ids)
				}

				listed := o.listed()
				wantDoubt(t, store, "00001", alice)
				if told := o.woken(); len(told) != 1 || !wakes(told[0], alice) {
					t.Errorf("woken: %+v, want who asked", told)
				}
				if there {
					wantFound(t, store, "00001")
				} else {
					wantAbsent(t, store, "00001")
				}
				if ids := o.lookedUp(); !slices.Equal(ids, []string{"00001"}) || o.listed() != listed {
					t.Errorf("asked for %v and listed %d times, want one request", ids, o.listed()-listed)
				}
			})
		})
	}
}

// Where an object cannot be asked for by itself, a second listing is brought forward.
func TestASecondListingProvesAbsence(t *testing.T) {
	unsupported := func(o *organisation) { o.does(func() { o.getting = connectclient.ErrUnsupported }) }
	for name, setUp := range map[string]func(*testing.T) (*organisation, *reflector.Store[thing]){
		"the collection has no such call": func(t *testing.T) (*organisation, *reflector.Store[thing]) {
			return startCurrent(t, reflector.Collection[thing]{})
		},
		"the revision has no such call": func(t *testing.T) (*organisation, *reflector.Store[thing]) {
			o, store := startCurrent(t, reflector.Collection[thing]{Get: single})
			unsupported(o)
			return o, store
		},
		// It answers "not found" to a call that it does not know.
		"the revision may not have it": func(t *testing.T) (*organisation, *reflector.Store[thing]) {
			return start(t, reflector.Collection[thing]{Get: single})
		},
		"it is a part of the organisation": func(t *testing.T) (*organisation, *reflector.Store[thing]) {
			o, _ := startCurrent(t, reflector.Collection[thing]{Get: single})
			part := o.reflector.Part(token, "tag:lab")
			part.AwaitKeys(reflector.Waiter{Subscriber: "Thing"}, "nothing") // it is listed for whoever waits
			return o, part
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o, store := setUp(t)
				o.shows(things(3)...)
				listOnce(t, o, store)

				o.hides("00001") // once
				o.shows(things(3)[0], things(3)[1])
				pass(12 * time.Minute)
				o.woken()
				wantDoubt(t, store, "00001", alice)
				_, _, _ = store.Lookup("00002", bob) // which may be answered already
				o.hides()
				pass(10 * time.Second)
				told := o.woken()
				if len(told) == 0 || !wakes(told[0], alice) || !slices.Equal(told[len(told)-1].IDs, []string{"00002"}) {
					t.Errorf("woken: %+v, want who asked, and what has vanished", told)
				}
				wantFound(t, store, "00001")
				wantAbsent(t, store, "00002")
				if n := o.listed(); n != 3 {
					t.Errorf("%d listings, want a third brought forward", n)
				}
				pass(5 * time.Minute)
				if n := o.listed(); n != 3 {
					t.Errorf("%d listings, want no more", n)
				}
			})
		})
	}
}

// A resource knows its id from before a restart; the first listing after it may have
// missed the object.
func TestAnIdThatWasNeverSeenIsInDoubt(t *testing.T) {
	for name, get := range map[string]bool{"asked for by itself": true, "listed again": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var collection reflector.Collection[thing]
				if get {
					collection.Get = single
				}
				o, store := startCurrent(t, collection)
				o.shows(things(2)...)
				o.hides("00001")
				listOnce(t, o, store)
				o.hides()

				wantDoubt(t, store, "00001", alice)
				wantDoubt(t, store, "other", bob)
				pass(10 * time.Second)
				wantFound(t, store, "00001")
				wantAbsent(t, store, "other")
				wantAbsent(t, store, "")

				// What is proven stays so, and costs nothing any more, until it is
				// seen again.
				o.lookedUp()
				listings := o.listed()
				for range 100 {
					wantAbsent(t, store, "other")
				}
				if len(o.lookedUp()) > 0 || o.listed() != listings {
					t.Error("it is proven again")
				}
				o.shows(thing{ID: "other"})
				pass(12 * time.Minute)
				wantFound(t, store, "other")
			})
		})
	}
}

// A person makes an object and writes its id down; the listing of before does not count,
// and the one after it misses the object.
func TestAListingFromBeforeAQuestionIsNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := start(t, reflector.Collection[thing]{})
		listOnce(t, o, store)
		pass(time.Minute)
		o.shows(thing{ID: "made"})
		o.hides("made")
		o.meanwhile(func() { time.Sleep(time.Second) })
		wantDoubt(t, store, "made", alice)
		pass(500 * time.Millisecond)
		o.hides() // the listing that is on its way has missed it
		pass(10 * time.Second)
		wantFound(t, store, "made")
	})
}

// An organisation loses a thousand objects at once: that costs a few requests and a
// listing.
func TestMassRemovalIsProvenByAListing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := startCurrent(t, reflector.Collection[thing]{Get: single})
		all := things(2000)
		o.does(func() { o.perPage = 100 })
		o.shows(all...)
		listOnce(t, o, store)
		o.shows(all[:1000]...)
		pass(12 * time.Minute)
		told := o.woken()
		if len(told) != 1 || len(told[0].IDs) != 1000 {
			t.Fatalf("%d wakes, want one of all that are in doubt", len(told))
		}
		pages := o.asked()
		pending := 0
		for _, id := range told[0].IDs {
			if _, found, err := store.Lookup(id, waiter(id)); found {
				t.Fatalf("%s is found", id)
			} else if err != nil {
				pending++ // the others may be proven gone already, while we are asking
			}
		}
		pass(time.Minute)
		woken := 0
		for _, n := range o.woken() {
			woken += len(n.Waiters)
		}
		if pending == 0 || woken != pending {
			t.Errorf("%d wait and %d are woken", pending, woken)
		}
		if single, listed := len(o.lookedUp()), o.asked()-pages; single > 10 || listed != 10 {
			t.Errorf("%d requests for one object and %d for pages", single, listed)
		}
		for _, id := range told[0].IDs {
			wantAbsent(t, store, id)
		}
		wantFound(t, store, all[0].ID)
	})
}

// A listing that left rows out, or was cut, says nothing of what it did not show;
// asking for single objects does.
func TestAListingThatIsNotWholeProvesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := startCurrent(t, reflector.Collection[thing]{})
		o.shows(things(3)...)
		listOnce(t, o, store)
		o.does(func() { o.torn = true })
		o.shows()
		wantDoubt(t, store, "other", alice)
		before := o.listed()
		pass(time.Hour)
		if told := o.woken(); len(told) != 0 {
			t.Errorf("woken: %+v, want nobody", told)
		}
		wantFound(t, store, "00001")
		wantDoubt(t, store, "other", alice)
		if n := o.listed() - before; n > 8 {
			t.Errorf("%d listings in an hour, want no more than without a question", n)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		o, store := startCurrent(t, reflector.Collection[thing]{Get: single})
		o.does(func() { o.torn = true })
		listOnce(t, o, store)
		for i := range 25 { // more than may be asked for between two listings
			id := fmt.Sprint("other", i)
			wantDoubt(t, store, id, waiter(id))
		}
		pass(40 * time.Minute)
		for i := range 25 {
			wantAbsent(t, store, fmt.Sprint("other", i))
		}
	})
}

// While an object cannot be asked for, those who want to know hear of the trouble once.
func TestAskingForAnObjectFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := startCurrent(t, reflector.Collection[thing]{Get: single})
		listOnce(t, o, store)
		outage := fmt.Errorf("away: %w", connectclient.ErrUnavailable)
		o.does(func() { o.getting, o.failure = outage, outage })
		wantDoubt(t, store, "other", alice)
		if told := o.woken(); len(told) != 1 || !wakes(told[0], alice) {
			t.Fatalf("woken: %+v, want who asked", told)
		}
		if _, _, err := store.Lookup("other", alice); !errors.Is(err, outage) {
			t.Errorf("Lookup: %v, want the trouble", err)
		}
		listed := o.listed()
		pass(9 * time.Minute)
		if told := o.woken(); len(told) > 1 {
			t.Errorf("woken: %+v, want silence while nothing changes", told)
		}
		if single, listings := len(o.lookedUp()), o.listed()-listed; single > 10 || listings > 10 {
			t.Errorf("%d requests and %d listings in nine minutes of outage", single, listings)
		}
		_, _, _ = store.Lookup("other", alice)
		o.does(func() { o.getting, o.failure = nil, nil })
		pass(3 * time.Minute)
		wantAbsent(t, store, "other")
		if told := o.woken(); len(told) == 0 || !wakes(told[0], alice) {
			t.Errorf("woken: %+v, want who asked", told)
		}
	})
}

// A request that the budget puts off is nobody's failure, and costs nothing.
func TestAskingForAnObjectIsPutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := startCurrent(t, reflector.Collection[thing]{Get: single})
		listOnce(t, o, store)
		o.does(func() { o.getting = deferred{} })
		wantDoubt(t, store, "other", alice)
		pass(20 * time.Second)
		wantDoubt(t, store, "other", alice)
		if told := o.woken(); len(told) != 0 {
			t.Errorf("woken: %+v, want nobody", told)
		}
		listings := o.listed()
		o.does(func() { o.getting = nil })
		pass(2 * time.Minute)
		wantAbsent(t, store, "other")
		if o.listed() != listings {
			t.Error("it was listed, although one request was enough")
		}
	})
}

// deferred is what the client makes of a request that is to go a little later.
type deferred struct{}

func (deferred) Error() string        { return "put off" }
func (deferred) Is(target error) bool { return target == connectclient.ErrDeferred }
func (deferred) Unwrap() error        { return &budget.Refusal{Reason: budget.Pacing} }

// What the operator has deleted itself needs no proof, what it has made none either.
func TestWhatTheOperatorDidNeedsNoProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := startCurrent(t, reflector.Collection[thing]{Get: single})
		o.shows(things(2)...)
		listOnce(t, o, store)
		store.Remove("00001")
		store.Put(thing{ID: "new"})
		wantAbsent(t, store, "00001")
		wantFound(t, store, "new")

		// Who was just asking is woken.
		o.does(func() { o.getting = fmt.Errorf("away: %w", connectclient.ErrUnavailable) })
		for _, id := range []string{"made", "removed"} {
			wantDoubt(t, store, id, waiter(id))
		}
		pass(time.Second)
		o.woken()
		for _, id := range []string{"made", "removed"} {
			_, _, _ = store.Lookup(id, waiter(id))
		}
		store.Put(thing{ID: "made"})
		store.Remove("removed")
		pass(time.Millisecond)
		told := o.woken()
		if len(told) == 0 || !wakes(told[0], waiter("made")) || !wakes(told[len(told)-1], waiter("removed")) {
			t.Errorf("woken: %+v, want who asked", told)
		}
		wantFound(t, store, "made")
		wantAbsent(t, store, "removed")
	})
}

// While the operator makes, changes and deletes, an answer that was on its way
// already changes nothing of that.
func TestAnOldAnswerDoesNotUndoWhatWasWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var store *reflector.Store[thing]
		var o *organisation
		var write func()
		o, store = startCurrent(t, reflector.Collection[thing]{Get: func(ctx context.Context, c *connectclient.Client, id string) (*thing, error) {
			one, err := o.get(ctx, c, id)
			write()
			return one, err
		}})
		listOnce(t, o, store)

		write = func() { store.Put(thing{ID: "a"}) }
		wantDoubt(t, store, "a", alice)
		pass(time.Second)
		wantFound(t, store, "a") // although the answer was that it is not there

		o.shows(thing{ID: "b"})
		write = func() { store.Remove("b") }
		wantDoubt(t, store, "b", alice)
		pass(time.Second)
		wantAbsent(t, store, "b")
	})
}

// The bookkeeping of what is not there is bounded.
func TestProofsAreForgottenInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := startCurrent(t, reflector.Collection[thing]{Get: single})
		listOnce(t, o, store)
		for i := range 30_000 {
			store.Remove(fmt.Sprint(i))
		}
		wantAbsent(t, store, "29999")
		wantDoubt(t, store, "0", alice)
		pass(time.Second)
		wantAbsent(t, store, "0")
	})
}
