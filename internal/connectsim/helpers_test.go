// SPDX-License-Identifier: Apache-2.0

package connectsim_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"rpi-connect.dev/operator/internal/connectsim"
)

// These tests read the specification of the API a second time: they send plain
// HTTP and know nothing of the project's own client.

const (
	checksum = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	token    = "rporg_7Hk2pQ9xWcVbNmZt4RsYdFgA"

	// now is what the API makes of the clock's half past ten and a fraction.
	now = "2026-03-01T10:30:00Z"
)

// object is the JSON of one object.
type object = map[string]any

// env is a simulator that is being served, with one organisation, at half past
// ten on the first of March 2026.
type env struct {
	*testing.T

	sim   *connectsim.Server
	org   *connectsim.Organisation
	clock *connectsim.Clock
	url   string
	older bool
}

func begin(t *testing.T, options connectsim.Options) env {
	t.Helper()
	clock := connectsim.NewClock(time.Date(2026, 3, 1, 10, 30, 0, 600_000_000, time.UTC))
	options.Now = clock.Now
	sim := connectsim.New(options)
	server := httptest.NewServer(sim)
	t.Cleanup(server.Close)
	return env{
		T: t, sim: sim, org: sim.AddOrganisation(token), clock: clock,
		url: server.URL, older: options.Revision == connectsim.Older,
	}
}

func onBothRevisions(t *testing.T, story func(env)) {
	t.Helper()
	for _, revision := range []connectsim.Revision{connectsim.Older, connectsim.Current} {
		t.Run(string(revision), func(t *testing.T) { story(begin(t, connectsim.Options{Revision: revision})) })
	}
}

// request is one to be sent: with the organisation's token unless it brings its
// own header.
type request struct {
	method, path string
	// body is JSON, or a form if it is url.Values; its Content-Type goes with
	// it.
	body   any
	header http.Header
}

// answer is what came back.
type answer struct {
	env

	sent   string
	status int
	header http.Header
	text   string
}

// oneByOne makes a connection for every request: a dropped one would be retried
// behind the test's back if it had served before.
var oneByOne = &http.Transport{DisableKeepAlives: true}

// try sends a request; the error is that of the connection.
func (s env) try(ctx context.Context, r request) (answer, error) {
	s.Helper()
	header := http.Header{"Authorization": {"Bearer " + token}}
	text := ""
	switch body := r.body.(type) {
	case nil:
	case url.Values:
		text = body.Encode()
		header.Set("Content-Type", "application/x-www-form-urlencoded")
	case string:
		text = body
		header.Set("Content-Type", "application/json")
	default:
		s.Fatalf("no body can be made of %T", body)
	}
	maps.Copy(header, r.header)
	req, err := http.NewRequestWithContext(ctx, r.method, s.url+r.path, strings.NewReader(text))
	if err != nil {
		s.Fatal(err)
	}
	req.Header = header
	a := answer{env: s, sent: r.method + " " + r.path + " " + text}
	res, err := oneByOne.RoundTrip(req)
	if err != nil {
		return a, err
	}
	defer func() { _ = res.Body.Close() }()
	got, err := io.ReadAll(res.Body)
	a.status, a.header, a.text = res.StatusCode, res.Header, string(got)
	return a, err
}

func (s env) send(r request) answer {
	s.Helper()
	a, err := s.try(s.Context(), r)
	if err != nil {
		s.Fatalf("%s: %v", a.sent, err)
	}
	return a
}

// call sends a request with the organisation's token.
func (s env) call(method, path string, body any) answer {
	s.Helper()
	return s.send(request{method: method, path: path, body: body})
}

func (s env) get(path string) answer {
	s.Helper()
	return s.call(http.MethodGet, path, nil)
}

// bearer is the header that shows a token.
func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

// nobody is the header of who shows none.
var nobody = http.Header{"Authorization": nil}

// is checks the status.
func (a answer) is(status int) answer {
	a.Helper()
	if a.status != status {
		a.Fatalf("%s: answered %d %s, want %d", a.sent, a.status, a.text, status)
	}
	return a
}

