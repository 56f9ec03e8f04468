// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/reflector"
)

var outdated = Observation{Relation: Mine, ID: "a1", Outdated: true, Outcome: available}

// What is not as the spec says is changed, and what was seen before that holds whatever comes of it.
func TestWhatIsOutdatedIsChanged(t *testing.T) {
	hash := connectclient.NewSecret(token).Fingerprint()
	for name, test := range map[string]struct {
		seen    Observation
		updated Observation
		err     error
		calls   string
		ready   metav1.ConditionStatus
		reason  string
		told    []string
	}{
		"what the resource has": {outdated, mine("a1"), nil, "observe update a1 release", metav1.ConditionTrue, v1alpha1.ReasonAvailable, nil},
		"what it takes over": {Observation{Relation: Adoptable, ID: "a1", Outdated: true, Outcome: available}, mine("a1"), nil, "observe update a1 release",
			metav1.ConditionTrue, v1alpha1.ReasonAvailable, []string{"Normal Adopted: Adopted the artefact, which was in the organisation already, with the id a1."}},
		"what is as it should be": {mine("a1"), Observation{}, nil, "observe release", metav1.ConditionTrue, v1alpha1.ReasonAvailable, nil},
		"what is refused":         {outdated, Observation{}, refused("no"), "observe update a1 release", metav1.ConditionFalse, v1alpha1.ReasonInvalid, nil},
		"what is taken over and refused": {Observation{Relation: Adoptable, ID: "a1", Outdated: true}, Observation{}, refused("no"), "observe update a1 release",
			metav1.ConditionFalse, v1alpha1.ReasonInvalid, []string{"Normal Adopted: Adopted the artefact, which was in the organisation already, with the id a1."}},
		"what an outage keeps": {outdated, Observation{}, refusal(connectclient.ErrUnavailable, connectclient.Error{}), "observe update a1 release",
			metav1.ConditionUnknown, v1alpha1.ReasonConnectUnavailable, nil},
		"what is gone meanwhile": {outdated, Observation{}, refusal(connectclient.ErrNotFound, connectclient.Error{}), "observe update a1 release", "", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			playBoth(t, func(s *stage) {
				a := kiosk()
				if test.seen.Relation == Mine {
					has("a1", Created)(a)
				}
				s.apply(a)
				s.finds(test.seen)
				s.updates(test.updated, test.err)
				s.reconcile()
				s.called(test.calls)
				s.tells(test.told...)
				if test.ready == "" {
					s.silent()
					lapse(time.Minute)
					s.reconcile()
					if time.Since(s.conn.NotBefore) != time.Minute {
						s.Errorf("it goes by listings from %s on", s.conn.NotBefore)
					}
				} else {
					s.says(test.ready, test.reason, "")
				}
				if a := s.resource(); a.Status.ID != "a1" || a.Status.AccessTokenHash != hash {
					s.Errorf("the status says %+v", a.Status.CommonStatus)
				}
			})
		})
	}
	t.Run("but not by a kind that changes nothing", func(t *testing.T) {
		playBoth(t, func(s *stage) {
			s.apply(kiosk(has("a1", Created)))
			s.finds(outdated)
			s.lookout = true
			s.reconcile()
			s.called("observe")
			s.says(metav1.ConditionTrue, v1alpha1.ReasonAvailable, "")
		})
	})
	t.Run("and what was just made is not", func(t *testing.T) {
		playBoth(t, func(s *stage) {
			s.apply(kiosk())
			s.finds(AbsentObject())
			s.creates(outdated, nil)
			s.updates(mine("a1"), nil)
			s.reconcile()
			s.called("observe prepare create update a1 release")
		})
	})
	t.Run("and nothing is, where nothing was noted", func(t *testing.T) {
		playBoth(t, func(s *stage) {
			s.apply(kiosk())
			s.finds(Observation{Relation: Adoptable, ID: "a1", Outdated: true, Outcome: available})
			s.writing = func(part string) error {
				if part == "metadata" {
					return conflict()
				}
				return nil
			}
			s.reconcile()
			s.called("observe release")
		})
	})
}

// Events of the status go with the status that was not written; others tell what has happened.
func TestEventsOfAPassThatDidNotEnd(t *testing.T) {
	playBoth(t, func(s *stage) {
		s.apply(kiosk(has("a1", Created)))
		s.finds(outdated)
		s.updates(Observation{}, refused("no"))
		s.during = func(call string) {
			s.conn.Event(Event{Reason: "Seen", Message: call})
			s.conn.Event(Event{Reason: "Thought", Message: call, OfStatus: true})
		}
		s.reconcile()
		s.tells("Normal Seen: observe", "Normal Thought: observe", "Normal Seen: update a1")
	})
}

