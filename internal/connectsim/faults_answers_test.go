// SPDX-License-Identifier: Apache-2.0

package connectsim_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"rpi-connect.dev/operator/internal/connectsim"
)

func TestWhoseAnswersCarryTheHeadersOfTheRateLimit(t *testing.T) {
	for name, c := range map[string]struct {
		fault   connectsim.Fault
		status  int
		limit   string // what the answer says, "" for nothing
		counted string // what the next answer says
	}{
		"the API's":              {connectsim.Fault{}, 200, "9 8 1800", "9 7 1800"},
		"the API's, stripped":    {connectsim.Fault{RateHeaders: new(false)}, 200, "", "9 7 1800"},
		"a gateway's":            {connectsim.Fault{Status: 404, Body: "<html>"}, 404, "", "9 8 1800"},
		"an API's that is down":  {connectsim.Fault{Status: 500, RateHeaders: new(true)}, 500, "9 8 1800", "9 7 1800"},
		"after the work":         {connectsim.Fault{Status: 502, After: true}, 502, "", "9 7 1800"},
		"of the API, after work": {connectsim.Fault{Status: 500, After: true, RateHeaders: new(true)}, 500, "9 8 1800", "9 7 1800"},
		"half understood":        {connectsim.Fault{Header: http.Header{"X-Rate-Limit-Limit": {"9;w=3600"}, "x-rate-limit-reset": {}}}, 200, "9;w=3600 8 ", "9 7 1800"},
		"forged":                 {connectsim.Fault{Status: 404, Header: http.Header{"X-Rate-Limit-Remaining": {"-1"}}}, 404, " -1 ", "9 8 1800"},
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t, connectsim.Options{RateLimit: 9})
			c.fault.Times = 1
			s.sim.Inject(c.fault)
			if a := s.get(artefacts).is(c.status); c.limit == "" {
				a.saysNothing()
			} else {
				a.allows(c.limit)
			}
			s.get(artefacts).is(200).allows(c.counted)
		})
	}

	// An invalid token is never told of a limit, and the older revision has none.
	s := begin(t, connectsim.Options{})
	s.sim.Inject(connectsim.Fault{Status: 500, RateHeaders: new(true)})
	s.send(request{"GET", artefacts, nil, bearer("rporg_stranger1111111111111111")}).is(500).saysNothing()
	older := begin(t, connectsim.Options{Revision: connectsim.Older})
	older.sim.Inject(connectsim.Fault{Status: 500, RateHeaders: new(true)})
	older.get(artefacts).is(500).saysNothing()
}

func TestAnAnswerThatIsLabelledAnew(t *testing.T) {
	s := begin(t, connectsim.Options{})
	s.sim.Inject(connectsim.Fault{ContentType: "text/html", Header: http.Header{"Via": {"1.1 proxy"}}})
	a := s.get(artefacts).is(200)
	if a.header.Get("Content-Type") != "text/html" || a.header.Get("Via") != "1.1 proxy" || !strings.HasPrefix(a.text, `{"artefacts":`) {
		t.Errorf("%v with %s", a.header, a.text)
	}
}

func TestRedirects(t *testing.T) {
	s := begin(t, connectsim.Options{})
	s.sim.Inject(connectsim.Fault{Route: "GET " + artefacts, Times: 1, Location: "https://example.com/login"})
	s.sim.Inject(connectsim.Fault{Route: "POST " + artefacts, Times: 1, Location: "/elsewhere", Status: 302, After: true})
	a := s.get(artefacts).is(307)
	if a.header.Get("Location") != "https://example.com/login" || a.text != "" {
		t.Errorf("redirected to %q with %q", a.header.Get("Location"), a.text)
	}
	if a, _ := s.create("kiosk"); a.status != 302 || a.header.Get("Location") != "/elsewhere" || !s.exists("kiosk") {
		t.Errorf("answered %d to %q", a.status, a.header.Get("Location"))
	}
}

