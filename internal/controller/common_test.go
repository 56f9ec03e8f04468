// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"maps"
	"slices"
	"testing"
	"time"
)

// noon is now, wherever a test needs one.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestSameSet(t *testing.T) {
	for name, test := range map[string]struct {
		a, b []string
		want bool
	}{
		"nothing and nothing":          {nil, nil, true},
		"nothing and an empty list":    {nil, []string{}, true},
		"the same, in the same order":  {[]string{"lab", "pi5"}, []string{"lab", "pi5"}, true},
		"the same, in another order":   {[]string{"pi5", "lab"}, []string{"lab", "pi5"}, true},
		"one more":                     {[]string{"lab"}, []string{"lab", "pi5"}, false},
		"one less":                     {[]string{"lab", "pi5"}, []string{"lab"}, false},
		"something and nothing":        {[]string{"lab"}, nil, false},
		"as many, but others":          {[]string{"lab", "pi5"}, []string{"lab", "pi4"}, false},
		"values that only look joined": {[]string{"lab", "pi5"}, []string{"lab,pi5"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := slices.Clone(test.a), slices.Clone(test.b)
			if sameSet(test.a, test.b) != test.want || sameSet(test.b, test.a) != test.want {
				t.Errorf("want %t", test.want)
			}
			// They are a resource's spec and the store's own.
			if !slices.Equal(a, test.a) || !slices.Equal(b, test.b) {
				t.Errorf("the lists became %q and %q", test.a, test.b)
			}
		})
	}
}

func TestMerged(t *testing.T) {
	type values = map[string]string
	for name, test := range map[string]struct{ base, more, want values }{
		"nothing":              {nil, nil, values{}},
		"only a base":          {values{"a": "1"}, nil, values{"a": "1"}},
		"only more":            {nil, values{"a": "1"}, values{"a": "1"}},
		"both":                 {values{"a": "1"}, values{"b": "2"}, values{"a": "1", "b": "2"}},
		"more outweighs":       {values{"a": "1"}, values{"a": "2"}, values{"a": "2"}},
		"empty values":         {values{"a": ""}, values{"b": ""}, values{}},
		"empty takes one away": {values{"a": "1", "b": "2"}, values{"a": ""}, values{"b": "2"}},
	} {
		t.Run(name, func(t *testing.T) {
			base := maps.Clone(test.base)
			got := merged(test.base, test.more)
			if !maps.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
			got["more"] = "still"
			if !maps.Equal(test.base, base) {
				t.Errorf("the base became %v", test.base)
			}
		})
	}
}
