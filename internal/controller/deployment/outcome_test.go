// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/internal/reflector"
)

// attempt is a deployment that its resource has made, in front of a simulated Connect. Time is
// synctest's, and nobody polls but once a day: only what is due makes a pass look.
type attempt struct {
	*testing.T
	sim      *connectsim.Server
	org      *connectsim.Organisation
	client   *connectclient.Client
	token    connectclient.Secret
	kind     *controller
	obj      *v1alpha1.Deployment
	device   string
	artefact string

	requests  int
	requested bool               // the user asks for a look
	sent      []lifecycle.Intent // requests that were not answered
	owned     string             // the id of a deployment that another resource has on record
}

// RoundTrip implements [http.RoundTripper].
func (a *attempt) RoundTrip(r *http.Request) (*http.Response, error) {
	a.requests++
	recorder := httptest.NewRecorder()
	a.sim.ServeHTTP(recorder, r)
	return recorder.Result(), nil
}

// try tells a story of a deployment that was made just now. The resource is ten minutes older: it
// had to wait for its device.
func try(t *testing.T, spec v1alpha1.DeploymentSpec, story func(*attempt)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		token := connectsim.NewSecret("rporg_")
		a := &attempt{T: t, sim: connectsim.New(connectsim.Options{}), token: connectclient.NewSecret(token)}
		a.org = a.sim.AddOrganisation(token)
		a.device = a.org.AddDevice(connectsim.Device{Name: "kiosk"}).ID
		a.artefact = a.org.AddArtefact("os-1", "https://example.com/1", "c1").ID
		api, err := connectclient.New(connectclient.Options{Transport: a})
		a.must(err)
		a.client = api.ClientFor(a.token)
		a.kind = &controller{clock: clock.RealClock{}, polls: newPolls(api, clock.RealClock{}, 24*time.Hour, 24*time.Hour)}
		ctx, stop := context.WithCancel(t.Context())
		a.kind.polls.start(ctx)

		a.obj = &v1alpha1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "lab", Name: "kiosk", UID: "u1"}, Spec: spec}
		a.obj.CreationTimestamp = metav1.NewTime(time.Now().Add(-10 * time.Minute))
		made, err := a.client.Deployments().Create(ctx, a.device, a.artefact)
		a.must(err)
		a.obj.Status.ID = made.ID
		a.mustBe("")
		story(a)
		stop()
		synctest.Wait()
	})
}

func (a *attempt) must(err error) {
	a.Helper()
	if err != nil {
		a.Fatal(err)
	}
}

// pass looks at the deployment, and cancels it if that is what is to be done.
func (a *attempt) pass() (lifecycle.Observation, error) {
	remote := &external{controller: a.kind, obj: a.obj, conn: &lifecycle.Connection{
		Waiter: reflector.Waiter{Subscriber: "Deployment", Resource: types.NamespacedName{Namespace: "lab", Name: "kiosk"}},
		Token:  a.token, Client: a.client, Record: lifecycle.RecordOf(a.obj), Requested: a.requested, Sent: a.sent,
		Owner: func(_ context.Context, id string) (lifecycle.Owner, bool, error) {
			return lifecycle.Owner{UID: "u2"}, id == a.owned, nil
		},
		Event: func(lifecycle.Event) {},
	}}
	seen, err := remote.Observe(a.Context())
	if err == nil && seen.Outdated {
		return remote.Update(a.Context(), seen.ID)
	}
	return seen, err
}

// mustBe has a pass come to this outcome; empty if the deployment is not over.
func (a *attempt) mustBe(want v1alpha1.DeploymentOutcome) lifecycle.Observation {
	a.Helper()
	seen, err := a.pass()
	a.must(err)
	if a.obj.Status.Outcome != want {
		a.Errorf("the outcome is %q, want %q: %s", a.obj.Status.Outcome, want, seen.Outcome.Message)
	}
	return seen
}

// look is a pass that the user asks for.
func (a *attempt) look(want v1alpha1.DeploymentOutcome) lifecycle.Observation {
	a.Helper()
	a.requested = true
	defer func() { a.requested = false }()
	return a.mustBe(want)
}

func (a *attempt) move(state string) { a.org.MoveDeployment(a.obj.Status.ID, state, "") }

