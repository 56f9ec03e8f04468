// SPDX-License-Identifier: Apache-2.0

package connectsim_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"maps"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"

	"rpi-connect.dev/operator/internal/connectsim"
)

// client is one that keeps its connection, and knows which one it is.
type client struct {
	env

	http *http.Client
	// reached is told when a request has been written, or a new connection has
	// been accepted.
	reached func()
}

// beginTLS serves with TLS, to a client that trusts it.
func beginTLS(t *testing.T) client {
	t.Helper()
	s := begin(t, connectsim.Options{})
	url, ca, err := s.sim.StartTLS("")
	if err != nil {
		t.Fatal(err)
	}
	s.url = url
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		t.Fatalf("no certificate in %s", ca)
	}
	return s.keeping(&http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}})
}

// beginPlain serves without TLS.
func beginPlain(t *testing.T) client {
	t.Helper()
	s := begin(t, connectsim.Options{})
	var err error
	if s.url, err = s.sim.Start(""); err != nil {
		t.Fatal(err)
	}
	return s.keeping(&http.Transport{})
}

func (s env) keeping(transport *http.Transport) client {
	s.Cleanup(func() {
		transport.CloseIdleConnections()
		s.sim.Close()
	})
	return client{env: s, http: &http.Client{Transport: transport}}
}

// heard is what came back; reused says whether the connection had served before.
type heard struct {
	status int
	proto  string
	reused bool
}

// ask sends a request.
func (c client) ask(ctx context.Context, r request) (h heard, err error) {
	c.Helper()
	reached := func() {
		if c.reached != nil {
			c.reached()
		}
	}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:      func(info httptrace.GotConnInfo) { h.reused = info.Reused },
		ConnectDone:  func(string, string, error) { reached() },
		WroteRequest: func(httptrace.WroteRequestInfo) { reached() },
	})
	body, _ := r.body.(string)
	req, _ := http.NewRequestWithContext(ctx, r.method, c.url+r.path, strings.NewReader(body))
	req.Header = bearer(token)
	req.Header.Set("Content-Type", "application/json")
	maps.Copy(req.Header, r.header)
	req.GetBody = nil // nothing is sent twice behind the test's back
	res, err := c.http.Do(req)
	if err != nil {
		return h, err
	}
	h.status, h.proto = res.StatusCode, res.Proto
	return h, res.Body.Close()
}

var (
	reading = request{method: http.MethodGet, path: artefacts}
	making  = request{method: http.MethodPost, path: artefacts, body: artefactJSON("kiosk")}
)

func TestStartTLSSpeaksHTTP2(t *testing.T) {
	c := beginTLS(t)
	if h, err := c.ask(t.Context(), reading); err != nil || h.proto != "HTTP/2.0" || h.status != http.StatusOK {
		t.Fatalf("%v %+v", err, h)
	}
	if a, err := c.try(t.Context(), reading); err == nil {
		t.Errorf("who does not trust it is answered %d", a.status)
	}
	// The URL that is signed is the one that the client sees.
	key, public := newKey(t)
	body := jsonOf(object{"public_key": public, "description": "pi5"})
	if h, err := c.ask(t.Context(), c.register(key, body)); err != nil || h.status != http.StatusCreated {
		t.Errorf("%v: %+v", err, h)
	}
}

// Over HTTP/2 a dropped request is a stream that is reset, after the work or before
// it; the connection goes on.
func TestStreamsAreReset(t *testing.T) {
	for after, want := range map[bool]int{false: 0, true: 1} {
		c := beginTLS(t)
		c.ask(t.Context(), reading)
		c.sim.Inject(connectsim.Fault{Route: "POST " + artefacts, Times: 1, Drop: true, After: after})
		h, err := c.ask(t.Context(), making)
		if err == nil || !strings.Contains(err.Error(), "INTERNAL_ERROR") || !h.reused {
			t.Errorf("the stream ended with %v", err)
		}
		if got := len(c.org.Artefacts()); got != want {
			t.Errorf("%d were made, want %d", got, want)
		}
		if h, err := c.ask(t.Context(), reading); err != nil || !h.reused {
			t.Errorf("the connection was lost: %v", err)
		}
	}
}

// A dead connection takes what comes and says nothing; a new one is served.
func TestConnectionsThatDie(t *testing.T) {
	for name, begin := range map[string]func(*testing.T) client{"HTTP/1.1": beginPlain, "HTTP/2": beginTLS} {
		t.Run(name, func(t *testing.T) {
			c := begin(t)
			c.ask(t.Context(), reading)
			dead := c.sim.Inject(connectsim.Fault{Route: "POST " + artefacts, Times: 1, Dead: true, After: true})

			ctx, giveUp := context.WithCancel(t.Context())
			ended := make(chan error)
			ask := func(r request) {
				_, err := c.ask(ctx, r)
				ended <- err
			}
			go ask(making)
			c.await("the request", func() bool { return dead.Hits() == 1 && c.exists("kiosk") })
			waiting := 1
			if name == "HTTP/2" { // which has others on the same connection
				go ask(reading)
				waiting++
			}
			select {
			case err := <-ended:
				t.Errorf("it was answered: %v", err)
			default:
			}
			giveUp()
			for range waiting {
				if err := <-ended; err == nil {
					t.Error("it was answered")
				}
			}
			if got := c.sim.Count("GET " + artefacts); got != 1 {
				t.Errorf("the dead connection has served %d", got)
			}
			another := c.keeping(c.http.Transport.(*http.Transport).Clone())
			if h, err := another.ask(t.Context(), reading); err != nil || h.status != http.StatusOK {
				t.Errorf("a new connection: %v", err)
			}
		})
	}

	// Behind somebody else's server only the answer is held back.
	s := begin(t, connectsim.Options{})
	dead := s.sim.Inject(connectsim.Fault{Dead: true, Times: 1})
	ctx, giveUp := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := s.try(ctx, request{method: "GET", path: artefacts})
		ended <- err
	}()
	s.await("the request", func() bool { return dead.Hits() == 1 })
	giveUp()
	if <-ended == nil {
		t.Error("it was answered")
	}
}

// A server that falls silent accepts and says nothing; what was open then stays
// dead, as behind a load balancer that has forgotten it.
func TestAServerThatFallsSilent(t *testing.T) {
	for name, begin := range map[string]func(*testing.T) client{"HTTP/1.1": beginPlain, "HTTP/2": beginTLS} {
		t.Run(name, func(t *testing.T) {
			c := begin(t)
			c.ask(t.Context(), reading)
			another := c.keeping(c.http.Transport.(*http.Transport).Clone())
			c.sim.SetSilent(true)
			ctx, giveUp := context.WithCancel(t.Context())
			ended := make(chan error)
			for _, client := range []client{c, another} { // one that is connected, and one that is not
				reached := make(chan struct{}, 10)
				client.reached = func() { reached <- struct{}{} }
				go func() {
					_, err := client.ask(ctx, reading)
					ended <- err
				}()
				<-reached
			}
			giveUp()
			for range 2 {
				if err := <-ended; !errors.Is(err, context.Canceled) {
					t.Errorf("it ended with %v", err)
				}
			}
			c.sim.SetSilent(false)
			if h, err := c.keeping(c.http.Transport.(*http.Transport).Clone()).ask(t.Context(), reading); err != nil || h.status != http.StatusOK {
				t.Errorf("a new connection: %v", err)
			}
			if got := c.sim.Count(""); got != 2 {
				t.Errorf("%d requests were served", got)
			}
		})
	}
}
