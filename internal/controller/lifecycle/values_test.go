// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"slices"
	"strings"
	"testing"
)

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
			if SameSet(test.a, test.b) != test.want || SameSet(test.b, test.a) != test.want {
				t.Errorf("want %t", test.want)
			}
			// They are a resource's spec and the store's own.
			if !slices.Equal(a, test.a) || !slices.Equal(b, test.b) {
				t.Errorf("the lists became %q and %q", test.a, test.b)
			}
		})
	}
}

// What others have written is shown within the bounds of what the API server takes, and without what
// only looks harmless.
func TestTextsOfOthers(t *testing.T) {
	long := strings.Repeat("long ", 20_000)
	for name, text := range map[string]string{
		"long":                long,
		"with a token":        "failed with rporg_0123456789abcdefghijklmn at noon",
		"with a signed URI":   "cannot fetch https://lab:hunter2@example.com/kiosk?sig=hunter2",
		"with control":        "red \x1b[31m and \u202e reversed",
		"of several lines":    "one\ntwo\r\nthree",
		"long, with a secret": long + "rpoak_0123456789abcdefghijklmn",
	} {
		t.Run(name, func(t *testing.T) {
			got := Sentence(text)
			if len(got) > maxText+1 || !strings.HasSuffix(got, ".") {
				t.Errorf("it is %d bytes long: %q", len(got), got)
			}
			for _, bad := range []string{"rporg_0", "rpoak_0", "hunter2", "\x1b", "\u202e", "\n", "\r"} {
				if strings.Contains(got, bad) {
					t.Errorf("it has %q: %q", bad, got)
				}
			}
		})
	}
	if got := bounded(long); len(got) > maxConditionMessage {
		t.Errorf("a message has %d bytes", len(got))
	}
	if got := eventNote(long); len(got) > maxEventNote {
		t.Errorf("a note has %d bytes", len(got))
	}
}
