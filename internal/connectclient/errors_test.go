// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"unicode"
	"unicode/utf8"
)

var allKinds = []error{
	ErrUnauthorized, ErrBilling, ErrForbidden, ErrNotFound, ErrUnauthorizedRequest, ErrInvalid, ErrThrottled, ErrDeferred, ErrUnavailable,
	ErrOutcomeUnknown, ErrUnsupported, ErrArtefactDeployed, ErrNotEditable, ErrNotCancellable,
}

// mustBeOf checks that the error is of these kinds and of no other.
func mustBeOf(t *testing.T, err error, want ...error) {
	t.Helper()
	for _, kind := range allKinds {
		wanted := false
		for _, w := range want {
			wanted = wanted || errors.Is(w, kind)
		}
		if errors.Is(err, kind) != wanted {
			t.Errorf("errors.Is(%q, %q) is %t", err, kind, !wanted)
		}
	}
}

// mustBeSafe checks that a text can be logged and stored.
func mustBeSafe(t *testing.T, text string) {
	t.Helper()
	switch {
	case len(text) > MaxMessage+200:
		t.Errorf("%d bytes is too long: %s", len(text), text)
	case !utf8.ValidString(text):
		t.Errorf("not UTF-8: %q", text)
	case strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }):
		t.Errorf("not printable: %q", text)
	case strings.Contains(text, testToken):
		t.Errorf("holds the token: %q", text)
	case strings.Contains(strings.ToLower(text), "rpoak_"), strings.Contains(strings.ToLower(text), "rporg_"), strings.Contains(strings.ToLower(text), "rpdev_"):
		t.Errorf("holds a secret: %q", text)
	}
}

// create makes a POST, get a GET; together they show every class of error.
func create(t *testing.T, c *Client) error {
	_, err := c.Artefacts().Create(t.Context(), ArtefactCreate{Name: "kiosk", URI: "https://example.com/?sig=hidden", Checksum: "00"})
	return err
}

func get(t *testing.T, c *Client) error {
	_, err := c.Deployments().Get(t.Context(), "d1")
	return err
}

