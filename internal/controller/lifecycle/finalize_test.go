// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
)

func policy(p v1alpha1.DeletionPolicy) func(*v1alpha1.Artefact) {
	return func(a *v1alpha1.Artefact) { a.Spec.DeletionPolicy = p }
}

func finalizer(a *v1alpha1.Artefact) { a.Finalizers = []string{v1alpha1.Finalizer} }

// What a resource takes along when it goes is what the operator has made for it, unless its policy says
// otherwise.
func TestWhatGoesWithAResource(t *testing.T) {
	const keep, remove = v1alpha1.DeletionPolicyOrphan, v1alpha1.DeletionPolicyDelete
	for name, test := range map[string]struct {
		obj    []func(*v1alpha1.Artefact)
		change func(*stage)
		seen   Observation
		calls  string
	}{
		"what was made":                   {[]func(*v1alpha1.Artefact){has("a1", Created)}, nil, mine("a1"), "delete a1 release"},
		"what was made, by policy":        {[]func(*v1alpha1.Artefact){has("a1", Created), policy(remove)}, nil, mine("a1"), "delete a1 release"},
		"not what was made, by policy":    {[]func(*v1alpha1.Artefact){has("a1", Created), policy(keep)}, nil, mine("a1"), ""},
		"not what was adopted":            {[]func(*v1alpha1.Artefact){has("a1", Adopted)}, nil, mine("a1"), ""},
		"what was adopted, by policy":     {[]func(*v1alpha1.Artefact){has("a1", Adopted), policy(remove)}, nil, mine("a1"), "delete a1 release"},
		"not what the kind leaves":        {[]func(*v1alpha1.Artefact){has("a1", Created)}, func(s *stage) { s.kind.OrphanByDefault = true }, mine("a1"), ""},
		"what the kind leaves, by policy": {[]func(*v1alpha1.Artefact){has("a1", Created), policy(remove)}, func(s *stage) { s.kind.OrphanByDefault = true }, mine("a1"), "delete a1 release"},
		"nothing, of what has come to an end": {[]func(*v1alpha1.Artefact){has("a1", Created)}, func(s *stage) {
			s.kind.Done = func(*v1alpha1.Artefact) (Outcome, bool) { return available, true }
		}, mine("a1"), ""},
		"what has not come to its end": {[]func(*v1alpha1.Artefact){has("a1", Created)}, func(s *stage) {
			s.kind.Done = func(*v1alpha1.Artefact) (Outcome, bool) { return Outcome{}, false }
		}, mine("a1"), "delete a1 release"},
		"nothing, where nothing was":           {[]func(*v1alpha1.Artefact){finalizer}, nil, AbsentObject(), ""},
		"nothing that only a user has written": {[]func(*v1alpha1.Artefact){finalizer, annotated(v1alpha1.AnnotationID, "a1")}, nil, mine("a1"), ""},
		"nothing that only a user has written, by policy": {
			[]func(*v1alpha1.Artefact){finalizer, annotated(v1alpha1.AnnotationID, "a1"), policy(remove)}, nil, mine("a1"), ""},
		"what comes from a backup":         {[]func(*v1alpha1.Artefact){restored("a1", Created)}, nil, mine("a1"), "observe delete a1 release"},
		"what was seen with another token": {[]func(*v1alpha1.Artefact){has("a1", Created), seenWith(otherToken)}, nil, mine("a1"), "observe delete a1 release"},
		"what was seen with this token":    {[]func(*v1alpha1.Artefact){has("a1", Created), seenWith(token)}, nil, mine("a1"), "delete a1 release"},
		"what is foreign by now":           {[]func(*v1alpha1.Artefact){restored("a1", Created)}, nil, ForeignObject("a1", Stalled(v1alpha1.ReasonConflict, "It is another's.")), "observe release"},
		"what is not there":                {[]func(*v1alpha1.Artefact){restored("a1", Created)}, nil, AbsentObject(), "observe release"},
		"what a kind cannot remove":        {[]func(*v1alpha1.Artefact){has("a1", Created)}, func(s *stage) { s.lookout = true }, mine("a1"), ""},
		"what a request has made":          {[]func(*v1alpha1.Artefact){asked(time.Minute)}, nil, Observation{Relation: Recovered, ID: "a1"}, "observe delete a1 release"},
		"what a request has made beside what a user has written": {
			[]func(*v1alpha1.Artefact){asked(time.Minute), annotated(v1alpha1.AnnotationID, "a0")}, nil, Observation{Relation: Recovered, ID: "a1"}, "observe delete a1 release"},
		"what a request has made in the place of what was adopted": {
			[]func(*v1alpha1.Artefact){has("a0", Adopted), asked(time.Minute)}, nil, Observation{Relation: Recovered, ID: "a1"}, "observe delete a1 release"},
		"not what was adopted, and that a request was to replace": {
			[]func(*v1alpha1.Artefact){has("a0", Adopted), asked(time.Minute)}, nil, mine("a0"), "observe release"},
		"what a request was to replace":       {[]func(*v1alpha1.Artefact){has("a1", Created), asked(2 * time.Minute)}, nil, mine("a1"), "observe delete a1 release"},
		"not what an older one has on record": {[]func(*v1alpha1.Artefact){has("a1", Created)}, func(s *stage) { s.apply(elder(has("a1", Created))) }, mine("a1"), "release"},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, false, func(s *stage) {
				s.apply(kiosk(test.obj...))
				if test.change != nil {
					test.change(s)
				}
				s.delete()
				s.finds(test.seen)
				result := s.reconcile()
				s.called(test.calls)
				if test.seen.Relation == Recovered { // the request may be carried out once more
					s.between(result, 30*time.Second, 30*time.Second)
					lapse(30 * time.Second)
					s.finds(AbsentObject())
					s.reconcile()
					s.reconcile()
				}
				if !s.gone() {
					s.Errorf("the resource is still there: %+v", s.resource().ObjectMeta)
				}
			})
		})
	}
}

