// SPDX-License-Identifier: Apache-2.0

package connectsim_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"rpi-connect.dev/operator/internal/connectsim"
)

func TestTheJournal(t *testing.T) {
	onBothRevisions(t, func(s env) {
		w := s.populate()
		w.send(request{"GET", "/organisation/devices?query=tag:lab&page=1", nil, http.Header{"User-Agent": {"story/1"}}}).is(200)
		w.call("POST", authKeys, `{"description":"confidential"}`).is(201)
		w.get(w.fill("/organisation/deployments/{deployment}")).is(200)
		w.send(request{"DELETE", w.fill("/organisation/devices/{device}"), nil, bearer("rporg_stranger1111111111111111")}).is(401)
		w.get("/organisation/nothing?x=1").is(404)
		w.exchange(w.key.Secret)

		var got []string
		for _, r := range w.sim.Journal() {
			if r.Time != w.clock.Now() || r.Faulty {
				t.Errorf("noted %+v", r)
			}
			got = append(got, fmt.Sprintf("%s %s %s ?%s %s %d", r.Method, r.Route, r.Path, r.Query, r.Organisation, r.Status))
		}
		want := []string{
			"GET /organisation/devices /organisation/devices ?query=tag:lab&page=1 organisation-1 200",
			"POST /organisation/auth-keys /organisation/auth-keys ? organisation-1 201",
			w.fill("GET /organisation/deployments/{id} /organisation/deployments/{deployment} ? organisation-1 200"),
			w.fill("DELETE /organisation/devices/{id} /organisation/devices/{device} ?  401"),
			"GET /organisation/nothing /organisation/nothing ?x=1 organisation-1 404",
			"POST /client/auth-key-exchange /client/auth-key-exchange ?  200",
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("the journal has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if w.sim.Journal()[0].UserAgent != "story/1" || w.org.Name() != "organisation-1" {
			t.Errorf("noted %+v of %s", w.sim.Journal()[0], w.org.Name())
		}

		// Bodies are in it, and no token is.
		journal := w.sim.Journal()
		if journal[1].Body != `{"description":"confidential"}` || !strings.Contains(journal[1].Answer, `"secret":"[redacted]"`) || journal[5].Answer != `{"access_token":"[redacted]"}` {
			t.Errorf("the bodies are %q, %q, %q", journal[1].Body, journal[1].Answer, journal[5].Answer)
		}
		all := fmt.Sprintf("%+v", journal)
		for _, secret := range []string{"rporg_", "rpoak_", "rpdev_", "Bearer"} {
			if strings.Contains(all, secret) {
				t.Errorf("the journal has %q: %s", secret, all)
			}
		}
	})
}

func TestCounting(t *testing.T) {
	s := begin(t, connectsim.Options{})
	s.exchange(s.org.AddAuthKey("lab", "", nil, 1).Secret)
	s.get(artefacts)
	s.get(artefacts + "?page=2")
	s.get(artefacts + "/0")
	s.call("POST", artefacts, `{}`)
	s.send(request{"GET", artefacts, nil, nobody})
	for pattern, want := range map[string]int{
		"": 5, "GET": 4, "GET " + artefacts: 3, "GET " + artefacts + "/{id}": 1, "POST " + artefacts: 1, "DELETE": 0,
		"POST /client/auth-key-exchange": 1, // a device's, counted by its name alone
	} {
		if got := s.sim.Count(pattern); got != want {
			t.Errorf("%q counts %d, want %d", pattern, got, want)
		}
	}
	s.sim.ResetJournal()
	if got := s.sim.Count(""); got != 0 || len(s.sim.Journal()) != 0 {
		t.Errorf("%d are left", got)
	}
}

// The journal keeps the newest requests, and knows how many there were.
func TestTheJournalIsBounded(t *testing.T) {
	s := begin(t, connectsim.Options{JournalSize: 3})
	if got := s.sim.Journal(); got == nil || len(got) != 0 {
		t.Errorf("before anything it is %v", got)
	}
	for i := range 50 {
		s.get(fmt.Sprint(artefacts, "?page=", i))
		s.get(fmt.Sprint("/organisation/nothing/", i))
		s.get(fmt.Sprint("/nothing/", i))
	}
	var got []string
	for _, r := range s.sim.Journal() {
		got = append(got, r.Path+"?"+r.Query)
	}
	if want := "[/organisation/artefacts?page=49 /organisation/nothing/49? /nothing/49?]"; fmt.Sprint(got) != want {
		t.Errorf("it keeps %v, want %v", got, want)
	}
	for pattern, want := range map[string]int{"": 100, "GET": 100, "GET " + artefacts: 50, "POST": 0} {
		if got := s.sim.Count(pattern); got != want {
			t.Errorf("%q counts %d, want %d", pattern, got, want)
		}
	}
	s.sim.ResetJournal()
	if got := s.sim.Count(""); got != 0 || len(s.sim.Journal()) != 0 {
		t.Errorf("%d are left", got)
	}
}

// Who counts what cannot be would count nothing for ever.
func TestCountingWhatThereIsNot(t *testing.T) {
	s := begin(t, connectsim.Options{})
	for _, pattern := range []string{"GET /organisation/artefact", "GET /organisation/artefacts?page=1", "FETCH", "/organisation/artefacts"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q is counted", pattern)
				}
			}()
			s.sim.Count(pattern)
		}()
	}
}

