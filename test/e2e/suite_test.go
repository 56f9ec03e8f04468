// SPDX-License-Identifier: Apache-2.0

// Package e2e tells stories about the operator as its users see it: the real
// binary, under its own ServiceAccount, on a real API server, against the
// simulator.
package e2e

import (
	"context"
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

func TestE2E(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(30 * time.Second)
	SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	SetDefaultConsistentlyDuration(2 * time.Second)
	EnforceDefaultTimeoutsWhenUsingContexts()
	RunSpecs(t, "The operator")
}

var _ = BeforeSuite(func(ctx context.Context) {
	var err error
	control, err = cluster.Start(ctx, cluster.Options{ControllerManager: cluster.HasControllerManager()})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Expect(control.Stop()).To(Succeed()) })
	binary, err = cluster.BuildManager(ctx, control.Dir)
	Expect(err).NotTo(HaveOccurred())
})
