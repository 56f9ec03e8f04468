// SPDX-License-Identifier: Apache-2.0

package connectsim_test

import (
	"fmt"
	"testing"
	"time"

	"rpi-connect.dev/operator/internal/connectsim"
)

// A proxy has given up, the client has gone, and the request still arrives.
func TestWorkThatIsCarriedOutAfterTheClientHasGone(t *testing.T) {
	for name, c := range map[string]struct {
		fault  connectsim.Fault
		status int // 0 if the connection breaks
	}{
		"dropped":            {connectsim.Fault{Drop: true}, 0},
		"answered otherwise": {connectsim.Fault{Status: 504, Body: "<html>gateway timeout</html>"}, 504},
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t, connectsim.Options{})
			c.fault.Route, c.fault.Times, c.fault.Late = "POST "+artefacts, 1, time.Millisecond
			s.sim.Inject(c.fault)
			a, err := s.create("kiosk")
			if a.status != c.status || (err == nil) != (c.status != 0) {
				t.Errorf("answered %d: %v", a.status, err)
			}
			s.await("the work", func() bool { return s.exists("kiosk") })
			s.await("its note", func() bool { return s.sim.Journal()[0].Late == 201 })
			if journal := s.sim.Journal(); len(journal) != 1 || journal[0].Status != c.status || journal[0].Organisation != "" {
				t.Errorf("the journal has %+v", journal)
			}
			if got := s.sim.Count("POST " + artefacts); got != 1 {
				t.Errorf("one request counts %d", got)
			}
		})
	}
}

// What is late meets the world as it is then.
func TestLateWorkMeetsTheWorldAsItIsThen(t *testing.T) {
	s := begin(t, connectsim.Options{RateLimit: 5})
	s.sim.Inject(connectsim.Fault{Route: "GET " + artefacts, Times: 1, Drop: true, Late: time.Hour})
	late := s.sim.Inject(connectsim.Fault{Route: "POST " + artefacts, Times: 2, Drop: true, Late: time.Hour})
	for _, name := range []string{"kiosk", "lamp"} {
		if a, err := s.create(name); err == nil {
			t.Fatalf("answered %d", a.status)
		}
	}
	if s.exists("kiosk") {
		t.Fatal("it is there before its time")
	}
	s.create("kiosk") // the client tries again, and is first
	if got := late.Land(); got != 2 {
		t.Errorf("%d requests came late", got)
	}
	journal := s.sim.Journal()
	if got := fmt.Sprint(journal[0].Late, journal[1].Late); got != "422 201" || len(s.org.Artefacts()) != 2 {
		t.Errorf("they ended with %s, and there are %+v", got, s.org.Artefacts())
	}
	if got := late.Land(); got != 0 {
		t.Errorf("%d came twice", got)
	}
	// They count when they arrive: the client's own, and two.
	s.send(request{"GET", "/organisation/devices", nil, bearer(token)}).is(200).allows("5 1 1800")

	// A fault that is cleared does not call back what is on its way.
	on := s.sim.Inject(connectsim.Fault{Route: "POST " + artefacts, Status: 502, Late: time.Hour})
	s.create("sign")
	s.sim.ClearFaults()
	if on.Land() != 1 || !s.exists("sign") {
		t.Error("what was on its way did not come")
	}
}
