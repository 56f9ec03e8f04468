// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/test/cluster"
)

// An hour passes in a minute: the window is as long, and everything that is
// measured in hours is shortened as much.
const (
	window = time.Minute
	limit  = 5000
)

// rollout is what one number of Deployments has cost.
type rollout struct {
	n                    int
	throttled            int     // 429s
	requests             float64 // per deployment, from apply to Succeeded
	made                 time.Duration
	mean, worst, best    time.Duration // between two looks at a running deployment
	cancelled, published time.Duration // the longest that an urgent cancellation and a new Artefact took
	writes               float64
	resident             int64
}

func deployments(ctx context.Context, numbers []int) error {
	fmt.Printf("\nDeployments, with an hour in a minute: %d requests per window of %s. All devices stay offline for three windows; then all succeed.\n", limit, window)
	fmt.Println("The best staleness that the budget allows is A running deployments over B requests per window: each seen once every A/B.")
	fmt.Println("\n| Deployments | 429s | requests per deployment, apply to Succeeded | all made after | seen every: mean | worst | best possible | ratio mean | ratio worst | slowest cancellation | slowest new Artefact | writes per deployment | resident memory |")
	fmt.Println("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
	for _, n := range numbers {
		var r rollout
		err := withCluster(ctx, func(c *cluster.Cluster, binary string) error {
			var err error
			r, err = measureDeployments(ctx, c, binary, n)
			return err
		})
		if err != nil {
			return err
		}
		fmt.Printf("| %d | %d | %.1f | %.0f s | %.1f s | %.1f s | %.1f s | %.2f | %.2f | %.1f s | %.1f s | %.2f | %d MiB |\n",
			r.n, r.throttled, r.requests, r.made.Seconds(), r.mean.Seconds(), r.worst.Seconds(), r.best.Seconds(),
			float64(r.mean)/float64(r.best), float64(r.worst)/float64(r.best),
			r.cancelled.Seconds(), r.published.Seconds(), r.writes, r.resident>>20)
	}
	return nil
}

func measureDeployments(ctx context.Context, c *cluster.Cluster, binary string, n int) (rollout, error) {
	r := rollout{n: n, best: max(time.Duration(n)*window/limit, time.Second)}
	b, err := connect(ctx, c, connectsim.Options{RateLimit: limit, Window: window})
	if err != nil {
		return r, err
	}
	defer b.sim.Close()
	for i := range n {
		b.org.AddDevice(connectsim.Device{Name: deploymentName(i), SerialNumber: deploymentName(i)})
	}
	manager, err := c.StartManager(ctx, binary, "--connect-api-url="+b.url,
		"--deployment-poll-min=1s", "--deployment-poll-max=15s", "--resync-interval=10s")
	if err != nil {
		return r, err
	}
	defer func() { manager.Stop() }()
	if err := manager.WaitReady(ctx); err != nil {
		return r, err
	}

	began := time.Now()
	if err := c.Client.Create(ctx, artefact("default", 0)); err != nil {
		return r, err
	}
	if err := each(ctx, n, func(ctx context.Context, i int) error { return c.Client.Create(ctx, deployment(i)) }); err != nil {
		return r, err
	}
	if err := until(ctx, func() (bool, error) { return len(b.org.Deployments("")) >= n, nil }); err != nil {
		return r, fmt.Errorf("%w: %d of %d made\n%s", err, len(b.org.Deployments("")), n, manager.Log())
	}
	r.made = time.Since(began)

	// Everybody is running, and nobody's device is there.
	if err := pause(ctx, window); err != nil {
		return r, err
	}
	steady := time.Now()
	if err := b.urgencies(ctx, c.Client, &r, 3*window+r.best); err != nil {
		return r, err
	}
	r.mean, r.worst = looks(b.sim.Journal(), steady)
	if r.resident, err = manager.ResidentBytes(); err != nil {
		return r, err
	}

	// All devices come back and install.
	for _, d := range b.org.Deployments("") {
		if d.State == connectsim.Pending {
			b.org.MoveDeployment(d.ID, connectsim.Succeeded, "")
		}
	}
	if err := until(ctx, func() (bool, error) { return allOver(ctx, c.Client) }); err != nil {
		return r, err
	}
	r.requests = float64(b.sim.Count("")) / float64(n)
	for _, request := range b.sim.Journal() {
		if request.Status == 429 {
			r.throttled++
		}
	}
	resources, _, _, err := c.OperatorWrites(began)
	r.writes = float64(resources) / float64(n)
	return r, err
}

// urgencies cancels a Deployment and publishes an Artefact every few seconds for
// some time, and notes how long the slowest of each took.
func (b *bench) urgencies(ctx context.Context, c client.Client, r *rollout, d time.Duration) error {
	for i, end := 0, time.Now().Add(d); time.Now().Before(end); i++ {
		cancelled, err := b.cancel(ctx, c, i)
		if err != nil {
			return err
		}
		published, err := b.publish(ctx, c, i+1)
		if err != nil {
			return err
		}
		r.cancelled, r.published = max(r.cancelled, cancelled), max(r.published, published)
		if err := pause(ctx, 5*time.Second); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) cancel(ctx context.Context, c client.Client, i int) (time.Duration, error) {
	began := time.Now()
	obj := &v1alpha1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: deploymentName(i)}}
	if err := c.Patch(ctx, obj, merge(`{"spec":{"cancel":true}}`)); err != nil {
		return 0, err
	}
	const cancel = "PUT /organisation/deployments/{id}/cancel"
	err := soon(ctx, func() bool { return b.sim.Count(cancel) > i })
	return time.Since(began), err
}

func (b *bench) publish(ctx context.Context, c client.Client, i int) (time.Duration, error) {
	began := time.Now()
	obj := artefact("default", i)
	if err := c.Create(ctx, obj); err != nil {
		return 0, err
	}
	err := soon(ctx, func() bool {
		return c.Get(ctx, client.ObjectKeyFromObject(obj), obj) == nil && meta.IsStatusConditionTrue(obj.Status.Conditions, v1alpha1.ConditionReady)
	})
	return time.Since(began), err
}

// looks tells how long running deployments were not looked at: on average, and at
// worst.
func looks(journal []connectsim.Request, since time.Time) (mean, worst time.Duration) {
	seen := map[string]time.Time{}
	var total time.Duration
	n := 0
	for _, request := range journal {
		if request.Method != "GET" || !strings.HasPrefix(request.Route, "/organisation/deployments/") || request.Time.Before(since) {
			continue
		}
		if before, ok := seen[request.Path]; ok {
			gap := request.Time.Sub(before)
			total, n, worst = total+gap, n+1, max(worst, gap)
		}
		seen[request.Path] = request.Time
	}
	return total / time.Duration(max(n, 1)), worst
}

func allOver(ctx context.Context, c client.Client) (bool, error) {
	var list v1alpha1.DeploymentList
	if err := c.List(ctx, &list); err != nil {
		return false, err
	}
	for i := range list.Items {
		if ready := meta.FindStatusCondition(list.Items[i].Status.Conditions, v1alpha1.ConditionReady); ready == nil || ready.Status == metav1.ConditionUnknown {
			return false, nil
		}
	}
	return true, nil
}

func deploymentName(i int) string { return fmt.Sprintf("pi-%05d", i) }

func deployment(i int) *v1alpha1.Deployment {
	return &v1alpha1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: deploymentName(i)},
		Spec: v1alpha1.DeploymentSpec{
			ArtefactRef: &v1alpha1.ArtefactReference{Name: artefact("default", 0).Name},
			Device:      v1alpha1.DeviceReference{Name: deploymentName(i)},
		},
	}
}
