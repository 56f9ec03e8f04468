// SPDX-License-Identifier: Apache-2.0

package devices

import (
	"slices"
	"strings"
	"time"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/reflector"
)

// Group is the devices that a reference to many means.
type Group struct {
	// Devices are sorted by their ids, each once.
	Devices []connectclient.Device
	// Missing are the names and serial numbers that no device has.
	Missing []string
}

// FindAll returns the devices that the reference means: the union of what it names, without those
// that have one of the excluded tags. They stem from listings that began at notBefore or later;
// zero stands for any. [reflector.ErrPending] while those are on their way, or why the organisation
// cannot be listed now. A device that the latest listing did not show counts until its absence is
// proven.
//
// The waiter is woken when one of the devices changes or vanishes, or another one appears.
func (f *Finder) FindAll(token connectclient.Secret, ref v1alpha1.FleetDevices, notBefore time.Time, w reflector.Waiter) (Group, error) {
	named := newNamed(ref)
	ofAll, ownListing, err := f.split(token, named, strings.TrimSpace(ref.Query), w)
	if err != nil {
		return Group{}, err
	}
	var found []device
	if ofAll != nil {
		if found, err = collect(f.devices.Of(token), ofAll, notBefore, w); err != nil {
			return Group{}, err
		}
	}
	if ownListing != "" {
		matching, err := collect(f.devices.Part(token, queryScope+ownListing), everything, notBefore, w)
		if err != nil {
			return Group{}, err
		}
		found = append(found, matching...)
	}
	missing := named.missing(found)
	found = slices.DeleteFunc(found, func(d device) bool { return hasOneOf(d, ref.ExcludeTags) })
	slices.SortFunc(found, func(a, b device) int { return strings.Compare(a.ID, b.ID) })
	found = slices.CompactFunc(found, func(a, b device) bool { return a.ID == b.ID })
	return Group{Devices: found, Missing: missing}, nil
}

// split says what to look for in the listing of all devices, and which query to list by itself: a
// query is answered in the cheaper way, which is the listing of all if that is there anyway.
func (f *Finder) split(token connectclient.Secret, named named, text string, w reflector.Waiter) (ofAll func(device) bool, ownListing string, err error) {
	if !named.empty() {
		ofAll = named.matches
	}
	q, local := parse(text)
	switch {
	case text == "":
		return ofAll, "", nil
	case !local:
		return ofAll, text, nil
	case ofAll != nil:
		return func(d device) bool { return named.matches(d) || q.matches(d) }, "", nil
	}
	way, err := f.cheaper(token, q, w)
	if err != nil {
		return nil, "", err
	}
	if way == fromAll {
		return q.matches, "", nil
	}
	return nil, q.String(), nil
}

// collect returns what matches in a store, and has the waiter woken when that changes.
func collect(s *store, match func(device) bool, notBefore time.Time, w reflector.Waiter) ([]device, error) {
	if err := s.Await(notBefore, w); err != nil {
		return nil, err
	}
	found := slices.Collect(matching(s.All(), match))
	s.AwaitMatch(w, match)
	return found, nil
}

func hasOneOf(d device, tags []string) bool {
	return slices.ContainsFunc(tags, func(tag string) bool { return slices.Contains(d.Tags, tag) })
}

// named is a reference to devices by what they are called.
type named struct {
	all            bool
	names, serials map[string]bool
}

func newNamed(ref v1alpha1.FleetDevices) named {
	n := named{all: ref.All, names: map[string]bool{}, serials: map[string]bool{}}
	for _, name := range ref.Names {
		n.names[name] = true
	}
	for _, serial := range ref.SerialNumbers {
		n.serials[strings.ToLower(serial)] = true
	}
	return n
}

func (n named) empty() bool { return !n.all && len(n.names) == 0 && len(n.serials) == 0 }

func (n named) matches(d device) bool {
	return n.all || n.names[d.Name] || n.serials[strings.ToLower(d.SerialNumber)]
}

// missing are the names and serial numbers that none of the devices has.
func (n named) missing(found []device) []string {
	names, serials := map[string]bool{}, map[string]bool{}
	for _, d := range found {
		names[d.Name], serials[strings.ToLower(d.SerialNumber)] = true, true
	}
	var missing []string
	for name := range n.names {
		if !names[name] {
			missing = append(missing, name)
		}
	}
	for serial := range n.serials {
		if !serials[serial] {
			missing = append(missing, serial)
		}
	}
	slices.Sort(missing)
	return missing
}
