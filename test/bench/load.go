// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/test/cluster"
)

// slow is how long Connect takes for an answer while a fifth of everything changes.
const slow = time.Second

// twenty are the resources of an organisation, by kind; one that is larger has a multiple of them.
const twenty = 20

// one measures one organisation with many resources of all kinds.
func one(ctx context.Context, resources int) error {
	return (&load{organisations: 1, each: resources}).measure(ctx)
}

// many measures many organisations with twenty resources each.
func many(ctx context.Context, organisations int) error {
	return (&load{organisations: organisations, each: twenty}).measure(ctx)
}

func (l *load) measure(ctx context.Context) error {
	fmt.Printf("\n%d organisations with %d resources of all kinds each, a fifth of which change at once while every answer of Connect takes %s; and a change of the leader when half of that is done.\n", l.organisations, l.each, slow)
	fmt.Println("The least is as many answers, sixteen at a time. The heap is what is alive after a garbage collection; later is when the event recorder, too, has forgotten the events.")
	return withCluster(ctx, func(c *cluster.Cluster, binary string) error { return l.run(ctx, c, binary) })
}

// load is what one operator has to bear.
type load struct {
	organisations, each int

	cluster *cluster.Cluster
	sim     *connectsim.Server
	orgs    []*connectsim.Organisation
	flags   []string
}

// eventsKept is for how long Kubernetes' event recorder keeps every event, and a little more.
const eventsKept = 13 * time.Minute

// weight is what the operator takes up.
type weight struct {
	goroutines float64
	heap       float64 // MiB
}

