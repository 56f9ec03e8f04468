// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"strings"
	"testing"
)

// Messages and events are for everybody who may read resources; what is in a URI
// besides its place often is not.
func TestWithoutSecrets(t *testing.T) {
	for name, test := range map[string]struct{ uri, want string }{
		"nothing to hide":           {"https://updates.example.com/kiosk-v1.0.swu", "https://updates.example.com/kiosk-v1.0.swu"},
		"a port":                    {"http://10.0.0.1:8080/kiosk.swu", "http://10.0.0.1:8080/kiosk.swu"},
		"a path with escapes":       {"https://example.com/my%20kiosk%2Fa.swu", "https://example.com/my%20kiosk%2Fa.swu"},
		"a user and a password":     {"sftp://lab:s3cret@example.com/kiosk.swu", "sftp://example.com/kiosk.swu"},
		"a user":                    {"https://s3cret@example.com/kiosk.swu", "https://example.com/kiosk.swu"},
		"an escaped password":       {"https://lab:s3cret%40@example.com/kiosk.swu", "https://example.com/kiosk.swu"},
		"a signed query":            {"https://example.com/kiosk.swu?sig=s3cret&se=2026", "https://example.com/kiosk.swu"},
		"an empty query":            {"https://example.com/kiosk.swu?", "https://example.com/kiosk.swu"},
		"a fragment":                {"https://example.com/kiosk.swu#s3cret", "https://example.com/kiosk.swu"},
		"all of it":                 {"https://lab:s3cret@example.com/kiosk.swu?s3cret#s3cret", "https://example.com/kiosk.swu"},
		"what cannot be parsed":     {"https://lab:s3cret@example.com/%zz", "(a URI that cannot be parsed)"},
		"a password that cannot be": {"https://lab:s3cret%@example.com/kiosk.swu", "(a URI that cannot be parsed)"},
	} {
		t.Run(name, func(t *testing.T) {
			got := withoutSecrets(test.uri)
			if got != test.want {
				t.Errorf("got %s", got)
			}
			if strings.Contains(got, "s3cret") {
				t.Error("it gives a secret away")
			}
		})
	}
}
