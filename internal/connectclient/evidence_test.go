// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func TestWhoseWordAnAnswerIs(t *testing.T) {
	unknown, quiet, loud := knowledge{}, knowledge{announcement: silent}, knowledge{announcing, RevisionCurrent}
	older := knowledge{silent, RevisionOlder}
	behindAProxy := knowledge{silent, RevisionCurrent} // which eats the headers

	type form func(*answer)
	rated := func(a *answer) { a.rate.HasHeaders = true }
	page := func(a *answer) { a.html = true }
	worded := func(words string) form { return func(a *answer) { a.worded, a.refusal = true, words } }
	plain := func(words string) form { return func(a *answer) { a.refusal = words } }
	rejected := func(a *answer) { a.rejected = true }
	body := func(text string) form { return func(a *answer) { a.body = []byte(text) } }
	const billing = "Deployments are blocked until billing has been set up"

	for _, tt := range []struct {
		name   string
		k      knowledge
		status int
		forms  []form
		want   meaning
	}{
		{"a 404 of the API", loud, 404, []form{rated}, absent},
		{"a 404 of the API, the first answer there is", unknown, 404, []form{rated}, absent},
		{"a bare 404 in front of an API that announces", loud, 404, nil, strange},
		{"a 404 with a message in front of an API that announces", loud, 404, []form{worded("no route")}, strange},
		{"a bare 404 before anything is known", unknown, 404, nil, undecided},
		{"a page before anything is known", unknown, 404, []form{page}, strange},
		{"a bare 404 of the older revision", older, 404, nil, absent},
		{"a bare 404 of an API without headers", quiet, 404, nil, absent},
		{"a page in front of the older revision", older, 404, []form{page}, strange},
		{"a 410 of the API", loud, 410, []form{rated}, absent},
		{"a bare 410 in front of an API that announces", loud, 410, nil, strange},

		{"a 401 to a bad token", loud, 401, []form{rejected}, badToken},
		{"a 401 to a bad token of the older revision", older, 401, []form{rejected}, badToken},
		{"a 401 to a token that was good", loud, 401, nil, doubtfulToken},
		{"a 401 to a request", loud, 401, []form{rated}, refusedUnauthorized},
		{"a 401 to a request with a bad token besides", loud, 401, []form{rated, rejected}, refusedUnauthorized},

		{"billing", loud, 403, []form{rated, worded(billing)}, unpaid},
		{"billing on the older revision", older, 403, []form{worded(billing)}, unpaid},
		{"billing, the first answer there is", unknown, 403, []form{worded(billing)}, unpaid},
		{"billing on a page", loud, 403, []form{page, plain(billing)}, strange},
		{"another refusal", loud, 403, []form{rated, worded("Forbidden")}, forbidden},
		{"another refusal without words", loud, 403, []form{rated}, forbidden},
		{"another refusal of the older revision", older, 403, []form{worded("Forbidden")}, forbidden},
		{"a bare 403 in front of the older revision", older, 403, nil, strange},
		{"a 403 with a message in front of an API that announces", loud, 403, []form{worded("Forbidden")}, strange},
		{"a 403 with a message before anything is known", unknown, 403, []form{worded("Forbidden")}, strange},

		{"a 422 of the API", loud, 422, []form{rated, worded("Validation failed")}, refused},
		{"a 422 of the API without words", loud, 422, []form{rated}, refused},
		{"a 422 with the API's message", unknown, 422, []form{worded("Validation failed")}, refused},
		{"a bare 422 of the older revision", older, 422, nil, refused},
		{"a page with a 400 in front of the older revision", older, 400, []form{page}, strange},
		{"a bare 400 in front of an API that announces", loud, 400, nil, strange},
		{"a bare 400 before anything is known", unknown, 400, nil, strange},
		{"a proxy's 413", loud, 413, []form{page}, strange},
		{"a proxy's 431", loud, 431, nil, strange},
		{"a 409 in plain text", loud, 409, []form{plain("Conflict")}, strange},

		{"a 429 of the API", loud, 429, []form{rated, plain("Throttled")}, throttled},
		{"a 429 without headers", loud, 429, nil, throttled},
		{"a 429 of the older revision", older, 429, nil, throttled},
		{"a 408", loud, 408, []form{rated}, broken},
		{"a 421", loud, 421, []form{rated}, broken},
		{"a 425", loud, 425, nil, broken},
		{"a 500 of the API", loud, 500, []form{rated}, broken},
		{"a 503 in front of it", loud, 503, []form{page}, broken},
		{"a login page", loud, 200, []form{page}, strange},
		{"a login page in front of the older revision", older, 200, []form{page}, strange},
		{"a success", loud, 201, []form{rated}, accepted},
		{"a status that is none", loud, 700, nil, broken},
		{"an interim status", loud, 199, nil, broken},
		{"a redirect", loud, 302, []form{rated}, redirected},
	} {
		ans := &answer{status: tt.status}
		for _, f := range tt.forms {
			f(ans)
		}
		if got := tt.k.meaningOf(&request{method: http.MethodPost}, ans); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}

	// Of calls that only the current revision has.
	for _, tt := range []struct {
		name  string
		k     knowledge
		forms []form
		want  meaning
	}{
		{"the API says so", unknown, []form{rated}, absent},
		{"the older revision says so", older, nil, missing},
		{"the current one says so, without headers", behindAProxy, nil, absent},
		{"one of the two says so", quiet, nil, undecided},
		{"something in between says so", loud, nil, strange},
		{"a page says so", older, []form{page}, strange},
	} {
		ans := &answer{status: http.StatusNotFound}
		for _, f := range tt.forms {
			f(ans)
		}
		if got := tt.k.meaningOf(&request{method: http.MethodGet, currentOnly: true}, ans); got != tt.want {
			t.Errorf("a 404, %s: %d, want %d", tt.name, got, tt.want)
		}
	}

	// Of deletions.
	for _, tt := range []struct {
		name   string
		k      knowledge
		status int
		forms  []form
		want   meaning
	}{
		{"the API's", loud, 200, []form{rated}, accepted},
		{"the API's, with what was deleted", loud, 200, []form{body(`{"id":"a1"}`)}, accepted},
		{"the older revision's", older, 204, nil, accepted},
		{"the older revision's, the first answer there is", unknown, 204, nil, undecided},
		{"a login page's", older, 200, []form{page}, strange},
		{"a login page's, the first answer there is", unknown, 200, []form{page}, strange},
		{"a gateway's", loud, 200, []form{body(`{"status":"ok"}`)}, strange},
		{"a gateway's without a word", loud, 204, nil, strange},
		{"a gateway's with an empty id", loud, 200, []form{body(`{"id":""}`)}, strange},
	} {
		ans := &answer{status: tt.status}
		for _, f := range tt.forms {
			f(ans)
		}
		if got := tt.k.meaningOf(&request{method: http.MethodDelete}, ans); got != tt.want {
			t.Errorf("a deletion, %s: %d, want %d", tt.name, got, tt.want)
		}
		// What else succeeds brings an object, and the caller sees whether it does.
		if got := tt.k.meaningOf(&request{method: http.MethodPost}, ans); got != accepted && !ans.html {
			t.Errorf("no deletion, %s: %d", tt.name, got)
		}
	}
}

