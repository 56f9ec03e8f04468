// SPDX-License-Identifier: Apache-2.0

package metrics_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	registry "sigs.k8s.io/controller-runtime/pkg/metrics"

	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/connectclient/budget"
	"rpi-connect.dev/operator/internal/metrics"
)

// observe tells of everything that there can be told of a token.
func observe(token string) {
	state := budget.State{HeadersKnown: true, Limit: 5000, Remaining: 4321, ResetAt: time.Now(), Unauthorized: true}
	metrics.Observe(connectclient.Call{Operation: "get deployment", Token: token, StatusCode: 200, Budget: state})
	metrics.Observe(connectclient.Call{Operation: "get deployment", Token: token, Budget: state})
	metrics.Observe(connectclient.Call{Operation: "create artefact", Token: token, Refusal: &budget.Refusal{Reason: budget.Exhausted}, Budget: state})
	metrics.Observe(connectclient.Call{Operation: "create artefact", Token: token, Refusal: &budget.Refusal{Reason: budget.Outage}, Budget: state})
}

// seriesOf are the names of the metrics that have a series of the token.
func seriesOf(t *testing.T, token string) (names []string) {
	t.Helper()
	families, err := registry.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), "rpi_connect_") {
			continue
		}
		for _, series := range family.GetMetric() {
			for _, label := range series.GetLabel() {
				if label.GetName() == "token" && label.GetValue() == token {
					names = append(names, family.GetName())
				}
			}
		}
	}
	return names
}

func TestForgetRemovesEverySeriesOfAToken(t *testing.T) {
	observe("01234567")
	observe("89abcdef")
	before := seriesOf(t, "89abcdef")
	for _, name := range []string{
		"rpi_connect_requests_total", "rpi_connect_budget_refusals_total", "rpi_connect_budget_limit", "rpi_connect_budget_remaining",
		"rpi_connect_budget_reset_timestamp_seconds", "rpi_connect_access_token_rejected",
	} {
		if !slices.Contains(seriesOf(t, "01234567"), name) {
			t.Errorf("the token has no series of %s", name)
		}
	}
	metrics.Forget("01234567")
	metrics.Forget("nobody's")
	if left := seriesOf(t, "01234567"); len(left) > 0 {
		t.Errorf("it has still got %v", left)
	}
	if after := seriesOf(t, "89abcdef"); !slices.Equal(after, before) {
		t.Errorf("another token had %v, now %v", before, after)
	}
}
