// SPDX-License-Identifier: Apache-2.0

package reflector_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/connectclient/budget"
	"rpi-connect.dev/operator/internal/reflector"
)

// Somebody annotates every resource of a namespace at once: they share a few listings.
func TestDemandsAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := start(t, reflector.Collection[thing]{})
		listOnce(t, o, store)
		pass(time.Minute)
		before := o.listed()
		demands := map[string]time.Time{}
		for i := range 154 {
			name := fmt.Sprint("resource", i)
			demands[name] = time.Now()
			_ = store.Await(time.Now(), waiter(name))
			pass(20 * time.Millisecond)
		}
		pass(2 * time.Second)
		for name, at := range demands {
			wantNoError(t, store.Await(at, waiter(name)))
		}
		if n := o.listed() - before; n > 6 {
			t.Errorf("%d listings in three seconds", n)
		}
	})
}

// The first who asks after a pause does not wait for anybody.
func TestTheFirstDemandIsServedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := start(t, reflector.Collection[thing]{})
		listOnce(t, o, store)
		pass(time.Minute)
		asked := time.Now()
		wantPending(t, store.Await(asked, alice))
		synctest.Wait()
		wantNoError(t, store.Await(asked, alice))
		if time.Since(asked) != 0 {
			t.Error("it waited")
		}
	})
}

// A clock elsewhere is ahead of ours, and times that it gave are demanded again and
// again.
func TestATimeThatHasNotComeYetCostsOneListing(t *testing.T) {
	for _, ahead := range []time.Duration{time.Minute, 5 * time.Minute, 24 * time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o, store := start(t, reflector.Collection[thing]{})
				listOnce(t, o, store)
				pass(10 * time.Second)
				before := o.listed()
				skewed := time.Now().Add(ahead)
				for range 540 {
					_ = store.Await(skewed, alice)
					pass(time.Second)
				}
				if n := o.listed() - before; n > 2 { // and the one after ten minutes
					t.Errorf("%d listings in nine minutes", n)
				}
				wantNoError(t, store.Await(skewed, alice))

				// Another time is another demand.
				pass(time.Minute)
				wantPending(t, store.Await(time.Now().Add(ahead), alice))
			})
		})
	}
}

// What an attempt has read is not read again.
func TestAListingGoesOnWhereItFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := start(t, reflector.Collection[thing]{})
		o.does(func() {
			o.perPage = 10
			for page := range 10 {
				o.trouble[page+1] = fmt.Errorf("away: %w", connectclient.ErrUnavailable)
			}
		})
		o.shows(things(100)...)
		wantPending(t, store.Await(time.Time{}, alice))
		pass(2 * time.Minute)
		wantNoError(t, store.Await(time.Time{}, alice))
		if o.listed() != 2 || o.asked() != 20 { // the first page failed as well, before anything was read
			t.Errorf("%d listings and %d pages, want one that goes on", o.listed(), o.asked())
		}
		if n := len(slices.Collect(store.All())); n != 100 {
			t.Errorf("%d of 100 things", n)
		}
	})
}

// Of the first snapshot nobody hears what has changed, also if it comes in pieces.
func TestTheFirstSnapshotIsNoDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := start(t, reflector.Collection[thing]{})
		o.does(func() {
			o.perPage = 10
			o.trouble[3] = fmt.Errorf("away: %w", connectclient.ErrUnavailable)
		})
		o.shows(things(50)...)
		store.AwaitKeys(bob, "thing 7")
		wantPending(t, store.Await(time.Time{}, alice))
		pass(time.Minute)
		woken := false
		for _, n := range o.woken() {
			if len(n.IDs)+len(n.Keys) > 0 {
				t.Errorf("told of %v", n.IDs)
			}
			woken = woken || wakes(n, bob)
		}
		if !woken {
			t.Error("who waits for a key is not woken by it")
		}
		wantNoError(t, store.Await(time.Time{}, alice))
	})
}

