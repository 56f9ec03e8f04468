// SPDX-License-Identifier: Apache-2.0

package install_test

import (
	"context"
	"os"
	"sync"
	"testing"

	. "github.com/onsi/gomega"

	"rpi-connect.dev/operator/test/cluster"
)

// One cluster serves all tests. Each leaves it as it was: with nothing of the operator.
var (
	started *cluster.Cluster
	start   = sync.OnceValue(func() (err error) {
		started, err = cluster.Start(context.Background(), cluster.Options{ControllerManager: cluster.HasControllerManager(), Bare: true})
		return err
	})
)

func TestMain(m *testing.M) {
	code := m.Run()
	if started != nil {
		_ = started.Stop()
	}
	os.Exit(code)
}

func emptyCluster(t *testing.T) *cluster.Cluster {
	t.Helper()
	NewWithT(t).Expect(start()).To(Succeed())
	return started
}
