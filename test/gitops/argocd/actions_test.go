// SPDX-License-Identifier: Apache-2.0

package argocd_test

import (
	"context"

	"github.com/argoproj/argo-cd/gitops-engine/pkg/sync/common"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/internal/connectsim"
)

var _ = Describe("Actions", func() {
	It("do to every kind what they say", func(ctx context.Context) {
		s := newSite(ctx)
		s.Pis["kiosk-cafe"].Behave(connectsim.Behaviour{Offline: true})
		s.start(ctx)
		app := s.application(s.git(ctx, unapproved))
		for _, obj := range app.git {
			annotate(obj, "argocd.argoproj.io/sync-wave", "0") // what is suspended holds up the waves that follow
		}
		Expect(app.begin().run()).To(Equal(common.OperationSucceeded))

		By("a person pausing, resuming, and approving a rollout")
		Eventually(phase(ctx, app)).Should(Equal("AwaitingApproval"))
		press(ctx, app, "FleetRollout", "kiosk", "pause")
		Eventually(phase(ctx, app)).Should(Equal("Paused"))
		press(ctx, app, "FleetRollout", "kiosk", "resume")
		Eventually(phase(ctx, app)).Should(Equal("AwaitingApproval"))
		Eventually(app.healths(ctx)).Should(HaveKeyWithValue("FleetRollout/kiosk", HavePrefix("Suspended: ")))
		press(ctx, app, "FleetRollout", "kiosk", "approve")
		Eventually(phase(ctx, app)).Should(Equal("Complete"))

		By("a person cancelling what a device has not picked up")
		Eventually(app.healths(ctx)).Should(HaveKeyWithValue("Deployment/kiosk-cafe-v1.1", HavePrefix("Progressing: ")))
		press(ctx, app, "Deployment", "kiosk-cafe-v1.1", "cancel")
		Eventually(app.healths(ctx)).Should(HaveKeyWithValue("Deployment/kiosk-cafe-v1.1", HavePrefix("Suspended: ")))

		By("suspending, resuming, and asking to look again")
		for _, obj := range []struct{ kind, name string }{
			{"Artefact", "kiosk-v1.0"}, {"AuthKey", "kiosk-lobby"}, {"DeviceIdentity", "kiosk-cafe"}, {"Device", "shop-window"},
			{"Deployment", "kiosk-lobby-v1.0"}, {"FleetRollout", "kiosk"},
		} {
			key := obj.kind + "/" + obj.name
			Eventually(app.healths(ctx)).Should(HaveKeyWithValue(key, HavePrefix("Healthy: ")))
			press(ctx, app, obj.kind, obj.name, "suspend")
			Eventually(app.healths(ctx)).Should(HaveKeyWithValue(key, HavePrefix("Suspended: ")))
			press(ctx, app, obj.kind, obj.name, "resume")
			Eventually(app.healths(ctx)).Should(HaveKeyWithValue(key, HavePrefix("Healthy: ")))
			press(ctx, app, obj.kind, obj.name, "reconcile")
			Eventually(app.healths(ctx)).Should(HaveKeyWithValue(key, HavePrefix("Healthy: ")))
		}
	})
})

// unapproved takes the approval away that the samples have for tests.
const unapproved = `
- target: {group: rpi-connect.dev, kind: FleetRollout}
  patch: |
    - {op: replace, path: /spec/approvals, value: []}
`

// phase is that of the rollout.
func phase(ctx context.Context, app *application) func() string {
	return func() string {
		GinkgoHelper()
		rollout := live(ctx, []*unstructured.Unstructured{find(app.git, "FleetRollout", "kiosk")})[0]
		phase, _, _ := unstructured.NestedString(rollout.Object, "status", "phase")
		return phase
	}
}

// press runs an action over what is in the cluster, as the button in Argo CD does.
func press(ctx context.Context, app *application, kind, name, action string) {
	GinkgoHelper()
	obj := live(ctx, []*unstructured.Unstructured{find(app.git, kind, name)})[0]
	disabled, found := offered(obj)[action]
	Expect(found && !disabled).To(BeTrue(), "%s is offered for %s %s", action, kind, name)
	Expect(control.Client.Patch(ctx, act(obj, action), client.MergeFrom(obj))).To(Succeed())
}
