// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"testing"
	"unicode/utf8"
)

// Whatever an editor makes of the note of a request, what is understood is written down and read again
// as it was.
func FuzzNote(f *testing.F) {
	f.Add(note{Device: "d1", Artefact: "a1", Newest: "n1"}.String())
	f.Add(`{"device":"d1","artefact":"a1"}`)
	f.Add(`{"device":7,"artefact":"a1"}`)
	f.Add(`{"device":"\ud800","Device":"d2"}`)
	f.Add(`null`)
	f.Add("\xff")
	f.Fuzz(func(t *testing.T, text string) {
		n := parseNote(text)
		if again := parseNote(n.String()); again != n {
			t.Fatalf("%+v becomes %+v", n, again)
		}
		if !utf8.ValidString(n.Device + n.Artefact + n.Newest) {
			t.Fatalf("%+v", n)
		}
	})
}
