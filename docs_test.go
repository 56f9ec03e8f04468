// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// What is written about the program is compared with the program.

func TestThePageHasEveryFlagWithItsDefault(t *testing.T) {
	written := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `--([a-z-]+)` \\| ([^|]*) \\|").FindAllStringSubmatch(read(t, "docs/configuration.md"), -1) {
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
		case strings.HasPrefix(f.Name, "zap-"): // zap's own, which the page names as a group
		case !there:
			t.Errorf("docs/configuration.md has no --%s", f.Name)
		case !sameDefault(got, f.DefValue):
			t.Errorf("docs/configuration.md says that --%s is %s by default, but it is %q", f.Name, got, f.DefValue)
		}
	})
	for name := range written {
		t.Errorf("docs/configuration.md has --%s, but there is no such flag", name)
	}
}

// sameDefault tells whether the page's word for a default is right.
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

// Links between pages lead somewhere, and files that are named exist.
func TestTheDocsNameWhatThereIs(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = slices.DeleteFunc(pages, func(page string) bool { return page == "docs/api.md" }) // it is generated
	decisions, err := filepath.Glob("docs/adr/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(pages, decisions...)
	for _, page := range append(pages, "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "RELEASING.md") {
		text := read(t, page)
		for _, link := range regexp.MustCompile(`\]\(([^)#:\s]*)(#[^)\s]*)?\)`).FindAllStringSubmatch(text, -1) {
			to := page
			if link[1] != "" {
				to = filepath.Join(filepath.Dir(page), link[1])
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: the link to %s: %v", page, link[1], err)
			} else if link[2] != "" && !anchors(read(t, to))[link[2]] {
				t.Errorf("%s: %s has no heading for %s", page, to, link[2])
			}
		}
		for _, file := range regexp.MustCompile("`((?:api|cmd|config|docs|hack|internal|test)/[a-zA-Z0-9_./-]+)`").FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(file[1]); err != nil {
				t.Errorf("%s: there is no %s", page, file[1])
			}
		}
	}
}

// anchors are the fragments by which the headings of a page can be linked.
func anchors(page string) map[string]bool {
	found := map[string]bool{}
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		words := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(heading[1]), "")
		found["#"+strings.ReplaceAll(words, " ", "-")] = true
	}
	return found
}

// The tests that docs/security.md names for its threats are there.
func TestEveryThreatHasATest(t *testing.T) {
	_, table, _ := strings.Cut(read(t, "docs/security.md"), "## Threats")
	table, _, _ = strings.Cut(table, "\n## ")
	threats := 0
	for _, row := range regexp.MustCompile(`(?m)^\| .* \| ([^|]*) \|$`).FindAllStringSubmatch(table, -1) {
		if row[1] == "test" || row[1] == "---" {
			continue
		}
		threats++
		for named := range strings.SplitSeq(row[1], "; ") {
			test := regexp.MustCompile("^`([^`]+)`: (.+)$").FindStringSubmatch(named)
			if test == nil {
				t.Errorf("%q names no test: write `file`: words that it has", named)
			} else if !strings.Contains(read(t, test[1]), test[2]) {
				t.Errorf("%s has no test %q", test[1], test[2])
			}
		}
	}
	if threats == 0 {
		t.Error("docs/security.md has no table of threats")
	}
}

// A kind that is registered is everywhere where a person looks for it.
func TestEveryKindIsKnownEverywhere(t *testing.T) {
	known := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(known); err != nil {
		t.Fatal(err)
	}
	samples := ""
	for _, file := range regexp.MustCompile(`(?m)^- (\S+\.yaml)$`).FindAllStringSubmatch(read(t, "config/samples/kustomization.yaml"), -1) {
		samples += read(t, filepath.Join("config/samples", file[1])) + "\n"
	}
	kinds := known.KnownTypes(v1alpha1.GroupVersion)
	for kind := range kinds {
		if _, isListed := kinds[kind+"List"]; !isListed {
			continue
		}
		for where, found := range map[string]bool{
			"the table of kinds in README.md": strings.Contains(read(t, "README.md"), "\n| `"+kind+"` |"),
			"PROJECT":                         strings.Contains(read(t, "PROJECT"), "\n  kind: "+kind+"\n"),
			"a file that config/samples/kustomization.yaml names": strings.Contains(samples, "\nkind: "+kind+"\n"),
		} {
			if !found {
				t.Errorf("%s is not in %s: add it there", kind, where)
			}
		}
	}
}

// status.id says which remote object a resource has, so users edit every kind and no status.
func TestEditorsWriteEveryKindAndNoStatus(t *testing.T) {
	var role rbacv1.ClusterRole
	if err := yaml.UnmarshalStrict([]byte(read(t, "config/rbac/connect_editor_role.yaml")), &role); err != nil {
		t.Fatal(err)
	}
	var kinds, granted []string
	crds, err := filepath.Glob("config/crd/bases/rpi-connect.dev_*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, crd := range crds {
		kinds = append(kinds, strings.TrimSuffix(strings.TrimPrefix(filepath.Base(crd), "rpi-connect.dev_"), ".yaml"))
	}
	for _, rule := range role.Rules {
		granted = append(granted, rule.Resources...)
	}
	slices.Sort(granted)
	if !slices.Equal(granted, kinds) {
		t.Errorf("editors may write %q; the kinds are %q: name these in config/rbac/connect_editor_role.yaml", granted, kinds)
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

// pages are the manual of each kind that has one.
var pages = map[string]string{
	"artefacts": "docs/artefacts.md", "authkeys": "docs/authkeys.md", "deployments": "docs/deployments.md",
	"deviceidentities": "docs/deviceidentities.md", "devices": "docs/devices.md", "fleetrollouts": "docs/fleetrollouts.md",
}

// typesFile is where the reasons of a kind are.
var typesFile = map[string]string{
	"artefacts": "artefact_types.go", "authkeys": "authkey_types.go", "deployments": "deployment_types.go",
	"deviceidentities": "deviceidentity_types.go", "devices": "device_types.go", "fleetrollouts": "fleetrollout_types.go",
}

// The page of a kind tells of every field of its spec and its status.
func TestEveryFieldIsOnThePageOfItsKind(t *testing.T) {
	for kind, page := range pages {
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.Unmarshal([]byte(read(t, "config/crd/bases/rpi-connect.dev_"+kind+".yaml")), &crd); err != nil {
			t.Fatal(err)
		}
		text := read(t, page)
		for _, part := range []string{"spec", "status"} {
			for field := range crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties[part].Properties {
				if !regexp.MustCompile(`\b` + field + `\b`).MatchString(text) {
					t.Errorf("%s does not tell of %s.%s", page, part, field)
				}
			}
		}
		for _, reason := range regexp.MustCompile(`\bReason\w+ += "(\w+)"`).FindAllStringSubmatch(read(t, "api/v1alpha1/"+typesFile[kind]), -1) {
			if !strings.Contains(text, "`"+reason[1]+"`") {
				t.Errorf("%s does not tell of the reason %s", page, reason[1])
			}
		}
	}
}

// docs/troubleshooting.md tells of every reason that is no success.
func TestEveryReasonIsInTroubleshooting(t *testing.T) {
	text := read(t, "docs/troubleshooting.md")
	for _, reason := range regexp.MustCompile("(?m)^\\| `([A-Z][A-Za-z]+)` \\|").FindAllStringSubmatch(read(t, "docs/conditions.md"), -1) {
		if !strings.Contains(text, "`"+reason[1]+"`") {
			t.Errorf("docs/troubleshooting.md does not tell of %s", reason[1])
		}
	}
}
