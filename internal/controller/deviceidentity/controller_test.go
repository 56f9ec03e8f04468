// SPDX-License-Identifier: Apache-2.0

package deviceidentity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"
	"testing"
)

func newKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func publicDER(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func publicPEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// A provisioner and a user write the same key differently. It is one identity.
func TestFingerprint(t *testing.T) {
	der := publicDER(t, newKey(t, elliptic.P256()).Public())
	text := publicPEM(der)
	want := fingerprint(text)
	if want == "" {
		t.Fatal("a key has no fingerprint")
	}
	for name, same := range map[string]string{
		"as openssl writes it":           text,
		"without a newline at the end":   strings.TrimSpace(text),
		"with white space around it":     "\n\n  " + text + "\n \n",
		"with the line ends of Windows":  strings.ReplaceAll(text, "\n", "\r\n"),
		"with its content on one line":   "-----BEGIN PUBLIC KEY-----\n" + base64.StdEncoding.EncodeToString(der) + "\n-----END PUBLIC KEY-----\n",
		"with its content in short ones": shortLines(der),
	} {
		t.Run(name, func(t *testing.T) {
			if got := fingerprint(same); got != want {
				t.Errorf("got %q for\n%s", got, same)
			}
		})
	}
	if other := fingerprint(publicPEM(publicDER(t, newKey(t, elliptic.P256()).Public()))); other == want || other == "" {
		t.Errorf("another key has the fingerprint %q", other)
	}
}

func shortLines(der []byte) string {
	var text strings.Builder
	text.WriteString("-----BEGIN PUBLIC KEY-----\n")
	for _, char := range base64.StdEncoding.EncodeToString(der) {
		text.WriteRune(char)
		text.WriteByte('\n')
	}
	text.WriteString("-----END PUBLIC KEY-----\n")
	return text.String()
}

// What is no key has no natural key either: two resources that are both wrong are
// not about the same identity.
func TestFingerprintOfNoKey(t *testing.T) {
	private := newKey(t, elliptic.P256())
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	big, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	text := publicPEM(publicDER(t, private.Public()))
	for name, none := range map[string]string{
		"nothing":               "",
		"junk":                  "ssh-ed25519 AAAA",
		"half a key":            text[:len(text)/2],
		"two keys":              text + text,
		"a private key":         string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})),
		"a block without one":   publicPEM([]byte("junk")),
		"a key on P-384":        publicPEM(publicDER(t, newKey(t, elliptic.P384()).Public())),
		"a key of another kind": publicPEM(publicDER(t, big.Public())),
	} {
		t.Run(name, func(t *testing.T) {
			if got := fingerprint(none); got != "" {
				t.Errorf("got %q", got)
			}
		})
	}
}