// Others may keep the resource for longer: what they have put on it stays.
func TestAResourceThatOthersKeep(t *testing.T) {
	playBoth(t, func(s *stage) {
		a := kiosk(has("a1", Created), annotated("example.com/note", "hello"))
		a.Finalizers = append(a.Finalizers, "example.com/finalizer")
		s.apply(a)
		s.delete()
		s.reconcile()
		s.called("delete a1 release")
		if a := s.resource(); len(a.Finalizers) != 1 || a.Finalizers[0] != "example.com/finalizer" || a.Annotations["example.com/note"] != "hello" {
			s.Errorf("left are %v %v", a.Finalizers, a.Annotations)
		}
		s.reconcile()
		s.called("")
	})
}

// elder is another resource about the same thing, which was there before.
func elder(change ...func(*v1alpha1.Artefact)) *v1alpha1.Artefact {
	return other("elder", -time.Hour, change...)
}

func younger(change ...func(*v1alpha1.Artefact)) *v1alpha1.Artefact {
	return other("younger", time.Hour, change...)
}

func other(name string, later time.Duration, change ...func(*v1alpha1.Artefact)) *v1alpha1.Artefact {
	a := kiosk(func(a *v1alpha1.Artefact) {
		a.Name, a.UID, a.CreationTimestamp = name, types.UID(name), metav1.NewTime(time.Now().Add(later))
	})
	for _, c := range change {
		c(a)
	}
	return a
}

