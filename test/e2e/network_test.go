// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	eventsv1 "k8s.io/api/events/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
)

const gatewayPage = "<!DOCTYPE html><html><body><h1>404 Not Found</h1><hr>gateway</body></html>"

var _ = Describe("A request that is carried out after its connection broke", func() {
	// quick has the settle time be over within a story.
	quick := []string{"--resync-interval=2s", "--deployment-poll-min=200ms", "--deployment-poll-max=1s", "--post-settle-time=12s"}

	It("makes one deployment a device", func(ctx context.Context) {
		f := newFleet(ctx, connectsim.Options{})
		f.start(ctx, quick...)
		f.publish(ctx)
		const devices = 5
		fault := f.Sim.Inject(connectsim.Fault{Route: postDeployment, Times: devices, Drop: true, Late: 4 * time.Second})
		for i := range devices {
			f.pi(fmt.Sprintf("pi5-%03d", i))
			Expect(f.Create(ctx, f.deployment(fmt.Sprintf("pi5-%03d", i)))).To(Succeed())
		}
		for i := range devices {
			run := f.deployment(fmt.Sprintf("pi5-%03d", i))
			Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
			Expect(run.Status.Adopted).To(BeFalse(), "the operator made it")
		}
		Expect(fault.Hits()).To(Equal(devices))
		Expect(f.Org.Deployments("")).To(HaveLen(devices))
		Expect(f.Sim.Count(postDeployment)).To(Equal(devices))
	})

	It("leaves each live key in a Secret", func(ctx context.Context) {
		f := newFleet(ctx, connectsim.Options{})
		f.start(ctx, quick...)
		const keys = 5
		f.Sim.Inject(connectsim.Fault{Route: postAuthKey, Times: keys, Drop: true, Late: 4 * time.Second})
		for i := range keys {
			key := f.authKey(fmt.Sprintf("pi5-%03d", i))
			key.Spec.Description, key.Spec.DeviceName = "kiosk", "" // which makes them all alike
			Expect(f.Create(ctx, key)).To(Succeed())
		}
		Eventually(f.readyCount(ctx, &v1alpha1.AuthKeyList{})).WithTimeout(time.Minute).Should(Equal(keys))
		Eventually(f.live).Should(HaveLen(keys))
		Expect(f.delivered(ctx)).To(HaveLen(keys))
	})

	It("is still found after the settle time", func(ctx context.Context) {
		f := newFleet(ctx, connectsim.Options{})
		f.start(ctx, "--resync-interval=1s", "--deployment-poll-min=200ms", "--deployment-poll-max=1s", "--post-settle-time=2s")
		f.publish(ctx)
		f.pi("pi5-001")
		late := []*connectsim.Injected{
			f.Sim.Inject(connectsim.Fault{Route: postDeployment, Times: 1, Drop: true, Late: time.Hour}),
			f.Sim.Inject(connectsim.Fault{Route: postAuthKey, Times: 1, Drop: true, Late: time.Hour}),
		}
		key, run := f.authKey("pi5-001"), f.deployment("pi5-001")
		Expect(f.Create(ctx, key)).To(Succeed())
		Expect(f.Create(ctx, run)).To(Succeed())
		Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
		Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
		first := run.Status.ID
		for _, fault := range late {
			Expect(fault.Land()).To(Equal(1))
		}
		Eventually(f.Org.AuthKeys).Should(HaveLen(1), "the key that came too late is revoked")
		Expect(f.delivered(ctx)).To(HaveLen(1))
		Eventually(func() string { f.ready(ctx, run)(); return run.Status.ID }).ShouldNot(Equal(first))
		Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"), "the deployment that came too late is ours, and has superseded our own")
		Expect(f.Sim.Count(postDeployment)).To(Equal(2))
	})

	It("is waited for when its resource is deleted meanwhile", func(ctx context.Context) {
		f := newFleet(ctx, connectsim.Options{})
		f.start(ctx, "--resync-interval=1s", "--deployment-poll-min=200ms", "--deployment-poll-max=1s", "--post-settle-time=8s")
		f.publish(ctx)
		f.pi("pi5-001")
		for _, route := range []string{postAuthKey, postDeployment, postArtefact} {
			f.Sim.Inject(connectsim.Fault{Route: route, Times: 1, Drop: true, Late: 3 * time.Second})
		}
		objects := []client.Object{f.authKey("lost"), f.deployment("pi5-001"), f.artefact("lost")}
		for _, obj := range objects {
			Expect(f.Create(ctx, obj)).To(Succeed())
		}
		for _, route := range []string{postAuthKey, postDeployment} {
			Eventually(func() int { return f.Sim.Count(route) }).Should(Equal(1))
		}
		Eventually(func() int { return f.Sim.Count(postArtefact) }).Should(BeNumerically(">=", 2))
		for _, obj := range objects {
			Expect(f.Delete(ctx, obj)).To(Succeed())
		}
		for _, obj := range objects {
			Eventually(f.gone(ctx, obj)).Should(BeTrue())
		}
		Expect(f.Org.AuthKeys()).To(BeEmpty())
		Expect(f.Org.Artefacts()).To(ConsistOf(HaveField("Name", "kiosk")))
		Expect(f.Org.Deployments("")).To(HaveEach(HaveField("State", connectsim.Cancelled)))
	})
})

