// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"fmt"
	"mime"
	"slices"
	"strings"
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
	// Body is what was sent and Answer what was answered: of the newest
	// thousand requests, four kilobytes of each, without secrets.
	Body   string `json:"body,omitempty"`
	Answer string `json:"answer,omitempty"`
	// Note explains a refusal: what was expected to be signed.
	Note string `json:"note,omitempty"`
}

// keptBodies is how many requests are kept with their bodies, and keptBytes how
// much of these.
const (
	keptBodies = 1000
	keptBytes  = 4096
)

// noted is a request with its bodies as they were; nobody sees them so.
type noted struct {
	Request

	body, answer []byte
	form         bool
}

// shown is what may be seen of an entry.
func (n *noted) shown() Request {
	r := n.Request
	r.Path, r.Query, r.UserAgent = redact(r.Path), redact(r.Query), redact(r.UserAgent)
	r.Answer = redact(text(n.answer))
	if r.Body = redact(text(n.body)); n.form {
		r.Body = redactForm(text(n.body))
	}
	return r
}

func text(body []byte) string { return strings.ToValidUTF8(string(body), "\uFFFD") }

// journal is what was asked. It forgets the oldest requests, but not how many
// they were.
type journal struct {
	size    int // how many entries it keeps
	entries []*noted
	counts  map[asked]int
}

// asked is what requests are counted by.
type asked struct{ method, route string }

// maxUnknown is how many paths that no route has are counted by name; the rest is
// counted by its method.
const maxUnknown = 10_000

func newJournal(size int) *journal { return &journal{size: size, counts: map[asked]int{}} }

func (j *journal) add(entry *noted) {
	j.entries = append(j.entries, entry)
	if old := len(j.entries) - 1 - keptBodies; old >= 0 {
		j.entries[old].body, j.entries[old].answer = nil, nil
	}
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
func (j *journal) newest() []*noted { return j.entries[max(0, len(j.entries)-j.size):] }

// Journal returns the requests since the start, or since the journal was reset:
// all of them, or as many as [Options.JournalSize] says, the newest last.
func (s *Server) Journal() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	newest := s.journal.newest()
	all := make([]Request, len(newest))
	for i, entry := range newest {
		all[i] = entry.shown()
	}
	return all
}

// record notes what a request was and what became of it.
func (s *Server) record(entry *noted, c *call, status int, answer []byte) {
	kind, _, _ := mime.ParseMediaType(c.Header.Get("Content-Type"))
	entry.form = kind == formType
	entry.body = slices.Clone(c.body[:min(len(c.body), keptBytes)])
	entry.answer = slices.Clone(answer[:min(len(answer), keptBytes)])
	s.mu.Lock()
	defer s.mu.Unlock()
	entry.Status, entry.Note = status, redact(c.note)
	if c.org != nil {
		entry.Organisation = c.org.name
	}
	s.journal.add(entry)
}

// Count returns how many requests a pattern matches, see [Fault.Route], also of
// those that the journal has forgotten. It panics if there is no such route: a
// number that is always zero proves nothing.
func (s *Server) Count(pattern string) int {
	if err := checkPattern(pattern); err != nil {
		panic(fmt.Errorf("connectsim: %w", err))
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