// What was read before an attempt failed is in the snapshot; what an old attempt read
// is read again, together with the rest.
func TestAListingThatFailedLongAgoBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := start(t, reflector.Collection[thing]{})
		o.does(func() { o.perPage = 10 })
		o.shows(things(20)...)
		listOnce(t, o, store)

		o.does(func() { o.trouble[2] = &connectclient.Error{RetryAt: time.Now().Add(30 * time.Minute)} })
		changed := things(20)
		changed[0].Content, changed[19].Content = "new", "new"
		o.shows(changed...)
		pass(12 * time.Minute)
		if told := o.woken(); len(told) != 1 || !slices.Equal(told[0].IDs, []string{"00000"}) {
			t.Errorf("woken: %+v, want whom the first page concerns", told)
		}
		before := o.asked()
		pass(30 * time.Minute)
		if told := o.woken(); len(told) != 1 || !slices.Equal(told[0].IDs, []string{"00019"}) {
			t.Errorf("woken: %+v, want whom the second page concerns", told)
		}
		if n := o.asked() - before; n != 4 { // and the one after that
			t.Errorf("%d pages were read, want two listings", n)
		}
	})
}

// spent is what the client makes of a request when the hour is spent.
func spent(until time.Time) error {
	return errors.Join(&connectclient.Error{RetryAt: until, Cause: &budget.Refusal{Reason: budget.Exhausted, Until: until}}, connectclient.ErrThrottled)
}

// The hour is spent: who can go by the snapshot that is there goes on, who needs a
// fresher one hears why there is none, and gets it when the hour is over.
func TestTheHourIsSpent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := start(t, reflector.Collection[thing]{})
		listOnce(t, o, store)
		reset := time.Now().Add(40 * time.Minute)
		o.fails(spent(reset))
		pass(15 * time.Minute)
		o.woken()

		wantNoError(t, store.Await(time.Time{}, alice))
		demanded := time.Now()
		if err := store.Await(demanded, bob); !errors.Is(err, connectclient.ErrThrottled) {
			t.Errorf("Await = %v, want that the hour is spent", err)
		}
		before := o.asked()
		pass(20 * time.Minute)
		if n := o.asked() - before; n != 0 {
			t.Errorf("%d attempts before the hour is over", n)
		}
		o.shows()
		pass(time.Until(reset))
		if told := o.woken(); len(told) != 1 || !wakes(told[0], bob) {
			t.Errorf("woken: %+v, want whose demand was remembered", told)
		}
		wantNoError(t, store.Await(demanded, bob))
	})
}

// Pacing is nobody's failure: the listing begins a little later.
func TestAListingIsPutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := start(t, reflector.Collection[thing]{})
		o.fails(errors.Join(&connectclient.Error{RetryAt: time.Now().Add(3 * time.Second)}, connectclient.ErrDeferred))
		wantPending(t, store.Await(time.Time{}, alice))
		pass(time.Second)
		wantPending(t, store.Await(time.Time{}, alice))
		if told := o.woken(); len(told) != 0 || o.asked() != 1 {
			t.Errorf("woken: %+v, after %d attempts", told, o.asked())
		}
		o.shows()
		pass(3 * time.Second)
		wantNoError(t, store.Await(time.Time{}, alice))
	})
}

