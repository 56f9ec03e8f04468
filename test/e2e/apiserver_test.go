// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/test/cluster"
)

// The same is played at random, in memory, in test/simulation.
var _ = Describe("An API server that is in trouble", func() {
	var f *fleet
	var proxy *cluster.Proxy
	BeforeEach(func(ctx context.Context) {
		f = newFleet(ctx, connectsim.Options{})
		proxy = f.startBehindProxy(ctx, "--resync-interval=1s", "--deployment-poll-min=200ms", "--deployment-poll-max=1s", "--post-settle-time=3s")
	})

	// While it lasts, the nth write is disturbed by faults[n%len(faults)].
	for what, faults := range map[string][]cluster.APIFault{
		"that refuses writes":        {{Status: 409, Message: "the object has been modified"}, {}, {Status: 429}, {}, {Status: 500, Message: "etcdserver: request timed out"}, {}, {Status: 503}, {}},
		"that carries out and fails": {{Drop: true}, {}, {Drop: true}, {Down: true}, {}},
		"that is slow":               {{Delay: 300 * time.Millisecond}},
	} {
		It("and "+what+" loses and doubles nothing of any kind", func(ctx context.Context) {
			proxy.Disturb(nthWrite(faults, 20))
			all := f.oneOfEach(ctx)
			Eventually(func() []string { return f.notReady(ctx, all) }).WithTimeout(time.Minute).Should(BeEmpty())
			Expect(proxy.Faults()).To(BeNumerically(">=", 10))
			f.expectOneOfEach(ctx)
			f.removeAll(ctx, all)
		})
	}

	It("and shows nothing new, cuts watches and has forgotten what was, loses and doubles nothing of any kind", func(ctx context.Context) {
		proxy.HoldWatches()
		all := f.oneOfEach(ctx)
		Consistently(f.posts).Should(BeZero(), "nobody has heard of them")
		proxy.ReleaseWatches()
		Eventually(f.posts).Should(BeNumerically(">=", 1))
		proxy.HoldWatches() // so that they do not see what they write themselves
		Consistently(f.live).Should(Or(BeEmpty(), HaveLen(1)))
		Expect(control.Compact(ctx)).To(Succeed())
		left := 12
		proxy.Disturb(func(req *http.Request) cluster.APIFault {
			if left > 0 && cluster.IsWatch(req) {
				left--
				return cluster.APIFault{Status: http.StatusGone, Message: "too old resource version"}
			}
			return cluster.APIFault{}
		})
		proxy.CutWatches()
		proxy.ReleaseWatches()
		Eventually(func() []string { return f.notReady(ctx, all) }).WithTimeout(time.Minute).Should(BeEmpty())
		Expect(proxy.Faults()).To(BeNumerically(">=", 6))
		f.expectOneOfEach(ctx)
		f.removeAll(ctx, all)
	})
})

// startBehindProxy starts an operator that reaches the API server through a proxy.
func (f *fleet) startBehindProxy(ctx context.Context, flags ...string) *cluster.Proxy {
	GinkgoHelper()
	proxy, err := control.ServeProxy()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(proxy.Close)
	DeferCleanup(f.stop)
	kubeconfig, err := control.Kubeconfig(ctx, proxy)
	Expect(err).NotTo(HaveOccurred())
	f.start(ctx, append(flags, "--kubeconfig="+kubeconfig)...)
	return proxy
}

// nthWrite disturbs the first writes to the operator's kinds and Secrets, in turn.
func nthWrite(faults []cluster.APIFault, writes int) func(*http.Request) cluster.APIFault {
	n := 0
	return func(req *http.Request) cluster.APIFault {
		ours := strings.Contains(req.URL.Path, v1alpha1.GroupVersion.Group) || strings.Contains(req.URL.Path, "/secrets")
		if !ours || req.Method == http.MethodGet || n >= writes {
			return cluster.APIFault{}
		}
		n++
		return faults[n%len(faults)]
	}
}

// oneOfEach creates one resource of each kind, and the devices that some need.
func (f *fleet) oneOfEach(ctx context.Context) []lifecycle.Object {
	GinkgoHelper()
	f.pis(2, "kiosk")
	board := f.board("board", "serial-"+piName(0))
	board.Spec.Tags = []string{"kiosk", "lobby"}
	run := f.deployment(piName(1))
	all := []lifecycle.Object{
		f.artefact("kiosk"), f.artefact("lamp"), f.authKey("key"), f.signedIdentity(ctx), board, run,
		f.rollout("lamp", func(s *v1alpha1.FleetRolloutSpec) {
			s.Devices = v1alpha1.FleetDevices{Query: "tag:lobby"}
		}),
	}
	var kinds []string
	for _, obj := range all {
		Expect(f.Create(ctx, obj)).To(Succeed())
		gvk, err := f.GroupVersionKindFor(obj)
		Expect(err).NotTo(HaveOccurred())
		kinds = append(kinds, gvk.Kind)
	}
	Expect(kinds).To(ContainElements(cluster.Kinds()), "a kind is missing in oneOfEach")
	return all
}

