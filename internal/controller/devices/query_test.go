// SPDX-License-Identifier: Apache-2.0

package devices

import (
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/connectsim"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"tag:lab":                            "tag:lab",
		"model:5":                            "model:5",
		"model:3b+ memory:8gb os:raspios-13": "model:3b+ memory:8gb os:raspios-13",
		"  tag:b\ttag:a \n model:5":          "model:5 tag:a tag:b",
		"tag:lab tag:lab":                    "tag:lab",
		"tag:a_b-1 os:raspios-13":            "os:raspios-13 tag:a_b-1",

		// Only Connect knows.
		"":                               "",
		"   ":                            "",
		"porch":                          "",
		"tag:lab porch":                  "",
		"tag:":                           "",
		"tag":                            "",
		":lab":                           "",
		"model:":                         "",
		"TAG:lab":                        "",
		"tag:Lab":                        "",
		"tag:lab,home":                   "",
		"tag:lab:home":                   "",
		"tag: lab":                       "",
		"-tag:lab":                       "",
		"model:CM5":                      "",
		`model:"5"`:                      "",
		"model:5*":                       "",
		"model:4b model:5":               "",
		"model:5 model:5":                "",
		"os:13 os:12":                    "",
		"name:porch":                     "",
		"serial:1000":                    "",
		"tag:ä":                          "",
		"tag:" + strings.Repeat("a", 31): "",
	} {
		q, local := parse(text)
		if local != (want != "") || q.String() != want {
			t.Errorf("%q is %q, and can be answered here: %t; want %q", text, q, local, want)
		}
	}
}

func TestMatches(t *testing.T) {
	lamp := connectclient.Device{Tags: []string{"lab", "kiosk"}, Filters: connectclient.Filters{Model: "cm5lite", Memory: "8gb", OS: "raspios-13"}}
	old := connectclient.Device{Tags: []string{"lab"}} // its client is older than 2.9.0
	for text, want := range map[string][2]bool{
		"tag:lab":                     {true, true},
		"tag:kiosk":                   {true, false},
		"tag:la":                      {false, false},
		"tag:lab tag:kiosk":           {true, false},
		"tag:lab tag:other":           {false, false},
		"model:cm5lite":               {true, false},
		"model:cm5":                   {false, false},
		"memory:8gb tag:lab":          {true, false},
		"memory:8gb model:5":          {false, false},
		"os:raspios-13 model:cm5lite": {true, false},
		"os:raspios":                  {false, false},
	} {
		q, local := parse(text)
		if !local {
			t.Fatalf("%s cannot be answered here", text)
		}
		if got := [2]bool{q.matches(lamp), q.matches(old)}; got != want {
			t.Errorf("%s matches %v, want %v", text, got, want)
		}
	}
}

// direct carries requests to the simulator without a network.
type direct struct{ sim *connectsim.Server }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	recorder := httptest.NewRecorder()
	d.sim.ServeHTTP(recorder, r)
	return recorder.Result(), nil
}

// The answer that is given here is the one that Connect would give.
func TestLocalAnswersAreThoseOfTheSimulator(t *testing.T) {
	sim, token := connectsim.New(connectsim.Options{RateLimit: 1e6}), connectsim.NewSecret("rporg_")
	org := sim.AddOrganisation(token)
	api, err := connectclient.New(connectclient.Options{Transport: direct{sim}})
	if err != nil {
		t.Fatal(err)
	}
	client := api.ClientFor(connectclient.NewSecret(token))
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(values ...string) string { return values[random.IntN(len(values))] }
	tags := []string{"lab", "home", "kiosk", "a-b", "x_1"}
	for range 250 {
		device := connectsim.Device{Name: pick("porch", "attic", "tag:lab", "5"), SerialNumber: pick("1", "8gb"), Model: pick("", "5", "3b+", "cm5", "cm5lite"), Memory: pick("", "1gb", "8gb"), OS: pick("", "raspios-12", "raspios-13")}
		for _, tag := range tags {
			if random.IntN(3) == 0 {
				device.Tags = append(device.Tags, tag)
			}
		}
		org.AddDevice(device)
	}
	list := func(query string) []connectclient.Device {
		t.Helper()
		var all []connectclient.Device
		for device, err := range client.Devices().List(query).All(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, device)
		}
		return all
	}
	everyone := list("")
	some := 0
	for range 300 {
		var words []string
		for range 1 + random.IntN(3) {
			words = append(words, pick("tag:", "tag:", "model:", "memory:", "os:"))
			words[len(words)-1] += map[string]func() string{
				"tag:": func() string { return pick(tags...) }, "model:": func() string { return pick("5", "3b+", "cm5", "cm5lite", "400") },
				"memory:": func() string { return pick("1gb", "8gb", "16gb") }, "os:": func() string { return pick("raspios-12", "raspios-13", "raspios") },
			}[words[len(words)-1]]()
		}
		text := strings.Join(words, pick(" ", "  ", "\t"))
		q, local := parse(text)
		if !local {
			continue // the same qualifier twice
		}
		here := idsOf(matching(slices.Values(everyone), q.matches))
		if there := idsOf(slices.Values(list(text))); !slices.Equal(here, there) {
			t.Errorf("%q matches %d devices here and %d there", text, len(here), len(there))
		}
		if there := idsOf(slices.Values(list(q.String()))); !slices.Equal(here, there) {
			t.Errorf("%q is not %q", text, q)
		}
		if len(here) > 0 {
			some++
		}
	}
	if some < 50 {
		t.Errorf("only %d queries matched anything", some)
	}
}

// What can be answered here is made of the four qualifiers, and means the same when it
// is written down again.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"tag:lab model:5", "memory:8gb os:raspios-13", "porch tag:lab", "tag:", ":", "tag:a tag:a", "model:5 model:6", "\x00tag:lab", "tag:lab\u00a0tag:x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		q, local := parse(text)
		if !local {
			return
		}
		again, local := parse(q.String())
		if !local || again.String() != q.String() {
			t.Fatalf("%q became %q became %q", text, q, again)
		}
		for word := range strings.FieldsSeq(text) {
			if !strings.Contains(" "+q.String()+" ", " "+word+" ") {
				t.Fatalf("%q was lost from %q in %q", word, text, q)
			}
		}
	})
}
