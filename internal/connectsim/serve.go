// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"strings"
	"time"
)

// maxBody is how much of a request's body is read.
const maxBody = 1 << 20

// call is one request being served.
type call struct {
	*http.Request

	server *Server
	path   string // as in the route table
	org    *Organisation
	device *Device // set on the device side
	body   []byte
	page   *Page       // how a fault bends the listing
	out    http.Header // of the answer
	note   string      // for the journal
}

// reply is what a handler answers. A nil body is none.
type reply struct {
	status int
	body   any
}

// answer is a reply with its headers.
type answer struct {
	reply

	header http.Header
}

// ServeHTTP serves one request: latency and faults, limit, token, work, journal,
// answer.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, handle := s.find(r)
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		handle = func(*call) reply { return reply{http.StatusRequestEntityTooLarge, plain("The body is too large")} }
	} else if err != nil {
		return // who breaks off has asked nothing
	}
	c := &call{Request: r, server: s, path: path, body: body, out: http.Header{}}
	entry := &noted{Request: Request{
		Time: s.options.Now(), Method: r.Method, Route: path, Path: r.URL.Path,
		Query: r.URL.RawQuery, UserAgent: r.UserAgent(),
	}}

	s.mu.Lock()
	met, latency := s.meet(r.Method, path), s.latency
	s.mu.Unlock()
	entry.Faulty = met.id != 0
	if !wait(r, latency+met.fault.Delay) {
		return
	}
	s.prepare(c, met.fault)
	a := s.carryOut(c, handle, met, entry)
	text, contentType := encode(a.body)
	s.record(entry, c, a.status, text)
	switch {
	case met.fault.Drop:
		drop(w)
	case met.fault.Dead:
		silence(r)
	default:
		if contentType != "" && a.header["Content-Type"] == nil {
			a.header.Set("Content-Type", contentType)
		}
		maps.Copy(w.Header(), a.header)
		if stream, ok := a.body.(stream); ok {
			w.WriteHeader(a.status)
			stream(w, r)
			return
		}
		send(w, r, a.status, text, met.fault)
	}
}

// carryOut does the work, or what a fault has in its place.
func (s *Server) carryOut(c *call, handle handler, met *Injected, entry *noted) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	fault := met.fault
	a := answer{header: c.out}
	switch {
	case fault.works():
		a.reply = s.work(c, handle)
	case fault.Late > 0:
		s.workLater(c, handle, met, entry)
	case fault.RateHeaders != nil && *fault.RateHeaders && managed(c.path):
		// The API itself has refused, so the request counts.
		w, _ := s.count(c.token())
		if s.byToken[c.token()] != nil {
			s.announce(c.out, w)
		}
	}
	fault.bend(&a)
	return a
}

// work counts the request, looks at its token, and lets the handler answer. The
// lock is held.
func (s *Server) work(c *call, handle handler) reply {
	if !managed(c.path) {
		return handle(c)
	}
	w, within := s.count(c.token())
	c.org = s.byToken[c.token()]
	if c.org != nil {
		s.announce(c.out, w)
	}
	switch {
	case !within:
		return reply{http.StatusTooManyRequests, plain("Throttled")}
	case c.org == nil:
		return c.unauthorized()
	default:
		return handle(c)
	}
}

// token is what the request shows; empty if it shows none as the API wants it.
func (c *call) token() string {
	token, bearer := strings.CutPrefix(c.Header.Get("Authorization"), "Bearer ")
	if !bearer {
		return ""
	}
	return token
}

// wait lets time pass; it returns false if the client has gone meanwhile.
func wait(r *http.Request, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}