func TestABodyThatComesInPieces(t *testing.T) {
	s := begin(t, connectsim.Options{})
	whole := s.get(artefacts).is(200).text
	s.sim.Inject(connectsim.Fault{Times: 1, Drip: time.Nanosecond, Pieces: 7})
	if got := s.get(artefacts).is(200).text; got != whole {
		t.Errorf("it came to %s", got)
	}

	// The first piece is here while the next is far.
	s.sim.Inject(connectsim.Fault{Times: 1, Drip: time.Hour})
	ctx, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.url+artefacts, nil)
	req.Header = bearer(token)
	res, err := oneByOne.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	first := make([]byte, (len(whole)+9)/10)
	if _, err := io.ReadFull(res.Body, first); err != nil || !strings.HasPrefix(whole, string(first)) {
		t.Errorf("%q: %v", first, err)
	}
	giveUp()
	if _, err := res.Body.Read(first); err == nil {
		t.Error("the rest came at once")
	}
}

func TestPagesThatLie(t *testing.T) {
	const path = "GET " + artefacts
	for name, c := range map[string]struct {
		page  connectsim.Page
		query string
		want  string
	}{
		"a total that is off":   {connectsim.Page{TotalOff: -1}, "?per_page=2", `{"artefacts":["a","b"],"meta":{"page":1,"per_page":2,"total_count":2,"total_pages":2}}`},
		"totals of their own":   {connectsim.Page{TotalCount: new(99), TotalPages: new(1)}, "?per_page=2", `{"artefacts":["a","b"],"meta":{"page":1,"per_page":2,"total_count":99,"total_pages":1}}`},
		"smaller pages":         {connectsim.Page{PerPage: 1}, "?per_page=2&page=2", `{"artefacts":["b"],"meta":{"page":2,"per_page":1,"total_count":3,"total_pages":3}}`},
		"strange rows":          {connectsim.Page{Rows: []any{"text", nil, 7, []any{}}}, "?per_page=1", `{"artefacts":["text",null,7,[],"a"],"meta":{"page":1,"per_page":1,"total_count":3,"total_pages":3}}`},
		"unknown keys":          {connectsim.Page{Keys: map[string]any{"links": []any{"next"}, "meta": nil}}, "?page=9", `{"artefacts":[],"links":["next"],"meta":null}`},
		"the API's, if nothing": {connectsim.Page{}, "?per_page=1&page=3", `{"artefacts":["c"],"meta":{"page":3,"per_page":1,"total_count":3,"total_pages":3}}`},
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t, connectsim.Options{})
			for _, name := range []string{"a", "b", "c"} {
				s.org.AddArtefact(name, "https://example.com", checksum)
			}
			s.sim.Inject(connectsim.Fault{Route: path, Page: &c.page})
			got := s.get(artefacts + c.query).is(200).object()
			rows := got["artefacts"].([]any)
			for i, row := range rows {
				if o, ok := row.(object); ok {
					rows[i] = o["name"]
				}
			}
			s.same(got, c.want)
		})
	}
}

func TestPagesWithoutEnd(t *testing.T) {
	s := begin(t, connectsim.Options{})
	s.org.AddArtefact("kiosk", "https://example.com", checksum)
	s.sim.Inject(connectsim.Fault{Route: "GET " + artefacts, Page: &connectsim.Page{Endless: true}})
	seen := map[any]bool{}
	for number := 1; number <= 5; number++ {
		page := s.list(fmt.Sprintf("%s?page=%d", artefacts, number))
		s.samef(page.meta, `{"page":%d,"per_page":100,"total_count":%d,"total_pages":%d}`, number, 100*(number+1), number+1)
		for _, row := range page.rows {
			if seen[row["id"]] || row["uri"] != "https://example.com" {
				t.Errorf("page %d has %v", number, row)
			}
			seen[row["id"]] = true
		}
	}
	if len(seen) != 500 {
		t.Errorf("%d rows", len(seen))
	}
	s.sim.ClearFaults()
	s.list(artefacts).has("name", "kiosk")
}

