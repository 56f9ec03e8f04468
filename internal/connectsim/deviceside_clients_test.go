// SPDX-License-Identifier: Apache-2.0

package connectsim_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"rpi-connect.dev/operator/internal/connectsim"
)

// A board that signs in again is the device that it was, whatever it signs in
// with.
func TestABoardThatSignsInAgain(t *testing.T) {
	onBothRevisions(t, func(s env) {
		first := s.exchange(s.org.AddAuthKey("first", "shop", []string{"lab"}, 1).Secret)
		there := s.org.Devices()[0]
		run := s.org.AddDeployment(there.ID, s.org.AddArtefact("kiosk", "https://example.com", checksum).ID)

		// Reinstalled, under another host name, with a key that says nothing.
		again := s.send(exchangeFrom(strings.ToUpper(board), s.org.AddAuthKey("second", "", nil, 1).Secret)).is(200).object()["access_token"].(string)
		page := s.list(devices)
		page.has("id", there.ID)
		page.has("name", "shop")
		page.has("tags", []any{"lab"})

		// The token that it had is no longer good; what waits for it still does.
		s.send(request{"GET", "/deployments/pending", nil, bearer(first)}).is(401)
		s.samef(s.send(request{"GET", "/deployments/pending", nil, bearer(again)}).is(200).object(), `{"deployments":[{"id":%q}]}`, run.ID)

		// With an identity, it is that identity's device.
		key, public := newKey(t)
		identity := s.org.AddDeviceIdentity(public, "pi5", "another name", []string{"north"})
		signedIn := s.send(s.exchangeIdentity(key, public)).is(200).object()
		page = s.list(devices)
		page.has("id", signedIn["device_id"])
		page.has("name", "shop")
		page.has("tags", []any{"north"})
		if signedIn["device_id"] != there.ID {
			t.Errorf("it became %v", signedIn)
		}
		s.call("DELETE", identities+"/"+identity.ID, nil)
		s.list(devices).has("id")

		// Another board is another device, and so is one without a number.
		for _, serial := range []string{board, "10000000c0ffee08", "", ""} {
			s.send(exchangeFrom(serial, s.org.AddAuthKey("more", "", nil, 1).Secret)).is(200)
		}
		s.list(devices).has("name", "raspberrypi", "raspberrypi", "raspberrypi", "raspberrypi")
	})
}

// An identity is of its board for ever: the serial number that comes with it again
// changes nothing.
func TestAnIdentityStaysOneDevice(t *testing.T) {
	s := begin(t, connectsim.Options{})
	key, public := newKey(t)
	s.org.AddDeviceIdentity(public, "pi5", "pi5-001", nil)
	first := s.send(s.exchangeIdentity(key, public)).is(200).object()
	const path = "/client/device-identity-exchange"
	body := jsonOf(object{"public_key": public, "hostname": "x", "serial_number": "2"})
	second := s.send(request{"POST", path, body, http.Header{
		"Authorization":                nil,
		"X-Connect-Identity-Signature": {sign(t, key, payload("POST", s.url+path, body, "Content-Type: application/json"))},
	}}).is(200).object()
	if first["device_id"] != second["device_id"] || first["access_token"] == second["access_token"] {
		t.Errorf("it signed in as %v and %v", first, second)
	}
	s.list(devices).has("serial_number", board)

	// So does one whose board tells no number.
	key, public = newKey(t)
	s.org.AddDeviceIdentity(public, "no number", "", nil)
	body = jsonOf(object{"public_key": public, "hostname": "x"})
	for range 2 {
		s.send(request{"POST", path, body, http.Header{
			"Authorization":                nil,
			"X-Connect-Identity-Signature": {sign(t, key, payload("POST", s.url+path, body, "Content-Type: application/json"))},
		}}).is(200)
	}
	s.list(devices+"?query=x").has("serial_number", "")
	key, public = newKey(t)
	s.org.AddDeviceIdentity(public, "last", "pi5-003", nil)
	first = s.send(s.exchangeIdentity(key, public)).is(200).object()

	// Deleted, it comes back as another device.
	s.call("DELETE", devices+"/"+first["device_id"].(string), nil).is(200)
	if third := s.send(s.exchangeIdentity(key, public)).is(200).object(); third["device_id"] == first["device_id"] {
		t.Error("it came back from the dead")
	}
}

func TestTheServerIsUp(t *testing.T) {
	onBothRevisions(t, func(s env) {
		a := s.send(request{"GET", "/up", nil, nobody}).is(200)
		if got := a.header.Get("X-Timestamp"); got != fmt.Sprint(s.clock.Now().Unix()) {
			t.Errorf("it is %q", got)
		}
	})
}

