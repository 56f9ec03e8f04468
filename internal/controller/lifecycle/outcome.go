// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/accesstoken"
	"rpi-connect.dev/operator/internal/reflector"
)

// stalledInterval is how often a resource that waits for a person is looked at again by itself: a
// quota may have been raised, a colleague may have cleared the conflict.
const stalledInterval = time.Hour

// Outcome is how a pass ended: what to tell the user, and when to look again. The zero Outcome
// tells nothing new.
type Outcome struct {
	// Ready is the status of the Ready condition; empty leaves all conditions as they are.
	Ready metav1.ConditionStatus
	// Reason is one of v1alpha1's reasons; Message is stable while nothing changes.
	Reason, Message string
	// Transient marks trouble that passes by itself and says nothing about the remote object: what
	// was known for this generation stays.
	Transient bool
	// Unanswered says that the look that the user asked for has not been answered.
	Unanswered bool
	// RequeueAfter is when to look again without being woken; zero if never.
	RequeueAfter time.Duration
	// Scheduled says that the request budget or a schedule gave that time: the pace leaves it alone.
	Scheduled bool
	// Listed says that what the resource waits for comes with a listing, which wakes it.
	Listed bool
	// Backoff asks to look again soon, and ever less soon. No earlier wake bypasses it, unless
	// somebody changes the resource.
	Backoff bool
	// Cause is for the operator's log; it may change from pass to pass.
	Cause error
}

// IsZero tells whether the outcome says nothing at all.
func (o Outcome) IsZero() bool { return o == Outcome{} }

