// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rpi-connect.dev/operator/internal/connectclient/budget"
)

// weather is a network and what is behind it, in memory: for stories that take hours.
type weather struct {
	mu     sync.Mutex
	answer func(*http.Request) (*http.Response, error)
	sent   []time.Time
}

func (w *weather) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.sent = append(w.sent, time.Now())
	answer := w.answer
	w.mu.Unlock()
	return answer(r)
}

func (w *weather) turns(answer func(*http.Request) (*http.Response, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer, w.sent = answer, nil
}

// requests are the moments of the requests since the weather has turned.
func (w *weather) requests() []time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]time.Time(nil), w.sent...)
}

// answered is a transport that answers so.
func answered(a reply) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		header := http.Header{"Content-Type": {"application/json; charset=utf-8"}}
		for name, value := range a.header {
			header.Set(name, value)
		}
		return &http.Response{StatusCode: a.status, Header: header, Body: io.NopCloser(strings.NewReader(a.body)), Request: r}, nil
	}
}

var (
	sunshine = answered(reply{status: 200, body: deploymentJSON, header: map[string]string{
		"X-Rate-Limit-Limit": "5000", "X-Rate-Limit-Remaining": "5000", "X-Rate-Limit-Reset": "3600",
	}})
	down  = answered(reply{status: 503})
	blank = func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() }
	cut   = func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }
	login = answered(reply{status: 200, body: "<html>Log in", header: map[string]string{"Content-Type": "text/html"}})
	bare  = answered(reply{status: 404, body: "<html>Nothing here", header: map[string]string{"Content-Type": "text/html"}})
)

// in opens an organisation of the weather's API.
func in(t *testing.T, w *weather) *Client {
	t.Helper()
	api, err := New(Options{BaseURL: "https://connect.example", Transport: w})
	if err != nil {
		t.Fatal(err)
	}
	return api.ClientFor(NewSecret(testToken))
}

func poll(ctx context.Context, c *Client) error {
	_, err := c.Deployments().Get(WithPriority(ctx, budget.Poll), "d1")
	return err
}

// pollAll looks at that many running deployments, each every so often, as the controller does it: one
// queue hands out turns, and workers use them.
func pollAll(ctx context.Context, c *Client, deployments int, every time.Duration) {
	poller := budget.NewPoller[int](c.PollRate)
	for i := range deployments {
		poller.Seen(i, every, time.Now().Add(-every))
	}
	turns := make(chan int, deployments)
	for range 16 {
		go func() {
			for range turns {
				_ = poll(ctx, c)
			}
		}()
	}
	go func() {
		defer close(turns)
		for ctx.Err() == nil {
			deployment, ok, wait := poller.Next(time.Now())
			if ok {
				turns <- deployment
				continue
			}
			_ = sleep(ctx, wait)
		}
	}()
}

// insist calls until it succeeds, and comes back when it is told to.
func insist(ctx context.Context, call func() error) {
	for {
		err := call()
		if err == nil || ctx.Err() != nil {
			return
		}
		wait := time.Second
		if at, ok := RetryAt(err); ok {
			wait = time.Until(at)
		}
		if sleep(ctx, wait) != nil {
			return
		}
	}
}

// A client that was started in an outage knows nothing of the API. What comes first after it, each time, is
// the one call that the older revision does not have, whose answer says nothing by itself.
func TestOutageBeforeAnythingIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithTimeout(t.Context(), time.Hour)
		defer stop()
		w := &weather{answer: cut}
		client := in(t, w)
		for range 5 {
			_ = poll(ctx, client)
		}
		w.turns(func(r *http.Request) (*http.Response, error) {
			answer := httptest.NewRecorder()
			olderRevision(answer, r)
			return answer.Result(), nil
		})
		insist(ctx, func() error {
			_, err := collect(client.AuthKeys().List().All(ctx))
			if errors.Is(err, ErrUnsupported) {
				return nil
			}
			return err
		})
		if ctx.Err() != nil || client.Revision() != RevisionOlder {
			t.Errorf("after %d requests the revision is %s", len(w.requests()), client.Revision())
		}
	})
}

