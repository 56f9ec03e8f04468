// SPDX-License-Identifier: Apache-2.0

package authkey

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
)

// appearance is what Connect shows of a key besides its id and its times. Keys of the same
// appearance cannot be told apart but by their ids.
type appearance struct {
	Description string   `json:"description"`
	DeviceName  string   `json:"deviceName,omitempty"`
	Tags        []string `json:"tags,omitempty"`
}

// wanted is the appearance that the spec asks for.
func wanted(obj *v1alpha1.AuthKey) appearance {
	a := appearance{Description: strings.TrimSpace(obj.Spec.Description), DeviceName: strings.TrimSpace(obj.Spec.DeviceName), Tags: lifecycle.Sorted(obj.Spec.Tags)}
	if a.Description == "" {
		a.Description = obj.Name
	}
	return a
}

// shown is the appearance of a key in the organisation.
func shown(key connectclient.AuthKey) appearance {
	return appearance{Description: strings.TrimSpace(key.Description), DeviceName: strings.TrimSpace(key.DeviceName), Tags: lifecycle.Sorted(key.Tags)}
}

func (a appearance) equal(other appearance) bool {
	return a.Description == other.Description && a.DeviceName == other.DeviceName && lifecycle.SameSet(a.Tags, other.Tags)
}

// hash tells appearances apart where only a word is needed.
func (a appearance) hash() string {
	return digest(a.Description, a.DeviceName, lifecycle.Sorted(a.Tags))
}

// keySpecHash is the mark of what of the spec is in a key: first what cannot be changed once it is
// made, then what Connect may change.
func keySpecHash(obj *v1alpha1.AuthKey) string {
	return digest(obj.Spec.TTLDays, obj.Spec.Secret.Key) + "/" + wanted(obj).hash()
}

// fixed is the part of the mark that only a new key can change.
func fixed(mark string) string {
	part, _, _ := strings.Cut(mark, "/")
	return part
}

// shortHash is the mark of an id or of a key: enough to tell whether it is another, and useless
// otherwise.
func shortHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:4])
}

// digest is a short mark of some values, to tell whether they have changed.
func digest(values ...any) string {
	text, err := json.Marshal(values)
	if err != nil {
		panic(err) // strings, numbers and lists of strings always marshal
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}
