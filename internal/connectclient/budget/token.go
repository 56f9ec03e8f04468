// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"net/http"
	"time"
)

// token is what is known of the access token itself: nothing, that it is good, or
// that it has been rejected. While it is not known to be good, requests go alone.
type token struct {
	probeInterval time.Duration

	proven    bool // an answer has shown that it is good, or bad
	rejected  bool
	nextProbe time.Time

	alone      moment // when the last request was sent that went alone
	probing    bool   // and it is on its way, to try a rejected token again
	goodSince  uint64 // the order of the last request that was sent and found good
	rejectedAt uint64 // the order of the moment it was found bad
}

// refuse returns why no request may be sent with the token now, or nil.
func (t *token) refuse(inFlight int, now time.Time) *Refusal {
	// For as long again as it has taken so far.
	soon := now.Add(min(max(now.Sub(t.alone.at), aloneMin), aloneMax))
	switch {
	case t.rejected && t.probing:
		return &Refusal{Until: soon, Reason: Unauthorized}
	case t.rejected && now.Before(t.nextProbe):
		return &Refusal{Until: t.nextProbe, Reason: Unauthorized}
	case !t.proven && inFlight > 0:
		return &Refusal{Until: soon, Reason: Unproven}
	default:
		return nil
	}
}

// reconsider lets a rejected token be tried again now.
func (t *token) reconsider(now time.Time) {
	if t.rejected && !t.probing {
		t.nextProbe = now
	}
}

// used notes that a request is sent with the token.
func (t *token) used(now moment) {
	if t.proven && !t.rejected {
		return
	}
	t.alone = now
	if t.rejected {
		t.probing, t.nextProbe = true, now.at.Add(t.probeInterval)
	}
}

// unused notes that a request was not sent after all. If it was to be the probe,
// the next one is.
func (t *token) unused(sent moment) {
	if t.probing && sent.order == t.alone.order {
		t.probing, t.nextProbe = false, sent.at
	}
}

// judge takes over what an answer says of the token. Of answers that contradict
// each other, the one to the later request is right.
func (t *token) judge(status int, announced bool, sent, now moment) {
	if sent.order == t.alone.order {
		t.probing = false
	}
	switch {
	case status == http.StatusUnauthorized:
		if sent.order < t.goodSince || t.rejected && sent.order < t.rejectedAt {
			return
		}
		t.proven, t.rejected, t.rejectedAt = true, true, now.order
		t.nextProbe = now.at.Add(t.probeInterval)
	case announced, status > 0 && status < 500 && status != http.StatusTooManyRequests:
		if t.rejected && sent.order < t.rejectedAt {
			return
		}
		t.proven, t.rejected = true, false
		t.goodSince = max(t.goodSince, sent.order)
	}
}
