// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// This is the side of the API that devices talk to, as the vendor's clients do.

// deviceSideRoutes is what devices ask, with their own tokens or none.
var deviceSideRoutes = []route{
	{"GET", "/up", "", up},
	{"POST", "/client/auth-key-exchange", "", exchangeAuthKey},
	{"POST", "/client/device-identity-exchange", "", exchangeIdentity},
	{"POST", "/me", "", declare},
	{"GET", "/events", "", events},
	{"GET", "/deployments/pending", "", pendingDeployments},
	{"POST", "/deployments/{id}/start", "", startDeployment},
	{"POST", "/deployments/{id}/complete", "", completeDeployment},
	{"POST", "/deployments/{id}/fail", "", failDeployment},
}

// timestampHeader dates a request, against replays.
const timestampHeader = "X-Connect-Timestamp"

// maxSkew is how far a device's clock may be off; "minutes" is all that is known.
const maxSkew = 5 * time.Minute

// up says that the server is there, and what time it is: a Pico has no clock.
func up(c *call) reply {
	c.out.Set("X-Timestamp", strconv.FormatInt(c.server.options.Now().Unix(), 10))
	return reply{http.StatusOK, html("<!DOCTYPE html><html><body></body></html>")}
}

// authenticated finds the device of a request.
func (c *call) authenticated() bool {
	token := c.token()
	for _, o := range c.server.organisations {
		if d := o.devices.find(token); d != nil && d.token == token {
			c.org, c.device = o, d
			return true
		}
	}
	return false
}

// exchangeAuthKey signs a device in with an auth key, once.
func exchangeAuthKey(c *call) reply {
	p, _ := c.params(false)
	secret, _ := p.text("auth_key")
	host, _ := p.text("hostname")
	serial, _ := p.text("serial_number")
	for _, o := range c.server.organisations {
		k := o.authKeys.find(secret)
		if k == nil || !k.Usable(c.server.options.Now()) {
			continue
		}
		k.ExchangedAt = c.server.now()
		known := o.devices.find(serialKey(serial))
		d := o.signIn(known, Device{Name: orElse(k.DeviceName, host), SerialNumber: serial, Tags: k.Tags})
		return ok(object{"access_token": d.token})
	}
	return c.unauthorized()
}

// exchangeIdentity makes a device of an identity: it is the device that proves to
// hold the key.
func exchangeIdentity(c *call) reply {
	p, _ := c.params(false)
	text, _ := p.text("public_key")
	host, _ := p.text("hostname")
	serial, _ := p.text("serial_number")
	key := parseKey(text)
	expected := c.toBeSigned("Content-Type", "Accept", timestampHeader)
	switch {
	case key == nil:
		return c.unauthorized()
	case !c.onTime():
		return c.unpublished(http.StatusForbidden, "The request is too old, or the clock is wrong")
	case !c.signed(key, expected):
		return c.badSignature(http.StatusUnauthorized, "Unauthorized", expected)
	}
	for _, o := range c.server.organisations {
		i := o.identities.find(fingerprint(key))
		if i == nil {
			continue
		}
		known := o.devices.byID[i.DeviceID] // its key is burnt into the board
		if known == nil {
			known = o.devices.find(serialKey(serial))
		}
		d := o.signIn(known, Device{Name: orElse(i.DeviceName, host), SerialNumber: serial, Tags: i.Tags, IdentityID: i.ID})
		i.DeviceID = d.ID
		return ok(object{"device_id": d.ID, "access_token": d.token})
	}
	return c.notFound()
}

// onTime tells whether a request that is dated is so by about the server's clock.
func (c *call) onTime() bool {
	text := c.Header.Get(timestampHeader)
	if text == "" {
		return true
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	return err == nil && c.server.options.Now().Sub(time.Unix(seconds, 0)).Abs() <= maxSkew
}

// signIn gives a board a token of its own. A board that is known stays the device
// that it was, under its name, whatever it signs in with this time; the token that
// it had is no longer good. What becomes of its tags then is unpublished: those of
// the new key are taken, if it has any.
func (o *Organisation) signIn(known *Device, d Device) *Device {
	d.token = NewSecret("rpdev_")
	if known == nil {
		return o.addDevice(d)
	}
	o.devices.change(known.ID, func(k *Device) {
		k.token = d.token
		if d.IdentityID != "" {
			k.IdentityID = d.IdentityID
		}
		if len(d.Tags) > 0 {
			k.Tags = d.Tags
		}
	})
	o.server.touch()
	return known
}

// declare takes what a device can do. What it does not name stays as it was.
func declare(c *call) reply {
	if !c.authenticated() {
		return c.unauthorized()
	}
	p, valid := c.params(false)
	declared, validOnes := p.capabilities()
	if !valid || !validOnes {
		return validation("Capabilities are invalid")
	}
	all := maps.Clone(c.device.Capabilities)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, declared)
	c.device.Capabilities = all
	c.server.touch()
	return reply{http.StatusNoContent, nil}
}

// pendingDeployments is what a device asks for when it boots.
func pendingDeployments(c *call) reply {
	if !c.authenticated() {
		return c.unauthorized()
	}
	rows := []object{}
	for _, d := range c.org.deploymentsOf(c.device.ID) {
		if d.State == Pending {
			rows = append(rows, object{"id": d.ID})
		}
	}
	if len(rows) == 0 {
		return reply{http.StatusNoContent, nil}
	}
	return ok(object{"deployments": rows})
}

// own finds the device's own deployment, if it is in the state that it has to
// leave.
func (c *call) own(state string) (*Deployment, *reply) {
	if !c.authenticated() {
		r := c.unauthorized()
		return nil, &r
	}
	d, found := c.org.deployments[c.PathValue("id")]
	if !found || d.DeviceID != c.device.ID {
		r := c.notFound()
		return nil, &r
	}
	if d.State != state {
		r := invalid(`Deployment is in state "` + d.State + `"`)
		return nil, &r
	}
	return d, nil
}

// startDeployment tells the device what to install. What is signed in the answer,
// and by whose key, is unpublished.
func startDeployment(c *call) reply {
	d, refusal := c.own(Pending)
	if refusal != nil {
		return *refusal
	}
	artefact, found := c.org.artefacts.byID[d.ArtefactID]
	if !found {
		return c.notFound()
	}
	c.org.move(d, InProgress, "")
	return ok(object{
		"artefact":  object{"uri": artefact.URI, "checksum": artefact.Checksum},
		"timestamp": c.server.options.Now().Unix(),
		"signature": NewSecret(""),
	})
}

func completeDeployment(c *call) reply {
	d, refusal := c.own(InProgress)
	if refusal != nil {
		return *refusal
	}
	c.org.move(d, Succeeded, "")
	return reply{http.StatusNoContent, nil}
}

func failDeployment(c *call) reply {
	d, refusal := c.own(InProgress)
	if refusal != nil {
		return *refusal
	}
	p, _ := c.params(false)
	reason, _ := p.text("reason")
	c.org.move(d, Failed, reason)
	return reply{http.StatusNoContent, nil}
}

// capabilities are the features that a body names, each in one of three states.
func (p params) capabilities() (all map[string]string, valid bool) {
	raw, given := p["capabilities"]
	if !given {
		return nil, false
	}
	if json.Unmarshal(raw, &all) != nil {
		return nil, false
	}
	for _, state := range all {
		if !slices.Contains([]string{"enabled", "available", "unavailable"}, state) {
			return nil, false
		}
	}
	return all, true
}
