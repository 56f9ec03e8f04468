// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"errors"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"rpi-connect.dev/operator/internal/connectclient/budget"
)

// maxRetryAfter bounds what a Retry-After can ask for: a server that is under
// repair says hours easily, and is back before.
const maxRetryAfter = time.Hour

// rateLimit is the middleware that asks the token's budget whether the request may be sent
// now, and tells it how that went. It never waits.
func rateLimit(now func() time.Time, b *budget.Budget) middleware {
	return func(next handler) handler {
		return func(ctx context.Context, req *request) (*answer, error) {
			if err := ctx.Err(); err != nil {
				return nil, unsent(err) // nobody wants the answer: it is not worth a request
			}
			ticket, err := ticketFor(ctx, b, req)
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
				ans.rejected = b.State().Unauthorized
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
		return now.Add(ans.rate.RetryAfter)
	default:
		return time.Time{}
	}
}

// rate reads what the answer says about the budget. Nobody has published more than one example of the
// headers, so what is half understood is used by half, and what is not understood is -1. An answer with
// any of them announces a budget, and comes from the API.
func rate(ans *answer, now time.Time) budget.Answer {
	limit := count(ans.header, "X-Rate-Limit-Limit")
	remaining := count(ans.header, "X-Rate-Limit-Remaining")
	reset := count(ans.header, "X-Rate-Limit-Reset")
	answer := budget.Answer{
		StatusCode: ans.status,
		HasHeaders: len(limit)+len(remaining)+len(reset) > 0,
		Limit:      -1,
		Remaining:  -1,
		Reset:      -1,
		RetryAfter: retryAfter(ans.header, now),
	}
	// Of several values the one counts that allows least.
	if len(limit) > 0 && slices.Min(limit) >= 1 {
		answer.Limit = int(min(slices.Min(limit), math.MaxInt32))
	}
	if len(remaining) > 0 {
		answer.Remaining = int(min(max(0, slices.Min(remaining)), math.MaxInt32)) // below none is none
	}
	if len(reset) > 0 {
		// Seconds from now, as documented. More than a day is something else, such as an epoch.
		if longest := math.Ceil(slices.Max(reset)); longest >= 0 && longest <= longestReset.Seconds() {
			answer.Reset = time.Duration(longest) * time.Second
		}
	}
	return answer
}

// longestReset is the longest time to the end of a window that is believed; the documentation says an
// hour.
const longestReset = 24 * time.Hour

// count reads the numbers of a header that is there once, several times, or with several values, each
// of which may have parameters: "5000", "5000;w=3600", "100, 5000;w=3600", "1799.5".
func count(h http.Header, name string) (numbers []float64) {
	for _, line := range h.Values(name) {
		for value := range strings.SplitSeq(line, ",") {
			value, _, _ = strings.Cut(value, ";")
			if n, ok := number(strings.TrimSpace(value)); ok {
				numbers = append(numbers, n)
			}
		}
	}
	return numbers
}

// numberPattern is of a number in plain digits, at most as many as a count or an epoch has.
var numberPattern = regexp.MustCompile(`^[+-]?\d{1,15}(\.\d{0,15})?$`)

func number(text string) (float64, bool) {
	if !numberPattern.MatchString(text) {
		return 0, false
	}
	n, err := strconv.ParseFloat(text, 64)
	return n, err == nil
}

// retryAfter understands both forms of the header, seconds and a date; zero
// without one.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, ok := number(text); ok {
		return time.Duration(math.Ceil(min(max(0, seconds), maxRetryAfter.Seconds()))) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(0, at.Sub(now)), maxRetryAfter)
	}
	return 0
}
