// SPDX-License-Identifier: Apache-2.0

// Package connectsim is the Raspberry Pi Connect Management API as a server that
// runs anywhere: in a test, in a demo, or as a program (cmd/connectsim).
//
// It is written from the API's published pages and what the vendor's clients do
// on the wire, independently of this project's own client, and it keeps what is
// awkward in the API:
//
//   - an auth key's secret is in the answer to its creation and nowhere else
//   - there is no idempotency: the same POST makes another object, or a refusal
//   - a deployment supersedes the one that is still pending for its device
//   - an artefact that has been deployed can never be deleted, not even after a
//     mere attempt
//   - once an identity has become a device, changes of its name and tags are
//     ignored with a 200; deleting it deletes the device
//   - listings are sorted by names that can change while one pages through them
//   - the request limit is a fixed window that ends at the top of the hour; its
//     429 is plain text, and requests with an invalid token count too
//
// Two revisions of the API are published; [Options.Revision] says which one to
// play. The older one has no rate limit, only creates auth keys, does not take
// tags with a new device identity, ignores filters, cannot read single artefacts
// or devices, and answers a DELETE with 204 instead of the object.
//
// Faults are injected by route ([Server.Inject]), time can be a [Clock] that only
// moves when told to, and every request is in a journal ([Server.Journal]).
// Devices can be virtual ([Pi]) or the vendor's clients: the side of the API that
// they talk to is here as well. docs/simulator.md is the manual.
package connectsim

import (
	"net/http"
	"sync"
	"time"
)

// Revision is one of the published revisions of the API.
type Revision string

// The revisions.
const (
	Older   Revision = "older"
	Current Revision = "current"
)

// ErrorBodies says what the bodies of errors look like whose form nobody has
// published: those of 401, of 404 and of some 400s.
type ErrorBodies string

// Plausible forms of unpublished error bodies.
const (
	MessageBodies ErrorBodies = "message" // {"message":"…"}
	ErrorKey      ErrorBodies = "error"   // {"error":"…"}
	EmptyBodies   ErrorBodies = "empty"
	HTMLBodies    ErrorBodies = "html"
	PlainBodies   ErrorBodies = "plain"
)

// Options say how the API behaves. The zero value is the current revision with
// the published limits.
type Options struct {
	// Revision of the API. Default [Current].
	Revision Revision
	// RateLimit is the number of requests per token and window. Default 5000.
	RateLimit int
	// Window is how long the windows are; they begin at multiples of it, as
	// the published one does at the top of the hour. Default one hour.
	Window time.Duration
	// Latency is how long every answer takes. Default none.
	Latency time.Duration
	// Now is the clock. Default time.Now; see [Clock].
	Now func() time.Time
	// Clock is one that can be moved through the admin interface. It goes
	// before Now.
	Clock *Clock
	// PublicURL is how clients see the server, for signatures; default: what
	// the request says.
	PublicURL string
	// PastTheEnd is what comes after the last page of a listing. Default
	// [EmptyPage].
	PastTheEnd PastTheEnd
	// JournalSize is how many requests the journal keeps. Default 100,000.
	JournalSize int
	// ErrorBodies is the form of unpublished error bodies. Default
	// [MessageBodies].
	ErrorBodies ErrorBodies
	// SupersededAsCancelled gives a superseded deployment the state
	// "cancelled", as one page has it, instead of "failed", as another has.
	SupersededAsCancelled bool
	// CancelsInProgress lets a deployment be cancelled that is in progress:
	// nothing is published about that.
	CancelsInProgress bool
}

// Server is the API. It is an [http.Handler], and safe for concurrent use.
type Server struct {
	options Options

	// One lock for all state: what is served is small and quick, and a fault
	// can be placed exactly before or after a piece of work.
	mu            sync.Mutex
	organisations []*Organisation
	byToken       map[string]*Organisation
	windows       map[string]*window // by token, also by invalid ones
	faults        []*Injected
	injected      int // how many faults there have been
	journal       *journal
	latency       time.Duration
	billing       bool // has been set up
	changed       chan struct{}
	serving       []*http.Server
	connections   map[*connection]struct{}
	silent        bool // nothing is said on any connection
}

// New returns a server without organisations.
func New(options Options) *Server {
	if options.Revision == "" {
		options.Revision = Current
	}
	if options.RateLimit <= 0 {
		options.RateLimit = 5000
	}
	if options.Window <= 0 {
		options.Window = time.Hour
	}
	if options.Clock != nil {
		options.Now = options.Clock.Now
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.ErrorBodies == "" {
		options.ErrorBodies = MessageBodies
	}
	if options.PastTheEnd == "" {
		options.PastTheEnd = EmptyPage
	}
	if options.JournalSize <= 0 {
		options.JournalSize = 100_000
	}
	return &Server{
		options: options,
		byToken: map[string]*Organisation{},
		windows: map[string]*window{},
		journal: newJournal(options.JournalSize),
		latency: options.Latency,
		billing: true,
		changed: make(chan struct{}),

		connections: map[*connection]struct{}{},
	}
}

// SetLatency changes how long every answer takes.
func (s *Server) SetLatency(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latency = d
}

// SetBilling says whether billing has been set up, which it is at first; without
// it deployments are blocked.
func (s *Server) SetBilling(setUp bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.billing = setUp
}

// Changed returns a channel that is closed when any state changes after the
// call.
func (s *Server) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// touch tells those who wait for a change. The lock is held.
func (s *Server) touch() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// now is the time as the API shows it: UTC, in whole seconds.
func (s *Server) now() time.Time { return s.options.Now().UTC().Truncate(time.Second) }
