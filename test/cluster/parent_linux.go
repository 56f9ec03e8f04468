// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"os/exec"
	"syscall"
)

// endWithParent lets the process end when this one does, however that ends.
func endWithParent(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
