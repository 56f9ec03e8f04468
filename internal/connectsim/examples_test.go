// SPDX-License-Identifier: Apache-2.0

package connectsim_test

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"rpi-connect.dev/operator/internal/connectsim"
)

// These are the calls that the chapter on the Management API has, in both of its
// revisions, each with its answers: what is sent is sent as there, and status,
// headers and keys are those of there.

// example is a call of the chapter.
type example struct {
	title string
	// older and current are the status in each revision; 0: it is not in it.
	older, current int
	method, path   string
	// kind and body are the Content-Type and what is sent; {…} stands for an id.
	kind, body string
	// signed says that a device signs it, strange that its token is invalid.
	signed, strange bool
	// unbilled says that billing has not been set up.
	unbilled bool
	// keys are those of the answer, with those of what is in it behind a dot; those
	// that only the current revision has begin with a plus. A message is meant
	// where there is one.
	keys    string
	message string
}

const (
	jsonType = "application/json"
	formType = "application/x-www-form-urlencoded"

	metaKeys       = " meta meta.page meta.per_page meta.total_count meta.total_pages"
	identityKeys   = "id description device_name created_at public_key"
	authKeyKeys    = "id description device_name tags expires_at created_at exchanged_at"
	artefactKeys   = "id name uri checksum"
	deploymentKeys = "id state state_reason device_id artefact_id created_at updated_at"
	deviceKeys     = "id name serial_number tags board board.model board.revision board.memory os os.name os.version kernel_architecture filters filters.model filters.memory filters.os"
)

// rowsOf are the keys of a listing of rows with these keys.
func rowsOf(plural, keys string) string {
	return plural + " " + plural + "." + strings.ReplaceAll(keys, " ", " "+plural+".") + metaKeys
}

