// SPDX-License-Identifier: Apache-2.0

package monitoring_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/test/cluster"
)

// startKubeStateMetrics starts one with what is shipped for it, and rights to nothing else.
func startKubeStateMetrics(ctx context.Context) (url string) {
	GinkgoHelper()
	const folder = "config/kube-state-metrics"
	role := shipped(ctx, folder, "ClusterRole")
	Expect(control.Client.Create(ctx, role)).To(Succeed())
	config := rest.AnonymousClientConfig(control.Config)
	config.BearerToken = account(ctx, "kube-state-metrics", role.GetName())
	dir := GinkgoT().TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	Expect(cluster.WriteKubeconfig(kubeconfig, config, "default")).To(Succeed())
	data := shipped(ctx, folder, "ConfigMap").Object["data"].(map[string]any)
	state := keep(dir, "custom-resource-state.yaml", data["custom-resource-state.yaml"].(string))
	port := freePort()
	kubeStateMetrics.serve("--kubeconfig="+kubeconfig, "--custom-resource-state-only", "--custom-resource-state-config-file="+state,
		"--host=127.0.0.1", "--port="+port, "--telemetry-host=127.0.0.1", "--telemetry-port="+freePort())
	return "http://127.0.0.1:" + port + "/metrics"
}

var _ = Describe("What is shipped for kube-state-metrics", func() {
	// says tells whether a metric has a sample with the value, and with the labels, given in pairs.
	says := func(ctx context.Context, name, value string, labels ...string) func(Gomega) {
		return func(g Gomega) {
			text, err := get(ctx, stateURL, "")
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(slices.Collect(strings.Lines(text))).To(ContainElement(Satisfy(func(line string) bool {
				return isSample(line, name, value, labels...)
			})), "%s %v %s", name, labels, value)
		}
	}

	It("tells of every condition of every resource", func(ctx context.Context) {
		for _, list := range cluster.Lists() {
			Expect(control.Client.List(ctx, list)).To(Succeed())
			Expect(meta.LenList(list)).To(BeNumerically(">", 0), "%T is empty: config/samples needs one", list)
			Expect(meta.EachListItem(list, func(item runtime.Object) error {
				obj := item.(lifecycle.Object)
				gvk, err := control.Client.GroupVersionKindFor(obj)
				Expect(err).NotTo(HaveOccurred())
				who := []string{"customresource_kind", gvk.Kind, "namespace", obj.GetNamespace(), "name", obj.GetName()}
				status := obj.GetCommonStatus()
				info := who
				if status.ID != "" {
					info = append(slices.Clone(who), "id", status.ID)
				}
				Eventually(ctx, says(ctx, "kube_rpi_connect_resource_info", "1", info...)).Should(Succeed())
				for _, c := range status.Conditions {
					condition := append(slices.Clone(who), "type", c.Type, "status", string(c.Status), "reason", c.Reason)
					Eventually(ctx, says(ctx, "kube_rpi_connect_resource_status_condition", "1", condition...)).Should(Succeed())
				}
				created := fmt.Sprintf("%g", float64(obj.GetCreationTimestamp().Unix()))
				Eventually(ctx, says(ctx, "kube_rpi_connect_resource_created", created, who...)).Should(Succeed())
				return nil
			})).To(Succeed())
		}
	})

	It("tells how far Deployments and FleetRollouts have come", func(ctx context.Context) {
		for _, of := range [][]string{
			{"kube_rpi_connect_deployment_status_state", "1", "name", "window-2026.11", "state", "pending"},
			{"kube_rpi_connect_deployment_status_state", "0", "name", "window-2026.11", "state", "failed"},
			{"kube_rpi_connect_deployment_status_state", "1", "name", "kiosk-lobby-v1.0", "state", "succeeded"},
			{"kube_rpi_connect_resource_info", "1", "artefact", "kiosk-v1.0", "device", "kiosk-lobby"},
			{"kube_rpi_connect_resource_info", "1", "customresource_kind", "Deployment", "rollout", "screens"},
			{"kube_rpi_connect_fleetrollout_status_phase", "1", "name", "screens", "phase", "Paused"},
			{"kube_rpi_connect_fleetrollout_status_phase", "0", "name", "screens", "phase", "Complete"},
			{"kube_rpi_connect_fleetrollout_status_devices", "1", "name", "screens", "state", "failed"},
			{"kube_rpi_connect_fleetrollout_status_devices", "2", "name", "screens", "state", "members"},
		} {
			Eventually(ctx, says(ctx, of[0], of[1], of[2:]...)).Should(Succeed())
		}
	})

	It("knows every phase and every state that there is", func(ctx context.Context) {
		text, err := get(ctx, stateURL, "")
		Expect(err).NotTo(HaveOccurred())
		crd := &apiextensionsv1.CustomResourceDefinition{}
		file, err := os.ReadFile(filepath.Join(root, "config/crd/bases/rpi-connect.dev_fleetrollouts.yaml"))
		Expect(err).NotTo(HaveOccurred())
		Expect(yaml.Unmarshal(file, crd)).To(Succeed())
		phases := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["status"].Properties["phase"].Enum
		Expect(phases).NotTo(BeEmpty())
		for _, phase := range phases {
			Expect(text).To(ContainSubstring(`phase=` + string(phase.Raw)))
		}
		Expect(strings.Count(text, "kube_rpi_connect_fleetrollout_status_phase{")).To(Equal(len(phases)), "there is one rollout")
		for _, state := range []string{"pending", "in_progress", "succeeded", "failed", "cancelled"} {
			Expect(text).To(ContainSubstring(`state="` + state + `"`))
		}
	})

	It("is what Prometheus reads", func(ctx context.Context) {
		text, err := get(ctx, stateURL, "")
		Expect(err).NotTo(HaveOccurred())
		Expect(promtool.run(strings.NewReader(text), "check", "metrics")).To(Succeed())
	})
})
