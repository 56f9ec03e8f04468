// SPDX-License-Identifier: Apache-2.0

package lifecycle

import "time"

// freshness is how fresh the listings must be that a resource goes by: after a response was lost,
// what the POST made can only be in a listing that began later; and a user who asks for a look
// wants a new one. After a restart every listing is newer than the restart.
type freshness struct {
	notBefore time.Time
	request   string // the user's request that was seen last
	refused   bool   // notBefore stems from a POST that Connect refused
}

// onRequest notes the user's request; the same request counts once, from the first time it is seen.
func (f *freshness) onRequest(request string, now time.Time) {
	if f.request != request {
		*f = freshness{notBefore: now, request: request}
	}
}

// require wants a listing that begins now or later.
func (f *freshness) require(now time.Time) { f.notBefore, f.refused = now, false }

// onRefusal notes that a POST was refused, and tells whether the listing that the POST was based on
// was already required because of a refusal: then there is nothing newer to be learnt.
func (f *freshness) onRefusal(now time.Time) (again bool) {
	if f.refused {
		f.met()
		return true
	}
	f.notBefore, f.refused = now, true
	return false
}

// met drops what was required: it has been answered.
func (f *freshness) met() { f.notBefore, f.refused = time.Time{}, false }
