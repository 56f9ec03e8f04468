// SPDX-License-Identifier: Apache-2.0

package gitops_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"rpi-connect.dev/operator/test/cluster"
)

// kustomize builds a kustomization over the samples, in which everything names the Secret with its
// access token.
func kustomize(kustomization string) ([]*unstructured.Unstructured, error) {
	GinkgoHelper()
	files := filesys.MakeFsInMemory()
	for to, from := range map[string]string{
		"samples": "config/samples/*.yaml", ".": "config/kustomizeconfig.yaml",
	} {
		matches, err := filepath.Glob(filepath.Join(cluster.Root(), from))
		Expect(err).NotTo(HaveOccurred())
		Expect(matches).NotTo(BeEmpty())
		for _, path := range matches {
			content, err := os.ReadFile(path)
			Expect(err).NotTo(HaveOccurred())
			Expect(files.WriteFile("/fleet/"+to+"/"+filepath.Base(path), content)).To(Succeed())
		}
	}
	Expect(files.WriteFile("/fleet/web.yaml", []byte(web))).To(Succeed())
	Expect(files.WriteFile("/fleet/kustomization.yaml", []byte(base+kustomization))).To(Succeed())
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(files, "/fleet")
	if err != nil {
		return nil, err
	}
	manifest, err := built.AsYaml()
	Expect(err).NotTo(HaveOccurred())
	return cluster.Objects(strings.NewReader(string(manifest)))
}

// base is the kustomization that every other one is put onto.
const base = `
resources: [samples, web.yaml]
configurations: [kustomizeconfig.yaml]
patches:
- target: {group: rpi-connect.dev}
  patch: |
    - {op: add, path: /spec/accessTokenSecretRef, value: {name: connect-access-token}}
`

// web is a Deployment of Kubernetes itself, which may live beside ours.
const web = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "kiosk:v1"}]}
`

// accepted has the API server look at the objects as if they were applied: by kubectl, and by others.
func accepted(ctx context.Context, objects []*unstructured.Unstructured) error {
	for _, obj := range objects {
		obj = obj.DeepCopy()
		obj.SetNamespace("default")
		for _, dryRun := range []error{
			control.Client.Create(ctx, obj.DeepCopy(), client.DryRunAll, client.FieldValidation("Strict")),
			control.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(obj), client.DryRunAll, client.FieldOwner("kustomize")),
		} {
			if dryRun != nil {
				return fmt.Errorf("%s %s: %w", obj.GetKind(), obj.GetName(), dryRun)
			}
		}
	}
	return nil
}

// references are the names that the objects refer to, each with what it has to be.
func references(objects []*unstructured.Unstructured) (references []string, names map[string]bool) {
	names = map[string]bool{}
	for _, obj := range objects {
		names[obj.GetKind()+"/"+obj.GetName()] = true
		for field, kind := range map[string]string{
			"accessTokenSecretRef.name": "Secret", "signing.privateKeySecretRef.name": "Secret",
			"artefactRef.name": "Artefact", "rollbackTo.name": "Artefact",
		} {
			path := append([]string{"spec"}, strings.Split(field, ".")...)
			if name, found, _ := unstructured.NestedString(obj.Object, path...); found {
				references = append(references, kind+"/"+name)
			}
		}
		approvals, _, _ := unstructured.NestedSlice(obj.Object, "spec", "approvals")
		for _, approval := range approvals {
			references = append(references, fmt.Sprint("Artefact/", approval.(map[string]any)["artefact"]))
		}
	}
	return references, names
}

var _ = Describe("kustomize", func() {
	DescribeTable("does no harm with", func(ctx context.Context, kustomization string, has func([]*unstructured.Unstructured)) {
		objects, err := kustomize(kustomization)
		Expect(err).NotTo(HaveOccurred())
		Expect(accepted(ctx, objects)).To(Succeed())
		references, names := references(objects)
		Expect(len(references)).To(BeNumerically(">", 10))
		for _, reference := range references {
			Expect(names).To(HaveKey(reference))
		}
		has(objects)
	},
		Entry("namePrefix", rollout+"namePrefix: north-\n", func(objects []*unstructured.Unstructured) {
			find(objects, "Artefact", "north-kiosk-v1.0")
		}),
		Entry("nameSuffix", rollout+"nameSuffix: -north\n", func(objects []*unstructured.Unstructured) {
			find(objects, "Secret", "connect-access-token-north")
		}),
		Entry("a Secret that is generated", `
