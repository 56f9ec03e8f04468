// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"rpi-connect.dev/operator/internal/connectsim"
)

// screens are the devices that are brought up to date together. The last one is
// offline, and the one before it fails whatever it is given.
const screens = 21

// badVersion is the artefact that no screen can install.
const badVersion = "kiosk-v1.2"

func screen(i int) (name, serial string) {
	return fmt.Sprintf("screen-%02d", i+1), fmt.Sprintf("10000000c0ffee%02x", 0x10+i)
}

// startScreens plugs the screens in: they are signed in already, and nobody has given
// them a tag.
func (d *demo) startScreens(ctx context.Context) error {
	for i := range screens {
		name, serial := screen(i)
		pi := connectsim.VirtualPi{
			Hostname: name, SerialNumber: serial,
			Board: connectsim.Board{Model: []string{"5", "4b", "cm5"}[i%3], Memory: "4gb", OS: "raspios-13"},
			Steering: connectsim.Steering{
				PollMilliseconds: new(500), WorkMilliseconds: new(1500),
				FailWith: new("exit status 1"), FailURI: new(badVersion),
			},
		}
		switch i {
		case screens - 1:
			pi.Offline = new(true)
		case screens - 2:
			pi.FailWith, pi.FailURI = new("No space left on device"), new("")
		}
		if err := d.admin.PlugIn(ctx, pi); err != nil {
			return err
		}
	}
	return nil
}

// tagScreens gives the screens their tags, from manifests as they would be in Git, and
// shows what the devices are.
func (d *demo) tagScreens(ctx context.Context) error {
	var manifests []string
	for i := range screens {
		name, serial := screen(i)
		tags := "screen"
		if i < 3 {
			tags = "screen, canary"
		}
		manifests = append(manifests, fmt.Sprintf(`
apiVersion: rpi-connect.dev/v1alpha1
kind: Device
metadata: {name: %s}
spec:
  device: {serialNumber: "%s"}
  tags: [%s]
`, name, serial, tags))
	}
	fmt.Printf("\n$ kubectl apply -f screens.yaml # %d Devices: three have the tags screen and canary, the others screen\n", screens)
	if err := d.apply(ctx, strings.Join(manifests, "---")); err != nil {
		return err
	}
	err := d.until(ctx, func(ctx context.Context) (bool, error) {
		tagged := 0
		for _, device := range d.Org.Devices() {
			if strings.HasPrefix(device.Name, "screen-") && len(device.Tags) > 0 {
				tagged++
			}
		}
		settled, err := d.settled(ctx)
		return settled && tagged == screens, err
	})
	if err != nil {
		return err
	}
	table, err := d.kubectl(ctx, "get", "rpidev")
	if err != nil {
		return err
	}
	fmt.Printf("\n$ kubectl get rpidev\n%s", table)
	return nil
}

// until waits for something that the operator brings about.
func (d *demo) until(ctx context.Context, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if ok, err := done(ctx); err != nil || ok {
			return errors.Join(err, ctx.Err())
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not everything has come to its end; the operator's last words:\n%s", lastLines(d.manager.Log(), 20))
		case <-d.manager.Exited():
			return fmt.Errorf("the operator has ended:\n%s", lastLines(d.manager.Log(), 20))
		case <-time.After(250 * time.Millisecond):
		}
	}
}
