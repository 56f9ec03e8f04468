// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"
)

const (
	// maxBody bounds an answer that is read for its content. A page of 100
	// devices has about 100 KiB.
	maxBody = 8 << 20
	// maxErrorBody bounds an answer that is read for a message only.
	maxErrorBody = 64 << 10
)

// wire is the end of the chain: one request, one answer, read to the end and
// bounded. It calls the transport itself rather than through http.Client, so
// that no redirect is followed: it could carry the access token to another host.
func wire(o Options) handler {
	return func(ctx context.Context, req *request) (*answer, error) {
		ctx, cancel := context.WithTimeout(ctx, timeout(o, req))
		defer cancel()
		attemptCtx, attempt := newAttempt(ctx)
		defer attempt.stop()
		httpReq, err := newHTTPRequest(attemptCtx, o, req)
		if err != nil {
			return nil, &failure{cause: err}
		}
		res, err := o.Transport.RoundTrip(httpReq)
		if err != nil {
			return nil, attempt.outcome(ctx, err)
		}
		defer res.Body.Close() //nolint:errcheck // it was only read
		ans := &answer{status: res.StatusCode, header: res.Header, repeats: attempt.repeated()}
		ans.body, err = readBody(res, req.method)
		if err != nil {
			return ans, err
		}
		return ans, nil
	}
}

// readTimeout bounds an attempt to read. One that changes something is given all of [Options.Timeout]:
// to give it up is to not know whether it will still be carried out.
const readTimeout = 30 * time.Second

func timeout(o Options, req *request) time.Duration {
	if req.method == http.MethodGet {
		return min(o.Timeout, readTimeout)
	}
	return o.Timeout
}

func newHTTPRequest(ctx context.Context, o Options, req *request) (*http.Request, error) {
	address := o.BaseURL + req.path
	if len(req.query) > 0 {
		// A space as %20: the API's documents ask for a plus as %2B and do
		// not say that a bare plus is a space.
		address += "?" + strings.ReplaceAll(req.query.Encode(), "+", "%20")
	}
	var body io.Reader = http.NoBody
	if req.body != nil {
		body = bytes.NewReader(req.body)
	}
	r, err := http.NewRequestWithContext(ctx, req.method, address, body)
	if err != nil {
		return nil, err
	}
	// A body that cannot be rewound is not sent again by net/http once it has been read.
	r.GetBody = nil
	// No Accept: where a request carries one, the identity signature has to
	// cover it.
	r.Header.Set("Authorization", authorization(req.token))
	r.Header.Set("User-Agent", o.UserAgent)
	if req.body != nil {
		r.Header.Set("Content-Type", contentType)
	}
	if req.signature != "" {
		r.Header.Set("X-Connect-Identity-Signature", req.signature)
	}
	return r, nil
}

// readBody reads the body within its bound. Where only the status matters, as in
// an error or after a deletion, a body that is too long or breaks off is as good
// as none.
func readBody(res *http.Response, method string) ([]byte, error) {
	needed := res.StatusCode/100 == 2 && method != http.MethodDelete
	limit := maxErrorBody
	if needed {
		limit = maxBody
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, int64(limit)+1))
	switch {
	case !needed:
		return body[:min(len(body), limit)], nil
	case err != nil:
		return nil, &failure{cause: err, sent: true}
	case len(body) > limit:
		return nil, &failure{cause: errOversized, sent: true, lasting: true}
	}
	return body, nil
}

var errOversized = errors.New("the answer is longer than any that was expected")
