// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
)

const day = 24 * time.Hour

// keyScenario is a scenario about one AuthKey.
type keyScenario struct {
	*env
	key *v1alpha1.AuthKey
}

func newKeyScenario(ctx context.Context, options connectsim.Options, spec v1alpha1.AuthKeySpec) *keyScenario {
	GinkgoHelper()
	s := &keyScenario{env: newEnv(ctx, options)}
	s.key = &v1alpha1.AuthKey{ObjectMeta: s.meta("pi5-001"), Spec: spec}
	Expect(s.Create(ctx, s.key)).To(Succeed())
	return s
}

// becomes waits until the key is so, and the organisation has so many.
func (s *keyScenario) becomes(ctx context.Context, ready string, keys int, title string) {
	GinkgoHelper()
	Eventually(s.ready(ctx, s.key)).Should(HavePrefix(ready))
	Eventually(s.Org.AuthKeys).Should(HaveLen(keys))
	s.record(ctx, title, s.key, s.keys(ctx, "pi5-001")...)
}

// replaced waits until there is another key than the one given.
func (s *keyScenario) replaced(ctx context.Context, was string) {
	GinkgoHelper()
	Eventually(func() string { s.ready(ctx, s.key)(); return s.key.Status.ID }).ShouldNot(Equal(was))
}

var _ = Describe("An AuthKey in the course of time", func() {
	It("expires when nobody uses it, and leaves its Secret", func(ctx context.Context) {
		s := newKeyScenario(ctx, connectsim.Options{}, v1alpha1.AuthKeySpec{Tags: []string{"kiosk"}})
		s.becomes(ctx, "True Usable", 1, "an AuthKey is applied; a key lives a day if nothing else is said")
		s.pass(ctx, day-time.Minute, s.key)
		Eventually(func() string { s.ready(ctx, s.key)(); return s.key.Status.LastHandledReconcileAt }).Should(Equal("2026-03-02T11:59:00Z"))
		s.becomes(ctx, "True Usable", 1, "almost a day passes")
		s.pass(ctx, time.Minute, s.key)
		s.becomes(ctx, "False Expired", 1, "and a minute")

		was := s.key.Status.ID
		s.key.Spec.TTLDays = 7
		Expect(s.Update(ctx, s.key)).To(Succeed())
		s.replaced(ctx, was)
		s.becomes(ctx, "True Usable", 1, "its spec is changed to seven days: a new key is made, the dead one removed")
		s.end("authkey_expires")
	})

	It("is renewed before it expires, by default when a third of its life is left", func(ctx context.Context) {
		s := newKeyScenario(ctx, connectsim.Options{}, v1alpha1.AuthKeySpec{TTLDays: 3, Renewal: v1alpha1.RenewalBeforeExpiry})
		s.becomes(ctx, "True Usable", 1, "an AuthKey of three days is applied, with renewal BeforeExpiry")
		was := s.key.Status.ID
		s.pass(ctx, 2*day, s.key)
		s.replaced(ctx, was)
		s.becomes(ctx, "True Usable", 1, "two days pass: the new key is stored, then the old one revoked")

		s.key.Spec.RenewBefore = &metav1.Duration{Duration: time.Hour}
		Expect(s.Update(ctx, s.key)).To(Succeed())
		s.pass(ctx, 3*day-2*time.Hour, s.key)
		Eventually(func() string { s.ready(ctx, s.key)(); return s.key.Status.LastHandledReconcileAt }).Should(Equal("2026-03-06T10:00:00Z"))
		s.becomes(ctx, "True Usable", 1, "renewBefore is set to an hour, and two hours before the end nothing has happened")
		was = s.key.Status.ID
		s.pass(ctx, time.Hour, s.key)
		s.replaced(ctx, was)
		s.becomes(ctx, "True Usable", 1, "an hour later it has")

		pi := connectsim.NewPi(s.URL, "raspberrypi", "10000000a1b2c3d4")
		Expect(pi.SignInWithAuthKey(ctx, s.Org.AuthKeys()[0].Secret)).To(Succeed())
		s.clock.Advance(time.Second)
		s.becomes(ctx, "True Exchanged", 1, "a device signs in with it")
		s.pass(ctx, 30*day, s.key)
		Eventually(func() string { s.ready(ctx, s.key)(); return s.key.Status.LastHandledReconcileAt }).Should(HavePrefix("2026-04-05"))
		s.becomes(ctx, "True Exchanged", 1, "a month later: a key that has done its job is not renewed")
		s.end("authkey_renewed")
	})

	It("is followed by another one for ever, if it is renewed always", func(ctx context.Context) {
		s := newKeyScenario(ctx, connectsim.Options{}, v1alpha1.AuthKeySpec{Renewal: v1alpha1.RenewalAlways})
		s.becomes(ctx, "True Usable", 1, "an AuthKey is applied, with renewal Always")
		was := s.key.Status.ID
		pi := connectsim.NewPi(s.URL, "raspberrypi", "10000000a1b2c3d4")
		Expect(pi.SignInWithAuthKey(ctx, s.Org.AuthKeys()[0].Secret)).To(Succeed())
		s.clock.Advance(time.Second)
		s.replaced(ctx, was)
		s.becomes(ctx, "True Usable", 1, "a device signs in with it")
		was = s.key.Status.ID
		s.pass(ctx, 16*time.Hour, s.key)
		s.replaced(ctx, was)
		s.becomes(ctx, "True Usable", 1, "nobody uses the next one for sixteen hours")
		s.end("authkey_always")
	})

	It("is made anew on the older revision, which can neither change nor revoke", func(ctx context.Context) {
		s := newKeyScenario(ctx, connectsim.Options{Revision: connectsim.Older}, v1alpha1.AuthKeySpec{TTLDays: 3, Renewal: v1alpha1.RenewalBeforeExpiry})
		s.becomes(ctx, "True Usable", 1, "an AuthKey of three days is applied, with renewal BeforeExpiry")
		was := s.key.Status.ID
		s.key.Spec.Tags = []string{"kiosk"}
		Expect(s.Update(ctx, s.key)).To(Succeed())
		s.replaced(ctx, was)
		s.becomes(ctx, "True Usable", 2, "it gets a tag")
		was = s.key.Status.ID
		s.pass(ctx, 2*day+time.Second, s.key)
		s.replaced(ctx, was)
		s.becomes(ctx, "True Usable", 3, "two days pass")
		s.key.Spec.Renewal = v1alpha1.RenewalNever
		Expect(s.Update(ctx, s.key)).To(Succeed())
		s.pass(ctx, 3*day, s.key)
		s.becomes(ctx, "False Expired", 3, "renewal is set to Never, and three days pass")
		s.end("authkey_older")
	})
})

