// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/test/cluster"
)

// connectHash is the short hash of a token, as the status and the metrics show it.
func connectHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:4])
}

var _ = Describe("The fate of an auth key", func() {
	var f *fleet
	BeforeEach(func(ctx context.Context) {
		f = newFleet(ctx, connectsim.Options{})
		f.start(ctx, "--resync-interval=1s", "--post-settle-time=3s")
	})

	// usable makes an AuthKey and waits until its key can be used.
	usable := func(ctx context.Context, name string) *v1alpha1.AuthKey {
		GinkgoHelper()
		key := f.authKey(name)
		Expect(f.Create(ctx, key)).To(Succeed())
		Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
		return key
	}
	// followed waits until the AuthKey has another key than before, and the organisation no other.
	followed := func(ctx context.Context, key *v1alpha1.AuthKey) {
		GinkgoHelper()
		was := key.Status.ID
		Eventually(func() string { f.ready(ctx, key)(); return key.Status.ID }).ShouldNot(Equal(was))
		Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
		Eventually(f.Org.AuthKeys).Should(ConsistOf(HaveField("ID", key.Status.ID)))
		Eventually(func() []string { return f.delivered(ctx) }).Should(HaveLen(1))
	}

	It("is to be followed when its Secret is emptied, or something else is put there", func(ctx context.Context) {
		key := usable(ctx, "pi5-001")
		for _, patch := range []string{`{"data":null}`, `{"data":{"auth.key":"c29tZXRoaW5nIGVsc2U="}}`} {
			Expect(f.Patch(ctx, f.secretOf(ctx, "pi5-001")(), client.RawPatch("application/merge-patch+json", []byte(patch)))).To(Succeed())
			followed(ctx, key)
		}
	})

	It("is to stay what it was when somebody tidies a used one away", func(ctx context.Context) {
		key := usable(ctx, "pi5-001")
		pi := connectsim.NewPi(f.URL, "raspberrypi", "10000000a1b2c3d4")
		Expect(pi.SignInWithAuthKey(ctx, string(f.secretOf(ctx, "pi5-001")().Data["auth.key"]))).To(Succeed())
		Eventually(f.ready(ctx, key)).Should(HavePrefix("True Exchanged"))
		said := f.ready(ctx, key)()
		f.Org.RemoveAuthKey(key.Status.ID)
		f.annotate(ctx, key, v1alpha1.AnnotationReconcileRequestedAt, "now")
		Eventually(func() string { f.ready(ctx, key)(); return key.Status.LastHandledReconcileAt }).Should(Equal("now"))
		Consistently(f.ready(ctx, key)).Should(Equal(said))
		Expect(f.Sim.Count(postAuthKey)).To(Equal(1))
	})

	It("is revoked with everything that was left to be revoked", func(ctx context.Context) {
		key := usable(ctx, "pi5-001")
		By("being renewed while Connect revokes nothing")
		f.Sim.Inject(connectsim.Fault{Route: "DELETE /organisation/auth-keys/{id}", Status: 503})
		key.Spec.TTLDays = 7
		Expect(f.Update(ctx, key)).To(Succeed())
		Eventually(f.Org.AuthKeys).Should(HaveLen(2))
		f.kill()
		f.Sim.ClearFaults()
		Expect(f.Delete(ctx, key)).To(Succeed())
		f.start(ctx)
		Eventually(f.gone(ctx, key)).Should(BeTrue())
		Expect(f.Org.AuthKeys()).To(BeEmpty())
	})

	It("is found by what was asked for, although the spec is another by now", func(ctx context.Context) {
		f.Sim.Inject(connectsim.Fault{Route: postAuthKey, Times: 1, Drop: true, Late: time.Second})
		key := f.authKey("pi5-001")
		key.Spec.Description = "before"
		Expect(f.Create(ctx, key)).To(Succeed())
		Eventually(func() int { return f.Sim.Count(postAuthKey) }).Should(Equal(1))
		for _, description := range []string{"after", "before"} {
			Expect(f.Patch(ctx, key, client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"spec":{"description":%q}}`, description)))).To(Succeed())
		}
		Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
		Eventually(f.live).Should(HaveLen(1))
		Expect(f.delivered(ctx)).To(HaveLen(1))
	})

	It("is nobody else's when it only looks like ours", func(ctx context.Context) {
		theirs := f.Org.AddAuthKey("pi5-001", "pi5-001", []string{"kiosk", "production"}, 1)
		f.Sim.Inject(connectsim.Fault{Route: postAuthKey, Times: 1, After: true, Drop: true})
		key := usable(ctx, "pi5-001")
		Eventually(f.events(ctx, key.Name)).Should(ContainElement(v1alpha1.EventKeyRevoked), "the lost key of ours")
		Consistently(f.live).Should(ConsistOf(HaveField("ID", theirs.ID), HaveField("ID", key.Status.ID)))
	})

	It("is made anew after its AuthKey was deleted and applied again, whatever became of the Secret", func(ctx context.Context) {
		key := usable(ctx, "pi5-001")
		By("keeping the Secret, as kubectl delete --cascade=orphan does")
		secret := f.secretOf(ctx, "pi5-001")()
		secret.OwnerReferences = nil
		Expect(f.Update(ctx, secret)).To(Succeed())
		Expect(f.Delete(ctx, key, client.PropagationPolicy(metav1.DeletePropagationOrphan))).To(Succeed())
		Eventually(f.Org.AuthKeys).Should(BeEmpty())
		Eventually(func() bool { return f.gone(ctx, f.authKey("pi5-001"))() }).Should(BeTrue())
		again := usable(ctx, "pi5-001")
		Expect(again.Status.Adopted).To(BeFalse())
		Expect(f.delivered(ctx)).To(HaveLen(1))

		if !cluster.HasControllerManager() {
			return
		}
		By("deleting and creating it before the garbage collector has run, as kubectl replace --force does")
		Expect(f.Delete(ctx, again)).To(Succeed())
		Eventually(func() error { return f.Create(ctx, f.authKey("pi5-001")) }).WithPolling(5 * time.Millisecond).Should(Succeed())
		third := f.authKey("pi5-001")
		Eventually(f.ready(ctx, third)).Should(HavePrefix("True Usable"))
		Eventually(func() []string { return f.delivered(ctx) }).Should(HaveLen(1))
		Expect(f.live()).To(HaveLen(1))
	})

	It("keeps the labels and annotations of its Secret as the spec has them", func(ctx context.Context) {
		key := f.authKey("pi5-001")
		key.Spec.Secret.Labels = map[string]v1alpha1.LabelValue{"team": "kiosk", "room": "lobby"}
		key.Spec.Secret.Annotations = map[string]string{"example.com/for": "pi5-001"}
		Expect(f.Create(ctx, key)).To(Succeed())
		Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
		was := key.Status.ID
		key.Spec.Secret.Labels, key.Spec.Secret.Annotations = map[string]v1alpha1.LabelValue{"team": "kiosk"}, nil
		Expect(f.Update(ctx, key)).To(Succeed())
		Eventually(func() map[string]string { return f.secretOf(ctx, "pi5-001")().Labels }).Should(Equal(map[string]string{"team": "kiosk"}))
		Expect(f.secretOf(ctx, "pi5-001")().Annotations).NotTo(HaveKey("example.com/for"))
		Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
		Expect(key.Status.ID).To(Equal(was))
	})

	It("moves with its Secret, although the old one could not be deleted at first", func(ctx context.Context) {
		key := usable(ctx, "pi5-001")
		forbidUpdates(ctx, f, "DELETE")
		key.Spec.Secret.Name = "lobby"
		Expect(f.Update(ctx, key)).To(Succeed())
		Eventually(f.secretOf(ctx, "lobby")).ShouldNot(BeNil())
		Eventually(f.ready(ctx, key)).Should(HavePrefix("False SecretConflict"))
		allowUpdates(ctx, f)
		f.annotate(ctx, key, v1alpha1.AnnotationReconcileRequestedAt, "now")
		Eventually(f.secretOf(ctx, "pi5-001")).Should(BeNil())
		Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
		Expect(f.delivered(ctx)).To(HaveLen(1))
	})
})

// forbidUpdates has the API server refuse an operation on the Secrets of the fleet's namespace.
func forbidUpdates(ctx context.Context, f *fleet, operation string) {
	GinkgoHelper()
	policy := &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: f.ns},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: new(admissionv1.Fail),
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{
				RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.OperationType(operation)},
					Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"secrets"}},
				},
			}}},
			Validations: []admissionv1.Validation{{Expression: "false", Message: "Secrets are frozen this week"}},
		},
	}
	Expect(f.Create(ctx, policy)).To(Succeed())
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: f.ns},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: f.ns, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
			MatchResources: &admissionv1.MatchResources{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": f.ns}}},
		},
	}
	Expect(f.Create(ctx, binding)).To(Succeed())
	DeferCleanup(func(ctx context.Context) { allowUpdates(ctx, f) })
	// A policy takes a moment to hold.
	canary := &corev1.Secret{ObjectMeta: f.meta("canary")}
	Expect(f.Create(ctx, canary)).To(Succeed())
	Eventually(func() error {
		if operation == "DELETE" {
			return f.Delete(ctx, canary, client.DryRunAll)
		}
		return f.Patch(ctx, canary, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"a":"b"}}}`)), client.DryRunAll)
	}).Should(MatchError(ContainSubstring("frozen")))
}

