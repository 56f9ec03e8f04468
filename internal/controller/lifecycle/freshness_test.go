// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"testing"
	"time"
)

func TestFreshness(t *testing.T) {
	earlier, later := noon, noon.Add(time.Minute)
	for name, test := range map[string]struct {
		happens func(*freshness)
		want    time.Time
	}{
		"any listing will do":              {func(*freshness) {}, time.Time{}},
		"a request wants one from then on": {func(f *freshness) { f.onRequest("a", earlier) }, earlier},
		"the same request seen again wants nothing newer": {func(f *freshness) {
			f.onRequest("a", earlier)
			f.onRequest("a", later)
		}, earlier},
		"another request does": {func(f *freshness) {
			f.onRequest("a", earlier)
			f.onRequest("b", later)
		}, later},
		"a lost answer wants one from then on": {func(f *freshness) { f.require(earlier) }, earlier},
		"a second loss wants a newer one": {func(f *freshness) {
			f.require(earlier)
			f.require(later)
		}, later},
		"a request that is seen again after a loss wants no newer one still": {func(f *freshness) {
			f.onRequest("a", earlier)
			f.require(earlier)
			f.onRequest("a", later)
		}, earlier},
		"a refusal wants one from then on": {func(f *freshness) { f.onRefusal(earlier) }, earlier},
		"what is met is forgotten": {func(f *freshness) {
			f.require(earlier)
			f.met()
		}, time.Time{}},
		"a request that was met is not made again": {func(f *freshness) {
			f.onRequest("a", earlier)
			f.met()
			f.onRequest("a", later)
		}, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			var f freshness
			test.happens(&f)
			if !f.notBefore.Equal(test.want) {
				t.Errorf("it needs a listing from %s on, want %s", f.notBefore, test.want)
			}
		})
	}
}

// A refusal is looked into once: if the newer listing explains nothing and the POST is refused
// again, then it is the spec that is wrong.
func TestFreshnessOnRefusal(t *testing.T) {
	for name, test := range map[string]struct {
		before func(*freshness)
		again  bool
	}{
		"the first time":           {func(*freshness) {}, false},
		"the second time":          {func(f *freshness) { f.onRefusal(noon) }, true},
		"after a loss":             {func(f *freshness) { f.require(noon) }, false},
		"after the user's request": {func(f *freshness) { f.onRequest("a", noon) }, false},
		"after the first was dealt with": {func(f *freshness) {
			f.onRefusal(noon)
			f.met()
		}, false},
		"the third time, after the user was told": {func(f *freshness) {
			f.onRefusal(noon)
			f.onRefusal(noon)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var f freshness
			test.before(&f)
			if got := f.onRefusal(noon.Add(time.Minute)); got != test.again {
				t.Errorf("nothing newer is to be learnt: %t", got)
			}
			if asks := !f.notBefore.IsZero(); asks == test.again {
				t.Errorf("it asks for a newer listing: %t", asks)
			}
		})
	}
}
