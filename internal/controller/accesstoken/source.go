// SPDX-License-Identifier: Apache-2.0

// Package accesstoken finds the access token that a resource names.
//
// Secrets are watched as metadata only, so that the operator never holds the Secrets of a cluster in
// memory, and the one value is read when its resourceVersion is new: N resources that share a Secret
// cost one read, and a read that takes long holds up nobody who names another Secret.
//
// A token that has left its last place, or whose last place nobody names any more, is retired:
// whoever keeps something for it is told to let go, so that rotations leave nothing behind.
package accesstoken

import (
	"context"
	"errors"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/internal/connectclient"
)

// Ref is the place of an access token: a key of a Secret.
type Ref struct {
	Namespace, Name, Key string
}

// MissingError says which part of a [Ref] is not there. Its text is stable and
// tells the reader what to do.
type MissingError struct {
	Ref    Ref
	Secret bool // the whole Secret is missing, not just the key
}

func (e *MissingError) Error() string {
	if e.Secret {
		return fmt.Sprintf("Secret %q does not exist: create it with the access token under the key %q", e.Ref.Name, e.Ref.Key)
	}
	return fmt.Sprintf("Secret %q has no value under the key %q: put the access token there", e.Ref.Name, e.Ref.Key)
}

// Source reads access tokens. It is safe for concurrent use; whoever wants to be told of something
// must say so before the first [Source.Token].
type Source struct {
	metadata client.Reader // the cache: metadata of Secrets
	live     client.Reader // past the cache: the value of one Secret

	touched []func(connectclient.Secret)
	retired []func(connectclient.Secret)
	users   []func(context.Context, Ref) bool

	mu      sync.Mutex
	known   map[Ref]reading
	flights map[Ref]*flight
	leaving map[connectclient.Secret]bool // retired lately; true: before the last sweep
}

// reading is the last good token of a place and what is known of the Secret's newest version: a
// Secret that is gone or has lost its value does not make us forget.
type reading struct {
	cached string // the version in the cache that it answers for
	live   string // the version that was read, which may be newer
	token  connectclient.Secret
	empty  bool   // that version has no token
	wrong  string // what it has instead, if anything
	gone   bool   // there is no Secret
	asked  bool   // somebody has asked since the last sweep
}

// flight is a read of a Secret that is under way, for all who wait for it.
type flight struct {
	done      chan struct{} // closed when it is over
	token     connectclient.Secret
	err       error
	abandoned bool // whoever made it gave up, which is no news for the others
}

// NewSource returns a source that sees Secrets' metadata in the cache and reads
// their values past it.
func NewSource(metadata, live client.Reader) *Source {
	return &Source{
		metadata: metadata, live: live,
		known: map[Ref]reading{}, flights: map[Ref]*flight{}, leaving: map[connectclient.Secret]bool{},
	}
}

// OnTouched adds who is told of a token whose Secret has changed although the token
// has not: whoever did that may know that it works now.
func (s *Source) OnTouched(tell func(connectclient.Secret)) { s.touched = append(s.touched, tell) }

// Token returns the token at ref, a [MissingError] or an [InvalidError].
func (s *Source) Token(ctx context.Context, ref Ref) (connectclient.Secret, error) {
	version, err := s.version(ctx, ref)
	if err != nil {
		s.noteMissing(ref, err)
		return connectclient.Secret{}, err
	}
	for {
		known, f, mine := s.join(ref, version)
		switch {
		case f == nil:
			return known.value(ref)
		case mine:
			s.fly(ctx, ref, version, f)
			return f.token, f.err
		}
		select {
		case <-ctx.Done():
			return connectclient.Secret{}, ctx.Err()
		case <-f.done:
		}
		if f.err != nil && !f.abandoned {
			return connectclient.Secret{}, f.err
		}
	}
}

// LastGood returns the token that was last read at ref, although its Secret may
// be gone: it serves to delete what it made.
func (s *Source) LastGood(ref Ref) (connectclient.Secret, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	token := s.known[ref].token
	return token, !token.IsZero()
}

