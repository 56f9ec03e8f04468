// SPDX-License-Identifier: Apache-2.0

package argocd_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"

	argov1alpha1 "github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/yaml"

	"rpi-connect.dev/operator/test/cluster"
)

var _ = Describe("examples/fleet", func() {
	It("has what Argo CD reads, in folders that are there and projects that permit it", func(ctx context.Context) {
		fleet := filepath.Join(cluster.Root(), "examples", "fleet")
		files, err := filepath.Glob(filepath.Join(fleet, "argocd", "*.yaml"))
		Expect(err).NotTo(HaveOccurred())
		more, err := filepath.Glob(filepath.Join(fleet, "argocd", "apps", "*.yaml"))
		Expect(err).NotTo(HaveOccurred())
		projects, applications := map[string]*argov1alpha1.AppProject{}, map[string]*argov1alpha1.Application{}
		for _, file := range append(files, more...) {
			content, err := os.ReadFile(file)
			Expect(err).NotTo(HaveOccurred())
			objects, err := cluster.Objects(bytes.NewReader(content))
			Expect(err).NotTo(HaveOccurred())
			Expect(objects).To(HaveLen(1), file)
			if objects[0].GetKind() == "AppProject" {
				project := &argov1alpha1.AppProject{}
				Expect(yaml.UnmarshalStrict(content, project)).To(Succeed(), file)
				projects[project.Name] = project
				continue
			}
			app := &argov1alpha1.Application{}
			Expect(yaml.UnmarshalStrict(content, app)).To(Succeed(), file)
			Expect(app.Kind).To(Equal("Application"))
			applications[app.Name] = app
		}
		Expect(applications).To(HaveLen(5))
		for name, app := range applications {
			repository := map[string]string{
				"https://git.example.com/fleet.git": fleet, "https://git.example.com/rpi-connect-operator.git": cluster.Root(),
			}[app.Spec.Source.RepoURL]
			Expect(repository).NotTo(BeEmpty(), name)
			folder := filepath.Join(repository, app.Spec.Source.Path)
			Expect(folder).To(BeADirectory(), name)
			if app.Spec.Project == "default" {
				continue
			}
			project := projects[app.Spec.Project]
			Expect(project).NotTo(BeNil(), name)
			Expect(project.IsSourcePermitted(*app.Spec.Source)).To(BeTrue(), name)
			objects, err := cluster.Build(ctx, folder)
			Expect(err).NotTo(HaveOccurred())
			Expect(objects).NotTo(BeEmpty())
			for _, obj := range objects {
				Expect(project.IsGroupKindNamePermitted(obj.GroupVersionKind().GroupKind(), obj.GetName(), true)).To(BeTrue(), obj.GetKind())
				permitted, err := project.IsDestinationPermitted(&argov1alpha1.Cluster{Server: app.Spec.Destination.Server}, obj.GetNamespace(),
					func(string) ([]*argov1alpha1.Cluster, error) { return nil, nil })
				Expect(err).NotTo(HaveOccurred())
				Expect(permitted).To(BeTrue(), obj.GetNamespace())
			}
		}
	})
})
