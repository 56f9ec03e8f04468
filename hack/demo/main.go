// SPDX-License-Identifier: Apache-2.0

// Demo shows the operator at work without a cluster: a real kube-apiserver and
// etcd, the simulator of Connect with virtual Raspberry Pis, and the operator as
// a process under its own ServiceAccount. It applies config/samples and shows
// what kubectl shows until everything has come to its end.
package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/test/cluster"
)

// patience is how long the samples may take to come to their end.
const patience = 3 * time.Minute

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "\nThe demo failed:", err)
		os.Exit(1)
	}
}

// demo is everything that runs.
type demo struct {
	cluster.Connect

	admin      *connectsim.Admin
	cluster    *cluster.Cluster
	manager    *cluster.Manager
	kubeconfig string
	acts       []act // that are still to come
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	d := &demo{acts: acts()}
	defer d.end()
	steps := []struct {
		title string
		do    func(context.Context) error
	}{
		{"Start kube-apiserver and etcd, install CRDs and RBAC", d.startCluster},
		{"Start the simulator of Connect, with 24 virtual Raspberry Pis", d.startConnect},
		{"Build and start the operator", d.startOperator},
		{"Put the organisation's access token into the Secret connect-access-token", d.putToken},
		{"kubectl apply -k config/samples, but for its placeholder of that Secret and the rollout", d.applySamples},
	}
	for _, step := range steps {
		began := time.Now()
		fmt.Printf("==> %s …", step.title)
		if err := step.do(ctx); err != nil {
			fmt.Println()
			return err
		}
		fmt.Printf(" %.1f s\n", time.Since(began).Seconds())
	}
	fmt.Println("\n$ kubectl get connect")
	if err := d.watch(ctx); err != nil {
		return err
	}
	if err := d.reasons(ctx); err != nil {
		return err
	}
	if err := d.tagScreens(ctx); err != nil {
		return err
	}
	if err := d.rollOut(ctx); err != nil {
		return err
	}
	d.summary()
	if os.Getenv("DEMO_KEEP") != "" {
		d.keep(ctx)
	}
	return nil
}

func (d *demo) startCluster(ctx context.Context) error {
	var err error
	if d.cluster, err = cluster.Start(ctx, cluster.Options{}); err != nil {
		return err
	}
	d.kubeconfig = filepath.Join(d.cluster.Dir, "kubeconfig")
	return cluster.WriteKubeconfig(d.kubeconfig, d.cluster.Config, metav1.NamespaceDefault)
}

func (d *demo) startConnect(ctx context.Context) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	d.URL, d.Token = "http://"+listener.Addr().String(), connectsim.NewSecret("rporg_")
	d.Sim = connectsim.New(connectsim.Options{Latency: 40 * time.Millisecond})
	d.Org = d.Sim.AddOrganisation(d.Token)
	d.admin = d.Sim.Admin(ctx, d.URL)
	go func() { _ = d.Sim.Serve(listener, d.admin, nil) }() // ends with Close
	return d.startFleet(ctx)
}

func (d *demo) startOperator(ctx context.Context) error {
	binary, err := cluster.BuildManager(ctx, d.cluster.Dir)
	if err != nil {
		return err
	}
	d.manager, err = d.cluster.StartManager(ctx, binary, "--connect-api-url="+d.URL,
		// Quicker than by default, so that one need not wait for ten minutes.
		"--deployment-poll-min=1s", "--resync-interval=2s", "--zap-log-level=debug")
	if err != nil {
		return err
	}
	log, err := os.Create(d.logFile())
	if err != nil {
		return err
	}
	if err := d.manager.CopyLog(log); err != nil {
		return err
	}
	return d.manager.WaitReady(ctx)
}

func (d *demo) putToken(ctx context.Context) error {
	return d.cluster.PutToken(ctx, metav1.NamespaceDefault, d.Token)
}

func (d *demo) logFile() string { return filepath.Join(d.cluster.Dir, "operator.log") }

// applySamples applies the samples, but for the access token, which is there
// already, and the rollout.
func (d *demo) applySamples(ctx context.Context) error {
	samples, err := d.kubectl(ctx, "kustomize", filepath.Join(cluster.Root(), "config", "samples"))
	if err != nil {
		return err
	}
	manifests := slices.DeleteFunc(strings.Split(samples, "\n---\n"), func(manifest string) bool {
		return strings.Contains(manifest, "\nkind: Secret\nmetadata:\n  name: connect-access-token\n") ||
			strings.Contains(manifest, "\nkind: FleetRollout\n") // its canaries are looked at for longer than a demo takes
	})
	return d.apply(ctx, strings.Join(manifests, "\n---\n"))
}

// apply applies a manifest.
func (d *demo) apply(ctx context.Context, manifest string) error {
	file := filepath.Join(d.cluster.Dir, "manifest.yaml")
	if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
		return err
	}
	_, err := d.kubectl(ctx, "apply", "-f", file)
	return err
}

