// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"net/http"
	"testing"
	"time"
)

// olderRevision answers as the older revision does: no rate headers, and a bare 404 to what it does not have.
func olderRevision(w http.ResponseWriter, r *http.Request) {
	answer := reply{status: 404}
	switch {
	case r.Method == http.MethodGet && r.URL.Path == devicesPath:
		answer = rows("devices")
	case r.Method == http.MethodDelete && r.URL.Path == artefactsPath+"/a1":
		answer = reply{status: 204}
	}
	answer.ServeHTTP(w, r)
}

func TestRevisionIsLearnt(t *testing.T) {
	keys, noKeys, silence := rows("auth_keys"), reply{status: 404}, rows("devices")
	const page = "<html>Not found</html>"

	// What is answered to which request: a listing of auth keys, a listing of devices, a GET of a
	// deployment.
	type step struct {
		keys, devices, get reply
		list               bool // the auth keys are listed; otherwise the deployment is read
		want               Revision
	}
	for name, steps := range map[string][]step{
		"nothing said":              {{get: reply{status: 404}, devices: reply{status: 404}, want: RevisionUnknown}},
		"no headers say little":     {{get: ok(deploymentJSON), want: RevisionUnknown}},
		"rate headers":              {{get: announced(reply{status: 404}), want: RevisionCurrent}},
		"one rate header":           {{get: reply{status: 404, header: map[string]string{"X-Rate-Limit-Limit": "5000"}}, want: RevisionCurrent}},
		"rate headers of a 429":     {{get: announced(reply{status: 429}), want: RevisionCurrent}},
		"auth keys can be listed":   {{keys: keys, list: true, want: RevisionCurrent}},
		"no auth keys, and silence": {{keys: noKeys, devices: silence, list: true, want: RevisionOlder}},
		"silence, then no auth keys": {
			{get: ok(deploymentJSON), want: RevisionUnknown},
			{keys: noKeys, list: true, want: RevisionOlder},
		},
		"no auth keys, but rate headers":        {{keys: noKeys, devices: announced(silence), list: true, want: RevisionCurrent}},
		"no auth keys, and nothing else":        {{keys: noKeys, devices: noKeys, list: true, want: RevisionUnknown}},
		"no auth keys, and an outage":           {{keys: noKeys, devices: reply{status: 503}, list: true, want: RevisionUnknown}},
		"a page is no word of the API":          {{keys: reply{status: 404, body: page}, devices: reply{status: 404, body: page}, list: true, want: RevisionUnknown}},
		"a page, twice, and nothing else amiss": {{keys: reply{status: 404, body: page}, devices: silence, list: true, want: RevisionOlder}},
		"a page, twice, and rate headers":       {{keys: reply{status: 404, body: page}, devices: announced(silence), list: true, want: RevisionCurrent}},
		"a success that is a page is none":      {{keys: noKeys, devices: reply{status: 200, body: page}, list: true, want: RevisionUnknown}},
		"a success of another sort is none":     {{keys: noKeys, devices: reply{status: 200, body: `{"status":"ok"}`}, list: true, want: RevisionUnknown}},
		"an outage proves nothing":              {{keys: reply{status: 503}, list: true, want: RevisionUnknown}},
		"a listing that is no listing":          {{keys: reply{status: 200, body: `{}`}, list: true, want: RevisionUnknown}},
		"upgraded, seen by a header":            {{keys: noKeys, devices: silence, list: true, want: RevisionOlder}, {get: announced(ok(deploymentJSON)), want: RevisionCurrent}},
		"upgraded, seen by the listing":         {{keys: noKeys, devices: silence, list: true, want: RevisionOlder}, {keys: keys, list: true, want: RevisionCurrent}},
		"a gateway does not downgrade it":       {{get: announced(ok(deploymentJSON)), want: RevisionCurrent}, {keys: noKeys, devices: silence, list: true, want: RevisionCurrent}},
		"nor where something eats headers":      {{keys: keys, list: true, want: RevisionCurrent}, {keys: noKeys, devices: silence, list: true, want: RevisionCurrent}},
		"nor does a page after page of them":    {{get: announced(ok(deploymentJSON)), want: RevisionCurrent}, {keys: reply{status: 404, body: page}, list: true, want: RevisionCurrent}, {keys: reply{status: 404, body: page}, list: true, want: RevisionCurrent}},
	} {
		t.Run(name, func(t *testing.T) {
			var now step
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case authKeysPath:
					now.keys.ServeHTTP(w, r)
				case devicesPath:
					now.devices.ServeHTTP(w, r)
				default:
					now.get.ServeHTTP(w, r)
				}
			})
			client := connect(t, s.URL)
			for _, now = range steps {
				var err error
				if now.list {
					_, err = collect(client.AuthKeys().List().All(t.Context()))
				} else {
					err = get(t, client)
				}
				if now.list && now.keys.status == 404 {
					switch {
					case now.want == RevisionOlder:
						mustBeOf(t, err, ErrUnsupported)
					case now.want == RevisionCurrent && name == "nor where something eats headers":
						mustBeOf(t, err, ErrNotFound, ErrUnavailable)
					default:
						mustBeOf(t, err, ErrUnavailable)
					}
				}
				if client.Revision() != now.want {
					t.Errorf("it is %s, want %s", client.Revision(), now.want)
				}
			}
		})
	}
}

