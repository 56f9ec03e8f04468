// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
)

var _ = Describe("A history of deployments", func() {
	var f *fleet
	BeforeEach(func(ctx context.Context) {
		f = newFleet(ctx, connectsim.Options{})
		f.start(ctx, "--resync-interval=1s", "--deployment-poll-min=200ms", "--deployment-poll-max=1s", "--post-settle-time=3s")
	})

	// version publishes an artefact.
	version := func(ctx context.Context, name string) *v1alpha1.Artefact {
		GinkgoHelper()
		a := f.artefact(name)
		Expect(f.Create(ctx, a)).To(Succeed())
		Eventually(f.ready(ctx, a)).Should(HavePrefix("True Available"))
		return a
	}
	// runs returns a Deployment of the version.
	runs := func(name, version string) *v1alpha1.Deployment {
		run := f.deployment(name)
		run.Spec.ArtefactRef.Name, run.Spec.Device.Name = version, "pi5-001"
		return run
	}

	It("that is applied to a new cluster updates nothing", func(ctx context.Context) {
		v1, v2 := version(ctx, "v1"), version(ctx, "v2")
		device := f.pi("pi5-001")
		for _, a := range []*v1alpha1.Artefact{v1, v2} {
			f.Org.MoveDeployment(f.Org.AddDeployment(device.ID, a.Status.ID).ID, connectsim.Succeeded, "")
		}
		first, second := runs("kiosk-v1", "v1"), runs("kiosk-v2", "v2")
		for _, run := range []*v1alpha1.Deployment{first, second} {
			Expect(f.Create(ctx, run)).To(Succeed())
		}
		for _, run := range []*v1alpha1.Deployment{first, second} {
			Eventually(f.ready(ctx, run)).Should(And(HavePrefix("True Succeeded"), ContainSubstring("nothing was deployed"), ContainSubstring("spec.force")))
			Expect(run.Status.Adopted).To(BeTrue())
		}
		Expect(f.Sim.Count(postDeployment)).To(BeZero())
	})

	It("goes back when somebody wants an older version again", func(ctx context.Context) {
		version(ctx, "v1")
		version(ctx, "v2")
		device := f.pi("pi5-001")
		for _, v := range []string{"v1", "v2"} {
			run := runs("kiosk-"+v, v)
			Expect(f.Create(ctx, run)).To(Succeed())
			Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
			f.Org.MoveDeployment(run.Status.ID, connectsim.Succeeded, "")
			Eventually(f.ready(ctx, run)).Should(HavePrefix("True Succeeded"))
		}
		f.remove(ctx, runs("kiosk-v1", "v1"))
		back := runs("back-to-v1", "v1")
		Expect(f.Create(ctx, back)).To(Succeed())
		Eventually(f.ready(ctx, back)).Should(HavePrefix("Unknown Pending"))
		Expect(f.Org.Deployments(device.ID)).To(HaveLen(3))
	})

	It("does not follow a name that has moved to another device", func(ctx context.Context) {
		version(ctx, "kiosk")
		before, now := f.pi("lobby"), f.pi("spare")
		f.stop()
		f.start(ctx, "--resync-interval=1h")
		// A first Deployment has the devices listed.
		first := f.deployment("first")
		first.Spec.Device.Name = "spare"
		Expect(f.Create(ctx, first)).To(Succeed())
		Eventually(f.ready(ctx, first)).Should(HavePrefix("Unknown Pending"))

		f.Org.ChangeDevice(before.ID, func(d *connectsim.Device) { d.Name = "cellar" })
		f.Org.ChangeDevice(now.ID, func(d *connectsim.Device) { d.Name = "lobby" })
		run := f.deployment("lobby")
		run.Spec.Force = true
		Expect(f.Create(ctx, run)).To(Succeed())
		Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
		Expect(run.Status.DeviceID).To(Equal(now.ID))
		Expect(f.Org.Deployments(before.ID)).To(BeEmpty())

		By("moving on while a Deployment waits for its Artefact")
		waits := runs("lobby-next", "kiosk-next")
		waits.Spec.Device.Name = "lobby"
		Expect(f.Create(ctx, waits)).To(Succeed())
		Eventually(f.ready(ctx, waits)).Should(HavePrefix("Unknown ArtefactNotReady"))
		second := f.deployment("second") // has the devices listed once more
		second.Spec.Device.Name, second.Spec.Force = "cellar", true
		Expect(f.Create(ctx, second)).To(Succeed())
		Eventually(f.ready(ctx, second)).Should(HavePrefix("Unknown Pending"))
		f.Org.ChangeDevice(now.ID, func(d *connectsim.Device) { d.Name = "attic" })
		f.Org.ChangeDevice(before.ID, func(d *connectsim.Device) { d.Name = "lobby" })
		version(ctx, "kiosk-next")
		Eventually(f.ready(ctx, waits)).Should(HavePrefix("Unknown Pending"))
		Expect(waits.Status.DeviceID).To(Equal(before.ID))
		Expect(f.Org.Deployments(now.ID)).To(HaveLen(2))
	})

	It("goes on after a request whose answer was lost", func(ctx context.Context) {
		version(ctx, "v1")
		version(ctx, "v2")
		device := f.pi("pi5-001")
		f.Sim.Inject(connectsim.Fault{Route: postDeployment, Times: 1, After: true, Drop: true})
		for _, v := range []string{"v1", "v2"} {
			run := runs("kiosk-"+v, v)
			Expect(f.Create(ctx, run)).To(Succeed())
			Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
			Expect(run.Status.Adopted).To(BeFalse())
		}
		Expect(f.Org.Deployments(device.ID)).To(HaveLen(2))
	})

	It("finds what a lost request has made with another access token of the organisation", func(ctx context.Context) {
		version(ctx, "kiosk")
		device := f.pi("pi5-001")
		lost := f.Sim.Inject(connectsim.Fault{Route: postDeployment, Times: 1, Late: time.Second, Drop: true})
		run := f.deployment("pi5-001")
		Expect(f.Create(ctx, run)).To(Succeed())
		Eventually(lost.Hits).Should(Equal(1))
		f.kill()
		rotated := connectsim.NewSecret("rporg_")
		f.Org.AddToken(rotated)
		f.Sim.RevokeToken(f.Token)
		f.putToken(ctx, rotated)
		f.start(ctx)
		Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
		Expect(run.Status.Adopted).To(BeFalse())
		Expect(f.Org.Deployments(device.ID)).To(HaveLen(1))
		f.remove(ctx, run)
		Expect(f.Org.Deployments(device.ID)).To(ConsistOf(HaveField("State", connectsim.Cancelled)))
	})

	It("does not report of another device after a restore", func(ctx context.Context) {
		version(ctx, "kiosk")
		f.pi("pi5-001")
		f.pi("pi5-002")
		run := f.deployment("pi5-001")
		Expect(f.Create(ctx, run)).To(Succeed())
		Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
		id, annotations := run.Status.ID, run.Annotations
		f.stop()
		f.strip(ctx, run)
		f.remove(ctx, run)
		f.Org.MoveDeployment(id, connectsim.Succeeded, "")

		By("restoring the manifest, which is for another device by now")
		run = f.deployment("pi5-001")
		run.Annotations, run.Spec.Device.Name = annotations, "pi5-002"
		Expect(f.Create(ctx, run)).To(Succeed())
		f.start(ctx)
		Eventually(f.ready(ctx, run)).Should(And(HavePrefix("False Conflict"), ContainSubstring(id)))

		By("restoring it as it was")
		f.stop()
		f.strip(ctx, run)
		f.remove(ctx, run)
		run = f.deployment("pi5-001")
		run.Annotations = annotations
		Expect(f.Create(ctx, run)).To(Succeed())
		f.start(ctx)
		Eventually(f.ready(ctx, run)).Should(HavePrefix("True Succeeded"))
		Expect(run.Status.Adopted).To(BeFalse())
		Expect(f.Sim.Count(postDeployment)).To(Equal(1))
	})

	It("is not let go while a device could still pick it up", func(ctx context.Context) {
		version(ctx, "kiosk")
		device := f.pi("pi5-001")
		run := f.deployment("pi5-001")
		Expect(f.Create(ctx, run)).To(Succeed())
		Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
		refused := f.Sim.Inject(connectsim.Fault{Route: cancelDeployment, Times: 2, Status: 422, Body: `{"message":"The organisation is locked"}`, RateHeaders: new(true)})
		f.remove(ctx, run)
		Expect(refused.Hits()).To(Equal(2))
		Expect(f.Org.Deployments(device.ID)).To(ConsistOf(HaveField("State", connectsim.Cancelled)))
	})

	It("is not cut off by a deadline that was over before the resource existed", func(ctx context.Context) {
		kiosk := version(ctx, "kiosk")
		device := f.pi("pi5-001")
		queued := f.Org.AddDeployment(device.ID, kiosk.Status.ID)
		Expect(queued.CreatedAt).To(BeTemporally("~", time.Now(), time.Minute))
		Eventually(func() time.Duration { return time.Since(queued.CreatedAt) }).WithPolling(100 * time.Millisecond).Should(BeNumerically(">", 3*time.Second))
		run := f.deployment("pi5-001")
		run.Spec.PendingDeadline = &metav1.Duration{Duration: 3 * time.Second}
		Expect(f.Create(ctx, run)).To(Succeed())
		Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
		Expect(run.Status.ID).To(Equal(queued.ID))
		Eventually(f.ready(ctx, run)).Should(HavePrefix("False DeadlineExceeded"))
	})

	It("waits for an Artefact that is being deleted to be made anew", func(ctx context.Context) {
		kiosk := version(ctx, "kiosk")
		f.pi("pi5-001")
		f.Sim.Inject(connectsim.Fault{Route: "DELETE /organisation/artefacts/{id}", Status: 422, Body: `{"message":"The organisation is locked"}`, RateHeaders: new(true)})
		Expect(f.Delete(ctx, kiosk)).To(Succeed())
		Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("False DeletionRefused"))
		run := runs("kiosk", "kiosk")
		Expect(f.Create(ctx, run)).To(Succeed())
		Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown ArtefactNotReady"))
		Consistently(func() int { return f.Sim.Count(postDeployment) }).Should(BeZero())
	})

	It("fits the devices that the Artefact is made for, unless forced", func(ctx context.Context) {
		kiosk := f.artefact("kiosk")
		kiosk.Spec.CompatibleWith = &v1alpha1.Compatibility{Models: []string{"cm5"}}
		Expect(f.Create(ctx, kiosk)).To(Succeed())
		device := f.pi("pi5-001")
		byName, byID, forced := runs("by-name", "kiosk"), runs("by-id", "kiosk"), runs("forced", "kiosk")
		byID.Spec.Device = v1alpha1.DeviceReference{ID: device.ID}
		forced.Spec.Force = true
		for _, run := range []*v1alpha1.Deployment{byName, byID} {
			Expect(f.Create(ctx, run)).To(Succeed())
			Eventually(f.ready(ctx, run)).Should(And(HavePrefix("False Incompatible"), ContainSubstring(`model is "5"`)))
		}
		Expect(f.Sim.Count(postDeployment)).To(BeZero())
		Expect(f.Create(ctx, forced)).To(Succeed())
		Eventually(f.ready(ctx, forced)).Should(HavePrefix("Unknown Pending"))
	})

	It("ends when a device began and never reports back", func(ctx context.Context) {
		version(ctx, "kiosk")
		f.pi("pi5-001")
		run := f.deployment("pi5-001")
		run.Spec.InProgressDeadline = &metav1.Duration{Duration: 2 * time.Second}
		Expect(f.Create(ctx, run)).To(Succeed())
		Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
		f.Org.MoveDeployment(run.Status.ID, connectsim.InProgress, "")
		Eventually(f.ready(ctx, run)).Should(And(HavePrefix("False DeadlineExceeded"), ContainSubstring("cannot cancel")))
		Expect(f.Sim.Count(cancelDeployment)).To(BeZero())
	})
})
