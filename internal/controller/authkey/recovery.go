// SPDX-License-Identifier: Apache-2.0

package authkey

import (
	"context"
	"encoding/json"
	"slices"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
)

// note is what an intent remembers of a key from before the POST: what it was to look like, and
// which keys looked like that already. What looks like that and is not among them was made later.
// No time is compared, because the organisation's clock is another than ours.
type note struct {
	appearance
	// Before are short hashes of the ids of the live keys that looked like that.
	Before []string `json:"before,omitempty"`
}

func parseNote(text string) (note, bool) {
	var n note
	err := json.Unmarshal([]byte(text), &n)
	return n, err == nil && n.Description != ""
}

func (n note) String() string {
	text, err := json.Marshal(n)
	if err != nil {
		panic(err) // strings and lists of them always marshal
	}
	return string(text)
}

// noteOf is the note for a key of the spec's appearance.
func (e *external) noteOf() note {
	n := note{appearance: wanted(e.obj)}
	for _, key := range e.live(n.appearance) {
		n.Before = append(n.Before, shortHash(key.ID))
	}
	slices.Sort(n.Before)
	return n
}

// live are the keys of an appearance that a device could use.
func (e *external) live(a appearance) []connectclient.AuthKey {
	var found []connectclient.AuthKey
	for key := range e.store.All() {
		if key.ExchangedAt == nil && shown(key).equal(a) && (key.ExpiresAt.IsZero() || e.clock.Now().Before(key.ExpiresAt)) {
			found = append(found, key)
		}
	}
	return found
}

// sentHere gathers the requests that went to the organisation that the token opens, the newest first:
// those that were sent with it, and those that were sent with another one when keys were there that are
// here, too: the AuthKey's own, or some that looked alike.
func (e *external) sentHere(ctx context.Context) error {
	e.sent = slices.Clone(e.conn.Sent)
	for _, intent := range e.conn.SentElsewhere {
		if before, ok := parseNote(intent.Note); !ok || !e.hasOwn() && !e.hasOneOf(before.Before) {
			e.otherOrganisation = true
			continue
		}
		if err := e.conn.WentHere(ctx, intent); err != nil {
			return err
		}
		e.sent = append(e.sent, intent)
	}
	slices.SortStableFunc(e.sent, func(a, b lifecycle.Intent) int { return b.At.Compare(a.At) })
	return nil
}

// hasOwn tells whether the organisation has the key that this very AuthKey has had since before: with a
// token of another one no request would have been sent.
func (e *external) hasOwn() bool {
	record := e.conn.Record
	return record.Own() && !record.Restored && e.hasOneOf([]string{shortHash(record.ID)})
}

// hasOneOf tells whether the organisation has a key whose id has one of the hashes.
func (e *external) hasOneOf(hashes []string) bool {
	for key := range e.store.All() {
		if slices.Contains(hashes, shortHash(key.ID)) {
			return true
		}
	}
	return false
}

// findLost finds the live keys that requests of this AuthKey have made whose answers were lost. They
// are in no Secret, and nobody will ever see them.
func (e *external) findLost(ctx context.Context) error {
	e.awaitLost()
	for i, intent := range e.sent {
		before, ok := parseNote(intent.Note)
		if over := !intent.Until.IsZero() && e.clock.Now().After(intent.Until); !ok || over {
			continue
		}
		candidates := e.live(before.appearance)
		// Only now: what is on its way may be in the listing already.
		if e.issued.unsure(before.hash()) {
			e.unsure = true
			return nil
		}
		for _, key := range candidates {
			if slices.Contains(before.Before, shortHash(key.ID)) || e.accountedFor(key.ID) {
				continue
			}
			held, err := e.heldBySomebody(ctx, key.ID)
			if err != nil {
				return err
			}
			if !held {
				e.lost = append(e.lost, lostKey{key.ID, intent})
				e.settled = e.settled || i == 0
			}
		}
	}
	return nil
}

// awaitLost has the AuthKey looked at when a key appears that one of its requests may have made, however
// late that is.
func (e *external) awaitLost() {
	var looks []appearance
	for _, intent := range e.sent {
		if before, ok := parseNote(intent.Note); ok {
			looks = append(looks, before.appearance)
		}
	}
	if len(looks) > 0 {
		e.store.AwaitMatch(e.conn.Waiter, func(key connectclient.AuthKey) bool {
			return slices.ContainsFunc(looks, shown(key).equal)
		})
	}
}

// accountedFor tells whether it is known what becomes of a key.
func (e *external) accountedFor(id string) bool {
	lost := slices.ContainsFunc(e.lost, func(l lostKey) bool { return l.id == id })
	return lost || e.issued.here(id) || id == e.conn.Record.ID ||
		id == e.secret.id() || slices.Contains(e.secret.supersedes(), id)
}

// heldBySomebody tells whether the key is another AuthKey's.
func (e *external) heldBySomebody(ctx context.Context, id string) (bool, error) {
	var all v1alpha1.AuthKeyList
	if err := e.client.List(ctx, &all); err != nil {
		return false, err
	}
	for i := range all.Items {
		other := &all.Items[i]
		if other.UID == e.obj.UID {
			continue
		}
		if record := lifecycle.RecordOf(other); record.Own() && record.ID == id {
			return true, nil
		}
		secret := &keySecret{secrets: e.secrets, owner: other, meta: secretMetadata(nameOf(other))}
		if err := e.client.Get(ctx, nameOf(other), secret.meta); err != nil {
			continue // it has none
		}
		if secret.id() == id || slices.Contains(secret.supersedes(), id) {
			return true, nil
		}
	}
	return false, nil
}

// lostKey is a live key that nobody has, and the request that made it.
type lostKey struct {
	id     string
	intent lifecycle.Intent
}

// revokeLost revokes the keys that were made and could not be stored. What looks like one of them and
// comes when its request has settled is somebody else's.
func (e *external) revokeLost(ctx context.Context) error {
	for len(e.lost) > 0 {
		lost := e.lost[0]
		if err := e.revoke(ctx, lost.id); err != nil {
			return err
		}
		if err := e.conn.Answered(ctx, lost.intent); err != nil {
			return err
		}
		e.conn.Event(lifecycle.Event{Warning: true, Reason: v1alpha1.EventKeyRevoked, Action: "Revoke",
			Message: "Revoked the auth key " + lost.id + ", which was made but could not be stored."})
		e.lost = e.lost[1:]
	}
	return nil
}
