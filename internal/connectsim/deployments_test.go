// SPDX-License-Identifier: Apache-2.0

package connectsim_test

import (
	"fmt"
	"testing"
	"time"

	"rpi-connect.dev/operator/internal/connectsim"
)

func runs(w world) string { return w.fill("/organisation/devices/{device}/deployments") }

func (w world) deploy() answer {
	w.Helper()
	return w.call("POST", runs(w), w.fill(`{"artefact_id":"{artefact}"}`))
}

// state reads the state of a deployment and the reason for it.
func (w world) state(id string) string {
	w.Helper()
	o := w.get("/organisation/deployments/" + id).is(200).object()
	return fmt.Sprint(o["state"], " ", o["state_reason"])
}

func TestADeployment(t *testing.T) {
	onBothRevisions(t, func(s env) {
		w := s.populate()
		made := w.deploy()
		want := fmt.Sprintf(w.fill(`{"id":%q,"state":"pending","state_reason":null,"device_id":"{device}","artefact_id":"{artefact}","created_at":%q,"updated_at":%q}`), made.id(), now, now)
		w.same(made.object(), want)
		w.same(w.get("/organisation/deployments/"+made.id()).is(200).object(), want)
		w.same(w.list(runs(w)).rows[0], want)

		// A device that is offline keeps it for days.
		w.clock.Advance(30 * 24 * time.Hour)
		if got := w.state(made.id()); got != "pending <nil>" {
			t.Errorf("after a month it is %s", got)
		}
	})
}

func TestDeploymentsThatAreRefused(t *testing.T) {
	onBothRevisions(t, func(s env) {
		w := s.populate()
		w.call("POST", runs(w), nil).is(400)
		w.call("POST", runs(w), `{}`).is(400)
		w.call("POST", runs(w), `{"artefact_id":null}`).is(400)
		w.call("POST", runs(w), `{`).is(400)
		w.call("POST", runs(w), `{"artefact_id":"0"}`).is(404)
		w.call("POST", "/organisation/devices/0/deployments", w.fill(`{"artefact_id":"{artefact}"}`)).is(404)
		w.get("/organisation/devices/0/deployments").is(404)
		w.sim.SetBilling(false)
		w.deploy().says(403, "Deployments are blocked until billing has been set up")
		if got := w.list(runs(w)); len(got.rows) != 1 || got.rows[0]["state"] != "pending" {
			t.Errorf("a refused deployment left %v", got.rows)
		}
		w.sim.SetBilling(true)
		w.deploy().is(201)
	})
}

func TestANewDeploymentSupersedesThePendingOne(t *testing.T) {
	for _, revision := range []connectsim.Revision{connectsim.Older, connectsim.Current} {
		for cancelled, want := range map[bool]string{
			false: "failed Superseded by a newer deployment",
			true:  "cancelled <nil>",
		} {
			t.Run(fmt.Sprint(revision, "/", want), func(t *testing.T) {
				w := begin(t, connectsim.Options{Revision: revision, SupersededAsCancelled: cancelled}).populate()
				other := w.org.AddDevice(connectsim.Device{Name: "other"})
				elsewhere := w.org.AddDeployment(other.ID, w.artefact.ID)
				first := w.deploy().id()
				w.clock.Advance(time.Minute)
				second := w.deploy().id()
				if got := w.state(first); got != want {
					t.Errorf("the first is %s, want %s", got, want)
				}
				if got := w.get("/organisation/deployments/" + first).object()["updated_at"]; got != "2026-03-01T10:31:00Z" {
					t.Errorf("superseded at %v", got)
				}
				if got := w.state(second) + ", " + w.state(elsewhere.ID); got != "pending <nil>, pending <nil>" {
					t.Errorf("the second and another device's are %s", got)
				}

				// What the device has begun is not superseded, nor what has ended.
				w.org.MoveDeployment(second, connectsim.InProgress, "")
				third := w.deploy().id()
				w.org.MoveDeployment(second, connectsim.Succeeded, "")
				fourth := w.deploy().id()
				if got := w.state(second) + ", " + w.state(third) + ", " + w.state(fourth); got != "succeeded <nil>, "+want+", pending <nil>" {
					t.Errorf("the others are %s", got)
				}
			})
		}
	}
}

// The newest comes first, also of those of the same second.
func TestDeploymentsOfADevice(t *testing.T) {
	onBothRevisions(t, func(s env) {
		w := s.populate()
		ids := []any{w.deployment.ID}
		for range 104 {
			ids = append([]any{w.deploy().id()}, ids...)
		}
		w.list(runs(w)).has("id", ids[:100]...)
		w.list(runs(w)+"?per_page=500&page=2").has("id", ids[100:]...)
		w.list(runs(w)+"?per_page=3").has("id", ids[:3]...)

		for id, state := range map[any]string{ids[1]: connectsim.InProgress, ids[2]: connectsim.Succeeded, ids[3]: connectsim.Cancelled} {
			w.org.MoveDeployment(id.(string), state, "")
		}
		for state, want := range map[string][]any{
			"pending": ids[:1], "in_progress": ids[1:2], "succeeded": ids[2:3], "cancelled": ids[3:4], "failed": ids[4:104],
		} {
			if w.older {
				want = ids[:100] // it does not know ?state=
			}
			w.list(runs(w)+"?state="+state).has("id", want...)
		}
		if w.older {
			w.list(runs(w)+"?state=x").has("id", ids[:100]...)
			return
		}
		w.same(w.list(runs(w)+"?state=failed&per_page=10&page=2").meta, `{"page":2,"per_page":10,"total_count":101,"total_pages":11}`)
		w.get(runs(w)+"?state=x").says(400, `Unknown state "x"`)
		w.get("/organisation/devices/0/deployments?state=pending").is(404)
	})
}

func TestCancelling(t *testing.T) {
	for _, inProgress := range []bool{false, true} {
		for state, cancels := range map[string]bool{
			connectsim.Pending: true, connectsim.InProgress: inProgress,
			connectsim.Succeeded: false, connectsim.Failed: false, connectsim.Cancelled: false,
		} {
			t.Run(fmt.Sprint(state, "/", inProgress), func(t *testing.T) {
				w := begin(t, connectsim.Options{CancelsInProgress: inProgress}).populate()
				reason, shown := "", any(nil)
				if state == connectsim.Failed {
					reason, shown = "Checksum mismatch", "Checksum mismatch"
				}
				w.org.MoveDeployment(w.deployment.ID, state, reason)
				w.clock.Advance(time.Minute)
				a := w.call("PUT", w.fill("/organisation/deployments/{deployment}/cancel"), nil)
				if !cancels {
					a.says(422, `Cannot cancel deployment in state "`+state+`"`)
					if got, want := w.state(w.deployment.ID), fmt.Sprint(state, " ", shown); got != want {
						t.Errorf("it is %s, want %s", got, want)
					}
					return
				}
				w.samef(a.is(200).object(), w.fill(`{"id":"{deployment}","state":"cancelled","state_reason":null,"device_id":"{device}","artefact_id":%q,"created_at":%q,"updated_at":"2026-03-01T10:31:00Z"}`),
					w.deployment.ArtefactID, now)
			})
		}
	}
}
