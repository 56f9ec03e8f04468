// SPDX-License-Identifier: Apache-2.0

package gitops_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/test/cluster"
)

// example is what kustomize makes of a folder of examples/fleet.
func example(ctx context.Context, folder string) []*unstructured.Unstructured {
	GinkgoHelper()
	objects, err := cluster.Build(ctx, filepath.Join("examples", "fleet", folder))
	Expect(err).NotTo(HaveOccurred())
	return objects
}

var _ = Describe("examples/fleet", func() {
	It("brings two organisations to what is in Git", func(ctx context.Context) {
		production, err := control.ServeSamples(ctx, "fleet")
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(production.Close)
		DeferCleanup(control.LetGo, "fleet")
		DeferCleanup(control.LetGo, "fleet-staging")
		s := &site{production}
		DeferCleanup(s.stop)
		token := connectsim.NewSecret("rporg_")
		staging := s.Sim.AddOrganisation(token)
		s.PlugIn(staging, connectsim.Device{Name: "bench", SerialNumber: "10000000c0ffee31", Tags: []string{"kiosk"}})
		for _, serial := range []string{"10000000c0ffee1a", "10000000c0ffee1b", "10000000c0ffee2a", "10000000c0ffee2b"} {
			s.PlugIn(s.Org, connectsim.Device{Name: "raspberrypi", SerialNumber: serial})
		}
		s.start(ctx)

		By("staging waiting for its token, which something else brings")
		Expect(control.Client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "fleet-staging"}})).To(Succeed())
		git := example(ctx, "organisations/staging")
		s.reconcile(ctx, git)
		Eventually(s.reasons(ctx, git)).Should(HaveEach("AccessTokenMissing"))
		Expect(s.statuses(ctx, git)()).To(inProgress)
		Expect(control.PutToken(ctx, "fleet-staging", token)).To(Succeed())
		Expect(flux().Wait(git, wait())).To(Succeed())
		Expect(staging.Deployments("")).To(HaveLen(1))

		By("production, site by site")
		git = example(ctx, "organisations/production")
		s.reconcile(ctx, git)
		Eventually(s.statuses(ctx, git)).Should(current)
		Eventually(s.Org.Devices).Should(ContainElements(
			And(HaveField("Name", "london-lobby"), HaveField("Tags", ConsistOf("kiosk", "london"))),
			And(HaveField("Name", "leeds-cafe"), HaveField("Tags", ConsistOf("kiosk", "leeds"))),
		))
		Eventually(func() int { return len(s.Org.Deployments("")) }).Should(Equal(4))

		By("a device that signs in with its key joining")
		key := &corev1.Secret{}
		Expect(control.Client.Get(ctx, client.ObjectKey{Namespace: "fleet", Name: "london-entrance"}, key)).To(Succeed())
		pi := connectsim.NewPi(s.URL, "raspberrypi", "10000000c0ffee1c")
		Expect(pi.SignInWithAuthKey(ctx, string(key.Data["auth.key"]))).To(Succeed())
		go pi.Run(ctx)
		Eventually(func() []connectsim.Deployment { return s.Org.Deployments("") }).Should(HaveLen(5))
		Eventually(s.statuses(ctx, git)).Should(current)
	})

	It("has what Flux reads, in folders that are there", func(ctx context.Context) {
		sources := map[string]string{"fleet": filepath.Join(cluster.Root(), "examples", "fleet"), "rpi-connect-operator": cluster.Root()}
		kustomizations := map[string]*kustomizev1.Kustomization{}
		for _, obj := range example(ctx, "flux") {
			manifest, err := yaml.Marshal(obj.Object)
			Expect(err).NotTo(HaveOccurred())
			switch obj.GetKind() {
			case sourcev1.GitRepositoryKind:
				Expect(yaml.UnmarshalStrict(manifest, &sourcev1.GitRepository{})).To(Succeed())
				Expect(sources).To(HaveKey(obj.GetName()))
			case kustomizev1.KustomizationKind:
				k := &kustomizev1.Kustomization{}
				Expect(yaml.UnmarshalStrict(manifest, k)).To(Succeed())
				Expect(filepath.Join(sources[k.Spec.SourceRef.Name], k.Spec.Path, "kustomization.yaml")).To(BeAnExistingFile())
				kustomizations[k.Name] = k
			default:
				Fail("what is a " + obj.GetKind())
			}
		}
		for _, k := range kustomizations {
			for _, other := range k.Spec.DependsOn {
				Expect(kustomizations).To(HaveKey(other.Name))
			}
		}
		Expect(kustomizations).To(HaveLen(5))

		By("the operator coming without its CRDs, and with its image")
		operator := kustomizations["rpi-connect-operator"].Spec
		crds, err := cluster.Build(ctx, "config/crd")
		Expect(err).NotTo(HaveOccurred())
		whole, err := cluster.Build(ctx, "config/default")
		Expect(err).NotTo(HaveOccurred())
		objects := overlay(map[string]any{
			"resources": []string{"config/default"}, "patches": operator.Patches, "images": operator.Images,
		})
		Expect(objects).To(HaveLen(len(whole) - len(crds)))
		Expect(objects).NotTo(ContainElement(HaveField("GetKind()", "CustomResourceDefinition")))
		manager := find(objects, "Deployment", "rpi-connect-controller-manager")
		containers, _, _ := unstructured.NestedSlice(manager.Object, "spec", "template", "spec", "containers")
		Expect(containers).To(ConsistOf(HaveKeyWithValue("image", "registry.example.com/rpi-connect-operator:v0.1.0")))
	})
})

// overlay builds a kustomization over folders of the repository.
func overlay(kustomization map[string]any) []*unstructured.Unstructured {
	GinkgoHelper()
	content, err := yaml.Marshal(kustomization)
	Expect(err).NotTo(HaveOccurred())
	files := filesys.MakeFsInMemory()
	config := filepath.Join(cluster.Root(), "config")
	Expect(filepath.WalkDir(config, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		file, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return files.WriteFile("/repository/config"+path[len(config):], file)
	})).To(Succeed())
	Expect(files.WriteFile("/repository/kustomization.yaml", content)).To(Succeed())
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(files, "/repository")
	Expect(err).NotTo(HaveOccurred())
	manifest, err := built.AsYaml()
	Expect(err).NotTo(HaveOccurred())
	objects, err := cluster.Objects(bytes.NewReader(manifest))
	Expect(err).NotTo(HaveOccurred())
	return objects
}
