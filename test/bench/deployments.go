// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
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

const (
	postDeployment = "POST /organisation/devices/{id}/deployments"
	putCancel      = "PUT /organisation/deployments/{id}/cancel"
)

// rollout is what it costs to update a fleet.
type rollout struct {
	n             int
	throttled     int
	made, all     time.Duration
	requests      float64 // per deployment, from apply to Succeeded
	polls         float64 // of these, looks at how it is
	writes        float64 // to the API server, per deployment
	residentAtEnd int64
}

// rollouts updates fleets whose devices pick the deployment up within minutes and
// install it in about ten.
func rollouts(ctx context.Context, numbers []int) error {
	fmt.Printf("\nRollouts, with an hour in a minute: %d requests per window of %s. Devices pick a deployment up after 2 s (two minutes) and have installed it after 10 s more.\n", limit, window)
	fmt.Println("\n| Deployments | 429s | all made after | all Succeeded after | requests per deployment | of these, looks at its state | writes per deployment | resident memory |")
	fmt.Println("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
	var all []rollout
	for _, n := range numbers {
		var r rollout
		err := withFleet(ctx, n, func(f *benchFleet) error {
			var err error
			r, err = f.rollout(ctx)
			return err
		}, "--deployment-poll-min=250ms", "--deployment-poll-max=15s", "--resync-interval=10s")
		if err != nil {
			return err
		}
		fmt.Printf("| %d | %d | %.0f s | %.0f s | %.1f | %.1f | %.2f | %d MiB |\n",
			r.n, r.throttled, r.made.Seconds(), r.all.Seconds(), r.requests, r.polls, r.writes, r.residentAtEnd>>20)
		all = append(all, r)
	}
	if few, many := all[0], all[len(all)-1]; many.n > few.n {
		more := float64(many.n - few.n)
		fmt.Printf("\nFrom %d to %d, each further Deployment takes %.1f KiB of memory, %.2f writes and %.1f requests.\n", few.n, many.n,
			float64(many.residentAtEnd-few.residentAtEnd)/1024/more,
			(many.writes*float64(many.n)-few.writes*float64(few.n))/more,
			(many.requests*float64(many.n)-few.requests*float64(few.n))/more)
	}
	return nil
}

// staleness is how fresh what is known of a running fleet is.
type staleness struct {
	n                    int
	throttled            int
	mean, worst, best    time.Duration // between two looks at a running deployment
	cancelled, published time.Duration // the longest that an urgent cancellation and a new Artefact took
	resident             int64
}

// offline leaves fleets without their devices, so that all are running and the
// budget is tight.
func offline(ctx context.Context, numbers []int) error {
	fmt.Println("\nFleets whose devices are all offline, with an hour in a minute, measured over more than three windows. Deployments are due every 5 s, so that the budget is what limits.")
	fmt.Println("The best that it allows is A running deployments over B requests per window: each seen once every A/B. A tenth of the budget is the reserve, which polls leave alone.")
	fmt.Println("\n| running Deployments | 429s | best possible | seen every, mean | at worst | ratio mean | ratio worst | slowest cancellation | slowest new Artefact | resident memory |")
	fmt.Println("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
	for _, n := range numbers {
		var s staleness
		err := withFleet(ctx, n, func(f *benchFleet) error {
			var err error
			s, err = f.staleness(ctx)
			return err
		}, "--deployment-poll-min=250ms", "--deployment-poll-max=5s", "--resync-interval=10s")
		if err != nil {
			return err
		}
		fmt.Printf("| %d | %d | %.1f s | %.1f s | %.1f s | %.2f | %.2f | %.1f s | %.1f s | %d MiB |\n",
			s.n, s.throttled, s.best.Seconds(), s.mean.Seconds(), s.worst.Seconds(),
			float64(s.mean)/float64(s.best), float64(s.worst)/float64(s.best),
			s.cancelled.Seconds(), s.published.Seconds(), s.resident>>20)
	}
	return nil
}

// benchFleet is an organisation with n devices, and a running operator.
type benchFleet struct {
	cluster.Connect
	cluster *cluster.Cluster
	manager *cluster.Manager
	n       int
	began   time.Time
}

func withFleet(ctx context.Context, n int, measure func(*benchFleet) error, flags ...string) error {
	return withCluster(ctx, func(c *cluster.Cluster, binary string) error {
		b, err := connect(ctx, c, connectsim.Options{RateLimit: limit, Window: window})
		if err != nil {
			return err
		}
		defer b.Sim.Close()
		for i := range n {
			b.Org.AddDevice(connectsim.Device{Name: deploymentName(i), SerialNumber: deploymentName(i)})
		}
		manager, err := c.StartManager(ctx, binary, append([]string{"--connect-api-url=" + b.URL}, flags...)...)
		if err != nil {
			return err
		}
		defer manager.Stop()
		if err := manager.WaitReady(ctx); err != nil {
			return err
		}
		f := &benchFleet{Connect: b, cluster: c, manager: manager, n: n, began: time.Now()}
		if err := c.Client.Create(ctx, artefact("default", 0)); err != nil {
			return err
		}
		if err := measure(f); err != nil {
			return fmt.Errorf("%w\n%s", err, manager.Log())
		}
		return nil
	})
}

func (f *benchFleet) apply(ctx context.Context) error {
	return each(ctx, f.n, func(ctx context.Context, i int) error { return f.cluster.Client.Create(ctx, deployment(i)) })
}

func (f *benchFleet) rollout(ctx context.Context) (rollout, error) {
	r := rollout{n: f.n}
	installing, stop := context.WithCancel(ctx)
	defer stop()
	go f.install(installing)
	if err := f.apply(ctx); err != nil {
		return r, err
	}
	if err := until(ctx, func() (bool, error) { return f.Sim.Count(postDeployment) >= f.n, nil }); err != nil {
		return r, err
	}
	r.made = time.Since(f.began)
	if err := until(ctx, func() (bool, error) { return countReady(ctx, f.cluster.Client, &v1alpha1.DeploymentList{}, f.n) }); err != nil {
		return r, err
	}
	r.all = time.Since(f.began)
	r.requests = float64(f.Sim.Count("")) / float64(f.n)
	r.polls = float64(f.Sim.Count("GET /organisation/deployments/{id}")) / float64(f.n)
	r.throttled = throttled(f.Sim.Journal())
	var err error
	if r.residentAtEnd, err = f.manager.ResidentBytes(); err != nil {
		return r, err
	}
	if err := pause(ctx, 2*time.Second); err != nil { // the audit log comes a little later
		return r, err
	}
	resources, _, _, err := f.cluster.OperatorWrites(f.began)
	r.writes = float64(resources) / float64(f.n)
	return r, err
}

// install is what the devices do: each takes its deployment two seconds after it
// was made, and has installed it ten seconds later.
func (f *benchFleet) install(ctx context.Context) {
	for pause(ctx, time.Second) == nil {
		now := time.Now()
		for _, d := range f.Org.Deployments("") {
			switch {
			case d.State == connectsim.Pending && now.Sub(d.CreatedAt) >= 2*time.Second:
				f.Org.MoveDeployment(d.ID, connectsim.InProgress, "")
			case d.State == connectsim.InProgress && now.Sub(d.UpdatedAt) >= 10*time.Second:
				f.Org.MoveDeployment(d.ID, connectsim.Succeeded, "")
			}
		}
	}
}

func (f *benchFleet) staleness(ctx context.Context) (staleness, error) {
	s := staleness{n: f.n, best: time.Duration(f.n) * window / limit}
	if err := f.apply(ctx); err != nil {
		return s, err
	}
	if err := until(ctx, func() (bool, error) { return f.Sim.Count(postDeployment) >= f.n, nil }); err != nil {
		return s, err
	}
	// The windows in which they were made say nothing about those after.
	if err := pause(ctx, window); err != nil {
		return s, err
	}
	steady := time.Now()
	if err := f.urgencies(ctx, &s, 3*window+s.best); err != nil {
		return s, err
	}
	journal := f.Sim.Journal()
	s.mean, s.worst = looks(journal, steady)
	s.throttled = throttled(journal)
	var err error
	s.resident, err = f.manager.ResidentBytes()
	return s, err
}

// urgencies cancels a Deployment and publishes an Artefact every few seconds for
// some time, and notes how long the slowest of each took.
func (f *benchFleet) urgencies(ctx context.Context, s *staleness, d time.Duration) error {
	for i, end := 0, time.Now().Add(d); time.Now().Before(end); i++ {
		cancelled, err := f.cancel(ctx, i)
		if err != nil {
			return err
		}
		published, err := f.publish(ctx, i+1)
		if err != nil {
			return err
		}
		s.cancelled, s.published = max(s.cancelled, cancelled), max(s.published, published)
		if err := pause(ctx, 5*time.Second); err != nil {
			return err
		}
	}
	return nil
}

func (f *benchFleet) cancel(ctx context.Context, i int) (time.Duration, error) {
	began := time.Now()
	obj := &v1alpha1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: deploymentName(i)}}
	if err := f.cluster.Client.Patch(ctx, obj, merge(`{"spec":{"cancel":true}}`)); err != nil {
		return 0, err
	}
	err := soon(ctx, func() bool { return f.Sim.Count(putCancel) > i })
	return time.Since(began), err
}

func (f *benchFleet) publish(ctx context.Context, i int) (time.Duration, error) {
	began := time.Now()
	obj := artefact("default", i)
	if err := f.cluster.Client.Create(ctx, obj); err != nil {
		return 0, err
	}
	err := soon(ctx, func() bool {
		return f.cluster.Client.Get(ctx, client.ObjectKeyFromObject(obj), obj) == nil && meta.IsStatusConditionTrue(obj.Status.Conditions, v1alpha1.ConditionReady)
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
		if request.Method != http.MethodGet || !strings.HasPrefix(request.Route, "/organisation/deployments/") || request.Time.Before(since) {
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

func throttled(journal []connectsim.Request) int {
	n := 0
	for _, request := range journal {
		if request.Status == 429 {
			n++
		}
	}
	return n
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
