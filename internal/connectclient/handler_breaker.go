// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"errors"

	"rpi-connect.dev/operator/internal/connectclient/budget"
)

// breakCircuit is the middleware that keeps requests from an API that is down, but for those that find out
// whether it is back. It belongs to all organisations: what one learns, the others need not try.
func breakCircuit(b *budget.Breaker, p *profile) middleware {
	return func(next handler) handler {
		return func(ctx context.Context, req *request) (*answer, error) {
			attempt, err := b.Try()
			switch {
			case err == nil:
			case continues(ctx):
				attempt = b.Continue()
			default:
				return nil, err
			}
			defer attempt.End(budget.Inconclusive) // counts only if what follows panics
			ans, err := next(ctx, req)
			again := attempt.End(outcome(ctx, req, ans, err, p.knows()))
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

type continuesKey struct{}

// withContinuation marks a request that finds out what the answer to another one means.
func withContinuation(ctx context.Context) context.Context {
	return context.WithValue(ctx, continuesKey{}, true)
}

func continues(ctx context.Context) bool { return ctx.Value(continuesKey{}) != nil }

// outcome is what the end of a request tells about the API.
func outcome(ctx context.Context, req *request, ans *answer, err error, k knowledge) budget.Outcome {
	f, failed := errors.AsType[*failure](err)
	switch {
	case failed && ctx.Err() == nil:
		return budget.Failed
	case failed && f.sent:
		return budget.Inconclusive // its caller wanted the answer no longer
	case err != nil:
		return budget.Unsent
	}
	switch m := k.meaningOf(req, ans); {
	case m == badToken, m == doubtfulToken, m == undecided:
		return budget.Inconclusive // from the API or from something in between: it is being found out
	case m.word():
		return budget.Answered
	default:
		return budget.Failed
	}
}
