// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"net/http"
	"testing"
	"time"
)

// The story of a 401 to a token that was good: the first may be a gateway's, the second is believed. One
// with rate headers is about the request and costs the token nothing.
func TestUnauthorizedToATokenThatWasGood(t *testing.T) {
	now := announced(ok(deploymentJSON))
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { now.ServeHTTP(w, r) })
	clock := newClock()
	client := connectAt(t, clock, s.URL)
	if err := get(t, client); err != nil {
		t.Fatal(err)
	}
	now = announced(reply{status: 401})
	for range 3 {
		mustBeOf(t, create(t, client), ErrInvalid, ErrUnauthorizedRequest)
	}
	now = reply{status: 401}
	mustBeOf(t, create(t, client), ErrUnavailable, ErrOutcomeUnknown)
	_ = clock.Sleep(t.Context(), 6*time.Second)
	mustBeOf(t, get(t, client), ErrUnauthorized)
}
