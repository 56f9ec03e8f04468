// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"strings"
	"time"
)

var identityRoutes = []route{
	{"POST", "/organisation/device-identities", "", createIdentity},
	{"GET", "/organisation/device-identities", "", listIdentities},
	{"GET", "/organisation/device-identities/{id}", "", getIdentity},
	{"PATCH", "/organisation/device-identities/{id}", "", updateIdentity},
	{"DELETE", "/organisation/device-identities/{id}", "", deleteIdentity},
}

// identityRows is what others can do to the listing.
var identityRows = &rows{
	insert: func(o *Organisation, name string) {
		o.addIdentity(Identity{Description: name, PublicKey: publicPEM(newKey())})
	},
	remove: func(o *Organisation, name string) { each(o.identities, name, descriptionOf, o.removeIdentity) },
	rename: func(o *Organisation, name, to string) {
		each(o.identities, name, descriptionOf, func(i *Identity) {
			o.identities.change(i.ID, func(i *Identity) { i.Description = to })
		})
	},
}

// Identity lets the device with a key sign in.
type Identity struct {
	ID, Description, DeviceName, PublicKey string
	Tags                                   []string
	CreatedAt                              time.Time
	// DeviceID is the device that it has become; empty until it was
	// exchanged. The API never shows it.
	DeviceID string

	fingerprint string // of the key, however its PEM is written
}

func showIdentity(i *Identity) object {
	return object{
		"id": i.ID, "description": i.Description, "device_name": orNull(i.DeviceName),
		"created_at": stamp(i.CreatedAt), "public_key": i.PublicKey, "tags": tagged(i.Tags),
	}
}

func createIdentity(c *call) reply {
	p, valid := c.params(false)
	if !valid {
		return c.bad("The body cannot be parsed")
	}
	text, _ := p.text("public_key")
	description, _ := p.text("description")
	name, _ := p.text("device_name")
	tags, _, validTags := p.tags()
	key := parseKey(text)
	expected := c.toBeSigned("Authorization", "Content-Type", "Accept")
	switch {
	case key == nil:
		return validation("Public key is invalid")
	case strings.TrimSpace(description) == "":
		return validation("Description can't be blank")
	case !c.older() && (!validTags || !goodTags(tags)):
		return validation("Tags are invalid")
	case !c.signed(key, expected):
		return c.badSignature(http.StatusUnprocessableEntity, "Validation failed: Signature is invalid", expected)
	case c.org.identities.find(fingerprint(key)) != nil:
		return validation("Public key has already been taken")
	}
	if c.older() {
		tags = nil
	}
	i := c.org.addIdentity(Identity{Description: description, DeviceName: name, PublicKey: text, Tags: tags})
	answer := showIdentity(i)
	if c.older() {
		delete(answer, "tags")
	}
	return created(answer)
}

func listIdentities(c *call) reply {
	return page(c, "device_identities", c.org.identities.sorted, showIdentity)
}

func getIdentity(c *call) reply {
	return get(c, c.org.identities, showIdentity)
}

func updateIdentity(c *call) reply {
	i, p, refusal := toChange(c, c.org.identities)
	if refusal != nil {
		return *refusal
	}
	description, hasDescription := p.text("description")
	tags, hasTags, validTags := p.tags()
	switch {
	case hasDescription && strings.TrimSpace(description) == "":
		return validation("Description can't be blank")
	case i.DeviceID == "" && (!validTags || !goodTags(tags)):
		return validation("Tags are invalid")
	}
	c.org.identities.change(i.ID, func(i *Identity) {
		if hasDescription {
			i.Description = description
		}
		if i.DeviceID != "" {
			return // the rest is ignored from now on, without a word
		}
		if _, has := p["device_name"]; has {
			i.DeviceName, _ = p.text("device_name")
		}
		if hasTags {
			i.Tags = tags
		}
	})
	c.server.touch()
	return ok(showIdentity(i))
}

func deleteIdentity(c *call) reply {
	i, found := c.org.identities.byID[c.PathValue("id")]
	if !found {
		return c.notFound()
	}
	c.org.removeIdentity(i)
	return c.deleted(showIdentity(i))
}

// removeIdentity takes the device with it that the identity has become.
func (o *Organisation) removeIdentity(i *Identity) {
	if d, found := o.devices.byID[i.DeviceID]; found {
		o.removeDevice(d)
	}
	o.identities.remove(i.ID)
	o.server.touch()
}

// addIdentity registers a key that has been parsed before.
func (o *Organisation) addIdentity(i Identity) *Identity {
	i.ID, i.CreatedAt, i.fingerprint = newID(), o.server.now(), fingerprint(parseKey(i.PublicKey))
	o.identities.add(i.ID, &i)
	o.server.touch()
	return &i
}

// fingerprint is the same for the same key: its DER.
func fingerprint(key *ecdsa.PublicKey) string {
	der, _ := x509.MarshalPKIXPublicKey(key) // P-256 always has one
	return string(der)
}

// parseKey reads a public key on P-256; nil if it is none.
func parseKey(text string) *ecdsa.PublicKey {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil
	}
	return key
}

// newKey is the key of a device.
func newKey() *ecdsa.PrivateKey {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader) // never fails
	return key
}

// publicPEM is the public half of a key in PEM.
func publicPEM(key *ecdsa.PrivateKey) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte(fingerprint(&key.PublicKey))}))
}

// DeviceIdentities returns the organisation's identities.
func (o *Organisation) DeviceIdentities() []Identity {
	o.server.mu.Lock()
	defer o.server.mu.Unlock()
	return copies(o.identities.sorted)
}

// AddDeviceIdentity registers a key, as the vendor's provisioner does; it returns
// the zero Identity if the key is none.
func (o *Organisation) AddDeviceIdentity(publicKey, description, deviceName string, tags []string) Identity {
	o.server.mu.Lock()
	defer o.server.mu.Unlock()
	if parseKey(publicKey) == nil {
		return Identity{}
	}
	return *o.addIdentity(Identity{Description: description, DeviceName: deviceName, PublicKey: publicKey, Tags: tags})
}

// ChangeDeviceIdentity changes an identity, as another person would.
func (o *Organisation) ChangeDeviceIdentity(id string, change func(*Identity)) {
	alter(o, o.identities, id, change)
}

// RemoveDeviceIdentity removes an identity, as another person would.
func (o *Organisation) RemoveDeviceIdentity(id string) {
	o.server.mu.Lock()
	defer o.server.mu.Unlock()
	if i, found := o.identities.byID[id]; found {
		o.removeIdentity(i)
	}
}