// What one token's answers have shown of the API holds for the others.
func TestRevisionIsTheAPIs(t *testing.T) {
	s := serve(t, olderRevision)
	api, err := New(Options{BaseURL: s.URL, QPS: 1e6})
	if err != nil {
		t.Fatal(err)
	}
	one, other := api.ClientFor(NewSecret(testToken)), api.ClientFor(NewSecret("rporg_other"))
	_, err = collect(one.AuthKeys().List().All(t.Context()))
	mustBeOf(t, err, ErrUnsupported)
	before := len(s.requests())
	_, err = other.AuthKeys().Get(t.Context(), "k1")
	mustBeOf(t, err, ErrUnsupported)
	if len(s.requests()) != before {
		t.Error("it was asked again")
	}
}

// The older revision answers a call that it does not have like an id that it does not know. Before it is
// known which revision it is, a key that cannot be revoked would look like one that is gone.
func TestUnknownCallIsNoUnknownObject(t *testing.T) {
	for name, call := range map[string]func(*Client) error{
		"revoke an auth key": func(c *Client) error { return c.AuthKeys().Delete(t.Context(), "k1") },
		"get an auth key":    func(c *Client) error { _, err := c.AuthKeys().Get(t.Context(), "k1"); return err },
		"update an auth key": func(c *Client) error { _, err := c.AuthKeys().Update(t.Context(), "k1", AuthKeyUpdate{}); return err },
		"get an artefact":    func(c *Client) error { _, err := c.Artefacts().Get(t.Context(), "a1"); return err },
		"get a device":       func(c *Client) error { _, err := c.Devices().Get(t.Context(), "p1"); return err },
		"update a device":    func(c *Client) error { _, err := c.Devices().Update(t.Context(), "p1", DeviceUpdate{}); return err },
	} {
		for first, before := range map[string]func(*Client){
			"at first":       func(*Client) {},
			"in between":     func(c *Client) { _, _ = collect(c.Devices().List("").All(t.Context())) },
			"once known":     func(c *Client) { _, _ = collect(c.AuthKeys().List().All(t.Context())) },
			"after a delete": func(c *Client) { _ = c.Artefacts().Delete(t.Context(), "a1") },
		} {
			t.Run(name+" "+first, func(t *testing.T) {
				s := serve(t, olderRevision)
				client := connect(t, s.URL)
				before(client)
				before := len(s.requests())
				mustBeOf(t, call(client), ErrUnsupported)
				if client.Revision() != RevisionOlder {
					t.Errorf("it is %s", client.Revision())
				}
				if n := len(s.requests()) - before; n > 3 {
					t.Errorf("it cost %d requests", n)
				}
			})
		}
	}
}

// An id that nobody knows is not found where the service has the call.
func TestUnknownObjectOfACurrentServiceWithoutHeaders(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		answer := reply{status: 404}
		switch r.URL.Path {
		case devicesPath:
			answer = rows("devices")
		case authKeysPath:
			answer = rows("auth_keys")
		}
		answer.ServeHTTP(w, r)
	})
	client := connect(t, s.URL)
	mustBeOf(t, client.AuthKeys().Delete(t.Context(), "k1"), ErrNotFound)
	if client.Revision() != RevisionCurrent {
		t.Errorf("it is %s", client.Revision())
	}
}

// Who may send one request in a minute still gets to know the API in the end.
func TestLearningEndsAtALowRate(t *testing.T) {
	clock := newClock()
	s := serve(t, olderRevision)
	client := connectAt(t, clock, s.URL, func(o *Options) { o.QPS = 1.0 / 60 })
	for range 100 {
		_, err := collect(client.AuthKeys().List().All(t.Context()))
		if client.Revision() == RevisionOlder {
			mustBeOf(t, err, ErrUnsupported)
			return
		}
		at, ok := RetryAt(err)
		if !ok {
			at = clock.Now().Add(time.Minute)
		}
		_ = clock.Sleep(t.Context(), at.Sub(clock.Now()))
	}
	t.Errorf("it is %s after %d requests", client.Revision(), len(s.requests()))
}

func TestRevisionNames(t *testing.T) {
	if s := RevisionUnknown.String() + RevisionOlder.String() + RevisionCurrent.String(); s != "unknownoldercurrent" {
		t.Error(s)
	}
}
