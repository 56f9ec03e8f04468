// SPDX-License-Identifier: Apache-2.0

package gitops_test

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/test/cluster"
)

// organisation is what is in an organisation.
type organisation struct {
	Artefacts   []connectsim.Artefact
	Identities  []connectsim.Identity
	Keys        []connectsim.AuthKey
	Deployments []connectsim.Deployment
}

func (s *site) organisation() organisation {
	return organisation{s.Org.Artefacts(), s.Org.DeviceIdentities(), s.Org.AuthKeys(), s.Org.Deployments("")}
}

var _ = Describe("Disaster recovery", func() {
	var s *site
	var git []*unstructured.Unstructured
	BeforeEach(func(ctx context.Context) {
		s = newSite(ctx)
		s.start(ctx)
		git = s.git(ctx, "")
		s.reconcile(ctx, git)
		Expect(flux().Wait(git, wait())).To(Succeed())
	})

	It("restores a backup, which has no status, and changes nothing in Connect", func(ctx context.Context) {
		before := s.organisation()
		backup := s.backup(ctx)
		s.stop()
		s.lose(ctx)
		for _, obj := range backup {
			Expect(control.Client.Create(ctx, obj)).To(Succeed())
		}
		s.start(ctx)
		Expect(flux().Wait(git, wait())).To(Succeed())
		s.listAgain()
		Expect(s.organisation()).To(Equal(before))
	})

	It("begins a new cluster from Git, and deploys nothing again", func(ctx context.Context) {
		before := s.organisation()
		s.stop()
		s.lose(ctx)
		s.start(ctx)
		s.reconcile(ctx, git)
		Expect(flux().Wait(git, wait())).To(Succeed())
		s.listAgain()
		after := s.organisation()
		Expect(after.Deployments).To(Equal(before.Deployments))
		Expect(after.Artefacts).To(Equal(before.Artefacts))
		Expect(after.Identities).To(Equal(before.Identities))
		Expect(after.Keys).To(HaveLen(2), "the key that was lost with its Secret, and the one that took its place")
	})

	It("moves to another namespace, and deploys nothing again", func(ctx context.Context) {
		before := s.organisation()
		elsewhere := s.Namespace + "-moved"
		Expect(control.PutToken(ctx, elsewhere, s.Token)).To(Succeed())
		DeferCleanup(control.LetGo, elsewhere)

		By("letting go of everything first")
		s.reconcile(ctx, s.git(ctx, orphan))
		Eventually(s.statuses(ctx, ours(git))).Should(current)

		By("applying what is to be, and then pruning what was")
		var moved []*unstructured.Unstructured
		for _, obj := range git {
			obj = obj.DeepCopy()
			obj.SetNamespace(elsewhere)
			moved = append(moved, obj)
		}
		s.reconcile(ctx, moved)
		Eventually(s.reasons(ctx, moved)).Should(HaveKeyWithValue("Artefact/kiosk-v1.0", v1alpha1.ReasonAlreadyClaimed))
		for _, obj := range git {
			Expect(control.Client.Delete(ctx, obj.DeepCopy())).To(Succeed())
		}
		Eventually(s.gone(ctx, git)).Should(BeTrue())
		Eventually(s.statuses(ctx, ours(moved))).Should(current)
		after := s.organisation()
		Expect(after.Deployments).To(Equal(before.Deployments))
		Expect(after.Artefacts).To(Equal(before.Artefacts))
		Expect(after.Identities).To(Equal(before.Identities))
	})
})

// orphan keeps everything in Connect when its resource goes.
const orphan = `
- target: {group: rpi-connect.dev}
  patch: |
    - {op: add, path: /spec/deletionPolicy, value: Orphan}
`

// backup is what Velero keeps of a namespace: everything but status, owners, and what the API server
// gives out.
func (s *site) backup(ctx context.Context) (backup []client.Object) {
	GinkgoHelper()
	for _, list := range append(cluster.Lists(), &corev1.SecretList{}) {
		Expect(control.Client.List(ctx, list, client.InNamespace(s.Namespace))).To(Succeed())
		Expect(meta.EachListItem(list, func(item runtime.Object) error {
			kind, err := apiutil.GVKForObject(item, cluster.Scheme())
			Expect(err).NotTo(HaveOccurred())
			fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(item)
			Expect(err).NotTo(HaveOccurred())
			obj := &unstructured.Unstructured{Object: fields}
			obj.SetGroupVersionKind(kind)
			unstructured.RemoveNestedField(obj.Object, "status")
			for _, field := range []string{"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "ownerReferences"} {
				unstructured.RemoveNestedField(obj.Object, "metadata", field)
			}
			if obj.GetName() != "connect-access-token" {
				backup = append(backup, obj)
			}
			return nil
		})).To(Succeed())
	}
	return backup
}

// lose lets the cluster forget everything, as if it had burnt down: Connect does not hear of it.
func (s *site) lose(ctx context.Context) {
	GinkgoHelper()
	Expect(control.LetGo(ctx, s.Namespace)).To(Succeed())
	secrets := &corev1.SecretList{}
	Expect(control.Client.List(ctx, secrets, client.InNamespace(s.Namespace))).To(Succeed())
	for _, secret := range secrets.Items {
		if secret.Name != "connect-access-token" {
			Expect(client.IgnoreNotFound(control.Client.Delete(ctx, &secret))).To(Succeed())
		}
	}
	left := &v1alpha1.DeploymentList{}
	Eventually(func() []v1alpha1.Deployment {
		Expect(control.Client.List(ctx, left, client.InNamespace(s.Namespace))).To(Succeed())
		return left.Items
	}).Should(BeEmpty())
}
