// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

func TestCacheIsBehindWhatWasWritten(t *testing.T) {
	kiosk := types.NamespacedName{Namespace: "fleet", Name: "kiosk"}
	other := types.NamespacedName{Namespace: "fleet", Name: "other"}
	w := newWritten()
	w.note(kiosk, "99", noon)
	w.note(kiosk, "100", noon)
	for name, test := range map[string]struct {
		of    types.NamespacedName
		shows string
		later time.Duration
		want  bool
	}{
		"an older version": {kiosk, "99", 0, true},
		"this version":     {kiosk, "100", 0, false},
		"a newer one":      {kiosk, "101", 0, false},
		"an older one for so long that it is lost": {kiosk, "99", time.Minute, false},
		"an older one of another resource":         {other, "99", 0, false},
		"a version that is no number":              {kiosk, "x", 0, false},
	} {
		if got := w.aheadOf(test.of, test.shows, noon.Add(test.later)); got != test.want {
			t.Errorf("the cache shows %s: behind: %t", name, got)
		}
	}
	w.forget(kiosk)
	if w.aheadOf(kiosk, "1", noon) {
		t.Error("what is gone is still waited for")
	}
}