// RefsOf returns every place where this token was last seen.
func (s *Source) RefsOf(token connectclient.Secret) []Ref {
	s.mu.Lock()
	defer s.mu.Unlock()
	var refs []Ref
	for ref, known := range s.known {
		if known.token == token {
			refs = append(refs, ref)
		}
	}
	return refs
}

// Withdrawn tells whether no Secret holds the token any more: each that did is gone or has lost its
// value. Such a token serves deletions, see [Source.LastGood], and nothing else.
func (s *Source) Withdrawn(token connectclient.Secret) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, known := range s.known {
		if known.token == token && !known.gone && !known.empty {
			return false
		}
	}
	return true
}

// version is the Secret's resourceVersion in the cache.
func (s *Source) version(ctx context.Context, ref Ref) (string, error) {
	meta := &metav1.PartialObjectMetadata{}
	meta.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	if err := s.metadata.Get(ctx, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}, meta); err != nil {
		return "", missing(ref, err)
	}
	return meta.ResourceVersion, nil
}

// join returns what is known of this version of the Secret, or else the flight that finds out; if
// nobody does yet, the flight is the caller's to make.
func (s *Source) join(ref Ref, version string) (known reading, f *flight, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.known[ref]
	if ok {
		known.asked, known.gone = true, false
		s.known[ref] = known
	}
	if known.cached == version || known.live == version {
		return known, nil, false
	}
	f, ok = s.flights[ref]
	if !ok {
		f = &flight{done: make(chan struct{})}
		s.flights[ref] = f
	}
	return known, f, !ok
}

// value is the token of the version that was read, or why it has none.
func (r reading) value(ref Ref) (connectclient.Secret, error) {
	switch {
	case r.wrong != "":
		return connectclient.Secret{}, &InvalidError{Ref: ref, Problem: r.wrong}
	case r.empty:
		return connectclient.Secret{}, &MissingError{Ref: ref}
	default:
		return r.token, nil
	}
}

// fly reads the Secret's value and tells whom that concerns. No lock is held meanwhile.
func (s *Source) fly(ctx context.Context, ref Ref, version string, f *flight) {
	f.err = errors.New("reading the Secret has not come to an end") // stands only if what follows panics
	defer func() {
		s.mu.Lock()
		delete(s.flights, ref)
		s.mu.Unlock()
		close(f.done)
	}()
	secret := &corev1.Secret{}
	if err := s.live.Get(ctx, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}, secret); err != nil {
		f.err, f.abandoned = missing(ref, err), ctx.Err() != nil
		s.noteMissing(ref, f.err)
		return
	}
	token, wrong := parse(secret.Data[ref.Key])
	before, after := s.learn(ref, reading{
		cached: version, live: secret.ResourceVersion, token: token, empty: token.IsZero(), wrong: wrong, asked: true,
	})
	if before.live != "" && before.live != after.live && before.token == token && !token.IsZero() {
		for _, tell := range s.touched {
			tell(token)
		}
	}
	if before.token != after.token {
		s.retire(before.token)
	}
	f.token, f.err = after.value(ref)
}

// learn takes over a reading, and returns what was known before and what is known now: the last good
// token stays.
func (s *Source) learn(ref Ref, now reading) (before, after reading) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before = s.known[ref]
	if now.empty {
		now.token = before.token
	}
	s.known[ref] = now
	return before, now
}

// noteMissing notes that there is no Secret at ref, if that is what the error says.
func (s *Source) noteMissing(ref Ref, err error) {
	if _, ok := errors.AsType[*MissingError](err); !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.known[ref]; ok {
		known.asked, known.gone = true, true
		s.known[ref] = known
	}
}

func missing(ref Ref, err error) error {
	if apierrors.IsNotFound(err) {
		return &MissingError{Ref: ref, Secret: true}
	}
	return fmt.Errorf("read Secret %s/%s: %w", ref.Namespace, ref.Name, err)
}
