// SPDX-License-Identifier: Apache-2.0

package device

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/internal/controller/devices"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/internal/reflector"
)

type direct struct{ sim *connectsim.Server }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	recorder := httptest.NewRecorder()
	d.sim.ServeHTTP(recorder, r)
	return recorder.Result(), nil
}

// Somebody changes a device after the last listing, in something that the Device believes to be right: when it
// changes something else it is told, does not take that for a refusal, and puts it back as well.
func TestADeviceThatSomebodyElseHasChangedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim, secret := connectsim.New(connectsim.Options{}), connectsim.NewSecret("rporg_")
		org, token := sim.AddOrganisation(secret), connectclient.NewSecret(secret)
		id := org.AddDevice(connectsim.Device{Name: "lobby", Tags: []string{"kiosk"}}).ID
		api, err := connectclient.New(connectclient.Options{Transport: direct{sim}})
		if err != nil {
			t.Fatal(err)
		}
		finder := devices.New(reflector.Options{API: api, Interval: time.Hour})
		ctx, stop := context.WithCancel(t.Context())
		go func() { _ = finder.Start(ctx) }()
		synctest.Wait()

		obj := &v1alpha1.Device{}
		obj.Spec.Name, obj.Spec.Tags, obj.Status.ID = "lobby", []string{"kiosk"}, id
		pass := func() (lifecycle.Observation, error) {
			remote := Kind(finder).Connect(obj, &lifecycle.Connection{
				Waiter: reflector.Waiter{Subscriber: "Device", Resource: types.NamespacedName{Namespace: "lab", Name: "lobby"}},
				Token:  token, Client: api.ClientFor(token), Record: lifecycle.RecordOf(obj), Event: func(lifecycle.Event) {},
			})
			seen, err := remote.Observe(ctx)
			if err == nil && seen.Outdated {
				return remote.(lifecycle.Updater).Update(ctx, id)
			}
			return seen, err
		}
		for _, err = pass(); errors.Is(err, reflector.ErrPending); _, err = pass() {
			time.Sleep(time.Second)
		}
		org.ChangeDevice(id, func(d *connectsim.Device) { d.Name = "theirs" })
		obj.Spec.Tags = []string{"lab"}
		for _, want := range []lifecycle.Outcome{lifecycle.RequeueWithBackoff(), lifecycle.Ready(v1alpha1.ReasonAvailable, "The device is in the organisation.")} {
			seen, err := pass()
			if err != nil || seen.Outcome != want {
				t.Errorf("it ends with %+v, %v, want %+v", seen.Outcome, err, want)
			}
		}
		if d := org.Devices()[0]; d.Name != "lobby" || !slices.Equal(d.Tags, []string{"lab"}) {
			t.Errorf("the device is %q with the tags %v", d.Name, d.Tags)
		}
		stop()
		synctest.Wait()
	})
}
