// SPDX-License-Identifier: Apache-2.0

package install_test

import (
	"context"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/test/cluster"
	"rpi-connect.dev/operator/test/invariants"
)

const (
	readme = "README.md"
	page   = "docs/install.md"
	fleet  = "fleet" // the namespace of the fleet
	image  = "registry.example.com/rpi-connect-operator:v0.1.0"
)

// What README.md and docs/install.md tell an administrator to type is typed here, and what comes of it has
// to be enough for the operator: its flags, its rights, its pod.
func TestWaysToInstall(t *testing.T) {
	if !cluster.HasControllerManager() {
		t.Skip("nothing removes namespaces without kube-controller-manager")
	}
	g := NewWithT(t)
	control := emptyCluster(t)
	binary, err := cluster.BuildManager(t.Context(), control.Dir)
	g.Expect(err).NotTo(HaveOccurred())

	g.Expect(control.Client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fleet}})).To(Succeed())

	for _, way := range []struct{ install, begin, upgrade, uninstall section }{
		{section{readme, "## Install on a cluster"}, section{readme, "### First steps"}, section{readme, "## Install on a cluster"}, section{page, "### After make deploy"}},
		{section{page, "## With kustomize"}, firstSteps, section{page, "## With kustomize"}, section{page, "### After kustomize"}},
		{section{page, "## With one file"}, firstSteps, section{page, "## With one file"}, section{page, "### After one file"}},
		{section{page, "## With Helm"}, firstSteps, section{page, "### Helm's way"}, section{page, "### After Helm"}},
		{section{page, "## For one namespace"}, firstSteps, section{page, "## For one namespace"}, section{page, "### After kustomize"}},
	} {
		passed := t.Run(way.install.heading, func(t *testing.T) {
			i := installation{NewWithT(t), control, connect(t), shell(t, control)}
			i.run(t, way.install)
			pod := i.pod(t.Context())
			takeRights, giveRights := i.rights(t.Context())
			takeRights()
			manager, err := control.StartManagerAs(t.Context(), pod.Spec.ServiceAccountName, binary,
				append(pod.Spec.Containers[0].Args, "--metrics-secure=true", "--connect-api-url="+i.connect.URL)...)
			i.Expect(err).NotTo(HaveOccurred())
			t.Cleanup(manager.Stop)
			i.Eventually(probe(t.Context(), manager, "/healthz")).WithTimeout(time.Minute).Should(Equal(http.StatusOK), manager.Log)
			i.Expect(probe(t.Context(), manager, "/readyz")()).To(Equal(http.StatusInternalServerError), "it knows of nothing yet")
			giveRights()
			i.Expect(manager.WaitReady(t.Context())).To(Succeed(), manager.Log)
			began := time.Now()

			i.run(t, way.begin)
			i.works(t.Context())
			i.servesMetrics(t.Context(), manager)
			i.letsUsersIn(t.Context())
			i.wasRefusedNothing(began)
			i.run(t, way.upgrade)
			i.Expect(i.pod(t.Context())).To(Equal(pod), "the next version is this one")

			i.run(t, section{page, "## Uninstall"})
			i.leftBehind(t.Context())
			i.saysWhenConnectIsAway(t.Context(), manager)
			manager.Stop()
			i.run(t, section{page, "### When the operator went first"})
			i.run(t, way.uninstall)
			i.isGone(t.Context())
		})
		if !passed {
			return // the next way needs an empty cluster
		}
	}
}

// section is one of a page.
type section struct{ page, heading string }

var firstSteps = section{page, "## First steps"}

// installation is what an administrator has made of an empty cluster.
type installation struct {
	*WithT

	control *cluster.Cluster
	connect cluster.Connect
	shell   cluster.Shell
}

// run types what a section says.
func (i installation) run(t *testing.T, says section) {
	t.Helper()
	script, err := cluster.Blocks(says.page, says.heading)
	i.Expect(err).NotTo(HaveOccurred())
	script = strings.ReplaceAll(script, "make image deploy", "make deploy") // make test-image builds images
	shell := i.shell
	shell.Input = i.connect.Token + "\n"
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // kubectl delete waits for ever
	defer cancel()
	if _, err = shell.Run(ctx, script); err != nil {
		t.Fatal(err)
	}
}

// pod is what the Deployment makes. Its namespace has to take it, and no other.
func (i installation) pod(ctx context.Context) *corev1.Pod {
	var deployment appsv1.Deployment
	i.Expect(i.control.Client.Get(ctx, client.ObjectKey{Namespace: cluster.OperatorNamespace, Name: "rpi-connect-controller-manager"}, &deployment)).To(Succeed())
	pod := func() *corev1.Pod {
		pod := &corev1.Pod{ObjectMeta: deployment.Spec.Template.ObjectMeta, Spec: *deployment.Spec.Template.Spec.DeepCopy()}
		pod.Namespace, pod.GenerateName = cluster.OperatorNamespace, "manager-"
		return pod
	}
	i.Expect(pod().Spec.Containers).To(ConsistOf(HaveField("Image", image)))
	i.Expect(i.control.Client.Create(ctx, pod(), client.DryRunAll)).To(Succeed())
	privileged := pod()
	privileged.Spec.Containers[0].SecurityContext = nil
	i.Expect(i.control.Client.Create(ctx, privileged, client.DryRunAll)).To(MatchError(ContainSubstring(`violates PodSecurity "restricted`)))
	return pod()
}

