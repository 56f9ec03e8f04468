// SPDX-License-Identifier: Apache-2.0

package connectsim_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rpi-connect.dev/operator/internal/connectsim"
)

// world is one of everything.
type world struct {
	env

	artefact   connectsim.Artefact
	key        connectsim.AuthKey
	identity   connectsim.Identity
	device     connectsim.Device
	deployment connectsim.Deployment
}

func (s env) populate() world {
	_, public := newKey(s.T)
	w := world{
		env:      s,
		artefact: s.org.AddArtefact("kiosk", "https://example.com/kiosk.img", checksum),
		key:      s.org.AddAuthKey("lab", "", nil, 1),
		identity: s.org.AddDeviceIdentity(public, "pi5", "", nil),
		device:   s.org.AddDevice(connectsim.Device{Name: "pi5-001", SerialNumber: "10000000abcdef01"}),
	}
	deployed := s.org.AddArtefact("deployed", "https://example.com/deployed.img", checksum)
	w.deployment = s.org.AddDeployment(w.device.ID, deployed.ID)
	return w
}

// fill puts ids into a path or a body.
func (w world) fill(text string) string {
	return strings.NewReplacer(
		"{artefact}", w.artefact.ID, "{key}", w.key.ID, "{identity}", w.identity.ID,
		"{device}", w.device.ID, "{deployment}", w.deployment.ID,
	).Replace(text)
}

// routes is the Management API as it is published. What an answer has in both
// revisions is in fields, what only the current one shows in more; the listings'
// are those of "meta" and the plural.
var routes = []struct {
	method, path, body string
	current, older     int
	fields, more       string
}{
	{"POST", "/organisation/artefacts", `{"name":"new","uri":"https://example.com","checksum":"` + checksum + `"}`, 201, 201, "checksum id name uri", ""},
	{"GET", "/organisation/artefacts", "", 200, 200, "artefacts meta", ""},
	{"GET", "/organisation/artefacts/{artefact}", "", 200, 404, "checksum id name uri", ""},
	{"DELETE", "/organisation/artefacts/{artefact}", "", 200, 204, "checksum id name uri", ""},

	{"POST", "/organisation/auth-keys", `{"description":"new"}`, 201, 201, "description device_name expires_at id secret tags", "created_at exchanged_at"},
	{"GET", "/organisation/auth-keys", "", 200, 404, "auth_keys meta", ""},
	{"GET", "/organisation/auth-keys/{key}", "", 200, 404, "created_at description device_name exchanged_at expires_at id tags", ""},
	{"PATCH", "/organisation/auth-keys/{key}", `{"description":"new"}`, 200, 404, "created_at description device_name exchanged_at expires_at id tags", ""},
	{"DELETE", "/organisation/auth-keys/{key}", "", 200, 404, "created_at description device_name exchanged_at expires_at id tags", ""},

	{"GET", "/organisation/device-identities", "", 200, 200, "device_identities meta", ""},
	{"GET", "/organisation/device-identities/{identity}", "", 200, 200, "created_at description device_name id public_key tags", ""},
	{"PATCH", "/organisation/device-identities/{identity}", `{"description":"new"}`, 200, 200, "created_at description device_name id public_key tags", ""},
	{"DELETE", "/organisation/device-identities/{identity}", "", 200, 204, "created_at description device_name id public_key tags", ""},

	{"GET", "/organisation/devices", "", 200, 200, "devices meta", ""},
	{"GET", "/organisation/devices/{device}", "", 200, 404, "board filters id kernel_architecture name os serial_number tags", ""},
	{"PATCH", "/organisation/devices/{device}", `{"name":"new"}`, 200, 404, "board filters id kernel_architecture name os serial_number tags", ""},
	{"DELETE", "/organisation/devices/{device}", "", 200, 204, "board filters id kernel_architecture name os serial_number tags", ""},

	{"POST", "/organisation/devices/{device}/deployments", `{"artefact_id":"{artefact}"}`, 201, 201, "artefact_id created_at device_id id state state_reason updated_at", ""},
	{"GET", "/organisation/devices/{device}/deployments", "", 200, 200, "deployments meta", ""},
	{"GET", "/organisation/deployments/{deployment}", "", 200, 200, "artefact_id created_at device_id id state state_reason updated_at", ""},
	{"PUT", "/organisation/deployments/{deployment}/cancel", "", 200, 200, "artefact_id created_at device_id id state state_reason updated_at", ""},
}

// The creation of a device identity is missing above: it has to be signed, and has
// a file of its own.

func TestEveryRouteInBothRevisions(t *testing.T) {
	onBothRevisions(t, func(s env) {
		for _, r := range routes {
			s.Run(r.method+" "+r.path, func(t *testing.T) {
				w := begin(t, connectsim.Options{Revision: revisionOf(s)}).populate()
				var body any
				if r.body != "" {
					body = w.fill(r.body)
				}
				a := w.call(r.method, w.fill(r.path), body)
				want, fields := r.current, r.fields+" "+r.more
				if s.older {
					want, fields = r.older, r.fields
				}
				switch a.is(want); want {
				case http.StatusNoContent:
					a.empty()
				case http.StatusNotFound:
					a.says(http.StatusNotFound, "Not found")
				default:
					expected := slices.Sorted(slices.Values(strings.Fields(fields)))
					if got := slices.Sorted(maps.Keys(a.object())); !slices.Equal(got, expected) {
						t.Errorf("the answer has %v, want %v", got, expected)
					}
				}
			})
		}
	})
}