// Ready says that the remote side is as the spec says.
func Ready(reason, format string, args ...any) Outcome {
	return Outcome{Ready: metav1.ConditionTrue, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Waiting says that the operator works, or waits for something that will come without a change of
// the resource.
func Waiting(reason, format string, args ...any) Outcome {
	return Outcome{Ready: metav1.ConditionUnknown, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Stalled says that a person must act, or that the resource came to a bad end.
func Stalled(reason, format string, args ...any) Outcome {
	return Outcome{Ready: metav1.ConditionFalse, Reason: reason, Message: fmt.Sprintf(format, args...), RequeueAfter: stalledInterval}
}

// WithRequeueAfter returns the outcome with the time of the next look changed.
func (o Outcome) WithRequeueAfter(after time.Duration) Outcome {
	o.RequeueAfter = after
	return o
}

// WithBackoff returns the outcome with the next look soon, and ever less soon.
func (o Outcome) WithBackoff() Outcome {
	o.Backoff = true
	return o
}

// WithListing returns the outcome of a resource that waits for what a listing will show.
func (o Outcome) WithListing() Outcome {
	o.Listed = true
	return o
}

// NoChange ends a pass without telling anything: something will wake the resource, or it is looked
// at again after the given time.
func NoChange(requeueAfter time.Duration) Outcome { return Outcome{RequeueAfter: requeueAfter} }

// RequeueWithBackoff ends a pass without telling anything; the next one comes soon, and ever less soon.
func RequeueWithBackoff() Outcome { return Outcome{Backoff: true} }

// transient is trouble that goes by.
func transient(reason, message string) Outcome {
	return Outcome{Ready: metav1.ConditionUnknown, Reason: reason, Message: message, Transient: true}
}

// listingError is why a listing that a resource waits for did not come. Whoever waits is woken
// when one does, so there is no need to ask again soon.
type listingError struct{ error }

func (e listingError) Unwrap() error { return e.error }

// Listed waits for a listing that is fresh enough for the pass: nil if there is one.
func Listed(conn *Connection, store interface {
	Await(notBefore time.Time, waiter reflector.Waiter) error
},
) error {
	if err := store.Await(conn.NotBefore, conn.Waiter); err != nil {
		return listingError{err}
	}
	return nil
}

// FromListing marks an error as that of a listing: whoever waits for it is woken when it comes.
func FromListing(err error) error {
	if err == nil {
		return nil
	}
	return listingError{err}
}

// IsTransient tells whether an error passes by itself, so that what was seen last still stands.
func IsTransient(err error) bool {
	return errors.Is(err, connectclient.ErrUnavailable) || errors.Is(err, connectclient.ErrThrottled) ||
		errors.Is(err, connectclient.ErrDeferred) || errors.Is(err, reflector.ErrPending)
}

// outcomeOf turns the error that ended a pass into what the user is told; progress is the reason
// that says what the pass was about. It returns false for an error that it does not know, which is
// the operator's own.
func outcomeOf(err error, progress string, now time.Time) (Outcome, bool) {
	var missing *accesstoken.MissingError
	var invalid *accesstoken.InvalidError
	var listing listingError
	switch {
	case errors.As(err, &missing):
		return Waiting(v1alpha1.ReasonAccessTokenMissing, "%s.", missing), true
	case errors.As(err, &invalid):
		return Stalled(v1alpha1.ReasonAccessTokenRejected, "%s.", invalid), true
	case errors.Is(err, reflector.ErrPending):
		return NoChange(0), true
	case errors.Is(err, connectclient.ErrDeferred):
		return paced(progress, untilRetry(err, now)), true
	case errors.Is(err, connectclient.ErrThrottled):
		return throttled(err, now), true
	case errors.Is(err, connectclient.ErrUnauthorized):
		return Stalled(v1alpha1.ReasonAccessTokenRejected,
			"Connect refuses the access token: put a valid one into the Secret; every resource that uses it continues at once."), true
	case errors.Is(err, connectclient.ErrUnavailable), errors.Is(err, connectclient.ErrNotFound):
		// What no verb expects to be missing is a part of the API itself.
		o := transient(v1alpha1.ReasonConnectUnavailable, "Connect cannot be reached or answers with errors; the operator keeps trying.")
		o.Cause = err
		switch at, known := connectclient.RetryAt(err); {
		case errors.As(err, &listing):
			o.RequeueAfter = time.Minute // the listing wakes it earlier
		case known:
			o.RequeueAfter, o.Scheduled = max(at.Sub(now), time.Second), true
		default:
			o.Backoff = true
		}
		return o, true
	case errors.Is(err, connectclient.ErrBilling):
		return Stalled(v1alpha1.ReasonBillingRequired, "Connect refuses: %s. Set up billing for the organisation.", connectclient.Message(err)), true
	case errors.Is(err, connectclient.ErrForbidden):
		return Stalled(v1alpha1.ReasonForbidden, "Connect does not allow the access token to do this: %s. Use the token of an administrator.", connectclient.Message(err)), true
	case errors.Is(err, connectclient.ErrInvalid):
		return Stalled(v1alpha1.ReasonInvalid, "Connect refuses the spec: %s.", connectclient.Message(err)), true
	default:
		return kubernetesOutcome(err)
	}
}

// kubernetesOutcome tells the user of an error of the Kubernetes API that a person can mend: a
// quota, an admission policy, a right that is missing.
func kubernetesOutcome(err error) (Outcome, bool) {
	if apierrors.IsNotFound(err) {
		// The resource was deleted meanwhile, mostly, and then the next pass ends it. But a namespace that was
		// removed by force takes no writes either, until somebody makes it anew.
		return RequeueWithBackoff(), true
	}
	words, refused := Refusal(err)
	if !refused {
		return Outcome{}, false
	}
	return Stalled(v1alpha1.ReasonWriteRefused, "The Kubernetes API server refuses what the operator has to write: %s", words), true
}

// Refusal returns the API server's own words for an error that a person can mend, made fit to be
// shown, with a full stop; false for any other error.
func Refusal(err error) (string, bool) {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return "", false
	}
	mendable := apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) ||
		apierrors.IsMethodNotSupported(err) || apierrors.IsRequestEntityTooLargeError(err) || apierrors.IsUnauthorized(err)
	if !mendable {
		return "", false
	}
	return Sentence(status.Status().Message), true
}

// unnoticed is how long a resource may wait for the budget without a word.
const unnoticed = 10 * time.Second

// paced is for a call that the budget lets go a little later. A user hears of it only if it takes
// long enough to be wondered about.
func paced(progress string, wait time.Duration) Outcome {
	o := NoChange(wait)
	if wait >= unnoticed {
		o = transient(progress, "Waiting for the request budget: Connect is called no faster than it allows.")
		o.RequeueAfter = wait
	}
	o.Scheduled = true
	return o
}

func throttled(err error, now time.Time) Outcome {
	message := "The hourly request budget of the access token is spent."
	if at, ok := connectclient.SpentUntil(err); ok {
		message = fmt.Sprintf("The hourly request budget of the access token is spent until %s.", at.UTC().Format("15:04 MST"))
	}
	o := transient(v1alpha1.ReasonThrottled, message)
	o.RequeueAfter, o.Scheduled = untilRetry(err, now), true
	return o
}

// untilRetry is how long to wait for what the error says; at least a moment, because a zero requeue
// would mean never. A time that is over is none: the error is that of a listing, which has not come to be
// tried again and wakes those who wait for it when it is.
func untilRetry(err error, now time.Time) time.Duration {
	at, ok := connectclient.RetryAt(err)
	if !ok || now.Sub(at) >= requeueFloor {
		return time.Minute
	}
	return max(at.Sub(now), 10*time.Millisecond)
}