// object reads one object.
func (a answer) object() object {
	a.Helper()
	if got := a.header.Get("Content-Type"); got != "application/json; charset=utf-8" {
		a.Errorf("%s: the body is %q", a.sent, got)
	}
	var o object
	if err := json.Unmarshal([]byte(a.text), &o); err != nil {
		a.Fatalf("%s: %v in %s", a.sent, err, a.text)
	}
	return o
}

// says checks that the answer is a refusal in the published form.
func (a answer) says(status int, message string) {
	a.Helper()
	if got := a.is(status).object(); !reflect.DeepEqual(got, object{"message": message}) {
		a.Errorf("%s: says %s, want %q", a.sent, a.text, message)
	}
}

// empty checks that there is no body.
func (a answer) empty() {
	a.Helper()
	if a.text != "" {
		a.Errorf("%s: answered %q, want nothing", a.sent, a.text)
	}
}

// deleted checks that the answer is that to a DELETE: the object, or nothing in
// the older revision.
func (a answer) deleted(object string) {
	a.Helper()
	if a.older {
		a.is(http.StatusNoContent).empty()
		return
	}
	a.same(a.is(http.StatusOK).object(), object)
}

// id is the id in the answer to a creation.
func (a answer) id() string {
	a.Helper()
	return a.is(http.StatusCreated).object()["id"].(string)
}

// samef is same with values in the JSON, as fmt.Sprintf puts them.
func (s env) samef(got any, format string, values ...any) {
	s.Helper()
	s.same(got, fmt.Sprintf(format, values...))
}

// same compares what came with JSON.
func (s env) same(got any, expected string) {
	s.Helper()
	var want any
	if err := json.Unmarshal([]byte(expected), &want); err != nil {
		s.Fatalf("%v in %s", err, expected)
	}
	text, _ := json.Marshal(got)
	var plain any
	if err := json.Unmarshal(text, &plain); err != nil {
		s.Fatal(err)
	}
	if !reflect.DeepEqual(plain, want) {
		s.Errorf("got  %s\nwant %s", text, expected)
	}
}

// listing is a page of a listing.
type listing struct {
	env

	rows []object
	meta map[string]int
}

// list reads a page; the plural is in the answer as the last part of the path is,
// with an underscore.
func (s env) list(path string) listing {
	s.Helper()
	parsed, err := url.Parse(path)
	if err != nil {
		s.Fatal(err)
	}
	plural := strings.ReplaceAll(parsed.Path[strings.LastIndex(parsed.Path, "/")+1:], "-", "_")
	a := s.get(path).is(http.StatusOK)
	if keys := slices.Sorted(maps.Keys(a.object())); !slices.Equal(keys, slices.Sorted(slices.Values([]string{plural, "meta"}))) {
		s.Fatalf("%s: the answer has %v", path, keys)
	}
	var whole map[string]json.RawMessage
	if err := json.Unmarshal([]byte(a.text), &whole); err != nil {
		s.Fatal(err)
	}
	l := listing{env: s}
	if err := json.Unmarshal(whole[plural], &l.rows); err != nil || l.rows == nil {
		s.Fatalf("%s: no rows (%v) in %s", path, err, a.text)
	}
	if err := json.Unmarshal(whole["meta"], &l.meta); err != nil {
		s.Fatalf("%s: %v in %s", path, err, a.text)
	}
	return l
}

// has checks one field of all rows.
func (l listing) has(field string, want ...any) {
	l.Helper()
	got := []any{}
	for _, row := range l.rows {
		got = append(got, row[field])
	}
	if len(got)+len(want) != 0 && !reflect.DeepEqual(got, want) {
		l.Errorf("listed %v, want %v", got, want)
	}
}

// await waits until the condition holds, which it looks at whenever the simulator
// changes.
func (s env) await(what string, condition func() bool) {
	s.Helper()
	deadline := time.After(20 * time.Second)
	for {
		changed := s.sim.Changed()
		if condition() {
			return
		}
		select {
		case <-changed:
		case <-time.After(5 * time.Millisecond): // not everything is a change: a fault that is met, say
		case <-deadline:
			s.Fatalf("waited in vain for %s", what)
		}
	}
}
