// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// VirtualPi describes a virtual Raspberry Pi that the admin interface plugs in.
type VirtualPi struct {
	// Hostname is what it is called, here and by default in the organisation.
	Hostname string `json:"hostname"`
	// SerialNumber of the board; default: one that no other has.
	SerialNumber string `json:"serial_number,omitempty"`
	// Organisation is the name of the one that it belongs to; default: the
	// first.
	Organisation string `json:"organisation,omitempty"`
	// AuthKey (rpoak_…) and Identity are how it signs in: with a key, or with
	// an identity that is registered for it. Without either it is signed in
	// already.
	AuthKey  string `json:"auth_key,omitempty"`
	Identity bool   `json:"identity,omitempty"`
	// Tags that the device gets; those of an auth key are the key's.
	Tags []string `json:"tags,omitempty"`

	Board
	Steering
}

// Board is what a device is known to be, in the words of queries.
type Board struct {
	Model  string `json:"model,omitempty"`  // such as 5, 4b, cm5lite
	Memory string `json:"memory,omitempty"` // such as 8gb
	OS     string `json:"os,omitempty"`     // such as raspios-13
	// OldClient is a device whose client is older than 2.9.0: nothing of the
	// above is known.
	OldClient bool `json:"old_client,omitempty"`
}

func (b Board) check() error {
	if b.OldClient && b.Model+b.Memory+b.OS != "" {
		return mistake("of a device with an old client nobody knows the model, the memory and the OS")
	}
	return checkBoard(b.Model, b.Memory, b.OS)
}

// describe puts onto a device what is known of it.
func (b Board) describe(d *Device) { d.Model, d.Memory, d.OS = b.Model, b.Memory, b.OS }

// Steering is how a virtual Pi behaves. What is not given stays as it is.
type Steering struct {
	Offline          *bool    `json:"offline,omitempty"`
	FailWith         *string  `json:"fail_with,omitempty"`
	FailShare        *float64 `json:"fail_share,omitempty"`
	FailURI          *string  `json:"fail_uri,omitempty"`
	RemoteUpdate     *bool    `json:"remote_update,omitempty"`
	WorkMilliseconds *int     `json:"work_milliseconds,omitempty"`
	PollMilliseconds *int     `json:"poll_milliseconds,omitempty"`
}

func (s Steering) check() error {
	if s.WorkMilliseconds != nil && *s.WorkMilliseconds < 0 || s.PollMilliseconds != nil && *s.PollMilliseconds <= 0 {
		return mistake("work_milliseconds is not negative, and poll_milliseconds is more than nothing")
	}
	if s.FailShare != nil && (*s.FailShare < 0 || *s.FailShare > 1) {
		return mistake("fail_share is between 0 and 1; 0 stands for every deployment")
	}
	return nil
}

// steer changes a behaviour.
func (s Steering) steer(b *Behaviour) {
	set(&b.Offline, s.Offline)
	set(&b.FailWith, s.FailWith)
	set(&b.FailShare, s.FailShare)
	set(&b.FailURI, s.FailURI)
	if s.RemoteUpdate != nil {
		b.RemoteUpdateOff = !*s.RemoteUpdate
	}
	if s.WorkMilliseconds != nil {
		b.WorkTime = time.Duration(*s.WorkMilliseconds) * time.Millisecond
	}
	if s.PollMilliseconds != nil {
		b.Every = time.Duration(*s.PollMilliseconds) * time.Millisecond
	}
}

func set[T any](field, value *T) {
	if value != nil {
		*field = *value
	}
}

// running is a virtual Pi that is plugged in.
type running struct {
	*Pi

	organisation *Organisation
	stop         context.CancelFunc
}

func (v VirtualPi) check() error {
	switch {
	case strings.TrimSpace(v.Hostname) == "" || strings.Contains(v.Hostname, "/"):
		return mistake("a Pi needs a hostname, without a slash")
	case v.AuthKey != "" && v.Identity:
		return mistake("a Pi signs in with an auth key or with an identity: give one of them")
	case v.AuthKey != "" && v.Tags != nil:
		return mistake("the tags of a Pi that signs in with an auth key are the key's")
	case !goodTags(v.Tags):
		return badTags(v.Hostname)
	}
	if err := v.Board.check(); err != nil {
		return err
	}
	return v.Steering.check()
}

// PlugIn starts a virtual Pi; it returns when the Pi is signed in.
func (a *Admin) PlugIn(ctx context.Context, v VirtualPi) error {
	if err := v.check(); err != nil {
		return err
	}
	if a.known(v.Hostname) {
		return alreadyPluggedIn(v.Hostname)
	}
	a.server.mu.Lock()
	o, err := a.server.organisationNamed(v.Organisation)
	a.server.mu.Unlock()
	if err != nil {
		return err
	}
	if v.SerialNumber == "" {
		v.SerialNumber = newSerial()
	}
	pi := NewPi(a.baseURL, v.Hostname, v.SerialNumber)
	pi.publicURL = a.server.options.PublicURL
	if strings.HasPrefix(a.baseURL, "https://") {
		// It is this program that it talks to, whoever issued the certificate.
		pi.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}}
	}
	if err := v.signIn(ctx, pi, o); err != nil {
		return mistake("%s cannot sign in: %w", v.Hostname, err)
	}
	var b Behaviour
	v.steer(&b)
	pi.Behave(b)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.pis[v.Hostname] != nil {
		return alreadyPluggedIn(v.Hostname)
	}
	life, stop := context.WithCancel(a.ctx)
	a.pis[v.Hostname] = &running{Pi: pi, organisation: o, stop: stop}
	go pi.Run(life)
	return nil
}

