// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"slices"
	"time"
)

// Request is an entry of the journal.
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
	// Status that was answered; 0 if there was no answer.
	Status int `json:"status"`
	// Faulty says that a fault was injected.
	Faulty bool `json:"faulty,omitempty"`
	// Late is the status that the work had which was carried out when nobody
	// waited for it any more; see [Fault.Late].
	Late int `json:"late,omitempty"`
	// UserAgent of the client.
	UserAgent string `json:"user_agent,omitempty"`
}

// journal is what was asked. It forgets the oldest requests, but not how many
// they were.
type journal struct {
	size    int // how many entries it keeps
	entries []*Request
	counts  map[asked]int
}

// asked is what requests are counted by.
type asked struct{ method, route string }

// maxUnknown is how many paths that no route has are counted by name; the rest is
// counted by its method.
const maxUnknown = 10_000

func newJournal(size int) *journal { return &journal{size: size, counts: map[asked]int{}} }

func (j *journal) add(entry *Request) {
	j.entries = append(j.entries, entry)
	if len(j.entries) >= 2*j.size {
		j.entries = slices.Clone(j.newest())
	}
	key := asked{entry.Method, entry.Route}
	if _, known := j.counts[key]; !known && len(j.counts) >= maxUnknown && checkPattern(entry.Method+" "+entry.Route) != nil {
		key.route = "/"
		if managed(entry.Route) {
			key.route = "/organisation"
		}
	}
	j.counts[key]++
}

// newest are the entries that are kept.
func (j *journal) newest() []*Request { return j.entries[max(0, len(j.entries)-j.size):] }

// Journal returns the requests since the start, or since the journal was reset:
// all of them, or as many as [Options.JournalSize] says, the newest last.
func (s *Server) Journal() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return copies(s.journal.newest())
}

// Count returns how many requests a pattern matches, see [Fault.Route], also of
// those that the journal has forgotten. It panics if there is no such route: a
// number that is always zero proves nothing.
func (s *Server) Count(pattern string) int {
	if err := checkPattern(pattern); err != nil {
		panic(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for key, count := range s.journal.counts {
		if matches(pattern, key.method, key.route) {
			n += count
		}
	}
	return n
}

// ResetJournal forgets the requests so far, and how many they were.
func (s *Server) ResetJournal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.journal = newJournal(s.options.JournalSize)
}
