// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"bytes"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rpi-connect.dev/operator/internal/connectclient/budget"
)

func quietLog() *log.Logger { return log.New(io.Discard, "", 0) }

func TestBaseURL(t *testing.T) {
	for raw, tt := range map[string]struct{ want, problem string }{
		"":                               {DefaultBaseURL, ""},
		"https://example.com":            {"https://example.com", ""},
		" https://example.com/ ":         {"https://example.com", ""},
		"https://example.com/connect":    {"https://example.com/connect", ""},
		"http://localhost:8080":          {"http://localhost:8080", ""},
		"http://127.0.0.1:8080":          {"http://127.0.0.1:8080", ""},
		"http://[::1]:8080/":             {"http://[::1]:8080", ""},
		"http://example.com":             {"", "clear text"},
		"http://10.0.0.1":                {"", "clear text"},
		"example.com":                    {"", "not a URL"},
		"ftp://example.com":              {"", "not a URL"},
		"https://:8443":                  {"", "not a URL"},
		"https://":                       {"", "not a URL"},
		"/organisation":                  {"", "not a URL"},
		"https://exa mple.com":           {"", "not a URL"},
		"https://me:hunter2@example.com": {"", "user or a password"},
		"https://example.com/?a=hunter2": {"", "query"},
		"https://example.com/#hunter2":   {"", "query or a fragment"},
		"https://example.com:hunter2/":   {"", "not a URL"},
	} {
		got, err := checkedBaseURL(orDefault(raw))
		switch {
		case tt.problem == "" && (err != nil || got != tt.want):
			t.Errorf("%q: %q, %v", raw, got, err)
		case tt.problem != "" && (err == nil || !strings.Contains(err.Error(), tt.problem)):
			t.Errorf("%q: %v, want an error with %q", raw, err, tt.problem)
		case err != nil && strings.Contains(err.Error(), "hunter2"):
			t.Errorf("%q: the password is repeated: %v", raw, err)
		}
	}
	if _, err := New(Options{BaseURL: "http://example.com"}); err == nil {
		t.Error("New takes any address")
	}
}

func orDefault(raw string) string {
	if raw == "" {
		return DefaultBaseURL
	}
	return raw
}

func TestOneClientPerToken(t *testing.T) {
	api, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	one := api.ClientFor(NewSecret(testToken))
	if api.ClientFor(NewSecret(testToken+"\n")) != one {
		t.Error("the same token has two budgets")
	}
	if api.ClientFor(NewSecret("rporg_other")) == one {
		t.Error("two tokens share a budget")
	}
	if one.Token() != NewSecret(testToken) || one.BaseURL() != DefaultBaseURL || one.Budget() == nil {
		t.Error("the client does not say what it is for")
	}
}

// Whoever holds the client of a retired token works on, but nobody hears of it any more; whoever opens
// the organisation again begins anew.
func TestRetire(t *testing.T) {
	var mu sync.Mutex
	told := map[string]int{}
	s := serve(t, always(reply{status: 200, body: deploymentJSON, header: rateHeaders}))
	api, err := New(Options{BaseURL: s.URL, Observe: func(c Call) {
		mu.Lock()
		defer mu.Unlock()
		told[c.Token]++
	}})
	if err != nil {
		t.Fatal(err)
	}
	token, other := NewSecret(testToken), NewSecret("rporg_other")
	old, neighbour := api.ClientFor(token), api.ClientFor(other)
	calls := func(c *Client) int {
		t.Helper()
		if err := get(t, c); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		return told[c.Token().Fingerprint()]
	}
	if n := calls(old); n != 1 {
		t.Errorf("%d calls were observed", n)
	}

	api.Retire(token)
	api.Retire(token)
	api.Retire(NewSecret("rporg_unheard_of"))
	if n := calls(old); n != 1 {
		t.Errorf("%d calls were observed after the token had retired", n)
	}
	if n := calls(neighbour); n != 1 {
		t.Errorf("%d calls of another organisation were observed", n)
	}
	if api.ClientFor(other) != neighbour {
		t.Error("another token has retired")
	}
	again := api.ClientFor(token)
	if again == old {
		t.Error("it has not been forgotten")
	}
	if n := calls(again); n != 2 {
		t.Errorf("%d calls were observed of the token that was put back", n)
	}
}

// When Retire has returned nothing is observed any more, so whoever then removes what was observed
// removes it for good.
func TestRetireWaitsForThoseWhoAreTelling(t *testing.T) {
	telling, goOn := make(chan struct{}), make(chan struct{})
	var told atomic.Int32
	s := serve(t, always(reply{status: 200, body: deploymentJSON, header: rateHeaders}))
	api, err := New(Options{BaseURL: s.URL, Observe: func(Call) {
		close(telling)
		<-goOn
		told.Add(1)
	}})
	if err != nil {
		t.Fatal(err)
	}
	client := api.ClientFor(NewSecret(testToken))
	var group sync.WaitGroup
	group.Go(func() { _ = get(t, client) })
	<-telling
	group.Go(func() { close(goOn) })
	api.Retire(client.Token())
	if told.Load() != 1 {
		t.Error("it has returned while somebody was being told")
	}
	group.Wait()
}

