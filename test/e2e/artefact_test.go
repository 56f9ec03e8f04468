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
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/test/cluster"
)

const (
	postArtefact = "POST /organisation/artefacts"
	listArtefact = "GET /organisation/artefacts"
)

var _ = Describe("An Artefact", func() {
	var f *fleet

	for _, revision := range []connectsim.Revision{connectsim.Current, connectsim.Older} {
		Describe("on the "+string(revision)+" revision", func() {
			BeforeEach(func(ctx context.Context) {
				f = newFleet(ctx, connectsim.Options{Revision: revision})
				f.start(ctx)
			})

			It("is published, and removed with its resource", func(ctx context.Context) {
				kiosk := f.artefact("kiosk-v1.0")
				Expect(f.Create(ctx, kiosk)).To(Succeed())
				Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))

				published := f.Org.Artefacts()
				Expect(published).To(HaveLen(1))
				Expect(published[0].Name).To(Equal("kiosk-v1.0"))
				Expect(published[0].URI).To(Equal(kiosk.Spec.URI))
				Expect(kiosk.Status.ID).To(Equal(published[0].ID))
				Expect(kiosk.Status.Adopted).To(BeFalse())
				Expect(kiosk.Annotations).To(HaveKeyWithValue(v1alpha1.AnnotationID, published[0].ID))
				Expect(kiosk.Annotations).NotTo(HaveKey(v1alpha1.AnnotationCreateIntent))
				Eventually(f.events(ctx, kiosk.Name)).Should(Equal([]string{"Created"}))

				Expect(f.Delete(ctx, kiosk)).To(Succeed())
				Eventually(f.gone(ctx, kiosk)).Should(BeTrue())
				Expect(f.Org.Artefacts()).To(BeEmpty())
			})

			It("is adopted when it is there already, and then outlives its resource", func(ctx context.Context) {
				kiosk := f.artefact("kiosk")
				kiosk.Spec.Name = "Kiosk 1.0"
				there := f.Org.AddArtefact("Kiosk 1.0", kiosk.Spec.URI, strings.ToUpper(kiosk.Spec.Checksum))
				Expect(f.Create(ctx, kiosk)).To(Succeed())
				Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
				Expect(kiosk.Status.ID).To(Equal(there.ID))
				Expect(kiosk.Status.Adopted).To(BeTrue())
				Eventually(f.events(ctx, kiosk.Name)).Should(Equal([]string{"Adopted"}))

				Expect(f.Delete(ctx, kiosk)).To(Succeed())
				Eventually(f.gone(ctx, kiosk)).Should(BeTrue())
				Expect(f.Org.Artefacts()).To(HaveLen(1))
				Expect(f.Sim.Count(postArtefact)).To(BeZero())
			})
		})
	}

	Describe("whatever the revision", func() {
		BeforeEach(func(ctx context.Context) { f = newFleet(ctx, connectsim.Options{}) })

		It("says what is in the way when its name belongs to other content", func(ctx context.Context) {
			f.start(ctx)
			other := f.Org.AddArtefact("kiosk", "https://user:"+uriSecret+"@elsewhere.example.com/kiosk.tar.zst?"+uriSecret, strings.Repeat("f", 64))
			kiosk := f.artefact("kiosk")
			Expect(f.Create(ctx, kiosk)).To(Succeed())
			Eventually(f.ready(ctx, kiosk)).Should(And(HavePrefix("False Conflict"),
				ContainSubstring("https://elsewhere.example.com/kiosk.tar.zst"), ContainSubstring("https://updates.example.com/kiosk.tar.zst"),
				ContainSubstring("give this one another spec.name")))

			f.Org.RemoveArtefact(other.ID)
			f.annotate(ctx, kiosk, v1alpha1.AnnotationReconcileRequestedAt, "now")
			Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
			Expect(kiosk.Status.LastHandledReconcileAt).To(Equal("now"))
		})

		It("has one owner: the oldest resource", func(ctx context.Context) {
			first := f.artefact("a-first")
			first.Spec.Name = "kiosk"
			Expect(f.Create(ctx, first)).To(Succeed())
			f.start(ctx)
			Eventually(f.ready(ctx, first)).Should(HavePrefix("True Available"))

			second := f.artefact("b-second")
			second.Spec.Name, second.Spec.URI = "kiosk", first.Spec.URI
			Expect(f.Create(ctx, second)).To(Succeed())
			Eventually(f.ready(ctx, second)).Should(And(HavePrefix("False AlreadyClaimed"), ContainSubstring(f.ns+"/a-first")))

			By("not touching the remote object when the second goes")
			Expect(f.Delete(ctx, second)).To(Succeed())
			Eventually(f.gone(ctx, second)).Should(BeTrue())
			Expect(f.Org.Artefacts()).To(HaveLen(1))
			Consistently(f.ready(ctx, first)).Should(HavePrefix("True Available"))

			By("passing on when the owner goes")
			second = f.artefact("b-second")
			second.Spec.Name, second.Spec.URI = "kiosk", first.Spec.URI
			Expect(f.Create(ctx, second)).To(Succeed())
			Eventually(f.ready(ctx, second)).Should(HavePrefix("False AlreadyClaimed"))
			Expect(f.Delete(ctx, first)).To(Succeed())
			Eventually(f.ready(ctx, second)).Should(HavePrefix("True Available"))
			Expect(f.Org.Artefacts()).To(HaveLen(1))
		})

		It("is made again when somebody removes it", func(ctx context.Context) {
			f.start(ctx, "--resync-interval=1s")
			kiosk := f.artefact("kiosk")
			Expect(f.Create(ctx, kiosk)).To(Succeed())
			Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
			was := kiosk.Status.ID

			f.Org.RemoveArtefact(was)
			Eventually(f.Org.Artefacts).Should(HaveLen(1))
			Eventually(func() string { f.ready(ctx, kiosk)(); return kiosk.Status.ID }).Should(Equal(f.Org.Artefacts()[0].ID))
			Expect(kiosk.Status.ID).NotTo(Equal(was))
		})

		It("is adopted when somebody else makes it between two listings", func(ctx context.Context) {
			f.start(ctx)
			first := f.artefact("first")
			Expect(f.Create(ctx, first)).To(Succeed())
			Eventually(f.ready(ctx, first)).Should(HavePrefix("True Available"))

			kiosk := f.artefact("kiosk")
			there := f.Org.AddArtefact("kiosk", kiosk.Spec.URI, kiosk.Spec.Checksum)
			Expect(f.Create(ctx, kiosk)).To(Succeed())
			Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
			Expect(kiosk.Status.ID).To(Equal(there.ID))
			Expect(kiosk.Status.Adopted).To(BeTrue(), "it is not the operator's to delete")
		})

		It("shows Connect's words when Connect refuses it", func(ctx context.Context) {
			f.Sim.Inject(connectsim.Fault{Route: postArtefact, Status: 422, Body: `{"message":"Validation failed: Uri must be reachable"}`, ContentType: "application/json"})
			f.start(ctx)
			kiosk := f.artefact("kiosk")
			Expect(f.Create(ctx, kiosk)).To(Succeed())
			Eventually(f.ready(ctx, kiosk)).Should(And(HavePrefix("False Invalid"), ContainSubstring("Uri must be reachable")))
			Expect(kiosk.Annotations).NotTo(HaveKey(v1alpha1.AnnotationCreateIntent))
			Expect(f.Sim.Count(postArtefact)).To(Equal(2), "one POST, one more after looking again")
		})

		It("stays in Connect when it was deployed, and says so", func(ctx context.Context) {
			f.start(ctx)
			kiosk := f.artefact("kiosk")
			Expect(f.Create(ctx, kiosk)).To(Succeed())
			Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
			f.Org.MarkDeployed(kiosk.Status.ID)
			Expect(f.Delete(ctx, kiosk)).To(Succeed())
			Eventually(f.gone(ctx, kiosk)).Should(BeTrue())
			Expect(f.Org.Artefacts()).To(HaveLen(1))
			Eventually(f.events(ctx, kiosk.Name)).Should(ContainElement("ArtefactRetained"))
		})

		It("is deleted or left as its deletionPolicy says", func(ctx context.Context) {
			f.start(ctx)
			left, adopted := f.artefact("left"), f.artefact("adopted")
			left.Spec.DeletionPolicy = v1alpha1.DeletionPolicyOrphan
			adopted.Spec.DeletionPolicy = v1alpha1.DeletionPolicyDelete
			f.Org.AddArtefact("adopted", adopted.Spec.URI, adopted.Spec.Checksum)
			for _, obj := range []*v1alpha1.Artefact{left, adopted} {
				Expect(f.Create(ctx, obj)).To(Succeed())
				Eventually(f.ready(ctx, obj)).Should(HavePrefix("True Available"))
			}
			for _, obj := range []*v1alpha1.Artefact{left, adopted} {
				Expect(f.Delete(ctx, obj)).To(Succeed())
				Eventually(f.gone(ctx, obj)).Should(BeTrue())
			}
			Expect(f.Org.Artefacts()).To(HaveLen(1))
			Expect(f.Org.Artefacts()[0].Name).To(Equal("left"))
		})

		It("is blocked from deletion by a refusal, and let go when told to", func(ctx context.Context) {
			f.start(ctx)
			kiosk := f.artefact("kiosk")
			Expect(f.Create(ctx, kiosk)).To(Succeed())
			Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
			f.Sim.Inject(connectsim.Fault{Route: "DELETE /organisation/artefacts/{id}", Status: 422, Body: `{"message":"The organisation is locked"}`})
			Expect(f.Delete(ctx, kiosk)).To(Succeed())
			Eventually(f.ready(ctx, kiosk)).Should(And(HavePrefix("False DeletionRefused"), ContainSubstring("The organisation is locked"), ContainSubstring("Orphan")))
			kiosk.Spec.DeletionPolicy = v1alpha1.DeletionPolicyOrphan
			Expect(f.Update(ctx, kiosk)).To(Succeed())
			Eventually(f.gone(ctx, kiosk)).Should(BeTrue())
		})

		It("is left alone while it is suspended", func(ctx context.Context) {
			f.start(ctx)
			kiosk := f.artefact("kiosk")
			kiosk.Annotations = map[string]string{v1alpha1.AnnotationSuspend: "true"}
			Expect(f.Create(ctx, kiosk)).To(Succeed())
			Eventually(func() bool {
				f.ready(ctx, kiosk)()
				return meta.IsStatusConditionTrue(kiosk.Status.Conditions, v1alpha1.ConditionSuspended)
			}).Should(BeTrue())
			Expect(f.Sim.Count("")).To(BeZero())

			f.annotate(ctx, kiosk, v1alpha1.AnnotationSuspend, nil)
			Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
			Expect(meta.FindStatusCondition(kiosk.Status.Conditions, v1alpha1.ConditionSuspended)).To(BeNil())

			f.annotate(ctx, kiosk, v1alpha1.AnnotationSuspend, "true")
			Expect(f.Delete(ctx, kiosk)).To(Succeed())
			Consistently(f.gone(ctx, kiosk)).Should(BeFalse())
			f.annotate(ctx, kiosk, v1alpha1.AnnotationSuspend, nil)
			Eventually(f.gone(ctx, kiosk)).Should(BeTrue())
		})

		It("can be imported by its id, and restored from a backup", func(ctx context.Context) {
			f.start(ctx)
			kiosk := f.artefact("kiosk")
			there := f.Org.AddArtefact("kiosk", kiosk.Spec.URI, kiosk.Spec.Checksum)
			kiosk.Annotations = map[string]string{v1alpha1.AnnotationID: there.ID}
			Expect(f.Create(ctx, kiosk)).To(Succeed())
			Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
			Expect(kiosk.Status.Adopted).To(BeTrue())

			wrong := f.artefact("wrong")
			wrong.Annotations = map[string]string{v1alpha1.AnnotationID: "12345"}
			Expect(f.Create(ctx, wrong)).To(Succeed())
			Eventually(f.ready(ctx, wrong)).Should(And(HavePrefix("False NotFound"), ContainSubstring("12345")))

			made := f.artefact("made")
			Expect(f.Create(ctx, made)).To(Succeed())
			Eventually(f.ready(ctx, made)).Should(HavePrefix("True Available"))
			f.kill()
			backup := f.artefact("made")
			backup.Annotations = made.Annotations
			Expect(f.Patch(ctx, made, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`)))).To(Succeed())
			Expect(f.Delete(ctx, made)).To(Succeed())
			Expect(f.Create(ctx, backup)).To(Succeed())
			posts := f.Sim.Count(postArtefact)
			f.start(ctx)
			Eventually(f.ready(ctx, backup)).Should(HavePrefix("True Available"))
			Expect(backup.Status.Adopted).To(BeFalse(), "the operator made it, before the backup")
			Expect(f.Sim.Count(postArtefact)).To(Equal(posts))
		})
	})

	Describe("without a token that works", func() {
		BeforeEach(func(ctx context.Context) {
			f = newFleet(ctx, connectsim.Options{})
			f.start(ctx)
		})

		It("waits for the Secret", func(ctx context.Context) {
			kiosk := f.artefact("kiosk")
			kiosk.Spec.AccessTokenSecretRef = v1alpha1.AccessTokenReference{Name: "later", Key: "value"}
			Expect(f.Create(ctx, kiosk)).To(Succeed())
			Eventually(f.ready(ctx, kiosk)).Should(And(HavePrefix("Unknown AccessTokenMissing"), ContainSubstring(`"later"`)))
			secret := &corev1.Secret{ObjectMeta: f.meta("later"), StringData: map[string]string{"token": "x"}}
			Expect(f.Create(ctx, secret)).To(Succeed())
			Eventually(f.ready(ctx, kiosk)).Should(And(HavePrefix("Unknown AccessTokenMissing"), ContainSubstring(`under the key "value"`)))
			secret.StringData = map[string]string{"value": f.Token}
			Expect(f.Update(ctx, secret)).To(Succeed())
			Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
		})

		DescribeTable("is told what is in the Secret instead of a token, without a call", func(ctx context.Context, value, words string) {
			kiosk := f.artefact("kiosk")
			kiosk.Spec.AccessTokenSecretRef = v1alpha1.AccessTokenReference{Name: "wrong", Key: "token"}
			secret := &corev1.Secret{ObjectMeta: f.meta("wrong"), StringData: map[string]string{"token": value}}
			Expect(f.Create(ctx, secret)).To(Succeed())
			Expect(f.Create(ctx, kiosk)).To(Succeed())
			Eventually(f.ready(ctx, kiosk)).Should(And(HavePrefix("False AccessTokenRejected"), ContainSubstring(words),
				ContainSubstring("(rporg_…), which an administrator makes in the organisation's settings in Connect"), Not(ContainSubstring("123456789"))))
			Expect(f.Sim.Count("")).To(BeZero())

			secret.StringData = map[string]string{"token": "\ufeff\"Bearer " + f.Token + "\"\r\n"}
			Expect(f.Update(ctx, secret)).To(Succeed())
			Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
		},
			Entry("an auth key", "rpoak_123456789ABCDEFGHJKLMNPQ", "has an auth key"),
			Entry("a device's token", "rpdev_123456789ABCDEFGHJKLMNPQ", "has a device's token"),
			Entry("several lines", "rporg_123456789ABCDEFGHJKLMNPQ\nrporg_123456789ABCDEFGHJKLMNPQ", "has several lines"))

		It("asks once with a rejected token, however many resources use it, and heals with the Secret", func(ctx context.Context) {
			f.putToken(ctx, "rporg_wrong")
			for i := range 29 {
				Expect(f.Create(ctx, f.artefact(fmt.Sprintf("kiosk-%02d", i)))).To(Succeed())
			}
			last := f.artefact("kiosk-28")
			Eventually(f.ready(ctx, last)).Should(HavePrefix("False AccessTokenRejected"))
			Consistently(func() int { return f.Sim.Count("") }).Should(BeNumerically("<=", 5))

			f.putToken(ctx, f.Token)
			Eventually(f.readyCount(ctx, &v1alpha1.ArtefactList{})).Should(Equal(29))
			Expect(f.Org.Artefacts()).To(HaveLen(29))
		})

		It("is told when its token stops working, and goes on with a new one", func(ctx context.Context) {
			f.stop()
			f.start(ctx, "--resync-interval=1s")
			kiosk := f.artefact("kiosk")
			Expect(f.Create(ctx, kiosk)).To(Succeed())
			Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
			f.Sim.RevokeToken(f.Token)
			Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("False AccessTokenRejected"))
			rotated := connectsim.NewSecret("rporg_")
			f.Org.AddToken(rotated)
			f.putToken(ctx, rotated)
			Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
		})

		It("tries a rejected token again as soon as somebody touches its Secret", func(ctx context.Context) {
			f.Sim.RevokeToken(f.Token)
			kiosk := f.artefact("kiosk")
			Expect(f.Create(ctx, kiosk)).To(Succeed())
			Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("False AccessTokenRejected"))
			f.Org.AddToken(f.Token) // somebody has set the organisation right
			f.annotate(ctx, &corev1.Secret{ObjectMeta: f.meta("connect-access-token")}, "example.com/token", "works again")
			Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
		})

		It("is still deleted with the token that was there last", func(ctx context.Context) {
			kiosk := f.artefact("kiosk")
			Expect(f.Create(ctx, kiosk)).To(Succeed())
			Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
			Expect(f.Delete(ctx, &corev1.Secret{ObjectMeta: f.meta("connect-access-token")})).To(Succeed())
			Expect(f.Delete(ctx, kiosk)).To(Succeed())
			Eventually(f.gone(ctx, kiosk)).Should(BeTrue())
			Expect(f.Org.Artefacts()).To(BeEmpty())
		})

		It("says how to let go when no token is left", func(ctx context.Context) {
			kiosk := f.artefact("kiosk")
			Expect(f.Create(ctx, kiosk)).To(Succeed())
			Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
			f.stop() // and forgets the token
			Expect(f.Delete(ctx, &corev1.Secret{ObjectMeta: f.meta("connect-access-token")})).To(Succeed())
			f.start(ctx)
			Expect(f.Delete(ctx, kiosk)).To(Succeed())
			Eventually(f.ready(ctx, kiosk)).Should(And(HavePrefix("Unknown AccessTokenMissing"), ContainSubstring("set spec.deletionPolicy to Orphan")))
			kiosk.Spec.DeletionPolicy = v1alpha1.DeletionPolicyOrphan
			Expect(f.Update(ctx, kiosk)).To(Succeed())
			Eventually(f.gone(ctx, kiosk)).Should(BeTrue())
		})

		It("does not keep a namespace from ending, and says what stays behind", func(ctx context.Context) {
			if !cluster.HasControllerManager() {
				Skip("there is no kube-controller-manager in KUBEBUILDER_ASSETS to end namespaces")
			}
			kiosk := f.artefact("kiosk")
			Expect(f.Create(ctx, kiosk)).To(Succeed())
			Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
			id := kiosk.Status.ID
			f.stop() // and forgets the token
			Expect(f.Delete(ctx, &corev1.Secret{ObjectMeta: f.meta("connect-access-token")})).To(Succeed())
			Expect(f.Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: f.ns}})).To(Succeed())
			f.start(ctx)
			Eventually(f.gone(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: f.ns}})).Should(BeTrue())
			Eventually(func() []string {
				var list eventsv1.EventList
				Expect(f.List(ctx, &list, client.InNamespace("default"))).To(Succeed())
				var notes []string
				for _, e := range list.Items {
					if e.Reason == v1alpha1.EventOrphaned {
						notes = append(notes, e.Note)
					}
				}
				return notes
			}).Should(ContainElement(And(ContainSubstring(f.ns+"/kiosk"), ContainSubstring(id))))
		})
	})

	DescribeTable("is not confused by errors whose bodies nobody has published", func(ctx context.Context, bodies connectsim.ErrorBodies) {
		f = newFleet(ctx, connectsim.Options{Revision: connectsim.Older, ErrorBodies: bodies})
		f.putToken(ctx, "rporg_wrong")
		f.start(ctx)
		kiosk, key := f.artefact("kiosk"), f.authKey("pi5-001")
		Expect(f.Create(ctx, kiosk)).To(Succeed())
		Expect(f.Create(ctx, key)).To(Succeed())
		Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("False AccessTokenRejected"))
		f.putToken(ctx, f.Token)
		Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
		Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"), "though the older revision answers 404 to a listing of keys")

		By("taking what is gone for deleted")
		f.Org.RemoveArtefact(kiosk.Status.ID)
		Expect(f.Delete(ctx, kiosk)).To(Succeed())
		Eventually(f.gone(ctx, kiosk)).Should(BeTrue())
	},
		Entry("a message", connectsim.MessageBodies), Entry("an error", connectsim.ErrorKey), Entry("nothing", connectsim.EmptyBodies),
		Entry("a page", connectsim.HTMLBodies), Entry("text", connectsim.PlainBodies),
	)

	Describe("in bad weather", func() {
		BeforeEach(func(ctx context.Context) { f = newFleet(ctx, connectsim.Options{}) })

		It("stays Ready through an outage, and is made after it", func(ctx context.Context) {
			f.start(ctx, "--resync-interval=1s")
			before := f.artefact("before")
			Expect(f.Create(ctx, before)).To(Succeed())
			Eventually(f.ready(ctx, before)).Should(HavePrefix("True Available"))
			version := before.ResourceVersion

			f.Sim.Inject(connectsim.Fault{Status: 503, Body: "<html>down for maintenance</html>", ContentType: "text/html"})
			during := f.artefact("during")
			Expect(f.Create(ctx, during)).To(Succeed())
			Eventually(f.ready(ctx, during)).Should(HavePrefix("Unknown ConnectUnavailable"))
			Consistently(f.ready(ctx, before)).Should(HavePrefix("True Available"))
			Expect(before.ResourceVersion).To(Equal(version), "an outage writes nothing to what is Ready")

			f.Sim.ClearFaults()
			Eventually(f.ready(ctx, during)).Should(HavePrefix("True Available"))
		})

		It("waits for the next hour when the budget is spent, without a word to what is Ready", func(ctx context.Context) {
			f = newFleet(ctx, connectsim.Options{RateLimit: 20, Window: 5 * time.Second})
			f.start(ctx)
			seen := map[string]bool{}
			for i := range 60 {
				Expect(f.Create(ctx, f.artefact(fmt.Sprintf("kiosk-%02d", i)))).To(Succeed())
			}
			Eventually(func() int {
				var list v1alpha1.ArtefactList
				Expect(f.List(ctx, &list, client.InNamespace(f.ns))).To(Succeed())
				for _, a := range list.Items {
					if ready := meta.FindStatusCondition(a.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
						seen[ready.Reason] = true
					}
				}
				return f.readyCount(ctx, &list)()
			}).WithTimeout(time.Minute).Should(Equal(60))
			Expect(seen).To(HaveKey("Throttled"))
			for _, r := range f.Sim.Journal() {
				Expect(r.Status).NotTo(Equal(429))
			}
		})

		It("is made exactly once through kill -9, lost responses and errors", func(ctx context.Context) {
			f.Sim.SetLatency(20 * time.Millisecond)
			f.Sim.Inject(connectsim.Fault{Route: postArtefact, Skip: 3, Times: 6, After: true, Drop: true})
			f.Sim.Inject(connectsim.Fault{Route: postArtefact, Skip: 15, Times: 6, After: true, Status: 502, Body: "<html><h1>502 Bad Gateway</h1></html>", ContentType: "text/html"})
			f.Sim.Inject(connectsim.Fault{Route: postArtefact, Skip: 25, Times: 5, Status: 502, Body: "<html><h1>502 Bad Gateway</h1></html>", ContentType: "text/html"})
			for i := range 60 {
				Expect(f.Create(ctx, f.artefact(fmt.Sprintf("kiosk-%02d", i)))).To(Succeed())
			}
			for kills := range 8 {
				f.start(ctx, "--max-concurrent-reconciles=4")
				Eventually(func() int { return len(f.Org.Artefacts()) }).WithPolling(time.Millisecond).Should(BeNumerically(">=", 6*(kills+1)))
				f.kill()
			}
			f.start(ctx)
			Eventually(f.readyCount(ctx, &v1alpha1.ArtefactList{})).WithTimeout(time.Minute).Should(Equal(60))
			names := map[string]int{}
			for _, a := range f.Org.Artefacts() {
				names[a.Name]++
			}
			Expect(names).To(HaveLen(60))
			Expect(f.Org.Artefacts()).To(HaveLen(60))
			var list v1alpha1.ArtefactList
			Expect(f.List(ctx, &list, client.InNamespace(f.ns))).To(Succeed())
			for _, a := range list.Items {
				Expect(a.Status.Adopted).To(BeFalse(), "%s was made by the operator", a.Name)
			}
		})
	})

	It("costs one POST each, a listing for all, and silence afterwards", func(ctx context.Context) {
		f = newFleet(ctx, connectsim.Options{})
		f.start(ctx)
		began := time.Now()
		for i := range 300 {
			Expect(f.Create(ctx, f.artefact(fmt.Sprintf("kiosk-%03d", i)))).To(Succeed())
		}
		Eventually(f.readyCount(ctx, &v1alpha1.ArtefactList{})).WithTimeout(time.Minute).Should(Equal(300))
		Expect(f.Sim.Count(postArtefact)).To(Equal(300))
		Expect(f.Sim.Count("")-300).To(BeNumerically("<=", 8), "other requests")
		resources, events := f.settledWrites(began)
		Expect(resources).To(BeNumerically("<=", 900), "writes to 300 resources")
		Expect(events).To(BeNumerically("<=", 300))

		By("restarting")
		f.stop()
		f.Sim.ResetJournal()
		f.start(ctx)
		restarted := time.Now()
		Eventually(func() int { return f.Sim.Count(listArtefact) }).Should(Equal(3))
		reconciles := func() float64 {
			n, err := f.manager.Metric(ctx, "controller_runtime_reconcile_total", `controller="artefact"`)
			Expect(err).NotTo(HaveOccurred())
			return n
		}
		Eventually(reconciles).Should(BeNumerically(">=", 300))
		var settled float64
		Eventually(func() bool { before := settled; settled = reconciles(); return before == settled }).WithPolling(500 * time.Millisecond).Should(BeTrue())

		By("being silent")
		Consistently(reconciles).WithTimeout(3 * time.Second).Should(Equal(settled))
		Expect(f.Sim.Count("")).To(BeNumerically("<=", 8))
		writes, events, others, err := control.OperatorWrites(restarted)
		Expect(err).NotTo(HaveOccurred())
		Expect(writes + events + others).To(BeZero())

		metrics, err := f.manager.Metrics(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(metrics).To(ContainSubstring("rpi_connect_budget_remaining"))
		Expect(metrics).NotTo(ContainSubstring(f.Token))
	})
})
