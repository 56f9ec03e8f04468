// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/test/invariants"
)

// newReconciler is a loop without a cluster.
func newLoop() *Reconciler[*v1alpha1.Artefact] {
	r := newReconciler(Environment{Clock: clocktesting.NewFakePassiveClock(noon)}, Kind[*v1alpha1.Artefact]{Noun: "artefact"})
	r.gvk = v1alpha1.GroupVersion.WithKind("Artefact")
	return r
}

// newArtefact is a resource that nobody has looked at, with what the API server
// puts into its status.
func newArtefact() *v1alpha1.Artefact {
	obj := &v1alpha1.Artefact{ObjectMeta: metav1.ObjectMeta{
		Namespace: "lab", Name: "kiosk", UID: "mine", Generation: 1, ResourceVersion: "1", Annotations: map[string]string{},
	}}
	obj.Status.ObservedGeneration = -1
	return obj
}

// passOver begins a pass over the resource.
func passOver(r *Reconciler[*v1alpha1.Artefact], obj *v1alpha1.Artefact) *pass[*v1alpha1.Artefact] {
	name := client.ObjectKeyFromObject(obj)
	return r.begin(reconcile.Request{NamespacedName: name}, obj, r.memory.recall(name, obj.UID, noon))
}

func condition(obj *v1alpha1.Artefact, kind string) *metav1.Condition {
	return meta.FindStatusCondition(obj.Status.Conditions, kind)
}

// checkInvariants checks what Argo CD, Flux and kubectl wait rely on.
func checkInvariants(t *testing.T, obj *v1alpha1.Artefact) {
	t.Helper()
	if err := invariants.Check(obj); err != nil {
		t.Error(err)
	}
}

// However passes follow one another, the conditions of a resource make sense
// together after each.
func TestKstatus(t *testing.T) {
	outcomes := []struct {
		name string
		Outcome
	}{
		{"ready", Ready(v1alpha1.ReasonAvailable, "It is there.")},
		{"waiting", Waiting(v1alpha1.ReasonCreating, "It is coming.")},
		{"stalled", Stalled(v1alpha1.ReasonInvalid, "It is wrong.")},
		{"passing", transient(v1alpha1.ReasonThrottled, "It has to wait.")},
		{"quiet", NoChange(time.Second)},
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		r, obj := newLoop(), newArtefact()
		var story []string
		for range 8 {
			switch random.IntN(6) {
			case 0:
				obj.Generation++
				story = append(story, "changed")
			case 1:
				obj.Annotations[v1alpha1.AnnotationSuspend] = "true"
				story = append(story, "suspended")
			case 2:
				delete(obj.Annotations, v1alpha1.AnnotationSuspend)
				story = append(story, "resumed")
			}
			outcome := outcomes[random.IntN(len(outcomes))]
			story = append(story, outcome.name)

			p := passOver(r, obj)
			p.setConditions(outcome.Outcome)
			checkInvariants(t, obj)
			if suspended := condition(obj, v1alpha1.ConditionSuspended) != nil; suspended != p.suspended() {
				t.Errorf("Suspended is there: %t", suspended)
			}
			if t.Failed() {
				t.Fatalf("after %s", strings.Join(story, ", "))
			}
		}
	}
}

