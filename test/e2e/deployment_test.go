// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
)

const (
	postDeployment = "POST /organisation/devices/{id}/deployments"
	getDeployment  = "GET /organisation/deployments/{id}"
	listDevices    = "GET /organisation/devices"

	cancelDeployment = "PUT /organisation/deployments/{id}/cancel"
)

// deployment returns a Deployment of the Artefact "kiosk" to the device of its
// own name.
func (f *fleet) deployment(name string) *v1alpha1.Deployment {
	return &v1alpha1.Deployment{ObjectMeta: f.meta(name), Spec: v1alpha1.DeploymentSpec{
		ArtefactRef: &v1alpha1.ArtefactReference{Name: "kiosk"}, Device: v1alpha1.DeviceReference{Name: name},
	}}
}

// pi signs a device in.
func (f *fleet) pi(name string) connectsim.Device {
	return f.Org.AddDevice(connectsim.Device{Name: name, SerialNumber: "serial-" + name, Tags: []string{"lab"}, Model: "5", Memory: "8gb", OS: "raspios-13"})
}

// publish makes the Artefact "kiosk".
func (f *fleet) publish(ctx context.Context) *v1alpha1.Artefact {
	GinkgoHelper()
	kiosk := f.artefact("kiosk")
	Expect(f.Create(ctx, kiosk)).To(Succeed())
	Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
	return kiosk
}

