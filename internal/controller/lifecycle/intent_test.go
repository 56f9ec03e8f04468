// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"testing"
	"time"

	"rpi-connect.dev/operator/api/v1alpha1"
)

func TestIntentOf(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		own  bool
	}{
		"its own":                           {marshalled(Intent{At: noon, UID: "mine"}), true},
		"its own, with a note":              {marshalled(Intent{At: noon, UID: "mine", Note: `{"device":"d1"}`}), true},
		"copied from another resource":      {marshalled(Intent{At: noon, UID: "theirs", Note: "n"}), false},
		"of nobody":                         {`{"at":"2026-03-01T12:00:00Z"}`, false},
		"empty":                             {"", false},
		"null":                              {"null", false},
		"of another type":                   {`["mine"]`, false},
		"a word":                            {"mine", false},
		"cut off":                           {`{"at":"2026-03-01T12:00:00Z","uid":"mine"`, false},
		"its own, at a time that is none":   {`{"at":"noon","uid":"mine"}`, false},
		"its own, with a note that is none": {`{"at":"2026-03-01T12:00:00Z","uid":"mine","note":7}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			obj := newArtefact()
			obj.Annotations[v1alpha1.AnnotationCreateIntent] = test.text
			if got := intentOf(obj); (got != nil) != test.own {
				t.Errorf("got %+v", got)
			}
		})
	}
	if got := intentOf(newArtefact()); got != nil {
		t.Errorf("without an annotation there is %+v", got)
	}
}

// What a pass has put on record the next one reads as it was, to the nanosecond:
// a listing that began a moment before the intent says nothing about it.
func TestIntentSurvives(t *testing.T) {
	want := Intent{At: noon.Add(time.Nanosecond), UID: "mine", Note: `a "note" of <b>any</b> kind`}
	obj := newArtefact()
	obj.Annotations[v1alpha1.AnnotationCreateIntent] = marshalled(want)
	got := intentOf(obj)
	if got == nil || !got.At.Equal(want.At) || got.UID != want.UID || got.Note != want.Note {
		t.Errorf("got %+v", got)
	}
}