// What comes after the last page is unpublished: the simulator plays what is
// asked of it.
func TestPagesPastTheEnd(t *testing.T) {
	for past, want := range map[connectsim.PastTheEnd]string{
		"": "200 []", connectsim.EmptyPage: "200 []", connectsim.LastPage: "200 [c]", connectsim.PageNotFound: "404", connectsim.PageBadRequest: "400",
	} {
		t.Run(string(past), func(t *testing.T) {
			s := begin(t, connectsim.Options{PastTheEnd: past})
			s.list(artefacts).has("name") // an empty listing has a first page
			for _, name := range []string{"a", "b", "c"} {
				s.org.AddArtefact(name, "https://example.com", checksum)
			}
			s.list(artefacts+"?per_page=2&page=2").has("name", "c")
			a := s.get(artefacts + "?per_page=2&page=3")
			a.allows(a.limit()) // it is the API's answer in any case
			got := fmt.Sprint(a.status)
			if a.status == 200 {
				names := []any{}
				for _, row := range a.object()["artefacts"].([]any) {
					names = append(names, row.(object)["name"])
				}
				got += fmt.Sprint(" ", names)
			}
			if got != want || a.limit() == "  " {
				t.Errorf("answered %s with %q, want %s", got, a.limit(), want)
			}
		})
	}
}

// Rows move between two pages: the same in Go, in JSON, and as anything else that
// happens between two requests.
func TestRowsThatMoveBetweenTwoPages(t *testing.T) {
	for name, c := range map[string]struct {
		path   string
		change string
		// want is what pages 1 and 2 then have, two rows each, of b, c, d, e
		want string
	}{
		"removed early and made at the end": {"artefacts", `{"Remove":["b"],"Insert":["z"]}`, "[b c] [e z]"},
		"a device is renamed to the front":  {"devices", `{"Rename":{"e":"a"}}`, "[b c] [c d]"},
		"a device is renamed to the end":    {"devices", `{"Rename":{"b":"z"}}`, "[b c] [e z]"},
		"an identity is renamed":            {"device-identities", `{"Rename":{"e":"a"}}`, "[b c] [c d]"},
		"rows are inserted":                 {"device-identities", `{"Insert":["a1","a2"]}`, "[b c] [b c]"},
		"devices come and go":               {"devices", `{"Insert":["a"],"Remove":["c","nobody"]}`, "[b c] [d e]"},
		"keys come and go":                  {"auth-keys", `{"Insert":["x"],"Remove":["e"]}`, "[b c] [c d]"},
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t, connectsim.Options{})
			add := map[string]func(name string){
				"artefacts":         func(name string) { s.org.AddArtefact(name, "https://example.com", checksum) },
				"devices":           func(name string) { s.org.AddDevice(connectsim.Device{Name: name}) },
				"device-identities": func(name string) { _, public := newKey(t); s.org.AddDeviceIdentity(public, name, "", nil) },
				// the newest first: made in the order of the alphabet, e comes first
				"auth-keys": func(name string) {
					s.org.AddAuthKey(map[string]string{"b": "e", "c": "d", "d": "c", "e": "b"}[name], "", nil, 1)
				},
			}[c.path]
			for _, name := range []string{"b", "c", "d", "e"} {
				add(name)
			}
			var fault connectsim.Fault
			text := `{"Route":"GET /organisation/` + c.path + `","Skip":1,"Times":1,"Change":` + c.change + `}`
			if err := json.Unmarshal([]byte(text), &fault); err != nil {
				t.Fatal(err)
			}
			s.sim.Inject(fault)
			var got []string
			for page := 1; page <= 2; page++ {
				names := []any{}
				for _, row := range s.list(fmt.Sprintf("/organisation/%s?per_page=2&page=%d", c.path, page)).rows {
					for _, field := range []string{"name", "description"} {
						if row[field] != nil {
							names = append(names, row[field])
						}
					}
				}
				got = append(got, fmt.Sprint(names))
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("listed %s, want %s", strings.Join(got, " "), c.want)
			}
		})
	}

	s := begin(t, connectsim.Options{})
	device := s.org.AddDevice(connectsim.Device{Name: "pi"})
	there := s.org.AddArtefact("kiosk", "https://example.com", checksum)
	s.sim.Inject(connectsim.Fault{Route: "GET /organisation/devices/{id}/deployments", Do: func() { s.org.AddDeployment(device.ID, there.ID) }})
	s.list("/organisation/devices/"+device.ID+"/deployments").has("artefact_id", there.ID)
	s.list("/organisation/devices/"+device.ID+"/deployments").has("artefact_id", there.ID, there.ID)

	// A stranger's token changes nothing.
	s.sim.Inject(connectsim.Fault{Route: "GET " + artefacts, Change: &connectsim.Change{Remove: []string{"kiosk"}}})
	s.send(request{"GET", artefacts, nil, nobody}).is(401)
	s.list(artefacts).has("name") // now it does
}

