// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"rpi-connect.dev/operator/api/v1alpha1"
)

func validRollout() *v1alpha1.FleetRollout {
	return &v1alpha1.FleetRollout{ObjectMeta: named(), Spec: v1alpha1.FleetRolloutSpec{
		ArtefactRef: &v1alpha1.ArtefactReference{Name: "kiosk-v1.1"},
		Devices:     v1alpha1.FleetDevices{Query: "tag:kiosk model:5"},
	}}
}

func share(text string) *intstr.IntOrString { v := intstr.Parse(text); return &v }

func window(start, zone string, length time.Duration) *v1alpha1.FleetSchedule {
	return &v1alpha1.FleetSchedule{Windows: []v1alpha1.FleetWindow{{Start: start, TimeZone: zone, Duration: metav1.Duration{Duration: length}}}}
}

var _ = DescribeTable("A FleetRollout", func(ctx context.Context, change func(*v1alpha1.FleetRolloutSpec), words string) {
	obj := validRollout()
	change(&obj.Spec)
	expect(ctx, obj, words)
},
	Entry("is valid", func(*v1alpha1.FleetRolloutSpec) {}, ""),
	Entry("brings one artefact", func(s *v1alpha1.FleetRolloutSpec) { s.ArtefactID = "0b7f" }, "set exactly one of artefactRef and artefactID"),
	Entry("brings an artefact", func(s *v1alpha1.FleetRolloutSpec) { s.ArtefactRef = nil }, "set exactly one of artefactRef and artefactID"),
	Entry("may name the artefact by its id", func(s *v1alpha1.FleetRolloutSpec) { s.ArtefactRef, s.ArtefactID = nil, "0b7f" }, ""),
	Entry("says which devices take part", func(s *v1alpha1.FleetRolloutSpec) { s.Devices = v1alpha1.FleetDevices{ExcludeTags: []string{"lab"}} }, "say which devices take part"),
	Entry("takes all devices or some", func(s *v1alpha1.FleetRolloutSpec) { s.Devices.All = true }, "all: true includes every device"),
	Entry("takes all devices", func(s *v1alpha1.FleetRolloutSpec) { s.Devices = v1alpha1.FleetDevices{All: true} }, ""),
	Entry("takes a union of devices", func(s *v1alpha1.FleetRolloutSpec) {
		s.Devices.Names, s.Devices.SerialNumbers = []string{"kiosk-lobby"}, []string{"10000000c0ffee01"}
	}, ""),
	Entry("takes a thousand names", func(s *v1alpha1.FleetRolloutSpec) {
		for i := range 1001 {
			s.Devices.Names = append(s.Devices.Names, fmt.Sprint("pi-", i))
		}
	}, "must have at most 1000 items"),
	Entry("updates a number of devices at the same time", func(s *v1alpha1.FleetRolloutSpec) { s.MaxConcurrent = share("50") }, ""),
	Entry("updates a share of the devices at the same time", func(s *v1alpha1.FleetRolloutSpec) { s.MaxConcurrent = share("25%") }, ""),
	Entry("updates at least one device", func(s *v1alpha1.FleetRolloutSpec) { s.MaxConcurrent = share("0") }, "maxConcurrent must be a number of devices from 1"),
	Entry("updates no more than all devices", func(s *v1alpha1.FleetRolloutSpec) { s.MaxConcurrent = share("101%") }, "maxConcurrent must be a number of devices from 1"),
	Entry("has batches", func(s *v1alpha1.FleetRolloutSpec) {
		s.Batches = []v1alpha1.FleetBatch{{Name: "canary", Tags: []string{"canary"}, Size: share("5"), SoakTime: duration("1h"), Approval: v1alpha1.ApprovalManual}, {Name: "more", Size: share("10%")}}
	}, ""),
	Entry("has no batch without a device", func(s *v1alpha1.FleetRolloutSpec) {
		s.Batches = []v1alpha1.FleetBatch{{Name: "canary", Size: share("0%")}}
	}, "size must be a number of devices from 1"),
	Entry("has no batch called rest", func(s *v1alpha1.FleetRolloutSpec) { s.Batches = []v1alpha1.FleetBatch{{Name: "rest"}} }, "a batch must not be named rest or rollback"),
	Entry("has batches with names of labels", func(s *v1alpha1.FleetRolloutSpec) { s.Batches = []v1alpha1.FleetBatch{{Name: "The Canaries"}} }, "lower-case letters, digits and hyphens, such as canary"),
	Entry("has each batch once", func(s *v1alpha1.FleetRolloutSpec) { s.Batches = []v1alpha1.FleetBatch{{Name: "a"}, {Name: "a"}} }, "Duplicate value"),
	Entry("has twenty batches at most", func(s *v1alpha1.FleetRolloutSpec) {
		for i := range 21 {
			s.Batches = append(s.Batches, v1alpha1.FleetBatch{Name: fmt.Sprint("b", i)})
		}
	}, "must have at most 20 items"),
	Entry("may tolerate no failure", func(s *v1alpha1.FleetRolloutSpec) {
		s.FailurePolicy = &v1alpha1.FleetFailurePolicy{MaxFailures: share("0"), Action: v1alpha1.FailureActionRollback}
	}, ""),
	Entry("knows what to do after failures", func(s *v1alpha1.FleetRolloutSpec) { s.FailurePolicy = &v1alpha1.FleetFailurePolicy{Action: "Hope"} }, "supported values"),
	Entry("rolls back to another artefact", func(s *v1alpha1.FleetRolloutSpec) { s.RollbackTo = &v1alpha1.ArtefactReference{Name: "kiosk-v1.1"} }, "rollbackTo must be another Artefact"),
	Entry("waits for something", func(s *v1alpha1.FleetRolloutSpec) { s.Deadlines = &v1alpha1.FleetDeadlines{Pending: duration("0s")} }, "deadlines.pending must be longer than nothing"),
	Entry("has windows", func(s *v1alpha1.FleetRolloutSpec) { s.Schedule = window("0 2 * * *", "Europe/London", 3*time.Hour) }, ""),
	Entry("has windows of five fields", func(s *v1alpha1.FleetRolloutSpec) { s.Schedule = window("0 0 2 * * *", "", time.Hour) }, "start must be a cron expression of five fields"),
	Entry("has the time zone in its own field", func(s *v1alpha1.FleetRolloutSpec) { s.Schedule = window("TZ=UTC 0 2 * *", "", time.Hour) }, "the time zone goes into timeZone"),
	Entry("has windows of a minute at least", func(s *v1alpha1.FleetRolloutSpec) { s.Schedule = window("0 2 * * *", "", time.Second) }, "duration must be at least 1m"),
)

