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
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
)

const (
	patchDevice  = "PATCH /organisation/devices/{id}"
	deleteDevice = "DELETE /organisation/devices/{id}"
)

// board returns a Device of the board with the serial number.
func (f *fleet) board(name, serial string) *v1alpha1.Device {
	return &v1alpha1.Device{ObjectMeta: f.meta(name), Spec: v1alpha1.DeviceSpec{
		Device: v1alpha1.SingleDeviceReference{SerialNumber: serial},
	}}
}

// changed counts the requests that changed a device.
func (f *fleet) changed() int { return f.Sim.Count(patchDevice) }

// deviceOf is the device with an id, as it is in the organisation.
func (f *fleet) deviceOf(id string) func() connectsim.Device {
	return func() connectsim.Device {
		for _, d := range f.Org.Devices() {
			if d.ID == id {
				return d
			}
		}
		return connectsim.Device{}
	}
}

// notes gives what the events about a resource say.
func (f *fleet) notes(ctx context.Context, name string) func() []string {
	return func() []string {
		var list eventsv1.EventList
		Expect(f.List(ctx, &list, client.InNamespace(f.ns))).To(Succeed())
		var notes []string
		for _, e := range list.Items {
			if e.Regarding.Name == name {
				notes = append(notes, e.Reason+": "+e.Note)
			}
		}
		return notes
	}
}

