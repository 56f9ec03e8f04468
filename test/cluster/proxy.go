// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// APIFault is what becomes of a request to the API server. The zero value lets it pass.
type APIFault struct {
	// Status is answered in the place of the API server, which does not see the request.
	Status int
	// Message is what the answer says.
	Message string
	// Delay is how long the request takes longer.
	Delay time.Duration
	// Drop breaks the connection: after the request was carried out, or before that if Down is set.
	Drop, Down bool
	// Hold keeps the request back until it is closed. Then it is carried out, whatever has become of
	// who has sent it.
	Hold <-chan struct{}
}

// Proxy stands between an operator and the API server, or Connect, and does to its requests what
// networks and servers do.
type Proxy struct {
	server *httptest.Server

	mu      sync.Mutex
	judge   func(*http.Request) APIFault
	faults  int           // so far
	cut     chan struct{} // closed to end the watches
	release chan struct{} // closed when watches go on; nil while they are not held back
}

// ServeProxy starts a proxy to the cluster's API server. Close has to be called in the end.
func (c *Cluster) ServeProxy() (*Proxy, error) {
	transport, err := rest.TransportFor(rest.AnonymousClientConfig(c.Config))
	if err != nil {
		return nil, err
	}
	// Without TLS no client of Kubernetes sends a token.
	return serveProxy(c.Config.Host, transport, httptest.NewTLSServer)
}

// ServeProxy starts a proxy to Connect. Close has to be called in the end.
func (c Connect) ServeProxy() (*Proxy, error) {
	return serveProxy(c.URL, http.DefaultTransport, httptest.NewServer)
}

func serveProxy(to string, transport http.RoundTripper, serve func(http.Handler) *httptest.Server) (*Proxy, error) {
	target, err := url.Parse(to)
	if err != nil {
		return nil, err
	}
	p := &Proxy{cut: make(chan struct{})}
	reverse := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // which is in what the operator signs
		},
		Transport:    transport,
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	p.server = serve(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { p.serve(reverse, w, req) }))
	return p, nil
}

// URL is where the proxy serves.
func (p *Proxy) URL() string { return p.server.URL }

// Kubeconfig writes a kubeconfig of the operator that leads through the proxy.
func (c *Cluster) Kubeconfig(ctx context.Context, p *Proxy) (path string, err error) {
	config, err := c.OperatorConfig(ctx)
	if err != nil {
		return "", err
	}
	config.Host, config.TLSClientConfig = p.server.URL, rest.TLSClientConfig{
		CAData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.server.Certificate().Raw}),
	}
	path = filepath.Join(c.Dir, "proxy-"+strings.TrimPrefix(p.server.URL, "https://")+".kubeconfig")
	return path, WriteKubeconfig(path, config, metav1.NamespaceDefault)
}

// Close ends the proxy, and all connections.
func (p *Proxy) Close() {
	p.ReleaseWatches()
	p.CutWatches()
	p.server.CloseClientConnections()
	p.server.Close()
}

// Disturb has every request judged; nil lets all of them pass.
func (p *Proxy) Disturb(judge func(*http.Request) APIFault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.judge = judge
}

// Faults is how many requests have been disturbed.
func (p *Proxy) Faults() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults
}

// CutWatches ends all watches, as a load balancer does, or an API server that restarts.
func (p *Proxy) CutWatches() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.cut)
	p.cut = make(chan struct{})
}

// HoldWatches keeps what happens from those who watch, whose caches are stale from now on.
func (p *Proxy) HoldWatches() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.release == nil {
		p.release = make(chan struct{})
	}
}

// ReleaseWatches ends what HoldWatches has begun.
func (p *Proxy) ReleaseWatches() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.release != nil {
		close(p.release)
		p.release = nil
	}
}

// IsWatch tells whether the request watches.
func IsWatch(req *http.Request) bool {
	watch := req.URL.Query().Get("watch")
	return watch == "true" || watch == "1"
}

