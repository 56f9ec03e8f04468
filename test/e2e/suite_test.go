// SPDX-License-Identifier: Apache-2.0

// Package e2e tells stories about the operator as its users see it: the real
// binary, under its own ServiceAccount, on a real API server, against the
// simulator.
package e2e

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"rpi-connect.dev/operator/test/cluster"
)

var (
	control *cluster.Cluster
	binary  string
	// shared is a folder that all processes of the suite have in common.
	shared string
)

func TestE2E(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(30 * time.Second)
	SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	SetDefaultConsistentlyDuration(2 * time.Second)
	EnforceDefaultTimeoutsWhenUsingContexts()
	RunSpecs(t, "The operator")
}

// The stories wait more than they work, so several processes tell them (make test-e2e). Each has a
// control plane of its own: the operator watches every namespace, and some stories compact etcd or
// apply the CRDs anew.
var _ = SynchronizedBeforeSuite(func(ctx context.Context) []byte {
	folder, err := os.MkdirTemp("", "rpi-connect-e2e-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(os.RemoveAll, folder)
	_, err = cluster.BuildManager(ctx, folder)
	Expect(err).NotTo(HaveOccurred())
	return []byte(folder)
}, func(ctx context.Context, folder []byte) {
	shared = string(folder)
	binary = filepath.Join(shared, "manager")
	var err error
	control, err = cluster.Start(ctx, cluster.Options{ControllerManager: cluster.HasControllerManager()})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Expect(control.Stop()).To(Succeed()) })
})