// deploymentScenario is a scenario about one device.
type deploymentScenario struct {
	*env
	artefact *v1alpha1.Artefact
	device   connectsim.Device
}

func newDeploymentScenario(ctx context.Context, options connectsim.Options) *deploymentScenario {
	GinkgoHelper()
	s := &deploymentScenario{env: newEnv(ctx, options)}
	s.artefact = &v1alpha1.Artefact{ObjectMeta: s.meta("kiosk-v1.0"), Spec: v1alpha1.ArtefactSpec{
		URI: "https://updates.example.com/kiosk-v1.0.tar.zst", Checksum: "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
	}}
	Expect(s.Create(ctx, s.artefact)).To(Succeed())
	Eventually(s.ready(ctx, s.artefact)).Should(HavePrefix("True Available"))
	s.device = s.Org.AddDevice(connectsim.Device{Name: "pi5-001", SerialNumber: "10000000a1b2c3d4"})
	return s
}

func (s *deploymentScenario) deployment(name string) *v1alpha1.Deployment {
	return &v1alpha1.Deployment{ObjectMeta: s.meta(name), Spec: v1alpha1.DeploymentSpec{
		ArtefactRef: &v1alpha1.ArtefactReference{Name: s.artefact.Name}, Device: v1alpha1.DeviceReference{Name: "pi5-001"},
	}}
}

func (s *deploymentScenario) becomes(ctx context.Context, obj *v1alpha1.Deployment, ready, title string) {
	GinkgoHelper()
	Eventually(s.ready(ctx, obj)).Should(HavePrefix(ready))
	var lines []string
	for _, d := range s.Org.Deployments(s.device.ID) {
		line := fmt.Sprintf("deployment %s: %s", d.ID, d.State)
		if d.StateReason != "" {
			line += ", " + d.StateReason
		}
		lines = append(lines, line)
	}
	s.record(ctx, title, obj, lines...)
}