// What somebody takes off a resource is put back, before anything else.
func TestWhatIsTakenOffIsPutBack(t *testing.T) {
	strip := func(a *v1alpha1.Artefact) { a.Annotations, a.Finalizers = nil, nil }
	const told = "Normal Restored: Put back the operator's annotations and finalizer, which were removed or changed."
	for name, test := range map[string]struct {
		obj   []func(*v1alpha1.Artefact)
		taken func(*v1alpha1.Artefact)
		back  bool
	}{
		"all of it":                           {[]func(*v1alpha1.Artefact){has("a1", Created)}, strip, true},
		"of what was adopted":                 {[]func(*v1alpha1.Artefact){has("a1", Adopted)}, strip, true},
		"the finalizer":                       {[]func(*v1alpha1.Artefact){has("a1", Created)}, func(a *v1alpha1.Artefact) { a.Finalizers = nil }, true},
		"the id":                              {[]func(*v1alpha1.Artefact){has("a1", Created)}, func(a *v1alpha1.Artefact) { delete(a.Annotations, v1alpha1.AnnotationID) }, true},
		"another id":                          {[]func(*v1alpha1.Artefact){has("a1", Created)}, annotated(v1alpha1.AnnotationID, "a7"), true},
		"the origin":                          {[]func(*v1alpha1.Artefact){has("a1", Created)}, func(a *v1alpha1.Artefact) { delete(a.Annotations, v1alpha1.AnnotationOrigin) }, true},
		"nothing":                             {[]func(*v1alpha1.Artefact){has("a1", Created)}, func(*v1alpha1.Artefact) {}, false},
		"nothing of a new one":                {nil, strip, false},
		"nothing of an import":                {[]func(*v1alpha1.Artefact){annotated(v1alpha1.AnnotationID, "a1")}, func(*v1alpha1.Artefact) {}, false},
		"nothing of one with a request":       {[]func(*v1alpha1.Artefact){asked(time.Minute)}, func(*v1alpha1.Artefact) {}, false},
		"the finalizer of one with a request": {[]func(*v1alpha1.Artefact){asked(time.Minute)}, func(a *v1alpha1.Artefact) { a.Finalizers = nil }, true},
	} {
		t.Run(name, func(t *testing.T) {
			playBoth(t, func(s *stage) {
				s.apply(kiosk(test.obj...))
				before := s.resource()
				s.edit(test.taken)
				s.finds(NotKnown(NoChange(0)))
				s.reconcile()
				if !test.back {
					s.tells()
					return
				}
				s.tells(told)
				a := s.resource()
				if len(a.Finalizers) != 1 || len(a.Annotations) != len(before.Annotations) {
					s.Errorf("it has %v %v", a.Finalizers, a.Annotations)
				}
				for key, value := range before.Annotations {
					if a.Annotations[key] != value {
						s.Errorf("%s is %q, want %q", key, a.Annotations[key], value)
					}
				}
			})
		})
	}
	t.Run("a request that this process has sent", func(t *testing.T) {
		playBoth(t, func(s *stage) {
			s.apply(kiosk())
			s.finds(AbsentObject())
			s.creates(Observation{}, lost())
			s.reconcile()
			s.edit(strip)
			lapse(time.Minute)
			s.finds(NotKnown(NoChange(0)))
			s.reconcile()
			s.tells(told)
			s.open(time.Minute)
			lapse(time.Minute)
			s.reconcile()
			s.tells()
		})
	})
	t.Run("from a backup, once it is seen", func(t *testing.T) {
		playBoth(t, func(s *stage) {
			s.apply(kiosk(restored("a1", Created), func(a *v1alpha1.Artefact) { a.Finalizers = nil }))
			s.finds(mine("a1"))
			s.reconcile()
			s.records("a1", Created)
			if len(s.resource().Finalizers) != 1 {
				s.Error("it has no finalizer")
			}
		})
	})
	t.Run("from a backup that has everything, without a write", func(t *testing.T) {
		playBoth(t, func(s *stage) {
			s.apply(kiosk(restored("a1", Adopted)))
			s.finds(mine("a1"))
			s.writing = func(part string) error {
				if part == "metadata" {
					s.Error("the metadata is written")
				}
				return nil
			}
			s.reconcile()
			s.records("a1", Adopted)
		})
	})
	t.Run("unless the API server refuses", func(t *testing.T) {
		playBoth(t, func(s *stage) {
			s.apply(kiosk(has("a1", Created), strip))
			s.writing = func(part string) error {
				if part == "metadata" {
					return conflict()
				}
				return nil
			}
			s.reconcile()
			s.called("")
			s.tells()
		})
	})
}

