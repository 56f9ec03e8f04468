// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// installRBAC applies the Namespace, the ServiceAccount and the rights out of
// config/default, as a user would install them.
func (c *Cluster) installRBAC(ctx context.Context) error {
	objects, err := Build(ctx, "config/default")
	if err != nil {
		return err
	}
	kinds := []string{"Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
	for _, obj := range objects {
		if !slices.Contains(kinds, obj.GetKind()) {
			continue
		}
		if err := c.Client.Create(ctx, obj); err != nil {
			return fmt.Errorf("install %s %s: %w", obj.GetKind(), obj.GetName(), err)
		}
	}
	return nil
}

// Build returns what kustomize makes of a folder of the repository.
func Build(ctx context.Context, folder string) ([]*unstructured.Unstructured, error) {
	kustomize := exec.CommandContext(ctx, "go", "tool", "-modfile=tools/go.mod", "kustomize", "build", folder)
	kustomize.Dir = Root()
	var stderr bytes.Buffer
	kustomize.Stderr = &stderr
	out, err := kustomize.Output()
	if err != nil {
		return nil, fmt.Errorf("kustomize build %s: %w: %s", folder, err, stderr.String())
	}
	return Objects(bytes.NewReader(out))
}

// Objects returns the objects of a stream of YAML documents.
func Objects(manifest io.Reader) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(manifest, 4096)
	for {
		obj := &unstructured.Unstructured{}
		switch err := decoder.Decode(obj); {
		case errors.Is(err, io.EOF):
			return objects, nil
		case err != nil:
			return nil, err
		}
		objects = append(objects, obj)
	}
}