func TestHowADeploymentEnds(t *testing.T) {
	for name, test := range map[string]struct {
		spec    v1alpha1.DeploymentSpec
		happens func(*attempt)
		want    v1alpha1.DeploymentOutcome
	}{
		"somebody deploys something else to the device": {
			happens: func(a *attempt) {
				a.org.AddDeployment(a.device, a.org.AddArtefact("os-2", "https://example.com/2", "c2").ID)
			},
			want: v1alpha1.DeploymentSuperseded,
		},
		"somebody cancels it": {
			happens: func(a *attempt) { a.move(connectsim.Cancelled) },
			want:    v1alpha1.DeploymentCancelled,
		},
		"somebody cancels it, and it had a deadline that was to come": {
			spec:    v1alpha1.DeploymentSpec{PendingDeadline: deadline(24 * time.Hour)},
			happens: func(a *attempt) { a.move(connectsim.Cancelled) },
			want:    v1alpha1.DeploymentCancelled,
		},
		"the device fails, and something else follows at once": {
			happens: func(a *attempt) {
				a.move(connectsim.InProgress)
				a.look("")
				a.move(connectsim.Failed)
				a.org.AddDeployment(a.device, a.artefact)
			},
			want: v1alpha1.DeploymentFailed,
		},
		"it is cancelled, and its device is removed": {
			happens: func(a *attempt) {
				a.move(connectsim.Cancelled)
				a.sim.Inject(connectsim.Fault{
					Route: "GET /organisation/devices/{id}/deployments", Do: func() { a.org.RemoveDevice(a.device) },
				})
			},
			want: v1alpha1.DeploymentCancelled,
		},
		"another resource deploys the same": {
			happens: func(a *attempt) {
				a.sent = []lifecycle.Intent{{Note: note{Device: a.device, Artefact: a.artefact}.String()}}
				a.owned = a.org.AddDeployment(a.device, a.artefact).ID
			},
			want: v1alpha1.DeploymentSuperseded,
		},
	} {
		t.Run(name, func(t *testing.T) {
			try(t, test.spec, func(a *attempt) {
				time.Sleep(time.Hour)
				test.happens(a)
				a.look(test.want)
			})
		})
	}
}

// An earlier request of the same resource is carried out an hour late, and takes the place of what a
// later one has made: that is what is followed from then on.
func TestALateEffectIsFollowed(t *testing.T) {
	try(t, v1alpha1.DeploymentSpec{}, func(a *attempt) {
		a.sent = []lifecycle.Intent{{Note: note{Device: a.device, Artefact: a.artefact}.String()}}
		time.Sleep(time.Hour)
		late := a.org.AddDeployment(a.device, a.artefact)
		if seen := a.look(""); seen.Relation != lifecycle.Recovered || seen.ID != late.ID {
			t.Errorf("%s is %s, want %s to be recovered", seen.ID, seen.Relation, late.ID)
		}
	})
}

// A request whose answer was lost may have been carried out on a device that has left the organisation since. What
// has its name now may be the same board: nothing is deployed there.
func TestNobodyAnswersForADeviceThatIsGone(t *testing.T) {
	try(t, v1alpha1.DeploymentSpec{}, func(a *attempt) {
		sent := lifecycle.Intent{Note: note{Device: a.device, Artefact: a.artefact}.String()}
		a.org.RemoveDevice(a.device)
		for name, intents := range map[string][]lifecycle.Intent{"alone": {sent}, "before one that nobody can read": {sent, {}}} {
			a.obj.Status = v1alpha1.DeploymentStatus{}
			a.sent = intents
			seen := a.mustBe("")
			if seen.Relation != lifecycle.Absent || seen.Outcome.Reason != v1alpha1.ReasonNotFound || !strings.Contains(seen.Outcome.Message, a.device) {
				t.Errorf("%s: %s, %+v", name, seen.Relation, seen.Outcome)
			}
		}
	})
}

// What the device's list says is needed to tell how a deployment has ended. While it cannot be had,
// nothing is said.
func TestAnEndingIsNotGuessed(t *testing.T) {
	try(t, v1alpha1.DeploymentSpec{}, func(a *attempt) {
		a.move(connectsim.Cancelled)
		a.sim.Inject(connectsim.Fault{Route: "GET /organisation/devices/{id}/deployments", Status: http.StatusInternalServerError})
		a.requested = true
		if seen, err := a.pass(); err == nil || a.obj.Status.Outcome != "" {
			t.Errorf("the outcome is %q: %+v", a.obj.Status.Outcome, seen.Outcome)
		}
	})
}

