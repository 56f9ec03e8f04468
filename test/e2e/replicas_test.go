// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/test/cluster"
)

var _ = Describe("Two replicas", func() {
	It("make nothing twice when one takes over from the other", func(ctx context.Context) {
		f := newFleet(ctx, connectsim.Options{Latency: 20 * time.Millisecond})
		f.start(ctx, "--leader-elect", "--leader-elect-lease-duration=20s", "--max-concurrent-reconciles=2")
		f.startAnother(ctx, "--leader-elect", "--leader-elect-lease-duration=20s")

		for i := range 60 {
			Expect(f.Create(ctx, f.artefact(fmt.Sprintf("kiosk-%02d", i)))).To(Succeed())
		}
		Eventually(func() int { return len(f.Org.Artefacts()) }).WithPolling(time.Millisecond).Should(BeNumerically(">=", 20))
		held := lease()
		Expect(f.Get(ctx, client.ObjectKeyFromObject(held), held)).To(Succeed())
		Expect(held.Spec.LeaseDurationSeconds).To(HaveValue(BeEquivalentTo(20)))
		f.kill() // whichever it is, one is left
		Eventually(f.readyCount(ctx, &v1alpha1.ArtefactList{})).WithTimeout(time.Minute).Should(Equal(60))
		Expect(f.Org.Artefacts()).To(HaveLen(60))
	})
})

var _ = Describe("A leader that is cut off while its requests are on their way", func() {
	const settle = 15 * time.Second // longer than it takes the next leader to begin
	for revision, again := range map[connectsim.Revision]int{
		connectsim.Current: 2, // of those that it asks for, the API refuses to make an artefact and an identity twice
		connectsim.Older:   3, // and there a key that is lost can be neither seen nor waited for
	} {
		It("makes nothing twice together with the next one, on the "+string(revision)+" revision", func(ctx context.Context) {
			f := newFleet(ctx, connectsim.Options{Revision: revision})
			flags := []string{"--leader-elect", "--resync-interval=1s", "--deployment-poll-min=200ms", "--deployment-poll-max=1s", "--post-settle-time=" + settle.String()}
			leaderPosts, nextPosts := f.gate(), f.gate()
			api := f.startBehindProxy(ctx, append(flags, "--connect-api-url="+leaderPosts.URL())...)
			leader := f.manager
			leads := func(m *cluster.Manager) func() bool {
				return func() bool {
					leader, err := m.Metric(ctx, "leader_election_master_status")
					return err == nil && leader == 1
				}
			}
			Eventually(leads(leader)).Should(BeTrue())
			next := f.startAnother(ctx, append(flags, "--connect-api-url="+nextPosts.URL())...)

			By("having a resource of every kind that makes something, and holding each request of the leader")
			f.publish(ctx)
			f.pi("pi5-001")
			f.Sim.ResetJournal()
			leaderPosts.shut()
			made := f.oneOfEachMade(ctx)
			Eventually(leaderPosts.held).Should(Equal(len(made)))
			By("cutting it off, and having its lease run out")
			api.Disturb(func(*http.Request) cluster.APIFault { return cluster.APIFault{Down: true} })
			api.CutWatches()
			nextPosts.shut()
			Expect(f.Delete(ctx, lease())).To(Succeed())
			By("holding the requests of the next leader, too")
			Eventually(nextPosts.held).Should(Equal(again))
			Expect(leads(next)()).To(BeTrue())
			Expect(leader.Exited()).NotTo(BeClosed(), "both run")

			By("letting the late ones through, then those of the next leader")
			leaderPosts.open()
			for _, route := range []string{postArtefact, postIdentity, postAuthKey, postDeployment} {
				Eventually(func() int { return f.Sim.Count(route) }).ShouldNot(BeZero())
			}
			nextPosts.open()
			By("reaching the API server again, where the one that was cut off writes what it knows")
			api.Disturb(nil)
			Eventually(leader.Exited()).Should(BeClosed(), "it has lost its lease")

			for _, obj := range made {
				Eventually(f.ready(ctx, obj)).Should(Or(HavePrefix("True "), HavePrefix("Unknown Pending")))
				Expect(obj.GetCommonStatus().Adopted).To(BeFalse(), "the operator made %T", obj)
			}
			Expect(f.Org.Artefacts()).To(ConsistOf(HaveField("Name", "kiosk"), HaveField("Name", "lamp")))
			Expect(f.Org.DeviceIdentities()).To(HaveLen(1))
			Expect(f.Org.Deployments("")).To(HaveLen(1))
			Expect(f.Sim.Count(postDeployment)).To(Equal(1))
			Expect(f.delivered(ctx)).To(HaveLen(1))
			if revision == connectsim.Current {
				Eventually(f.live).Should(HaveLen(1))
			}

			for _, obj := range made {
				f.remove(ctx, obj)
			}
			Expect(f.Org.DeviceIdentities()).To(BeEmpty())
			Expect(f.Org.Artefacts()).To(ConsistOf(HaveField("Name", "kiosk")))
		})
	}
})

