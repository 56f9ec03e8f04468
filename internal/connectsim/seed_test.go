// SPDX-License-Identifier: Apache-2.0

package connectsim_test

import (
	"fmt"
	"strings"
	"testing"

	"rpi-connect.dev/operator/internal/connectsim"
)

// seeded is a seed of everything.
const seeded = `{"organisations": [
	{
		"token": "` + token + `",
		"artefacts": [{"name": "kiosk-v1.0"}, {"name": "kiosk-v1.1", "uri": "https://example.com/a", "checksum": "` + checksum + `", "deployed": true}],
		"auth_keys": [
			{"description": "usable", "tags": ["lab"], "ttl_days": 3, "secret": "rpoak_111111111111111111111111"},
			{"description": "expired", "expired": true}, {"description": "exchanged", "exchanged": true}
		],
		"devices": [
			{"name": "shop", "serial_number": "10000000c0ffee01", "model": "cm5lite", "memory": "8gb", "os": "raspios-13", "tags": ["lab"], "token": "rpdev_111111111111111111111111"},
			{"name": "lamp", "old_client": true}
		],
		"device_identities": [{"description": "free", "tags": ["lab"]}, {"description": "taken", "device": "10000000C0FFEE01"}],
		"deployments": [
			{"device": "shop", "artefact": "kiosk-v1.0", "state": "succeeded"},
			{"device": "lamp", "artefact": "kiosk-v1.0", "state": "failed", "state_reason": "Checksum mismatch"},
			{"device": "10000000c0ffee01", "artefact": "kiosk-v1.1"}
		],
		"pis": [{"hostname": "pi", "identity": true, "poll_milliseconds": 1}]
	},
	{"name": "shops", "devices": [{"name": "shop"}]}
]}`

func TestASeed(t *testing.T) {
	s := beginAdmin(t)
	s.admin("POST", "/_sim/seed", seeded).is(204).empty()
	s.list(artefacts).has("name", "kiosk-v1.0", "kiosk-v1.1")
	s.list(authKeys).has("description", "usable", "expired", "exchanged")
	s.list(identities).has("description", "connectsim Raspberry Pi 5 "+s.list(devices + "?query=pi").rows[0]["serial_number"].(string), "free", "taken")
	page := s.list(devices)
	page.has("name", "lamp", "pi", "shop")
	s.same(page.rows[2]["board"], `{"model":"Raspberry Pi CM5 Lite","revision":"1.0","memory":"8 GB"}`)
	if page.rows[0]["board"] != nil || page.rows[0]["serial_number"] == "" {
		t.Errorf("an old one is %v", page.rows[0])
	}
	s.list(devices+"/"+page.rows[2]["id"].(string)+"/deployments").has("state", "pending", "succeeded")
	s.list(devices+"/"+page.rows[0]["id"].(string)+"/deployments").has("state_reason", "Checksum mismatch")
	for _, row := range s.list(artefacts).rows {
		s.call("DELETE", artefacts+"/"+row["id"].(string), nil).is(422) // all were deployed
	}
	s.send(request{"GET", "/deployments/pending", nil, bearer("rpdev_111111111111111111111111")}).is(200)
	s.exchange("rpoak_111111111111111111111111")

	// An exchanged identity takes its device with it.
	s.call("DELETE", identities+"/"+s.list(identities).rows[2]["id"].(string), nil).is(200)
	s.list(devices + "?query=shop").has("name")

	// The other organisation has its own.
	if got := s.admin("GET", "/_sim/state", "").object()["shops"].(object)["devices"].([]any); len(got) != 1 {
		t.Errorf("it has %v", got)
	}
	// A Pi that is there already is a mistake like any other.
	s.admin("POST", "/_sim/seed", `{"organisations":[{"name":"third","pis":[{"hostname":"pi"}]}]}`).is(422)
	if got := s.admin("GET", "/_sim/state", "").object()["third"]; got != nil {
		t.Errorf("it made %v", got)
	}
	// More of it, by its name.
	s.admin("POST", "/_sim/seed", `{"organisations":[{"name":"shops","devices":[{"name":"lamp"}]}]}`).is(204)
	if got := s.admin("GET", "/_sim/state", "").object()["shops"].(object)["devices"].([]any); len(got) != 2 {
		t.Errorf("it has %v", got)
	}
}

