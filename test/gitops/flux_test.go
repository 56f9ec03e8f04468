// SPDX-License-Identifier: Apache-2.0

package gitops_test

import (
	"context"
	"strings"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/polling"
	"github.com/fluxcd/pkg/ssa"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
)

// flux is the apply engine of Flux's kustomize-controller, with its name.
func flux() *ssa.ResourceManager {
	poller := polling.NewStatusPoller(control.Client, control.Client.RESTMapper(), polling.Options{})
	return ssa.NewResourceManager(control.Client, poller, ssa.Owner{
		Field: "kustomize-controller", Group: "kustomize.toolkit.fluxcd.io",
	})
}

// reconcile applies what is in Git as a Kustomization does, and tells what became of each object.
func (s *site) reconcile(ctx context.Context, git []*unstructured.Unstructured) map[string]ssa.Action {
	GinkgoHelper()
	var copies []*unstructured.Unstructured
	for _, obj := range git {
		copies = append(copies, obj.DeepCopy()) // applying writes the answers into them
	}
	manager := flux()
	manager.SetOwnerLabels(copies, "fleet", s.Namespace)
	changes, err := manager.ApplyAllStaged(ctx, copies, ssa.DefaultApplyOptions())
	Expect(err).NotTo(HaveOccurred())
	return changes.ToMap()
}

func wait() ssa.WaitOptions {
	return ssa.WaitOptions{Interval: 100 * time.Millisecond, Timeout: 30 * time.Second, FailFast: true}
}

// git is what the samples are in Git.
func (s *site) git(ctx context.Context, more string) []*unstructured.Unstructured {
	GinkgoHelper()
	manifests, err := s.Manifests(ctx, more)
	Expect(err).NotTo(HaveOccurred())
	return manifests
}

var _ = Describe("Flux", func() {
	It("applies, waits, finds nothing to do, and prunes", func(ctx context.Context) {
		s := newSite(ctx)
		s.start(ctx)
		git := s.git(ctx, "")

		By("applying, and waiting until everything is ready")
		Expect(s.reconcile(ctx, git)).To(HaveEach(ssa.CreatedAction))
		Expect(flux().Wait(git, wait())).To(Succeed())

		By("applying the same again, also after another listing of everything")
		before := s.versions(ctx, git)
		Expect(s.reconcile(ctx, git)).To(HaveEach(ssa.UnchangedAction))
		s.listAgain()
		Expect(s.reconcile(ctx, git)).To(HaveEach(ssa.UnchangedAction))
		Expect(s.versions(ctx, git)).To(Equal(before))

		By("undoing what somebody has added")
		tagged := find(git, "Device", "shop-window").DeepCopy()
		tags := []byte(`{"spec":{"tags":["signage","street","wrong"]}}`)
		Expect(control.Client.Patch(ctx, tagged, client.RawPatch(types.MergePatchType, tags), client.FieldOwner("somebody"))).To(Succeed())
		Expect(s.reconcile(ctx, git)).To(HaveKeyWithValue("Device/"+s.Namespace+"/shop-window", ssa.ConfiguredAction))
		Eventually(s.Org.Devices).Should(ContainElement(And(HaveField("Name", "shop-window"), HaveField("Tags", ConsistOf("signage", "street")))))

		By("keeping its labels to itself")
		key := &corev1.Secret{}
		Expect(control.Client.Get(ctx, client.ObjectKey{Namespace: s.Namespace, Name: "kiosk-lobby"}, key)).To(Succeed())
		Expect(key.Labels).NotTo(HaveKey(HavePrefix("kustomize.toolkit.fluxcd.io/")))
		var deployments v1alpha1.DeploymentList
		Expect(control.Client.List(ctx, &deployments, client.InNamespace(s.Namespace), client.HasLabels{v1alpha1.LabelRollout})).To(Succeed())
		Expect(deployments.Items).To(HaveLen(2))
		Expect(deployments.Items).NotTo(ContainElement(HaveField("Labels", HaveKey(HavePrefix("kustomize.toolkit.fluxcd.io/")))))

		By("pruning what is in Git no longer, which waits for Connect")
		outage := s.Sim.Inject(connectsim.Fault{Status: 503})
		stale, err := flux().DeleteAll(ctx, git, ssa.DefaultDeleteOptions())
		Expect(err).NotTo(HaveOccurred())
		short := wait()
		short.Timeout = time.Second
		Expect(flux().WaitForSetTermination(stale, short)).To(MatchError(ContainSubstring("termination timeout")))
		Expect(s.Org.AuthKeys()).NotTo(BeEmpty())
		outage.Clear()
		Expect(flux().WaitForSetTermination(stale, wait())).To(Succeed())
		Expect(s.Org.AuthKeys()).To(BeEmpty())
	})

	It("ends at once when something has failed for good", func(ctx context.Context) {
		s := newSite(ctx)
		s.Pis["kiosk-cafe"].Behave(connectsim.Behaviour{FailWith: "Checksum mismatch"})
		s.start(ctx)
		git := s.git(ctx, "")
		s.reconcile(ctx, git)
		Expect(flux().Wait(git, wait())).To(MatchError(And(
			ContainSubstring("failed early due to stalled resources"), ContainSubstring("/kiosk-cafe-v1.1 status: 'Failed'"))))
	})

	It("goes on waiting through an outage of Connect", func(ctx context.Context) {
		s := newSite(ctx)
		s.start(ctx)
		outage := s.Sim.Inject(connectsim.Fault{Status: 503})
		git := s.git(ctx, "")
		s.reconcile(ctx, git)
		short := wait()
		short.Timeout = 2 * time.Second
		Expect(flux().Wait(git, short)).To(MatchError(And(ContainSubstring("timeout waiting for"), Not(ContainSubstring("'Failed'")))))
		outage.Clear()
		Expect(flux().Wait(git, wait())).To(Succeed())
	})
})

// versions are the resource versions of objects: one that changes was written.
func (s *site) versions(ctx context.Context, objects []*unstructured.Unstructured) map[string]string {
	GinkgoHelper()
	versions := map[string]string{}
	for _, obj := range s.live(ctx, objects) {
		versions[obj.GetKind()+"/"+obj.GetName()] = obj.GetResourceVersion()
	}
	return versions
}

// live reads objects.
func (s *site) live(ctx context.Context, objects []*unstructured.Unstructured) []*unstructured.Unstructured {
	GinkgoHelper()
	var live []*unstructured.Unstructured
	for _, obj := range objects {
		obj = obj.DeepCopy()
		Expect(control.Client.Get(ctx, client.ObjectKeyFromObject(obj), obj)).To(Succeed())
		live = append(live, obj)
	}
	return live
}

// listAgain waits until every collection has been listed once more, from beginning to end.
func (s *site) listAgain() {
	GinkgoHelper()
	for _, listing := range []string{"artefacts", "auth-keys", "device-identities", "devices"} {
		route := "GET /organisation/" + listing
		Eventually(s.Sim.Count).WithArguments(route).Should(BeNumerically(">=", s.Sim.Count(route)+2), strings.TrimPrefix(route, "GET "))
	}
}
