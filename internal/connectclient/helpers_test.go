// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

const testToken = "rporg_7Hk2pQ9xWcVbNmZt4RsYdFgA"

// received is a request as the service saw it.
type received struct {
	Method, URI, Body string
	Header            http.Header
}

// service is a stand-in for the API that notes what it is asked.
type service struct {
	URL string

	mu       sync.Mutex
	received []received
}

// serve starts a service. A panic of the handler with http.ErrAbortHandler drops
// the connection.
func serve(t *testing.T, handler http.HandlerFunc) *service {
	t.Helper()
	s := &service{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.received = append(s.received, received{r.Method, r.RequestURI, string(body), r.Header.Clone()})
		s.mu.Unlock()
		handler(w, r)
	}))
	t.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

func (s *service) requests() []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]received(nil), s.received...)
}

// reply is an answer that a service gives.
type reply struct {
	status int
	body   string
	header map[string]string
}

func (a reply) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	for name, value := range a.header {
		w.Header().Set(name, value)
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
	}
	w.WriteHeader(a.status)
	_, _ = io.WriteString(w, a.body)
}

// always gives the same answer to everything.
func always(a reply) http.HandlerFunc { return a.ServeHTTP }

// rateHeaders are what an answer of the current revision carries.
var rateHeaders = map[string]string{
	"X-Rate-Limit-Limit":     "5000",
	"X-Rate-Limit-Remaining": "4321",
	"X-Rate-Limit-Reset":     "1800",
}

// announced gives an answer the rate headers that make it the API's own.
func announced(a reply) reply {
	header := maps.Clone(rateHeaders)
	maps.Copy(header, a.header)
	a.header = header
	return a
}

// clock stands still except while somebody sleeps.
type clock struct {
	mu    sync.Mutex
	now   time.Time
	slept []time.Duration
}

func newClock() *clock {
	return &clock{now: time.Date(2026, 3, 1, 10, 30, 0, 0, time.UTC)}
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	c.slept = append(c.slept, d)
	return ctx.Err()
}

func (c *clock) naps() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.slept)
}

// connect opens the test's organisation at the URL; change adjusts the options.
func connect(t *testing.T, url string, change ...func(*Options)) *Client {
	t.Helper()
	return connectAt(t, newClock(), url, change...)
}

func connectAt(t *testing.T, clock *clock, url string, change ...func(*Options)) *Client {
	t.Helper()
	options := Options{
		BaseURL:   url,
		UserAgent: "connectclient-test/1",
		Now:       clock.Now,
		Sleep:     clock.Sleep,
		QPS:       1e6,
	}
	for _, f := range change {
		f(&options)
	}
	api, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	return api.ClientFor(NewSecret(testToken))
}

// collect reads a listing to its end.
func collect[T any](rows iter.Seq2[T, error]) (all []T, err error) {
	for row, err := range rows {
		if err != nil {
			return all, err
		}
		all = append(all, row)
	}
	return all, nil
}
