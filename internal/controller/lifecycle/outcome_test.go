// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"errors"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/accesstoken"
	"rpi-connect.dev/operator/internal/reflector"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// refusal is an error of the client, of the given kind.
func refusal(kind error, details connectclient.Error) error {
	return errors.Join(&details, kind)
}

// words is what the API says of a refusal.
func words(text string) connectclient.Error { return connectclient.Error{Message: text} }

// after is an error that is worth another try that much later.
func after(wait time.Duration) connectclient.Error {
	return connectclient.Error{RetryAt: noon.Add(wait)}
}

func TestOutcomeOf(t *testing.T) {
	const progress = v1alpha1.ReasonUpdating
	const taken, unknown, no = "the name is taken", metav1.ConditionUnknown, metav1.ConditionFalse
	token := accesstoken.Ref{Namespace: "lab", Name: "org", Key: "token"}
	artefacts := v1alpha1.GroupVersion.WithResource("artefacts").GroupResource()

	for name, test := range map[string]struct {
		err  error
		want Outcome // whose Message is a part of what is said
	}{
		"the Secret is missing": {
			&accesstoken.MissingError{Ref: token, Secret: true},
			Outcome{Ready: unknown, Reason: v1alpha1.ReasonAccessTokenMissing, Message: `Secret "org" does not exist`}},
		"the key in the Secret is missing": {
			&accesstoken.MissingError{Ref: token},
			Outcome{Ready: unknown, Reason: v1alpha1.ReasonAccessTokenMissing, Message: `Secret "org" has no value under the key "token"`}},

		"a listing is on its way":            {reflector.ErrPending, Outcome{}},
		"the resource was deleted meanwhile": {apierrors.NewNotFound(artefacts, "kiosk"), RequeueWithBackoff()},

		"its turn comes in a moment":         {refusal(connectclient.ErrDeferred, after(3*time.Second)), Outcome{RequeueAfter: 3 * time.Second, Scheduled: true}},
		"its turn comes just before 10 s":    {refusal(connectclient.ErrDeferred, after(10*time.Second-1)), Outcome{RequeueAfter: 10*time.Second - 1, Scheduled: true}},
		"its turn comes in so long as 10 s":  {refusal(connectclient.ErrDeferred, after(10*time.Second)), Outcome{Ready: unknown, Reason: progress, Message: "Waiting for the request budget", Transient: true, Scheduled: true, RequeueAfter: 10 * time.Second}},
		"its turn comes in a quarter hour":   {refusal(connectclient.ErrDeferred, after(15*time.Minute)), Outcome{Ready: unknown, Reason: progress, Message: "Waiting for the request budget", Transient: true, Scheduled: true, RequeueAfter: 15 * time.Minute}},
		"nobody can say when its turn comes": {connectclient.ErrDeferred, Outcome{Ready: unknown, Reason: progress, Message: "Waiting for the request budget", Transient: true, Scheduled: true, RequeueAfter: time.Minute}},

		"the budget is spent until a known time": {
			refusal(connectclient.ErrThrottled, after(40*time.Minute)),
			Outcome{Ready: unknown, Reason: v1alpha1.ReasonThrottled, Message: "spent until 12:40 UTC.", Transient: true, Scheduled: true, RequeueAfter: 40 * time.Minute}},
		"the budget is spent until a time in another zone": {
			refusal(connectclient.ErrThrottled, connectclient.Error{RetryAt: noon.Add(time.Hour).In(time.FixedZone("BST", 3600))}),
			Outcome{Ready: unknown, Reason: v1alpha1.ReasonThrottled, Message: "spent until 13:00 UTC.", Transient: true, Scheduled: true, RequeueAfter: time.Hour}},
		"the budget is spent and nobody says for how long": {
			connectclient.ErrThrottled,
			Outcome{Ready: unknown, Reason: v1alpha1.ReasonThrottled, Message: "is spent.", Transient: true, Scheduled: true, RequeueAfter: time.Minute}},

		"the token is refused": {
			refusal(connectclient.ErrUnauthorized, words("Unauthorized")),
			Outcome{Ready: no, Reason: v1alpha1.ReasonAccessTokenRejected, Message: "put a valid one into the Secret", RequeueAfter: time.Hour}},
		"billing is not set up": {
			refusal(connectclient.ErrBilling, words("Payment is needed.")),
			Outcome{Ready: no, Reason: v1alpha1.ReasonBillingRequired, Message: "Connect refuses: Payment is needed. Set up billing", RequeueAfter: time.Hour}},
		"the spec is refused": {
			refusal(connectclient.ErrInvalid, words(taken)),
			Outcome{Ready: no, Reason: v1alpha1.ReasonInvalid, Message: "Connect refuses the spec: the name is taken.", RequeueAfter: time.Hour}},
		"the spec is refused in a sentence with a full stop": {
			refusal(connectclient.ErrInvalid, words(taken+".")),
			Outcome{Ready: no, Reason: v1alpha1.ReasonInvalid, Message: "Connect refuses the spec: the name is taken.", RequeueAfter: time.Hour}},
		"the spec is refused in words that look like a format": {
			refusal(connectclient.ErrInvalid, words("100%d of it")),
			Outcome{Ready: no, Reason: v1alpha1.ReasonInvalid, Message: "Connect refuses the spec: 100%d of it.", RequeueAfter: time.Hour}},

		"the token may not do this": {
			refusal(connectclient.ErrForbidden, words("Forbidden")),
			Outcome{Ready: no, Reason: v1alpha1.ReasonForbidden, Message: "Use the token of an administrator.", RequeueAfter: time.Hour}},
		"a quota forbids it": {
			apierrors.NewForbidden(artefacts, "kiosk", errors.New("exceeded quota: objects")),
			Outcome{Ready: no, Reason: v1alpha1.ReasonWriteRefused, Message: "exceeded quota: objects.", RequeueAfter: time.Hour}},
		"an outage that a listing has met": {
			FromListing(refusal(connectclient.ErrUnavailable, words("bad gateway"))),
			Outcome{Ready: unknown, Reason: v1alpha1.ReasonConnectUnavailable, Message: "Connect cannot be reached", Transient: true, RequeueAfter: time.Minute}},
		"an outage of which it is known when to ask again": {
			refusal(connectclient.ErrUnavailable, after(7*time.Second)),
			Outcome{Ready: unknown, Reason: v1alpha1.ReasonConnectUnavailable, Message: "Connect cannot be reached", Transient: true, Scheduled: true, RequeueAfter: 7 * time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			got, known := outcomeOf(test.err, progress, noon)
			if !known {
				t.Fatal("it is not known")
			}
			if !strings.Contains(got.Message, test.want.Message) || test.want.Message == "" && got.Message != "" {
				t.Errorf("the user is told %q, want %q", got.Message, test.want.Message)
			}
			got.Message, got.Cause = test.want.Message, nil
			if got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

// An outage is told in words that do not change while it lasts, whatever each
// attempt meets; what it meets goes to the log.
func TestOutage(t *testing.T) {
	var said string
	for _, err := range []error{
		refusal(connectclient.ErrUnavailable, words("bad gateway")),
		refusal(connectclient.ErrUnavailable, connectclient.Error{Operation: "create artefact", Cause: errors.New("connection refused")}),
		errors.Join(connectclient.ErrUnavailable, connectclient.ErrOutcomeUnknown),
		refusal(connectclient.ErrNotFound, words("no such page")), // where a collection should be
	} {
		got, known := outcomeOf(err, v1alpha1.ReasonCreating, noon)
		if !known {
			t.Fatalf("%v is not known", err)
		}
		if got.Ready != metav1.ConditionUnknown || got.Reason != v1alpha1.ReasonConnectUnavailable || !got.Transient || !got.Backoff {
			t.Errorf("got %+v", got)
		}
		if !errors.Is(got.Cause, err) {
			t.Errorf("the log is told %v instead of %v", got.Cause, err)
		}
		if said != "" && got.Message != said {
			t.Errorf("the user is told %q, then %q", said, got.Message)
		}
		said = got.Message
	}
}

// A time that is over is no reason never to look again, which is what a requeue
// after nothing would mean; nor to look again all the time, where it is over for long.
func TestAlwaysLooksAgain(t *testing.T) {
	for _, kind := range []error{connectclient.ErrDeferred, connectclient.ErrThrottled} {
		for wait, most := range map[time.Duration]time.Duration{0: time.Second, 1: time.Second, 1 - time.Second: time.Second, -time.Second: time.Minute, -time.Hour: time.Minute} {
			got, known := outcomeOf(refusal(kind, after(wait)), v1alpha1.ReasonCreating, noon)
			if !known || got.RequeueAfter <= 0 || got.RequeueAfter > most || most == time.Minute && got.RequeueAfter < time.Second {
				t.Errorf("%v %s from now: looked at again after %s, known: %t", kind, wait, got.RequeueAfter, known)
			}
		}
	}
}

// What the loop cannot explain to a user is the operator's own error.
func TestUnknownErrorsAreTheOperatorsOwn(t *testing.T) {
	for name, err := range map[string]error{
		"a mistake of ours":                      errors.New("an artefact cannot be updated"),
		"a call that the revision does not have": connectclient.ErrUnsupported,
		"the API server is out of order":         apierrors.NewInternalError(errors.New("etcd")),
	} {
		t.Run(name, func(t *testing.T) {
			if got, known := outcomeOf(err, v1alpha1.ReasonCreating, noon); known || !got.IsZero() {
				t.Errorf("got %+v, known: %t", got, known)
			}
		})
	}
}