// A request that was to replace the object is not needed any more, where the object is still there.
func TestARequestBesideTheObject(t *testing.T) {
	playBoth(t, func(s *stage) {
		s.apply(kiosk(has("a1", Created), asked(time.Minute)))
		s.finds(mine("a1"))
		s.reconcile()
		s.open(time.Minute)
		if intentOf(s.resource()) != nil || s.recalls() {
			s.Error("the intent is still there")
		}
		s.records("a1", Created)
	})
	playBoth(t, func(s *stage) {
		s.apply(kiosk(has("a1", Created), asked(time.Minute)))
		s.finds(mine("a1"))
		s.writing = func(part string) error {
			if part == "metadata" {
				return conflict()
			}
			return nil
		}
		s.reconcile()
		s.open(time.Minute)
		s.silent()
	})
}

// With a token that opens another organisation nothing is made and nothing called deleted.
func TestAnotherOrganisation(t *testing.T) {
	hash := connectclient.NewSecret(token).Fingerprint()
	elsewhere := func(i *Intent) { i.TokenHash = connectclient.NewSecret(otherToken).Fingerprint() }
	nowhere := func(i *Intent) { i.TokenHash = "" }
	for name, test := range map[string]struct {
		obj     []func(*v1alpha1.Artefact)
		seen    Observation
		natural bool
		words   string // of OrganisationChanged; empty if it goes on
	}{
		"what was seen with another is not here":           {[]func(*v1alpha1.Artefact){has("a1", Created), seenWith(otherToken)}, AbsentObject(), false, "does not have the artefact a1"},
		"what was seen with another is not here, keyed":    {[]func(*v1alpha1.Artefact){has("a1", Created), seenWith(otherToken)}, AbsentObject(), true, "does not have the artefact a1"},
		"something like it is here":                        {[]func(*v1alpha1.Artefact){has("a1", Created), seenWith(otherToken)}, Observation{Relation: Adoptable, ID: "a9", Outcome: available}, true, "does not have the artefact a1"},
		"something else is here":                           {[]func(*v1alpha1.Artefact){has("a1", Created), seenWith(otherToken)}, ForeignObject("a9", Stalled(v1alpha1.ReasonConflict, "Other.")), true, "does not have the artefact a1"},
		"it is here, and another's":                        {[]func(*v1alpha1.Artefact){has("a1", Created), seenWith(otherToken)}, ForeignObject("a1", Stalled(v1alpha1.ReasonConflict, "Other.")), true, ""},
		"it is here: the token was rotated":                {[]func(*v1alpha1.Artefact){has("a1", Created), seenWith(otherToken)}, mine("a1"), true, ""},
		"nobody can tell":                                  {[]func(*v1alpha1.Artefact){has("a1", Created), seenWith(otherToken)}, NotKnown(NoChange(0)), true, ""},
		"it was seen with this one, and is not here":       {[]func(*v1alpha1.Artefact){has("a1", Created), seenWith(token)}, AbsentObject(), true, ""},
		"nobody knows with which it was seen":              {[]func(*v1alpha1.Artefact){has("a1", Created)}, AbsentObject(), true, ""},
		"a request went elsewhere":                         {[]func(*v1alpha1.Artefact){asked(2*time.Minute, elsewhere)}, AbsentObject(), false, "may be in another organisation"},
		"a request went elsewhere, keyed":                  {[]func(*v1alpha1.Artefact){asked(2*time.Minute, elsewhere)}, AbsentObject(), true, ""},
		"a request went here by another token":             {[]func(*v1alpha1.Artefact){asked(2*time.Minute, elsewhere)}, Observation{Relation: Absent, SameOrganisation: true}, false, ""},
		"a request went elsewhere, and something is here":  {[]func(*v1alpha1.Artefact){asked(2*time.Minute, elsewhere)}, Observation{Relation: Adoptable, ID: "a9", Outcome: available}, false, ""},
		"a request of an older operator, which is unnamed": {[]func(*v1alpha1.Artefact){asked(2*time.Minute, nowhere)}, AbsentObject(), false, ""},
		"a request went here":                              {[]func(*v1alpha1.Artefact){asked(2 * time.Minute)}, AbsentObject(), false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, test.natural, func(s *stage) {
				s.apply(kiosk(test.obj...))
				before := s.resource()
				s.finds(test.seen)
				s.creates(mine("a5"), nil)
				s.reconcile()
				if test.words == "" {
					if ready := condition(s.resource(), v1alpha1.ConditionReady); ready != nil && ready.Reason == v1alpha1.ReasonOrganisationChanged {
						s.Errorf("it says %q", ready.Message)
					}
					return
				}
				s.called("observe release")
				s.says(metav1.ConditionFalse, v1alpha1.ReasonOrganisationChanged, test.words)
				s.says(metav1.ConditionFalse, v1alpha1.ReasonOrganisationChanged, `set the annotation rpi-connect.dev/confirm-organisation to "`+hash+`"`)
				if a := s.resource(); a.Status.ID != before.Status.ID || a.Status.AccessTokenHash != before.Status.AccessTokenHash {
					s.Errorf("it is noted: %+v", a.Status.CommonStatus)
				}

				// The wrong confirmation is none; the right one begins anew.
				s.edit(annotated(v1alpha1.AnnotationConfirmOrganisation, "0123"))
				s.reconcile()
				s.says(metav1.ConditionFalse, v1alpha1.ReasonOrganisationChanged, "")
				s.Claims.Take("something", Holder{UID: "mine"}, true)
				s.kind.Reset = func(a *v1alpha1.Artefact) { a.Status.LastHandledReconcileAt = "reset" }
				s.edit(annotated(v1alpha1.AnnotationConfirmOrganisation, hash))
				s.reconcile()
				s.records("", None)
				s.open()
				a := s.resource()
				if a.Status.LastHandledReconcileAt != "reset" || a.Status.AccessTokenHash != "" || a.Status.Adopted || len(a.Annotations) != 1 {
					s.Errorf("left are %v %+v", a.Annotations, a.Status.CommonStatus)
				}
				if _, held := s.Claims.HolderOf("something"); held {
					s.Error("it holds on to something of the organisation before")
				}
				lapse(time.Minute)
				s.finds(AbsentObject())
				s.reconcile()
				s.records("a5", Created)
			})
		})
	}
	t.Run("keeps what is to be deleted", func(t *testing.T) {
		playBoth(t, func(s *stage) {
			s.apply(kiosk(has("a1", Created), seenWith(otherToken)))
			s.delete()
			s.finds(AbsentObject())
			s.reconcile()
			s.called("observe release")
			s.says(metav1.ConditionFalse, v1alpha1.ReasonOrganisationChanged, orphanHint)
			s.edit(annotated(v1alpha1.AnnotationConfirmOrganisation, hash))
			s.reconcile()
			if !s.gone() {
				s.Error("it is still there")
			}
		})
	})
	t.Run("is not begun where that cannot be noted", func(t *testing.T) {
		playBoth(t, func(s *stage) {
			s.apply(kiosk(has("a1", Created), seenWith(otherToken), annotated(v1alpha1.AnnotationConfirmOrganisation, hash)))
			s.finds(AbsentObject())
			s.writing = func(part string) error {
				if part == "metadata" {
					return conflict()
				}
				return nil
			}
			s.reconcile()
			s.records("a1", Created)
		})
	})
}

