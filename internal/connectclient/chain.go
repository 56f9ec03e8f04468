// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"time"

	"rpi-connect.dev/operator/internal/connectclient/budget"
)

// request is one call of the API, before it becomes HTTP.
type request struct {
	operation string // what errors, metrics and logs call it: "create artefact"
	method    string
	path      string // below the base URL, escaped
	query     url.Values
	body      []byte // JSON; nil for none
	signature string // X-Connect-Identity-Signature; empty for none
	// currentOnly: the older revision has no such call, and answers it as if
	// there were no such object.
	currentOnly bool
	token       Secret // set by the authorise middleware
}

// answer is what the API answered, its body read to the end. Only together with
// a *failure can it be an answer whose body did not arrive whole.
type answer struct {
	status  int
	header  http.Header
	body    []byte        // of a success; of an error only below the redact middleware
	refusal string        // what an error's body says, in words that are safe to keep
	worded  bool          // … in the form that the API documents
	html    bool          // the body is a page
	rate    budget.Answer // what the headers say about the budget
	// rejected: the budget holds the token to be refused after this answer.
	rejected bool
	// retryAt is when asking again makes sense; zero if the API did not say.
	retryAt time.Time
	// repeats is how often net/http wrote the request again before this came.
	repeats int
}

// handler sends a request and returns the answer, whatever its status. Its
// error is a *failure, or a *budget.Refusal.
type handler func(context.Context, *request) (*answer, error)

// middleware wraps a handler with one concern.
type middleware func(next handler) handler

// chain assembles what lies between a call and the network. From the caller
// down to the wire.
func (c *Client) chain() handler {
	middlewares := []middleware{
		// What the API is, is learnt from whatever is answered in the end.
		detectRevision(c.profile),
		// What is safe to repeat is repeated. Everything below happens once
		// per attempt: the vendor counts every attempt, so must we.
		retry(c.options, c.breaker),
		// Attempts and refusals are measured and logged, so this is above
		// those who refuse, and below retry, which repeats.
		observe(c),
		// While the API is down hardly anything is sent. This is above the
		// budget, of which nothing is used for what is not sent.
		breakCircuit(c.breaker, c.profile),
		// The budget decides whether the attempt may be made at all, and
		// reads what every answer says about it.
		rateLimit(c.options.Now, c.budget),
		// Below this middleware errors, and the bodies of error answers, may quote
		// the token; above it only what is safe to keep is left of them.
		redact(c.token),
		// The token is added as late as possible: nothing above this middleware
		// ever sees a request that holds it.
		authorise(c.token),
	}
	// The wire turns the request into HTTP and reads the answer, bounded.
	send := wire(c.options)
	for _, wrap := range slices.Backward(middlewares) {
		send = wrap(send)
	}
	return send
}
