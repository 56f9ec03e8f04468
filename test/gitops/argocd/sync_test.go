// SPDX-License-Identifier: Apache-2.0

package argocd_test

import (
	"context"
	"maps"
	"strings"

	"github.com/argoproj/argo-cd/gitops-engine/pkg/sync/common"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
)

var healthy = HaveEach(HavePrefix("Healthy: "))

var _ = Describe("A sync", func() {
	DescribeTable("applies in waves, stays in sync, heals, and prunes", func(ctx context.Context, serverSide bool) {
		s := newSite(ctx)
		s.start(ctx)
		app := s.application(s.git(ctx, ""))
		app.serverSide = serverSide

		By("applying each wave when the one before is healthy")
		sync := app.begin()
		for !sync.phase.Completed() {
			applied := len(sync.waves)
			sync.turn()
			if len(sync.waves) > applied && applied > 0 {
				before := &application{git: upTo(app.git, sync.waves[applied-1]), health: app.health}
				Expect(before.healths(ctx)()).To(healthy)
			}
		}
		Expect(sync.phase).To(Equal(common.OperationSucceeded), sync.failures())
		Expect(sync.waves).To(Equal([]int{0, 1, 2, 3, 4}))
		Eventually(app.healths(ctx)).Should(healthy)

		By("finding no difference for an hour, which is six listings")
		Eventually(app.outOfSync).Should(BeEmpty())
		before, listings := versionsOf(live(ctx, app.git)), s.Sim.Count("GET /organisation/devices")
		for s.Sim.Count("GET /organisation/devices") < listings+6 {
			Expect(app.outOfSync()).To(BeEmpty())
		}
		Expect(versionsOf(live(ctx, app.git))).To(Equal(before))

		By("healing what somebody changes, and leaving what the operator has noted")
		notes := notesOf(live(ctx, app.git))
		Expect(notes).NotTo(BeEmpty())
		device := find(app.git, "Device", "shop-window").DeepCopy()
		patch(ctx, device, `{"spec":{"tags":["wrong"]}}`)
		Eventually(app.outOfSync).Should(ConsistOf("Device/shop-window"))
		Expect(app.begin().run()).To(Equal(common.OperationSucceeded))
		Eventually(s.Org.Devices).Should(ContainElement(And(HaveField("Name", "shop-window"), HaveField("Tags", ConsistOf("signage", "street")))))
		Eventually(app.outOfSync).Should(BeEmpty())
		Eventually(app.healths(ctx)).Should(healthy)
		Expect(notesOf(live(ctx, app.git))).To(Equal(notes))

		By("bringing a change of Git")
		Expect(unstructured.SetNestedField(find(app.git, "AuthKey", "kiosk-lobby").Object, "for the lobby", "spec", "description")).To(Succeed())
		Eventually(app.outOfSync).Should(ConsistOf("AuthKey/kiosk-lobby"))
		Expect(app.begin().run()).To(Equal(common.OperationSucceeded))
		Eventually(s.Org.AuthKeys).Should(ConsistOf(HaveField("Description", "for the lobby")))
		Expect(notesOf(live(ctx, app.git))).To(Equal(notes))

		By("pruning what is in Git no longer, which waits for Connect, and for a person")
		all := app.git
		identity := find(all, "DeviceIdentity", "kiosk-cafe")
		annotate(identity, "argocd.argoproj.io/sync-options", "Prune=confirm")
		Expect(app.begin().run()).To(Equal(common.OperationSucceeded))
		outage := s.Sim.Inject(connectsim.Fault{Status: 503})
		app.git = nil
		prune := app.begin()
		Eventually(func() string { prune.turn(); return prune.message }).Should(ContainSubstring("waiting for pruning confirmation of rpi-connect.dev/DeviceIdentity/kiosk-cafe"))
		app.confirmed = true
		Eventually(func() string { prune.turn(); return prune.message }).Should(ContainSubstring("waiting for deletion of"))
		Eventually(outage.Hits).Should(BeNumerically(">", 0))
		Expect(prune.turn()).To(Equal(common.OperationRunning))
		Expect(s.Org.AuthKeys()).NotTo(BeEmpty())
		outage.Clear()
		Expect(prune.run()).To(Equal(common.OperationSucceeded), prune.failures())
		Eventually(gone(ctx, all)).Should(BeTrue())
		Expect(s.Org.AuthKeys()).To(BeEmpty())
	},
		Entry("with kubectl's apply", false),
		Entry("with server-side apply", true),
	)

	It("survives an outage of Connect, and an operator that dies", func(ctx context.Context) {
		s := newSite(ctx)
		s.start(ctx)
		outage := s.Sim.Inject(connectsim.Fault{Status: 503})
		app := s.application(s.git(ctx, ""))
		sync := app.begin()
		Eventually(func() int {
			Expect(sync.turn()).To(Equal(common.OperationRunning), sync.failures())
			return outage.Hits()
		}).Should(BeNumerically(">", 5))
		s.Manager.Kill()
		s.Manager = nil
		Expect(sync.turn()).To(Equal(common.OperationRunning), sync.failures())
		s.start(ctx)
		Expect(sync.turn()).To(Equal(common.OperationRunning), sync.failures())
		outage.Clear()
		Expect(sync.run()).To(Equal(common.OperationSucceeded), sync.failures())
		Eventually(app.healths(ctx)).Should(healthy)
	})

	It("ends when something has failed for good", func(ctx context.Context) {
		s := newSite(ctx)
		s.Pis["kiosk-cafe"].Behave(connectsim.Behaviour{FailWith: "Checksum mismatch"})
		s.start(ctx)
		app := s.application(s.git(ctx, ""))
		sync := app.begin()
		Expect(sync.run()).To(Equal(common.OperationFailed))
		Expect(sync.failures()).To(ContainSubstring("Deployment/kiosk-cafe-v1.1: "))
		Expect(sync.waves).To(Equal([]int{0, 1, 2, 3}))
	})

	It("is held up by what waits for a person, if something comes after it", func(ctx context.Context) {
		s := newSite(ctx)
		s.start(ctx)
		app := s.application(s.git(ctx, unapproved))
		annotate(find(app.git, "Device", "shop-window"), "argocd.argoproj.io/sync-wave", "5")
		sync := app.begin()
		Eventually(func() string { sync.turn(); return sync.message }).Should(Equal("waiting for healthy state of rpi-connect.dev/FleetRollout/kiosk"))
		Eventually(app.healthOf(ctx, "FleetRollout", "kiosk")).Should(HavePrefix("Suspended: "))
		Expect(sync.turn()).To(Equal(common.OperationRunning), sync.failures())
		press(ctx, app, "FleetRollout", "kiosk", "approve")
		Expect(sync.run()).To(Equal(common.OperationSucceeded), sync.failures())
	})

	It("deploys nothing again in a cluster that is new", func(ctx context.Context) {
		s := newSite(ctx)
		s.start(ctx)
		app := s.application(s.git(ctx, ""))
		Expect(app.begin().run()).To(Equal(common.OperationSucceeded))
		Eventually(app.healths(ctx)).Should(healthy)
		deployments, artefacts, identities := s.Org.Deployments(""), s.Org.Artefacts(), s.Org.DeviceIdentities()
		Expect(deployments).NotTo(BeEmpty())

		s.stop()
		Expect(control.LetGo(ctx, s.Namespace)).To(Succeed())
		s.start(ctx)
		app = s.application(s.git(ctx, ""))
		sync := app.begin()
		Expect(sync.run()).To(Equal(common.OperationSucceeded), sync.failures())
		Eventually(app.healths(ctx)).Should(healthy)
		Expect(s.Org.Deployments("")).To(Equal(deployments))
		Expect(s.Org.Artefacts()).To(Equal(artefacts))
		Expect(s.Org.DeviceIdentities()).To(Equal(identities))
	})
})

