// SPDX-License-Identifier: Apache-2.0

package argocd_test

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/argoproj/argo-cd/gitops-engine/pkg/cache"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/diff"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/health"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/sync"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/sync/common"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/utils/kube"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/utils/tracing"
	argov1alpha1 "github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	"github.com/argoproj/argo-cd/v3/util/lua"
	"github.com/go-logr/logr"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rpi-connect.dev/operator/test/cluster"
)

// customizations are what is shipped for argocd-cm, as Argo CD reads it.
func customizations() map[string]argov1alpha1.ResourceOverride {
	GinkgoHelper()
	var configMap struct{ Data map[string]string }
	load(filepath.Join(cluster.Root(), "config", "argocd", "argocd-cm.yaml"), &configMap)
	overrides := map[string]argov1alpha1.ResourceOverride{}
	for key, value := range configMap.Data {
		part, kind, _ := strings.Cut(strings.TrimPrefix(key, "resource.customizations."), ".")
		kind = strings.Replace(kind, "_", "/", 1)
		override := overrides[kind]
		switch part {
		case "health":
			override.HealthLua = value
		case "actions":
			override.Actions = value
		default:
			Fail("what is " + key)
		}
		overrides[kind] = override
	}
	return overrides
}

// application is what an Application is to Argo CD's application controller.
type application struct {
	namespace string
	git       []*unstructured.Unstructured
	// serverSide is the sync option ServerSideApply=true.
	serverSide bool
	// confirmed is the annotation argocd.argoproj.io/deletion-approved.
	confirmed bool

	state   cache.ClusterCache
	health  health.HealthOverride
	kubectl kube.Kubectl
}

func (s *site) application(git []*unstructured.Unstructured) *application {
	GinkgoHelper()
	a := &application{
		namespace: s.Namespace, git: git,
		health:  lua.ResourceHealthOverrides(customizations()),
		kubectl: &kube.KubectlCmd{Log: logr.Discard(), Tracer: tracing.NopTracer{}},
	}
	a.state = cache.NewClusterCache(control.Config, cache.SetNamespaces([]string{s.Namespace}), cache.SetLogr(logr.Discard()),
		cache.SetPopulateResourceInfoHandler(func(obj *unstructured.Unstructured, _ bool) (any, bool) {
			tracked := obj.GetAnnotations()[trackingID] != ""
			return tracked, tracked
		}))
	Expect(a.state.EnsureSynced()).To(Succeed())
	DeferCleanup(func() { a.state.Invalidate() })
	return a
}

const trackingID = "argocd.argoproj.io/tracking-id"

// compare returns what is in Git beside what is in the cluster.
func (a *application) compare() sync.ReconciliationResult {
	GinkgoHelper()
	var targets []*unstructured.Unstructured
	for _, obj := range a.git {
		target := obj.DeepCopy()
		annotate(target, trackingID, fmt.Sprintf("fleet:%s/%s:%s/%s", target.GroupVersionKind().Group, target.GetKind(), a.namespace, target.GetName()))
		targets = append(targets, target)
	}
	live, err := a.state.GetManagedLiveObjs(targets, func(r *cache.Resource) bool { return r.Info == true })
	Expect(err).NotTo(HaveOccurred())
	return sync.Reconcile(targets, live, a.namespace, a.state)
}

// operation is a sync, over as many turns as it takes.
type operation struct {
	app     *application
	phase   common.OperationPhase
	message string
	results []common.ResourceSyncResult
	began   metav1.Time
	// waves are those that were applied.
	waves []int
}

func (a *application) begin() *operation {
	return &operation{app: a, phase: common.OperationRunning, began: metav1.Now()}
}

