// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"sync"

	"rpi-connect.dev/operator/internal/connectclient"
)

// TokenHealth tells the loops of all kinds when Connect begins or ceases to refuse an access token:
// what one resource learns concerns all that use the token.
type TokenHealth struct {
	mu      sync.Mutex
	refused map[connectclient.Secret]bool
	notify  []func(connectclient.Secret)
}

// NewTokenHealth returns a TokenHealth that knows of no token.
func NewTokenHealth() *TokenHealth {
	return &TokenHealth{refused: map[connectclient.Secret]bool{}}
}

// OnChange adds who is told of a token that begins or ceases to be refused. It must be called before
// the first [TokenHealth.Note].
func (h *TokenHealth) OnChange(notify func(connectclient.Secret)) {
	h.notify = append(h.notify, notify)
}

// Note says whether the token is refused now.
func (h *TokenHealth) Note(token connectclient.Secret, refused bool) {
	h.mu.Lock()
	changed := h.refused[token] != refused
	if refused {
		h.refused[token] = true
	} else {
		delete(h.refused, token)
	}
	h.mu.Unlock()
	if !changed {
		return
	}
	for _, notify := range h.notify {
		notify(token)
	}
}

// Forget drops a token that nothing uses any more.
func (h *TokenHealth) Forget(token connectclient.Secret) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.refused, token)
}

// noteHealth passes on what is known of the pass's token. The budget alone decides: it has heard every
// answer, in order, while an error of this pass may be older than the answer that took it back.
func (p *pass[O]) noteHealth() {
	if p.token.IsZero() {
		return
	}
	p.Health.Note(p.token, p.API.ClientFor(p.token).Budget().State().Unauthorized)
}
