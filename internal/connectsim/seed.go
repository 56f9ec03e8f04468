// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Seed is what there is to begin with.
type Seed struct {
	Organisations []SeedOrganisation `json:"organisations"`
}

// SeedOrganisation is an organisation and what is in it. One whose name or token
// is known already gets more; one with neither is a new one, with a token of its
// own.
type SeedOrganisation struct {
	Name  string `json:"name,omitempty"`
	Token string `json:"token,omitempty"` // rporg_…

	Artefacts        []SeedArtefact   `json:"artefacts,omitempty"`
	AuthKeys         []SeedAuthKey    `json:"auth_keys,omitempty"`
	DeviceIdentities []SeedIdentity   `json:"device_identities,omitempty"`
	Devices          []SeedDevice     `json:"devices,omitempty"`
	Deployments      []SeedDeployment `json:"deployments,omitempty"`
	// Pis are virtual Raspberry Pis; their organisation is this one.
	Pis []VirtualPi `json:"pis,omitempty"`
}

// SeedArtefact is an artefact.
type SeedArtefact struct {
	Name     string `json:"name"`
	URI      string `json:"uri,omitempty"`      // default: one at example.com
	Checksum string `json:"checksum,omitempty"` // default: of nothing in particular
	// Deployed artefacts can never be deleted.
	Deployed bool `json:"deployed,omitempty"`
}

// SeedAuthKey is an auth key.
type SeedAuthKey struct {
	Description string   `json:"description"`
	DeviceName  string   `json:"device_name,omitempty"`
	Tags        []string `json:"tags,omitempty"`
	TTLDays     int      `json:"ttl_days,omitempty"` // 1 to 90; default 1
	Secret      string   `json:"secret,omitempty"`   // rpoak_…; default: a new one
	Expired     bool     `json:"expired,omitempty"`
	Exchanged   bool     `json:"exchanged,omitempty"`
}

// SeedIdentity is a device identity.
type SeedIdentity struct {
	Description string   `json:"description"`
	DeviceName  string   `json:"device_name,omitempty"`
	Tags        []string `json:"tags,omitempty"`
	PublicKey   string   `json:"public_key,omitempty"` // PEM; default: of a key that nobody has
	// Device is the name or the serial number of the device that it has
	// become.
	Device string `json:"device,omitempty"`
}

// SeedDevice is a device that is signed in.
type SeedDevice struct {
	Name         string   `json:"name"`
	SerialNumber string   `json:"serial_number,omitempty"` // default: one that no other has
	Tags         []string `json:"tags,omitempty"`
	Token        string   `json:"token,omitempty"` // rpdev_…; default: a new one

	Board
}

// SeedDeployment is a deployment. They were made in the order in which they stand.
type SeedDeployment struct {
	Device      string `json:"device"`          // name or serial number
	Artefact    string `json:"artefact"`        // name
	State       string `json:"state,omitempty"` // default pending
	StateReason string `json:"state_reason,omitempty"`
}

// ReadSeed reads a seed in JSON. Unknown fields are errors.
func ReadSeed(r io.Reader) (Seed, error) {
	var seed Seed
	text, err := io.ReadAll(r)
	if err != nil {
		return seed, err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	err = decoder.Decode(&seed)
	if err == nil && decoder.More() {
		err = errors.New("there is more than one JSON value")
	}
	offset := int64(-1)
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
		offset = syntax.Offset
	}
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		offset = wrong.Offset
	}
	if offset >= 0 {
		err = fmt.Errorf("line %d: %w", 1+bytes.Count(text[:min(int(offset), len(text))], []byte("\n")), err)
	}
	return seed, err
}

// Seed makes what a seed describes, or nothing if there is a mistake in it. It
// returns the virtual Pis, which are for [Admin.PlugIn].
func (s *Server) Seed(seed Seed) (pis []VirtualPi, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	names, tokens := map[string]bool{}, map[string]bool{}
	for i, so := range seed.Organisations {
		if err := s.checkSeed(so, names, tokens); err != nil {
			return nil, fmt.Errorf("organisations[%d]: %w", i, err)
		}
	}
	for _, so := range seed.Organisations {
		o := s.seeded(so)
		if o == nil {
			o = s.addOrganisation(so.Name, orElse(so.Token, NewSecret("rporg_")))
		}
		if so.Token != "" {
			s.byToken[so.Token] = o
		}
		o.sow(so)
		for _, pi := range so.Pis {
			pi.Organisation = o.name
			pis = append(pis, pi)
		}
	}
	s.touch()
	return pis, nil
}

