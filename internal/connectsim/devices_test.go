// SPDX-License-Identifier: Apache-2.0

package connectsim_test

import (
	"net/http"
	"net/url"
	"testing"

	"rpi-connect.dev/operator/internal/connectsim"
)

const devices = "/organisation/devices"

func TestWhatADeviceShows(t *testing.T) {
	onBothRevisions(t, func(s env) {
		full := s.org.AddDevice(connectsim.Device{Name: "a", SerialNumber: "10000000abcdef01", Tags: []string{"lab"}, Model: "3b+", Memory: "1gb", OS: "raspios-13"})
		old := s.org.AddDevice(connectsim.Device{Name: "b", SerialNumber: "2"})
		bare := s.org.AddDevice(connectsim.Device{Name: "c", SerialNumber: "3", Model: "5", Memory: "8gb"})
		want := []string{
			`{"id":"` + full.ID + `","name":"a","serial_number":"10000000abcdef01","tags":["lab"],"board":{"model":"Raspberry Pi 3B+","revision":"1.0","memory":"1 GB"},
				"os":{"name":"Raspberry Pi OS","version":"13 (Trixie)"},"kernel_architecture":"aarch64","filters":{"model":"3b+","memory":"1gb","os":"raspios-13"}}`,
			`{"id":"` + old.ID + `","name":"b","serial_number":"2","tags":[],"board":null,"os":null,"kernel_architecture":null,"filters":{}}`,
			`{"id":"` + bare.ID + `","name":"c","serial_number":"3","tags":[],"board":{"model":"Raspberry Pi 5","revision":"1.0","memory":"8 GB"},
				"os":null,"kernel_architecture":null,"filters":{"model":"5","memory":"8gb"}}`,
		}
		s.same(s.list(devices).rows, "["+want[0]+","+want[1]+","+want[2]+"]")
		if !s.older {
			s.same(s.get(devices+"/"+full.ID).is(200).object(), want[0])
			s.same(s.get(devices+"/"+old.ID).is(200).object(), want[1])
		}
		s.call("DELETE", devices+"/"+full.ID, nil).deleted(want[0])
		s.call("DELETE", devices+"/"+full.ID, nil).is(404)
	})
}

func TestDeviceQueries(t *testing.T) {
	onBothRevisions(t, func(s env) {
		for _, d := range []connectsim.Device{
			{Name: "kiosk-1", SerialNumber: "10000000abcdef01", Tags: []string{"lab", "north"}, Model: "5", Memory: "8gb", OS: "raspios-13"},
			{Name: "kiosk-2", SerialNumber: "10000000abcdef02", Tags: []string{"lab", "south"}, Model: "3b+", Memory: "1gb", OS: "raspios-12"},
			{Name: "lamp", SerialNumber: "100000000cafe003", Tags: []string{"labour"}, Model: "3b", Memory: "1gb", OS: "raspios-12"},
			{Name: "old-5", SerialNumber: "4"},
		} {
			s.org.AddDevice(d)
		}
		for query, want := range map[string][]any{
			"":                         {"kiosk-1", "kiosk-2", "lamp", "old-5"},
			" ":                        {"kiosk-1", "kiosk-2", "lamp", "old-5"},
			"kiosk":                    {"kiosk-1", "kiosk-2"},
			"abcdef01":                 {"kiosk-1"},
			"kiosk abcdef02":           {"kiosk-2"}, // all have to match
			"cafe kiosk":               {},
			"model:5":                  {"kiosk-1"}, // not what is called so
			"model:3b":                 {"lamp"},
			"model:3b+":                {"kiosk-2"},
			"memory:1gb":               {"kiosk-2", "lamp"},
			"memory:1gb os:raspios-12": {"kiosk-2", "lamp"},
			"os:raspios-13":            {"kiosk-1"},
			"os:raspios":               {},
			"tag:lab":                  {"kiosk-1", "kiosk-2"}, // no prefix
			"tag:lab tag:south":        {"kiosk-2"},
			"tag:north tag:south":      {},
			"tag:lab model:3b+ kiosk":  {"kiosk-2"},
			"  tag:lab   memory:8gb  ": {"kiosk-1"},
			"model:":                   {},
		} {
			s.list(devices+"?query="+url.QueryEscape(query)).has("name", want...)
		}
		s.list(devices+"?query=model:3b%2B").has("name", "kiosk-2")
		s.list(devices+"?query=model:3b+").has("name", "lamp") // a plus is a space
		page := s.list(devices + "?query=tag:lab&per_page=1&page=2")
		page.has("name", "kiosk-2")
		s.same(page.meta, `{"page":2,"per_page":1,"total_count":2,"total_pages":2}`)
	})
}

