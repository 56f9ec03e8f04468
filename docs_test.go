// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
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

// written are the pages of the documentation that a person has written.
func written(t *testing.T) []string {
	t.Helper()
	pages := []string{"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "RELEASING.md"}
	for _, pattern := range []string{"docs/*.md", "docs/adr/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	return slices.DeleteFunc(pages, func(page string) bool { return page == "docs/api.md" })
}

// Links between pages lead somewhere, and files that are named exist.
func TestTheDocsNameWhatThereIs(t *testing.T) {
	for _, page := range written(t) {
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

// Targets of make that the docs name exist, and so do Go's tests.
func TestTheDocsNameTargetsAndTestsThatThereAre(t *testing.T) {
	var tests strings.Builder
	err := fs.WalkDir(os.DirFS("."), ".", func(file string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(file, "_test.go") {
			tests.WriteString(read(t, file))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	makefile := read(t, "Makefile")
	for _, page := range written(t) {
		text := read(t, page)
		// At the beginning of code, in a line or in a block.
		for _, target := range regexp.MustCompile("(?:`|```[a-z]*\n)make ([a-z][a-z0-9-]*)").FindAllStringSubmatch(text, -1) {
			if !strings.Contains(makefile, "\n"+target[1]+":") {
				t.Errorf("%s: there is no make %s", page, target[1])
			}
		}
		for _, test := range regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w+`).FindAllString(text, -1) {
			if !strings.Contains(tests.String(), "\nfunc "+test) {
				t.Errorf("%s: there is no %s", page, test)
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

// kinds are the CRDs of the operator's kinds.
func kinds(t *testing.T) []apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	files, err := filepath.Glob("config/crd/bases/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("there are no CRDs", err)
	}
	crds := make([]apiextensionsv1.CustomResourceDefinition, len(files))
	for i, file := range files {
		if err := yaml.Unmarshal([]byte(read(t, file)), &crds[i]); err != nil {
			t.Fatal(err)
		}
	}
	return crds
}

// A kind is everywhere where a person looks for it.
func TestEveryKindIsKnownEverywhere(t *testing.T) {
	samples := ""
	for _, file := range regexp.MustCompile(`(?m)^- (\S+\.yaml)$`).FindAllStringSubmatch(read(t, "config/samples/kustomization.yaml"), -1) {
		samples += read(t, filepath.Join("config/samples", file[1])) + "\n"
	}
	for _, crd := range kinds(t) {
		kind, page := crd.Spec.Names.Kind, crd.Spec.Names.Plural+".md"
		for where, found := range map[string]bool{
			"the table of kinds in README.md":                                            strings.Contains(read(t, "README.md"), "\n| `"+kind+"` |"),
			"the list of kinds in docs/README.md, with its page":                         strings.Contains(read(t, "docs/README.md"), "["+kind+"]("+page+")"),
			"the packages of docs/architecture.md":                                       regexp.MustCompile(`(?m)^internal/controller/.*\b` + strings.ToLower(kind) + `/`).MatchString(read(t, "docs/architecture.md")),
			"the CRDs that charts/rpi-connect-operator/Chart.yaml tells Artifact Hub of": strings.Contains(read(t, "charts/rpi-connect-operator/Chart.yaml"), "- {kind: "+kind+","), //nolint:misspell // its name
			"config/kube-state-metrics/custom-resource-state.yaml":                       strings.Contains(read(t, "config/kube-state-metrics/custom-resource-state.yaml"), "kind: "+kind+"}\n"),
			"PROJECT": strings.Contains(read(t, "PROJECT"), "\n  kind: "+kind+"\n"),
			"a file that config/samples/kustomization.yaml names": strings.Contains(samples, "\nkind: "+kind+"\n"),
		} {
			if !found {
				t.Errorf("%s is not in %s: add it there", kind, where)
			}
		}
	}
}

// A field whose name ends in Ref names another resource, and kustomize has to be told.
func TestKustomizeFollowsEveryReference(t *testing.T) {
	var config struct {
		NameReference []struct {
			FieldSpecs []struct{ Path, Kind string }
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, "config/kustomizeconfig.yaml")), &config); err != nil {
		t.Fatal(err)
	}
	followed := map[string]bool{}
	for _, reference := range config.NameReference {
		for _, field := range reference.FieldSpecs {
			followed[field.Kind+" "+field.Path] = true
		}
	}
	for _, crd := range kinds(t) {
		kind := crd.Spec.Names.Kind
		for _, path := range references(crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"], "spec") {
			if !followed[kind+" "+path] && !followed[" "+path] { // of this kind, or of each
				t.Errorf("kustomize does not follow %s of a %s: add it to config/kustomizeconfig.yaml", path, kind)
			}
		}
	}
}

// references are the paths of the names that fields refer to.
func references(schema apiextensionsv1.JSONSchemaProps, at string) (paths []string) {
	for field, of := range schema.Properties {
		path := at + "/" + field
		if strings.HasSuffix(field, "Ref") {
			paths = append(paths, path+"/name")
		}
		if of.Items != nil && of.Items.Schema != nil {
			of = *of.Items.Schema
		}
		paths = append(paths, references(of, path)...)
	}
	return paths
}

// status.id says which remote object a resource has, so users edit every kind and no status.
func TestEditorsWriteEveryKindAndNoStatus(t *testing.T) {
	var role rbacv1.ClusterRole
	if err := yaml.UnmarshalStrict([]byte(read(t, "config/rbac/connect_editor_role.yaml")), &role); err != nil {
		t.Fatal(err)
	}
	var plurals, granted []string
	for _, crd := range kinds(t) {
		plurals = append(plurals, crd.Spec.Names.Plural)
	}
	for _, rule := range role.Rules {
		granted = append(granted, rule.Resources...)
	}
	slices.Sort(granted)
	if !slices.Equal(granted, plurals) {
		t.Errorf("editors may write %q; the kinds are %q: name these in config/rbac/connect_editor_role.yaml", granted, plurals)
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

// The page of a kind tells of every field of its spec and its status, and of its reasons.
func TestEveryFieldIsOnThePageOfItsKind(t *testing.T) {
	for _, crd := range kinds(t) {
		page := "docs/" + crd.Spec.Names.Plural + ".md"
		text := read(t, page)
		for _, part := range []string{"spec", "status"} {
			for field := range crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties[part].Properties {
				if !regexp.MustCompile(`\b` + field + `\b`).MatchString(text) {
					t.Errorf("%s does not tell of %s.%s", page, part, field)
				}
			}
		}
		types := read(t, "api/v1alpha1/"+crd.Spec.Names.Singular+"_types.go")
		for _, reason := range regexp.MustCompile(`\bReason\w+ += "(\w+)"`).FindAllStringSubmatch(types, -1) {
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
