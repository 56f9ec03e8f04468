// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"net/url"
	"regexp"
	"strings"
)

// secrets is what must not be shown of what was sent: whatever stands under their
// names in JSON, tokens and keys by their prefix, credentials of any scheme, and
// what a URL has besides its host and path. A text without the sign has none: most
// have not, and the journal is long.
var secrets = []struct {
	sign    string
	pattern *regexp.Regexp
	instead string
}{
	{`"`, regexp.MustCompile(`"(secret|access_token|auth_key|token)"(\s*:\s*)"(?:\\.|[^"\\])*"?`), `"$1"$2"[redacted]"`},
	{`rp`, regexp.MustCompile(`(rp(?:org|oak|dev|uak)_)[0-9A-Za-z]+`), `$1[redacted]`},
	{` `, regexp.MustCompile(`(?i)\b(bearer|basic)(\s+)[^\s"]+`), `$1$2[redacted]`},
	{`://`, regexp.MustCompile(`([a-z][a-z0-9+.-]*://)(?:\\.|[^\s"/?#\\])*@`), `$1[redacted]@`},
	{`://`, regexp.MustCompile(`([a-z][a-z0-9+.-]*://(?:\\.|[^\s"?#\\])*)\?(?:\\.|[^\s"#\\])*`), `$1?[redacted]`},
}

// redact takes the secrets out of a text.
func redact(text string) string {
	for _, secret := range secrets {
		if strings.Contains(text, secret.sign) {
			text = secret.pattern.ReplaceAllString(text, secret.instead)
		}
	}
	return text
}

// redactForm takes the secrets out of a form, and the escapes, behind which they
// could hide. What cannot be parsed of it is not shown.
func redactForm(text string) string {
	values, _ := url.ParseQuery(text)
	for _, all := range values {
		for i, value := range all {
			all[i] = redact(value)
		}
	}
	shown, _ := url.QueryUnescape(values.Encode()) // which is never malformed
	return shown
}