func TestErrorOfAnAnswer(t *testing.T) {
	html := map[string]string{"Content-Type": "text/html; charset=utf-8"}
	plain := map[string]string{"Content-Type": "text/plain"}
	for name, tt := range map[string]struct {
		answer reply
		want   string
		kinds  []error
	}{
		"documented message": {reply{status: 422, body: `{"message":"Validation failed: Name can't be blank"}`},
			"create artefact: the Connect API answered 422: Validation failed: Name can't be blank", []error{ErrInvalid}},
		"400":           {reply{status: 400, body: `{"message":"artefact_id is missing"}`}, "create artefact: the Connect API answered 400: artefact_id is missing", []error{ErrInvalid}},
		"409":           {reply{status: 409}, "create artefact: the Connect API answered 409", []error{ErrInvalid}},
		"error key":     {reply{status: 401, body: `{"error":"unauthorized"}`}, "create artefact: the Connect API answered 401: unauthorized", []error{ErrUnauthorized}},
		"billing":       {reply{status: 403, body: `{"message":"Deployments are blocked until billing has been set up"}`}, "create artefact: the Connect API answered 403: Deployments are blocked until billing has been set up", []error{ErrBilling}},
		"throttled":     {reply{status: 429, body: "Throttled", header: plain}, "create artefact: the Connect API answered 429: Throttled", []error{ErrThrottled}},
		"empty":         {reply{status: 404}, "create artefact: the Connect API answered 404", []error{ErrNotFound}},
		"gone":          {reply{status: 410}, "create artefact: the Connect API answered 410", []error{ErrNotFound}},
		"HTML":          {reply{status: 404, body: "<!DOCTYPE html><h1>" + testToken + "</h1>", header: html}, "create artefact: the Connect API answered 404 with an HTML page", []error{ErrNotFound}},
		"unmarked HTML": {reply{status: 401, body: " <html>oops</html>"}, "create artefact: the Connect API answered 401 with an HTML page", []error{ErrUnauthorized}},
		"HTML 502": {reply{status: 502, body: "<html>Bad gateway</html>", header: html},
			"create artefact: the Connect API answered 502 with an HTML page; it is not known whether the request was carried out", []error{ErrUnavailable, ErrOutcomeUnknown}},
		"500":              {reply{status: 500, body: `{"message":"oops"}`}, "create artefact: the Connect API answered 500; it is not known whether the request was carried out: oops", []error{ErrUnavailable, ErrOutcomeUnknown}},
		"408":              {reply{status: 408}, "create artefact: the Connect API answered 408; it is not known whether the request was carried out", []error{ErrUnavailable, ErrOutcomeUnknown}},
		"truncated JSON":   {reply{status: 422, body: `{"message":"Validation fai`}, "create artefact: the Connect API answered 422", []error{ErrInvalid}},
		"another JSON":     {reply{status: 422, body: `{"message":{"name":["taken"]},"error":7}`}, "create artefact: the Connect API answered 422", []error{ErrInvalid}},
		"list":             {reply{status: 422, body: `["a","b"]`}, "create artefact: the Connect API answered 422", []error{ErrInvalid}},
		"oversized":        {reply{status: 422, body: `{"message":"` + strings.Repeat("x", 1<<20) + `"}`}, "create artefact: the Connect API answered 422", []error{ErrInvalid}},
		"oversized 500":    {reply{status: 500, body: strings.Repeat("x", 1<<20)}, "create artefact: the Connect API answered 500; it is not known whether the request was carried out", []error{ErrUnavailable, ErrOutcomeUnknown}},
		"control bytes":    {reply{status: 422, body: "{\"message\":\"one\\ntwo\\u0007 \\u001b[31mthree\\u2028four\"}"}, "create artefact: the Connect API answered 422: one two [31mthree four", []error{ErrInvalid}},
		"the token":        {reply{status: 401, body: `{"message":"Bearer ` + testToken + ` is revoked"}`}, "create artefact: the Connect API answered 401: Bearer [redacted] is revoked", []error{ErrUnauthorized}},
		"an escaped token": {reply{status: 401, body: `{"message":"\u0072porg_` + testToken[6:] + `"}`}, "create artefact: the Connect API answered 401: [redacted]", []error{ErrUnauthorized}},
		"a split token":    {reply{status: 401, body: `{"message":"rporg_\u0000` + testToken[6:] + `"}`}, "create artefact: the Connect API answered 401: [redacted]", []error{ErrUnauthorized}},
		"other secrets":    {reply{status: 422, body: "rpoak_3vQB7B6MrGQZaxCu rpdev_x RPORG_Y", header: plain}, "create artefact: the Connect API answered 422: [redacted] [redacted] [redacted]", []error{ErrInvalid}},
		"redirect": {reply{status: 302, header: map[string]string{"Location": "https://evil.example.com/?a=b"}},
			"create artefact: the Connect API answered 302, a redirect, which is not followed: give the API's final address; it is not known whether the request was carried out", []error{ErrUnavailable, ErrOutcomeUnknown}},
		"empty success":  {reply{status: 201}, "create artefact: the Connect API answered 201, but not with the JSON that was expected; it is not known whether the request was carried out", []error{ErrUnavailable, ErrOutcomeUnknown}},
		"HTML success":   {reply{status: 200, body: "<html>Log in</html>", header: html}, "create artefact: the Connect API answered 200, but not with the JSON that was expected; it is not known whether the request was carried out", []error{ErrUnavailable, ErrOutcomeUnknown}},
		"cut success":    {reply{status: 201, body: `{"id":"a1","na`}, "create artefact: the Connect API answered 201, but not with the JSON that was expected; it is not known whether the request was carried out", []error{ErrUnavailable, ErrOutcomeUnknown}},
		"no id":          {reply{status: 201, body: `{}`}, "create artefact: the Connect API answered 201, but without an id; it is not known whether the request was carried out", []error{ErrUnavailable, ErrOutcomeUnknown}},
		"no content":     {reply{status: 204}, "create artefact: the Connect API answered 204, but not with the JSON that was expected; it is not known whether the request was carried out", []error{ErrUnavailable, ErrOutcomeUnknown}},
		"too much":       {reply{status: 201, body: `{"id":"` + strings.Repeat("x", maxBody) + `"}`}, "create artefact: the Connect API's answer was lost: the answer is longer than any that was expected; it is not known whether the request was carried out", []error{ErrUnavailable, ErrOutcomeUnknown}},
		"not UTF-8":      {reply{status: 422, body: "caf\xe9", header: plain}, "create artefact: the Connect API answered 422: caf", []error{ErrInvalid}},
		"unknown status": {reply{status: 418, body: `{"message":"I'm a teapot"}`}, "create artefact: the Connect API answered 418: I'm a teapot", []error{ErrInvalid}},
	} {
		t.Run(name, func(t *testing.T) {
			// The answers carry rate headers, but for those to a bad token.
			if tt.answer.status != http.StatusUnauthorized {
				tt.answer = announced(tt.answer)
			}
			s := serve(t, always(tt.answer))
			client := connect(t, s.URL)
			err := create(t, client)
			if err == nil {
				t.Fatal("no error")
			}
			if err.Error() != tt.want {
				t.Errorf("got  %s\nwant %s", err, tt.want)
			}
			mustBeOf(t, err, tt.kinds...)
			mustBeSafe(t, err.Error())
			if len(s.requests()) != 1 {
				t.Errorf("the POST was sent %d times", len(s.requests()))
			}

			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("it is a %T", err)
			}
			if name != "too much" && e.StatusCode != tt.answer.status {
				t.Errorf("status %d", e.StatusCode)
			}
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
				mustNotLeak(t, verb, fmt.Sprintf(verb, e))
			}
			marshalled, marshalErr := json.Marshal(e)
			if marshalErr != nil {
				t.Fatal(marshalErr)
			}
			mustNotLeak(t, "JSON", string(marshalled))

			// A GET that fails the same way changes nothing, so its outcome
			// is never unknown.
			if err := get(t, connect(t, s.URL)); errors.Is(err, ErrOutcomeUnknown) || err == nil {
				t.Errorf("GET: %v", err)
			}
		})
	}
}

