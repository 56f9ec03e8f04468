// SPDX-License-Identifier: Apache-2.0

// Package crash disturbs the operator at every step at which state is at stake: each of its requests
// to Connect, and each of its writes to the API server. It dies before or after that, its answer is
// lost, the request is carried out much later, or the user does not wait. Whatever the step, the
// operator, or its next process, has to bring the organisation to where it would have been.
//
// A run is a [scenario], which a user plays in a [world] of its own, and a [process] that is disturbed at
// one step. [matrix] makes all runs of a scenario, and prints them as a table.
//
// A kind joins with a scenario, and with what its remote objects are in [world.remote].
package crash

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/test/cluster"
	"rpi-connect.dev/operator/test/disturb"
)

// all is for the whole matrix, which takes four times as long.
var all = flag.Bool("all", false, "run all scenarios, and on the older revision too")

var (
	control  *cluster.Cluster
	operator *rest.Config
)

func TestCrashes(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "The operator is disturbed")
}

func TestEveryKindIsDisturbed(t *testing.T) {
	for _, kind := range cluster.Kinds() {
		named := regexp.MustCompile(`\b` + kind + `\b`)
		if !slices.ContainsFunc(scenarios, func(s scenario) bool { return named.MatchString(s.name) }) {
			t.Errorf("nobody disturbs a %s: add a scenario in which somebody makes, changes and deletes one", kind)
		}
	}
}

// What is compared are all objects that there are, and others have one of each kind.
func TestEveryObjectIsCompared(t *testing.T) {
	connect, err := cluster.ServeConnect(connectsim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer connect.Sim.Close()
	w := &world{Connect: connect}
	others(w)
	answer := httptest.NewRecorder()
	connect.Sim.Admin(t.Context(), connect.URL).ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/_sim/state", nil))
	var state map[string]map[string][]any
	if err := json.Unmarshal(answer.Body.Bytes(), &state); err != nil {
		t.Fatal(err)
	}
	objects := 0
	for collection, all := range state[connect.Org.Name()] {
		if objects += len(all); len(all) == 0 {
			t.Errorf("others have no %s: add one that looks like ours to others", collection)
		}
	}
	if compared := len(w.remote()) + len(connect.Org.AuthKeys()); compared != objects {
		t.Errorf("%d objects are compared of %d: add what is missing to remote", compared, objects)
	}
}

var _ = BeforeSuite(func(ctx context.Context) {
	var err error
	control, err = cluster.Start(ctx, cluster.Options{ControllerManager: cluster.HasControllerManager()})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Expect(control.Stop()).To(Succeed()) })
	operator, err = control.OperatorConfig(ctx)
	Expect(err).NotTo(HaveOccurred())
})

var _ = Describe("A process that is disturbed", func() {
	for _, revision := range []connectsim.Revision{connectsim.Current, connectsim.Older} {
		for _, s := range scenarios {
			if !*all && (s.further || revision == connectsim.Older) {
				continue
			}
			It(fmt.Sprintf("leaves nothing lost or doubled on the %s revision, while %s", revision, s.name), func(ctx context.Context) {
				matrix(ctx, s, revision)
			})
		}
	}
})

// patience is how long an act may take to come true.
const patience = 60 * time.Second

// matrix runs the scenario once undisturbed, and then once for every step and disturbance.
func matrix(ctx context.Context, s scenario, revision connectsim.Revision) {
	GinkgoHelper()
	first := undisturbed()
	expected, err := run(ctx, s, revision, nil, first)
	Expect(err).NotTo(HaveOccurred(), "undisturbed")

	var mu sync.Mutex
	runs := table{steps: first.steps, ended: map[cell]string{}}
	var failures []string
	group := errgroup.Group{}
	group.SetLimit(16)
	for _, at := range first.steps {
		for _, d := range disturbances {
			if d.Late() && !at.changesConnect() {
				continue
			}
			group.Go(func() error {
				came, err := disturbed(ctx, s, revision, &expected, d, at)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err != nil:
					runs.ended[cell{at, d}] = "FAILED"
					failures = append(failures, fmt.Sprintf("%s %s (%d): %v", d, at.name, at.nth, err))
				case came:
					runs.ended[cell{at, d}] = "ok"
				case at.changesConnect():
					runs.ended[cell{at, d}] = "FAILED"
					failures = append(failures, fmt.Sprintf("%s %s (%d), which did not come again", d, at.name, at.nth))
				}
				return nil
			})
		}
	}
	_ = group.Wait()
	AddReportEntry(fmt.Sprintf("%d runs", len(runs.ended)), runs.String(), ReportEntryVisibilityFailureOrVerbose)
	Expect(failures).To(BeEmpty(), strings.Join(failures, "\n\n"))
}

