// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
)

const (
	postIdentity  = "POST /organisation/device-identities"
	patchIdentity = "PATCH /organisation/device-identities/{id}"
)

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	Expect(err).NotTo(HaveOccurred())
	return key
}

func publicPEM(key *ecdsa.PrivateKey) string {
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	Expect(err).NotTo(HaveOccurred())
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func privatePEM(key *ecdsa.PrivateKey) string {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	Expect(err).NotTo(HaveOccurred())
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// identity returns a DeviceIdentity of the key that can be created.
func (f *fleet) identity(name string, key *ecdsa.PrivateKey) *v1alpha1.DeviceIdentity {
	return &v1alpha1.DeviceIdentity{ObjectMeta: f.meta(name), Spec: v1alpha1.DeviceIdentitySpec{
		PublicKey: publicPEM(key), DeviceName: name, Tags: []string{"production"},
	}}
}

// sign signs what the resource asks to be signed, as a device does.
func sign(key *ecdsa.PrivateKey, obj *v1alpha1.DeviceIdentity) string {
	digest, err := hex.DecodeString(obj.Status.SigningRequest.Digest)
	Expect(err).NotTo(HaveOccurred())
	signature, err := key.Sign(rand.Reader, digest, crypto.SHA256)
	Expect(err).NotTo(HaveOccurred())
	return base64.StdEncoding.EncodeToString(signature)
}

var _ = Describe("A DeviceIdentity", func() {
	var f *fleet
	var key *ecdsa.PrivateKey
	BeforeEach(func() { key = newKey() })

	// secretKey puts the private key into a Secret.
	secretKey := func(ctx context.Context, text string) *v1alpha1.Signing {
		GinkgoHelper()
		Expect(f.Create(ctx, &corev1.Secret{ObjectMeta: f.meta("device-key"), StringData: map[string]string{"key.pem": text}})).To(Succeed())
		return &v1alpha1.Signing{PrivateKeySecretRef: &v1alpha1.SecretKeyReference{Name: "device-key", Key: "key.pem"}}
	}

	for _, revision := range []connectsim.Revision{connectsim.Current, connectsim.Older} {
		Describe("on the "+string(revision)+" revision", func() {
			BeforeEach(func(ctx context.Context) {
				f = newFleet(ctx, connectsim.Options{Revision: revision})
				f.start(ctx)
			})

			It("is registered with a key from a Secret", func(ctx context.Context) {
				obj := f.identity("pi5-001", key)
				obj.Spec.Signing = secretKey(ctx, privatePEM(key))
				Expect(f.Create(ctx, obj)).To(Succeed())
				Eventually(f.ready(ctx, obj)).Should(HavePrefix("True Available"))
				Expect(f.Org.DeviceIdentities()).To(ConsistOf(And(
					HaveField("Description", "pi5-001"), HaveField("DeviceName", "pi5-001"), HaveField("Tags", ConsistOf("production")))))
				Expect(obj.Status.Tags).To(ConsistOf("production"))
				patches := map[connectsim.Revision]int{connectsim.Current: 0, connectsim.Older: 1}[revision]
				Expect(f.Sim.Count(patchIdentity)).To(Equal(patches))
			})

			It("is registered with a signature made elsewhere", func(ctx context.Context) {
				obj := f.identity("pi5-001", key)
				Expect(f.Create(ctx, obj)).To(Succeed())
				Eventually(f.ready(ctx, obj)).Should(And(HavePrefix("Unknown AwaitingSignature"), ContainSubstring("fastboot oem fwcrypto sign-hash")))
				Expect(obj.Status.SigningRequest.Digest).To(HaveLen(64))
				Expect(f.Sim.Count(postIdentity)).To(BeZero())

				By("refusing another key's signature before anything is sent")
				obj.Spec.Signing = &v1alpha1.Signing{Signature: sign(newKey(), obj)}
				Expect(f.Update(ctx, obj)).To(Succeed())
				Eventually(f.ready(ctx, obj)).Should(HavePrefix("False SignatureInvalid"))
				Expect(f.Sim.Count(postIdentity)).To(BeZero())

				By("taking the right one")
				obj.Spec.Signing.Signature = sign(key, obj)
				Expect(f.Update(ctx, obj)).To(Succeed())
				Eventually(f.ready(ctx, obj)).Should(HavePrefix("True Available"))
				Expect(obj.Status.SigningRequest).To(BeNil())
			})

			It("is adopted when its key is registered, however its PEM is written", func(ctx context.Context) {
				there := f.Org.AddDeviceIdentity(strings.TrimSpace(strings.ReplaceAll(publicPEM(key), "\n", "\r\n")), "pi5-001", "pi5-001", []string{"production"})
				obj := f.identity("pi5-001", key)
				Expect(f.Create(ctx, obj)).To(Succeed())
				Eventually(f.ready(ctx, obj)).Should(HavePrefix("True Available"))
				Expect(obj.Status.ID).To(Equal(there.ID))
				Expect(obj.Status.Adopted).To(BeTrue())
				Expect(f.Sim.Count("GET /organisation/device-identities")).To(Equal(f.Sim.Count("")), "it was read, and nothing else")
			})

			It("takes over a fleet of 300 that a provisioner registered, and changes nothing", func(ctx context.Context) {
				all := make([]*v1alpha1.DeviceIdentity, 300)
				for i := range all {
					serial := fmt.Sprintf("10000000%08x", i)
					all[i] = &v1alpha1.DeviceIdentity{ObjectMeta: f.meta(serial), Spec: v1alpha1.DeviceIdentitySpec{PublicKey: publicPEM(newKey())}}
					f.Org.AddDeviceIdentity(all[i].Spec.PublicKey, "line-1 Raspberry Pi 5 "+serial, "", nil)
				}
				before := f.Org.DeviceIdentities()
				for _, obj := range all {
					Expect(f.Create(ctx, obj)).To(Succeed())
				}
				Eventually(f.readyCount(ctx, &v1alpha1.DeviceIdentityList{})).Should(Equal(len(all)))

				Expect(f.Org.DeviceIdentities()).To(Equal(before), "their descriptions, which hold the serial numbers, are nobody else's business")
				Expect(f.Sim.Count("")).To(Equal(3))
				Expect(f.Sim.Count("GET /organisation/device-identities")).To(Equal(3), "they were read, a hundred at a time, and nothing else")
				Expect(f.ready(ctx, all[0])()).To(HavePrefix("True Available"))
				Expect(all[0].Status.Adopted).To(BeTrue())
			})
		})
	}

	Describe("whatever the revision", func() {
		BeforeEach(func(ctx context.Context) {
			f = newFleet(ctx, connectsim.Options{})
			f.start(ctx, "--resync-interval=1s")
		})

		It("notices that a signature is stale", func(ctx context.Context) {
			obj := f.identity("pi5-001", key)
			Expect(f.Create(ctx, obj)).To(Succeed())
			Eventually(f.ready(ctx, obj)).Should(HavePrefix("Unknown AwaitingSignature"))
			before := obj.Status.SigningRequest.Digest
			rotated := connectsim.NewSecret("rporg_")
			f.Org.AddToken(rotated)
			f.putToken(ctx, rotated)
			Eventually(func() string { f.ready(ctx, obj)(); return obj.Status.SigningRequest.Digest }).ShouldNot(Equal(before))
		})

		DescribeTable("refuses a private key that is none of its own", func(ctx context.Context, text func() string, words string) {
			obj := f.identity("pi5-001", key)
			obj.Spec.Signing = secretKey(ctx, text())
			Expect(f.Create(ctx, obj)).To(Succeed())
			Eventually(f.ready(ctx, obj)).Should(And(HavePrefix("False SignatureInvalid"), ContainSubstring(words)))
		},
			Entry("another one", func() string { return privatePEM(newKey()) }, "does not belong to spec.publicKey"),
			Entry("on another curve", func() string {
				other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
				Expect(err).NotTo(HaveOccurred())
				return privatePEM(other)
			}, "P-256"),
			Entry("no key at all", func() string { return "hello" }, "PEM"),
		)

		It("is made what the spec says when somebody changes it, with one PATCH of what differs", func(ctx context.Context) {
			there := f.Org.AddDeviceIdentity(publicPEM(key), "pi5-001", "pi5-001", []string{"production"})
			obj := f.identity("pi5-001", key)
			Expect(f.Create(ctx, obj)).To(Succeed())
			Eventually(f.ready(ctx, obj)).Should(HavePrefix("True Available"))
			f.Org.ChangeDeviceIdentity(there.ID, func(i *connectsim.Identity) { i.Tags = []string{"test"} })
			Eventually(f.Org.DeviceIdentities).Should(ConsistOf(HaveField("Tags", ConsistOf("production"))))
			Eventually(f.events(ctx, "pi5-001")).Should(ConsistOf("Adopted", "Updated"))
			Expect(f.Sim.Count(patchIdentity)).To(Equal(1))
		})

		It("is registered again when it is changed after somebody has removed it", func(ctx context.Context) {
			f.stop()
			f.start(ctx, "--resync-interval=1h")
			obj := f.identity("pi5-001", key)
			obj.Spec.Signing = secretKey(ctx, privatePEM(key))
			Expect(f.Create(ctx, obj)).To(Succeed())
			Eventually(f.ready(ctx, obj)).Should(HavePrefix("True Available"))
			f.Org.RemoveDeviceIdentity(obj.Status.ID)
			obj.Spec.Tags = []string{"test"}
			Expect(f.Update(ctx, obj)).To(Succeed())
			Eventually(f.ready(ctx, obj)).Should(HavePrefix("True Available"))
			Expect(f.Org.DeviceIdentities()).To(ConsistOf(HaveField("Tags", ConsistOf("test"))))
		})

		It("stops trying once it has become a device, and says so", func(ctx context.Context) {
			obj := f.identity("pi5-001", key)
			obj.Spec.Signing = secretKey(ctx, privatePEM(key))
			Expect(f.Create(ctx, obj)).To(Succeed())
			Eventually(f.ready(ctx, obj)).Should(HavePrefix("True Available"))
			pi := connectsim.NewPi(f.URL, "raspberrypi", "10000000a1b2c3d4")
			Expect(pi.SignInWithIdentity(ctx, key)).To(Succeed())

			obj.Spec.Tags = []string{"test"}
			Expect(f.Update(ctx, obj)).To(Succeed())
			ignored := func() bool {
				f.ready(ctx, obj)()
				synced := meta.FindStatusCondition(obj.Status.Conditions, v1alpha1.ConditionSynced)
				return synced != nil && synced.Reason == v1alpha1.ReasonIdentityExchanged
			}
			Eventually(ignored).Should(BeTrue())
			Expect(f.ready(ctx, obj)()).To(HavePrefix("True Available"))
			Consistently(func() int { return f.Sim.Count(patchIdentity) }).Should(Equal(1))

			By("trying again when the spec changes")
			obj.Spec.Tags = []string{"production"}
			Expect(f.Update(ctx, obj)).To(Succeed())
			Eventually(ignored).Should(BeFalse())

			By("not saying it of the next identity with the key")
			obj.Spec.Tags = []string{"lab"}
			Expect(f.Update(ctx, obj)).To(Succeed())
			Eventually(ignored).Should(BeTrue())
			before := obj.Status.ID
			f.Org.RemoveDeviceIdentity(before)
			Eventually(func() string { f.ready(ctx, obj)(); return obj.Status.ID }).ShouldNot(Equal(before))
			Expect(ignored()).To(BeFalse())
			f.Org.ChangeDeviceIdentity(obj.Status.ID, func(i *connectsim.Identity) { i.Tags = []string{"test"} })
			Eventually(f.Org.DeviceIdentities).Should(ConsistOf(HaveField("Tags", ConsistOf("lab"))))
		})

		It("stays when its resource goes, unless told otherwise", func(ctx context.Context) {
			left := f.identity("left", key)
			left.Spec.Signing = secretKey(ctx, privatePEM(key))
			Expect(f.Create(ctx, left)).To(Succeed())
			Eventually(f.ready(ctx, left)).Should(HavePrefix("True Available"))
			Expect(f.Delete(ctx, left)).To(Succeed())
			Eventually(f.gone(ctx, left)).Should(BeTrue())
			Expect(f.Org.DeviceIdentities()).To(HaveLen(1))

			again := f.identity("left", key)
			again.Spec.DeletionPolicy = v1alpha1.DeletionPolicyDelete
			Expect(f.Create(ctx, again)).To(Succeed())
			Eventually(f.ready(ctx, again)).Should(HavePrefix("True Available"))
			Expect(f.Delete(ctx, again)).To(Succeed())
			Eventually(f.gone(ctx, again)).Should(BeTrue())
			Expect(f.Org.DeviceIdentities()).To(BeEmpty())
		})

		It("is registered once through lost responses", func(ctx context.Context) {
			f.Sim.Inject(connectsim.Fault{Route: postIdentity, Skip: 1, Times: 4, After: true, Drop: true})
			f.Sim.Inject(connectsim.Fault{Route: postIdentity, Skip: 8, Times: 3, After: true, Status: 502, Body: "<html>502</html>"})
			for i := range 20 {
				own := newKey()
				name := fmt.Sprintf("pi5-%03d", i)
				Expect(f.Create(ctx, &corev1.Secret{ObjectMeta: f.meta(name), StringData: map[string]string{"key.pem": privatePEM(own)}})).To(Succeed())
				obj := f.identity(name, own)
				obj.Spec.Signing = &v1alpha1.Signing{PrivateKeySecretRef: &v1alpha1.SecretKeyReference{Name: name, Key: "key.pem"}}
				Expect(f.Create(ctx, obj)).To(Succeed())
			}
			Eventually(f.readyCount(ctx, &v1alpha1.DeviceIdentityList{})).Should(Equal(20))
			Expect(f.Org.DeviceIdentities()).To(HaveLen(20))
			Expect(f.Sim.Count(postIdentity)).To(Equal(20))
		})
	})
})
