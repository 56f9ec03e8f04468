// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/internal/controller"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/internal/informers"
	"rpi-connect.dev/operator/test/apiserver"
	"rpi-connect.dev/operator/test/cluster"
)

// object is a resource of any of the operator's kinds.
type object = lifecycle.Object

const (
	namespace = "fleet"
	tokenName = "connect-access-token"
)

// world is where one history happens: a cluster with one namespace, a Connect with two organisations,
// and the operator.
type world struct {
	api    *apiserver.Server
	user   client.Client // of people, who see the API server as it is
	sim    *connectsim.Server
	orgs   []*connectsim.Organisation
	ledger *ledger
	setup  setup
	random *rand.Rand // of what no step decides

	running *process
	old     []*process // that still drain

	organisation int    // whose token is in the Secret
	token        string // that is in the Secret
	down         bool   // Connect cannot be reached

	mu         sync.Mutex
	violations []string
	lineages   map[string]string      // of the uids of resources
	touched    map[resource]time.Time // when a person last did something to a resource
	edits      map[resource]time.Time // when a person last changed its spec
	tokens     map[string]int         // to which organisation they belong
	theirs     map[string]time.Time   // when others made an object
	letGo      map[resource]time.Time // what was made before may stay behind
	scanned    int                    // how many writes there were at the last scan
	counter    int
}

// setup is what a history is played in.
type setup struct {
	revision    connectsim.Revision
	concurrency int
	latency     time.Duration // of Connect
	lag         time.Duration // of the operator's caches
	theirs      int           // artefacts that others have
}

func drawSetup(random *rand.Rand) setup {
	s := setup{revision: connectsim.Current, concurrency: 1 + random.IntN(4)}
	if random.IntN(5) == 0 {
		s.revision = connectsim.Older
	}
	s.latency = []time.Duration{0, 10 * time.Millisecond, 200 * time.Millisecond, 2 * time.Second}[random.IntN(4)]
	s.lag = []time.Duration{0, 0, 50 * time.Millisecond, time.Second}[random.IntN(4)]
	if random.IntN(4) == 0 {
		s.theirs = 150
	}
	return s
}

func newWorld(t *testing.T, crds []*apiextensionsv1.CustomResourceDefinition, random *rand.Rand) *world {
	t.Helper()
	w := &world{
		random: random, setup: drawSetup(random),
		lineages: map[string]string{}, touched: map[resource]time.Time{}, tokens: map[string]int{}, edits: map[resource]time.Time{}, theirs: map[string]time.Time{}, letGo: map[resource]time.Time{},
	}
	var err error
	w.api, err = apiserver.New(crds)
	w.must(err)
	cfg := w.api.Config()
	asked, err := rest.HTTPClientFor(cfg)
	w.must(err)
	w.user, err = client.New(cfg, client.Options{Scheme: scheme, Mapper: w.api.Mapper(), HTTPClient: asked})
	w.must(err)
	w.sim = connectsim.New(connectsim.Options{Revision: w.setup.revision, PublicURL: "https://connect.invalid"})
	w.ledger = newLedger(w)
	for i := range 2 {
		token := connectsim.NewSecret("rporg_")
		w.orgs, w.tokens[token] = append(w.orgs, w.sim.AddOrganisation(token)), i
		if i == 0 {
			w.token = token
		}
	}
	w.must(w.user.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}))
	w.putToken(w.token)
	w.populate()
	w.start()
	return w
}

var scheme = cluster.Scheme()

// must is for what cannot fail.
func (w *world) must(err error) {
	if err != nil {
		panic(err)
	}
}

// violated notes that a promise was broken.
func (w *world) violatedf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.violations = append(w.violations, fmt.Sprintf(format, args...))
}

func (w *world) broken() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.violations)
}

func (w *world) org() *connectsim.Organisation { return w.orgs[w.organisation] }

func (w *world) organisationOf(token string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tokens[token]
}

// putToken writes the access token; an empty one removes the Secret.
func (w *world) putToken(token string) {
	ctx := context.Background()
	if w.running != nil {
		w.running.forgetBudgets()
	}
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: tokenName}}
	if token == "" {
		w.must(client.IgnoreNotFound(w.user.Delete(ctx, s)))
		return
	}
	s.StringData = map[string]string{"token": token + "\n"}
	if err := w.user.Create(ctx, s); err != nil {
		w.must(client.IgnoreAlreadyExists(err))
		w.must(w.user.Update(ctx, s))
	}
}

// lookUp returns a resource as it is on the API server; nil if there is none.
func (w *world) lookUp(of resource) object {
	runtimeObject, err := scheme.New(v1alpha1.GroupVersion.WithKind(of.kind))
	w.must(err)
	obj, ok := runtimeObject.(object)
	if !ok {
		panic(of.kind + " is none of the operator's kinds")
	}
	switch err := w.user.Get(context.Background(), client.ObjectKey{Namespace: namespace, Name: of.name}, obj); {
	case apierrors.IsNotFound(err):
		return nil
	default:
		w.must(err)
		return obj
	}
}