// seeded is the organisation that is known by a seed's token or name; nil if there
// is none.
func (s *Server) seeded(so SeedOrganisation) *Organisation {
	if o := s.byToken[so.Token]; o != nil {
		return o
	}
	for _, o := range s.organisations {
		if o.name == so.Name {
			return o
		}
	}
	return nil
}

// checkSeed looks at one organisation of a seed, and at its name and token among
// those of the others.
func (s *Server) checkSeed(so SeedOrganisation, names, tokens map[string]bool) error {
	o := s.seeded(so)
	if o == nil {
		o = s.emptyOrganisation(so.Name)
	}
	switch {
	case so.Name != "" && names[so.Name]:
		return mistake("the name %q comes twice", so.Name)
	case so.Token != "" && tokens[so.Token]:
		return mistake("two organisations have the same token")
	case so.Token != "" && s.byToken[so.Token] == nil:
		if err := s.checkToken(so.Token); err != nil {
			return err
		}
	case so.Name != "" && o.name != so.Name:
		return mistake("the token of %q opens %s", so.Name, o.name)
	}
	names[so.Name], tokens[so.Token] = true, true
	return o.checkSeed(so)
}

// checkSeed tells what of the seed cannot be in the organisation.
func (o *Organisation) checkSeed(so SeedOrganisation) error {
	known := seen{artefacts: map[string]bool{}, names: map[string]int{}, serials: map[string]bool{}, keys: map[string]bool{}, secrets: map[string]bool{}}
	for _, a := range o.artefacts.sorted {
		known.artefacts[a.Name] = true
	}
	for _, d := range o.devices.sorted {
		known.device(d.Name, d.SerialNumber)
	}
	for _, i := range o.identities.sorted {
		known.keys[i.fingerprint] = true
	}
	hosts := map[string]bool{}
	return errors.Join(
		checkAll("artefacts", so.Artefacts, known.checkArtefact),
		checkAll("auth_keys", so.AuthKeys, known.checkAuthKey),
		checkAll("devices", so.Devices, known.checkDevice),
		checkAll("device_identities", so.DeviceIdentities, known.checkIdentity),
		checkAll("deployments", so.Deployments, known.checkDeployment),
		checkAll("pis", so.Pis, func(v VirtualPi) error {
			if hosts[v.Hostname] {
				return alreadyPluggedIn(v.Hostname)
			}
			hosts[v.Hostname] = true
			return v.check()
		}),
	)
}

// checkAll says which of a list is mistaken.
func checkAll[T any](name string, all []T, check func(T) error) error {
	for i, one := range all {
		if err := check(one); err != nil {
			return fmt.Errorf("%s[%d]: %w", name, i, err)
		}
	}
	return nil
}

// seen is what an organisation has, or will have of what was checked before.
type seen struct {
	artefacts, serials, keys, secrets map[string]bool
	names                             map[string]int // how many devices have a name
}

// device notes a device by what it is referred to by.
func (k seen) device(name, serial string) {
	k.names[name]++
	k.serials[serialKey(serial)] = true
}

// refers checks a reference to a device.
func (k seen) refers(device string) error {
	n := k.names[device]
	switch {
	case n == 1 || device != "" && k.serials[serialKey(device)]:
		return nil
	case n == 0:
		return mistake("there is no device %q", device)
	default:
		return mistake("%d devices are called %q", n, device)
	}
}

func (k seen) checkArtefact(a SeedArtefact) error {
	switch {
	case strings.TrimSpace(a.Name) == "":
		return mistake("an artefact has a name")
	case k.artefacts[a.Name]:
		return mistake("the name %q is taken", a.Name)
	case a.Checksum != "" && !isHex(a.Checksum, 64):
		return mistake("the checksum of %q is no SHA-256 in hex", a.Name)
	}
	k.artefacts[a.Name] = true
	return nil
}

func (k seen) checkAuthKey(key SeedAuthKey) error {
	switch {
	case strings.TrimSpace(key.Description) == "":
		return mistake("an auth key has a description")
	case key.TTLDays < 0 || key.TTLDays > 90:
		return mistake("ttl_days of %q is from 1 to 90", key.Description)
	case !goodTags(key.Tags):
		return badTags(key.Description)
	case key.Secret != "" && (!strings.HasPrefix(key.Secret, "rpoak_") || k.secrets[key.Secret]):
		return mistake("the secret of %q begins with rpoak_, and is its own", key.Description)
	}
	k.secrets[key.Secret] = true
	return nil
}

