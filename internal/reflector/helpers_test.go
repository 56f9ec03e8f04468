// SPDX-License-Identifier: Apache-2.0

package reflector_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
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
	reflector *reflector.Reflector[thing]
	client    *connectclient.Client

	mu       sync.Mutex
	things   []thing
	hidden   map[string]bool // what listings miss, although it is there
	perPage  int             // default: everything on one page
	failure  error           // of every page
	trouble  map[int]error   // of a page, once
	torn     bool            // listings are not whole
	listings int             // that have begun
	pages    int             // that were asked for
	during   func()          // runs once, in the middle of the next page
	notified []reflector.Notification
	wanted   bool

	gets    []string // the ids that were asked for one by one
	getting error    // the failure of that
}

// listing shows what there was when it began, page by page.
type listing struct {
	of   *organisation
	rows []thing
	page int
	torn bool
}

func (l *listing) Next(context.Context) ([]thing, bool, error) {
	o := l.of
	o.mu.Lock()
	o.pages++
	if l.rows == nil {
		o.listings++
		l.rows, l.torn = []thing{}, o.torn
		for _, one := range o.things {
			if !o.hidden[one.ID] {
				l.rows = append(l.rows, one)
			}
		}
	}
	failure, during := errors.Join(o.failure, o.trouble[l.page+1]), o.during
	size := len(l.rows)
	if o.perPage > 0 {
		size = o.perPage
	}
	delete(o.trouble, l.page+1)
	o.during = nil
	o.mu.Unlock()
	if during != nil {
		during()
	}
	if failure != nil {
		return nil, true, failure
	}
	from, to := min(l.page*size, len(l.rows)), min((l.page+1)*size, len(l.rows))
	l.page++
	return l.rows[from:to], to < len(l.rows), nil
}

func (*listing) Skipped() int  { return 0 }
func (l *listing) Whole() bool { return !l.torn }

// get reads one thing.
func (o *organisation) get(_ context.Context, _ *connectclient.Client, id string) (*thing, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gets = append(o.gets, id)
	if o.getting != nil {
		return nil, o.getting
	}
	for _, one := range o.things {
		if one.ID == id {
			return &one, nil
		}
	}
	return nil, connectclient.ErrNotFound
}

// single is a collection's way to read one object of the organisation that the client
// opens.
func single(ctx context.Context, c *connectclient.Client, id string) (*thing, error) {
	o, _ := organisations.Load(c)
	return o.(*organisation).get(ctx, c, id)
}

var organisations sync.Map // *connectclient.Client → *organisation

// does changes the organisation.
func (o *organisation) does(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
}

// shows makes the next listings show these things.
func (o *organisation) shows(things ...thing) {
	o.does(func() { o.things, o.failure = things, nil })
}

// hides makes the next listings miss things, although they are there.
func (o *organisation) hides(ids ...string) {
	o.does(func() {
		o.hidden = map[string]bool{}
		for _, id := range ids {
			o.hidden[id] = true
		}
	})
}

// fails makes the next listings fail.
func (o *organisation) fails(err error) { o.does(func() { o.failure = err }) }

// meanwhile does something in the middle of the next listing.
func (o *organisation) meanwhile(do func()) { o.does(func() { o.during = do }) }

// woken returns whom the subscriber was told of since it was last called.
func (o *organisation) woken() []reflector.Notification {
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	notified := o.notified
	o.notified = nil
	return notified
}

// listed is how many listings have begun, asked how many pages were asked for.
func (o *organisation) listed() int { return o.counted(&o.listings) }
func (o *organisation) asked() int  { return o.counted(&o.pages) }

func (o *organisation) counted(n *int) int {
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	return *n
}

// lookedUp returns the ids that were asked for one by one since it was last called.
func (o *organisation) lookedUp() []string {
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	ids := o.gets
	o.gets = nil
	return ids
}

var (
	token = connectclient.NewSecret("rporg_test")
	alice = waiter("alice")
	bob   = waiter("bob")
)

func waiter(name string) reflector.Waiter {
	return reflector.Waiter{Subscriber: "Thing", Resource: types.NamespacedName{Namespace: "fleet", Name: name}}
}

