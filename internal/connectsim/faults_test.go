// SPDX-License-Identifier: Apache-2.0

package connectsim_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"rpi-connect.dev/operator/internal/connectsim"
)

const artefacts = "/organisation/artefacts"

// create makes an artefact if it can, and returns the error of the connection.
func (s env) create(name string) (answer, error) {
	s.Helper()
	return s.try(s.Context(), request{method: "POST", path: artefacts, body: artefactJSON(name)})
}

// exists tells whether there is an artefact of the name.
func (s env) exists(name string) bool {
	for _, a := range s.org.Artefacts() {
		if a.Name == name {
			return true
		}
	}
	return false
}

func TestFaultsBeforeAndAfterTheWork(t *testing.T) {
	for name, c := range map[string]struct {
		fault connectsim.Fault
		// status is what comes, 0 if the connection breaks; noted is what the
		// journal has.
		status, noted int
		body          string
		works         bool
	}{
		"refused":      {connectsim.Fault{Status: 503, Body: "down", ContentType: "text/html", Header: http.Header{"Retry-After": {"7"}}}, 503, 503, "down", false},
		"a bare 500":   {connectsim.Fault{Status: 500}, 500, 500, "", false},
		"a strange OK": {connectsim.Fault{Body: "<html>"}, 200, 200, "<html>", false},
		"replaced":     {connectsim.Fault{After: true, Status: 502, Body: "bad gateway"}, 502, 502, "bad gateway", true},
		"dropped":      {connectsim.Fault{Drop: true}, 0, 0, "", false},
		"lost":         {connectsim.Fault{Drop: true, After: true}, 0, 0, "", true},
		"truncated":    {connectsim.Fault{Truncate: true}, 0, 201, "", true},
		"delayed":      {connectsim.Fault{Delay: time.Millisecond}, 201, 201, "", true},
		"harmless":     {connectsim.Fault{}, 201, 201, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t, connectsim.Options{})
			c.fault.Route, c.fault.Times = "POST "+artefacts, 1
			injected := s.sim.Inject(c.fault)
			a, err := s.create("kiosk")
			switch {
			case c.status == 0 && err == nil:
				t.Errorf("answered %d %s", a.status, a.text)
			case c.status != 0 && (err != nil || a.status != c.status || c.body != "" && a.text != c.body):
				t.Errorf("answered %d %s (%v), want %d %s", a.status, a.text, err, c.status, c.body)
			}
			for field, values := range c.fault.Header {
				if a.header.Get(field) != values[0] {
					t.Errorf("%s is %q", field, a.header.Get(field))
				}
			}
			if c.fault.ContentType != "" && a.header.Get("Content-Type") != c.fault.ContentType {
				t.Errorf("the body is %q", a.header.Get("Content-Type"))
			}
			if s.exists("kiosk") != c.works {
				t.Errorf("the work was done: %t, want %t", !c.works, c.works)
			}
			if injected.Hits() != 1 {
				t.Errorf("%d hits", injected.Hits())
			}
			if journal := s.sim.Journal(); len(journal) != 1 || journal[0].Status != c.noted || !journal[0].Faulty {
				t.Errorf("the journal has %+v", journal)
			}

			// It was for once.
			if a, err := s.create("lamp"); err != nil || a.status != 201 || injected.Hits() != 1 {
				t.Errorf("the next one: %d, %v", a.status, err)
			}
		})
	}
}

func TestATruncatedAnswer(t *testing.T) {
	s := begin(t, connectsim.Options{})
	s.sim.Inject(connectsim.Fault{Truncate: true, Times: 1})
	a, err := s.create("kiosk")
	if err == nil || a.status != 201 || a.header.Get("Content-Length") == fmt.Sprint(len(a.text)) {
		t.Errorf("%d with %q: %v", a.status, a.text, err)
	}
	whole := jsonOf(s.list(artefacts).rows[0])
	if a.text == "" || len(a.text) >= len(whole) {
		t.Errorf("%q came of %q", a.text, whole)
	}
}

func TestAnOversizedAnswer(t *testing.T) {
	s := begin(t, connectsim.Options{})
	s.sim.Inject(connectsim.Fault{Oversize: 3 << 20, Times: 1})
	a, err := s.create("kiosk")
	if err != nil || a.status != 201 || len(a.text) <= 3<<20 || !s.exists("kiosk") {
		t.Errorf("%d with %d bytes: %v", a.status, len(a.text), err)
	}
}

