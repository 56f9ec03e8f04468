// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
)

// lost is what a POST ends in whose answer did not come.
func lost() error {
	return errors.Join(refusal(connectclient.ErrUnavailable, connectclient.Error{}), connectclient.ErrOutcomeUnknown)
}

func refused(text string) error { return refusal(connectclient.ErrInvalid, words(text)) }

func conflict() error {
	return apierrors.NewConflict(v1alpha1.GroupVersion.WithResource("artefacts").GroupResource(), "kiosk", errors.New("it is newer"))
}

// What is not there is made: what was about to happen is on the API server before it happens, and what
// came of it right after.
func TestWhatIsAbsentIsMade(t *testing.T) {
	playBoth(t, func(s *stage) {
		s.apply(kiosk())
		s.finds(AbsentObject())
		s.ready = Preparation{Note: "as it was", Matters: time.Hour}
		s.creates(Observation{Relation: Mine, ID: "a1", Name: "Kiosk", Outcome: available}, nil)
		s.during = func(call string) {
			a := s.resource()
			if call != "create" {
				if len(a.Finalizers)+len(a.Annotations) > 0 {
					s.Errorf("%s finds %v %v", call, a.Finalizers, a.Annotations)
				}
				return
			}
			intent := intentOf(a)
			if len(a.Finalizers) != 1 || intent == nil {
				s.Fatalf("it is made with %v %v", a.Finalizers, a.Annotations)
			}
			want := Intent{At: intent.At, UID: "mine", TokenHash: connectclient.NewSecret(token).Fingerprint(), Until: intent.At.Add(time.Hour), Note: "as it was"}
			if !same(*intent, want) || time.Since(intent.At) != 0 || intent.Unlooked {
				s.Errorf("the intent is %+v", intent)
			}
		}
		s.reconcile()
		s.called("observe prepare create release")
		s.records("a1", Created)
		s.open()
		s.says(metav1.ConditionTrue, v1alpha1.ReasonAvailable, "It is there.")
		s.tells(`Normal Created: Created the artefact "Kiosk" with the id a1.`)
		if a := s.resource(); a.Status.AccessTokenHash != connectclient.NewSecret(token).Fingerprint() {
			s.Errorf("it was seen with %q", a.Status.AccessTokenHash)
		}
		// Others are kept away before the cache shows it.
		if holder, held := s.Claims.HolderOf(objectClaim("Artefact", "a1")); !held || holder.UID != "mine" || !holder.Created {
			s.Errorf("it is held by %+v", holder)
		}

		s.during, s.seen = func(string) {}, mine("a1")
		version := s.resource().ResourceVersion
		s.reconcile()
		s.called("observe release")
		s.tells()
		if s.resource().ResourceVersion != version {
			s.Error("a resource that is ready is written again")
		}
	})
}

// Between the answer of a POST and the record of it an older resource, which looks for the same natural
// key, may have found what was made. Nothing else would tell the younger one.
func TestWhatIsMadeAndFoundByAnOlderResource(t *testing.T) {
	playBoth(t, func(s *stage) {
		s.apply(kiosk())
		s.finds(AbsentObject())
		s.creates(outdated, nil)
		s.during = func(call string) {
			if call == "create" {
				s.Claims.Take(objectClaim("Artefact", "a1"), Holder{NamespacedName: types.NamespacedName{Namespace: "a", Name: "a"}, UID: "elder"}, false)
			}
		}
		s.reconcile()
		s.called("observe prepare create release")
		s.records("a1", Created)
		s.says(metav1.ConditionFalse, v1alpha1.ReasonAlreadyClaimed, "Artefact a/a manages the same remote object")
	})
}

// Something that does not matter for ever and something that does are noted as such.
func TestForHowLongARequestMatters(t *testing.T) {
	play(t, false, func(s *stage) {
		s.apply(kiosk())
		s.finds(AbsentObject())
		s.creates(Observation{}, lost())
		s.reconcile()
		if intent := intentOf(s.resource()); intent == nil || !intent.Until.IsZero() {
			s.Errorf("the intent is %+v", intent)
		}
	})
}

