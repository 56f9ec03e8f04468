// SPDX-License-Identifier: Apache-2.0

// Package argocd_test has Argo CD's own engines sync the samples: gitops-engine, driven as the application
// controller drives it, and the interpreter of its Lua scripts.
package argocd_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/klog/v2"

	"rpi-connect.dev/operator/test/cluster"
)

var (
	control *cluster.Cluster
	binary  string
)

func TestArgoCD(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(30 * time.Second)
	SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	EnforceDefaultTimeoutsWhenUsingContexts()
	RunSpecs(t, "Argo CD")
}

var _ = BeforeSuite(func(ctx context.Context) {
	klog.SetOutput(GinkgoWriter)
	klog.LogToStderr(false)
	var err error
	control, err = cluster.Start(ctx, cluster.Options{ControllerManager: cluster.HasControllerManager()})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Expect(control.Stop()).To(Succeed()) })
	binary, err = cluster.BuildManager(ctx, control.Dir)
	Expect(err).NotTo(HaveOccurred())
})

// site is where a story happens.
type site struct{ *cluster.Samples }

var sites int

func newSite(ctx context.Context) *site {
	GinkgoHelper()
	sites++
	samples, err := control.ServeSamples(ctx, fmt.Sprintf("site-%d", sites))
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(samples.Close)
	DeferCleanup(control.LetGo, samples.Namespace)
	s := &site{samples}
	DeferCleanup(s.stop)
	return s
}

func (s *site) start(ctx context.Context) {
	GinkgoHelper()
	Expect(s.StartManager(ctx, binary)).To(Succeed())
}

func (s *site) stop() {
	log := s.StopManager()
	if CurrentSpecReport().Failed() {
		lines := strings.Split(log, "\n")
		AddReportEntry("operator log", strings.Join(lines[max(0, len(lines)-200):], "\n"))
	}
}

// wave is that of each kind. Nothing waits for what is in the last one.
var wave = map[string]string{
	"Secret": "0", "Artefact": "0", "DeviceIdentity": "1", "AuthKey": "1", "Device": "2", "Deployment": "3", "FleetRollout": "4",
}

// git is what the samples are in Git, in waves.
func (s *site) git(ctx context.Context, more string) []*unstructured.Unstructured {
	GinkgoHelper()
	manifests, err := s.Manifests(ctx, more)
	Expect(err).NotTo(HaveOccurred())
	for _, obj := range manifests {
		annotate(obj, "argocd.argoproj.io/sync-wave", wave[obj.GetKind()])
	}
	return manifests
}

func annotate(obj *unstructured.Unstructured, key, value string) {
	annotations := obj.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[key] = value
	obj.SetAnnotations(annotations)
}
