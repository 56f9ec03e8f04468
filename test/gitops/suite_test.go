// SPDX-License-Identifier: Apache-2.0

// Package gitops_test tries what GitOps tools do with the operator's kinds: kustomize, the libraries that
// Flux is made of, and the scripts that are shipped for Argo CD.
package gitops_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"rpi-connect.dev/operator/test/cluster"
)

var (
	control *cluster.Cluster
	binary  string
)

func TestGitOps(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(30 * time.Second)
	SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	EnforceDefaultTimeoutsWhenUsingContexts()
	RunSpecs(t, "GitOps")
}

var _ = BeforeSuite(func(ctx context.Context) {
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