func TestNothingIsMade(t *testing.T) {
	waits := Waiting(v1alpha1.ReasonArtefactNotReady, "It waits.")
	for name, test := range map[string]struct {
		script script
		obj    func(*v1alpha1.Artefact)
		calls  string
		ready  metav1.ConditionStatus
		reason string
		words  string
	}{
		"where the kind says so": {
			script{seen: NotCreated(waits)}, nil, "observe release", metav1.ConditionUnknown, v1alpha1.ReasonArtefactNotReady, "It waits."},
		"where something is missing": {
			script{seen: AbsentObject(), ready: Lacking(waits)}, nil, "observe prepare release", metav1.ConditionUnknown, v1alpha1.ReasonArtefactNotReady, "It waits."},
		"where something is wrong": {
			script{seen: AbsentObject(), readyErr: refused("that")}, nil, "observe prepare release", metav1.ConditionFalse, v1alpha1.ReasonInvalid, "refuses the spec: that."},
		"where it cannot be told": {
			script{seen: NotKnown(waits)}, nil, "observe release", metav1.ConditionUnknown, v1alpha1.ReasonArtefactNotReady, "It waits."},
		"where something else stands": {
			script{seen: ForeignObject("a7", Stalled(v1alpha1.ReasonConflict, "It is another's."))}, nil,
			"observe release", metav1.ConditionFalse, v1alpha1.ReasonConflict, "It is another's."},
		"in the place of an id that somebody wrote": {
			script{seen: AbsentObject()}, annotated(v1alpha1.AnnotationID, "a7"),
			"observe release", metav1.ConditionFalse, v1alpha1.ReasonNotFound, `There is no artefact with the id "a7" to take over`},
		"by a kind that makes nothing": {
			script{seen: Observation{Relation: Absent}, lookout: true}, nil, "observe", "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			playBoth(t, func(s *stage) {
				a := kiosk()
				if test.obj != nil {
					test.obj(a)
				}
				s.apply(a)
				test.script.during = s.during
				s.script = test.script
				s.reconcile()
				s.called(test.calls)
				if test.ready == "" {
					s.silent()
				} else {
					s.says(test.ready, test.reason, test.words)
				}
				s.open()
				s.tells()
				if len(s.resource().Finalizers) > 0 {
					s.Error("the resource is held although nothing was made")
				}
			})
		})
	}
}

// The permission to send is taken before anything is written.
func TestNothingIsWrittenThatCannotBeSent(t *testing.T) {
	for name, test := range map[string]struct {
		trouble func(*stage)
		reason  string
		fresh   bool // what was listed before does not count any more
	}{
		"while the budget is spent": {func(s *stage) {
			s.ask(1, func() *http.Response {
				r := answer(http.StatusTooManyRequests)
				r.Header.Set("X-Rate-Limit-Remaining", "0")
				return r
			})
		}, v1alpha1.ReasonThrottled, false},
		"in an outage": {func(s *stage) { s.ask(10, func() *http.Response { return nil }) }, v1alpha1.ReasonConnectUnavailable, true},
	} {
		t.Run(name, func(t *testing.T) {
			playBoth(t, func(s *stage) {
				s.apply(kiosk())
				s.finds(AbsentObject())
				test.trouble(s)
				s.reconcile()
				s.called("observe prepare release")
				s.says(metav1.ConditionUnknown, test.reason, "")
				s.open()
				if len(s.resource().Finalizers) > 0 {
					s.Error("the finalizer was written")
				}
				lapse(2 * time.Minute)
				s.reconcile()
				if fresh := !s.conn.NotBefore.IsZero(); fresh != test.fresh {
					s.Errorf("it wants a listing from %s on", s.conn.NotBefore)
				}
			})
		})
	}
}

// Whoever changes the resource at the same time comes first, and the API server is asked before Connect.
func TestNothingIsSentThatCouldNotBeNoted(t *testing.T) {
	for name, test := range map[string]struct {
		err   error
		quiet bool
	}{
		"because the resource is newer":                   {conflict(), true},
		"because the API server does not answer":          {errors.New("connection refused"), false},
		"because the API server does not allow the write": {apierrors.NewForbidden(v1alpha1.GroupVersion.WithResource("artefacts").GroupResource(), "kiosk", errors.New("frozen")), true},
	} {
		t.Run(name, func(t *testing.T) {
			playBoth(t, func(s *stage) {
				s.apply(kiosk())
				s.finds(AbsentObject())
				s.writing = func(part string) error {
					if part == "metadata" {
						return test.err
					}
					return nil
				}
				if _, err := s.try(); (err == nil) != test.quiet {
					s.Errorf("the pass ends in %v", err)
				}
				s.called("observe prepare release")
				s.open()
				if s.recalls() {
					s.Error("an intent is remembered that was not written")
				}
			})
		})
	}
}