// disturbed runs the scenario once, disturbed at the step. How often is looked, and what is written in one
// go, depends on the time that others take; so a write is waited for in a few runs, until it comes again.
func disturbed(ctx context.Context, s scenario, revision connectsim.Revision, expected *outcome, d disturb.Disturbance, at step) (came bool, err error) {
	for tries := 0; !came && err == nil && (tries == 0 || !at.reads() && tries < 5); tries++ {
		p := newProcess(d, at)
		_, err = run(ctx, s, revision, expected, p)
		came = p.wasDisturbed()
	}
	return came, err
}

// disturbances are the columns of the matrix.
var disturbances = []disturb.Disturbance{disturb.DiesBefore, disturb.DiesAfter, disturb.DiesTooSoon, disturb.Lost, disturb.TooLate, meanwhile}

// table has a row for each step, and in it how the run ended in which that was disturbed.
type table struct {
	steps []step
	ended map[cell]string
}

type cell struct {
	step

	disturbance disturb.Disturbance
}

func (t table) String() string {
	var text strings.Builder
	columns := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprint(columns, "   the operator …")
	for _, d := range disturbances {
		_, _ = fmt.Fprintf(columns, "\t%s", d)
	}
	for n, s := range t.steps {
		_, _ = fmt.Fprintf(columns, "\n%2d %s", n+1, s.name)
		for _, d := range disturbances {
			_, _ = fmt.Fprintf(columns, "\t%s", t.ended[cell{s, d}])
		}
	}
	_ = columns.Flush()
	return text.String()
}

// run plays the scenario in a world of its own. The first process is disturbed, the next one is not. Without
// snapshots to compare with it returns those after each act.
func run(ctx context.Context, s scenario, revision connectsim.Revision, expected *outcome, first *process) (out outcome, err error) {
	w, err := newWorld(ctx, revision)
	if err != nil {
		return out, err
	}
	defer w.Sim.Close()
	s.prepare(w)
	w.rememberTheirs()

	var mu sync.Mutex
	next, early := 0, false // the act that is to come; whether it was done before its time
	first.act = func() {
		mu.Lock()
		defer mu.Unlock()
		if next < len(s.acts) && s.acts[next].anytime {
			early = s.acts[next].do(ctx, w) == nil
		}
	}
	operating, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		err := w.operate(operating, operator, first)
		if err == nil && operating.Err() == nil {
			err = w.operate(operating, operator, undisturbed())
		}
		ended <- err
	}()
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
		err = errors.Join(err, first.arrived(ctx))
	}()

	for i, a := range s.acts {
		mu.Lock()
		done := early
		early, next = false, i+1
		mu.Unlock()
		if !done {
			if a.others {
				// What was removed and then comes late is nobody's any more.
				err = first.arrived(ctx)
			}
			if err != nil {
				return out, err
			}
			if err := a.do(ctx, w); err != nil {
				return out, fmt.Errorf("%s: %w", a.name, err)
			}
		}
		want := ""
		if expected != nil && a.fits == nil {
			want = expected.snapshots[i]
		}
		snapshot, err := w.becomes(ctx, a, want, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return early
		})
		if err != nil {
			return out, err
		}
		out.snapshots = append(out.snapshots, snapshot)
	}
	out.lost, err = w.lostKeys(ctx)
	if err == nil && expected != nil && out.lost > expected.lost && first.wasDisturbed() && first.at.name == "Connect: POST /organisation/auth-keys" && first.disturbance != disturb.DiesBefore {
		err = w.lostKeysAreTold(ctx)
	}
	return out, err
}

// outcome is what came of a run.
type outcome struct {
	snapshots []string // after each act
	lost      int      // auth keys that are in no Secret
}

// becomes waits until the act has come true and everything is as it should be.
func (w *world) becomes(ctx context.Context, a act, want string, overtaken func() bool) (snapshot string, err error) {
	settled := 0 // for how many looks nothing has changed any more
	failed := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		if overtaken() {
			return true, nil
		}
		if !a.ready(ctx, w) {
			return false, nil
		}
		last := snapshot
		if snapshot, err = w.snapshot(ctx); err != nil {
			return false, err
		}
		if settled++; snapshot != last {
			settled = 0
		}
		return snapshot == want || (want == "" && settled >= 20 && (a.fits == nil || a.fits(snapshot))), nil
	})
	if failed != nil {
		snapshot, _ = w.snapshot(ctx)
		return snapshot, fmt.Errorf("the act %q: %w\nexpected:\n%s\nfound:\n%s", a.name, failed, want, snapshot)
	}
	return snapshot, nil
}

// lostKeysAreTold checks what is left where keys can be neither listed nor revoked: a key whose answer
// was lost stays until it expires, and an event says so.
func (w *world) lostKeysAreTold(ctx context.Context) error {
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		return w.told(ctx, v1alpha1.EventKeyLost), nil
	})
	if err != nil {
		return fmt.Errorf("an auth key is in no Secret, and no event says so: %w", err)
	}
	return nil
}
