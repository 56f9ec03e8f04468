// SPDX-License-Identifier: Apache-2.0

package devices

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
)

// Whatever a device says that it is made of, why it does not fit is a bounded line without secrets, and a
// size that is no size is too small for everything.
func FuzzCompatibility(f *testing.F) {
	f.Add("8gb", "512mb", "5", "raspios-13")
	f.Add("-1gb", "9223372036854775807gb", "", "")
	f.Add("+8 gb", " 8GB ", "\x1b[31m5", "\u202eso")
	f.Add("0x8gb", "8gbmb", "rpoak_3vQB7B6MrG", strings.Repeat("x", 1000))
	f.Add("1048576mb", "1048575gb", "\xff", "https://me:pw@host/?sig=x")
	f.Fuzz(func(t *testing.T, has, wants, model, os string) {
		for _, size := range []string{has, wants} {
			if n := megabytes(size); n < 0 || n >= 1<<30 {
				t.Fatalf("%q is %d MB", size, n)
			}
			if megabytes(strings.ToUpper(size)) != megabytes(strings.ToLower(size)) {
				t.Fatalf("%q is of another size in other letters", size)
			}
		}
		device := connectclient.Filters{Model: model, Memory: has, OS: os}
		for _, wanted := range []v1alpha1.Compatibility{{MinMemory: wants}, {Models: []string{wants}}, {OS: []string{wants}}} {
			says := Misfit(wanted, device)
			lower := strings.ToLower(says)
			switch {
			case len(says) > 4*300+100: // a quoted rune takes up to four times its bytes
				t.Fatalf("%d bytes", len(says))
			case !utf8.ValidString(says), strings.ContainsFunc(says, unicode.IsControl):
				t.Fatalf("not a line: %q", says)
			case strings.Contains(lower, "rpoak_"), strings.Contains(lower, "rporg_"):
				t.Fatalf("a secret: %q", says)
			}
		}
		if n := megabytes(has); n > 0 && Misfit(v1alpha1.Compatibility{MinMemory: has}, device) != "" {
			t.Fatalf("%q is less than itself", has)
		}
	})
}
