// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/test/cluster"
)

const postAuthKey = "POST /organisation/auth-keys"

// authKey returns an AuthKey that can be created.
func (f *fleet) authKey(name string) *v1alpha1.AuthKey {
	return &v1alpha1.AuthKey{ObjectMeta: f.meta(name), Spec: v1alpha1.AuthKeySpec{DeviceName: name, Tags: []string{"kiosk", "production"}}}
}

// secretOf gives the Secret of an AuthKey; nil while there is none.
func (f *fleet) secretOf(ctx context.Context, name string) func() *corev1.Secret {
	return func() *corev1.Secret {
		secret := &corev1.Secret{}
		if f.Get(ctx, client.ObjectKey{Namespace: f.ns, Name: name}, secret) != nil {
			return nil
		}
		return secret
	}
}

// live gives the keys of the organisation that a device could use.
func (f *fleet) live() []connectsim.AuthKey {
	var live []connectsim.AuthKey
	for _, k := range f.Org.AuthKeys() {
		if k.Usable(time.Now()) {
			live = append(live, k)
		}
	}
	return live
}

// delivered gives the secrets of the live keys that are in a Secret of the
// namespace.
func (f *fleet) delivered(ctx context.Context) []string {
	var list corev1.SecretList
	Expect(f.List(ctx, &list, client.InNamespace(f.ns))).To(Succeed())
	in := map[string]bool{}
	for _, s := range list.Items {
		in[string(s.Data["auth.key"])] = true
	}
	var delivered []string
	for _, k := range f.live() {
		if in[k.Secret] {
			delivered = append(delivered, k.Secret)
		}
	}
	return delivered
}

