// SPDX-License-Identifier: Apache-2.0

package monitoring_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"sigs.k8s.io/yaml"
)

// Prometheus' own tool runs the tests that are beside the alerts, in its own format.
func TestAlertsFireWhenTheyShouldAndOnlyThen(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "prometheus_rule.yaml"), plainRules(t))
	write(t, filepath.Join(dir, "prometheus_rule_test.yaml"), read(t, "config/prometheus/prometheus_rule_test.yaml"))
	path := promtool.path(t)
	for _, args := range [][]string{
		{"check", "rules", "--lint=all", "--lint-fatal", "prometheus_rule.yaml"},
		{"test", "rules", "prometheus_rule_test.yaml"},
	} {
		command := exec.CommandContext(t.Context(), path, args...)
		command.Dir = dir
		if out, err := command.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

func TestEveryAlertIsTested(t *testing.T) {
	var file struct {
		Tests []struct {
			Alerts []struct {
				Name   string `json:"alertname"`
				Firing []any  `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		} `json:"tests"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "config/prometheus/prometheus_rule_test.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, test := range file.Tests {
		for _, alert := range test.Alerts {
			if len(alert.Firing) > 0 {
				fires[alert.Name] = true
			} else {
				silent[alert.Name] = true
			}
		}
	}
	for _, r := range rules(t) {
		if !fires[r.Alert] || !silent[r.Alert] {
			t.Errorf("%s is not tested to fire, and not to: %t, %t", r.Alert, fires[r.Alert], silent[r.Alert])
		}
	}
}

// plainRules are the rules as Prometheus itself reads them, without the Prometheus operator.
func plainRules(t testing.TB) string {
	t.Helper()
	var file struct {
		Spec map[string]any `json:"spec"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "config/prometheus/prometheus_rule.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	plain, err := yaml.Marshal(file.Spec)
	if err != nil {
		t.Fatal(err)
	}
	return string(plain)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