func wakes(n reflector.Notification, w reflector.Waiter) bool {
	return slices.Contains(n.Waiters, w.Resource)
}

// things are as many different things.
func things(n int) []thing {
	all := make([]thing, n)
	for i := range all {
		all[i] = thing{ID: fmt.Sprintf("%05d", i), Name: fmt.Sprintf("thing %d", i)}
	}
	return all
}

// announcing is the current revision of the API: its answers carry what is left of the
// token's budget.
type announcing struct{}

func (announcing) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, Request: r,
		Header: http.Header{
			"Content-Type":           {"application/json"},
			"X-Rate-Limit-Limit":     {"5000"},
			"X-Rate-Limit-Remaining": {"4999"},
			"X-Rate-Limit-Reset":     {"3600"},
		},
		Body: io.NopCloser(strings.NewReader(`{"devices":[],"meta":{"total_count":0}}`)),
	}, nil
}

// start returns the store of an organisation, with a reflector behind it that
// lists every ten minutes.
func start(t *testing.T, collection reflector.Collection[thing]) (*organisation, *reflector.Store[thing]) {
	t.Helper()
	api, err := connectclient.New(connectclient.Options{Transport: announcing{}})
	if err != nil {
		t.Fatal(err)
	}
	return startAt(t, api, collection)
}

// startOnDemand is start for somebody who only looks things up.
func startOnDemand(t *testing.T) (*organisation, *reflector.Store[thing]) {
	t.Helper()
	api, err := connectclient.New(connectclient.Options{Transport: announcing{}})
	if err != nil {
		t.Fatal(err)
	}
	o := newOrganisation(api, reflector.Collection[thing]{})
	o.subscribe("Thing", func(s *reflector.Subscription) { s.OnDemand = true })
	return o, o.run(t)
}

// startCurrent is start where the API is known to be the current revision.
func startCurrent(t *testing.T, collection reflector.Collection[thing]) (*organisation, *reflector.Store[thing]) {
	t.Helper()
	o, store := start(t, collection)
	if _, _, err := o.client.Devices().List("").Next(t.Context()); err != nil || o.client.Revision() != connectclient.RevisionCurrent {
		t.Fatal(err, o.client.Revision())
	}
	return o, store
}

func startAt(t *testing.T, api *connectclient.API, collection reflector.Collection[thing]) (*organisation, *reflector.Store[thing]) {
	t.Helper()
	o := newOrganisation(api, collection)
	o.subscribe("Thing")
	return o, o.run(t)
}

func newOrganisation(api *connectclient.API, collection reflector.Collection[thing]) *organisation {
	o := &organisation{wanted: true, client: api.ClientFor(token), trouble: map[int]error{}}
	organisations.Store(o.client, o)
	collection.Name = "things"
	collection.List = func(*connectclient.Client, string) reflector.Pager[thing] { return &listing{of: o} }
	collection.ID = func(one thing) string { return one.ID }
	if collection.Keys == nil {
		collection.Keys = func(one thing) []string { return []string{one.Name} }
	}
	o.reflector = reflector.New(reflector.Options{API: api, Interval: 10 * time.Minute}, collection)
	return o
}

// subscribe has one more kind told.
func (o *organisation) subscribe(name string, options ...func(*reflector.Subscription)) {
	s := reflector.Subscription{
		Name:   name,
		Notify: func(n reflector.Notification) { o.does(func() { o.notified = append(o.notified, n) }) },
		Wanted: func(context.Context, connectclient.Secret) (wanted bool) {
			o.does(func() { wanted = o.wanted })
			return wanted
		},
	}
	for _, option := range options {
		option(&s)
	}
	o.reflector.Subscribe(s)
}

// run starts the reflector until the test ends.
func (o *organisation) run(t *testing.T) *reflector.Store[thing] {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = o.reflector.Start(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-done
		synctest.Wait()
	})
	synctest.Wait()
	return o.reflector.Of(token)
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

// listOnce has the store filled.
func listOnce(t *testing.T, o *organisation, store *reflector.Store[thing]) {
	t.Helper()
	wantPending(t, store.Await(time.Time{}, alice))
	o.woken()
	wantNoError(t, store.Await(time.Time{}, alice))
}
