// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"encoding/json"
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
	org    *Organisation
	device *Device // set on the device side
	body   []byte
}

// reply is what a handler answers. A nil body is none.
type reply struct {
	status int
	body   any
}

// handler does the work of a route. The server's lock is held.
type handler func(*call) reply

// route is a row of the route table.
type route struct {
	method, path string
	// since is the revision that has the route; empty: both have it.
	since  Revision
	handle handler
}

// table is the Management API.
var table = []route{
	{"POST", "/organisation/artefacts", "", createArtefact},
	{"GET", "/organisation/artefacts", "", listArtefacts},
	{"GET", "/organisation/artefacts/{id}", Current, getArtefact},
	{"DELETE", "/organisation/artefacts/{id}", "", deleteArtefact},

	{"POST", "/organisation/auth-keys", "", createAuthKey},
	{"GET", "/organisation/auth-keys", Current, listAuthKeys},
	{"GET", "/organisation/auth-keys/{id}", Current, getAuthKey},
	{"PATCH", "/organisation/auth-keys/{id}", Current, updateAuthKey},
	{"DELETE", "/organisation/auth-keys/{id}", Current, deleteAuthKey},

	{"POST", "/organisation/device-identities", "", createIdentity},
	{"GET", "/organisation/device-identities", "", listIdentities},
	{"GET", "/organisation/device-identities/{id}", "", getIdentity},
	{"PATCH", "/organisation/device-identities/{id}", "", updateIdentity},
	{"DELETE", "/organisation/device-identities/{id}", "", deleteIdentity},

	{"GET", "/organisation/devices", "", listDevices},
	{"GET", "/organisation/devices/{id}", Current, getDevice},
	{"PATCH", "/organisation/devices/{id}", Current, updateDevice},
	{"DELETE", "/organisation/devices/{id}", "", deleteDevice},

	{"POST", "/organisation/devices/{id}/deployments", "", createDeployment},
	{"GET", "/organisation/devices/{id}/deployments", "", listDeployments},
	{"GET", "/organisation/deployments/{id}", "", getDeployment},
	{"PUT", "/organisation/deployments/{id}/cancel", "", cancelDeployment},
}

// deviceTable is what devices ask, with their own tokens or none.
var deviceTable = []route{
	{"POST", "/client/auth-key-exchange", "", exchangeAuthKey},
	{"POST", "/client/device-identity-exchange", "", exchangeIdentity},
	{"GET", "/deployments/pending", "", pendingDeployments},
	{"POST", "/deployments/{id}/start", "", startDeployment},
	{"POST", "/deployments/{id}/complete", "", completeDeployment},
	{"POST", "/deployments/{id}/fail", "", failDeployment},
}

// managed tells whether a path belongs to the Management API.
func managed(path string) bool { return strings.HasPrefix(path, "/organisation/") }

func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	for _, r := range append(append([]route{}, table...), deviceTable...) {
		if r.since != "" && r.since != s.options.Revision {
			continue
		}
		mux.Handle(r.method+" "+r.path, s.serve(r.path, r.handle))
	}
	// Everything else is not found, but counts and is journalled all the same.
	mux.Handle("/", s.serve("", func(c *call) reply { return c.notFound() }))
	return mux
}

// ServeHTTP serves one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// serve is what happens to every request: latency and faults, limit, token, work,
// answer, journal.
func (s *Server) serve(path string, handle handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			http.Error(w, "request body too large or broken off", http.StatusRequestEntityTooLarge)
			return
		}
		c := &call{Request: r, server: s, body: body}
		route := path
		if route == "" {
			route = r.URL.Path
		}
		entry := Request{
			Time: s.options.Now(), Method: r.Method, Route: route, Path: r.URL.Path,
			Query: r.URL.RawQuery, UserAgent: r.UserAgent(),
		}

		s.mu.Lock()
		fault, latency := s.fault(r.Method, route), s.latency
		s.mu.Unlock()
		if fault != nil {
			entry.Faulty = true
			latency += fault.Delay
		}
		if !wait(r, latency) {
			return
		}
		if fault != nil && !fault.works() {
			s.note(entry, fault.status())
			fault.answer(w)
			return
		}

		s.mu.Lock()
		header := http.Header{}
		result := s.work(c, header, handle)
		if c.org != nil {
			entry.Organisation = c.org.name
		}
		s.mu.Unlock()

		if fault != nil && fault.After {
			s.note(entry, fault.status())
			fault.answer(w)
			return
		}
		s.note(entry, result.status)
		send(w, header, result, fault)
	})
}

// note adds to the journal.
func (s *Server) note(entry Request, status int) {
	entry.Status = status
	s.mu.Lock()
	defer s.mu.Unlock()
	s.journal = append(s.journal, entry)
}

// work counts the request, looks at its token, and lets the handler answer. The
// lock is held.
func (s *Server) work(c *call, header http.Header, handle handler) reply {
	if !managed(c.URL.Path) {
		return handle(c)
	}
	w, within := s.count(c.token())
	c.org = s.byToken[c.token()]
	if c.org != nil {
		s.announce(header, w)
	}
	switch {
	case !within:
		return reply{http.StatusTooManyRequests, plain("Throttled")}
	case c.org == nil:
		return c.unauthorized()
	}
	return handle(c)
}

// token is what the request shows; empty if it shows none as the API wants it.
func (c *call) token() string {
	token, bearer := strings.CutPrefix(c.Header.Get("Authorization"), "Bearer ")
	if !bearer {
		return ""
	}
	return token
}

// works tells whether the work is done although the fault is met.
func (f *Fault) works() bool {
	return f.After || f.Truncate || f.Oversize > 0 || !f.Drop && !f.replaces()
}

// answer is what the fault answers in the place of the API.
func (f *Fault) answer(w http.ResponseWriter) {
	if f.Drop {
		drop(w)
		return
	}
	maps.Copy(w.Header(), f.Header)
	if f.ContentType != "" {
		w.Header().Set("Content-Type", f.ContentType)
	}
	w.WriteHeader(f.status())
	_, _ = io.WriteString(w, f.Body)
}

// status is what the fault answers; 0 if it drops the connection.
func (f *Fault) status() int {
	if f.Drop {
		return 0
	}
	return max(f.Status, http.StatusOK)
}

// drop closes the connection without an answer.
func drop(w http.ResponseWriter) {
	connection, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2 has no connection of one request
	}
	_ = connection.Close()
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

// plain is a body that is sent as text; html one that is sent as a page.
type (
	plain string
	html  string
)

// send writes the reply.
func send(w http.ResponseWriter, header http.Header, result reply, fault *Fault) {
	maps.Copy(w.Header(), header)
	var body []byte
	switch b := result.body.(type) {
	case nil:
	case plain:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		body = []byte(b)
	case html:
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		body = []byte(b)
	default:
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		body, _ = json.Marshal(b) // the handlers' bodies always marshal
	}
	if fault != nil && fault.Oversize > 0 {
		body = append(body, make([]byte, fault.Oversize)...)
	}
	if fault != nil && fault.Truncate {
		w.Header().Set("Content-Length", itoa(len(body)))
		w.WriteHeader(result.status)
		_, _ = w.Write(body[:len(body)/2])
		_ = http.NewResponseController(w).Flush() // what is left in the buffer would be lost as well
		panic(http.ErrAbortHandler)               // the rest never comes
	}
	w.WriteHeader(result.status)
	_, _ = w.Write(body)
}
