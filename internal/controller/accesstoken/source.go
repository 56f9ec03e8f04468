// SPDX-License-Identifier: Apache-2.0

// Package accesstoken finds the access token that a resource names.
//
// Secrets are watched as metadata only, so that the operator never holds the
// Secrets of a cluster in memory, and the one value is read when its
// resourceVersion is new: N resources that share a Secret cost one read.
package accesstoken

import (
	"context"
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

// Source reads access tokens.
type Source struct {
	metadata client.Reader // the cache: metadata of Secrets
	live     client.Reader // past the cache: the value of one Secret

	mu      sync.Mutex
	known   map[Ref]reading
	touched []func(connectclient.Secret)
}

// reading is the last good token and what is known of the Secret's newest
// version: a Secret that has lost its value does not make us forget.
type reading struct {
	cached string // the version in the cache that it answers for
	live   string // the version that was read, which may be newer
	token  connectclient.Secret
	empty  bool
}

// NewSource returns a source that sees Secrets' metadata in the cache and reads
// their values past it.
func NewSource(metadata, live client.Reader) *Source {
	return &Source{metadata: metadata, live: live, known: map[Ref]reading{}}
}

// OnTouched adds who is told of a token whose Secret has changed although the token
// has not: whoever did that may know that it works now. It must be called before
// the first [Source.Token].
func (s *Source) OnTouched(tell func(connectclient.Secret)) { s.touched = append(s.touched, tell) }

// Token returns the token at ref, or a [MissingError].
func (s *Source) Token(ctx context.Context, ref Ref) (connectclient.Secret, error) {
	key := types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}
	meta := &metav1.PartialObjectMetadata{}
	meta.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	if err := s.metadata.Get(ctx, key, meta); err != nil {
		return connectclient.Secret{}, missing(ref, err)
	}

	// One lock around the read: many resources that share a new Secret wait
	// for one read instead of making one each.
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.known[ref]
	if known.cached != meta.ResourceVersion && known.live != meta.ResourceVersion {
		secret := &corev1.Secret{}
		if err := s.live.Get(ctx, key, secret); err != nil {
			return connectclient.Secret{}, missing(ref, err)
		}
		token := connectclient.NewSecret(string(secret.Data[ref.Key]))
		if known.live != "" && known.live != secret.ResourceVersion && token == known.token && !token.IsZero() {
			for _, tell := range s.touched {
				tell(token)
			}
		}
		known.cached, known.live, known.empty = meta.ResourceVersion, secret.ResourceVersion, token.IsZero()
		if !known.empty {
			known.token = token
		}
		s.known[ref] = known
	}
	if known.empty {
		return connectclient.Secret{}, &MissingError{Ref: ref}
	}
	return known.token, nil
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

func missing(ref Ref, err error) error {
	if apierrors.IsNotFound(err) {
		return &MissingError{Ref: ref, Secret: true}
	}
	return fmt.Errorf("read Secret %s/%s: %w", ref.Namespace, ref.Name, err)
}
