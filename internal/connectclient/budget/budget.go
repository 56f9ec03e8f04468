// SPDX-License-Identifier: Apache-2.0

// Package budget decides who may call Connect now.
//
// An access token has a number of requests per fixed window (5,000 an hour). The
// API says in headers how many are left and when the window ends; other programs
// may spend from the same token, a replica may have died in between, so what the
// headers say always wins over what was counted here. Where there are no headers
// (the older revision) a plain rate takes their place.
//
// A [Budget] is for one token. It never blocks and never sends anything: it
// answers [Budget.Take] with a ticket, or with a [Refusal] that says when to come
// back. So it can be tested by simulating hours in milliseconds, and no worker
// ever sleeps on it.
//
// # Who goes first
//
// Not all of the window is for everybody:
//
//	Urgent      cancel, delete             down to the last request
//	Write       create, update             down to a tenth of the reserve
//	Poll        running deployments        down to the reserve
//	Background  listings to notice drift   down to the reserve
//
// The reserve (10 % by default) is what is kept for the first two, and for other
// programs that use the token. Polls are paced on top of that, by [Poller], so that
// they last until the window ends.
//
// # When nobody goes
//
// A 429 stops the token until the window ends. A Retry-After stops it for as long
// as it says. A 401 stops it until the token changes, which makes a new Budget,
// but for one probe every half hour. Before the first answer nobody knows whether
// the token is any good, so one request goes alone: a bad token costs one request,
// however many resources use it.
package budget

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// Priority orders the users of a budget; a smaller one goes first.
type Priority int

// The priorities, from the one that may spend the last request to those that
// have to leave the reserve alone.
const (
	Urgent Priority = iota
	Write
	Poll
	Background
)

func (p Priority) String() string {
	return [...]string{"urgent", "write", "poll", "background"}[p]
}

// Config says how a budget is kept. Its zero value has every default.
type Config struct {
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// ReservePercent is the part of the window that polls and listings leave
	// to others. Default 10; a negative one stands for none.
	ReservePercent int
	// QPS is the rate where the API announces no window. Default 10.
	QPS float64
	// ProbeInterval is how often a rejected token is tried again. Default 30
	// minutes.
	ProbeInterval time.Duration
	// Jitter returns a number in [0,1): it keeps many clients from coming
	// back in the same moment. Default math/rand.
	Jitter func() float64
}

const (
	// unprovenRetry is when to come back while the first request with a token
	// is on its way.
	unprovenRetry = 100 * time.Millisecond
	// resetSlack is by how much two headers of one window may disagree about
	// its end: they count in whole seconds, and answers take time.
	resetSlack = 2 * time.Second
	// stopWithoutReset is how long a 429 stops the token if nothing says for
	// how long.
	stopWithoutReset = time.Minute
	// maxRetryAfter bounds what a Retry-After may ask for.
	maxRetryAfter = time.Hour
)

// Reason says why a request may not go.
type Reason string

// The reasons of a [Refusal].
const (
	// Exhausted: what this priority may spend of the window is spent, or a 429
	// has said so.
	Exhausted Reason = "exhausted"
	// Pacing: too fast for an API without a window, or asked to retry later.
	Pacing Reason = "pacing"
	// Unauthorized: the token has been rejected.
	Unauthorized Reason = "unauthorized"
	// Unproven: the first request with this token is on its way.
	Unproven Reason = "unproven"
)

// Refusal is the error of [Budget.Take].
type Refusal struct {
	// Until is when to ask again.
	Until  time.Time
	Reason Reason
}

func (r *Refusal) Error() string { return fmt.Sprintf("the request budget refuses: %s", r.Reason) }

// Answer is what an HTTP answer says about the budget.
type Answer struct {
	// StatusCode of the answer; 0 if there was none.
	StatusCode int
	// HasHeaders says whether Limit, Remaining and Reset were there.
	HasHeaders bool
	Limit      int
	Remaining  int
	// Reset is the time from the answer to the end of the window.
	Reset time.Duration
	// RetryAfter is how long the answer asks to wait; 0 if it does not.
	RetryAfter time.Duration
}

// State is a snapshot for metrics and messages.
type State struct {
	// HeadersKnown says that the API announces a window: the next three mean
	// something.
	HeadersKnown     bool
	Limit, Remaining int
	ResetAt          time.Time
	InFlight         int
	// StoppedUntil is when a 429 or a Retry-After ends; zero if none is in
	// force.
	StoppedUntil time.Time
	// Unauthorized says that the token has been rejected.
	Unauthorized bool
}

// Budget is the budget of one access token. It is safe for concurrent use.
type Budget struct {
	config Config

	mu       sync.Mutex
	inFlight int
	proven   bool // an answer has shown that the token is good, or bad

	window    window
	stopped   time.Time // until when nobody goes
	stoppedBy Reason

	unauthorized bool
	nextProbe    time.Time

	slots slots
}

// window is what the headers said last.
type window struct {
	known     bool
	assumed   bool // it began by our clock; no header has confirmed it
	limit     int
	remaining int
	resetAt   time.Time
}

// New returns the budget of a token that has not been used yet.
func New(config Config) *Budget {
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.ReservePercent == 0 {
		config.ReservePercent = 10
	}
	config.ReservePercent = min(max(config.ReservePercent, 0), 90)
	if config.QPS <= 0 {
		config.QPS = 10
	}
	if config.ProbeInterval <= 0 {
		config.ProbeInterval = 30 * time.Minute
	}
	if config.Jitter == nil {
		config.Jitter = rand.Float64
	}
	return &Budget{config: config, slots: slots{qps: config.QPS}}
}

// Ticket is the permission to send one request.
type Ticket struct {
	budget *Budget
	once   sync.Once
	sent   time.Time
}

