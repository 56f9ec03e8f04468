// SPDX-License-Identifier: Apache-2.0

// Package reflector keeps one picture of an organisation for everybody who
// needs it.
//
// The Connect API has no watch. Reading N objects one by one costs N requests of
// an hourly budget of 5,000; reading the collection they are in costs ⌈N/100⌉.
// So per access token and kind one [Store] lists the collection, once every
// interval and when somebody asks for a fresher picture, and reconcilers read
// the store. What the operator writes is put into the store at once, and is
// never read back.
//
// A listing wakes only those whom it concerns: the objects that differ from the
// picture before it, and the resources that were waiting for a picture at all.
// Nobody blocks on a listing, and a steady organisation wakes nobody.
package reflector

import (
	"context"
	"iter"
	"reflect"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"rpi-connect.dev/operator/internal/connectclient"
)

// Collection says how one kind of remote object is listed, and how one object is
// told from another.
type Collection[T any] struct {
	// Name labels the collection in metrics, in the plural: "artefacts".
	Name string
	// List reads the whole collection, or the part of it that the scope asks
	// for, every object once.
	List func(ctx context.Context, c *connectclient.Client, scope string) iter.Seq2[T, error]
	// ID is the remote id.
	ID func(T) string
	// Key is the natural key by which a resource finds the object before it
	// knows the id: an artefact's name, a parsed public key. Empty where an
	// object has none.
	Key func(T) string
	// OnDemand lists only while somebody waits. For a collection that is
	// looked things up in rather than kept equal to something.
	OnDemand bool
}

// Wake says whom a listing, or the failure of one, concerns.
type Wake struct {
	// Token is the organisation's access token.
	Token connectclient.Secret
	// Everyone is set when the token was refused, or is accepted again: that
	// concerns every resource that uses it.
	Everyone bool
	// Waiters asked for a picture that was not there yet.
	Waiters []types.NamespacedName
	// IDs and Keys name the objects that appeared, changed or vanished
	// behind the operator's back.
	IDs, Keys []string
}

// Options are what the reflectors of all kinds have in common.
type Options struct {
	// API gives a client for a token.
	API *connectclient.API
	// Interval is the time between two listings of the same collection when
	// nobody asks for one earlier. Default 10 minutes.
	Interval time.Duration
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Reflector holds the stores of one kind, one per access token.
type Reflector[T any] struct {
	options    Options
	collection Collection[T]
	// wake is called, never concurrently for one store, after a listing.
	wake func(Wake)
	// wanted tells whether anybody still uses the token. A store that nobody
	// wants ends at its next listing, so that a retired token costs nothing.
	wanted func(context.Context, connectclient.Secret) bool

	mu     sync.Mutex
	ctx    context.Context // set by Start: the stores' goroutines live in it
	stores map[part]*Store[T]
}

// part is what one store is about: an organisation, or a part of it.
type part struct {
	token connectclient.Secret
	scope string
}

// New returns a reflector that does nothing before [Reflector.Start].
func New[T any](options Options, collection Collection[T]) *Reflector[T] {
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.Interval <= 0 {
		options.Interval = 10 * time.Minute
	}
	return &Reflector[T]{
		options:    options,
		collection: collection,
		wake:       func(Wake) {},
		wanted:     func(context.Context, connectclient.Secret) bool { return true },
		stores:     map[part]*Store[T]{},
	}
}

// Notify sets who is told about a listing, and who says whether a token is
// still in use. It must be called before [Reflector.Start].
func (r *Reflector[T]) Notify(wake func(Wake), wanted func(context.Context, connectclient.Secret) bool) {
	r.wake, r.wanted = wake, wanted
}

// Of returns the store of the token's organisation. The first call for a token
// makes it; the first [Store.Await] fills it.
func (r *Reflector[T]) Of(token connectclient.Secret) *Store[T] { return r.Part(token, "") }

// Part returns the store of the part of the organisation that the scope asks
// for. Whoever asks for the same part shares its listings.
func (r *Reflector[T]) Part(token connectclient.Secret, scope string) *Store[T] {
	r.mu.Lock()
	defer r.mu.Unlock()
	of := part{token, scope}
	store, ok := r.stores[of]
	if !ok {
		store = newStore(r, of)
		r.stores[of] = store
		if r.ctx != nil {
			go store.run(r.ctx)
		}
	}
	return store
}

// Start lists until the context ends. It implements the manager's Runnable.
func (r *Reflector[T]) Start(ctx context.Context) error {
	r.mu.Lock()
	r.ctx = ctx
	for _, store := range r.stores {
		go store.run(ctx)
	}
	r.mu.Unlock()
	<-ctx.Done()
	return nil
}

// Retry lists at once what could not be listed because the token was refused:
// there is reason to think that it is good now.
func (r *Reflector[T]) Retry(token connectclient.Secret) {
	r.mu.Lock()
	var stores []*Store[T]
	for of, store := range r.stores {
		if of.token == token {
			stores = append(stores, store)
		}
	}
	r.mu.Unlock()
	for _, store := range stores {
		store.retry()
	}
}

// drop forgets a store that nobody wants any more.
func (r *Reflector[T]) drop(store *Store[T]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stores[store.part] == store {
		delete(r.stores, store.part)
	}
}

func equal[T any](a, b T) bool { return reflect.DeepEqual(a, b) }
