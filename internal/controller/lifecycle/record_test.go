// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"testing"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// What the status says counts. The annotations are for a resource without one: they speak for this
// very resource, or an id was written there to be imported.
func TestRecordOf(t *testing.T) {
	mine := newArtefact()
	copied := newArtefact()
	copied.Name = "copy"
	elsewhere := newArtefact()
	elsewhere.Namespace = "attic"
	for name, test := range map[string]struct {
		obj     *v1alpha1.Artefact
		status  string
		adopted bool
		id      string
		origin  string
		want    Record
	}{
		"a new resource":               {obj: mine, want: Record{}},
		"what was created":             {obj: mine, status: "a1", id: "a1", origin: originNote(mine, "a1", Created), want: Record{ID: "a1", Origin: Created}},
		"what was adopted":             {obj: mine, status: "a1", adopted: true, id: "a1", origin: originNote(mine, "a1", Adopted), want: Record{ID: "a1", Origin: Adopted}},
		"annotations that are gone":    {obj: mine, status: "a1", want: Record{ID: "a1", Origin: Created}},
		"an id that was edited":        {obj: mine, status: "a1", id: "a2", origin: originNote(mine, "a1", Created), want: Record{ID: "a1", Origin: Created}},
		"an origin that was edited":    {obj: mine, status: "a1", adopted: true, id: "a1", origin: originNote(mine, "a1", Created), want: Record{ID: "a1", Origin: Adopted}},
		"a backup of what was created": {obj: mine, id: "a1", origin: originNote(mine, "a1", Created), want: Record{ID: "a1", Origin: Created, Restored: true}},
		"a backup of what was adopted": {obj: mine, id: "a1", origin: originNote(mine, "a1", Adopted), want: Record{ID: "a1", Origin: Adopted, Restored: true}},
		"what was made anew":           {obj: mine, status: "a1", id: "a2", origin: originNote(mine, "a2", Created) + " instead of a1", want: Record{ID: "a2", Origin: Created, Restored: true}},
		"what was adopted instead":     {obj: mine, status: "a1", id: "a2", origin: originNote(mine, "a2", Adopted) + " instead of a1", want: Record{ID: "a2", Origin: Adopted, Restored: true}},
		"… and with which token": {obj: mine, status: "a1", id: "a2", origin: originNote(mine, "a2", Created) + " instead of a1 with the token 0badcafe",
			want: Record{ID: "a2", Origin: Created, Restored: true, TokenHash: "0badcafe"}},
		"… which is no news any more": {obj: mine, status: "a2", id: "a2", origin: originNote(mine, "a2", Created) + " instead of a1 with the token 0badcafe",
			want: Record{ID: "a2", Origin: Created}},
		"what was made anew, copied":  {obj: copied, status: "a1", id: "a2", origin: originNote(mine, "a2", Created) + " instead of a1", want: Record{ID: "a1", Origin: Created}},
		"an old backup, applied":      {obj: mine, status: "a3", id: "a2", origin: originNote(mine, "a2", Created) + " instead of a1", want: Record{ID: "a3", Origin: Created}},
		"an old backup, restored":     {obj: mine, id: "a2", origin: originNote(mine, "a2", Created) + " instead of a1", want: Record{ID: "a2", Origin: Created, Restored: true}},
		"a backup without status":     {obj: mine, status: "a1", id: "a2", origin: originNote(mine, "a2", Created), want: Record{ID: "a1", Origin: Created}},
		"an id to be imported":        {obj: mine, id: "a1", want: Record{ID: "a1", Origin: Imported}},
		"a copy under another name":   {obj: copied, id: "a1", origin: originNote(mine, "a1", Created), want: Record{ID: "a1", Origin: Imported}},
		"a copy in another namespace": {obj: elsewhere, id: "a1", origin: originNote(mine, "a1", Created), want: Record{ID: "a1", Origin: Imported}},
		"a backup with another id":    {obj: mine, id: "a2", origin: originNote(mine, "a1", Created), want: Record{ID: "a2", Origin: Imported}},
		"an origin without an id":     {obj: mine, origin: originNote(mine, "a1", Created), want: Record{}},
		"an origin of older form":     {obj: mine, id: "a1", origin: "created", want: Record{ID: "a1", Origin: Imported}},
	} {
		t.Run(name, func(t *testing.T) {
			obj := test.obj.DeepCopy()
			obj.Status.ID, obj.Status.Adopted = test.status, test.adopted
			if test.id != "" {
				obj.Annotations[v1alpha1.AnnotationID] = test.id
			}
			if test.origin != "" {
				obj.Annotations[v1alpha1.AnnotationOrigin] = test.origin
			}
			if got := recordOf(obj); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
			if own := recordOf(obj).Own(); own != (test.want.Origin == Created || test.want.Origin == Adopted) {
				t.Errorf("it is the resource's own: %t", own)
			}
		})
	}
}
