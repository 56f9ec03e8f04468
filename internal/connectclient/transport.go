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
	token     Secret // set by the auth link
}

// answer is what the API answered, its body read to the end. Only together with
// a *failure can it be an answer whose body did not arrive whole.
type answer struct {
	status  int
	header  http.Header
	body    []byte        // of a success; of an error only below the redact link
	refusal string        // what an error's body says, in words that are safe to keep
	rate    budget.Answer // what the headers say about the budget
	// retryAt is when asking again makes sense; zero if the API did not say.
	retryAt time.Time
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
		// The revision is learnt from whatever is answered in the end.
		learn(&c.revision),
		// What is safe to repeat is repeated. Everything below happens once
		// per attempt: the vendor counts every attempt, so must we.
		retry(c.options, c.breaker),
		// Attempts and refusals are measured and logged, so this is above
		// those who refuse, and below retry, which repeats.
		observe(c),
		// While the API is down hardly anything is sent. This is above the
		// budget, of which nothing is used for what is not sent.
		interrupt(c.breaker, &c.revision),
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
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 20 * time.Second,
		// Reconcile workers call in parallel, and all call one host.
		MaxIdleConns:        64,
		MaxIdleConnsPerHost: 32,
		IdleConnTimeout:     90 * time.Second,
	}, nil
}
