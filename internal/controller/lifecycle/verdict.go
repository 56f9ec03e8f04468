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

// stalledInterval is how often a resource that waits for a person is looked at
// again by itself: a quota may have been raised, a colleague may have cleared
// the conflict.
const stalledInterval = time.Hour

// Verdict is how a pass ended: what to tell the user, and when to look again.
// The zero Verdict tells nothing new. It is an error so that a verb can end the
// pass from any depth with what it has found.
type Verdict struct {
	// Ready is the status of the Ready condition; empty leaves all
	// conditions as they are.
	Ready metav1.ConditionStatus
	// Reason is one of v1alpha1's reasons; Message is stable while nothing
	// changes.
	Reason, Message string
	// Passing marks trouble that passes by itself and says nothing about the
	// remote object: what was known for this generation stays.
	Passing bool
	// Again is when to look again without being woken; zero if never.
	Again time.Duration
	// Backoff asks to look again soon, and ever less soon.
	Backoff bool
	// Cause is for the operator's log; it may change from pass to pass.
	Cause error
}

func (v Verdict) Error() string { return v.Message }

// Ready says that the remote side is as the spec says.
func Ready(reason, format string, args ...any) Verdict {
	return Verdict{Ready: metav1.ConditionTrue, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Waiting says that the operator works, or waits for something that will come
// without a change of the resource.
func Waiting(reason, format string, args ...any) Verdict {
	return Verdict{Ready: metav1.ConditionUnknown, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Stalled says that a person must act, or that the resource came to a bad end.
func Stalled(reason, format string, args ...any) Verdict {
	return Verdict{Ready: metav1.ConditionFalse, Reason: reason, Message: fmt.Sprintf(format, args...), Again: stalledInterval}
}

// LookAgain returns the verdict with the time of the next look changed.
func (v Verdict) LookAgain(after time.Duration) Verdict {
	v.Again = after
	return v
}

// quiet ends a pass without telling anything: something will wake the resource,
// or it is looked at again after the given time.
func quiet(again time.Duration) Verdict { return Verdict{Again: again} }

// passing is trouble that goes by.
func passing(reason, message string) Verdict {
	return Verdict{Ready: metav1.ConditionUnknown, Reason: reason, Message: message, Passing: true}
}

// judge turns the error that ended a pass into what the user is told; doing is the
// reason that says what the pass was about. An error that it does not know is the
// operator's own and is returned.
func judge(err error, doing string, now time.Time) (Verdict, error) {
	var verdict Verdict
	var missing *accesstoken.MissingError
	switch {
	case errors.As(err, &verdict):
		return verdict, nil
	case errors.As(err, &missing):
		return Waiting(v1alpha1.ReasonAccessTokenMissing, "%s.", missing), nil
	case errors.Is(err, reflector.ErrPending):
		return quiet(0), nil
	case apierrors.IsNotFound(err):
		return quiet(0), nil // the resource was deleted meanwhile
	case errors.Is(err, connectclient.ErrDeferred):
		return paced(doing, until(err, now)), nil
	case errors.Is(err, connectclient.ErrThrottled):
		return throttled(err, now), nil
	case errors.Is(err, connectclient.ErrUnauthorized):
		return Stalled(v1alpha1.ReasonAccessTokenRejected,
			"Connect refuses the access token: put a valid one into the Secret; every resource that uses it continues at once."), nil
	case errors.Is(err, connectclient.ErrUnavailable), errors.Is(err, connectclient.ErrNotFound):
		// What no verb expects to be missing is a part of the API itself.
		v := passing(v1alpha1.ReasonConnectUnavailable,
			"Connect cannot be reached or answers with errors; the operator keeps trying.")
		v.Backoff, v.Cause = true, err
		return v, nil
	case errors.Is(err, connectclient.ErrBilling):
		return Stalled(v1alpha1.ReasonBillingRequired, "Connect refuses: %s. Set up billing for the organisation.", connectclient.Message(err)), nil
	case errors.Is(err, connectclient.ErrInvalid):
		return Stalled(v1alpha1.ReasonInvalid, "Connect refuses the spec: %s.", connectclient.Message(err)), nil
	default:
		return Verdict{}, err
	}
}

// unnoticed is how long a resource may wait for its turn without a word.
const unnoticed = 10 * time.Second

// paced is for a call that the budget lets go a little later. A user hears of it
// only if it takes long enough to be wondered about.
func paced(doing string, wait time.Duration) Verdict {
	if wait < unnoticed {
		return quiet(wait)
	}
	v := passing(doing, "It waits for its turn: Connect is called no faster than it allows.")
	v.Again = wait
	return v
}

func throttled(err error, now time.Time) Verdict {
	message := "The hourly request budget of the access token is spent."
	if at, ok := connectclient.RetryAt(err); ok {
		message = fmt.Sprintf("The hourly request budget of the access token is spent until %s.", at.UTC().Format("15:04 MST"))
	}
	v := passing(v1alpha1.ReasonThrottled, message)
	v.Again = until(err, now)
	return v
}

// until is how long to wait for what the error says; at least a moment, because
// a zero requeue would mean never.
func until(err error, now time.Time) time.Duration {
	at, ok := connectclient.RetryAt(err)
	if !ok {
		return time.Minute
	}
	return max(at.Sub(now), 10*time.Millisecond)
}
