// SPDX-License-Identifier: Apache-2.0

package monitoring_test

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const promtool = "github.com/prometheus/prometheus/cmd/promtool"

// tool returns the path of a program that tools/prometheus pins, in Go's build cache. It is built without
// service discovery, which is most of it. (go tool knows no build tags.)
func tool(t testing.TB, pkg string) string {
	t.Helper()
	for range 2 { // the first time it is linked, and only then put into the cache
		build := exec.CommandContext(t.Context(), "go", "run", "-modfile=tools/prometheus/go.mod", "-tags=remove_all_sd", "-exec=echo", pkg)
		build.Dir = root
		var stderr bytes.Buffer
		build.Stderr = &stderr
		out, err := build.Output()
		if err != nil {
			t.Fatalf("build %s: %v\n%s", pkg, err, stderr.String())
		}
		path := strings.TrimSpace(string(out))
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Fatalf("%s is not in Go's build cache", pkg)
	return ""
}