func TestSetConditions(t *testing.T) {
	for name, test := range map[string]struct {
		outcome   Outcome
		companion string
	}{
		"ready":   {Ready(v1alpha1.ReasonAvailable, "It is there."), ""},
		"waiting": {Waiting(v1alpha1.ReasonCreating, "It is coming."), v1alpha1.ConditionReconciling},
		"stalled": {Stalled(v1alpha1.ReasonInvalid, "It is wrong."), v1alpha1.ConditionStalled},
	} {
		t.Run(name, func(t *testing.T) {
			obj := newArtefact()
			obj.Generation = 7
			setCondition(&obj.Status.Conditions, 6, v1alpha1.ConditionSynced, metav1.ConditionFalse, v1alpha1.ReasonIdentityExchanged, "Not all of it.")
			passOver(newLoop(), obj).setConditions(test.outcome)

			ready := condition(obj, v1alpha1.ConditionReady)
			if ready == nil || ready.Status != test.outcome.Ready || ready.Reason != test.outcome.Reason || ready.Message != test.outcome.Message {
				t.Fatalf("Ready is %+v", ready)
			}
			if ready.ObservedGeneration != 7 || obj.Status.ObservedGeneration != 7 {
				t.Errorf("it is about generation %d of %d", ready.ObservedGeneration, obj.Status.ObservedGeneration)
			}
			checkInvariants(t, obj)
			if test.companion != "" && condition(obj, test.companion) == nil {
				t.Errorf("%s is missing", test.companion)
			}
			if condition(obj, v1alpha1.ConditionSynced) == nil {
				t.Error("the kind's own condition is gone")
			}
		})
	}
}

// Trouble that passes by itself changes nothing that was known of what the spec
// says now; a resource of which nothing is known is told about it.
func TestTransientTrouble(t *testing.T) {
	trouble := transient(v1alpha1.ReasonConnectUnavailable, "Connect cannot be reached.")
	for name, test := range map[string]struct {
		before  *Outcome
		changed bool // the spec, since
		stays   bool
	}{
		"what was ready stays ready":                      {new(Ready(v1alpha1.ReasonAvailable, "It is there.")), false, true},
		"what was stalled stays stalled":                  {new(Stalled(v1alpha1.ReasonInvalid, "It is wrong.")), false, true},
		"what is being worked on is told":                 {new(Waiting(v1alpha1.ReasonCreating, "It is coming.")), false, false},
		"what nobody has looked at is told":               {nil, false, false},
		"what was ready before the spec changed is told":  {new(Ready(v1alpha1.ReasonAvailable, "It is there.")), true, false},
		"what was wrong before it was corrected is told":  {new(Stalled(v1alpha1.ReasonInvalid, "It is wrong.")), true, false},
		"what met other trouble before is told the newer": {new(transient(v1alpha1.ReasonThrottled, "It has to wait.")), false, false},
	} {
		t.Run(name, func(t *testing.T) {
			r, obj := newLoop(), newArtefact()
			if test.before != nil {
				passOver(r, obj).setConditions(*test.before)
			}
			if test.changed {
				obj.Generation++
			}
			before := obj.Status.DeepCopy()
			passOver(r, obj).setConditions(trouble)
			if test.stays {
				if !reflect.DeepEqual(&obj.Status, before) {
					t.Errorf("the status became %+v", obj.Status)
				}
				return
			}
			ready := condition(obj, v1alpha1.ConditionReady)
			if ready == nil || ready.Status != metav1.ConditionUnknown || ready.Reason != trouble.Reason || ready.ObservedGeneration != obj.Generation {
				t.Errorf("Ready is %+v", ready)
			}
			checkInvariants(t, obj)
		})
	}
}

// A pass that has nothing to tell leaves everything as it is, also that nobody
// has looked at the newest spec yet.
func TestQuietPass(t *testing.T) {
	r, obj := newLoop(), newArtefact()
	passOver(r, obj).setConditions(Ready(v1alpha1.ReasonAvailable, "It is there."))
	obj.Generation++
	before := obj.Status.DeepCopy()
	passOver(r, obj).setConditions(NoChange(time.Second))
	if !reflect.DeepEqual(&obj.Status, before) {
		t.Errorf("the status became %+v", obj.Status)
	}
}