// Deadlines are met when they are due, however long ago the last look was, and before they are due
// nobody is asked.
func TestDeadlines(t *testing.T) {
	const hour = time.Hour
	both := v1alpha1.DeploymentSpec{PendingDeadline: deadline(hour), InProgressDeadline: deadline(2 * hour)}
	quiet := func(a *attempt, lasting, next time.Duration) {
		a.Helper()
		time.Sleep(lasting)
		before := a.requests
		if seen := a.mustBe(""); seen.Outcome.RequeueAfter != next {
			a.Errorf("the next pass is in %s, want %s", seen.Outcome.RequeueAfter, next)
		}
		if a.requests != before {
			a.Errorf("%d requests are sent though nothing is due", a.requests-before)
		}
	}
	t.Run("no device picks it up", func(t *testing.T) {
		try(t, both, func(a *attempt) {
			quiet(a, 59*time.Minute, time.Minute)
			time.Sleep(time.Minute)
			a.mustBe(v1alpha1.DeploymentDeadlineExceeded)
			if got := a.org.Deployments(a.device)[0].State; got != connectsim.Cancelled {
				t.Errorf("it is %s", got)
			}
		})
	})
	t.Run("the device does not report back", func(t *testing.T) {
		try(t, both, func(a *attempt) {
			time.Sleep(30 * time.Minute)
			a.move(connectsim.InProgress)
			a.look("")
			quiet(a, 119*time.Minute, time.Minute)
			time.Sleep(time.Minute)
			a.mustBe(v1alpha1.DeploymentDeadlineExceeded)
		})
	})
	t.Run("there are none", func(t *testing.T) {
		try(t, v1alpha1.DeploymentSpec{}, func(a *attempt) {
			quiet(a, 10*hour, 0)
			a.look("")
			a.move(connectsim.InProgress)
			a.look("")
			quiet(a, 10*hour, 0)
		})
	})
}

// How long a deadline is to come does not depend on whose clock is right.
func TestDeadlinesByOtherClocks(t *testing.T) {
	at := func(after time.Duration) *metav1.Time { return new(metav1.NewTime(noon.Add(after))) }
	for name, test := range map[string]struct {
		created            time.Duration // the resource, before or after noon
		made, updated      *metav1.Time
		pending, installed time.Duration
	}{
		"it was made just now":                        {0, at(0), at(0), time.Hour, time.Hour},
		"it was made some time after the resource":    {-time.Hour, at(-10 * time.Minute), at(0), 50 * time.Minute, time.Hour},
		"the resource took it over":                   {-10 * time.Minute, at(-time.Hour), at(0), 50 * time.Minute, time.Hour},
		"by Connect's clock it will be made":          {-time.Hour, at(time.Hour), at(time.Hour), time.Hour, time.Hour},
		"by the cluster's clock the resource will be": {time.Hour, at(-10 * time.Minute), at(0), 50 * time.Minute, time.Hour},
		"Connect does not say when":                   {-time.Hour, nil, nil, time.Hour, time.Hour},
		"Connect says nothing sensible":               {-time.Hour, &metav1.Time{}, &metav1.Time{}, time.Hour, time.Hour},
		"it changed a while ago":                      {0, at(0), at(-20 * time.Minute), time.Hour, 40 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			obj := &v1alpha1.Deployment{Spec: v1alpha1.DeploymentSpec{PendingDeadline: deadline(time.Hour), InProgressDeadline: deadline(time.Hour)}}
			obj.CreationTimestamp = *at(test.created)
			obj.Status.CreatedAt, obj.Status.UpdatedAt = test.made, test.updated
			for state, want := range map[connectclient.DeploymentState]time.Duration{pending: test.pending, inProgress: test.installed} {
				obj.Status.State = string(state)
				if got := runningOutcome(obj, noon).RequeueAfter; got != want {
					t.Errorf("%s: the deadline is to come in %s, want %s", state, got, want)
				}
			}
		})
	}
}
