// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"bytes"
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
	// ErrForbidden: the access token is good, but may not do this.
	ErrForbidden = errors.New("the access token may not do this: only administrators' tokens deploy or manage artefacts")
	// ErrNotFound: there is no such object in the organisation.
	ErrNotFound = errors.New("not found")
	// ErrInvalid: the API refuses what it was asked for; [Message] says why.
	// Nothing was changed.
	ErrInvalid = errors.New("refused")
	// ErrUnauthorizedRequest comes in addition to ErrInvalid: the API answers
	// as if the access token were refused, but it is not. What else has to be
	// right with a request, such as a signature, is not.
	ErrUnauthorizedRequest = errors.New("the request is not authorized although the access token is good")
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
	sent   bool    // the API may have got the request
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

// Sent tells whether the request of the call that ended in err may have reached the
// API: it was answered, or an answer was lost; nil means that it was done. It has
// surely not if the budget refused it, if there was no connection, if the API told
// that it has not begun with it, and for an error of another package. Of a call that
// was attempted more than once, which none is that makes something, it tells of the
// last attempt.
func Sent(err error) bool {
	if err == nil {
		return true
	}
	e, ok := errors.AsType[*Error](err)
	return ok && e.sent
}

// SpentUntil tells when the window ends of which the budget is spent, if the error
// is [ErrThrottled] and knows it. It is for people: unlike [RetryAt], which spreads
// those who come back, it is the same for everybody and as long as the window lasts.
func SpentUntil(err error) (time.Time, bool) {
	if refusal, ok := errors.AsType[*budget.Refusal](err); ok && refusal.Reason == budget.Exhausted {
		return refusal.Ends, true
	}
	if !errors.Is(err, ErrThrottled) {
		return time.Time{}, false
	}
	return RetryAt(err)
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
		e.detail, e.kinds = putOff(refusal.Reason)
		return e
	}
	var f *failure
	errors.As(err, &f)
	e.Cause, e.RetryAt, e.sent = f.cause, f.retryAt, f.sent
	if f.sent {
		e.detail = "the Connect API's answer was lost: " + f.text
		e.unavailable(req)
	} else {
		e.detail, e.kinds = "cannot reach the Connect API: "+f.text, []error{ErrUnavailable}
	}
	return e
}

// putOff says what it means that the budget did not let a request go.
func putOff(reason budget.Reason) (string, []error) {
	switch reason {
	case budget.Exhausted:
		return "the hourly request budget of the access token is spent", []error{ErrThrottled}
	case budget.Unauthorized:
		return "the Connect API has refused the access token", []error{ErrUnauthorized}
	case budget.Outage:
		return "the Connect API is down, and is tried again with one request at a time", []error{ErrUnavailable}
	default:
		return "put off to stay within the request budget", []error{ErrDeferred}
	}
}

// answerError is the error of an answer that means anything but that it was accepted.
func answerError(req *request, ans *answer, m meaning, k knowledge) *Error {
	e := &Error{
		Operation:  req.operation,
		StatusCode: ans.status,
		Message:    ans.refusal,
		RetryAt:    ans.retryAt,
		detail:     fmt.Sprintf("the Connect API answered %d", ans.status),
		sent:       true,
	}
	if ans.html {
		e.detail += " with an HTML page"
	}
	switch m {
	case absent:
		e.kinds = []error{ErrNotFound}
	case missing:
		e.detail, e.Message = ErrUnsupported.Error(), ""
		e.kinds = []error{ErrUnsupported}
	case refused:
		e.kinds = []error{ErrInvalid}
	case refusedUnauthorized:
		e.detail += " to this request, although the access token is good"
		e.kinds = []error{ErrInvalid, ErrUnauthorizedRequest}
	case forbidden:
		e.kinds = []error{ErrForbidden}
	case unpaid:
		e.kinds = []error{ErrBilling}
	case badToken:
		e.kinds = []error{ErrUnauthorized}
	case throttled:
		e.kinds = []error{ErrThrottled}
	case doubtfulToken:
		e.detail += " to an access token that it has accepted before, which it has to repeat to be believed"
	case redirected:
		e.detail += ", a redirect, which is not followed: give the API's final address"
		e.Message = ""
	case strange, undecided:
		e.detail += k.strangeness(ans)
		e.Message = ""
	case accepted, broken:
		// There is nothing to add.
	}
	if !m.word() {
		e.unavailable(req)
	}
	return e
}

// strangeness says why an answer is not the API's.
func (k knowledge) strangeness(ans *answer) string {
	switch {
	case k.announcement != silent:
		return ", without the rate limit headers that the API's own answers carry, so it comes from something in between"
	case ans.html:
		return ", so it comes from something in between"
	default:
		return ", without a message of the API, so it comes from something in between"
	}
}

// garbageError is the error of a success that cannot be understood.
func garbageError(req *request, ans *answer, what string) *Error {
	e := &Error{
		Operation:  req.operation,
		StatusCode: ans.status,
		detail:     fmt.Sprintf("the Connect API answered %d, but %s", ans.status, what),
		sent:       true,
	}
	e.unavailable(req)
	return e
}

// unavailable makes it an outage. A POST got neither a clear yes nor a clear no.
func (e *Error) unavailable(req *request) {
	e.kinds = []error{ErrUnavailable}
	if req.method == http.MethodPost {
		e.kinds = append(e.kinds, ErrOutcomeUnknown)
		e.detail += "; it is not known whether the request was carried out"
	}
}

// classify adds a kind to an error of the given status whose message has the words.
// The vendor gives no error codes, so the words are all there is; here and in
// [knowledge.meaningOf] are the only places that look at them. An outage is of no
// other kind: its words, or its lack of them, are not the API's.
func classify(err error, status int, words string, kind error) error {
	e, ok := errors.AsType[*Error](err)
	if ok && e.StatusCode == status && !e.Is(ErrUnavailable) && strings.Contains(strings.ToLower(e.Message), words) {
		e.kinds = append(e.kinds, kind)
	}
	return err
}

// parseMessage finds the API's own words in an error's body, whatever the body
// is: {"message": …} as documented, {"error": …} or a short text as seen
// elsewhere, an HTML page of something in between, nothing at all. It tells
// whether they are in the form that is documented.
func parseMessage(ans *answer, token Secret) (message string, documented bool) {
	text := strings.TrimSpace(string(ans.body))
	switch {
	case text == "", ans.html:
		return "", false
	case text[0] == '{':
		return jsonMessage(ans.body, token)
	case strings.ContainsRune(`["`, rune(text[0])), len(text) > 2*MaxMessage:
		return "", false
	default:
		return clean(text, token), false
	}
}

func jsonMessage(body []byte, token Secret) (message string, documented bool) {
	for _, key := range []string{"message", "error"} {
		var words string
		if json.Unmarshal(member(body, key), &words) == nil && words != "" {
			return clean(words, token), key == "message"
		}
	}
	return "", false
}

// isHTML tells whether an answer is a page, by its type or by what it begins with.
func isHTML(mediaType string, body []byte) bool {
	kind, _, _ := mime.ParseMediaType(mediaType)
	return kind == "text/html" || bytes.HasPrefix(bytes.TrimSpace(body), []byte("<"))
}
