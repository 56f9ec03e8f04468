// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
)

// fleetRollout is what it costs to take an update through a fleet.
type fleetRollout struct {
	n, most      int
	throttled    int
	all, floor   time.Duration
	active       int     // at the same moment, at most
	doubled      int     // devices with more than one deployment
	requests     float64 // per device
	writes       float64 // to Deployments, per device
	rollout      int     // writes to the rollout itself
	steadyWrites int     // to everything, in a window after it was complete
	published    time.Duration
	status       int // bytes
	resident     int64
}

// fleetRollouts takes updates through fleets in batches.
func fleetRollouts(ctx context.Context, numbers []int) error {
	fmt.Printf("\nFleetRollouts, with an hour in a minute: %d requests per window of %s, batches of one device, 5 %%, and the rest. Devices pick a deployment up after 2 s and have installed it 10 s later. "+
		"The least is the time in which the budget allows the requests that were made, two per device and the looks, or maxConcurrent devices can install.\n", limit, window)
	fmt.Println("\n| devices | maxConcurrent | 429s | active at most | devices updated twice | complete after | the least | ratio | requests per device | writes per device | writes to the rollout | in the window after | slowest new Artefact | status | resident memory |")
	fmt.Println("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
	for _, n := range numbers {
		var r fleetRollout
		err := withFleet(ctx, n, func(f *benchFleet) error {
			var err error
			r, err = f.takeUpdate(ctx)
			return err
		}, "--deployment-poll-min=250ms", "--deployment-poll-max=15s", "--resync-interval=30s")
		if err != nil {
			return err
		}
		fmt.Printf("| %d | %d | %d | %d | %d | %.0f s | %.0f s | %.2f | %.1f | %.2f | %d | %d | %.1f s | %.1f KiB | %d MiB |\n",
			r.n, r.most, r.throttled, r.active, r.doubled, r.all.Seconds(), r.floor.Seconds(), float64(r.all)/float64(r.floor), r.requests, r.writes,
			r.rollout, r.steadyWrites, r.published.Seconds(), float64(r.status)/1024, r.resident>>20)
	}
	return nil
}

func (f *benchFleet) takeUpdate(ctx context.Context) (fleetRollout, error) {
	r := fleetRollout{n: f.n, most: max(50, f.n/10)}
	installing, stop := context.WithCancel(ctx)
	defer stop()
	go f.install(installing)
	rollout := newFleetRollout(r.most)
	if err := f.cluster.Client.Create(ctx, rollout); err != nil {
		return r, err
	}
	artefacts := 1 // that have been published
	err := until(ctx, func() (bool, error) {
		if err := f.cluster.Client.Get(ctx, client.ObjectKeyFromObject(rollout), rollout); err != nil {
			return false, err
		}
		r.active = max(r.active, f.running())
		if time.Since(f.began) > time.Duration(artefacts)*15*time.Second && rollout.Status.Phase != v1alpha1.RolloutComplete {
			took, err := f.publish(ctx, artefacts)
			r.published, artefacts = max(r.published, took), artefacts+1
			return false, err
		}
		return rollout.Status.Phase == v1alpha1.RolloutComplete, nil
	})
	if err != nil {
		return r, err
	}
	r.all = time.Since(f.began)
	r.floor = max(time.Duration(f.Sim.Count(""))*window/limit, time.Duration(f.n/r.most)*12*time.Second)
	r.requests = float64(f.Sim.Count("")) / float64(f.n)
	r.throttled = throttled(f.Sim.Journal())
	r.doubled = len(f.Org.Deployments("")) - f.n
	if r.resident, err = f.manager.ResidentBytes(); err != nil {
		return r, err
	}
	if err := pause(ctx, 5*time.Second); err != nil { // the audit log, and the last status, come a little later
		return r, err
	}
	resources, _, _, err := f.cluster.OperatorWrites(f.began)
	if err != nil {
		return r, err
	}
	if r.rollout, err = f.writesToRollouts(); err != nil {
		return r, err
	}
	r.writes = float64(resources-r.rollout-3*artefacts) / float64(f.n)
	complete := time.Now()
	if err := pause(ctx, window/2); err != nil {
		return r, err
	}
	if r.steadyWrites, _, _, err = f.cluster.OperatorWrites(complete); err != nil {
		return r, err
	}
	status, err := json.Marshal(rollout.Status)
	r.status = len(status)
	return r, err
}

// writesToRollouts counts what the operator has written to FleetRollouts.
func (f *benchFleet) writesToRollouts() (int, error) {
	requests, err := f.cluster.Requests()
	n := 0
	for _, r := range requests {
		if r.ByOperator() && r.IsWrite() && r.Resource == "fleetrollouts" {
			n++
		}
	}
	return n, err
}

// running counts the deployments that are pending or in progress.
func (f *benchFleet) running() int {
	n := 0
	for _, d := range f.Org.Deployments("") {
		if d.State == connectsim.Pending || d.State == connectsim.InProgress {
			n++
		}
	}
	return n
}

func newFleetRollout(most int) *v1alpha1.FleetRollout {
	one, some, concurrent := intstr.FromInt32(1), intstr.FromString("5%"), intstr.FromInt32(int32(most))
	return &v1alpha1.FleetRollout{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "fleet"}, Spec: v1alpha1.FleetRolloutSpec{
		ArtefactRef:   deployment(0).Spec.ArtefactRef,
		Devices:       v1alpha1.FleetDevices{All: true},
		MaxConcurrent: &concurrent,
		Batches:       []v1alpha1.FleetBatch{{Name: "one", Size: &one}, {Name: "some", Size: &some}},
	}}
}
