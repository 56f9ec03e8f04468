// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"encoding/json"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// Intent is put on the resource before a POST is sent and taken off with the
// same write that records the id. Where it is found, a POST may have been sent
// whose answer nobody has: the process was killed, or the response was lost.
type Intent struct {
	// At is when the intent was recorded. What the POST made is not older.
	At time.Time `json:"at"`
	// UID is the resource's. An intent that was copied with a manifest into
	// another resource says nothing about that one.
	UID types.UID `json:"uid"`
	// Note is what the kind wants to remember from before the POST.
	Note string `json:"note,omitempty"`
}

// intentOf returns the resource's own intent, or nil.
func intentOf(obj Object) *Intent {
	text, ok := obj.GetAnnotations()[v1alpha1.AnnotationCreateIntent]
	if !ok {
		return nil
	}
	var intent Intent
	if json.Unmarshal([]byte(text), &intent) != nil || intent.UID != obj.GetUID() {
		return nil
	}
	return &intent
}

func (i Intent) annotation() string {
	text, err := json.Marshal(i)
	if err != nil {
		panic(err) // three plain fields always marshal
	}
	return string(text)
}
