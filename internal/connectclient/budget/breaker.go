// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"sync"
	"time"
)

const (
	// failuresToOpen is how many failures in a row, with no success between, open the breaker. A
	// single route that fails among others that work never gets there.
	failuresToOpen = 5
	// firstProbe and lastProbe bound the time between two requests that are let through while the
	// breaker is open. It doubles from one to the other.
	firstProbe = 2 * time.Second
	lastProbe  = 10 * time.Second
	// afterProbe is the time over which those who were refused come back after a probe was due: soon
	// enough to go on within seconds, and not all in one instant.
	afterProbe = 5 * time.Second
)

// Outcome is what became of a request, as far as it tells whether the API is there.
type Outcome int

// The outcomes of a request.
const (
	// Inconclusive: the request ended in a way that says nothing of the API. Its caller has given
	// up, for example.
	Inconclusive Outcome = iota
	// Unsent: the request did not go. It was no probe, and the next one is.
	Unsent
	// Failed: no answer came, or one that is not the API's own word, or the API says that it is
	// broken.
	Failed
	// Answered: the API has answered, whatever it said.
	Answered
)

// Breaker is a circuit breaker: it keeps requests from an API that is down, for whatever tokens they
// are. It is closed while the API answers. After a few failures in a row it opens, and refuses every
// request but one each interval, whoever comes first. That request is the probe for all: as soon as
// the API has answered anything at all, the breaker is closed again.
//
// Nothing waits for a probe's end: one that hangs is overdue when the next interval begins, and
// another request may go. So an outage costs one request per interval, whether requests fail at once
// or hang.
//
// It is safe for concurrent use, never blocks and knows no clock but the one that it is given.
type Breaker struct {
	now func() time.Time

	mu       sync.Mutex
	order    uint64 // of the last event
	failures int    // in a row
	answered uint64 // the order of the last answer's arrival

	open     bool
	every    time.Duration // from the next probe to the one after it
	probe    uint64        // the order of the last probe
	probeAt  time.Time     // when the next one may go
	comeback spread        // of those who were refused
}

// NewBreaker returns a breaker that is closed. The clock is [time.Now] if none is given.
func NewBreaker(now func() time.Time) *Breaker {
	if now == nil {
		now = time.Now
	}
	return &Breaker{now: now}
}

// Attempt is the permission to send one request.
type Attempt struct {
	breaker *Breaker
	once    sync.Once
	sent    uint64
	every   time.Duration // before this attempt, if it is a probe
}

// Try asks to send one request now. The error is a *[Refusal] whose reason is [Outage].
func (b *Breaker) Try() (*Attempt, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if b.open && now.Before(b.probeAt) {
		return nil, &Refusal{Until: b.comeback.next(b.probeAt, afterProbe), Reason: Outage}
	}
	b.order++
	attempt := &Attempt{breaker: b, sent: b.order, every: b.every}
	if b.open {
		b.probe, b.probeAt = b.order, now.Add(b.every)
		b.every = min(2*b.every, lastProbe)
	}
	return attempt, nil
}

// Continue is the permission for one more request on behalf of one that was let through, and whose
// answer does not tell whether the API is there. Without it whoever always asks first, and is always
// answered like that, would be the only probe for ever.
func (b *Breaker) Continue() *Attempt {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.order++
	return &Attempt{breaker: b, sent: b.order, every: b.every}
}

// Open tells whether requests are kept from the API.
func (b *Breaker) Open() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

// Ready tells whether a request may go now: the breaker is closed, or a probe is due.
func (b *Breaker) Ready() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.open || !b.now().Before(b.probeAt)
}

// End reports what became of the request, and returns when to try again if the breaker is open now;
// zero if it is not. Only the first call counts.
func (a *Attempt) End(outcome Outcome) (retryAt time.Time) {
	a.once.Do(func() {
		b := a.breaker
		b.mu.Lock()
		defer b.mu.Unlock()
		b.order++
		switch outcome {
		case Answered:
			b.failures, b.open, b.answered = 0, false, b.order
		case Failed:
			b.fail(a.sent)
		case Unsent:
			if b.open && b.probe == a.sent {
				b.probeAt, b.every = b.now(), a.every
			}
		case Inconclusive:
		}
		if b.open {
			retryAt = b.comeback.next(b.probeAt, afterProbe)
		}
	})
	return retryAt
}

// fail counts a failure. A request that was sent before the last answer came says nothing of what
// has happened since: it may have hung for a minute while others were answered.
func (b *Breaker) fail(sent uint64) {
	if b.open || sent < b.answered {
		return
	}
	b.failures++
	if b.failures >= failuresToOpen {
		b.open, b.every = true, 2*firstProbe
		b.probeAt = b.now().Add(firstProbe)
	}
}
