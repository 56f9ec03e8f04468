// SPDX-License-Identifier: Apache-2.0

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
	// to others. Default 10; a negative one stands for none; at most 90.
	ReservePercent int
	// QPS is the rate where the API announces no window. Default 10.
	QPS float64
	// ProbeInterval is how often a rejected token is tried again; one that was
	// good is tried sooner at first. Default 30 minutes.
	ProbeInterval time.Duration
	// Jitter returns a number in [0,1). It is called once, by New: it keeps
	// the users of many budgets from coming back in the same moment. Default
	// math/rand.
	Jitter func() float64
}

const (
	// aloneMin and aloneMax bound when to come back while a request goes
	// alone: soon at first, but an API that is down may leave it hanging.
	aloneMin = 100 * time.Millisecond
	aloneMax = 5 * time.Second
	// stopWithoutReset is how long a 429 stops the token if nothing says for
	// how long.
	stopWithoutReset = time.Minute
	// maxRetryAfter bounds what a Retry-After may ask for.
	maxRetryAfter = time.Hour
	// maxJitter is by how much budgets differ in when they come back after a
	// reset.
	maxJitter = time.Second
	// shortestPace is the part of a window that is the shortest time over which
	// polls spread what is left: a minute of an hour. In the last moments of a
	// window thousands of requests may be left unused; the next window begins
	// full, so there is no need to spend them.
	shortestPace = 60
	// straggling is the part of the window that polls do not bother to spend: the
	// last ten of 5,000 would be so far apart that each went by a number that is
	// long out of date.
	straggling = 500
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
	// Unproven: the first request with this token is on its way, or the token
	// is in doubt after a 401.
	Unproven Reason = "unproven"
	// Outage: the API is down, and it is not this request's turn to find out
	// whether it is back. It comes from [Breaker.Try] only.
	Outage Reason = "outage"
)

// Refusal is the error of [Budget.Take] and of [Breaker.Try].
type Refusal struct {
	// Until is when to ask again. Those who wait for the same thing are given
	// successive times, so that they do not come back in one instant.
	Until time.Time
	// Ends is when the window or the stop ends that an Exhausted one waits
	// for, to be shown: it is the same for all who are refused, however often.
	// Zero for other reasons.
	Ends   time.Time
	Reason Reason
}

func (r *Refusal) Error() string { return fmt.Sprintf("the request budget refuses: %s", r.Reason) }

// Answer is what an HTTP answer says about the budget.
type Answer struct {
	// StatusCode of the answer; 0 if there was none.
	StatusCode int
	// HasHeaders says whether the answer announces a budget. What it does not
	// say about it, or not so that it can be understood, is negative: that
	// leaves what is known, and never means that there is no limit.
	HasHeaders bool
	// Limit is the number of requests in a window; it cannot be 0.
	Limit int
	// Remaining is how many of them are left.
	Remaining int
	// Reset is the time from the answer to the end of the window, to the
	// second. More than a day is not understood.
	Reset time.Duration
	// RetryAfter is how long the answer asks to wait; 0 if it does not.
	RetryAfter time.Duration
}

// State is a snapshot for metrics and messages.
type State struct {
	// HeadersKnown says that the API announces a window: the next three mean
	// something.
	HeadersKnown bool
	// Limit is the number of requests in a window, and Remaining how many of
	// them may still be spent, by the most urgent.
	Limit, Remaining int
	// ResetAt is when the window ends, to the second. It does not change
	// while the window lasts.
	ResetAt time.Time
	// InFlight is the number of requests on their way.
	InFlight int
	// StoppedUntil is when a 429 or a Retry-After ends; zero if none is in
	// force.
	StoppedUntil time.Time
	// Unauthorized says that the token has been rejected, and NextProbe when
	// it is tried again; zero if it has not been rejected. One that was good
	// is not rejected by a single 401.
	Unauthorized bool
	NextProbe    time.Time
}

// Budget is the budget of one access token. It is safe for concurrent use.
type Budget struct {
	config Config
	jitter time.Duration

	mu       sync.Mutex
	order    uint64 // of the last moment
	inFlight int

	window     window
	credential credential
	bucket     tokenBucket
	comeback   spreads // of those who were refused
	ends       ends    // of windows

	stop stop
}

// stop is that nobody goes until a time.
type stop struct {
	until  time.Time
	length time.Duration // how long it is waited for, as far as it matters to how many wait
	reason Reason
}

// moment is when something happened: its order is exact where clocks are coarse.
type moment struct {
	at    time.Time
	order uint64
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
	return &Budget{
		config:     config,
		jitter:     time.Duration(config.Jitter() * float64(maxJitter)),
		credential: credential{probeInterval: config.ProbeInterval},
		bucket:     tokenBucket{qps: config.QPS},
	}
}

// now is the present moment. The lock is held.
func (b *Budget) now() moment {
	b.order++
	return moment{at: b.config.Now(), order: b.order}
}

// Ticket is the permission to send one request.
type Ticket struct {
	budget   *Budget
	priority Priority
	once     sync.Once
	sent     moment
}

// Take asks to send one request now. The error is a *[Refusal].
func (b *Budget) Take(p Priority) (*Ticket, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if refusal := b.refuse(p, now); refusal != nil {
		return nil, refusal
	}
	b.inFlight++
	b.credential.used(now)
	return &Ticket{budget: b, priority: p, sent: now}, nil
}

// refuse returns why a request may not go now, or nil if it may.
func (b *Budget) refuse(p Priority, now moment) *Refusal {
	if refusal := b.credential.refuse(now.at); refusal != nil {
		return refusal
	}
	if refusal := b.spent(p, now, 1); refusal != nil || b.window.known {
		return refusal
	}
	if at, ok := b.bucket.take(p, now.at); !ok {
		return &Refusal{Until: at, Reason: Pacing}
	}
	return nil
}

