// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"fmt"
	"slices"
	"testing"
	"time"
	"unicode/utf8"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// Whatever an editor writes into the annotations of a request, it means something only if it names the
// resource's own UID, and what is read is written back as it was.
func FuzzIntents(f *testing.F) {
	own := Intent{At: noon, UID: "mine", TokenHash: "0123", Note: `{"device":"d1"}`}
	f.Add(marshalled(own), marshalled([]Intent{own, {UID: "theirs"}, own}))
	f.Add(`{"uid":"theirs"}`, `[{"uid":"mine"},null,7]`)
	f.Add(`{"uid":"mine","at":"9999-12-31T23:59:59Z","until":"0001-01-01T00:00:00Z"}`, `[null,null]`)
	f.Add(`{"uid":"mine","UID":"theirs"}`, `[[[[`)
	f.Add("\xff", `{"uid":"mine"}`)
	f.Fuzz(func(t *testing.T, intent, unanswered string) {
		obj := newArtefact()
		obj.UID = "mine"
		obj.Annotations[v1alpha1.AnnotationCreateIntent] = intent
		obj.Annotations[v1alpha1.AnnotationUnanswered] = unanswered

		read := sentOf(obj)
		for _, i := range read.all() {
			if i.UID != obj.UID {
				t.Fatalf("a request of %q", i.UID)
			}
		}
		for annotation, value := range read.annotations() {
			delete(obj.Annotations, annotation)
			if text, ok := value.(string); ok {
				obj.Annotations[annotation] = text
			}
		}
		again := sentOf(obj)
		if (again.intent == nil) != (read.intent == nil) || !slices.EqualFunc(again.all(), read.all(), same) {
			t.Fatalf("%+v becomes %+v", read, again)
		}
	})
}

func same(a, b Intent) bool {
	return a.At.Equal(b.At) && a.Until.Equal(b.Until) && a.UID == b.UID && a.TokenHash == b.TokenHash && a.Note == b.Note
}

// Whatever the annotations of the record say, status.id counts unless their object has taken its place;
// they make a resource the owner of an object only by naming both; and what the operator writes is read
// as it was meant.
func FuzzRecord(f *testing.F) {
	f.Add("a1", "created a1 for default/kiosk", "", "default", "kiosk")
	f.Add("a1", "adopted a1 for default/kiosk instead of a0", "a0", "default", "kiosk")
	f.Add("a1", "created a1 for default/kiosk instead of  instead of a0", "a0", "default", "kiosk")
	f.Add("a1 for default/kiosk", "created a1 for default/kiosk for default/kiosk", "", "default", "kiosk")
	f.Add("", "created  for default/kiosk", "a0", "default", "kiosk")
	f.Add("../devices", "", "", "", "")
	f.Fuzz(func(t *testing.T, id, origin, status, namespace, name string) {
		obj := newArtefact()
		obj.Namespace, obj.Name, obj.Status.ID = namespace, name, status
		obj.Annotations[v1alpha1.AnnotationID], obj.Annotations[v1alpha1.AnnotationOrigin] = id, origin

		got := recordOf(obj)
		switch {
		case got.ID == "" && (got != Record{} || id != "" || status != ""):
			t.Fatalf("nothing on record: %+v", got)
		case got.ID != id && got.ID != status:
			t.Fatalf("an id from nowhere: %+v", got)
		case status != "" && !got.Own():
			t.Fatalf("what the status has is not its own: %+v", got)
		case status != "" && got.ID != status && !got.Restored:
			t.Fatalf("the status does not count: %+v", got)
		case status == "" && got.Own() && !got.Restored:
			t.Fatalf("it is its own by itself: %+v", got)
		}
		if got.Restored {
			obj.Name += "-copy"
			if _, before := annotatedRecord(obj); before.id == "" && recordOf(obj).Restored {
				t.Fatalf("a copy has it, too: %q", origin)
			}
			obj.Name = name
		}
		if id == "" {
			return
		}
		for _, o := range []Origin{Created, Adopted} {
			p := &pass[*v1alpha1.Artefact]{obj: obj}
			for annotation, value := range p.annotations(id, o) {
				obj.Annotations[annotation] = fmt.Sprint(value)
			}
			if read, _ := annotatedRecord(obj); read.ID != id {
				t.Fatalf("%q becomes %+v", id, read)
			}
		}
	})
}

// What users write beside the spec decides what begins a pace anew, and nothing that one writes looks
// like what another one does.
func FuzzSubject(f *testing.F) {
	f.Add("true", "2026-03-01T12:00:00Z", "0123", "", "")
	f.Add(`a" "b`, "", "", "a", "b")
	f.Add("\x00", "\xff", "", "", "")
	f.Fuzz(func(t *testing.T, suspend, requested, confirmed, otherSuspend, otherRequested string) {
		one, other := newArtefact(), newArtefact()
		one.Annotations[v1alpha1.AnnotationSuspend] = suspend
		one.Annotations[v1alpha1.AnnotationReconcileRequestedAt] = requested
		one.Annotations[v1alpha1.AnnotationConfirmOrganisation] = confirmed
		other.Annotations[v1alpha1.AnnotationSuspend] = otherSuspend
		other.Annotations[v1alpha1.AnnotationReconcileRequestedAt] = otherRequested
		other.Annotations[v1alpha1.AnnotationConfirmOrganisation] = confirmed
		if (subject(one) == subject(other)) != (suspend == otherSuspend && requested == otherRequested) {
			t.Fatalf("%s and %s", subject(one), subject(other))
		}
		if suspended(one) != (suspend == "true") {
			t.Fatalf("suspended by %q", suspend)
		}
		if !utf8.ValidString(subject(one)) {
			t.Fatalf("%q", subject(one))
		}
		now := time.Unix(1<<31, 0)
		var p pace
		p.wait(subject(one), now)
		if d := p.next(RequeueWithBackoff(), now); d <= 0 || p.wait(subject(one), now) != d {
			t.Fatalf("no pause: %s", d)
		}
	})
}
