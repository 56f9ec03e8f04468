// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
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
func wire(o Options) exchange {
	return func(ctx context.Context, req *request) (*answer, error) {
		ctx, cancel := context.WithTimeout(ctx, o.Timeout)
		defer cancel()
		var conn connection
		httpReq, err := newHTTPRequest(conn.trace(ctx), o, req)
		if err != nil {
			return nil, &failure{cause: err}
		}
		res, err := o.Transport.RoundTrip(httpReq)
		if err != nil {
			return nil, &failure{cause: err, sent: conn.mayHaveSent(err)}
		}
		defer res.Body.Close() //nolint:errcheck // it was only read
		ans := &answer{status: res.StatusCode, header: res.Header}
		ans.body, err = readBody(res, req.method)
		if err != nil {
			return ans, err
		}
		return ans, nil
	}
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

// connection watches whether a request got as far as a connection.
type connection struct{ wanted, got atomic.Bool }

func (c *connection) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { c.wanted.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { c.got.Store(true) },
	})
}

// mayHaveSent tells whether the API may have got the request that ended in err.
// Only a transport that was seen to look for a connection in vain has surely
// sent nothing; one that says nothing about connections is not believed.
func (c *connection) mayHaveSent(err error) bool {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return c.got.Load()
	}
	return c.got.Load() || !c.wanted.Load()
}
