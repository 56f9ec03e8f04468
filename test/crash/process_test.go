// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"rpi-connect.dev/operator/test/disturb"
)

const (
	none      disturb.Disturbance = ""
	meanwhile disturb.Disturbance = "sees the next act at" // the user does not wait
)

// lateness is how long a late request is under way.
const lateness = time.Second

var errDead = errors.New("the process is dead")

// process is the operator from its start to its death, as far as others can tell: by its requests.
// It dies at one of its steps, which are the requests to Connect and the writes to the API server.
type process struct {
	disturbance disturb.Disturbance
	at          step
	act         func() // what the user does meanwhile

	mu        sync.Mutex
	steps     []step // so far
	dead      bool
	disturbed chan struct{}   // closed when it has been
	underWay  <-chan struct{} // closed when the request that is late has been carried out
}

// step is the nth request of that name. So it is the same one in each run, although others may come
// sooner or later there, or more often.
type step struct {
	name string
	nth  int
}

// changesConnect tells whether it matters that the request comes late.
func (s step) changesConnect() bool {
	return strings.HasPrefix(s.name, "Connect: ") && !s.reads()
}

func (s step) reads() bool { return strings.HasPrefix(s.name, "Connect: GET") }

// undisturbed is a process that nothing happens to.
func undisturbed() *process { return newProcess(none, step{}) }

func newProcess(d disturb.Disturbance, at step) *process {
	return &process{disturbance: d, at: at, disturbed: make(chan struct{})}
}

// connect is the way to Connect, and kubernetes the one to the API server.
func (p *process) connect(next http.RoundTripper) http.RoundTripper {
	return &wire{p, next, func(req *http.Request) string { return "Connect: " + req.Method + " " + route(req) }}
}

func (p *process) kubernetes(next http.RoundTripper) http.RoundTripper {
	return &wire{p, next, func(req *http.Request) string {
		// Reading changes nothing; whether an event is told decides nothing.
		if req.Method == http.MethodGet || strings.HasSuffix(req.URL.Path, "/events") || strings.Contains(req.URL.Path, "/events/") {
			return ""
		}
		return "Kubernetes: " + req.Method + " " + route(req)
	}}
}

var ids = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}`)

// route is a request's path, without what differs from run to run.
func route(req *http.Request) string {
	path := ids.ReplaceAllString(req.URL.Path, "{id}")
	if _, rest, found := strings.Cut(path, "/namespaces/"); found {
		_, path, _ = strings.Cut(rest, "/")
	}
	if req.URL.Query().Has("dryRun") {
		path += " (dry run)"
	}
	return path
}

// wire is one of the two ways out of the process.
type wire struct {
	*process
	next http.RoundTripper
	name func(*http.Request) string // of the step that the request is; empty if it is none
}

func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	disturbed, dead := w.take(w.name(req))
	if dead {
		return nil, errDead
	}
	switch {
	case !disturbed:
	case w.disturbance == disturb.DiesBefore:
		return nil, errDead
	case w.disturbance == disturb.DiesAfter, w.disturbance == disturb.Lost:
		disturb.CarryOut(w.next, req)
		return nil, errDead
	case w.disturbance.Late():
		return nil, w.sendLate(req)
	case w.disturbance == meanwhile:
		w.act()
	}
	res, err := w.next.RoundTrip(req)
	if w.isDead() {
		if err == nil {
			_ = res.Body.Close()
		}
		return nil, errDead
	}
	return res, err
}

// take counts a step, and tells whether it is the one that is disturbed.
func (w *wire) take(name string) (disturbed, dead bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead || name == "" {
		return false, w.dead
	}
	s := step{name, 1}
	for _, before := range w.steps {
		if before.name == name {
			s.nth++
		}
	}
	w.steps = append(w.steps, s)
	if s != w.at {
		return false, false
	}
	w.dead = w.disturbance.Kills()
	close(w.disturbed)
	return true, false
}

func (w *wire) isDead() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dead
}

func (w *wire) sendLate(req *http.Request) error {
	done, err := disturb.CarryOutLater(w.next, req, lateness)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.underWay = done
	return errDead
}

// wasDisturbed tells whether the step has come at which the process was to be disturbed.
func (p *process) wasDisturbed() bool {
	select {
	case <-p.disturbed:
		return true
	default:
		return false
	}
}

// arrived waits until what is late has been carried out.
func (p *process) arrived(ctx context.Context) error {
	p.mu.Lock()
	underWay := p.underWay
	p.mu.Unlock()
	if underWay == nil {
		return nil
	}
	select {
	case <-underWay:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// end makes the process say nothing any more, if it has not died by itself.
func (p *process) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = true
}