// The note of a request may have been written although its answer was lost. This process knows that the
// request was not sent, and takes nothing for what it has made.
func TestANoteWhoseAnswerWasLost(t *testing.T) {
	playBoth(t, func(s *stage) {
		s.apply(kiosk())
		s.finds(AbsentObject())
		s.writing = func(part string) error {
			if part == "metadata" {
				return errors.New("connection reset by peer")
			}
			return nil
		}
		if _, err := s.try(); err == nil {
			s.Error("the pass ends well")
		}
		s.called("observe prepare release")
		s.writing = func(string) error { return nil }
		s.edit(asked(0))
		s.finds(Observation{Relation: Adoptable, ID: "a1", Outcome: available})
		s.reconcile()
		if len(s.conn.Sent) > 0 {
			s.Errorf("it has sent %+v", s.conn.Sent)
		}
		s.records("a1", Adopted)
		s.open()
	})
}

// A request whose answer was lost is not forgotten: one that could make a double waits, one that the API
// itself keeps from that is sent again, and then removed with what comes of the first one, too.
func TestALostAnswer(t *testing.T) {
	t.Run("with a natural key", func(t *testing.T) {
		play(t, true, func(s *stage) {
			s.apply(kiosk())
			s.finds(AbsentObject())
			s.creates(Observation{}, lost())
			s.reconcile()
			s.called("observe prepare create release")
			s.keeps(90 * time.Second)
			s.open(0)
			s.says(metav1.ConditionUnknown, v1alpha1.ReasonConnectUnavailable, "keeps trying")

			lapse(5 * time.Second)
			s.ready.Note = "later"
			s.creates(mine("a1"), nil)
			s.during = func(call string) {
				if call == "create" {
					s.open(0, 5*time.Second)
					if intent := intentOf(s.resource()); intent.Note != "later" {
						s.Errorf("the intent is %+v", intent)
					}
				}
			}
			s.reconcile()
			if since := time.Since(s.conn.NotBefore); since != 5*time.Second {
				s.Errorf("it goes by listings of %s ago", since)
			}
			s.called("observe prepare create release")
			s.records("a1", Created)
			s.open(5 * time.Second)

			s.during = func(string) {}
			s.delete()
			s.finds(mine("a1"))
			s.reconcile()
			s.called("observe delete a1 release")
			lapse(5 * time.Second)
			s.finds(Observation{Relation: Recovered, ID: "a2", Outcome: available})
			s.reconcile()
			s.called("observe delete a2 release")
			lapse(90 * time.Second)
			s.finds(AbsentObject())
			s.reconcile()
			s.called("observe release")
			if !s.gone() {
				s.Error("it is still there")
			}
		})
	})
	t.Run("without one", func(t *testing.T) {
		play(t, false, func(s *stage) {
			s.apply(kiosk())
			s.finds(AbsentObject())
			s.creates(Observation{}, lost())
			result := s.reconcile()
			s.called("observe prepare create release")
			s.keeps(90 * time.Second)
			s.between(result, time.Second, time.Second)
			s.open(0)
			s.silent()

			lapse(9 * time.Second)
			result = s.reconcile()
			s.called("observe release")
			s.keeps(81 * time.Second)
			s.between(result, 9*time.Second, 9*time.Second)
			s.silent()
			if !s.conn.Settling || len(s.conn.Sent) != 1 {
				s.Errorf("the kind is told %+v", s.conn)
			}

			lapse(time.Second)
			s.reconcile()
			s.says(metav1.ConditionUnknown, v1alpha1.ReasonCreating, "waiting until it is certain")

			lapse(70 * time.Second)
			result = s.reconcile()
			s.between(result, 10*time.Second, 10*time.Second) // and not as long as it has taken so far
			s.called("observe release")
			s.keeps(10 * time.Second)

			lapse(10 * time.Second)
			s.creates(mine("a1"), nil)
			s.during = func(call string) {
				if call == "create" {
					s.open(0, 90*time.Second)
				}
			}
			s.reconcile()
			s.called("observe prepare create release")
			if since := time.Since(s.conn.NotBefore); since > 10*time.Second {
				s.Errorf("it goes by listings of %s ago", since)
			}
			s.records("a1", Created)
			s.open(90 * time.Second)
		})
	})
	t.Run("after the time to settle", func(t *testing.T) {
		play(t, false, func(s *stage) {
			s.apply(kiosk())
			s.finds(AbsentObject())
			s.creates(Observation{}, lost())
			s.during = func(call string) {
				if call == "create" {
					lapse(2 * time.Minute)
				}
			}
			s.reconcile()
			s.says(metav1.ConditionUnknown, v1alpha1.ReasonConnectUnavailable, "")
			s.open(2 * time.Minute)
		})
	})
	t.Run("and nobody has to wait for it", func(t *testing.T) {
		play(t, false, func(s *stage) {
			s.apply(kiosk(asked(time.Second)))
			s.finds(Observation{Relation: Absent, Settled: true})
			s.creates(mine("a1"), nil)
			s.reconcile()
			s.called("observe prepare create release")
		})
	})
}