var _ = Describe("A Deployment", func() {
	var f *fleet
	// Polls are quick here, so that stories of days take seconds.
	quick := []string{"--deployment-poll-min=200ms", "--deployment-poll-max=1s", "--resync-interval=1s"}

	for _, options := range []connectsim.Options{
		{Revision: connectsim.Current},
		{Revision: connectsim.Older, SupersededAsCancelled: true},
	} {
		Describe("on the "+string(options.Revision)+" revision", func() {
			BeforeEach(func(ctx context.Context) {
				f = newFleet(ctx, options)
				f.start(ctx, quick...)
			})

			It("waits for its artefact and its device, runs, and is left alone when it has succeeded", func(ctx context.Context) {
				run := f.deployment("pi5-001")
				Expect(f.Create(ctx, run)).To(Succeed())
				Eventually(f.ready(ctx, run)).Should(HavePrefix(`Unknown ArtefactNotReady: Waiting for the Artefact "kiosk"`))
				f.publish(ctx)
				Eventually(f.ready(ctx, run)).Should(HavePrefix(`Unknown DeviceNotFound: Waiting for a device with the name "pi5-001"`))
				device := f.pi("pi5-001")
				Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
				Expect(run.Status.DeviceID).To(Equal(device.ID))
				Expect(run.Status.State).To(Equal("pending"))

				made := f.Org.Deployments(device.ID)
				Expect(made).To(HaveLen(1))
				f.Org.MoveDeployment(made[0].ID, connectsim.InProgress, "")
				Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown InProgress"))
				f.Org.MoveDeployment(made[0].ID, connectsim.Succeeded, "")
				Eventually(f.ready(ctx, run)).Should(HavePrefix("True Succeeded"))

				looks := f.Sim.Count(getDeployment)
				f.Org.MoveDeployment(made[0].ID, connectsim.Failed, "cannot be")
				Consistently(f.ready(ctx, run)).Should(HavePrefix("True Succeeded"))
				Expect(f.Sim.Count(getDeployment)).To(Equal(looks), "what is over is never asked about again")
				Expect(f.Sim.Count(postDeployment)).To(Equal(1))
			})

			It("says why it failed", func(ctx context.Context) {
				f.publish(ctx)
				device := f.pi("pi5-001")
				run := f.deployment("pi5-001")
				Expect(f.Create(ctx, run)).To(Succeed())
				Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
				f.Org.MoveDeployment(f.Org.Deployments(device.ID)[0].ID, connectsim.InProgress, "")
				Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown InProgress"))
				f.Org.MoveDeployment(f.Org.Deployments(device.ID)[0].ID, connectsim.Failed, "Checksum mismatch")
				Eventually(f.ready(ctx, run)).Should(HavePrefix("False Failed: The deployment failed: Checksum mismatch."))
				Expect(run.Status.StateReason).To(Equal("Checksum mismatch"))
				Eventually(f.events(ctx, run.Name)).Should(ContainElement("StateChanged"))
			})

			It("is superseded by a newer one, whatever Connect calls that", func(ctx context.Context) {
				f.publish(ctx)
				next := f.artefact("kiosk-next")
				Expect(f.Create(ctx, next)).To(Succeed())
				f.pi("pi5-001")
				run := f.deployment("pi5-001")
				Expect(f.Create(ctx, run)).To(Succeed())
				Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
				newer := f.deployment("pi5-001-next")
				newer.Spec.ArtefactRef.Name, newer.Spec.Device.Name = "kiosk-next", "pi5-001"
				Expect(f.Create(ctx, newer)).To(Succeed())
				Eventually(f.ready(ctx, run)).Should(HavePrefix("False Superseded"))
				Eventually(f.ready(ctx, newer)).Should(HavePrefix("Unknown Pending"))
			})

			It("is cancelled when the spec says so, or its deadline is over", func(ctx context.Context) {
				f.publish(ctx)
				f.pi("a")
				f.pi("b")
				cancelled, late := f.deployment("a"), f.deployment("b")
				late.Spec.PendingDeadline = &metav1.Duration{Duration: 2 * time.Second}
				Expect(f.Create(ctx, cancelled)).To(Succeed())
				Expect(f.Create(ctx, late)).To(Succeed())
				Eventually(f.ready(ctx, cancelled)).Should(HavePrefix("Unknown Pending"))
				cancelled.Spec.Cancel = true
				Expect(f.Update(ctx, cancelled)).To(Succeed())
				Eventually(f.ready(ctx, cancelled)).Should(HavePrefix("False Cancelled"))
				Eventually(f.ready(ctx, late)).Should(HavePrefix("False DeadlineExceeded"))
				for _, d := range f.Org.Deployments("") {
					Expect(d.State).To(Equal(connectsim.Cancelled))
				}
			})
		})
	}

	Describe("whatever the revision", func() {
		BeforeEach(func(ctx context.Context) {
			f = newFleet(ctx, connectsim.Options{})
			f.start(ctx, quick...)
		})

		It("finds its device by id, serial number or query, and wants one only", func(ctx context.Context) {
			f.publish(ctx)
			one := f.pi("one")
			f.pi("two")
			references := map[string]v1alpha1.DeviceReference{
				"by-id": {ID: one.ID}, "by-serial": {SerialNumber: "SERIAL-TWO"}, "by-query": {Query: "model:5 tag:lab two"},
			}
			for name, reference := range references {
				run := f.deployment(name)
				run.Spec.Device = reference
				run.Spec.Force = true
				Expect(f.Create(ctx, run)).To(Succeed())
				Eventually(f.ready(ctx, run)).Should(Or(HavePrefix("Unknown Pending"), HavePrefix("False Superseded")))
			}
			both := f.deployment("both")
			both.Spec.Device = v1alpha1.DeviceReference{Query: "model:5"}
			Expect(f.Create(ctx, both)).To(Succeed())
			Eventually(f.ready(ctx, both)).Should(HavePrefix(`False DeviceAmbiguous: 2 devices match the query "model:5"`))
			f.Org.RemoveDevice(one.ID)
			Eventually(f.ready(ctx, both)).Should(Not(HavePrefix("False DeviceAmbiguous")))
		})

		It("waits for a device that is not there, by whatever it is known", func(ctx context.Context) {
			f.publish(ctx)
			gone := f.pi("gone")
			f.Org.RemoveDevice(gone.ID)
			byID, byName := f.deployment("by-id"), f.deployment("by-name")
			byID.Spec.Device = v1alpha1.DeviceReference{ID: gone.ID}
			for _, run := range []*v1alpha1.Deployment{byID, byName} {
				Expect(f.Create(ctx, run)).To(Succeed())
				Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown DeviceNotFound"))
			}
			f.Org.RestoreDevice(gone)
			f.pi("by-name")
			for _, run := range []*v1alpha1.Deployment{byID, byName} {
				Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
			}
			Expect(byID.Status.DeviceName).To(Equal("gone"))
			Expect(f.Sim.Count(postDeployment)).To(Equal(2))
		})

		It("adopts what is there already instead of updating the device again, unless forced", func(ctx context.Context) {
			kiosk := f.publish(ctx)
			device := f.pi("pi5-001")
			there := f.Org.AddDeployment(device.ID, kiosk.Status.ID)
			f.Org.MoveDeployment(there.ID, connectsim.Succeeded, "")
			run := f.deployment("pi5-001")
			Expect(f.Create(ctx, run)).To(Succeed())
			Eventually(f.ready(ctx, run)).Should(HavePrefix("True Succeeded"))
			Expect(run.Status.ID).To(Equal(there.ID))
			Expect(run.Status.Adopted).To(BeTrue())
			Expect(f.Sim.Count(postDeployment)).To(BeZero())

			forced := f.deployment("reflashed")
			forced.Spec.Device.Name, forced.Spec.Force = "pi5-001", true
			Expect(f.Create(ctx, forced)).To(Succeed())
			Eventually(f.ready(ctx, forced)).Should(HavePrefix("Unknown Pending"))
			Expect(f.Sim.Count(postDeployment)).To(Equal(1))
		})

		It("does not deploy again after a restore, nor in a new cluster", func(ctx context.Context) {
			f.publish(ctx)
			f.pi("pi5-001")
			run := f.deployment("pi5-001")
			Expect(f.Create(ctx, run)).To(Succeed())
			Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
			for _, annotations := range []map[string]string{run.Annotations, nil} {
				f.kill()
				Expect(f.Patch(ctx, run, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`)))).To(Succeed())
				Expect(f.Delete(ctx, run)).To(Succeed())
				run = f.deployment("pi5-001")
				run.Annotations = annotations
				Expect(f.Create(ctx, run)).To(Succeed())
				f.start(ctx)
				Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
			}
			Expect(f.Sim.Count(postDeployment)).To(Equal(1))
		})

		It("is cancelled with its resource while it is pending, and left when it is over", func(ctx context.Context) {
			f.publish(ctx)
			f.pi("a")
			b := f.pi("b")
			pending, over := f.deployment("a"), f.deployment("b")
			Expect(f.Create(ctx, pending)).To(Succeed())
			Expect(f.Create(ctx, over)).To(Succeed())
			Eventually(f.ready(ctx, pending)).Should(HavePrefix("Unknown Pending"))
			Eventually(f.ready(ctx, over)).Should(HavePrefix("Unknown Pending"))
			f.Org.MoveDeployment(f.Org.Deployments(b.ID)[0].ID, connectsim.Succeeded, "")
			Eventually(f.ready(ctx, over)).Should(HavePrefix("True Succeeded"))
			for _, run := range []*v1alpha1.Deployment{pending, over} {
				Expect(f.Delete(ctx, run)).To(Succeed())
				Eventually(f.gone(ctx, run)).Should(BeTrue())
			}
			Expect(f.Sim.Count(cancelDeployment)).To(Equal(1))
		})

		It("waits for billing", func(ctx context.Context) {
			f.publish(ctx)
			f.pi("pi5-001")
			f.Sim.SetBilling(false)
			run := f.deployment("pi5-001")
			Expect(f.Create(ctx, run)).To(Succeed())
			Eventually(f.ready(ctx, run)).Should(HavePrefix("False BillingRequired"))
			f.Sim.SetBilling(true)
			f.annotate(ctx, run, v1alpha1.AnnotationReconcileRequestedAt, "billing is set up")
			Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
		})

		It("shares its lookups of devices", func(ctx context.Context) {
			f.publish(ctx)
			for i := range 30 {
				f.pi(fmt.Sprintf("pi5-%03d", i))
			}
			f.stop()
			f.start(ctx, "--resync-interval=1h")
			f.Sim.ResetJournal()
			for i := range 30 {
				Expect(f.Create(ctx, f.deployment(fmt.Sprintf("pi5-%03d", i)))).To(Succeed())
			}
			Eventually(func() int { return f.Sim.Count(postDeployment) }).Should(Equal(30))
			Expect(f.Sim.Count(listDevices)).To(BeNumerically("<", 10), "not one each")
		})
	})

	It("is made exactly once through kill -9 and lost responses", func(ctx context.Context) {
		f = newFleet(ctx, connectsim.Options{Latency: 20 * time.Millisecond})
		f.Sim.Inject(connectsim.Fault{Route: postDeployment, Skip: 2, Times: 5, After: true, Drop: true})
		f.Sim.Inject(connectsim.Fault{Route: postDeployment, Skip: 20, Times: 5, After: true, Status: 502, Body: "<html>502</html>"})
		const devices = 60
		for i := range devices {
			f.pi(fmt.Sprintf("pi5-%03d", i))
			Expect(f.Create(ctx, f.deployment(fmt.Sprintf("pi5-%03d", i)))).To(Succeed())
		}
		Expect(f.Create(ctx, f.artefact("kiosk"))).To(Succeed())
		for kills := range 8 {
			f.start(ctx, "--max-concurrent-reconciles=4", "--post-settle-time=3s")
			Eventually(func() int { return len(f.Org.Deployments("")) }).WithPolling(time.Millisecond).Should(BeNumerically(">=", 6*(kills+1)))
			f.kill()
		}
		f.start(ctx)
		var list v1alpha1.DeploymentList
		Eventually(func() int {
			Expect(f.List(ctx, &list, client.InNamespace(f.ns))).To(Succeed())
			pending := 0
			for i := range list.Items {
				if list.Items[i].Status.State == connectsim.Pending {
					pending++
				}
			}
			return pending
		}).WithTimeout(time.Minute).Should(Equal(devices))
		Expect(f.Org.Deployments("")).To(HaveLen(devices), "exactly one for each device")
	})
})

var _ = Describe("A Deployment in progress that is to be cancelled", func() {
	for name, cancels := range map[string]bool{"is, where Connect does that": true, "goes on, where Connect does not": false} {
		It(name, func(ctx context.Context) {
			f := newFleet(ctx, connectsim.Options{CancelsInProgress: cancels})
			f.start(ctx, "--deployment-poll-min=100ms", "--deployment-poll-max=500ms")
			f.publish(ctx)
			device := f.pi("pi5-001")
			run := f.deployment("pi5-001")
			Expect(f.Create(ctx, run)).To(Succeed())
			Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
			f.Org.MoveDeployment(f.Org.Deployments(device.ID)[0].ID, connectsim.InProgress, "")
			Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown InProgress"))
			run.Spec.Cancel = true
			Expect(f.Update(ctx, run)).To(Succeed())
			if cancels {
				Eventually(f.ready(ctx, run)).Should(HavePrefix("False Cancelled"))
				return
			}
			Eventually(func() string {
				f.ready(ctx, run)()
				if synced := meta.FindStatusCondition(run.Status.Conditions, v1alpha1.ConditionSynced); synced != nil {
					return synced.Message
				}
				return ""
			}).Should(ContainSubstring("cannot cancel the deployment any more"))
			Expect(f.ready(ctx, run)()).To(HavePrefix("Unknown InProgress"))
			Consistently(func() int { return f.Sim.Count(cancelDeployment) }).Should(Equal(1), "it is asked once")
			f.Org.MoveDeployment(f.Org.Deployments(device.ID)[0].ID, connectsim.Succeeded, "")
			Eventually(f.ready(ctx, run)).Should(HavePrefix("True Succeeded"))
			Expect(meta.FindStatusCondition(run.Status.Conditions, v1alpha1.ConditionSynced)).To(BeNil())
		})
	}
})

var _ = Describe("A fleet that is larger than its budget", func() {
	It("causes no 429, and keeps nobody waiting who creates or cancels", func(ctx context.Context) {
		const running = 100
		f := newFleet(ctx, connectsim.Options{RateLimit: 300, Window: 6 * time.Second})
		for i := range running {
			f.pi(fmt.Sprintf("pi5-%03d", i))
		}
		f.start(ctx, "--deployment-poll-min=100ms", "--deployment-poll-max=100ms", "--resync-interval=1s")
		f.publish(ctx)
		for i := range running {
			Expect(f.Create(ctx, f.deployment(fmt.Sprintf("pi5-%03d", i)))).To(Succeed())
		}
		Eventually(func() int { return f.Sim.Count(postDeployment) }).Should(Equal(running))

		for round := range 5 {
			looks := f.Sim.Count(getDeployment)
			next := f.artefact(fmt.Sprintf("kiosk-%d", round))
			Expect(f.Create(ctx, next)).To(Succeed())
			Eventually(f.ready(ctx, next)).Should(HavePrefix("True Available"))
			run := f.deployment(fmt.Sprintf("pi5-%03d", round))
			Expect(f.Patch(ctx, run, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"cancel":true}}`)))).To(Succeed())
			Eventually(f.ready(ctx, run)).Should(HavePrefix("False Cancelled"))
			Eventually(func() int { return f.Sim.Count(getDeployment) }).Should(BeNumerically(">=", looks+running), "all are looked at all the same")
		}
		for _, request := range f.Sim.Journal() {
			Expect(request.Status).NotTo(Equal(http.StatusTooManyRequests))
		}
	})
})
