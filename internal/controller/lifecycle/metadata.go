// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
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

// patchMetadata writes annotations (nil removes one) and the finalizer. It sends metadata and nothing else, so it cannot touch a spec that
// a GitOps tool owns, and leaves the status that the pass has gathered alone.
func (p *pass[O]) patchMetadata(ctx context.Context, exact bool, finalizer finalizerChange, annotations map[string]any) error {
	metadata := map[string]any{}
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
	patch, err := json.Marshal(map[string]any{"metadata": metadata})
	if err != nil {
		return err
	}
	result := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: p.req.Namespace, Name: p.req.Name}}
	result.SetGroupVersionKind(p.gvk)
	if err := p.Client.Patch(ctx, result, client.RawPatch(types.MergePatchType, patch)); err != nil {
		return err
	}
	p.written.note(p.req.NamespacedName, result.ResourceVersion, p.Clock.Now())
	for _, obj := range []O{p.obj, p.stored} {
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

// errOutdated is the conflict that a write with the read version would have met.
func errOutdated(gvk schema.GroupVersionKind, name string) error {
	return apierrors.NewConflict(schema.GroupResource{Group: gvk.Group, Resource: gvk.Kind}, name, errors.New("the resource has changed since it was read"))
}
