// SPDX-License-Identifier: Apache-2.0

// Package metrics says where the request budget goes, and counts resources by their conditions. Those of
// listings are in package reflector, which makes them.
package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"rpi-connect.dev/operator/internal/connectclient"
)

// The label "token" is the first digits of a token's SHA-256: it tells
// organisations apart and reveals nothing.
var (
	requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "rpi_connect_requests_total",
		Help: "Requests sent to Connect, by operation and HTTP status code (none: no answer came).",
	}, []string{"token", "operation", "code"})

	duration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "rpi_connect_request_duration_seconds",
		Help:    "Time from sending a request to the last byte of its answer.",
		Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	}, []string{"operation"})

	refusals = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "rpi_connect_budget_refusals_total",
		Help: "Requests that were put off, by operation and reason (exhausted, pacing, unauthorized, unproven; outage: Connect is down).",
	}, []string{"token", "operation", "reason"})

	delay = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "rpi_connect_budget_delay_seconds",
		Help:    "How far requests were put off, by operation.",
		Buckets: []float64{.1, 1, 10, 60, 300, 900, 1800, 3600},
	}, []string{"operation"})

	limit = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "rpi_connect_budget_limit",
		Help: "Requests that Connect allows per window.",
	}, []string{"token"})

	remaining = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "rpi_connect_budget_remaining",
		Help: "Requests left in the current window.",
	}, []string{"token"})

	reset = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "rpi_connect_budget_reset_timestamp_seconds",
		Help: "When the current window ends, in seconds since the epoch.",
	}, []string{"token"})

	rejected = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "rpi_connect_access_token_rejected",
		Help: "1 while Connect refuses the access token.",
	}, []string{"token"})
)

// The labels of these are the rollout's; there is none for a device.
var (
	rolloutDevices = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "rpi_connect_rollout_devices",
		Help: "Devices of a FleetRollout, by state (waiting, pending, in_progress, deferred, succeeded, failed, overridden, incompatible).",
	}, []string{"namespace", "name", "state"})

	rolloutPhase = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "rpi_connect_rollout_phase",
		Help: "1 for the phase that a FleetRollout is in.",
	}, []string{"namespace", "name", "phase"})
)

// ofTokens are the metrics that have a series for each token.
var ofTokens = []interface {
	DeletePartialMatch(labels prometheus.Labels) int
}{requests, refusals, limit, remaining, reset, rejected}

func init() {
	metrics.Registry.MustRegister(requests, duration, refusals, delay, limit, remaining, reset, rejected, rolloutDevices, rolloutPhase)
}

// Observe counts one call of the API. It is the client's metrics hook.
func Observe(call connectclient.Call) {
	if call.Refusal != nil {
		refusals.WithLabelValues(call.Token, call.Operation, string(call.Refusal.Reason)).Inc()
		delay.WithLabelValues(call.Operation).Observe(call.Delay.Seconds())
	} else {
		code := "none"
		if call.StatusCode != 0 {
			code = strconv.Itoa(call.StatusCode)
		}
		requests.WithLabelValues(call.Token, call.Operation, code).Inc()
		duration.WithLabelValues(call.Operation).Observe(call.Duration.Seconds())
	}
	if call.Budget.HeadersKnown {
		limit.WithLabelValues(call.Token).Set(float64(call.Budget.Limit))
		remaining.WithLabelValues(call.Token).Set(float64(call.Budget.Remaining))
		reset.WithLabelValues(call.Token).Set(float64(call.Budget.ResetAt.Unix()))
	}
	rejected.WithLabelValues(call.Token).Set(map[bool]float64{true: 1}[call.Budget.Unauthorized])
}

// Forget removes every series of a token, by its fingerprint: nothing uses the token any more, and
// what was last said of it would be said for ever. Nobody may observe a call with it afterwards: see
// [connectclient.API.Retire].
func Forget(token string) {
	for _, metric := range ofTokens {
		metric.DeletePartialMatch(prometheus.Labels{"token": token})
	}
}

// ObserveRollout says in which phase a FleetRollout is, and how many of its devices are in which state.
func ObserveRollout(namespace, name, phase string, devices map[string]int32) {
	for state, n := range devices {
		rolloutDevices.WithLabelValues(namespace, name, state).Set(float64(n))
	}
	rolloutPhase.DeletePartialMatch(prometheus.Labels{"namespace": namespace, "name": name})
	rolloutPhase.WithLabelValues(namespace, name, phase).Set(1)
}

// ForgetRollout removes every series of a FleetRollout that is gone.
func ForgetRollout(namespace, name string) {
	labels := prometheus.Labels{"namespace": namespace, "name": name}
	rolloutDevices.DeletePartialMatch(labels)
	rolloutPhase.DeletePartialMatch(labels)
}
