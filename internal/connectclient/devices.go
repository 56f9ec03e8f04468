// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
)

const devicesPath = "/organisation/devices"

// Device is a Raspberry Pi that is signed in to the organisation. Nothing in it
// says whether it is online.
type Device struct {
	ID           string `json:"id"`
	Name         string `json:"name"`
	SerialNumber string `json:"serial_number"`
	// Tags is nil if there are none.
	Tags []string `json:"tags"`
	// Board and OS are nil, and KernelArchitecture and Filters are empty, for
	// a device whose client is older than 2.9.0.
	Board              *Board  `json:"board"`
	OS                 *OS     `json:"os"`
	KernelArchitecture string  `json:"kernel_architecture"`
	Filters            Filters `json:"filters"`
}

// Board is the device's hardware.
type Board struct {
	Model    string `json:"model"`
	Revision string `json:"revision"`
	Memory   string `json:"memory"`
}

// OS is the device's operating system.
type OS struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Filters are the values by which the qualifiers of a query find the device:
// "model:", "memory:" and "os:".
type Filters struct {
	Model  string `json:"model"`
	Memory string `json:"memory"`
	OS     string `json:"os"`
}

func (d *Device) normalise() string {
	d.Tags = noneIsNil(d.Tags)
	return d.ID
}

// What these three hold is shown and compared, never computed with, and no
// example of it is published. A memory size that turns out to be a number must
// not make the whole listing unreadable.

// UnmarshalJSON implements [json.Unmarshaler].
func (b *Board) UnmarshalJSON(data []byte) error {
	return texts(data, map[string]*string{"model": &b.Model, "revision": &b.Revision, "memory": &b.Memory})
}

// UnmarshalJSON implements [json.Unmarshaler].
func (o *OS) UnmarshalJSON(data []byte) error {
	return texts(data, map[string]*string{"name": &o.Name, "version": &o.Version})
}

// UnmarshalJSON implements [json.Unmarshaler].
func (f *Filters) UnmarshalJSON(data []byte) error {
	return texts(data, map[string]*string{"model": &f.Model, "memory": &f.Memory, "os": &f.OS})
}

// texts reads strings and numbers as text, and everything else as none.
func texts(data []byte, fields map[string]*string) error {
	var values map[string]json.RawMessage
	_ = json.Unmarshal(data, &values) // what is no object has no fields
	for name, field := range fields {
		var number json.Number // also takes a string that is a number
		if json.Unmarshal(values[name], field) != nil && json.Unmarshal(values[name], &number) == nil {
			*field = number.String()
		}
	}
	return nil
}

// DeviceUpdate changes a device; nil leaves a field as it is, and Tags replaces
// all of them.
type DeviceUpdate struct {
	Name *string   `json:"name,omitempty"`
	Tags *[]string `json:"tags,omitempty"`
}

// DeviceClient calls the API about devices.
type DeviceClient struct{ client *Client }

// Devices has the calls about devices.
func (c *Client) Devices() *DeviceClient { return &DeviceClient{c} }

// List opens a listing of the devices that match the query, sorted by name.
//
// A query is free text, a name or a serial number, and qualifiers, all of which
// must match: "model:5 memory:8gb os:raspios-13 tag:lab tag:kiosk". An empty one
// matches every device.
func (d *DeviceClient) List(query string) *Listing[Device] {
	var values url.Values
	if query = strings.TrimSpace(query); query != "" {
		values = url.Values{"query": {query}}
	}
	return &Listing[Device]{
		client:    d.client,
		operation: "list devices",
		path:      devicesPath,
		query:     values,
		plural:    "devices",
		normalise: (*Device).normalise,
		refine:    noCollection,
	}
}

// Get reads one device: [ErrNotFound] if there is none, [ErrUnsupported] if the
// API is the older revision.
func (d *DeviceClient) Get(ctx context.Context, id string) (*Device, error) {
	return d.one(ctx, request{operation: "get device", method: http.MethodGet}, id)
}

// Update changes a device's name or tags. The older revision cannot, as in
// [DeviceClient.Get].
func (d *DeviceClient) Update(ctx context.Context, id string, update DeviceUpdate) (*Device, error) {
	update.Tags = replaced(update.Tags)
	return d.one(ctx, request{operation: "update device", method: http.MethodPatch, body: encode(update)}, id)
}

// Delete removes a device from the organisation and signs it out.
func (d *DeviceClient) Delete(ctx context.Context, id string) error {
	const operation = "delete device"
	path, err := pathTo(operation, devicesPath, id)
	if err != nil {
		return err
	}
	return d.client.do(ctx, request{operation: operation, method: http.MethodDelete, path: path})
}

func (d *DeviceClient) one(ctx context.Context, req request, id string) (*Device, error) {
	var err error
	req.currentOnly = true
	if req.path, err = pathTo(req.operation, devicesPath, id); err != nil {
		return nil, err
	}
	found := &Device{}
	if err := d.client.doInto(ctx, req, found); err != nil {
		return nil, err
	}
	return found, nil
}
