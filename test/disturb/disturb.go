// SPDX-License-Identifier: Apache-2.0

// Package disturb is what can happen to a request on its way, and to the process that sends it.
package disturb

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"time"
)

// Disturbance is what happens at one request.
type Disturbance string

// The disturbances that every suite has.
const (
	DiesBefore  Disturbance = "dies before"         // the request has not left
	DiesAfter   Disturbance = "dies after"          // it was carried out, and the answer was not seen
	DiesTooSoon Disturbance = "dies long before"    // it is carried out when the next process is at work
	Lost        Disturbance = "loses the answer of" // it was carried out, and the process lives on
	TooLate     Disturbance = "gives up before"     // the process lives on, and it is carried out later
)

// Kills tells whether the process ends.
func (d Disturbance) Kills() bool { return d == DiesBefore || d == DiesAfter || d == DiesTooSoon }

// Late tells whether the request is carried out later. That matters only if it changes something.
func (d Disturbance) Late() bool { return d == DiesTooSoon || d == TooLate }

// CarryOut has the request carried out, whatever becomes of who sent it, who does not see the answer.
func CarryOut(way http.RoundTripper, req *http.Request) {
	res, err := way.RoundTrip(req.WithContext(context.WithoutCancel(req.Context())))
	if err == nil {
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
}

// CarryOutLater has the request carried out after a while. The channel is closed then.
func CarryOutLater(way http.RoundTripper, req *http.Request, after time.Duration) (<-chan struct{}, error) {
	later := req.Clone(context.WithoutCancel(req.Context()))
	if req.Body != nil {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		later.Body = io.NopCloser(bytes.NewReader(body))
	}
	done := make(chan struct{})
	time.AfterFunc(after, func() {
		defer close(done)
		CarryOut(way, later)
	})
	return done, nil
}