func TestMessageIsCutBetweenRunes(t *testing.T) {
	s := serve(t, always(reply{status: 422, body: `{"message":"` + strings.Repeat("é", 200) + `"}`}))
	var e *Error
	if !errors.As(create(t, connect(t, s.URL)), &e) {
		t.Fatal("no error")
	}
	if len(e.Message) > MaxMessage || !utf8.ValidString(e.Message) || !strings.HasSuffix(e.Message, "é…") {
		t.Errorf("%d bytes: %s", len(e.Message), e.Message)
	}
}

func TestMessageForASentence(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			reply{status: 422, body: `{"message":"This auth key can no longer be edited."}`}.ServeHTTP(w, r)
			return
		}
		announced(reply{status: 422}).ServeHTTP(w, r)
	})
	client := connect(t, s.URL)
	for _, tt := range []struct {
		err  error
		want string
	}{
		{create(t, client), "This auth key can no longer be edited"},
		{fmt.Errorf("in passing: %w", get(t, client)), "the Connect API answered 422"},
		{io.EOF, ""},
		{nil, ""},
	} {
		if got := Message(tt.err); got != tt.want {
			t.Errorf("Message(%v) = %q, want %q", tt.err, got, tt.want)
		}
	}
}

func TestRefusalsThatCallersHaveToTellApart(t *testing.T) {
	for name, tt := range map[string]struct {
		message string
		call    func(*Client) error
		want    []error
	}{
		"deployed artefact": {"Cannot delete artefacts that have been deployed",
			func(c *Client) error { return c.Artefacts().Delete(t.Context(), "a1") }, []error{ErrInvalid, ErrArtefactDeployed}},
		"another refusal to delete": {"Artefact is locked",
			func(c *Client) error { return c.Artefacts().Delete(t.Context(), "a1") }, []error{ErrInvalid}},
		"used auth key": {"This auth key can no longer be edited.",
			func(c *Client) error { _, err := c.AuthKeys().Update(t.Context(), "k1", AuthKeyUpdate{}); return err }, []error{ErrInvalid, ErrNotEditable}},
		"bad auth key": {"Validation failed: Description can't be blank",
			func(c *Client) error { _, err := c.AuthKeys().Update(t.Context(), "k1", AuthKeyUpdate{}); return err }, []error{ErrInvalid}},
		"finished deployment": {`Cannot cancel deployment in state "succeeded"`,
			func(c *Client) error { _, err := c.Deployments().Cancel(t.Context(), "d1"); return err }, []error{ErrInvalid, ErrNotCancellable}},
	} {
		t.Run(name, func(t *testing.T) {
			body, err := json.Marshal(map[string]string{"message": tt.message})
			if err != nil {
				t.Fatal(err)
			}
			s := serve(t, always(reply{status: 422, body: string(body)}))
			err = tt.call(connect(t, s.URL))
			mustBeOf(t, err, tt.want...)
			if !strings.HasSuffix(err.Error(), tt.message) {
				t.Errorf("the API's words are lost: %v", err)
			}
		})
	}
}

