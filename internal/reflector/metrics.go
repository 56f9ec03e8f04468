// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"rpi-connect.dev/operator/internal/connectclient"
)

var (
	listings = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "rpi_connect_listings_total",
		Help: "Listings of a whole collection of an organisation, by collection and result (complete, failed, deferred: to stay within the budget, unsupported: by this revision of the API).",
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

// The results of a listing.
const (
	complete    = "complete"
	failed      = "failed"
	deferred    = "deferred"
	unsupported = "unsupported"
)

// introduce lets the counters of a collection begin at zero: what has not happened yet is known, too, and
// whoever looks at increases does not miss the first one.
func introduce(collection string) {
	for _, result := range []string{complete, failed, deferred, unsupported} {
		listings.WithLabelValues(collection, result)
	}
	drift.WithLabelValues(collection)
	skipped.WithLabelValues(collection)
}

func observeListing(collection string, err error) {
	listings.WithLabelValues(collection, resultOf(err)).Inc()
}

// resultOf tells failures from what nobody has to look into.
func resultOf(err error) string {
	switch {
	case err == nil:
		return complete
	case errors.Is(err, connectclient.ErrDeferred):
		return deferred
	case errors.Is(err, connectclient.ErrUnsupported):
		return unsupported
	}
	return failed
}

func observeDrift(collection string, changed int) {
	drift.WithLabelValues(collection).Add(float64(changed))
}

func observeSkipped(collection string, rows int) {
	skipped.WithLabelValues(collection).Add(float64(rows))
}