func (d *demo) kubectl(ctx context.Context, args ...string) (string, error) {
	command := exec.CommandContext(ctx, d.cluster.Kubectl(), append([]string{"--kubeconfig=" + d.kubeconfig}, args...)...)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}

// watch shows the table each time it changes, until every resource has settled.
func (d *demo) watch(ctx context.Context) error {
	shown := &terminal{inPlace: term.IsTerminal(int(os.Stdout.Fd()))}
	return d.until(ctx, func(ctx context.Context) (bool, error) {
		title, played, err := d.play(ctx)
		if err != nil {
			return false, err
		}
		if title != "" {
			shown.say("\n$ " + title + "\n")
		}
		settled, err := d.settled(ctx)
		if err != nil {
			return false, err
		}
		table, err := d.kubectl(ctx, "get", "connect")
		if err != nil {
			return false, err
		}
		shown.show(table)
		return settled && played, nil
	})
}

// settled tells whether every resource has come to its end: it is Ready, or
// waits for a person.
func (d *demo) settled(ctx context.Context) (bool, error) {
	all := true
	for _, list := range cluster.Lists() {
		if err := d.cluster.Client.List(ctx, list); err != nil {
			return false, err
		}
		err := meta.EachListItem(list, func(item runtime.Object) error {
			ready := readyOf(item)
			all = all && ready != nil && ready.Status != metav1.ConditionUnknown
			return nil
		})
		if err != nil {
			return false, err
		}
	}
	return all, nil
}

// readyOf returns what a resource says of its newest spec; nil if nothing yet.
func readyOf(item runtime.Object) *metav1.Condition {
	obj, ok := item.(lifecycle.Object)
	if !ok {
		return nil
	}
	ready := meta.FindStatusCondition(obj.GetCommonStatus().Conditions, v1alpha1.ConditionReady)
	if ready == nil || ready.ObservedGeneration != obj.GetGeneration() {
		return nil
	}
	return ready
}

func reasonOf(item runtime.Object) string {
	if ready := readyOf(item); ready != nil {
		return ready.Reason
	}
	return ""
}

// reasons shows why deployments have ended as they did.
func (d *demo) reasons(ctx context.Context) error {
	columns := "NAME:.metadata.name,STATE:.status.state,REASON:.status.stateReason"
	table, err := d.kubectl(ctx, "get", "rpideploy", "-o", "custom-columns="+columns)
	if err != nil {
		return err
	}
	fmt.Printf("\n$ kubectl get rpideploy -o custom-columns=%s\n%s", columns, table)
	return nil
}

// summary tells what it has cost.
func (d *demo) summary() {
	counts := map[string]int{}
	for _, r := range d.Sim.Journal() {
		if strings.HasPrefix(r.Route, "/organisation/") {
			counts[r.Method+" "+r.Route]++
		}
	}
	fmt.Printf("\nEverything has come to its end. It took %d of the 5,000 requests an hour:\n\n", d.Sim.Count(""))
	for _, route := range slices.Sorted(maps.Keys(counts)) {
		fmt.Printf("  %4d  %s\n", counts[route], route)
	}
}

// keep leaves everything running to play with.
func (d *demo) keep(ctx context.Context) {
	fmt.Printf(`
Everything goes on until Ctrl-C. In another terminal:

  export KUBECONFIG=%[1]s
  alias kubectl=%[2]s
  kubectl get connect -w
  kubectl describe artefact.rpi-connect.dev/kiosk-v1.0
  kubectl explain artefact.spec --api-version=rpi-connect.dev/v1alpha1
  grep kiosk-v1.0 %[5]s

  curl -H 'Authorization: Bearer %[3]s' %[4]s/organisation/artefacts
  curl -X PUT %[4]s/_sim/pis/shop-window --data '{"offline": false}'

docs/simulator.md says what else can be done with the simulator.
`, d.kubeconfig, d.cluster.Kubectl(), d.Token, d.URL, d.logFile())
	<-ctx.Done()
}

func (d *demo) end() {
	if d.manager != nil {
		d.manager.Stop()
	}
	if d.Sim != nil {
		d.Sim.Close()
	}
	if d.cluster != nil {
		_ = d.cluster.Stop()
	}
}

// terminal shows a text that changes: in place if it is one, one after the other
// elsewhere.
type terminal struct {
	inPlace bool
	shown   string
}

func (s *terminal) show(text string) {
	if withoutAge(text) == withoutAge(s.shown) {
		return
	}
	if s.inPlace && s.shown != "" {
		fmt.Printf("\033[%dA\033[J", strings.Count(s.shown, "\n"))
	} else if s.shown != "" {
		fmt.Println()
	}
	fmt.Print(text)
	s.shown = text
}

// say prints what stays, between two tables.
func (s *terminal) say(text string) {
	fmt.Print(text)
	s.shown = ""
}

// withoutAge leaves out what changes by itself: the last column.
func withoutAge(table string) string {
	var b strings.Builder
	for line := range strings.Lines(table) {
		line = strings.TrimRight(line, " \n")
		if at := strings.LastIndex(line, " "); at >= 0 {
			line = line[:at]
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
