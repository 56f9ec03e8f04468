// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/yaml"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/test/cluster"
)

// What the documentation tells a user to type is typed here.

var _ = Describe("docs/provisioning.md", func() {
	const file = "docs/provisioning.md"

	It("registers a key with openssl as documented", func(ctx context.Context) {
		if _, err := exec.LookPath("openssl"); err != nil {
			Skip("there is no openssl")
		}
		f := newFleet(ctx, connectsim.Options{})
		f.start(ctx)
		f.shell(ctx, GinkgoT().TempDir(), blocks(file, "#### With openssl"))

		identity := &v1alpha1.DeviceIdentity{ObjectMeta: f.meta("pi5-001")}
		Expect(f.ready(ctx, identity)()).To(HavePrefix("True Available"))
		Expect(f.Org.DeviceIdentities()).To(ConsistOf(And(
			HaveField("ID", identity.Status.ID), HaveField("DeviceName", "pi5-001"), HaveField("Tags", ConsistOf("production")))))
	})

	It("makes a key for each line of a CSV file, and writes each to a file", func(ctx context.Context) {
		f, dir := newFleet(ctx, connectsim.Options{}), GinkgoT().TempDir()
		f.start(ctx)
		f.shell(ctx, dir, blocks(file, "### Many devices"))

		production := HaveField("Tags", ConsistOf("kiosk", "production"))
		Expect(f.Org.AuthKeys()).To(ConsistOf(
			And(HaveField("DeviceName", "kiosk-lobby"), production), And(HaveField("DeviceName", "kiosk-cafe"), production)))
		for _, name := range []string{"kiosk-lobby", "kiosk-cafe"} {
			pi := connectsim.NewPi(f.URL, "raspberrypi", "10000000c0ffee-"+name)
			Expect(pi.SignInWithAuthKey(ctx, read(dir, "keys", name))).To(Succeed())
		}
		Expect(f.Org.Devices()).To(ConsistOf(HaveField("Name", "kiosk-lobby"), HaveField("Name", "kiosk-cafe")))
	})

	It("quotes what YAML would take for something else", func(ctx context.Context) {
		f := newFleet(ctx, connectsim.Options{})
		f.start(ctx)
		f.shell(ctx, GinkgoT().TempDir(), `printf 'name,tags\r\n10000000e5,\r\n\r\n2026-11,5 on' > devices.csv
			hack/provisioning/authkeys.sh devices.csv | kubectl apply -f -`)
		Eventually(f.Org.AuthKeys).Should(ConsistOf(
			And(HaveField("DeviceName", "10000000e5"), HaveField("Tags", BeEmpty())),
			And(HaveField("DeviceName", "2026-11"), HaveField("Tags", ConsistOf("5", "on")))))
	})

	It("takes over a folder of the provisioner's keys", func(ctx context.Context) {
		f, dir := newFleet(ctx, connectsim.Options{}), GinkgoT().TempDir()
		f.start(ctx)
		Expect(os.Mkdir(filepath.Join(dir, "keys"), 0o700)).To(Succeed())
		// 10000000e5 is a number to YAML, and a key may have been copied by way of Windows.
		for serial, lineEnd := range map[string]string{"10000000e5": "\n", "10000000C0FFEE02": "\r\n"} {
			public := strings.ReplaceAll(publicPEM(newKey()), "\n", lineEnd)
			Expect(os.WriteFile(filepath.Join(dir, "keys", serial+".pub"), []byte(public), 0o600)).To(Succeed())
			f.Org.AddDeviceIdentity(public, "line-1 Raspberry Pi 5 "+serial, "", nil)
		}
		before := f.Org.DeviceIdentities()
		f.shell(ctx, dir, blocks(file, "#### From a folder of keys"))

		Expect(f.ready(ctx, &v1alpha1.DeviceIdentity{ObjectMeta: f.meta("10000000c0ffee02")})()).To(HavePrefix("True Available"))
		Expect(f.Org.DeviceIdentities()).To(Equal(before))
	})

	It("writes a key into user data that cloud-init can read", func(ctx context.Context) {
		f, dir := newFleet(ctx, connectsim.Options{}), GinkgoT().TempDir()
		f.start(ctx)
		Expect(f.Create(ctx, &v1alpha1.AuthKey{ObjectMeta: f.meta("pi5-001"), Spec: v1alpha1.AuthKeySpec{DeviceName: "pi5-001"}})).To(Succeed())
		f.shell(ctx, dir, blocks(file, "### With cloud-init"))

		text := read(dir, "user-data")
		Expect(text).To(HavePrefix("#cloud-config\n"))
		var config struct {
			Hostname string
			RunCmd   []string `json:"runcmd"`
		}
		Expect(yaml.UnmarshalStrict([]byte(text), &config)).To(Succeed())
		Expect(config.Hostname).To(Equal("pi5-001"))
		Expect(config.RunCmd).To(ContainElements(
			HaveSuffix("/home/pi/.config/com.raspberrypi.connect/auth.key"), "loginctl enable-linger pi", ContainSubstring("id -u) && rpi-connect on")))
		key := regexp.MustCompile(`rpoak_\w+`).FindString(text)
		Expect(connectsim.NewPi(f.URL, "raspberrypi", "10000000c0ffee01").SignInWithAuthKey(ctx, key)).To(Succeed())
	})

	It("waits until it is certain how something ends", func(ctx context.Context) {
		f := newFleet(ctx, connectsim.Options{})
		f.start(ctx, "--deployment-poll-min=100ms")
		Expect(f.Create(ctx, f.artefact("kiosk-v1.0"))).To(Succeed())
		for name, failWith := range map[string]string{"lobby": "", "cafe": "Checksum mismatch"} {
			f.plugIn(ctx, name, connectsim.Behaviour{Every: 100 * time.Millisecond, FailWith: failWith})
			f.deploy(ctx, "kiosk-"+name+"-v1.0", "kiosk-v1.0", name)
		}
		script := blocks(file, "## Wait for it in CI") + `
			if wait_for deployment.rpi-connect.dev/kiosk-cafe-v1.0 > failed; then exit 1; fi
			grep "Checksum mismatch" failed`
		f.shell(ctx, GinkgoT().TempDir(), script)
	})
})

