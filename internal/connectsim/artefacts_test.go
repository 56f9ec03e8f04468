// SPDX-License-Identifier: Apache-2.0

package connectsim_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"rpi-connect.dev/operator/internal/connectsim"
)

func artefactJSON(name string) string {
	return fmt.Sprintf(`{"name":%q,"uri":"https://example.com/a?b=c&d","checksum":%q}`, name, checksum)
}

func TestAnArtefactsLife(t *testing.T) {
	onBothRevisions(t, func(s env) {
		const path = "/organisation/artefacts"
		made := s.call("POST", path, artefactJSON("kiosk"))
		want := fmt.Sprintf(`{"id":%q,"name":"kiosk","uri":"https://example.com/a?b=c&d","checksum":%q}`, made.id(), checksum)
		s.same(made.object(), want)
		s.same(s.list(path).rows, "["+want+"]")
		if !s.older {
			s.same(s.get(path+"/"+made.id()).is(200).object(), want)
		}
		s.call("POST", path, artefactJSON("kiosk")).says(422, "Validation failed: Name has already been taken")

		s.call("DELETE", path+"/"+made.id(), nil).deleted(want)
		s.call("DELETE", path+"/"+made.id(), nil).is(http.StatusNotFound)
		if again := s.call("POST", path, artefactJSON("kiosk")); again.id() == made.id() {
			t.Error("the id came again")
		}
	})
}

func TestArtefactsThatAreRefused(t *testing.T) {
	onBothRevisions(t, func(s env) {
		for body, message := range map[string]string{
			`{}`:          "Name can't be blank",
			`{"name":""}`: "Name can't be blank",
			`{"name":" ","uri":"https://example.com","checksum":"` + checksum + `"}`:          "Name can't be blank",
			`{"name":null,"uri":"https://example.com","checksum":"` + checksum + `"}`:         "Name can't be blank",
			`{"name":"kiosk","checksum":"` + checksum + `"}`:                                  "Uri can't be blank",
			`{"name":"kiosk","uri":"https://example.com"}`:                                    "Checksum is invalid",
			`{"name":"kiosk","uri":"https://example.com","checksum":"abc"}`:                   "Checksum is invalid",
			`{"name":"kiosk","uri":"https://example.com","checksum":"x` + checksum + `"}`:     "Checksum is invalid",
			`{"name":"kiosk","uri":"https://example.com","checksum":"g` + checksum[1:] + `"}`: "Checksum is invalid",
		} {
			s.call("POST", "/organisation/artefacts", body).says(422, "Validation failed: "+message)
		}
		if got := s.org.Artefacts(); len(got) != 0 {
			t.Errorf("made %+v", got)
		}
		s.call("POST", "/organisation/artefacts", strings.Replace(artefactJSON("upper"), checksum, strings.ToUpper(checksum), 1)).is(201)
	})
}

// ?name= is a prefix, whatever the case; the older revision does not know it.
func TestArtefactsByName(t *testing.T) {
	onBothRevisions(t, func(s env) {
		for _, name := range []string{"kiosk", "Kiosk-2", "kiosk-10", "my-kiosk", "lamp"} {
			s.org.AddArtefact(name, "https://example.com", checksum)
		}
		all := []any{"Kiosk-2", "kiosk", "kiosk-10", "lamp", "my-kiosk"}
		for query, want := range map[string][]any{
			"":                          all,
			"?name=":                    all,
			"?name=kiosk":               {"Kiosk-2", "kiosk", "kiosk-10"},
			"?name=KIOSK-":              {"Kiosk-2", "kiosk-10"},
			"?name=nothing":             {},
			"?name=k&per_page=2":        {"Kiosk-2", "kiosk"},
			"?name=k&per_page=2&page=2": {"kiosk-10"},
		} {
			switch {
			case !s.older:
				s.list("/organisation/artefacts"+query).has("name", want...)
			case !strings.Contains(query, "per_page"):
				s.list("/organisation/artefacts"+query).has("name", all...)
			}
		}
	})
}

func TestDeployedArtefactsAreForEver(t *testing.T) {
	const refusal = "Cannot delete artefacts that have been deployed"
	onBothRevisions(t, func(s env) {
		w := s.populate()
		path := w.fill("/organisation/artefacts/{artefact}")
		deploy := func() answer {
			return w.call("POST", w.fill("/organisation/devices/{device}/deployments"), w.fill(`{"artefact_id":"{artefact}"}`))
		}

		// A mere attempt is enough.
		w.sim.SetBilling(false)
		deploy().says(403, "Deployments are blocked until billing has been set up")
		if got := w.org.Deployments(w.device.ID); len(got) != 1 || got[0].ID != w.deployment.ID || got[0].State != connectsim.Pending {
			t.Errorf("the attempt made or superseded one: %+v", got)
		}
		w.call("DELETE", path, nil).says(422, refusal)

		// Neither the deployment's end nor the device's is the end of that.
		w.sim.SetBilling(true)
		run := deploy().id()
		w.call("PUT", "/organisation/deployments/"+run+"/cancel", nil).is(200)
		w.call("DELETE", w.fill("/organisation/devices/{device}"), nil)
		w.call("DELETE", path, nil).says(422, refusal)
		w.list("/organisation/artefacts").has("name", "deployed", "kiosk")

		// An attempt on no device is none.
		spare := w.org.AddArtefact("spare", "https://example.com", checksum)
		w.call("POST", "/organisation/devices/0/deployments", `{"artefact_id":"`+spare.ID+`"}`).is(404)
		if w.call("DELETE", "/organisation/artefacts/"+spare.ID, nil); len(w.org.Artefacts()) != 2 {
			t.Error("the spare one was kept")
		}
	})
}

func TestArtefactsBehindTheAPI(t *testing.T) {
	s := begin(t, connectsim.Options{})
	kept := s.org.AddArtefact("kept", "https://example.com", checksum)
	s.org.MarkDeployed(kept.ID)
	s.call("DELETE", "/organisation/artefacts/"+kept.ID, nil).is(422)
	s.org.RemoveArtefact(kept.ID)
	s.get("/organisation/artefacts/" + kept.ID).is(404)
}
