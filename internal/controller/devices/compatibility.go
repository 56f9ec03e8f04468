// SPDX-License-Identifier: Apache-2.0

package devices

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
)

// Misfit says what of the device the artefact does not fit; empty if it fits. A device of which
// nothing is known, because its client is too old to say, does not.
func Misfit(wanted v1alpha1.Compatibility, device connectclient.Filters) string {
	switch {
	case device == (connectclient.Filters{}):
		return "nothing is known of the device, whose client is older than 2.9.0"
	case len(wanted.Models) > 0 && !containsFold(wanted.Models, device.Model):
		return fmt.Sprintf("its model is %q", lifecycle.Text(device.Model))
	case len(wanted.OS) > 0 && !containsFold(wanted.OS, device.OS):
		return fmt.Sprintf("its operating system is %q", lifecycle.Text(device.OS))
	case wanted.MinMemory != "" && megabytes(device.Memory) < megabytes(wanted.MinMemory):
		return fmt.Sprintf("its memory is %q", lifecycle.Text(device.Memory))
	default:
		return ""
	}
}

func containsFold(all []string, one string) bool {
	return slices.ContainsFunc(all, func(s string) bool { return strings.EqualFold(s, one) })
}

// megabytes reads a size of memory as Connect's filters write it: 512mb, 8gb. It is 0 for anything
// else.
func megabytes(size string) int {
	size = strings.ToLower(strings.TrimSpace(size))
	for unit, factor := range map[string]int{"mb": 1, "gb": 1024} {
		if digits, ok := strings.CutSuffix(size, unit); ok {
			if n, err := strconv.Atoi(digits); err == nil && n > 0 && n < 1<<20 {
				return n * factor
			}
		}
	}
	return 0
}
