// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/test/cluster"
)

// What the documentation tells a user to type is typed here.

var _ = Describe("docs/provisioning.md", func() {
	It("registers a key with openssl as documented", func(ctx context.Context) {
		if _, err := exec.LookPath("openssl"); err != nil {
			Skip("there is no openssl")
		}
		f := newFleet(ctx, connectsim.Options{})
		f.start(ctx)
		f.shell(ctx, blocks("docs/provisioning.md", "#### With openssl"))

		identity := &v1alpha1.DeviceIdentity{ObjectMeta: f.meta("pi5-001")}
		Expect(f.ready(ctx, identity)()).To(HavePrefix("True Available"))
		Expect(f.Org.DeviceIdentities()).To(ConsistOf(And(
			HaveField("ID", identity.Status.ID), HaveField("DeviceName", "pi5-001"), HaveField("Tags", ConsistOf("production")))))
	})
})

// blocks returns what the bash blocks of a section say.
func blocks(file, heading string) string {
	GinkgoHelper()
	text, err := os.ReadFile(filepath.Join(cluster.Root(), file))
	Expect(err).NotTo(HaveOccurred())
	_, section, found := strings.Cut(string(text), "\n"+heading+"\n")
	Expect(found).To(BeTrue(), "%s has a section %s", file, heading)
	section, _, _ = strings.Cut(section, "\n#")
	var script strings.Builder
	for _, block := range strings.Split(section, "\n```bash\n")[1:] {
		code, _, _ := strings.Cut(block, "\n```")
		script.WriteString(code + "\n")
	}
	return script.String()
}

// shell runs a script as a user would, in an empty folder, with kubectl for the
// story's namespace.
func (f *fleet) shell(ctx context.Context, script string) {
	GinkgoHelper()
	dir := GinkgoT().TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	Expect(cluster.WriteKubeconfig(kubeconfig, control.Config, f.ns)).To(Succeed())
	command := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	command.Dir = dir
	command.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "PATH="+filepath.Dir(control.Kubectl())+":"+os.Getenv("PATH"))
	out, err := command.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), "%s\n\n%s", script, out)
}