var _ = Describe("A FleetRollout that is stored", func() {
	It("has what the documentation gives by default", func(ctx context.Context) {
		obj := validRollout()
		obj.Spec.Batches = []v1alpha1.FleetBatch{{Name: "canary"}}
		obj.Spec.FailurePolicy, obj.Spec.Retry, obj.Spec.Deadlines = &v1alpha1.FleetFailurePolicy{}, &v1alpha1.FleetRetry{}, &v1alpha1.FleetDeadlines{}
		obj.Spec.Schedule = window("0 2 * * *", "", time.Hour)
		Expect(apiServer.Create(ctx, obj)).To(Succeed())
		s := obj.Spec
		Expect(s.Membership).To(Equal(v1alpha1.MembershipContinuous))
		Expect(s.Order).To(Equal(v1alpha1.OrderHash))
		Expect(s.MaxConcurrent.String()).To(Equal("10"))
		Expect(*s.HistoryLimit).To(BeEquivalentTo(2))
		Expect(*s.Batches[0].SuccessPercent).To(BeEquivalentTo(100))
		Expect(*s.Batches[0].MinSucceeded).To(BeEquivalentTo(1))
		Expect(s.Batches[0].Approval).To(Equal(v1alpha1.ApprovalAutomatic))
		Expect(s.FailurePolicy.MaxFailures.String()).To(Equal("10%"))
		Expect(s.FailurePolicy.Action).To(Equal(v1alpha1.FailureActionPause))
		Expect(*s.Retry.Limit).To(BeEquivalentTo(1))
		Expect(s.Deadlines.Pending.Duration).To(Equal(time.Hour))
		Expect(s.Deadlines.InProgress.Duration).To(Equal(2 * time.Hour))
		Expect(s.Schedule.AtWindowEnd).To(Equal(v1alpha1.WindowEndCancelPending))
		Expect(s.Schedule.Windows[0].TimeZone).To(Equal("UTC"))
		Expect(obj.Status.ObservedGeneration).To(BeEquivalentTo(-1))
	})

	It("has a name that fits into a label", func(ctx context.Context) {
		obj := validRollout()
		obj.GenerateName, obj.Name = "", strings.Repeat("k", 64)
		expect(ctx, obj, "no longer than 63 characters")
	})
})
