// SPDX-License-Identifier: Apache-2.0

package install_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"rpi-connect.dev/operator/test/cluster"
)

// A folder of testdata is named after a version and has crds.yaml, its CRDs without descriptions;
// objects.yaml, what its operator made of the samples. Where its rules were less strict than today's, it has
// what only they took: in tightened.yaml by rules about one field, which an API server does not apply to
// fields that stay as they are; in tightened-together.yaml by rules about several fields, which it applies
// as soon as the spec changes.
func TestCRDsTakeWhatEarlierOnesTook(t *testing.T) {
	g := NewWithT(t)
	versions, err := filepath.Glob("testdata/*")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(versions).NotTo(BeEmpty())
	control := emptyCluster(t)
	for _, folder := range versions {
		passed := t.Run(filepath.Base(folder), func(t *testing.T) {
			u := upgrade{NewWithT(t), control}
			before := envtest.CRDInstallOptions{Paths: []string{filepath.Join(folder, "crds.yaml")}, ErrorIfPathMissing: true}
			_, err := envtest.InstallCRDs(control.Config, before)
			u.Expect(err).NotTo(HaveOccurred())
			objects := items(t, filepath.Join(folder, "objects.yaml"))
			u.Expect(objects).NotTo(BeEmpty())
			tightened := items(t, filepath.Join(folder, "tightened.yaml"))
			together := items(t, filepath.Join(folder, "tightened-together.yaml"))
			all := slices.Concat(objects, tightened, together)
			for _, obj := range all {
				u.create(t.Context(), obj)
			}

			today := envtest.CRDInstallOptions{Paths: []string{filepath.Join(cluster.Root(), "config/crd/bases")}, ErrorIfPathMissing: true}
			_, err = envtest.InstallCRDs(control.Config, today)
			u.Expect(err).NotTo(HaveOccurred())
			for _, obj := range all {
				u.isKept(t.Context(), obj)
				u.canBeWorkedOn(t.Context(), obj)
			}
			for _, obj := range slices.Concat(tightened, together) {
				u.isRefusedAnew(t.Context(), obj)
			}
			for _, obj := range slices.Concat(objects, tightened) {
				u.canBeEdited(t.Context(), obj)
			}
			u.storesWhatItStored(t.Context())
			u.clean(t.Context())
		})
		if !passed {
			return // the next version needs an empty cluster
		}
	}
}

type upgrade struct {
	*WithT

	control *cluster.Cluster
}

func (u upgrade) create(ctx context.Context, obj *unstructured.Unstructured) {
	for _, assigned := range []string{"creationTimestamp", "generation", "ownerReferences", "resourceVersion", "uid"} {
		unstructured.RemoveNestedField(obj.Object, "metadata", assigned)
	}
	status, has := obj.Object["status"]
	u.Expect(u.control.Client.Create(ctx, obj)).To(Succeed(), name(obj))
	if has {
		obj.Object["status"] = status
		u.Expect(u.control.Client.Status().Update(ctx, obj)).To(Succeed(), name(obj))
	}
}

// isKept tells that the object reads as it was written.
func (u upgrade) isKept(ctx context.Context, obj *unstructured.Unstructured) {
	now := obj.DeepCopy()
	u.Expect(u.control.Client.Get(ctx, client.ObjectKeyFromObject(obj), now)).To(Succeed(), name(obj))
	u.Expect(now.Object).To(Equal(obj.Object), name(obj))
}

// canBeWorkedOn does what a GitOps engine does with an object that is as in Git, and the operator.
func (u upgrade) canBeWorkedOn(ctx context.Context, obj *unstructured.Unstructured) {
	declared := &unstructured.Unstructured{Object: map[string]any{"spec": obj.DeepCopy().Object["spec"]}}
	declared.SetGroupVersionKind(obj.GroupVersionKind())
	declared.SetNamespace(obj.GetNamespace())
	declared.SetName(obj.GetName())
	engine := []client.ApplyOption{client.FieldOwner("gitops"), client.ForceOwnership}
	u.Expect(u.control.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(declared), engine...)).To(Succeed(), name(obj))
	u.Expect(u.control.Client.Patch(ctx, obj.DeepCopy(), merge(`{"metadata": {"annotations": {"rpi-connect.dev/reconcile-requested-at": "now"}}}`))).To(Succeed(), name(obj))
	u.Expect(u.control.Client.Patch(ctx, obj.DeepCopy(), merge(`{"metadata": {"finalizers": ["rpi-connect.dev/finalizer"]}}`))).To(Succeed(), name(obj))
	u.Expect(u.control.Client.Status().Patch(ctx, obj.DeepCopy(), merge(`{"status": {"observedGeneration": 7}}`))).To(Succeed(), name(obj))
}

