// SPDX-License-Identifier: Apache-2.0

// Package reflector keeps one snapshot of an organisation for everybody who
// needs it.
//
// The Connect API has no watch. Reading N objects one by one costs N requests of
// an hourly budget of 5,000; reading the collection they are in costs ⌈N/100⌉.
// So per access token and kind one [Store] lists the collection, once every
// interval and when somebody asks for a fresher snapshot, and reconcilers read
// the store. What the operator writes is put into the store at once, and is
// never read back.
//
// A listing wakes only those whom it concerns: the resources that wait for what it
// has shown, and those whose objects differ from the snapshot before it. Nobody
// blocks on a listing, and a steady organisation wakes nobody.
//
// # What is not there
//
// Rows move between pages while a collection is read, so one listing can miss an
// object that is there. What a listing has shown is true. What it has not shown
// is in doubt: the object stays in the snapshot, those who have it are woken, and
// whoever is about to conclude something from its absence asks [Store.Lookup],
// which proves it first: by a request for the one object where the API has such a
// call, otherwise by a second listing. See doubt.go.
//
// # What it costs
//
// Demands are gathered: two listings of a collection keep a distance that its size
// and the token's budget give, so that no demand, however often repeated, spends the
// hour. A listing that fails goes on where it was. See schedule.go.
package reflector

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"rpi-connect.dev/operator/internal/connectclient"
)

// Pager reads a collection page by page; mostly it is a [connectclient.Listing].
type Pager[T any] interface {
	// Next returns the rows of the next page that were not shown before, and
	// whether there are more pages. After an error it goes on at the page that
	// failed.
	Next(ctx context.Context) (rows []T, more bool, err error)
	// Skipped is how many rows could not be understood so far.
	Skipped() int
	// Whole tells, after the last page, whether all was shown that was there,
	// as far as one reading can tell. Of one that is not whole nothing is
	// concluded from what it did not show.
	Whole() bool
}

// Collection says how one kind of remote object is listed, and how one object is
// told from another.
type Collection[T any] struct {
	// Name labels the collection in metrics, in the plural: "artefacts".
	Name string
	// List opens a listing of the whole collection, or of the part of it that
	// the scope asks for. It sends nothing.
	List func(c *connectclient.Client, scope string) Pager[T]
	// Get reads one object by its id. [connectclient.ErrNotFound] proves that it
	// is not there; [connectclient.ErrUnsupported] says that the API has no such
	// call. Nil if there is none in any revision. It is used for the whole
	// collection only: what is in the organisation need not be in a part of it.
	Get func(ctx context.Context, c *connectclient.Client, id string) (*T, error)
	// ID is the remote id.
	ID func(T) string
	// Keys are what else an object can be found by: the natural key by which a
	// resource finds it before it knows the id, for example. Several objects may
	// share one; an empty one is none. Optional.
	Keys func(T) []string
}

// Waiter is a resource that waits.
type Waiter struct {
	// Subscriber is the name of its [Subscription], which is told to wake it.
	Subscriber string
	Resource   types.NamespacedName
}

// Notification says whom of one subscriber a listing, or the failure of one,
// concerns.
type Notification struct {
	// Token is the organisation's access token.
	Token connectclient.Secret
	// Everyone is set when the token was refused, or is accepted again: that
	// concerns every resource that uses it.
	Everyone bool
	// Waiters are those whose wait is over.
	Waiters []types.NamespacedName
	// IDs and Keys name the objects that appeared, changed or vanished behind
	// the operator's back, and those that a listing did not show: whoever has
	// such an object asks [Store.Lookup].
	IDs, Keys []string
}

// Subscription is one kind of resources that is told of a collection. Many may
// share one collection.
type Subscription struct {
	// Name tells subscribers apart; it is what their Waiters say.
	Name string
	// Notify is called after a listing. It must be quick, and safe for
	// concurrent use: every store calls it.
	Notify func(Notification)
	// Wanted tells whether any resource of this kind still uses the token. A
	// store whose token nobody wants ends when it is due to be listed. Nil
	// stands for always.
	Wanted func(context.Context, connectclient.Secret) bool
	// OnDemand is for kinds that look things up in a collection rather than keep
	// it equal to something: for them it is listed only while somebody waits.
	OnDemand bool
}

// Options are what the reflectors of all kinds have in common.
type Options struct {
	// API gives a client for a token.
	API *connectclient.API
	// Interval is the time between two listings of the same collection when
	// nobody asks for one earlier. Default 10 minutes.
	Interval time.Duration
	// Now is the clock by which a snapshot is fresh or not. Default time.Now.
	// When to list is decided by the real one.
	Now func() time.Time
}

// Reflector holds the stores of one kind, one per access token and part of the
// organisation.
type Reflector[T any] struct {
	options       Options
	collection    Collection[T]
	subscriptions []Subscription

	mu     sync.Mutex
	ctx    context.Context // set by Start: the stores' goroutines live in it
	stores map[connectclient.Secret]map[string]*Store[T]
}

