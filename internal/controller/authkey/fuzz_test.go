// SPDX-License-Identifier: Apache-2.0

package authkey

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// Whatever an editor makes of the note of a request, what is understood is written down and read again
// as it was, and is of a key that has a description.
func FuzzNote(f *testing.F) {
	f.Add(note{appearance: appearance{Description: "porch", DeviceName: "pi", Tags: []string{"a"}}, Before: []string{"0badcafe"}}.String())
	f.Add(`{"description":"porch","before":null,"tags":[]}`)
	f.Add(`{"description":""}`)
	f.Add(`{"description":"porch","Description":"attic","tags":7}`)
	f.Add(`[]`)
	f.Add("\xff")
	f.Fuzz(func(t *testing.T, text string) {
		n, ok := parseNote(text)
		if !ok {
			return
		}
		if n.Description == "" {
			t.Fatal("of a key without a description")
		}
		again, ok := parseNote(n.String())
		if !ok || !again.equal(n.appearance) || again.hash() != n.hash() || !slices.Equal(again.Before, n.Before) {
			t.Fatalf("%+v becomes %+v", n, again)
		}
	})
}

// Whatever an editor makes of the annotations of a Secret: it is somebody's, names ids that can be
// asked for, and a time that is none is none.
func FuzzSecretAnnotations(f *testing.F) {
	f.Add("k1", "k0,k2", "2026-03-01T12:00:00Z", `{"labels":["a"],"annotations":["b"]}`, "k1", "auth.key", "AuthKey", "porch", "mine")
	f.Add("", ", ,", "2026-03-01", `[]`, "", "", "", "", "")
	f.Add("k1", "k1 k1\nk2", "9999-12-31T23:59:59.999999999+23:59", `{"labels":7}`, "k2", "../x", "AuthKey", "porch", "before")
	f.Add("\x00", "\xff", "0000-01-01T00:00:00Z", `null`, "\x00", "", "ReplicaSet", "porch", "mine")
	f.Fuzz(func(t *testing.T, id, supersedes, expires, applied, cleared, dataKey, kind, name, uid string) {
		obj := &v1alpha1.AuthKey{ObjectMeta: metav1.ObjectMeta{Namespace: "lab", Name: "porch", UID: "mine"}}
		obj.Spec.Secret.Key = "auth.key"
		k := &keySecret{owner: obj, meta: secretMetadata(porch)}
		k.meta.Annotations = map[string]string{
			v1alpha1.AnnotationID: id, annotationSupersedes: supersedes, annotationExpiresAt: expires, annotationTemplate: applied,
			annotationCleared: cleared, annotationDataKey: dataKey,
		}
		if kind != "" {
			k.meta.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: name, UID: obj.UID, Controller: new(true)}}
			if uid != "mine" {
				k.meta.OwnerReferences[0].UID = "another"
			}
		}
		belongs := k.belongs()
		switch {
		case belongs == nobodys,
			kind == "" && (belongs == somebodyElses) != (id == "" && applied == ""),
			kind != "" && uid == "mine" && belongs != ours,
			kind != "" && uid != "mine" && (belongs == predecessors) != (kind == "AuthKey" && name == "porch"):
			t.Fatalf("it belongs to %d", belongs)
		case k.dataKey() == "":
			t.Fatal("the key is under no name")
		case k.cleared(id) != (id == cleared):
			t.Fatal("cleared of another key")
		}
		for _, old := range k.supersedes() {
			if old == "" || strings.ContainsAny(old, ", \n\t") {
				t.Fatalf("the id %q", old)
			}
		}
		if at, err := time.Parse(time.RFC3339, expires); (err == nil) == k.expiresAt().IsZero() && !at.IsZero() {
			t.Fatalf("it expires at %s", k.expiresAt())
		}
		k.meta.Annotations[annotationTemplate] = k.appliedTemplate().String()
		if again := k.appliedTemplate(); k.appliedTemplate().String() != again.String() || !reflect.DeepEqual(again, k.appliedTemplate()) {
			t.Fatalf("%+v", again)
		}
	})
}
