// SPDX-License-Identifier: Apache-2.0

package monitoring_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/test/cluster"
	"rpi-connect.dev/operator/test/invariants"
)

var (
	control *cluster.Cluster
	connect cluster.Connect
	manager *cluster.Manager
	server  *prometheus
	// Where the operator serves its metrics, and what opens them.
	metricsURL, metricsToken string
	// Where kube-state-metrics serves its own.
	stateURL string
)

func TestMonitoring(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(2 * time.Minute)
	SetDefaultEventuallyPollingInterval(100 * time.Millisecond)
	EnforceDefaultTimeoutsWhenUsingContexts()
	RunSpecs(t, "Monitoring")
}

// What is looked at is the fleet of config/samples and a rollout, as they are when everything has come to
// its end, with a few things that went wrong; scraped by Prometheus with rights of its own.
var _ = BeforeSuite(func(ctx context.Context) {
	var err error
	control, err = cluster.Start(ctx, cluster.Options{})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Expect(control.Stop()).To(Succeed()) })
	connect, err = cluster.ServeConnect(connectsim.Options{})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(connect.Sim.Close)
	binary, err := cluster.BuildManager(ctx, control.Dir)
	Expect(err).NotTo(HaveOccurred())
	manager, err = control.StartManager(ctx, binary, "--connect-api-url="+connect.URL, "--metrics-secure=true",
		"--resync-interval=1s", "--deployment-poll-min=500ms", "--deployment-poll-max=1s", "--zap-log-level=debug")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(manager.Stop)
	Expect(manager.WaitReady(ctx)).To(Succeed())
	metricsURL = strings.Replace(manager.MetricsURL, "http://", "https://", 1)
	metricsToken = account(ctx, "prometheus", "rpi-connect-metrics-reader")
	stateURL = startKubeStateMetrics(ctx)
	server = startPrometheus(ctx)
	plugIn(ctx)
	apply(ctx)
})

// plugIn has the boards sign in that the samples and the rollout are about.
func plugIn(ctx context.Context) {
	GinkgoHelper()
	admin := connect.Sim.Admin(context.WithoutCancel(ctx), connect.URL)
	five := connectsim.Board{Model: "5", Memory: "8gb", OS: "raspios-13"}
	for _, pi := range []connectsim.VirtualPi{
		{Hostname: "shop-window", SerialNumber: "10000000c0ffee01", Tags: []string{"signage"}, Board: five, Steering: connectsim.Steering{Offline: new(true)}},
		{Hostname: "kiosk-lobby", Board: five},
		{Hostname: "kiosk-cafe", Board: five, Steering: connectsim.Steering{FailWith: new("Checksum mismatch")}},
		{Hostname: "screen-1", Tags: []string{"screen"}, Board: five, Steering: connectsim.Steering{FailWith: new("No space left on device")}},
		{Hostname: "screen-2", Tags: []string{"screen"}, Board: five, Steering: connectsim.Steering{FailWith: new("No space left on device")}},
	} {
		pi.PollMilliseconds, pi.WorkMilliseconds = new(100), new(100)
		Expect(admin.PlugIn(ctx, pi)).To(Succeed())
	}
}

const more = `
apiVersion: rpi-connect.dev/v1alpha1
kind: FleetRollout
metadata: {namespace: default, name: screens}
spec:
  artefactRef: {name: kiosk-v1.1}
  devices: {query: "tag:screen"}
  maxConcurrent: 1
  failurePolicy: {maxFailures: 0}
---
apiVersion: rpi-connect.dev/v1alpha1
kind: Artefact
metadata: {namespace: default, name: kiosk-v0.9}
spec: {uri: "https://updates.example.com/kiosk-v0.9.tar.zst", checksum: 5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef}
---
apiVersion: rpi-connect.dev/v1alpha1
kind: Artefact
metadata: {namespace: museum, name: signs-v1}
spec: {uri: "https://updates.example.com/signs-v1.tar.zst", checksum: 5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef}
---
apiVersion: rpi-connect.dev/v1alpha1
kind: Artefact
metadata: {namespace: museum, name: signs-v2}
spec: {uri: "https://updates.example.com/signs-v2.tar.zst", checksum: 5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef}
`

