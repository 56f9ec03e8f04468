// SPDX-License-Identifier: Apache-2.0

package reflector_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/reflector"
)

// results are how the listings of all tests so far have ended.
func results(t *testing.T) map[string]float64 {
	t.Helper()
	families, err := metrics.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for _, family := range families {
		if family.GetName() != "rpi_connect_listings_total" {
			continue
		}
		for _, series := range family.GetMetric() {
			for _, label := range series.GetLabel() {
				if label.GetName() == "result" {
					found[label.GetValue()] = series.GetCounter().GetValue()
				}
			}
		}
	}
	return found
}

// What the budget puts off, and what the older revision of the API does not have, are no failures that
// anybody is to be called for.
func TestListingsAreCountedByWhatThereIsToDoAboutThem(t *testing.T) {
	for result, err := range map[string]error{
		"complete":    nil,
		"deferred":    errors.Join(&connectclient.Error{RetryAt: time.Now().Add(3 * time.Second)}, connectclient.ErrDeferred),
		"unsupported": connectclient.ErrUnsupported,
		"failed":      connectclient.ErrUnavailable,
	} {
		t.Run(result, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o, store := start(t, reflector.Collection[thing]{})
				before := results(t)
				if len(before) != 4 {
					t.Fatalf("the counters are %v, want one for each result from the beginning", before)
				}
				o.fails(err)
				wantPending(t, store.Await(time.Time{}, alice))
				o.listed()
				after := results(t)
				for name := range after {
					want := before[name]
					if name == result {
						want++
					}
					if after[name] != want {
						t.Errorf("%s: %g, want %g", name, after[name], want)
					}
				}
			})
		})
	}
}