// signedIdentity is a DeviceIdentity that the operator signs, with the Secret of its key, and whose
// identity goes with it.
func (f *fleet) signedIdentity(ctx context.Context) *v1alpha1.DeviceIdentity {
	GinkgoHelper()
	key := newKey()
	Expect(f.Create(ctx, &corev1.Secret{ObjectMeta: f.meta("device-key"), StringData: map[string]string{"key.pem": privatePEM(key)}})).To(Succeed())
	identity := f.identity("identity", key)
	identity.Spec.DeletionPolicy = v1alpha1.DeletionPolicyDelete
	identity.Spec.Signing = &v1alpha1.Signing{PrivateKeySecretRef: &v1alpha1.SecretKeyReference{Name: "device-key", Key: "key.pem"}}
	return identity
}

// notReady are those of the resources that are not Ready yet, and what they say.
func (f *fleet) notReady(ctx context.Context, all []lifecycle.Object) (waiting []string) {
	for _, obj := range all {
		if said := f.ready(ctx, obj)(); !strings.HasPrefix(said, "True ") {
			waiting = append(waiting, fmt.Sprintf("%T %s: %s", obj, obj.GetName(), said))
		}
	}
	return waiting
}

// expectOneOfEach expects what oneOfEach leads to when nothing is in the way.
func (f *fleet) expectOneOfEach(ctx context.Context) {
	GinkgoHelper()
	Expect(f.Org.Artefacts()).To(ConsistOf(HaveField("Name", "kiosk"), HaveField("Name", "lamp")))
	Expect(f.Org.DeviceIdentities()).To(HaveLen(1))
	Eventually(f.live).Should(HaveLen(1), "a key whose answer was not kept is revoked")
	Expect(f.delivered(ctx)).To(HaveLen(1))
	Expect(f.Org.Deployments("")).To(HaveLen(2))
	Expect(f.Sim.Count(postDeployment)).To(Equal(2))
	Expect(f.Org.Devices()).To(ContainElement(HaveField("Tags", ConsistOf("kiosk", "lobby"))))
}

// removeAll deletes the resources, and expects that nothing stays of what they made.
func (f *fleet) removeAll(ctx context.Context, all []lifecycle.Object) {
	GinkgoHelper()
	for _, obj := range all {
		Expect(f.Delete(ctx, obj)).To(Succeed())
	}
	for _, obj := range all {
		Eventually(f.gone(ctx, obj)).WithTimeout(time.Minute).Should(BeTrue())
	}
	Expect(f.live()).To(BeEmpty())
	Expect(f.Org.DeviceIdentities()).To(BeEmpty())
}

var _ = Describe("CRDs that are applied anew", func() {
	It("are taken while the operator works", func(ctx context.Context) {
		f := newFleet(ctx, connectsim.Options{})
		f.start(ctx)
		before, after := f.artefact("kiosk-1"), f.artefact("kiosk-2")
		Expect(f.Create(ctx, before)).To(Succeed())
		Eventually(f.ready(ctx, before)).Should(HavePrefix("True Available"))

		objects, err := cluster.Build(ctx, "config/crd")
		Expect(err).NotTo(HaveOccurred())
		By("applying another version of each, which ends the watches, and then the one before")
		DeferCleanup(applyAll, objects)
		Expect(applyAll(ctx, withAnotherColumn(objects))).To(Succeed())
		Expect(f.Create(ctx, after)).To(Succeed())
		Eventually(f.ready(ctx, after)).Should(HavePrefix("True Available"))
		Expect(applyAll(ctx, objects)).To(Succeed())

		f.Org.RemoveArtefact(before.Status.ID)
		f.annotate(ctx, before, "rpi-connect.dev/reconcile-requested-at", "now")
		Eventually(f.Org.Artefacts).Should(HaveLen(2))
		Eventually(f.ready(ctx, before)).Should(HavePrefix("True Available"))
		Expect(f.Sim.Count("POST /organisation/artefacts")).To(Equal(3), "one each, and one for what was removed")
	})
})

func applyAll(ctx context.Context, objects []*unstructured.Unstructured) error {
	for _, obj := range objects {
		configuration := client.ApplyConfigurationFromUnstructured(obj.DeepCopy())
		if err := control.Client.Apply(ctx, configuration, client.ForceOwnership, client.FieldOwner("kubectl")); err != nil {
			return err
		}
	}
	return nil
}

// withAnotherColumn are the CRDs of another version.
func withAnotherColumn(objects []*unstructured.Unstructured) []*unstructured.Unstructured {
	GinkgoHelper()
	var changed []*unstructured.Unstructured
	for _, obj := range objects {
		if obj.GetKind() != "CustomResourceDefinition" {
			continue
		}
		crd := obj.DeepCopy()
		versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
		Expect(err).NotTo(HaveOccurred())
		version, ok := versions[0].(map[string]any)
		Expect(ok).To(BeTrue())
		columns, _ := version["additionalPrinterColumns"].([]any)
		version["additionalPrinterColumns"] = append(columns, map[string]any{"name": "Generation", "type": "integer", "jsonPath": ".metadata.generation"})
		Expect(unstructured.SetNestedSlice(crd.Object, versions, "spec", "versions")).To(Succeed())
		changed = append(changed, crd)
	}
	return changed
}
