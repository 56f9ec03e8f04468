// SPDX-License-Identifier: Apache-2.0

package devices_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/internal/controller/devices"
	"rpi-connect.dev/operator/internal/reflector"
)

// group asks until there is an answer, as a rollout does.
func (s *env) group(ref v1alpha1.FleetDevices) devices.Group {
	s.Helper()
	for range 300 {
		group, err := s.finder.FindAll(s.token, ref, time.Time{}, waiter("rollout"))
		if err == nil {
			return group
		}
		if !errors.Is(err, reflector.ErrPending) {
			s.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
	}
	s.Fatal("no answer")
	return devices.Group{}
}

func (s *env) groupOf(ref v1alpha1.FleetDevices) string {
	s.Helper()
	group := s.group(ref)
	var names []string
	for _, d := range group.Devices {
		names = append(names, d.Name)
	}
	return strings.Join(names, " ") + " | " + strings.Join(group.Missing, " ")
}

func TestFindAll(t *testing.T) {
	for name, test := range map[string]struct {
		ref  v1alpha1.FleetDevices
		want string
	}{
		"all":                      {v1alpha1.FleetDevices{All: true}, "lobby hall lab | "},
		"a query":                  {v1alpha1.FleetDevices{Query: "tag:kiosk"}, "lobby hall | "},
		"a query that is not ours": {v1alpha1.FleetDevices{Query: "serial-lab"}, "lab | "},
		"names":                    {v1alpha1.FleetDevices{Names: []string{"hall", "cellar"}}, "hall | cellar"},
		"serial numbers":           {v1alpha1.FleetDevices{SerialNumbers: []string{"SERIAL-lab", "none"}}, "lab | none"},
		"the union":                {v1alpha1.FleetDevices{Query: "tag:kiosk", Names: []string{"lab", "hall"}}, "lobby hall lab | "},
		"but for a tag":            {v1alpha1.FleetDevices{All: true, ExcludeTags: []string{"spare", "hall"}}, "lobby | "},
		"none":                     {v1alpha1.FleetDevices{Query: "tag:none"}, " | "},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newEnv(t, connectsim.Options{})
				for i, d := range []connectsim.Device{{Name: "lobby", Tags: []string{"kiosk"}}, {Name: "hall", Tags: []string{"kiosk", "hall"}}, {Name: "lab", Tags: []string{"spare"}}} {
					d.ID, d.SerialNumber = fmt.Sprintf("00000000-0000-4000-8000-00000000000%d", i), "serial-"+d.Name
					s.org.RestoreDevice(d)
				}
				if got := s.groupOf(test.ref); got != test.want {
					t.Errorf("found %q, want %q", got, test.want)
				}
			})
		})
	}
}

func TestFindAllWakesWhenMembersChange(t *testing.T) {
	for name, ref := range map[string]v1alpha1.FleetDevices{"of all": {All: true, ExcludeTags: []string{"lab"}}, "of a query": {Query: "tag:kiosk"}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newEnv(t, connectsim.Options{})
				lobby := s.org.AddDevice(connectsim.Device{Name: "lobby", Tags: []string{"kiosk"}})
				s.groupOf(ref)
				for step, change := range []func(){
					func() { s.org.AddDevice(connectsim.Device{Name: "hall", Tags: []string{"kiosk"}}) },
					func() {
						s.org.ChangeDevice(lobby.ID, func(d *connectsim.Device) { d.Tags = []string{"kiosk", "canary"} })
					},
					func() { s.org.ChangeDevice(lobby.ID, func(d *connectsim.Device) { d.Tags = []string{"lab"} }) },
				} {
					change()
					s.wakes("rollout")
					s.pass(25 * time.Minute)
					if !s.wakes("rollout") {
						t.Errorf("change %d wakes nobody", step)
					}
					s.groupOf(ref)
				}
				s.pass(time.Minute)
				s.wakes("rollout") // it came to wait after the last listing had ended
				s.groupOf(ref)
				s.pass(25 * time.Minute)
				if s.wakes("rollout") {
					t.Error("nothing has changed, and it was woken")
				}
				if group := s.group(ref); len(group.Devices) != 1 {
					t.Errorf("%d devices, want the one that has not left", len(group.Devices))
				}
			})
		})
	}
}