// What is only believed, instead of looked at, says nothing of the organisation that the token opens.
func TestWhatIsBelievedProvesNoOrganisation(t *testing.T) {
	playBoth(t, func(s *stage) {
		s.apply(kiosk(has("a1", Created), seenWith(otherToken)))
		believed := mine("a1")
		believed.Unseen = true
		s.finds(believed)
		s.reconcile()
		if s.resource().Status.AccessTokenHash != connectclient.NewSecret(otherToken).Fingerprint() {
			s.Error("the other token is forgotten")
		}
	})
}

// Of several resources that are about one object one has it. The others say so, and do nothing.
func TestOneObjectHasOneOwner(t *testing.T) {
	elsewhere := func(a *v1alpha1.Artefact) { a.Spec.AccessTokenSecretRef.Name = "another" }
	lostSecret := func(a *v1alpha1.Artefact) { a.Spec.AccessTokenSecretRef.Name = "missing" }
	paused := annotated(v1alpha1.AnnotationSuspend, "true")
	going := func(a *v1alpha1.Artefact) { a.Finalizers = []string{"others.example.com/finalizer"} }
	adoptable := Observation{Relation: Adoptable, ID: "a1", Outcome: available}
	for name, test := range map[string]struct {
		other  *v1alpha1.Artefact
		obj    []func(*v1alpha1.Artefact)
		seen   Observation
		key    string // of this one; "" stands for the same as the other's
		delete bool   // the other one
		yields bool
	}{
		"the older of two that look for the key": {other: elder(), seen: AbsentObject(), yields: true},
		"the younger of them":                    {other: younger(), seen: AbsentObject()},
		"an older one of another key":            {other: elder(), seen: AbsentObject(), key: "another"},
		"an older one that leaves it alone":      {other: elder(paused), seen: AbsentObject()},
		"an older one that goes":                 {other: elder(going), seen: AbsentObject(), delete: true},
		"an older one of another organisation":   {other: elder(elsewhere), seen: AbsentObject()},
		"an older one without a token":           {other: elder(lostSecret), seen: AbsentObject()},
		"an older one that has another object":   {other: elder(has("a7", Created)), seen: AbsentObject()},
		"an older one that has the object":       {other: elder(has("a1", Created)), seen: adoptable, yields: true},
		"a younger one that has the object":      {other: younger(has("a1", Adopted)), seen: adoptable, yields: true},
		"one that has what stands in its place":  {other: elder(has("a1", Created)), seen: ForeignObject("a1", Stalled(v1alpha1.ReasonConflict, "Other."))},
		"an older one that has it, too":          {other: elder(has("a1", Created)), obj: []func(*v1alpha1.Artefact){has("a1", Created)}, seen: mine("a1"), yields: true},
		"a younger one that has it, too":         {other: younger(has("a1", Created)), obj: []func(*v1alpha1.Artefact){has("a1", Created)}, seen: mine("a1")},
		"an older one that names it":             {other: elder(annotated(v1alpha1.AnnotationID, "a1")), seen: adoptable, key: "another", yields: true},
		"a younger one that names it":            {other: younger(annotated(v1alpha1.AnnotationID, "a1")), seen: adoptable, key: "another"},
		"an older one that names it elsewhere":   {other: elder(annotated(v1alpha1.AnnotationID, "a1"), elsewhere), seen: adoptable, key: "another"},
		"an older one that names it and rests":   {other: elder(annotated(v1alpha1.AnnotationID, "a1"), paused), seen: adoptable, key: "another"},
		"an older one that names what one has":   {other: elder(annotated(v1alpha1.AnnotationID, "a1")), obj: []func(*v1alpha1.Artefact){has("a1", Created)}, seen: mine("a1")},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, true, func(s *stage) {
				a := kiosk(test.obj...)
				if test.key != "" {
					a.Spec.Name = test.key
				}
				s.apply(a)
				// The table was made in another time.
				test.other.CreationTimestamp = metav1.NewTime(a.CreationTimestamp.Add(map[string]time.Duration{"elder": -time.Hour, "younger": time.Hour}[test.other.Name]))
				s.apply(test.other)
				if test.delete {
					s.must(s.Client.Delete(s.Context(), test.other))
				}
				s.finds(test.seen)
				s.creates(mine("a1"), nil)
				s.reconcile()
				ready := condition(s.resource(), v1alpha1.ConditionReady)
				yields := ready != nil && ready.Reason == v1alpha1.ReasonAlreadyClaimed
				if yields != test.yields {
					s.Errorf("Ready is %+v", ready)
				}
				if !test.yields {
					return
				}
				s.called("observe release")
				s.says(metav1.ConditionFalse, v1alpha1.ReasonAlreadyClaimed, "Artefact lab/"+test.other.Name+" manages the same remote object")
				if !s.Claims.waiting[test.other.UID][types.NamespacedName{Namespace: "lab", Name: "kiosk"}] {
					s.Error("nobody wakes it")
				}
			})
		})
	}
	t.Run("also before the cache shows it", func(t *testing.T) {
		play(t, false, func(s *stage) {
			s.apply(kiosk())
			s.Claims.Take(objectClaim("Artefact", "a1"), Holder{NamespacedName: types.NamespacedName{Namespace: "lab", Name: "ahead"}, UID: "ahead", Created: true}, true)
			s.finds(adoptable)
			s.reconcile()
			s.says(metav1.ConditionFalse, v1alpha1.ReasonAlreadyClaimed, "Artefact lab/ahead manages")
			s.records("", None)

			owner, found, err := s.conn.Owner(s.Context(), "a1")
			if err != nil || !found || owner.Name != "ahead" || !owner.Created {
				s.Errorf("owned by %+v, %t, %v", owner, found, err)
			}
			if _, found, _ := s.conn.Owner(s.Context(), "a2"); found {
				s.Error("an object that nobody has has an owner")
			}
		})
	})
	t.Run("which others can find", func(t *testing.T) {
		play(t, false, func(s *stage) {
			s.apply(kiosk(has("a1", Created)))
			s.apply(elder(has("a2", Created)))
			s.apply(younger(has("a3", Adopted)))
			s.apply(other("importer", 0, annotated(v1alpha1.AnnotationID, "a4")))
			s.finds(mine("a1"))
			s.reconcile()
			for id, want := range map[string]string{"a1": "", "a2": "elder true", "a3": "younger false", "a4": "", "a5": ""} {
				owner, found, err := s.conn.Owner(s.Context(), id)
				s.must(err)
				got := strings.TrimSpace(owner.Name + map[bool]string{true: " true", false: " false"}[owner.Created])
				if !found {
					got = ""
				}
				if got != want {
					s.Errorf("%s is owned by %q, want %q", id, got, want)
				}
			}
		})
	})
	t.Run("and nobody decides without the cache", func(t *testing.T) {
		for _, natural := range []bool{true, false} {
			play(t, natural, func(s *stage) {
				s.apply(kiosk())
				broken := errors.New("no cache")
				s.Client = unlisted{s.Client, broken}
				seen := adoptable
				if natural {
					seen = AbsentObject()
				}
				s.finds(seen)
				if _, err := s.try(); !errors.Is(err, broken) {
					s.Errorf("the pass ends in %v", err)
				}
				s.called("observe release")
				if _, _, err := s.conn.Owner(s.Context(), "a1"); !errors.Is(err, broken) {
					s.Errorf("the owner is asked for, and %v", err)
				}
			})
		}
	})
}

