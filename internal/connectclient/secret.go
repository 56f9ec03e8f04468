// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"unique"
)

const redacted = "[redacted]"

// Secret is an access token or an auth key: whoever reads it can act as an
// administrator, or sign a device in. Whatever prints, marshals or logs it gets
// "[redacted]"; only [Secret.Reveal] gives it away. Secrets can be compared with
// == and serve as map keys. The zero Secret is empty.
type Secret struct {
	// A handle rather than a string, because fmt looks into unexported
	// fields without asking any method: of a handle it sees an address.
	value unique.Handle[string]
}

// NewSecret makes a Secret of s without the white space around it: files and
// Kubernetes Secrets tend to end in a newline, which no secret does.
func NewSecret(s string) Secret {
	s = strings.TrimSpace(s)
	if s == "" {
		return Secret{}
	}
	return Secret{value: unique.Make(s)}
}

// Reveal returns the secret itself.
func (s Secret) Reveal() string {
	if s.IsZero() {
		return ""
	}
	return s.value.Value()
}

// IsZero tells whether the secret is empty.
func (s Secret) IsZero() bool { return s == Secret{} }

// Fingerprint is the first 8 hex characters of the secret's SHA-256: enough to
// tell the tokens of a cluster apart in metrics and logs, and useless otherwise.
// It is empty for an empty secret.
func (s Secret) Fingerprint() string {
	if s.IsZero() {
		return ""
	}
	sum := sha256.Sum256([]byte(s.Reveal()))
	return hex.EncodeToString(sum[:4])
}

// Format implements [fmt.Formatter], so that no verb and no flag prints more.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String implements [fmt.Stringer].
func (Secret) String() string { return redacted }

// GoString implements [fmt.GoStringer].
func (Secret) GoString() string { return redacted }

// LogValue implements [slog.LogValuer].
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements [encoding.TextMarshaler]; YAML and JSON use it.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// UnmarshalJSON reads the secret of an API's answer.
func (s *Secret) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	*s = NewSecret(text)
	return nil
}