// Take asks to send one request now. The error is a *[Refusal].
func (b *Budget) Take(p Priority) (*Ticket, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.config.Now()
	if err := b.refuse(p, now); err != nil {
		return nil, err
	}
	b.inFlight++
	return &Ticket{budget: b, sent: now}, nil
}

// refuse returns why a request may not go now, or nil if it may.
func (b *Budget) refuse(p Priority, now time.Time) error {
	switch {
	case b.unauthorized && now.Before(b.nextProbe):
		return &Refusal{Until: b.nextProbe, Reason: Unauthorized}
	case b.unauthorized:
		b.nextProbe = now.Add(b.config.ProbeInterval) // this request is the probe
	case !b.proven && b.inFlight > 0:
		return &Refusal{Until: now.Add(unprovenRetry), Reason: Unproven}
	}
	if now.Before(b.stopped) {
		return &Refusal{Until: b.stopped, Reason: b.stoppedBy}
	}
	if b.window.known {
		b.roll(now)
		if b.window.remaining-b.inFlight <= b.floor(p) {
			return &Refusal{Until: b.afterReset(), Reason: Exhausted}
		}
		return nil
	}
	if at, ok := b.slots.take(now); !ok {
		return &Refusal{Until: at, Reason: Pacing}
	}
	return nil
}

// floor is what a priority has to leave of the window.
func (b *Budget) floor(p Priority) int {
	reserve := b.window.limit * b.config.ReservePercent / 100
	switch p {
	case Urgent:
		return 0
	case Write:
		return reserve / 10
	default:
		return reserve
	}
}

// afterReset is when the next window has begun for everybody.
func (b *Budget) afterReset() time.Time {
	return b.window.resetAt.Add(time.Duration((0.1 + b.config.Jitter()) * float64(time.Second)))
}

// roll begins a new window when the known one has ended. How long it is nobody
// has said yet; the next header does.
func (b *Budget) roll(now time.Time) {
	if now.Before(b.window.resetAt) || b.window.assumed {
		return
	}
	b.window.remaining = b.window.limit
	b.window.assumed = true
}

// Done reports how the request ended. Only the first call counts.
func (t *Ticket) Done(answer Answer) {
	t.once.Do(func() {
		b := t.budget
		b.mu.Lock()
		defer b.mu.Unlock()
		b.inFlight--
		b.learn(answer, b.config.Now())
	})
}

// Release gives an unused ticket back.
func (t *Ticket) Release() {
	t.once.Do(func() {
		t.budget.mu.Lock()
		defer t.budget.mu.Unlock()
		t.budget.inFlight--
	})
}

func (b *Budget) learn(answer Answer, now time.Time) {
	if answer.HasHeaders {
		b.learnWindow(answer, now)
	} else if b.window.known {
		b.window.remaining-- // it may have been counted
	}
	switch code := answer.StatusCode; {
	case code == http.StatusUnauthorized:
		b.proven, b.unauthorized = true, true
		b.nextProbe = now.Add(b.config.ProbeInterval)
	case code == http.StatusTooManyRequests:
		b.stop(b.endOf429(answer, now), Exhausted)
	case code > 0 && code < 500:
		b.proven, b.unauthorized = true, false
	}
	if answer.RetryAfter > 0 && answer.StatusCode != http.StatusTooManyRequests {
		b.stop(now.Add(min(answer.RetryAfter, maxRetryAfter)), Pacing)
	}
}

// learnWindow takes over what the headers say. Answers can arrive out of order:
// within a window remaining only falls, and a window that has ended is past.
func (b *Budget) learnWindow(answer Answer, now time.Time) {
	resetAt := now.Add(answer.Reset)
	w := &b.window
	switch {
	case !w.known, w.assumed && resetAt.After(now), resetAt.After(w.resetAt.Add(resetSlack)):
		*w = window{known: true, limit: answer.Limit, remaining: answer.Remaining, resetAt: resetAt.Round(time.Second)}
	case resetAt.Before(w.resetAt.Add(-resetSlack)):
		// A straggler of the window before.
	default:
		w.remaining = min(w.remaining, answer.Remaining)
	}
}

func (b *Budget) endOf429(answer Answer, now time.Time) time.Time {
	switch {
	case answer.RetryAfter > 0:
		return now.Add(min(answer.RetryAfter, maxRetryAfter))
	case answer.HasHeaders:
		b.window.remaining = 0
		return b.afterReset()
	default:
		return now.Add(stopWithoutReset)
	}
}

func (b *Budget) stop(until time.Time, by Reason) {
	if until.After(b.stopped) {
		b.stopped, b.stoppedBy = until, by
	}
}

// State returns a snapshot.
func (b *Budget) State() State {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.config.Now()
	if b.window.known {
		b.roll(now)
	}
	state := State{
		HeadersKnown: b.window.known,
		Limit:        b.window.limit,
		Remaining:    max(0, b.window.remaining-b.inFlight),
		ResetAt:      b.window.resetAt,
		InFlight:     b.inFlight,
		Unauthorized: b.unauthorized,
	}
	if now.Before(b.stopped) {
		state.StoppedUntil = b.stopped
	}
	return state
}

// PollRate is how many polls a second last until the window ends, after what
// polls have to leave to others; without a window, half of the plain rate.
func (b *Budget) PollRate() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.config.Now()
	switch {
	case b.unauthorized, now.Before(b.stopped):
		return 0
	case !b.window.known:
		return b.config.QPS / 2
	}
	b.roll(now)
	left := float64(b.window.remaining - b.inFlight - b.floor(Poll))
	switch {
	case left <= 0:
		return 0
	case b.window.assumed:
		return b.config.QPS / 2 // the first answer tells how long the window is
	default:
		return left / max(b.window.resetAt.Sub(now).Seconds(), 1)
	}
}
