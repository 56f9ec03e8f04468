// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/internal/connectsim"
)

// Samples is where config/samples come to their end: a namespace with an access token, the
// organisation that it opens, in it the devices that they name, which take what is deployed to them,
// and the operator if it is started.
type Samples struct {
	Connect
	Namespace string
	// Pis are the devices, by their names.
	Pis map[string]*connectsim.Pi
	// Manager is the operator; nil while none runs.
	Manager *Manager

	cluster *Cluster
	run     func(*connectsim.Pi)
	unplug  func()
}

// ServeSamples makes such a place. Close has to be called in the end.
func (c *Cluster) ServeSamples(ctx context.Context, namespace string) (*Samples, error) {
	connect, err := ServeConnect(connectsim.Options{})
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var pis sync.WaitGroup
	s := &Samples{
		Connect: connect, Namespace: namespace, Pis: map[string]*connectsim.Pi{}, cluster: c,
		run:    func(pi *connectsim.Pi) { pis.Go(func() { pi.Run(running) }) },
		unplug: func() { cancel(); pis.Wait() },
	}
	for _, device := range []connectsim.Device{
		{Name: "kiosk-lobby", SerialNumber: "10000000c0ffee02", Tags: []string{"kiosk"}},
		{Name: "kiosk-cafe", SerialNumber: "10000000c0ffee03", Tags: []string{"kiosk"}},
		{Name: "shop-window", SerialNumber: "10000000c0ffee01", Tags: []string{"signage", "street"}},
		{Name: "screen-1", SerialNumber: "10000000c0ffee11", Tags: []string{"screen"}},
		{Name: "screen-2", SerialNumber: "10000000c0ffee12", Tags: []string{"screen"}},
	} {
		s.Pis[device.Name] = s.PlugIn(s.Org, device)
	}
	if err := c.PutToken(ctx, namespace, s.Token); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// PlugIn has a device of an organisation, a Raspberry Pi 5, run until the end.
func (s *Samples) PlugIn(org *connectsim.Organisation, device connectsim.Device) *connectsim.Pi {
	device.Model, device.Memory, device.OS = "5", "8gb", "raspios-13"
	pi := connectsim.NewPi(s.URL, device.Name, device.SerialNumber)
	pi.SignedIn(org, org.AddDevice(device).ID)
	pi.Behave(connectsim.Behaviour{Every: 100 * time.Millisecond})
	s.run(pi)
	return pi
}

// StartManager starts the operator, and waits until it is ready. A listing a second stands for those
// of ten minutes.
func (s *Samples) StartManager(ctx context.Context, binary string) error {
	manager, err := s.cluster.StartManager(ctx, binary, "--connect-api-url="+s.URL, "--zap-log-level=debug",
		"--resync-interval=1s", "--deployment-poll-min=200ms", "--deployment-poll-max=1s")
	if err != nil {
		return err
	}
	s.Manager = manager
	return manager.WaitReady(ctx)
}

// StopManager ends the operator, if it runs, and returns what it has printed.
func (s *Samples) StopManager() (log string) {
	if s.Manager == nil {
		return ""
	}
	s.Manager.Stop()
	log = s.Manager.Log()
	s.Manager = nil
	return log
}

// Close ends the operator, the devices and Connect.
func (s *Samples) Close() {
	s.StopManager()
	s.unplug()
	s.Sim.Close()
}

// samplesOverlay is what the samples are made into: their placeholder of the access token is left out,
// and the rollout goes to the screens, whose canary nobody has to look at for long.
const samplesOverlay = `
resources: [%s]
namespace: %s
patches:
- patch: |
    $patch: delete
    apiVersion: v1
    kind: Secret
    metadata: {name: connect-access-token}
- patch: |
    apiVersion: rpi-connect.dev/v1alpha1
    kind: FleetRollout
    metadata: {name: kiosk}
    spec:
      devices: {query: "tag:screen"}
      batches: [{name: canary, size: 1, approval: Manual}]
      approvals: [{artefact: kiosk-v1.0, batch: canary}]
`

// Manifests are the samples for the namespace, as they would be in Git. The more that is given belongs
// into the kustomization that they are built with, such as patches.
func (s *Samples) Manifests(ctx context.Context, more string) ([]*unstructured.Unstructured, error) {
	overlay, err := os.MkdirTemp(s.cluster.Dir, "overlay-")
	if err != nil {
		return nil, err
	}
	samples, err := filepath.Rel(overlay, filepath.Join(Root(), "config", "samples"))
	if err != nil {
		return nil, err
	}
	kustomization := fmt.Sprintf(samplesOverlay, samples, s.Namespace) + more
	if err := os.WriteFile(filepath.Join(overlay, "kustomization.yaml"), []byte(kustomization), 0o600); err != nil {
		return nil, err
	}
	return Build(ctx, overlay)
}

// LetGo lets everything of the operator's kinds in a namespace go, whatever waits for that, so that
// the next operator does not find it.
func (c *Cluster) LetGo(ctx context.Context, namespace string) error {
	finalizers := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))
	for _, list := range Lists() {
		if err := c.Client.List(ctx, list, client.InNamespace(namespace)); err != nil {
			return err
		}
		err := meta.EachListItem(list, func(item kruntime.Object) error {
			obj, ok := item.(client.Object)
			if !ok {
				return fmt.Errorf("%T is no object", item)
			}
			return errors.Join(client.IgnoreNotFound(c.Client.Patch(ctx, obj, finalizers)), client.IgnoreNotFound(c.Client.Delete(ctx, obj)))
		})
		if err != nil {
			return err
		}
	}
	return nil
}