// spent returns why nobody of the priority may go before a time, or nil: all are stopped, or the window
// has not that many left.
func (b *Budget) spent(p Priority, now moment, needed int) *Refusal {
	if now.at.Before(b.stop.until) {
		refusal := &Refusal{Until: b.comeback.next(p, b.stop.until, b.stop.length), Reason: b.stop.reason}
		if b.stop.reason == Exhausted {
			refusal.Ends = b.stop.until
		}
		return refusal
	}
	if !b.window.known {
		return nil
	}
	if b.window.roll(now); b.left(p) >= needed {
		return nil
	}
	return &Refusal{
		Until:  b.comeback.next(p, b.opens(), b.window.length),
		Ends:   b.window.shownEnd(),
		Reason: Exhausted,
	}
}

// opens is when the window is over for this budget.
func (b *Budget) opens() time.Time { return b.window.over().Add(b.jitter) }

// left is how many requests of the known window a priority may still spend.
func (b *Budget) left(p Priority) int {
	return b.window.remaining - b.window.lost - b.inFlight - b.floor(p)
}

// floor is what a priority has to leave of the window. A window of one request
// is for whoever comes.
func (b *Budget) floor(p Priority) int {
	limit := b.window.limit
	sliver := min(max(limit/100, 1), limit-1)
	switch p {
	case Urgent:
		return 0
	case Write:
		return sliver
	default:
		return max(sliver, limit*b.config.ReservePercent/100)
	}
}

// Renew asks to send now the request of a ticket that was taken some time ago: since then a 429 may have
// stopped everybody, or others may have spent the window. The error is a *[Refusal]; the ticket is to be
// given back then.
func (t *Ticket) Renew() error {
	b := t.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	b.credential.unused(t.sent)
	if refusal := b.credential.refuse(now.at); refusal != nil {
		return refusal
	}
	if refusal := b.spent(t.priority, now, 0); refusal != nil {
		return refusal
	}
	t.sent = now
	b.credential.used(now)
	return nil
}

// Done reports how the request ended. Only the first call counts.
func (t *Ticket) Done(answer Answer) {
	t.end(func(b *Budget) { b.observe(answer, t.sent) })
}

// Release gives back the ticket of a request that was never sent. The plain rate
// has been used all the same: where nobody can be reached, attempts are paced.
func (t *Ticket) Release() {
	t.end(func(b *Budget) { b.credential.unused(t.sent) })
}

func (t *Ticket) end(how func(*Budget)) {
	t.once.Do(func() {
		b := t.budget
		b.mu.Lock()
		defer b.mu.Unlock()
		b.inFlight--
		how(b)
	})
}

// observe takes over what the answer to a request says.
func (b *Budget) observe(answer Answer, sent moment) {
	now := b.now()
	staleAnswer := false
	switch {
	case answer.HasHeaders:
		staleAnswer = !b.window.observe(answer, sent, now)
	case b.window.known:
		b.window.lose(now)
	}
	b.credential.observe(answer.StatusCode, answer.HasHeaders, sent, now)

	throttled := answer.StatusCode == http.StatusTooManyRequests
	reason := Pacing
	if throttled {
		reason = Exhausted
	}
	switch {
	case answer.RetryAfter > 0:
		after := min(answer.RetryAfter, maxRetryAfter)
		b.halt(stop{until: now.at.Add(after), length: after, reason: reason})
	case !throttled, staleAnswer: // or the window that was spent is past
	case answer.HasHeaders:
		b.halt(stop{until: b.opens(), length: b.window.length, reason: reason})
	default:
		b.halt(stop{until: now.at.Add(stopWithoutReset), length: stopWithoutReset, reason: reason})
	}
}

// halt stops everybody, unless they are stopped for longer already.
func (b *Budget) halt(s stop) {
	if s.until.After(b.stop.until) {
		b.stop = s
	}
}

// Reconsider lets a token that was rejected, or is in doubt, be tried again at
// once, with one request: somebody says that it is good now.
func (b *Budget) Reconsider() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.credential.reconsider(b.now().at)
}

// Vouch says that Connect has accepted the token before this process was there: a
// single 401 does not reject it then.
func (b *Budget) Vouch() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.credential.vouch(b.now().at)
}

// State returns a snapshot.
func (b *Budget) State() State {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	b.window.roll(now)
	state := State{
		HeadersKnown: b.window.known,
		Limit:        b.window.limit,
		Remaining:    max(0, b.left(Urgent)),
		ResetAt:      b.window.shownEnd(),
		InFlight:     b.inFlight,
		Unauthorized: b.credential.standing == rejected,
	}
	if now.at.Before(b.stop.until) {
		state.StoppedUntil = b.stop.until
	}
	if state.Unauthorized {
		state.NextProbe = b.credential.notBefore
	}
	return state
}

// PollRate is how many polls a second last until the window ends, after what
// polls have to leave to others; without a window, half of the plain rate. It is 0
// while nobody may go. If nobody but polls asks, a poll is what tries again after
// that.
func (b *Budget) PollRate() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if b.credential.refuse(now.at) != nil || now.at.Before(b.stop.until) {
		return 0
	}
	if !b.window.known {
		return b.config.QPS / 2
	}
	b.window.roll(now)
	pace := max(b.window.resetAt.Sub(now.at), b.window.length/shortestPace, time.Second)
	left := b.left(Poll)
	if left <= b.window.limit/straggling {
		return 0
	}
	return float64(left) / pace.Seconds()
}