// A refused token is tried again when somebody says that it may be good now, and
// everybody hears both times.
func TestARefusedTokenIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := start(t, reflector.Collection[thing]{})
		listOnce(t, o, store)
		o.fails(errors.Join(&connectclient.Error{RetryAt: time.Now().Add(time.Hour)}, connectclient.ErrUnauthorized))
		pass(12 * time.Minute)
		if told := o.woken(); len(told) != 1 || !told[0].Everyone {
			t.Errorf("woken: %+v, want everyone", told)
		}
		if err := store.Await(time.Time{}, alice); !errors.Is(err, connectclient.ErrUnauthorized) {
			t.Errorf("Await = %v, although there is a snapshot", err)
		}
		if store.Fresh(time.Time{}) {
			t.Error("the snapshot of a refused token is called fresh")
		}
		o.shows()
		pass(10 * time.Minute)
		o.reflector.Retry(token)
		if told := o.woken(); len(told) != 1 || !told[0].Everyone || !wakes(told[0], alice) {
			t.Errorf("woken: %+v, want everyone", told)
		}
		wantNoError(t, store.Await(time.Time{}, alice))
		if !store.Fresh(time.Time{}) {
			t.Error("the snapshot is not fresh")
		}
	})
}

// On the older revision auth keys cannot be listed: that the API says so, and not that it refuses the token,
// is how it is seen that the token works again.
func TestARefusedTokenWorksWhereNothingIsListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, store := start(t, reflector.Collection[thing]{})
		wantPending(t, store.Await(time.Time{}, alice))
		o.fails(connectclient.ErrUnauthorized)
		pass(time.Minute)
		o.woken()
		o.fails(connectclient.ErrUnavailable)
		pass(time.Hour)
		if err := store.Await(time.Time{}, alice); !errors.Is(err, connectclient.ErrUnauthorized) {
			t.Errorf("Await = %v, after an outage that proves nothing", err)
		}
		o.woken()
		o.fails(connectclient.ErrUnsupported)
		pass(time.Hour)
		if told := o.woken(); len(told) != 1 || !told[0].Everyone {
			t.Errorf("woken: %+v, want everyone", told)
		}
		if err := store.Await(time.Time{}, alice); !errors.Is(err, connectclient.ErrUnsupported) {
			t.Errorf("Await = %v", err)
		}
	})
}

// service answers listings of devices as the API does, at its pace and out of its
// budget.
type service struct {
	perPage time.Duration
	window  time.Duration
	limit   int

	mu       sync.Mutex
	names    []string
	requests int
	refused  int
	began    time.Time
	used     int
	down     bool
	headers  bool
	between  map[int]func() // happens once, before the page is answered
}

func (s *service) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case <-r.Context().Done():
		return nil, r.Context().Err()
	case <-time.After(s.perPage):
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	header := http.Header{"Content-Type": {"application/json"}}
	response := &http.Response{StatusCode: http.StatusOK, Header: header, Request: r, Body: http.NoBody}
	if s.down {
		response.StatusCode = http.StatusServiceUnavailable
		return response, nil
	}
	if s.headers {
		if now := time.Now().Truncate(s.window); now.After(s.began) {
			s.began, s.used = now, 0
		}
		s.used++
		header.Set("X-Rate-Limit-Limit", strconv.Itoa(s.limit))
		header.Set("X-Rate-Limit-Remaining", strconv.Itoa(max(0, s.limit-s.used)))
		header.Set("X-Rate-Limit-Reset", strconv.Itoa(int((time.Until(s.began.Add(s.window))+time.Second-1)/time.Second)))
		if s.used > s.limit {
			s.refused++
			response.StatusCode = http.StatusTooManyRequests
			return response, nil
		}
	}
	if id, single := strings.CutPrefix(r.URL.Path, "/organisation/devices/"); single {
		body, _ := json.Marshal(map[string]any{"id": id, "name": id})
		if _, found := slices.BinarySearch(s.names, id); !found {
			response.StatusCode, body = http.StatusNotFound, []byte(`{"message":"Not found"}`)
		}
		response.Body = io.NopCloser(strings.NewReader(string(body)))
		return response, nil
	}
	page, _ := strconv.Atoi(r.URL.Query().Get("page"))
	if happens, ok := s.between[page]; ok {
		delete(s.between, page)
		happens()
	}
	from, to := min((page-1)*100, len(s.names)), min(page*100, len(s.names))
	rows := make([]map[string]string, 0, 100)
	for _, name := range s.names[from:to] {
		rows = append(rows, map[string]string{"id": name, "name": name})
	}
	body, err := json.Marshal(map[string]any{"devices": rows, "meta": map[string]int{"total_count": len(s.names), "page": page, "per_page": 100, "total_pages": (len(s.names) + 99) / 100}})
	response.Body = io.NopCloser(strings.NewReader(string(body)))
	return response, err
}

