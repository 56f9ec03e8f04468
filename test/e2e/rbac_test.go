// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/test/cluster"
)

var _ = Describe("The operator's rights", func() {
	It("can be narrowed to the namespaces that it watches", func(ctx context.Context) {
		f := newFleet(ctx, connectsim.Options{})
		f.account = "narrow"
		Expect(f.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: cluster.OperatorNamespace, Name: f.account}})).To(Succeed())
		objects, err := cluster.Build(ctx, "config/namespaced")
		Expect(err).NotTo(HaveOccurred())
		given := 0
		for _, obj := range objects {
			if obj.GetNamespace() != "fleet" {
				continue
			}
			given++
			obj.SetNamespace(f.ns)
			if obj.GetKind() == "RoleBinding" {
				obj.Object["subjects"].([]any)[0].(map[string]any)["name"] = f.account
			}
			Expect(f.Create(ctx, obj)).To(Succeed())
		}
		Expect(given).To(Equal(2), "a Role and a RoleBinding")

		f.start(ctx, "--watch-namespaces="+f.ns)
		kiosk, key := f.artefact("kiosk"), f.authKey("pi5-001")
		Expect(f.Create(ctx, kiosk)).To(Succeed())
		Expect(f.Create(ctx, key)).To(Succeed())
		Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
		Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
		Eventually(f.events(ctx, "kiosk")).Should(Equal([]string{"Created"}))
		Expect(f.Delete(ctx, kiosk)).To(Succeed())
		Eventually(f.gone(ctx, kiosk)).Should(BeTrue())
		Expect(f.manager.Log()).NotTo(ContainSubstring("forbidden"))
	})
})

var _ = Describe("The operator's pod", func() {
	It("is one that the restricted Pod Security Standard takes", func(ctx context.Context) {
		var deployment appsv1.Deployment
		built(ctx, "config/default", "Deployment", "rpi-connect-controller-manager", &deployment)
		pod := &corev1.Pod{ObjectMeta: deployment.Spec.Template.ObjectMeta, Spec: deployment.Spec.Template.Spec}
		pod.Namespace, pod.GenerateName = cluster.OperatorNamespace, "manager-"
		Expect(control.Client.Create(ctx, pod, client.DryRunAll)).To(Succeed())

		By("refusing one that is not")
		pod.Spec.Containers[0].SecurityContext = nil
		pod.ResourceVersion, pod.UID = "", ""
		Expect(control.Client.Create(ctx, pod, client.DryRunAll)).To(MatchError(ContainSubstring(`violates PodSecurity "restricted`)))
	})
})

var _ = Describe("The manifests", func() {
	DescribeTable("are taken by the API server", func(ctx context.Context, folder string, kinds ...string) {
		objects, err := cluster.Build(ctx, folder)
		Expect(err).NotTo(HaveOccurred())
		var applied []string
		for _, obj := range objects {
			if obj.GetNamespace() == "fleet" {
				obj.SetNamespace("default") // which is there
			}
			Expect(control.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(obj), client.DryRunAll, client.ForceOwnership, client.FieldOwner("kubectl"))).
				To(Succeed(), "%s %s", obj.GetKind(), obj.GetName())
			applied = append(applied, obj.GetKind())
		}
		Expect(applied).To(ContainElements(kinds))
	},
		Entry("for a whole cluster", "config/default", "CustomResourceDefinition", "Deployment", "PodDisruptionBudget", "NetworkPolicy", "Service"),
		Entry("for one namespace", "config/namespaced", "CustomResourceDefinition", "Deployment", "Role", "RoleBinding"),
	)
})

// Every right that config/rbac gives the operator has been used by the time all
// stories are told; so none is broader than it needs. Each process leaves what its
// operators have used in the shared folder, and the last one looks.
var _ = SynchronizedAfterSuite(func() {
	if control == nil {
		return // nothing has been told
	}
	requests, err := control.Requests()
	Expect(err).NotTo(HaveOccurred())
	used := sets.New[string]()
	for _, r := range requests {
		resource := r.Resource
		if r.Subresource != "" {
			resource += "/" + r.Subresource
		}
		if r.ByOperator() {
			used.Insert(r.Group + " " + resource + " " + r.Verb)
		}
	}
	rights := strings.Join(sets.List(used), "\n")
	Expect(os.WriteFile(filepath.Join(shared, fmt.Sprintf("rights-%d", GinkgoParallelProcess())), []byte(rights), 0o600)).To(Succeed())
}, func(ctx context.Context) {
	suite, _ := GinkgoConfiguration()
	if len(suite.FocusStrings)+len(suite.SkipStrings) > 0 || !cluster.HasControllerManager() {
		return // not all stories were told
	}
	files, err := filepath.Glob(filepath.Join(shared, "rights-*"))
	Expect(err).NotTo(HaveOccurred())
	used := sets.New[string]()
	for _, file := range files {
		rights, err := os.ReadFile(file)
		Expect(err).NotTo(HaveOccurred())
		used.Insert(strings.Split(string(rights), "\n")...)
	}
	var role rbacv1.ClusterRole
	built(ctx, "config/rbac", "ClusterRole", "manager-role", &role)
	for _, rule := range role.Rules {
		Expect(unused(rule, used)).To(BeEmpty())
	}
})

// built reads one object of what kustomize makes of a folder.
func built(ctx context.Context, folder, kind, name string, into any) {
	GinkgoHelper()
	objects, err := cluster.Build(ctx, folder)
	Expect(err).NotTo(HaveOccurred())
	at := slices.IndexFunc(objects, func(obj *unstructured.Unstructured) bool { return obj.GetKind() == kind && obj.GetName() == name })
	Expect(at).To(BeNumerically(">=", 0), "%s has a %s %s", folder, kind, name)
	Expect(runtime.DefaultUnstructuredConverter.FromUnstructured(objects[at].Object, into)).To(Succeed())
}

// unused are the rights of the rule that were not used, except for those that are
// there for other clusters than this one.
func unused(rule rbacv1.PolicyRule, used sets.Set[string]) []string {
	var rights []string
	for _, resource := range rule.Resources {
		for _, verb := range rule.Verbs {
			right := rule.APIGroups[0] + " " + resource + " " + verb
			elsewhere := verb == "get" && rule.APIGroups[0] == "rpi-connect.dev" || // past the cache, where an intent was found
				verb == "list" || // where the API server cannot begin a watch with a list
				right == "events.k8s.io events patch" || // when an event repeats itself
				// where owners are checked (OwnerReferencesPermissionEnforcement):
				right == "rpi-connect.dev authkeys/finalizers update" || right == "rpi-connect.dev fleetrollouts/finalizers update"
			if !elsewhere && !used.Has(right) {
				rights = append(rights, right)
			}
		}
	}
	return rights
}
