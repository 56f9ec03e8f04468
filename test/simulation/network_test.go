// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rpi-connect.dev/operator/test/apiserver"
	"rpi-connect.dev/operator/test/disturb"
)

const (
	refused disturb.Disturbance = "refused"  // it was not carried out, and the answer says so
	slow    disturb.Disturbance = "slow"     // it takes its time
	lies404 disturb.Disturbance = "lies 404" // a gateway answers in the place of the API
	lies401 disturb.Disturbance = "lies 401"
	lies200 disturb.Disturbance = "lies 200"
)

// lateness is how long a late request is under way: less than the settle time.
const lateness = 40 * time.Second

var (
	errDead    = errors.New("the process is dead")
	errNetwork = errors.New("read: connection reset by peer")
)

// class is which requests a disturbance waits for.
type class string

const (
	connectWrite    class = "Connect, write"
	connectRead     class = "Connect, read"
	kubernetesWrite class = "Kubernetes, write"
	// reading from the API server goes on after the process is dead, and changes nothing: a manager can
	// only be stopped after it has started.
	reading class = ""
)

// network is the way of one process to the API server and to Connect.
type network struct {
	watching context.Context //nolint:containedctx // ends the watches, which are requests without end

	mu    sync.Mutex
	dead  bool
	died  chan struct{} // closed then
	armed map[class]disturb.Disturbance
	down  bool // Connect cannot be reached
	// throttled is since when the process knows, by token, that the budget of the hour is spent.
	throttled map[string]time.Time
}

func newNetwork(watching context.Context) *network {
	return &network{watching: watching, died: make(chan struct{}), armed: map[class]disturb.Disturbance{}, throttled: map[string]time.Time{}}
}

// arm disturbs the next request of the class.
func (n *network) arm(c class, d disturb.Disturbance) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.armed[c] = d
}

func (n *network) disarm() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.armed)
}

func (n *network) setDown(down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = down
}

// die ends the process: nothing that it sends leaves any more, and nothing that comes is seen.
func (n *network) die() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.dead {
		n.dead = true
		close(n.died)
	}
}

func (n *network) isDead() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dead
}

// take returns what happens to a request of the class.
func (n *network) take(c class) (disturb.Disturbance, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.dead && c != reading {
		return "", errDead
	}
	if n.down && (c == connectRead || c == connectWrite) {
		return "", errNetwork
	}
	d := n.armed[c]
	delete(n.armed, c)
	return d, nil
}

// wire is one of the two ways.
type wire struct {
	*network

	next    http.RoundTripper
	class   func(*http.Request) class
	latency time.Duration
	// send is told of a request before anything happens to it, and may mark it.
	send   func(*http.Request) (*http.Request, error)
	unsent func(*http.Request) // is told of a request that is never carried out
	refuse func(*http.Request, disturb.Disturbance) (*http.Response, error)
}

// RoundTrip implements [http.RoundTripper].
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	class := w.class(req)
	d, err := w.take(class)
	if err != nil {
		if trace := httptrace.ContextClientTrace(req.Context()); trace != nil && trace.GetConn != nil {
			trace.GetConn(req.URL.Host) // and got none: the request was not sent
		}
		if errors.Is(err, errDead) && w.unsent != nil {
			w.unsent(req) // which the next process cannot know
		}
		return nil, err
	}
	if w.send != nil {
		if req, err = w.send(req); err != nil {
			return nil, err
		}
	}
	if d != "" {
		traced(req, class, d, nil, nil)
	}
	switch d {
	case disturb.DiesBefore, refused, lies404, lies401, lies200:
		if w.unsent == nil {
			break
		}
		w.unsent(req)
	}
	if d == disturb.DiesBefore {
		w.die()
		return nil, errDead
	}
	if err := pause(req.Context(), w.latency); err != nil {
		if w.unsent != nil {
			w.unsent(req)
		}
		return nil, err
	}
	switch d {
	case disturb.DiesAfter:
		disturb.CarryOut(w.next, req)
		w.die()
		return nil, errDead
	case disturb.Lost:
		disturb.CarryOut(w.next, req)
		return nil, errNetwork
	case disturb.DiesTooSoon:
		w.carryOutLater(req)
		w.die()
		return nil, errDead
	case disturb.TooLate:
		w.carryOutLater(req)
		return nil, errNetwork
	case refused, lies404, lies401, lies200:
		return w.refuse(req, d)
	case slow:
		if err := pause(req.Context(), 20*time.Second); err != nil {
			return nil, err
		}
	}
	res, err := w.next.RoundTrip(req)
	traced(req, class, d, res, err)
	if w.isDead() && class != reading {
		if err == nil {
			_ = res.Body.Close()
		}
		return nil, errDead
	}
	return res, err
}