func TestMistypedFaultsAreRefused(t *testing.T) {
	for text, why := range map[string]string{
		`{"Route":"GET /organisation/artefact"}`:                 "GET has /organisation/artefacts, ",
		`{"Route":"GET /organisation/deployments/{id}/cancel"}`:  "/organisation/deployments/{id}/cancel has PUT",
		`{"Route":"FETCH"}`:                                      "give a method and a path",
		`{"Route":"FETCH /organisation/artefacts"}`:              "has POST, GET",
		`{"Route":"/organisation/artefacts"}`:                    "give a method and a path",
		`{"Route":"GET /organisation/artefacts/123"}`:            "GET has ",
		`{"Route":"GET "}`:                                       "GET has ",
		`{"Stauts":500}`:                                         `unknown field "Stauts"`,
		`{"Page":{"Total":1}}`:                                   `unknown field "Total"`,
		`{"Page":{"PerPage":"1"}}`:                               "Page.PerPage of a fault cannot be a string",
		`{"Delay":"soon"}`:                                       `invalid duration "soon"`,
		`{"Skip":-1}`:                                            "not negative",
		`{"Delay":"-1s"}`:                                        "not negative",
		`{"Drop":true,"Dead":true}`:                              "give one of them",
		`{"Drop":true,"Status":500}`:                             "there is no answer",
		`{"Dead":true,"RateHeaders":true}`:                       "there is no answer",
		`{"Drop":true,"Drip":"1s"}`:                              "there is no answer",
		`{"After":true,"Late":"1s","Drop":true}`:                 "give one of them",
		`{"After":true}`:                                         "an answer that is lost or replaced",
		`{"Late":"1s"}`:                                          "an answer that is lost or replaced",
		`{"Status":99}`:                                          "Status 99",
		`{"Status":600}`:                                         "Status 600",
		`{"Status":204,"Body":"x"}`:                              "has no body",
		`{"Status":200,"Location":"/"}`:                          "Status 200 is not",
		`{"Pieces":3}`:                                           "give Drip as well",
		`{"Page":{}}`:                                            "bends a listing",
		`{"Route":"GET /organisation/artefacts/{id}","Page":{}}`: "bends a listing",
		`{"Route":"POST /organisation/artefacts","Page":{}}`:     "bends a listing",
		`{"Route":"GET /organisation/artefacts","Page":{},"Status":500}`: "which Status, Body and Location replace",
		`{"Route":"GET /organisation/artefacts","Page":{"PerPage":101}}`: "from 1 to 100",
		`{"Change":{}}`: "give the Route of a listing",
		`{"Route":"GET /organisation/devices/{id}/deployments","Change":{}}`:       "give the Route of a listing",
		`{"Route":"GET /organisation/artefacts","Change":{"Rename":{"a":"b"}}}`:    "cannot be renamed",
		`{"Route":"GET /organisation/auth-keys","Change":{"Rename":{"a":"b"}}}`:    "cannot be renamed",
		`{"Route":"GET /organisation/devices","Change":{"Renamed":{"a":"b"}}}`:     `unknown field "Renamed"`,
		`{"Route":"GET /organisation/devices","Change":{"Remove":"everything"}}`:   "Change.Remove of a fault cannot be a string",
		`{"Route":"GET /organisation/devices","Header":{"Via":"a text, no list"}}`: "of a fault cannot be a string",
	} {
		var fault connectsim.Fault
		if err := json.Unmarshal([]byte(text), &fault); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want %q", text, err, why)
		}
	}

	defer func() {
		if recovered := recover(); recovered == nil || !strings.Contains(fmt.Sprint(recovered), "no route") {
			t.Errorf("injected, it says %v", recovered)
		}
	}()
	begin(t, connectsim.Options{}).sim.Inject(connectsim.Fault{Route: "GET /organisation/artefact"})
}