// rights returns what takes the operator's from it, and what gives them back.
func (i installation) rights(ctx context.Context) (take, give func()) {
	var bindings []client.Object
	var inCluster rbacv1.ClusterRoleBindingList
	i.Expect(i.control.Client.List(ctx, &inCluster)).To(Succeed())
	for _, binding := range inCluster.Items {
		bindings = append(bindings, &binding)
	}
	var inNamespaces rbacv1.RoleBindingList
	i.Expect(i.control.Client.List(ctx, &inNamespaces)).To(Succeed())
	for _, binding := range inNamespaces.Items {
		bindings = append(bindings, &binding)
	}
	bindings = slices.DeleteFunc(bindings, func(binding client.Object) bool { return binding.GetName() != "rpi-connect-manager-rolebinding" })
	i.Expect(bindings).To(HaveLen(1))
	return func() { i.Expect(i.control.Client.Delete(ctx, bindings[0])).To(Succeed()) },
		func() {
			bindings[0].SetResourceVersion("")
			i.Expect(i.control.Client.Create(ctx, bindings[0])).To(Succeed())
		}
}

// probe asks as the kubelet does.
func probe(ctx context.Context, manager *cluster.Manager, path string) func() (int, error) {
	return func() (int, error) { return manager.Probe(ctx, path) }
}

// works has the operator do what it is there for: publish, write a Secret, tell events.
func (i installation) works(ctx context.Context) {
	key := &v1alpha1.AuthKey{ObjectMeta: metav1.ObjectMeta{Namespace: fleet, Name: "pi5-001"}}
	i.Expect(i.control.Client.Create(ctx, key)).To(Succeed())
	i.Eventually(ctx, func() (string, error) {
		err := i.control.Client.Get(ctx, client.ObjectKeyFromObject(key), key)
		return invariants.Ready(key), err
	}).WithTimeout(30 * time.Second).Should(HavePrefix("True Usable"))
	var secret corev1.Secret
	i.Expect(i.control.Client.Get(ctx, client.ObjectKeyFromObject(key), &secret)).To(Succeed())
	i.Expect(secret.Data).To(HaveKey("auth.key"))
	i.Expect(i.connect.Org.AuthKeys()).To(HaveLen(1))
	i.Expect(i.connect.Org.Artefacts()).To(ContainElement(HaveField("Name", "kiosk-v1.0")))
	i.Eventually(ctx, func() ([]eventsv1.Event, error) {
		var events eventsv1.EventList
		err := i.control.Client.List(ctx, &events, client.InNamespace(fleet))
		return events.Items, err
	}).WithTimeout(30 * time.Second).Should(ContainElement(And(HaveField("Regarding.Name", "kiosk-v1.0"), HaveField("Reason", "Created"))))
}

// servesMetrics asks for them as a stranger, as an account without the right to, and as one with it.
func (i installation) servesMetrics(ctx context.Context, manager *cluster.Manager) {
	token := func(name string) string {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: fleet, Name: name}}
		i.Expect(client.IgnoreAlreadyExists(i.control.Client.Create(ctx, account))).To(Succeed())
		token, err := i.control.AccountToken(ctx, fleet, name)
		i.Expect(err).NotTo(HaveOccurred())
		return token
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "prometheus"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "rpi-connect-metrics-reader"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: fleet, Name: "prometheus"}},
	}
	i.Expect(client.IgnoreAlreadyExists(i.control.Client.Create(ctx, binding))).To(Succeed())
	status := func(token string) func() (int, error) {
		return func() (int, error) { status, _, err := manager.SecureMetrics(ctx, token); return status, err }
	}
	i.Eventually(ctx, status("")).Should(Equal(http.StatusUnauthorized))
	i.Eventually(ctx, status(token("stranger"))).Should(Equal(http.StatusForbidden))
	i.Eventually(ctx, status(token("prometheus"))).WithTimeout(30 * time.Second).Should(Equal(http.StatusOK)) // the authoriser's cache may be behind
}

// letsUsersIn asks what those may do who may view and edit the namespace.
func (i installation) letsUsersIn(ctx context.Context) {
	may := func(role, verb, subresource string) func() (bool, error) {
		return func() (bool, error) {
			review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
				User: "who-may-" + role,
				ResourceAttributes: &authorizationv1.ResourceAttributes{
					Namespace: fleet, Verb: verb, Group: v1alpha1.GroupVersion.Group, Resource: "fleetrollouts", Subresource: subresource,
				},
			}}
			err := i.control.Client.Create(ctx, review)
			return review.Status.Allowed, err
		}
	}
	for _, role := range []string{"view", "edit"} {
		i.Expect(client.IgnoreAlreadyExists(i.control.Client.Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: fleet, Name: role},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "who-may-" + role}},
		}))).To(Succeed())
		i.Eventually(ctx, may(role, "watch", "")).WithTimeout(time.Minute).Should(BeTrue(), "the controller that adds it to %s is asynchronous", role)
	}
	i.Eventually(ctx, may("edit", "create", "")).WithTimeout(time.Minute).Should(BeTrue())
	i.Expect(may("view", "create", "")()).To(BeFalse())
	i.Expect(may("edit", "patch", "status")()).To(BeFalse())
}

