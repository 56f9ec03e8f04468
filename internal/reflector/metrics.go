// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

var (
	listings = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "rpi_connect_listings_total",
		Help: "Listings of a whole collection of an organisation, by collection and result (complete, failed).",
	}, []string{"collection", "result"})

	drift = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "rpi_connect_drift_total",
		Help: "Remote objects that a listing found to have appeared, changed or vanished behind the operator's back.",
	}, []string{"collection"})

	skipped = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "rpi_connect_listing_rows_skipped_total",
		Help: "Rows of listings that could not be understood and were left out. Whether such an object is there cannot be told from a listing.",
	}, []string{"collection"})
)

func init() {
	metrics.Registry.MustRegister(listings, drift, skipped)
}

func observeListing(collection string, err error) {
	result := "complete"
	if err != nil {
		result = "failed"
	}
	listings.WithLabelValues(collection, result).Inc()
}

func observeDrift(collection string, changed int) {
	drift.WithLabelValues(collection).Add(float64(changed))
}

func observeSkipped(collection string, rows int) {
	skipped.WithLabelValues(collection).Add(float64(rows))
}