func (p *Proxy) serve(reverse http.Handler, w http.ResponseWriter, req *http.Request) {
	fault, cut := p.take(req)
	if fault.Delay > 0 {
		time.Sleep(fault.Delay)
	}
	switch {
	case fault.Down:
		panic(http.ErrAbortHandler)
	case fault.Status != 0:
		fail(w, fault)
	case fault.Drop:
		carryOut(reverse, req, nil)
		panic(http.ErrAbortHandler)
	case fault.Hold != nil:
		answer := carryOut(reverse, req, fault.Hold)
		maps.Copy(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		_, _ = answer.Body.WriteTo(w)
	case IsWatch(req):
		ctx, cancel := context.WithCancel(req.Context())
		defer cancel()
		go func() {
			select {
			case <-cut:
				cancel()
			case <-ctx.Done():
			}
		}()
		reverse.ServeHTTP(&heldBack{ResponseWriter: w, proxy: p, done: ctx.Done()}, req.WithContext(ctx))
	default:
		reverse.ServeHTTP(w, req)
	}
}

// carryOut sends the request on when it may go, whatever becomes of who has sent it, and returns the answer.
func carryOut(reverse http.Handler, req *http.Request, may <-chan struct{}) *httptest.ResponseRecorder {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if may != nil {
		<-may
	}
	unseen := req.Clone(context.WithoutCancel(req.Context()))
	unseen.Body = io.NopCloser(bytes.NewReader(body))
	answer := httptest.NewRecorder()
	reverse.ServeHTTP(answer, unseen)
	return answer
}

func (p *Proxy) take(req *http.Request) (APIFault, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.judge == nil {
		return APIFault{}, p.cut
	}
	fault := p.judge(req)
	if fault != (APIFault{}) {
		p.faults++
	}
	return fault, p.cut
}

// heldBack writes what a watch says when watches are not held back.
type heldBack struct {
	http.ResponseWriter
	proxy *Proxy
	done  <-chan struct{}
}

func (h *heldBack) Write(text []byte) (int, error) {
	h.proxy.mu.Lock()
	release := h.proxy.release
	h.proxy.mu.Unlock()
	if release != nil {
		select {
		case <-release:
		case <-h.done:
			return 0, context.Canceled
		}
	}
	return h.ResponseWriter.Write(text)
}

func (h *heldBack) Unwrap() http.ResponseWriter { return h.ResponseWriter }

// reasons are how the API server calls what it answers.
var reasons = map[int]metav1.StatusReason{
	http.StatusForbidden:           metav1.StatusReasonForbidden,
	http.StatusConflict:            metav1.StatusReasonConflict,
	http.StatusGone:                metav1.StatusReasonExpired,
	http.StatusUnprocessableEntity: metav1.StatusReasonInvalid,
	http.StatusTooManyRequests:     metav1.StatusReasonTooManyRequests,
	http.StatusInternalServerError: metav1.StatusReasonInternalError,
	http.StatusServiceUnavailable:  metav1.StatusReasonServiceUnavailable,
}

func fail(w http.ResponseWriter, fault APIFault) {
	status := metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure,
		Code: int32(fault.Status), Reason: reasons[fault.Status], Message: fault.Message,
	}
	w.Header().Set("Content-Type", "application/json")
	if fault.Status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(fault.Status)
	_ = json.NewEncoder(w).Encode(status)
}

// Compact has etcd forget what was before now, as kube-apiserver has it do every five minutes.
func (c *Cluster) Compact(ctx context.Context) error {
	ask := func(path, body string, answer any) error {
		etcd := *c.env.ControlPlane.Etcd.URL
		etcd.Path = path
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, etcd.String(), strings.NewReader(body))
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = res.Body.Close() }()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("etcd answers %s to %s", res.Status, path)
		}
		return json.NewDecoder(res.Body).Decode(answer)
	}
	var newest struct{ Header struct{ Revision string } }
	if err := ask("/v3/kv/range", `{"key":"AA==","count_only":true}`, &newest); err != nil {
		return err
	}
	return ask("/v3/kv/compaction", fmt.Sprintf(`{"revision":%q,"physical":true}`, newest.Header.Revision), &struct{}{})
}
