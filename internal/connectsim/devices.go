// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"slices"
	"strings"
)

var deviceRoutes = []route{
	{"GET", "/organisation/devices", "", listDevices},
	{"GET", "/organisation/devices/{id}", Current, getDevice},
	{"PATCH", "/organisation/devices/{id}", Current, updateDevice},
	{"DELETE", "/organisation/devices/{id}", "", deleteDevice},
}

// deviceRows is what others can do to the listing.
var deviceRows = &rows{
	insert: func(o *Organisation, name string) { o.addDevice(Device{Name: name}) },
	remove: func(o *Organisation, name string) { each(o.devices, name, deviceNameOf, o.removeDevice) },
	rename: func(o *Organisation, name, to string) {
		each(o.devices, name, deviceNameOf, func(d *Device) {
			o.devices.change(d.ID, func(d *Device) { d.Name = to })
		})
	},
}

// Device is a Raspberry Pi that has signed in.
type Device struct {
	ID, Name, SerialNumber string
	Tags                   []string
	// Model, Memory and OS are as in "filters" and in queries: "5", "8gb",
	// "raspios-13". Empty where unknown, which they all are of a device whose
	// client is older than 2.9.0.
	Model, Memory, OS string
	// IdentityID is the identity that it signed in with, if it was one.
	IdentityID string
	// Capabilities are what the device has declared that it can do: "vnc",
	// "shell" and "ota" are each "enabled", "available" or "unavailable". The
	// Management API never shows them.
	Capabilities map[string]string

	token string
}

// keys are what a device is found by.
func (d *Device) keys() []string { return []string{d.token, serialKey(d.SerialNumber)} }

// serialKey is what the device on a board is found by; empty if there is none to
// be found.
func serialKey(serial string) string {
	if serial == "" {
		return ""
	}
	return "serial " + strings.ToLower(serial)
}

func showDevice(d *Device) object {
	filters := object{}
	for name, value := range map[string]string{"model": d.Model, "memory": d.Memory, "os": d.OS} {
		if value != "" {
			filters[name] = value
		}
	}
	o := object{
		"id": d.ID, "name": d.Name, "serial_number": d.SerialNumber, "tags": tagged(d.Tags),
		"board": showBoard(d.Model, d.Memory), "os": showOS(d.OS), "kernel_architecture": nil, "filters": filters,
	}
	if d.OS != "" {
		o["kernel_architecture"] = architecture(d.Model)
	}
	return o
}

func listDevices(c *call) reply {
	all := c.org.devices.sorted
	if query := c.URL.Query().Get("query"); strings.TrimSpace(query) != "" {
		all = slices.DeleteFunc(slices.Clone(all), func(d *Device) bool { return !d.matches(query) })
	}
	return page(c, "devices", all, showDevice)
}

// matches tells whether every word of a query fits: qualifiers exactly, free text
// anywhere in the name or the serial number. A word that is no qualifier is free
// text.
func (d *Device) matches(query string) bool {
	for word := range strings.FieldsSeq(query) {
		qualifier, value, qualified := strings.Cut(word, ":")
		var fits bool
		switch {
		case qualified && qualifier == "model":
			fits = d.Model != "" && strings.EqualFold(d.Model, value)
		case qualified && qualifier == "memory":
			fits = d.Memory != "" && strings.EqualFold(d.Memory, value)
		case qualified && qualifier == "os":
			fits = d.OS != "" && strings.EqualFold(d.OS, value)
		case qualified && qualifier == "tag":
			fits = slices.Contains(d.Tags, value)
		default:
			text := strings.ToLower(word)
			fits = strings.Contains(strings.ToLower(d.Name), text) || strings.Contains(strings.ToLower(d.SerialNumber), text)
		}
		if !fits {
			return false
		}
	}
	return true
}

func getDevice(c *call) reply {
	return get(c, c.org.devices, showDevice)
}

func updateDevice(c *call) reply {
	d, p, refusal := toChange(c, c.org.devices)
	if refusal != nil {
		return *refusal
	}
	name, hasName := p.text("name")
	tags, hasTags, validTags := p.tags()
	switch {
	case hasName && strings.TrimSpace(name) == "":
		return validation("Name can't be blank")
	case !validTags || !goodTags(tags):
		return validation("Tags are invalid")
	}
	c.org.devices.change(d.ID, func(d *Device) {
		if hasName {
			d.Name = name
		}
		if hasTags {
			d.Tags = tags
		}
	})
	c.server.touch()
	return ok(showDevice(d))
}

func deleteDevice(c *call) reply {
	d, found := c.org.devices.byID[c.PathValue("id")]
	if !found {
		return c.notFound()
	}
	c.org.removeDevice(d)
	return c.deleted(showDevice(d))
}

func (o *Organisation) addDevice(d Device) *Device {
	d.ID = newID()
	added := &d
	o.devices.add(d.ID, added)
	o.server.touch()
	return added
}

// removeDevice signs a device out: its token and its deployments go with it.
func (o *Organisation) removeDevice(d *Device) {
	o.devices.remove(d.ID)
	for _, run := range o.runs[d.ID] {
		delete(o.deployments, run.ID)
	}
	delete(o.runs, d.ID)
	o.endSubscriptions(d.ID)
	o.server.touch()
}

// Devices returns the organisation's devices.
func (o *Organisation) Devices() []Device {
	o.server.mu.Lock()
	defer o.server.mu.Unlock()
	return copies(o.devices.sorted)
}

// AddDevice signs a device in. Its ID is given by the server.
func (o *Organisation) AddDevice(d Device) Device {
	o.server.mu.Lock()
	defer o.server.mu.Unlock()
	d.token = NewSecret("rpdev_")
	return *o.addDevice(d)
}

// ChangeDevice changes a device, as another person would.
func (o *Organisation) ChangeDevice(id string, change func(*Device)) {
	alter(o, o.devices, id, change)
}

// RestoreDevice signs a device in that was removed, under the id that it had.
func (o *Organisation) RestoreDevice(d Device) {
	o.server.mu.Lock()
	defer o.server.mu.Unlock()
	o.devices.remove(d.ID)
	o.devices.add(d.ID, &d)
	o.server.touch()
}

// ReplaceDevice lets the board of a device that was removed sign in once more: it
// is another device now, with a new id and a new token, under the name, the tags
// and the serial number that it had. The old device is gone, and its deployments
// with it. It returns false if there is none.
func (o *Organisation) ReplaceDevice(id string) (Device, bool) {
	o.server.mu.Lock()
	defer o.server.mu.Unlock()
	old, found := o.devices.byID[id]
	if !found {
		return Device{}, false
	}
	o.removeDevice(old)
	anew := *old
	anew.token, anew.IdentityID = NewSecret("rpdev_"), ""
	return *o.addDevice(anew), true
}

// RemoveDevice signs a device out, as another person would.
func (o *Organisation) RemoveDevice(id string) {
	o.server.mu.Lock()
	defer o.server.mu.Unlock()
	if d, found := o.devices.byID[id]; found {
		o.removeDevice(d)
	}
}