var _ = Describe("docs/devices.md", func() {
	const file = "docs/devices.md"

	It("names, looks at and removes a device as documented", func(ctx context.Context) {
		f := newFleet(ctx, connectsim.Options{})
		f.start(ctx)
		f.Org.AddDevice(connectsim.Device{Name: "raspberrypi", SerialNumber: "10000000c0ffee02"})
		f.shell(ctx, GinkgoT().TempDir(), blocks(file, "## Example")+blocks(file, "### Look now, wait, suspend"))
		Expect(f.Org.Devices()).To(ConsistOf(And(HaveField("Name", "kiosk-lobby"), HaveField("Tags", ConsistOf("kiosk", "production")))))
		f.shell(ctx, GinkgoT().TempDir(), blocks(file, "### Remove a device"))
		Expect(f.Org.Devices()).To(BeEmpty())
	})
})

var _ = Describe("The pages of the kinds", func() {
	It("have examples that become what the pages say", func(ctx context.Context) {
		f := newFleet(ctx, connectsim.Options{})
		f.start(ctx, "--deployment-poll-min=100ms", "--resync-interval=1s")
		identity := example("docs/deviceidentities.md")
		key := regexp.MustCompile(`(?s)-----BEGIN PUBLIC KEY-----.*-----END PUBLIC KEY-----`).FindString(identity)
		f.Org.AddDeviceIdentity(strings.ReplaceAll(key, "\n    ", "\n")+"\n", "pi5-001", "pi5-001", []string{"production"})
		lobby := f.Org.AddDevice(connectsim.Device{Name: "kiosk-lobby", SerialNumber: "10000000c0ffee02"})
		for _, page := range []struct {
			manifest string
			obj      lifecycle.Object
			ready    string
		}{
			{example("docs/artefacts.md"), &v1alpha1.Artefact{ObjectMeta: f.meta("kiosk-v1.0")}, "True Available"},
			{example("docs/authkeys.md"), &v1alpha1.AuthKey{ObjectMeta: f.meta("pi5-001")}, "True Usable"},
			{identity, &v1alpha1.DeviceIdentity{ObjectMeta: f.meta("pi5-001")}, "True Available"},
			{example("docs/deployments.md"), &v1alpha1.Deployment{ObjectMeta: f.meta("kiosk-lobby-v1.0")}, "Unknown Pending"},
			{example("docs/fleetrollouts.md"), &v1alpha1.FleetRollout{ObjectMeta: f.meta("kiosk")}, `Unknown ArtefactNotReady: Waiting for the Artefact "kiosk-v1.1"`},
		} {
			f.shell(ctx, GinkgoT().TempDir(), "kubectl apply -f - <<'MANIFEST'\n"+page.manifest+"\nMANIFEST\n")
			Eventually(f.ready(ctx, page.obj)).Should(HavePrefix(page.ready), page.manifest)
		}
		Expect(f.Org.Deployments(lobby.ID)).To(HaveLen(1))
	})
})

