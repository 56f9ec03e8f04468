// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"testing"
	"time"
)

func TestCacheIsBehindWhatWasWritten(t *testing.T) {
	for name, test := range map[string]struct {
		shows string
		later time.Duration
		want  bool
	}{
		"an older version": {"99", 0, true},
		"this version":     {"100", 0, false},
		"a newer one":      {"101", 0, false},
		"an older one for as long as it may take":  {"99", lostTouch, true},
		"an older one for so long that it is lost": {"99", lostTouch + 1, false},
		"a version that is no number":              {"x", 0, false},
	} {
		var e expectation
		e.expect("99", noon)
		e.expect("100", noon)
		if _, got := e.behind(test.shows, noon.Add(test.later)); got != test.want {
			t.Errorf("the cache shows %s: behind: %t", name, got)
		}
	}
	if _, behind := new(expectation).behind("1", noon); behind {
		t.Error("nothing was written, and yet the cache is behind")
	}
}

func TestCacheThatStaysBehindIsAskedLessOften(t *testing.T) {
	var e expectation
	e.expect("100", noon)
	last := time.Duration(0)
	for range 12 {
		after, behind := e.behind("99", noon)
		if !behind || after < last || after > catchUpMax {
			t.Fatalf("asked again after %s, before that after %s, behind: %t", after, last, behind)
		}
		last = after
	}
	if last != catchUpMax {
		t.Errorf("in the end it is asked every %s", last)
	}
}