// A thousand running deployments, and half an hour in which the API is down in one way or another.
func TestOutageOfHalfAnHour(t *testing.T) {
	for name, outage := range map[string]func(*http.Request) (*http.Response, error){
		"503 everywhere":             down,
		"no answers":                 blank,
		"broken connections":         cut,
		"a login page everywhere":    login,
		"a gateway's 404 everywhere": bare,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				w := &weather{answer: sunshine}
				client := in(t, w)
				pollAll(ctx, client, 1000, 15*time.Second)
				time.Sleep(10 * time.Minute)

				w.turns(outage)
				var waiting atomic.Int32
				for range 30 {
					waiting.Add(1)
					go func() {
						insist(ctx, func() error { return get(t, client) })
						waiting.Add(-1)
					}()
				}
				time.Sleep(time.Minute)
				if n := len(w.requests()); n > 60 {
					t.Errorf("%d requests in the first minute", n)
				}
				time.Sleep(29 * time.Minute)
				n := len(w.requests())
				t.Logf("%d requests", n)
				if n > 300 {
					t.Errorf("%d requests in half an hour", n)
				}
				if waiting.Load() != 30 {
					t.Errorf("%d of 30 have given up", 30-waiting.Load())
				}

				w.turns(sunshine)
				time.Sleep(20 * time.Second)
				if n := waiting.Load(); n > 3 { // up to three hang in a probe still
					t.Errorf("20 seconds after the outage %d of 30 still wait", n)
				}
				sent := w.requests()
				if len(sent) < 35 {
					t.Errorf("%d requests in 20 seconds: no polls among them", len(sent))
				}
				instants := map[time.Time]int{}
				for _, at := range sent {
					instants[at]++
				}
				for at, n := range instants {
					if n > 5 {
						t.Errorf("%d requests go in one instant, at %s", n, at)
					}
				}
			})
		})
	}
}

// The same at a real server, with many who call at once and come back when they are told to.
func TestOutageAtAServer(t *testing.T) {
	var broken atomic.Bool
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() {
			reply{status: 503}.ServeHTTP(w, r)
			return
		}
		reply{status: 200, body: deploymentJSON, header: rateHeaders}.ServeHTTP(w, r)
	})
	clock := newClock()
	client := connectAt(t, clock, s.URL)
	if err := get(t, client); err != nil { // the first request of a token goes alone
		t.Fatal(err)
	}
	const callers = 200
	var back [callers]time.Time
	// everybody calls whose time has come, a dozen at a time as the workers of a controller do.
	everybody := func() (succeeded int32) {
		var group sync.WaitGroup
		var ok atomic.Int32
		turns := make(chan int)
		for range 12 {
			group.Go(func() {
				for i := range turns {
					err := get(t, client)
					if err == nil {
						ok.Add(1)
						continue
					}
					at, known := RetryAt(err)
					if !known {
						at = clock.Now().Add(time.Second)
					}
					back[i] = at
				}
			})
		}
		for i, at := range back {
			if !at.After(clock.Now()) {
				turns <- i
			}
		}
		close(turns)
		group.Wait()
		return ok.Load()
	}

	broken.Store(true)
	before := len(s.requests())
	for range 30 * 60 {
		everybody()
		_ = clock.Sleep(t.Context(), time.Second)
	}
	n := len(s.requests()) - before
	t.Logf("%d requests", n)
	if n > 250 {
		t.Errorf("%d requests in 30 minutes of 503", n)
	}

	broken.Store(false)
	var served int32
	for range 20 {
		served += everybody()
		for i := range back {
			if !back[i].After(clock.Now()) {
				back[i] = clock.Now().Add(time.Hour) // it has what it wanted
			}
		}
		_ = clock.Sleep(t.Context(), time.Second)
	}
	if served != callers {
		t.Errorf("20 seconds after the outage %d of %d have gone on", served, callers)
	}
}

