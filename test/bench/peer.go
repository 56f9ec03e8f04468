// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/test/cluster"
)

// peerPatience is how long the peer may take to converge; it goes on from there.
const peerPatience = 3 * time.Minute

// compare has this operator and a generic peer, Crossplane's provider-http, manage the same Artefacts,
// each on a control plane of its own. The peer is what its flags make it by default.
func compare(ctx context.Context, source string, n int) error {
	fmt.Printf("\n%d Artefacts, managed by this operator and by a generic peer with its defaults. The simulator's hourly limit is lifted.\n", n)
	fmt.Println("\n| what manages them | Ready | after | POSTs | other requests until then | requests per hour, after four minutes | of the hourly limit | resident memory |")
	fmt.Println("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
	err := withCluster(ctx, func(c *cluster.Cluster, binary string) error {
		r, err := measureArtefacts(ctx, c, binary, n)
		if err != nil {
			return err
		}
		hourly := float64(r.listing) * float64(time.Hour) / float64(10*time.Minute)
		printManager("rpi-connect-operator", n, n, r.took, r.posts, r.others, hourly, r.resident)
		return nil
	})
	if err != nil {
		return err
	}
	return withCluster(ctx, func(c *cluster.Cluster, _ string) error { return measurePeer(ctx, c, source, n) })
}

func printManager(name string, ready, n int, took time.Duration, posts, others int, hourly float64, resident int64) {
	fmt.Printf("| %s | %d of %d | %.0f s | %d | %d | %.0f | %.2f | %d MiB |\n", name, ready, n, took.Seconds(), posts, others, hourly, hourly/limit, resident>>20)
}

func measurePeer(ctx context.Context, c *cluster.Cluster, source string, n int) error {
	b, err := connect(ctx, c, connectsim.Options{RateLimit: 1 << 30})
	if err != nil {
		return err
	}
	defer b.Sim.Close()
	// It takes tokens as they are, and a line end is none of a header.
	token := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "peer"}, StringData: map[string]string{"token": b.Token}}
	if err := c.Client.Create(ctx, token); err != nil {
		return err
	}
	peer, stop, err := startPeer(ctx, c, source)
	if err != nil {
		return err
	}
	defer stop()
	provider := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"credentials": map[string]any{"source": "None"}}}}
	provider.SetGroupVersionKind(schema.GroupVersionKind{Group: "http.crossplane.io", Version: "v1alpha1", Kind: "ProviderConfig"})
	provider.SetName("connect")
	if err := c.Client.Create(ctx, provider); err != nil {
		return err
	}
	began := time.Now()
	if err := each(ctx, n, func(ctx context.Context, i int) error { return c.Client.Create(ctx, peerRequest(b.URL, i)) }); err != nil {
		return err
	}
	ready := 0
	waiting, cancel := context.WithTimeout(ctx, peerPatience)
	defer cancel()
	if err := until(waiting, func() (bool, error) {
		var err error
		ready, err = readyRequests(ctx, c)
		return ready >= n, err
	}); err != nil && waiting.Err() == nil {
		return err
	}
	took, posts, all := time.Since(began), b.Sim.Count("POST /organisation/artefacts"), b.Sim.Count("")
	const steady = 2 * time.Minute
	if err := pause(ctx, time.Minute); err != nil { // what has just come is looked at more often
		return err
	}
	before := b.Sim.Count("")
	if err := pause(ctx, steady); err != nil {
		return err
	}
	hourly := float64(b.Sim.Count("")-before) * float64(time.Hour) / float64(steady)
	resident, err := cluster.ResidentBytes(peer)
	if err != nil {
		return err
	}
	printManager("provider-http", ready, n, took, posts, all-posts, hourly, resident)
	return nil
}

// startPeer builds the peer from its source and starts it as an administrator; it returns the id of
// its process.
func startPeer(ctx context.Context, c *cluster.Cluster, source string) (pid int, stop func(), err error) {
	if _, err := envtest.InstallCRDs(c.Config, envtest.CRDInstallOptions{Paths: []string{filepath.Join(source, "package", "crds")}}); err != nil {
		return 0, nil, err
	}
	binary, kubeconfig := filepath.Join(c.Dir, "peer"), filepath.Join(c.Dir, "peer.kubeconfig")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/provider")
	build.Dir = source
	if out, err := build.CombinedOutput(); err != nil {
		return 0, nil, fmt.Errorf("build the peer: %w\n%s", err, out)
	}
	if err := cluster.WriteKubeconfig(kubeconfig, c.Config, metav1.NamespaceDefault); err != nil {
		return 0, nil, err
	}
	peer := exec.CommandContext(ctx, binary)
	peer.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig)
	if err := peer.Start(); err != nil {
		return 0, nil, err
	}
	return peer.Process.Pid, func() {
		_ = peer.Process.Kill()
		_ = peer.Wait()
	}, nil
}

var requestKind = schema.GroupVersionKind{Group: "http.crossplane.io", Version: "v1alpha2", Kind: "Request"}

// peerRequest is an Artefact in the peer's words.
func peerRequest(url string, i int) *unstructured.Unstructured {
	a := artefact(metav1.NamespaceDefault, i)
	byID := `.payload.baseUrl + "/" + (.response.body.id | tostring)`
	request := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{
		"providerConfigRef": map[string]any{"name": "connect"},
		"forProvider": map[string]any{
			"headers": map[string]any{
				"Content-Type":  []any{"application/json"},
				"Authorization": []any{"Bearer {{ peer:default:token }}"},
			},
			"payload": map[string]any{
				"baseUrl": url + "/organisation/artefacts",
				"body":    fmt.Sprintf(`{"name":%q,"uri":%q,"checksum":%q}`, a.Name, a.Spec.URI, a.Spec.Checksum),
			},
			"mappings": []any{
				map[string]any{"action": "CREATE", "method": "POST", "url": ".payload.baseUrl", "body": "{name: .payload.body.name, uri: .payload.body.uri, checksum: .payload.body.checksum}"},
				map[string]any{"action": "OBSERVE", "method": "GET", "url": byID},
				map[string]any{"action": "REMOVE", "method": "DELETE", "url": byID},
			},
			"expectedResponseCheck": map[string]any{"type": "CUSTOM", "logic": ".response.body.uri == .payload.body.uri"},
		},
	}}}
	request.SetGroupVersionKind(requestKind)
	request.SetName(a.Name)
	return request
}

func readyRequests(ctx context.Context, c *cluster.Cluster) (int, error) {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(requestKind.GroupVersion().WithKind(requestKind.Kind + "List"))
	if err := c.Client.List(ctx, list); err != nil {
		return 0, err
	}
	ready := 0
	for _, item := range list.Items {
		conditions, _, _ := unstructured.NestedSlice(item.Object, "status", "conditions")
		for _, condition := range conditions {
			if c, ok := condition.(map[string]any); ok && c["type"] == "Ready" && c["status"] == "True" {
				ready++
			}
		}
	}
	return ready, nil
}