var chapter = []example{
	{title: "create a device identity", older: 201, current: 201, method: "POST", path: "/organisation/device-identities", kind: jsonType, signed: true,
		body: `{"public_key":{public},"description":"my-device-identity","device_name":"pi5-001"}`, keys: identityKeys + " +tags"},
	{title: "with tags", current: 201, method: "POST", path: "/organisation/device-identities", kind: jsonType, signed: true,
		body: `{"public_key":{public},"description":"my-device-identity","device_name":"pi5-001","tags":["production","kiosk"]}`, keys: identityKeys + " +tags"},
	{title: "with an invalid key", older: 422, current: 422, method: "POST", path: "/organisation/device-identities", kind: jsonType, signed: true,
		body: `{"public_key":"none","description":"my-device-identity"}`, message: "Validation failed: Public key is invalid"},
	{title: "with an invalid token", older: 401, current: 401, method: "POST", path: "/organisation/device-identities", kind: jsonType, signed: true, strange: true,
		body: `{"public_key":{public},"description":"my-device-identity"}`},
	{title: "list device identities", older: 200, current: 200, method: "GET", path: "/organisation/device-identities", keys: rowsOf("device_identities", identityKeys+" tags")},
	{title: "show one", older: 200, current: 200, method: "GET", path: "/organisation/device-identities/{identity}", keys: identityKeys + " tags"},
	{title: "one that is not there", older: 404, current: 404, method: "GET", path: "/organisation/device-identities/12345"},
	{title: "update one", older: 200, current: 200, method: "PATCH", path: "/organisation/device-identities/{identity}", kind: jsonType,
		body: `{"description":"my-renamed-device-identity","device_name":"pi5-001","tags":["production","kiosk"]}`, keys: identityKeys + " tags"},
	{title: "with a blank description", older: 422, current: 422, method: "PATCH", path: "/organisation/device-identities/{identity}", kind: jsonType,
		body: `{"description":""}`, message: "Validation failed: Description can't be blank"},
	{title: "update one that is not there", older: 404, current: 404, method: "PATCH", path: "/organisation/device-identities/12345", kind: jsonType, body: `{"description":"x"}`},
	{title: "delete one", older: 204, current: 200, method: "DELETE", path: "/organisation/device-identities/{identity}", keys: identityKeys + " tags"},
	{title: "delete one that is not there", older: 404, current: 404, method: "DELETE", path: "/organisation/device-identities/12345"},

	{title: "create an auth key", older: 201, current: 201, method: "POST", path: "/organisation/auth-keys", kind: jsonType,
		body: `{"description":"my-auth-key","ttl_days":1,"device_name":"pi5-001","tags":["production","kiosk"]}`, keys: "id description device_name tags secret expires_at +created_at +exchanged_at"},
	{title: "as a form", older: 201, current: 201, method: "POST", path: "/organisation/auth-keys", kind: formType,
		body: "description=my-auth-key&ttl_days=1&device_name=pi5-001&tags[]=production&tags[]=kiosk", keys: "id description device_name tags secret expires_at +created_at +exchanged_at"},
	{title: "as curl encodes a form", older: 201, current: 201, method: "POST", path: "/organisation/auth-keys", kind: formType,
		body: "description=pi5-002&device_name=pi5-002&tags%5B%5D=production", keys: "id description device_name tags secret expires_at +created_at +exchanged_at"},
	{title: "without a description", older: 422, current: 422, method: "POST", path: "/organisation/auth-keys", kind: jsonType, body: `{"ttl_days":1}`, message: "Validation failed: Description can't be blank"},
	{title: "list auth keys", current: 200, method: "GET", path: "/organisation/auth-keys", keys: rowsOf("auth_keys", authKeyKeys)},
	{title: "show an auth key", current: 200, method: "GET", path: "/organisation/auth-keys/{key}", keys: authKeyKeys},
	{title: "edit an auth key", current: 200, method: "PATCH", path: "/organisation/auth-keys/{key}", kind: jsonType,
		body: `{"description":"my-renamed-auth-key","device_name":"pi5-002","tags":[]}`, keys: authKeyKeys},
	{title: "edit a used auth key", current: 422, method: "PATCH", path: "/organisation/auth-keys/{used}", kind: jsonType, body: `{"description":"x"}`, message: "This auth key can no longer be edited."},
	{title: "delete an auth key", current: 200, method: "DELETE", path: "/organisation/auth-keys/{key}", keys: authKeyKeys},
	{title: "delete a used auth key", current: 200, method: "DELETE", path: "/organisation/auth-keys/{used}", keys: authKeyKeys},
	{title: "auth keys are not there", older: 404, method: "GET", path: "/organisation/auth-keys"},

	{title: "list devices", older: 200, current: 200, method: "GET", path: "/organisation/devices", keys: rowsOf("devices", deviceKeys)},
	{title: "the second page", older: 200, current: 200, method: "GET", path: "/organisation/devices?page=2", keys: "devices" + metaKeys},
	{title: "ten a page", older: 200, current: 200, method: "GET", path: "/organisation/devices?per_page=10", keys: rowsOf("devices", deviceKeys)},
	{title: "some of them", older: 200, current: 200, method: "GET", path: "/organisation/devices?query=model%3Acm5lite%20tag%3Aproduction", keys: rowsOf("devices", deviceKeys)},
	{title: "a plus in a query", older: 200, current: 200, method: "GET", path: "/organisation/devices?query=model%3A3b%2B", keys: "devices" + metaKeys},
	{title: "with an invalid token", older: 401, current: 401, method: "GET", path: "/organisation/devices", strange: true},
	{title: "show a device", current: 200, method: "GET", path: "/organisation/devices/{device}", keys: deviceKeys},
	{title: "update a device", current: 200, method: "PATCH", path: "/organisation/devices/{device}", kind: jsonType, body: `{"name":"shop-window","tags":["production"]}`, keys: deviceKeys},
	{title: "with a blank name", current: 422, method: "PATCH", path: "/organisation/devices/{device}", kind: jsonType, body: `{"name":""}`, message: "Validation failed: Name can't be blank"},
	{title: "delete a device", older: 204, current: 200, method: "DELETE", path: "/organisation/devices/{device}", keys: deviceKeys},
	{title: "delete one that is not there", older: 404, current: 404, method: "DELETE", path: "/organisation/devices/12345"},

	{title: "list artefacts", older: 200, current: 200, method: "GET", path: "/organisation/artefacts", keys: rowsOf("artefacts", artefactKeys)},
	{title: "by their prefix", current: 200, method: "GET", path: "/organisation/artefacts?name=KIOSK", keys: rowsOf("artefacts", artefactKeys)},
	{title: "show an artefact", current: 200, method: "GET", path: "/organisation/artefacts/{artefact}", keys: artefactKeys},
	{title: "create an artefact", older: 201, current: 201, method: "POST", path: "/organisation/artefacts", kind: jsonType,
		body: `{"name":"kiosk-v1.0","uri":"https://example.com/kiosk-v1.0.tar.zst","checksum":"` + checksum + `"}`, keys: artefactKeys},
	{title: "as a form", older: 201, current: 201, method: "POST", path: "/organisation/artefacts", kind: formType,
		body: "name=kiosk-v1.0&uri=https%3A%2F%2Fexample.com%2Fkiosk-v1.0.tar.zst&checksum=" + checksum, keys: artefactKeys},
	{title: "a path on the device", current: 201, method: "POST", path: "/organisation/artefacts", kind: jsonType,
		body: `{"name":"local","uri":"file:/var/tmp/local.tar.zst","checksum":"` + checksum + `"}`, keys: artefactKeys},
	{title: "without a name", older: 422, current: 422, method: "POST", path: "/organisation/artefacts", kind: jsonType, body: `{"uri":"https://example.com"}`, message: "Validation failed: Name can't be blank"},
	{title: "delete an artefact", older: 204, current: 200, method: "DELETE", path: "/organisation/artefacts/{artefact}", keys: artefactKeys},
	{title: "delete one that is not there", older: 404, current: 404, method: "DELETE", path: "/organisation/artefacts/12345"},
	{title: "delete one that was deployed", older: 422, current: 422, method: "DELETE", path: "/organisation/artefacts/{deployed}", message: "Cannot delete artefacts that have been deployed"},

	{title: "list deployments", older: 200, current: 200, method: "GET", path: "/organisation/devices/{device}/deployments", keys: rowsOf("deployments", deploymentKeys)},
	{title: "those that are pending", current: 200, method: "GET", path: "/organisation/devices/{device}/deployments?state=pending", keys: rowsOf("deployments", deploymentKeys)},
	{title: "in an unknown state", current: 400, method: "GET", path: "/organisation/devices/{device}/deployments?state=done", message: `Unknown state "done"`},
	{title: "of no device", older: 404, current: 404, method: "GET", path: "/organisation/devices/12345/deployments"},
	{title: "show a deployment", older: 200, current: 200, method: "GET", path: "/organisation/deployments/{deployment}", keys: deploymentKeys},
	{title: "one that is not there", older: 404, current: 404, method: "GET", path: "/organisation/deployments/12345"},
	{title: "create a deployment", older: 201, current: 201, method: "POST", path: "/organisation/devices/{device}/deployments", kind: jsonType, body: `{"artefact_id":"{artefact}"}`, keys: deploymentKeys},
	{title: "as a form", older: 201, current: 201, method: "POST", path: "/organisation/devices/{device}/deployments", kind: formType, body: "artefact_id={artefact}", keys: deploymentKeys},
	{title: "without an artefact", older: 400, current: 400, method: "POST", path: "/organisation/devices/{device}/deployments", kind: jsonType, body: `{}`},
	{title: "of no artefact", older: 404, current: 404, method: "POST", path: "/organisation/devices/{device}/deployments", kind: jsonType, body: `{"artefact_id":"12345"}`},
	{title: "to no device", older: 404, current: 404, method: "POST", path: "/organisation/devices/12345/deployments", kind: jsonType, body: `{"artefact_id":"{artefact}"}`},
	{title: "before billing is set up", older: 403, current: 403, method: "POST", path: "/organisation/devices/{device}/deployments", kind: jsonType, body: `{"artefact_id":"{artefact}"}`, unbilled: true,
		message: "Deployments are blocked until billing has been set up"},
	{title: "cancel a deployment", older: 200, current: 200, method: "PUT", path: "/organisation/deployments/{deployment}/cancel", keys: deploymentKeys},
	{title: "cancel one that is over", older: 422, current: 422, method: "PUT", path: "/organisation/deployments/{over}/cancel", message: `Cannot cancel deployment in state "succeeded"`},
	{title: "cancel one that is not there", older: 404, current: 404, method: "PUT", path: "/organisation/deployments/12345/cancel"},
}