func (k seen) checkDevice(d SeedDevice) error {
	switch {
	case strings.TrimSpace(d.Name) == "":
		return mistake("a device has a name")
	case d.SerialNumber != "" && k.serials[serialKey(d.SerialNumber)]:
		return mistake("there is a device with the serial number %q already", d.SerialNumber)
	case !goodTags(d.Tags):
		return badTags(d.Name)
	case d.Token != "" && (!strings.HasPrefix(d.Token, "rpdev_") || k.secrets[d.Token]):
		return mistake("the token of %q begins with rpdev_, and is its own", d.Name)
	}
	k.secrets[d.Token] = true
	k.device(d.Name, d.SerialNumber)
	return d.check()
}

func (k seen) checkIdentity(i SeedIdentity) error {
	key := parseKey(i.PublicKey)
	switch {
	case strings.TrimSpace(i.Description) == "":
		return mistake("a device identity has a description")
	case !goodTags(i.Tags):
		return badTags(i.Description)
	case i.PublicKey != "" && key == nil:
		return mistake("the public key of %q is none on P-256, in PEM", i.Description)
	case key != nil && k.keys[fingerprint(key)]:
		return mistake("the public key of %q is registered already", i.Description)
	}
	if key != nil {
		k.keys[fingerprint(key)] = true
	}
	if i.Device != "" {
		return k.refers(i.Device)
	}
	return nil
}

func (k seen) checkDeployment(d SeedDeployment) error {
	switch {
	case !k.artefacts[d.Artefact]:
		return mistake("there is no artefact %q", d.Artefact)
	case d.State != "" && !slices.Contains(states, d.State):
		return mistake("there is no state %q: give one of %s", d.State, strings.Join(states, ", "))
	case d.StateReason != "" && d.State != Failed:
		return mistake("only a failed deployment has a state_reason")
	}
	return k.refers(d.Device)
}

func badTags(name string) error {
	return mistake("%q has at most 10 tags of lowercase letters, digits, - and _, each at most 30 long", name)
}

// sow makes what was checked before. The lock is held.
func (o *Organisation) sow(so SeedOrganisation) {
	for _, a := range so.Artefacts {
		made := o.addArtefact(a.Name, orElse(a.URI, "https://example.com/"+a.Name+".tar.zst"), orElse(a.Checksum, strings.Repeat("0", 64)))
		made.Deployed = a.Deployed
	}
	for _, k := range so.AuthKeys {
		made := o.addAuthKey(AuthKey{Description: k.Description, DeviceName: k.DeviceName, Tags: k.Tags, Secret: k.Secret}, max(1, k.TTLDays))
		if k.Expired {
			made.ExpiresAt = made.CreatedAt
		}
		if k.Exchanged {
			made.ExchangedAt = made.CreatedAt
		}
	}
	for _, d := range so.Devices {
		device := Device{Name: d.Name, SerialNumber: orElse(d.SerialNumber, newSerial()), Tags: d.Tags, token: orElse(d.Token, NewSecret("rpdev_"))}
		d.describe(&device)
		o.addDevice(device)
	}
	for _, i := range so.DeviceIdentities {
		made := o.addIdentity(Identity{Description: i.Description, DeviceName: i.DeviceName, Tags: i.Tags, PublicKey: orElse(i.PublicKey, publicPEM(newKey()))})
		if d := o.deviceCalled(i.Device); d != nil {
			made.DeviceID, d.IdentityID = d.ID, made.ID
		}
	}
	for _, d := range so.Deployments {
		device, artefact := o.deviceCalled(d.Device), o.artefacts.find(d.Artefact)
		artefact.Deployed = true
		o.supersede(device.ID)
		made := o.addDeployment(device.ID, artefact.ID)
		o.move(made, orElse(d.State, Pending), d.StateReason)
	}
}

// deviceCalled finds a device by its name or its serial number; nil if there is
// none.
func (o *Organisation) deviceCalled(name string) *Device {
	if d := o.devices.find(serialKey(name)); d != nil {
		return d
	}
	at := slices.IndexFunc(o.devices.sorted, func(d *Device) bool { return name != "" && d.Name == name })
	if at < 0 {
		return nil
	}
	return o.devices.sorted[at]
}