- target: {group: rpi-connect.dev}
  patch: |
    - {op: replace, path: /spec/accessTokenSecretRef/name, value: north}
secretGenerator: [{name: north, literals: [token=rporg_new]}]
`, func(objects []*unstructured.Unstructured) {
			token, _, _ := unstructured.NestedString(find(objects, "Device", "shop-window").Object, "spec", "accessTokenSecretRef", "name")
			Expect(token).To(MatchRegexp("^north-[a-z0-9]{10}$"))
		}),
		Entry("labels", "labels: [{pairs: {site: north}}]\n", func(objects []*unstructured.Unstructured) {
			Expect(objects).To(HaveEach(HaveField("GetLabels()", HaveKeyWithValue("site", "north"))))
		}),
		Entry("annotations by a transformer that names the field", `
transformers:
- |-
  apiVersion: builtin
  kind: AnnotationsTransformer
  metadata: {name: site}
  annotations: {site: north}
  fieldSpecs: [{path: metadata/annotations, create: true}]
`, func(objects []*unstructured.Unstructured) {
			Expect(objects).To(HaveEach(HaveField("GetAnnotations()", HaveKeyWithValue("site", "north"))))
		}),
		Entry("namespace", "namespace: north\n", func(objects []*unstructured.Unstructured) {
			Expect(objects).To(HaveEach(HaveField("GetNamespace()", "north")))
		}),
		Entry("images", "images: [{name: kiosk, newTag: v2}]\n", func(objects []*unstructured.Unstructured) {
			Expect(fmt.Sprint(find(objects, "Deployment", "web").Object)).To(ContainSubstring("image:kiosk:v2"))
		}),
		Entry("replicas of another Deployment", "replicas: [{name: web, count: 3}]\n", func(objects []*unstructured.Unstructured) {
			Expect(find(objects, "Deployment", "web").Object["spec"]).To(HaveKeyWithValue("replicas", BeNumerically("==", 3)))
		}),
	)

	// What it does to a Deployment of apps it does to ours, too: it looks at the kind alone. Nothing that
	// a user can configure takes a field away from it.
	DescribeTable("changes the spec of a Deployment with", func(ctx context.Context, kustomization, field string) {
		objects, err := kustomize(kustomization)
		Expect(err).NotTo(HaveOccurred())
		Expect(accepted(ctx, objects)).To(MatchError(And(ContainSubstring("Deployment "), ContainSubstring(field))))
	},
		Entry("includeSelectors", "labels: [{pairs: {site: north}, includeSelectors: true}]\n", "spec.selector"),
		Entry("includeTemplates", "labels: [{pairs: {site: north}, includeTemplates: true}]\n", "spec.template"),
		Entry("commonLabels", "commonLabels: {site: north}\n", "spec.selector"),
		Entry("commonAnnotations", "commonAnnotations: {site: north}\n", "spec.template"),
		Entry("replicas under its name", "replicas: [{name: kiosk-lobby-v1.0, count: 3}]\n", "spec.replicas"),
	)
})

// rollout has a FleetRollout refer to everything that one can refer to.
const rollout = `
- patch: |
    apiVersion: rpi-connect.dev/v1alpha1
    kind: FleetRollout
    metadata: {name: kiosk}
    spec:
      rollbackTo: {name: kiosk-v1.1}
      approvals: [{artefact: kiosk-v1.0, batch: canary}]
`
