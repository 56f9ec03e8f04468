// SPDX-License-Identifier: Apache-2.0

package connectsim_test

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"rpi-connect.dev/operator/internal/connectsim"
)

// beginAdmin serves the simulator as the program does.
func beginAdmin(t *testing.T) stage {
	t.Helper()
	s := begin(t, connectsim.Options{})
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	server := httptest.NewUnstartedServer(nil)
	server.Config.Handler = s.sim.Admin(ctx, "http://"+server.Listener.Addr().String())
	server.Start()
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// admin asks the simulator's own interface, which needs no token.
func (s stage) admin(method, path, body string) answer {
	s.Helper()
	var sent any
	if body != "" {
		sent = body
	}
	return s.send(request{method, path, sent, nobody})
}

func TestTheAPIIsBesideTheAdminEndpoints(t *testing.T) {
	s := beginAdmin(t)
	s.get(artefacts).is(200).allows("5000 4999 1800")
	s.admin("GET", artefacts, "").is(401)
	for _, path := range []string{"/_sim/nothing", "/_sim", "//_sim/journal", "/_sim//journal"} {
		s.admin("GET", path, "")
	}
	s.admin("GET", "/_sim/nothing", "").is(404)
	if journal := s.sim.Journal(); len(journal) != 2 { // the simulator's own interface is not in it
		t.Errorf("the journal has %+v", journal)
	}
}

func TestAdminState(t *testing.T) {
	s := beginAdmin(t)
	w := s.populate()
	s.sim.AddOrganisation("rporg_other1111111111111111111")
	a := s.admin("GET", "/_sim/state", "").is(200)
	state := a.object()
	s.same(state["organisation-2"], `{"artefacts":[],"auth_keys":[],"device_identities":[],"devices":[],"deployments":[]}`)
	first := state["organisation-1"].(object)
	for kind, path := range map[string]string{
		"artefacts": artefacts, "auth_keys": authKeys, "device_identities": identities, "devices": devices, "deployments": runs(w),
	} {
		rows, _ := json.Marshal(s.list(path).rows)
		s.same(first[kind], string(rows))
	}
	for _, secret := range []string{token, "rporg_", "rpoak_", "rpdev_"} {
		if strings.Contains(a.text, secret) {
			t.Errorf("the state has %q: %s", secret, a.text)
		}
	}
}

func TestAdminJournal(t *testing.T) {
	s := beginAdmin(t)
	s.get(artefacts + "?page=1")
	a := s.admin("GET", "/_sim/journal", "").is(200)
	s.same(json.RawMessage(a.text), `[{"time":"2026-03-01T10:30:00.6Z","method":"GET","route":"/organisation/artefacts","path":"/organisation/artefacts",
		"query":"page=1","organisation":"organisation-1","status":200,"user_agent":"Go-http-client/1.1",
		"answer":"{\"artefacts\":[],\"meta\":{\"page\":1,\"per_page\":100,\"total_count\":0,\"total_pages\":0}}"}]`)
	s.admin("DELETE", "/_sim/journal", "").is(204).empty()
	s.admin("GET", "/_sim/journal", "").is(200).lists("[]")
	if got := s.sim.Journal(); len(got) != 0 { // what is asked of the simulator itself is not in it
		t.Errorf("the journal has %+v", got)
	}
}

func TestAdminFaults(t *testing.T) {
	s := beginAdmin(t)
	s.admin("POST", "/_sim/faults", `{"Route":"GET /organisation/artefacts","Skip":1,"Times":2,"Status":503,"Body":"down","ContentType":"text/plain","Header":{"X-Story":["1"]}}`).is(204).empty()
	s.admin("POST", "/_sim/faults", `{"route":"GET /organisation/devices","status":500}`).is(204)
	got := []int{}
	for range 4 {
		got = append(got, s.get(artefacts).status)
	}
	if !reflect.DeepEqual(got, []int{200, 503, 503, 200}) {
		t.Errorf("answered %v", got)
	}
	s.get(devices).is(500)
	s.admin("DELETE", "/_sim/faults", "").is(204)
	s.get(devices).is(200)
	for _, body := range []string{`junk`, ``, `{}{}`} {
		s.admin("POST", "/_sim/faults", body).is(400)
	}

	// What no request could meet, or what cannot be, is refused in words.
	for body, why := range map[string]string{
		`{"Status":"many"}`:                      "Status of a fault cannot be a string",
		`{"Nothing":1}`:                          `unknown field "Nothing"`,
		`{"Route":"GET /organisation/artefact"}`: "GET has /organisation/artefacts, ",
		`{"Route":"GET", "Status":42}`:           "Status 42",
		`{"Late":"soon","Drop":true}`:            `invalid duration "soon"`,
	} {
		if a := s.admin("POST", "/_sim/faults", body).is(422); !strings.Contains(a.text, why) {
			t.Errorf("%s: %s", body, a.text)
		}
	}
	s.admin("GET", "/_sim/faults", "").is(200).lists("[]")
}

// Faults and how often they were met can be seen, and each can be ended.
func TestAdminListsFaults(t *testing.T) {
	s := beginAdmin(t)
	made := s.admin("POST", "/_sim/faults", `{"Route":"GET /organisation/artefacts","Skip":1,"Times":1,"Status":503,"Delay":"1ms"}`).is(204)
	s.admin("POST", "/_sim/faults", `{"Drop":true,"After":true,"Delay":1000000}`).is(204)
	if made.header.Get("Location") != "/_sim/faults/1" {
		t.Errorf("it is at %q", made.header.Get("Location"))
	}
	s.sim.Inject(connectsim.Fault{Route: "POST", RateHeaders: new(false)})
	if _, err := s.try(t.Context(), request{method: "GET", path: artefacts}); err == nil {
		t.Error("the one that is not spared was not met")
	}
	s.get(artefacts).is(503)
	s.admin("GET", "/_sim/faults", "").is(200).lists(`[
		{"id":1,"fault":{"Route":"GET /organisation/artefacts","Skip":1,"Times":1,"Status":503,"Delay":"1ms"},"skipped":1,"hits":1,"over":true},
		{"id":2,"fault":{"Drop":true,"After":true,"Delay":"1ms"},"skipped":0,"hits":1,"over":false},
		{"id":3,"fault":{"Route":"POST","RateHeaders":false},"skipped":0,"hits":0,"over":false}]`)
	s.admin("DELETE", "/_sim/faults/2", "").is(204).empty()
	s.admin("DELETE", "/_sim/faults/2", "").is(404)
	s.admin("DELETE", "/_sim/faults/x", "").is(404)
	s.get(artefacts).is(200)
}

// lists checks that the answer is a list.
func (a answer) lists(want string) {
	a.Helper()
	a.same(json.RawMessage(a.text), want)
}

func TestAdminBilling(t *testing.T) {
	s := beginAdmin(t)
	w := s.populate()
	s.admin("PUT", "/_sim/billing", `{"set_up":false}`).is(204).empty()
	w.deploy().is(403)
	s.admin("PUT", "/_sim/billing", `{"set_up":true}`).is(204)
	w.deploy().is(201)
	s.admin("PUT", "/_sim/billing", `[]`).is(400)
}

func TestAdminLatency(t *testing.T) {
	s := beginAdmin(t)
	s.admin("PUT", "/_sim/latency", `{"milliseconds":3600000}`).is(204).empty()
	met := s.sim.Inject(connectsim.Fault{}) // changes nothing but its count
	ctx, giveUp := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := s.try(ctx, request{method: "GET", path: artefacts})
		done <- err
	}()
	s.await("the request", func() bool { return met.Hits() == 1 })
	giveUp()
	if err := <-done; err == nil {
		t.Error("it was answered at once")
	}
	s.admin("PUT", "/_sim/latency", `{"milliseconds":0}`).is(204)
	s.get(artefacts).is(200)
	s.admin("PUT", "/_sim/latency", `{"milliseconds":"long"}`).is(400)
}

func TestAdminPis(t *testing.T) {
	s := beginAdmin(t)
	w := s.populate()
	s.admin("POST", "/_sim/pis", `{"hostname":"shop","serial_number":"7","auth_key":"rpoak_111111111111111111111111"}`).is(422)
	s.admin("PUT", "/_sim/pis/shop", `{"offline":true}`).is(404)
	s.admin("POST", "/_sim/pis", `{"name":"shop"}`).is(400)
	s.admin("POST", "/_sim/pis", `{"hostname":"shop","serial_number":"7","auth_key":" `+w.key.Secret+` "}`).is(201)
	page := s.list(devices + "?query=shop")
	page.has("serial_number", "7")

	path := devices + "/" + page.rows[0]["id"].(string) + "/deployments"
	deploy := func() string { return s.call("POST", path, w.fill(`{"artefact_id":"{artefact}"}`)).id() }
	w.awaitState(deploy(), "succeeded")
	s.admin("PUT", "/_sim/pis/shop", `{"fail_with":"Checksum mismatch"}`).is(204).empty()
	w.awaitState(deploy(), "failed Checksum mismatch")
	s.admin("PUT", "/_sim/pis/shop", `{"pace":1}`).is(400)
}
