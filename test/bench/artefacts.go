// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/test/cluster"
)

// workers is how many clients apply, and how many write for the floor: as many as
// the operator has workers.
const workers = 16

// resync is short, to see what a steady hour costs without waiting for one.
const resync = 10 * time.Second

// row is what one number of Artefacts has cost.
type row struct {
	n                int
	posts, others    int
	writes, events   float64 // per resource
	took, floor      time.Duration
	listing          int // requests of one resync
	steadyReconciles float64
	resident         int64
	restart          int
}

func artefacts(ctx context.Context, numbers []int) error {
	fmt.Println("\nArtefacts, from the first apply to all Ready. The floor is the same applies and the same writes by a bare client.")
	fmt.Println("The simulator's hourly limit is lifted: 10,000 POSTs would take two hours with it.")
	fmt.Println("\n| Artefacts | POSTs | other requests | writes per resource (+ events) | time | floor | ratio | requests after a restart | requests per steady hour | reconciles per steady minute | resident memory |")
	fmt.Println("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
	for _, n := range numbers {
		var r row
		err := withCluster(ctx, func(c *cluster.Cluster, binary string) error {
			var err error
			r, err = measureArtefacts(ctx, c, binary, n)
			return err
		})
		if err != nil {
			return err
		}
		hourly := float64(r.listing) * float64(time.Hour) / float64(10*time.Minute)
		fmt.Printf("| %d | %d | %d | %.2f (+ %.2f) | %.1f s | %.1f s | %.2f | %d | %.0f | %.0f | %d MiB |\n",
			r.n, r.posts, r.others, r.writes, r.events, r.took.Seconds(), r.floor.Seconds(),
			float64(r.took)/float64(r.floor), r.restart, hourly, r.steadyReconciles, r.resident>>20)
	}
	return nil
}

func measureArtefacts(ctx context.Context, c *cluster.Cluster, binary string, n int) (row, error) {
	r := row{n: n}
	var err error
	if r.floor, err = floor(ctx, c.Client, n); err != nil {
		return r, err
	}
	b, err := connect(ctx, c, connectsim.Options{RateLimit: 1 << 30})
	if err != nil {
		return r, err
	}
	defer b.Sim.Close()
	sim, url := b.Sim, b.URL

	manager, err := c.StartManager(ctx, binary, "--connect-api-url="+url)
	if err != nil {
		return r, err
	}
	defer func() { manager.Stop() }()
	if err := manager.WaitReady(ctx); err != nil {
		return r, err
	}
	began := time.Now()
	if err := each(ctx, n, func(ctx context.Context, i int) error { return c.Client.Create(ctx, artefact("default", i)) }); err != nil {
		return r, err
	}
	// Looking at ten thousand resources costs as well: not before they can be.
	if err := until(ctx, func() (bool, error) { return sim.Count("POST /organisation/artefacts") >= n, nil }); err != nil {
		return r, err
	}
	if err := allReady(ctx, c.Client, n); err != nil {
		return r, fmt.Errorf("%w\n%s", err, manager.Log())
	}
	r.took = time.Since(began)
	r.posts = sim.Count("POST /organisation/artefacts")
	r.others = sim.Count("") - r.posts
	if r.resident, err = manager.ResidentBytes(); err != nil {
		return r, err
	}
	if err := pause(ctx, 3*time.Second); err != nil { // events come a little later
		return r, err
	}
	resources, events, _, err := c.OperatorWrites(began)
	if err != nil {
		return r, err
	}
	r.writes, r.events = float64(resources)/float64(n), float64(events)/float64(n)

	// A restart, and what is steady after it.
	manager.Stop()
	sim.ResetJournal()
	if manager, err = c.StartManager(ctx, binary, "--connect-api-url="+url, "--resync-interval="+resync.String()); err != nil {
		return r, err
	}
	if err := manager.WaitReady(ctx); err != nil {
		return r, err
	}
	pages := (n + 99) / 100
	if err := until(ctx, func() (bool, error) { return sim.Count("") >= pages, nil }); err != nil {
		return r, err
	}
	if err := quiet(ctx, manager); err != nil {
		return r, err
	}
	r.restart = sim.Count("")
	listed, reconciled := sim.Count(""), reconciles(ctx, manager)
	if err := until(ctx, func() (bool, error) { return sim.Count("") >= listed+2*pages, nil }); err != nil {
		return r, err
	}
	r.listing = (sim.Count("") - listed) / 2
	r.steadyReconciles = (reconciles(ctx, manager) - reconciled) * float64(time.Minute) / float64(2*resync)
	return r, nil
}

// floor is how long the applies and the writes of the operator take a client that
// does nothing else: per resource create, two metadata patches, one status patch,
// one event.
func floor(ctx context.Context, c client.Client, n int) (time.Duration, error) {
	const namespace = "floor"
	if err := c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
		return 0, err
	}
	message := strings.Repeat("x", 60)
	began := time.Now()
	err := each(ctx, n, func(ctx context.Context, i int) error {
		a := artefact(namespace, i)
		if err := c.Create(ctx, a); err != nil {
			return err
		}
		id := fmt.Sprintf("00000000-0000-0000-0000-%012d", i)
		for _, annotations := range []string{
			`{"rpi-connect.dev/create-intent":"` + strings.Repeat("x", 90) + `"}`,
			`{"rpi-connect.dev/create-intent":null,"rpi-connect.dev/id":"` + id + `","rpi-connect.dev/origin":"created"}`,
		} {
			if err := c.Patch(ctx, a, merge(`{"metadata":{"annotations":`+annotations+`}}`)); err != nil {
				return err
			}
		}
		status := fmt.Sprintf(`{"status":{"id":%q,"observedGeneration":1,"conditions":[{"type":"Ready","status":"True","reason":"Available","message":%q,"observedGeneration":1,"lastTransitionTime":%q}]}}`,
			id, message, began.UTC().Format(time.RFC3339))
		if err := c.Status().Patch(ctx, a, merge(status)); err != nil {
			return err
		}
		return c.Create(ctx, &eventsv1.Event{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: a.Name}, EventTime: metav1.NowMicro(),
			ReportingController: "bench", ReportingInstance: "bench", Action: "Create", Reason: "Created", Type: "Normal", Note: message,
			Regarding: corev1.ObjectReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Artefact", Namespace: namespace, Name: a.Name, UID: a.UID},
		})
	})
	took := time.Since(began)
	if err != nil {
		return 0, err
	}
	// What was written for the floor must not be the operator's to manage.
	return took, c.DeleteAllOf(ctx, &v1alpha1.Artefact{}, client.InNamespace(namespace))
}

func merge(patch string) client.Patch {
	return client.RawPatch("application/merge-patch+json", []byte(patch))
}

func artefact(namespace string, i int) *v1alpha1.Artefact {
	name := fmt.Sprintf("artefact-%05d", i)
	return &v1alpha1.Artefact{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       v1alpha1.ArtefactSpec{URI: "https://updates.example.com/" + name + ".tar.zst", Checksum: strings.Repeat("0a", 32)},
	}
}

// each runs work for 0 to n-1, as many at a time as there are workers.
func each(ctx context.Context, n int, work func(context.Context, int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	for i := range n {
		group.Go(func() error { return work(ctx, i) })
	}
	return group.Wait()
}

// allReady waits until n Artefacts are Ready.
func allReady(ctx context.Context, c client.Client, n int) error {
	return until(ctx, func() (bool, error) { return countReady(ctx, c, &v1alpha1.ArtefactList{}, n) })
}