var _ = Describe("A Deployment in the course of time", func() {
	It("is cancelled when its device has not come by its deadline", func(ctx context.Context) {
		s := newDeploymentScenario(ctx, connectsim.Options{})
		run := s.deployment("run")
		run.Spec.PendingDeadline = &metav1.Duration{Duration: day}
		Expect(s.Create(ctx, run)).To(Succeed())
		s.becomes(ctx, run, "Unknown Pending", "a Deployment with a pendingDeadline of a day is applied")
		s.pass(ctx, day-time.Second, run)
		Eventually(func() string { s.ready(ctx, run)(); return run.Status.LastHandledReconcileAt }).ShouldNot(BeEmpty())
		s.becomes(ctx, run, "Unknown Pending", "almost a day passes")
		s.pass(ctx, time.Second, run)
		s.becomes(ctx, run, "False DeadlineExceeded", "and a second")
		s.pass(ctx, 30*day, run)
		Eventually(func() string { s.ready(ctx, run)(); return run.Status.LastHandledReconcileAt }).Should(HavePrefix("2026-04-01"))
		s.becomes(ctx, run, "False DeadlineExceeded", "a month later nothing has changed")
		s.end("deployment_deadline")
	})

	It("tells a deployment that was superseded from one that failed before the next one came", func(ctx context.Context) {
		s := newDeploymentScenario(ctx, connectsim.Options{SupersededAsCancelled: true})
		failed := s.deployment("failed")
		Expect(s.Create(ctx, failed)).To(Succeed())
		s.becomes(ctx, failed, "Unknown Pending", "a Deployment is applied")
		s.clock.Advance(time.Minute)
		s.Org.MoveDeployment(failed.Status.ID, connectsim.Failed, "Checksum mismatch")
		s.clock.Advance(time.Hour)
		s.Org.AddDeployment(s.device.ID, s.artefact.Status.ID)
		s.look(ctx, failed)
		s.becomes(ctx, failed, "False Failed", "it fails after a minute; an hour later another person deploys; only then is it looked at")

		superseded := s.deployment("superseded")
		superseded.Spec.Force = true
		Expect(s.Create(ctx, superseded)).To(Succeed())
		s.becomes(ctx, superseded, "Unknown Pending", "a Deployment is applied with force, for a device that was reflashed")
		s.clock.Advance(time.Hour)
		s.Org.AddDeployment(s.device.ID, s.artefact.Status.ID)
		s.look(ctx, superseded)
		s.becomes(ctx, superseded, "False Superseded", "an hour later another person deploys")
		s.end("deployment_superseded")
	})

	It("finds what an earlier operator made, although the device has another name by now", func(ctx context.Context) {
		s := newDeploymentScenario(ctx, connectsim.Options{})
		run := s.deployment("run")
		run.Annotations = map[string]string{v1alpha1.AnnotationSuspend: "true"}
		Expect(s.Create(ctx, run)).To(Succeed())

		By("having been killed between the POST and its answer")
		made := s.Org.AddDeployment(s.device.ID, s.artefact.Status.ID)
		note, err := json.Marshal(map[string]string{"device": s.device.ID, "artefact": s.artefact.Status.ID})
		Expect(err).NotTo(HaveOccurred())
		intent, err := json.Marshal(lifecycle.Intent{At: s.clock.Now(), UID: run.UID, Note: string(note)})
		Expect(err).NotTo(HaveOccurred())
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
			"finalizers":  []string{v1alpha1.Finalizer},
			"annotations": map[string]any{v1alpha1.AnnotationCreateIntent: string(intent), v1alpha1.AnnotationSuspend: nil},
		}})
		Expect(err).NotTo(HaveOccurred())
		s.Org.ChangeDevice(s.device.ID, func(d *connectsim.Device) { d.Name = "lobby" })
		other := s.Org.AddDevice(connectsim.Device{Name: "pi5-001", SerialNumber: "10000000ffffffff"})
		Expect(s.Patch(ctx, run, client.RawPatch("application/merge-patch+json", patch))).To(Succeed())

		s.becomes(ctx, run, "Unknown Pending", "an operator that knows nothing finds the resource with an intent")
		Expect(run.Status.ID).To(Equal(made.ID))
		Expect(run.Status.DeviceID).To(Equal(s.device.ID))
		Expect(run.Status.Adopted).To(BeFalse(), "the operator made it")
		Expect(s.Org.Deployments(other.ID)).To(BeEmpty(), "nothing is deployed to the device that has the name now")
		s.end("deployment_recovered")
	})

	It("waits for an artefact that is only known by an id", func(ctx context.Context) {
		s := newDeploymentScenario(ctx, connectsim.Options{})
		run := s.deployment("run")
		run.Spec.ArtefactRef, run.Spec.ArtefactID = nil, "12345"
		Expect(s.Create(ctx, run)).To(Succeed())
		s.becomes(ctx, run, "Unknown ArtefactNotReady", "a Deployment of an artefact that the organisation does not have")
		Expect(run.Annotations).NotTo(HaveKey(v1alpha1.AnnotationCreateIntent))
		s.end("deployment_unknown_artefact")
	})
})

