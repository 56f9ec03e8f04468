// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Fault makes requests fail, or the API awkward. The zero values of its fields
// change nothing. What is set is done in this order: delay, change, work (or none),
// answer. Times are those of the machine, not of [Options.Now].
//
// In JSON, which [Fault.UnmarshalJSON] reads, the fields have the same names, and
// durations are strings such as "1.5s" or numbers of nanoseconds.
type Fault struct {
	// Route is which requests it is for: a method and a path as in the route
	// table, "POST /organisation/artefacts" or "GET /organisation/devices/{id}/deployments"; a
	// method alone; or nothing, for all. Without a path the Management API is
	// meant: what devices ask has to be named.
	Route string `json:"Route,omitempty"`
	// Skip is how many requests are spared first.
	Skip int `json:"Skip,omitempty"`
	// Times is how many requests then fail; 0 stands for all.
	Times int `json:"Times,omitempty"`

	// Delay comes before anything else. A client that gives up meanwhile has
	// asked nothing.
	Delay time.Duration `json:"Delay,omitempty"`
	// Change is done to the collection that is listed, before it is: rows that
	// move between two pages, if the first pages are spared by Skip.
	Change *Change `json:"Change,omitempty"`
	// Do is called before the work, with no lock held: whatever happens
	// between two requests.
	Do func() `json:"-"`

	// After lets the work be done first: the request took effect, and only
	// its answer is lost or replaced.
	After bool `json:"After,omitempty"`
	// Late lets the work be done so much later, although the connection is
	// lost or something else is answered at once: the request is still on its
	// way through a proxy or a queue. The journal has how that ended as
	// [Request.Late].
	Late time.Duration `json:"Late,omitempty"`

	// Drop closes the connection without an answer. Over HTTP/2 it resets the
	// stream (INTERNAL_ERROR).
	Drop bool `json:"Drop,omitempty"`
	// Dead lets the connection die without a word: it takes what comes, and
	// answers nothing any more, neither to this request nor to others nor to
	// pings. Other connections are served.
	Dead bool `json:"Dead,omitempty"`
	// Status, Body and Location make an answer of their own in the place of
	// the API's. Location is a redirect, with the status 307 unless another
	// one is given.
	Status   int    `json:"Status,omitempty"`
	Body     string `json:"Body,omitempty"`
	Location string `json:"Location,omitempty"`

	// ContentType and Header are put onto the answer, whoever made it; a field
	// without values is taken off.
	ContentType string      `json:"ContentType,omitempty"`
	Header      http.Header `json:"Header,omitempty"`
	// RateHeaders puts the headers of the rate limit onto an answer of the
	// fault's own if it is true: it is the API itself that refuses, and the
	// request counts. If it is false, it takes them off an answer of the
	// API's. Unset, the API's answers have them and the fault's do not.
	RateHeaders *bool `json:"RateHeaders,omitempty"`
	// Page bends a page of a listing.
	Page *Page `json:"Page,omitempty"`
	// Truncate announces the whole answer and sends half of it.
	Truncate bool `json:"Truncate,omitempty"`
	// Oversize makes the answer larger than anybody would read, in bytes.
	Oversize int `json:"Oversize,omitempty"`
	// Drip sends the body in pieces, with a pause of this length after each.
	Drip time.Duration `json:"Drip,omitempty"`
	// Pieces is in how many; default 10.
	Pieces int `json:"Pieces,omitempty"`
}

// Injected is a fault at work.
type Injected struct {
	server *Server
	fault  Fault

	// Under the server's lock.
	id      int // 0: no fault
	skipped int
	hits    int
	off     bool
	late    []*lateWork
}

// lateWork is a request that is still on its way.
type lateWork struct{ arrive func() }