// What is secret does not get into the journal, however it is written.
func TestTheJournalKeepsNoSecret(t *testing.T) {
	s := begin(t, connectsim.Options{})
	const secret = "hush"
	for _, r := range []request{
		{method: "POST", path: artefacts, body: `{"name":"a","uri":"https://user:hush@example.com/a?sig=hush&x=\"hush","checksum":"` + checksum + `"}`},
		{method: "POST", path: artefacts, body: `{"name":"b","uri":"ftp://hush@example.com/b?hush#top"}`},
		{method: "POST", path: artefacts, body: url.Values{"name": {"c"}, "uri": {"https://u:hush@example.com/c?token=hush"}, "checksum": {checksum}}},
		{method: "POST", path: "/client/auth-key-exchange", body: `{"auth_key" : "hush"}`},
		{method: "POST", path: "/client/auth-key-exchange", body: `{"auth_key":"hush`},
		{method: "POST", path: authKeys, body: `{"description":"Bearer hush, rpoak_hush"}`},
		{method: "GET", path: "/organisation/devices/rporg_hush?query=rpdev_hush", header: http.Header{"User-Agent": {"curl rporg_hush"}}},
		{method: "GET", path: "/organisation/devices?query=%22rpuak_hush"},
		{method: "POST", path: authKeys, body: url.Values{"description": {`it is "rpoak_hush`}}},
		{method: "POST", path: authKeys, body: `{"description":"` + strings.Repeat("x", 4050) + ` rpoak_hushhushhushhushhush"}`},
	} {
		s.send(r)
	}
	journal := s.sim.Journal()
	for _, r := range journal {
		if text := fmt.Sprintf("%+v", r); strings.Contains(text, secret) {
			t.Errorf("it has %s", text)
		}
	}
	if want := "checksum=" + checksum + "&name=c&uri=https://[redacted]@example.com/c?[redacted]"; journal[2].Body != want {
		t.Errorf("a form is %q, want %q", journal[2].Body, want)
	}
	if want := `{"name":"b","uri":"ftp://[redacted]@example.com/b?[redacted]#top"}`; journal[1].Body != want {
		t.Errorf("JSON is %q, want %q", journal[1].Body, want)
	}
}

// Bodies are kept of the newest thousand requests.
func TestTheJournalForgetsBodiesFirst(t *testing.T) {
	s := begin(t, connectsim.Options{RateLimit: 1 << 20})
	for range 1001 {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, artefacts, strings.NewReader(`{}`))
		r.Header.Set("Content-Type", "application/json")
		s.sim.ServeHTTP(httptest.NewRecorder(), r)
	}
	journal := s.sim.Journal()
	if journal[0].Body+journal[0].Answer != "" || journal[1].Body == "" || journal[1000].Answer == "" {
		t.Errorf("it keeps %+v and %+v", journal[0], journal[1])
	}
}