// turn is what the application controller does for an operation whenever it comes by: it looks at the
// cluster anew and goes on where it was.
func (o *operation) turn() common.OperationPhase {
	GinkgoHelper()
	a := o.app
	foreground := metav1.DeletePropagationForeground
	step, done, err := sync.NewSyncContext("main", a.compare(), control.Config, control.Config, a.kubectl, a.namespace,
		sync.WithLogr(logr.Discard()),
		sync.WithHealthOverride(a.health),
		sync.WithOperationSettings(false, true, false, false),
		sync.WithInitialState(o.phase, o.message, o.results, o.began),
		sync.WithPrunePropagationPolicy(&foreground),
		sync.WithPruneConfirmed(a.confirmed),
		sync.WithServerSideApply(a.serverSide),
		sync.WithServerSideApplyManager("argocd-controller"),
		sync.WithSyncWaveHook(func(_ common.SyncPhase, wave int, _ bool) error {
			o.waves = append(o.waves, wave)
			return nil
		}),
	)
	Expect(err).NotTo(HaveOccurred())
	defer done()
	step.Sync()
	o.phase, o.message, o.results = step.GetState()
	return o.phase
}

// run takes turns until the operation has ended.
func (o *operation) run() common.OperationPhase {
	GinkgoHelper()
	Eventually(func() bool { return o.turn().Completed() }).Should(BeTrue(), func() string { return o.message })
	return o.phase
}

// failures say what went wrong.
func (o *operation) failures() string {
	said := []string{o.message}
	for _, result := range o.results {
		if result.Status == common.ResultCodeSyncFailed || result.HookPhase == common.OperationFailed {
			said = append(said, result.ResourceKey.Kind+"/"+result.ResourceKey.Name+": "+result.Message)
		}
	}
	return strings.Join(said, "\n")
}

// outOfSync are the objects that Argo CD shows as OutOfSync, whichever way it looks for differences.
func (a *application) outOfSync() []string {
	GinkgoHelper()
	result := a.compare()
	dryRun, done, err := a.kubectl.ManageServerSideDiffDryRuns(control.Config)
	Expect(err).NotTo(HaveOccurred())
	defer done()
	differ := map[string]bool{}
	for _, way := range [][]diff.Option{
		{},
		{diff.WithStructuredMergeDiff(true)},
		{diff.WithServerSideDiff(true), diff.WithServerSideDryRunner(diff.NewK8sServerSideDryRunner(dryRun))},
	} {
		if len(way) > 0 && !a.serverSide {
			continue // these are for what is applied by the API server
		}
		way = append(way, diff.WithLogr(logr.Discard()), diff.WithManager("argocd-controller"), diff.WithGVKParser(a.state.GetGVKParser()))
		differences, err := diff.DiffArray(result.Target, result.Live, way...)
		Expect(err).NotTo(HaveOccurred())
		for i, difference := range differences.Diffs {
			switch live, target := result.Live[i], result.Target[i]; {
			case target == nil:
				differ[live.GetKind()+"/"+live.GetName()] = true
			case difference.Modified || live == nil:
				differ[target.GetKind()+"/"+target.GetName()] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(differ))
}

// healths is what Argo CD shows of each object of the operator's kinds, "Healthy: …".
func (a *application) healths(ctx context.Context) func() map[string]string {
	return func() map[string]string {
		GinkgoHelper()
		healths := map[string]string{}
		for _, obj := range live(ctx, a.git) {
			if obj.GetKind() != "Secret" { // it has none
				healths[obj.GetKind()+"/"+obj.GetName()] = a.healthNow(obj)
			}
		}
		return healths
	}
}

// healthOf is what Argo CD shows of one object.
func (a *application) healthOf(ctx context.Context, kind, name string) func() string {
	return func() string {
		GinkgoHelper()
		return a.healthNow(live(ctx, []*unstructured.Unstructured{find(a.git, kind, name)})[0])
	}
}

func (a *application) healthNow(obj *unstructured.Unstructured) string {
	GinkgoHelper()
	status, err := health.GetResourceHealth(obj, a.health)
	Expect(err).NotTo(HaveOccurred())
	Expect(status).NotTo(BeNil(), obj.GetKind())
	return fmt.Sprintf("%s: %s", status.Status, status.Message)
}

// waveOf is the wave of an object in Git.
func waveOf(obj *unstructured.Unstructured) int {
	GinkgoHelper()
	wave, err := strconv.Atoi(obj.GetAnnotations()["argocd.argoproj.io/sync-wave"])
	Expect(err).NotTo(HaveOccurred())
	return wave
}
