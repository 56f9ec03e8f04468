// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
)

// updated announces a change of a remote object.
var updated = lifecycle.Event{Reason: v1alpha1.EventUpdated, Action: "Update", Message: "Updated it in the organisation."}

// timeOrNil is a time for a status; zero stands for none.
func timeOrNil(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	at := metav1.NewTime(t)
	return &at
}

// utc is how times are shown in messages.
func utc(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }

// sameSet tells whether two lists hold the same values, in whatever order.
func sameSet(a, b []string) bool { return slices.Equal(sorted(a), sorted(b)) }

// merged is a copy of base with more added; empty values are left out.
func merged(base, more map[string]string) map[string]string {
	all := maps.Clone(base)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, more)
	maps.DeleteFunc(all, func(_, v string) bool { return v == "" })
	return all
}
