// SPDX-License-Identifier: Apache-2.0

package connectsim_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rpi-connect.dev/operator/internal/connectsim"
)

// beginAdmin serves the simulator as the program does.
func beginAdmin(t *testing.T) env {
	t.Helper()
	return beginAdminOf(begin(t, connectsim.Options{}))
}

func beginAdminOf(s env) env {
	s.Helper()
	ctx, stop := context.WithCancel(context.Background())
	s.Cleanup(stop)
	server := httptest.NewUnstartedServer(nil)
	server.Config.Handler = s.sim.Admin(ctx, "http://"+server.Listener.Addr().String())
	server.Start()
	s.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// admin asks the simulator's own interface, which needs no token.
func (s env) admin(method, path, body string) answer {
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

// Pis that sign in in three ways, are what they are said to be, and are steered.
func TestAdminPisOfAllSorts(t *testing.T) {
	s := beginAdmin(t)
	w := s.populate()
	for _, body := range []string{
		`{"hostname":"a","serial_number":"20000000c0ffee01","model":"5","memory":"8gb","os":"raspios-13","tags":["lab"],"poll_milliseconds":1}`,
		`{"hostname":"b","identity":true,"model":"cm5lite","tags":["lab"],"poll_milliseconds":1}`,
		`{"hostname":"c","auth_key":"` + w.key.Secret + `","old_client":true,"offline":true,"work_milliseconds":1}`,
	} {
		s.admin("POST", "/_sim/pis", body).is(201)
	}
	page := s.list(devices + "?query=tag:lab")
	page.has("name", "a", "b")
	s.same([]any{page.rows[0]["board"], page.rows[1]["filters"]}, `[{"model":"Raspberry Pi 5","revision":"1.0","memory":"8 GB"},{"model":"cm5lite"}]`)
	serial := page.rows[1]["serial_number"].(string)
	s.list(identities).has("description", "connectsim Raspberry Pi CM5 Lite "+serial, "pi5")
	if got := s.list(devices + "?query=c").rows; len(got) == 0 || got[len(got)-1]["board"] != nil {
		t.Errorf("c is %v", got)
	}

	var pis []object
	if err := json.Unmarshal([]byte(s.admin("GET", "/_sim/pis", "").is(200).text), &pis); err != nil {
		t.Fatal(err)
	}
	s.samef(pis[1], `{"hostname":"b","serial_number":%q,"organisation":"organisation-1","device_id":%q,"offline":false,"fail_with":"","fail_share":0,"fail_uri":"","remote_update":true,"work_milliseconds":0,"poll_milliseconds":1}`,
		serial, page.rows[1]["id"])
	if pis[2]["offline"] != true || pis[2]["work_milliseconds"] != 1.0 || len(pis) != 3 {
		t.Errorf("there are %v", pis)
	}

	// What is not given stays: it fails, and goes on polling as often.
	a, b := page.rows[0]["id"].(string), page.rows[1]["id"].(string)
	deploy := func(device string) string {
		return s.call("POST", devices+"/"+device+"/deployments", w.fill(`{"artefact_id":"{artefact}"}`)).id()
	}
	s.admin("PUT", "/_sim/pis/b", `{"fail_with":"no space"}`).is(204)
	w.awaitState(deploy(b), "failed no space")
	s.admin("PUT", "/_sim/pis/b", `{"fail_with":"","work_milliseconds":2}`).is(204)
	w.awaitState(deploy(b), "succeeded")

	// Online without remote update, it leaves everything pending.
	s.admin("PUT", "/_sim/pis/a", `{"remote_update":false}`).is(204)
	waiting := deploy(a)
	w.awaitState(deploy(b), "succeeded") // as long as another one takes
	w.awaitState(waiting, "pending")
	s.admin("PUT", "/_sim/pis/a", `{"remote_update":true}`).is(204)
	w.awaitState(waiting, "succeeded")

	// Unplugged, its device stays, and so does what it was to do.
	s.admin("DELETE", "/_sim/pis/a", "").is(204)
	s.admin("DELETE", "/_sim/pis/a", "").is(404)
	left := deploy(a)
	w.awaitState(deploy(b), "succeeded")
	w.awaitState(left, "pending")
	s.admin("POST", "/_sim/pis", `{"hostname":"a","serial_number":"20000000c0ffee01"}`).is(201) // plugged in again
	w.awaitState(left, "succeeded")

	for body, why := range map[string]string{
		`{"hostname":"b"}`:                                             "already",
		`{"hostname":" "}`:                                             "hostname",
		`{"hostname":"a/b"}`:                                           "slash",
		`{"hostname":"x","organisation":"nowhere"}`:                    `no organisation "nowhere"`,
		`{"hostname":"x","identity":true,"auth_key":"rpoak_1"}`:        "give one of them",
		`{"hostname":"x","tags":["a"],"auth_key":"rpoak_1"}`:           "the key's",
		`{"hostname":"x","tags":["Not!"]}`:                             "at most 10 tags",
		`{"hostname":"x","model":"6"}`:                                 `no model "6"`,
		`{"hostname":"x","model":"5","memory":"3gb"}`:                  `no memory "3gb"`,
		`{"hostname":"x","model":"5","os":"Trixie"}`:                   `no value of "os:"`,
		`{"hostname":"x","memory":"8gb"}`:                              "model is unknown",
		`{"hostname":"x","model":"5","old_client":true}`:               "old client",
		`{"hostname":"x","work_milliseconds":-1}`:                      "not negative",
		`{"hostname":"x","poll_milliseconds":0}`:                       "more than nothing",
		`{"hostname":"x","fail_share":1.5}`:                            "between 0 and 1",
		`{"hostname":"x","auth_key":"rpoak_111111111111111111111111"}`: "x cannot sign in",
	} {
		if a := s.admin("POST", "/_sim/pis", body).is(422); !strings.Contains(a.text, why) {
			t.Errorf("%s: %s", body, a.text)
		}
	}
	s.admin("PUT", "/_sim/pis/b", `{"work_milliseconds":-1}`).is(422)
}

// A board that signs in as another device goes on as that one.
func TestAdminReplacesADevice(t *testing.T) {
	s := beginAdmin(t)
	w := s.populate()
	s.admin("POST", "/_sim/pis", `{"hostname":"shop","serial_number":"7","model":"5","tags":["lab"],"poll_milliseconds":1}`).is(201)
	before := s.list(devices + "?query=shop").rows[0]
	anew := s.admin("POST", "/_sim/pis/shop/replacement", "").is(201).object()
	if anew["id"] == before["id"] {
		t.Errorf("its id is still %s", anew["id"])
	}
	for _, field := range []string{"name", "serial_number", "tags", "filters"} {
		if fmt.Sprint(anew[field]) != fmt.Sprint(before[field]) {
			t.Errorf("its %s was %v and is %v", field, before[field], anew[field])
		}
	}
	s.list(devices+"?query=shop").has("id", anew["id"].(string))
	run := s.call("POST", devices+"/"+anew["id"].(string)+"/deployments", w.fill(`{"artefact_id":"{artefact}"}`)).id()
	w.awaitState(run, "succeeded")

	s.admin("POST", "/_sim/pis/nobody/replacement", "").is(404)
	s.call("DELETE", devices+"/"+anew["id"].(string), nil).is(200)
	if a := s.admin("POST", "/_sim/pis/shop/replacement", "").is(422); !strings.Contains(a.text, "signed in nowhere") {
		t.Error(a.text)
	}
}

// Behind another URL than its own, and with a certificate that nobody knows, Pis
// still reach the simulator and sign what is public.
func TestAdminPisBehindAPublicURL(t *testing.T) {
	s := begin(t, connectsim.Options{PublicURL: "https://connect.example.com/"})
	server := httptest.NewUnstartedServer(nil)
	server.Config.Handler = s.sim.Admin(t.Context(), "https://"+server.Listener.Addr().String())
	server.StartTLS()
	t.Cleanup(server.Close)
	s.url = server.URL
	client := s.keeping(server.Client().Transport.(*http.Transport))
	if h, err := client.ask(t.Context(), request{method: "POST", path: "/_sim/pis", body: `{"hostname":"b","identity":true}`}); err != nil || h.status != http.StatusCreated {
		t.Errorf("%+v %v", h, err)
	}
	if got := s.org.Devices(); len(got) != 1 || got[0].IdentityID == "" {
		t.Errorf("there is %+v", got)
	}
}

func TestAdminOrganisationsAndTokens(t *testing.T) {
	s := beginAdmin(t)
	const second, third = "rporg_second111111111111111111", "rporg_third1111111111111111111"
	devicesBy := func(token string) answer { return s.send(request{"GET", devices, nil, bearer(token)}) }
	s.same(s.admin("POST", "/_sim/organisations", `{"name":"shops","token":"`+second+`"}`).is(201).object(), `{"name":"shops","token":"`+second+`"}`)
	made := s.admin("POST", "/_sim/organisations", `{}`).is(201).object()
	if made["name"] != "organisation-3" || !strings.HasPrefix(made["token"].(string), "rporg_") {
		t.Errorf("made %v", made)
	}
	s.org.AddDevice(connectsim.Device{Name: "pi"})
	devicesBy(second).is(200).hasRows("devices", 0)
	s.admin("POST", "/_sim/pis", `{"hostname":"shop","organisation":"shops"}`).is(201)
	devicesBy(second).is(200).hasRows("devices", 1)
	devicesBy(token).is(200).hasRows("devices", 1)

	// A token is rotated: another one, and then the old one no more.
	s.same(s.admin("POST", "/_sim/tokens", `{"organisation":"shops","token":"`+third+`"}`).is(201).object(), `{"organisation":"shops","token":"`+third+`"}`)
	devicesBy(third).is(200).hasRows("devices", 1)
	s.admin("DELETE", "/_sim/tokens/"+second, "").is(204)
	s.admin("DELETE", "/_sim/tokens/"+second, "").is(404)
	devicesBy(second).is(401)
	devicesBy(third).is(200)
	if got := s.admin("POST", "/_sim/tokens", `{}`).is(201).object(); got["organisation"] != "organisation-1" {
		t.Errorf("it opens %v", got)
	}
	for path, bodies := range map[string][]string{
		"/_sim/organisations": {`{"name":"shops"}`, `{"token":"` + third + `"}`, `{"token":"rpoak_1"}`},
		"/_sim/tokens":        {`{"organisation":"nowhere"}`, `{"token":"` + third + `"}`, `{"token":"rpdev_1"}`},
	} {
		for _, body := range bodies {
			s.admin("POST", path, body).is(422)
		}
		s.admin("POST", path, `{"x":1}`).is(400)
	}
}

// hasRows checks how many rows a listing has.
func (a answer) hasRows(plural string, n int) {
	a.Helper()
	if got := len(a.object()[plural].([]any)); got != n {
		a.Errorf("%s: %d rows, want %d", a.sent, got, n)
	}
}

func TestAdminSpending(t *testing.T) {
	s := beginAdmin(t)
	const second = "rporg_second111111111111111111"
	s.sim.AddOrganisation(second)
	s.admin("POST", "/_sim/spend", `{"requests":4990}`).is(204).empty()
	s.admin("POST", "/_sim/spend", `{"requests":8,"token":"`+token+`"}`).is(204)
	s.get(artefacts).is(200).allows("5000 1 1800")
	s.send(request{"GET", artefacts, nil, bearer(second)}).is(200).allows("5000 9 1800")
	s.admin("POST", "/_sim/spend", `{"requests":-1}`).is(422)
	s.admin("POST", "/_sim/spend", `{"many":1}`).is(400)
}

func TestAdminClock(t *testing.T) {
	s := beginAdmin(t)
	s.same(s.admin("GET", "/_sim/clock", "").is(200).object(), `{"time":"2026-03-01T10:30:00.6Z"}`)
	s.admin("PUT", "/_sim/clock", `{"advance":"1h"}`).is(422) // the clock is the test's

	clock := connectsim.NewClock(s.clock.Now())
	sim := connectsim.New(connectsim.Options{Clock: clock, RateLimit: 1})
	s = beginAdminOf(env{T: t, sim: sim, org: sim.AddOrganisation(token), clock: clock})
	key := s.org.AddAuthKey("lab", "", nil, 1)
	s.get(artefacts).is(200)
	s.get(artefacts).is(429)
	s.same(s.admin("PUT", "/_sim/clock", `{"advance":"30m"}`).is(200).object(), `{"time":"2026-03-01T11:00:00.6Z"}`)
	s.get(artefacts).is(200).allows("1 0 3600")
	s.same(s.admin("PUT", "/_sim/clock", `{"time":"2026-03-02T10:30:01Z"}`).is(200).object(), `{"time":"2026-03-02T10:30:01Z"}`)
	s.send(exchangeOf(key.Secret)).is(401) // expired
	s.admin("PUT", "/_sim/clock", `{"advance":"-1m"}`).is(200)
	s.send(exchangeOf(key.Secret)).is(200)
	for _, body := range []string{`{}`, `{"advance":"1h","time":"2026-03-02T10:30:00Z"}`} {
		s.admin("PUT", "/_sim/clock", body).is(422)
	}
	s.admin("PUT", "/_sim/clock", `{"advance":"soon"}`).is(400)
}

func TestAClockThatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Date(2026, 3, 1, 10, 30, 0, 0, time.UTC)
		clock := connectsim.NewRunningClock(begin)
		tick := func(want time.Time) {
			t.Helper()
			time.Sleep(time.Second) // of the bubble
			if got := clock.Now(); !got.Equal(want) {
				t.Errorf("it shows %s, want %s", got, want)
			}
		}
		tick(begin.Add(time.Second))
		clock.Advance(time.Hour)
		tick(begin.Add(time.Hour + 2*time.Second))
		clock.Set(begin)
		tick(begin.Add(time.Second))
	})
}

// What the interface can do is listed by itself.
func TestAdminIndex(t *testing.T) {
	s := beginAdmin(t)
	text := s.admin("GET", "/_sim/", "").is(200).text
	for _, want := range []string{"GET /_sim/state ", "POST /_sim/faults ", "PUT /_sim/pis/{hostname} ", "PUT /_sim/clock "} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s in\n%s", want, text)
		}
	}
	s.admin("PATCH", "/_sim/state", "").is(405)
}

// The state is in the same order whenever one looks.
func TestAdminStateKeepsItsOrder(t *testing.T) {
	s := beginAdmin(t)
	w := s.populate()
	for range 30 {
		w.deploy()
	}
	first := s.admin("GET", "/_sim/state", "").text
	for range 5 {
		if again := s.admin("GET", "/_sim/state", "").text; again != first {
			t.Fatal("it is in another order")
		}
	}
	rows := s.admin("GET", "/_sim/state", "").object()["organisation-1"].(object)["deployments"].([]any)
	s.list(runs(w)).has("id", idsOf(rows)...)
}

func idsOf(rows []any) (ids []any) {
	for _, row := range rows {
		ids = append(ids, row.(object)["id"])
	}
	return ids
}
