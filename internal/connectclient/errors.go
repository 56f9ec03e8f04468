// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"rpi-connect.dev/operator/internal/connectclient/budget"
)

// What can go wrong with a call, to be asked with [errors.Is]. They name what to
// do about it rather than a status, so that callers need not know any.
var (
	// ErrUnauthorized: the access token is refused, or was, and is not tried
	// again for a while. Get another token.
	ErrUnauthorized = errors.New("the access token is refused")
	// ErrBilling: the organisation has not set up billing.
	ErrBilling = errors.New("billing has to be set up")
	// ErrNotFound: there is no such object in the organisation.
	ErrNotFound = errors.New("not found")
	// ErrInvalid: the API refuses what it was asked for; [Message] says why.
	// Nothing was changed.
	ErrInvalid = errors.New("refused")
	// ErrThrottled: the hourly budget is spent; [RetryAt] says until when.
	ErrThrottled = errors.New("the request budget is spent")
	// ErrDeferred: the budget lets the request go a little later, [RetryAt]
	// says when. It is pacing and no state worth showing to a user.
	ErrDeferred = errors.New("put off by the request budget")
	// ErrUnavailable: the API cannot be reached, or what it answers makes no
	// sense. It passes by itself.
	ErrUnavailable = errors.New("the Connect API is unavailable")
	// ErrOutcomeUnknown comes in addition to ErrUnavailable: a POST may have
	// been carried out. Look before it is sent again.
	ErrOutcomeUnknown = errors.New("it is not known whether the request was carried out")
	// ErrUnsupported: the older revision of the API has no such call.
	ErrUnsupported = errors.New("the API's older revision cannot do this")
	// ErrArtefactDeployed comes in addition to ErrInvalid: the artefact has
	// been deployed and so can never be deleted.
	ErrArtefactDeployed = errors.New("the artefact has been deployed")
	// ErrNotEditable comes in addition to ErrInvalid: the auth key has
	// expired or was exchanged and can never be changed again.
	ErrNotEditable = errors.New("the auth key can no longer be edited")
	// ErrNotCancellable comes in addition to ErrInvalid: the deployment has
	// come to its end, or can no longer be stopped. A cancellation whose
	// answer was lost and that was repeated fails this way too.
	ErrNotCancellable = errors.New("the deployment can no longer be cancelled")
)

// Error is the error of every call. It is safe to log and to store: one line,
// bounded, without secrets and without anything that differs from one failure to
// the next of the same cause.
type Error struct {
	// Operation names the call: "create artefact".
	Operation string
	// StatusCode is the answer's; 0 if there was none.
	StatusCode int
	// Message is in the API's own words; empty if it gave none.
	Message string
	// RetryAt is when trying again makes sense; zero if that is not known.
	RetryAt time.Time
	// Cause is what is below: a context's error, a [syscall.Errno], a
	// [*budget.Refusal], or nil.
	Cause error

	detail string  // what happened, in our words
	kinds  []error // of the sentinels above
}

func (e *Error) Error() string {
	text := e.Operation + ": " + e.detail
	if e.Message != "" {
		text += ": " + e.Message
	}
	return text
}

// Is makes [errors.Is] find the sentinels.
func (e *Error) Is(target error) bool { return slices.Contains(e.kinds, target) }

func (e *Error) Unwrap() error { return e.Cause }

// RetryAt tells when trying again makes sense, if the error knows it.
func RetryAt(err error) (time.Time, bool) {
	var e *Error
	if !errors.As(err, &e) || e.RetryAt.IsZero() {
		return time.Time{}, false
	}
	return e.RetryAt, true
}

// Message is what the API says is wrong, without a full stop, to be put into a
// sentence for a user; or what it answered, where it does not say. It is empty
// for an error that is not of this package.
func Message(err error) string {
	var e *Error
	switch {
	case !errors.As(err, &e):
		return ""
	case e.Message != "":
		return strings.TrimRight(e.Message, ". ")
	default:
		return e.detail
	}
}

