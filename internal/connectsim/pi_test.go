// SPDX-License-Identifier: Apache-2.0

package connectsim_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"rpi-connect.dev/operator/internal/connectsim"
)

// quick is how often the Pis of these tests look around.
const quick = time.Millisecond

// run lets a Pi run until the test ends, or until stop.
func (s env) run(pi *connectsim.Pi) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		pi.Run(ctx)
	}()
	stop = func() { cancel(); <-done }
	s.Cleanup(stop)
	return stop
}

// awaitState waits until a deployment is in the state, with the reason if it has
// one.
func (w world) awaitState(id, want string) {
	w.Helper()
	w.await(want, func() bool {
		for _, d := range w.org.Deployments("") {
			if d.ID == id {
				return want == d.State || want == d.State+" "+d.StateReason
			}
		}
		return false
	})
}

func TestAPiSignsInAndTakesDeployments(t *testing.T) {
	onBothRevisions(t, func(s env) {
		w := s.populate()
		key, public := newKey(t)
		w.org.AddDeviceIdentity(public, "pi", "", nil)

		byKey := connectsim.NewPi(w.url+"/", "by-key", "1")
		byIdentity := connectsim.NewPi(w.url, "by-identity", "2")
		if err := byKey.SignInWithAuthKey(t.Context(), w.key.Secret); err != nil {
			t.Fatal(err)
		}
		if err := byIdentity.SignInWithIdentity(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		signedIn := connectsim.NewPi(w.url, "pi5-001", "3")
		signedIn.SignedIn(w.org, w.device.ID)
		page := w.list("/organisation/devices")
		page.has("name", "by-identity", "by-key", "pi5-001")

		// All of them start with nothing to do but the last.
		w.awaitState(w.deployment.ID, "pending")
		for _, pi := range []*connectsim.Pi{byKey, byIdentity, signedIn} {
			pi.Behave(connectsim.Behaviour{Every: quick})
			w.run(pi)
		}
		w.awaitState(w.deployment.ID, "succeeded")
		for _, row := range page.rows {
			path := fmt.Sprintf("/organisation/devices/%s/deployments", row["id"])
			run := w.call("POST", path, w.fill(`{"artefact_id":"{artefact}"}`)).id()
			w.awaitState(run, "succeeded")
		}

		byKey.Behave(connectsim.Behaviour{Every: quick, FailWith: "Checksum mismatch"})
		path := fmt.Sprintf("/organisation/devices/%s/deployments", page.rows[1]["id"])
		run := w.call("POST", path, w.fill(`{"artefact_id":"{artefact}"}`)).id()
		w.awaitState(run, "failed Checksum mismatch")
	})
}

func TestAPiThatCannotSignIn(t *testing.T) {
	s := begin(t, connectsim.Options{})
	pi := connectsim.NewPi(s.url, "pi", "1")
	key, _ := newKey(t)
	if err := pi.SignInWithAuthKey(t.Context(), "rpoak_111111111111111111111111"); err == nil {
		t.Error("it signed in with no key")
	}
	if err := pi.SignInWithIdentity(t.Context(), key); err == nil {
		t.Error("it signed in with no identity")
	}
	s.sim.Inject(connectsim.Fault{Route: "POST /client/auth-key-exchange", Drop: true})
	if err := pi.SignInWithAuthKey(t.Context(), s.org.AddAuthKey("lab", "", nil, 1).Secret); err == nil {
		t.Error("it signed in without an answer")
	}
}

func TestAPiThatIsOffline(t *testing.T) {
	s := begin(t, connectsim.Options{})
	w := s.populate()

	// Meanwhile is as long as another Pi takes for a deployment.
	witness := w.org.AddDevice(connectsim.Device{Name: "witness"})
	other := connectsim.NewPi(w.url, "witness", "2")
	other.SignedIn(w.org, witness.ID)
	other.Behave(connectsim.Behaviour{Every: quick})
	w.run(other)
	meanwhile := func() {
		w.awaitState(w.org.AddDeployment(witness.ID, w.artefact.ID).ID, "succeeded")
	}

	// The Pi goes off the net as soon as it has begun.
	var pi *connectsim.Pi
	offline := connectsim.Behaviour{Every: quick, Offline: true}
	net := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/start") {
			pi.Behave(offline)
		}
		w.sim.ServeHTTP(rw, r)
	}))
	t.Cleanup(net.Close)
	pi = connectsim.NewPi(net.URL, "pi5-001", "1")
	pi.SignedIn(w.org, w.device.ID)
	pi.Behave(offline)
	stop := w.run(pi)
	meanwhile()
	if got := w.state(w.deployment.ID); got != "pending <nil>" {
		t.Errorf("offline, it made it %s", got)
	}
	pi.Behave(connectsim.Behaviour{Every: quick})
	w.awaitState(w.deployment.ID, "in_progress")
	meanwhile()
	if got := w.state(w.deployment.ID); got != "in_progress <nil>" {
		t.Errorf("offline, it went on to %s", got)
	}

	// Back again, it says how that went until it is heard.
	unheard := w.sim.Inject(connectsim.Fault{Route: "POST /deployments/{id}/complete", Status: 503, Times: 2})
	pi.Behave(connectsim.Behaviour{Every: quick})
	w.awaitState(w.deployment.ID, "succeeded")
	if unheard.Hits() != 2 {
		t.Errorf("it was not heard %d times", unheard.Hits())
	}

	stop()
	run := w.deploy().id()
	meanwhile()
	if got := w.state(run); got != "pending <nil>" {
		t.Errorf("a Pi that has stopped made it %s", got)
	}
}