func revisionOf(s env) connectsim.Revision {
	if s.older {
		return connectsim.Older
	}
	return connectsim.Current
}

func TestEveryRouteNeedsAToken(t *testing.T) {
	onBothRevisions(t, func(s env) {
		w := s.populate()
		before := w.counts()
		for _, r := range routes {
			var body any
			if r.body != "" {
				body = w.fill(r.body)
			}
			for name, header := range map[string]http.Header{
				"no token":          nobody,
				"an unknown token":  bearer("rporg_111111111111111111111111"),
				"a bare token":      {"Authorization": {token}},
				"another scheme":    {"Authorization": {"Basic " + token}},
				"a device's token":  bearer("rpdev_111111111111111111111111"),
				"an empty one":      bearer(""),
				"the secret of one": bearer(w.key.Secret),
			} {
				a := w.send(request{r.method, w.fill(r.path), body, header})
				if a.status != http.StatusUnauthorized {
					t.Errorf("%s with %s: %d", a.sent, name, a.status)
				}
			}
		}
		if after := w.counts(); after != before {
			t.Errorf("there was %s, and is %s", before, after)
		}
	})
}

// counts says how much there is of everything.
func (w world) counts() string {
	return fmt.Sprint(len(w.org.Artefacts()), len(w.org.AuthKeys()), len(w.org.DeviceIdentities()), len(w.org.Devices()), len(w.org.Deployments("")))
}

func TestEveryRouteKnowsOnlyItsOwnOrganisation(t *testing.T) {
	onBothRevisions(t, func(s env) {
		w := s.populate()
		const other = "rporg_other1111111111111111111"
		w.sim.AddOrganisation(other)
		before := w.counts()
		for _, r := range routes {
			if !strings.Contains(r.path, "{") {
				continue
			}
			var body any
			if r.body != "" {
				body = w.fill(r.body)
			}
			if a := w.send(request{r.method, w.fill(r.path), body, bearer(other)}); a.status != http.StatusNotFound {
				t.Errorf("%s of another organisation: %d", a.sent, a.status)
			}
			unknown := regexp.MustCompile(`{.*}`).ReplaceAllString(r.path, "0")
			if a := w.call(r.method, unknown, body); a.status != http.StatusNotFound {
				t.Errorf("%s: %d", a.sent, a.status)
			}
		}
		if after := w.counts(); after != before {
			t.Errorf("there was %s, and is %s", before, after)
		}
	})
}

func TestWhatThereIsNot(t *testing.T) {
	onBothRevisions(t, func(s env) {
		w := s.populate()
		for _, path := range []string{
			"GET /organisation/deployments", // there is no organisation-wide list
			"PATCH /organisation/artefacts/{artefact}",
			"PUT /organisation/artefacts/{artefact}",
			"POST /organisation/devices",
			"DELETE /organisation/deployments/{deployment}",
			"POST /organisation/deployments/{deployment}/cancel",
			"PUT /organisation/devices/{device}",
			"GET /organisation/nothing",
			"GET /",
		} {
			method, path, _ := strings.Cut(w.fill(path), " ")
			w.call(method, path, nil).is(http.StatusNotFound)
		}
	})
}

func TestUnpublishedErrorBodies(t *testing.T) {
	for bodies, want := range map[connectsim.ErrorBodies][2]string{
		"":                       {`{"message":"Not found"}`, "application/json; charset=utf-8"},
		connectsim.MessageBodies: {`{"message":"Not found"}`, "application/json; charset=utf-8"},
		connectsim.ErrorKey:      {`{"error":"Not found"}`, "application/json; charset=utf-8"},
		connectsim.EmptyBodies:   {"", ""},
		connectsim.HTMLBodies:    {"<!DOCTYPE html><html><body><h1>Not found</h1></body></html>", "text/html; charset=utf-8"},
		connectsim.PlainBodies:   {"Not found", "text/plain; charset=utf-8"},
	} {
		t.Run(string(bodies), func(t *testing.T) {
			w := begin(t, connectsim.Options{ErrorBodies: bodies}).populate()
			missing := w.get("/organisation/devices/0").is(http.StatusNotFound)
			if got := [2]string{missing.text, missing.header.Get("Content-Type")}; got != want {
				t.Errorf("404 is %q, want %q", got, want)
			}
			stranger := w.send(request{"GET", "/organisation/devices", nil, nobody}).is(http.StatusUnauthorized)
			if want := strings.ReplaceAll(want[0], "Not found", "Unauthorized"); stranger.text != want {
				t.Errorf("401 is %q, want %q", stranger.text, want)
			}
			nothing := w.call("POST", w.fill("/organisation/devices/{device}/deployments"), `{}`).is(http.StatusBadRequest)
			if want := strings.ReplaceAll(want[0], "Not found", "artefact_id is missing"); nothing.text != want {
				t.Errorf("400 is %q, want %q", nothing.text, want)
			}

			// What is published stays in its form.
			w.call("POST", "/organisation/artefacts", `{}`).says(422, "Validation failed: Name can't be blank")
			w.get(w.fill(`/organisation/devices/{device}/deployments?state=x`)).says(400, `Unknown state "x"`)
		})
	}
}

