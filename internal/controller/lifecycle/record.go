// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"
	"fmt"
	"strings"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// Origin is how a resource came to its remote object.
type Origin int

const (
	// None says that the resource has nothing on record.
	None Origin = iota
	// Created says that the operator created the object for this resource.
	Created
	// Adopted says that the object was there before the resource took it over.
	Adopted
	// Imported says that somebody wrote the id to the resource, which has not taken the object over
	// yet. It may not exist, or be another resource's.
	Imported
)

// Record is what a resource has noted of its remote object. status.id is authoritative: nobody but
// the operator writes it. Where it is empty, because the resource is new or comes from a backup,
// the annotations say what they can: an id whose origin names this very resource is restored, any
// other was written to be imported. They are also believed where they say that their object has
// taken the place of the one in the status: they are written first, and the process died between
// the two writes.
type Record struct {
	ID     string
	Origin Origin
	// Restored says that the record comes from the annotations of a backup.
	Restored bool
	// TokenHash is of the access token that the object was seen with, where the status is still
	// about the one whose place it has taken.
	TokenHash string
}

// Own tells whether the record is of an object that this resource has, rather than names.
func (r Record) Own() bool { return r.Origin == Created || r.Origin == Adopted }

// RecordOf reads the record of a resource. It is for indexes and for looking at other resources; of
// its own a kind is told ([Connection.Record]).
func RecordOf(obj Object) Record { return recordOf(obj) }

func recordOf(obj Object) Record {
	status := obj.GetCommonStatus()
	noted, before := annotatedRecord(obj)
	switch {
	case status.ID == "":
		return noted
	case noted.Own() && before.id == status.ID:
		noted.TokenHash = before.tokenHash
		return noted
	case status.Adopted:
		return Record{ID: status.ID, Origin: Adopted}
	default:
		return Record{ID: status.ID, Origin: Created}
	}
}

// replacement is that an object has taken the place of another one, and the access token that it was
// seen with.
type replacement struct{ id, tokenHash string }

// annotatedRecord is what the annotations say, and whose place their object has taken; empty if it has
// taken none.
func annotatedRecord(obj Object) (noted Record, of replacement) {
	id := obj.GetAnnotations()[v1alpha1.AnnotationID]
	if id == "" {
		return Record{}, of
	}
	for _, origin := range []Origin{Created, Adopted} {
		if of, ok := readOriginNote(obj, id, origin); ok {
			return Record{ID: id, Origin: origin, Restored: true}, of
		}
	}
	return Record{ID: id, Origin: Imported}, of
}

// originNote is the value of the origin annotation. It names the object and the resource, so that
// it says nothing on a copy, or beside another id.
func originNote(obj Object, id string, origin Origin) string {
	return fmt.Sprintf("%s %s for %s/%s", map[Origin]string{Created: "created", Adopted: "adopted"}[origin], id, obj.GetNamespace(), obj.GetName())
}

// What comes between an origin, the id of the object before, and the hash of an access token.
const (
	insteadOf = " instead of "
	withToken = " with the token "
)

// readOriginNote tells whether the origin annotation says this, and what it says beyond it.
func readOriginNote(obj Object, id string, origin Origin) (of replacement, ok bool) {
	note, rest, _ := strings.Cut(obj.GetAnnotations()[v1alpha1.AnnotationOrigin], insteadOf)
	of.id, of.tokenHash, _ = strings.Cut(rest, withToken)
	return of, note == originNote(obj, id, origin)
}

// annotations are the copy of the record on the resource.
func (p *pass[O]) annotations(id string, origin Origin) map[string]any {
	note := originNote(p.obj, id, origin)
	if before := p.obj.GetCommonStatus().ID; before != "" && before != id {
		note += insteadOf + before + withToken + p.token.Fingerprint()
	}
	return map[string]any{v1alpha1.AnnotationID: id, v1alpha1.AnnotationOrigin: note}
}

// recorded tells whether the resource carries the finalizer and the copy of the record.
func (p *pass[O]) recorded(id string, origin Origin) bool {
	_, noted := readOriginNote(p.obj, id, origin)
	return noted && p.obj.GetAnnotations()[v1alpha1.AnnotationID] == id && p.hasFinalizer()
}

// restore puts back what somebody has taken off the resource: the finalizer, without which the
// remote object would be left behind, the copy of the record, and which requests may have been
// carried out.
func (p *pass[O]) restore(ctx context.Context) error {
	if p.deleting() {
		return nil // nothing can be added any more
	}
	lost := map[string]any{}
	if record := p.record; record.Own() && !record.Restored && !p.recorded(record.ID, record.Origin) {
		lost = p.annotations(record.ID, record.Origin)
	}
	if len(lost) == 0 && !p.sentLost && (p.hasFinalizer() || p.sent.intent == nil) {
		return nil
	}
	if err := p.noteSent(ctx, exactVersion, addFinalizer, p.sent, lost); err != nil {
		return err
	}
	p.recordEvent(Event{Reason: v1alpha1.EventRestored, Action: "Restore",
		Message: "Put back the operator's annotations and finalizer, which were removed or changed."})
	return nil
}

// noteRecord mirrors the record into the status, where it counts.
func (p *pass[O]) noteRecord(id string, origin Origin) {
	status := p.obj.GetCommonStatus()
	status.ID, status.Adopted = id, origin == Adopted
	p.record = Record{ID: id, Origin: origin}
}

// ImportConflict is the outcome for an id that was imported and does not fit.
func ImportConflict(format string, args ...any) Outcome {
	message := strings.TrimRight(fmt.Sprintf(format, args...), ".")
	return Stalled(v1alpha1.ReasonConflict, "%s: correct the annotation %s, or remove it.", message, v1alpha1.AnnotationID)
}
