// SPDX-License-Identifier: Apache-2.0

package connectsim_test

import (
	"crypto/ecdsa"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"rpi-connect.dev/operator/internal/connectsim"
)

var deviceToken = regexp.MustCompile(`^rpdev_[1-9A-HJ-NP-Za-km-z]{24}$`)

// board is the serial number of the board that signs in.
const board = "10000000c0ffee07"

// exchangeOf is how a device signs in with an auth key: with nothing else.
func exchangeOf(secret string) request { return exchangeFrom(board, secret) }

func exchangeFrom(serial, secret string) request {
	return request{"POST", "/client/auth-key-exchange", jsonOf(object{
		"auth_key": secret, "serial_number": serial, "hostname": "raspberrypi", "client_id": "test",
	}), nobody}
}

// exchange signs a device in, and returns its token.
func (s env) exchange(secret string) string {
	s.Helper()
	return s.send(exchangeOf(secret)).is(200).object()["access_token"].(string)
}

// exchangeIdentity is how a device signs in with its key: there is no
// Authorization to sign.
func (s env) exchangeIdentity(key *ecdsa.PrivateKey, public string) request {
	s.Helper()
	const path = "/client/device-identity-exchange"
	body := jsonOf(object{"client_id": "test", "public_key": public, "hostname": "raspberrypi", "serial_number": board})
	return request{"POST", path, body, http.Header{
		"Authorization":                nil,
		"X-Connect-Identity-Signature": {sign(s.T, key, payload("POST", s.url+path, body, "Content-Type: application/json"))},
	}}
}

func TestSigningInWithAnAuthKey(t *testing.T) {
	onBothRevisions(t, func(s env) {
		named := s.call("POST", authKeys, `{"description":"named","device_name":"pi5-001","tags":["lab"]}`).is(201).object()["secret"].(string)
		plain := s.call("POST", authKeys, `{"description":"plain"}`).is(201).object()["secret"].(string)
		late := s.call("POST", authKeys, `{"description":"late"}`).is(201).object()["secret"].(string)

		answer := s.send(exchangeOf(named)).is(200).object()
		if secret, _ := answer["access_token"].(string); len(answer) != 1 || !deviceToken.MatchString(secret) {
			t.Errorf("signed in with %v", answer)
		}
		s.send(exchangeFrom("10000000c0ffee08", plain)).is(200)
		page := s.list("/organisation/devices")
		page.has("name", "pi5-001", "raspberrypi") // the key's name goes before the host's
		page.has("serial_number", board, "10000000c0ffee08")
		page.has("tags", []any{"lab"}, []any{})

		// A key is good once, and until it expires.
		s.send(exchangeOf(named)).is(401)
		s.send(exchangeOf("")).is(401)
		s.send(exchangeOf("rpoak_111111111111111111111111")).is(401)
		s.clock.Advance(24 * time.Hour)
		s.send(exchangeOf(late)).is(401)
		if got := s.org.Devices(); len(got) != 2 {
			t.Errorf("there are %+v", got)
		}
	})
}

func TestSigningInWithAnIdentity(t *testing.T) {
	onBothRevisions(t, func(s env) {
		key, public := newKey(t)
		stranger, strange := newKey(t)
		s.send(s.exchangeIdentity(key, public)).is(404) // not registered
		there := s.org.AddDeviceIdentity(public, "pi5", "", []string{"lab"})
		s.send(s.exchangeIdentity(stranger, public)).is(401)
		s.send(s.exchangeIdentity(stranger, strange)).is(404)
		unsigned := s.exchangeIdentity(key, public)
		unsigned.header = nobody
		s.send(unsigned).is(401)
		s.list("/organisation/devices").has("name")

		answer := s.send(s.exchangeIdentity(key, public)).is(200).object()
		secret, _ := answer["access_token"].(string)
		device := s.org.Devices()[0]
		if len(answer) != 2 || !deviceToken.MatchString(secret) || answer["device_id"] != device.ID {
			t.Errorf("signed in with %v", answer)
		}
		page := s.list("/organisation/devices")
		page.has("name", "raspberrypi")
		page.has("tags", []any{"lab"})
		if device.IdentityID != there.ID || device.SerialNumber != board {
			t.Errorf("it became %+v", device)
		}

		// It is the same device when it comes again.
		if again := s.send(s.exchangeIdentity(key, public)).is(200).object(); again["device_id"] != device.ID {
			t.Errorf("it came again as %v", again)
		}
	})
}