// A client that gives up during a delay has asked nothing.
func TestADelayIsBeforeTheWork(t *testing.T) {
	s := begin(t, connectsim.Options{})
	injected := s.sim.Inject(connectsim.Fault{Delay: time.Hour})
	ctx, giveUp := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := s.try(ctx, request{method: "POST", path: artefacts, body: artefactJSON("kiosk")})
		done <- err
	}()
	s.await("the request", func() bool { return injected.Hits() == 1 })
	giveUp()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	s.sim.ClearFaults()
	if s.list(artefacts).has("name"); len(s.sim.Journal()) != 1 {
		t.Errorf("the journal has %+v", s.sim.Journal())
	}
}

func TestFaultsByRoute(t *testing.T) {
	for route, want := range map[string]string{
		"":                                    "GET1 GET2 POST PATCH DELETE",
		"GET":                                 "GET1 GET2",
		"POST":                                "POST",
		"PATCH":                               "PATCH",
		"GET /organisation/artefacts":         "GET1",
		"GET /organisation/artefacts/{id}":    "GET2",
		"DELETE /organisation/artefacts/{id}": "DELETE",
		"PUT":                                 "",
	} {
		s := begin(t, connectsim.Options{})
		s.sim.Inject(connectsim.Fault{Route: route, Status: 418})
		var met []string
		for _, call := range []string{"GET1 /organisation/artefacts?name=x", "GET2 /organisation/artefacts/0", "POST /organisation/artefacts", "PATCH /organisation/nothing", "DELETE /organisation/artefacts/0"} {
			name, path, _ := strings.Cut(call, " ")
			if s.call(strings.TrimRight(name, "12"), path, nil).status == 418 {
				met = append(met, name)
			}
		}
		if got := strings.Join(met, " "); got != want {
			t.Errorf("%q is met by %s, want %s", route, got, want)
		}
	}
}

func TestFaultsSkipAndEnd(t *testing.T) {
	s := begin(t, connectsim.Options{})
	statuses := func(n int) (all []int) {
		for range n {
			all = append(all, s.get(artefacts).status)
		}
		return all
	}
	first := s.sim.Inject(connectsim.Fault{Skip: 2, Times: 3, Status: 500})
	if got := fmt.Sprint(statuses(7)); got != "[200 200 500 500 500 200 200]" || first.Hits() != 3 {
		t.Errorf("answered %s with %d hits", got, first.Hits())
	}

	// Without a number it goes on until it is cleared.
	endless, other := s.sim.Inject(connectsim.Fault{Status: 503}), s.sim.Inject(connectsim.Fault{Status: 504})
	if got := fmt.Sprint(statuses(3)); got != "[503 503 503]" || endless.Hits() != 3 || other.Hits() != 0 {
		t.Errorf("answered %s with %d and %d hits", got, endless.Hits(), other.Hits())
	}
	endless.Clear()
	if got := fmt.Sprint(statuses(2)); got != "[504 504]" || endless.Hits() != 3 {
		t.Errorf("cleared, it answered %s with %d hits", got, endless.Hits())
	}
	s.sim.ClearFaults()
	if got := fmt.Sprint(statuses(2)); got != "[200 200]" {
		t.Errorf("without faults it answered %s", got)
	}
}

// A fault in the place of the API costs nothing; one after the work does.
func TestFaultsAndTheLimit(t *testing.T) {
	s := begin(t, connectsim.Options{RateLimit: 5})
	s.sim.Inject(connectsim.Fault{Status: 500, Times: 1})
	s.get(artefacts).is(500).saysNothing()
	s.sim.Inject(connectsim.Fault{Status: 500, Times: 1, After: true})
	s.get(artefacts).is(500).saysNothing()
	s.get(artefacts).is(200).allows("5 3 1800")
}

// What a device asks can fail as well.
func TestFaultsOfTheDeviceSide(t *testing.T) {
	s := begin(t, connectsim.Options{})
	key := s.org.AddAuthKey("lab", "", nil, 1)
	s.sim.Inject(connectsim.Fault{Route: "POST /client/auth-key-exchange", Times: 1, After: true, Drop: true})
	if a, err := s.try(t.Context(), exchangeOf(key.Secret)); err == nil {
		t.Errorf("answered %d", a.status)
	}
	s.send(exchangeOf(key.Secret)).is(401) // it was used up
	s.list("/organisation/devices").has("name", "raspberrypi")
}