// A route that always fails does not keep others from being called.
func TestFlakyRoute(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete {
			reply{status: 500, header: rateHeaders}.ServeHTTP(w, r)
			return
		}
		reply{status: 200, body: deploymentJSON, header: rateHeaders}.ServeHTTP(w, r)
	})
	client := connect(t, s.URL)
	for range 50 {
		if err := get(t, client); err != nil {
			t.Fatal(err)
		}
		err := client.Devices().Delete(t.Context(), "p1")
		mustBeOf(t, err, ErrUnavailable)
		if _, ok := errors.AsType[*budget.Refusal](err); ok {
			t.Fatal("the circuit breaker has opened")
		}
	}
}

// opened is a client whose circuit breaker is open.
func opened(t *testing.T, clock *clock, url string) *Client {
	t.Helper()
	client := connectAt(t, clock, url)
	for range 100 {
		_ = create(t, client)
		if client.breaker.Open() {
			return client
		}
	}
	t.Fatal("the circuit breaker does not open")
	return nil
}

// Whoever is refused during an outage knows that nothing was sent, is told the same every time, and
// when to come back.
func TestRefusedDuringAnOutage(t *testing.T) {
	s := serve(t, always(reply{status: 503}))
	clock := newClock()
	client := opened(t, clock, s.URL)
	before := len(s.requests())
	text := ""
	for i := range 20 {
		err := create(t, client)
		mustBeOf(t, err, ErrUnavailable)
		if errors.Is(err, ErrOutcomeUnknown) || errors.Is(err, ErrDeferred) {
			t.Errorf("%v is of the wrong kind", err)
		}
		if i > 0 && err.Error() != text {
			t.Errorf("first %q, then %q", text, err)
		}
		text = err.Error()
		if at, ok := RetryAt(err); !ok || !at.After(clock.Now()) || at.Sub(clock.Now()) > 10*time.Second {
			t.Errorf("it is to come back %s", at.Sub(clock.Now()))
		}
	}
	if n := len(s.requests()) - before; n != 0 {
		t.Errorf("%d requests were sent", n)
	}
	other, err := New(Options{BaseURL: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	mustBeOf(t, get(t, other.ClientFor(NewSecret(testToken))), ErrUnavailable)
	if n := len(s.requests()) - before; n == 0 {
		t.Error("another API is not tried")
	}
}

// What one organisation has found out, the others need not try.
func TestOutageOfAllOrganisations(t *testing.T) {
	s := serve(t, always(reply{status: 503}))
	api, err := New(Options{BaseURL: s.URL, Now: newClock().Now})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		_ = create(t, api.ClientFor(NewSecret(fmt.Sprint("rporg_", i))))
	}
	if n := len(s.requests()); n != 5 {
		t.Errorf("%d requests for 100 organisations", n)
	}
}

// A probe that fails is told when the next one goes, like everybody else.
func TestFailedProbeComesBack(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{"503": always(reply{status: 503}), "a broken connection": drop("")} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, handler)
			clock := newClock()
			client := opened(t, clock, s.URL)
			_ = clock.Sleep(t.Context(), 2*time.Second)
			before := len(s.requests())
			err := get(t, client)
			if n := len(s.requests()) - before; n != 1 {
				t.Fatalf("%d requests: there is no retry in an outage", n)
			}
			mustBeOf(t, err, ErrUnavailable)
			if at, ok := RetryAt(err); !ok || at.Sub(clock.Now()) < 4*time.Second || at.Sub(clock.Now()) > 10*time.Second {
				t.Errorf("it is to come back in %s", at.Sub(clock.Now()))
			}
		})
	}
}