// What turns up was made by the request, or was there before.
func TestWhatTurnsUp(t *testing.T) {
	for name, test := range map[string]struct {
		obj     []func(*v1alpha1.Artefact)
		seen    Observation
		origin  Origin
		told    string
		natural bool
		request time.Duration // so long ago; 0 if it is not known
		open    []time.Duration
	}{
		"stems from the request": {
			[]func(*v1alpha1.Artefact){asked(time.Minute)}, Observation{Relation: Recovered, ID: "a1", Proof: "it is new", Outcome: available},
			Created, `Normal Created: Found the artefact with the id a1, which the operator created before: it is new.`, false, 0, nil},
		"stems from the request, and has a key": {
			[]func(*v1alpha1.Artefact){asked(time.Minute)}, Observation{Relation: Recovered, ID: "a1", Name: "Kiosk", Outcome: available},
			Created, `Normal Created: Created the artefact "Kiosk" with the id a1.`, true, 0, nil},
		"stems from the request, which is known": {
			[]func(*v1alpha1.Artefact){asked(time.Minute)}, Observation{Relation: Recovered, ID: "a1", Outcome: available},
			Created, `Normal Created: Created the artefact with the id a1.`, false, time.Minute, nil},
		"has a key, and stems from one of two: the other one may still come": {
			[]func(*v1alpha1.Artefact){asked(time.Minute), unanswered(80 * time.Second)},
			Observation{Relation: Recovered, ID: "a1", Outcome: available},
			Created, `Normal Created: Created the artefact with the id a1.`, true, 0, []time.Duration{time.Minute, 80 * time.Second}},
		"stems from an earlier one: the newest may still come": {
			[]func(*v1alpha1.Artefact){asked(time.Minute), unanswered(2*time.Minute, 3*time.Minute)},
			Observation{Relation: Recovered, ID: "a1", Outcome: available},
			Created, `Normal Created: Created the artefact with the id a1.`, false, 2 * time.Minute, []time.Duration{time.Minute, 2 * time.Minute, 3 * time.Minute}},
		"stems from an earlier one, beside which there is none": {
			[]func(*v1alpha1.Artefact){finalizer, unanswered(2 * time.Minute)},
			Observation{Relation: Recovered, ID: "a1", Outcome: available},
			Created, `Normal Created: Created the artefact with the id a1.`, false, 2 * time.Minute, []time.Duration{2 * time.Minute}},
		"stems from an earlier one, and has a key": {
			[]func(*v1alpha1.Artefact){asked(time.Minute)}, Observation{Relation: Recovered, ID: "a1", Outcome: available},
			Created, `Normal Created: Created the artefact with the id a1.`, true, 2 * time.Minute, nil},
		"was there before": {
			nil, Observation{Relation: Adoptable, ID: "a1", Name: "Kiosk", Note: "It is old.", Outcome: available},
			Adopted, `Normal Adopted: Adopted the artefact "Kiosk", which was in the organisation already, with the id a1. It is old.`, true, 0, nil},
		"was there before, without a note": {
			nil, Observation{Relation: Adoptable, ID: "a1", Outcome: available},
			Adopted, `Normal Adopted: Adopted the artefact, which was in the organisation already, with the id a1.`, false, 0, nil},
		"was imported": {
			[]func(*v1alpha1.Artefact){annotated(v1alpha1.AnnotationID, "a1")}, Observation{Relation: Adoptable, ID: "a1", Outcome: available},
			Adopted, `Normal Adopted: Adopted the artefact, which was in the organisation already, with the id a1.`, false, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, test.natural, func(s *stage) {
				s.apply(kiosk(test.obj...))
				if test.request > 0 {
					test.seen.Request = new(request(test.request))
				}
				s.finds(test.seen)
				s.reconcile()
				s.called("observe release")
				s.records("a1", test.origin)
				s.tells(test.told)
				s.open(test.open...)
				s.says(metav1.ConditionTrue, v1alpha1.ReasonAvailable, "")
				if s.resource().Status.AccessTokenHash == "" {
					s.Error("nobody knows where it was seen")
				}
				if _, held := s.Claims.HolderOf(objectClaim("Artefact", "a1")); !held {
					s.Error("nobody holds it")
				}
				if s.recalls() {
					s.Error("the intent is remembered")
				}
			})
		})
	}
}