// A resource whose removal has not come to its end stays, and says why.
func TestAResourceThatCannotGo(t *testing.T) {
	for name, test := range map[string]struct {
		err    error
		reason string
		words  string
		ready  metav1.ConditionStatus
	}{
		"because Connect refuses":           {refused("it is in use"), v1alpha1.ReasonDeletionRefused, "refuses the deletion: it is in use. To let the resource go", metav1.ConditionFalse},
		"because Connect does not allow it": {refusal(connectclient.ErrForbidden, words("no")), v1alpha1.ReasonDeletionRefused, "refuses the deletion: no.", metav1.ConditionFalse},
		"because of billing":                {refusal(connectclient.ErrBilling, words("pay")), v1alpha1.ReasonDeletionRefused, "refuses the deletion: pay.", metav1.ConditionFalse},
		"because the token is refused":      {refusal(connectclient.ErrUnauthorized, words("no")), v1alpha1.ReasonAccessTokenRejected, "To let the resource go", metav1.ConditionFalse},
		"because Connect cannot be reached": {refusal(connectclient.ErrUnavailable, connectclient.Error{}), v1alpha1.ReasonConnectUnavailable, "keeps trying", metav1.ConditionUnknown},
		"because the budget is spent":       {refusal(connectclient.ErrThrottled, connectclient.Error{}), v1alpha1.ReasonThrottled, "", metav1.ConditionUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			playBoth(t, func(s *stage) {
				s.apply(kiosk(has("a1", Created)))
				s.delete()
				s.deletes(Deletion{}, test.err)
				s.reconcile()
				s.called("delete a1 release")
				s.says(test.ready, test.reason, test.words)
				s.tells()

				// What may have been carried out is looked for.
				lapse(2 * time.Hour)
				s.finds(mine("a1"))
				s.deletes(Removed("Deleted", "Deleted it."), nil)
				s.reconcile()
				if test.reason == v1alpha1.ReasonConnectUnavailable {
					s.called("observe delete a1 release")
				} else {
					s.called("delete a1 release")
				}
				s.tells("Normal Deleted: Deleted it.")
				if !s.gone() {
					s.Error("it is still there")
				}
			})
		})
	}
	t.Run("because it takes a while", func(t *testing.T) {
		playBoth(t, func(s *stage) {
			s.apply(kiosk(has("a1", Created)))
			s.delete()
			s.deletes(Deletion{Pending: new(Waiting(v1alpha1.ReasonDeleting, "It takes a while.")), Event: &Event{Reason: "Deleted", Message: "Not yet."}}, nil)
			s.reconcile()
			s.says(metav1.ConditionUnknown, v1alpha1.ReasonDeleting, "It takes a while.")
			s.tells()
		})
	})
	t.Run("because it cannot be looked at", func(t *testing.T) {
		playBoth(t, func(s *stage) {
			s.apply(kiosk(restored("a1", Created)))
			s.delete()
			s.seenErr = refusal(connectclient.ErrUnavailable, connectclient.Error{})
			s.reconcile()
			s.called("observe release")
			s.says(metav1.ConditionUnknown, v1alpha1.ReasonConnectUnavailable, "")
		})
	})
	t.Run("because it cannot be told whose the object is", func(t *testing.T) {
		playBoth(t, func(s *stage) {
			s.apply(kiosk(restored("a1", Created)))
			s.delete()
			s.finds(NotKnown(Waiting(v1alpha1.ReasonDeleting, "Nobody knows.")))
			s.reconcile()
			s.called("observe release")
			s.says(metav1.ConditionUnknown, v1alpha1.ReasonDeleting, "Nobody knows.")
		})
	})
	t.Run("because the API server does not let it", func(t *testing.T) {
		playBoth(t, func(s *stage) {
			s.apply(kiosk(has("a1", Created)))
			s.Claims.Take("something", Holder{UID: "mine"}, true)
			s.delete()
			s.writing = func(part string) error {
				if part == "metadata" {
					return conflict()
				}
				return nil
			}
			s.reconcile()
			if _, held := s.Claims.HolderOf("something"); !held {
				s.Error("it has let go of what it holds")
			}
			s.writing = func(string) error { return nil }
			lapse(time.Minute)
			s.reconcile()
			if _, held := s.Claims.HolderOf("something"); held || !s.gone() {
				s.Error("it holds on to something")
			}
		})
	})
}

