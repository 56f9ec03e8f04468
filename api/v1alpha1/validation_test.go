// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/test/cluster"
)

// These tests take a valid resource, change one thing, and expect the API
// server's answer to say what to do instead.

const publicKey = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYP7UuiVanTHJYet0xjVtaMBJuJI7
Yfps5mliLmDyn7Z5A/4QCLi8maQa6elWKLxk8vGyDC1+n1F3o8KU1EYimQ==
-----END PUBLIC KEY-----
`

func named() metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "default", GenerateName: "valid-"}
}

func validArtefact() *v1alpha1.Artefact {
	return &v1alpha1.Artefact{ObjectMeta: named(), Spec: v1alpha1.ArtefactSpec{
		URI: "https://updates.example.com/kiosk.tar.zst", Checksum: strings.Repeat("0a", 32),
	}}
}

func validIdentity() *v1alpha1.DeviceIdentity {
	return &v1alpha1.DeviceIdentity{ObjectMeta: named(), Spec: v1alpha1.DeviceIdentitySpec{PublicKey: publicKey, Tags: []string{"production"}}}
}

func validAuthKey() *v1alpha1.AuthKey {
	return &v1alpha1.AuthKey{ObjectMeta: named(), Spec: v1alpha1.AuthKeySpec{DeviceName: "pi5-001", Tags: []string{"production"}}}
}

func validDeployment() *v1alpha1.Deployment {
	return &v1alpha1.Deployment{ObjectMeta: named(), Spec: v1alpha1.DeploymentSpec{
		ArtefactRef: &v1alpha1.ArtefactReference{Name: "kiosk"}, Device: v1alpha1.DeviceReference{Name: "pi5-001"},
	}}
}

func validDevice() *v1alpha1.Device {
	return &v1alpha1.Device{ObjectMeta: named(), Spec: v1alpha1.DeviceSpec{
		Device: v1alpha1.SingleDeviceReference{SerialNumber: "10000000c0ffee01"}, Name: "kiosk-lobby", Tags: []string{"kiosk"},
	}}
}

// expect creates the resource, and expects it to be refused with the words given;
// none stands for accepted.
func expect(ctx context.Context, obj client.Object, words string) {
	GinkgoHelper()
	err := apiServer.Create(ctx, obj)
	if words == "" {
		Expect(err).NotTo(HaveOccurred())
		return
	}
	Expect(err).To(MatchError(ContainSubstring(words)))
}

// expectUpdate creates the resource, changes it, and expects that to be refused.
func expectUpdate[O client.Object](ctx context.Context, obj O, change func(O), words string) {
	GinkgoHelper()
	Expect(apiServer.Create(ctx, obj)).To(Succeed())
	change(obj)
	err := apiServer.Update(ctx, obj)
	if words == "" {
		Expect(err).NotTo(HaveOccurred())
		return
	}
	Expect(err).To(MatchError(ContainSubstring(words)))
}

func duration(text string) *metav1.Duration {
	d, err := time.ParseDuration(text)
	Expect(err).NotTo(HaveOccurred())
	return &metav1.Duration{Duration: d}
}

var _ = DescribeTable("An Artefact", func(ctx context.Context, change func(*v1alpha1.ArtefactSpec), words string) {
	obj := validArtefact()
	change(&obj.Spec)
	expect(ctx, obj, words)
},
	Entry("is valid", func(*v1alpha1.ArtefactSpec) {}, ""),
	Entry("may have a name of its own", func(s *v1alpha1.ArtefactSpec) { s.Name = "Kiosk 1.0" }, ""),
	Entry("needs a name that is not blank", func(s *v1alpha1.ArtefactSpec) { s.Name = "  " }, "name must not be blank"),
	Entry("may be fetched over ftp", func(s *v1alpha1.ArtefactSpec) { s.URI = "ftp://updates.example.com/kiosk.tar.zst" }, ""),
	Entry("may be fetched over sftp", func(s *v1alpha1.ArtefactSpec) { s.URI = "sftp://u@updates.example.com/kiosk.tar.zst" }, ""),
	Entry("needs a scheme", func(s *v1alpha1.ArtefactSpec) { s.URI = "updates.example.com/kiosk.tar.zst" }, "must be an absolute http, https, ftp, sftp or file URI"),
	Entry("may be on the device's own disk", func(s *v1alpha1.ArtefactSpec) { s.URI = "file:///srv/kiosk.tar.zst" }, ""),
	Entry("may be on the device's own disk, in short", func(s *v1alpha1.ArtefactSpec) { s.URI = "file:/srv/kiosk.tar.zst" }, ""),
	Entry("needs a path on the device's own disk", func(s *v1alpha1.ArtefactSpec) { s.URI = "file:kiosk.tar.zst" }, "must be an absolute http, https, ftp, sftp or file URI"),
	Entry("needs a scheme that devices fetch", func(s *v1alpha1.ArtefactSpec) { s.URI = "s3://bucket/kiosk.tar.zst" }, "must be an absolute http, https, ftp, sftp or file URI"),
	Entry("may have a long name", func(s *v1alpha1.ArtefactSpec) { s.Name = strings.Repeat("kiosk ", 300) }, ""),
	Entry("may say which devices it is made for", func(s *v1alpha1.ArtefactSpec) {
		s.CompatibleWith = &v1alpha1.Compatibility{Models: []string{"5", "cm5"}, OS: []string{"raspios-13"}, MinMemory: "4gb"}
	}, ""),
	Entry("says something about the devices it is made for, or nothing", func(s *v1alpha1.ArtefactSpec) { s.CompatibleWith = &v1alpha1.Compatibility{} }, "say at least one of models, os and minMemory"),
	Entry("knows the sizes of memory that there are", func(s *v1alpha1.ArtefactSpec) { s.CompatibleWith = &v1alpha1.Compatibility{MinMemory: "3gb"} }, "supported values"),
	Entry("needs a host", func(s *v1alpha1.ArtefactSpec) { s.URI = "https:///kiosk.tar.zst" }, "must be an absolute http, https, ftp, sftp or file URI"),
	Entry("needs a URI without white space", func(s *v1alpha1.ArtefactSpec) { s.URI = "https://updates.example.com/kiosk 1.tar.zst" }, "must be an absolute http, https, ftp, sftp or file URI"),
	Entry("takes a checksum in upper case", func(s *v1alpha1.ArtefactSpec) { s.Checksum = strings.Repeat("0A", 32) }, ""),
	Entry("needs a whole checksum", func(s *v1alpha1.ArtefactSpec) { s.Checksum = s.Checksum[1:] }, "checksum"),
	Entry("needs a hexadecimal checksum", func(s *v1alpha1.ArtefactSpec) { s.Checksum = strings.Repeat("0g", 32) }, "as sha256sum prints it"),
	Entry("takes its token from a Secret whose name is one", func(s *v1alpha1.ArtefactSpec) { s.AccessTokenSecretRef.Name = "My_Secret" }, "name must be the name of a Secret"),
	Entry("takes its token from a key that a Secret can have", func(s *v1alpha1.ArtefactSpec) { s.AccessTokenSecretRef.Key = ".." }, "key must be a key of a Secret's data"),
	Entry("knows two deletion policies", func(s *v1alpha1.ArtefactSpec) { s.DeletionPolicy = "Keep" }, `supported values: "Delete", "Orphan"`),
)

var _ = DescribeTable("An Artefact never changes", func(ctx context.Context, change func(*v1alpha1.Artefact), words string) {
	expectUpdate(ctx, validArtefact(), change, words)
},
	Entry("its uri", func(a *v1alpha1.Artefact) { a.Spec.URI += "2" }, "create a new Artefact under a new name instead"),
	Entry("its checksum", func(a *v1alpha1.Artefact) { a.Spec.Checksum = strings.Repeat("0b", 32) }, "create a new Artefact under a new name instead"),
	Entry("its name", func(a *v1alpha1.Artefact) { a.Spec.Name = "other" }, "create a new Artefact instead"),
	Entry("but its deletionPolicy", func(a *v1alpha1.Artefact) { a.Spec.DeletionPolicy = "Orphan" }, ""),
)

var _ = DescribeTable("A DeviceIdentity", func(ctx context.Context, change func(*v1alpha1.DeviceIdentitySpec), words string) {
	obj := validIdentity()
	change(&obj.Spec)
	expect(ctx, obj, words)
},
	Entry("is valid", func(*v1alpha1.DeviceIdentitySpec) {}, ""),
	Entry("takes PEM without a final newline", func(s *v1alpha1.DeviceIdentitySpec) { s.PublicKey = strings.TrimSpace(s.PublicKey) }, ""),
	Entry("takes PEM with CRLF", func(s *v1alpha1.DeviceIdentitySpec) { s.PublicKey = strings.ReplaceAll(s.PublicKey, "\n", "\r\n") }, ""),
	Entry("refuses a private key", func(s *v1alpha1.DeviceIdentitySpec) {
		s.PublicKey = strings.ReplaceAll(s.PublicKey, "PUBLIC", "PRIVATE")
	}, "must be one PEM block"),
	Entry("refuses text around the PEM", func(s *v1alpha1.DeviceIdentitySpec) { s.PublicKey = "key: " + s.PublicKey }, "must be one PEM block"),
	Entry("refuses two keys", func(s *v1alpha1.DeviceIdentitySpec) { s.PublicKey += s.PublicKey }, "must be one PEM block"),
	Entry("needs a description that is not blank", func(s *v1alpha1.DeviceIdentitySpec) { s.Description = " " }, "leave it out to use the resource's name"),
	Entry("needs a device name that is not blank", func(s *v1alpha1.DeviceIdentitySpec) { s.DeviceName = " " }, "leave it out instead"),
	Entry("has at most ten tags", func(s *v1alpha1.DeviceIdentitySpec) { s.Tags = strings.Split("a b c d e f g h i j k", " ") }, "must have at most 10 items"),
	Entry("has each tag once", func(s *v1alpha1.DeviceIdentitySpec) { s.Tags = []string{"a", "a"} }, "tags must name each tag once"),
	Entry("has tags in lower case", func(s *v1alpha1.DeviceIdentitySpec) { s.Tags = []string{"Production"} }, "a tag must be of lower-case letters"),
	Entry("has short tags", func(s *v1alpha1.DeviceIdentitySpec) { s.Tags = []string{strings.Repeat("a", 31)} }, "Too long: may not be more than 30"),
	Entry("is signed in one way only", func(s *v1alpha1.DeviceIdentitySpec) {
		s.Signing = &v1alpha1.Signing{Signature: "MEUC", PrivateKeySecretRef: &v1alpha1.SecretKeyReference{Name: "key", Key: "pem"}}
	}, "privateKeySecretRef and signature exclude each other"),
	Entry("needs a signature in base64", func(s *v1alpha1.DeviceIdentitySpec) { s.Signing = &v1alpha1.Signing{Signature: "-----BEGIN"} }, "must be base64"),
)

var _ = DescribeTable("A DeviceIdentity keeps", func(ctx context.Context, change func(*v1alpha1.DeviceIdentity), words string) {
	expectUpdate(ctx, validIdentity(), change, words)
},
	Entry("its key", func(d *v1alpha1.DeviceIdentity) {
		d.Spec.PublicKey = strings.ReplaceAll(d.Spec.PublicKey, "imQ==", "imR==")
	}, "create a new DeviceIdentity instead"),
	Entry("not its tags", func(d *v1alpha1.DeviceIdentity) { d.Spec.Tags = nil }, ""),
)

var _ = DescribeTable("An AuthKey", func(ctx context.Context, change func(*v1alpha1.AuthKeySpec), words string) {
	obj := validAuthKey()
	change(&obj.Spec)
	expect(ctx, obj, words)
},
	Entry("is valid", func(*v1alpha1.AuthKeySpec) {}, ""),
	Entry("needs a description that is not blank", func(s *v1alpha1.AuthKeySpec) { s.Description = " " }, "leave it out to use the resource's name"),
	Entry("lives at most 90 days", func(s *v1alpha1.AuthKeySpec) { s.TTLDays = 91 }, "should be less than or equal to 90"),
	Entry("lives at least a day", func(s *v1alpha1.AuthKeySpec) { s.TTLDays = -1 }, "should be greater than or equal to 1"),
	Entry("knows three ways of renewal", func(s *v1alpha1.AuthKeySpec) { s.Renewal = "Sometimes" }, `supported values: "Never", "BeforeExpiry", "Always"`),
	Entry("is renewed before its end", func(s *v1alpha1.AuthKeySpec) { s.RenewBefore = duration("24h") }, "renewBefore must leave at least a tenth of the lifetime"),
	Entry("is renewed before its end, by a minute at least", func(s *v1alpha1.AuthKeySpec) { s.RenewBefore = duration("24h1m") }, "renewBefore must leave at least a tenth of the lifetime"),
	Entry("may be renewed after a tenth of its life", func(s *v1alpha1.AuthKeySpec) { s.RenewBefore = duration("21h36m") }, ""),
	Entry("is not renewed sooner", func(s *v1alpha1.AuthKeySpec) { s.RenewBefore = duration("21h37m") }, "renewBefore must leave at least a tenth of the lifetime"),
	Entry("may label its Secret", func(s *v1alpha1.AuthKeySpec) {
		s.Secret.Labels = map[string]v1alpha1.LabelValue{"example.com/team": "kiosk-1.0", "room": ""}
	}, ""),
	Entry("needs values that labels can have", func(s *v1alpha1.AuthKeySpec) { s.Secret.Labels = map[string]v1alpha1.LabelValue{"team": "a b"} }, "the value of each label must be"),
	Entry("needs names that labels can have", func(s *v1alpha1.AuthKeySpec) { s.Secret.Labels = map[string]v1alpha1.LabelValue{"a b": "team"} }, "each name of a label must be"),
	Entry("is renewed some time before its end", func(s *v1alpha1.AuthKeySpec) { s.RenewBefore = duration("-1h") }, "renewBefore must be longer than nothing"),
	Entry("needs a device name that is not blank", func(s *v1alpha1.AuthKeySpec) { s.DeviceName = "\t" }, "leave it out instead"),
	Entry("goes to a key that a Secret can have", func(s *v1alpha1.AuthKeySpec) { s.Secret.Key = "auth key" }, "secret.key must be a key of a Secret's data"),
	Entry("goes to a Secret whose name is one", func(s *v1alpha1.AuthKeySpec) { s.Secret.Name = "My_Secret" }, "secret.name must be the name of a Secret"),
	Entry("leaves the operator its labels", func(s *v1alpha1.AuthKeySpec) {
		s.Secret.Labels = map[string]v1alpha1.LabelValue{"rpi-connect.dev/id": "x"}
	}, "choose another prefix"),
	Entry("leaves the operator its annotations", func(s *v1alpha1.AuthKeySpec) { s.Secret.Annotations = map[string]string{"rpi-connect.dev/id": "x"} }, "choose another prefix"),
)

var _ = DescribeTable("A Deployment", func(ctx context.Context, change func(*v1alpha1.DeploymentSpec), words string) {
	obj := validDeployment()
	change(&obj.Spec)
	expect(ctx, obj, words)
},
	Entry("is valid", func(*v1alpha1.DeploymentSpec) {}, ""),
	Entry("needs an artefact", func(s *v1alpha1.DeploymentSpec) { s.ArtefactRef = nil }, "set exactly one of artefactRef and artefactID"),
	Entry("has one artefact", func(s *v1alpha1.DeploymentSpec) { s.ArtefactID = "12345" }, "set exactly one of artefactRef and artefactID"),
	Entry("needs a device", func(s *v1alpha1.DeploymentSpec) { s.Device = v1alpha1.DeviceReference{} }, "device"),
	Entry("has one device", func(s *v1alpha1.DeploymentSpec) { s.Device.SerialNumber = "1000" }, "set exactly one of id, name, serialNumber and query"),
	Entry("refers to an Artefact by the name of a resource", func(s *v1alpha1.DeploymentSpec) { s.ArtefactRef.Name = "Kiosk 1.0" }, "must be the name of an Artefact resource"),
	Entry("needs an artefact id that is not blank", func(s *v1alpha1.DeploymentSpec) { s.ArtefactRef, s.ArtefactID = nil, " " }, "artefactID must not be blank"),
	Entry("needs a device name that is not blank", func(s *v1alpha1.DeploymentSpec) { s.Device.Name = " " }, "device.name must not be blank"),
	Entry("waits some time", func(s *v1alpha1.DeploymentSpec) { s.PendingDeadline = duration("-1h") }, "pendingDeadline must be longer than nothing"),
)

var _ = DescribeTable("A Deployment runs once, so it keeps", func(ctx context.Context, change func(*v1alpha1.Deployment), words string) {
	expectUpdate(ctx, validDeployment(), change, words)
},
	Entry("its artefact", func(d *v1alpha1.Deployment) { d.Spec.ArtefactRef.Name = "other" }, "create a new one instead"),
	Entry("how its artefact is named", func(d *v1alpha1.Deployment) { d.Spec.ArtefactRef, d.Spec.ArtefactID = nil, "12345" }, "create a new one instead"),
	Entry("its device", func(d *v1alpha1.Deployment) { d.Spec.Device.Name = "other" }, "create a new one instead"),
	Entry("its force", func(d *v1alpha1.Deployment) { d.Spec.Force = true }, "create a new one instead"),
	Entry("but not cancel", func(d *v1alpha1.Deployment) { d.Spec.Cancel = true }, ""),
	Entry("nor pendingDeadline", func(d *v1alpha1.Deployment) { d.Spec.PendingDeadline = duration("1h") }, ""),
)

var _ = DescribeTable("A Device", func(ctx context.Context, change func(*v1alpha1.DeviceSpec), words string) {
	obj := validDevice()
	change(&obj.Spec)
	expect(ctx, obj, words)
},
	Entry("is valid", func(*v1alpha1.DeviceSpec) {}, ""),
	Entry("may be named by its id", func(s *v1alpha1.DeviceSpec) { s.Device = v1alpha1.SingleDeviceReference{ID: "12345"} }, ""),
	Entry("may be named by its name", func(s *v1alpha1.DeviceSpec) { s.Device = v1alpha1.SingleDeviceReference{Name: "raspberrypi"} }, ""),
	Entry("is named", func(s *v1alpha1.DeviceSpec) { s.Device = v1alpha1.SingleDeviceReference{} }, "device"),
	Entry("is named in one way", func(s *v1alpha1.DeviceSpec) { s.Device.Name = "raspberrypi" }, "set exactly one of id, name and serialNumber: the serial number is what survives a reflash"),
	Entry("needs an id that is not blank", func(s *v1alpha1.DeviceSpec) { s.Device = v1alpha1.SingleDeviceReference{ID: " "} }, "device.id must not be blank"),
	Entry("needs a name to be found by that is not blank", func(s *v1alpha1.DeviceSpec) { s.Device = v1alpha1.SingleDeviceReference{Name: " "} }, "device.name must not be blank"),
	Entry("needs a serial number that is not blank", func(s *v1alpha1.DeviceSpec) { s.Device.SerialNumber = " " }, "device.serialNumber must not be blank"),
	Entry("needs a name that is not blank", func(s *v1alpha1.DeviceSpec) { s.Name = " " }, "leave it out to leave the device's name alone"),
	Entry("may have a long name", func(s *v1alpha1.DeviceSpec) { s.Name = strings.Repeat("kiosk ", 300) }, ""),
	Entry("has at most ten tags", func(s *v1alpha1.DeviceSpec) { s.Tags = strings.Split("a b c d e f g h i j k", " ") }, "must have at most 10 items"),
	Entry("has each tag once", func(s *v1alpha1.DeviceSpec) { s.Tags = []string{"a", "a"} }, "tags must name each tag once"),
	Entry("has tags in lower case", func(s *v1alpha1.DeviceSpec) { s.Tags = []string{"Production"} }, "a tag must be of lower-case letters"),
	Entry("knows two deletion policies", func(s *v1alpha1.DeviceSpec) { s.DeletionPolicy = "Keep" }, `supported values: "Delete", "Orphan"`),
)

var _ = DescribeTable("A Device keeps", func(ctx context.Context, change func(*v1alpha1.Device), words string) {
	expectUpdate(ctx, validDevice(), change, words)
},
	Entry("its device", func(d *v1alpha1.Device) { d.Spec.Device.SerialNumber = "other" }, "create another Device for another one"),
	Entry("how its device is named", func(d *v1alpha1.Device) { d.Spec.Device = v1alpha1.SingleDeviceReference{ID: "12345"} }, "create another Device for another one"),
	Entry("not its name", func(d *v1alpha1.Device) { d.Spec.Name = "kiosk-cafe" }, ""),
	Entry("nor its tags", func(d *v1alpha1.Device) { d.Spec.Tags = nil }, ""),
)

var _ = Describe("The tags of a Device", func() {
	It("are none, or nobody's business", func(ctx context.Context) {
		for _, tags := range [][]v1alpha1.Tag{nil, {}} {
			obj := validDevice()
			obj.Spec.Tags = tags
			Expect(apiServer.Create(ctx, obj)).To(Succeed())
			live := &v1alpha1.Device{}
			Expect(apiServer.Get(ctx, client.ObjectKeyFromObject(obj), live)).To(Succeed())
			Expect(live.Spec.Tags == nil).To(Equal(tags == nil))
		}
	})
})

var _ = Describe("Every kind", func() {
	It("has its defaults", func(ctx context.Context) {
		key := validAuthKey()
		Expect(apiServer.Create(ctx, key)).To(Succeed())
		Expect(key.Spec.AccessTokenSecretRef).To(Equal(v1alpha1.AccessTokenReference{Name: "connect-access-token", Key: "token"}))
		Expect(key.Spec.TTLDays).To(BeEquivalentTo(1))
		Expect(key.Spec.Secret.Key).To(Equal("auth.key"))
		Expect(key.Spec.Renewal).To(Equal(v1alpha1.RenewalNever))
		for _, obj := range []client.Object{validArtefact(), validIdentity(), validAuthKey(), validDeployment(), validDevice()} {
			Expect(apiServer.Create(ctx, obj)).To(Succeed())
			live := &unstructured.Unstructured{}
			gvk, err := apiServer.GroupVersionKindFor(obj)
			Expect(err).NotTo(HaveOccurred())
			live.SetGroupVersionKind(gvk)
			Expect(apiServer.Get(ctx, client.ObjectKeyFromObject(obj), live)).To(Succeed())
			Expect(live.Object["status"]).To(Equal(map[string]any{"observedGeneration": int64(-1)}), gvk.Kind)
		}
	})

	It("says how to write a duration that has no unit for days", func(ctx context.Context) {
		for kind, field := range map[string]string{"AuthKey": "renewBefore", "Deployment": "pendingDeadline"} {
			obj := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{
				field: "1d", "artefactID": "12345", "device": map[string]any{"id": "12345"},
			}}}
			obj.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind))
			obj.SetNamespace("default")
			obj.SetGenerateName("valid-")
			Expect(apiServer.Create(ctx, obj)).To(MatchError(ContainSubstring("there is no unit for days, write 24h")), kind)
		}
	})

	It("is not changed by being applied again", func(ctx context.Context) {
		manifest := &unstructured.Unstructured{}
		Expect(yaml.Unmarshal([]byte(`
