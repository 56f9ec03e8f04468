// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"rpi-connect.dev/operator/internal/controller"
)

// ledger is the way into Connect, and knows what the operator has really done there: what it sent, for
// which resource, and what was carried out, whether or not the operator ever saw the answer.
type ledger struct {
	w *world

	mu     sync.Mutex
	made   map[string]made          // by id
	asked  map[resource][]time.Time // when POSTs were sent
	posts  map[string]int           // of deployments that were carried out, by the lineage of the resource
	listed map[string][]time.Time   // when a page was shown, of each collection
	recent map[resource]recent      // requests, whatever they are
	open   map[resource]time.Time   // until when a request for an auth key may have been carried out, for all that the operator knows
}

// recent is how many requests were sent for a resource since a minute began.
type recent struct {
	since time.Time
	n     int
}

// tooMany is how many requests in a minute are sent for a resource that the operator works on without end.
const tooMany = 120

// made is an object that the operator has made.
type made struct {
	resource

	organisation int
	lineage      string
	at           time.Time
	asked        time.Time // when the request was sent
	rollout      string    // whose Deployment it is
	deviceID     string
}

func newLedger(w *world) *ledger {
	return &ledger{w: w, made: map[string]made{}, posts: map[string]int{}, listed: map[string][]time.Time{}, recent: map[resource]recent{}, open: map[resource]time.Time{}, asked: map[resource][]time.Time{}}
}

// act is a request that changes something.
type act struct {
	method string
	kind   string // of the object
	id     string // of the object; of a deployment that is made, the device's
}

var (
	objectPath = regexp.MustCompile(`^/organisation/([a-z-]+)/([^/]+)(/cancel)?$`)
	deviceRuns = regexp.MustCompile(`^/organisation/devices/([^/]+)/deployments$`)
)

func actOf(req *http.Request) (a act, changes bool) {
	a.method = req.Method
	if req.Method == http.MethodGet {
		return a, false
	}
	if m := deviceRuns.FindStringSubmatch(req.URL.Path); m != nil {
		a.kind, a.id = "Deployment", m[1]
	} else if m := objectPath.FindStringSubmatch(req.URL.Path); m != nil {
		a.kind, a.id = kindOf(m[1]), m[2]
	} else {
		_, last, _ := strings.Cut(req.URL.Path, "/organisation/")
		a.kind = kindOf(last)
	}
	return a, true
}

// asking is when a POST was sent, and for which resource: when it is carried out another one may have the
// name.
type asking struct {
	at               time.Time
	lineage, rollout string
}

type askingKey struct{}

// send judges a request that is about to leave.
func (l *ledger) send(req *http.Request) (*http.Request, error) {
	of := workedOn(req.Context())
	if err := l.count(of); err != nil {
		return nil, err
	}
	a, changes := actOf(req)
	if !changes {
		return req, nil
	}
	if a.method == http.MethodPost {
		now := asking{time.Now(), l.w.lineageOf(of), l.w.rolloutOf(of)}
		l.mu.Lock()
		l.asked[of] = append(l.asked[of], now.at)
		l.mu.Unlock()
		req = req.WithContext(context.WithValue(req.Context(), askingKey{}, now))
	}
	l.w.judge(a, of, tokenOf(req), req)
	return req, nil
}

// count checks that the operator does not ask over and over, and ends it if it does.
func (l *ledger) count(of resource) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.recent[of]
	if time.Since(r.since) >= time.Minute {
		r = recent{since: time.Now()}
	}
	r.n++
	l.recent[of] = r
	if r.n < tooMany || of == (resource{}) {
		return nil
	}
	l.w.violatedf("%d requests are sent for %s in a minute", r.n, of)
	return errors.New("too many requests")
}

// RoundTrip carries a request out.
func (l *ledger) RoundTrip(req *http.Request) (*http.Response, error) {
	res := direct(l.w.sim, req)
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	l.record(req, res, body)
	return res, nil
}

func (l *ledger) record(req *http.Request, res *http.Response, body []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	token := tokenOf(req)
	if collection, ok := strings.CutPrefix(req.URL.Path, "/organisation/"); ok && req.Method == http.MethodGet && res.StatusCode == http.StatusOK {
		l.listed[collection] = append(l.listed[collection], time.Now())
	}
	a, changes := actOf(req)
	if !changes || req.Method != http.MethodPost || res.StatusCode != http.StatusCreated {
		return
	}
	var answer struct{ ID string }
	if err := json.Unmarshal(body, &answer); err != nil {
		l.w.violatedf("%s %s was answered with %q", req.Method, req.URL.Path, body)
		return
	}
	of := workedOn(req.Context())
	if a.kind == "AuthKey" {
		l.open[of] = later(l.open[of], time.Now().Add(2*controller.DefaultPostSettleTime))
	}
	asked, _ := req.Context().Value(askingKey{}).(asking)
	m := made{resource: of, organisation: l.w.organisationOf(token), lineage: asked.lineage, at: time.Now(), asked: asked.at}
	if a.kind == "Deployment" {
		m.deviceID, m.rollout = a.id, asked.rollout
		l.posts[m.lineage]++
		if n := l.posts[m.lineage]; n > 1 {
			l.w.violatedf("%s was deployed %d times", of, n)
		}
	}
	l.made[answer.ID] = m
}

// refuse notes that a request was not carried out, and that the operator cannot know it.
func (l *ledger) refuse(req *http.Request) {
	if a, _ := actOf(req); a.kind != "AuthKey" || a.method != http.MethodPost {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[workedOn(req.Context())] = time.Now().Add(100 * 24 * time.Hour)
}

// mayHaveMade tells whether the operator may think that a request of the resource has made a key that it
// has not found yet.
func (l *ledger) mayHaveMade(of resource) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Before(l.open[of])
}

// askedAt is when an object was last asked for, for a resource.
func (l *ledger) askedAt(of resource) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if all := l.asked[of]; len(all) > 0 {
		return all[len(all)-1]
	}
	return time.Time{}
}

// sentBetween tells whether a POST was sent for a resource in that time.
func (l *ledger) sentBetween(of resource, from, to time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.asked[of], func(at time.Time) bool { return !at.Before(from) && at.Before(to) })
}

// listedBetween tells whether the objects of a kind were listed in that time.
func (l *ledger) listedBetween(kind string, from, to time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.listed[kindNamed(kind).collection], func(at time.Time) bool { return at.After(from) && at.Before(to) })
}

// madeBy returns what is known of an object that the operator has made.
func (l *ledger) madeBy(id string) (made, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m, found := l.made[id]
	return m, found
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func tokenOf(req *http.Request) string {
	return strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
}
