// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// Blocks returns what the bash blocks of a page's section say. Nothing is no answer: a test that types
// what the documentation says would pass if that had gone.
func Blocks(file, heading string) (string, error) {
	page, err := os.ReadFile(filepath.Join(Root(), file))
	if err != nil {
		return "", err
	}
	_, section, found := strings.Cut(string(page), "\n"+heading+"\n")
	if !found {
		return "", fmt.Errorf("%s has no section %s", file, heading)
	}
	section = regexp.MustCompile(`\n##+ `).Split(section, 2)[0]
	var script strings.Builder
	for _, block := range strings.Split(section, "\n```bash\n")[1:] {
		code, _, _ := strings.Cut(block, "\n```")
		script.WriteString(code + "\n")
	}
	if script.Len() == 0 {
		return "", fmt.Errorf("%s has no bash blocks under %s", file, heading)
	}
	return script.String(), nil
}

// Shell is where an administrator types.
type Shell struct {
	Cluster *Cluster
	// Dir is the current folder.
	Dir string
	// Namespace is the one that kubectl is set to.
	Namespace string
	// Path has the folders with more commands than kubectl, if there are any.
	Path []string
	// Input is what is typed where a command reads from the terminal.
	Input string
}

// Run runs a bash script, which ends at the first command that fails.
func (s Shell) Run(ctx context.Context, script string) (string, error) {
	kubeconfig, err := os.CreateTemp(s.Cluster.Dir, "kubeconfig-")
	if err != nil {
		return "", err
	}
	if err := kubeconfig.Close(); err != nil {
		return "", err
	}
	if err := WriteKubeconfig(kubeconfig.Name(), s.Cluster.Config, s.Namespace); err != nil {
		return "", err
	}
	path := append([]string{filepath.Dir(s.Cluster.Kubectl())}, s.Path...)
	command := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	command.Dir, command.Stdin = s.Dir, strings.NewReader(s.Input)
	command.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig.Name(),
		"PATH="+strings.Join(append(path, os.Getenv("PATH")), string(os.PathListSeparator)))
	out, err := command.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w\n%s\n\n%s", err, script, out)
	}
	return string(out), nil
}
