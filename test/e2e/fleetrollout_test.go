// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/test/cluster"
)

// pis are devices that take what is deployed to them.
type pis struct {
	org *connectsim.Organisation

	mu      sync.Mutex
	offline map[string]bool   // by the name
	fails   map[string]string // by the name of the device, or of the artefact: the reason
	hold    bool              // they begin, and do not end
	most    int               // how many were active at the same moment
}

// pis has n devices sign in, which take deployments until the story ends.
func (f *fleet) pis(n int, tags ...string) *pis {
	b := &pis{org: f.Org, offline: map[string]bool{}, fails: map[string]string{}}
	for i := range n {
		f.Org.AddDevice(connectsim.Device{Name: piName(i), SerialNumber: "serial-" + piName(i), Tags: slices.Clone(tags), Model: "5", Memory: "8gb", OS: "raspios-13"})
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			b.work()
			time.Sleep(10 * time.Millisecond)
		}
	}()
	DeferCleanup(func() { cancel(); <-done })
	return b
}

func piName(i int) string { return fmt.Sprintf("pi-%03d", i) }

// work has every device go one step on.
func (b *pis) work() {
	b.mu.Lock()
	defer b.mu.Unlock()
	names, artefacts := map[string]string{}, map[string]string{}
	for _, d := range b.org.Devices() {
		names[d.ID] = d.Name
	}
	for _, a := range b.org.Artefacts() {
		artefacts[a.ID] = a.Name
	}
	active := 0
	for _, d := range b.org.Deployments("") {
		if d.State != connectsim.Pending && d.State != connectsim.InProgress {
			continue
		}
		name := names[d.DeviceID]
		if !b.offline[name] {
			active++
		}
		reason := b.fails[name] + b.fails[artefacts[d.ArtefactID]]
		switch {
		case b.offline[name]:
		case d.State == connectsim.Pending:
			b.org.MoveDeployment(d.ID, connectsim.InProgress, "")
		case b.hold:
		case reason != "":
			b.org.MoveDeployment(d.ID, connectsim.Failed, reason)
		default:
			b.org.MoveDeployment(d.ID, connectsim.Succeeded, "")
		}
	}
	b.most = max(b.most, active)
}

// mostActive is how many devices had something to do at the same moment, at most.
func (b *pis) mostActive() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.most
}

func (b *pis) set(change func(*pis)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(b)
}

// deployed counts the deployments of an artefact.
func (f *fleet) deployed(artefact string) func() int {
	return func() int {
		ids := map[string]bool{}
		for _, a := range f.Org.Artefacts() {
			if a.Name == artefact {
				ids[a.ID] = true
			}
		}
		n := 0
		for _, d := range f.Org.Deployments("") {
			if ids[d.ArtefactID] {
				n++
			}
		}
		return n
	}
}

// rollout returns a FleetRollout of the Artefact to every device.
func (f *fleet) rollout(artefact string, change ...func(*v1alpha1.FleetRolloutSpec)) *v1alpha1.FleetRollout {
	r := &v1alpha1.FleetRollout{ObjectMeta: f.meta("kiosk"), Spec: v1alpha1.FleetRolloutSpec{
		ArtefactRef: &v1alpha1.ArtefactReference{Name: artefact},
		Devices:     v1alpha1.FleetDevices{All: true},
	}}
	for _, c := range change {
		c(&r.Spec)
	}
	return r
}

// edit changes the spec of a rollout.
func (f *fleet) edit(ctx context.Context, r *v1alpha1.FleetRollout, change func(*v1alpha1.FleetRolloutSpec)) {
	GinkgoHelper()
	Expect(f.Get(ctx, client.ObjectKeyFromObject(r), r)).To(Succeed())
	before := r.DeepCopy()
	change(&r.Spec)
	Expect(f.Patch(ctx, r, client.MergeFrom(before))).To(Succeed())
}

