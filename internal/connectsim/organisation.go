// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Organisation is one organisation and all that is in it. Its methods reach
// behind the API, as another person or program would.
type Organisation struct {
	server *Server
	name   string

	artefacts   *collection[Artefact]
	authKeys    *collection[AuthKey]
	identities  *collection[Identity]
	devices     *collection[Device]
	deployments map[string]*Deployment   // by id
	runs        map[string][]*Deployment // by device, the newest last
	sequence    int                      // orders what is made in the same second

	subscriptions []*subscription
}

// AddOrganisation makes an organisation that the token (rporg_…) opens.
func (s *Server) AddOrganisation(token string) *Organisation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addOrganisation("", token)
}

// addOrganisation makes an organisation of a name; without one it is numbered.
func (s *Server) addOrganisation(name, token string) *Organisation {
	o := s.emptyOrganisation(name)
	s.organisations = append(s.organisations, o)
	s.byToken[token] = o
	s.touch()
	return o
}

// emptyOrganisation is one that is not there yet.
func (s *Server) emptyOrganisation(name string) *Organisation {
	for n := len(s.organisations) + 1; name == ""; n++ {
		numbered := fmt.Sprintf("organisation-%d", n)
		if _, err := s.organisationNamed(numbered); err != nil {
			name = numbered
		}
	}
	return &Organisation{
		server:      s,
		name:        name,
		artefacts:   newCollection(byName, func(a *Artefact) []string { return []string{a.Name} }),
		authKeys:    newCollection(byAge, func(k *AuthKey) []string { return []string{k.Secret} }),
		identities:  newCollection(byDescription, func(i *Identity) []string { return []string{i.fingerprint} }),
		devices:     newCollection(byDeviceName, (*Device).keys),
		deployments: map[string]*Deployment{},
		runs:        map[string][]*Deployment{},
	}
}

// newOrganisation makes an organisation, if its name and its token are its own.
// The lock is held.
func (s *Server) newOrganisation(name, token string) (*Organisation, error) {
	if _, err := s.organisationNamed(name); name != "" && err == nil {
		return nil, mistake("there is an organisation %q already", name)
	}
	if err := s.checkToken(token); err != nil {
		return nil, err
	}
	return s.addOrganisation(name, token), nil
}

// organisationNamed finds an organisation; the first if the name is empty. The
// lock is held.
func (s *Server) organisationNamed(name string) (*Organisation, error) {
	for _, o := range s.organisations {
		if name == "" || o.name == name {
			return o, nil
		}
	}
	return nil, mistake("there is no organisation %q", name)
}

// checkToken tells what is wrong with a new token. The lock is held.
func (s *Server) checkToken(token string) error {
	if !strings.HasPrefix(token, "rporg_") {
		return mistake("the access token of an organisation begins with rporg_")
	}
	if s.byToken[token] != nil {
		return mistake("the access token opens an organisation already")
	}
	return nil
}

func byName(a, b *Artefact) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
}
func byAge(a, b *AuthKey) int { return cmp.Compare(a.sequence, b.sequence) }
func byDescription(a, b *Identity) int {
	return cmp.Or(strings.Compare(a.Description, b.Description), strings.Compare(a.ID, b.ID))
}
func byDeviceName(a, b *Device) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
}

// Name is the organisation's name in the journal.
func (o *Organisation) Name() string { return o.name }

// AddToken lets another token open the organisation too.
func (o *Organisation) AddToken(token string) {
	o.server.mu.Lock()
	defer o.server.mu.Unlock()
	o.server.byToken[token] = o
}

// RevokeToken makes a token invalid.
func (s *Server) RevokeToken(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byToken, token)
}

// Organisation returns the organisation that a token opens; nil if it opens none.
func (s *Server) Organisation(token string) *Organisation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byToken[token]
}

// newID is a UUID, as ids are in practice.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}

const base58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

// NewSecret returns 24 base58 characters after the prefix: "rporg_", "rpoak_",
// "rpdev_".
func NewSecret(prefix string) string {
	var b [24]byte
	_, _ = rand.Read(b[:]) // never fails
	for i := range b {
		b[i] = base58[int(b[i])%len(base58)]
	}
	return prefix + string(b[:])
}

// stamp is how the API writes times.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func stampOrNil(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return stamp(t)
}

// tagged makes null of no tags impossible: the API always shows a list.
func tagged(tags []string) []string {
	if tags == nil {
		return []string{}
	}
	return tags
}

// object is the JSON of one object.
type object map[string]any

// jsonOf is the JSON of an object.
func jsonOf(o object) string {
	text, _ := json.Marshal(o) // they always have one
	return string(text)
}

func orElse(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

// AccessToken is a token and the organisation that it opens.
type AccessToken struct{ Token, Organisation string }

// Tokens returns the tokens that open an organisation: those of the first
// organisation first.
func (s *Server) Tokens() []AccessToken {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []AccessToken
	for _, o := range s.organisations {
		for _, token := range slices.Sorted(maps.Keys(s.byToken)) {
			if s.byToken[token] == o {
				all = append(all, AccessToken{token, o.name})
			}
		}
	}
	return all
}