func TestCreationsTakeForms(t *testing.T) {
	onBothRevisions(t, func(s env) {
		w := s.populate()
		made := w.call("POST", "/organisation/auth-keys", url.Values{
			"description": {"a form & more"}, "ttl_days": {"3"}, "device_name": {"pi5"}, "tags[]": {"a", "b"},
		}).is(http.StatusCreated).object()
		w.same([]any{made["description"], made["device_name"], made["tags"], made["expires_at"]},
			`["a form & more", "pi5", ["a", "b"], "2026-03-04T10:30:00Z"]`)

		artefact := w.call("POST", "/organisation/artefacts", url.Values{
			"name": {"form"}, "uri": {"https://example.com/?a=b&c=d"}, "checksum": {checksum},
		})
		w.samef(artefact.object(), `{"id":%q,"name":"form","uri":"https://example.com/?a=b&c=d","checksum":%q}`, artefact.id(), checksum)

		run := w.call("POST", w.fill("/organisation/devices/{device}/deployments"), url.Values{"artefact_id": {artefact.id()}})
		if got := run.is(http.StatusCreated).object()["artefact_id"]; got != artefact.id() {
			t.Errorf("deployed %v", got)
		}

		// A device identity is JSON alone.
		w.call("POST", "/organisation/device-identities", url.Values{"description": {"form"}}).is(http.StatusBadRequest)
		for _, path := range []string{"/organisation/auth-keys", "/organisation/artefacts"} {
			for _, body := range []string{`{`, `[]`, `null`, `"text"`} {
				w.call("POST", path, body).is(http.StatusBadRequest)
			}
		}
	})
}

// A path with slashes that say nothing is answered in its place: no redirect leads
// around the token, the limit, the faults and the journal.
func TestPathsWithSlashesThatSayNothing(t *testing.T) {
	onBothRevisions(t, func(s env) {
		w := s.populate()
		for _, path := range []string{"//organisation/devices", "/organisation//devices", "/organisation/devices/", "///organisation///devices//"} {
			w.same(w.get(path).is(200).object(), w.get("/organisation/devices").text)
			w.send(request{"GET", path, nil, nobody}).is(401)
			journal := w.sim.Journal()
			if last := journal[len(journal)-1]; last.Route != "/organisation/devices" || last.Path != path {
				t.Errorf("noted %+v", last)
			}
		}
		w.sim.Inject(connectsim.Fault{Route: "GET /organisation/deployments/{id}", Status: 503, Times: 1})
		w.get(w.fill("/organisation/deployments//{deployment}")).is(503)
		for _, path := range []string{"/organisation/./devices", "/organisation/devices/..", "/organisation/../organisation/devices", "/organisation%2Fdevices"} {
			if a := w.get(path); a.status != 404 {
				t.Errorf("%s: %d", path, a.status)
			}
		}
		w.send(request{"GET", "/organisation/devices/../devices", nil, nobody}).is(401)
		w.send(request{"GET", "/organisation", nil, nobody}).is(401)
		if !w.older {
			w.send(request{"GET", w.fill("/organisation//devices/{device}"), nil, bearer(token)}).is(200).allows(w.get("/organisation/devices").before())
		}
	})
}

// before is what the answer before this one said of the rate limit.
func (a answer) before() string {
	left, _ := strconv.Atoi(a.header.Get("X-Rate-Limit-Remaining"))
	return fmt.Sprint(a.header.Get("X-Rate-Limit-Limit"), " ", left+1, " ", a.header.Get("X-Rate-Limit-Reset"))
}

// What the older revision does not have is asked for all the same, and known by
// its route.
func TestRoutesOfTheOtherRevision(t *testing.T) {
	s := begin(t, connectsim.Options{Revision: connectsim.Older})
	s.get("/organisation/artefacts/0").is(404)
	if got := s.sim.Count("GET /organisation/artefacts/{id}"); got != 1 {
		t.Errorf("counted %d", got)
	}
	s.sim.Inject(connectsim.Fault{Route: "GET /organisation/auth-keys", Status: 404, Body: "<html>", Times: 1})
	if a := s.get(authKeys).is(404); a.text != "<html>" {
		t.Errorf("answered %s", a.text)
	}
}

// HEAD is GET without its body.
func TestHEAD(t *testing.T) {
	s := begin(t, connectsim.Options{})
	if a := s.call("HEAD", artefacts, nil).is(200); a.text != "" || a.header.Get("Content-Length") == "0" {
		t.Errorf("%q with %v", a.text, a.header)
	}
	s.call("HEAD", artefacts+"/0", nil).is(404)
}
