// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// Whether a metadata write insists on the version of the resource that the pass
// has read.
const (
	exactVersion = true
	anyVersion   = false
)

// finalizerChange is what becomes of the operator's finalizer in a write.
type finalizerChange int

const (
	leaveFinalizer finalizerChange = iota
	addFinalizer
	removeFinalizer
)

// fieldOwner is who the operator is for the API server, in every write.
const fieldOwner = client.FieldOwner("rpi-connect-operator")

// patchMetadata writes annotations (nil removes one) and the finalizer. It sends metadata and
// nothing else, so it cannot touch a spec that a GitOps tool owns, and leaves the status that the
// pass has gathered alone. It fails with a conflict if the resource is another one by now, of the
// same name.
func (p *pass[O]) patchMetadata(ctx context.Context, exact bool, finalizer finalizerChange, annotations map[string]any) error {
	metadata := map[string]any{"uid": p.obj.GetUID()}
	if len(annotations) > 0 {
		metadata["annotations"] = annotations
	}
	if finalizer != leaveFinalizer {
		exact = true // a merge patch replaces the list as a whole
		metadata["finalizers"] = changeFinalizers(p.obj.GetFinalizers(), finalizer)
	}
	if exact {
		metadata["resourceVersion"] = p.obj.GetResourceVersion()
	}
	patch := []byte(marshalled(map[string]any{"metadata": metadata}))
	result := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: p.req.Namespace, Name: p.req.Name}}
	result.SetGroupVersionKind(p.gvk)
	if err := p.Client.Patch(ctx, result, client.RawPatch(types.MergePatchType, patch), fieldOwner); err != nil {
		return err
	}
	p.known.expectation.expect(result.ResourceVersion, wallClock())
	for _, obj := range []O{p.obj, p.stored, p.held} {
		obj.SetResourceVersion(result.ResourceVersion)
		obj.SetAnnotations(result.Annotations)
		obj.SetFinalizers(result.Finalizers)
	}
	return nil
}

func changeFinalizers(finalizers []string, change finalizerChange) []string {
	others := slices.DeleteFunc(slices.Clone(finalizers), func(f string) bool { return f == v1alpha1.Finalizer })
	if change == removeFinalizer {
		return others
	}
	return append(others, v1alpha1.Finalizer)
}

// finalizersOf are the operator's own finalizers on a resource: one or none.
func finalizersOf(obj client.Object) []string {
	return slices.DeleteFunc(slices.Clone(obj.GetFinalizers()), func(f string) bool { return f != v1alpha1.Finalizer })
}