// upTo are the objects up to a wave.
func upTo(objects []*unstructured.Unstructured, wave int) (kept []*unstructured.Unstructured) {
	for _, obj := range objects {
		if waveOf(obj) <= wave {
			kept = append(kept, obj)
		}
	}
	return kept
}

// find returns one of the objects.
func find(objects []*unstructured.Unstructured, kind, name string) *unstructured.Unstructured {
	GinkgoHelper()
	for _, obj := range objects {
		if obj.GetKind() == kind && obj.GetName() == name {
			return obj
		}
	}
	Fail("there is no " + kind + " " + name)
	return nil
}

// live reads objects.
func live(ctx context.Context, objects []*unstructured.Unstructured) []*unstructured.Unstructured {
	GinkgoHelper()
	var live []*unstructured.Unstructured
	for _, obj := range objects {
		obj = obj.DeepCopy()
		Expect(control.Client.Get(ctx, client.ObjectKeyFromObject(obj), obj)).To(Succeed())
		live = append(live, obj)
	}
	return live
}

// gone tells whether nothing of that is there any more.
func gone(ctx context.Context, objects []*unstructured.Unstructured) func() bool {
	return func() bool {
		for _, obj := range objects {
			if err := control.Client.Get(ctx, client.ObjectKeyFromObject(obj), obj.DeepCopy()); !apierrors.IsNotFound(err) {
				return false
			}
		}
		return true
	}
}

func patch(ctx context.Context, obj *unstructured.Unstructured, text string) {
	GinkgoHelper()
	Expect(control.Client.Patch(ctx, obj, client.RawPatch(types.MergePatchType, []byte(text)))).To(Succeed())
}

// versionsOf are the resource versions of objects: one that changes was written.
func versionsOf(objects []*unstructured.Unstructured) map[string]string {
	versions := map[string]string{}
	for _, obj := range objects {
		versions[obj.GetKind()+"/"+obj.GetName()] = obj.GetResourceVersion()
	}
	return versions
}

// notesOf are what the operator has written onto objects: annotations, and its finalizer.
func notesOf(objects []*unstructured.Unstructured) map[string]map[string]string {
	notes := map[string]map[string]string{}
	for _, obj := range objects {
		own := map[string]string{"finalizers": strings.Join(obj.GetFinalizers(), " ")}
		maps.Copy(own, obj.GetAnnotations())
		maps.DeleteFunc(own, func(key, _ string) bool {
			return key != "finalizers" && !strings.HasPrefix(key, v1alpha1.GroupVersion.Group+"/")
		})
		notes[obj.GetKind()+"/"+obj.GetName()] = own
	}
	return notes
}
