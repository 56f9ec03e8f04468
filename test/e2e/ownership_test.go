// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
)

// copyOf is what `kubectl get -o yaml | kubectl apply` of a copy makes: everything but what the API
// server itself puts on a resource.
func copyOf[O lifecycle.Object](obj O, name string) O {
	copied, _ := obj.DeepCopyObject().(O)
	copied.SetName(name)
	copied.SetUID("")
	copied.SetResourceVersion("")
	copied.SetCreationTimestamp(metav1.Time{})
	copied.SetGeneration(0)
	copied.SetFinalizers(nil)
	*copied.GetCommonStatus() = v1alpha1.CommonStatus{}
	return copied
}

// strip takes everything off a resource that the operator has put there, as `kubectl replace` of the
// manifest in Git does.
func (f *fleet) strip(ctx context.Context, obj client.Object) {
	GinkgoHelper()
	Expect(f.Patch(ctx, obj, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null,"annotations":null}}`)))).To(Succeed())
}

// remove deletes a resource and waits until it is gone.
func (f *fleet) remove(ctx context.Context, obj client.Object) {
	GinkgoHelper()
	Expect(client.IgnoreNotFound(f.Delete(ctx, obj))).To(Succeed())
	Eventually(f.gone(ctx, obj)).Should(BeTrue())
}

// posts counts the requests to create something that were sent since the journal was reset.
func (f *fleet) posts() int { return f.Sim.Count("POST") }

var _ = Describe("Somebody else's object", func() {
	var f *fleet
	BeforeEach(func(ctx context.Context) {
		f = newFleet(ctx, connectsim.Options{})
		f.start(ctx, "--resync-interval=1s", "--deployment-poll-min=200ms", "--deployment-poll-max=1s", "--post-settle-time=3s")
	})

	It("is not deleted with a resource whose id was edited, copied or made up", func(ctx context.Context) {
		theirs := f.Org.AddArtefact("theirs", "https://elsewhere.example.com/theirs.tar.zst", strings.Repeat("f", 64))
		mine := f.artefact("mine")
		Expect(f.Create(ctx, mine)).To(Succeed())
		Eventually(f.ready(ctx, mine)).Should(HavePrefix("True Available"))
		own := mine.Status.ID

		By("putting back an id that was edited")
		f.annotate(ctx, mine, v1alpha1.AnnotationID, theirs.ID)
		Eventually(func() string { f.ready(ctx, mine)(); return mine.Annotations[v1alpha1.AnnotationID] }).Should(Equal(own))
		Expect(f.ready(ctx, mine)()).To(HavePrefix("True Available"))

		By("telling an import that does not fit")
		made := f.artefact("made-up")
		made.Annotations = map[string]string{v1alpha1.AnnotationID: theirs.ID}
		Expect(f.Create(ctx, made)).To(Succeed())
		Eventually(f.ready(ctx, made)).Should(HavePrefix("False Conflict"))

		By("telling a forged origin the same")
		forged := f.artefact("forged")
		forged.Annotations = map[string]string{v1alpha1.AnnotationID: theirs.ID, v1alpha1.AnnotationOrigin: "created " + theirs.ID + " for " + f.ns + "/forged"}
		forged.Spec.DeletionPolicy = v1alpha1.DeletionPolicyDelete
		Expect(f.Create(ctx, forged)).To(Succeed())
		Eventually(f.ready(ctx, forged)).Should(HavePrefix("False Conflict"))

		for _, obj := range []client.Object{made, forged, mine} {
			f.remove(ctx, obj)
		}
		Expect(f.Org.Artefacts()).To(ConsistOf(HaveField("ID", theirs.ID)))
	})

	It("stays when the name belongs to it, whatever the deletionPolicy says", func(ctx context.Context) {
		theirs := f.Org.AddArtefact("kiosk", "https://elsewhere.example.com/kiosk.tar.zst", strings.Repeat("f", 64))
		kiosk := f.artefact("kiosk")
		kiosk.Spec.DeletionPolicy = v1alpha1.DeletionPolicyDelete
		Expect(f.Create(ctx, kiosk)).To(Succeed())
		Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("False Conflict"))
		f.remove(ctx, kiosk)
		Expect(f.Org.Artefacts()).To(ConsistOf(HaveField("ID", theirs.ID)))
	})

	It("is an import when a manifest is copied, and its owner keeps it", func(ctx context.Context) {
		kiosk := f.artefact("kiosk")
		kiosk.Spec.Name = "Kiosk"
		Expect(f.Create(ctx, kiosk)).To(Succeed())
		Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
		copied := copyOf(kiosk, "a-copy")
		copied.Spec.DeletionPolicy = v1alpha1.DeletionPolicyDelete
		Expect(f.Create(ctx, copied)).To(Succeed())
		Eventually(f.ready(ctx, copied)).Should(And(HavePrefix("False AlreadyClaimed"), ContainSubstring(f.ns+"/kiosk")))
		f.remove(ctx, copied)
		Expect(f.Org.Artefacts()).To(HaveLen(1))
		Consistently(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
	})

	It("is not taken away by an older resource that names it", func(ctx context.Context) {
		older := f.artefact("a-older")
		older.Annotations = map[string]string{v1alpha1.AnnotationSuspend: "true"}
		older.Spec.Name = "kiosk"
		Expect(f.Create(ctx, older)).To(Succeed())
		owner := f.artefact("owner")
		owner.Spec.Name, owner.Spec.URI = "kiosk", older.Spec.URI
		Eventually(func() time.Time { return time.Now().Truncate(time.Second) }).Should(BeTemporally(">", older.CreationTimestamp.Time))
		Expect(f.Create(ctx, owner)).To(Succeed())
		Eventually(f.ready(ctx, owner)).Should(HavePrefix("True Available"))

		By("naming it by its id, and going on")
		f.annotate(ctx, older, v1alpha1.AnnotationID, owner.Status.ID)
		f.annotate(ctx, older, v1alpha1.AnnotationSuspend, nil)
		Eventually(f.ready(ctx, older)).Should(And(HavePrefix("False AlreadyClaimed"), ContainSubstring(f.ns+"/owner")))
		Consistently(f.ready(ctx, owner)).Should(HavePrefix("True Available"))

		By("passing on when the owner goes, and going when both have gone")
		f.remove(ctx, owner)
		Eventually(f.ready(ctx, older)).Should(Or(HavePrefix("True Available"), HavePrefix("False NotFound")))
		f.remove(ctx, older)
		Eventually(f.Org.Artefacts).Should(BeEmpty())
	})

	It("is not called ours because it was made while our request could not be sent", func(ctx context.Context) {
		f.stop()
		limited := newFleet(ctx, connectsim.Options{RateLimit: 20, Window: 6 * time.Second})
		limited.start(ctx, "--resync-interval=1h")
		first := limited.artefact("first")
		Expect(limited.Create(ctx, first)).To(Succeed())
		Eventually(limited.ready(ctx, first)).Should(HavePrefix("True Available"))
		limited.Sim.Spend(limited.Token, 20)
		kiosk := limited.artefact("kiosk")
		Expect(limited.Create(ctx, kiosk)).To(Succeed())
		theirs := limited.Org.AddArtefact("kiosk", kiosk.Spec.URI, kiosk.Spec.Checksum)
		Eventually(limited.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
		Expect(kiosk.Status.ID).To(Equal(theirs.ID))
		Expect(kiosk.Status.Adopted).To(BeTrue(), "a colleague made it")
		limited.remove(ctx, kiosk)
		Expect(limited.Org.Artefacts()).To(ContainElement(HaveField("ID", theirs.ID)))
	})

	It("does not lend its success to a Deployment that names it", func(ctx context.Context) {
		kiosk := f.publish(ctx)
		other := f.artefact("other")
		Expect(f.Create(ctx, other)).To(Succeed())
		Eventually(f.ready(ctx, other)).Should(HavePrefix("True Available"))
		one, two := f.pi("one"), f.pi("two")
		theirs := f.Org.AddDeployment(two.ID, kiosk.Status.ID)
		f.Org.MoveDeployment(theirs.ID, connectsim.Succeeded, "")
		otherArtefact := f.Org.AddDeployment(one.ID, other.Status.ID)
		f.Org.MoveDeployment(otherArtefact.ID, connectsim.Succeeded, "")

		for name, id := range map[string]string{"of-another-device": theirs.ID, "of-another-artefact": otherArtefact.ID} {
			run := f.deployment(name)
			run.Spec.Device.Name = "one"
			run.Annotations = map[string]string{v1alpha1.AnnotationID: id}
			Expect(f.Create(ctx, run)).To(Succeed())
			Eventually(f.ready(ctx, run)).Should(HavePrefix("False Conflict"))
			f.remove(ctx, run)
		}
		Expect(f.Sim.Count(cancelDeployment)).To(BeZero())
	})

	It("is deployed once by two Deployments of the same moment, and the other is told at once", func(ctx context.Context) {
		f.publish(ctx)
		device := f.pi("pi5-001")
		f.Sim.SetLatency(50 * time.Millisecond)
		a, b := f.deployment("a"), f.deployment("b")
		for _, run := range []*v1alpha1.Deployment{a, b} {
			run.Spec.Device = v1alpha1.DeviceReference{ID: device.ID}
			Expect(f.Create(ctx, run)).To(Succeed())
		}
		Eventually(func() []string { return []string{f.ready(ctx, a)(), f.ready(ctx, b)()} }).Should(ConsistOf(
			HavePrefix("Unknown Pending"), HavePrefix("False AlreadyClaimed")))
		Expect(f.Sim.Count(postDeployment)).To(Equal(1))

		By("not polling the one that has none")
		owner, loser := a, b
		if strings.HasPrefix(f.ready(ctx, a)(), "False") {
			owner, loser = b, a
		}
		f.Org.MoveDeployment(owner.Status.ID, connectsim.Succeeded, "")
		Eventually(f.ready(ctx, owner)).Should(HavePrefix("True Succeeded"))
		f.Sim.ResetJournal()
		Consistently(func() int { return f.Sim.Count(getDeployment) }).Should(BeZero())

		By("ending the claim with its owner")
		f.remove(ctx, owner)
		Eventually(f.ready(ctx, loser)).Should(HavePrefix("True Succeeded"))
		Expect(loser.Status.Adopted).To(BeTrue())
		Expect(f.posts()).To(BeZero())
	})
})

var _ = Describe("What the operator puts on a resource", func() {
	It("comes back when somebody takes it off, and means what it meant", func(ctx context.Context) {
		f := newFleet(ctx, connectsim.Options{})
		f.start(ctx, "--resync-interval=1h")
		made, adopted := f.artefact("made"), f.artefact("adopted")
		f.Org.AddArtefact("adopted", adopted.Spec.URI, adopted.Spec.Checksum)
		for _, obj := range []*v1alpha1.Artefact{made, adopted} {
			Expect(f.Create(ctx, obj)).To(Succeed())
			Eventually(f.ready(ctx, obj)).Should(HavePrefix("True Available"))
		}
		posts := f.posts()
		for _, obj := range []*v1alpha1.Artefact{made, adopted} {
			before := obj.DeepCopy()
			f.strip(ctx, obj)
			Eventually(func() []string { f.ready(ctx, obj)(); return obj.Finalizers }).Should(ConsistOf(v1alpha1.Finalizer))
			Expect(obj.Annotations).To(Equal(before.Annotations))
			Expect(obj.Status.Adopted).To(Equal(before.Status.Adopted))
		}
		Expect(f.posts()).To(Equal(posts))
		f.remove(ctx, made)
		f.remove(ctx, adopted)
		Expect(f.Org.Artefacts()).To(ConsistOf(HaveField("Name", "adopted")))
	})

	It("comes back on a Deployment that is over, too", func(ctx context.Context) {
		f := newFleet(ctx, connectsim.Options{})
		f.start(ctx, "--deployment-poll-min=200ms", "--deployment-poll-max=1s")
		f.publish(ctx)
		device := f.pi("pi5-001")
		run := f.deployment("pi5-001")
		Expect(f.Create(ctx, run)).To(Succeed())
		Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
		f.Org.MoveDeployment(f.Org.Deployments(device.ID)[0].ID, connectsim.Succeeded, "")
		Eventually(f.ready(ctx, run)).Should(HavePrefix("True Succeeded"))
		f.strip(ctx, run)
		Eventually(func() string { f.ready(ctx, run)(); return run.Annotations[v1alpha1.AnnotationID] }).Should(Equal(run.Status.ID))
		Expect(f.Sim.Count(postDeployment)).To(Equal(1))
	})
})

var _ = Describe("A resource that cannot come to rest", func() {
	It("waits for a device that is listed and answers 404, ever less often", func(ctx context.Context) {
		f := newFleet(ctx, connectsim.Options{})
		f.start(ctx, "--resync-interval=200ms")
		f.publish(ctx)
		f.pi("ghost")
		f.Sim.Inject(connectsim.Fault{Route: "GET /organisation/devices/{id}/deployments", Status: 404, Body: `{"message":"Not found"}`, RateHeaders: new(true)})
		run := f.deployment("ghost")
		Expect(f.Create(ctx, run)).To(Succeed())
		Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown DeviceNotFound"))
		f.Sim.ResetJournal()
		Consistently(func() int { return f.Sim.Count("GET /organisation/devices/{id}/deployments") }).WithTimeout(5 * time.Second).Should(BeNumerically("<=", 5))
		f.Sim.ClearFaults()
		Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
	})

	It("gathers the wishes of many into few listings", func(ctx context.Context) {
		f := newFleet(ctx, connectsim.Options{})
		f.start(ctx, "--resync-interval=1h")
		const many = 150
		for i := range many {
			Expect(f.Create(ctx, f.artefact(fmt.Sprintf("kiosk-%03d", i)))).To(Succeed())
		}
		var list v1alpha1.ArtefactList
		Eventually(f.readyCount(ctx, &list)).Should(Equal(many))
		f.Sim.ResetJournal()
		for i := range list.Items {
			f.annotate(ctx, &list.Items[i], v1alpha1.AnnotationReconcileRequestedAt, "now")
		}
		Eventually(func() int {
			Expect(f.List(ctx, &list, client.InNamespace(f.ns))).To(Succeed())
			handled := 0
			for i := range list.Items {
				if list.Items[i].Status.LastHandledReconcileAt == "now" {
					handled++
				}
			}
			return handled
		}).Should(Equal(many))
		Expect(f.Sim.Count("")).To(BeNumerically("<", many/2), "two requests a listing")
	})
})