func TestEveryExampleOfTheChapter(t *testing.T) {
	for _, e := range chapter {
		for revision, want := range map[connectsim.Revision]int{connectsim.Older: e.older, connectsim.Current: e.current} {
			if want == 0 {
				continue
			}
			t.Run(fmt.Sprint(revision, "/", e.method, " ", e.path, "/", e.title), func(t *testing.T) {
				e.play(begin(t, connectsim.Options{Revision: revision}), want)
			})
		}
	}
}

// play sends the example to an organisation that has everything it speaks of.
func (e example) play(s env, want int) {
	s.Helper()
	w := s.populate()
	w.device = s.org.AddDevice(connectsim.Device{Name: "raspberrypi5", SerialNumber: "ea636879c4d47a37", Tags: []string{"production"}, Model: "cm5lite", Memory: "8gb", OS: "raspios-13"})
	s.org.RemoveDevice(s.org.Devices()[0].ID)
	over := s.org.AddDeployment(w.device.ID, s.org.Artefacts()[0].ID)
	s.org.MoveDeployment(over.ID, connectsim.Succeeded, "")
	w.deployment = s.org.AddDeployment(w.device.ID, s.org.Artefacts()[0].ID)
	used := s.org.AddAuthKey("used", "", nil, 1)
	s.exchange(used.Secret)
	s.org.RemoveDevice(s.org.Devices()[0].ID)
	s.sim.SetBilling(!e.unbilled)

	key, public := newKey(s.T)
	fill := func(text string) string {
		return strings.NewReplacer("{public}", fmt.Sprintf("%q", public), "{used}", used.ID, "{over}", over.ID, "{deployed}", s.org.Artefacts()[0].ID).Replace(w.fill(text))
	}
	shown := token
	if e.strange {
		shown = "rporg_accesstokenhere"
	}
	r := request{e.method, fill(e.path), nil, bearer(shown)}
	if e.body != "" {
		r.body = fill(e.body)
		r.header.Set("Content-Type", e.kind)
	}
	if e.signed {
		r.header.Set("Accept", "*/*") // as curl does
		text := payload(e.method, s.url+e.path, fill(e.body), "Authorization: Bearer "+shown, "Content-Type: "+e.kind, "Accept: */*")
		r.header.Set("X-Connect-Identity-Signature", sign(s.T, key, text))
	}

	a := s.send(r).is(want)
	switch {
	case s.older || e.strange:
		a.saysNothing()
	case a.limit() != "5000 4999 1800":
		s.Errorf("it says %q of the limit", a.limit())
	}
	switch {
	case want == http.StatusNoContent:
		a.empty()
	case e.message != "":
		a.says(want, e.message)
	case e.keys != "":
		a.hasKeys(e.keys)
	}
}