func TestWhatADeviceCanDo(t *testing.T) {
	s := begin(t, connectsim.Options{})
	device := s.exchange(s.org.AddAuthKey("lab", "", nil, 1).Secret)
	declare := func(body any) answer { return s.send(request{"POST", "/me", body, bearer(device)}) }
	declare(`{"capabilities":{"vnc":"unavailable","shell":"enabled","ota":"available"},"pico":{"platform":"rp2350"}}`).is(204).empty()
	declare(`{"capabilities":{"ota":"enabled"}}`).is(204) // the rest stays
	if got := s.org.Devices()[0].Capabilities; !reflect.DeepEqual(got, map[string]string{"vnc": "unavailable", "shell": "enabled", "ota": "enabled"}) {
		t.Errorf("it can do %v", got)
	}
	for _, body := range []any{`{"capabilities":{"ota":"maybe"}}`, `{"capabilities":[]}`, `{"capabilities":`, `{}`, nil} {
		declare(body).is(422)
	}
	s.send(request{"POST", "/me", `{"capabilities":{}}`, nobody}).is(401)
	s.send(request{"POST", "/me", `{"capabilities":{}}`, bearer(token)}).is(401)

	// The Management API does not tell.
	if text := s.get(devices).is(200).text; strings.Contains(text, `"ota"`) || strings.Contains(text, "capab") {
		t.Errorf("it shows %s", text)
	}
}

// listen opens the stream of events of a device.
func (s env) listen(ctx context.Context, token, channel string) (status int, events *bufio.Reader) {
	s.Helper()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/events?channel="+channel, nil)
	req.Header = bearer(token)
	req.Header.Set("Accept", "text/event-stream")
	res, err := oneByOne.RoundTrip(req)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = res.Body.Close() })
	if got := res.Header.Get("Content-Type"); res.StatusCode == http.StatusOK && got != "text/event-stream; charset=utf-8" {
		s.Errorf("the events are %q", got)
	}
	return res.StatusCode, bufio.NewReader(res.Body)
}

