// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/test/cluster"
	"rpi-connect.dev/operator/test/invariants"
)

// fleet is what every story has: a namespace with an access token, the
// organisation that it opens, and the operator.
type fleet struct {
	client.Client
	cluster.Connect
	ns string

	manager *cluster.Manager
	account string // whose rights the operator has
	flags   []string
	logs    []string // of operators that have ended, and their metrics
}

var fleets int

// newFleet makes a namespace and an organisation; the operator is started by
// start.
func newFleet(ctx context.Context, options connectsim.Options) *fleet {
	GinkgoHelper()
	fleets++
	connect, err := cluster.ServeConnect(options)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(connect.Sim.Close)
	f := &fleet{Client: control.Client, Connect: connect, ns: fmt.Sprintf("fleet-%d", fleets), account: cluster.OperatorServiceAccount}
	DeferCleanup(control.LetGo, f.ns)
	DeferCleanup(f.expectNoSecrets)
	DeferCleanup(f.stop)
	f.putToken(ctx, f.Token)
	return f
}

// start starts the operator, at the highest verbosity, and waits until it works.
func (f *fleet) start(ctx context.Context, flags ...string) {
	GinkgoHelper()
	if len(flags) > 0 {
		f.flags = flags
	}
	var err error
	f.manager, err = control.StartManagerAs(ctx, f.account, binary, append([]string{"--connect-api-url=" + f.URL, "--zap-log-level=10"}, f.flags...)...)
	Expect(err).NotTo(HaveOccurred())
	Expect(f.manager.WaitReady(ctx)).To(Succeed())
}

// stop ends the operator, if it runs.
func (f *fleet) stop() {
	if f.manager != nil {
		if metrics, err := f.manager.Metrics(context.Background()); err == nil {
			f.logs = append(f.logs, metrics)
		}
		f.manager.Stop()
		f.logs = append(f.logs, f.manager.Log())
		if CurrentSpecReport().Failed() {
			AddReportEntry("operator log", tail(f.manager.Log(), 200))
		}
		f.manager = nil
	}
}

// kill ends the operator in the middle of whatever it is doing.
func (f *fleet) kill() { f.end((*cluster.Manager).Kill) }

// end ends the operator in some way, and keeps its log.
func (f *fleet) end(how func(*cluster.Manager)) {
	how(f.manager)
	f.logs = append(f.logs, f.manager.Log())
	f.manager = nil
}

func tail(text string, lines int) string {
	all := strings.Split(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// putToken writes the Secret that resources use by default.
func (f *fleet) putToken(ctx context.Context, token string) {
	GinkgoHelper()
	Expect(control.PutToken(ctx, f.ns, token)).To(Succeed())
}

func (f *fleet) meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: f.ns, Name: name}
}

// artefact returns an Artefact that can be created.
func (f *fleet) artefact(name string) *v1alpha1.Artefact {
	return &v1alpha1.Artefact{ObjectMeta: f.meta(name), Spec: v1alpha1.ArtefactSpec{
		URI:      "https://updates.example.com/" + name + ".tar.zst?signature=" + uriSecret,
		Checksum: strings.Repeat("0a", 32),
	}}
}

// uriSecret is in the query of every artefact's URI; nobody may see it.
const uriSecret = "presigned-0123456789"

// annotate sets an annotation; nil removes it.
func (f *fleet) annotate(ctx context.Context, obj client.Object, key string, value any) {
	GinkgoHelper()
	text := "null"
	if value != nil {
		text = fmt.Sprintf("%q", value)
	}
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}}}`, key, text)
	Expect(f.Patch(ctx, obj, client.RawPatch("application/merge-patch+json", []byte(patch)))).To(Succeed())
}

// ready gives what a user sees of a resource: Ready, reason and message, "True
// Available: …"; empty while there is nothing to see for this generation.
func (f *fleet) ready(ctx context.Context, obj lifecycle.Object) func() string {
	return func() string {
		if err := f.Get(ctx, client.ObjectKeyFromObject(obj), obj); err != nil {
			return err.Error()
		}
		Expect(invariants.Check(obj)).To(Succeed())
		return invariants.Ready(obj)
	}
}

// gone tells whether a resource is gone.
func (f *fleet) gone(ctx context.Context, obj client.Object) func() bool {
	return func() bool {
		err := f.Get(ctx, client.ObjectKeyFromObject(obj), obj)
		return err != nil && client.IgnoreNotFound(err) == nil
	}
}

// events gives the reasons of the events about a resource.
func (f *fleet) events(ctx context.Context, name string) func() []string {
	return func() []string {
		var list eventsv1.EventList
		Expect(f.List(ctx, &list, client.InNamespace(f.ns))).To(Succeed())
		reasons := []string{}
		for _, e := range list.Items {
			if e.Regarding.Name == name {
				reasons = append(reasons, e.Reason)
			}
		}
		return reasons
	}
}

// readyCount gives how many resources of a list are Ready.
func (f *fleet) readyCount(ctx context.Context, list client.ObjectList) func() int {
	return func() int {
		Expect(f.List(ctx, list, client.InNamespace(f.ns))).To(Succeed())
		n := 0
		Expect(meta.EachListItem(list, func(item runtime.Object) error {
			obj := item.(lifecycle.Object)
			Expect(invariants.Check(obj)).To(Succeed())
			if meta.IsStatusConditionTrue(obj.GetCommonStatus().Conditions, v1alpha1.ConditionReady) {
				n++
			}
			return nil
		})).To(Succeed())
		return n
	}
}

// settledWrites waits until the operator writes nothing for a while, and returns
// what it has written since: to its resources, and events.
func (f *fleet) settledWrites(since time.Time) (resources, events int) {
	GinkgoHelper()
	count := func() [2]int {
		r, e, _, err := control.OperatorWrites(since)
		Expect(err).NotTo(HaveOccurred())
		return [2]int{r, e}
	}
	var last [2]int
	Eventually(func() bool {
		before := last
		last = count()
		return before == last && last != [2]int{}
	}).WithPolling(time.Second).Should(BeTrue())
	return last[0], last[1]
}