// hasKeys checks the keys of the answer, and that its times are in whole seconds
// of UTC.
func (a answer) hasKeys(want string) {
	a.Helper()
	if a.older {
		want = regexp.MustCompile(` \+\w+`).ReplaceAllString(want, "")
	}
	expected := slices.Sorted(slices.Values(strings.Fields(strings.ReplaceAll(want, "+", ""))))
	got := map[string]bool{}
	collect("", a.object(), got)
	if keys := slices.Sorted(maps.Keys(got)); !slices.Equal(keys, expected) {
		a.Errorf("%s: the answer has\n%v, want\n%v", a.sent, keys, expected)
	}
	for _, found := range regexp.MustCompile(`"(?:created|updated|expires|exchanged)_at":"([^"]*)"`).FindAllStringSubmatch(a.text, -1) {
		if at, err := time.Parse("2006-01-02T15:04:05Z", found[1]); err != nil || at.IsZero() {
			a.Errorf("%s: a time is %s", a.sent, found[1])
		}
	}
}

// collect notes the keys of a value, behind a dot those of what is in it; of a
// list, those of its first row.
func collect(prefix string, value any, keys map[string]bool) {
	switch v := value.(type) {
	case object:
		for key, inner := range v {
			keys[prefix+key] = true
			collect(prefix+key+".", inner, keys)
		}
	case []any:
		if len(v) > 0 {
			collect(prefix, v[0], keys)
		}
	}
}

// Whatever zone the clock is of, times are UTC and whole seconds.
func TestTimesAreUTC(t *testing.T) {
	zone := time.FixedZone("somewhere", -7*3600)
	clock := connectsim.NewClock(time.Date(2026, 3, 1, 3, 30, 0, 999_999_999, zone))
	sim := connectsim.New(connectsim.Options{Clock: clock})
	url, err := sim.Start("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sim.Close)
	s := env{T: t, sim: sim, org: sim.AddOrganisation(token), clock: clock, url: url}
	made := s.call("POST", authKeys, `{"description":"lab"}`).is(201)
	if got := made.object(); got["created_at"] != now || got["expires_at"] != "2026-03-02T10:30:00Z" {
		t.Errorf("made %s", made.text)
	}
	made.allows("5000 4999 1800")
}

// Tags are at most ten, here and there.
func TestTagsAreAtMostTen(t *testing.T) {
	s := begin(t, connectsim.Options{})
	w := s.populate()
	tags := func(n int) string {
		return `["` + strings.Join(slices.Repeat([]string{"t"}, n), `","`) + `"]`
	}
	key, public := newKey(t)
	for _, call := range []string{"PATCH /organisation/auth-keys/{key}", "PATCH /organisation/device-identities/{identity}", "PATCH /organisation/devices/{device}"} {
		method, path, _ := strings.Cut(w.fill(call), " ")
		w.call(method, path, `{"tags":`+tags(11)+`}`).says(422, "Validation failed: Tags are invalid")
		w.call(method, path, `{"tags":`+tags(10)+`}`).is(200)
	}
	w.send(w.register(key, jsonOf(object{"public_key": public, "description": "x", "tags": strings.Split(strings.Repeat("t", 11), "")}))).says(422, "Validation failed: Tags are invalid")
	w.send(w.register(key, jsonOf(object{"public_key": public, "description": "x", "tags": strings.Split(strings.Repeat("t", 10), "")}))).is(201)
}