// example is the first manifest of a page.
func example(file string) string {
	GinkgoHelper()
	_, text, found := strings.Cut(read(cluster.Root(), file), "\n```yaml\n")
	Expect(found).To(BeTrue(), "%s has an example", file)
	manifest, _, _ := strings.Cut(text, "\n```")
	return manifest
}

var _ = Describe("docs/deployments.md", func() {
	const file = "docs/deployments.md"

	It("runs a script again as documented", func(ctx context.Context) {
		f := newFleet(ctx, connectsim.Options{})
		f.start(ctx, "--deployment-poll-min=100ms")
		f.plugIn(ctx, "kiosk-lobby", connectsim.Behaviour{Every: 100 * time.Millisecond})
		Expect(f.Create(ctx, f.artefact("clean-up"))).To(Succeed())
		first := f.deploy(ctx, "clean-up-lobby", "clean-up", "kiosk-lobby")
		Eventually(f.ready(ctx, first)).Should(HavePrefix("True Succeeded"))

		f.shell(ctx, GinkgoT().TempDir(), blocks(file, "### Deploy the same artefact again"))
		again := &v1alpha1.Deployment{ObjectMeta: f.meta("clean-up-lobby-2")}
		Eventually(f.ready(ctx, again)).Should(HavePrefix("True Succeeded"))
		Expect(f.Org.Deployments(again.Status.DeviceID)).To(HaveLen(2))
	})

	It("keeps an artefact from devices that it is not made for", func(ctx context.Context) {
		f := newFleet(ctx, connectsim.Options{})
		f.start(ctx)
		for name, model := range map[string]string{"desk": "5", "attic": "4b"} {
			f.Org.AddDevice(connectsim.Device{Name: name, SerialNumber: "10000000-" + name, Model: model, Memory: "8gb", OS: "raspios-13"})
		}
		f.shell(ctx, GinkgoT().TempDir(), blocks("docs/artefacts.md", "### Made for some devices only"))
		for name, want := range map[string]string{
			"desk":  "Unknown Pending",
			"attic": "False Incompatible: The artefact does not fit the device: its model is \"4b\".",
		} {
			Eventually(f.ready(ctx, f.deploy(ctx, name, "signage-2026.11", name))).Should(HavePrefix(want))
		}
	})
})

// deploy creates a Deployment of the Artefact to the device of that name.
func (f *fleet) deploy(ctx context.Context, name, artefact, device string) *v1alpha1.Deployment {
	GinkgoHelper()
	obj := f.deployment(name)
	obj.Spec.ArtefactRef.Name, obj.Spec.Device.Name = artefact, device
	Expect(f.Create(ctx, obj)).To(Succeed())
	return obj
}

// plugIn has a signed-in Pi run until the story ends.
func (f *fleet) plugIn(ctx context.Context, name string, behaviour connectsim.Behaviour) {
	GinkgoHelper()
	device := f.Org.AddDevice(connectsim.Device{Name: name, SerialNumber: "10000000-" + name})
	pi := connectsim.NewPi(f.URL, name, device.SerialNumber)
	pi.SignedIn(f.Org, device.ID)
	pi.Behave(behaviour)
	ctx, unplug := context.WithCancel(ctx)
	DeferCleanup(unplug)
	go pi.Run(ctx)
}

func read(path ...string) string {
	GinkgoHelper()
	text, err := os.ReadFile(filepath.Join(path...))
	Expect(err).NotTo(HaveOccurred())
	return string(text)
}

// blocks returns what the bash blocks of a section say.
func blocks(file, heading string) string {
	GinkgoHelper()
	script, err := cluster.Blocks(file, heading)
	Expect(err).NotTo(HaveOccurred())
	return script
}

// shell runs a script as a user would, in a folder that has the repository's hack/,
// with kubectl for the story's namespace.
func (f *fleet) shell(ctx context.Context, dir, script string) {
	GinkgoHelper()
	Expect(os.Symlink(filepath.Join(cluster.Root(), "hack"), filepath.Join(dir, "hack"))).To(Succeed())
	_, err := cluster.Shell{Cluster: control, Dir: dir, Namespace: f.ns}.Run(ctx, script)
	Expect(err).NotTo(HaveOccurred())
}