// traced prints a request that may change something, and what became of it.
func traced(req *http.Request, c class, d disturb.Disturbance, res *http.Response, err error) {
	if !*trace || c == reading {
		return
	}
	outcome := string(d)
	switch {
	case err != nil:
		outcome += " " + err.Error()
	case res != nil:
		outcome += fmt.Sprintf(" %d", res.StatusCode)
	}
	body := ""
	if req.GetBody != nil {
		if copied, err := req.GetBody(); err == nil {
			text, _ := io.ReadAll(copied)
			body = string(text)
		}
	}
	fmt.Printf("%s  %s %s %s %s →%s\n", time.Now().Format("02 15:04:05.000"), workedOn(req.Context()), req.Method, req.URL.Path, body, outcome)
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (w *wire) carryOutLater(req *http.Request) {
	if _, err := disturb.CarryOutLater(w.next, req, lateness); err != nil {
		panic(err) // the body is in memory
	}
}

// kubernetes is the way to the API server.
func (n *network) kubernetes(w *world, latency time.Duration) http.RoundTripper {
	refusals := 0
	ordinary := &wire{
		network: n, next: w.api, latency: latency, send: w.readWrite,
		class: func(req *http.Request) class {
			if req.Method == http.MethodGet {
				return reading
			}
			return kubernetesWrite
		},
		refuse: func(req *http.Request, _ disturb.Disturbance) (*http.Response, error) {
			refusals++
			return apiserver.Fail(req, []error{
				apierrors.NewTooManyRequests("the server has received too many requests", 1),
				apierrors.NewInternalError(errors.New("etcdserver: request timed out")),
				apierrors.NewServiceUnavailable("the server is currently unable to handle the request"),
				apierrors.NewConflict(schema.GroupResource{}, "", errors.New("the object has been modified")),
				apierrors.NewServerTimeout(schema.GroupResource{}, "patch", 1),
			}[refusals%5])
		},
	}
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		switch {
		case strings.Contains(req.URL.Path, "/events"):
			return n.event(w, req)
		case req.URL.Query().Get("watch") != "true":
			return ordinary.RoundTrip(req)
		case n.watching.Err() != nil:
			return apiserver.Fail(req, apierrors.NewServiceUnavailable("the process is dead"))
		}
		ctx, cancel := context.WithCancel(req.Context())
		context.AfterFunc(n.watching, cancel)
		context.AfterFunc(req.Context(), cancel)
		return w.api.RoundTrip(req.WithContext(ctx))
	})
}

// event takes no time: client-go's recorder holds a mutex meanwhile, and time does not pass in a bubble in
// which something waits for a mutex.
func (n *network) event(w *world, req *http.Request) (*http.Response, error) {
	if n.isDead() {
		return nil, errDead
	}
	req, err := w.readWrite(req)
	if err != nil {
		return nil, err
	}
	return w.api.RoundTrip(req)
}

// readWrite looks for secrets in what is written to the API server: statuses, annotations and events. A
// key goes into its Secret, and nowhere else.
func (w *world) readWrite(req *http.Request) (*http.Request, error) {
	if req.Body == nil || req.Method == http.MethodGet || strings.Contains(req.URL.Path, "/secrets") {
		return req, nil
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	if found := secret.Find(body); found != nil {
		w.violatedf("a secret is written to the API server: %s %s %s", req.Method, req.URL.Path, body)
	}
	return req, nil
}

// connect is the way to Connect.
func (n *network) connect(l *ledger, latency time.Duration) http.RoundTripper {
	way := &wire{
		network: n, next: l, latency: latency, unsent: l.refuse,
		send: func(req *http.Request) (*http.Request, error) {
			n.judgeBudget(l, req)
			return l.send(req)
		},
		class: func(req *http.Request) class {
			if req.Method == http.MethodGet {
				return connectRead
			}
			return connectWrite
		},
		// A gateway, and not the API.
		refuse: func(req *http.Request, d disturb.Disturbance) (*http.Response, error) {
			code := map[disturb.Disturbance]int{refused: 502, lies404: 404, lies401: 401, lies200: 200}[d]
			return &http.Response{
				StatusCode: code, Header: http.Header{"Content-Type": {"text/html"}},
				Body: io.NopCloser(strings.NewReader("<html>" + http.StatusText(code) + "</html>")), Request: req,
			}, nil
		},
	}
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		res, err := way.RoundTrip(req)
		if err == nil {
			n.noteBudget(req, res)
		}
		return res, err
	})
}

// judgeBudget checks that nothing is sent while the budget is known to be spent.
func (n *network) judgeBudget(l *ledger, req *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	since, throttled := n.throttled[tokenOf(req)]
	if now := time.Now(); throttled && now.After(since) && now.Before(nextWindow(since)) {
		l.w.violatedf("%s %s is sent although the token is throttled since %s", req.Method, req.URL.Path, since)
	}
}

func (n *network) noteBudget(req *http.Request, res *http.Response) {
	if res.StatusCode != http.StatusTooManyRequests {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.throttled[tokenOf(req)] = time.Now()
}

// forgetBudgets is for when the access token changes: what was known of the one before may be forgotten.
func (n *network) forgetBudgets() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.throttled)
}

// nextWindow is when the budget is there again.
func nextWindow(t time.Time) time.Time { return t.Truncate(time.Hour).Add(time.Hour) }

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// direct has a handler answer, without a network.
func direct(handler http.Handler, req *http.Request) *http.Response {
	asked := req.Clone(req.Context())
	if asked.Body == nil {
		asked.Body = http.NoBody
	}
	asked.RequestURI = req.URL.RequestURI()
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, asked)
	res := recorder.Result()
	res.Request = req
	return res
}
