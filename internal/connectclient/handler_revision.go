// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"net/http"
	"net/url"
	"sync"

	"rpi-connect.dev/operator/internal/connectclient/budget"
)

// Revision is one of the two published revisions of the Management API.
type Revision int32

const (
	// RevisionUnknown stands until an answer tells the revisions apart.
	RevisionUnknown Revision = iota
	// RevisionOlder has no rate limit, knows of auth keys only how to make
	// them, and does not read single artefacts and devices.
	RevisionOlder
	// RevisionCurrent announces its rate limit in every authenticated answer.
	RevisionCurrent
)

func (r Revision) String() string {
	switch r {
	case RevisionOlder:
		return "older"
	case RevisionCurrent:
		return "current"
	default:
		return "unknown"
	}
}

// profile is what has been learnt of an API, whoever asked it. It is one for all tokens.
//
// What shows the current revision always counts, and is never forgotten: a service that is upgraded under
// a running client is recognised by its next answer, and none is ever downgraded.
type profile struct {
	mu    sync.Mutex
	known knowledge
}

func (p *profile) knows() knowledge {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known
}

// detect takes over what an answer shows of the API.
func (p *profile) detect(req *request, ans *answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := &p.known
	switch {
	case ans.rate.HasHeaders:
		*known = knowledge{announcing, RevisionCurrent}
	case ans.status/100 == 2:
		if known.announcement == announcementUnknown && (hasMember(ans.body, "id") || hasMember(ans.body, "meta")) {
			known.announcement = silent
		}
		if isKeyListing(req) && known.revision != RevisionCurrent && hasMember(ans.body, "meta") {
			known.revision = RevisionCurrent
		}
	case isKeyListing(req) && known.meaningOf(req, ans) == absent && known.revision == RevisionUnknown:
		known.revision = RevisionOlder
	}
}

// detectOlder believes the absence of the one collection only as long as nothing has proven the
// opposite.
func (p *profile) detectOlder() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known.revision == RevisionUnknown {
		p.known.revision = RevisionOlder
	}
}

// isKeyListing tells whether the request is for the one collection that the older revision does not have.
func isKeyListing(req *request) bool {
	return req.method == http.MethodGet && req.path == authKeysPath
}

// detectRevision is the middleware that notes what answers show of the API.
func detectRevision(p *profile) middleware {
	return func(next handler) handler {
		return func(ctx context.Context, req *request) (*answer, error) {
			ans, err := next(ctx, req)
			if ans != nil && (err == nil || ans.rate.HasHeaders) {
				p.detect(req, ans)
			}
			return ans, err
		}
	}
}

// meaningOf tells what an answer means, and finds out what has to be known of the API for that, once. If that
// fails it stays undecided, and the next answer is another occasion.
func (c *Client) meaningOf(ctx context.Context, req *request, ans *answer) meaning {
	m := c.profile.knows().meaningOf(req, ans)
	if m == undecided && c.profile.knows().announcement == announcementUnknown {
		c.probe(ctx, devicesPath) // every organisation has devices, if none
		c.profile.detect(req, ans)
		m = c.profile.knows().meaningOf(req, ans)
	}
	if m == undecided && c.profile.knows().announcement == silent {
		c.probe(ctx, authKeysPath)
		m = c.profile.knows().meaningOf(req, ans)
	}
	if c.mayBeOlder(req, ans) && c.answersPages(ctx) {
		c.profile.detectOlder()
		m = missing
	}
	return m
}

// mayBeOlder tells whether there is a page in the place of the auth-key listing. It may stem from
// something in between, or be what the older revision answers to a call that it does not have: the
// form of a 404 is not published.
func (c *Client) mayBeOlder(req *request, ans *answer) bool {
	return isKeyListing(req) && ans.status == http.StatusNotFound && ans.html && !ans.rate.HasHeaders &&
		c.profile.knows().revision == RevisionUnknown && c.profile.knows().announcement != announcing
}

// answersPages tells whether the page is the API's own: its other collections are there, without rate
// headers, and after that the page is there again.
func (c *Client) answersPages(ctx context.Context) bool {
	if ans := c.probe(ctx, devicesPath); ans == nil || ans.status != http.StatusOK || ans.rate.HasHeaders || !hasMember(ans.body, "meta") {
		return false
	}
	ans := c.probe(ctx, authKeysPath)
	return ans != nil && c.mayBeOlder(&request{method: http.MethodGet, path: authKeysPath}, ans)
}

// probe reads a row of a collection, to learn from the answer, which it returns if there was one.
// Nothing is known of a budget when it is needed, so there is no reserve to leave alone; but it must
// not be the one that always comes last.
func (c *Client) probe(ctx context.Context, collection string) *answer {
	ans, err := c.send(withContinuation(WithPriority(ctx, budget.Urgent)), &request{
		operation: "identify the API",
		method:    http.MethodGet,
		path:      collection,
		query:     url.Values{"page": {"1"}, "per_page": {"1"}},
	})
	if err != nil {
		return nil
	}
	return ans
}