type unlisted struct {
	client.Client

	err error
}

func (u unlisted) List(context.Context, client.ObjectList, ...client.ListOption) error { return u.err }

// A pass does not begin before the cache shows what the one before has written, nor before its time.
func TestWhenAPassBegins(t *testing.T) {
	t.Run("not before the cache is up to date", func(t *testing.T) {
		play(t, true, func(s *stage) {
			s.apply(kiosk(has("a1", Created)))
			s.finds(mine("a1"))
			s.reconcile()
			known := s.memory.recall(types.NamespacedName{Namespace: "lab", Name: "kiosk"}, "mine", time.Now())
			known.expectation.expect("99999", time.Now())
			s.between(s.reconcile(), catchUpMin, catchUpMin)
			s.called("")
		})
	})
	t.Run("not before the cache shows what the one before has written", func(t *testing.T) {
		play(t, true, func(s *stage) {
			s.apply(kiosk(has("a1", Created)))
			s.finds(mine("a1"))
			before := s.resource()
			s.reconcile()
			s.Client = interceptor.NewClient(s.Client.(client.WithWatch), interceptor.Funcs{
				Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
					if a, ok := obj.(*v1alpha1.Artefact); ok {
						before.DeepCopyInto(a)
						return nil
					}
					return c.Get(ctx, key, obj, opts...)
				},
			})
			s.between(s.reconcile(), catchUpMin, catchUpMin)
			s.called("")
		})
	})
	t.Run("not before its time", func(t *testing.T) {
		play(t, true, func(s *stage) {
			s.apply(kiosk(has("a1", Created)))
			s.finds(NotKnown(RequeueWithBackoff()))
			first := s.reconcile().RequeueAfter
			s.between(s.reconcile(), first, first)
			s.called("")
			lapse(first)
			s.reconcile()
			s.called("observe release")
		})
	})
	t.Run("not while it is suspended", func(t *testing.T) {
		play(t, true, func(s *stage) {
			s.apply(kiosk(annotated(v1alpha1.AnnotationSuspend, "true")))
			s.reconcile()
			s.called("")
			s.edit(finalizer)
			s.delete()
			s.reconcile()
			if s.gone() {
				s.Error("what is suspended has gone")
			}
		})
	})
	t.Run("not once it has come to its end", func(t *testing.T) {
		play(t, true, func(s *stage) {
			s.apply(kiosk())
			s.kind.Done = func(*v1alpha1.Artefact) (Outcome, bool) { return available, true }
			s.reconcile()
			s.called("")
			s.says(metav1.ConditionTrue, v1alpha1.ReasonAvailable, "")
		})
	})
	t.Run("not without a token", func(t *testing.T) {
		play(t, true, func(s *stage) {
			s.apply(kiosk(func(a *v1alpha1.Artefact) { a.Spec.AccessTokenSecretRef.Name = "missing" }))
			s.reconcile()
			s.called("")
			s.says(metav1.ConditionUnknown, v1alpha1.ReasonAccessTokenMissing, `Secret "missing" does not exist`)
		})
	})
	t.Run("and everything is forgotten of what is gone", func(t *testing.T) {
		play(t, true, func(s *stage) {
			s.apply(kiosk())
			s.finds(AbsentObject())
			s.creates(mine("a1"), nil)
			s.reconcile()
			var forgotten []string
			s.kind.Forget = func(resource types.NamespacedName) { forgotten = append(forgotten, resource.Name) }
			s.memory.noteSent("mine", sent{intent: new(request(0))})
			s.edit(func(a *v1alpha1.Artefact) { a.Finalizers = nil })
			s.delete()
			s.reconcile()
			s.called("forget")
			if _, held := s.Claims.HolderOf(objectClaim("Artefact", "a1")); held || !slices.Equal(forgotten, []string{"kiosk"}) || s.recalls() {
				s.Errorf("it is remembered: %t %v", held, forgotten)
			}
			s.kind.Forget = nil
			s.reconcile() // what nobody knew is forgotten, too
			s.called("forget")
		})
	})
	t.Run("and of what was made anew before anybody looked", func(t *testing.T) {
		play(t, true, func(s *stage) {
			s.apply(kiosk())
			s.finds(AbsentObject())
			s.creates(mine("a1"), nil)
			s.reconcile()
			var forgotten []string
			s.kind.Forget = func(resource types.NamespacedName) { forgotten = append(forgotten, resource.Name) }
			s.edit(func(a *v1alpha1.Artefact) { a.Finalizers = nil })
			s.delete()
			s.apply(kiosk(func(a *v1alpha1.Artefact) { a.UID = "another" }))
			s.finds(NotKnown(available))
			s.reconcile()
			s.called("forget observe release")
			if _, held := s.Claims.HolderOf(objectClaim("Artefact", "a1")); held || !slices.Equal(forgotten, []string{"kiosk"}) {
				s.Errorf("it is remembered: %t %v", held, forgotten)
			}
			s.reconcile()
			s.called("observe release")
		})
	})
	t.Run("and what is made anew is another one", func(t *testing.T) {
		play(t, true, func(s *stage) {
			name := types.NamespacedName{Namespace: "lab", Name: "kiosk"}
			one := s.memory.recall(name, "one", time.Now())
			if s.memory.recall(name, "one", time.Now()) != one || s.memory.recall(name, "another", time.Now()) == one {
				s.Error("they are taken for each other")
			}
		})
	})
}

