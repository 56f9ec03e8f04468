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
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/internal/reflector"
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

// exchanged is a DeviceIdentity of which Connect has ignored the tags, because its identity "i1" has
// become a device.
func exchanged() *v1alpha1.DeviceIdentity {
	obj := &v1alpha1.DeviceIdentity{ObjectMeta: metav1.ObjectMeta{Name: "pi5-001", Generation: 2}}
	obj.Spec.Tags = []string{"production"}
	obj.Status.ID = "i1"
	obj.Status.Conditions = []metav1.Condition{{
		Type: v1alpha1.ConditionSynced, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonIdentityExchanged, ObservedGeneration: 2,
	}}
	return obj
}

func saysExchanged(obj *v1alpha1.DeviceIdentity) bool {
	return meta.IsStatusConditionFalse(obj.Status.Conditions, v1alpha1.ConditionSynced)
}

// What Connect ignores of one identity it takes of the next one with the same key.
func TestWhatIsIgnoredIsOfOneIdentity(t *testing.T) {
	for name, test := range map[string]struct {
		found    connectclient.DeviceIdentity
		outdated bool
		says     bool
	}{
		"the identity that has become a device":  {connectclient.DeviceIdentity{ID: "i1", Tags: []string{"lab"}}, false, true},
		"one that was made since":                {connectclient.DeviceIdentity{ID: "i2", Tags: []string{"production"}}, false, false},
		"one that was made since, and differs":   {connectclient.DeviceIdentity{ID: "i2"}, true, false},
		"one that others have made, and differs": {connectclient.DeviceIdentity{ID: "i2", Tags: []string{"lab"}}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			obj := exchanged()
			seen := (&external{obj: obj}).registered(lifecycle.Mine, test.found)
			if seen.Outdated != test.outdated || saysExchanged(obj) != test.says {
				t.Errorf("it is outdated: %t, want %t; it is said to have become a device: %t, want %t", seen.Outdated, test.outdated, saysExchanged(obj), test.says)
			}
		})
	}
}

// Only names and tags are ignored because an identity has become a device.
func TestWhatIsNotTakenOver(t *testing.T) {
	for name, test := range map[string]struct {
		answers, reason string
		says            bool
	}{
		"everything is":        {`{"id": "i1", "description": "lobby", "tags": ["production"]}`, v1alpha1.ReasonAvailable, false},
		"tags are not":         {`{"id": "i1", "description": "lobby", "tags": ["lab"]}`, v1alpha1.ReasonAvailable, true},
		"a description is not": {`{"id": "i1", "description": "Lobby", "tags": ["production"]}`, v1alpha1.ReasonInvalid, false},
		"nothing is":           {`{"id": "i1", "description": "Lobby", "tags": ["lab"]}`, v1alpha1.ReasonInvalid, true},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write([]byte(test.answers))
			}))
			t.Cleanup(server.Close)
			api, err := connectclient.New(connectclient.Options{BaseURL: server.URL})
			if err != nil {
				t.Fatal(err)
			}
			obj, token := exchanged(), connectclient.NewSecret("rporg_123456789012345678901234")
			obj.Generation, obj.Spec.Description = 3, "lobby"
			remote := Kind(reflector.Options{API: api}, nil).Connect(obj, &lifecycle.Connection{
				Token: token, Client: api.ClientFor(token), Event: func(lifecycle.Event) {},
			}).(*external)
			if seen := remote.registered(lifecycle.Mine, connectclient.DeviceIdentity{ID: "i1", Description: "Lobby", Tags: []string{"lab"}, CreatedAt: time.Now()}); !seen.Outdated {
				t.Fatal("it is as the spec says")
			}
			seen, err := remote.Update(t.Context(), "i1")
			if err != nil {
				t.Fatal(err)
			}
			if seen.Outcome.Reason != test.reason || saysExchanged(obj) != test.says {
				t.Errorf("it is %s, want %s; it is said to have become a device: %t, want %t", seen.Outcome.Reason, test.reason, saysExchanged(obj), test.says)
			}
		})
	}
}