func alreadyPluggedIn(hostname string) error {
	return mistake("there is a Pi called %s already", hostname)
}

func (a *Admin) known(hostname string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pis[hostname] != nil
}

// signIn signs the Pi in and lets its client report the board.
func (v VirtualPi) signIn(ctx context.Context, pi *Pi, o *Organisation) error {
	switch {
	case v.AuthKey != "":
		if err := pi.SignInWithAuthKey(ctx, strings.TrimSpace(v.AuthKey)); err != nil {
			return err
		}
	case v.Identity:
		key := newKey()
		// As the vendor's provisioner describes them.
		o.AddDeviceIdentity(publicPEM(key), fmt.Sprintf("connectsim Raspberry Pi %s %s", orElse(models[v.Model], "5"), v.SerialNumber), v.Hostname, v.Tags)
		if err := pi.SignInWithIdentity(ctx, key); err != nil {
			return err
		}
	default:
		o.server.mu.Lock()
		known := o.devices.find(serialKey(v.SerialNumber))
		id := o.signIn(known, Device{Name: v.Hostname, SerialNumber: v.SerialNumber, Tags: v.Tags}).ID
		o.server.mu.Unlock()
		pi.SignedIn(o, id)
	}
	if d := pi.device(o); d != nil && v.Board != (Board{}) {
		o.ChangeDevice(d.ID, v.describe)
	}
	return nil
}

// device is the device that the Pi is; nil if it is signed in nowhere here.
func (p *Pi) device(o *Organisation) *Device {
	_, token := p.state()
	o.server.mu.Lock()
	defer o.server.mu.Unlock()
	return o.devices.find(token)
}

// newSerial is the serial number of a board that nobody has.
func newSerial() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return fmt.Sprintf("10000000%x", b)
}

func (a *Admin) plugIn(w http.ResponseWriter, r *http.Request) {
	var v VirtualPi
	if read(w, r, &v) && !refuse(w, a.PlugIn(r.Context(), v)) {
		w.WriteHeader(http.StatusCreated)
	}
}

func (a *Admin) listPis(w http.ResponseWriter, _ *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := []object{}
	for _, name := range slices.Sorted(maps.Keys(a.pis)) {
		pi := a.pis[name]
		b, _ := pi.state()
		id := ""
		if d := pi.device(pi.organisation); d != nil {
			id = d.ID
		}
		all = append(all, object{
			"hostname": pi.Hostname, "serial_number": pi.SerialNumber, "organisation": pi.organisation.name, "device_id": orNull(id),
			"offline": b.Offline, "fail_with": b.FailWith, "fail_share": b.FailShare, "fail_uri": b.FailURI, "remote_update": !b.RemoteUpdateOff,
			"work_milliseconds": b.WorkTime.Milliseconds(), "poll_milliseconds": b.Every.Milliseconds(),
		})
	}
	respond(w, http.StatusOK, all)
}

func (a *Admin) steer(w http.ResponseWriter, r *http.Request) {
	var s Steering
	if !read(w, r, &s) || refuse(w, s.check()) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	pi, found := a.pis[r.PathValue("hostname")]
	if !found {
		http.NotFound(w, r)
		return
	}
	b, _ := pi.state()
	s.steer(&b)
	pi.Behave(b)
	respond(w, 0, nil)
}

// Replace removes the device of a virtual Pi and lets its board sign in as another
// one (see [Organisation.ReplaceDevice]).
func (a *Admin) Replace(hostname string) (Device, error) {
	a.mu.Lock()
	pi, found := a.pis[hostname]
	a.mu.Unlock()
	if !found {
		return Device{}, mistake("there is no Pi called %s", hostname)
	}
	old := pi.device(pi.organisation)
	if old == nil {
		return Device{}, mistake("%s is signed in nowhere: its device was removed", hostname)
	}
	anew, found := pi.organisation.ReplaceDevice(old.ID)
	if !found {
		return Device{}, mistake("%s has been removed just now", hostname)
	}
	pi.SignedIn(pi.organisation, anew.ID)
	return anew, nil
}

func (a *Admin) replace(w http.ResponseWriter, r *http.Request) {
	if !a.known(r.PathValue("hostname")) {
		http.NotFound(w, r)
		return
	}
	anew, err := a.Replace(r.PathValue("hostname"))
	if !refuse(w, err) {
		respond(w, http.StatusCreated, showDevice(&anew))
	}
}

func (a *Admin) unplug(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	pi, found := a.pis[r.PathValue("hostname")]
	if !found {
		http.NotFound(w, r)
		return
	}
	pi.stop()
	delete(a.pis, pi.Hostname)
	respond(w, 0, nil)
}