// What a request may still make is waited for: nobody would remove it.
func TestADeletionAfterALostAnswer(t *testing.T) {
	for name, test := range map[string]struct {
		obj   []func(*v1alpha1.Artefact)
		seen  Observation
		waits time.Duration
		calls string
	}{
		"waits for what has not settled":        {[]func(*v1alpha1.Artefact){asked(time.Minute)}, AbsentObject(), 30 * time.Second, "observe release"},
		"waits for the newest of several":       {[]func(*v1alpha1.Artefact){asked(time.Minute), unanswered(2 * time.Minute)}, AbsentObject(), 30 * time.Second, "observe release"},
		"waits for an earlier one":              {[]func(*v1alpha1.Artefact){finalizer, unanswered(80*time.Second, 3*time.Minute)}, AbsentObject(), 10 * time.Second, "observe release"},
		"does not wait for what has settled":    {[]func(*v1alpha1.Artefact){asked(90 * time.Second)}, AbsentObject(), 0, "observe release"},
		"does not wait for what was found":      {[]func(*v1alpha1.Artefact){asked(time.Minute)}, Observation{Relation: Absent, Settled: true}, 0, "observe release"},
		"waits with the object that it deletes": {[]func(*v1alpha1.Artefact){has("a1", Created), asked(time.Minute)}, mine("a1"), 30 * time.Second, "observe delete a1 release"},
	} {
		t.Run(name, func(t *testing.T) {
			playBoth(t, func(s *stage) {
				s.apply(kiosk(test.obj...))
				s.delete()
				s.finds(test.seen)
				result := s.reconcile()
				s.called(test.calls)
				if s.gone() != (test.waits == 0) {
					s.Fatalf("it is gone: %t", s.gone())
				}
				if test.waits == 0 {
					return
				}
				s.between(result, test.waits, test.waits)
				s.says(metav1.ConditionUnknown, v1alpha1.ReasonDeleting, "waiting until it is certain")
				lapse(test.waits)
				s.finds(AbsentObject())
				s.reconcile()
				s.called("observe release")
				if s.conn.NotBefore.IsZero() || time.Since(s.conn.NotBefore) > test.waits {
					s.Errorf("it goes by listings from %s on", s.conn.NotBefore)
				}
				if !s.gone() {
					s.Error("it is still there")
				}
			})
		})
	}
	t.Run("says what it leaves that nobody had looked for", func(t *testing.T) {
		for relation, told := range map[Relation]bool{Adoptable: true, Foreign: false} {
			play(t, true, func(s *stage) {
				s.apply(kiosk(asked(2*time.Minute, func(i *Intent) { i.Unlooked = true })))
				s.delete()
				s.finds(Observation{Relation: relation, ID: "a1"})
				s.reconcile()
				if (len(s.told) == 1) != told || told && !strings.Contains(s.told[0], "Warning Orphaned: The artefact a1 stays in the organisation") {
					s.Errorf("told: %q", s.told)
				}
				if !s.gone() {
					s.Error("it is still there")
				}
			})
		}
		play(t, true, func(s *stage) { // somebody had looked: it is somebody else's
			s.apply(kiosk(asked(2 * time.Minute)))
			s.delete()
			s.finds(Observation{Relation: Adoptable, ID: "a1"})
			s.reconcile()
			s.tells()
		})
		play(t, true, func(s *stage) {
			s.apply(kiosk(finalizer, unanswered(2*time.Minute)))
			s.delete()
			s.finds(Observation{Relation: Adoptable, ID: "a1"})
			s.reconcile()
			s.tells()
		})
	})
}