// What is said in Go and what is said in JSON is the same.
func TestFaultsInJSON(t *testing.T) {
	const text = `{"Route":"GET /organisation/devices","Skip":1,"Times":2,"Change":{"Remove":["a"],"Insert":["b"],"Rename":{"c":"d"}},` +
		`"ContentType":"text/plain","Header":{"Via":["1.1 x"]},"RateHeaders":true,"Page":{"TotalCount":0,"TotalPages":3,"TotalOff":1,"PerPage":9,"Endless":true,"Rows":[1],"Keys":{"a":1}},` +
		`"Truncate":true,"Oversize":5,"Pieces":3,"Delay":"1.5s","Drip":"2ms"}`
	var fault connectsim.Fault
	if err := json.Unmarshal([]byte(text), &fault); err != nil {
		t.Fatal(err)
	}
	if fault.Delay != 1500*time.Millisecond || fault.Drip != 2*time.Millisecond || *fault.Page.TotalCount != 0 {
		t.Errorf("read %+v", fault)
	}
	again, err := json.Marshal(fault)
	if err != nil || string(again) != text {
		t.Errorf("%v\ngot  %s\nwant %s", err, again, text)
	}
	if err := json.Unmarshal([]byte(`{"Drop":true,"Late":6000000000}`), &fault); err != nil || fault.Late != 6*time.Second || fault.Skip != 0 {
		t.Errorf("read %+v: %v", fault, err)
	}
}

func FuzzFaults(f *testing.F) {
	f.Add([]byte(`{"Route":"GET /organisation/devices","Page":{"Rows":[null]},"Delay":"1s"}`))
	f.Add([]byte(`{"Drop":true,"Late":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var fault connectsim.Fault
		if json.Unmarshal(data, &fault) != nil {
			return
		}
		first, err := json.Marshal(fault)
		if err != nil {
			t.Fatalf("what could be read cannot be written: %v", err)
		}
		var again connectsim.Fault
		if err := json.Unmarshal(first, &again); err != nil {
			t.Fatalf("what was written cannot be read: %v in %s", err, first)
		}
		if second, _ := json.Marshal(again); !bytes.Equal(first, second) {
			t.Errorf("%s became %s", first, second)
		}
	})
}

// A fault that names no path is the Management API's: what devices ask does not
// use it up.
func TestFaultsWithoutAPathAreTheManagementAPIs(t *testing.T) {
	for _, route := range []string{"", "GET"} {
		s := begin(t, connectsim.Options{})
		w := s.populate()
		pi := connectsim.NewPi(w.url, "pi5-001", "1")
		pi.SignedIn(w.org, w.device.ID)
		pi.Behave(connectsim.Behaviour{Every: quick})
		fault := w.sim.Inject(connectsim.Fault{Route: route, Status: 503, Times: 1})
		w.run(pi)
		w.awaitState(w.deployment.ID, "succeeded")
		if fault.Hits() != 0 {
			t.Errorf("%q was met by a Pi", route)
		}
		w.get(artefacts).is(503)
	}
}
