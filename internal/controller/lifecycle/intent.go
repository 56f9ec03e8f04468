// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"encoding/json"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// Intent is put on the resource before a POST is sent and taken off with the same write that
// records the id. It is also taken off when the POST turns out not to have been sent or carried
// out, because the budget, the network or the API itself refused it: such a request proves nothing
// about what is found later. So where an intent is found, a POST may have been carried out whose
// answer nobody has: the process was killed, or the response was lost.
type Intent struct {
	// At is when the intent was recorded, by the clock of whoever recorded it.
	At time.Time `json:"at"`
	// UID is the resource's. An intent that was copied with a manifest into another resource says
	// nothing about that one.
	UID types.UID `json:"uid"`
	// TokenHash is the short hash of the access token that the request was to be sent with.
	TokenHash string `json:"tokenHash,omitempty"`
	// Until is when what the request made is of no consequence any more; zero stands for never.
	Until time.Time `json:"until,omitzero"`
	// Unlooked is that the organisation had not been looked at before the request: what is found later
	// may have been there all along, and is not taken for what the request made.
	Unlooked bool `json:"unlooked,omitempty"`
	// Note is what the kind wants to remember from before the POST: what it takes to recognise
	// what the POST made.
	Note string `json:"note,omitempty"`
}

// maxUnanswered bounds the requests that a resource remembers as unanswered. Each one more takes
// another settle time of outage.
const maxUnanswered = 16

// intentOf returns the resource's own intent, or nil.
func intentOf(obj Object) *Intent {
	var intent Intent
	text, ok := obj.GetAnnotations()[v1alpha1.AnnotationCreateIntent]
	if !ok || json.Unmarshal([]byte(text), &intent) != nil || intent.UID != obj.GetUID() {
		return nil
	}
	return &intent
}

// unansweredOf returns the resource's own requests that nobody has the answer of, the newest first.
func unansweredOf(obj Object) []Intent {
	var all []Intent
	if json.Unmarshal([]byte(obj.GetAnnotations()[v1alpha1.AnnotationUnanswered]), &all) != nil {
		return nil
	}
	return slices.DeleteFunc(all, func(i Intent) bool { return i.UID != obj.GetUID() })
}

// mattering are the intents that are still of consequence.
func mattering(all []Intent, now time.Time) []Intent {
	return slices.DeleteFunc(all, func(i Intent) bool { return !i.Until.IsZero() && now.After(i.Until) })
}

func (i Intent) annotation() string { return marshalled(i) }

// SentIntents returns the requests of a resource that may have been carried out although their
// answers were lost, the newest first. It is for indexes and for looking at other resources.
func SentIntents(obj Object) []Intent {
	sent := unansweredOf(obj)
	if intent := intentOf(obj); intent != nil {
		sent = slices.Insert(sent, 0, *intent)
	}
	return sent
}

// withUnanswered is the annotation of unanswered requests after one more; nil where there are none.
func withUnanswered(before []Intent, more *Intent) any {
	all := before
	if more != nil {
		all = slices.Insert(slices.Clone(before), 0, *more)
	}
	if len(all) == 0 {
		return nil
	}
	return marshalled(all[:min(len(all), maxUnanswered)])
}

func marshalled(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain fields always marshal
	}
	return string(text)
}
