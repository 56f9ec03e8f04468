// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
)

var _ = Describe("A token of another organisation", func() {
	var (
		f     *fleet
		other *connectsim.Organisation
		token string // of the other organisation
		kiosk *v1alpha1.Artefact
		key   *v1alpha1.AuthKey
		run   *v1alpha1.Deployment
	)
	BeforeEach(func(ctx context.Context) {
		f = newFleet(ctx, connectsim.Options{})
		token = connectsim.NewSecret("rporg_")
		other = f.Sim.AddOrganisation(token)
		f.start(ctx, "--resync-interval=1s", "--deployment-poll-min=200ms", "--deployment-poll-max=1s", "--post-settle-time=3s")
		kiosk = f.publish(ctx)
		f.pi("pi5-001")
		key, run = f.authKey("pi5-001"), f.deployment("pi5-001")
		Expect(f.Create(ctx, key)).To(Succeed())
		Expect(f.Create(ctx, run)).To(Succeed())
		Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
		Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
	})

	It("makes nothing there, and calls nothing here deleted, until the right one is back", func(ctx context.Context) {
		ids := []string{kiosk.Status.ID, key.Status.ID, run.Status.ID}
		f.Sim.ResetJournal()
		f.putToken(ctx, token)
		Eventually(f.ready(ctx, kiosk)).Should(And(HavePrefix("False OrganisationChanged"), ContainSubstring(v1alpha1.AnnotationConfirmOrganisation)))
		Eventually(f.ready(ctx, key)).Should(HavePrefix("False OrganisationChanged"))
		Eventually(f.ready(ctx, run)).Should(HavePrefix("False OrganisationChanged"))
		Consistently(f.posts).Should(BeZero())

		f.putToken(ctx, f.Token)
		Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
		Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
		Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
		Expect([]string{kiosk.Status.ID, key.Status.ID, run.Status.ID}).To(Equal(ids))
		Expect(kiosk.Status.Adopted).To(BeFalse())
		Expect(f.posts()).To(BeZero())
	})

	It("is told from a new token of the same organisation", func(ctx context.Context) {
		rotated := connectsim.NewSecret("rporg_")
		f.Org.AddToken(rotated)
		before := kiosk.Status.AccessTokenHash
		f.Sim.ResetJournal()
		f.putToken(ctx, rotated)
		Eventually(func() string { f.ready(ctx, kiosk)(); return kiosk.Status.AccessTokenHash }).ShouldNot(Equal(before))
		Expect(f.ready(ctx, kiosk)()).To(HavePrefix("True Available"))
		Consistently(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
		Expect(f.posts()).To(BeZero())
	})

	It("keeps a deletion waiting, which says how to let go", func(ctx context.Context) {
		f.putToken(ctx, token)
		Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("False OrganisationChanged"))
		Expect(f.Delete(ctx, kiosk)).To(Succeed())
		Eventually(f.ready(ctx, kiosk)).Should(And(HavePrefix("False OrganisationChanged"), ContainSubstring("Orphan")))
		Expect(f.Org.Artefacts()).To(HaveLen(1))
		f.putToken(ctx, f.Token)
		Eventually(f.gone(ctx, kiosk)).Should(BeTrue())
		// The deployment of the artefact makes Connect keep it, and the event says so.
		Eventually(f.events(ctx, kiosk.Name)).Should(ContainElement(v1alpha1.EventArtefactRetained))
	})

	It("is the one to go on with, once that is confirmed", func(ctx context.Context) {
		f.putToken(ctx, token)
		Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("False OrganisationChanged"))
		f.annotate(ctx, kiosk, v1alpha1.AnnotationConfirmOrganisation, connectHash(token))
		Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))
		Expect(other.Artefacts()).To(ConsistOf(HaveField("ID", kiosk.Status.ID)))
		Expect(f.Org.Artefacts()).To(HaveLen(1), "what was in the organisation before stays there")
		f.remove(ctx, kiosk)
		Expect(other.Artefacts()).To(BeEmpty())
		Expect(f.Org.Artefacts()).To(HaveLen(1))
	})
})
