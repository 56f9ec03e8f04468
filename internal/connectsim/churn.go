// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"maps"
	"slices"
	"strings"
)

// Change is what other people do to a collection while somebody pages through it.
// Rows are known by their id, or by what the listing is sorted by: an artefact's
// or a device's name, the description of an identity or of an auth key. What is
// not there (any more) is left alone.
type Change struct {
	// Remove takes rows away: one on a page that has been read moves all that
	// follow, and a row is missed.
	Remove []string `json:"Remove,omitempty"`
	// Insert makes rows: one that sorts before what has been read lets rows
	// come twice, one that sorts last makes up for a removed one in the totals.
	Insert []string `json:"Insert,omitempty"`
	// Rename gives rows another name, and another place. Artefacts have no
	// update, and auth keys are not sorted by name.
	Rename map[string]string `json:"Rename,omitempty"`
}

// rows is what a Change can do to the collection of a listing.
type rows struct {
	insert func(o *Organisation, name string)
	remove func(o *Organisation, name string)
	rename func(o *Organisation, name, to string) // nil: there is no such thing
}

func nameOf(a *Artefact) string        { return a.Name }
func describedAs(k *AuthKey) string    { return k.Description }
func descriptionOf(i *Identity) string { return i.Description }
func deviceNameOf(d *Device) string    { return d.Name }

// each does something to the rows that are known by an id or a name.
func each[T any](c *collection[T], name string, nameOf func(*T) string, do func(*T)) {
	if object, found := c.byID[name]; found {
		do(object)
		return
	}
	for _, object := range slices.Clone(c.sorted) {
		if nameOf(object) == name {
			do(object)
		}
	}
}

// apply does the change to what the path lists. The lock is held.
func (ch *Change) apply(o *Organisation, path string) {
	rows := listings[path]
	for _, name := range ch.Remove {
		rows.remove(o, name)
	}
	for _, name := range ch.Insert {
		rows.insert(o, name)
	}
	for _, name := range slices.Sorted(maps.Keys(ch.Rename)) {
		rows.rename(o, name, ch.Rename[name])
	}
	o.server.touch()
}

func (ch *Change) check(route string) error {
	if ch == nil {
		return nil
	}
	method, path, _ := strings.Cut(route, " ")
	rows := listings[path]
	switch {
	case method != "GET" || rows == nil:
		return mistake("Change is done to what a request lists, which %q does not say: give the Route of a listing of the organisation", route)
	case ch.Rename != nil && rows.rename == nil:
		return mistake("%s cannot be renamed into another place: they are not sorted by a name that changes", path)
	}
	return nil
}