// The story of a gateway that has lost its backend: what it answers must not let anything go.
func TestGatewayCannotSayThatSomethingIsGone(t *testing.T) {
	for name, answer := range map[string]reply{
		"a bare 404":   {status: 404},
		"a page":       {status: 404, body: "<html>Not found</html>"},
		"a 410":        {status: 410, body: `{"message":"Gone"}`},
		"a login page": {status: 200, body: "<!DOCTYPE html>"},
		"a bare 200":   {status: 200},
		"a bare 422":   {status: 422},
	} {
		for _, known := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, known before: %t", name, known), func(t *testing.T) {
				now := announced(ok(deploymentJSON))
				s := serve(t, func(w http.ResponseWriter, r *http.Request) { now.ServeHTTP(w, r) })
				client := connect(t, s.URL)
				if known {
					if err := get(t, client); err != nil {
						t.Fatal(err)
					}
				}

				now = answer
				_, cancelled := client.Deployments().Cancel(t.Context(), "d1")
				mustBeOf(t, cancelled, ErrUnavailable)
				mustBeOf(t, client.AuthKeys().Delete(t.Context(), "k1"), ErrUnavailable)
				mustBeOf(t, client.Artefacts().Delete(t.Context(), "a1"), ErrUnavailable)
				if client.Revision() == RevisionOlder {
					t.Error("it is taken for the older revision")
				}

				now = announced(reply{status: 404})
				mustBeOf(t, client.AuthKeys().Delete(t.Context(), "k1"), ErrNotFound)
			})
		}
	}
}

// A POST that something in between answered may have been carried out.
func TestGatewayLeavesThePOSTUnknown(t *testing.T) {
	for _, status := range []int{400, 403, 404, 409, 413, 422, 431} {
		s := script(t, announced(ok(deploymentJSON)), reply{status: status, body: "<html>", header: map[string]string{"Content-Type": "text/html"}})
		client := connect(t, s.URL)
		if err := get(t, client); err != nil {
			t.Fatal(err)
		}
		err := create(t, client)
		mustBeOf(t, err, ErrUnavailable, ErrOutcomeUnknown)
		if !strings.Contains(err.Error(), "so it comes from something in between") || !Sent(err) {
			t.Error(err)
		}
	}
}

// What a wrong signature is answered with is not published.
func TestUnauthorizedRequestOfAGoodToken(t *testing.T) {
	s := serve(t, always(announced(reply{status: 401, body: `{"message":"Signature is invalid"}`})))
	err := create(t, connect(t, s.URL))
	mustBeOf(t, err, ErrInvalid, ErrUnauthorizedRequest)
	if want := "create artefact: the Connect API answered 401 to this request, although the access token is good: Signature is invalid"; err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
}

func TestForbidden(t *testing.T) {
	s := serve(t, always(announced(reply{status: 403, body: `{"message":"Forbidden"}`})))
	mustBeOf(t, create(t, connect(t, s.URL)), ErrForbidden)
}