// wasRefusedNothing tells that nothing was refused to the operator.
func (i installation) wasRefusedNothing(since time.Time) {
	requests, err := i.control.Requests()
	i.Expect(err).NotTo(HaveOccurred())
	asked := 0
	for _, r := range requests {
		if r.ByOperator() && r.Time.After(since) {
			asked++
			i.Expect(r.Code).NotTo(Equal(http.StatusForbidden), "%+v", r)
		}
	}
	i.Expect(asked).To(BeNumerically(">", 10))
}

// leftBehind is what the samples' deletionPolicy says.
func (i installation) leftBehind(ctx context.Context) {
	i.Expect(i.connect.Org.Artefacts()).To(ConsistOf(HaveField("Name", "Signage 2026.11")))
	i.Expect(i.connect.Org.AuthKeys()).To(BeEmpty())
	var secrets corev1.SecretList
	i.Eventually(ctx, func() ([]corev1.Secret, error) {
		err := i.control.Client.List(ctx, &secrets, client.InNamespace(fleet))
		return secrets.Items, err
	}).WithTimeout(time.Minute).Should(ConsistOf(HaveField("Name", "connect-access-token")), "the Secret of an AuthKey goes with it")
}

// saysWhenConnectIsAway leaves an Artefact that waits for Connect. The operator is as ready as before: to
// replace it would not help.
func (i installation) saysWhenConnectIsAway(ctx context.Context, manager *cluster.Manager) {
	i.connect.Sim.Close()
	waiting := &v1alpha1.Artefact{
		ObjectMeta: metav1.ObjectMeta{Namespace: fleet, Name: "waiting"},
		Spec:       v1alpha1.ArtefactSpec{URI: "https://updates.example.com/waiting.tar.zst", Checksum: strings.Repeat("5f", 32)},
	}
	i.Expect(i.control.Client.Create(ctx, waiting)).To(Succeed())
	i.Eventually(ctx, func() (string, error) {
		err := i.control.Client.Get(ctx, client.ObjectKeyFromObject(waiting), waiting)
		return invariants.Ready(waiting), err
	}).WithTimeout(time.Minute).Should(HavePrefix("Unknown ConnectUnavailable"))
	i.Expect(waiting.Finalizers).NotTo(BeEmpty())
	i.Expect(probe(ctx, manager, "/readyz")()).To(Equal(http.StatusOK))
}

// isGone tells that nothing of the operator is left in the cluster, and makes it ready for the next way.
func (i installation) isGone(ctx context.Context) {
	for _, list := range []client.ObjectList{
		&apiextensionsv1.CustomResourceDefinitionList{}, &corev1.NamespaceList{}, &rbacv1.RoleList{}, &rbacv1.RoleBindingList{},
		&rbacv1.ClusterRoleList{}, &rbacv1.ClusterRoleBindingList{}, &corev1.ServiceAccountList{}, &appsv1.DeploymentList{},
	} {
		i.Expect(i.control.Client.List(ctx, list)).To(Succeed())
		i.Expect(meta.EachListItem(list, func(item runtime.Object) error {
			i.Expect(item.(client.Object).GetName()).NotTo(ContainSubstring("rpi-connect"), "%T", item)
			return nil
		})).To(Succeed())
	}
	i.Expect(i.control.Client.DeleteAllOf(ctx, &corev1.Secret{}, client.InNamespace(fleet))).To(Succeed())
	i.Expect(i.control.Client.DeleteAllOf(ctx, &eventsv1.Event{}, client.InNamespace(fleet))).To(Succeed())
}

// connect is a simulated Connect that ends with the test.
func connect(t *testing.T) cluster.Connect {
	t.Helper()
	served, err := cluster.ServeConnect(connectsim.Options{})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(served.Sim.Close)
	return served
}

// shell is in a copy of the repository, and has Helm.
func shell(t *testing.T, control *cluster.Cluster) cluster.Shell {
	t.Helper()
	helm, err := helmBinary()
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return cluster.Shell{Cluster: control, Dir: checkout(t), Namespace: fleet, Path: []string{filepath.Dir(helm)}}
}

// checkout is a copy of the repository, as far as it is for installing.
func checkout(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, path := range []string{"Makefile", "go.mod", "go.sum", "charts", "config", "hack", "tools"} {
		out, err := exec.CommandContext(t.Context(), "cp", "-r", filepath.Join(cluster.Root(), path), dir).CombinedOutput()
		NewWithT(t).Expect(err).NotTo(HaveOccurred(), string(out))
	}
	return dir
}
