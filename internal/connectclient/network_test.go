// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// connectTo opens the test's organisation at a peer.
func connectTo(t *testing.T, p *peer) *Client {
	t.Helper()
	return connect(t, p.URL, func(o *Options) { o.Transport = p.transport })
}

// What a failure is called does not depend on which stream it hit, on which connection, how far the other
// side had come, or what it has to say about it.
func TestFailuresOfTheSameCauseReadTheSame(t *testing.T) {
	const (
		lost    = "create artefact: the Connect API's answer was lost: "
		unsent  = "create artefact: cannot reach the Connect API: "
		unknown = "; it is not known whether the request was carried out"
	)
	debug := func(s stream) []byte { return fmt.Appendf(nil, "request %d of %s", s.Number, testToken) }
	for name, tt := range map[string]struct {
		react func(stream) bool
		want  string
	}{
		"reset":              {reset(http2.ErrCodeInternal), lost + "the request was reset by the other side" + unknown},
		"reset, as by nginx": {reset(http2.ErrCodeProtocol), lost + "the request was reset by the other side" + unknown},
		"refused":            {reset(http2.ErrCodeRefusedStream), unsent + "the request was reset by the other side"},
		"shut down": {func(s stream) bool { s.WriteGoAway(s.ID, http2.ErrCodeEnhanceYourCalm, debug(s)); return false },
			lost + "the other side shut the connection down" + unknown},
		"shut down before it began": {func(s stream) bool { s.WriteGoAway(s.ID-1, http2.ErrCodeNo, debug(s)); return false },
			unsent + "the other side shut the connection down"},
		"broken off": {func(stream) bool { return false },
			lost + "the connection was closed too early" + unknown},
		"another protocol": {func(s stream) bool { s.Conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")); return false },
			lost + "the HTTP/2 connection failed" + unknown},
		"a stream that there is not": {func(s stream) bool { s.WriteData(s.ID+2, true, debug(s)); return true },
			lost + "the HTTP/2 connection failed" + unknown},
	} {
		t.Run(name, func(t *testing.T) {
			var posts int
			p := http2Peer(t, func(s stream) bool {
				if s.Method == http.MethodPost {
					posts++
					return tt.react(s)
				}
				s.answer(deploymentJSON)
				return true
			})
			client := connectTo(t, p)
			for round := range 3 {
				for range round { // so that it is another stream each time
					if err := get(t, client); err != nil {
						t.Fatal(err)
					}
				}
				err := create(t, client)
				if err == nil || err.Error() != tt.want {
					t.Errorf("got  %v\nwant %s", err, tt.want)
				}
				if Sent(err) != strings.HasPrefix(tt.want, lost) {
					t.Errorf("sent: %t", Sent(err))
				}
			}
			if posts != 3 {
				t.Errorf("3 requests arrived %d times", posts)
			}
		})
	}
}

// Errors that have no type are put into words that cannot change, whatever is in them.
func TestWordsForErrorsWithoutAType(t *testing.T) {
	for text, want := range map[string]string{
		"stream error: stream ID 17; CANCEL; received from peer":                                             "the request was reset by the other side",
		`http2: server sent GOAWAY and closed the connection; LastStreamID=7, ErrCode=NO_ERROR, debug="x.5"`: "the other side shut the connection down",
		"http2: Transport received GOAWAY from server ErrCode:ENHANCE_YOUR_CALM":                             "the other side shut the connection down",
		"http2: client connection lost":                                                                      "the connection was lost",
		"http2: client conn is closed":                                                                       "the connection was closed too early",
		"http: server closed idle connection":                                                                "the connection was closed too early",
		"connection error: FLOW_CONTROL_ERROR":                                                               "the HTTP/2 connection failed",
		`net/http: HTTP/1.x transport: malformed HTTP response "\x00"`:                                       "it does not speak HTTP",
		"remote error: tls: handshake failure":                                                               "TLS could not be agreed on",
		"read tcp 10.0.0.5:43210->10.0.0.6:443: something new in Go 1.99":                                    "the connection failed",
		"Proxy Authentication Required":                                                                      "the connection failed: Proxy Authentication Required",
		"proxy wants ftp://me:hunter@example.com/x?sig=y":                                                    "the connection failed: proxy wants ftp://example.com/x",
	} {
		err := fmt.Errorf("in passing: %w", &net.OpError{Op: "read", Net: "tcp", Err: errors.New(text)})
		if got, _ := describe(err, Secret{}); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", text, got, want)
		}
	}
}

// The story of connections that something in between has forgotten: they are noticed and replaced. It is
// told in simulated time, with the timeouts that are used.
func TestSilentConnectionsAreReplaced(t *testing.T) {
	const parallel = 8
	certificate, _ := trusted(t)
	for name, start := range map[string]func(*testing.T, *peer, *network){
		"HTTP/1.1": func(t *testing.T, p *peer, n *network) {
			p.URL = "http://127.0.0.1"
			var first sync.WaitGroup // their answers wait for each other, so that there are as many connections
			first.Add(parallel)
			p.serveHTTP1(t, n, func(conn net.Conn, number int) bool {
				if number <= parallel {
					first.Done()
					first.Wait()
				}
				answerHTTP1(conn, deploymentJSON)
				return true
			})
		},
		"HTTP/2": func(t *testing.T, p *peer, n *network) {
			p.URL = "https://example.com"
			p.serveHTTP2(t, n, certificate, func(s stream) bool {
				s.answer(deploymentJSON)
				return true
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, transport := trusted(t)
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				transport.DialContext = counting(n.dial)
				p := &peer{transport: transport}
				start(t, p, n)
				t.Cleanup(transport.CloseIdleConnections)
				var workers sync.WaitGroup
				for range parallel {
					workers.Go(func() {
						if _, err := once(t, p, http.MethodGet); err != nil {
							t.Error(err)
						}
					})
				}
				workers.Wait()
				synctest.Wait()
				connections := p.connections()

				n.swallow()
				failed := 0
				for range 40 {
					if _, err := once(t, p, http.MethodPost); err != nil {
						failed++
					}
				}
				if failed == 0 || failed > 2 {
					t.Errorf("%d of 40 requests failed", failed)
				}
				if p.connections() == connections {
					t.Error("no connection was made anew")
				}
			})
		})
	}
}

// A request that changes something is given its time: to give it up is to not know what became of it.
func TestSlowAnswers(t *testing.T) {
	for method, answered := range map[string]bool{
		http.MethodPost: true, http.MethodPatch: true, http.MethodPut: true, http.MethodDelete: true, http.MethodGet: false,
	} {
		t.Run(method, func(t *testing.T) {
			_, transport := trusted(t)
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				transport.DialContext = counting(n.dial)
				p := &peer{URL: "http://127.0.0.1", transport: transport}
				p.serveHTTP1(t, n, func(conn net.Conn, _ int) bool {
					time.Sleep(55 * time.Second) // the server takes its time
					answerHTTP1(conn, deploymentJSON)
					return true
				})
				t.Cleanup(transport.CloseIdleConnections)
				if _, err := once(t, p, method); (err == nil) != answered {
					t.Errorf("it ended with %v", err)
				}
			})
		})
	}
}