func TestPrivateCertificateAuthority(t *testing.T) {
	server := httptest.NewUnstartedServer(always(announced(reply{status: 204})))
	server.Config.ErrorLog = quietLog()
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})

	transport, err := NewTransport(ca)
	if err != nil {
		t.Fatal(err)
	}
	trusting := connect(t, server.URL, func(o *Options) { o.Transport = transport })
	if err := trusting.Devices().Delete(t.Context(), "p1"); err != nil {
		t.Error(err)
	}
	_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "https://"), ":")
	wrongHost := connect(t, "https://localhost:"+port, func(o *Options) { o.Transport = transport })
	if err := wrongHost.Devices().Delete(t.Context(), "p1"); err == nil || !strings.Contains(err.Error(), "another host name") {
		t.Errorf("the host name is not verified: %v", err)
	}
	if _, err := NewTransport([]byte("no PEM")); err == nil || !strings.Contains(err.Error(), "BEGIN CERTIFICATE") {
		t.Errorf("an unusable file: %v", err)
	}
}

func TestRedirectDoesNotCarryTheTokenAway(t *testing.T) {
	elsewhere := serve(t, always(reply{status: 200, body: deploymentJSON}))
	s := serve(t, always(reply{status: 307, header: map[string]string{"Location": elsewhere.URL}}))
	mustBeOf(t, get(t, connect(t, s.URL)), ErrUnavailable)
	if len(elsewhere.requests()) != 0 {
		t.Errorf("the redirect was followed: %v", elsewhere.requests())
	}
}

func TestRetry(t *testing.T) {
	failing, working := reply{status: 503}, ok(deploymentJSON)
	calls := map[string]func(*Client) error{
		"GET":    func(c *Client) error { _, err := c.Deployments().Get(t.Context(), "d1"); return err },
		"PUT":    func(c *Client) error { _, err := c.Deployments().Cancel(t.Context(), "d1"); return err },
		"DELETE": func(c *Client) error { return c.Devices().Delete(t.Context(), "p1") },
		"POST":   func(c *Client) error { _, err := c.Deployments().Create(t.Context(), "p1", "a1"); return err },
		"PATCH":  func(c *Client) error { _, err := c.Devices().Update(t.Context(), "p1", DeviceUpdate{}); return err },
	}
	for name, tt := range map[string]struct {
		method   string
		replies  []reply
		attempts int
		fails    bool
	}{
		"GET, once":               {"GET", []reply{failing, working}, 2, false},
		"GET, twice":              {"GET", []reply{failing, failing, working}, 3, false},
		"GET, no more":            {"GET", []reply{failing, failing, failing, working}, 3, true},
		"PUT":                     {"PUT", []reply{failing, working}, 2, false},
		"DELETE":                  {"DELETE", []reply{failing, working}, 2, false},
		"never POST":              {"POST", []reply{failing, working}, 1, true},
		"never PATCH":             {"PATCH", []reply{failing, working}, 1, true},
		"a refusal is final":      {"GET", []reply{announced(reply{status: 422}), working}, 1, true},
		"a 404 is final":          {"GET", []reply{announced(reply{status: 404}), working}, 1, true},
		"a 429 is the budget's":   {"GET", []reply{{status: 429, header: rateHeaders}, working}, 1, true},
		"garbage is final":        {"GET", []reply{ok("<html>"), working}, 1, true},
		"oversized is final":      {"GET", []reply{ok(strings.Repeat("x", maxBody+1)), working}, 1, true},
		"a short Retry-After":     {"GET", []reply{{status: 503, header: map[string]string{"Retry-After": "1"}}, working}, 2, false},
		"a long Retry-After":      {"GET", []reply{{status: 503, header: map[string]string{"Retry-After": "120"}}, working}, 1, true},
		"a Retry-After by a date": {"GET", []reply{{status: 503, header: map[string]string{"Retry-After": "Sun, 01 Mar 2026 10:30:02 GMT"}}, working}, 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := script(t, tt.replies...)
			clock := newClock()
			err := calls[tt.method](connectAt(t, clock, s.URL))
			if (err != nil) != tt.fails {
				t.Errorf("error %v", err)
			}
			if n := len(s.requests()); n != tt.attempts {
				t.Errorf("%d attempts, want %d", n, tt.attempts)
			}
			if naps := clock.naps(); naps != tt.attempts-1 {
				t.Errorf("%d pauses between %d attempts", naps, tt.attempts)
			}
			if waited := clock.Now().Sub(newClock().Now()); waited > retryWithin {
				t.Errorf("a worker was held for %s", waited)
			}
		})
	}
}

