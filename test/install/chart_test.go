// SPDX-License-Identifier: Apache-2.0

// Package install_test installs the operator in the ways that are offered, and compares them.
package install_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/test/cluster"
)

const chart = "charts/rpi-connect-operator"

// everything is what the chart can do beyond its defaults.
const everything = `
watchNamespaces: [default, kube-public]
connectCA: {configMap: company-ca}
env: [{name: HTTPS_PROXY, value: "http://proxy.example.com:3128"}]
imagePullSecrets: [{name: registry}]
image: {digest: "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef", pullPolicy: Always}
dashboard: {enabled: true}
podAnnotations: {note: here}
podLabels: {team: kiosks}
priorityClassName: system-cluster-critical
nodeSelector: {kubernetes.io/arch: arm64}
tolerations: [{operator: Exists}]
affinity: {nodeAffinity: {}}
serviceAccount: {annotations: {note: here}}
networkPolicy: {egressPorts: [3128, 6443]}
flags:
  connect-api-url: https://connect.example.com
  resync-interval: 5m
  deployment-poll-min: 20s
  deployment-poll-max: 1h30m
  post-settle-time: 2m
  api-budget-reserve: 20
  api-qps: 0.5
  max-concurrent-reconciles: 100000000
  leader-elect: false
  leader-elect-lease-duration: 20s
  leader-elect-namespace: default
  metrics-bind-address: :9443
  metrics-secure: false
  health-probe-bind-address: :9081
  zap-devel: true
  zap-encoder: console
  zap-log-level: 3
  zap-stacktrace-level: panic
  zap-time-encoding: rfc3339
`

func TestChartIsWellFormed(t *testing.T) {
	g := NewWithT(t)
	_, err := helm(t.Context(), "", "lint", chart, "--strict")
	g.Expect(err).NotTo(HaveOccurred())
	_, err = helm(t.Context(), everything, "lint", chart, "--strict", "--values=-")
	g.Expect(err).NotTo(HaveOccurred())
}

// Whoever changes a folder of config has to change the chart too.
func TestChartInstallsWhatKustomizeDoes(t *testing.T) {
	for folder, values := range map[string]string{
		"config/default":    "",
		"config/namespaced": "watchNamespaces: [fleet]",
	} {
		t.Run(folder, func(t *testing.T) {
			g := NewWithT(t)
			wanted, err := cluster.Build(t.Context(), folder)
			g.Expect(err).NotTo(HaveOccurred())
			wanted = slices.DeleteFunc(wanted, func(o *unstructured.Unstructured) bool { return o.GetKind() == "Namespace" }) // helm --create-namespace
			has := byName(template(t, values))
			g.Expect(slices.Sorted(maps.Keys(has))).To(Equal(slices.Sorted(maps.Keys(byName(wanted)))))
			for name, want := range byName(wanted) {
				got := has[name]
				// Helm's own labels and annotations may come on top.
				got.SetLabels(only(got.GetLabels(), want.GetLabels()))
				got.SetAnnotations(only(got.GetAnnotations(), want.GetAnnotations()))
				g.Expect(got.Object).To(Equal(want.Object), name)
			}
		})
	}
}

func TestChartKeepsResourcesWhenItGoes(t *testing.T) {
	g := NewWithT(t)
	kept := 0
	for _, obj := range template(t, "") {
		if obj.GetKind() == "CustomResourceDefinition" {
			g.Expect(obj.GetAnnotations()).To(HaveKeyWithValue("helm.sh/resource-policy", "keep"), obj.GetName())
			kept++
		}
	}
	g.Expect(kept).To(Equal(len(cluster.Kinds())))
	for name := range byName(template(t, "crds: {install: false}")) {
		g.Expect(name).NotTo(HavePrefix("CustomResourceDefinition"))
	}
}

func TestChartBringsMonitoringFromConfig(t *testing.T) {
	g := NewWithT(t)
	has := byName(template(t, "{serviceMonitor: {enabled: true, labels: {release: prometheus}}, prometheusRule: {enabled: true}, dashboard: {enabled: true}}"))
	wanted, err := cluster.Build(t.Context(), "config/prometheus")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(wanted).To(HaveLen(2))
	for name, want := range byName(wanted) {
		g.Expect(has).To(HaveKey(name))
		g.Expect(has[name].Object["spec"]).To(Equal(want.Object["spec"]), name)
	}
	g.Expect(has["ServiceMonitor rpi-connect-system/rpi-connect-controller-manager"].GetLabels()).To(HaveKeyWithValue("release", "prometheus"))

	var rule struct {
		Spec struct {
			Groups []struct {
				Rules []struct{ Annotations map[string]string }
			}
		}
	}
	elsewhere := "{prometheusRule: {enabled: true, runbookURL: https://docs.example.com/pis}}"
	read(t, byName(template(t, elsewhere)), "PrometheusRule rpi-connect-system/rpi-connect-controller-manager", &rule)
	for _, alert := range rule.Spec.Groups[0].Rules {
		g.Expect(alert.Annotations["runbook_url"]).To(MatchRegexp(`^https://docs\.example\.com/pis#rpiconnect[a-z]+$`))
	}

	dashboard, err := os.ReadFile(filepath.Join(cluster.Root(), "config/grafana/rpi-connect-operator.json"))
	g.Expect(err).NotTo(HaveOccurred())
	var shipped corev1.ConfigMap
	read(t, has, "ConfigMap rpi-connect-system/rpi-connect-controller-manager-dashboard", &shipped)
	g.Expect(shipped.Data).To(Equal(map[string]string{"rpi-connect-operator.json": string(dashboard)}))
}