// drop answers by closing the connection, after the given part of an answer.
func drop(part string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(conn, part)
		_ = conn.Close()
	}
}

func TestLostAnswer(t *testing.T) {
	const lost = "; it is not known whether the request was carried out"
	for name, tt := range map[string]struct{ part, want string }{
		"before the first byte": {"", "create artefact: the Connect API's answer was lost: the connection was closed too early" + lost},
		"in the body":           {"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{\"id\":", "create artefact: the Connect API's answer was lost: the connection was closed too early" + lost},
		"in a chunk":            {"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n{\"id\":", "create artefact: the Connect API's answer was lost: the connection was closed too early" + lost},
		"no HTTP":               {testToken + "\r\n\r\n", "create artefact: the Connect API's answer was lost: it does not speak HTTP" + lost},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, drop(tt.part))
			err := create(t, connect(t, s.URL))
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			mustBeOf(t, err, ErrUnavailable, ErrOutcomeUnknown)
			if n := len(s.requests()); n != 1 {
				t.Errorf("the POST was sent %d times", n)
			}
			mustBeOf(t, get(t, connect(t, s.URL)), ErrUnavailable)
		})
	}
}

// An error's status decides even if its body breaks off.
func TestErrorWhoseBodyIsLost(t *testing.T) {
	s := serve(t, drop("HTTP/1.1 422 Unprocessable\r\nX-Rate-Limit-Remaining: 1\r\nContent-Length: 100\r\n\r\n{\"mess"))
	err := create(t, connect(t, s.URL))
	mustBeOf(t, err, ErrInvalid)
	if err.Error() != "create artefact: the Connect API answered 422" {
		t.Error(err)
	}
}

