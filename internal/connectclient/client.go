// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"rpi-connect.dev/operator/internal/connectclient/budget"
)

// DefaultBaseURL is where the vendor serves the API.
const DefaultBaseURL = "https://api.connect.raspberrypi.com"

// Options configure an [API]. The zero value speaks to the vendor's service.
type Options struct {
	// BaseURL is the API's address, with or without a path below which it is
	// served. It must be https, because an access token travels to it; plain
	// http is accepted for loopback addresses only. Default [DefaultBaseURL].
	BaseURL string
	// UserAgent names the program to the vendor. Default "rpi-connect-operator".
	UserAgent string
	// Transport sends the requests. Default: [NewTransport] with the
	// system's certificate authorities.
	Transport http.RoundTripper
	// Timeout bounds one attempt, from connecting to the last byte of the
	// answer; one that only reads at most 30 seconds. Default 60 seconds.
	Timeout time.Duration
	// Now is the clock. Default [time.Now].
	Now func() time.Time
	// Sleep waits between two attempts, and between two pages of a listing
	// that the budget slows down; it returns early when ctx ends. Default: a
	// timer.
	Sleep func(ctx context.Context, d time.Duration) error
	// QPS is the number of requests per second and access token where the
	// API announces no budget. Default 10.
	QPS float64
	// ReservePercent is the share of the hourly budget that reading leaves to
	// writing and to others who use the same token. Default 10; a negative
	// one stands for none.
	ReservePercent int
	// Observe is told of every attempt and of every refusal by the budget. It
	// must be quick and safe for concurrent use. Default: nobody is told.
	Observe func(Call)
	// Logger gets a debug line for every attempt: operation, method, status
	// and duration, never a header or a body. Default: no log.
	Logger *slog.Logger
}

func (o Options) withDefaults() (Options, error) {
	if o.BaseURL == "" {
		o.BaseURL = DefaultBaseURL
	}
	var err error
	if o.BaseURL, err = checkedBaseURL(o.BaseURL); err != nil {
		return o, err
	}
	if o.UserAgent == "" {
		o.UserAgent = "rpi-connect-operator"
	}
	if o.Transport == nil {
		if o.Transport, err = NewTransport(nil); err != nil {
			return o, err
		}
	}
	if o.Timeout <= 0 {
		o.Timeout = 60 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	if o.Observe == nil {
		o.Observe = func(Call) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// checkedBaseURL makes sure that requests, and with them the access token, go
// where the user thinks they go. The result has no slash at its end, so that
// paths can be appended.
func checkedBaseURL(raw string) (string, error) {
	u, err := url.Parse(strings.TrimSpace(raw))
	switch {
	case err != nil, u.Hostname() == "", u.Scheme != "https" && u.Scheme != "http":
		// What was given is not repeated: it may hold a password.
		return "", errors.New("the Connect API's address is not a URL: give one such as " + DefaultBaseURL)
	case u.User != nil:
		return "", errors.New("the Connect API's address must not hold a user or a password: remove what stands before the @; the access token is sent as a header")
	case u.RawQuery != "", u.ForceQuery, u.Fragment != "":
		return "", errors.New("the Connect API's address must not have a query or a fragment: remove what follows the ? or #")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return "", fmt.Errorf("the Connect API's address %s would send the access token in clear text: use https:// (plain http:// is accepted for localhost only)", u.Redacted())
	}
	return strings.TrimRight(u.String(), "/"), nil
}

func isLoopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// API is the way to one Connect service. It is safe for concurrent use.
type API struct {
	options Options
	profile *profile
	breaker *budget.Breaker // for all organisations: they are served by the same machines
	pages   pageTurns       // for all organisations, too

	mu      sync.Mutex
	clients map[Secret]*Client
}

// New checks the options; it sends nothing.
func New(options Options) (*API, error) {
	options, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	return &API{options: options, breaker: budget.NewBreaker(options.Now), pages: newPageTurns(), profile: &profile{}, clients: map[Secret]*Client{}}, nil
}

// ClientFor opens the organisation that the access token belongs to. There is
// one Client per token, because the request budget is the token's: the same
// token gives the same Client.
func (a *API) ClientFor(token Secret) *Client {
	a.mu.Lock()
	defer a.mu.Unlock()
	client, ok := a.clients[token]
	if !ok {
		client = newClient(a, token)
		a.clients[token] = client
	}
	return client
}

// Retire forgets an access token that nothing uses any more: the next
// [API.ClientFor] with it begins anew. Calls on a Client that somebody still
// holds work on, but from now on nobody is told of them: when Retire has returned,
// [Options.Observe] is not called for this Client again.
func (a *API) Retire(token Secret) {
	a.mu.Lock()
	client := a.clients[token]
	delete(a.clients, token)
	a.mu.Unlock()
	if client != nil {
		client.observer.silence()
	}
}

// Client calls the API for one organisation, grouped by resource: each has its
// methods in a file of its own. It is safe for concurrent use.
type Client struct {
	options  Options
	token    Secret
	breaker  *budget.Breaker
	pages    pageTurns
	observer observer
	budget   *budget.Budget
	profile  *profile
	send     handler
}

func newClient(a *API, token Secret) *Client {
	c := &Client{
		options:  a.options,
		token:    token,
		breaker:  a.breaker,
		pages:    a.pages,
		profile:  a.profile,
		observer: observer{observe: a.options.Observe},
		budget: budget.New(budget.Config{
			Now:            a.options.Now,
			ReservePercent: a.options.ReservePercent,
			QPS:            a.options.QPS,
		}),
	}
	c.send = c.chain()
	return c
}

// Revision is the API's revision as far as its answers have shown it, to whatever
// token. What is known to be the current one stays it. The older one is known by
// its 404 to the listing of auth keys, if it has been seen to announce no budget.
func (c *Client) Revision() Revision { return c.profile.knows().revision }

// Budget is the token's request budget.
func (c *Client) Budget() *budget.Budget { return c.budget }

// PollRate is how many looks at running deployments a second may go now: as many
// as the token's budget lasts for, and none while the API is down, except to find
// out whether it is back. It is for a [budget.Poller].
func (c *Client) PollRate() float64 {
	if !c.breaker.Ready() {
		return 0
	}
	return c.budget.PollRate()
}

// Token is the access token that opens the organisation.
func (c *Client) Token() Secret { return c.token }

// BaseURL is the API's address, without a slash at its end.
func (c *Client) BaseURL() string { return c.options.BaseURL }

type priorityKey struct{}

// WithPriority gives the calls made with the context another rank in the request
// budget than their method has: cancelling and deleting are [budget.Urgent],
// creating and updating [budget.Write], reading [budget.Background].
func WithPriority(ctx context.Context, p budget.Priority) context.Context {
	return context.WithValue(ctx, priorityKey{}, p)
}

func priorityOf(ctx context.Context, method string) budget.Priority {
	if p, ok := ctx.Value(priorityKey{}).(budget.Priority); ok {
		return p
	}
	switch method {
	case http.MethodDelete, http.MethodPut: // the one PUT there is cancels
		return budget.Urgent
	case http.MethodPost, http.MethodPatch:
		return budget.Write
	default:
		return budget.Background
	}
}
