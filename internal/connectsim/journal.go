// SPDX-License-Identifier: Apache-2.0

package connectsim

import "time"

// Request is an entry of the journal. It never holds a token or a body.
type Request struct {
	Time   time.Time `json:"time"`
	Method string    `json:"method"`
	// Route is the path as in the route table, with {id} for ids; Path is as
	// it was asked for.
	Route string `json:"route"`
	Path  string `json:"path"`
	Query string `json:"query,omitempty"`
	// Organisation is the organisation's name; empty if the token opens none.
	Organisation string `json:"organisation,omitempty"`
	// Status that was answered; 0 if the connection was dropped.
	Status int `json:"status"`
	// Faulty says that a fault was injected.
	Faulty bool `json:"faulty,omitempty"`
	// UserAgent of the client.
	UserAgent string `json:"user_agent,omitempty"`
}

// Journal returns every request since the start, or since the journal was reset.
func (s *Server) Journal() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.journal...)
}

// Count returns how many requests to the Management API a pattern matches; see
// [Fault.Route]. What devices ask is counted only if the pattern names it.
func (s *Server) Count(pattern string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for i := range s.journal {
		r := &s.journal[i]
		if matches(pattern, r.Method, r.Route) && (pattern != "" || managed(r.Route)) {
			n++
		}
	}
	return n
}

// ResetJournal forgets the requests so far.
func (s *Server) ResetJournal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.journal = nil
}
