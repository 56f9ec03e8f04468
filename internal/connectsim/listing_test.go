// SPDX-License-Identifier: Apache-2.0

package connectsim_test

import (
	"fmt"
	"testing"

	"rpi-connect.dev/operator/internal/connectsim"
)

func TestPages(t *testing.T) {
	s := begin(t, connectsim.Options{})
	for i := range 205 {
		s.org.AddDevice(connectsim.Device{Name: fmt.Sprintf("pi-%03d", i)})
	}
	for _, c := range []struct {
		query       string
		first       string
		rows        int
		number, per int
		pages       int
	}{
		{"", "pi-000", 100, 1, 100, 3},
		{"?page=1", "pi-000", 100, 1, 100, 3},
		{"?page=3", "pi-200", 5, 3, 100, 3},
		{"?per_page=2", "pi-000", 2, 1, 2, 103},
		{"?per_page=2&page=103", "pi-204", 1, 103, 2, 103},
		{"?per_page=100&page=2", "pi-100", 100, 2, 100, 3},
		{"?per_page=101", "pi-000", 100, 1, 100, 3}, // at most 100
		{"?per_page=100000&page=2", "pi-100", 100, 2, 100, 3},
		// What is next is unpublished. It gives a page all the same, which says
		// what it is.
		{"?page=4", "", 0, 4, 100, 3},
		{"?page=0", "pi-000", 100, 1, 100, 3},
		{"?page=-1", "pi-000", 100, 1, 100, 3},
		{"?page=junk&per_page=junk", "pi-000", 100, 1, 100, 3},
		{"?page=99999999999999999999999", "pi-000", 100, 1, 100, 3},
		{"?page=2147483647", "", 0, 2147483647, 100, 3},
	} {
		page := s.list("/organisation/devices" + c.query)
		s.samef(page.meta, `{"page":%d,"per_page":%d,"total_count":205,"total_pages":%d}`, c.number, c.per, c.pages)
		if len(page.rows) != c.rows || c.rows > 0 && page.rows[0]["name"] != c.first {
			t.Errorf("%s: %d rows", c.query, len(page.rows))
		}
	}
	if page := s.list("/organisation/devices?per_page=0"); page.meta["per_page"] < 1 || page.meta["per_page"] > 100 {
		t.Errorf("a page of none has %v", page.meta)
	}
}

func TestEmptyListings(t *testing.T) {
	onBothRevisions(t, func(s env) {
		paths := []string{"/organisation/artefacts", "/organisation/device-identities", "/organisation/devices"}
		if !s.older {
			paths = append(paths, "/organisation/auth-keys")
		}
		device := s.org.AddDevice(connectsim.Device{Name: "pi"})
		s.list("/organisation/devices/" + device.ID + "/deployments").has("id")
		s.org.RemoveDevice(device.ID)
		for _, path := range paths {
			page := s.list(path)
			page.has("id")
			s.same(page.meta, `{"page":1,"per_page":100,"total_count":0,"total_pages":0}`)
		}
	})
}

func TestListingsAreSorted(t *testing.T) {
	onBothRevisions(t, func(s env) {
		for _, name := range []string{"c", "a", "b"} {
			s.org.AddArtefact(name, "https://example.com", checksum)
			s.org.AddDevice(connectsim.Device{Name: name})
			_, public := newKey(t)
			s.org.AddDeviceIdentity(public, name, "", nil)
		}
		s.org.AddDevice(connectsim.Device{Name: "b"}) // a device's name is not unique
		s.list("/organisation/artefacts").has("name", "a", "b", "c")
		s.list("/organisation/device-identities").has("description", "a", "b", "c")
		s.list("/organisation/devices").has("name", "a", "b", "b", "c")
	})
}

// A row that is renamed between two pages is missed, or comes twice.
func TestListingsMoveWhileOnePagesThrough(t *testing.T) {
	s := begin(t, connectsim.Options{})
	ids := map[string]string{}
	for _, name := range []string{"b", "c", "d", "e"} {
		ids[name] = s.org.AddDevice(connectsim.Device{Name: name}).ID
	}
	s.list("/organisation/devices?per_page=2").has("name", "b", "c")
	s.call("PATCH", "/organisation/devices/"+ids["e"], `{"name":"a"}`).is(200)
	s.list("/organisation/devices?per_page=2&page=2").has("name", "c", "d") // c again
	s.list("/organisation/devices?per_page=2").has("name", "a", "b")
	s.org.ChangeDevice(ids["b"], func(d *connectsim.Device) { d.Name = "z" }) // by somebody else
	s.list("/organisation/devices?per_page=2&page=2").has("name", "d", "z")   // never c
}