// next reads an event: its name, and its data.
func next(t *testing.T, events *bufio.Reader) (name string, data object) {
	t.Helper()
	for {
		line, err := events.ReadString('\n')
		if err != nil {
			return err.Error(), nil
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch field {
		case "event":
			name = value
		case "data":
			if err := json.Unmarshal([]byte(value), &data); err != nil {
				t.Fatalf("%v in %q", err, value)
			}
		case "":
			if name != "ping" {
				return name, data
			}
			name = ""
		}
	}
}

func TestEvents(t *testing.T) {
	onBothRevisions(t, func(s env) {
		w := s.populate()
		device := w.exchange(w.key.Secret)
		id := w.org.Devices()[1].ID
		earlier := w.org.AddDeployment(id, w.artefact.ID)
		ctx, giveUp := context.WithCancel(t.Context())
		defer giveUp()
		status, events := w.listen(ctx, device, "DeviceChannel")
		if status != http.StatusOK {
			t.Fatalf("answered %d", status)
		}
		name, data := next(t, events)
		if sid, _ := data["sid"].(string); name != "welcome" || data["type"] != "welcome" || sid == "" {
			t.Errorf("it begins with %s %v", name, data)
		}
		name, data = next(t, events)
		if name != "confirm_subscription" || data["identifier"] != `{"channel":"DeviceChannel"}` {
			t.Errorf("it goes on with %s %v", name, data)
		}

		// It is told what is new, not what is pending already, nor what is for others.
		w.deploy().is(201)
		made := w.call("POST", devices+"/"+id+"/deployments", w.fill(`{"artefact_id":"{artefact}"}`)).id()
		by := w.org.AddDeployment(id, w.artefact.ID)
		for _, want := range []string{made, by.ID} {
			if name, data = next(t, events); name != "" {
				t.Errorf("it is told %s %v", name, data)
			}
			w.samef(data, `{"command":"deploy","data":{"id":%q}}`, want)
		}
		if earlier.ID == made {
			t.Error("two are the same")
		}

		// Signed out, it hears no more.
		w.call("DELETE", devices+"/"+id, nil)
		if _, err := io.ReadAll(events); err != nil {
			t.Errorf("it ended with %v", err)
		}
		if got, _ := w.listen(ctx, device, "DeviceChannel"); got != 401 {
			t.Errorf("signed out, it is answered %d", got)
		}
	})
	s := begin(t, connectsim.Options{})
	device := s.exchange(s.org.AddAuthKey("lab", "", nil, 1).Secret)
	s.send(request{"HEAD", "/events?channel=DeviceChannel", nil, bearer(device)}).is(200).empty()
	if got, _ := s.listen(t.Context(), device, "OtherChannel"); got != 400 {
		t.Errorf("another channel is answered %d", got)
	}
	if got, _ := s.listen(t.Context(), "", "DeviceChannel"); got != 401 {
		t.Errorf("nobody is answered %d", got)
	}
}

// The newest clients date the exchange, and some send an Accept: both are signed,
// in this order.
func TestAnExchangeThatIsDated(t *testing.T) {
	const path = "/client/device-identity-exchange"
	s := begin(t, connectsim.Options{})
	key, public := newKey(t)
	s.org.AddDeviceIdentity(public, "pi5", "", nil)
	body := jsonOf(object{"client_id": "test", "public_key": public, "hostname": "raspberrypi", "serial_number": board})
	exchange := func(header http.Header, lines ...string) answer {
		header["Authorization"] = nil
		header["X-Connect-Identity-Signature"] = []string{sign(t, key, payload("POST", s.url+path, body, lines...))}
		return s.send(request{"POST", path, body, header})
	}
	dated := func(skew time.Duration) answer {
		stamp := fmt.Sprint(s.clock.Now().Add(skew).Unix())
		return exchange(http.Header{"X-Connect-Timestamp": {stamp}, "Accept": {"*/*"}},
			"Content-Type: application/json", "Accept: */*", "X-Connect-Timestamp: "+stamp)
	}
	dated(0).is(200)
	dated(-2 * time.Minute).is(200)
	dated(2 * time.Minute).is(200)
	dated(-10 * time.Minute).is(403)
	dated(10 * time.Minute).is(403)
	exchange(http.Header{"X-Connect-Timestamp": {"now"}}, "Content-Type: application/json", "X-Connect-Timestamp: now").is(403)
	stamp := fmt.Sprint(s.clock.Now().Unix())
	exchange(http.Header{"X-Connect-Timestamp": {stamp}}, "Content-Type: application/json").is(401) // not signed
	exchange(http.Header{"X-Connect-Timestamp": {stamp}, "Accept": {"*/*"}}, "Content-Type: application/json", "X-Connect-Timestamp: "+stamp, "Accept: */*").is(401)
	exchange(http.Header{"Accept": {"*/*"}}, "Content-Type: application/json", "Accept: */*").is(200)
}

// Who is refused is told what should have been signed; the token is not.
func TestARefusedSignatureSaysWhatToSign(t *testing.T) {
	s := begin(t, connectsim.Options{PublicURL: "https://connect.example.com/"})
	key, public := newKey(t)
	body := jsonOf(object{"public_key": public, "description": "pi5"})
	sum := sha256.Sum256([]byte(body))
	text := payload("POST", "https://connect.example.com"+identities, body, "Authorization: Bearer "+token, "Content-Type: application/json")
	digest := sha256.Sum256([]byte(text))

	refused := s.send(s.register(key, body)).is(422) // for the URL that it was sent to
	want := "POST\nhttps://connect.example.com/organisation/device-identities\nAuthorization: Bearer [redacted]\nContent-Type: application/json\n" + hex.EncodeToString(sum[:])
	s.same(refused.object(), jsonOf(object{
		"message":  "Validation failed: Signature is invalid",
		"expected": object{"payload": want, "sha256": hex.EncodeToString(digest[:])},
	}))
	if note := s.sim.Journal()[0].Note; note != "expected to be signed, with the SHA-256 "+hex.EncodeToString(digest[:])+":\n"+want {
		t.Errorf("it is noted %q", note)
	}
	s.send(request{"POST", identities, body, http.Header{"X-Connect-Identity-Signature": {sign(t, key, text)}}}).is(201)

	// The device side, whatever errors look like.
	for bodies, says := range map[connectsim.ErrorBodies]bool{connectsim.MessageBodies: true, connectsim.EmptyBodies: false, connectsim.ErrorKey: false} {
		s := begin(t, connectsim.Options{ErrorBodies: bodies})
		s.org.AddDeviceIdentity(public, "pi5", "", nil)
		r := s.exchangeIdentity(key, public)
		r.header["Accept"] = []string{"*/*"}
		a := s.send(r).is(401)
		expected := "POST\n" + s.url + "/client/device-identity-exchange\nContent-Type: application/json\nAccept: */*\n"
		if got := strings.Contains(a.text, strings.ReplaceAll(expected, "\n", `\n`)); got != says {
			t.Errorf("%s says %s", bodies, a.text)
		}
		if note := s.sim.Journal()[0].Note; !strings.Contains(note, expected) {
			t.Errorf("it is noted %q", note)
		}
	}
}

// Forms are for creations; everything else is JSON.
func TestBodiesOfOtherTypes(t *testing.T) {
	onBothRevisions(t, func(s env) {
		w := s.populate()
		form := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
		for _, path := range []string{"/organisation/auth-keys/{key}", "/organisation/device-identities/{identity}", "/organisation/devices/{device}"} {
			if w.older && !strings.Contains(path, "identities") {
				continue
			}
			w.send(request{"PATCH", w.fill(path), "description=x&name=x", form}).is(400)
			if text := w.call("PATCH", w.fill(path), nil).is(200).text; strings.Contains(text, `"x"`) {
				t.Errorf("a form changed it to %s", text)
			}
		}
		for _, kind := range []string{"text/plain", "", "multipart/form-data; boundary=x"} {
			w.send(request{"POST", artefacts, artefactJSON("x"), http.Header{"Content-Type": {kind}}}).is(400)
		}
		w.send(request{"POST", artefacts, artefactJSON("x"), http.Header{"Content-Type": {"application/json; charset=utf-8"}}}).is(201)
	})
}