func TestRetryAfterALostConnection(t *testing.T) {
	for name, part := range map[string]string{
		"before the answer": "",
		"in the answer":     "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{",
	} {
		t.Run(name, func(t *testing.T) {
			var s *service
			s = serve(t, func(w http.ResponseWriter, r *http.Request) {
				if len(s.requests()) == 1 {
					drop(part)(w, r)
					return
				}
				ok(deploymentJSON).ServeHTTP(w, r)
			})
			if err := get(t, connect(t, s.URL)); err != nil {
				t.Error(err)
			}
		})
	}
}

// A service that takes long to fail is not asked again at once: the worker has
// been held long enough.
func TestNoRetryAfterASlowFailure(t *testing.T) {
	clock := newClock()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_ = clock.Sleep(r.Context(), retryWithin)
		reply{status: 504}.ServeHTTP(w, r)
	})
	mustBeOf(t, get(t, connectAt(t, clock, s.URL)), ErrUnavailable)
	if len(s.requests()) != 1 {
		t.Errorf("%d attempts", len(s.requests()))
	}
}

func TestPausesGrowAndDiffer(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 100 {
		first, second := pause(1), pause(2)
		if first < firstPause/2 || first >= firstPause*3/2 || second < firstPause || second >= firstPause*3 {
			t.Fatalf("%s, then %s", first, second)
		}
		seen[first] = true
	}
	if len(seen) < 2 {
		t.Error("all pauses are the same")
	}
}

func TestRetryAtOfAnOutage(t *testing.T) {
	for seconds, want := range map[string]time.Duration{"120": 2 * time.Minute, "999999": maxRetryAfter} {
		clock := newClock()
		s := serve(t, always(reply{status: 503, header: map[string]string{"Retry-After": seconds}}))
		err := get(t, connectAt(t, clock, s.URL))
		if at, ok := RetryAt(err); !ok || !at.Equal(clock.Now().Add(want)) {
			t.Errorf("Retry-After %s: %v", seconds, at)
		}
	}
	if at, ok := RetryAt(errors.New("another error")); ok {
		t.Errorf("%v out of nowhere", at)
	}
}

// The story of a token whose hour is spent: one 429, then no request until the
// window ends.
func TestSpentBudget(t *testing.T) {
	clock := newClock()
	headers := map[string]string{"X-Rate-Limit-Limit": "5000", "X-Rate-Limit-Remaining": "0", "X-Rate-Limit-Reset": "1800", "Content-Type": "text/plain"}
	s := script(t, reply{status: 429, body: "Throttled", header: headers}, ok(deploymentJSON))
	client := connectAt(t, clock, s.URL)

	var spent time.Time
	for range 3 {
		err := get(t, client)
		mustBeOf(t, err, ErrThrottled)
		at, ok := RetryAt(err)
		if wait := at.Sub(clock.Now()); !ok || wait < 30*time.Minute || wait > 31*time.Minute {
			t.Errorf("retry in %s", wait)
		}
		shown, ok := SpentUntil(err)
		if spent.IsZero() {
			spent = shown
		}
		if !ok || !shown.Equal(spent) {
			t.Errorf("shown as %s, then as %s", spent, shown)
		}
	}
	if _, ok := SpentUntil(errors.New("another error")); ok {
		t.Error("another error is shown as a spent budget")
	}
	if n := len(s.requests()); n != 1 {
		t.Errorf("%d requests against a spent budget", n)
	}
	mustBeOf(t, create(t, client), ErrThrottled) // nothing was sent, and that is known
	_ = clock.Sleep(t.Context(), 31*time.Minute)
	if err := get(t, client); err != nil {
		t.Errorf("after the reset: %v", err)
	}
}

// The story of a bad token: however many resources use it, it costs one request.
func TestRejectedToken(t *testing.T) {
	s := serve(t, always(reply{status: 401}))
	client := connect(t, s.URL)
	for range 5 {
		mustBeOf(t, get(t, client), ErrUnauthorized)
	}
	if n := len(s.requests()); n != 1 {
		t.Errorf("%d requests with a bad token", n)
	}
}

