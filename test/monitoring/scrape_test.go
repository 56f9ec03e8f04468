// SPDX-License-Identifier: Apache-2.0

package monitoring_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// get reads metrics as they are served, with the operator's own certificate.
func get(ctx context.Context, url, token string) (string, error) {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s", url, res.Status)
	}
	return string(text), err
}

// isSample tells whether a line is a sample of the metric with the value, and with the labels, given in
// pairs; an empty value is any.
func isSample(line, name, value string, labels ...string) bool {
	series, is, _ := strings.Cut(strings.TrimSpace(line), " ")
	if at := strings.LastIndex(line, "} "); at >= 0 { // there are spaces in some labels
		series, is = line[:at+1], strings.TrimSpace(line[at+2:])
	}
	if series != name && !strings.HasPrefix(series, name+"{") || value != "" && is != value {
		return false
	}
	for i := 0; i < len(labels); i += 2 {
		label := fmt.Sprintf("%s=%q", labels[i], labels[i+1])
		if !strings.Contains(series, "{"+label) && !strings.Contains(series, ","+label) {
			return false
		}
	}
	return true
}

var _ = Describe("The operator's metrics", func() {
	It("are named as Prometheus recommends", func(ctx context.Context) {
		text, err := get(ctx, metricsURL, metricsToken)
		Expect(err).NotTo(HaveOccurred())
		own := ""
		for line := range strings.Lines(text) {
			if strings.HasPrefix(strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE "), "rpi_connect_") {
				own += line
			}
		}
		Expect(own).NotTo(BeEmpty())
		Expect(promtool.run(strings.NewReader(own), "check", "metrics")).To(Succeed())
	})

	It("are all described, and look like in docs/monitoring.md", func(ctx context.Context) {
		text, err := get(ctx, metricsURL, metricsToken)
		Expect(err).NotTo(HaveOccurred())
		monitoring, budget := read(GinkgoTB(), "docs/monitoring.md"), read(GinkgoTB(), "docs/budget.md")
		named := strings.NewReplacer("`, `_remaining`, `_reset_timestamp_seconds{", " rpi_connect_budget_remaining rpi_connect_budget_reset_timestamp_seconds{").Replace(monitoring + budget)
		for _, family := range regexp.MustCompile(`(?m)^# TYPE (rpi_connect_\w+) `).FindAllStringSubmatch(text, -1) {
			Expect(named).To(MatchRegexp(`\b`+family[1]+`\b`), "docs/monitoring.md and docs/budget.md")
		}

		_, example, _ := strings.Cut(monitoring, "### What it looks like")
		_, example, _ = strings.Cut(example, "```text\n")
		example, _, _ = strings.Cut(example, "```")
		served := slices.Collect(strings.Lines(anyToken(text)))
		for line := range strings.Lines(anyToken(example)) {
			if counts.MatchString(line) { // how many depends on how long it took
				line = counts.FindString(line)
			}
			Expect(served).To(ContainElement(HavePrefix(line)))
		}
	})
})

// counts are the series of what is counted while time goes by.
var counts = regexp.MustCompile(`^rpi_connect_(?:budget_remaining|\w+_total)\{.*\} `)

// anyToken takes out what is of one token only.
func anyToken(text string) string {
	return regexp.MustCompile(`token="[0-9a-f]{8}"`).ReplaceAllString(text, `token="…"`)
}