func TestSuspended(t *testing.T) {
	r, obj := newLoop(), newArtefact()
	passOver(r, obj).setConditions(Ready(v1alpha1.ReasonAvailable, "It is there."))

	obj.Annotations[v1alpha1.AnnotationSuspend] = "true"
	obj.Annotations[v1alpha1.AnnotationReconcileRequestedAt] = "now"
	obj.Generation++
	passOver(r, obj).setConditions(NoChange(0))
	suspended := condition(obj, v1alpha1.ConditionSuspended)
	if suspended == nil || suspended.Status != metav1.ConditionTrue || !strings.Contains(suspended.Message, v1alpha1.AnnotationSuspend) {
		t.Errorf("Suspended is %+v", suspended)
	}
	if ready := condition(obj, v1alpha1.ConditionReady); ready.Status != metav1.ConditionTrue || ready.ObservedGeneration != 1 {
		t.Errorf("nobody has looked, but Ready is %+v", ready)
	}
	if obj.Status.ObservedGeneration != 1 || obj.Status.LastHandledReconcileAt != "" {
		t.Errorf("nobody has looked, but the status says %+v", obj.Status)
	}

	delete(obj.Annotations, v1alpha1.AnnotationSuspend)
	passOver(r, obj).setConditions(transient(v1alpha1.ReasonThrottled, "It has to wait."))
	if condition(obj, v1alpha1.ConditionSuspended) != nil {
		t.Error("it goes on, but Suspended is still there")
	}

	// Only "true" suspends, as is documented.
	obj.Annotations[v1alpha1.AnnotationSuspend] = "false"
	passOver(r, obj).setConditions(Ready(v1alpha1.ReasonAvailable, "It is there."))
	if condition(obj, v1alpha1.ConditionSuspended) != nil || obj.Status.ObservedGeneration != 2 {
		t.Errorf("it is not suspended, but the status says %+v", obj.Status)
	}
}

// A user's request to look now stands until somebody has looked: an outage does
// not answer it.
func TestRequestToLook(t *testing.T) {
	for name, test := range map[string]struct {
		outcome  Outcome
		answered bool
	}{
		"a look at what is ready":   {Ready(v1alpha1.ReasonAvailable, "It is there."), true},
		"a look at what is coming":  {Waiting(v1alpha1.ReasonCreating, "It is coming."), true},
		"a look at what is wrong":   {Stalled(v1alpha1.ReasonInvalid, "It is wrong."), true},
		"an outage":                 {transient(v1alpha1.ReasonConnectUnavailable, "Connect cannot be reached."), false},
		"a listing that is awaited": {NoChange(0), false},
		"a cache that was behind":   {RequeueWithBackoff(), false},
		"a poll that met an outage": {Outcome{Ready: metav1.ConditionUnknown, Reason: v1alpha1.ReasonPending, Message: "It waits.", Unanswered: true}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r, obj := newLoop(), newArtefact()
			obj.Annotations[v1alpha1.AnnotationReconcileRequestedAt] = "please"
			p := passOver(r, obj)
			if got := p.known.freshness.notBefore; !got.Equal(noon) {
				t.Errorf("it needs a listing from %s on", got)
			}
			p.setConditions(test.outcome)
			if answered := obj.Status.LastHandledReconcileAt == "please"; answered != test.answered {
				t.Errorf("it is answered: %t", answered)
			}
			if met := p.known.freshness.notBefore.IsZero(); met != test.answered {
				t.Errorf("any listing will do again: %t", met)
			}
		})
	}
}

func TestKnown(t *testing.T) {
	for name, test := range map[string]struct {
		ready      metav1.ConditionStatus // empty: there is no condition
		generation int64
		want       bool
	}{
		"nothing at all":                    {"", 0, false},
		"ready, of this generation":         {metav1.ConditionTrue, 5, true},
		"not ready, of this generation":     {metav1.ConditionFalse, 5, true},
		"being worked on":                   {metav1.ConditionUnknown, 5, false},
		"ready, of the generation before":   {metav1.ConditionTrue, 4, false},
		"not ready, of one that is no more": {metav1.ConditionFalse, 6, false},
	} {
		t.Run(name, func(t *testing.T) {
			var status v1alpha1.CommonStatus
			if test.ready != "" {
				setCondition(&status.Conditions, test.generation, v1alpha1.ConditionReady, test.ready, "A", "It is so.")
			}
			if got := isKnown(status, 5); got != test.want {
				t.Errorf("known: %t", got)
			}
		})
	}
}