// Inject makes the server fail as described, until the fault is used up or
// cleared. It panics if the description is mistaken: no such route, or fields that
// contradict each other; see [Fault.Check].
func (s *Server) Inject(f Fault) *Injected {
	if err := f.Check(); err != nil {
		panic(fmt.Errorf("connectsim: %w", err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.injected++
	i := &Injected{server: s, fault: f, id: s.injected}
	s.faults = append(s.faults, i)
	return i
}

// Hits is how many requests have met the fault.
func (i *Injected) Hits() int {
	i.server.mu.Lock()
	defer i.server.mu.Unlock()
	return i.hits
}

// Clear ends the fault. What is late because of it still comes.
func (i *Injected) Clear() {
	i.server.mu.Lock()
	defer i.server.mu.Unlock()
	i.off = true
}

// Land carries out at once what the fault has made late, for tests whose clock
// stands; it returns how much that was.
func (i *Injected) Land() int {
	i.server.mu.Lock()
	late := i.late
	i.late = nil
	i.server.mu.Unlock()
	for _, work := range late {
		work.arrive()
	}
	return len(late)
}

// ClearFaults ends all faults.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.faults {
		i.off = true
	}
	s.faults = nil
}

// clearFault ends one fault; it returns false if there is none of the id.
func (s *Server) clearFault(id int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slices.IndexFunc(s.faults, func(i *Injected) bool { return i.id == id })
	if at < 0 {
		return false
	}
	s.faults[at].off = true
	s.faults = slices.Delete(s.faults, at, at+1)
	return true
}

// meet returns the fault that a request meets; one that changes nothing, without
// an id, if it meets none. The lock is held.
func (s *Server) meet(method, path string) *Injected {
	for _, i := range s.faults {
		if i.over() || !matches(i.fault.Route, method, path) {
			continue
		}
		if i.skipped < i.fault.Skip {
			i.skipped++
			continue
		}
		i.hits++
		return i
	}
	return &Injected{}
}

// over tells whether the fault meets nobody any more.
func (i *Injected) over() bool { return i.off || i.fault.Times > 0 && i.hits >= i.fault.Times }

// breaks tells whether there is no answer.
func (f Fault) breaks() bool { return f.Drop || f.Dead }

// replaces tells whether the fault answers in the place of the API.
func (f Fault) replaces() bool { return f.Status != 0 || f.Body != "" || f.Location != "" }

// works tells whether the work is done before the answer.
func (f Fault) works() bool { return f.After || !f.breaks() && !f.replaces() }

// status is that of the fault's own answer.
func (f Fault) status() int {
	switch {
	case f.Status != 0:
		return f.Status
	case f.Location != "":
		return http.StatusTemporaryRedirect
	default:
		return http.StatusOK
	}
}

// prepare does what comes between the request and the work.
func (s *Server) prepare(c *call, fault Fault) {
	if fault.Do != nil {
		fault.Do()
	}
	c.page = fault.Page
	if fault.Change == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.byToken[c.token()]; o != nil {
		fault.Change.apply(o, c.path)
	}
}

// workLater lets the work be done when nobody waits for it any more. The lock is
// held.
func (s *Server) workLater(c *call, handle handler, met *Injected, entry *noted) {
	work := &lateWork{}
	work.arrive = sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		met.late = slices.DeleteFunc(met.late, func(other *lateWork) bool { return other == work })
		entry.Late = s.work(c, handle).status
	})
	met.late = append(met.late, work)
	time.AfterFunc(met.fault.Late, work.arrive)
}

// bend makes of the API's answer, if there is one, what the fault lets through.
func (f Fault) bend(a *answer) {
	switch {
	case f.breaks():
		*a = answer{}
		return
	case f.replaces():
		a.reply = reply{f.status(), nil}
		if f.Body != "" {
			a.body = raw(f.Body)
		}
	}
	if f.RateHeaders == nil && f.replaces() || f.RateHeaders != nil && !*f.RateHeaders {
		for name := range a.header {
			if strings.HasPrefix(name, rateHeaders) {
				a.header.Del(name)
			}
		}
	}
	if f.Location != "" {
		a.header.Set("Location", f.Location)
	}
	if f.ContentType != "" {
		a.header.Set("Content-Type", f.ContentType)
	}
	for name, values := range f.Header {
		a.header[http.CanonicalHeaderKey(name)] = values
	}
}

// pieceSize is how much is sent at a time of a body.
func (f Fault) pieceSize(body int) int {
	pieces := 1
	if f.Drip > 0 {
		pieces = f.Pieces
		if pieces == 0 {
			pieces = 10
		}
	}
	return max(1, (body+pieces-1)/pieces)
}
