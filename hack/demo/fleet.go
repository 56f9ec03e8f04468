// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/connectsim"
)

// startFleet starts the virtual Raspberry Pis of the samples, and the screens. Of the
// three one is in the organisation already, and offline; the other two sign in with
// what the samples make for them.
func (d *demo) startFleet(ctx context.Context) error {
	offline, poll, work := true, 500, 3000
	err := d.admin.PlugIn(ctx, connectsim.VirtualPi{
		Hostname: "shop-window", SerialNumber: "10000000c0ffee01", Tags: []string{"signage"},
		Board:    connectsim.Board{Model: "5", Memory: "4gb", OS: "raspios-13"},
		Steering: connectsim.Steering{Offline: &offline, PollMilliseconds: &poll, WorkMilliseconds: &work},
	})
	if err != nil {
		return err
	}

	lobby := connectsim.NewPi(d.URL, "raspberrypi", "10000000c0ffee02")
	lobby.Behave(connectsim.Behaviour{Every: 500 * time.Millisecond, WorkTime: 3 * time.Second})
	go d.live(ctx, lobby, func() error { return lobby.SignInWithAuthKey(ctx, d.secret(ctx, "kiosk-lobby", "auth.key")) })

	cafe := connectsim.NewPi(d.URL, "raspberrypi", "10000000c0ffee03")
	cafe.Behave(connectsim.Behaviour{Every: 500 * time.Millisecond, WorkTime: 3 * time.Second, FailWith: "Checksum mismatch"})
	go d.live(ctx, cafe, func() error {
		key, err := d.key(ctx)
		if err != nil {
			return err
		}
		return cafe.SignInWithIdentity(ctx, key)
	})
	return d.startScreens(ctx)
}

// live lets a Pi try to sign in until it may, say what it runs on, and then take
// deployments.
func (d *demo) live(ctx context.Context, pi *connectsim.Pi, signIn func() error) {
	for signIn() != nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
	for _, device := range d.Org.Devices() {
		if device.SerialNumber == pi.SerialNumber {
			d.Org.ChangeDevice(device.ID, func(known *connectsim.Device) { known.Model, known.Memory, known.OS = "5", "8gb", "raspios-13" })
		}
	}
	pi.Run(ctx)
}

// secret reads what a person would carry to a device; empty while it is not
// there.
func (d *demo) secret(ctx context.Context, name, key string) string {
	secret := &corev1.Secret{}
	if d.cluster.Client.Get(ctx, types.NamespacedName{Namespace: "default", Name: name}, secret) != nil {
		return ""
	}
	return string(secret.Data[key])
}

// key is the private key that the sample identity belongs to.
func (d *demo) key(ctx context.Context) (*ecdsa.PrivateKey, error) {
	return connectclient.ParsePrivateKeyPEM([]byte(d.secret(ctx, "kiosk-cafe-key", "key.pem")))
}

// act is something that a person does while the fleet is updated.
type act struct {
	title string
	// when a Deployment's Ready has this reason
	deployment, reason string
	do                 func(context.Context, *demo) error
}

// newer is the same device's next version.
const newer = `
apiVersion: rpi-connect.dev/v1alpha1
kind: Deployment
metadata: {name: window-v1.1}
spec:
  artefactRef: {name: kiosk-v1.1}
  device: {name: shop-window}
`

// acts are what happens to the device that is offline: its pending deployment is
// superseded by a newer one, and that is cancelled.
func acts() []act {
	return []act{
		{"kubectl apply -f - # the next version for shop-window, which is offline", "window-2026.11", v1alpha1.ReasonPending, func(ctx context.Context, d *demo) error {
			return d.apply(ctx, newer)
		}},
		{"kubectl patch deployment.rpi-connect.dev/window-v1.1 --type=merge -p '{\"spec\":{\"cancel\":true}}'", "window-v1.1", v1alpha1.ReasonPending, func(ctx context.Context, d *demo) error {
			_, err := d.kubectl(ctx, "patch", "deployment.rpi-connect.dev/window-v1.1", "--type=merge", `-p={"spec":{"cancel":true}}`)
			return err
		}},
	}
}

// play does what is next, if its time has come; it tells whether everything is
// done.
func (d *demo) play(ctx context.Context) (title string, done bool, err error) {
	if len(d.acts) == 0 {
		return "", true, nil
	}
	next := d.acts[0]
	var deployment v1alpha1.Deployment
	name := types.NamespacedName{Namespace: "default", Name: next.deployment}
	if err := d.cluster.Client.Get(ctx, name, &deployment); err != nil {
		return "", false, client.IgnoreNotFound(err)
	}
	if reasonOf(&deployment) != next.reason {
		return "", false, nil
	}
	d.acts = d.acts[1:]
	if err := next.do(ctx, d); err != nil {
		return "", false, fmt.Errorf("%s: %w", next.title, err)
	}
	return next.title, false, nil
}
