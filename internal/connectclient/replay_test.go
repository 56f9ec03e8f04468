// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/net/http2"
)

// once sends one request over the wire, below every link that may repeat it.
func once(t *testing.T, p *peer, method string) (*answer, error) {
	t.Helper()
	req := &request{operation: "try", method: method, path: "/organisation/things/1", token: NewSecret(testToken)}
	if method == http.MethodPost || method == http.MethodPatch {
		req.body = []byte(`{"name":"kiosk"}`)
	}
	options, err := Options{BaseURL: p.URL, Transport: p.transport}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	return wire(options)(t.Context(), req)
}

var changing = []string{http.MethodPost, http.MethodPatch, http.MethodPut, http.MethodDelete}

// sentOf tells whether a failure says that the API may have got the request.
func sentOf(t *testing.T, err error) bool {
	t.Helper()
	f, ok := errors.AsType[*failure](err)
	if !ok {
		t.Fatalf("%v is no failure", err)
	}
	return f.sent
}

// A peer that has got a request whole and then gives it up has, as far as anybody knows, carried it
// out. net/http sends it again by itself, after some of these up to seven times.
func TestNothingIsSentTwiceOverHTTP2(t *testing.T) {
	for name, tt := range map[string]struct {
		react func(stream) bool // the first request
		// unsent: the peer says that it has not processed the request, which is certain of a
		// request with a body; net/http keeps the reason of others to itself.
		unsent bool
	}{
		"reset with PROTOCOL_ERROR":   {react: reset(http2.ErrCodeProtocol)},
		"reset with REFUSED_STREAM":   {react: reset(http2.ErrCodeRefusedStream), unsent: true},
		"reset with INTERNAL_ERROR":   {react: reset(http2.ErrCodeInternal)},
		"reset with CANCEL":           {react: reset(http2.ErrCodeCancel)},
		"reset with NO_ERROR":         {react: reset(http2.ErrCodeNo)},
		"reset with HTTP_1_1":         {react: reset(http2.ErrCodeHTTP11Required)},
		"reset with ENHANCE_CALM":     {react: reset(http2.ErrCodeEnhanceYourCalm)},
		"told to go, unprocessed":     {react: goAway(0, http2.ErrCodeNo), unsent: true},
		"told to go, being worked on": {react: goAway(1<<31-1, http2.ErrCodeNo)},
		"told to go with an error":    {react: goAway(1<<31-1, http2.ErrCodeInternal)},
		"the connection dies":         {react: func(stream) bool { return false }},
		"reset after the headers": {react: func(s stream) bool {
			s.WriteHeaders(http2.HeadersFrameParam{StreamID: s.ID, BlockFragment: headers(":status", "201"), EndHeaders: true})
			s.WriteRSTStream(s.ID, http2.ErrCodeProtocol)
			return true
		}},
	} {
		for _, connection := range []string{"new", "used"} {
			for _, method := range append(changing, http.MethodGet) {
				t.Run(name+"/"+connection+"/"+method, func(t *testing.T) {
					first := 1
					if connection == "used" {
						first = 2
					}
					p := http2Peer(t, func(s stream) bool {
						if s.Number == first {
							return tt.react(s)
						}
						s.answer(`{"id":"a1"}`)
						return true
					})
					if connection == "used" {
						if _, err := once(t, p, http.MethodGet); err != nil {
							t.Fatal(err)
						}
					}
					ans, err := once(t, p, method)
					if n := p.requests() - first + 1; n != 1 {
						t.Errorf("%d requests arrived whole", n)
					}
					if err == nil {
						if method == http.MethodDelete && name == "reset after the headers" {
							return // its status came, and that is all that is asked of it
						}
						t.Fatalf("it has an answer: %+v", ans)
					}
					bodied := method == http.MethodPost || method == http.MethodPatch
					if sent := sentOf(t, err); sent == (tt.unsent && bodied) {
						t.Errorf("sent: %t, of %v", sent, err)
					}
					// The next request is not held up by it.
					if _, err := once(t, p, http.MethodGet); err != nil {
						t.Errorf("the next one: %v", err)
					}
				})
			}
		}
	}
}

