// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// rollOut takes an update to the screens: through a canary batch and an approval to the rest. Then a
// bad version pauses itself, and the revert brings the fleet back.
func (d *demo) rollOut(ctx context.Context) error {
	fmt.Println(`
$ kubectl apply -f - # bring kiosk-v1.1 to the screens, three of them first
apiVersion: rpi-connect.dev/v1alpha1
kind: FleetRollout
metadata: {name: screens}
spec:` + screensSpec("kiosk-v1.1"))
	if err := d.applyRollout(ctx, "kiosk-v1.1"); err != nil {
		return err
	}
	if err := d.watchRollout(ctx, v1alpha1.RolloutAwaitingApproval); err != nil {
		return err
	}
	if err := d.show(ctx, "annotate", "rpirollout", "screens", "rpi-connect.dev/approve=kiosk-v1.1/canary"); err != nil {
		return err
	}
	if err := d.watchRollout(ctx, v1alpha1.RolloutComplete); err != nil {
		return err
	}
	fmt.Println("\n$ git commit # kiosk-v1.2, which no screen can install; Argo CD or Flux applies it")
	if err := d.apply(ctx, badArtefact); err != nil {
		return err
	}
	if err := d.applyRollout(ctx, badVersion); err != nil {
		return err
	}
	if err := d.watchRollout(ctx, v1alpha1.RolloutPaused); err != nil {
		return err
	}
	fmt.Println("\n$ git revert HEAD")
	if err := d.applyRollout(ctx, "kiosk-v1.1"); err != nil {
		return err
	}
	if err := d.watchRollout(ctx, v1alpha1.RolloutComplete); err != nil {
		return err
	}
	return d.show(ctx, "get", "rpirollout", "screens", "-o", `jsonpath={range .status.history[*]}{.revision}{"\t"}{.artefact}{"\t"}{.outcome}{"\n"}{end}`)
}

// screensSpec is the rollout's spec, as it is in Git.
func screensSpec(artefact string) string {
	return fmt.Sprintf(`
  artefactRef: {name: %s}
  devices: {query: "tag:screen"}
  maxConcurrent: 6
  batches:
  - {name: canary, tags: [canary], approval: Manual}
  failurePolicy: {maxFailures: 2}
  deadlines: {pending: 8s} # an hour, if it were not a demo`, artefact)
}

const badArtefact = `
apiVersion: rpi-connect.dev/v1alpha1
kind: Artefact
metadata: {name: kiosk-v1.2}
spec:
  uri: https://updates.example.com/kiosk/kiosk-v1.2.tar.zst
  checksum: 0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c
`

func (d *demo) applyRollout(ctx context.Context, artefact string) error {
	return d.apply(ctx, `
apiVersion: rpi-connect.dev/v1alpha1
kind: FleetRollout
metadata: {name: screens}
spec:`+screensSpec(artefact)+"\n")
}

// watchRollout shows the rollout each time it changes, until it is in the phase, and then what it says.
func (d *demo) watchRollout(ctx context.Context, phase v1alpha1.FleetRolloutPhase) error {
	shown := &terminal{inPlace: term.IsTerminal(int(os.Stdout.Fd()))}
	fmt.Println("\n$ kubectl get rpirollout screens -w")
	rollout := &v1alpha1.FleetRollout{}
	err := d.until(ctx, func(ctx context.Context) (bool, error) {
		table, err := d.kubectl(ctx, "get", "rpirollout", "screens")
		if err != nil {
			return false, err
		}
		shown.show(table)
		err = d.cluster.Client.Get(ctx, client.ObjectKey{Namespace: "default", Name: "screens"}, rollout)
		return rollout.Status.Phase == phase && rollout.Status.ObservedGeneration == rollout.Generation, err
	})
	if err != nil {
		return err
	}
	if table, err := d.kubectl(ctx, "get", "rpirollout", "screens"); err == nil {
		shown.show(table)
	}
	if ready := readyOf(rollout); ready != nil {
		fmt.Printf("  %s: %s\n", ready.Reason, ready.Message)
	}
	return nil
}

// show shows a command, and what it prints.
func (d *demo) show(ctx context.Context, args ...string) error {
	out, err := d.kubectl(ctx, args...)
	if err != nil {
		return err
	}
	fmt.Printf("\n$ kubectl %s\n%s", strings.Join(args, " "), out)
	return nil
}