// A deletion that the API says it has done needs no body; see the tests of whose word it is.
func TestDeletionNeedsNoBody(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"204":       always(announced(reply{status: 204})),
		"object":    always(reply{status: 200, body: `{"id":"a1"}`}),
		"HTML":      always(announced(reply{status: 200, body: "<html>"})),
		"oversized": always(announced(reply{status: 200, body: strings.Repeat("x", 1<<20)})),
		"cut":       drop("HTTP/1.1 200 OK\r\nX-Rate-Limit-Remaining: 1\r\nContent-Length: 100\r\n\r\n{"),
	} {
		s := serve(t, handler)
		if err := connect(t, s.URL).Artefacts().Delete(t.Context(), "a1"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNothingWasSentIfNoConnectionWasMade(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	notTLS := serve(t, always(reply{status: 200}))
	untrusted := httptest.NewUnstartedServer(nil)
	untrusted.Config.ErrorLog = quietLog()
	untrusted.StartTLS()
	t.Cleanup(untrusted.Close)

	for name, tt := range map[string]struct{ url, want string }{
		"refused":      {closed.URL, "create artefact: cannot reach the Connect API: connection refused"},
		"unknown host": {"https://connect.invalid", "create artefact: cannot reach the Connect API: its host name cannot be resolved"},
		"not TLS":      {strings.Replace(notTLS.URL, "http:", "https:", 1), "create artefact: cannot reach the Connect API: it does not speak TLS"},
		"untrusted":    {untrusted.URL, "create artefact: cannot reach the Connect API: its TLS certificate is signed by an authority that is not trusted"},
	} {
		t.Run(name, func(t *testing.T) {
			err := create(t, connect(t, tt.url, func(o *Options) { o.Transport = unresolving(t, "connect.invalid") }))
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			mustBeOf(t, err, ErrUnavailable)
		})
	}
	if err := create(t, connect(t, closed.URL)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the cause is lost: %v", err)
	}
}

// A POST that the API may have got must not be sent again without a look.
func TestSent(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	for name, tt := range map[string]struct {
		client *Client
		want   bool
	}{
		"done":                   {connect(t, serve(t, always(made(artefactJSON))).URL), true},
		"refused by the API":     {connect(t, serve(t, always(announced(reply{status: 422}))).URL), true},
		"throttled by the API":   {connect(t, serve(t, always(announced(reply{status: 429}))).URL), true},
		"answered by a gateway":  {connect(t, serve(t, always(reply{status: 404, body: "<html>"})).URL), true},
		"answered with nonsense": {connect(t, serve(t, always(reply{status: 201, body: "<html>"})).URL), true},
		"an outage":              {connect(t, serve(t, always(reply{status: 503})).URL), true},
		"no answer":              {connect(t, serve(t, drop("")).URL), true},
		"half an answer":         {connect(t, serve(t, drop("HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{")).URL), true},
		"no connection":          {connect(t, closed.URL), false},
		"a transport that is silent": {connect(t, "https://connect.example.com", func(o *Options) {
			o.Transport = transportFunc(func(*http.Request) (*http.Response, error) { return nil, io.EOF })
		}), true},
	} {
		_, err := tt.client.Artefacts().Create(t.Context(), ArtefactCreate{Name: "kiosk"})
		if Sent(err) != tt.want || Sent(fmt.Errorf("in passing: %w", err)) != tt.want && err != nil {
			t.Errorf("%s: %t of %v", name, Sent(err), err)
		}
	}

	throttled := connect(t, serve(t, always(announced(reply{status: 429}))).URL)
	_ = create(t, throttled)
	if err := create(t, throttled); Sent(err) {
		t.Errorf("the budget refused it: %v", err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := throttled.Artefacts().Create(over, ArtefactCreate{}); Sent(err) {
		t.Errorf("its context was over: %v", err)
	}
	if _, err := throttled.Deployments().Create(t.Context(), "..", "a1"); Sent(err) {
		t.Errorf("it could not be asked for: %v", err)
	}
	if Sent(io.EOF) {
		t.Error("the error of another package was sent")
	}
}

// What was reserved is not sent any more when a 429 has come meanwhile: writing down what is about to be
// made can take long.
func TestReservedIsNotSentAfter429(t *testing.T) {
	s := script(t, announced(pageOf(0)), announced(reply{status: 429}))
	client := connect(t, s.URL)
	if _, err := collect(client.Artefacts().List().All(t.Context())); err != nil {
		t.Fatal(err)
	}
	reserved, release, err := client.Reserve(t.Context(), "create artefact")
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	mustBeOf(t, create(t, client), ErrThrottled)
	_, err = client.Artefacts().Create(reserved, ArtefactCreate{Name: "kiosk"})
	mustBeOf(t, err, ErrThrottled)
	if n := len(s.requests()); Sent(err) || n != 2 {
		t.Errorf("it was sent: %d requests, %v", n, err)
	}
}

// unresolving is the default transport with a resolver that does not know the
// host, so that the test needs no network.
func unresolving(t *testing.T, unknown string) http.RoundTripper {
	t.Helper()
	transport, err := NewTransport(nil)
	if err != nil {
		t.Fatal(err)
	}
	custom, ok := transport.(*http.Transport)
	if !ok {
		t.Fatalf("the default transport is a %T", transport)
	}
	custom.Proxy = nil
	dial := custom.DialContext
	custom.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if host, _, _ := net.SplitHostPort(address); host == unknown {
			return nil, &net.OpError{Op: "dial", Net: network, Err: &net.DNSError{Err: "no such host", Name: host, Server: "10.96.0.10:53", IsNotFound: true}}
		}
		return dial(ctx, network, address)
	}
	return custom
}

type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A transport that does not tell whether it had a connection is not believed to
// have sent nothing, and what it says may hold anything.
func TestForeignTransport(t *testing.T) {
	foreign := transportFunc(func(r *http.Request) (*http.Response, error) {
		return nil, fmt.Errorf("proxy said no to %s with %s", r.URL, r.Header.Get("Authorization"))
	})
	err := create(t, connect(t, "https://connect.example.com", func(o *Options) { o.Transport = foreign }))
	mustBeOf(t, err, ErrUnavailable, ErrOutcomeUnknown)
	mustBeSafe(t, err.Error())
	if !strings.Contains(err.Error(), "Bearer [redacted]") {
		t.Errorf("the reason is lost: %v", err)
	}
}

func TestCancelledCall(t *testing.T) {
	t.Run("before it is sent", func(t *testing.T) {
		s := serve(t, always(reply{status: 201}))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := connect(t, s.URL).Deployments().Create(ctx, "p1", "a1")
		mustBeOf(t, err, ErrUnavailable)
		if !errors.Is(err, context.Canceled) || len(s.requests()) != 0 {
			t.Errorf("%v after %d requests", err, len(s.requests()))
		}
	})
	t.Run("while the API works on it", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := serve(t, func(_ http.ResponseWriter, r *http.Request) {
			cancel()
			<-r.Context().Done()
		})
		_, err := connect(t, s.URL).Deployments().Create(ctx, "p1", "a1")
		mustBeOf(t, err, ErrUnavailable, ErrOutcomeUnknown)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the cause is lost: %v", err)
		}
	})
}

func TestAttemptIsBounded(t *testing.T) {
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	err := get(t, connect(t, s.URL, func(o *Options) { o.Timeout = 1 }))
	mustBeOf(t, err, ErrUnavailable)
	if !strings.Contains(err.Error(), "no answer in time") {
		t.Error(err)
	}
}

func TestQueriesStayOutOfErrors(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	_, err := collect(connect(t, closed.URL).Devices().List("tag:secret-project").All(t.Context()))
	if err == nil || strings.Contains(fmt.Sprintf("%v %#v", err, err), "secret-project") {
		t.Errorf("%#v", err)
	}
}

func TestIDsCannotReachBeyondTheirCollection(t *testing.T) {
	s := serve(t, always(announced(reply{status: 204})))
	client := connect(t, s.URL)
	for _, id := range []string{"", ".", ".."} {
		err := client.Artefacts().Delete(t.Context(), id)
		mustBeOf(t, err, ErrInvalid)
	}
	if len(s.requests()) != 0 {
		t.Fatalf("it was sent: %v", s.requests())
	}
	if err := client.Artefacts().Delete(t.Context(), "../devices/1?x=y"); err != nil {
		t.Fatal(err)
	}
	if got := s.requests()[0].URI; got != "/organisation/artefacts/..%2Fdevices%2F1%3Fx=y" {
		t.Errorf("asked for %s", got)
	}
}

func TestUselessTokenIsNotSent(t *testing.T) {
	s := serve(t, always(reply{status: 200}))
	api, err := New(Options{BaseURL: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"", "rporg_a\nrporg_b", "rporg_é", "two words"} {
		err := get(t, api.ClientFor(NewSecret(token)))
		mustBeOf(t, err, ErrUnauthorized)
	}
	if len(s.requests()) != 0 {
		t.Error("it was sent")
	}
}

func FuzzParseError(f *testing.F) {
	for _, seed := range []struct {
		status uint16
		media  string
		body   string
	}{
		{422, "application/json; charset=utf-8", `{"message":"Validation failed: Public key is invalid"}`},
		{429, "text/plain", "Throttled"},
		{404, "text/html", "<html>nothing here</html>"},
		{401, "", ""},
		{400, "application/json", `{"error":"token ` + testToken + `"}`},
		{401, "text/plain", "rporg_\x00" + testToken[6:]},
		{401, "text/plain", "rporg_\u200b" + testToken[6:]},
		{401, "text/plain", testToken[:10] + testToken + testToken[10:]},
		{500, "application/json", `{"message":"\u0072poak_3vQB7B6MrG"}`},
		{502, "text/plain", strings.Repeat("é", 400)},
		{200, "\x00;;", "\xff\xfe"},
	} {
		f.Add(seed.status, seed.media, []byte(seed.body))
	}
	f.Fuzz(func(t *testing.T, status uint16, media string, body []byte) {
		req := &request{operation: "create artefact", method: http.MethodPost}
		ans := &answer{status: int(status), header: http.Header{"Content-Type": {media}}, body: body}
		token := NewSecret(testToken)
		api := func(context.Context, *request) (*answer, error) { return ans, nil }
		if ans, err := redact(token)(api)(t.Context(), req); err != nil || ans.status/100 != 2 && ans.body != nil {
			t.Fatalf("%+v, %v", ans, err)
		}
		k := knowledge{announcement: announcement(status % 3), revision: Revision(status / 3 % 3)}
		m := k.meaningOf(req, ans)
		if m == accepted {
			return
		}
		err := answerError(req, ans, m, k)
		mustBeSafe(t, err.Error())
		mustBeSafe(t, Message(err))
		if len(err.kinds) == 0 {
			t.Errorf("%v is of no kind", err)
		}
	})
}
