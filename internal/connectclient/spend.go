// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"rpi-connect.dev/operator/internal/connectclient/budget"
)

// maxRetryAfter bounds what a Retry-After can ask for: a server that is under
// repair says hours easily, and is back before.
const maxRetryAfter = time.Hour

// spend is the link that asks the token's budget whether the request may be sent
// now, and tells it how that went. It never waits.
func spend(now func() time.Time, b *budget.Budget) link {
	return func(next exchange) exchange {
		return func(ctx context.Context, req *request) (*answer, error) {
			if err := ctx.Err(); err != nil {
				return nil, unsent(err) // nobody wants the answer: it is not worth a request
			}
			ticket, err := b.Take(priorityOf(ctx, req.method))
			if err != nil {
				return nil, err
			}
			defer ticket.Done(budget.Answer{}) // counts only if what follows panics
			ans, err := next(ctx, req)
			f, failed := errors.AsType[*failure](err)
			switch {
			case ans != nil:
				spendRepeats(b, ans.repeats)
				ans.rate = rate(ans, now())
				ticket.Done(ans.rate)
				ans.retryAt = retryAt(ans, now(), b)
			case failed && !f.sent:
				ticket.Release()
			default:
				if failed {
					spendRepeats(b, f.repeats)
				}
				ticket.Done(budget.Answer{})
			}
			return ans, err
		}
	}
}

// spendRepeats counts what net/http wrote again by itself: the API may have got each of them. Whoever is
// refused a ticket for it is out of requests anyway.
func spendRepeats(b *budget.Budget, repeats int) {
	for range repeats {
		if ticket, err := b.Take(budget.Urgent); err == nil {
			ticket.Done(budget.Answer{})
		}
	}
}

// retryAt is when asking again makes sense after the answer: when the budget
// opens after a 429, and when the answer itself says so.
func retryAt(ans *answer, now time.Time, b *budget.Budget) time.Time {
	switch {
	case ans.status == http.StatusTooManyRequests:
		return b.State().StoppedUntil
	case ans.rate.RetryAfter > 0:
		return now.Add(min(ans.rate.RetryAfter, maxRetryAfter))
	default:
		return time.Time{}
	}
}

// rate reads what the answer says about the budget.
func rate(ans *answer, now time.Time) budget.Answer {
	limit, hasLimit := number(ans.header, "X-Rate-Limit-Limit")
	remaining, hasRemaining := number(ans.header, "X-Rate-Limit-Remaining")
	reset, hasReset := number(ans.header, "X-Rate-Limit-Reset") // seconds from now, not an epoch
	return budget.Answer{
		StatusCode: ans.status,
		HasHeaders: hasLimit && hasRemaining && hasReset,
		Limit:      limit,
		Remaining:  remaining,
		Reset:      time.Duration(reset) * time.Second,
		RetryAfter: retryAfter(ans.header, now),
	}
}

func number(h http.Header, name string) (int, bool) {
	n, err := strconv.ParseInt(h.Get(name), 10, 32)
	return int(n), err == nil && n >= 0
}

// retryAfter understands both forms of the header, seconds and a date; zero
// without one.
func retryAfter(h http.Header, now time.Time) time.Duration {
	if seconds, ok := number(h, "Retry-After"); ok {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(h.Get("Retry-After")); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
