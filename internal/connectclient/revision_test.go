// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"net/http"
	"testing"
)

func TestRevisionIsLearnt(t *testing.T) {
	withHeaders := reply{status: 404, header: rateHeaders}
	partial := reply{status: 404, header: map[string]string{"X-Rate-Limit-Limit": "5000"}}
	keys, noKeys := rows("auth_keys"), reply{status: 404}

	// listKeys and getKey are the two things that are done with the answers.
	type step struct {
		answer reply
		list   bool // list auth keys; otherwise get a deployment
		want   Revision
	}
	for name, steps := range map[string][]step{
		"nothing said":                  {{reply{status: 404}, false, RevisionUnknown}},
		"some header said":              {{partial, false, RevisionUnknown}},
		"rate headers":                  {{withHeaders, false, RevisionCurrent}},
		"rate headers of a 429":         {{reply{status: 429, header: rateHeaders}, false, RevisionCurrent}},
		"auth keys can be listed":       {{keys, true, RevisionCurrent}},
		"auth keys cannot be listed":    {{noKeys, true, RevisionOlder}},
		"an outage proves nothing":      {{reply{status: 503}, true, RevisionUnknown}},
		"upgraded, seen by a header":    {{noKeys, true, RevisionOlder}, {withHeaders, false, RevisionCurrent}},
		"upgraded, seen by the listing": {{noKeys, true, RevisionOlder}, {keys, true, RevisionCurrent}},
	} {
		t.Run(name, func(t *testing.T) {
			var answer reply
			s := serve(t, func(w http.ResponseWriter, r *http.Request) { answer.ServeHTTP(w, r) })
			client := connect(t, s.URL)
			for _, step := range steps {
				answer = step.answer
				var err error
				if step.list {
					_, err = collect(client.AuthKeys.List().All(t.Context()))
				} else {
					err = get(t, client)
				}
				if step.list && step.answer.status == 404 {
					mustBeOf(t, err, ErrUnsupported)
				}
				if client.Revision() != step.want {
					t.Errorf("it is %s, want %s", client.Revision(), step.want)
				}
			}
		})
	}
}

// A service does not become older: a listing that was there and is not now is
// something broken, and nothing may be concluded from it.
func TestCurrentStaysCurrent(t *testing.T) {
	var answer reply
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { answer.ServeHTTP(w, r) })
	client := connect(t, s.URL)
	answer = rows("auth_keys")
	if _, err := collect(client.AuthKeys.List().All(t.Context())); err != nil {
		t.Fatal(err)
	}
	answer = reply{status: 404}
	_, err := collect(client.AuthKeys.List().All(t.Context()))
	mustBeOf(t, err, ErrNotFound, ErrUnavailable)
	if client.Revision() != RevisionCurrent {
		t.Errorf("it is %s", client.Revision())
	}
}

// Before the revision is known a 404 may mean either.
func TestUnknownRevisionAsks(t *testing.T) {
	s := serve(t, always(reply{status: 404}))
	client := connect(t, s.URL)
	_, err := client.Artefacts.Get(t.Context(), "a1")
	mustBeOf(t, err, ErrNotFound)
	if len(s.requests()) != 1 {
		t.Error("it was not asked")
	}
}

func TestRevisionNames(t *testing.T) {
	if s := RevisionUnknown.String() + RevisionOlder.String() + RevisionCurrent.String(); s != "unknownoldercurrent" {
		t.Error(s)
	}
}