// What the user asked for is answered by a look that began later.
func TestAskedForALook(t *testing.T) {
	playBoth(t, func(s *stage) {
		s.apply(kiosk(has("a1", Created)))
		s.finds(mine("a1"))
		s.reconcile()
		if s.conn.Requested || !s.conn.NotBefore.IsZero() {
			s.Errorf("nobody has asked: %+v", s.conn)
		}
		lapse(time.Hour)
		s.edit(annotated(v1alpha1.AnnotationReconcileRequestedAt, "now"))
		s.reconcile()
		if !s.conn.Requested || time.Since(s.conn.NotBefore) != 0 {
			s.Errorf("somebody has asked: %+v", s.conn)
		}
	})
}

// How long what was listed before counts, for a kind that looks first.
func TestLooksFirst(t *testing.T) {
	deferred := refusal(connectclient.ErrDeferred, connectclient.Error{})
	for name, test := range map[string]struct {
		obj   []func(*v1alpha1.Artefact)
		first Observation
		err   error
		waits time.Duration
		since time.Duration // how old a listing may be, after that
	}{
		"since it was seen first":                 {nil, NotKnown(NoChange(0).WithListing()), nil, time.Minute, time.Minute},
		"since it waited for the budget":          {nil, NotKnown(Outcome{Scheduled: true}), nil, time.Minute, time.Minute},
		"since the budget put it off":             {nil, Observation{}, deferred, time.Minute, time.Minute},
		"since the budget was spent":              {nil, Observation{}, refusal(connectclient.ErrThrottled, connectclient.Error{}), 2 * time.Minute, 2 * time.Minute},
		"since a listing did not come":            {nil, Observation{}, FromListing(refusal(connectclient.ErrUnavailable, connectclient.Error{})), time.Minute, time.Minute},
		"for an hour at most":                     {nil, NotKnown(NoChange(0).WithListing()), nil, 3 * time.Hour, time.Hour},
		"anew after it waited for something else": {nil, NotKnown(Waiting(v1alpha1.ReasonArtefactNotReady, "Not yet.")), nil, time.Minute, 0},
		"anew after an outage":                    {nil, Observation{}, refusal(connectclient.ErrUnavailable, connectclient.Error{}), time.Minute, 0},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, false, func(s *stage) {
				s.kind.LooksFirst = func(*v1alpha1.Artefact) bool { return true }
				s.apply(kiosk(test.obj...))
				s.seen, s.seenErr = test.first, test.err
				s.reconcile()
				lapse(test.waits)
				s.finds(NotKnown(NoChange(0)))
				s.reconcile()
				if got := time.Since(s.conn.NotBefore); got != test.since {
					s.Errorf("a listing may be %s old, want %s", got, test.since)
				}
			})
		})
	}
	t.Run("not at all once it has its object", func(t *testing.T) {
		play(t, false, func(s *stage) {
			s.kind.LooksFirst = func(*v1alpha1.Artefact) bool { return true }
			s.apply(kiosk(has("a1", Created)))
			s.finds(mine("a1"))
			s.reconcile()
			if !s.conn.NotBefore.IsZero() {
				s.Errorf("it goes by listings from %s on", s.conn.NotBefore)
			}
		})
	})
	t.Run("not at all for a resource that does not", func(t *testing.T) {
		play(t, false, func(s *stage) {
			s.kind.LooksFirst = func(*v1alpha1.Artefact) bool { return false }
			s.apply(kiosk())
			s.finds(NotKnown(NoChange(0)))
			s.reconcile()
			if !s.conn.NotBefore.IsZero() {
				s.Errorf("it goes by listings from %s on", s.conn.NotBefore)
			}
		})
	})
}