func TestPollsAreNotRetried(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{"503": always(reply{status: 503}), "a broken connection": drop("")} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, handler)
			mustBeOf(t, poll(t.Context(), connect(t, s.URL)), ErrUnavailable)
			if n := len(s.requests()); n != 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// Whoever gives up says nothing about the API.
func TestCancelledRequestsAreNoOutage(t *testing.T) {
	arrived := make(chan struct{})
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
	})
	client := connect(t, s.URL)
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-arrived
			cancel()
		}()
		_ = client.Devices().Delete(ctx, "p1")
		_ = client.Devices().Delete(ctx, "p1")
	}
	if client.breaker.Open() {
		t.Error("the circuit breaker has opened")
	}
}

// A Retry-After is kept to, longer than an outage without one would last.
func TestRetryAfterOutlastsAProbe(t *testing.T) {
	s := serve(t, always(reply{status: 503, header: map[string]string{"Retry-After": "120"}}))
	clock := newClock()
	client := connectAt(t, clock, s.URL)
	for range 119 {
		_ = get(t, client)
		_ = clock.Sleep(t.Context(), time.Second)
	}
	if n := len(s.requests()); n != 1 {
		t.Errorf("%d requests although the first said when to come back", n)
	}
}

func TestOutcome(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	headers := budget.Answer{HasHeaders: true}
	for name, test := range map[string]struct {
		ctx   context.Context
		ans   *answer
		err   error
		older bool
		want  budget.Outcome
	}{
		"no answer":                             {err: &failure{sent: true}, want: budget.Failed},
		"no connection":                         {err: &failure{}, want: budget.Failed},
		"half an answer":                        {ans: &answer{status: 200}, err: &failure{sent: true}, want: budget.Failed},
		"cancelled on its way":                  {ctx: gone, err: &failure{sent: true}, want: budget.Inconclusive},
		"cancelled before":                      {ctx: gone, err: &failure{}, want: budget.Unsent},
		"refused by the budget":                 {err: &budget.Refusal{}, want: budget.Unsent},
		"a success":                             {ans: &answer{status: 200}, want: budget.Answered},
		"a success in HTML":                     {ans: &answer{status: 200, html: true}, want: budget.Failed},
		"a success in HTML, announced":          {ans: &answer{status: 200, html: true, rate: headers}, want: budget.Answered},
		"a deletion":                            {ans: &answer{status: 204}, want: budget.Answered},
		"a redirect":                            {ans: &answer{status: 302}, want: budget.Failed},
		"a refusal":                             {ans: &answer{status: 422, worded: true, refusal: "Validation failed"}, want: budget.Answered},
		"a missing object":                      {ans: &answer{status: 404, rate: headers}, want: budget.Answered},
		"a bare 404":                            {ans: &answer{status: 404}, want: budget.Failed},
		"a bare 404 where nothing is announced": {ans: &answer{status: 404}, older: true, want: budget.Answered},
		"a router's 404":                        {ans: &answer{status: 404, refusal: "404 page not found"}, want: budget.Failed},
		"an HTML 404":                           {ans: &answer{status: 404, html: true}, older: true, want: budget.Failed},
		"a throttle":                            {ans: &answer{status: 429}, want: budget.Answered},
		"a bare 401":                            {ans: &answer{status: 401}, want: budget.Inconclusive},
		"a 401 about the request":               {ans: &answer{status: 401, rate: headers}, want: budget.Answered},
		"too slow":                              {ans: &answer{status: 408, rate: headers}, want: budget.Failed},
		"a broken API":                          {ans: &answer{status: 500, rate: headers}, want: budget.Failed},
		"a broken gateway":                      {ans: &answer{status: 502, html: true}, want: budget.Failed},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, k := test.ctx, knowledge{announcing, RevisionCurrent}
			if ctx == nil {
				ctx = t.Context()
			}
			if test.older {
				k = knowledge{announcement: silent}
			}
			if got := outcome(ctx, &request{method: http.MethodGet}, test.ans, test.err, k); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
		})
	}
}