// The last token that worked serves for the deletion, and a namespace that ends does not wait for one.
func TestADeletionWithoutAToken(t *testing.T) {
	withdraw := func(s *stage) {
		s.Helper()
		s.must(s.Client.Delete(s.Context(), secretWith("connect-access-token", "")))
	}
	t.Run("uses the last one", func(t *testing.T) {
		playBoth(t, func(s *stage) {
			s.apply(kiosk(has("a1", Created)))
			s.finds(mine("a1"))
			s.reconcile()
			withdraw(s)
			s.delete()
			s.reconcile()
			s.called("delete a1 release")
			if !s.gone() {
				s.Error("it is still there")
			}
		})
	})
	for name, spoil := range map[string]func(*stage){
		"there is no Secret": withdraw,
		"it is none": func(s *stage) {
			s.Helper()
			s.must(s.Client.Update(s.Context(), secretWith("connect-access-token", "rpoak_123456789012345678901234")))
		},
	} {
		t.Run("waits for one where "+name, func(t *testing.T) {
			playBoth(t, func(s *stage) {
				s.apply(kiosk(has("a1", Created)))
				spoil(s)
				s.delete()
				s.reconcile()
				s.called("")
				if ready := condition(s.resource(), v1alpha1.ConditionReady); ready == nil || !strings.HasSuffix(ready.Message, orphanHint) {
					s.Errorf("Ready is %+v", ready)
				}
			})
		})
		t.Run("does not wait in a namespace that ends, where "+name, func(t *testing.T) {
			for _, obj := range []func(*v1alpha1.Artefact){has("a1", Created), asked(time.Minute)} {
				play(t, true, func(s *stage) {
					s.apply(kiosk(obj))
					spoil(s)
					s.endNamespace()
					s.delete()
					s.reconcile()
					what := s.told
					if len(what) != 1 || !strings.HasPrefix(what[0], "Warning Orphaned: Artefact lab/kiosk was removed without an access token that works: ") ||
						!strings.Contains(what[0], map[bool]string{true: "what it may have created", false: "a1"}[strings.Contains(what[0], "may")]+" stays") {
						s.Errorf("told: %q", what)
					}
					if len(s.about) != 1 || s.about[0] != "Namespace" {
						s.Errorf("about: %q", s.about)
					}
					if !s.gone() {
						s.Error("it is still there")
					}
				})
			}
		})
	}
	t.Run("names what stays", func(t *testing.T) {
		play(t, true, func(s *stage) {
			s.apply(kiosk(has("a1", Created)))
			withdraw(s)
			s.endNamespace()
			s.delete()
			s.reconcile()
			s.tells("Warning Orphaned: Artefact lab/kiosk was removed without an access token that works: a1 stays in the organisation.")
		})
	})
	t.Run("does not wait for one that is accepted, in a namespace that ends", func(t *testing.T) {
		play(t, true, func(s *stage) {
			s.apply(kiosk(has("a1", Created)))
			s.endNamespace()
			s.delete()
			s.deletes(Deletion{}, refusal(connectclient.ErrUnauthorized, words("no")))
			s.reconcile()
			if !s.gone() {
				s.Error("it is still there")
			}
		})
	})
	t.Run("waits for Connect, also in a namespace that ends", func(t *testing.T) {
		play(t, true, func(s *stage) {
			s.apply(kiosk(has("a1", Created)))
			s.endNamespace()
			s.delete()
			s.deletes(Deletion{}, refusal(connectclient.ErrUnavailable, connectclient.Error{}))
			s.reconcile()
			if s.gone() {
				s.Error("it is gone")
			}
		})
	})
	t.Run("waits where nobody can tell whether the namespace ends", func(t *testing.T) {
		play(t, true, func(s *stage) {
			s.apply(kiosk(has("a1", Created)))
			withdraw(s)
			s.must(s.Client.Delete(s.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "lab"}}))
			s.delete()
			if _, err := s.try(); err != nil {
				s.Fatal(err)
			}
			if s.gone() {
				s.Error("it is gone")
			}
			s.silent()
		})
	})
	t.Run("stays where the finalizer cannot be taken off", func(t *testing.T) {
		play(t, true, func(s *stage) {
			s.apply(kiosk(has("a1", Created)))
			withdraw(s)
			s.endNamespace()
			s.delete()
			broken := errors.New("connection refused")
			s.writing = func(string) error { return broken }
			if _, err := s.try(); !errors.Is(err, broken) {
				s.Errorf("the pass ends in %v", err)
			}
			s.tells()
		})
	})
}

func (s *stage) endNamespace() {
	s.Helper()
	namespace := &corev1.Namespace{}
	s.must(s.Client.Get(s.Context(), types.NamespacedName{Name: "lab"}, namespace))
	namespace.Finalizers = []string{"kubernetes"}
	s.must(s.Client.Update(s.Context(), namespace))
	s.must(s.Client.Delete(s.Context(), namespace))
}

// A token that Connect refuses is not tried again before it is time.
func TestARefusedToken(t *testing.T) {
	playBoth(t, func(s *stage) {
		s.apply(kiosk())
		s.ask(3, func() *http.Response { // the answers to a token that is none say nothing of a budget
			r := answer(http.StatusUnauthorized)
			r.Header = http.Header{}
			return r
		})
		state := s.API.ClientFor(connectclient.NewSecret(token)).Budget().State()
		if !state.Unauthorized {
			s.Fatalf("the budget says %+v", state)
		}
		s.reconcile()
		s.called("")
		s.says(metav1.ConditionFalse, v1alpha1.ReasonAccessTokenRejected, "put a valid one into the Secret")

		lapse(time.Until(state.NextProbe) - 1)
		s.reconcile()
		s.called("")
		lapse(1)
		s.finds(mine("a1"))
		s.reconcile()
		s.called("observe release")
	})
}