func (s *service) register(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, _ := slices.BinarySearch(s.names, name)
	s.names = slices.Insert(s.names, at, name)
}

func (s *service) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// startDevices returns the store of the service's devices.
func startDevices(t *testing.T, s *service, options connectclient.Options) *reflector.Store[connectclient.Device] {
	t.Helper()
	s.headers = s.limit > 0
	options.Transport = s
	api, err := connectclient.New(options)
	if err != nil {
		t.Fatal(err)
	}
	r := reflector.New(reflector.Options{API: api, Interval: 10 * time.Minute}, reflector.Collection[connectclient.Device]{
		Name: "devices",
		List: func(c *connectclient.Client, query string) reflector.Pager[connectclient.Device] {
			return c.Devices().List(query)
		},
		Get: func(ctx context.Context, c *connectclient.Client, id string) (*connectclient.Device, error) {
			return c.Devices().Get(ctx, id)
		},
		ID:   func(d connectclient.Device) string { return d.ID },
		Keys: func(d connectclient.Device) []string { return []string{d.Name} },
	})
	r.Subscribe(reflector.Subscription{Name: "Thing", Notify: func(reflector.Notification) {}})
	ctx, stop := context.WithCancel(t.Context())
	go func() { _ = r.Start(ctx) }()
	t.Cleanup(func() {
		stop()
		synctest.Wait()
	})
	return r.Of(token)
}

func registered(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("pi-%06d", 10*i)
	}
	return names
}

// register lets new devices sign in all over the listing, until the test ends.
func (s *service) registerEvery(ctx context.Context, interval time.Duration) {
	go func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			s.register(fmt.Sprintf("pi-%06d-new%d", (i*7919)%50_000, i))
		}
	}()
}

// 5,000 devices at 100 ms a page, and one new device a second: whoever waits for a
// device finds it within a minute, and 45 s of waiting cost at most 160 requests, at
// whatever moment of the hour.
func TestADeviceIsFoundInABusyOrganisation(t *testing.T) {
	for _, beforeTheReset := range []time.Duration{0, 50 * time.Second, 3 * time.Minute, 30 * time.Minute} {
		t.Run(beforeTheReset.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour - beforeTheReset)))
				s := &service{perPage: 100 * time.Millisecond, window: time.Hour, limit: 5000, names: registered(5000)}
				store := startDevices(t, s, connectclient.Options{})
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				s.registerEvery(ctx, time.Second)
				_ = store.Await(time.Time{}, alice)
				pass(20 * time.Second)
				wantNoError(t, store.Await(time.Time{}, alice))

				before, appeared := s.asked(), time.Now()
				s.register("pi-000001-mine")
				found := time.Duration(0)
				for waited := time.Duration(0); waited < 3*time.Minute; waited += time.Second {
					if waited == 45*time.Second {
						if n := s.asked() - before; n > 160 {
							t.Errorf("45 s cost %d requests", n)
						}
					}
					if len(store.Find("pi-000001-mine")) == 1 && found == 0 {
						found = time.Since(appeared)
					}
					_ = store.Await(time.Now(), alice) // whoever waits wants a fresher snapshot all the time
					pass(time.Second)
				}
				if found == 0 || found > time.Minute {
					t.Errorf("it was found after %s", found)
				}
			})
		})
	}
}