func allowUpdates(ctx context.Context, f *fleet) {
	GinkgoHelper()
	for _, obj := range []client.Object{
		&admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: f.ns}},
		&admissionv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: f.ns}},
	} {
		Expect(client.IgnoreNotFound(f.Delete(ctx, obj))).To(Succeed())
	}
	// Its end takes a moment, too.
	canary := &corev1.Secret{ObjectMeta: f.meta("canary")}
	Eventually(func() error {
		patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"a":"b"}}}`))
		return errors.Join(f.Patch(ctx, canary, patch, client.DryRunAll), f.Delete(ctx, canary, client.DryRunAll))
	}).Should(Succeed())
}

var _ = Describe("A Secret that cannot be written", func() {
	var f *fleet
	BeforeEach(func(ctx context.Context) {
		f = newFleet(ctx, connectsim.Options{})
		f.start(ctx, "--resync-interval=1s", "--post-settle-time=3s")
	})

	It("because an admission policy forbids it, has no key made, and the reason told", func(ctx context.Context) {
		forbidUpdates(ctx, f, "UPDATE")
		key := f.authKey("pi5-001")
		Expect(f.Create(ctx, key)).To(Succeed())
		Eventually(f.ready(ctx, key)).Should(And(HavePrefix("False SecretConflict"), ContainSubstring("Secrets are frozen this week")))
		Expect(f.Sim.Count(postAuthKey)).To(BeZero())
		allowUpdates(ctx, f)
		f.annotate(ctx, key, v1alpha1.AnnotationReconcileRequestedAt, "now")
		Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
	})

	It("because it is immutable, has no key made, and the reason told", func(ctx context.Context) {
		key := f.authKey("pi5-001")
		Expect(f.Create(ctx, key)).To(Succeed())
		Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
		Expect(f.Patch(ctx, f.secretOf(ctx, "pi5-001")(), client.RawPatch("application/merge-patch+json", []byte(`{"immutable":true}`)))).To(Succeed())
		key.Spec.TTLDays = 7
		Expect(f.Update(ctx, key)).To(Succeed())
		Eventually(f.ready(ctx, key)).Should(And(HavePrefix("False SecretConflict"), ContainSubstring("immutable")))
		Consistently(func() int { return f.Sim.Count(postAuthKey) }).Should(Equal(1))

		By("going on once it is out of the way")
		Expect(f.Delete(ctx, f.secretOf(ctx, "pi5-001")())).To(Succeed())
		Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
		Eventually(f.live).Should(HaveLen(1))
	})

	It("because a quota is spent, has no key made, and the reason told", func(ctx context.Context) {
		quota := &corev1.ResourceQuota{ObjectMeta: f.meta("few-secrets"), Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"secrets": resource.MustParse("1")}}}
		Expect(f.Create(ctx, quota)).To(Succeed())
		quota.Status.Hard, quota.Status.Used = quota.Spec.Hard, corev1.ResourceList{"secrets": resource.MustParse("1")}
		Expect(f.Status().Update(ctx, quota)).To(Succeed())
		key := f.authKey("pi5-001")
		Expect(f.Create(ctx, key)).To(Succeed())
		Eventually(f.ready(ctx, key)).Should(And(HavePrefix("False SecretConflict"), ContainSubstring("quota")))
		Expect(f.Sim.Count(postAuthKey)).To(BeZero())
	})
})
