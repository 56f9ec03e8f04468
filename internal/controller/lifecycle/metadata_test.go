// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"slices"
	"testing"

	"rpi-connect.dev/operator/api/v1alpha1"
)

func TestChangeFinalizers(t *testing.T) {
	const ours, foregroundDeletion, theirs = v1alpha1.Finalizer, "foregroundDeletion", "example.com/backup"
	for name, test := range map[string]struct {
		before []string
		change finalizerChange
		want   []string
	}{
		"the first is added":             {nil, addFinalizer, []string{ours}},
		"others stay, in their order":    {[]string{theirs, foregroundDeletion}, addFinalizer, []string{theirs, foregroundDeletion, ours}},
		"it is not added twice":          {[]string{ours}, addFinalizer, []string{ours}},
		"the last is removed":            {[]string{ours}, removeFinalizer, nil},
		"only ours is removed":           {[]string{theirs, ours, foregroundDeletion}, removeFinalizer, []string{theirs, foregroundDeletion}},
		"every one of ours is removed":   {[]string{ours, theirs, ours}, removeFinalizer, []string{theirs}},
		"what is not there is removed":   {[]string{theirs}, removeFinalizer, []string{theirs}},
		"there is nothing to be removed": {nil, removeFinalizer, nil},
	} {
		t.Run(name, func(t *testing.T) {
			before := slices.Clone(test.before)
			if got := changeFinalizers(test.before, test.change); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
			// The list is the resource's own until the write has succeeded.
			if !slices.Equal(test.before, before) {
				t.Errorf("the list that was given became %q", test.before)
			}
		})
	}
}
