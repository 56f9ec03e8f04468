// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"net/http"
	"strings"
	"time"
)

// Fault makes requests fail. The zero values of its fields change nothing; what
// is set is done in the order delay, drop, answer.
type Fault struct {
	// Route is which requests it is for: a method and a path as in the route
	// table, "POST /organisation/artefacts" or "GET /organisation/devices/{id}/deployments"; a
	// method alone; or nothing, for all.
	Route string
	// Skip is how many requests are spared first.
	Skip int
	// Times is how many requests then fail; 0 stands for all.
	Times int
	// Delay comes before anything else.
	Delay time.Duration
	// After lets the work be done first: the request took effect, and only
	// its answer is lost or replaced.
	After bool
	// Drop closes the connection without an answer.
	Drop bool
	// Status, Body, ContentType and Header make an answer of their own.
	Status      int
	Body        string
	ContentType string
	Header      http.Header
	// Truncate announces the whole answer and sends half of it. The work is
	// done.
	Truncate bool
	// Oversize makes the answer larger than anybody would read, in bytes. The
	// work is done.
	Oversize int

	hits int
	off  bool
}

// Injected is a fault at work.
type Injected struct {
	server *Server
	fault  *Fault
}

// Inject makes the server fail as described, until the fault is used up or
// cleared.
func (s *Server) Inject(f Fault) *Injected {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &f)
	return &Injected{server: s, fault: &f}
}

// Hits is how many requests have failed because of the fault.
func (i *Injected) Hits() int {
	i.server.mu.Lock()
	defer i.server.mu.Unlock()
	return i.fault.hits
}

// Clear ends the fault.
func (i *Injected) Clear() {
	i.server.mu.Lock()
	defer i.server.mu.Unlock()
	i.fault.off = true
}

// ClearFaults ends all faults.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// fault returns the fault that the request meets, if any. The lock is held.
func (s *Server) fault(method, route string) *Fault {
	for _, f := range s.faults {
		if f.off || !matches(f.Route, method, route) {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		if f.Times > 0 && f.hits >= f.Times {
			continue
		}
		f.hits++
		return f
	}
	return nil
}

// matches tells whether a route is one that the pattern means.
func matches(pattern, method, route string) bool {
	wantMethod, wantPath, _ := strings.Cut(pattern, " ")
	return pattern == "" || wantMethod == method && (wantPath == "" || wantPath == route)
}

// replaces tells whether the fault answers in the place of the API.
func (f *Fault) replaces() bool { return f.Status != 0 || f.Body != "" }
