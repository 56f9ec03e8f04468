// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// What is written about the program is compared with the program.

func TestTheReadmeHasEveryFlagWithItsDefault(t *testing.T) {
	written := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `--([a-z-]+)` \\| ([^|]*) \\|").FindAllStringSubmatch(read(t, "README.md"), -1) {
		written[row[1]] = row[2]
	}
	var o options
	flags := flag.NewFlagSet("manager", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	o.bind(flags)
	flags.VisitAll(func(f *flag.Flag) {
		got, there := written[f.Name]
		delete(written, f.Name)
		switch {
		case strings.HasPrefix(f.Name, "zap-"): // zap's own, which the README names as a group
		case !there:
			t.Errorf("README.md has no --%s", f.Name)
		case !sameDefault(got, f.DefValue):
			t.Errorf("README.md says that --%s is %s by default, but it is %q", f.Name, got, f.DefValue)
		}
	})
	for name := range written {
		t.Errorf("README.md has --%s, but there is no such flag", name)
	}
}

// sameDefault tells whether the README's word for a default is right.
func sameDefault(got, want string) bool {
	if inWords, ok := map[string]string{
		"the vendor's": "https://api.connect.raspberrypi.com", "the system's": "", "all": "", "the pod's": "",
	}[got]; ok {
		return want == inWords
	}
	short, err := time.ParseDuration(got)
	long, notDuration := time.ParseDuration(want)
	if err == nil && notDuration == nil {
		return short == long
	}
	return got == want
}

// There is no container engine where the tests run: what the Dockerfile copies is copied elsewhere, and
// what it builds is built there.
func TestTheImagesGetEverythingTheyAreBuiltFrom(t *testing.T) {
	if testing.Short() {
		t.Skip("it links both programs")
	}
	dockerfile := read(t, "Dockerfile")
	dir := t.TempDir()
	for _, line := range regexp.MustCompile(`(?m)^COPY ([^-].*)$`).FindAllStringSubmatch(dockerfile, -1) {
		words := strings.Fields(line[1])
		to := filepath.Join(dir, words[len(words)-1])
		for _, pattern := range words[:len(words)-1] {
			found, err := filepath.Glob(pattern)
			if err != nil || len(found) == 0 {
				t.Fatalf("COPY %s: there is no %s (%v)", line[1], pattern, err)
			}
			for _, from := range found {
				copyTo(t, from, to)
			}
		}
	}
	packages := regexp.MustCompile(`go build .* (\S+)\n`).FindAllStringSubmatch(dockerfile, -1)
	if len(packages) != 2 {
		t.Fatalf("the Dockerfile builds %d programs", len(packages))
	}
	for _, pkg := range packages {
		build := exec.CommandContext(t.Context(), "go", "build", "-o", os.DevNull, pkg[1])
		build.Dir = dir
		if out, err := build.CombinedOutput(); err != nil {
			t.Errorf("go build %s: %v\n%s", pkg[1], err, out)
		}
	}
}

// copyTo copies a file into a folder, or a folder to a path, as COPY does.
func copyTo(t *testing.T, from, to string) {
	t.Helper()
	info, err := os.Stat(from)
	if err == nil && info.IsDir() {
		err = os.CopyFS(to, os.DirFS(from))
	} else if err == nil {
		err = os.WriteFile(filepath.Join(to, filepath.Base(from)), []byte(read(t, from)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
