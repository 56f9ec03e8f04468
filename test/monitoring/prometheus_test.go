// SPDX-License-Identifier: Apache-2.0

package monitoring_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// prometheus is a Prometheus server that scrapes the operator, with the alerts that are shipped.
type prometheus struct{ api string }

// startPrometheus starts one with what the Prometheus operator makes of the ServiceMonitor.
func startPrometheus(ctx context.Context) *prometheus {
	GinkgoHelper()
	dir := GinkgoT().TempDir()
	address := "127.0.0.1:" + freePort()
	config, err := yaml.Marshal(map[string]any{
		"global":     map[string]any{"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
		"rule_files": []string{keep(dir, "rules.yaml", plainRules(GinkgoTB()))},
		"scrape_configs": []any{
			scrapeConfig(ctx, keep(dir, "token", metricsToken)),
			map[string]any{
				"job_name":       "kube-state-metrics",
				"honor_labels":   true, //nolint:misspell // Prometheus writes it so
				"static_configs": []any{map[string]any{"targets": []string{hostOf(stateURL)}}},
			},
		},
	})
	Expect(err).NotTo(HaveOccurred())
	prometheusServer.serve("--config.file="+keep(dir, "prometheus.yaml", string(config)), "--storage.tsdb.path="+dir, "--web.listen-address="+address)
	p := &prometheus{api: "http://" + address + "/api/v1"}
	Eventually(ctx, func() error { return p.get("/status/runtimeinfo", nil, nil) }).Should(Succeed())
	return p
}

// scrapeConfig is what the Prometheus operator makes of the ServiceMonitor and the Service that it
// selects, but for how the target is found.
func scrapeConfig(ctx context.Context, tokenFile string) map[string]any {
	GinkgoHelper()
	monitor, service := shipped(ctx, "config/prometheus", "ServiceMonitor"), shipped(ctx, "config/default", "Service")
	selector, _, err := unstructured.NestedStringMap(monitor.Object, "spec", "selector", "matchLabels")
	Expect(err).NotTo(HaveOccurred())
	for key, value := range selector {
		Expect(service.GetLabels()).To(HaveKeyWithValue(key, value))
	}
	Expect(service.GetNamespace()).To(Equal(monitor.GetNamespace()))
	endpoints, _, err := unstructured.NestedSlice(monitor.Object, "spec", "endpoints")
	Expect(err).NotTo(HaveOccurred())
	Expect(endpoints).To(HaveLen(1))
	endpoint := endpoints[0].(map[string]any)
	ports, _, err := unstructured.NestedSlice(service.Object, "spec", "ports")
	Expect(err).NotTo(HaveOccurred())
	Expect(ports).To(ContainElement(HaveKeyWithValue("name", endpoint["port"])))
	Expect(endpoint).To(HaveKey("bearerTokenFile"))
	return map[string]any{
		"job_name":      service.GetName(),
		"scheme":        endpoint["scheme"],
		"metrics_path":  endpoint["path"],
		"honor_labels":  endpoint["honorLabels"], //nolint:misspell // Prometheus writes it so
		"tls_config":    map[string]any{"insecure_skip_verify": endpoint["tlsConfig"].(map[string]any)["insecureSkipVerify"]},
		"authorization": map[string]any{"credentials_file": tokenFile},
		"static_configs": []any{map[string]any{
			"targets": []string{hostOf(metricsURL)},
			"labels": map[string]any{
				"namespace": service.GetNamespace(), "service": service.GetName(), "endpoint": endpoint["port"],
				"pod": "rpi-connect-controller-manager-0", "container": "manager",
			},
		}},
	}
}

func hostOf(address string) string {
	GinkgoHelper()
	parsed, err := url.Parse(address)
	Expect(err).NotTo(HaveOccurred())
	return parsed.Host
}

// get asks the HTTP API, and takes the data out of the answer.
func (p *prometheus) get(path string, query url.Values, data any) error {
	answer := struct{ Data any }{data}
	return p.ask(path, query, &answer)
}

// ask asks the HTTP API.
func (p *prometheus) ask(path string, query url.Values, answer any) error {
	res, err := http.Get(p.api + path + "?" + query.Encode())
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	var verdict struct{ Status, Error string }
	if err := json.Unmarshal(body, &verdict); err != nil {
		return fmt.Errorf("%s?%s: %s: %w", path, query.Encode(), res.Status, err)
	}
	if verdict.Status != "success" {
		return fmt.Errorf("%s?%s: %s", path, query.Encode(), verdict.Error)
	}
	return json.Unmarshal(body, answer)
}

// series are the labels of those that match a selector.
func (p *prometheus) series(selector string) (found []map[string]string) {
	GinkgoHelper()
	Expect(p.get("/series", url.Values{"match[]": {selector}}, &found)).To(Succeed())
	return found
}

// sample is one of the results of a query.
type sample struct {
	Metric map[string]string `json:"metric"`
	Value  [2]any            `json:"value"` // the time, and the value as text
}

// query evaluates an expression now.
func (p *prometheus) query(expr string) ([]sample, error) {
	var vector struct{ Result []sample }
	err := p.get("/query", url.Values{"query": {expr}}, &vector)
	return vector.Result, err
}

// selector is one of an expression, with every label that it has to have: those that it is selected by,
// and those that what is around it groups or joins by.
type selector struct {
	text   string
	labels []string
}

// selectors are those of an expression, as Prometheus parses it.
func (p *prometheus) selectors(expr string) (found []selector) {
	GinkgoHelper()
	var tree map[string]any
	Expect(p.get("/parse_query", url.Values{"query": {expr}}, &tree)).To(Succeed(), expr)
	collect(tree, nil, &found)
	return found
}

// collect walks over the syntax tree, whose nodes are objects with a type.
func collect(node map[string]any, labels []string, found *[]selector) {
	if matching, ok := node["matching"].(map[string]any); ok && matching["on"] == true {
		labels = append(labels, words(matching["labels"])...)
	}
	if node["type"] == "aggregation" {
		labels = words(node["grouping"]) // whatever is further outside can only ask for fewer
	}
	if matchers, ok := node["matchers"].([]any); ok {
		one := selector{text: "{", labels: labels}
		for _, m := range matchers {
			matcher := m.(map[string]any)
			one.text += fmt.Sprintf("%s%s%q,", matcher["name"], matcher["type"], matcher["value"])
			if matcher["name"] != "__name__" {
				one.labels = append(one.labels, matcher["name"].(string))
			}
		}
		one.text += "}"
		*found = append(*found, one)
		return
	}
	for _, inner := range []string{"expr", "lhs", "rhs"} {
		if child, ok := node[inner].(map[string]any); ok {
			collect(child, labels, found)
		}
	}
	if arguments, ok := node["args"].([]any); ok {
		for _, argument := range arguments {
			collect(argument.(map[string]any), labels, found)
		}
	}
}

func words(list any) (all []string) {
	entries, _ := list.([]any)
	for _, entry := range entries {
		all = append(all, entry.(string))
	}
	return all
}