// each calls f for every resource of a kind.
func (w *world) each(kind string, f func(object)) {
	empty, err := scheme.New(v1alpha1.GroupVersion.WithKind(kind + "List"))
	w.must(err)
	list, ok := empty.(client.ObjectList)
	if !ok {
		panic(kind + " has no list")
	}
	w.must(w.user.List(context.Background(), list, client.InNamespace(namespace)))
	w.must(meta.EachListItem(list, func(item runtime.Object) error {
		if obj, ok := item.(object); ok {
			f(obj)
		}
		return nil
	}))
}

// touch notes that a person does something to a resource.
func (w *world) touch(of resource) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.touched[of] = time.Now()
}

// recently tells whether a person has just done something to a resource, so that the operator may not
// have seen it yet.
func (w *world) recently(of resource) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Since(w.touched[of]) < lateness+w.setup.lag+4*w.setup.latency
}

// lineageOf is what a resource is the same as, after a restore.
func (w *world) lineageOf(of resource) string {
	obj := w.lookUp(of)
	if obj == nil {
		return of.String() + " (gone)"
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	uid := string(obj.GetUID())
	if line, known := w.lineages[uid]; known {
		return line
	}
	return uid
}

// rolloutOf is the rollout that a Deployment was made by; empty if a person made it.
func (w *world) rolloutOf(of resource) string {
	obj := w.lookUp(of)
	if obj == nil {
		return ""
	}
	for _, owner := range obj.GetOwnerReferences() {
		return owner.Name + " " + string(owner.UID)
	}
	return ""
}

// process is the operator, from its start to its end.
type process struct {
	*network

	began              time.Time
	stopWatching, stop context.CancelFunc
	started            <-chan struct{}
	ended              chan struct{}
}

// start runs the operator.
func (w *world) start() {
	watching, stopWatching := context.WithCancel(context.Background())
	ctx, stop := context.WithCancel(context.Background())
	p := &process{network: newNetwork(watching), began: time.Now(), stopWatching: stopWatching, stop: stop, ended: make(chan struct{})}
	p.setDown(w.down)
	cfg := w.api.Config()
	cfg.Transport = p.kubernetes(w, time.Millisecond)
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme:         scheme,
		Logger:         logr.New(&logSink{violated: w.violatedf}),
		MapperProvider: func(*rest.Config, *http.Client) (meta.RESTMapper, error) { return w.api.Mapper(), nil },
		Cache:          informers.CacheOptions(""),
		Metrics:        metricsserver.Options{BindAddress: "0"},
		Controller:     config.Controller{SkipNameValidation: new(true)},
	})
	w.must(err)
	p.started = mgr.Elected()
	api, err := connectclient.New(connectclient.Options{BaseURL: "https://connect.invalid", Transport: p.connect(w.ledger, w.setup.latency)})
	w.must(err)
	w.must(controller.SetupWithManager(mgr, controller.Options{
		API:                     api,
		ResyncInterval:          10 * time.Minute,
		DeploymentPollMin:       15 * time.Second,
		DeploymentPollMax:       15 * time.Minute,
		MaxConcurrentReconciles: w.setup.concurrency,
	}))
	go func() {
		defer close(p.ended)
		_ = mgr.Start(ctx) // how a dead process ends does not matter
	}()
	w.running = p
}

// kill ends the operator at once: nothing that it has under way is seen by it.
func (w *world) kill() {
	w.running.die()
	w.end(w.running)
}

// end has a process stop, and waits for it.
func (w *world) end(p *process) {
	<-p.started
	p.stopWatching()
	synctest.Wait() // a watch that ends while something is read from it would never stop
	p.stop()
	<-p.ended
}

// handOver stops the operator as a Deployment's rollout does, while the next one is at work already.
func (w *world) handOver() {
	old := w.running
	<-old.started
	old.stopWatching()
	synctest.Wait()
	old.stop()
	w.old = append(w.old, old)
	w.start()
}

// pass lets time pass. A process that dies meanwhile is followed by another one.
func (w *world) pass(d time.Duration) {
	until := time.Now().Add(d)
	for {
		select {
		case <-time.After(time.Until(until)):
			return
		case <-w.running.died:
			w.end(w.running)
			w.start()
		}
	}
}

// stop ends the history.
func (w *world) stop() {
	w.kill()
	for _, p := range w.old {
		p.die()
		<-p.ended
	}
	time.Sleep(2 * lateness) // what is late arrives
}

// scan looks for what must hold for every resource at every moment.
func (w *world) scan() {
	w.scanRollouts()
	writes := w.api.Writes()
	if writes == w.scanned {
		return // they are as they were
	}
	w.scanned = writes
	for _, list := range cluster.Lists() {
		w.must(w.user.List(context.Background(), list, client.InNamespace(namespace)))
		w.must(meta.EachListItem(list, func(item runtime.Object) error {
			w.scanObject(item)
			return nil
		}))
	}
}

// name is what a name of the pool is.
func name(prefix string, n int) string { return fmt.Sprintf("%s%d", strings.ToLower(prefix), n) }
