// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// What the operator writes itself must not wake it: otherwise every resource
// would be looked at twice, and a steady cluster would not be quiet. What a user
// does must.
func TestPredicates(t *testing.T) {
	annotate := func(annotations ...string) func(*v1alpha1.Artefact) {
		return func(obj *v1alpha1.Artefact) {
			for i := 0; i < len(annotations); i += 2 {
				if annotations[i+1] == "" {
					delete(obj.Annotations, annotations[i])
				} else {
					obj.Annotations[annotations[i]] = annotations[i+1]
				}
			}
		}
	}
	as := func(*v1alpha1.Artefact) {}
	const id, origin, intent = v1alpha1.AnnotationID, v1alpha1.AnnotationOrigin, v1alpha1.AnnotationCreateIntent
	madeA0 := originNote(newArtefact(), "a0", Created)
	madeA1, madeA2 := originNote(newArtefact(), "a1", Created), originNote(newArtefact(), "a2", Created)
	adoptedA1 := originNote(newArtefact(), "a1", Adopted)
	has := func(obj *v1alpha1.Artefact) { // with everything that the operator puts on it
		obj.Status.ID, obj.Finalizers = "a1", []string{v1alpha1.Finalizer}
		annotate(id, "a1", origin, madeA1)(obj)
	}
	intended := annotate(intent, marshalled(Intent{At: noon, UID: "mine"}))

	for name, test := range map[string]struct {
		was, becomes func(*v1alpha1.Artefact)
		want         bool
	}{
		"a resync": {as, as, false},
		"the status": {as, func(obj *v1alpha1.Artefact) {
			setCondition(&obj.Status.Conditions, 1, v1alpha1.ConditionReady, metav1.ConditionTrue, "A", "It is so.")
			obj.Status.ID, obj.Status.LastHandledReconcileAt = "a1", "now"
		}, false},
		"the finalizer comes": {as, func(obj *v1alpha1.Artefact) { obj.Finalizers = []string{v1alpha1.Finalizer} }, false},
		"the finalizer goes with the resource": {func(obj *v1alpha1.Artefact) {
			obj.Finalizers, obj.DeletionTimestamp = []string{v1alpha1.Finalizer}, &metav1.Time{Time: noon}
		}, func(obj *v1alpha1.Artefact) { obj.Finalizers = nil }, false},
		"the intent": {as, intended, false},
		"an intent that is dropped after a refusal": {intended, annotate(intent, ""), false},
		"the id of what was made":                   {intended, annotate(id, "a1", origin, madeA1, intent, ""), false},
		"the id of what was adopted":                {as, annotate(id, "a1", origin, adoptedA1), false},
		"the origin of what a user imported":        {annotate(id, "a1"), annotate(origin, adoptedA1), true},
		"the id of what was made in its place": {
			func(obj *v1alpha1.Artefact) {
				annotate(id, "a1", origin, madeA1)(obj)
				intended(obj)
			}, annotate(id, "a2", origin, madeA2, intent, ""), false},
		"labels and annotations of others": {as, func(obj *v1alpha1.Artefact) {
			obj.Labels = map[string]string{"team": "lab"}
			obj.Annotations["example.com/note"] = "hello"
		}, false},

		"somebody takes the finalizer off":               {has, func(obj *v1alpha1.Artefact) { obj.Finalizers = nil }, true},
		"somebody takes the id off":                      {has, annotate(id, ""), true},
		"somebody changes the id":                        {has, annotate(id, "a0"), true},
		"somebody changes the origin":                    {has, annotate(origin, adoptedA1), true},
		"the spec":                                       {as, func(obj *v1alpha1.Artefact) { obj.Generation++ }, true},
		"the deletion":                                   {as, func(obj *v1alpha1.Artefact) { obj.DeletionTimestamp = &metav1.Time{Time: noon} }, true},
		"it is suspended":                                {as, annotate(v1alpha1.AnnotationSuspend, "true"), true},
		"it is resumed":                                  {annotate(v1alpha1.AnnotationSuspend, "true"), annotate(v1alpha1.AnnotationSuspend, ""), true},
		"a request to look":                              {as, annotate(v1alpha1.AnnotationReconcileRequestedAt, "now"), true},
		"another request to look":                        {annotate(v1alpha1.AnnotationReconcileRequestedAt, "now"), annotate(v1alpha1.AnnotationReconcileRequestedAt, "and now"), true},
		"an id to import":                                {as, annotate(id, "a1"), true},
		"an id that is corrected":                        {annotate(id, "a0"), annotate(id, "a1"), true},
		"an id that is removed":                          {annotate(id, "a0"), annotate(id, ""), true},
		"an id from a backup that is removed":            {annotate(id, "a0", origin, madeA0), annotate(id, ""), true},
		"an id to import on a resource that has another": {annotate(id, "a0", origin, madeA0), annotate(id, "a1"), true},
		"the spec, together with a write of ours": {intended, func(obj *v1alpha1.Artefact) {
			annotate(id, "a1", origin, madeA1, intent, "")(obj)
			obj.Generation++
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			before := newArtefact()
			test.was(before)
			after := before.DeepCopy()
			after.ResourceVersion = "2"
			test.becomes(after)
			if got := newLoop().predicates().Update(event.UpdateEvent{ObjectOld: before, ObjectNew: after}); got != test.want {
				t.Errorf("it wakes: %t", got)
			}
		})
	}
	if !newLoop().predicates().Create(event.CreateEvent{Object: newArtefact()}) {
		t.Error("a new resource does not wake")
	}
	if !newLoop().predicates().Delete(event.DeleteEvent{Object: newArtefact()}) {
		t.Error("a resource that is gone does not wake, so that nobody forgets it")
	}
}