func percent(s string) *intstr.IntOrString { v := intstr.FromString(s); return &v }
func number(n int32) *intstr.IntOrString   { v := intstr.FromInt32(n); return &v }
func lasting(d time.Duration) *metav1.Duration {
	return &metav1.Duration{Duration: d}
}

// rolloutDevices is for a larger fleet than fits into every run: -args -rollout-devices=1000.
var rolloutDevices = flag.Int("rollout-devices", 150, "devices of the rollout whose operator is killed again and again")

var _ = Describe("A FleetRollout", func() {
	var f *fleet
	quick := []string{"--deployment-poll-min=200ms", "--deployment-poll-max=1s", "--resync-interval=1s", "--post-settle-time=2s"}

	for _, options := range []connectsim.Options{{Revision: connectsim.Current}, {Revision: connectsim.Older, SupersededAsCancelled: true}} {
		Describe("on the "+string(options.Revision)+" revision", func() {
			BeforeEach(func(ctx context.Context) {
				f = newFleet(ctx, options)
				f.start(ctx, quick...)
			})

			It("takes an update through batches and an approval, and the next one is a change of its artefact", func(ctx context.Context) {
				b := f.pis(12, "kiosk")
				r := f.rollout("v1", func(s *v1alpha1.FleetRolloutSpec) {
					s.MaxConcurrent = number(3)
					s.Batches = []v1alpha1.FleetBatch{{Name: "canary", Size: number(2), Approval: v1alpha1.ApprovalManual}, {Name: "some", Size: percent("25%")}}
				})
				Expect(f.Create(ctx, r)).To(Succeed())
				Eventually(f.ready(ctx, r)).Should(HavePrefix(`Unknown ArtefactNotReady: Waiting for the Artefact "v1" to be created.`))
				Expect(f.Create(ctx, f.artefact("v1"))).To(Succeed())
				Eventually(f.ready(ctx, r)).Should(HavePrefix("Unknown AwaitingApproval: Batch canary is over; for the next one to begin, add {artefact: v1, batch: canary} to spec.approvals."))
				Expect(f.deployed("v1")()).To(Equal(2))
				f.edit(ctx, r, func(s *v1alpha1.FleetRolloutSpec) {
					s.Approvals = []v1alpha1.FleetApproval{{Artefact: "v1", Batch: "canary"}}
				})
				Eventually(f.ready(ctx, r)).Should(HavePrefix("True Complete: 12 of 12 devices run v1."))
				Expect(f.deployed("v1")()).To(Equal(12))
				Expect(b.mostActive()).To(BeNumerically("<=", 3))
				Expect(r.Status.Batches).To(HaveLen(3))
				for i, batch := range r.Status.Batches[1:] {
					Expect(batch.StartedAt.Time).NotTo(BeTemporally("<", r.Status.Batches[i].EndedAt.Time), "batches begin in order")
				}

				Expect(f.Create(ctx, f.artefact("v2"))).To(Succeed())
				f.edit(ctx, r, func(s *v1alpha1.FleetRolloutSpec) { s.ArtefactRef.Name = "v2" })
				Eventually(f.ready(ctx, r)).Should(HavePrefix("Unknown AwaitingApproval"), "an approval is of one artefact")
				f.annotate(ctx, r, v1alpha1.AnnotationApprove, "v2/canary")
				Eventually(f.ready(ctx, r)).Should(HavePrefix("True Complete: 12 of 12 devices run v2."))
				Expect(f.deployed("v2")()).To(Equal(12))
				Expect(r.Status.Revision).To(Equal(int64(2)))
				Eventually(f.events(ctx, "kiosk")).Should(ContainElements("RevisionBegun", "BatchBegun", "BatchEnded", "AwaitingApproval", "Approved", "Complete"))
			})

			It("defers devices that are offline, and counts them when they come back", func(ctx context.Context) {
				b := f.pis(6)
				b.set(func(b *pis) { b.offline[piName(1)], b.offline[piName(4)] = true, true })
				r := f.rollout("v1", func(s *v1alpha1.FleetRolloutSpec) {
					s.Deadlines = &v1alpha1.FleetDeadlines{Pending: lasting(2 * time.Second)}
				})
				Expect(f.Create(ctx, f.artefact("v1"))).To(Succeed())
				Expect(f.Create(ctx, r)).To(Succeed())
				Eventually(f.ready(ctx, r)).Should(HavePrefix("True Complete: 4 of 6 devices run v1; 2 deferred until they come back."))
				b.set(func(b *pis) { clear(b.offline) })
				Eventually(f.ready(ctx, r)).Should(HavePrefix("True Complete: 6 of 6 devices run v1."))
				Expect(f.deployed("v1")()).To(Equal(6))
			})

			if options.Revision == connectsim.Older {
				return // the rest asks nothing else of Connect
			}

			It("pauses after failures, and goes on when a person accepts them", func(ctx context.Context) {
				b := f.pis(10)
				b.set(func(b *pis) { b.fails[piName(2)], b.fails[piName(5)] = "Checksum mismatch", "Checksum mismatch" })
				r := f.rollout("v1", func(s *v1alpha1.FleetRolloutSpec) {
					s.MaxConcurrent = number(2)
					s.FailurePolicy = &v1alpha1.FleetFailurePolicy{MaxFailures: number(0)}
				})
				Expect(f.Create(ctx, f.artefact("v1"))).To(Succeed())
				Expect(f.Create(ctx, r)).To(Succeed())
				Eventually(f.ready(ctx, r)).Should(And(
					MatchRegexp(`^False FailuresExceeded: Paused: (1 device has|2 devices have) failed`), // two are updated at a time
					ContainSubstring("(Checksum mismatch)")))
				made := f.deployed("v1")()
				Consistently(f.deployed("v1"), "3s").Should(Equal(made), "nobody begins")
				Eventually(func() string {
					seen := f.ready(ctx, r)()
					if strings.HasPrefix(seen, "False FailuresExceeded") { // the second one may come later
						f.annotate(ctx, r, v1alpha1.AnnotationResumeRequestedAt, time.Now().Format(time.RFC3339Nano))
					}
					return seen
				}).WithPolling(2 * time.Second).Should(HavePrefix("True Complete: 8 of 10 devices run v1; 2 failed."))
				Expect(f.deployed("v1")()).To(Equal(10))
			})

			It("rolls back to the artefact before, and is repaired by the next one", func(ctx context.Context) {
				b := f.pis(8)
				r := f.rollout("v1", func(s *v1alpha1.FleetRolloutSpec) {
					s.MaxConcurrent = number(2)
					s.FailurePolicy = &v1alpha1.FleetFailurePolicy{MaxFailures: number(1), Action: v1alpha1.FailureActionRollback}
				})
				for _, name := range []string{"v1", "v2", "v3"} {
					Expect(f.Create(ctx, f.artefact(name))).To(Succeed())
				}
				Expect(f.Create(ctx, r)).To(Succeed())
				Eventually(f.ready(ctx, r)).Should(HavePrefix("True Complete: 8 of 8"))
				b.set(func(b *pis) {
					for _, i := range []int{0, 2, 4, 6} {
						b.fails[piName(i)] = "does not boot"
					}
				})
				f.edit(ctx, r, func(s *v1alpha1.FleetRolloutSpec) { s.ArtefactRef.Name = "v2" })
				Eventually(f.ready(ctx, r)).Should(HavePrefix("False RolledBack: The devices that ran v2 have been brought back to v1"))
				for _, d := range f.Org.Devices() {
					all := f.Org.Deployments(d.ID)
					newest := all[0]
					for _, a := range f.Org.Artefacts() {
						if a.ID == newest.ArtefactID && newest.State == connectsim.Succeeded {
							Expect(a.Name).To(Equal("v1"), "no device runs the bad version")
						}
					}
				}
				b.set(func(b *pis) { clear(b.fails) })
				f.edit(ctx, r, func(s *v1alpha1.FleetRolloutSpec) { s.ArtefactRef.Name = "v3" })
				Eventually(f.ready(ctx, r)).Should(HavePrefix("True Complete: 8 of 8 devices run v3."))
			})

			It("brings those back, too, that others have updated before it began", func(ctx context.Context) {
				b := f.pis(4)
				for _, name := range []string{"v1", "v2"} {
					a := f.artefact(name)
					Expect(f.Create(ctx, a)).To(Succeed())
					Eventually(f.ready(ctx, a)).Should(HavePrefix("True Available"))
					f.Org.AddDeployment(f.Org.Devices()[0].ID, a.Status.ID)
					Eventually(func() []connectsim.Deployment { return f.Org.Deployments("") }).Should(HaveEach(HaveField("State", connectsim.Succeeded)))
				}
				b.set(func(b *pis) { b.fails[piName(1)], b.fails[piName(2)] = "does not boot", "does not boot" })
				r := f.rollout("v2", func(s *v1alpha1.FleetRolloutSpec) {
					s.FailurePolicy = &v1alpha1.FleetFailurePolicy{MaxFailures: number(1), Action: v1alpha1.FailureActionRollback}
					s.RollbackTo = &v1alpha1.ArtefactReference{Name: "v1"}
				})
				Expect(f.Create(ctx, r)).To(Succeed())
				Eventually(f.ready(ctx, r)).Should(HavePrefix("False RolledBack: The devices that ran v2 have been brought back to v1"))
				Expect(f.deployed("v1")()).To(Equal(3), "once before, and once for each device that ran v2")
			})

			It("updates nobody twice, whatever is lost of it", func(ctx context.Context) {
				f.pis(6)
				r := f.rollout("v1")
				Expect(f.Create(ctx, f.artefact("v1"))).To(Succeed())
				Expect(f.Create(ctx, r)).To(Succeed())
				Eventually(f.ready(ctx, r)).Should(HavePrefix("True Complete: 6 of 6"))

				By("losing its status")
				Expect(f.Status().Patch(ctx, r, client.RawPatch("application/merge-patch+json", []byte(`{"status":null}`)))).To(Succeed())
				f.annotate(ctx, r, v1alpha1.AnnotationReconcileRequestedAt, "now")
				Eventually(f.ready(ctx, r)).Should(HavePrefix("True Complete: 6 of 6"))
				Expect(r.Status.Revision).To(BeEquivalentTo(1))

				By("being deleted and applied anew, while its Deployments are left")
				Expect(f.Delete(ctx, r, client.PropagationPolicy(metav1.DeletePropagationOrphan))).To(Succeed())
				if !cluster.HasControllerManager() { // which would do this
					f.orphan(ctx, r)
				}
				Eventually(f.gone(ctx, r)).Should(BeTrue())
				r = f.rollout("v1")
				Expect(f.Create(ctx, r)).To(Succeed())
				Eventually(f.ready(ctx, r)).Should(HavePrefix("True Complete: 6 of 6"))

				By("being applied in another cluster, where none of its Deployments are")
				before := f.deploymentUIDs(ctx)
				Expect(f.DeleteAllOf(ctx, &v1alpha1.Deployment{}, client.InNamespace(f.ns))).To(Succeed())
				Eventually(func() int { return f.deploymentUIDs(ctx).Difference(before).Len() }).Should(Equal(6))
				Eventually(f.readyCount(ctx, &v1alpha1.DeploymentList{})).Should(Equal(6))
				Eventually(f.ready(ctx, r)).Should(HavePrefix("True Complete: 6 of 6"))
				Expect(f.deployed("v1")()).To(Equal(6), "each device was updated once in its life")

				By("taking it back, and back again")
				Expect(f.Create(ctx, f.artefact("v2"))).To(Succeed())
				f.edit(ctx, r, func(s *v1alpha1.FleetRolloutSpec) { s.ArtefactRef.Name, s.Paused = "v2", true })
				Eventually(f.ready(ctx, r)).Should(HavePrefix("Unknown Paused"))
				f.edit(ctx, r, func(s *v1alpha1.FleetRolloutSpec) { s.ArtefactRef.Name, s.Paused = "v1", false })
				Eventually(f.ready(ctx, r)).Should(HavePrefix("True Complete: 6 of 6 devices run v1."))
				Expect(r.Status.Revision).To(BeEquivalentTo(3))
				Expect(f.deployed("v1")()).To(Equal(6))
				requests, err := control.Requests()
				Expect(err).NotTo(HaveOccurred())
				Expect(slices.ContainsFunc(requests, func(q cluster.Request) bool {
					return q.ByOperator() && q.Resource == "deployments" && q.Verb == "delete"
				})).To(BeTrue(), "those of the first revision let go of what they had brought")
			})

			It("comes to rest beside another one for the same devices", func(ctx context.Context) {
				f.pis(8)
				for _, name := range []string{"v1", "v2"} {
					Expect(f.Create(ctx, f.artefact(name))).To(Succeed())
				}
				one, other, same := f.rollout("v1"), f.rollout("v2"), f.rollout("v2")
				other.Name, same.Name = "signs", "posters"
				for _, r := range []*v1alpha1.FleetRollout{one, other, same} {
					r.Spec.MaxConcurrent = number(2)
					Expect(f.Create(ctx, r)).To(Succeed())
				}
				for _, r := range []*v1alpha1.FleetRollout{one, other, same} {
					Eventually(f.ready(ctx, r)).Should(HavePrefix("True Complete"), r.Name)
				}
				made := len(f.Org.Deployments(""))
				Consistently(func() int { return len(f.Org.Deployments("")) }, "3s").Should(Equal(made))
				for _, d := range f.Org.Devices() {
					Expect(len(f.Org.Deployments(d.ID))).To(BeNumerically("<=", 3), "each deploys to it at most once")
				}
			})

			It("cancels what is pending when it is deleted, unless it is to be left", func(ctx context.Context) {
				if !cluster.HasControllerManager() {
					Skip("deleting what a resource owns is the controller manager's work")
				}
				b := f.pis(4)
				b.set(func(b *pis) {
					for i := range 4 {
						b.offline[piName(i)] = true
					}
				})
				Expect(f.Create(ctx, f.artefact("v1"))).To(Succeed())
				pending := func() (n int) {
					for _, d := range f.Org.Deployments("") {
						if d.State == connectsim.Pending {
							n++
						}
					}
					return n
				}
				r := f.rollout("v1")
				Expect(f.Create(ctx, r)).To(Succeed())
				Eventually(pending).Should(Equal(4))
				Expect(f.Delete(ctx, r)).To(Succeed())
				Eventually(pending).WithTimeout(time.Minute).Should(BeZero())

				r = f.rollout("v1", func(s *v1alpha1.FleetRolloutSpec) { s.DeletionPolicy = v1alpha1.DeletionPolicyOrphan })
				Expect(f.Create(ctx, r)).To(Succeed())
				Eventually(pending).WithTimeout(time.Minute).Should(Equal(4))
				Expect(f.Delete(ctx, r)).To(Succeed())
				Eventually(f.readyCount(ctx, &v1alpha1.DeploymentList{})).WithTimeout(time.Minute).Should(BeZero())
				Eventually(func() int {
					var list v1alpha1.DeploymentList
					Expect(f.List(ctx, &list, client.InNamespace(f.ns))).To(Succeed())
					return len(list.Items)
				}).WithTimeout(time.Minute).Should(BeZero())
				Expect(pending()).To(Equal(4))
			})

			It("leaves a device alone that somebody else deploys to, and those that come later if it took a snapshot", func(ctx context.Context) {
				b := f.pis(3)
				b.set(func(b *pis) { b.offline[piName(0)] = true })
				other := f.Org.AddArtefact("by-hand", "https://updates.example.com/by-hand.tar.zst", strings.Repeat("0d", 32))
				r := f.rollout("v1", func(s *v1alpha1.FleetRolloutSpec) { s.Membership = v1alpha1.MembershipSnapshot })
				Expect(f.Create(ctx, f.artefact("v1"))).To(Succeed())
				Expect(f.Create(ctx, r)).To(Succeed())
				Eventually(f.deployed("v1")).Should(Equal(3))
				for _, d := range f.Org.Devices() {
					if d.Name == piName(0) {
						f.Org.AddDeployment(d.ID, other.ID)
					}
				}
				Eventually(f.ready(ctx, r)).Should(HavePrefix("True Complete: 2 of 3 devices run v1; 1 left alone, because they got another deployment."))
				Eventually(f.events(ctx, "kiosk")).Should(ContainElement("Overridden"))
				f.Org.AddDevice(connectsim.Device{Name: "late", SerialNumber: "serial-late"})
				f.annotate(ctx, r, v1alpha1.AnnotationReconcileRequestedAt, "now")
				Eventually(func() string { f.ready(ctx, r)(); return r.Status.LastHandledReconcileAt }).Should(Equal("now"))
				Consistently(f.deployed("v1"), "2s").Should(Equal(3))
			})
		})
	}

	It("never updates more devices at the same time than it may, however often the operator is killed", func(ctx context.Context) {
		devices := *rolloutDevices
		most := max(12, devices/20)
		f = newFleet(ctx, connectsim.Options{RateLimit: 100_000})
		f.start(ctx, quick...)
		f.pis(devices)
		r := f.rollout("v1", func(s *v1alpha1.FleetRolloutSpec) {
			s.MaxConcurrent = number(int32(most))
			s.Batches = []v1alpha1.FleetBatch{{Name: "one", Size: number(1)}, {Name: "some", Size: percent("5%")}}
		})
		Expect(f.Create(ctx, f.artefact("v1"))).To(Succeed())
		Expect(f.Create(ctx, r)).To(Succeed())
		for killed := range 8 {
			Eventually(f.deployed("v1")).WithTimeout(time.Minute).Should(BeNumerically(">", killed*devices/10))
			f.kill()
			f.start(ctx)
		}
		Eventually(f.ready(ctx, r)).WithTimeout(10 * time.Minute).Should(HavePrefix(fmt.Sprintf("True Complete: %d of %d devices run v1.", devices, devices)))
		all := f.Org.Deployments("")
		Expect(all).To(HaveLen(devices), "one deployment for each device")
		Expect(atTheSameTime(all)).To(BeNumerically("<=", most))
		Expect(r.Status.Batches).To(HaveLen(3))
		for i, batch := range r.Status.Batches[1:] {
			Expect(batch.StartedAt.Time).NotTo(BeTemporally("<", r.Status.Batches[i].EndedAt.Time), "batches begin in order")
		}
	})
})

