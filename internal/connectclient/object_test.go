// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

// Whatever an answer has in the place of an object: what is taken has an id, is read in the same way
// again, and prints no key; anything else is an error that is safe to show.
func FuzzObject(f *testing.F) {
	for _, body := range []string{
		`{"id":"1","name":"kiosk-v1","uri":"https://me:pw@example.com/?sig=x","checksum":"AB"}`,
		`{"id":"2","state":"failed","state_reason":"Checksum mismatch","device_id":"d","artefact_id":"1","created_at":"2026-03-01T12:00:00Z","updated_at":"0000-00-00"}`,
		`{"id":"3","description":"pi","device_name":null,"tags":["a"],"secret":"rpoak_3vQB7B6MrGQZaxCuFg4oH9XQ","expires_at":"2026-03-01T12:00:00Z","exchanged_at":null}`,
		`{"id":"4","public_key":"-----BEGIN PUBLIC KEY-----","description":"","tags":null}`,
		`{"id":"5","board":{"model":"Raspberry Pi 5","memory":8},"os":[],"filters":{"model":5}}`,
		`{"id":""}`, `{"id":6}`, `[]`, `null`, `{"id":"7","ID":"8","created_at":9e99}`, "\xff", `{"id":"9"}{"id":"10"}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		api, err := New(Options{BaseURL: "https://connect.invalid"})
		if err != nil {
			t.Fatal(err)
		}
		c := api.ClientFor(NewSecret(testToken))
		c.send = func(context.Context, *request) (*answer, error) {
			return &answer{status: http.StatusOK, header: http.Header{"Content-Type": {"application/json"}}, body: body}, nil
		}
		read(t, body, c.Artefacts().Get, func(a *Artefact) string { return a.ID })
		read(t, body, c.Devices().Get, func(d *Device) string { return d.ID })
		read(t, body, c.Deployments().Get, func(d *Deployment) string { return d.ID })
		read(t, body, c.DeviceIdentities().Get, func(d *DeviceIdentity) string { return d.ID })
		read(t, body, c.AuthKeys().Get, func(k *AuthKey) string { return k.ID })
	})
}

func read[T any](t *testing.T, body []byte, get func(context.Context, string) (*T, error), id func(*T) string) {
	t.Helper()
	found, err := get(t.Context(), "a")
	if err != nil {
		mustBeSafe(t, err.Error())
		return
	}
	if id(found) == "" || !json.Valid(body) {
		t.Fatalf("%T is taken: %q", found, body)
	}
	if again, err := get(t.Context(), "a"); err != nil || !reflect.DeepEqual(again, found) {
		t.Fatalf("%+v becomes %+v, %v", found, again, err)
	}
	var key struct{ Secret string }
	if _, isKey := any(found).(*AuthKey); isKey && json.Unmarshal(body, &key) == nil && strings.HasPrefix(key.Secret, "rpoak_") &&
		strings.Contains(fmt.Sprintf("%+v", found), key.Secret) {
		t.Fatalf("the key is printed: %+v", found)
	}
}