func TestADeviceTakesDeployments(t *testing.T) {
	onBothRevisions(t, func(s env) {
		w := s.populate()
		secret := w.exchange(w.key.Secret)
		device := w.org.Devices()[len(w.org.Devices())-1]
		ask := func(method, path, body string) answer {
			var sent any
			if body != "" {
				sent = body
			}
			return w.send(request{method, path, sent, bearer(secret)})
		}
		ask("GET", "/deployments/pending", "").is(204).empty()

		deploy := func() string {
			return "/deployments/" + w.call("POST", "/organisation/devices/"+device.ID+"/deployments", w.fill(`{"artefact_id":"{artefact}"}`)).id()
		}
		run := deploy()
		w.samef(ask("GET", "/deployments/pending", "").is(200).object(), `{"deployments":[{"id":%q}]}`, run[len("/deployments/"):])
		ask("POST", run+"/complete", "").is(422) // not begun
		ask("POST", run+"/fail", `{}`).is(422)
		started := ask("POST", run+"/start", "{}").is(200).object()
		w.samef(started["artefact"], `{"uri":"https://example.com/kiosk.img","checksum":%q}`, checksum)
		if signature, _ := started["signature"].(string); signature == "" || started["timestamp"] != float64(w.clock.Now().Unix()) || len(started) != 3 {
			t.Errorf("started with %v", started)
		}
		if got := w.state(run[len("/deployments/"):]); got != "in_progress <nil>" {
			t.Errorf("started, it is %s", got)
		}
		ask("POST", run+"/start", "").is(422)
		ask("GET", "/deployments/pending", "").is(204)
		w.clock.Advance(time.Minute)
		ask("POST", run+"/complete", "").is(204).empty()
		if got := w.state(run[len("/deployments/"):]); got != "succeeded <nil>" {
			t.Errorf("completed, it is %s", got)
		}
		ask("POST", run+"/complete", "").is(422)
		ask("POST", run+"/fail", `{"reason":"too late"}`).is(422)

		// It fails with a reason or without.
		for body, want := range map[string]string{`{"reason":"Checksum mismatch"}`: "failed Checksum mismatch", `{}`: "failed <nil>", "": "failed <nil>"} {
			run := deploy()
			ask("POST", run+"/start", "").is(200)
			ask("POST", run+"/fail", body).is(204).empty()
			if got := w.state(run[len("/deployments/"):]); got != want {
				t.Errorf("failed with %s, it is %s, want %s", body, got, want)
			}
		}

		// Of two only the newer is pending; a cancelled one cannot be begun.
		first, second := deploy(), deploy()
		w.samef(ask("GET", "/deployments/pending", "").object(), `{"deployments":[{"id":%q}]}`, second[len("/deployments/"):])
		ask("POST", first+"/start", "").is(422)
		w.call("PUT", "/organisation"+second+"/cancel", nil).is(200)
		ask("POST", second+"/start", "").is(422)

		// What is gone, or another device's, is not found.
		for _, path := range []string{"/deployments/0", w.fill("/deployments/{deployment}")} {
			for _, what := range []string{"/start", "/complete", "/fail"} {
				ask("POST", path+what, "").is(404)
			}
		}
		third := deploy()
		w.org.RemoveArtefact(w.artefact.ID)
		ask("POST", third+"/start", "").is(404)
	})
}

func TestTheDeviceSideNeedsADevicesToken(t *testing.T) {
	s := begin(t, connectsim.Options{})
	w := s.populate()
	for _, header := range []http.Header{nobody, bearer(token), bearer(""), bearer("rpdev_111111111111111111111111"), {"Authorization": {w.exchange(w.key.Secret)}}} {
		for _, call := range []string{"GET /deployments/pending", "POST /deployments/{deployment}/start", "POST /deployments/{deployment}/complete", "POST /deployments/{deployment}/fail"} {
			method, path, _ := strings.Cut(w.fill(call), " ")
			w.send(request{method, path, nil, header}).is(401)
		}
	}
	if got := w.state(w.deployment.ID); got != "pending <nil>" {
		t.Errorf("it is %s", got)
	}
}
