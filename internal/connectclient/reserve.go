// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"rpi-connect.dev/operator/internal/connectclient/budget"
)

// reservation is the permission to send one request that was taken before the call is made.
type reservation struct {
	ticket *budget.Ticket
	used   atomic.Bool
}

type reservationKey struct{}

// Reserve takes the permission to create something now, for one call that is made with the context
// that it returns. It is for whoever has to write something down before the call, and would do so for
// nothing if the call could not be made. While the API is down there is no permission: that it is back
// is for reading to find out. The error is one that the call would have failed with. The call itself still
// fails if a 429 has stopped everybody meanwhile. release gives the permission back if no call was made; it
// is never nil.
func (c *Client) Reserve(ctx context.Context, operation string) (reserved context.Context, release func(), err error) {
	refusal := c.available()
	if refusal == nil {
		ticket, err := c.budget.Take(budget.Write)
		if err == nil {
			r := &reservation{ticket: ticket}
			return context.WithValue(ctx, reservationKey{}, r), r.release, nil
		}
		refusal = err
	}
	req := &request{operation: operation, method: http.MethodPost}
	c.observed(ctx, req, c.options.Now(), nil, refusal)
	return ctx, func() {}, callError(req, nil, refusal)
}

// available returns why nothing may be created while the API is down, or nil.
func (c *Client) available() error {
	attempt, err := c.breaker.Try()
	if err != nil {
		return err
	}
	attempt.End(budget.Unsent)
	if c.breaker.Open() {
		return &budget.Refusal{Until: c.options.Now().Add(time.Second), Reason: budget.Outage}
	}
	return nil
}

func (r *reservation) release() {
	if r.used.CompareAndSwap(false, true) {
		r.ticket.Release()
	}
}

// ticketFor returns the ticket that was reserved for the call, once, or a new one. What was reserved may
// not be good any more: what is written down first can take long.
func ticketFor(ctx context.Context, b *budget.Budget, req *request) (*budget.Ticket, error) {
	r, ok := ctx.Value(reservationKey{}).(*reservation)
	if !ok || req.method != http.MethodPost || !r.used.CompareAndSwap(false, true) {
		return b.Take(priorityOf(ctx, req.method))
	}
	if err := r.ticket.Renew(); err != nil {
		r.ticket.Release()
		return nil, err
	}
	return r.ticket, nil
}
