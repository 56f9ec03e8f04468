// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/test/cluster"
)

const (
	listDevices = "GET /organisation/devices"
	patchDevice = "PATCH /organisation/devices/{id}"
)

// managed measures Devices: a fleet that is named and tagged for the first time, all of
// which somebody changes then.
func managed(ctx context.Context, numbers []int) error {
	fmt.Println("\nDevices, whose name and tags all differ: from the first apply, and once more from the moment when somebody has changed all of them, to all being as the spec says.")
	fmt.Println("The least is one listing, a request for every hundred devices, and one request to change each. The simulator's hourly limit is lifted.")
	fmt.Println("\n| Devices | what | PATCHes | other requests | the least | writes to resources each (+ events) | time | reconciles per steady minute | resident memory |")
	fmt.Println("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
	for _, n := range numbers {
		err := withCluster(ctx, func(c *cluster.Cluster, binary string) error {
			b, err := connect(ctx, c, connectsim.Options{RateLimit: 1 << 30})
			if err != nil {
				return err
			}
			defer b.Sim.Close()
			for i := range n {
				b.Org.AddDevice(connectsim.Device{Name: "raspberrypi", SerialNumber: deploymentName(i), Model: "5", Memory: "8gb", OS: "raspios-13"})
			}
			manager, err := c.StartManager(ctx, binary, "--connect-api-url="+b.URL, "--resync-interval="+resync.String())
			if err != nil {
				return err
			}
			defer manager.Stop()
			if err := manager.WaitReady(ctx); err != nil {
				return err
			}
			m := &managedFleet{Connect: b, cluster: c, manager: manager, n: n}
			if err := m.measure(ctx, "named and tagged", func() error {
				return each(ctx, n, func(ctx context.Context, i int) error { return c.Client.Create(ctx, device(i)) })
			}); err != nil {
				return err
			}
			return m.measure(ctx, "put back", func() error {
				for _, d := range b.Org.Devices() {
					b.Org.ChangeDevice(d.ID, func(d *connectsim.Device) { d.Name, d.Tags = "toaster", nil })
				}
				return nil
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

type managedFleet struct {
	cluster.Connect
	cluster *cluster.Cluster
	manager *cluster.Manager
	n       int
}

// measure prints what it costs until all devices are as they should be.
func (m *managedFleet) measure(ctx context.Context, what string, do func() error) error {
	m.Sim.ResetJournal()
	began := time.Now()
	if err := do(); err != nil {
		return err
	}
	if err := until(ctx, func() (bool, error) { return m.Sim.Count(patchDevice) >= m.n && m.settled(), nil }); err != nil {
		return fmt.Errorf("%w\n%s", err, m.manager.Log())
	}
	if err := until(ctx, func() (bool, error) { return countReady(ctx, m.cluster.Client, &v1alpha1.DeviceList{}, m.n) }); err != nil {
		return err
	}
	took := time.Since(began)
	patches, listed := m.Sim.Count(patchDevice), m.Sim.Count(listDevices)
	others := m.Sim.Count("") - patches
	resident, err := m.manager.ResidentBytes()
	if err != nil {
		return err
	}
	if err := quiet(ctx, m.manager); err != nil {
		return err
	}
	reconciled, pages := reconciles(ctx, m.manager), (m.n+99)/100
	if err := until(ctx, func() (bool, error) { return m.Sim.Count(listDevices) >= listed+2*pages, nil }); err != nil {
		return err
	}
	steady := (reconciles(ctx, m.manager) - reconciled) * float64(time.Minute) / float64(2*resync)
	resources, events, _, err := m.cluster.OperatorWrites(began)
	if err != nil {
		return err
	}
	fmt.Printf("| %d | %s | %d | %d | %d | %.2f (+ %.2f) | %.1f s | %.0f | %d MiB |\n", m.n, what, patches, others, m.n+pages,
		float64(resources)/float64(m.n), float64(events)/float64(m.n), took.Seconds(), steady, resident>>20)
	return nil
}

// settled tells whether all devices are as the specs say.
func (m *managedFleet) settled() bool {
	for _, d := range m.Org.Devices() {
		if d.Name != d.SerialNumber || len(d.Tags) != 1 {
			return false
		}
	}
	return true
}

func device(i int) *v1alpha1.Device {
	name := deploymentName(i)
	return &v1alpha1.Device{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: name},
		Spec:       v1alpha1.DeviceSpec{Device: v1alpha1.SingleDeviceReference{SerialNumber: name}, Name: name, Tags: []string{"kiosk"}},
	}
}
