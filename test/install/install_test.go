// SPDX-License-Identifier: Apache-2.0

package install_test

import (
	"context"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
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
	page  = "docs/install.md"
	fleet = "fleet" // the namespace of the fleet
	image = "registry.example.com/rpi-connect-operator:v0.1.0"
)

// What docs/install.md tells an administrator to type is typed here, and what comes of it has to be
// enough for the operator: its flags, its rights, its pod.
func TestWaysToInstall(t *testing.T) {
	if !cluster.HasControllerManager() {
		t.Skip("nothing removes namespaces without kube-controller-manager")
	}
	g := NewWithT(t)
	control := emptyCluster(t)
	binary, err := cluster.BuildManager(t.Context(), control.Dir)
	g.Expect(err).NotTo(HaveOccurred())

	g.Expect(control.Client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fleet}})).To(Succeed())

	for _, way := range []struct{ install, uninstall string }{
		{"## With kustomize", "### After kustomize"},
		{"## With one file", "### After one file"},
		{"## With Helm", "### After Helm"},
		{"## For one namespace", "### After kustomize"},
	} {
		passed := t.Run(way.install, func(t *testing.T) {
			i := installation{NewWithT(t), control, connect(t), shell(t, control)}
			i.run(t, way.install)
			pod := i.pod(t.Context())
			manager, err := control.StartManagerAs(t.Context(), pod.Spec.ServiceAccountName, binary,
				append(pod.Spec.Containers[0].Args, "--metrics-secure=true", "--connect-api-url="+i.connect.URL)...)
			i.Expect(err).NotTo(HaveOccurred())
			t.Cleanup(manager.Stop)
			began := time.Now()
			i.Expect(manager.WaitReady(t.Context())).To(Succeed(), manager.Log)

			i.run(t, "## First steps")
			i.works(t.Context())
			i.servesMetrics(t.Context(), manager)
			i.wasRefusedNothing(began)

			i.run(t, "## Uninstall")
			i.leftBehind(t.Context())
			manager.Stop()
			i.Expect(control.Client.Create(t.Context(), &v1alpha1.Artefact{
				ObjectMeta: metav1.ObjectMeta{Namespace: fleet, Name: "stuck", Finalizers: []string{v1alpha1.Finalizer}},
				Spec:       v1alpha1.ArtefactSpec{URI: "https://updates.example.com/stuck.tar.zst", Checksum: strings.Repeat("5f", 32)},
			})).To(Succeed())
			i.run(t, "### When the operator went first")
			i.run(t, way.uninstall)
			i.isGone(t.Context())
		})
		if !passed {
			return // the next way needs an empty cluster
		}
	}
}

// installation is what an administrator has made of an empty cluster.
type installation struct {
	*WithT

	control *cluster.Cluster
	connect cluster.Connect
	shell   cluster.Shell
}

// run types what a section of the page says.
func (i installation) run(t *testing.T, heading string) {
	t.Helper()
	script, err := cluster.Blocks(page, heading)
	i.Expect(err).NotTo(HaveOccurred())
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

// shell is in a copy of the repository, as far as it is for installing, and has Helm.
func shell(t *testing.T, control *cluster.Cluster) cluster.Shell {
	t.Helper()
	g, dir := NewWithT(t), t.TempDir()
	for _, path := range []string{"Makefile", "go.mod", "go.sum", "charts", "config", "hack", "tools"} {
		out, err := exec.CommandContext(t.Context(), "cp", "-r", filepath.Join(cluster.Root(), path), dir).CombinedOutput()
		g.Expect(err).NotTo(HaveOccurred(), string(out))
	}
	helm, err := helmBinary()
	g.Expect(err).NotTo(HaveOccurred())
	return cluster.Shell{Cluster: control, Dir: dir, Namespace: fleet, Path: []string{filepath.Dir(helm)}}
}