// A Pi whose device has been deleted is signed out, and no longer in the way.
func TestAPiThatIsSignedOut(t *testing.T) {
	s := begin(t, connectsim.Options{})
	w := s.populate()
	pi := connectsim.NewPi(w.url, "pi5-001", "1")
	pi.SignedIn(w.org, w.device.ID)
	pi.Behave(connectsim.Behaviour{Every: quick})
	w.run(pi)
	w.awaitState(w.deployment.ID, "succeeded")
	w.call("DELETE", w.fill("/organisation/devices/{device}"), nil).is(200)
	w.await("a refusal", func() bool {
		journal := w.sim.Journal()
		last := journal[len(journal)-1]
		return last.Route == "/deployments/pending" && last.Status == 401
	})
}

// Of many deployments about the share fails that is meant to; of a bad version all
// of them, and of no other.
func TestAPiThatFailsNowAndThen(t *testing.T) {
	s := begin(t, connectsim.Options{})
	w := s.populate()
	pi := connectsim.NewPi(w.url, "pi5-001", "1")
	pi.SignedIn(w.org, w.device.ID)
	w.run(pi)
	outcomes := func(b connectsim.Behaviour, artefact string, n int) (failed int) {
		pi.Behave(b)
		for range n {
			id := w.org.AddDeployment(w.device.ID, artefact).ID
			w.await("its end", func() bool { return ended(w.state(id)) })
			if strings.HasPrefix(w.state(id), connectsim.Failed) {
				failed++
			}
		}
		return failed
	}
	bad := w.org.AddArtefact("kiosk-v1.2", "https://example.com/kiosk-v1.2.tar.zst", checksum)
	if n := outcomes(connectsim.Behaviour{Every: quick, FailWith: "flash", FailShare: 0.5}, w.artefact.ID, 60); n < 5 || n > 55 {
		t.Errorf("%d of 60 failed", n)
	}
	onlyBad := connectsim.Behaviour{Every: quick, FailWith: "exit 1", FailURI: "kiosk-v1.2"}
	if good, wrong := outcomes(onlyBad, w.artefact.ID, 2), outcomes(onlyBad, bad.ID, 2); good != 0 || wrong != 2 {
		t.Errorf("%d of the good version failed, and %d of the bad one", good, wrong)
	}
}

func ended(state string) bool {
	return !strings.HasPrefix(state, connectsim.Pending) && !strings.HasPrefix(state, connectsim.InProgress)
}
