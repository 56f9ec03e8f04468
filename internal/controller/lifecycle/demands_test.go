// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

func TestDemands(t *testing.T) {
	resource := types.NamespacedName{Namespace: "lab", Name: "kiosk"}
	earlier, later := noon, noon.Add(time.Minute)
	for name, test := range map[string]struct {
		happens func(*demands)
		want    time.Time
	}{
		"any picture will do":              {func(*demands) {}, time.Time{}},
		"a request wants one from then on": {func(d *demands) { d.onRequest(resource, "a", earlier) }, earlier},
		"the same request seen again wants nothing newer": {func(d *demands) {
			d.onRequest(resource, "a", earlier)
			d.onRequest(resource, "a", later)
		}, earlier},
		"another request does": {func(d *demands) {
			d.onRequest(resource, "a", earlier)
			d.onRequest(resource, "b", later)
		}, later},
		"a lost answer wants one from then on": {func(d *demands) { d.onLoss(resource, earlier) }, earlier},
		"a second loss wants a newer one": {func(d *demands) {
			d.onLoss(resource, earlier)
			d.onLoss(resource, later)
		}, later},
		"a loss after a request wants a newer one": {func(d *demands) {
			d.onRequest(resource, "a", earlier)
			d.onLoss(resource, later)
		}, later},
		"a request that is seen again after a loss wants no newer one still": {func(d *demands) {
			d.onRequest(resource, "a", earlier)
			d.onLoss(resource, earlier)
			d.onRequest(resource, "a", later)
		}, earlier},
		"a refusal wants one from then on": {func(d *demands) { d.onRefusal(resource, earlier) }, earlier},
		"what is met is forgotten": {func(d *demands) {
			d.onLoss(resource, earlier)
			d.forget(resource)
		}, time.Time{}},
		"another resource's is another": {func(d *demands) {
			d.onLoss(types.NamespacedName{Namespace: "lab", Name: "other"}, earlier)
			d.onRequest(types.NamespacedName{Namespace: "elsewhere", Name: "kiosk"}, "a", earlier)
		}, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDemands()
			test.happens(d)
			if got := d.of(resource); !got.Equal(test.want) {
				t.Errorf("it needs a picture from %s on, want %s", got, test.want)
			}
		})
	}
}

// A refusal is looked into once: if the newer picture explains nothing and the
// POST is refused again, then it is the spec that is wrong.
func TestDemandsOnRefusal(t *testing.T) {
	resource := types.NamespacedName{Namespace: "lab", Name: "kiosk"}
	for name, test := range map[string]struct {
		before func(*demands)
		again  bool
	}{
		"the first time":             {func(*demands) {}, false},
		"the second time":            {func(d *demands) { d.onRefusal(resource, noon) }, true},
		"after a loss":               {func(d *demands) { d.onLoss(resource, noon) }, false},
		"after the user's request":   {func(d *demands) { d.onRequest(resource, "a", noon) }, false},
		"of another resource before": {func(d *demands) { d.onRefusal(types.NamespacedName{Name: "other"}, noon) }, false},
		"after the first was dealt with": {func(d *demands) {
			d.onRefusal(resource, noon)
			d.forget(resource)
		}, false},
		"the third time, after the user was told": {func(d *demands) {
			d.onRefusal(resource, noon)
			d.onRefusal(resource, noon)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDemands()
			test.before(d)
			if got := d.onRefusal(resource, noon.Add(time.Minute)); got != test.again {
				t.Errorf("nothing newer is to be learnt: %t", got)
			}
			if asks := !d.of(resource).IsZero(); asks == test.again {
				t.Errorf("it asks for a newer picture: %t", asks)
			}
		})
	}
}
