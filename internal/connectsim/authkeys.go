// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"time"
)

var authKeyRoutes = []route{
	{"POST", "/organisation/auth-keys", "", createAuthKey},
	{"GET", "/organisation/auth-keys", Current, listAuthKeys},
	{"GET", "/organisation/auth-keys/{id}", Current, getAuthKey},
	{"PATCH", "/organisation/auth-keys/{id}", Current, updateAuthKey},
	{"DELETE", "/organisation/auth-keys/{id}", Current, deleteAuthKey},
}

// authKeyRows is what others can do to the listing.
var authKeyRows = &rows{
	insert: func(o *Organisation, name string) { o.addAuthKey(AuthKey{Description: name}, 1) },
	remove: func(o *Organisation, name string) { each(o.authKeys, name, describedAs, o.removeAuthKey) },
}

// AuthKey is a single-use key that signs a device in.
type AuthKey struct {
	ID, Description, DeviceName string
	Tags                        []string
	CreatedAt, ExpiresAt        time.Time
	ExchangedAt                 time.Time // zero until it was used
	Secret                      string
	sequence                    int
}

// Usable tells whether a device could sign in with the key at that time.
func (k *AuthKey) Usable(at time.Time) bool { return k.ExchangedAt.IsZero() && at.Before(k.ExpiresAt) }

func (c *call) showAuthKey(k *AuthKey) object {
	o := object{
		"id": k.ID, "description": k.Description, "device_name": orNull(k.DeviceName),
		"tags": tagged(k.Tags), "expires_at": stamp(k.ExpiresAt),
	}
	if !c.older() {
		o["created_at"], o["exchanged_at"] = stamp(k.CreatedAt), stampOrNil(k.ExchangedAt)
	}
	return o
}

func createAuthKey(c *call) reply {
	p, valid := c.params(true)
	if !valid {
		return c.bad("The body cannot be parsed")
	}
	description, _ := p.text("description")
	name, _ := p.text("device_name")
	days, given, validDays := p.number("ttl_days")
	tags, _, validTags := p.tags()
	if !given {
		days = 1
	}
	switch {
	case strings.TrimSpace(description) == "":
		return validation("Description can't be blank")
	case !validDays || days < 1 || days > 90:
		return validation("Ttl days must be between 1 and 90")
	case !validTags || !goodTags(tags):
		return validation("Tags are invalid")
	}
	k := c.org.addAuthKey(AuthKey{Description: description, DeviceName: name, Tags: tags}, days)
	answer := c.showAuthKey(k)
	answer["secret"] = k.Secret
	return created(answer)
}

// listAuthKeys has usable keys first, then expired, then exchanged ones, the
// newest first in each group.
func listAuthKeys(c *call) reply {
	now := c.server.options.Now()
	group := func(k *AuthKey) int {
		switch {
		case !k.ExchangedAt.IsZero():
			return 2
		case !k.Usable(now):
			return 1
		default:
			return 0
		}
	}
	all := slices.Clone(c.org.authKeys.sorted)
	slices.SortFunc(all, func(a, b *AuthKey) int {
		return cmp.Or(cmp.Compare(group(a), group(b)), b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.sequence, a.sequence))
	})
	return page(c, "auth_keys", all, c.showAuthKey)
}

func getAuthKey(c *call) reply {
	return get(c, c.org.authKeys, c.showAuthKey)
}

func updateAuthKey(c *call) reply {
	k, p, refusal := toChange(c, c.org.authKeys)
	switch {
	case refusal != nil:
		return *refusal
	case !k.Usable(c.server.options.Now()):
		return invalid("This auth key can no longer be edited.")
	}
	description, hasDescription := p.text("description")
	tags, hasTags, validTags := p.tags()
	switch {
	case hasDescription && strings.TrimSpace(description) == "":
		return validation("Description can't be blank")
	case !validTags || !goodTags(tags):
		return validation("Tags are invalid")
	}
	if hasDescription {
		k.Description = description
	}
	if _, has := p["device_name"]; has {
		k.DeviceName, _ = p.text("device_name")
	}
	if hasTags {
		k.Tags = tags
	}
	c.server.touch()
	return ok(c.showAuthKey(k))
}

func deleteAuthKey(c *call) reply {
	k, found := c.org.authKeys.byID[c.PathValue("id")]
	if !found {
		return c.notFound()
	}
	c.org.removeAuthKey(k)
	return c.deleted(c.showAuthKey(k))
}

// addAuthKey makes a key that is good for a number of days. A secret that it has
// already is kept.
func (o *Organisation) addAuthKey(k AuthKey, days int) *AuthKey {
	o.sequence++
	k.ID, k.sequence = newID(), o.sequence
	if k.Secret == "" {
		k.Secret = NewSecret("rpoak_")
	}
	k.CreatedAt = o.server.now()
	k.ExpiresAt = k.CreatedAt.AddDate(0, 0, days)
	o.authKeys.add(k.ID, &k)
	o.server.touch()
	return &k
}

func (o *Organisation) removeAuthKey(k *AuthKey) {
	o.authKeys.remove(k.ID)
	o.server.touch()
}

// AuthKeys returns the organisation's keys, with their secrets.
func (o *Organisation) AuthKeys() []AuthKey {
	o.server.mu.Lock()
	defer o.server.mu.Unlock()
	return copies(o.authKeys.sorted)
}

// RemoveAuthKey revokes a key, as another person would.
func (o *Organisation) RemoveAuthKey(id string) {
	o.server.mu.Lock()
	defer o.server.mu.Unlock()
	if k, found := o.authKeys.byID[id]; found {
		o.removeAuthKey(k)
	}
}

// AddAuthKey makes a key, as another person would.
func (o *Organisation) AddAuthKey(description, deviceName string, tags []string, days int) AuthKey {
	o.server.mu.Lock()
	defer o.server.mu.Unlock()
	return *o.addAuthKey(AuthKey{Description: description, DeviceName: deviceName, Tags: tags}, days)
}

var tagPattern = regexp.MustCompile(`^[a-z0-9_-]{1,30}$`)

func goodTags(tags []string) bool {
	return len(tags) <= 10 && !slices.ContainsFunc(tags, func(t string) bool { return !tagPattern.MatchString(t) })
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}
