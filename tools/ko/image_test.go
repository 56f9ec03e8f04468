// SPDX-License-Identifier: Apache-2.0

package ko_test

import (
	"io"
	"log"
	"net/http/httptest"
	"os/exec"
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

var platforms = []string{"linux/amd64", "linux/arm/v7", "linux/arm64"}

// The image is built on a base for every platform and pushed, both in a registry on this machine.
func TestTheImageIsForEveryPi(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	pushBase(t, host+"/base:nonroot")

	first := build(t, host, "first")
	if _, again, _ := strings.Cut(build(t, host, "second"), "@"); again != digest(first) {
		t.Errorf("the same source became %s, and then %s", digest(first), again)
	}

	index, err := remote.Index(reference(t, first))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var built []string
	for _, m := range manifest.Manifests {
		built = append(built, m.Platform.String())
		image, err := index.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if config.Config.User != "65532:65532" {
			t.Errorf("%s runs as %q, not as the base's user", m.Platform, config.Config.User)
		}
		if !slices.Equal(config.Config.Entrypoint, []string{"/ko-app/operator"}) {
			t.Errorf("%s begins with %q", m.Platform, config.Config.Entrypoint)
		}
		sbom := reference(t, host+"/first:"+strings.Replace(m.Digest.String(), ":", "-", 1)+".sbom")
		if _, err := remote.Image(sbom); err != nil {
			t.Errorf("%s has no SBOM: %v", m.Platform, err)
		}
	}
	slices.Sort(built)
	if !slices.Equal(built, platforms) {
		t.Errorf("the image is for %q, not for %q", built, platforms)
	}
}

// build pushes the image to a repository of the registry and returns its name, with its digest.
func build(t *testing.T, host, repository string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "make", "--no-print-directory", "--silent", "ko-build",
		"IMG="+host+"/"+repository+":v0.0.0-test", "VERSION=v0.0.0-test")
	command.Dir = "../.."
	command.Env = append(command.Environ(), "KO_DEFAULTBASEIMAGE="+host+"/base:nonroot")
	var stderr strings.Builder
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("make ko-build: %v\n%s", err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

func pushBase(t *testing.T, to string) {
	t.Helper()
	var index v1.ImageIndex = empty.Index
	for _, p := range platforms {
		platform, err := v1.ParsePlatform(p)
		if err != nil {
			t.Fatal(err)
		}
		image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
			OS: platform.OS, Architecture: platform.Architecture, Variant: platform.Variant,
			Config: v1.Config{User: "65532:65532"},
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

func digest(image string) string {
	_, after, _ := strings.Cut(image, "@")
	return after
}