// 10,000 devices at 150 ms a page, one new device every 10 s and somebody who always
// wants a fresher snapshot: listings end, and leave most of the hour to others.
func TestListingsOfABusyOrganisationEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{perPage: 150 * time.Millisecond, window: time.Hour, limit: 5000, names: registered(10_000)}
		store := startDevices(t, s, connectclient.Options{})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		s.registerEvery(ctx, 10*time.Second)
		listed := 0
		for range 30 * 60 {
			demanded := time.Now().Add(-90 * time.Second)
			if store.Await(demanded, alice) == nil && store.Fresh(demanded) {
				listed++
			}
			_ = store.Await(time.Now(), bob)
			pass(time.Second)
		}
		if n := s.asked(); n > 3200 || s.refused > 0 {
			t.Errorf("%d requests in half an hour, %d of them refused", n, s.refused)
		}
		if listed < 1600 {
			t.Errorf("only in %d of 1800 seconds there was a snapshot of the last 90", listed)
		}
	})
}

// A whole hour of it does not spend the reserve, nor what running deployments need.
func TestDemandsDoNotSpendTheHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{perPage: 10 * time.Millisecond, window: time.Hour, limit: 500, names: registered(1000)}
		store := startDevices(t, s, connectclient.Options{})
		for range 2 * 360 {
			_ = store.Await(time.Now(), alice)
			pass(10 * time.Second)
			s.mu.Lock()
			if s.used > 460 {
				t.Fatalf("%d requests of this hour's 500 are spent", s.used)
			}
			s.mu.Unlock()
		}
	})
}

// Between two pages one device is removed and another one registered: the totals agree,
// and a third one has slipped through. It is not taken for gone.
func TestWhatSlipsThroughAListingIsNotGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{window: time.Hour, limit: 5000, names: registered(300)}
		store := startDevices(t, s, connectclient.Options{})
		_ = store.Await(time.Time{}, alice)
		pass(time.Second)
		removed, slips := s.names[0], s.names[100]
		s.mu.Lock()
		s.between = map[int]func(){2: func() {
			s.names = append(slices.Delete(s.names, 0, 1), "pi-999999")
		}}
		s.mu.Unlock()
		pass(12 * time.Minute)

		wantThere := func(id string, want bool) {
			t.Helper()
			if _, _, err := store.Lookup(id, alice); !errors.Is(err, reflector.ErrPending) {
				t.Errorf("%s is not in doubt: %v", id, err)
			}
			pass(time.Second)
			if _, found, err := store.Lookup(id, alice); found != want || err != nil {
				t.Errorf("%s is there: %t, %v", id, found, err)
			}
		}
		wantThere(slips, true)
		pass(12 * time.Minute) // the removed one was on the first page still
		wantThere(removed, false)
	})
}

// At a low --api-qps a listing takes longer than the interval. Once begun it ends,
// also if the API is away in the middle of it.
func TestALongListingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{names: registered(10_000)}
		store := startDevices(t, s, connectclient.Options{QPS: 0.1})
		_ = store.Await(time.Time{}, alice)
		pass(8 * time.Minute)
		s.mu.Lock()
		s.down = true
		s.mu.Unlock()
		pass(2 * time.Minute)
		s.mu.Lock()
		s.down = false
		s.mu.Unlock()
		pass(20 * time.Minute)
		wantNoError(t, store.Await(time.Time{}, alice))
		if n := s.asked(); n > 130 {
			t.Errorf("%d requests for 100 pages", n)
		}
	})
}

// A window that is smaller than the listing: it goes on in the next, and the one after.
func TestAListingGoesOnInTheNextHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{window: time.Hour, limit: 50, names: registered(10_000)}
		store := startDevices(t, s, connectclient.Options{})
		_ = store.Await(time.Time{}, alice)
		pass(4 * time.Hour)
		wantNoError(t, store.Await(time.Time{}, alice))
		if n := len(slices.Collect(store.All())); n != 10_000 {
			t.Errorf("%d devices", n)
		}
	})
}