func unanswered(ages ...time.Duration) func(*v1alpha1.Artefact) {
	return func(a *v1alpha1.Artefact) {
		var all []Intent
		for _, age := range ages {
			all = append(all, request(age))
		}
		annotated(v1alpha1.AnnotationUnanswered, marshalled(all))(a)
	}
}

// A pass that cannot note what it has found has found nothing.
func TestWhatTurnsUpAndCannotBeNoted(t *testing.T) {
	for name, relation := range map[string]Relation{"made": Recovered, "there before": Adoptable} {
		t.Run(name, func(t *testing.T) {
			playBoth(t, func(s *stage) {
				s.apply(kiosk(asked(time.Minute)))
				s.finds(Observation{Relation: relation, ID: "a1", Outcome: available})
				s.writing = func(part string) error {
					if part == "metadata" {
						return conflict()
					}
					return nil
				}
				s.reconcile()
				s.records("", None)
				s.open(time.Minute)
				s.tells()
				s.silent()
				if _, held := s.Claims.HolderOf(objectClaim("Artefact", "a1")); held != (relation == Recovered) {
					s.Errorf("others are kept from it: %t", held)
				}
			})
		})
	}
}

// A request that was certainly not carried out leaves no trace. What an earlier one was about stays.
func TestARefusedRequest(t *testing.T) {
	for name, earlier := range map[string][]func(*v1alpha1.Artefact){
		"the first":      nil,
		"one of several": {asked(10 * time.Minute), unanswered(20 * time.Minute)},
	} {
		before := len(earlier)
		t.Run(name+", with a natural key", func(t *testing.T) {
			play(t, true, func(s *stage) {
				s.apply(kiosk(earlier...))
				s.finds(AbsentObject())
				s.creates(Observation{}, refused("the name is taken"))
				s.reconcile() // the listing may have been too old
				s.called("observe prepare create release")
				s.silent()
				s.tells()
				lapse(2 * time.Second)
				s.reconcile()
				if time.Since(s.conn.NotBefore) != 2*time.Second {
					s.Errorf("it goes by listings from %s", s.conn.NotBefore)
				}
				s.says(metav1.ConditionFalse, v1alpha1.ReasonInvalid, "the name is taken")
				if got := len(SentIntents(s.resource())); got != before {
					s.Errorf("%d requests are open", got)
				}
			})
		})
		t.Run(name+", without one", func(t *testing.T) {
			play(t, false, func(s *stage) {
				s.apply(kiosk(earlier...))
				s.finds(AbsentObject())
				s.creates(Observation{}, refused("the name is taken"))
				s.reconcile()
				s.says(metav1.ConditionFalse, v1alpha1.ReasonInvalid, "the name is taken")
				if got := len(SentIntents(s.resource())); got != before {
					s.Errorf("%d requests are open", got)
				}
				lapse(2 * time.Hour)
				s.reconcile()
				if before == 0 && !s.conn.NotBefore.IsZero() {
					s.Errorf("it goes by listings from %s", s.conn.NotBefore)
				}
			})
		})
	}
	t.Run("that is not about the spec", func(t *testing.T) {
		playBoth(t, func(s *stage) {
			s.apply(kiosk())
			s.finds(AbsentObject())
			s.creates(Observation{}, refusal(connectclient.ErrBilling, words("Pay")))
			s.reconcile()
			s.says(metav1.ConditionFalse, v1alpha1.ReasonBillingRequired, "Pay")
			s.open()
		})
	})
	t.Run("that nobody can note", func(t *testing.T) {
		playBoth(t, func(s *stage) {
			s.apply(kiosk())
			s.finds(AbsentObject())
			s.creates(Observation{}, refused("the name is taken"))
			broken := errors.New("connection refused")
			writes := 0
			s.writing = func(part string) error {
				if part == "metadata" {
					if writes++; writes > 1 {
						return broken
					}
				}
				return nil
			}
			if _, err := s.try(); err != nil {
				s.Fatal(err)
			}
			s.says(metav1.ConditionFalse, v1alpha1.ReasonInvalid, "the name is taken")
			if got := len(SentIntents(s.resource())); got != 1 || writes < 8 { // it is looked for, and not found
				s.Errorf("%d requests are open after %d writes", got, writes)
			}
		})
	})
	t.Run("that nobody can note at first", func(t *testing.T) {
		playBoth(t, func(s *stage) {
			s.apply(kiosk())
			s.finds(AbsentObject())
			s.creates(Observation{}, refused("the name is taken"))
			writes := 0
			s.writing = func(part string) error {
				if part == "metadata" {
					if writes++; writes > 1 && writes < 8 {
						return errors.New("connection refused")
					}
				}
				return nil
			}
			s.reconcile()
			s.open()
			if s.recalls() {
				s.Error("the intent is remembered")
			}
		})
	})
	t.Run("by the kind itself", func(t *testing.T) {
		playBoth(t, func(s *stage) {
			s.apply(kiosk())
			s.finds(AbsentObject())
			s.creates(NotKnown(Waiting(v1alpha1.ReasonArtefactNotReady, "Not yet.")), nil)
			s.reconcile()
			s.called("observe prepare create release")
			s.says(metav1.ConditionUnknown, v1alpha1.ReasonArtefactNotReady, "Not yet.")
			s.open()
		})
	})
}