// apply puts everything into the cluster, and waits until it has come to its end: the other rollout of
// the samples is left out, because its canaries are looked at for ten minutes.
func apply(ctx context.Context) {
	GinkgoHelper()
	connect.Org.AddArtefact("kiosk-v0.9", "https://elsewhere.example.com/kiosk.tar.zst", strings.Repeat("0a", 32))
	Expect(control.PutToken(ctx, "default", connect.Token)).To(Succeed())
	Expect(control.PutToken(ctx, "museum", connectsim.NewSecret("rporg_"))).To(Succeed()) // of nobody's
	objects, err := cluster.Build(ctx, "config/samples")
	Expect(err).NotTo(HaveOccurred())
	others, err := cluster.Objects(strings.NewReader(more))
	Expect(err).NotTo(HaveOccurred())
	for _, obj := range append(objects, others...) {
		if obj.GetName() == "connect-access-token" || obj.GetKind() == "FleetRollout" && obj.GetName() == "kiosk" {
			continue
		}
		if obj.GetNamespace() == "" {
			obj.SetNamespace("default")
		}
		Expect(control.Client.Create(ctx, obj)).To(Succeed())
	}
	for _, end := range []struct {
		obj    invariants.Object
		name   string
		reason string
	}{
		{&v1alpha1.Artefact{}, "default/kiosk-v1.0", v1alpha1.ReasonAvailable},
		{&v1alpha1.Artefact{}, "default/kiosk-v0.9", v1alpha1.ReasonConflict},
		{&v1alpha1.Artefact{}, "museum/signs-v1", v1alpha1.ReasonAccessTokenRejected},
		{&v1alpha1.Artefact{}, "museum/signs-v2", v1alpha1.ReasonAccessTokenRejected},
		{&v1alpha1.AuthKey{}, "default/kiosk-lobby", v1alpha1.ReasonUsable},
		{&v1alpha1.Device{}, "default/shop-window", v1alpha1.ReasonAvailable},
		{&v1alpha1.DeviceIdentity{}, "default/kiosk-cafe", v1alpha1.ReasonAvailable},
		{&v1alpha1.Deployment{}, "default/kiosk-lobby-v1.0", v1alpha1.ReasonSucceeded},
		{&v1alpha1.Deployment{}, "default/kiosk-cafe-v1.1", v1alpha1.ReasonFailed},
		{&v1alpha1.Deployment{}, "default/window-2026.11", v1alpha1.ReasonPending},
		{&v1alpha1.FleetRollout{}, "default/screens", v1alpha1.ReasonFailuresExceeded},
	} {
		namespace, name, _ := strings.Cut(end.name, "/")
		Eventually(ctx, func(g Gomega) {
			g.Expect(control.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, end.obj.(client.Object))).To(Succeed())
			g.Expect(invariants.Ready(end.obj)).To(ContainSubstring(" " + end.reason + ":"))
		}).Should(Succeed(), "%T %s", end.obj, end.name)
	}
}

// account makes a ServiceAccount with a ClusterRole of the operator's, and returns a token of its.
func account(ctx context.Context, name, role string) (token string) {
	GinkgoHelper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	who := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: name}}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: name, Name: name}},
	}
	for _, obj := range []client.Object{namespace, who, binding} {
		Expect(control.Client.Create(ctx, obj)).To(Succeed())
	}
	request := &authenticationv1.TokenRequest{}
	Expect(control.Client.SubResource("token").Create(ctx, who, request)).To(Succeed())
	return request.Status.Token
}

// shipped is an object of a folder of config, as kustomize makes it.
func shipped(ctx context.Context, folder, kind string) *unstructured.Unstructured {
	GinkgoHelper()
	objects, err := cluster.Build(ctx, folder)
	Expect(err).NotTo(HaveOccurred())
	for _, obj := range objects {
		if obj.GetKind() == kind {
			return obj
		}
	}
	Fail(folder + " has no " + kind)
	return nil
}

func keep(dir, name, text string) (path string) {
	GinkgoHelper()
	path = filepath.Join(dir, name)
	Expect(os.WriteFile(path, []byte(text), 0o600)).To(Succeed())
	return path
}
