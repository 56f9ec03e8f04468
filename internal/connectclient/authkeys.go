// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"errors"
	"net/http"
	"time"
)

const authKeysPath = "/organisation/auth-keys"

// AuthKey is a single-use secret that signs one device in.
type AuthKey struct {
	ID          string `json:"id"`
	Description string `json:"description"`
	// DeviceName is what the device will be called; empty leaves it to the
	// device.
	DeviceName string `json:"device_name"`
	// Tags the device will have; nil if none.
	Tags []string `json:"tags"`
	// Secret is the key itself. Only [AuthKeyClient.Create] answers it, once.
	Secret    Secret    `json:"secret"`
	ExpiresAt time.Time `json:"expires_at"`
	// ExchangedAt is when a device used the key; nil until then, and always
	// on the older revision.
	ExchangedAt *time.Time `json:"exchanged_at"`
	// CreatedAt is zero on the older revision.
	CreatedAt time.Time `json:"created_at"`
}

func (k *AuthKey) normalise() string {
	k.Tags = noneIsNil(k.Tags)
	return k.ID
}

// AuthKeyCreate is a new auth key.
type AuthKeyCreate struct {
	Description string   `json:"description"`
	DeviceName  string   `json:"device_name,omitempty"`
	Tags        []string `json:"tags,omitempty"`
	// TTLDays is the key's lifetime in days, 1 to 90; 0 leaves it to the
	// API, which gives it 1.
	TTLDays int `json:"ttl_days,omitempty"`
}

// AuthKeyUpdate changes an auth key; nil leaves a field as it is, and Tags
// replaces all of them.
type AuthKeyUpdate struct {
	Description *string   `json:"description,omitempty"`
	DeviceName  *string   `json:"device_name,omitempty"`
	Tags        *[]string `json:"tags,omitempty"`
}

// AuthKeyClient calls the API about auth keys. The older revision only makes
// them; everything else is [ErrUnsupported] there.
type AuthKeyClient struct{ client *Client }

// AuthKeys has the calls about auth keys.
func (c *Client) AuthKeys() *AuthKeyClient { return &AuthKeyClient{c} }

// List opens a listing of the organisation's auth keys: usable ones, then expired,
// then exchanged, the newest of each first, and none with its secret.
//
// This listing tells the API's revisions apart: the older does not have it. It is
// asked every time, so that a service that was upgraded is recognised.
func (k *AuthKeyClient) List() *Listing[AuthKey] {
	return &Listing[AuthKey]{
		client:    k.client,
		operation: "list auth keys",
		path:      authKeysPath,
		plural:    "auth_keys",
		normalise: (*AuthKey).normalise,
		refine:    k.refineListing,
	}
}

// refineListing tells a service that has no such listing from one that is broken.
func (k *AuthKeyClient) refineListing(err error) error {
	if e, ok := errors.AsType[*Error](err); ok && k.client.Revision() == RevisionOlder && (e.Is(ErrNotFound) || e.Is(ErrUnsupported)) {
		return unsupported(e.Operation)
	}
	return noCollection(err)
}

// Get reads one auth key, without its secret.
func (k *AuthKeyClient) Get(ctx context.Context, id string) (*AuthKey, error) {
	return k.one(ctx, request{operation: "get auth key", method: http.MethodGet}, id)
}

// Create mints a key. Its secret is in the result and nowhere else ever again.
func (k *AuthKeyClient) Create(ctx context.Context, create AuthKeyCreate) (*AuthKey, error) {
	req := request{operation: "create auth key", method: http.MethodPost, path: authKeysPath, body: encode(create)}
	made := &AuthKey{}
	if err := k.client.doInto(ctx, req, made); err != nil {
		return nil, err
	}
	if made.Secret.IsZero() {
		return nil, garbageError(&req, &answer{status: http.StatusCreated}, "without the key's secret")
	}
	return made, nil
}

// Update changes a key that is still usable; any other is [ErrNotEditable].
func (k *AuthKeyClient) Update(ctx context.Context, id string, update AuthKeyUpdate) (*AuthKey, error) {
	update.Tags = replaced(update.Tags)
	key, err := k.one(ctx, request{operation: "update auth key", method: http.MethodPatch, body: encode(update)}, id)
	return key, classify(err, http.StatusUnprocessableEntity, "no longer be edited", ErrNotEditable)
}

// Delete revokes a key, in whatever state it is. A device that used it is
// unaffected.
func (k *AuthKeyClient) Delete(ctx context.Context, id string) error {
	const operation = "delete auth key"
	path, err := pathTo(operation, authKeysPath, id)
	if err != nil {
		return err
	}
	return k.client.do(ctx, request{operation: operation, method: http.MethodDelete, path: path, currentOnly: true})
}

func (k *AuthKeyClient) one(ctx context.Context, req request, id string) (*AuthKey, error) {
	var err error
	req.currentOnly = true
	if req.path, err = pathTo(req.operation, authKeysPath, id); err != nil {
		return nil, err
	}
	found := &AuthKey{}
	if err := k.client.doInto(ctx, req, found); err != nil {
		return nil, err
	}
	return found, nil
}