// What was made is recorded, whatever the API server says at first.
func TestWhatWasMadeIsRecorded(t *testing.T) {
	// after is what the API server says to the writes after the first.
	write := func(s *stage, after func(n int) error) {
		n := 0
		s.writing = func(part string) error {
			if part != "metadata" {
				return nil
			}
			if n++; n == 1 {
				return nil
			}
			return after(n - 1)
		}
	}
	t.Run("although the API server is away for a while", func(t *testing.T) {
		playBoth(t, func(s *stage) {
			s.apply(kiosk())
			s.finds(AbsentObject())
			s.creates(mine("a1"), nil)
			write(s, func(n int) error {
				if n < 8 {
					return errors.New("connection refused")
				}
				return nil
			})
			s.reconcile()
			s.records("a1", Created)
			s.open()
			s.called("observe prepare create release")
		})
	})
	t.Run("beside what it takes the place of, should the process die before the status says so", func(t *testing.T) {
		playBoth(t, func(s *stage) {
			s.apply(kiosk(has("a1", Created), seenWith(token)))
			s.finds(AbsentObject())
			s.creates(mine("a2"), nil)
			s.writing = func(part string) error { return map[bool]error{true: errors.New("killed")}[part == "status"] }
			if _, err := s.try(); err == nil {
				s.Error("the status is written")
			}
			want := Record{ID: "a2", Origin: Created, Restored: true, TokenHash: connectclient.NewSecret(token).Fingerprint()}
			if got := recordOf(s.resource()); got != want {
				s.Errorf("on record is %+v, want %+v", got, want)
			}
		})
	})
	t.Run("although many write to the resource at the same time", func(t *testing.T) {
		playBoth(t, func(s *stage) {
			s.apply(kiosk())
			s.finds(AbsentObject())
			s.creates(mine("a1"), nil)
			write(s, func(n int) error {
				if n < 3 {
					return conflict()
				}
				return nil
			})
			s.reconcile()
			s.records("a1", Created)
			s.open()
			s.called("observe prepare create release")
		})
	})
	t.Run("although somebody changes the resource", func(t *testing.T) {
		playBoth(t, func(s *stage) {
			s.apply(kiosk())
			s.finds(AbsentObject())
			s.creates(mine("a1"), nil)
			s.during = func(call string) {
				if call == "create" {
					s.edit(func(a *v1alpha1.Artefact) { a.Labels = map[string]string{"team": "lab"} })
				}
			}
			s.reconcile()
			s.records("a1", Created)
		})
	})
	t.Run("or found again, after the API server was away for long", func(t *testing.T) {
		playBoth(t, func(s *stage) {
			s.apply(kiosk())
			s.finds(AbsentObject())
			s.creates(mine("a1"), nil)
			broken := errors.New("connection refused")
			write(s, func(int) error { return broken })
			if _, err := s.try(); !errors.Is(err, broken) {
				s.Errorf("the pass ends in %v", err)
			}
			if strings.Join(s.calls, " ") != "observe prepare create release" || s.kept <= 0 {
				s.Errorf("called: %q", s.calls)
			}
			s.tells()
			if got := len(SentIntents(s.resource())); got != 1 {
				s.Errorf("%d requests are open", got)
			}
		})
	})
	for name, policy := range map[string]v1alpha1.DeletionPolicy{"by default": "", "by policy": v1alpha1.DeletionPolicyDelete} {
		t.Run("or goes with a resource that is gone meanwhile, "+name, func(t *testing.T) {
			playBoth(t, func(s *stage) {
				s.apply(kiosk(func(a *v1alpha1.Artefact) { a.Spec.DeletionPolicy = policy }))
				s.finds(AbsentObject())
				s.creates(mine("a1"), nil)
				failures := 3
				s.during = func(call string) {
					switch call {
					case "create":
						s.edit(func(a *v1alpha1.Artefact) { a.Finalizers = nil })
						s.delete()
					case "delete a1":
						failures--
						s.deletes(AlreadyGone(), map[bool]error{true: refusal(connectclient.ErrUnavailable, connectclient.Error{})}[failures > 0])
					}
				}
				s.reconcile()
				s.called("observe prepare create delete a1 delete a1 delete a1 release")
				s.tells()
			})
		})
	}
	for name, change := range map[string]func(*stage){
		"by policy": func(s *stage) {
			s.edit(func(a *v1alpha1.Artefact) { a.Spec.DeletionPolicy = v1alpha1.DeletionPolicyOrphan })
		},
		"by default":        func(s *stage) { s.kind.OrphanByDefault = true },
		"for it has no end": func(s *stage) {},
	} {
		t.Run("or stays where the resource is gone, "+name, func(t *testing.T) {
			playBoth(t, func(s *stage) {
				s.apply(kiosk())
				change(s)
				s.finds(AbsentObject())
				s.creates(mine("a1"), nil)
				if strings.Contains(name, "no end") {
					s.kind.Connect = func(_ *v1alpha1.Artefact, conn *Connection) Remote {
						s.conn = conn
						return maker{remote{watched{s}}}
					}
				}
				s.during = func(call string) {
					if call == "create" {
						s.edit(func(a *v1alpha1.Artefact) { a.Finalizers = nil })
						s.delete()
					}
				}
				s.reconcile()
				if slices := strings.Join(s.calls, " "); strings.Contains(slices, "delete") {
					s.Errorf("called: %s", slices)
				}
			})
		})
	}
	t.Run("and deleted again for another resource of the same name", func(t *testing.T) {
		playBoth(t, func(s *stage) {
			s.apply(kiosk())
			s.finds(AbsentObject())
			s.creates(mine("a1"), nil)
			s.during = func(call string) {
				if call == "create" {
					s.edit(func(a *v1alpha1.Artefact) { a.Finalizers = nil })
					s.delete()
					s.apply(kiosk(func(a *v1alpha1.Artefact) { a.UID = "another" }))
				}
			}
			s.reconcile()
			s.called("observe prepare create delete a1 release")
			s.records("", None)
		})
	})
	t.Run("and what cannot be deleted is said", func(t *testing.T) {
		playBoth(t, func(s *stage) {
			s.apply(kiosk())
			s.finds(AbsentObject())
			s.creates(mine("a1"), nil)
			s.during = func(call string) {
				if call == "create" {
					s.edit(func(a *v1alpha1.Artefact) { a.Finalizers = nil })
					s.delete()
				}
			}
			s.deletes(Deletion{}, refusal(connectclient.ErrUnavailable, connectclient.Error{}))
			s.reconcile()
			if n := len(s.calls); n != 3+8+1 {
				s.Errorf("%d calls: %q", n, s.calls)
			}
			p := passOver(s.Reconciler, kiosk())
			if err := p.abandon(s.Context(), remote{watched{s}}, mine("a1")); !errors.Is(err, connectclient.ErrUnavailable) {
				s.Errorf("the log is told %v", err)
			}
			s.deletes(AlreadyGone(), nil)
			if err := p.abandon(s.Context(), remote{watched{s}}, mine("a1")); err != nil {
				s.Errorf("the log is told %v", err)
			}
		})
	})
}

