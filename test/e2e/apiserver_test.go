// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/test/cluster"
)

// What else the API server does to the operator is played at random, in test/simulation.
var _ = Describe("CRDs that are applied anew", func() {
	It("are taken while the operator works", func(ctx context.Context) {
		f := newFleet(ctx, connectsim.Options{})
		f.start(ctx)
		before, after := f.artefact("kiosk-1"), f.artefact("kiosk-2")
		Expect(f.Create(ctx, before)).To(Succeed())
		Eventually(f.ready(ctx, before)).Should(HavePrefix("True Available"))

		objects, err := cluster.Build(ctx, "config/crd")
		Expect(err).NotTo(HaveOccurred())
		By("applying another version of each, which ends the watches, and then the one before")
		DeferCleanup(applyAll, objects)
		Expect(applyAll(ctx, withAnotherColumn(objects))).To(Succeed())
		Expect(f.Create(ctx, after)).To(Succeed())
		Eventually(f.ready(ctx, after)).Should(HavePrefix("True Available"))
		Expect(applyAll(ctx, objects)).To(Succeed())

		f.Org.RemoveArtefact(before.Status.ID)
		f.annotate(ctx, before, "rpi-connect.dev/reconcile-requested-at", "now")
		Eventually(f.Org.Artefacts).Should(HaveLen(2))
		Eventually(f.ready(ctx, before)).Should(HavePrefix("True Available"))
		Expect(f.Sim.Count("POST /organisation/artefacts")).To(Equal(3), "one each, and one for what was removed")
	})
})

func applyAll(ctx context.Context, objects []*unstructured.Unstructured) error {
	for _, obj := range objects {
		configuration := client.ApplyConfigurationFromUnstructured(obj.DeepCopy())
		if err := control.Client.Apply(ctx, configuration, client.ForceOwnership, client.FieldOwner("kubectl")); err != nil {
			return err
		}
	}
	return nil
}

// withAnotherColumn are the CRDs of another version.
func withAnotherColumn(objects []*unstructured.Unstructured) []*unstructured.Unstructured {
	GinkgoHelper()
	var changed []*unstructured.Unstructured
	for _, obj := range objects {
		if obj.GetKind() != "CustomResourceDefinition" {
			continue
		}
		crd := obj.DeepCopy()
		versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
		Expect(err).NotTo(HaveOccurred())
		version, ok := versions[0].(map[string]any)
		Expect(ok).To(BeTrue())
		columns, _ := version["additionalPrinterColumns"].([]any)
		version["additionalPrinterColumns"] = append(columns, map[string]any{"name": "Generation", "type": "integer", "jsonPath": ".metadata.generation"})
		Expect(unstructured.SetNestedSlice(crd.Object, versions, "spec", "versions")).To(Succeed())
		changed = append(changed, crd)
	}
	return changed
}
