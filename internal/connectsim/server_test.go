// SPDX-License-Identifier: Apache-2.0

package connectsim_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"

	"rpi-connect.dev/operator/internal/connectsim"
)

func TestStartAndClose(t *testing.T) {
	s := begin(t, connectsim.Options{})
	url, err := s.sim.Start("")
	if err != nil {
		t.Fatal(err)
	}
	s.url = url
	s.get(artefacts).is(200)
	s.sim.Close()
	if a, err := s.create("kiosk"); err == nil {
		t.Errorf("closed, it answers %d", a.status)
	}
	connectsim.New(connectsim.Options{}).Close() // never started
	if _, err := s.sim.Start("no such address"); err == nil {
		t.Error("it listens nowhere")
	}
}

// Whoever waits for a change hears of it, through the API or behind it.
func TestChanged(t *testing.T) {
	s := begin(t, connectsim.Options{})
	w := s.populate()
	for name, change := range map[string]func(){
		"a creation":     func() { s.call("POST", artefacts, artefactJSON("new")).is(201) },
		"a deployment":   func() { w.deploy().is(201) },
		"a cancellation": func() { w.call("PUT", "/organisation/deployments/"+w.deploy().id()+"/cancel", nil).is(200) },
		"a blocked attempt": func() {
			s.sim.SetBilling(false)
			w.deploy().is(403)
			s.sim.SetBilling(true)
		},
		"an edited device":     func() { w.call("PATCH", w.fill("/organisation/devices/{device}"), `{"name":"x"}`).is(200) },
		"somebody's artefact":  func() { s.org.AddArtefact("theirs", "https://example.com", checksum) },
		"somebody's mark":      func() { s.org.MarkDeployed(w.artefact.ID) },
		"somebody's key":       func() { s.org.RemoveAuthKey(s.org.AddAuthKey("theirs", "", nil, 1).ID) },
		"somebody's device":    func() { s.org.AddDevice(connectsim.Device{Name: "theirs"}) },
		"a Pi that has signed": func() { s.exchange(s.org.AddAuthKey("pi", "", nil, 1).Secret) },
	} {
		changed := s.sim.Changed()
		change()
		select {
		case <-changed:
		default:
			t.Errorf("%s changed nothing", name)
		}
	}
	changed := s.sim.Changed()
	s.get(artefacts)
	s.call("POST", artefacts, `{}`)
	select {
	case <-changed:
		t.Error("reading, or a refusal, changed something")
	default:
	}
}

func TestTokens(t *testing.T) {
	s := begin(t, connectsim.Options{})
	const second = "rporg_second111111111111111111"
	if s.sim.Organisation(token) != s.org || s.sim.Organisation(second) != nil {
		t.Error("the tokens open something else")
	}
	s.org.AddToken(second)
	s.sim.RevokeToken(token)
	s.get(artefacts).is(401)
	s.send(request{"GET", artefacts, nil, bearer(second)}).is(200)
	if got := connectsim.NewSecret("rporg_"); got == connectsim.NewSecret("rporg_") || len(got) != len("rporg_")+24 {
		t.Errorf("a secret is %q", got)
	}
}

// Many clients at once: everything is made once, and every name is one's own.
func TestConcurrency(t *testing.T) {
	s := begin(t, connectsim.Options{})
	statuses := make([]int, 40)
	var all sync.WaitGroup
	for i := range statuses {
		all.Go(func() {
			a, err := s.create(fmt.Sprint("kiosk-", i/2))
			if err == nil {
				statuses[i] = a.status
			}
		})
	}
	all.Wait()
	count := map[int]int{}
	for _, status := range statuses {
		count[status]++
	}
	if len(s.org.Artefacts()) != 20 || count[http.StatusCreated] != 20 || count[http.StatusUnprocessableEntity] != 20 {
		t.Errorf("%d artefacts of %v", len(s.org.Artefacts()), count)
	}
	s.get(artefacts).allows("5000 4959 1800")
}

func TestLargeBodiesAreRefused(t *testing.T) {
	s := begin(t, connectsim.Options{})
	body := make([]byte, 2<<20)
	for i := range body {
		body[i] = ' '
	}
	if a, err := s.try(t.Context(), request{method: "POST", path: artefacts, body: string(body)}); err == nil && a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("answered %d", a.status)
	}
}