// deploymentUIDs are those of the Deployments that are there.
func (f *fleet) deploymentUIDs(ctx context.Context) sets.Set[types.UID] {
	GinkgoHelper()
	var list v1alpha1.DeploymentList
	Expect(f.List(ctx, &list, client.InNamespace(f.ns))).To(Succeed())
	uids := sets.New[types.UID]()
	for i := range list.Items {
		uids.Insert(list.Items[i].UID)
	}
	return uids
}

// atTheSameTime is how many deployments were pending or in progress at the same moment, at most.
func atTheSameTime(all []connectsim.Deployment) int {
	most := 0
	for _, d := range all {
		n := 0
		for _, other := range all {
			if !other.CreatedAt.After(d.CreatedAt) && other.UpdatedAt.After(d.CreatedAt) {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

// orphan does what the controller manager does for --cascade=orphan.
func (f *fleet) orphan(ctx context.Context, r *v1alpha1.FleetRollout) {
	GinkgoHelper()
	none := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"ownerReferences":null}}`))
	var list v1alpha1.DeploymentList
	Expect(f.List(ctx, &list, client.InNamespace(f.ns))).To(Succeed())
	for i := range list.Items {
		Expect(f.Patch(ctx, &list.Items[i], none)).To(Succeed())
	}
	Expect(f.Patch(ctx, r, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`)))).To(Succeed())
}
