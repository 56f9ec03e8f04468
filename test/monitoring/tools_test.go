// SPDX-License-Identifier: Apache-2.0

package monitoring_test

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"rpi-connect.dev/operator/test/cluster"
)

// program is one that a module of tools pins.
type program struct{ module, pkg string }

var (
	promtool         = program{"tools/prometheus", "github.com/prometheus/prometheus/cmd/promtool"}
	prometheusServer = program{"tools/prometheus", "github.com/prometheus/prometheus/cmd/prometheus"}
	kubeStateMetrics = program{"tools/kube-state-metrics", "k8s.io/kube-state-metrics/v2"}
)

// built are the paths of those that have been asked for.
var built = map[program]string{}

// path is where Go's build cache has it. Prometheus is built without service discovery, which is most of
// it. (go tool knows no build tags.)
func (p program) path(t testing.TB) string {
	t.Helper()
	if path := built[p]; path != "" {
		return path
	}
	for range 2 { // the first time it is linked, and only then put into the cache
		build := exec.CommandContext(t.Context(), "go", "run", "-modfile="+p.module+"/go.mod", "-tags=remove_all_sd", "-exec=echo", p.pkg)
		build.Dir = root
		var stderr bytes.Buffer
		build.Stderr = &stderr
		out, err := build.Output()
		if err != nil {
			t.Fatalf("build %s: %v\n%s", p.pkg, err, stderr.String())
		}
		path := strings.TrimSpace(string(out))
		if _, err := os.Stat(path); err == nil {
			built[p] = path
			return path
		}
	}
	t.Fatalf("%s is not in Go's build cache", p.pkg)
	return ""
}

// serve starts it until the suite ends.
func (p program) serve(flags ...string) {
	GinkgoHelper()
	command := exec.Command(p.path(GinkgoTB()), flags...)
	command.Stdout, command.Stderr = GinkgoWriter, GinkgoWriter
	Expect(command.Start()).To(Succeed())
	DeferCleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
}

// run has it read the input, and returns an error with what it says.
func (p program) run(input io.Reader, args ...string) error {
	GinkgoHelper()
	command := exec.Command(p.path(GinkgoTB()), args...)
	command.Stdin = input
	out, err := command.CombinedOutput()
	if err != nil {
		return &exec.Error{Name: p.pkg + ": " + string(out), Err: err}
	}
	return nil
}

// freePort is one that nobody listens on.
func freePort() string {
	GinkgoHelper()
	address, err := cluster.FreeAddress()
	Expect(err).NotTo(HaveOccurred())
	_, port, err := net.SplitHostPort(address)
	Expect(err).NotTo(HaveOccurred())
	return port
}