var _ = Describe("A Device", func() {
	var f *fleet
	quick := []string{"--resync-interval=1s", "--deployment-poll-min=200ms", "--deployment-poll-max=1s"}

	for _, revision := range []connectsim.Revision{connectsim.Current, connectsim.Older} {
		current := revision == connectsim.Current
		Describe("on the "+string(revision)+" revision", func() {
			BeforeEach(func(ctx context.Context) {
				f = newFleet(ctx, connectsim.Options{Revision: revision})
				f.start(ctx, quick...)
			})

			It("is waited for, taken over and kept as the spec says", func(ctx context.Context) {
				kiosk := f.board("kiosk-lobby", "10000000C0FFEE01")
				kiosk.Spec.Name, kiosk.Spec.Tags = "kiosk-lobby", []string{"production", "kiosk"}
				Expect(f.Create(ctx, kiosk)).To(Succeed())
				Eventually(f.ready(ctx, kiosk)).Should(Equal(`Unknown DeviceNotFound: Waiting for a device with the serial number "10000000C0FFEE01" to sign in.`))

				there := f.Org.AddDevice(connectsim.Device{Name: "raspberrypi", SerialNumber: "10000000c0ffee01", Tags: []string{"old"}, Model: "5", Memory: "8gb", OS: "raspios-13"})
				Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
				Expect(kiosk.Status.ID).To(Equal(there.ID))
				Expect(kiosk.Status.SerialNumber).To(Equal("10000000c0ffee01"))
				Expect(kiosk.Status.Board).To(Equal(&v1alpha1.DeviceBoard{Model: "Raspberry Pi 5", Revision: "1.0", Memory: "8 GB"}))
				Expect(kiosk.Status.OS).To(Equal(&v1alpha1.DeviceOS{Name: "Raspberry Pi OS", Version: "13 (Trixie)"}))
				Expect(kiosk.Status.KernelArchitecture).To(Equal("aarch64"))
				if !current {
					By("saying that this revision cannot change it")
					Eventually(func() string {
						f.ready(ctx, kiosk)()
						synced := meta.FindStatusCondition(kiosk.Status.Conditions, v1alpha1.ConditionSynced)
						if synced == nil {
							return ""
						}
						return string(synced.Status) + " " + synced.Reason
					}).Should(Equal("False NotSupported"))
					Expect(kiosk.Status.Name).To(Equal("raspberrypi"))
					Expect(f.changed()).To(BeNumerically("<=", 1))

					By("being content when somebody else has done it")
					f.Org.ChangeDevice(there.ID, func(d *connectsim.Device) { d.Name, d.Tags = "kiosk-lobby", []string{"kiosk", "production"} })
					Eventually(func() []any {
						f.ready(ctx, kiosk)()
						return []any{kiosk.Status.Name, meta.FindStatusCondition(kiosk.Status.Conditions, v1alpha1.ConditionSynced) == nil}
					}).Should(Equal([]any{"kiosk-lobby", true}))
					return
				}
				Eventually(f.deviceOf(there.ID)).Should(And(HaveField("Name", "kiosk-lobby"), HaveField("Tags", ConsistOf("kiosk", "production"))))
				Eventually(func() []string { f.ready(ctx, kiosk)(); return kiosk.Status.Tags }).Should(Equal([]string{"kiosk", "production"}))
				Expect(f.changed()).To(Equal(1))
				Eventually(f.notes(ctx, "kiosk-lobby")).Should(ContainElement(
					`Updated: Renamed the device from "raspberrypi" to "kiosk-lobby" and changed its tags from [old] to [kiosk, production].`))

				By("putting back what somebody changes, with one request")
				f.Org.ChangeDevice(there.ID, func(d *connectsim.Device) { d.Name = "toaster" })
				Eventually(f.deviceOf(there.ID)).Should(HaveField("Name", "kiosk-lobby"))
				Expect(f.changed()).To(Equal(2))

				By("showing what changes by itself, and changing nothing")
				f.Org.ChangeDevice(there.ID, func(d *connectsim.Device) { d.OS = "raspios-14" })
				Eventually(func() *v1alpha1.DeviceOS { f.ready(ctx, kiosk)(); return kiosk.Status.OS }).Should(HaveField("Version", "14 (Forky)"))
				Consistently(f.changed).Should(Equal(2))
			})

			It("is followed when its board comes back as another device", func(ctx context.Context) {
				there := f.pi("kiosk-lobby")
				kiosk := f.board("kiosk-lobby", there.SerialNumber)
				Expect(f.Create(ctx, kiosk)).To(Succeed())
				Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))

				f.Org.RemoveDevice(there.ID)
				Eventually(f.ready(ctx, kiosk)).Should(Equal(fmt.Sprintf(
					`Unknown DeviceNotFound: The device %s is no longer in the organisation: waiting for its board, with the serial number "serial-kiosk-lobby", to sign in again.`, there.ID)))
				anew := f.pi("raspberrypi")
				f.Org.ChangeDevice(anew.ID, func(d *connectsim.Device) { d.SerialNumber = there.SerialNumber })
				Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
				Expect(kiosk.Status.ID).To(Equal(anew.ID))
				Expect(kiosk.Annotations).To(HaveKeyWithValue(v1alpha1.AnnotationID, anew.ID))
				Eventually(f.notes(ctx, "kiosk-lobby")).Should(ContainElement(And(
					HavePrefix("Adopted: "), ContainSubstring("It takes the place of the device "+there.ID))))

				By("and at once, when it was gone for no longer than a listing takes")
				again, _ := f.Org.ReplaceDevice(anew.ID)
				Eventually(func() string { f.ready(ctx, kiosk)(); return kiosk.Status.ID }).Should(Equal(again.ID))
				Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
			})

			It("has one owner, whatever it is called by", func(ctx context.Context) {
				there := f.pi("kiosk-lobby")
				first := f.board("first", there.SerialNumber)
				Expect(f.Create(ctx, first)).To(Succeed())
				Eventually(f.ready(ctx, first)).Should(HavePrefix("True Available"))
				for name, wanted := range map[string]v1alpha1.SingleDeviceReference{
					"by-id": {ID: there.ID}, "by-name": {Name: "kiosk-lobby"}, "by-serial": {SerialNumber: there.SerialNumber},
				} {
					second := f.board(name, "")
					second.Spec.Device, second.Spec.Name, second.Spec.DeletionPolicy = wanted, "stolen", v1alpha1.DeletionPolicyDelete
					Expect(f.Create(ctx, second)).To(Succeed())
					Eventually(f.ready(ctx, second)).Should(And(HavePrefix("False AlreadyClaimed"), ContainSubstring(f.ns+"/first")))
					f.remove(ctx, second)
				}
				Expect(f.deviceOf(there.ID)()).To(HaveField("Name", "kiosk-lobby"))

				By("leaving a Deployment to it alone")
				f.publish(ctx)
				run := f.deployment("kiosk-lobby")
				Expect(f.Create(ctx, run)).To(Succeed())
				Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
				Expect(f.ready(ctx, first)()).To(HavePrefix("True Available"))

				By("passing on when its owner goes")
				second := f.board("second", there.SerialNumber)
				Expect(f.Create(ctx, second)).To(Succeed())
				Eventually(f.ready(ctx, second)).Should(HavePrefix("False AlreadyClaimed"))
				f.remove(ctx, first)
				Eventually(f.ready(ctx, second)).Should(HavePrefix("True Available"))
			})

			It("stays when the resource goes, unless that is to remove it", func(ctx context.Context) {
				stays, goes := f.pi("stays"), f.pi("goes")
				kept, removed := f.board("kept", stays.SerialNumber), f.board("removed", goes.SerialNumber)
				removed.Spec.DeletionPolicy = v1alpha1.DeletionPolicyDelete
				for _, obj := range []*v1alpha1.Device{kept, removed} {
					Expect(f.Create(ctx, obj)).To(Succeed())
					Eventually(f.ready(ctx, obj)).Should(HavePrefix("True Available"))
					f.remove(ctx, obj)
				}
				Expect(f.Org.Devices()).To(ConsistOf(HaveField("ID", stays.ID)))
				Eventually(f.notes(ctx, "removed")).Should(ContainElement("Deleted: Removed the device " + goes.ID + " from the organisation, which has signed it out."))

				By("going without a request when it is gone already")
				gone := f.pi("gone")
				last := f.board("last", gone.SerialNumber)
				last.Spec.DeletionPolicy = v1alpha1.DeletionPolicyDelete
				Expect(f.Create(ctx, last)).To(Succeed())
				Eventually(f.ready(ctx, last)).Should(HavePrefix("True Available"))
				f.Org.RemoveDevice(gone.ID)
				f.remove(ctx, last)
				Expect(f.Org.Devices()).To(HaveLen(1))
			})
		})
	}

	It("keeps what the spec leaves out, and loses its tags to an empty list", func(ctx context.Context) {
		f = newFleet(ctx, connectsim.Options{})
		f.start(ctx, quick...)
		there := f.pi("kiosk-lobby")
		kiosk := f.board("kiosk-lobby", there.SerialNumber)
		Expect(f.Create(ctx, kiosk)).To(Succeed())
		Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
		f.Org.ChangeDevice(there.ID, func(d *connectsim.Device) { d.Name, d.Tags = "toaster", []string{"home"} })
		Eventually(func() string { f.ready(ctx, kiosk)(); return kiosk.Status.Name }).Should(Equal("toaster"))
		Expect(f.changed()).To(BeZero())

		kiosk.Spec.Tags = []string{}
		Expect(f.Update(ctx, kiosk)).To(Succeed())
		Eventually(f.deviceOf(there.ID)).Should(And(HaveField("Tags", BeEmpty()), HaveField("Name", "toaster")))
		Expect(f.changed()).To(Equal(1))
	})

	It("is kept when another one gets its name, and taken by nobody while two have it", func(ctx context.Context) {
		f = newFleet(ctx, connectsim.Options{})
		f.start(ctx, quick...)
		first, second := f.pi("raspberrypi"), f.pi("raspberrypi")
		kiosk := f.board("kiosk", "")
		kiosk.Spec.Device = v1alpha1.SingleDeviceReference{Name: "raspberrypi"}
		kiosk.Spec.DeletionPolicy = v1alpha1.DeletionPolicyDelete
		Expect(f.Create(ctx, kiosk)).To(Succeed())
		Eventually(f.ready(ctx, kiosk)).Should(And(HavePrefix("False DeviceAmbiguous"), ContainSubstring(`2 devices have the name "raspberrypi"`)))

		f.Org.ChangeDevice(first.ID, func(d *connectsim.Device) { d.Name, d.SerialNumber = "lobby", "1" })
		f.Org.ChangeDevice(second.ID, func(d *connectsim.Device) { d.SerialNumber = "2" })
		Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
		Expect(kiosk.Status.ID).To(Equal(second.ID))

		By("keeping its device when the name moves")
		f.Org.ChangeDevice(second.ID, func(d *connectsim.Device) { d.Name = "cafe" })
		f.Org.ChangeDevice(first.ID, func(d *connectsim.Device) { d.Name = "raspberrypi" })
		Eventually(func() string { f.ready(ctx, kiosk)(); return kiosk.Status.Name }).Should(Equal("cafe"))
		Expect(kiosk.Status.ID).To(Equal(second.ID))

		By("waiting for its board when the device is gone, and not taking who has the name now")
		f.Org.RemoveDevice(second.ID)
		Eventually(f.ready(ctx, kiosk)).Should(And(HavePrefix("Unknown DeviceNotFound"), ContainSubstring(`the serial number "2"`)))
		Consistently(f.ready(ctx, kiosk)).Should(HavePrefix("Unknown DeviceNotFound"))
		f.remove(ctx, kiosk)
		Expect(f.Org.Devices()).To(ConsistOf(HaveField("ID", first.ID)))
	})

	It("gives a Deployment the name that it waits for", func(ctx context.Context) {
		f = newFleet(ctx, connectsim.Options{})
		f.start(ctx, "--resync-interval=1h")
		there := f.Org.AddDevice(connectsim.Device{Name: "raspberrypi", SerialNumber: "1"})
		f.publish(ctx)
		run := f.deployment("kiosk-lobby")
		Expect(f.Create(ctx, run)).To(Succeed())
		Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown DeviceNotFound"))
		kiosk := f.board("kiosk-lobby", "1")
		kiosk.Spec.Name = "kiosk-lobby"
		Expect(f.Create(ctx, kiosk)).To(Succeed())
		Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
		Expect(run.Status.DeviceID).To(Equal(there.ID))
	})

	It("says what Connect refuses, and goes on when the name is free", func(ctx context.Context) {
		f = newFleet(ctx, connectsim.Options{})
		f.start(ctx, quick...)
		there, other := f.pi("raspberrypi"), f.pi("kiosk-lobby")
		taken := f.Sim.Inject(connectsim.Fault{Route: patchDevice, Status: http.StatusUnprocessableEntity, RateHeaders: new(true),
			Body: `{"message":"Validation failed: Name has already been taken"}`})
		kiosk := f.board("kiosk-lobby", there.SerialNumber)
		kiosk.Spec.Name = "kiosk-lobby"
		Expect(f.Create(ctx, kiosk)).To(Succeed())
		Eventually(f.ready(ctx, kiosk)).Should(Equal("False Invalid: Connect refuses the spec: Validation failed: Name has already been taken."))
		Expect(kiosk.Status.ID).To(Equal(there.ID))
		Expect(kiosk.Status.Name).To(Equal("raspberrypi"))
		Consistently(f.changed).Should(Equal(1), "it is not asked for again and again")

		taken.Clear()
		f.Org.ChangeDevice(other.ID, func(d *connectsim.Device) { d.Name = "old" })
		Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
		Expect(f.deviceOf(there.ID)()).To(HaveField("Name", "kiosk-lobby"))
	})

	It("is known as soon as it is found, although it cannot be changed yet", func(ctx context.Context) {
		f = newFleet(ctx, connectsim.Options{})
		f.start(ctx, quick...)
		there := f.pi("raspberrypi")
		outage := f.Sim.Inject(connectsim.Fault{Route: patchDevice, Status: http.StatusServiceUnavailable})
		kiosk := f.board("kiosk", "")
		kiosk.Spec.Device, kiosk.Spec.Tags = v1alpha1.SingleDeviceReference{Name: "raspberrypi"}, []string{"kiosk"}
		Expect(f.Create(ctx, kiosk)).To(Succeed())
		Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("Unknown ConnectUnavailable"))
		Expect(kiosk.Status.ID).To(Equal(there.ID))
		Expect(kiosk.Status.Board).NotTo(BeNil())

		By("whatever it is called in the meantime")
		f.Org.ChangeDevice(there.ID, func(d *connectsim.Device) { d.Name = "lobby" })
		Eventually(func() string { f.ready(ctx, kiosk)(); return kiosk.Status.Name }).Should(Equal("lobby"))
		outage.Clear()
		Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
		Expect(f.deviceOf(there.ID)()).To(HaveField("Tags", ConsistOf("kiosk")))
	})

	It("says when it cannot be looked for, because the hour is spent", func(ctx context.Context) {
		f = newFleet(ctx, connectsim.Options{RateLimit: 40, Window: 8 * time.Second})
		f.Sim.Spend(f.Token, 40)
		f.start(ctx, "--resync-interval=1h")
		there := f.pi("kiosk")
		kiosk := f.board("kiosk", there.SerialNumber)
		Expect(f.Create(ctx, kiosk)).To(Succeed())
		Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("Unknown Throttled"))
		Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
	})

	It("changes 150 devices with a request each, and shares one listing with their Deployments", func(ctx context.Context) {
		f = newFleet(ctx, connectsim.Options{})
		f.start(ctx, "--resync-interval=1h")
		const n = 150
		for i := range n {
			f.Org.AddDevice(connectsim.Device{Name: "raspberrypi", SerialNumber: fmt.Sprintf("1000%04d", i)})
		}
		for i := range n {
			obj := f.board(fmt.Sprintf("pi-%04d", i), fmt.Sprintf("1000%04d", i))
			obj.Spec.Name, obj.Spec.Tags = obj.Name, []string{"lab"}
			Expect(f.Create(ctx, obj)).To(Succeed())
		}
		Eventually(f.readyCount(ctx, &v1alpha1.DeviceList{})).Should(Equal(n))
		Eventually(f.changed).Should(Equal(n))
		f.publish(ctx)
		run := f.deployment("pi-0007")
		Expect(f.Create(ctx, run)).To(Succeed())
		Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
		Expect(f.Sim.Count(listDevices)).To(BeNumerically("<=", 2+2), "one listing, and a fresh one for the Deployment")
		Consistently(f.changed).Should(Equal(n))
	})

	It("costs nothing while nothing changes", func(ctx context.Context) {
		f = newFleet(ctx, connectsim.Options{})
		f.start(ctx, quick...)
		there := f.pi("kiosk-lobby")
		kiosk := f.board("kiosk-lobby", there.SerialNumber)
		kiosk.Spec.Name, kiosk.Spec.Tags = "kiosk-lobby", []string{"lab"}
		began := time.Now()
		Expect(f.Create(ctx, kiosk)).To(Succeed())
		Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
		writes, events := f.settledWrites(began)
		Expect([]int{writes, events}).To(Equal([]int{2, 1}), "what it has, and how it is")
		listings := f.Sim.Count(listDevices)
		Eventually(func() int { return f.Sim.Count(listDevices) }).Should(BeNumerically(">=", listings+3))
		again, _ := f.settledWrites(began)
		Expect(again).To(Equal(2))
		Expect(f.changed()).To(BeZero())
	})

	Describe("that is restored from a backup", func() {
		BeforeEach(func(ctx context.Context) {
			f = newFleet(ctx, connectsim.Options{})
			f.start(ctx, quick...)
		})

		// restore applies what a backup has of a resource: everything but its status.
		restore := func(ctx context.Context, obj *v1alpha1.Device, change func(*v1alpha1.Device)) *v1alpha1.Device {
			GinkgoHelper()
			f.stop()
			backup := copyOf(obj, obj.Name)
			backup.Status = v1alpha1.DeviceStatus{}
			if change != nil {
				change(backup)
			}
			Expect(f.Patch(ctx, obj, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`)))).To(Succeed())
			f.remove(ctx, obj)
			Expect(f.Create(ctx, backup)).To(Succeed())
			f.start(ctx)
			return backup
		}
		manage := func(ctx context.Context, wanted v1alpha1.SingleDeviceReference) *v1alpha1.Device {
			GinkgoHelper()
			obj := f.board("kiosk", "")
			obj.Spec.Device, obj.Spec.Name, obj.Spec.DeletionPolicy = wanted, "kiosk", v1alpha1.DeletionPolicyDelete
			Expect(f.Create(ctx, obj)).To(Succeed())
			Eventually(f.ready(ctx, obj)).Should(HavePrefix("True Available"))
			Eventually(func() string { f.ready(ctx, obj)(); return obj.Status.Name }).Should(Equal("kiosk"))
			return obj
		}

		It("is the device that it was, under the name that it got", func(ctx context.Context) {
			there := f.pi("raspberrypi")
			kiosk := manage(ctx, v1alpha1.SingleDeviceReference{Name: "raspberrypi"})
			f.pi("raspberrypi") // another one, with the name that ours had
			kiosk = restore(ctx, kiosk, nil)
			Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
			Expect(kiosk.Status.ID).To(Equal(there.ID))
			Expect(f.changed()).To(Equal(1))
		})

		It("does not take another one when its device is gone", func(ctx context.Context) {
			there := f.pi("raspberrypi")
			kiosk := manage(ctx, v1alpha1.SingleDeviceReference{Name: "raspberrypi"})
			f.Org.RemoveDevice(there.ID)
			fresh := f.pi("raspberrypi")
			kiosk = restore(ctx, kiosk, nil)
			Eventually(f.ready(ctx, kiosk)).Should(And(HavePrefix("False NotFound"), ContainSubstring("remove the annotation")))
			Expect(f.deviceOf(fresh.ID)()).To(HaveField("Name", "raspberrypi"))

			By("until somebody says so")
			f.annotate(ctx, kiosk, v1alpha1.AnnotationID, nil)
			Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
			Expect(kiosk.Status.ID).To(Equal(fresh.ID))
		})

		It("says that an id is gone for good", func(ctx context.Context) {
			there := f.pi("kiosk")
			kiosk := manage(ctx, v1alpha1.SingleDeviceReference{ID: there.ID})
			f.Org.RemoveDevice(there.ID)
			kiosk = restore(ctx, kiosk, nil)
			Eventually(f.ready(ctx, kiosk)).Should(And(HavePrefix("Unknown DeviceNotFound"), ContainSubstring("will not come back under this id")))
		})

		It("is the device that took the place of the one with the id", func(ctx context.Context) {
			there := f.pi("kiosk")
			kiosk := manage(ctx, v1alpha1.SingleDeviceReference{ID: there.ID})
			anew, _ := f.Org.ReplaceDevice(there.ID)
			Eventually(func() string { f.ready(ctx, kiosk)(); return kiosk.Status.ID }).Should(Equal(anew.ID))
			kiosk = restore(ctx, kiosk, nil)
			Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
			Expect(kiosk.Status.ID).To(Equal(anew.ID))
		})

		It("does not touch the device before when it names another one now", func(ctx context.Context) {
			there, other := f.pi("raspberrypi"), f.pi("other")
			kiosk := manage(ctx, v1alpha1.SingleDeviceReference{SerialNumber: there.SerialNumber})
			f.Org.ChangeDevice(there.ID, func(d *connectsim.Device) { d.Name = "renamed" })
			kiosk = restore(ctx, kiosk, func(obj *v1alpha1.Device) { obj.Spec.Device.SerialNumber = other.SerialNumber })
			Eventually(f.ready(ctx, kiosk)).Should(And(HavePrefix("False Conflict"), ContainSubstring(v1alpha1.AnnotationID)))
			f.remove(ctx, kiosk)
			Expect(f.Org.Devices()).To(ConsistOf(HaveField("Name", Or(Equal("renamed"), Equal("kiosk"))), HaveField("Name", "other")))
		})
	})

	It("is not looked for in another organisation, nor removed there", func(ctx context.Context) {
		f = newFleet(ctx, connectsim.Options{})
		token := connectsim.NewSecret("rporg_")
		elsewhere := f.Sim.AddOrganisation(token)
		f.start(ctx, quick...)
		there := f.pi("kiosk")
		twin := elsewhere.AddDevice(connectsim.Device{Name: "kiosk", SerialNumber: there.SerialNumber})
		kiosk := f.board("kiosk", there.SerialNumber)
		kiosk.Spec.Tags, kiosk.Spec.DeletionPolicy = []string{"production"}, v1alpha1.DeletionPolicyDelete
		Expect(f.Create(ctx, kiosk)).To(Succeed())
		Eventually(f.deviceOf(there.ID)).Should(HaveField("Tags", ConsistOf("production")))
		Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))

		f.putToken(ctx, token)
		Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("False OrganisationChanged"))
		elsewhere.RemoveDevice(twin.ID)
		Consistently(f.ready(ctx, kiosk)).Should(HavePrefix("False OrganisationChanged"))
		Expect(f.Delete(ctx, kiosk)).To(Succeed())
		Eventually(f.ready(ctx, kiosk)).Should(And(HavePrefix("False OrganisationChanged"), ContainSubstring("Orphan")))
		Expect(f.Sim.Count(deleteDevice)).To(BeZero())

		f.putToken(ctx, f.Token)
		Eventually(f.gone(ctx, kiosk)).Should(BeTrue())
		Expect(f.Org.Devices()).To(BeEmpty())
	})

	It("is not removed a second time when its board has come back", func(ctx context.Context) {
		f = newFleet(ctx, connectsim.Options{})
		f.start(ctx, "--resync-interval=1h")
		there := f.pi("kiosk")
		kiosk := f.board("kiosk", there.SerialNumber)
		kiosk.Spec.DeletionPolicy = v1alpha1.DeletionPolicyDelete
		Expect(f.Create(ctx, kiosk)).To(Succeed())
		Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))

		lost := f.Sim.Inject(connectsim.Fault{Route: deleteDevice, After: true, Drop: true})
		Expect(f.Delete(ctx, kiosk)).To(Succeed())
		Eventually(f.Org.Devices).Should(BeEmpty())
		anew := f.pi("kiosk") // somebody signs it in once more
		lost.Clear()
		Eventually(f.gone(ctx, kiosk)).Should(BeTrue())
		Expect(f.Org.Devices()).To(ConsistOf(HaveField("ID", anew.ID)))
	})

	It("is let go without a token, if it is to stay", func(ctx context.Context) {
		f = newFleet(ctx, connectsim.Options{})
		f.start(ctx)
		there := f.pi("kiosk")
		kiosk := f.board("kiosk", there.SerialNumber)
		Expect(f.Create(ctx, kiosk)).To(Succeed())
		Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
		Expect(f.Delete(ctx, &corev1.Secret{ObjectMeta: f.meta("connect-access-token")})).To(Succeed())
		f.remove(ctx, kiosk)
		Expect(f.Org.Devices()).To(HaveLen(1))
	})

	It("shows what it is made of, and explains itself", func(ctx context.Context) {
		f = newFleet(ctx, connectsim.Options{})
		f.start(ctx)
		there := f.pi("kiosk")
		kiosk := f.board("kiosk", there.SerialNumber)
		Expect(f.Create(ctx, kiosk)).To(Succeed())
		Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
		dir := GinkgoT().TempDir()
		f.shell(ctx, dir, "kubectl get rpidev -o wide > shown; kubectl explain rpidev.spec > explained")
		lines := strings.Split(read(dir, "shown"), "\n")
		Expect(strings.Fields(lines[0])).To(Equal(strings.Fields("NAME READY REASON DEVICE MODEL OS TAGS SERIAL MESSAGE ID AGE")))
		Expect(lines[1]).To(And(ContainSubstring("Raspberry Pi 5"), ContainSubstring("13 (Trixie)"), ContainSubstring(`["lab"]`), ContainSubstring("serial-kiosk")))
		Expect(read(dir, "explained")).To(ContainSubstring("an empty list removes all of them"))
	})
})