var _ = Describe("A DeviceIdentity in the course of time", func() {
	It("is signed, exchanged, and from then on ignored", func(ctx context.Context) {
		s := newEnv(ctx, connectsim.Options{Revision: connectsim.Older})
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		Expect(err).NotTo(HaveOccurred())
		der, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
		Expect(err).NotTo(HaveOccurred())
		identity := &v1alpha1.DeviceIdentity{ObjectMeta: s.meta("pi5-001"), Spec: v1alpha1.DeviceIdentitySpec{
			PublicKey: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), Tags: []string{"production"},
		}}
		record := func(ready, title string) {
			GinkgoHelper()
			Eventually(s.ready(ctx, identity)).Should(HavePrefix(ready))
			var lines []string
			for _, i := range s.Org.DeviceIdentities() {
				lines = append(lines, fmt.Sprintf("identity %s of %q %v", i.ID, i.Description, i.Tags))
			}
			for _, condition := range identity.Status.Conditions {
				if condition.Type == v1alpha1.ConditionSynced {
					lines = append(lines, fmt.Sprintf("Synced %s %s: %s", condition.Status, condition.Reason, condition.Message))
				}
			}
			s.record(ctx, title, identity, lines...)
		}

		Expect(s.Create(ctx, identity)).To(Succeed())
		record("Unknown AwaitingSignature", "a DeviceIdentity is applied without a signature")
		digest, err := hex.DecodeString(identity.Status.SigningRequest.Digest)
		Expect(err).NotTo(HaveOccurred())
		signature, err := private.Sign(rand.Reader, digest, crypto.SHA256)
		Expect(err).NotTo(HaveOccurred())
		identity.Spec.Description = "Lobby"
		identity.Spec.Signing = &v1alpha1.Signing{Signature: base64.StdEncoding.EncodeToString(signature)}
		Expect(s.Update(ctx, identity)).To(Succeed())
		record("False SignatureInvalid", "the digest is signed, but the description changed meanwhile")

		digest, err = hex.DecodeString(identity.Status.SigningRequest.Digest)
		Expect(err).NotTo(HaveOccurred())
		signature, err = private.Sign(rand.Reader, digest, crypto.SHA256)
		Expect(err).NotTo(HaveOccurred())
		identity.Spec.Signing.Signature = base64.StdEncoding.EncodeToString(signature)
		Expect(s.Update(ctx, identity)).To(Succeed())
		record("True Available", "the new digest is signed; the older revision takes the tags with a PATCH")

		pi := connectsim.NewPi(s.URL, "raspberrypi", "10000000a1b2c3d4")
		Expect(pi.SignInWithIdentity(ctx, private)).To(Succeed())
		s.clock.Advance(time.Second)
		identity.Spec.Tags, identity.Spec.Description = []string{"test"}, "Lobby 2"
		Expect(s.Update(ctx, identity)).To(Succeed())
		record("True Available", "the device signs in, then tags and description are changed: one PATCH, and no other")
		s.pass(ctx, day, identity)
		Eventually(func() string { s.ready(ctx, identity)(); return identity.Status.LastHandledReconcileAt }).ShouldNot(BeEmpty())
		record("True Available", "a day later it has not been tried again")
		s.end("deviceidentity_exchanged")
	})
})
