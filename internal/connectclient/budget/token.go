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

// token judges the access token by what is answered. While it is not known to be good, requests go
// alone.
type token struct {
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
func (t *token) refuse(now time.Time) *Refusal {
	reason := Unproven
	if t.standing == rejected {
		reason = Unauthorized
	}
	switch {
	case t.standing == good:
		return nil
	case t.probing:
		// For as long again as it has taken so far.
		return &Refusal{Until: now.Add(min(max(now.Sub(t.alone.at), aloneMin), aloneMax)), Reason: reason}
	case now.Before(t.notBefore):
		return &Refusal{Until: t.notBefore, Reason: reason}
	default:
		return nil
	}
}

// reconsider lets a token that is not accepted be tried again now.
func (t *token) reconsider(now time.Time) {
	if !t.probing {
		t.notBefore = now
	}
}

// vouch notes that the token was good before. If it has been rejected already, by a single 401, that
// is doubted after all.
func (t *token) vouch(now time.Time) {
	if !t.vouched && t.standing == rejected && t.accepted == 0 {
		t.standing, t.notBefore = doubted, now.Add(secondThought)
	}
	t.vouched = true
}

// used notes that a request is sent with the token.
func (t *token) used(now moment) {
	if t.standing == good {
		return
	}
	t.alone, t.probing = now, true
	if t.standing == rejected {
		t.notBefore = now.at.Add(t.pause)
	}
}

// ended notes that a request has ended.
func (t *token) ended(sent moment) {
	if sent.order == t.alone.order {
		t.probing = false
	}
}

// unused notes that a request was not sent after all. If it was to be the probe, the next one is.
func (t *token) unused(sent moment) {
	if t.probing && sent.order == t.alone.order {
		t.probing, t.notBefore = false, sent.at
	}
}

// judge takes over what an answer says of the token. Of answers that contradict each other, the one
// to the later request is right.
//
// A 401 without rate headers is what Connect answers to an invalid token, and what a gateway may
// answer in its place. Who is told about a budget has been let in: a 401 with rate headers is about
// the request and not about the token.
func (t *token) judge(status int, announced bool, sent, now moment) {
	t.ended(sent)
	switch {
	case status == http.StatusUnauthorized && !announced:
		t.strike(sent, now)
	case announced, status > 0 && status < 500 && status != http.StatusTooManyRequests:
		if sent.order > t.refused {
			t.standing = good
			t.accepted = max(t.accepted, sent.order)
		}
	}
}

// strike counts a 401. A token that was good is rejected by the second in a row: by one that answers
// a request sent after the first was noticed, not by those that were on their way with it.
func (t *token) strike(sent, now moment) {
	if sent.order < t.accepted || t.standing > good && sent.order < t.noticed {
		return
	}
	switch {
	case t.standing == unproven && !t.vouched:
		t.standing, t.pause = rejected, t.probeInterval
	case t.standing == unproven, t.standing == good:
		t.standing, t.pause = doubted, secondThought
	case t.standing == doubted:
		t.standing, t.pause = rejected, min(firstRetrial, t.probeInterval)
	default:
		t.pause = min(2*t.pause, t.probeInterval)
	}
	t.refused, t.noticed = sent.order, now.order
	t.notBefore = now.at.Add(t.pause)
}
