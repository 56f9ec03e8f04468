// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/test/cluster"
)

var _ = Describe("Secrets that everybody quotes", func() {
	var f *fleet
	var quoted string // what a person, a device or a gateway writes
	key, deviceToken := connectsim.NewSecret("rpoak_"), connectsim.NewSecret("rpdev_")
	quick := []string{"--resync-interval=1s", "--deployment-poll-min=200ms", "--deployment-poll-max=1s", "--post-settle-time=3s"}

	BeforeEach(func(ctx context.Context) {
		f = newFleet(ctx, connectsim.Options{})
		encoded := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
		quoted = strings.Join([]string{
			"Authorization: Bearer " + f.Token, key, deviceToken,
			"https://bot:" + uriSecret + "@updates.example.com/kiosk.tar.zst?X-Signature=" + uriSecret + "#" + uriSecret,
			inURL(f.Token), encoded(f.Token), encoded("=" + key), encoded("a=" + deviceToken), "bot:" + uriSecret + "@updates.example.com",
		}, " ")
	})

	It("are seen neither in what devices and others in the organisation write", func(ctx context.Context) {
		f.start(ctx, quick...)
		board := f.Org.AddDevice(connectsim.Device{Name: "pi " + quoted, SerialNumber: "serial-1", Tags: []string{"lab"}})
		f.Org.AddArtefact("taken", "https://bot:"+uriSecret+"@elsewhere.example.com/kiosk?X-Signature="+uriSecret, strings.Repeat("f", 64))
		f.publish(ctx)
		taken := f.artefact("taken")
		run := f.deployment("by-serial-number")
		run.Spec.Device = v1alpha1.DeviceReference{SerialNumber: board.SerialNumber}
		for _, obj := range []client.Object{taken, run} {
			Expect(f.Create(ctx, obj)).To(Succeed())
		}
		Eventually(f.ready(ctx, taken)).Should(And(HavePrefix("False Conflict"), ContainSubstring("elsewhere.example.com/kiosk")))
		Eventually(f.ready(ctx, run)).Should(HavePrefix("Unknown Pending"))
		Expect(run.Status.DeviceName).To(ContainSubstring("[redacted]"))
		f.Org.MoveDeployment(run.Status.ID, connectsim.Failed, quoted)
		Eventually(f.ready(ctx, run)).Should(And(HavePrefix("False Failed"), ContainSubstring("[redacted]")))
		Eventually(f.events(ctx, run.Name)).Should(ContainElement(v1alpha1.EventStateChanged))
	})

	It("nor in what Connect refuses, and gateways answer in its place", func(ctx context.Context) {
		f.start(ctx, quick...)
		board := f.pi("pi5-001")
		f.publish(ctx)
		text, err := json.Marshal(map[string]string{"message": "Validation failed: " + quoted})
		Expect(err).NotTo(HaveOccurred())
		for _, route := range []string{postArtefact, postIdentity, postAuthKey, postDeployment, patchDevice} {
			f.Sim.Inject(connectsim.Fault{Route: route, Status: 422, Body: string(text), ContentType: "application/json", RateHeaders: new(true)})
		}
		device := f.board("board", board.SerialNumber)
		device.Spec.Tags = []string{"other"}
		all := []lifecycle.Object{f.artefact("lamp"), f.signedIdentity(ctx), f.authKey("key"), f.deployment("pi5-001"), device}
		for _, obj := range all {
			Expect(f.Create(ctx, obj)).To(Succeed())
		}
		for _, obj := range all {
			Eventually(f.ready(ctx, obj)).Should(And(HavePrefix("False Invalid"), ContainSubstring("[redacted]")), "%T", obj)
		}
		By("answering what is no answer of the API")
		f.Sim.ClearFaults()
		wrong, err := json.Marshal(map[string]any{"id": "1", "name": quoted, "secret": key, "created_at": quoted, "expires_at": key, "description": []string{quoted}})
		Expect(err).NotTo(HaveOccurred())
		var faults []*connectsim.Injected
		for _, answer := range []connectsim.Fault{
			{Route: postAuthKey, Status: 201, Body: string(wrong), ContentType: "application/json", RateHeaders: new(true)},
			{Route: postArtefact, Status: 201, Body: string(wrong[:len(wrong)/2]), ContentType: "application/json", RateHeaders: new(true)},
			{Route: "GET", Status: 200, Body: `{"` + key + `":[` + string(wrong) + `],"meta":{"page":"` + f.Token + `"}}`, ContentType: "application/json", RateHeaders: new(true)},
			{Route: "POST", Status: 200, Body: quoted, ContentType: quoted},
			{Status: 302, Location: f.URL + "/?token=" + f.Token, Header: http.Header{"Server": {quoted}, "Retry-After": {quoted}}},
			{Status: 502, Body: "<html>" + quoted + "</html>", ContentType: "text/html"},
		} {
			answer.Times = 1
			faults = append(faults, f.Sim.Inject(answer))
		}
		Eventually(func() (hits int) {
			for i, obj := range all {
				f.annotate(ctx, obj, v1alpha1.AnnotationReconcileRequestedAt, fmt.Sprint(time.Now().UnixNano(), i))
			}
			for _, fault := range faults {
				hits += fault.Hits()
			}
			return hits
		}).WithPolling(200 * time.Millisecond).Should(Equal(len(faults)))
	})

	It("nor where they are put in the wrong place", func(ctx context.Context) {
		f.start(ctx, quick...)
		kiosk := f.artefact("kiosk")
		Expect(f.Create(ctx, kiosk)).To(Succeed())
		for value, says := range map[string]string{
			key: "an auth key", deviceToken: "a device's token", f.Token + "\n" + key: "several lines", f.Token + "\x01": "characters",
			"rporg_" + key: "AccessTokenRejected",
		} {
			f.putToken(ctx, value)
			Eventually(f.ready(ctx, kiosk)).Should(ContainSubstring(says))
		}
		f.putToken(ctx, f.Token)
		Eventually(f.ready(ctx, kiosk)).Should(HavePrefix("True Available"))

		identity := f.signedIdentity(ctx)
		Expect(f.Patch(ctx, f.secretOf(ctx, "device-key")(), client.RawPatch("application/merge-patch+json",
			fmt.Appendf(nil, `{"stringData":{"key.pem":%q}}`, "-----BEGIN EC PRIVATE KEY-----\n"+quoted+"\n-----END EC PRIVATE KEY-----")))).To(Succeed())
		Expect(f.Create(ctx, identity)).To(Succeed())
		Eventually(f.ready(ctx, identity)).Should(HavePrefix("False "))
	})

	It("nor in what the API server says, or a webhook behind it", func(ctx context.Context) {
		proxy := f.startBehindProxy(ctx, quick...)
		f.publish(ctx)
		for _, fault := range []cluster.APIFault{{Status: 422, Message: quoted}, {Status: 403, Message: quoted}, {Status: 500, Message: quoted}} {
			before := proxy.Faults()
			proxy.Disturb(func(req *http.Request) cluster.APIFault {
				ours := strings.Contains(req.URL.Path, v1alpha1.GroupVersion.Group) || strings.Contains(req.URL.Path, "/secrets") || strings.Contains(req.URL.Path, "/events")
				if !ours || req.Method == http.MethodGet {
					return cluster.APIFault{}
				}
				return fault
			})
			name := fmt.Sprintf("key-%d", fault.Status)
			Expect(f.Create(ctx, f.authKey(name))).To(Succeed())
			Expect(f.Create(ctx, f.artefact(name))).To(Succeed())
			Eventually(func() int { return proxy.Faults() - before }).Should(BeNumerically(">=", 5))
		}
		proxy.Disturb(nil)
		Eventually(f.readyCount(ctx, &v1alpha1.AuthKeyList{})).WithTimeout(time.Minute).Should(Equal(3))
		Expect(f.delivered(ctx)).To(HaveLen(3))
	})

	It("nor in what its goroutines are doing when it is ended by force, nor in profiles, which are not served", func(ctx context.Context) {
		f.start(ctx, quick...)
		f.publish(ctx)
		By("having listings and new keys on their way")
		fault := f.Sim.Inject(connectsim.Fault{Drip: time.Second, Pieces: 60})
		for i := range 3 {
			Expect(f.Create(ctx, f.authKey(fmt.Sprintf("pi5-%03d", i)))).To(Succeed())
			Expect(f.Create(ctx, f.artefact(fmt.Sprintf("kiosk-%d", i)))).To(Succeed())
		}
		Eventually(fault.Hits).Should(BeNumerically(">=", 4))
		for _, at := range []string{strings.TrimSuffix(f.manager.MetricsURL, "/metrics"), f.manager.ProbesURL} {
			for _, profile := range []string{"", "heap", "allocs", "goroutine?debug=2", "threadcreate", "block", "mutex", "cmdline", "profile?seconds=1", "symbol", "trace?seconds=1"} {
				Expect(answersNothing(ctx, at+"/debug/pprof/"+profile)).To(BeTrue(), profile)
			}
		}
		f.end((*cluster.Manager).Dump)
		Expect(f.logs[len(f.logs)-1]).To(And(ContainSubstring("SIGQUIT"), ContainSubstring("connectclient.(")), "what it was doing")
	})
})

