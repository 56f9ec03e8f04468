// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"net/http"
	"time"
)

const deviceIdentitiesPath = "/organisation/device-identities"

// DeviceIdentity pre-authorises the Raspberry Pi that holds the private half of
// a key. Nothing in it says whether a device has signed in with it yet.
type DeviceIdentity struct {
	ID          string `json:"id"`
	Description string `json:"description"`
	// DeviceName is what the device will be called; empty leaves it to the
	// device.
	DeviceName string `json:"device_name"`
	// PublicKey is PEM, with or without a newline at its end: compare parsed
	// keys, see [ParsePublicKeyPEM].
	PublicKey string `json:"public_key"`
	// Tags the device will have; nil if none.
	Tags      []string  `json:"tags"`
	CreatedAt time.Time `json:"created_at"`
}

func (d *DeviceIdentity) normalise() string {
	d.Tags = noneIsNil(d.Tags)
	return d.ID
}

// DeviceIdentityCreate is a new device identity.
type DeviceIdentityCreate struct {
	// PublicKeyPEM is sent as it is. See [ParsePublicKeyPEM].
	PublicKeyPEM string `json:"public_key"`
	Description  string `json:"description"`
	// DeviceName is what the device will be called; optional.
	DeviceName string `json:"device_name,omitempty"`
	// Tags the device will have; optional. The older revision ignores them.
	Tags []string `json:"tags,omitempty"`
}

// DeviceIdentityUpdate changes a device identity; nil leaves a field as it is,
// and Tags replaces all of them.
type DeviceIdentityUpdate struct {
	Description *string   `json:"description,omitempty"`
	DeviceName  *string   `json:"device_name,omitempty"`
	Tags        *[]string `json:"tags,omitempty"`
}

// DeviceIdentityClient calls the API about device identities.
type DeviceIdentityClient struct{ client *Client }

// DeviceIdentities has the calls about device identities.
func (c *Client) DeviceIdentities() *DeviceIdentityClient { return &DeviceIdentityClient{c} }

// List opens a listing of the organisation's device identities, sorted by
// description.
func (d *DeviceIdentityClient) List() *Listing[DeviceIdentity] {
	return &Listing[DeviceIdentity]{
		client:    d.client,
		operation: "list device identities",
		path:      deviceIdentitiesPath,
		plural:    "device_identities",
		normalise: (*DeviceIdentity).normalise,
		refine:    noCollection,
	}
}

// Get reads one device identity.
func (d *DeviceIdentityClient) Get(ctx context.Context, id string) (*DeviceIdentity, error) {
	return d.one(ctx, request{operation: "get device identity", method: http.MethodGet}, id)
}

// Create registers a key. The request has to be signed with the key's private
// half, for this client's access token and address. The older revision ignores
// the tags: compare the result and use [DeviceIdentityClient.Update].
func (d *DeviceIdentityClient) Create(ctx context.Context, signed *SignedIdentity) (*DeviceIdentity, error) {
	const operation = "create device identity"
	if signed.request.token != d.client.token || signed.request.baseURL != d.client.BaseURL() {
		return nil, &Error{
			Operation: operation,
			detail:    "the request was signed for another access token or another address of the API: sign it anew",
			kinds:     []error{ErrInvalid},
		}
	}
	made := &DeviceIdentity{}
	err := d.client.doInto(ctx, request{
		operation: operation,
		method:    http.MethodPost,
		path:      deviceIdentitiesPath,
		body:      signed.request.body,
		signature: signed.signature,
	}, made)
	if err != nil {
		return nil, err
	}
	return made, nil
}

// Update changes a device identity and returns what it is then. Once a device has
// signed in with it, the API ignores DeviceName and Tags without saying so:
// compare the result.
func (d *DeviceIdentityClient) Update(ctx context.Context, id string, update DeviceIdentityUpdate) (*DeviceIdentity, error) {
	update.Tags = replaced(update.Tags)
	return d.one(ctx, request{operation: "update device identity", method: http.MethodPatch, body: encode(update)}, id)
}

// Delete removes a device identity. If a device has signed in with it, that
// device is deleted too, and signed out.
func (d *DeviceIdentityClient) Delete(ctx context.Context, id string) error {
	const operation = "delete device identity"
	path, err := pathTo(operation, deviceIdentitiesPath, id)
	if err != nil {
		return err
	}
	return d.client.do(ctx, request{operation: operation, method: http.MethodDelete, path: path})
}

func (d *DeviceIdentityClient) one(ctx context.Context, req request, id string) (*DeviceIdentity, error) {
	var err error
	if req.path, err = pathTo(req.operation, deviceIdentitiesPath, id); err != nil {
		return nil, err
	}
	found := &DeviceIdentity{}
	if err := d.client.doInto(ctx, req, found); err != nil {
		return nil, err
	}
	return found, nil
}