func TestChartReachesEveryFlag(t *testing.T) {
	g := NewWithT(t)
	binary, err := cluster.BuildManager(t.Context(), t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	help, _ := exec.CommandContext(t.Context(), binary, "--help").CombinedOutput()
	flags := map[string]bool{}
	for _, line := range regexp.MustCompile(`(?m)^  -([-a-z]+)`).FindAllStringSubmatch(string(help), -1) {
		flags[line[1]] = true
	}
	delete(flags, "kubeconfig") // a pod has its ServiceAccount

	var deployment appsv1.Deployment
	read(t, byName(template(t, everything)), "Deployment rpi-connect-system/rpi-connect-controller-manager", &deployment)
	args := deployment.Spec.Template.Spec.Containers[0].Args
	var given []string
	for _, arg := range args {
		name, _, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		given = append(given, name)
	}
	g.Expect(given).To(ConsistOf(slices.Collect(maps.Keys(flags))))
	g.Expect(args).To(ContainElements(
		"--api-qps=0.5", "--max-concurrent-reconciles=100000000", "--leader-elect=false", "--zap-devel",
		"--watch-namespaces=default,kube-public", "--connect-ca-file=/etc/rpi-connect/ca.crt",
	))
	// The operator understands all that comes before --help.
	out, err := exec.CommandContext(t.Context(), binary, append(args, "--help")...).CombinedOutput()
	g.Expect(err).NotTo(HaveOccurred(), string(out))
	g.Expect(deployment.Spec.Template.Spec.Containers[0].Ports).To(HaveExactElements(
		HaveField("ContainerPort", int32(9443)), HaveField("ContainerPort", int32(9081))))
}

func TestChartRefusesWhatCannotBeMeant(t *testing.T) {
	for values, says := range map[string]string{
		"replica: 3":                                                        "replica",
		"flags: {resync: 5m}":                                               "resync",
		"flags: {resync-interval: 300}":                                     "resync-interval",
		"flags: {api-budget-reserve: 95}":                                   "api-budget-reserve",
		"flags: {watch-namespaces: fleet}":                                  "watch-namespaces",
		"image: {digest: latest}":                                           "digest",
		"prometheusRule: {runbookURL: 'a#b'}":                               "runbookURL",
		"networkPolicy: {egressPorts: [https]}":                             "egressPorts",
		"{serviceMonitor: {enabled: true}, flags: {metrics-secure: false}}": "over HTTPS",
	} {
		t.Run(values, func(t *testing.T) {
			_, err := helm(t.Context(), values, "template", "rpi-connect", chart, "--values=-")
			NewWithT(t).Expect(err).To(MatchError(ContainSubstring(says)))
		})
	}
}

func TestChartServesNothingWhereItShallNot(t *testing.T) {
	g := NewWithT(t)
	has := byName(template(t, `flags: {metrics-bind-address: "0", health-probe-bind-address: "0"}`))
	g.Expect(has).NotTo(HaveKey("Service rpi-connect-system/rpi-connect-controller-manager-metrics"))
	var deployment appsv1.Deployment
	read(t, has, "Deployment rpi-connect-system/rpi-connect-controller-manager", &deployment)
	g.Expect(deployment.Spec.Template.Spec.Containers[0].Ports).To(BeEmpty())
	g.Expect(deployment.Spec.Template.Spec.Containers[0].LivenessProbe).To(BeNil())
	g.Expect(has["NetworkPolicy rpi-connect-system/rpi-connect-controller-manager"].Object["spec"]).NotTo(HaveKey("ingress"))
}

func TestReleasedChartInstallsItsImage(t *testing.T) {
	const digest = "@sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
	dir := checkout(t)
	for given, wanted := range map[string]string{
		"registry.example.com:5000/operator:v0.1.0":          "registry.example.com:5000/operator:v0.1.0",
		"registry.example.com:5000/operator:v0.1.0" + digest: "registry.example.com:5000/operator" + digest,
		"registry.example.com/operator" + digest:             "registry.example.com/operator" + digest,
	} {
		t.Run(given, func(t *testing.T) {
			g := NewWithT(t)
			packing := exec.CommandContext(t.Context(), "make", "package-chart", "VERSION=v0.1.0", "IMG="+given)
			packing.Dir = dir
			out, err := packing.CombinedOutput()
			g.Expect(err).NotTo(HaveOccurred(), string(out))
			released, err := helm(t.Context(), "", "template", "rpi-connect", filepath.Join(dir, "dist/rpi-connect-operator-0.1.0.tgz"), "--namespace", cluster.OperatorNamespace)
			g.Expect(err).NotTo(HaveOccurred())
			objects, err := cluster.Objects(bytes.NewReader(released))
			g.Expect(err).NotTo(HaveOccurred())
			var deployment appsv1.Deployment
			read(t, byName(objects), "Deployment rpi-connect-system/rpi-connect-controller-manager", &deployment)
			g.Expect(deployment.Spec.Template.Spec.Containers[0].Image).To(Equal(wanted))
			g.Expect(deployment.Labels).To(And(HaveKeyWithValue("app.kubernetes.io/version", "v0.1.0"), HaveKeyWithValue("helm.sh/chart", "rpi-connect-operator-0.1.0")))
		})
	}
}

func TestAPIServerTakesTheChart(t *testing.T) {
	g := NewWithT(t)
	control := emptyCluster(t)
	restricted := map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}
	for _, namespace := range []*corev1.Namespace{
		{ObjectMeta: metav1.ObjectMeta{Name: "kube-public"}},
		{ObjectMeta: metav1.ObjectMeta{Name: cluster.OperatorNamespace, Labels: restricted}},
	} {
		g.Expect(client.IgnoreAlreadyExists(control.Client.Create(t.Context(), namespace))).To(Succeed())
	}

	for _, values := range []string{"", everything} {
		for _, obj := range template(t, values) {
			name := fmt.Sprintf("%s %s", obj.GetKind(), obj.GetName())
			g.Expect(control.Client.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(obj), client.DryRunAll, client.ForceOwnership, client.FieldOwner("helm"))).
				To(Succeed(), name)
			if obj.GetKind() != "Deployment" {
				continue
			}
			var deployment appsv1.Deployment
			g.Expect(runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, &deployment)).To(Succeed())
			pod := &corev1.Pod{ObjectMeta: deployment.Spec.Template.ObjectMeta, Spec: deployment.Spec.Template.Spec}
			pod.Namespace, pod.GenerateName = cluster.OperatorNamespace, "manager-"
			pod.Spec.PriorityClassName = ""
			g.Expect(control.Client.Create(t.Context(), pod, client.DryRunAll)).To(Succeed(), "in a namespace that enforces the restricted Pod Security Standard")
		}
	}
}