var _ = Describe("A gateway that answers in the place of Connect", func() {
	var f *fleet
	BeforeEach(func(ctx context.Context) {
		f = newFleet(ctx, connectsim.Options{})
		f.start(ctx, "--resync-interval=1s", "--deployment-poll-min=200ms", "--deployment-poll-max=1s", "--post-settle-time=3s")
	})

	It("lets nothing go by saying that it is not there", func(ctx context.Context) {
		kiosk, key := f.publish(ctx), f.authKey("pi5-001")
		Expect(f.Create(ctx, key)).To(Succeed())
		Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
		for _, body := range []connectsim.Fault{{Body: gatewayPage, ContentType: "text/html"}, {Body: "default backend - 404", ContentType: "text/plain"}, {}} {
			body.Route, body.Status, body.Times = "DELETE", 404, 2
			f.Sim.Inject(body)
		}
		for _, obj := range []client.Object{kiosk, key} {
			Expect(f.Delete(ctx, obj)).To(Succeed())
		}
		for _, obj := range []client.Object{kiosk, key} {
			Eventually(f.gone(ctx, obj)).Should(BeTrue())
		}
		Expect(f.Org.Artefacts()).To(BeEmpty())
		Expect(f.Org.AuthKeys()).To(BeEmpty())
	})

	It("makes no older API of a current one", func(ctx context.Context) {
		key := f.authKey("pi5-001")
		Expect(f.Create(ctx, key)).To(Succeed())
		Eventually(f.ready(ctx, key)).Should(HavePrefix("True Usable"))
		fault := f.Sim.Inject(connectsim.Fault{Route: "GET", Status: 404, Body: gatewayPage, ContentType: "text/html"})
		Eventually(fault.Hits).Should(BeNumerically(">=", 3))
		Expect(f.Delete(ctx, key)).To(Succeed())
		Eventually(f.gone(ctx, key)).Should(BeTrue())
		Expect(f.Org.AuthKeys()).To(BeEmpty())
		Expect(f.events(ctx, key.Name)()).NotTo(ContainElement(v1alpha1.EventOrphaned))
	})

	It("does not make a token that has worked a refused one, by one answer", func(ctx context.Context) {
		kiosk := f.publish(ctx)
		f.Sim.Inject(connectsim.Fault{Route: "GET", Times: 1, Status: 401, Body: gatewayPage, ContentType: "text/html"})
		f.annotate(ctx, kiosk, v1alpha1.AnnotationReconcileRequestedAt, "now")
		Eventually(func() string { f.ready(ctx, kiosk)(); return kiosk.Status.LastHandledReconcileAt }).Should(Equal("now"))
		Expect(f.ready(ctx, kiosk)()).To(HavePrefix("True Available"))
	})

	It("is not billing because it forbids", func(ctx context.Context) {
		f.publish(ctx)
		f.pi("pi5-001")
		f.Sim.Inject(connectsim.Fault{Route: postDeployment, Times: 1, Status: 403, Body: "<html>Access denied</html>", ContentType: "text/html"})
		run := f.deployment("pi5-001")
		Expect(f.Create(ctx, run)).To(Succeed())
		Consistently(f.ready(ctx, run)).ShouldNot(HavePrefix("False"))
		Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
	})

	It("says who may do it when it is Connect that forbids", func(ctx context.Context) {
		f.Sim.Inject(connectsim.Fault{Route: postArtefact, Status: 403, Body: `{"message":"You are not an administrator"}`, ContentType: "application/json", RateHeaders: new(true)})
		kiosk := f.artefact("kiosk")
		Expect(f.Create(ctx, kiosk)).To(Succeed())
		Eventually(f.ready(ctx, kiosk)).Should(And(HavePrefix("False Forbidden"), ContainSubstring("You are not an administrator"), ContainSubstring("token of an administrator")))
	})
})