// oneOfEachMade creates a resource of each kind that sends a POST.
func (f *fleet) oneOfEachMade(ctx context.Context) []lifecycle.Object {
	GinkgoHelper()
	all := []lifecycle.Object{f.artefact("lamp"), f.signedIdentity(ctx), f.authKey("key"), f.deployment("pi5-001")}
	for _, obj := range all {
		Expect(f.Create(ctx, obj)).To(Succeed())
	}
	return all
}

// lease is what tells replicas apart.
func lease() *coordinationv1.Lease {
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: cluster.OperatorNamespace, Name: "rpi-connect-operator"}}
}

// startAnother starts one more operator beside the fleet's, and keeps its log.
func (f *fleet) startAnother(ctx context.Context, flags ...string) *cluster.Manager {
	GinkgoHelper()
	another, err := control.StartManager(ctx, binary, append([]string{"--connect-api-url=" + f.URL, "--zap-log-level=10"}, flags...)...)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() {
		another.Stop()
		f.logs = append(f.logs, another.Log())
		if CurrentSpecReport().Failed() {
			AddReportEntry("log of the other operator", tail(another.Log(), 200))
		}
	})
	Expect(another.WaitReady(ctx)).To(Succeed())
	return another
}

// gate is a way to Connect on which every POST can be held.
type gate struct {
	*cluster.Proxy
	opened chan struct{}
}

// gate starts a way to Connect.
func (f *fleet) gate() *gate {
	GinkgoHelper()
	proxy, err := f.ServeProxy()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(proxy.Close)
	g := &gate{Proxy: proxy, opened: make(chan struct{})}
	DeferCleanup(g.open)
	return g
}

// shut holds what is sent to make something from now on, until the gate is opened.
func (g *gate) shut() {
	g.Disturb(func(req *http.Request) cluster.APIFault {
		if req.Method != http.MethodPost {
			return cluster.APIFault{}
		}
		return cluster.APIFault{Hold: g.opened}
	})
}

// held is how many requests are held, or were.
func (g *gate) held() int { return g.Faults() }

// open lets everything through. It is opened once.
func (g *gate) open() {
	g.Disturb(nil)
	select {
	case <-g.opened:
	default:
		close(g.opened)
	}
}

var _ = Describe("Metrics", func() {
	It("are for those only whom the cluster allows to read them", func(ctx context.Context) {
		f := newFleet(ctx, connectsim.Options{})
		f.start(ctx, "--metrics-secure=true")
		account := func(name string) string {
			Expect(f.Create(ctx, &corev1.ServiceAccount{ObjectMeta: f.meta(name)})).To(Succeed())
			token, err := control.AccountToken(ctx, f.ns, name)
			Expect(err).NotTo(HaveOccurred())
			return token
		}
		stranger, prometheus := account("stranger"), account("prometheus")
		Expect(f.Create(ctx, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: f.ns + "-metrics"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "rpi-connect-metrics-reader"},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: f.ns, Name: "prometheus"}},
		})).To(Succeed())

		status := func(token string) int { status, _, _ := f.manager.SecureMetrics(ctx, token); return status }
		Eventually(func() int { return status("") }).Should(Equal(http.StatusUnauthorized))
		Expect(status(stranger)).To(Equal(http.StatusForbidden))
		Expect(status(prometheus)).To(Equal(http.StatusOK))
		_, body, err := f.manager.SecureMetrics(ctx, prometheus)
		Expect(err).NotTo(HaveOccurred())
		Expect(body).To(ContainSubstring("controller_runtime_"))
	})
})
