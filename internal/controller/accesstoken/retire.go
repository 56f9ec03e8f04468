// SPDX-License-Identifier: Apache-2.0

package accesstoken

import (
	"context"
	"errors"
	"time"

	"rpi-connect.dev/operator/internal/connectclient"
)

// sweepInterval is how often it is looked for places that nobody names any more.
const sweepInterval = time.Minute

// UsedBy adds who knows of users of a place: it tells whether any resource names it. One that cannot
// tell at the moment says yes. Without anybody who knows, nothing is forgotten.
func (s *Source) UsedBy(names func(context.Context, Ref) bool) { s.users = append(s.users, names) }

// OnRetired adds who is told that a token is at no place any more that a resource names: it has been
// rotated, or its users are gone. Whoever keeps something for the token lets go of it. A pass that was
// under way may make such things anew, so each token is told of a second time, a minute or two later.
// A token that comes back begins anew.
func (s *Source) OnRetired(tell func(connectclient.Secret)) { s.retired = append(s.retired, tell) }

// Start forgets what nobody uses any more, about every minute until the context ends. It implements
// the manager's Runnable.
func (s *Source) Start(ctx context.Context) error {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			s.sweep(ctx)
		}
	}
}

// sweep forgets the places that nobody names, and retires what was there last.
func (s *Source) sweep(ctx context.Context) {
	s.remind()
	for _, ref := range s.refs() {
		used := s.used(ctx, ref)
		s.look(ctx, ref)
		if ctx.Err() != nil {
			return // whoever was asked may have answered anything
		}
		if token, forgotten := s.forget(ref, used); forgotten {
			s.retire(token)
		}
	}
}

func (s *Source) refs() []Ref {
	s.mu.Lock()
	defer s.mu.Unlock()
	refs := make([]Ref, 0, len(s.known))
	for ref := range s.known {
		refs = append(refs, ref)
	}
	return refs
}

func (s *Source) used(ctx context.Context, ref Ref) bool {
	for _, names := range s.users {
		if names(ctx, ref) {
			return true
		}
	}
	return len(s.users) == 0
}

// look notes whether there is a Secret, although nobody asks for its value.
func (s *Source) look(ctx context.Context, ref Ref) {
	_, err := s.version(ctx, ref)
	_, gone := errors.AsType[*MissingError](err)
	if err != nil && !gone {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.known[ref]; ok {
		known.gone = gone
		s.known[ref] = known
	}
}

// forget forgets the place if nobody names it, nor has asked for it since the last sweep: a resource
// that has just come may not be seen by those who know of users.
func (s *Source) forget(ref Ref, used bool) (token connectclient.Secret, forgotten bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.known[ref]
	if !ok {
		return connectclient.Secret{}, false
	}
	if used || known.asked {
		known.asked = false
		s.known[ref] = known
		return connectclient.Secret{}, false
	}
	delete(s.known, ref)
	return known.token, true
}

// retire tells of a token that has left a place, if it was the last.
func (s *Source) retire(token connectclient.Secret) {
	if token.IsZero() || !s.leave(token) {
		return
	}
	for _, tell := range s.retired {
		tell(token)
	}
}

func (s *Source) leave(token connectclient.Secret) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held(token) {
		return false
	}
	s.leaving[token] = false
	return true
}

// held tells whether a place has the token. The lock is held.
func (s *Source) held(token connectclient.Secret) bool {
	for _, known := range s.known {
		if known.token == token {
			return true
		}
	}
	return false
}

// remind tells a second time of the tokens that were retired before the last sweep, unless they have
// come back.
func (s *Source) remind() {
	for _, token := range s.left() {
		for _, tell := range s.retired {
			tell(token)
		}
	}
}

func (s *Source) left() (tokens []connectclient.Secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for token, before := range s.leaving {
		switch {
		case s.held(token):
			delete(s.leaving, token)
		case before:
			delete(s.leaving, token)
			tokens = append(tokens, token)
		default:
			s.leaving[token] = true
		}
	}
	return tokens
}
