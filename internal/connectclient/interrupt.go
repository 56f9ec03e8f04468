// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"errors"
	"mime"
	"net/http"

	"rpi-connect.dev/operator/internal/connectclient/budget"
)

// interrupt is the link that keeps requests from an API that is down, but for those that find out
// whether it is back. It belongs to all organisations: what one learns, the others need not try.
func interrupt(b *budget.Breaker, r *revision) link {
	return func(next exchange) exchange {
		return func(ctx context.Context, req *request) (*answer, error) {
			attempt, err := b.Try()
			if err != nil {
				return nil, err
			}
			defer attempt.End(budget.Inconclusive) // counts only if what follows panics
			ans, err := next(ctx, req)
			again := attempt.End(outcome(ctx, ans, err, r.get()))
			if again.IsZero() {
				return ans, err
			}
			if f, ok := errors.AsType[*failure](err); ok && f.retryAt.IsZero() {
				f.retryAt = again
			} else if err == nil && ans.status/100 != 2 && ans.retryAt.IsZero() {
				ans.retryAt = again
			}
			return ans, err
		}
	}
}

// outcome is what the end of a request tells about the API.
func outcome(ctx context.Context, ans *answer, err error, spoken Revision) budget.Outcome {
	f, failed := errors.AsType[*failure](err)
	switch {
	case failed && ctx.Err() == nil:
		return budget.Failed
	case failed && f.sent:
		return budget.Inconclusive // its caller wanted the answer no longer
	case err != nil:
		return budget.Unsent
	case ans.status == http.StatusUnauthorized && !ans.rate.HasHeaders:
		return budget.Inconclusive // from the API or from something in between: the token's budget finds out
	case isWord(ans, spoken):
		return budget.Answered
	default:
		return budget.Failed
	}
}

// isWord tells whether an answer is the API's own, and shows that it works. What something in between
// answers in its place is no JSON and knows nothing of a budget; the older revision knows nothing of
// one either, and may answer a 404 in any form.
func isWord(ans *answer, spoken Revision) bool {
	kind, _, _ := mime.ParseMediaType(ans.header.Get("Content-Type"))
	switch s := ans.status; {
	case s >= 500, s == http.StatusRequestTimeout, s == http.StatusMisdirectedRequest, s == http.StatusTooEarly, s >= 300 && s < 400, s < 200:
		return false
	case ans.rate.HasHeaders, s == http.StatusTooManyRequests:
		return true
	case kind == "text/html":
		return false
	default:
		return s < 300 || kind == "application/json" || spoken != RevisionCurrent
	}
}