// helmBinary is the path of Helm, which is built once.
var helmBinary = sync.OnceValues(func() (string, error) {
	find := exec.Command("go", "tool", "-modfile=tools/helm/go.mod", "-n", "helm")
	find.Dir = cluster.Root()
	out, err := find.Output()
	return strings.TrimSpace(string(out)), err
})

// helm runs Helm with values on its standard input.
func helm(ctx context.Context, values string, args ...string) ([]byte, error) {
	binary, err := helmBinary()
	if err != nil {
		return nil, err
	}
	command := exec.CommandContext(ctx, binary, args...)
	command.Dir, command.Stdin = cluster.Root(), strings.NewReader(values)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("helm %s: %w: %s%s", args[0], err, stderr.String(), out)
	}
	return out, nil
}

// template is what the chart becomes, installed as its README says.
func template(t *testing.T, values string) []*unstructured.Unstructured {
	t.Helper()
	g := NewWithT(t)
	out, err := helm(t.Context(), values, "template", "rpi-connect", chart, "--namespace", cluster.OperatorNamespace, "--values=-")
	g.Expect(err).NotTo(HaveOccurred())
	objects, err := cluster.Objects(bytes.NewReader(out))
	g.Expect(err).NotTo(HaveOccurred())
	return objects
}

// byName has the objects by kind, namespace and name.
func byName(objects []*unstructured.Unstructured) map[string]*unstructured.Unstructured {
	all := map[string]*unstructured.Unstructured{}
	for _, obj := range objects {
		all[obj.GetKind()+" "+strings.TrimPrefix(obj.GetNamespace()+"/"+obj.GetName(), "/")] = obj
	}
	return all
}

func read(t *testing.T, objects map[string]*unstructured.Unstructured, name string, into any) {
	t.Helper()
	g := NewWithT(t)
	g.Expect(objects).To(HaveKey(name))
	text, err := json.Marshal(objects[name].Object)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(json.Unmarshal(text, into)).To(Succeed())
}

// only returns those of the entries whose keys are wanted; nil for none, as an object without them has.
func only(entries, wanted map[string]string) map[string]string {
	if len(wanted) == 0 {
		return nil
	}
	kept := map[string]string{}
	for key := range wanted {
		if value, ok := entries[key]; ok {
			kept[key] = value
		}
	}
	return kept
}
