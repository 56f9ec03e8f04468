// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
)

// boardsSignedIn is how many devices an organisation has in the beginning.
const boardsSignedIn = 5

var devices = &kind{
	name: "Device", prefix: "d", collection: "devices", names: 4, orphans: true,
	fresh: func(w *world, called string, variant int) object {
		d := &v1alpha1.Device{}
		n := int(called[1] - '0')
		switch variant % 3 {
		case 0:
			d.Spec.Device.SerialNumber = serial(n)
		case 1:
			d.Spec.Device.Name = name("pi", n)
		case 2:
			d.Spec.Device.SerialNumber = serial((n + 1) % boardsSignedIn)
		}
		changeDevice(w, d, variant/3)
		return d
	},
	same:   func(anew, was object) { anew.(*v1alpha1.Device).Spec = was.(*v1alpha1.Device).Spec },
	change: changeDevice,
	add: func(w *world, n, _ int) {
		if len(w.org().Devices()) < 2*boardsSignedIn {
			w.addBoard(w.organisation, n)
		}
	},
	alter: func(w *world, n, variant int) {
		if d, ok := pick(w.org().Devices(), n); ok {
			w.org().ChangeDevice(d.ID, func(d *connectsim.Device) {
				if variant%2 == 0 {
					d.Tags = tags(variant / 2)
				} else {
					d.Name = name("pi", variant/2%boardsSignedIn)
				}
			})
		}
	},
	remove: func(w *world, n, _ int) {
		if d, ok := pick(w.org().Devices(), n); ok {
			w.org().RemoveDevice(d.ID)
		}
	},
	ids: func(org *connectsim.Organisation) []string {
		return idsOf(org.Devices(), func(d connectsim.Device) string { return d.ID })
	},
	atRest: func(w *world, obj object) error {
		d := obj.(*v1alpha1.Device)
		status, reason, _ := ready(d)
		if reason == v1alpha1.ReasonDeviceNotFound || reason == v1alpha1.ReasonDeviceAmbiguous {
			return nil
		}
		if status != "True" || reason != v1alpha1.ReasonAvailable {
			return w.excused(d)
		}
		at := slices.IndexFunc(w.org().Devices(), func(r connectsim.Device) bool { return r.ID == d.Status.ID })
		if at < 0 {
			return fmt.Errorf("is Available, and its device is not there")
		}
		r := w.org().Devices()[at]
		switch {
		case d.Spec.Device.SerialNumber != "" && r.SerialNumber != d.Spec.Device.SerialNumber:
			return fmt.Errorf("is Available, and its device is another one: %s", r.SerialNumber)
		case w.setup.revision == connectsim.Older:
			return nil // which cannot change devices
		case d.Spec.Name != "" && r.Name != d.Spec.Name:
			return fmt.Errorf("is Available, and its device is called %q", r.Name)
		case d.Spec.Tags != nil && !sameTags(r.Tags, d.Spec.Tags):
			return fmt.Errorf("is Available, and its device has the tags %v", r.Tags)
		}
		return nil
	},
}

func changeDevice(_ *world, obj object, variant int) {
	d := obj.(*v1alpha1.Device)
	d.Spec.DeletionPolicy = policy(variant)
	d.Spec.Tags = tags(variant)
	d.Spec.Name = []string{"", "", "lobby", "hall"}[variant%4]
}

func serial(n int) string { return fmt.Sprintf("10000000000000%02d", n) }

// addBoard signs a board in, if it is not yet.
func (w *world) addBoard(organisation, n int) {
	org := w.orgs[organisation]
	if slices.ContainsFunc(org.Devices(), func(d connectsim.Device) bool { return d.SerialNumber == serial(n) }) {
		return
	}
	org.AddDevice(connectsim.Device{Name: name("pi", n), SerialNumber: serial(n), Tags: []string{"fleet"}, Model: "5", Memory: "8gb", OS: "raspios-13"})
}

func (w *world) deviceReplaced(s step) {
	if d, ok := pick(w.org().Devices(), s.n); ok {
		w.org().ReplaceDevice(d.ID)
	}
}

// deviceSignsIn has a board use a key that is in a Secret, if there is one.
func (w *world) deviceSignsIn(s step) {
	of := resource{authKeys.name, name(authKeys.prefix, s.n%authKeys.names)}
	k, ok := w.lookUp(of).(*v1alpha1.AuthKey)
	if !ok {
		return
	}
	body, err := json.Marshal(map[string]string{
		"auth_key": w.secretOf(k), "serial_number": serial(s.more % (2 * boardsSignedIn)), "hostname": name("pi", s.more), "client_id": "simulation",
	})
	w.must(err)
	req, err := http.NewRequest(http.MethodPost, "https://connect.invalid/client/auth-key-exchange", bytes.NewReader(body))
	w.must(err)
	req.Header.Set("Content-Type", "application/json")
	_ = direct(w.sim, req).Body.Close()
}

// devicesGoOn has devices begin, succeed and fail with what they are told to install.
func (w *world) devicesGoOn(s step) {
	for i, d := range w.org().Deployments("") {
		if (i+s.n)%2 == 1 {
			continue // this one is offline
		}
		switch d.State {
		case connectsim.Pending:
			w.org().MoveDeployment(d.ID, connectsim.InProgress, "")
		case connectsim.InProgress:
			if s.more%4 == 3 {
				w.org().MoveDeployment(d.ID, connectsim.Failed, "cannot read https://root:"+canary+"@updates.example.com/?key="+canary+" with rpdev_0123456789abcdef")
			} else {
				w.org().MoveDeployment(d.ID, connectsim.Succeeded, "")
			}
		}
	}
}