// answersNothing tells whether there is nothing at a URL.
func answersNothing(ctx context.Context, url string) bool {
	GinkgoHelper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	Expect(err).NotTo(HaveOccurred())
	res, err := http.DefaultClient.Do(req)
	Expect(err).NotTo(HaveOccurred())
	defer func() { _ = res.Body.Close() }()
	_, err = io.Copy(io.Discard, res.Body)
	return err == nil && res.StatusCode == http.StatusNotFound
}

// inURL is a token as URLs may have it.
func inURL(token string) string { return strings.Replace(token, "_", "%5F", 1) }

// expectNoSecrets looks for what must not be seen in everything that can be seen: logs, metrics, and
// objects as the API server has them, with what it notes about who has written what. It does not look
// where users put secrets: at the specs of resources, and the data of Secrets.
func (f *fleet) expectNoSecrets(ctx context.Context) {
	GinkgoHelper()
	secrets := []string{f.Token, "rporg_", "rpoak_", "rpdev_", uriSecret}
	for _, prefix := range []string{"rporg_", "rpoak_", "rpdev_"} {
		secrets = append(secrets, inURL(prefix))
		// What is encoded in base64 looks different by how many bytes come before it.
		for skip := range 3 {
			text := base64.StdEncoding.EncodeToString([]byte(strings.Repeat(" ", skip) + prefix))
			secrets = append(secrets, text[(8*skip+5)/6:8*(skip+len(prefix))/6])
		}
	}
	words := strings.NewReplacer("rporg_…", "", "rpoak_…", "", "rpdev_…", "") // what a message calls a token
	see := func(where, text string) {
		for line := range strings.Lines(words.Replace(text)) {
			for _, secret := range secrets {
				at := strings.Index(line, secret)
				Expect(at).To(Equal(-1), "a secret is in %s, after %s", where, line[:max(0, at)])
			}
		}
	}
	for _, log := range f.logs {
		see("the log or the metrics", log)
	}
	for _, list := range append(cluster.Lists(), &eventsv1.EventList{}, &corev1.SecretList{}, &corev1.ConfigMapList{}) {
		Expect(f.List(ctx, list, client.InNamespace(f.ns))).To(Succeed())
		Expect(meta.EachListItem(list, func(item runtime.Object) error {
			fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(item)
			if err != nil {
				return err
			}
			for _, users := range [][]string{{"spec"}, {"data"}, {"metadata", "annotations", corev1.LastAppliedConfigAnnotation}} {
				unstructured.RemoveNestedField(fields, users...)
			}
			text, err := json.Marshal(fields)
			see(fmt.Sprintf("%T %s", item, item.(client.Object).GetName()), string(text))
			return err
		})).To(Succeed())
	}
}
