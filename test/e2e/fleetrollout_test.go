// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
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
				Expect(b.most).To(BeNumerically("<=", 3))
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

			It("pauses after failures, and goes on when a person accepts them", func(ctx context.Context) {
				b := f.pis(10)
				b.set(func(b *pis) { b.fails[piName(2)], b.fails[piName(5)] = "Checksum mismatch", "Checksum mismatch" })
				r := f.rollout("v1", func(s *v1alpha1.FleetRolloutSpec) {
					s.MaxConcurrent = number(2)
					s.FailurePolicy = &v1alpha1.FleetFailurePolicy{MaxFailures: number(0)}
				})
				Expect(f.Create(ctx, f.artefact("v1"))).To(Succeed())
				Expect(f.Create(ctx, r)).To(Succeed())
				Eventually(f.ready(ctx, r)).Should(And(HavePrefix("False FailuresExceeded: Paused: 1 device has failed"), ContainSubstring("(Checksum mismatch)")))
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
		})
	}
})