func reset(code http2.ErrCode) func(stream) bool {
	return func(s stream) bool {
		s.WriteRSTStream(s.ID, code)
		return true
	}
}

// goAway tells the client to go. What it has sent up to the last stream may be processed, and then the
// connection ends.
func goAway(last uint32, code http2.ErrCode) func(stream) bool {
	return func(s stream) bool {
		s.WriteGoAway(last, code, []byte("go away, "+testToken))
		return false
	}
}

// Over HTTP/1 net/http sends a request again when the connection that it was sent on, and that had been
// used before, ends without an answer.
func TestNothingThatChangesAnythingIsSentTwiceOverHTTP1(t *testing.T) {
	for name, end := range map[string]func(net.Conn){
		"closed":           func(net.Conn) {},
		"reset":            func(conn net.Conn) { conn.(*net.TCPConn).SetLinger(0) },
		"answered in part": func(conn net.Conn) { io.WriteString(conn, "HTTP/1.1 200") },
	} {
		for _, connection := range []string{"new", "used"} {
			for _, method := range append(changing, http.MethodGet) {
				t.Run(name+"/"+connection+"/"+method, func(t *testing.T) {
					first := 1
					if connection == "used" {
						first = 2
					}
					p := http1Peer(t, func(conn net.Conn, number int) bool {
						if number == first {
							end(conn)
							return false
						}
						answerHTTP1(conn, `{"id":"a1"}`)
						return true
					})
					if connection == "used" {
						if _, err := once(t, p, http.MethodGet); err != nil {
							t.Fatal(err)
						}
					}
					_, err := once(t, p, method)
					arrived := p.requests() - first + 1
					if method == http.MethodGet && connection == "used" {
						return // repeated, which is harmless, and counted: see the test of that
					}
					if err == nil || !sentOf(t, err) {
						t.Errorf("it ended with %v", err)
					}
					if arrived != 1 {
						t.Errorf("%d requests arrived whole", arrived)
					}
				})
			}
		}
	}
}

// What net/http repeats by itself has been sent, and is counted: here a GET on a connection that the
// server closes as it gets the request, and no headers to tell what is left.
func TestRepeatedGETIsCounted(t *testing.T) {
	p := http1Peer(t, func(conn net.Conn, number int) bool {
		switch number {
		case 1:
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nX-Rate-Limit-Limit: 100\r\nX-Rate-Limit-Remaining: 50\r\nX-Rate-Limit-Reset: 1800\r\nContent-Length: %d\r\n\r\n%s", len(deploymentJSON), deploymentJSON)
		case 2:
			return false
		default:
			answerHTTP1(conn, deploymentJSON)
		}
		return true
	})
	client := connectTo(t, p)
	for range 2 {
		if err := get(t, client); err != nil {
			t.Fatal(err)
		}
	}
	if sent, left := p.requests(), client.Budget().State().Remaining; sent != 3 || left != 48 {
		t.Errorf("%d requests arrived and %d of 50 are left", sent, left)
	}
}

// A request that could not be written to a connection has surely not been sent.
func TestNothingWrittenIsNothingSent(t *testing.T) {
	p := http1Peer(t, func(conn net.Conn, _ int) bool {
		answerHTTP1(conn, `{"id":"a1"}`)
		return true
	})
	var broken atomic.Bool
	p.transport.DialContext = counting(func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return breakable{conn, &broken}, err
	})
	if _, err := once(t, p, http.MethodGet); err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	_, err := once(t, p, http.MethodPost)
	if err == nil || sentOf(t, err) {
		t.Errorf("it ended with %v", err)
	}
	if n := p.requests(); n != 1 {
		t.Errorf("%d requests arrived", n)
	}
}

// breakable is a connection that stops to take anything.
type breakable struct {
	net.Conn

	broken *atomic.Bool
}

func (b breakable) Write(p []byte) (int, error) {
	if b.broken.Load() {
		return 0, syscall.EPIPE
	}
	return b.Conn.Write(p)
}
