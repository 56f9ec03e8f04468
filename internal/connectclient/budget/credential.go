// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"net/http"
	"time"
)

const (
	// secondThought is how long a token is left alone after the first 401 of one that was good: a
	// gateway that has lost its mind for a moment has it back by then.
	secondThought = 5 * time.Second
	// firstRetrial is how soon a rejected token that was good is tried again at first. It doubles to
	// the probe interval.
	firstRetrial = 10 * time.Second
)

// standing is what is known of an access token.
type standing int

const (
	unproven standing = iota // nothing
	good                     // Connect has accepted it
	doubted                  // it was good; then there was a 401, which may have been somebody else's
	rejected                 // Connect refuses it
)

// credential judges the access token by what is answered. While it is not known to be good, requests go
// alone.
type credential struct {
	probeInterval time.Duration

	standing  standing
	vouched   bool          // it was good before this process was there
	notBefore time.Time     // the next request goes no sooner, if the token is doubted or rejected
	pause     time.Duration // between two probes of a rejected one

	alone   moment // when the last request was sent that went alone
	probing bool   // and it is on its way

	accepted uint64 // the order of the last request that was found good
	refused  uint64 // … that was found bad
	noticed  uint64 // the order of the moment when that was found
}

// refuse returns why no request may be sent with the token now, or nil.
func (c *credential) refuse(now time.Time) *Refusal {
	reason := Unproven
	if c.standing == rejected {
		reason = Unauthorized
	}
	switch {
	case c.standing == good:
		return nil
	case c.probing:
		// For as long again as it has taken so far.
		return &Refusal{Until: now.Add(min(max(now.Sub(c.alone.at), aloneMin), aloneMax)), Reason: reason}
	case now.Before(c.notBefore):
		return &Refusal{Until: c.notBefore, Reason: reason}
	default:
		return nil
	}
}

// reconsider lets a token that is not accepted be tried again now.
func (c *credential) reconsider(now time.Time) {
	if !c.probing {
		c.notBefore = now
	}
}

// vouch notes that the token was good before. If it has been rejected already, by a single 401, that
// is doubted after all.
func (c *credential) vouch(now time.Time) {
	if !c.vouched && c.standing == rejected && c.accepted == 0 {
		c.standing, c.notBefore = doubted, now.Add(secondThought)
	}
	c.vouched = true
}

// used notes that a request is sent with the token.
func (c *credential) used(now moment) {
	if c.standing == good {
		return
	}
	c.alone, c.probing = now, true
	if c.standing == rejected {
		c.notBefore = now.at.Add(c.pause)
	}
}

// ended notes that a request has ended.
func (c *credential) ended(sent moment) {
	if sent.order == c.alone.order {
		c.probing = false
	}
}

// unused notes that a request was not sent after all. If it was to be the probe, the next one is.
func (c *credential) unused(sent moment) {
	if c.probing && sent.order == c.alone.order {
		c.probing, c.notBefore = false, sent.at
	}
}

// observe takes over what an answer says of the token. Of answers that contradict each other, the one
// to the later request is right.
//
// A 401 without rate headers is what Connect answers to an invalid token, and what a gateway may
// answer in its place. Who is told about a budget has been let in: a 401 with rate headers is about
// the request and not about the token.
func (c *credential) observe(status int, announced bool, sent, now moment) {
	c.ended(sent)
	switch {
	case status == http.StatusUnauthorized && !announced:
		c.strike(sent, now)
	case announced, status > 0 && status < 500 && status != http.StatusTooManyRequests:
		if sent.order > c.refused {
			c.standing = good
			c.accepted = max(c.accepted, sent.order)
		}
	}
}

// strike counts a 401. A token that was good is rejected by the second in a row: by one that answers
// a request sent after the first was noticed, not by those that were on their way with it.
func (c *credential) strike(sent, now moment) {
	if sent.order < c.accepted || c.standing > good && sent.order < c.noticed {
		return
	}
	switch {
	case c.standing == unproven && !c.vouched:
		c.standing, c.pause = rejected, c.probeInterval
	case c.standing == unproven, c.standing == good:
		c.standing, c.pause = doubted, secondThought
	case c.standing == doubted:
		c.standing, c.pause = rejected, min(firstRetrial, c.probeInterval)
	default:
		c.pause = min(2*c.pause, c.probeInterval)
	}
	c.refused, c.noticed = sent.order, now.order
	c.notBefore = now.at.Add(c.pause)
}