// maker is a remote side that can be made and not removed.
type maker struct{ Creator }

// What was seen while nobody could look is not taken for the operator's own, and nothing waits for a
// listing that the budget does not let go where the API itself keeps from doubles.
func TestWithoutALook(t *testing.T) {
	throttled := FromListing(refusal(connectclient.ErrThrottled, connectclient.Error{}))
	for name, test := range map[string]struct {
		natural bool
		err     error
		obj     func(*v1alpha1.Artefact)
		asks    bool
	}{
		"it is asked for":                              {true, throttled, nil, true},
		"but not what could be made twice":             {false, throttled, nil, false},
		"nor what has no key":                          {true, throttled, func(a *v1alpha1.Artefact) { a.Spec.Name = "" }, false},
		"nor what the resource has":                    {true, throttled, has("a1", Created), false},
		"nor after a request whose answer was lost":    {true, throttled, asked(time.Minute), false},
		"nor because of other trouble":                 {true, FromListing(refusal(connectclient.ErrUnavailable, connectclient.Error{})), nil, false},
		"nor where it is not the listing that is late": {true, refusal(connectclient.ErrThrottled, connectclient.Error{}), nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, test.natural, func(s *stage) {
				a := kiosk()
				if test.obj != nil {
					test.obj(a)
				}
				s.apply(a)
				s.seenErr = test.err
				s.creates(Observation{}, lost())
				s.reconcile()
				asked := strings.Contains(strings.Join(s.calls, " "), "create")
				if asked != test.asks {
					s.Errorf("called: %q", s.calls)
				}
				if !asked {
					return
				}
				if intent := intentOf(s.resource()); intent == nil || !intent.Unlooked {
					s.Errorf("the intent is %+v", intent)
				}
				lapse(time.Minute)
				s.finds(NotKnown(NoChange(0)))
				s.reconcile()
				if len(s.conn.Sent) > 0 {
					s.Error("the request counts as proof")
				}
			})
		})
	}
	t.Run("and a kind that makes nothing waits", func(t *testing.T) {
		play(t, true, func(s *stage) {
			s.apply(kiosk())
			s.lookout, s.seenErr = true, throttled
			s.reconcile()
			s.says(metav1.ConditionUnknown, v1alpha1.ReasonThrottled, "")
		})
	})
}