apiVersion: rpi-connect.dev/v1alpha1
kind: AuthKey
metadata: {name: applied, namespace: default}
spec: {deviceName: pi5-001}
`), &manifest.Object)).To(Succeed())
		apply := func() string {
			obj := manifest.DeepCopy()
			Expect(apiServer.Apply(ctx, client.ApplyConfigurationFromUnstructured(obj), client.FieldOwner("git"))).To(Succeed())
			return obj.GetResourceVersion()
		}
		apply()
		Expect(apply()).NotTo(BeEmpty()) // stores what the first one was given by default
		Expect(apply()).To(Equal(apply()))
	})

	It("reads well in a table and in kubectl explain", func() {
		files, err := filepath.Glob(filepath.Join(cluster.Root(), "config/crd/bases/*.yaml"))
		Expect(err).NotTo(HaveOccurred())
		Expect(files).To(HaveLen(len(cluster.Kinds())), "make manifests")
		for _, file := range files {
			text, err := os.ReadFile(file)
			Expect(err).NotTo(HaveOccurred())
			var crd apiextensionsv1.CustomResourceDefinition
			Expect(yaml.Unmarshal(text, &crd)).To(Succeed())
			Expect(crd.Spec.Names.Categories).To(ConsistOf("connect"))
			Expect(crd.Spec.Names.ShortNames).To(ConsistOf(HavePrefix("rpi")))
			version := crd.Spec.Versions[0]
			columns := version.AdditionalPrinterColumns
			Expect(columns[0].Name).To(Equal("Ready"))
			Expect(columns[len(columns)-1].Name).To(Equal("Age"))
			Expect(columns).To(ContainElement(And(HaveField("Name", "Message"), HaveField("Priority", BeEquivalentTo(1)))))
			described(crd.Name, *version.Schema.OpenAPIV3Schema)
		}
	})

	It("has examples in the documentation that the API server takes", func(ctx context.Context) {
		pages, err := filepath.Glob(filepath.Join(cluster.Root(), "docs/*.md"))
		Expect(err).NotTo(HaveOccurred())
		examples := 0
		for _, page := range append(pages, filepath.Join(cluster.Root(), "README.md")) {
			text, err := os.ReadFile(page)
			Expect(err).NotTo(HaveOccurred())
			for _, block := range regexp.MustCompile("(?ms)^```yaml\n(apiVersion: rpi-connect.*?)^```").FindAllSubmatch(text, -1) {
				for manifest := range strings.SplitSeq(string(block[1]), "\n---\n") {
					obj := &unstructured.Unstructured{}
					Expect(yaml.UnmarshalStrict([]byte(manifest), &obj.Object)).To(Succeed(), page)
					obj.SetNamespace("default")
					strict := client.NewNamespacedClient(apiServer, "default")
					Expect(client.WithFieldValidation(strict, metav1.FieldValidationStrict).Create(ctx, obj, client.DryRunAll)).To(Succeed(), page+"\n"+manifest)
					examples++
				}
			}
		}
		Expect(examples).To(BeNumerically(">", 5))
	})

	It("has samples that the API server takes", func(ctx context.Context) {
		objects, err := cluster.Build(ctx, "config/samples")
		Expect(err).NotTo(HaveOccurred())
		Expect(apiServer.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "samples"}})).To(Succeed())
		for _, obj := range objects {
			obj.SetNamespace("samples")
			Expect(apiServer.Create(ctx, obj)).To(Succeed(), obj.GetName())
		}
	})
})

// described expects every field to have a description, and none to have a name
// that kustomize takes for its own.
func described(path string, schema apiextensionsv1.JSONSchemaProps) {
	GinkgoHelper()
	for name, property := range schema.Properties {
		at := path + "." + name
		Expect([]string{"selector", "template", "replicas"}).NotTo(ContainElement(name), at)
		if name != "metadata" && name != "apiVersion" && name != "kind" {
			Expect(property.Description).NotTo(BeEmpty(), at)
			Expect(property.Description).NotTo(ContainSubstring("+kubebuilder"), at)
			described(at, property)
		}
	}
	if schema.Items != nil && schema.Items.Schema != nil {
		described(path+"[]", *schema.Items.Schema)
	}
}