// canBeEdited changes a field that the rules are not about.
func (u upgrade) canBeEdited(ctx context.Context, obj *unstructured.Unstructured) {
	policy := "Orphan"
	if kept, _, _ := unstructured.NestedString(obj.Object, "spec", "deletionPolicy"); kept == policy {
		policy = "Delete"
	}
	u.Expect(u.control.Client.Patch(ctx, obj.DeepCopy(), merge(`{"spec": {"deletionPolicy": "`+policy+`"}}`))).To(Succeed(), name(obj))
}

func (u upgrade) isRefusedAnew(ctx context.Context, obj *unstructured.Unstructured) {
	anew := &unstructured.Unstructured{Object: maps.Clone(obj.Object)}
	anew.Object["metadata"] = map[string]any{"namespace": obj.GetNamespace(), "name": obj.GetName() + "-anew"}
	u.Expect(u.control.Client.Create(ctx, anew, client.DryRunAll)).To(Satisfy(apierrors.IsInvalid), name(obj))
}

// storesWhatItStored tells that nothing has to be migrated.
func (u upgrade) storesWhatItStored(ctx context.Context) {
	var crds apiextensionsv1.CustomResourceDefinitionList
	u.Expect(u.control.Client.List(ctx, &crds)).To(Succeed())
	u.Expect(crds.Items).To(HaveLen(len(cluster.Kinds())))
	for _, crd := range crds.Items {
		u.Expect(crd.Status.StoredVersions).To(Equal([]string{"v1alpha1"}), crd.Name)
	}
}

// clean lets everything go, and the CRDs with it.
func (u upgrade) clean(ctx context.Context) {
	for _, list := range cluster.Lists() {
		u.Expect(u.control.Client.List(ctx, list)).To(Succeed())
		u.Expect(meta.EachListItem(list, func(item runtime.Object) error {
			obj := item.(client.Object)
			letGo := u.control.Client.Patch(ctx, obj, merge(`{"metadata": {"finalizers": null}}`))
			return errors.Join(letGo, u.control.Client.Delete(ctx, obj))
		})).To(Succeed())
	}
	u.Expect(u.control.Client.DeleteAllOf(ctx, &apiextensionsv1.CustomResourceDefinition{})).To(Succeed())
	u.Eventually(ctx, func() ([]apiextensionsv1.CustomResourceDefinition, error) {
		var crds apiextensionsv1.CustomResourceDefinitionList
		err := u.control.Client.List(ctx, &crds)
		return crds.Items, err
	}).WithTimeout(time.Minute).Should(BeEmpty())
}

// items are the objects of a List; none where there is no such file.
func items(t *testing.T, path string) []*unstructured.Unstructured {
	t.Helper()
	g := NewWithT(t)
	file, err := os.Open(path)
	if os.IsNotExist(err) {
		return nil
	}
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = file.Close() }()
	lists, err := cluster.Objects(file)
	g.Expect(err).NotTo(HaveOccurred())
	var objects []*unstructured.Unstructured
	for _, list := range lists {
		g.Expect(list.EachListItem(func(item runtime.Object) error {
			objects = append(objects, item.(*unstructured.Unstructured))
			return nil
		})).To(Succeed())
	}
	return objects
}

func merge(patch string) client.Patch {
	return client.RawPatch(types.MergePatchType, []byte(patch))
}

func name(obj *unstructured.Unstructured) string { return obj.GetKind() + " " + obj.GetName() }
