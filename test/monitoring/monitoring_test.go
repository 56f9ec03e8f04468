// SPDX-License-Identifier: Apache-2.0

// Package monitoring_test tries what is shipped for Prometheus and Grafana with the real ones.
package monitoring_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"rpi-connect.dev/operator/test/cluster"
)

const root = "../../"

type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for"`
	Annotations map[string]string `json:"annotations"`
	Legend      string            `json:"legendFormat"`
}

func read(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func rules(t testing.TB) (all []rule) {
	t.Helper()
	var file struct {
		Spec struct {
			Groups []struct {
				Rules []rule `json:"rules"`
			} `json:"groups"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "config/prometheus/prometheus_rule.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	for _, group := range file.Spec.Groups {
		all = append(all, group.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("there is no rule")
	}
	return all
}

// panels are those of the dashboard, as if they were rules.
func panels(t testing.TB) (all []rule) {
	t.Helper()
	var dashboard struct {
		Panels []struct {
			Title   string `json:"title"`
			Targets []rule `json:"targets"`
		} `json:"panels"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "config/grafana/rpi-connect-operator.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			target.Alert = panel.Title
			all = append(all, target)
		}
	}
	if len(all) == 0 {
		t.Fatal("the dashboard asks for nothing")
	}
	return all
}

// Grafana moves panels that overlap, and takes two with one id for one.
func TestPanelsHavePlacesOfTheirOwn(t *testing.T) {
	var dashboard struct {
		Panels []struct {
			ID      int
			Title   string
			GridPos struct{ X, Y, W, H int }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "config/grafana/rpi-connect-operator.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	type cell struct{ x, y int }
	ids, taken := map[int]string{}, map[cell]string{}
	for _, panel := range dashboard.Panels {
		if other, ok := ids[panel.ID]; ok || panel.ID == 0 || panel.Title == "" {
			t.Errorf("the id %d of %q is that of %q", panel.ID, panel.Title, other)
		}
		ids[panel.ID] = panel.Title
		at := panel.GridPos
		if at.W <= 0 || at.H <= 0 || at.X+at.W > 24 {
			t.Errorf("%q does not fit in: %+v", panel.Title, at)
		}
		for x := at.X; x < at.X+at.W; x++ {
			for y := at.Y; y < at.Y+at.H; y++ {
				if other, ok := taken[cell{x, y}]; ok {
					t.Fatalf("%q lies over %q", panel.Title, other)
				}
				taken[cell{x, y}] = panel.Title
			}
		}
	}
}

// Where docs/troubleshooting.md is served, unless somebody says otherwise.
const runbooks = "https://rpi-connect.dev/docs/troubleshooting.md"

func TestEveryAlertHasARunbook(t *testing.T) {
	headings := map[string]bool{}
	for _, heading := range regexp.MustCompile(`(?m)^### (\w+)$`).FindAllStringSubmatch(read(t, "docs/troubleshooting.md"), -1) {
		headings[strings.ToLower(heading[1])] = true
	}
	for _, r := range rules(t) {
		page, anchor, _ := strings.Cut(r.Annotations["runbook_url"], "#")
		if page != runbooks || anchor != strings.ToLower(r.Alert) || !headings[anchor] {
			t.Errorf("%s: docs/troubleshooting.md has nothing at %q", r.Alert, r.Annotations["runbook_url"])
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" || r.For == "" {
			t.Errorf("%s lacks a summary, a description, or how long it has to last", r.Alert)
		}
	}
}

// The overlay of docs/monitoring.md leads the alerts to another copy of the page.
func TestRunbooksCanBeServedElsewhere(t *testing.T) {
	_, overlay, _ := strings.Cut(read(t, "docs/monitoring.md"), "```yaml\n# kustomization.yaml\n")
	overlay, _, _ = strings.Cut(overlay, "```")
	dir, err := os.MkdirTemp(root+"test/monitoring", "overlay-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	base := "github.com/<the repository>/config/prometheus"
	if !strings.Contains(overlay, base) {
		t.Fatalf("the overlay has no %s:\n%s", base, overlay)
	}
	write(t, filepath.Join(dir, "kustomization.yaml"), strings.Replace(overlay, base, "../../../config/prometheus", 1))
	objects, err := cluster.Build(t.Context(), filepath.Join("test/monitoring", filepath.Base(dir)))
	if err != nil {
		t.Fatal(err)
	}
	for _, obj := range objects {
		text, err := yaml.Marshal(obj.Object)
		if err != nil {
			t.Fatal(err)
		}
		if obj.GetKind() == "PrometheusRule" && (strings.Contains(string(text), runbooks) ||
			strings.Count(string(text), "runbook_url: https://docs.example.com/pis#rpiconnect") != len(rules(t))) {
			t.Errorf("not every alert leads to the other copy:\n%s", text)
		}
	}
}
