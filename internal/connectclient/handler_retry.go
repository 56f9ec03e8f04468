// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"rpi-connect.dev/operator/internal/connectclient/budget"
)

const (
	// A call is attempted at most this often.
	maxAttempts = 3
	// No attempt begins later than this after the first one: the caller is a
	// reconcile worker, and a longer outage is for its queue to wait out.
	retryWithin = 3 * time.Second
	// The first pause, on average; the next is twice as long.
	firstPause = 200 * time.Millisecond
)

// retry is the middleware that repeats what is safe to repeat: GET, PUT and DELETE,
// after a network error or a 5xx, with exponential backoff and jitter. A POST may
// have been carried out although its answer was lost; a PATCH is left to the
// caller, who looks before changing anything again. A look at a running deployment
// has its next turn anyway. While the API is down nothing is repeated.
func retry(o Options, b *budget.Breaker) middleware {
	return func(next handler) handler {
		return func(ctx context.Context, req *request) (*answer, error) {
			began := o.Now()
			ans, err := next(ctx, req)
			for attempt := 1; attempt < maxAttempts && repeatable(ctx, req, ans, err) && !b.Open(); attempt++ {
				wait := pause(attempt)
				if ans != nil && ans.retryAt.After(o.Now().Add(wait)) {
					wait = ans.retryAt.Sub(o.Now())
				}
				if o.Now().Add(wait).After(began.Add(retryWithin)) || o.Sleep(ctx, wait) != nil {
					break
				}
				again, againErr := next(ctx, req)
				if _, ok := errors.AsType[*budget.Refusal](againErr); ok {
					break // what went wrong says more than that it may not be tried again
				}
				ans, err = again, againErr
			}
			return ans, err
		}
	}
}

// repeatable tells whether the request may be sent again, and whether that can
// help.
func repeatable(ctx context.Context, req *request, ans *answer, err error) bool {
	if priorityOf(ctx, req.method) == budget.Poll {
		return false
	}
	switch req.method {
	case http.MethodGet, http.MethodPut, http.MethodDelete:
	default:
		return false
	}
	if f, ok := errors.AsType[*failure](err); ok {
		return !f.lasting
	}
	return err == nil && ans.status >= 500
}

// pause is how long to wait after the given attempt: 200 ms doubling, ±50 %, so
// that workers that failed together do not come back together.
func pause(attempt int) time.Duration {
	mean := firstPause << (attempt - 1)
	return mean/2 + rand.N(mean) //nolint:gosec // spreading load needs no cryptography
}
