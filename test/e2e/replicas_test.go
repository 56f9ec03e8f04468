// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
)

var _ = Describe("Two replicas", func() {
	It("make nothing twice when one takes over from the other", func(ctx context.Context) {
		f := newFleet(ctx, connectsim.Options{Latency: 20 * time.Millisecond})
		f.start(ctx, "--leader-elect", "--max-concurrent-reconciles=2")
		second, err := control.StartManager(ctx, binary, "--connect-api-url="+f.URL, "--leader-elect")
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(second.Stop)
		Expect(second.WaitReady(ctx)).To(Succeed())

		for i := range 60 {
			Expect(f.Create(ctx, f.artefact(fmt.Sprintf("kiosk-%02d", i)))).To(Succeed())
		}
		Eventually(f.Org.Artefacts).WithPolling(time.Millisecond).Should(HaveLen(20))
		f.kill() // whichever it is, one is left
		Eventually(f.readyCount(ctx, &v1alpha1.ArtefactList{})).WithTimeout(time.Minute).Should(Equal(60))
		Expect(f.Org.Artefacts()).To(HaveLen(60))
	})
})

var _ = Describe("Metrics", func() {
	It("are for those only whom the cluster allows to read them", func(ctx context.Context) {
		f := newFleet(ctx, connectsim.Options{})
		f.start(ctx, "--metrics-secure=true")
		url := strings.Replace(f.manager.MetricsURL, "http://", "https://", 1)
		account := func(name string) string {
			account := &corev1.ServiceAccount{ObjectMeta: f.meta(name)}
			Expect(f.Create(ctx, account)).To(Succeed())
			request := &authenticationv1.TokenRequest{}
			Expect(f.SubResource("token").Create(ctx, account, request)).To(Succeed())
			return request.Status.Token
		}
		stranger, prometheus := account("stranger"), account("prometheus")
		Expect(f.Create(ctx, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: f.ns + "-metrics"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "rpi-connect-metrics-reader"},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: f.ns, Name: "prometheus"}},
		})).To(Succeed())

		status := func(token string) int { status, _ := readMetrics(ctx, url, token); return status }
		Eventually(func() int { return status("") }).Should(Equal(http.StatusUnauthorized))
		Expect(status(stranger)).To(Equal(http.StatusForbidden))
		Expect(status(prometheus)).To(Equal(http.StatusOK))
		_, body := readMetrics(ctx, url, prometheus)
		Expect(body).To(ContainSubstring("controller_runtime_"))
	})
})

// readMetrics reads what the operator serves with its own certificate.
func readMetrics(ctx context.Context, url, token string) (status int, body string) {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	Expect(err).NotTo(HaveOccurred())
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	Expect(err).NotTo(HaveOccurred())
	return res.StatusCode, string(text)
}
