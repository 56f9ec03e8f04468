// SPDX-License-Identifier: Apache-2.0

package gitops_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/test/cluster"
)

// ours are those of the operator's kinds.
func ours(objects []*unstructured.Unstructured) (kept []*unstructured.Unstructured) {
	for _, obj := range objects {
		if obj.GroupVersionKind().Group == v1alpha1.GroupVersion.Group {
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
	Fail(fmt.Sprintf("there is no %s %s", kind, name))
	return nil
}

// statuses is what kstatus makes of objects, with its message: "Current: …".
func (s *site) statuses(ctx context.Context, objects []*unstructured.Unstructured) func() map[string]string {
	return func() map[string]string {
		GinkgoHelper()
		statuses := map[string]string{}
		for _, obj := range s.live(ctx, objects) {
			result, err := status.Compute(obj)
			Expect(err).NotTo(HaveOccurred())
			statuses[obj.GetKind()+"/"+obj.GetName()] = fmt.Sprintf("%s: %s", result.Status, result.Message)
		}
		return statuses
	}
}

var (
	inProgress  = HaveEach(HavePrefix("InProgress: "))
	current     = HaveEach(HavePrefix("Current: "))
	terminating = HaveEach(HavePrefix("Terminating: "))
)

var _ = Describe("kstatus", func() {
	It("follows every kind from the beginning to the end", func(ctx context.Context) {
		s := newSite(ctx)
		git := ours(s.git(ctx, ""))
		kinds := map[string]bool{}
		for _, obj := range git {
			kinds[obj.GetKind()] = true
		}
		Expect(kinds).To(HaveLen(len(cluster.Lists())), "the samples have every kind")

		By("nobody having seen it yet")
		s.reconcile(ctx, s.git(ctx, ""))
		Expect(s.statuses(ctx, git)()).To(inProgress)

		By("Connect being out")
		outage := s.Sim.Inject(connectsim.Fault{Status: 503})
		s.start(ctx)
		Eventually(s.reasons(ctx, git)).Should(HaveEach(BeElementOf(v1alpha1.ReasonConnectUnavailable, v1alpha1.ReasonArtefactNotReady)))
		Expect(s.statuses(ctx, git)()).To(inProgress)

		By("its coming to its end")
		outage.Clear()
		Eventually(s.statuses(ctx, git)).Should(current)

		By("Connect being out again")
		outage = s.Sim.Inject(connectsim.Fault{Status: 503})
		requests := s.Sim.Count("GET /organisation/artefacts")
		Eventually(s.Sim.Count).WithArguments("GET /organisation/artefacts").Should(BeNumerically(">", requests))
		Expect(s.statuses(ctx, git)()).To(current)
		outage.Clear()

		By("nobody having seen a change")
		s.stop()
		changed := s.git(ctx, deletionPolicy)
		s.reconcile(ctx, changed)
		Expect(s.statuses(ctx, git)()).To(inProgress)
		s.start(ctx)
		Eventually(s.statuses(ctx, git)).Should(current)

		By("its being deleted")
		s.stop()
		for _, obj := range git {
			// A FleetRollout waits for nothing but its Deployments.
			Expect(control.Client.Delete(ctx, obj, client.PropagationPolicy(metav1.DeletePropagationForeground))).To(Succeed())
		}
		Expect(s.statuses(ctx, git)()).To(terminating)
		s.start(ctx)
		Eventually(s.gone(ctx, git)).Should(BeTrue())
	})

	It("calls every kind failed that a person has to look at", func(ctx context.Context) {
		s := newSite(ctx)
		s.Org.AddArtefact("Signage 2026.11", "https://updates.example.com/other.tar.zst", strings.Repeat("0a", 32))
		taken := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: "kiosk-lobby"}}
		Expect(control.Client.Create(ctx, taken)).To(Succeed())
		for _, name := range []string{"kiosk-cafe", "screen-1", "screen-2"} {
			s.Pis[name].Behave(connectsim.Behaviour{FailWith: "Checksum mismatch"})
		}
		s.start(ctx)
		git := s.git(ctx, failures)
		again := find(git, "Device", "shop-window").DeepCopy()
		again.SetName("shop-window-again")
		git = append(git, again)
		s.reconcile(ctx, git)
		Eventually(s.statuses(ctx, git)).Should(SatisfyAll(
			HaveKeyWithValue("Artefact/signage-2026.11", HavePrefix("Failed: ")),
			HaveKeyWithValue("AuthKey/kiosk-lobby", HavePrefix("Failed: ")),
			HaveKeyWithValue("DeviceIdentity/kiosk-cafe", HavePrefix("Failed: ")),
			HaveKeyWithValue("Device/shop-window-again", HavePrefix("Failed: ")),
			HaveKeyWithValue("Deployment/kiosk-cafe-v1.1", HavePrefix("Failed: ")),
			HaveKeyWithValue("FleetRollout/kiosk", HavePrefix("Failed: ")),
			HaveKeyWithValue("Deployment/window-2026.11", HavePrefix("InProgress: ")), // its Artefact may become ready yet
		))
	})
})

// failures are what is wrong in the manifests: a signature that is none.
const failures = `
- target: {group: rpi-connect.dev, kind: DeviceIdentity}
  patch: |
    - {op: replace, path: /spec/signing, value: {signature: bm8gc2lnbmF0dXJl}}
`

// gone tells whether nothing of that is there any more.
func (s *site) gone(ctx context.Context, objects []*unstructured.Unstructured) func() bool {
	return func() bool {
		for _, obj := range objects {
			if err := control.Client.Get(ctx, client.ObjectKeyFromObject(obj), obj.DeepCopy()); !apierrors.IsNotFound(err) {
				return false
			}
		}
		return true
	}
}

// deletionPolicy changes the spec of everything, in a way that changes nothing in Connect.
const deletionPolicy = `
- target: {group: rpi-connect.dev}
  patch: |
    - {op: add, path: /spec/deletionPolicy, value: Delete}
`

// reasons are those of Ready.
func (s *site) reasons(ctx context.Context, objects []*unstructured.Unstructured) func() map[string]string {
	return func() map[string]string {
		GinkgoHelper()
		reasons := map[string]string{}
		for _, obj := range s.live(ctx, objects) {
			conditions, _, _ := unstructured.NestedSlice(obj.Object, "status", "conditions")
			for _, c := range conditions {
				if condition, _ := c.(map[string]any); condition["type"] == v1alpha1.ConditionReady {
					reasons[obj.GetKind()+"/"+obj.GetName()] = fmt.Sprint(condition["reason"])
				}
			}
		}
		return reasons
	}
}