func (l *load) run(ctx context.Context, c *cluster.Cluster, binary string) error {
	l.cluster, l.sim = c, connectsim.New(connectsim.Options{RateLimit: 1 << 30})
	defer l.sim.Close()
	url, err := l.sim.Start("")
	if err != nil {
		return err
	}
	// Everything shares this machine, so the API server may be slow to answer.
	l.flags = []string{"--connect-api-url=" + url, "--leader-elect", "--leader-elect-lease-duration=3m", "--resync-interval=1m"}
	first, err := l.start(ctx, binary)
	if err != nil {
		return err
	}
	defer func() { first.Stop() }()
	if err := leads(ctx, first); err != nil {
		return err
	}
	empty, err := weigh(ctx, first)
	if err != nil {
		return err
	}
	if err := l.found(ctx); err != nil {
		return err
	}
	began := time.Now()
	if err := l.apply(ctx, first); err != nil {
		return fmt.Errorf("%w\n%s", err, tail(first.Log()))
	}
	took, asked := time.Since(began), l.sim.Count("")
	full, err := weigh(ctx, first)
	if err != nil {
		return err
	}
	steady, err := l.steady(ctx)
	if err != nil {
		return err
	}
	second, err := l.start(ctx, binary)
	if err != nil {
		return err
	}
	defer func() { second.Stop() }()
	if err := l.change(ctx, first, second); err != nil {
		return fmt.Errorf("%w\n%s", err, tail(second.Log()))
	}
	if err := l.remove(ctx, second); err != nil {
		return fmt.Errorf("%w\n%s", err, tail(second.Log()))
	}
	if err := forgotten(ctx, second); err != nil {
		return fmt.Errorf("%w\n%s", err, tail(second.Log()))
	}
	left, err := weigh(ctx, second)
	if err != nil {
		return err
	}
	if err := pause(ctx, eventsKept); err != nil {
		return err
	}
	later, err := weigh(ctx, second)
	if err != nil {
		return err
	}
	perOrganisation := func(what float64) float64 { return what / float64(l.organisations) }
	fmt.Println("\n| organisations | resources each | all made after | requests per organisation | requests per organisation and steady hour | goroutines: nothing, everything, deleted, later | goroutines per organisation | heap: nothing, everything, deleted, later | heap per organisation |")
	fmt.Println("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
	fmt.Printf("| %d | %d | %.0f s | %.1f | %.0f | %.0f, %.0f, %.0f, %.0f | %.1f | %.1f, %.1f, %.1f, %.1f MiB | %.0f KiB |\n", l.organisations, l.each,
		took.Seconds(), perOrganisation(float64(asked)), perOrganisation(float64(steady)),
		empty.goroutines, full.goroutines, left.goroutines, later.goroutines, perOrganisation(full.goroutines-empty.goroutines),
		empty.heap, full.heap, left.heap, later.heap, 1024*perOrganisation(full.heap-empty.heap))
	return nil
}

func (l *load) start(ctx context.Context, binary string) (*cluster.Manager, error) {
	manager, err := l.cluster.StartManager(ctx, binary, l.flags...)
	if err != nil {
		return nil, err
	}
	return manager, manager.WaitReady(ctx)
}

// alive is done, or an error if the operator has ended: it does when it cannot keep its lease, as on a
// machine that has too much else to do.
func alive(m *cluster.Manager, done func() (bool, error)) func() (bool, error) {
	return func() (bool, error) {
		select {
		case <-m.Exited():
			return false, errors.New("the operator has ended")
		default:
			return done()
		}
	}
}

// leads waits until the operator does its work, with nothing to do.
func leads(ctx context.Context, m *cluster.Manager) error {
	if err := until(ctx, func() (bool, error) {
		leader, err := m.Metric(ctx, "leader_election_master_status")
		return leader == 1, err
	}); err != nil {
		return err
	}
	return quiet(ctx, m)
}

// found makes the organisations, their devices and their tokens' Secrets.
func (l *load) found(ctx context.Context) error {
	for o := range l.organisations {
		token := connectsim.NewSecret("rporg_")
		org := l.sim.AddOrganisation(token)
		for i := range l.of(devicesOf) {
			org.AddDevice(connectsim.Device{Name: "raspberrypi", SerialNumber: deploymentName(i), Model: "5", Memory: "8gb", OS: "raspios-13"})
		}
		l.orgs = append(l.orgs, org)
		if err := l.cluster.PutToken(ctx, organisation(o), token); err != nil {
			return err
		}
	}
	return nil
}

func organisation(o int) string { return fmt.Sprintf("organisation-%04d", o) }

// share is how many of twenty resources are of a kind, and how it is changed.
type share struct {
	kind   string
	twenty int
	name   func(i int) string
	made   string // by which requests they come
	done   string // by which request a change is carried out
	ready  bool   // whether a resource that is made is Ready
	list   client.ObjectList
	object client.Object
	apply  func(ctx context.Context, c client.Client, namespace string, i int) error
	change func(ctx context.Context, c client.Client, obj client.Object) error
}

func patchSpec(spec string) func(context.Context, client.Client, client.Object) error {
	return func(ctx context.Context, c client.Client, obj client.Object) error {
		return c.Patch(ctx, obj, merge(`{"spec":`+spec+`}`))
	}
}

// otherNames is more than any organisation has of a kind.
const otherNames = 50_000

// devicesOf is the kind that wants devices to be there.
const devicesOf = 1

// shares are the kinds. Of an artefact nothing can be changed in the organisation: it is deleted.
func shares() []share {
	return []share{
		{
			kind: "Artefact, deleted", twenty: 6, name: func(i int) string { return artefact("", i).Name },
			made: "POST /organisation/artefacts", done: "DELETE /organisation/artefacts/{id}", ready: true,
			list: &v1alpha1.ArtefactList{}, object: &v1alpha1.Artefact{},
			apply: func(ctx context.Context, c client.Client, namespace string, i int) error {
				return c.Create(ctx, artefact(namespace, i))
			},
			change: func(ctx context.Context, c client.Client, obj client.Object) error { return c.Delete(ctx, obj) },
		},
		{
			kind: "Device, other tags", twenty: 6, name: deploymentName,
			made: patchDevice, done: patchDevice, ready: true,
			list: &v1alpha1.DeviceList{}, object: &v1alpha1.Device{},
			apply: func(ctx context.Context, c client.Client, namespace string, i int) error {
				d := device(i)
				d.Namespace = namespace
				return c.Create(ctx, d)
			},
			change: patchSpec(`{"tags":["window"]}`),
		},
		{
			kind: "DeviceIdentity, other tags", twenty: 3, name: deploymentName,
			made: "POST /organisation/device-identities", done: "PATCH /organisation/device-identities/{id}", ready: true,
			list: &v1alpha1.DeviceIdentityList{}, object: &v1alpha1.DeviceIdentity{},
			apply: newIdentity, change: patchSpec(`{"tags":["window"]}`),
		},
		{
			// Its Secret has its name, and must not be that of an identity's key.
			kind: "AuthKey, other tags", twenty: 3, name: func(i int) string { return deploymentName(i + otherNames) },
			made: "POST /organisation/auth-keys", done: "PATCH /organisation/auth-keys/{id}", ready: true,
			list: &v1alpha1.AuthKeyList{}, object: &v1alpha1.AuthKey{},
			apply: func(ctx context.Context, c client.Client, namespace string, i int) error {
				return newAuthKey(ctx, c, namespace, i+otherNames)
			},
			change: patchSpec(`{"tags":["window"]}`),
		},
		{
			kind: "Deployment, cancelled", twenty: 2, name: deploymentName,
			made: postDeployment, done: putCancel,
			list: &v1alpha1.DeploymentList{}, object: &v1alpha1.Deployment{},
			apply: func(ctx context.Context, c client.Client, namespace string, i int) error {
				d := deployment(i)
				d.Namespace, d.Spec.Device = namespace, v1alpha1.DeviceReference{SerialNumber: deploymentName(i)}
				d.Spec.ArtefactRef.Name = artefact(namespace, 1).Name // which is not among those that are deleted
				return c.Create(ctx, d)
			},
			change: patchSpec(`{"cancel":true}`),
		},
	}
}

// of is how many resources of a kind an organisation has.
func (l *load) of(kind int) int { return l.each * shares()[kind].twenty / twenty }

// fifth is how many of them change: the first, the sixth, and so on.
func (l *load) fifth(kind int) int { return (l.of(kind) + 4) / 5 }

// apply makes everything, and waits until it is there.
func (l *load) apply(ctx context.Context, m *cluster.Manager) error {
	for kind, share := range shares() {
		n := l.of(kind)
		if err := each(ctx, n*l.organisations, func(ctx context.Context, i int) error {
			return share.apply(ctx, l.cluster.Client, organisation(i/n), i%n)
		}); err != nil {
			return fmt.Errorf("apply %s: %w", share.kind, err)
		}
	}
	for kind, share := range shares() {
		n := l.of(kind) * l.organisations
		if err := until(ctx, alive(m, func() (bool, error) { return l.sim.Count(share.made) >= n, nil })); err != nil {
			return fmt.Errorf("%s: %w: %d of %d", share.made, err, l.sim.Count(share.made), n)
		}
		if !share.ready {
			continue
		}
		if err := until(ctx, alive(m, func() (bool, error) { return countReady(ctx, l.cluster.Client, share.list, n) })); err != nil {
			return fmt.Errorf("%s: %w", share.kind, err)
		}
	}
	return nil
}

// steady is how many listings an hour takes at the default interval.
func (l *load) steady(ctx context.Context) (int, error) {
	listed := func() int {
		n := 0
		for _, collection := range []string{"artefacts", "devices", "device-identities", "auth-keys"} {
			n += l.sim.Count("GET /organisation/" + collection)
		}
		return n
	}
	before := listed()
	const resyncs = 2
	if err := pause(ctx, resyncs*time.Minute); err != nil {
		return 0, err
	}
	return (listed() - before) / resyncs * int(time.Hour/(10*time.Minute)), nil
}

// change changes a fifth of everything at once, and ends the leader when half of it is done.
func (l *load) change(ctx context.Context, leader, next *cluster.Manager) error {
	kinds := shares()
	before, expected := make([]int, len(kinds)), 0
	for kind, share := range kinds {
		before[kind] = l.sim.Count(share.done)
		expected += l.fifth(kind) * l.organisations
	}
	done := func() int {
		n := 0
		for kind, share := range kinds {
			n += min(l.sim.Count(share.done)-before[kind], l.fifth(kind)*l.organisations)
		}
		return n
	}
	l.sim.SetLatency(slow)
	defer l.sim.SetLatency(0)
	began := time.Now()
	if err := each(ctx, expected, func(ctx context.Context, i int) error {
		kind := 0
		for ; i >= l.fifth(kind)*l.organisations; kind++ {
			i -= l.fifth(kind) * l.organisations
		}
		obj := kinds[kind].object.DeepCopyObject().(client.Object)
		obj.SetNamespace(organisation(i / l.fifth(kind)))
		obj.SetName(kinds[kind].name(5 * (i % l.fifth(kind))))
		return kinds[kind].change(ctx, l.cluster.Client, obj)
	}); err != nil {
		return err
	}
	applied := time.Since(began)
	if err := until(ctx, alive(leader, func() (bool, error) { return done() >= expected/2, nil })); err != nil {
		return fmt.Errorf("%w: %d of %d", err, done(), expected)
	}
	leader.Stop()
	if err := until(ctx, alive(next, func() (bool, error) { return done() >= expected, nil })); err != nil {
		return fmt.Errorf("%w: %d of %d", err, done(), expected)
	}
	fmt.Printf("\nAll changes were applied after %.1f s.\n", applied.Seconds())
	fmt.Println("\n| what | changed | requests | the least | the last was sent after | ratio |")
	fmt.Println("| --- | ---: | ---: | ---: | ---: | ---: |")
	last := map[string]time.Time{}
	for _, request := range l.sim.Journal() {
		last[request.Method+" "+request.Route] = request.Time
	}
	for kind, share := range kinds {
		n := l.fifth(kind) * l.organisations
		least, took := time.Duration((n+workers-1)/workers)*slow, last[share.done].Sub(began)
		fmt.Printf("| %s | %d | %d | %.0f s | %.1f s | %.2f |\n", share.kind, n, l.sim.Count(share.done)-before[kind],
			least.Seconds(), took.Seconds(), float64(took)/float64(least))
	}
	return nil
}

// remove deletes everything, the Secrets last.
func (l *load) remove(ctx context.Context, m *cluster.Manager) error {
	kinds := shares()
	for _, share := range slices.Backward(kinds) {
		if err := each(ctx, l.organisations, func(ctx context.Context, o int) error {
			return l.cluster.Client.DeleteAllOf(ctx, share.object.DeepCopyObject().(client.Object), client.InNamespace(organisation(o)))
		}); err != nil {
			return err
		}
		if err := until(ctx, alive(m, func() (bool, error) { return l.none(ctx, share.list) })); err != nil {
			return fmt.Errorf("%s: %w", share.kind, err)
		}
	}
	return each(ctx, l.organisations, func(ctx context.Context, o int) error {
		return l.cluster.Client.DeleteAllOf(ctx, &corev1.Secret{}, client.InNamespace(organisation(o)))
	})
}

// none tells whether there is no resource of the list.
func (l *load) none(ctx context.Context, list client.ObjectList) (bool, error) {
	one := &metav1.PartialObjectMetadataList{}
	kind, err := l.cluster.Client.GroupVersionKindFor(list)
	if err != nil {
		return false, err
	}
	one.SetGroupVersionKind(kind)
	err = l.cluster.Client.List(ctx, one, client.Limit(1))
	return len(one.Items) == 0, err
}

// forgotten waits until the operator has forgotten every token: it looks about once a minute for
// those that nothing uses any more.
func forgotten(ctx context.Context, m *cluster.Manager) error {
	return until(ctx, alive(m, func() (bool, error) {
		known, err := m.Metric(ctx, "rpi_connect_budget_limit")
		return known == 0, err
	}))
}

// weigh waits for the next garbage collection, which being asked so often brings about, and tells what
// is alive after it: the collector lets the heap grow to twice as much before the next one.
func weigh(ctx context.Context, m *cluster.Manager) (weight, error) {
	began := float64(time.Now().UnixMilli()) / 1000
	if err := soon(ctx, func() bool {
		collected, err := m.Metric(ctx, "go_memstats_last_gc_time_seconds")
		return err == nil && collected > began
	}); err != nil {
		return weight{}, err
	}
	next, err := m.Metric(ctx, "go_memstats_next_gc_bytes")
	if err != nil {
		return weight{}, err
	}
	goroutines, err := m.Metric(ctx, "go_goroutines")
	return weight{goroutines: goroutines, heap: next / 2 / (1 << 20)}, err
}

// tail is the end of a log: all of it would be read by nobody.
func tail(log string) string { return log[max(0, len(log)-4000):] }
