// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
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
	token       Secret // set by the auth link
}

// answer is what the API answered, its body read to the end. Only together with
// a *failure can it be an answer whose body did not arrive whole.
type answer struct {
	status  int
	header  http.Header
	body    []byte        // of a success; of an error only below the redact link
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

// exchange sends a request and returns the answer, whatever its status. Its
// error is a *failure, or a *budget.Refusal.
type exchange func(context.Context, *request) (*answer, error)

// link wraps an exchange with one concern.
type link func(next exchange) exchange

// chain assembles what lies between a call and the network. From the caller
// down to the wire.
func (c *Client) chain() exchange {
	links := []link{
		// What the API is, is learnt from whatever is answered in the end.
		learn(c.profile),
		// What is safe to repeat is repeated. Everything below happens once
		// per attempt: the vendor counts every attempt, so must we.
		retry(c.options, c.breaker),
		// Attempts and refusals are measured and logged, so this is above
		// those who refuse, and below retry, which repeats.
		observe(c),
		// While the API is down hardly anything is sent. This is above the
		// budget, of which nothing is used for what is not sent.
		interrupt(c.breaker, c.profile),
		// The budget decides whether the attempt may be made at all, and
		// reads what every answer says about it.
		spend(c.options.Now, c.budget),
		// Below this link errors, and the bodies of error answers, may quote
		// the token; above it only what is safe to keep is left of them.
		redact(c.token),
		// The token is added as late as possible: nothing above this link
		// ever sees a request that holds it.
		authorise(c.token),
	}
	// The wire turns the request into HTTP and reads the answer, bounded.
	send := wire(c.options)
	for _, wrap := range slices.Backward(links) {
		send = wrap(send)
	}
	return send
}

// NewTransport returns the default bottom of the chain: Go's transport with
// tighter timeouts. caPEM, if not empty, holds the certificate authorities to
// trust instead of the system's. TLS is always verified.
func NewTransport(caPEM []byte) (http.RoundTripper, error) {
	var roots *x509.CertPool
	if len(caPEM) > 0 {
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(caPEM) {
			return nil, errors.New("no certificate found: give one or more PEM blocks that begin with -----BEGIN CERTIFICATE-----")
		}
	}
	dial := &net.Dialer{
		Timeout: 10 * time.Second,
		// A connection that has silently died is noticed in half a minute while it is idle.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
	}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         counting(dial.DialContext),
		TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: 10 * time.Second,
		// And in less than [readTimeout] while requests wait on it. Without these HTTP/2 goes on to use
		// a dead connection for as long as the kernel tries to reach the other side: a quarter of an hour.
		HTTP2: &http.HTTP2Config{
			SendPingTimeout:  15 * time.Second,
			PingTimeout:      10 * time.Second,
			WriteByteTimeout: 10 * time.Second,
		},
		// Reconcile workers call in parallel, and all call one host.
		MaxIdleConns:        64,
		MaxIdleConnsPerHost: 32,
		// Load balancers commonly drop what has been idle for a minute, some without a word.
		IdleConnTimeout: 50 * time.Second,
	}, nil
}
