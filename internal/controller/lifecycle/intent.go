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

// sent are the requests of a resource that may have been carried out although their answers were
// lost.
type sent struct {
	intent     *Intent  // of the newest one
	unanswered []Intent // of those before, the newest first: nobody will get their answers any more
}

// sentOf reads what is noted on a resource.
func sentOf(obj Object) sent { return sent{intentOf(obj), unansweredOf(obj)} }

// all returns them, the newest first.
func (s sent) all() []Intent {
	if s.intent == nil {
		return s.unanswered
	}
	return slices.Insert(slices.Clone(s.unanswered), 0, *s.intent)
}

// mattering are those that are still of consequence.
func (s sent) mattering(now time.Time) sent {
	s.unanswered = slices.DeleteFunc(slices.Clone(s.unanswered), func(i Intent) bool { return !i.Until.IsZero() && now.After(i.Until) })
	return s
}

// annotations are what has to be noted on the resource.
func (s sent) annotations() map[string]any {
	noted := map[string]any{v1alpha1.AnnotationCreateIntent: nil, v1alpha1.AnnotationUnanswered: nil}
	if s.intent != nil {
		noted[v1alpha1.AnnotationCreateIntent] = marshalled(*s.intent)
	}
	if len(s.unanswered) > 0 {
		noted[v1alpha1.AnnotationUnanswered] = marshalled(s.unanswered)
	}
	return noted
}

// takenOff tells whether somebody has taken requests off a resource that were noted there.
func (s sent) takenOff(is sent) bool {
	return s.intent != nil && is.intent == nil || len(s.unanswered) > 0 && len(is.unanswered) == 0
}

// SentIntents returns the requests of a resource that may have been carried out although their
// answers were lost, the newest first. It is for indexes and for looking at other resources.
func SentIntents(obj Object) []Intent { return sentOf(obj).all() }

func marshalled(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain fields always marshal
	}
	return string(text)
}
