// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// An explanation is of a line that is there, in a file that is changed, and says why.
func TestExplanationsAreOfWhatIsThere(t *testing.T) {
	for change, reason := range reasons() {
		file, rest, _ := strings.Cut(change, ": ")
		line, _, _ := strings.Cut(strings.NewReplacer("{", "", "}", "").Replace(rest[:strings.LastIndex(rest, ": ")]), "\n")
		text, err := os.ReadFile(filepath.Join("..", "..", file))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.NewReplacer("{", "", "}", "").Replace(string(text)), "\n")
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.TrimLeft(l, " \t") == line }) {
			t.Errorf("no line of %s is %q", file, line)
		}
		isCore := slices.ContainsFunc(core, func(c target) bool {
			return c.dir == filepath.Dir(file) && (len(c.files) == 0 || slices.Contains(c.files, filepath.Base(file)))
		})
		if !isCore || strings.TrimSpace(reason) == "" {
			t.Errorf("%s: changed at all: %t; because %q", change, isCore, reason)
		}
	}
}