func TestDevicesAreEdited(t *testing.T) {
	s := begin(t, connectsim.Options{})
	there := s.org.AddDevice(connectsim.Device{Name: "pi5", Tags: []string{"lab"}})
	path := devices + "/" + there.ID
	for _, step := range []struct{ body, name, tags string }{
		{`{}`, "pi5", `["lab"]`}, // what is omitted stays
		{`{"name":"pi5-001"}`, "pi5-001", `["lab"]`},
		{`{"tags":["a","b"]}`, "pi5-001", `["a","b"]`}, // replaced, not added to
		{`{"name":"x","tags":[]}`, "x", `[]`},
	} {
		got := s.call("PATCH", path, step.body).is(200).object()
		s.samef([]any{got["name"], got["tags"]}, `[%q,`+step.tags+`]`, step.name)
		s.same(s.get(path).object(), s.call("PATCH", path, `{}`).text)
	}
	s.call("PATCH", path, `{"name":" "}`).says(422, "Validation failed: Name can't be blank")
	s.call("PATCH", path, `{"tags":["No!"]}`).says(422, "Validation failed: Tags are invalid")
	s.call("PATCH", path, `no json`).is(http.StatusBadRequest)
	s.list(devices).has("name", "x")
}

func TestADeletedDeviceIsSignedOut(t *testing.T) {
	onBothRevisions(t, func(s env) {
		key := s.org.AddAuthKey("lab", "", nil, 1)
		device := s.exchange(key.Secret)
		pending := request{"GET", "/deployments/pending", nil, bearer(device)}
		s.send(pending).is(204)
		there := s.org.Devices()[0]
		run := s.org.AddDeployment(there.ID, s.org.AddArtefact("kiosk", "https://example.com", checksum).ID)
		s.send(pending).is(200)
		s.call("DELETE", devices+"/"+there.ID, nil)
		s.send(pending).is(401)
		s.get(devices + "/" + there.ID + "/deployments").is(404)
		s.get("/organisation/deployments/" + run.ID).is(404)
	})
}

// Boards and systems have names that people know, and values that queries take.
func TestNamesOfBoardsAndSystems(t *testing.T) {
	s := begin(t, connectsim.Options{})
	for _, c := range []struct{ model, memory, os, want string }{
		{"cm5lite", "8gb", "raspios-13", `["Raspberry Pi CM5 Lite","8 GB","Raspberry Pi OS","13 (Trixie)","aarch64"]`},
		{"zero2w", "512mb", "raspios-12", `["Raspberry Pi Zero 2 W","512 MB","Raspberry Pi OS","12 (Bookworm)","aarch64"]`},
		{"zerow", "512mb", "raspios-11", `["Raspberry Pi Zero W","512 MB","Raspberry Pi OS","11 (Bullseye)","armv6l"]`},
		{"3a+", "512mb", "debian-13", `["Raspberry Pi 3A+","512 MB","Debian","13 (Trixie)","aarch64"]`},
		{"2b", "1gb", "ubuntu-24.04", `["Raspberry Pi 2B","1 GB","Ubuntu","24.04","armv7l"]`},
		{"500", "16gb", "fedora-42", `["Raspberry Pi 500","16 GB","fedora","42","aarch64"]`},
		{"6", "", "raspios-99", `["Raspberry Pi 6",null,"Raspberry Pi OS","99","aarch64"]`}, // what is yet to come
	} {
		there := s.org.AddDevice(connectsim.Device{Name: c.model, Model: c.model, Memory: c.memory, OS: c.os})
		got := s.get(devices + "/" + there.ID).is(200).object()
		board, os := got["board"].(object), got["os"].(object)
		s.same([]any{board["model"], board["memory"], os["name"], os["version"], got["kernel_architecture"]}, c.want)
		query := url.QueryEscape("model:" + c.model + " os:" + c.os)
		s.list(devices+"?query="+query).has("name", c.model)
	}
}