// Of a seed with a mistake in it nothing is made.
func TestSeedsThatAreRefused(t *testing.T) {
	key := strings.ReplaceAll(vectorKey, "\n", `\n`)
	s := beginAdmin(t)
	s.org.AddDevice(connectsim.Device{Name: "twin", SerialNumber: "1"})
	s.org.AddDevice(connectsim.Device{Name: "twin", SerialNumber: "2"})
	s.org.AddArtefact("taken", "https://example.com", checksum)
	s.org.AddDeviceIdentity(vectorKey, "taken", "", nil)
	before := s.admin("GET", "/_sim/state", "").text
	for body, why := range map[string]string{
		`"artefacts":[{"name":"a"},{"name":"a"}]`:                                                     `artefacts[1]: the name "a" is taken`,
		`"artefacts":[{"name":"taken"}]`:                                                              `artefacts[0]: the name "taken" is taken`,
		`"artefacts":[{"uri":"https://example.com"}]`:                                                 "has a name",
		`"artefacts":[{"name":"a","checksum":"abc"}]`:                                                 "no SHA-256",
		`"auth_keys":[{}]`:                                                                            "has a description",
		`"auth_keys":[{"description":"a","ttl_days":91}]`:                                             "from 1 to 90",
		`"auth_keys":[{"description":"a","tags":["A"]}]`:                                              "at most 10 tags",
		`"auth_keys":[{"description":"a","secret":"x"}]`:                                              "begins with rpoak_",
		`"auth_keys":[{"description":"a","secret":"rpoak_1"},{"description":"b","secret":"rpoak_1"}]`: "is its own",
		`"devices":[{}]`:                               "has a name",
		`"devices":[{"name":"a","model":"6"}]`:         `no model "6"`,
		`"devices":[{"name":"a","serial_number":"1"}]`: "already",
		`"devices":[{"name":"a","serial_number":"aB"},{"name":"b","serial_number":"Ab"}]`: "devices[1]",
		`"devices":[{"name":"a","token":"rporg_1"}]`:                                      "begins with rpdev_",
		`"devices":[{"name":"a","tags":["1","2","3","4","5","6","7","8","9","10","11"]}]`: "at most 10 tags",
		`"device_identities":[{}]`:                                             "has a description",
		`"device_identities":[{"description":"a","public_key":"junk"}]`:        "none on P-256",
		`"device_identities":[{"description":"a","public_key":"` + key + `"}]`: "registered already",
		`"device_identities":[{"description":"a","device":"nobody"}]`:          `no device "nobody"`,
		`"device_identities":[{"description":"a","tags":["A"]}]`:               "at most 10 tags",
		`"deployments":[{"device":"twin","artefact":"taken"}]`:                 `2 devices are called "twin"`,
		`"deployments":[{"device":"","artefact":"taken"}]`:                     `no device ""`,
		`"deployments":[{"device":"1","artefact":"nothing"}]`:                  `no artefact "nothing"`,
		`"deployments":[{"device":"1","artefact":"taken","state":"done"}]`:     `no state "done"`,
		`"deployments":[{"device":"1","artefact":"taken","state_reason":"x"}]`: "only a failed",
		`"pis":[{"hostname":"a"},{"hostname":"a"}]`:                            "pis[1]",
		`"pis":[{"hostname":"a","model":"6"}]`:                                 `no model "6"`,
		`"name":"other"`:                                                       "opens organisation-1",
	} {
		body = `{"organisations":[{"name":"fresh","artefacts":[{"name":"new"}]},{"token":"` + token + `",` + body + `}]}`
		if a := s.admin("POST", "/_sim/seed", body).is(422); !strings.Contains(a.text, why) {
			t.Errorf("%s\n%s", body, a.text)
		}
	}
	for _, body := range []string{
		`{"organisations":[{"name":"a"},{"name":"a"}]}`,
		`{"organisations":[{"token":"rporg_1"},{"token":"rporg_1"}]}`,
		`{"organisations":[{"name":"fine","devices":[{"name":"a"}]},{"token":"secret"}]}`,
	} {
		s.admin("POST", "/_sim/seed", body).is(422)
	}
	s.admin("POST", "/_sim/seed", `{"organisation":[]}`).is(400)
	if after := s.admin("GET", "/_sim/state", "").text; after != before {
		t.Errorf("there was %s\nand is %s", before, after)
	}

	for text, why := range map[string]string{
		"{\n\"organisations\": [\n{\"devices\": 5}]}": "line 3: ",
		"{\n\"organisations\": [,]}":                  "line 2: ",
		`{"organisation":[]}`:                         "unknown field",
		`{} {}`:                                       "more than one",
		``:                                            "EOF",
	} {
		if _, err := connectsim.ReadSeed(strings.NewReader(text)); err == nil || !strings.Contains(fmt.Sprint(err), why) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzSeeds(f *testing.F) {
	f.Add(seeded)
	f.Add(`{"organisations":[{"devices":[{"name":"a"}],"deployments":[{"device":"a","artefact":"b"}]}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		seed, err := connectsim.ReadSeed(strings.NewReader(text))
		if err != nil {
			return
		}
		// What is accepted can be made, and what is refused leaves nothing.
		sim := connectsim.New(connectsim.Options{})
		if _, err := sim.Seed(seed); err != nil && len(sim.Tokens()) != 0 {
			t.Errorf("%s: refused (%v), and yet there is something", text, err)
		}
	})
}
