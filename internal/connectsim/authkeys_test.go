// SPDX-License-Identifier: Apache-2.0

package connectsim_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"rpi-connect.dev/operator/internal/connectsim"
)

const authKeys = "/organisation/auth-keys"

func TestAuthKeyCreation(t *testing.T) {
	onBothRevisions(t, func(s env) {
		made := s.call("POST", authKeys, `{"description":"lab","ttl_days":90,"device_name":"pi5","tags":["lab","a_b-1"]}`)
		secret := made.is(201).object()["secret"].(string)
		if !regexp.MustCompile(`^rpoak_[1-9A-HJ-NP-Za-km-z]{24}$`).MatchString(secret) {
			t.Errorf("the secret is %q", secret)
		}
		more := ""
		if !s.older {
			more = `,"created_at":"` + now + `","exchanged_at":null`
		}
		s.samef(made.object(), `{"id":%q,"description":"lab","device_name":"pi5","tags":["lab","a_b-1"],"secret":%q,"expires_at":"2026-05-30T10:30:00Z"`+more+`}`,
			made.id(), secret)

		// A day, no name and no tags are the defaults.
		plain := s.call("POST", authKeys, `{"description":"lab"}`)
		s.samef(plain.object(), `{"id":%q,"description":"lab","device_name":null,"tags":[],"secret":%q,"expires_at":"2026-03-02T10:30:00Z"`+more+`}`,
			plain.id(), plain.object()["secret"])
		if plain.object()["secret"] == secret || plain.id() == made.id() {
			t.Error("two keys are the same")
		}
	})
}

func TestAuthKeysThatAreRefused(t *testing.T) {
	list := func(n int) string {
		return `["` + strings.Join(strings.Split(strings.Repeat("t", n), ""), `","`) + `"]`
	}
	onBothRevisions(t, func(s env) {
		for body, message := range map[string]string{
			`{}`:                                                               "Description can't be blank",
			`{"description":" "}`:                                              "Description can't be blank",
			`{"description":"lab","ttl_days":0}`:                               "Ttl days must be between 1 and 90",
			`{"description":"lab","ttl_days":91}`:                              "Ttl days must be between 1 and 90",
			`{"description":"lab","ttl_days":-1}`:                              "Ttl days must be between 1 and 90",
			`{"description":"lab","ttl_days":"soon"}`:                          "Ttl days must be between 1 and 90",
			`{"description":"lab","tags":["Lab"]}`:                             "Tags are invalid",
			`{"description":"lab","tags":[""]}`:                                "Tags are invalid",
			`{"description":"lab","tags":["a b"]}`:                             "Tags are invalid",
			`{"description":"lab","tags":"lab"}`:                               "Tags are invalid",
			`{"description":"lab","tags":["` + strings.Repeat("x", 31) + `"]}`: "Tags are invalid",
			`{"description":"lab","tags":` + list(11) + `}`:                    "Tags are invalid",
		} {
			s.call("POST", authKeys, body).says(422, "Validation failed: "+message)
		}
		if got := s.org.AuthKeys(); len(got) != 0 {
			t.Errorf("made %+v", got)
		}
		for _, body := range []string{
			`{"description":"lab","ttl_days":1}`, `{"description":"lab","ttl_days":null}`, `{"description":"lab","tags":null}`,
			`{"description":"lab","tags":["` + strings.Repeat("x", 30) + `"]}`, `{"description":"lab","tags":` + list(10) + `}`,
		} {
			s.call("POST", authKeys, body).is(201)
		}
	})
}

func TestTheSecretIsShownOnce(t *testing.T) {
	s := begin(t, connectsim.Options{})
	made := s.call("POST", authKeys, `{"description":"lab"}`)
	secret, path := made.object()["secret"].(string), authKeys+"/"+made.id()
	for _, later := range []answer{
		s.get(authKeys), s.get(path), s.call("PATCH", path, `{"device_name":"pi5"}`), s.call("DELETE", path, nil),
	} {
		if later.is(200); strings.Contains(later.text, secret) || strings.Contains(later.text, "secret") {
			t.Errorf("%s: %s", later.sent, later.text)
		}
	}
}