// The story of a token that worked and is revoked: it is tried once more, after a moment, because the
// 401 may have been a gateway's.
func TestRevokedToken(t *testing.T) {
	clock := newClock()
	s := script(t, reply{status: 200, body: deploymentJSON, header: rateHeaders}, reply{status: 401}, reply{status: 401}, reply{status: 401})
	client := connectAt(t, clock, s.URL)
	if err := get(t, client); err != nil {
		t.Fatal(err)
	}
	if err := get(t, client); err == nil || client.Budget().State().Unauthorized {
		t.Errorf("the first 401: %v", err)
	}
	for range 5 {
		err := get(t, client)
		mustBeOf(t, err, ErrDeferred)
		if at, ok := RetryAt(err); !ok || at.Sub(clock.Now()) > 5*time.Second {
			t.Errorf("it is tried again in %s", at.Sub(clock.Now()))
		}
	}
	_ = clock.Sleep(t.Context(), 5*time.Second)
	for range 5 {
		mustBeOf(t, get(t, client), ErrUnauthorized)
	}
	if n := len(s.requests()); n != 3 {
		t.Errorf("%d requests, want 1 that worked and 2 with a bad token", n)
	}
}

func TestRequestsThatNeverLeftAreNotCounted(t *testing.T) {
	s := serve(t, always(reply{status: 200, body: deploymentJSON, header: rateHeaders}))
	client := connect(t, s.URL)
	if err := get(t, client); err != nil {
		t.Fatal(err)
	}
	before := client.Budget().State()
	client.options.BaseURL = "http://127.0.0.1:1" // nothing listens there
	client.send = client.chain()
	mustBeOf(t, create(t, client), ErrUnavailable)
	if after := client.Budget().State(); after != before {
		t.Errorf("from %+v to %+v", before, after)
	}
}

func TestPriorityOfACall(t *testing.T) {
	for method, want := range map[string]budget.Priority{
		"DELETE": budget.Urgent, "PUT": budget.Urgent, "POST": budget.Write, "PATCH": budget.Write, "GET": budget.Background,
	} {
		if got := priorityOf(t.Context(), method); got != want {
			t.Errorf("%s is %v", method, got)
		}
		if got := priorityOf(WithPriority(t.Context(), budget.Poll), method); got != budget.Poll {
			t.Errorf("%s is %v although the context says otherwise", method, got)
		}
	}
}

func TestObserveAndLog(t *testing.T) {
	var mu sync.Mutex
	var calls []Call
	var logged bytes.Buffer
	s := script(t,
		reply{status: 502, body: "<html>"},
		reply{status: 200, body: deploymentJSON, header: rateHeaders},
		reply{status: 201, body: strings.TrimSuffix(authKeyJSON, "}") + `,"secret":"rpoak_3vQB7B6MrGQZaxCuFg4oH9XQ"}`, header: rateHeaders},
		reply{status: 429, header: rateHeaders})
	client := connect(t, s.URL, func(o *Options) {
		o.Observe = func(c Call) {
			mu.Lock()
			defer mu.Unlock()
			calls = append(calls, c)
		}
		o.Logger = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	if err := get(t, client); err != nil {
		t.Fatal(err)
	}
	if _, err := client.AuthKeys().Create(t.Context(), AuthKeyCreate{Description: "a description"}); err != nil {
		t.Fatal(err)
	}
	mustBeOf(t, get(t, client), ErrThrottled)
	mustBeOf(t, get(t, client), ErrThrottled)

	var story []string
	for _, c := range calls {
		line := c.Method + " " + c.Operation + " " + http.StatusText(c.StatusCode)
		if c.Refusal != nil {
			line += string(c.Refusal.Reason)
			if c.Delay < 29*time.Minute {
				t.Errorf("put off by %s only", c.Delay)
			}
		}
		if c.Token != NewSecret(testToken).Fingerprint() {
			t.Errorf("token %q", c.Token)
		}
		story = append(story, line)
	}
	want := "GET get deployment Bad Gateway; GET get deployment OK; POST create auth key Created; GET get deployment Too Many Requests; GET get deployment exhausted"
	if got := strings.Join(story, "; "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if state := calls[1].Budget; !state.HeadersKnown || state.Limit != 5000 || state.Remaining != 4321 {
		t.Errorf("the budget's state is %+v", state)
	}

	mustNotLeak(t, "the log", logged.String())
	for _, hidden := range []string{"rpoak", "a description", "Bearer", "html"} {
		if strings.Contains(logged.String(), hidden) {
			t.Errorf("%q was logged:\n%s", hidden, logged.String())
		}
	}
	if lines := strings.Count(logged.String(), "\n"); lines != len(calls) {
		t.Errorf("%d lines for %d calls:\n%s", lines, len(calls), logged.String())
	}
}

func TestClientIsSafeForConcurrentUse(t *testing.T) {
	s := serve(t, always(reply{status: 200, body: deploymentJSON, header: rateHeaders}))
	client := connect(t, s.URL)
	if err := get(t, client); err != nil { // the first request of a token goes alone
		t.Fatal(err)
	}
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for range 10 {
				if err := get(t, client); err != nil {
					t.Error(err)
				}
			}
		})
	}
	workers.Wait()
	if n := len(s.requests()); n != 161 {
		t.Errorf("%d requests", n)
	}
}
