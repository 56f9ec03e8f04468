// SPDX-License-Identifier: Apache-2.0

package accesstoken

import (
	"fmt"
	"regexp"
	"strings"

	"rpi-connect.dev/operator/internal/connectclient"
)

// InvalidError says what a [Ref] has in the place of an access token. Its text is stable, tells the
// reader what to do, and does not quote the value.
type InvalidError struct {
	Ref     Ref
	Problem string
}

func (e *InvalidError) Error() string {
	return fmt.Sprintf("Secret %q has %s under the key %q: put an access token for the Management API there (rporg_…), which an administrator makes in the organisation's settings in Connect", e.Ref.Name, e.Problem, e.Ref.Key)
}

// scheme is what comes along when the token is copied from the header of a request.
var scheme = regexp.MustCompile(`(?i)^(authorization:\s*)?bearer(\s+|$)`)

// parse reads the value of a Secret. What harmlessly comes along with a token is taken off: a byte
// order mark, white space and line ends around it, quotes, the scheme of an Authorization header. What
// cannot be an access token is told.
func parse(value []byte) (token connectclient.Secret, problem string) {
	text := strings.TrimSpace(strings.TrimPrefix(string(value), "\ufeff"))
	for _, quote := range []string{`"`, `'`, "`"} {
		if len(text) > 1 && strings.HasPrefix(text, quote) && strings.HasSuffix(text, quote) {
			text = strings.TrimSpace(text[1 : len(text)-1])
		}
	}
	text = scheme.ReplaceAllString(text, "")
	switch {
	case text == "":
		return connectclient.Secret{}, ""
	case strings.HasPrefix(text, "rpoak_"):
		return connectclient.Secret{}, "an auth key (rpoak_…), which signs a device in and opens no organisation,"
	case strings.HasPrefix(text, "rpdev_"):
		return connectclient.Secret{}, "a device's token (rpdev_…), which opens no organisation,"
	case strings.ContainsAny(text, "\r\n"):
		return connectclient.Secret{}, "several lines"
	case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }):
		return connectclient.Secret{}, "characters that no access token has"
	default:
		return connectclient.NewSecret(text), ""
	}
}