// New returns a reflector that does nothing before [Reflector.Start].
func New[T any](options Options, collection Collection[T]) *Reflector[T] {
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.Interval <= 0 {
		options.Interval = 10 * time.Minute
	}
	if collection.Keys == nil {
		collection.Keys = func(T) []string { return nil }
	}
	introduce(collection.Name)
	return &Reflector[T]{
		options:    options,
		collection: collection,
		stores:     map[connectclient.Secret]map[string]*Store[T]{},
	}
}

// Subscribe has one more kind of resources told of the collection. It must be
// called before [Reflector.Start].
func (r *Reflector[T]) Subscribe(s Subscription) {
	r.subscriptions = append(r.subscriptions, s)
}

// Of returns the store of the token's organisation. The first call for a token
// makes it; the first [Store.Await] fills it.
func (r *Reflector[T]) Of(token connectclient.Secret) *Store[T] { return r.Part(token, "") }

// Part returns the store of the part of the organisation that the scope asks
// for. Whoever asks for the same part shares its listings.
func (r *Reflector[T]) Part(token connectclient.Secret, scope string) *Store[T] {
	r.mu.Lock()
	defer r.mu.Unlock()
	if store, ok := r.stores[token][scope]; ok {
		return store
	}
	store := newStore(r, token, scope)
	if r.stores[token] == nil {
		r.stores[token] = map[string]*Store[T]{}
	}
	r.stores[token][scope] = store
	if r.ctx != nil {
		store.start(r.ctx)
	}
	return store
}

// Start lists until the context ends. It implements the manager's Runnable. Of
// those who share the reflector each may start it; the first does.
func (r *Reflector[T]) Start(ctx context.Context) error {
	r.mu.Lock()
	if r.ctx == nil {
		r.ctx = ctx
		for _, parts := range r.stores {
			for _, store := range parts {
				store.start(ctx)
			}
		}
	}
	r.mu.Unlock()
	<-ctx.Done()
	return nil
}

// Known finds an object by its id in whatever listing of the token's organisation,
// or of a part of it, has shown it. It proves nothing, and asks for nothing.
func (r *Reflector[T]) Known(token connectclient.Secret, id string) (T, bool) {
	for _, store := range r.of(token) {
		if found, ok := store.Get(id); ok {
			return found, true
		}
	}
	var none T
	return none, false
}

// keys are what an object can be found by, each once.
func (r *Reflector[T]) keys(object T) []string {
	var keys []string
	for _, key := range r.collection.Keys(object) {
		if key != "" && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// Retry lists at once what could not be listed because the token was refused:
// there is reason to think that it is good now.
func (r *Reflector[T]) Retry(token connectclient.Secret) {
	for _, store := range r.of(token) {
		store.retry()
	}
}

// Forget drops what a resource waits for: it is gone.
func (r *Reflector[T]) Forget(w Waiter) {
	r.mu.Lock()
	var stores []*Store[T]
	for _, parts := range r.stores {
		for _, store := range parts {
			stores = append(stores, store)
		}
	}
	r.mu.Unlock()
	for _, store := range stores {
		store.forget(w)
	}
}

// Retire ends the stores of a token that nothing uses any more, whatever waits
// there; what waits is woken, in case that it goes on with another token.
func (r *Reflector[T]) Retire(token connectclient.Secret) {
	for _, store := range r.of(token) {
		store.end(func() bool { return true })
	}
}

// of returns the stores of a token.
func (r *Reflector[T]) of(token connectclient.Secret) []*Store[T] {
	r.mu.Lock()
	defer r.mu.Unlock()
	stores := slices.Collect(maps.Values(r.stores[token]))
	slices.SortFunc(stores, func(a, b *Store[T]) int { return strings.Compare(a.scope, b.scope) }) // the whole organisation first
	return stores
}

// drop forgets a store that has ended. The lock is held.
func (r *Reflector[T]) drop(store *Store[T]) {
	parts := r.stores[store.token]
	if parts[store.scope] != store {
		return
	}
	delete(parts, store.scope)
	if len(parts) == 0 {
		delete(r.stores, store.token)
	}
}

// wanted tells whether any subscriber still uses the token, and whether any that does
// wants its organisation listed although nobody waits.
func (r *Reflector[T]) wanted(ctx context.Context, token connectclient.Secret) (wanted, followed bool) {
	for _, s := range r.subscriptions {
		if followed || wanted && s.OnDemand {
			continue // it would change nothing
		}
		if s.Wanted == nil || s.Wanted(ctx, token) {
			wanted, followed = true, !s.OnDemand
		}
	}
	if len(r.subscriptions) == 0 {
		return true, true
	}
	return wanted, followed
}
