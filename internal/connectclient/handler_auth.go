// SPDX-License-Identifier: Apache-2.0

package connectclient

import "context"

// authorise is the middleware that adds the access token. It works on a copy, so that
// the token is in no request that a middleware above holds.
func authorise(token Secret) middleware {
	return func(next handler) handler {
		return func(ctx context.Context, req *request) (*answer, error) {
			authorised := *req
			authorised.token = token
			return next(ctx, &authorised)
		}
	}
}

// authorization is the value of the Authorization header. The identity signature
// covers it, so it is made in one place.
func authorization(token Secret) string { return "Bearer " + token.Reveal() }

// sendable tells whether the token can be the value of a header. One that cannot,
// because it is empty or has a line break in the middle, is no access token.
func sendable(token Secret) bool {
	for _, b := range []byte(token.Reveal()) {
		if b <= ' ' || b > '~' {
			return false
		}
	}
	return !token.IsZero()
}
