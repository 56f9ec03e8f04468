// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"text/template"
)

func TestSecretIsNeverPrinted(t *testing.T) {
	secret := NewSecret(testToken)
	// What surrounds a secret must not print it either: fmt asks no method
	// of what is in an unexported field.
	holders := map[string]any{
		"value":            secret,
		"pointer":          &secret,
		"exported field":   struct{ S Secret }{secret},
		"unexported field": struct{ s Secret }{secret},
		"nested":           struct{ in struct{ s *Secret } }{struct{ s *Secret }{&secret}},
		"slice":            []Secret{secret},
		"map key":          map[Secret]int{secret: 1},
		"auth key":         AuthKey{Secret: secret},
		"client":           mustOrganisation(t, secret),
		"identity request": NewIdentityRequest(DefaultBaseURL, secret, DeviceIdentityCreate{}),
		"signed identity":  &SignedIdentity{request: NewIdentityRequest(DefaultBaseURL, secret, DeviceIdentityCreate{})},
	}
	for name, holder := range holders {
		t.Run(name, func(t *testing.T) {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "%t", "%T", "%10.3s", "%U"} {
				mustNotLeak(t, "fmt "+verb, fmt.Sprintf(verb, holder))
			}
			mustNotLeak(t, "Println", fmt.Sprintln(holder))
			mustNotLeak(t, "error", fmt.Errorf("it was %v", holder).Error())

			for _, handler := range []func(*bytes.Buffer) slog.Handler{
				func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
				func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
			} {
				var b bytes.Buffer
				slog.New(handler(&b)).Info("see", "holder", holder)
				mustNotLeak(t, "slog", b.String())
			}

			var b bytes.Buffer
			if err := template.Must(template.New("").Parse("{{.}}")).Execute(&b, holder); err == nil {
				mustNotLeak(t, "template", b.String())
			}
			if marshalled, err := json.Marshal(holder); err == nil {
				mustNotLeak(t, "JSON", string(marshalled))
			}
		})
	}
}

func mustOrganisation(t *testing.T, token Secret) *Client {
	t.Helper()
	api, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	return api.ClientFor(token)
}

func mustNotLeak(t *testing.T, where, text string) {
	t.Helper()
	// Hex is how %x would print it, decimals how %d would.
	for _, form := range []string{testToken, testToken[6:], fmt.Sprintf("%x", testToken), fmt.Sprintf("%X", testToken), strings.Trim(fmt.Sprint(string([]byte(testToken))), "[]")} {
		if strings.Contains(text, form) {
			t.Errorf("%s shows the secret: %s", where, text)
		}
	}
}

func TestSecretPrintsAsRedacted(t *testing.T) {
	secret := NewSecret(testToken)
	marshalled, err := json.Marshal(map[Secret]Secret{secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		fmt.Sprintf("%v %d %#v", secret, secret, secret): "[redacted] [redacted] [redacted]",
		secret.String():                     "[redacted]",
		secret.GoString():                   "[redacted]",
		secret.LogValue().String():          "[redacted]",
		string(marshalled):                  `{"[redacted]":"[redacted]"}`,
		fmt.Sprint(AuthKey{}.Secret):        "[redacted]", // an empty one does not say that it is
		NewSecret(" " + testToken).String(): "[redacted]",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestSecretIsAValue(t *testing.T) {
	secret := NewSecret("  " + testToken + "\r\n")
	if secret.Reveal() != testToken {
		t.Errorf("white space was kept: %q", secret.Reveal())
	}
	if secret != NewSecret(testToken) || secret == NewSecret("rporg_other") {
		t.Error("secrets do not compare by value")
	}
	if secret.IsZero() || secret.Fingerprint() != NewSecret(testToken).Fingerprint() || len(secret.Fingerprint()) != 8 {
		t.Errorf("fingerprint %q", secret.Fingerprint())
	}
	empty := NewSecret(" \n")
	if !empty.IsZero() || empty != (Secret{}) || empty.Reveal() != "" || empty.Fingerprint() != "" {
		t.Error("white space is not an empty secret")
	}
	var read Secret
	if err := json.Unmarshal([]byte(`"`+testToken+`"`), &read); err != nil || read != secret {
		t.Errorf("a secret cannot be read from JSON: %v", err)
	}
	if err := json.Unmarshal([]byte(`{}`), &read); err == nil {
		t.Error("an object was taken for a secret")
	}
}