// A status that the API server refuses is said in the one that it had.
func TestAStatusThatIsRefused(t *testing.T) {
	forbidden := apierrors.NewForbidden(v1alpha1.GroupVersion.WithResource("artefacts").GroupResource(), "kiosk", errors.New("frozen"))
	t.Run("for good", func(t *testing.T) {
		play(t, true, func(s *stage) {
			s.apply(kiosk(has("a1", Created)))
			s.finds(mine("a1"))
			writes := 0
			s.writing = func(part string) error {
				if writes++; part == "status" && writes == 1 {
					return forbidden
				}
				return nil
			}
			s.during = func(string) {
				s.conn.Event(Event{Reason: "Thought", Message: "it is so", OfStatus: true})
				s.conn.Event(Event{Reason: "Done", Message: "it"})
			}
			s.reconcile()
			s.says(metav1.ConditionFalse, v1alpha1.ReasonWriteRefused, "frozen")
			if s.resource().Status.AccessTokenHash != "" {
				s.Error("what was refused is written all the same")
			}
			s.tells("Normal Done: it")
		})
	})
	for name, broken := range map[string]error{"for now": errors.New("connection refused"), "by somebody who was first": conflict()} {
		t.Run(name, func(t *testing.T) {
			play(t, true, func(s *stage) {
				s.apply(kiosk(has("a1", Created)))
				s.finds(mine("a1"))
				s.writing = func(part string) error { return map[bool]error{true: broken}[part == "status"] }
				s.during = func(string) { s.conn.Event(Event{Reason: "Done", Message: "it"}) }
				if _, err := s.try(); (err == nil) != apierrors.IsConflict(broken) {
					s.Errorf("the pass ends in %v", err)
				}
				s.silent()
				s.tells() // events follow the status
			})
		})
	}
}