// Usable keys come first, then expired ones, then exchanged ones, and the newest
// first in each group.
func TestAuthKeysAreListedInGroups(t *testing.T) {
	s := begin(t, connectsim.Options{})
	add := func(description string, days int) connectsim.AuthKey {
		key := s.org.AddAuthKey(description, "", nil, days)
		s.clock.Advance(time.Minute)
		return key
	}
	first := add("exchanged-1", 1)
	add("expired-1", 1)
	add("usable-1", 30)
	second := add("exchanged-2", 30)
	add("expired-2", 1)
	s.exchange(first.Secret)
	s.clock.Advance(48 * time.Hour)
	s.exchange(second.Secret)
	add("usable-2", 30)
	s.org.AddAuthKey("usable-3", "", nil, 30)
	s.org.AddAuthKey("usable-4", "", nil, 30) // in the same second

	s.list(authKeys).has("description", "usable-4", "usable-3", "usable-2", "usable-1", "expired-2", "expired-1", "exchanged-2", "exchanged-1")
	s.list(authKeys+"?per_page=3&page=2").has("description", "usable-1", "expired-2", "expired-1")
	s.list(authKeys+"?per_page=2&page=4").has("exchanged_at", "2026-03-03T10:35:00Z", "2026-03-01T10:35:00Z")
}

func TestAuthKeysAreEditedWhileUsable(t *testing.T) {
	s := begin(t, connectsim.Options{})
	key := s.org.AddAuthKey("lab", "pi5", []string{"lab"}, 1)
	path := authKeys + "/" + key.ID
	form := `{"id":"` + key.ID + `","description":%q,"device_name":%s,"tags":%s,"created_at":"` + now + `","expires_at":"2026-03-02T10:30:00Z","exchanged_at":null}`
	for _, step := range []struct{ body, description, name, tags string }{
		{`{}`, "lab", `"pi5"`, `["lab"]`},
		{`{"description":"shop"}`, "shop", `"pi5"`, `["lab"]`},
		{`{"device_name":"pi4"}`, "shop", `"pi4"`, `["lab"]`},
		{`{"tags":["a","b"]}`, "shop", `"pi4"`, `["a","b"]`},
		{`{"tags":[],"device_name":null}`, "shop", `null`, `[]`},
	} {
		want := fmt.Sprintf(form, step.description, step.name, step.tags)
		s.same(s.call("PATCH", path, step.body).is(200).object(), want)
		s.same(s.get(path).is(200).object(), want)
	}
	s.call("PATCH", path, `{"description":""}`).says(422, "Validation failed: Description can't be blank")
	s.call("PATCH", path, `{"tags":["A"]}`).says(422, "Validation failed: Tags are invalid")
	s.call("PATCH", path, `[`).is(400)

	// Its time is over at its expiry, to the second.
	s.clock.Advance(24*time.Hour - time.Second)
	s.call("PATCH", path, `{"description":"last"}`).is(200)
	s.clock.Advance(time.Second)
	s.call("PATCH", path, `{"description":"late"}`).says(422, "This auth key can no longer be edited.")

	used := s.org.AddAuthKey("used", "", nil, 1)
	s.exchange(used.Secret)
	s.call("PATCH", authKeys+"/"+used.ID, `{"description":"late"}`).says(422, "This auth key can no longer be edited.")
	s.list(authKeys).has("description", "last", "used")
}

func TestAuthKeysAreDeletedInAnyState(t *testing.T) {
	s := begin(t, connectsim.Options{})
	expired, used := s.org.AddAuthKey("expired", "", nil, 1), s.org.AddAuthKey("used", "", nil, 1)
	device := s.exchange(used.Secret)
	s.clock.Advance(25 * time.Hour)
	usable := s.org.AddAuthKey("usable", "", nil, 1)
	for _, key := range []connectsim.AuthKey{expired, used, usable} {
		if got := s.call("DELETE", authKeys+"/"+key.ID, nil).is(200).object()["description"]; got != key.Description {
			t.Errorf("deleted %v, want %s", got, key.Description)
		}
		s.get(authKeys + "/" + key.ID).is(404)
		s.call("DELETE", authKeys+"/"+key.ID, nil).is(404)
	}
	s.list(authKeys).has("id")

	// The device stays, and a revoked key signs nobody in.
	s.send(request{"GET", "/deployments/pending", nil, bearer(device)}).is(204)
	s.list("/organisation/devices").has("name", "raspberrypi")
	s.send(exchangeOf(usable.Secret)).is(http.StatusUnauthorized)
}

// The older revision only makes them: whether they are there or not, they cannot
// be seen.
func TestAuthKeysOfTheOlderRevision(t *testing.T) {
	s := begin(t, connectsim.Options{Revision: connectsim.Older})
	id := s.call("POST", authKeys, `{"description":"lab"}`).id()
	unknown := s.get(authKeys + "/0").is(404)
	for _, a := range []answer{
		s.get(authKeys), s.get(authKeys + "/" + id), s.call("PATCH", authKeys+"/"+id, `{"description":"x"}`), s.call("DELETE", authKeys+"/"+id, nil),
	} {
		if a.is(404); a.text != unknown.text {
			t.Errorf("%s: %s, unlike an unknown id", a.sent, a.text)
		}
	}
	if got := s.org.AuthKeys(); len(got) != 1 || got[0].Description != "lab" {
		t.Errorf("there is %+v", got)
	}
}
