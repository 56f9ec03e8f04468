// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// A run takes long. What became of each change is kept in the user's cache folder, so that a run that
// was interrupted goes on, and the next one tries what has changed since.
const (
	kept   = "MUTATION_KEPT"   // where outcomes are
	beside = "MUTATION_BESIDE" // a hash of what they depend on besides the change
)

// remembered is the outcome of a change that was tried before, and nothing has changed since; of any
// other it is tried now. Tests run in the folder of the package, in which the change has been made.
func remembered(try func() int) int {
	change, err := hashOf(os.Getenv(beside), ".")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return try()
	}
	file := filepath.Join(os.Getenv(kept), change)
	if text, err := os.ReadFile(file); err == nil {
		if code, err := strconv.Atoi(string(text)); err == nil {
			return code
		}
	}
	code := try()
	if code < 0 { // it was killed
		return code
	}
	if err := os.WriteFile(file, []byte(strconv.Itoa(code)), 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return code
}

// memory is the environment that tells the go command where outcomes are kept, and what they depend on
// besides the change.
func memory(dir string) ([]string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	outcomes := filepath.Join(cache, "rpi-connect-operator", "mutation")
	if err := os.MkdirAll(outcomes, 0o755); err != nil {
		return nil, err
	}
	unchanged, err := fingerprint(dir)
	return []string{kept + "=" + outcomes, beside + "=" + unchanged}, err
}

// fingerprint is of everything that the tests of a package depend on.
func fingerprint(dir string) (string, error) {
	list := exec.Command("go", "list", "-deps", "-test", "-f", "{{if and .Module .Module.Main}}{{.Dir}}{{end}}", "./"+dir)
	folders, err := list.Output()
	if err != nil {
		return "", fmt.Errorf("list what %s depends on: %w", dir, err)
	}
	used := slices.Compact(slices.Sorted(strings.FieldsSeq(string(folders))))
	return hashOf(runtime.Version(), append(used, "go.mod", "go.sum")...)
}

// hashOf is a hash of a text, files, and what is in folders, and in the folders of test data in these.
func hashOf(text string, paths ...string) (string, error) {
	hash := sha256.New()
	_, _ = fmt.Fprintln(hash, text) // a hash takes everything
	for _, path := range paths {
		err := filepath.WalkDir(path, func(file string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case entry.IsDir() && file != path && !strings.HasPrefix(file, filepath.Join(path, "testdata")):
				return fs.SkipDir
			case entry.IsDir():
				return nil
			}
			content, err := os.ReadFile(file)
			_, _ = fmt.Fprintf(hash, "%s %d\n%s", file, len(content), content)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