// Once something was found that a request has made, what else turns up when its time is over stems from
// somebody else.
func TestAnswered(t *testing.T) {
	noted := func(s *stage, at time.Duration) *Intent {
		for _, i := range SentIntents(s.resource()) {
			if time.Since(i.At) == at {
				return &i
			}
		}
		return nil
	}
	for name, test := range map[string]struct {
		age   time.Duration
		until time.Duration // after the request; 0 if nothing is noted
		write bool
	}{
		"the newest":                         {time.Minute, 90 * time.Second, true},
		"an earlier one":                     {2 * time.Minute, 90 * time.Second, true},
		"one whose end was known to be soon": {3 * time.Minute, 80 * time.Second, false},
		"one that matters for long":          {4 * time.Minute, 90 * time.Second, true},
		"one that nobody knows of":           {5 * time.Minute, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, false, func(s *stage) {
				// Nothing is of no consequence yet: the clock stands at the requests' own time.
				s.SettleTime = 90 * time.Second
				soon, late := request(3*time.Minute), request(4*time.Minute)
				soon.Until, late.Until = soon.At.Add(80*time.Second), late.At.Add(10*time.Hour)
				a := kiosk(asked(time.Minute))
				annotated(v1alpha1.AnnotationUnanswered, marshalled([]Intent{request(2 * time.Minute), soon, late}))(a)
				s.apply(a)
				p := passOver(s.Reconciler, s.resource())
				p.sent = sentOf(p.obj) // whether they matter or not
				version := s.resource().ResourceVersion
				asked := request(test.age)
				s.must(p.answered(s.Context(), asked))
				if wrote := s.resource().ResourceVersion != version; wrote != test.write {
					s.Errorf("it is written: %t", wrote)
				}
				if test.until > 0 {
					if i := noted(s, test.age); i == nil || i.Until.Sub(i.At) != test.until {
						s.Errorf("noted is %+v", i)
					}
				}
				if got := len(SentIntents(s.resource())); got != 4 {
					s.Errorf("%d requests are open", got)
				}
			})
		})
	}
	t.Run("and what went here is known to have", func(t *testing.T) {
		play(t, false, func(s *stage) {
			elsewhere := func(i *Intent) { i.TokenHash = "0123" }
			a := kiosk(asked(time.Minute, elsewhere))
			annotated(v1alpha1.AnnotationUnanswered, marshalled([]Intent{request(2*time.Minute, elsewhere)}))(a)
			s.apply(a)
			s.finds(NotKnown(NoChange(0)))
			s.reconcile()
			if len(s.conn.SentElsewhere) != 2 || len(s.conn.Sent) != 0 {
				s.Fatalf("the kind is told of %+v and %+v", s.conn.SentElsewhere, s.conn.Sent)
			}
			for _, i := range s.conn.SentElsewhere {
				s.must(s.conn.WentHere(s.Context(), i))
			}
			s.reconcile()
			if len(s.conn.SentElsewhere) != 0 || len(s.conn.Sent) != 2 {
				s.Errorf("the kind is told of %+v and %+v", s.conn.SentElsewhere, s.conn.Sent)
			}
			s.open(time.Minute, 2*time.Minute)
		})
	})
}