var _ = Describe("An AuthKey", func() {
	var f *fleet

	for _, revision := range []connectsim.Revision{connectsim.Current, connectsim.Older} {
		It("delivers its key in a Secret, on the "+string(revision)+" revision", func(ctx context.Context) {
			f = newFleet(ctx, connectsim.Options{Revision: revision})
			f.start(ctx)
			key := f.authKey("pi5-001")
			key.Spec.Secret.Labels = map[string]v1alpha1.LabelValue{"team": "kiosk"}
			key.Spec.Secret.Annotations = map[string]string{"example.com/for": "pi5-001"}
			Expect(f.Create(ctx, key)).To(Succeed())
			Eventually(f.ready(ctx, key)).Should(HavePrefix(`True Usable: The key is in Secret "pi5-001" and can be used until`))
			Eventually(f.events(ctx, key.Name)).Should(ConsistOf("SecretWritten", "Created"))

			made := f.Org.AuthKeys()
			Expect(made).To(HaveLen(1))
			Expect(made[0].Description).To(Equal("pi5-001"))
			Expect(made[0].DeviceName).To(Equal("pi5-001"))
			Expect(made[0].Tags).To(ConsistOf("kiosk", "production"))
			secret := f.secretOf(ctx, "pi5-001")()
			Expect(secret.Data).To(Equal(map[string][]byte{"auth.key": []byte(made[0].Secret)}))
			Expect(secret.Labels).To(HaveKeyWithValue("team", "kiosk"))
			Expect(secret.Annotations).To(HaveKeyWithValue("example.com/for", "pi5-001"))
			Expect(secret.Annotations).To(HaveKeyWithValue(v1alpha1.AnnotationID, made[0].ID))
			Expect(metav1.IsControlledBy(secret, key)).To(BeTrue())
			Expect(key.Status.SecretName).To(Equal("pi5-001"))
			Expect(key.Status.ExpiresAt.Time).To(BeTemporally("==", made[0].ExpiresAt))

			By("doing nothing more after a restart")
			f.stop()
			f.Sim.ResetJournal()
			f.start(ctx)
			Eventually(func() int { return f.Sim.Count("") }).Should(BeNumerically(">=", 1))
			Consistently(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
			others := f.Sim.Count("") - f.Sim.Count("GET /organisation/auth-keys")
			Expect(others).To(Equal(map[connectsim.Revision]int{connectsim.Current: 0, connectsim.Older: 1}[revision]), "to tell an older API from a broken one")
		})
	}

	Describe("on the current revision", func() {
		BeforeEach(func(ctx context.Context) {
			f = newFleet(ctx, connectsim.Options{})
			f.start(ctx, "--resync-interval=1s")
		})

		It("signs a device in, and says when", func(ctx context.Context) {
			key := f.authKey("pi5-001")
			Expect(f.Create(ctx, key)).To(Succeed())
			Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
			pi := connectsim.NewPi(f.URL, "raspberrypi", "10000000a1b2c3d4")
			Expect(pi.SignInWithAuthKey(ctx, string(f.secretOf(ctx, "pi5-001")().Data["auth.key"]))).To(Succeed())
			Eventually(f.ready(ctx, key)).Should(HavePrefix("True Exchanged: A device signed in with the key at"))
			Expect(key.Status.ExchangedAt).NotTo(BeNil())
			Expect(f.Org.Devices()).To(ContainElement(HaveField("Name", "pi5-001")))
		})

		It("is followed by a new key once it was used, if it is renewed always", func(ctx context.Context) {
			key := f.authKey("pi5-001")
			key.Spec.Renewal = v1alpha1.RenewalAlways
			Expect(f.Create(ctx, key)).To(Succeed())
			Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
			was := key.Status.ID
			pi := connectsim.NewPi(f.URL, "raspberrypi", "10000000a1b2c3d4")
			Expect(pi.SignInWithAuthKey(ctx, string(f.secretOf(ctx, "pi5-001")().Data["auth.key"]))).To(Succeed())
			Eventually(func() string { f.ready(ctx, key)(); return key.Status.ID }).ShouldNot(Equal(was))
			Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
			Eventually(f.live).Should(HaveLen(1))
			Expect(f.delivered(ctx)).To(HaveLen(1))
		})

		It("follows its spec: changed where Connect can, made anew where it cannot", func(ctx context.Context) {
			key := f.authKey("pi5-001")
			Expect(f.Create(ctx, key)).To(Succeed())
			Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
			was := key.Status.ID
			key.Spec.Description, key.Spec.Tags, key.Spec.Secret.Labels = "Lobby", nil, map[string]v1alpha1.LabelValue{"room": "lobby"}
			Expect(f.Update(ctx, key)).To(Succeed())
			Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
			Expect(f.Org.AuthKeys()).To(ConsistOf(And(HaveField("ID", was), HaveField("Description", "Lobby"), HaveField("Tags", BeEmpty()))))
			Eventually(func() map[string]string { return f.secretOf(ctx, "pi5-001")().Labels }).Should(Equal(map[string]string{"room": "lobby"}))

			key.Spec.TTLDays, key.Spec.Secret.Labels = 7, nil
			Expect(f.Update(ctx, key)).To(Succeed())
			Eventually(func() string { f.ready(ctx, key)(); return key.Status.ID }).ShouldNot(Equal(was))
			Eventually(f.Org.AuthKeys).Should(HaveLen(1), "the key before is revoked")
			Eventually(func() []string { return f.delivered(ctx) }).Should(HaveLen(1))
			Eventually(func() map[string]string { return f.secretOf(ctx, "pi5-001")().Labels }).Should(BeEmpty())
		})

		It("moves to another Secret", func(ctx context.Context) {
			key := f.authKey("pi5-001")
			Expect(f.Create(ctx, key)).To(Succeed())
			Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
			key.Spec.Secret.Name = "lobby"
			Expect(f.Update(ctx, key)).To(Succeed())
			Eventually(f.secretOf(ctx, "lobby")).ShouldNot(BeNil())
			Eventually(f.secretOf(ctx, "pi5-001")).Should(BeNil())
			Eventually(f.Org.AuthKeys).Should(HaveLen(1))
			Eventually(func() []string { return f.delivered(ctx) }).Should(HaveLen(1))
		})

		It("is made anew when its Secret is lost", func(ctx context.Context) {
			key := f.authKey("pi5-001")
			Expect(f.Create(ctx, key)).To(Succeed())
			Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
			was := key.Status.ID
			Expect(f.Delete(ctx, f.secretOf(ctx, "pi5-001")())).To(Succeed())
			Eventually(func() []string { return f.delivered(ctx) }).Should(HaveLen(1))
			Eventually(f.Org.AuthKeys).Should(ConsistOf(HaveField("ID", Not(Equal(was)))))
		})

		It("says so when somebody revokes it", func(ctx context.Context) {
			key := f.authKey("pi5-001")
			Expect(f.Create(ctx, key)).To(Succeed())
			Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
			f.Org.RemoveAuthKey(key.Status.ID)
			Eventually(f.ready(ctx, key)).Should(HavePrefix("False Revoked"))
			Consistently(f.Org.AuthKeys).Should(BeEmpty(), "whoever revoked it meant it")
		})

		It("never touches a Secret that is not its own, and makes no key for it", func(ctx context.Context) {
			theirs := &corev1.Secret{ObjectMeta: f.meta("pi5-001"), StringData: map[string]string{"auth.key": "theirs"}}
			Expect(f.Create(ctx, theirs)).To(Succeed())
			key := f.authKey("pi5-001")
			Expect(f.Create(ctx, key)).To(Succeed())
			Eventually(f.ready(ctx, key)).Should(And(HavePrefix("False SecretConflict"), ContainSubstring("choose another spec.secret.name")))
			Expect(f.Sim.Count(postAuthKey)).To(BeZero())
			Expect(f.secretOf(ctx, "pi5-001")().Data).To(HaveKeyWithValue("auth.key", []byte("theirs")))

			Expect(f.Delete(ctx, theirs)).To(Succeed())
			Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
		})

		It("is revoked with its resource, and its Secret goes too", func(ctx context.Context) {
			if !cluster.HasControllerManager() {
				Skip("there is no kube-controller-manager in KUBEBUILDER_ASSETS to collect garbage")
			}
			key := f.authKey("pi5-001")
			Expect(f.Create(ctx, key)).To(Succeed())
			Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
			Expect(f.Delete(ctx, key)).To(Succeed())
			Eventually(f.gone(ctx, key)).Should(BeTrue())
			Expect(f.Org.AuthKeys()).To(BeEmpty())
			Eventually(f.secretOf(ctx, "pi5-001")).Should(BeNil())
		})

		It("is revoked with its resource although its Secret is gone already", func(ctx context.Context) {
			key := f.authKey("pi5-001")
			Expect(f.Create(ctx, key)).To(Succeed())
			Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
			f.stop()
			Expect(f.Delete(ctx, f.secretOf(ctx, "pi5-001")())).To(Succeed())
			Expect(f.Delete(ctx, key)).To(Succeed())
			f.start(ctx)
			Eventually(f.gone(ctx, key)).Should(BeTrue())
			Expect(f.Org.AuthKeys()).To(BeEmpty())
		})

		It("is taken up again after a restore", func(ctx context.Context) {
			key := f.authKey("pi5-001")
			Expect(f.Create(ctx, key)).To(Succeed())
			Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
			f.stop()
			secret := f.secretOf(ctx, "pi5-001")()
			secret.OwnerReferences = nil
			Expect(f.Update(ctx, secret)).To(Succeed())
			Expect(f.Patch(ctx, key, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`)))).To(Succeed())
			Expect(f.Delete(ctx, key)).To(Succeed())
			restored := f.authKey("pi5-001")
			Expect(f.Create(ctx, restored)).To(Succeed())
			f.start(ctx)
			Eventually(f.ready(ctx, restored)).Should(HavePrefix("True Usable"))
			Expect(f.Sim.Count(postAuthKey)).To(Equal(1))
			Expect(restored.Status.Adopted).To(BeFalse())
			Eventually(func() bool { return metav1.IsControlledBy(f.secretOf(ctx, "pi5-001")(), restored) }).Should(BeTrue())
		})
	})

	It("is made anew when it is changed after it was used, although nobody has noticed yet", func(ctx context.Context) {
		f = newFleet(ctx, connectsim.Options{})
		f.start(ctx, "--resync-interval=1h")
		key := f.authKey("pi5-001")
		Expect(f.Create(ctx, key)).To(Succeed())
		Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
		was := key.Status.ID
		pi := connectsim.NewPi(f.URL, "raspberrypi", "10000000a1b2c3d4")
		Expect(pi.SignInWithAuthKey(ctx, string(f.secretOf(ctx, "pi5-001")().Data["auth.key"]))).To(Succeed())
		key.Spec.DeviceName = "pi5-002"
		Expect(f.Update(ctx, key)).To(Succeed())
		Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
		Expect(key.Status.ID).NotTo(Equal(was))
		Expect(f.live()).To(ConsistOf(HaveField("DeviceName", "pi5-002")))
	})

	It("revokes the key before also when somebody removes the one that took its place", func(ctx context.Context) {
		f = newFleet(ctx, connectsim.Options{})
		f.start(ctx, "--resync-interval=1s")
		key := f.authKey("pi5-001")
		Expect(f.Create(ctx, key)).To(Succeed())
		Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
		was := key.Status.ID
		refused := f.Sim.Inject(connectsim.Fault{Route: "DELETE /organisation/auth-keys/{id}", Status: 503})
		key.Spec.TTLDays = 7 // takes a new key
		Expect(f.Update(ctx, key)).To(Succeed())
		Eventually(refused.Hits).Should(BeNumerically(">", 0))
		f.kill() // the status still names the one before
		for _, k := range f.Org.AuthKeys() {
			if k.ID != was {
				f.Org.RemoveAuthKey(k.ID)
			}
		}
		refused.Clear()
		f.start(ctx)
		Eventually(f.ready(ctx, key)).Should(HavePrefix("False Revoked"))
		Eventually(f.Org.AuthKeys).Should(BeEmpty(), "the Secret holds none of them")
		Expect(key.Status.ID).NotTo(Equal(was))
	})

	It("leaves no key lying about when responses are lost", func(ctx context.Context) {
		f = newFleet(ctx, connectsim.Options{})
		f.Sim.Inject(connectsim.Fault{Route: postAuthKey, Skip: 2, Times: 3, After: true, Drop: true})
		f.start(ctx)
		for i := range 12 {
			Expect(f.Create(ctx, f.authKey(fmt.Sprintf("pi5-%03d", i)))).To(Succeed())
		}
		Eventually(f.readyCount(ctx, &v1alpha1.AuthKeyList{})).Should(Equal(12))
		Expect(f.live()).To(HaveLen(12))
		Expect(f.delivered(ctx)).To(HaveLen(12))
	})

	It("warns once when a response is lost that nobody can look for", func(ctx context.Context) {
		f = newFleet(ctx, connectsim.Options{Revision: connectsim.Older})
		f.Sim.Inject(connectsim.Fault{Route: postAuthKey, Times: 1, After: true, Drop: true})
		f.start(ctx)
		key := f.authKey("pi5-001")
		Expect(f.Create(ctx, key)).To(Succeed())
		Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
		Eventually(f.events(ctx, key.Name)).Should(ConsistOf("KeyLost", "SecretWritten", "Created"))
	})

	It("leaves exactly one live key each through kill -9", func(ctx context.Context) {
		f = newFleet(ctx, connectsim.Options{Latency: 60 * time.Millisecond})
		const keys = 40
		for i := range keys {
			key := f.authKey(fmt.Sprintf("pi5-%03d", i))
			key.Spec.Description, key.Spec.DeviceName = "kiosk", "" // which makes them all alike
			Expect(f.Create(ctx, key)).To(Succeed())
		}
		for kills := range 8 {
			f.start(ctx, "--max-concurrent-reconciles=4", "--post-settle-time=3s")
			Eventually(func() int { return f.Sim.Count(postAuthKey) }).WithPolling(time.Millisecond).Should(BeNumerically(">=", 4*(kills+1)))
			f.kill()
		}
		f.start(ctx)
		Eventually(f.readyCount(ctx, &v1alpha1.AuthKeyList{})).WithTimeout(time.Minute).Should(Equal(keys))
		Eventually(f.live).Should(HaveLen(keys))
		Expect(f.delivered(ctx)).To(HaveLen(keys))
		Expect(strings.Join(f.delivered(ctx), "")).To(HavePrefix("rpoak_"))
	})
})
