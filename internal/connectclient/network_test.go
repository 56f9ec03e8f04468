// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// connectTo opens the test's organisation at a peer.
func connectTo(t *testing.T, p *peer) *Client {
	t.Helper()
	return connect(t, p.URL, func(o *Options) { o.Transport = p.transport })
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