// journal is a loop whose status writes and events are written down in their
// order.
type journal struct {
	*Reconciler[*v1alpha1.Artefact]
	lines  []string
	broken error // what the next write of a status meets
}

func newJournal(t *testing.T) *journal {
	j := &journal{Reconciler: newLoop()}
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	j.Client = fake.NewClientBuilder().WithScheme(scheme).WithInterceptorFuncs(interceptor.Funcs{
		SubResourcePatch: func(_ context.Context, _ client.Client, part string, _ client.Object, _ client.Patch, _ ...client.SubResourcePatchOption) error {
			j.lines = append(j.lines, "write "+part)
			return j.broken
		},
	}).Build()
	j.Events = j
	return j
}

// Eventf makes the journal the recorder of events.
func (j *journal) Eventf(_, _ runtime.Object, kind, reason, _, _ string, _ ...any) {
	j.lines = append(j.lines, "event "+kind+" "+reason)
}

// has checks what has been written down since the last time.
func (j *journal) has(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(j.lines, want) {
		t.Errorf("got %q, want %q", j.lines, want)
	}
	j.lines = nil
}

func TestPatchStatus(t *testing.T) {
	ready := Ready(v1alpha1.ReasonAvailable, "It is there.")
	made := Event{Reason: v1alpha1.EventCreated, Action: "Create", Message: "Created it."}
	lost := Event{Warning: true, Reason: v1alpha1.EventOrphaned, Action: "Delete", Message: "Left it."}

	t.Run("what is the same is not written again", func(t *testing.T) {
		j, obj := newJournal(t), newArtefact()
		for range 3 {
			if err := passOver(j.Reconciler, obj).patchStatus(t.Context(), ready); err != nil {
				t.Fatal(err)
			}
		}
		j.has(t, "write status")
	})
	t.Run("a quiet pass over a new resource writes nothing", func(t *testing.T) {
		j := newJournal(t)
		if err := passOver(j.Reconciler, newArtefact()).patchStatus(t.Context(), NoChange(0)); err != nil {
			t.Fatal(err)
		}
		j.has(t)
	})
	t.Run("events come after the status that they belong to", func(t *testing.T) {
		j := newJournal(t)
		p := passOver(j.Reconciler, newArtefact())
		p.recordEvent(made)
		p.recordEvent(lost)
		if err := p.patchStatus(t.Context(), ready); err != nil {
			t.Fatal(err)
		}
		j.has(t, "write status", "event Normal Created", "event Warning Orphaned")
	})
	t.Run("events wait for a status that cannot be written", func(t *testing.T) {
		j := newJournal(t)
		j.broken = errors.New("the API server is out of order")
		p := passOver(j.Reconciler, newArtefact())
		p.recordEvent(made)
		if err := p.patchStatus(t.Context(), ready); !errors.Is(err, j.broken) {
			t.Errorf("got %v", err)
		}
		j.has(t, "write status")
	})
	t.Run("nobody writes the status of what has been let go", func(t *testing.T) {
		j, obj := newJournal(t), newArtefact()
		obj.DeletionTimestamp = &metav1.Time{Time: noon}
		p := passOver(j.Reconciler, obj)
		p.recordEvent(lost)
		if err := p.patchStatus(t.Context(), ready); err != nil {
			t.Fatal(err)
		}
		j.has(t, "event Warning Orphaned")
	})
	t.Run("a kind that changed the spec is stopped", func(t *testing.T) {
		j := newJournal(t)
		p := passOver(j.Reconciler, newArtefact())
		p.obj.Spec.URI = "https://elsewhere.example.com"
		if err := p.patchStatus(t.Context(), ready); err == nil || !strings.Contains(err.Error(), "spec") {
			t.Errorf("got %v", err)
		}
		j.has(t)
	})
}