// What the loop is told of the record.
func TestHolder(t *testing.T) {
	for name, test := range map[string]struct {
		obj     []func(*v1alpha1.Artefact)
		created bool
	}{
		"what was made":                 {[]func(*v1alpha1.Artefact){has("a1", Created)}, true},
		"what was adopted":              {[]func(*v1alpha1.Artefact){has("a1", Adopted)}, false},
		"what is named":                 {[]func(*v1alpha1.Artefact){annotated(v1alpha1.AnnotationID, "a1")}, false},
		"what is not there, to be made": {nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, false, func(s *stage) {
				s.apply(kiosk(test.obj...))
				s.finds(NotKnown(NoChange(0)))
				s.reconcile()
				if s.conn.Holder.Created != test.created {
					s.Errorf("the holder is %+v", s.conn.Holder)
				}
			})
		})
	}
}

// Only trouble that goes by leaves what was seen last standing.
func TestIsTransient(t *testing.T) {
	for _, err := range []error{connectclient.ErrUnavailable, connectclient.ErrThrottled, connectclient.ErrDeferred, reflector.ErrPending} {
		if !IsTransient(refusal(err, connectclient.Error{})) {
			t.Errorf("%v stays", err)
		}
	}
	for _, err := range []error{connectclient.ErrInvalid, connectclient.ErrNotFound, errors.New("other")} {
		if IsTransient(err) {
			t.Errorf("%v goes by", err)
		}
	}
}

type awaited struct{ err error }

func (a awaited) Await(time.Time, reflector.Waiter) error { return a.err }

func TestListed(t *testing.T) {
	if err := Listed(&Connection{}, awaited{}); err != nil {
		t.Errorf("a listing that is there: %v", err)
	}
	err := Listed(&Connection{}, awaited{reflector.ErrPending})
	if !errors.As(err, new(listingError)) || !errors.Is(err, reflector.ErrPending) {
		t.Errorf("a listing that is on its way: %v", err)
	}
}