// callError is the error of a call that brought no answer.
func callError(req *request, ans *answer, err error) *Error {
	e := &Error{Operation: req.operation}
	if ans != nil {
		e.StatusCode = ans.status
	}
	if refusal, ok := errors.AsType[*budget.Refusal](err); ok {
		e.Cause, e.RetryAt = refusal, refusal.Until
		e.detail, e.kinds = refused(refusal.Reason)
		return e
	}
	var f *failure
	errors.As(err, &f)
	e.Cause, e.detail, e.kinds = f.cause, "cannot reach the Connect API: "+f.text, []error{ErrUnavailable}
	if f.sent {
		e.detail = "the Connect API's answer was lost: " + f.text
		e.unknownOutcome(req)
	}
	return e
}

// refused says what it means that the budget did not let a request go.
func refused(reason budget.Reason) (string, []error) {
	switch reason {
	case budget.Exhausted:
		return "the hourly request budget of the access token is spent", []error{ErrThrottled}
	case budget.Unauthorized:
		return "the Connect API has refused the access token", []error{ErrUnauthorized}
	default:
		return "put off to stay within the request budget", []error{ErrDeferred}
	}
}

// statusError is the error of an answer that is not a success.
func statusError(req *request, ans *answer) *Error {
	e := &Error{
		Operation:  req.operation,
		StatusCode: ans.status,
		Message:    ans.refusal,
		RetryAt:    ans.retryAt,
		detail:     fmt.Sprintf("the Connect API answered %d", ans.status),
	}
	if isHTML(ans.header.Get("Content-Type")) {
		e.detail += " with an HTML page" // from something in between, not the API
	}
	switch s := ans.status; {
	case s == http.StatusUnauthorized:
		e.kinds = []error{ErrUnauthorized}
	case s == http.StatusForbidden:
		e.kinds = []error{ErrBilling}
	case s == http.StatusNotFound, s == http.StatusGone:
		e.kinds = []error{ErrNotFound}
	case s == http.StatusTooManyRequests:
		e.kinds = []error{ErrThrottled}
	case s >= 300 && s < 400:
		e.detail += ", a redirect, which is not followed: give the API's final address"
		e.Message = ""
		e.unavailable(req)
	case s == http.StatusRequestTimeout, s == http.StatusMisdirectedRequest, s == http.StatusTooEarly, s < 400, s >= 500:
		e.unavailable(req)
	default:
		e.kinds = []error{ErrInvalid}
	}
	return e
}

// garbageError is the error of a success that cannot be understood.
func garbageError(req *request, ans *answer, what string) *Error {
	e := &Error{
		Operation:  req.operation,
		StatusCode: ans.status,
		detail:     fmt.Sprintf("the Connect API answered %d, but %s", ans.status, what),
	}
	e.unavailable(req)
	return e
}

func (e *Error) unavailable(req *request) {
	e.kinds = []error{ErrUnavailable}
	e.unknownOutcome(req)
}

// unknownOutcome notes that a POST got neither a clear yes nor a clear no.
func (e *Error) unknownOutcome(req *request) {
	if req.method == http.MethodPost {
		e.kinds = append(e.kinds, ErrOutcomeUnknown)
		e.detail += "; it is not known whether the request was carried out"
	}
}

// also adds a kind to an error of the given status whose message has the words.
// The vendor gives no error codes, so the words are all there is; here is the only
// place that looks at them.
func also(err error, status int, words string, kind error) error {
	var e *Error
	if errors.As(err, &e) && e.StatusCode == status && strings.Contains(strings.ToLower(e.Message), words) {
		e.kinds = append(e.kinds, kind)
	}
	return err
}

// parseMessage finds the API's own words in an error's body, whatever the body
// is: {"message": …} as documented, {"error": …} or a short text as seen
// elsewhere, an HTML page of something in between, nothing at all.
func parseMessage(mediaType string, body []byte, token Secret) string {
	text := strings.TrimSpace(string(body))
	switch {
	case text == "", isHTML(mediaType):
		return ""
	case text[0] == '{':
		return jsonMessage(body, token)
	case strings.ContainsRune(`<["`, rune(text[0])), len(text) > 2*maxMessage:
		return ""
	default:
		return clean(text, token)
	}
}

func jsonMessage(body []byte, token Secret) string {
	var object map[string]any
	if json.Unmarshal(body, &object) != nil {
		return ""
	}
	for _, key := range []string{"message", "error"} {
		if words, ok := object[key].(string); ok && words != "" {
			return clean(words, token)
		}
	}
	return ""
}

func isHTML(mediaType string) bool {
	kind, _, _ := mime.ParseMediaType(mediaType)
	return kind == "text/html"
}
