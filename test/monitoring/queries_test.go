// SPDX-License-Identifier: Apache-2.0

package monitoring_test

import (
	"context"
	"net/url"
	"regexp"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("What is shipped for Prometheus and Grafana", func() {
	DescribeTableSubtree("asks for series that there are:", func(expressions func() []rule) {
		It("every metric, with every label", func(ctx context.Context) {
			for _, r := range expressions() {
				for _, selector := range server.selectors(r.Expr) {
					Eventually(ctx, func() []map[string]string { return server.series(selector.text) }).
						ShouldNot(BeEmpty(), "%s: %s", r.Alert, selector.text)
					for _, series := range server.series(selector.text) {
						for _, label := range selector.labels {
							Expect(series).To(HaveKey(label), "%s: %s", r.Alert, selector.text)
						}
					}
				}
			}
		})
	},
		Entry("the alerts", func() []rule { return rules(GinkgoTB()) }),
		Entry("the dashboard", func() []rule { return panels(GinkgoTB()) }),
	)

	It("the dashboard shows something in every panel, with the labels that its legend names", func(ctx context.Context) {
		for _, panel := range panels(GinkgoTB()) {
			Eventually(ctx, func(g Gomega) {
				shown, err := server.query(panel.Expr)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(shown).NotTo(BeEmpty())
				for _, one := range shown {
					g.Expect(one.Value[1]).NotTo(Equal("NaN"))
					for _, label := range regexp.MustCompile(`{{(\w+)}}`).FindAllStringSubmatch(panel.Legend, -1) {
						g.Expect(one.Metric).To(HaveKeyWithValue(label[1], Not(BeEmpty())))
					}
				}
			}).Should(Succeed(), "%s: %s", panel.Alert, panel.Expr)
		}
	})

	It("the queries of docs/monitoring.md find something", func(ctx context.Context) {
		blocks := regexp.MustCompile("(?s)```promql\n(.*?)```").FindAllStringSubmatch(read(GinkgoTB(), "docs/monitoring.md"), -1)
		Expect(blocks).To(HaveLen(2))
		for _, block := range blocks {
			Eventually(ctx, func(g Gomega) {
				found, err := server.query(block[1])
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(found).NotTo(BeEmpty())
				for _, one := range found {
					g.Expect(one.Metric).NotTo(BeEmpty())
				}
			}).Should(Succeed(), block[1])
		}
	})

	It("the alerts see what went wrong, and where", func(ctx context.Context) {
		active := func() (found []map[string]string) {
			var data struct {
				Alerts []struct{ Labels map[string]string }
			}
			Expect(server.get("/alerts", nil, &data)).To(Succeed())
			for _, alert := range data.Alerts {
				found = append(found, alert.Labels)
			}
			return found
		}
		about := func(alert string, labels ...string) OmegaMatcher {
			all := []OmegaMatcher{HaveKeyWithValue("alertname", alert)}
			for i := 0; i < len(labels); i += 2 {
				all = append(all, HaveKeyWithValue(labels[i], labels[i+1]))
			}
			return And(all...)
		}
		Eventually(ctx, active).Should(ConsistOf(
			about("RPiConnectAccessTokenRejected"),
			about("RPiConnectRolloutPaused", "namespace", "default", "name", "screens"),
			about("RPiConnectResourceStalled", "kind", "Artefact", "reason", "AccessTokenRejected"),
			about("RPiConnectResourceStalled", "kind", "Artefact", "reason", "Conflict"),
		))
	})

	It("evaluates without a mistake or a warning", func() {
		for _, r := range append(rules(GinkgoTB()), panels(GinkgoTB())...) {
			var annotations struct{ Warnings, Infos []string }
			Expect(server.ask("/query", url.Values{"query": {r.Expr}}, &annotations)).To(Succeed())
			Expect(annotations.Warnings).To(BeEmpty(), r.Expr)
			Expect(annotations.Infos).To(BeEmpty(), r.Expr)
		}
	})
})
