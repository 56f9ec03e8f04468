// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/internal/controller"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/test/cluster"
	"rpi-connect.dev/operator/test/invariants"
)

// update writes what is recorded into testdata instead of comparing it.
var update = flag.Bool("update", false, "write the golden files anew")

// env is where a scenario runs: a namespace, an organisation, a clock that moves
// when it is told to, and the controllers. What is recorded of it is compared
// with a golden file, which a reader can audit without knowing any code.
type env struct {
	client.Client
	cluster.Connect
	ns    string
	clock *connectsim.Clock

	recorded strings.Builder
	names    map[string]string // what differs from run to run → what it is called
	counted  int               // requests recorded so far
}

// passive makes a clock of what the simulator tells time by.
type passive struct{ *connectsim.Clock }

func (p passive) Since(t time.Time) time.Duration { return p.Now().Sub(t) }

var envs int

func newEnv(ctx context.Context, options connectsim.Options) *env {
	GinkgoHelper()
	envs++
	s := &env{
		Client: control.Client,
		ns:     fmt.Sprintf("env-%d", envs),
		clock:  connectsim.NewClock(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)),
		names:  map[string]string{},
	}
	options.Now = s.clock.Now
	var err error
	s.Connect, err = cluster.ServeConnect(options)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(s.Sim.Close)
	Expect(control.PutToken(ctx, s.ns, s.Token)).To(Succeed())
	s.startControllers(ctx)
	return s
}

// startControllers runs the controllers under the operator's own ServiceAccount,
// for the env's namespace only, until the scenario ends.
func (s *env) startControllers(ctx context.Context) {
	GinkgoHelper()
	operator, err := control.OperatorConfig(ctx)
	Expect(err).NotTo(HaveOccurred())
	mgr, err := ctrl.NewManager(operator, ctrl.Options{
		Scheme:     cluster.Scheme(),
		Cache:      cache.Options{DefaultNamespaces: map[string]cache.Config{s.ns: {}}},
		Metrics:    metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: new(true)},
	})
	Expect(err).NotTo(HaveOccurred())
	api, err := connectclient.New(connectclient.Options{BaseURL: s.URL, Now: s.clock.Now, QPS: 1000})
	Expect(err).NotTo(HaveOccurred())
	Expect(controller.SetupWithManager(mgr, controller.Options{
		API:                     api,
		ResyncInterval:          200 * time.Millisecond,
		DeploymentPollMin:       time.Second,
		DeploymentPollMax:       15 * time.Minute,
		MaxConcurrentReconciles: 4,
		Clock:                   passive{s.clock},
	})).To(Succeed())
	running, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- mgr.Start(running) }()
	DeferCleanup(func() {
		stop()
		Expect(<-ended).To(Succeed())
	})
}

func (s *env) meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: s.ns, Name: name}
}

// ready gives what a user sees of a resource.
func (s *env) ready(ctx context.Context, obj lifecycle.Object) func() string {
	return func() string {
		if err := s.Get(ctx, client.ObjectKeyFromObject(obj), obj); err != nil {
			return err.Error()
		}
		Expect(invariants.Check(obj)).To(Succeed())
		return invariants.Ready(obj)
	}
}

// look asks the operator to look at the resource now: in a scenario nobody waits for
// what is due in a day.
func (s *env) look(ctx context.Context, obj client.Object) {
	GinkgoHelper()
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, v1alpha1.AnnotationReconcileRequestedAt, s.clock.Now().Format(time.RFC3339))
	Expect(s.Patch(ctx, obj, client.RawPatch("application/merge-patch+json", []byte(patch)))).To(Succeed())
}

// pass lets time pass, and has the operator notice.
func (s *env) pass(ctx context.Context, d time.Duration, obj client.Object) {
	GinkgoHelper()
	s.clock.Advance(d)
	s.look(ctx, obj)
}

// record writes down what has happened and how the resource is now; and, without reading,
// what was sent to Connect since the last record.
func (s *env) record(ctx context.Context, title string, obj lifecycle.Object, more ...string) {
	GinkgoHelper()
	ready := s.ready(ctx, obj)()
	kind, err := s.GroupVersionKindFor(obj)
	Expect(err).NotTo(HaveOccurred())
	fmt.Fprintf(&s.recorded, "%s  %s\n", s.clock.Now().Format("Jan _2 15:04"), title)
	lines := append([]string{kind.Kind + " " + obj.GetName() + ": " + ready}, more...)
	sent := []string{}
	journal := s.Sim.Journal()
	for _, request := range journal[s.counted:] {
		if request.Method != http.MethodGet {
			sent = append(sent, fmt.Sprintf("%s %s → %d", request.Method, request.Route, request.Status))
		}
	}
	s.counted = len(journal)
	for _, line := range append(lines, sent...) {
		fmt.Fprintf(&s.recorded, "    %s\n", s.named(line))
	}
}

// random are ids and digests.
var random = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{64}\b`)

// named gives what differs from run to run a name, in the order of appearance.
func (s *env) named(line string) string {
	return random.ReplaceAllStringFunc(line, func(id string) string {
		if s.names[id] == "" {
			s.names[id] = fmt.Sprintf("№%d", len(s.names)+1)
		}
		return s.names[id]
	})
}

// end compares what was recorded with the golden file of this name.
func (s *env) end(name string) {
	GinkgoHelper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		Expect(os.WriteFile(file, []byte(s.recorded.String()), 0o600)).To(Succeed())
		return
	}
	want, err := os.ReadFile(file)
	Expect(err).NotTo(HaveOccurred(), "go test ./internal/controller -update writes it")
	Expect(s.recorded.String()).To(Equal(string(want)))
}

// keys tells of the auth keys of the organisation, and which one a Secret holds.
func (s *env) keys(ctx context.Context, secretName string) []string {
	GinkgoHelper()
	secret := &corev1.Secret{}
	held := ""
	if s.Get(ctx, client.ObjectKey{Namespace: s.ns, Name: secretName}, secret) == nil {
		held = string(secret.Data["auth.key"])
	}
	lines := []string{}
	for _, key := range s.Org.AuthKeys() {
		state := "usable until " + key.ExpiresAt.Format("Jan _2 15:04")
		switch {
		case !key.ExchangedAt.IsZero():
			state = "exchanged"
		case !key.Usable(s.clock.Now()):
			state = "expired"
		}
		where := "in no Secret"
		if key.Secret == held {
			where = "in Secret " + secretName
		}
		lines = append(lines, fmt.Sprintf("key %s of %q %v: %s, %s", key.ID, key.Description, key.Tags, state, where))
	}
	if len(secret.Data) == 0 {
		lines = append(lines, "Secret "+secretName+" is empty")
	}
	return lines
}
