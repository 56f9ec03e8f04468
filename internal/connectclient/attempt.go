// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http/httptrace"
	"regexp"
	"sync"
	"sync/atomic"
)

// net/http sends a request again by itself when it believes that to be harmless:
//
//   - over HTTP/2 any request that the other side reset with PROTOCOL_ERROR or REFUSED_STREAM, or gave
//     up with a GOAWAY, up to seven times. A proxy may say PROTOCOL_ERROR after the work has been done;
//   - over HTTP/1 a GET whose connection, used before, ended without an answer;
//   - over either, any request of which nothing was written.
//
// The first must not happen to a request that changes something, and happens uncounted to one that does
// not, with pauses of up to a minute. So an attempt goes out on one connection only: once it has been
// written there, a second one is refused. A body that cannot be rewound (see [newHTTPRequest]) is one
// way, which net/http documents; it keeps the reason, but there has to be a body. Ending the request's
// context at the moment when net/http takes a connection for it again is the other.
//
// The second is left as it is: a connection that a server closes while it is idle is common, and what
// GET asks for is not changed by asking twice. It is counted.

// attempt watches how far one request gets, and lets it go no further than one connection.
type attempt struct {
	stop context.CancelFunc

	mu      sync.Mutex
	asked   bool     // the transport looked for a connection
	carrier *carrier // the connection that it got
	repeats int      // how often the request was written again
	stopped bool     // it was about to be, and was kept from it
}

// carrier is a connection with a request on it.
type carrier struct {
	http2  bool
	wrote  bool         // over HTTP/2: the headers
	conn   *countedConn // over HTTP/1, where one connection carries one request; nil if it is not ours
	before int64        // what had been written to it by then
}

// newAttempt returns the context to make the request with.
func newAttempt(ctx context.Context) (context.Context, *attempt) {
	ctx, stop := context.WithCancel(ctx)
	a := &attempt{stop: stop}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:      func(string) { a.locked(func() { a.asked = true }) },
		GotConn:      func(info httptrace.GotConnInfo) { a.locked(func() { a.carry(info.Conn) }) },
		WroteHeaders: func() { a.locked(a.wroteHeaders) },
	}), a
}

func (a *attempt) locked(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

// carry notes the connection that the request is going to be written to. The transport calls it before
// it writes, and over HTTP/2 it looks at the context once more in between.
func (a *attempt) carry(conn net.Conn) {
	next := &carrier{http2: speaksHTTP2(conn)}
	if next.conn = counted(conn); next.conn != nil {
		next.before = next.conn.written.Load()
	}
	if a.carrier != nil && a.carrier.used() {
		if next.http2 {
			a.stopped = true
			a.stop()
			return
		}
		a.repeats++
	}
	a.carrier = next
}

func (a *attempt) wroteHeaders() {
	if a.carrier != nil {
		a.carrier.wrote = true
	}
}

// used tells whether something of the request may have been written to the connection.
func (c *carrier) used() bool {
	switch {
	case c.http2:
		return c.wrote
	case c.conn != nil:
		return c.conn.written.Load() != c.before
	default:
		return true
	}
}

// outcome turns the error of the transport into what is known of the request. parent is the context
// that the attempt's own was made of.
func (a *attempt) outcome(parent context.Context, err error) *failure {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped && parent.Err() == nil {
		err = errReset
	}
	return &failure{cause: err, sent: a.sent(parent, err), repeats: a.repeats}
}

// repeated is how often the request was written again.
func (a *attempt) repeated() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.repeats
}

// sent tells whether the API may have got the request that ended in err. A transport that says nothing
// about connections is not believed to have sent nothing.
func (a *attempt) sent(parent context.Context, err error) bool {
	switch {
	case !a.asked, a.stopped, a.repeats > 0:
		return true
	case a.carrier == nil:
		return false
	case a.carrier.http2 && parent.Err() != nil:
		return true // it may be about to be written: of a request that has ended the transport does not wait for that
	default:
		return a.carrier.used() && !unprocessed.MatchString(err.Error())
	}
}

// errReset is of a request that the other side gave up after it had been written.
var errReset = errors.New("the request was reset by the other side")

// unprocessed matches the errors of net/http that mean that the other side has not begun with the
// request: it said so (RFC 9113, sections 6.8 and 8.7), or the connection was gone before anything was
// written. net/http exports none of them; the tests notice when it words them anew.
var unprocessed = regexp.MustCompile(`^(` +
	`http2: Transport: cannot retry err \[(` +
	`stream error: stream ID \d+; REFUSED_STREAM; received from peer|` +
	`http2: Transport received Server's graceful shutdown GOAWAY)\] |` +
	`http2: Transport received GOAWAY from server ErrCode:|` +
	`http2: client conn not usable$|` +
	`http2: client conn could not be established$)`)

// speaksHTTP2 tells what was agreed on when the connection was made.
func speaksHTTP2(conn net.Conn) bool {
	secure, ok := conn.(interface{ ConnectionState() tls.ConnectionState })
	return ok && secure.ConnectionState().NegotiatedProtocol == "h2"
}

// countedConn counts the bytes that have been written to a connection.
type countedConn struct {
	net.Conn

	written atomic.Int64
}

func (c *countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.written.Add(int64(n))
	return n, err
}

type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// counting makes the dialer's connections count what is written to them.
func counting(dial dialer) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &countedConn{Conn: conn}, nil
	}
}

// counted finds the connection that counts below TLS; nil if there is none.
func counted(conn net.Conn) *countedConn {
	for {
		switch c := conn.(type) {
		case *countedConn:
			return c
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			return nil
		}
	}
}