var _ = Describe("An outage", func() {
	It("costs next to nothing, and is over at once when it is over", func(ctx context.Context) {
		const running = 150
		f := newFleet(ctx, connectsim.Options{Window: 2 * time.Minute})
		for i := range running {
			f.pi(fmt.Sprintf("pi5-%03d", i))
		}
		f.start(ctx, "--deployment-poll-min=1s", "--deployment-poll-max=2s", "--resync-interval=5s")
		f.publish(ctx)
		for i := range running {
			Expect(f.Create(ctx, f.deployment(fmt.Sprintf("pi5-%03d", i)))).To(Succeed())
		}
		Eventually(func() int { return f.Sim.Count(postDeployment) }).Should(Equal(running))
		f.Sim.ResetJournal()
		f.Sim.Inject(connectsim.Fault{Status: 503, Body: "<html>down for maintenance</html>", ContentType: "text/html"})
		during := f.artefact("during")
		Expect(f.Create(ctx, during)).To(Succeed())
		Eventually(f.ready(ctx, during)).Should(HavePrefix("Unknown ConnectUnavailable"))
		Consistently(func() int { return f.Sim.Count("") }).WithTimeout(15 * time.Second).Should(BeNumerically("<=", 60))

		f.Sim.ClearFaults()
		Eventually(f.ready(ctx, during)).Should(HavePrefix("True Available"))
		f.Sim.ResetJournal()
		Eventually(func() int { return f.Sim.Count(getDeployment) }).Should(BeNumerically(">=", running))
	})
})

var _ = Describe("What devices and Connect write", func() {
	It("ends as a bounded line without control characters and secrets", func(ctx context.Context) {
		f := newFleet(ctx, connectsim.Options{})
		f.start(ctx, "--deployment-poll-min=200ms", "--deployment-poll-max=1s")
		f.publish(ctx)
		reasons := map[string]string{
			"long":     strings.Repeat("0123456789 ", 4500),
			"a-secret": "curl https://bot:" + uriSecret + "@updates.example.com/kiosk?sig=" + uriSecret + " with rpdev_123456789ABCDEFGHJKLMNPQ and rpoak_123456789ABCDEFGHJKLMNPQ",
			"control":  "red \x1b[31m, right to left \u202e, a line\nand another\x00",
		}
		for name, reason := range reasons {
			f.pi(name)
			run := f.deployment(name)
			Expect(f.Create(ctx, run)).To(Succeed())
			Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
			f.Org.MoveDeployment(run.Status.ID, connectsim.Failed, reason)
			Eventually(f.ready(ctx, run)).Should(HavePrefix("False Failed"))
			seen := f.ready(ctx, run)() + run.Status.StateReason
			Expect(len(run.Status.StateReason)).To(And(BeNumerically(">", 0), BeNumerically("<=", 1024)))
			for _, bad := range []string{uriSecret, "rpdev_1", "rpoak_1", "\x1b", "\u202e", "\n", "\x00"} {
				Expect(seen).NotTo(ContainSubstring(bad))
			}
			Eventually(f.events(ctx, name)).Should(ContainElement(v1alpha1.EventStateChanged))
		}
		var events eventsv1.EventList
		Expect(f.List(ctx, &events, client.InNamespace(f.ns))).To(Succeed())
		for _, e := range events.Items {
			Expect(e.Note).NotTo(ContainSubstring(uriSecret))
		}
	})

	It("does not lead a refusal that quotes a signed URI into a status", func(ctx context.Context) {
		f := newFleet(ctx, connectsim.Options{})
		f.start(ctx)
		kiosk := f.artefact("kiosk")
		f.Sim.Inject(connectsim.Fault{Route: postArtefact, Status: 422, ContentType: "application/json", RateHeaders: new(true),
			Body: fmt.Sprintf(`{"message":"Validation failed: Uri %s cannot be fetched"}`, kiosk.Spec.URI)})
		Expect(f.Create(ctx, kiosk)).To(Succeed())
		Eventually(f.ready(ctx, kiosk)).Should(And(HavePrefix("False Invalid"), ContainSubstring("cannot be fetched"), Not(ContainSubstring(uriSecret))))
	})
})

var _ = Describe("HTTP/2 over TLS", func() {
	It("carries the operator through resets and dead connections", func(ctx context.Context) {
		f := newFleet(ctx, connectsim.Options{})
		url, ca, err := f.Sim.StartTLS("")
		Expect(err).NotTo(HaveOccurred())
		file := filepath.Join(GinkgoT().TempDir(), "ca.pem")
		Expect(os.WriteFile(file, ca, 0o600)).To(Succeed())
		f.URL = url
		f.start(ctx, "--connect-ca-file="+file, "--post-settle-time=3s")
		f.Sim.Inject(connectsim.Fault{Route: postArtefact, Skip: 3, Times: 4, After: true, Drop: true})
		f.Sim.Inject(connectsim.Fault{Route: postArtefact, Skip: 12, Times: 1, Dead: true})
		const many = 20
		for i := range many {
			Expect(f.Create(ctx, f.artefact(fmt.Sprintf("kiosk-%02d", i)))).To(Succeed())
		}
		Eventually(f.readyCount(ctx, &v1alpha1.ArtefactList{})).WithTimeout(90 * time.Second).Should(Equal(many))
		Expect(f.Org.Artefacts()).To(HaveLen(many))
	})
})
