// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"net/http"
	"strings"
)

// Between the operator and the API are gateways, proxies and login pages, which answer with the same
// statuses. Whose word an answer is decides what may follow from it: a resource is let go by the API's
// own 404 and by nobody else's. This file judges that, and nothing else does.
//
// The evidence: authenticated answers of the current revision carry rate headers, answers to an invalid
// token do not, and nothing of the older revision does. Errors whose form is published are JSON,
// {"message": …}. None of the API's answers is known to be HTML.

// meaning is what an answer means.
type meaning int

const (
	// undecided: it depends on which revision the API is, which is not known yet.
	undecided meaning = iota
	// accepted: the API has done what it was asked for.
	accepted
	// absent: there is no such object.
	absent
	// missing: the API's revision has no such call.
	missing
	// refused: the API refuses the request; nothing was changed.
	refused
	// refusedUnauthorized is refused, with the status of a bad token although the token is good.
	refusedUnauthorized
	// forbidden: the token is good, but may not do this.
	forbidden
	// unpaid: billing has to be set up first.
	unpaid
	// badToken: the API refuses the token.
	badToken
	// doubtfulToken: it seems to, but has not before; it has to say so again.
	doubtfulToken
	// throttled: the budget is spent.
	throttled
	// redirected: the answer is elsewhere.
	redirected
	// broken: the API, or what is before it, fails.
	broken
	// strange: something in between answers in the API's place.
	strange
)

// word tells whether an answer with this meaning is the API's own word, and shows that it works.
func (m meaning) word() bool {
	switch m {
	case undecided, doubtfulToken, redirected, broken, strange:
		return false
	default:
		return true
	}
}

// knowledge is what is known of the API.
type knowledge struct {
	announcement announcement
	revision     Revision
}

// announcement is whether the API's answers carry rate headers.
type announcement int

const (
	announcementUnknown announcement = iota
	silent                           // a success came without
	announcing                       // some have been seen
)

// meaningOf tells what an answer to the request means. Whoever gets undecided has to find out more.
func (k knowledge) meaningOf(req *request, ans *answer) meaning {
	own := ans.rate.HasHeaders
	switch s := ans.status; {
	case s/100 == 2:
		return k.judgeSuccess(req, ans)
	case s/100 == 3:
		return redirected
	case s == http.StatusUnauthorized && own:
		return refusedUnauthorized
	case s == http.StatusUnauthorized && ans.rejected:
		return badToken
	case s == http.StatusUnauthorized:
		return doubtfulToken
	case s == http.StatusForbidden && ans.worded && strings.Contains(strings.ToLower(ans.refusal), "billing"):
		return unpaid
	case s == http.StatusForbidden && (own || ans.worded && k.announcement == silent):
		return forbidden
	case s == http.StatusForbidden:
		return strange
	case s == http.StatusNotFound, s == http.StatusGone:
		return k.judgeAbsence(req, ans)
	case s == http.StatusTooManyRequests:
		return throttled
	case s == http.StatusRequestTimeout, s == http.StatusMisdirectedRequest, s == http.StatusTooEarly, s/100 != 4:
		return broken
	case own, ans.worded, k.announcement == silent && !ans.html:
		return refused
	default:
		return strange
	}
}

// judgeSuccess believes a success that brings the object it is about, which is for the caller to see. A
// deletion need not bring one, and nobody would notice that it was somebody else who said yes.
func (k knowledge) judgeSuccess(req *request, ans *answer) meaning {
	switch {
	case ans.rate.HasHeaders:
		return accepted
	case ans.html:
		return strange
	case req.method != http.MethodDelete, hasMember(ans.body, "id"), k.announcement == silent:
		return accepted
	case k.announcement == announcing:
		return strange
	default:
		return undecided
	}
}

// judgeAbsence believes a 404 of the revision that is known. An unknown id and an unknown call look the
// same, so where only the current revision has the call, it has to be known which of the two it is.
func (k knowledge) judgeAbsence(req *request, ans *answer) meaning {
	switch {
	case ans.rate.HasHeaders:
		return absent
	case k.revision == RevisionOlder && isKeyListing(req):
		return missing
	case ans.html, k.announcement == announcing:
		return strange
	case k.announcement != silent:
		return undecided
	case !req.currentOnly, k.revision == RevisionCurrent:
		return absent
	case k.revision == RevisionOlder:
		return missing
	default:
		return undecided
	}
}

// hasMember tells whether a body is a JSON object with that member, and something in it.
func hasMember(body []byte, name string) bool {
	switch string(member(body, name)) {
	case "", "null", `""`:
		return false
	default:
		return true
	}
}
