// SPDX-License-Identifier: Apache-2.0

// Package ko_test builds the images as make images does, onto a registry of its own.
package ko_test

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

const (
	version = "v0.0.0-test"
	user    = "65532:65532" // that of the real base
)

// machines are the processors of the platforms that the images are for.
var machines = map[string]elf.Machine{
	"linux/amd64":  elf.EM_X86_64,
	"linux/arm64":  elf.EM_AARCH64,
	"linux/arm/v7": elf.EM_ARM,
}

func TestImages(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	pushBase(t, host+"/base:nonroot")

	for _, image := range []struct{ target, variable, program, says, madeOf string }{
		{"image", "IMG", "operator", version, "github.com/go-logr/logr"},
		{"simulator-image", "SIMULATOR_IMG", "connectsim", "rporg_", "rpi-connect.dev/operator"},
	} {
		t.Run(image.target, func(t *testing.T) {
			built := build(t, host, image.target, image.variable+"="+host+"/first/"+image.program+":"+version)
			again := build(t, host, image.target, image.variable+"="+host+"/second/"+image.program+":"+version)
			if digest(built) != digest(again) {
				t.Errorf("the same source became %s, and then %s", built, again)
			}
			index, err := remote.Index(reference(t, host+"/first/"+image.program+":"+version))
			if err != nil {
				t.Fatal(err)
			}
			if tagged, err := index.Digest(); err != nil || tagged.String() != digest(built) {
				t.Errorf("the tag is of %s, and %s was printed (%v)", tagged, built, err)
			}
			manifest, err := index.IndexManifest()
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range manifest.Manifests {
				inspect(t, index, m, image.program, image.says)
				sbom(t, host+"/first/"+image.program, m, image.madeOf)
			}
			if len(manifest.Manifests) != len(machines) {
				t.Errorf("there are %d images for %d platforms", len(manifest.Manifests), len(machines))
			}
		})
	}
}

func TestAnImageNeedsATag(t *testing.T) {
	command := exec.CommandContext(t.Context(), "make", "--no-print-directory", "image", "IMG=registry.example.com:5000/operator")
	command.Dir = "../.."
	if out, err := command.CombinedOutput(); err == nil || !strings.Contains(string(out), "has no tag") {
		t.Errorf("make image says %q (%v)", out, err)
	}
}

// inspect looks at the image of one platform: who runs what, and whether that is a program for it.
func inspect(t *testing.T, index v1.ImageIndex, of v1.Descriptor, program, says string) {
	t.Helper()
	image, err := index.Image(of.Digest)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != user {
		t.Errorf("%s runs as %q, not as the user of the base", of.Platform, config.Config.User)
	}
	file := "/ko-app/" + program
	if !slices.Equal(config.Config.Entrypoint, []string{file}) {
		t.Errorf("%s begins with %q", of.Platform, config.Config.Entrypoint)
	}
	binary := extract(t, image, file)
	executable, err := elf.NewFile(bytes.NewReader(binary))
	if err != nil {
		t.Fatal(err)
	}
	if want, ok := machines[of.Platform.String()]; !ok || executable.Machine != want {
		t.Errorf("the program for %s is for %s", of.Platform, executable.Machine)
	}
	if !bytes.Contains(binary, []byte(says)) {
		t.Errorf("the program for %s has no %q in it", of.Platform, says)
	}
	if of.Platform.OS == runtime.GOOS && of.Platform.Architecture == runtime.GOARCH {
		run(t, binary)
	}
}

// run starts the program of this machine's platform.
func run(t *testing.T, binary []byte) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(file, binary, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), file, "--help").CombinedOutput(); err != nil || !bytes.Contains(out, []byte("Usage")) {
		t.Errorf("the program says %q (%v)", out, err)
	}
}

// sbom reads what the image of one platform says that it is made of.
func sbom(t *testing.T, repository string, of v1.Descriptor, madeOf string) {
	t.Helper()
	attached, err := remote.Image(reference(t, repository+":"+strings.Replace(of.Digest.String(), ":", "-", 1)+".sbom"))
	if err != nil {
		t.Fatalf("%s has no SBOM: %v", of.Platform, err)
	}
	layers, err := attached.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("the SBOM of %s has %d layers (%v)", of.Platform, len(layers), err)
	}
	text, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = text.Close() }()
	var document struct {
		SPDXVersion string `json:"spdxVersion"`
		Packages    []struct{ Name string }
	}
	if err := json.NewDecoder(text).Decode(&document); err != nil {
		t.Fatal(err)
	}
	var packages []string
	for _, p := range document.Packages {
		packages = append(packages, p.Name)
	}
	if !strings.HasPrefix(document.SPDXVersion, "SPDX-") || !slices.Contains(packages, madeOf) {
		t.Errorf("the SBOM of %s is %s and has %q", of.Platform, document.SPDXVersion, packages)
	}
}

// extract returns a file of an image.
func extract(t *testing.T, image v1.Image, file string) []byte {
	t.Helper()
	files := mutate.Extract(image)
	defer func() { _ = files.Close() }()
	for archive := tar.NewReader(files); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			t.Fatalf("there is no %s", file)
		}
		if err != nil {
			t.Fatal(err)
		}
		if path.Join("/", header.Name) == file {
			content, err := io.ReadAll(archive)
			if err != nil {
				t.Fatal(err)
			}
			return content
		}
	}
}

// build makes an image on the base of the test and returns what is printed: its name, with its digest.
func build(t *testing.T, host, target, image string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "make", "--no-print-directory", target, image, "VERSION="+version)
	command.Dir = "../.."
	command.Env = append(os.Environ(), "KO_DEFAULTBASEIMAGE="+host+"/base:nonroot")
	var stderr strings.Builder
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("make %s: %v\n%s", target, err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// pushBase makes a base that has nothing but a user.
func pushBase(t *testing.T, to string) {
	t.Helper()
	var index v1.ImageIndex = empty.Index
	for p := range machines {
		platform, err := v1.ParsePlatform(p)
		if err != nil {
			t.Fatal(err)
		}
		image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
			OS: platform.OS, Architecture: platform.Architecture, Variant: platform.Variant,
			Config: v1.Config{User: user},
		})
		if err != nil {
			t.Fatal(err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: platform}})
	}
	if err := remote.WriteIndex(reference(t, to), index); err != nil {
		t.Fatal(err)
	}
}

func reference(t *testing.T, text string) name.Reference {
	t.Helper()
	ref, err := name.ParseReference(text)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// digest is what an image is pinned by.
func digest(image string) string {
	_, after, _ := strings.Cut(image, "@")
	return after
}
