// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"errors"
	"fmt"
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

func TestJudge(t *testing.T) {
	const doing = v1alpha1.ReasonUpdating
	const taken, unknown, yes, no = "the name is taken", metav1.ConditionUnknown, metav1.ConditionTrue, metav1.ConditionFalse
	verdict := Ready(v1alpha1.ReasonAvailable, "It is there.").LookAgain(3 * time.Hour)
	token := accesstoken.Ref{Namespace: "lab", Name: "org", Key: "token"}
	artefacts := v1alpha1.GroupVersion.WithResource("artefacts").GroupResource()

	for name, test := range map[string]struct {
		err  error
		want Verdict // whose Message is a part of what is said
	}{
		"a verdict stands": {verdict, verdict},
		"a verdict stands when something is said about where it arose": {
			fmt.Errorf("while looking: %w", verdict), verdict},
		"a verdict outweighs the error that it explains": {
			errors.Join(refusal(connectclient.ErrNotFound, words("no such device")), verdict), verdict},
		"a verdict outweighs an error that would be told otherwise": {
			errors.Join(verdict, refusal(connectclient.ErrUnauthorized, words("no"))), verdict},
		"the zero verdict tells nothing": {Verdict{}, Verdict{}},

		"the Secret is missing": {
			&accesstoken.MissingError{Ref: token, Secret: true},
			Verdict{Ready: unknown, Reason: v1alpha1.ReasonAccessTokenMissing, Message: `Secret "org" does not exist`}},
		"the key in the Secret is missing": {
			&accesstoken.MissingError{Ref: token},
			Verdict{Ready: unknown, Reason: v1alpha1.ReasonAccessTokenMissing, Message: `Secret "org" has no value under the key "token"`}},

		"a listing is on its way":            {reflector.ErrPending, Verdict{}},
		"the resource was deleted meanwhile": {apierrors.NewNotFound(artefacts, "kiosk"), Verdict{}},

		"its turn comes in a moment":         {refusal(connectclient.ErrDeferred, after(3*time.Second)), Verdict{Again: 3 * time.Second}},
		"its turn comes just before 10 s":    {refusal(connectclient.ErrDeferred, after(10*time.Second-1)), Verdict{Again: 10*time.Second - 1}},
		"its turn comes in so long as 10 s":  {refusal(connectclient.ErrDeferred, after(10*time.Second)), Verdict{Ready: unknown, Reason: doing, Message: "waits for its turn", Passing: true, Again: 10 * time.Second}},
		"its turn comes in a quarter hour":   {refusal(connectclient.ErrDeferred, after(15*time.Minute)), Verdict{Ready: unknown, Reason: doing, Message: "waits for its turn", Passing: true, Again: 15 * time.Minute}},
		"nobody can say when its turn comes": {connectclient.ErrDeferred, Verdict{Ready: unknown, Reason: doing, Message: "waits for its turn", Passing: true, Again: time.Minute}},

		"the budget is spent until a known time": {
			refusal(connectclient.ErrThrottled, after(40*time.Minute)),
			Verdict{Ready: unknown, Reason: v1alpha1.ReasonThrottled, Message: "spent until 12:40 UTC.", Passing: true, Again: 40 * time.Minute}},
		"the budget is spent until a time in another zone": {
			refusal(connectclient.ErrThrottled, connectclient.Error{RetryAt: noon.Add(time.Hour).In(time.FixedZone("BST", 3600))}),
			Verdict{Ready: unknown, Reason: v1alpha1.ReasonThrottled, Message: "spent until 13:00 UTC.", Passing: true, Again: time.Hour}},
		"the budget is spent and nobody says for how long": {
			connectclient.ErrThrottled,
			Verdict{Ready: unknown, Reason: v1alpha1.ReasonThrottled, Message: "is spent.", Passing: true, Again: time.Minute}},

		"the token is refused": {
			refusal(connectclient.ErrUnauthorized, words("Unauthorized")),
			Verdict{Ready: no, Reason: v1alpha1.ReasonAccessTokenRejected, Message: "put a valid one into the Secret", Again: time.Hour}},
		"billing is not set up": {
			refusal(connectclient.ErrBilling, words("Payment is needed.")),
			Verdict{Ready: no, Reason: v1alpha1.ReasonBillingRequired, Message: "Connect refuses: Payment is needed. Set up billing", Again: time.Hour}},
		"the spec is refused": {
			refusal(connectclient.ErrInvalid, words(taken)),
			Verdict{Ready: no, Reason: v1alpha1.ReasonInvalid, Message: "Connect refuses the spec: the name is taken.", Again: time.Hour}},
		"the spec is refused in a sentence with a full stop": {
			refusal(connectclient.ErrInvalid, words(taken+".")),
			Verdict{Ready: no, Reason: v1alpha1.ReasonInvalid, Message: "Connect refuses the spec: the name is taken.", Again: time.Hour}},
		"the spec is refused in words that look like a format": {
			refusal(connectclient.ErrInvalid, words("100%d of it")),
			Verdict{Ready: no, Reason: v1alpha1.ReasonInvalid, Message: "Connect refuses the spec: 100%d of it.", Again: time.Hour}},

		"Ready":   {Ready("A", "%d is fine", 5), Verdict{Ready: yes, Reason: "A", Message: "5 is fine"}},
		"Waiting": {Waiting("A", "%d is coming", 5), Verdict{Ready: unknown, Reason: "A", Message: "5 is coming"}},
		"Stalled": {Stalled("A", "%d is wrong", 5), Verdict{Ready: no, Reason: "A", Message: "5 is wrong", Again: time.Hour}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := judge(test.err, doing, noon)
			if err != nil {
				t.Fatalf("it is returned: %v", err)
			}
			if !strings.Contains(got.Message, test.want.Message) || test.want.Message == "" && got.Message != "" {
				t.Errorf("the user is told %q, want %q", got.Message, test.want.Message)
			}
			got.Message = test.want.Message
			if got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

// An outage is told in words that do not change while it lasts, whatever each
// attempt meets; what it meets goes to the log.
func TestJudgeOutage(t *testing.T) {
	var said string
	for _, err := range []error{
		refusal(connectclient.ErrUnavailable, words("bad gateway")),
		refusal(connectclient.ErrUnavailable, connectclient.Error{Operation: "create artefact", Cause: errors.New("connection refused")}),
		errors.Join(connectclient.ErrUnavailable, connectclient.ErrOutcomeUnknown),
		refusal(connectclient.ErrNotFound, words("no such page")), // where a collection should be
	} {
		got, unjudged := judge(err, v1alpha1.ReasonCreating, noon)
		if unjudged != nil {
			t.Fatal(unjudged)
		}
		if got.Ready != metav1.ConditionUnknown || got.Reason != v1alpha1.ReasonConnectUnavailable || !got.Passing || !got.Backoff {
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
// after nothing would mean.
func TestJudgeAlwaysLooksAgain(t *testing.T) {
	for _, kind := range []error{connectclient.ErrDeferred, connectclient.ErrThrottled} {
		for _, wait := range []time.Duration{0, 1, -time.Second, -time.Hour} {
			got, err := judge(refusal(kind, after(wait)), v1alpha1.ReasonCreating, noon)
			if err != nil || got.Again <= 0 || got.Again > time.Second {
				t.Errorf("%v %s from now: looked at again after %s, error %v", kind, wait, got.Again, err)
			}
		}
	}
}

// What the loop cannot explain to a user is the operator's own error.
func TestJudgeReturnsWhatItDoesNotKnow(t *testing.T) {
	for name, err := range map[string]error{
		"a mistake of ours":                      errors.New("an artefact cannot be updated"),
		"a call that the revision does not have": connectclient.ErrUnsupported,
		"the API server is out of order":         apierrors.NewInternalError(errors.New("etcd")),
	} {
		t.Run(name, func(t *testing.T) {
			got, returned := judge(err, v1alpha1.ReasonCreating, noon)
			if !errors.Is(returned, err) || got != (Verdict{}) {
				t.Errorf("got %+v, error %v", got, returned)
			}
		})
	}
}
