// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"rpi-connect.dev/operator/internal/connectclient/budget"
)

// Call is one attempt to call the API, or one refusal to let it be made, as [Options.Observe] is told of it. It holds nothing secret.
type Call struct {
	// Operation names the call in a few words: "create artefact".
	Operation string
	// Method is the HTTP method.
	Method string
	// Token is the access token's fingerprint.
	Token string
	// StatusCode is the answer's; 0 if none came whole, or the call was refused.
	StatusCode int
	// Duration is how long the attempt took, to the answer's last byte.
	Duration time.Duration
	// Refusal is why the budget, or the circuit breaker in an outage, did not
	// let the request be sent; nil if it was sent.
	Refusal *budget.Refusal
	// Delay is how far into the future the refusal puts the request off.
	Delay time.Duration
	// Budget is the state of the token's budget after the call.
	Budget budget.State
}

// observer passes on what is observed until it is silenced.
type observer struct {
	mu      sync.RWMutex // held for reading while observe runs
	observe func(Call)
}

func (o *observer) tell(call Call) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	o.observe(call)
}

// silence returns when observe has been called for the last time.
func (o *observer) silence() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.observe = func(Call) {}
}

// observe is the middleware that measures and logs.
func observe(c *Client) middleware {
	return func(next handler) handler {
		return func(ctx context.Context, req *request) (*answer, error) {
			began := c.options.Now()
			ans, err := next(ctx, req)
			c.observed(ctx, req, began, ans, err)
			return ans, err
		}
	}
}

// observed measures and logs an attempt, or a refusal of the budget to let one be made.
func (c *Client) observed(ctx context.Context, req *request, began time.Time, ans *answer, err error) {
	call := Call{Operation: req.operation, Method: req.method, Token: c.token.Fingerprint(), Budget: c.budget.State()}
	if errors.As(err, &call.Refusal) {
		call.Delay = max(0, call.Refusal.Until.Sub(began))
	} else {
		call.Duration = c.options.Now().Sub(began)
	}
	if err == nil {
		call.StatusCode = ans.status
	}
	c.observer.tell(call)
	logCall(ctx, c.options.Logger, call, err)
}

func logCall(ctx context.Context, logger *slog.Logger, call Call, err error) {
	attrs := []slog.Attr{
		slog.String("operation", call.Operation),
		slog.String("method", call.Method),
		slog.String("token", call.Token),
	}
	switch {
	case call.Refusal != nil:
		attrs = append(attrs, slog.String("reason", string(call.Refusal.Reason)), slog.Duration("delay", call.Delay))
		logger.LogAttrs(ctx, slog.LevelDebug, "put a call off", attrs...)
		return
	case err != nil:
		attrs = append(attrs, slog.String("error", err.Error()))
	default:
		attrs = append(attrs, slog.Int("status", call.StatusCode))
	}
	attrs = append(attrs, slog.Duration("duration", call.Duration))
	logger.LogAttrs(ctx, slog.LevelDebug, "called the Connect API", attrs...)
}
