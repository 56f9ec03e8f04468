// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"net/http"
	"strings"
	"testing"
)

// The published test vector: the key of RFC 6979 A.2.5.
const (
	vectorPublicKey = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYP7UuiVanTHJYet0xjVtaMBJuJI7
Yfps5mliLmDyn7Z5A/4QCLi8maQa6elWKLxk8vGyDC1+n1F3o8KU1EYimQ==
-----END PUBLIC KEY-----
`
	vectorScalar    = "C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721"
	vectorToken     = "rporg_accesstokenhere"
	vectorBodySum   = "c4831760c23e8208ee28e93cd2a0aed53bad93eb0ad413d9dd0d150cf1351bcf"
	vectorDigest    = "b4ab12fb1a896409dd1f9d337395cfee0b7e00a28d12581a22e0a10090adbd10"
	vectorSignature = "MEUCIQCAcJh1kMXXmRnFX9YJrswk43AF9zVNBxFvMXlfo38VKAIgWOWgP1Ba84ZZKQwgBr4D4aVmlLgCddaw29O23Cd/OCk="

	// The same request, had it been sent with Accept: */*.
	acceptDigest    = "d0dcb4aa26e7a5b6c4aa79a16f4e69fe2c417bf001dd9d887a8682998fd5c4b8"
	acceptSignature = "MEQCIC7nahWshT2jLCx5fzuI9hoIxC5aAdmq21yaCe8JtsCuAiA4Gx4YqxoT527izbXMQh0dfsIdjn6ie5a09tGW4p+lvQ=="
)

var vectorIdentity = DeviceIdentityCreate{
	PublicKeyPEM: vectorPublicKey,
	Description:  "my-device-identity",
	DeviceName:   "pi5-001",
}

func vectorRequest() IdentityRequest {
	return NewIdentityRequest(DefaultBaseURL, NewSecret(vectorToken), vectorIdentity)
}

func vectorKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	scalar, err := hex.DecodeString(vectorScalar)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func vectorPublic(t testing.TB) *ecdsa.PublicKey {
	t.Helper()
	public, err := ParsePublicKeyPEM([]byte(vectorPublicKey))
	if err != nil {
		t.Fatal(err)
	}
	return public
}

func TestIdentityVector(t *testing.T) {
	r := vectorRequest()
	if sum := sha256.Sum256(r.Body()); len(r.Body()) != 258 || hex.EncodeToString(sum[:]) != vectorBodySum {
		t.Errorf("the body has %d bytes and the sum %x:\n%s", len(r.Body()), sum, r.Body())
	}
	if len(r.payload()) != 211 {
		t.Errorf("the payload has %d bytes:\n%s", len(r.payload()), r.payload())
	}
	if digest := r.Digest(); hex.EncodeToString(digest[:]) != vectorDigest {
		t.Errorf("the digest is %x", digest)
	}
	if err := r.Verify(vectorPublic(t), vectorSignature); err != nil {
		t.Errorf("the published signature: %v", err)
	}
	signature, err := r.Sign(vectorKey(t))
	if err != nil || signature != vectorSignature {
		t.Errorf("signed %s, %v", signature, err)
	}
}

// The second vector is of a request that carries an Accept header. Ours never
// does, but the vector shows that the payload is understood: the line goes before
// the sum of the body.
func TestIdentityVectorWithAccept(t *testing.T) {
	r := vectorRequest()
	lines := strings.Split(string(r.payload()), "\n")
	sum := lines[len(lines)-1]
	payload := strings.Join(append(lines[:len(lines)-1], "Accept: */*", sum), "\n")
	r.digest = sha256.Sum256([]byte(payload))
	if len(payload) != 223 || hex.EncodeToString(r.digest[:]) != acceptDigest {
		t.Errorf("the payload has %d bytes and the digest %x", len(payload), r.digest)
	}
	if err := r.Verify(vectorPublic(t), acceptSignature); err != nil {
		t.Errorf("the published signature: %v", err)
	}
	if signature, err := r.Sign(vectorKey(t)); err != nil || signature != acceptSignature {
		t.Errorf("signed %s, %v", signature, err)
	}
}

func TestIdentityBody(t *testing.T) {
	for name, tt := range map[string]struct {
		create DeviceIdentityCreate
		want   string
	}{
		"least":   {DeviceIdentityCreate{PublicKeyPEM: "k", Description: "d"}, `{"public_key":"k","description":"d"}`},
		"all":     {DeviceIdentityCreate{PublicKeyPEM: "k", Description: "d", DeviceName: "n", Tags: []string{"a", "b"}}, `{"public_key":"k","description":"d","device_name":"n","tags":["a","b"]}`},
		"no tags": {DeviceIdentityCreate{PublicKeyPEM: "k", Description: "d", Tags: []string{}}, `{"public_key":"k","description":"d"}`},
		"HTML":    {DeviceIdentityCreate{PublicKeyPEM: "k\n", Description: "<a> & é"}, `{"public_key":"k\n","description":"<a> & é"}`},
	} {
		if got := string(NewIdentityRequest(DefaultBaseURL, NewSecret(vectorToken), tt.create).Body()); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

func TestDigestCoversTheWholeRequest(t *testing.T) {
	seen := map[[32]byte]string{}
	for name, r := range map[string]IdentityRequest{
		"as it is":            vectorRequest(),
		"another token":       NewIdentityRequest(DefaultBaseURL, NewSecret("rporg_rotated"), vectorIdentity),
		"another address":     NewIdentityRequest("https://connect.example.com", NewSecret(vectorToken), vectorIdentity),
		"another description": NewIdentityRequest(DefaultBaseURL, NewSecret(vectorToken), DeviceIdentityCreate{PublicKeyPEM: vectorPublicKey}),
	} {
		if other, ok := seen[r.Digest()]; ok {
			t.Errorf("%s has the digest of %s", name, other)
		}
		seen[r.Digest()] = name
	}
	if NewIdentityRequest(DefaultBaseURL+"/", NewSecret(vectorToken+"\n"), vectorIdentity).Digest() != vectorRequest().Digest() {
		t.Error("a slash after the address, or a newline after the token, changes the digest")
	}
}

func TestVerifySaysWhatIsWrong(t *testing.T) {
	otherKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	wrapped := vectorSignature[:64] + "\n" + vectorSignature[64:] + "\n"
	for name, tt := range map[string]struct {
		public    *ecdsa.PublicKey
		signature string
		want      string // of the error; empty for none
	}{
		"right":             {vectorPublic(t), vectorSignature, ""},
		"wrapped by base64": {vectorPublic(t), wrapped, ""},
		"empty":             {vectorPublic(t), " \n", "empty"},
		"no padding":        {vectorPublic(t), strings.TrimRight(vectorSignature, "="), "base64"},
		"hex":               {vectorPublic(t), "3045022100", "base64"},
		"too long":          {vectorPublic(t), strings.Repeat("A", 1000), "too long"},
		"bare pair":         {vectorPublic(t), base64.StdEncoding.EncodeToString(make([]byte, 64)), "r and s"},
		"not DER":           {vectorPublic(t), "AAAA", "DER"},
		"other request":     {vectorPublic(t), acceptSignature, "something else"},
		"other key":         {&otherKey.PublicKey, vectorSignature, "another key"},
		"other curve":       {&p384.PublicKey, vectorSignature, "P-256"},
		"no key":            {nil, vectorSignature, "P-256"},
	} {
		t.Run(name, func(t *testing.T) {
			err := vectorRequest().Verify(tt.public, tt.signature)
			signed, signedErr := vectorRequest().Signed(tt.public, tt.signature)
			if tt.want == "" {
				if err != nil || signedErr != nil || signed.signature != vectorSignature {
					t.Errorf("%v, %v, %+v", err, signedErr, signed)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
			if signed != nil || signedErr == nil {
				t.Error("it can be sent nonetheless")
			}
		})
	}
	if _, err := vectorRequest().Sign(p384); err == nil {
		t.Error("a key on another curve signs")
	}
}

func TestCreateDeviceIdentitySendsWhatWasSigned(t *testing.T) {
	s := serve(t, always(reply{status: 201, body: `{"id":"i1","description":"my-device-identity","device_name":"pi5-001","created_at":"2026-03-01T10:00:00Z","public_key":"k"}`}))
	client := connect(t, s.URL)
	r := NewIdentityRequest(client.BaseURL(), client.Token(), vectorIdentity)
	signature, err := r.Sign(vectorKey(t))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := r.Signed(vectorPublic(t), signature)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.DeviceIdentities().Create(t.Context(), signed); err != nil {
		t.Fatal(err)
	}

	got := s.requests()[0]
	sum := sha256.Sum256([]byte(got.Body))
	payload := strings.Join([]string{
		got.Method, s.URL + got.URI,
		"Authorization: " + got.Header.Get("Authorization"),
		"Content-Type: " + got.Header.Get("Content-Type"),
		hex.EncodeToString(sum[:]),
	}, "\n")
	digest := sha256.Sum256([]byte(payload))
	der, err := base64.StdEncoding.DecodeString(got.Header.Get("X-Connect-Identity-Signature"))
	if err != nil || !ecdsa.VerifyASN1(vectorPublic(t), digest[:], der) {
		t.Errorf("the service cannot verify the signature: %v", err)
	}
	if _, ok := got.Header["Accept"]; ok {
		t.Error("an Accept header was sent, which is not signed")
	}
}

func TestCreateDeviceIdentityRefusesAnotherClientsRequest(t *testing.T) {
	s := serve(t, always(reply{status: 500}))
	client := connect(t, s.URL)
	for name, r := range map[string]IdentityRequest{
		"token":   NewIdentityRequest(client.BaseURL(), NewSecret("rporg_rotated"), vectorIdentity),
		"address": NewIdentityRequest("https://other.example.com", client.Token(), vectorIdentity),
	} {
		signature, err := r.Sign(vectorKey(t))
		if err != nil {
			t.Fatal(err)
		}
		signed, err := r.Signed(vectorPublic(t), signature)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.DeviceIdentities().Create(t.Context(), signed); err == nil || !strings.Contains(err.Error(), "sign it anew") {
			t.Errorf("another %s: %v", name, err)
		}
	}
	if len(s.requests()) != 0 {
		t.Error("it was sent")
	}
}

func pemOf(t testing.TB, blockType string, der []byte, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: der}))
}

func TestParsePublicKeyPEM(t *testing.T) {
	key := vectorKey(t)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384DER, p384Err := x509.MarshalPKIXPublicKey(&p384.PublicKey)
	rsaDER, rsaErr := x509.MarshalPKIXPublicKey(&rsaKey.PublicKey)
	privateDER, privateErr := x509.MarshalPKCS8PrivateKey(key)
	sec1DER, sec1Err := x509.MarshalECPrivateKey(key)

	for name, tt := range map[string]struct{ pem, want string }{
		"vector":           {vectorPublicKey, ""},
		"no final newline": {strings.TrimSpace(vectorPublicKey), ""},
		"white space":      {"\n  " + vectorPublicKey + "\n\n", ""},
		"CRLF":             {strings.ReplaceAll(vectorPublicKey, "\n", "\r\n"), ""},
		"empty":            {"", "not PEM"},
		"one line":         {strings.ReplaceAll(strings.TrimSpace(vectorPublicKey), "\n", " "), "not PEM"},
		"base64 only":      {"MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE", "not PEM"},
		"text before":      {"my key:\n" + vectorPublicKey, "not PEM"},
		"two keys":         {vectorPublicKey + vectorPublicKey, "after the PEM block"},
		"private key":      {pemOf(t, "PRIVATE KEY", privateDER, privateErr), "private key"},
		"SEC 1 key":        {pemOf(t, "EC PRIVATE KEY", sec1DER, sec1Err), "private key"},
		"certificate":      {pemOf(t, "CERTIFICATE", []byte("x"), nil), `"CERTIFICATE"`},
		"junk":             {pemOf(t, "PUBLIC KEY", []byte("junk"), nil), "no valid public key"},
		"P-384":            {pemOf(t, "PUBLIC KEY", p384DER, p384Err), "P-256"},
		"RSA":              {pemOf(t, "PUBLIC KEY", rsaDER, rsaErr), "P-256"},
	} {
		t.Run(name, func(t *testing.T) {
			public, err := ParsePublicKeyPEM([]byte(tt.pem))
			switch {
			case tt.want == "" && (err != nil || !public.Equal(&key.PublicKey)):
				t.Errorf("%v, %v", public, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestParsePrivateKeyPEM(t *testing.T) {
	key := vectorKey(t)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8DER, pkcs8Err := x509.MarshalPKCS8PrivateKey(key)
	sec1DER, sec1Err := x509.MarshalECPrivateKey(key)
	p384DER, p384Err := x509.MarshalPKCS8PrivateKey(p384)
	pkcs8, sec1 := pemOf(t, "PRIVATE KEY", pkcs8DER, pkcs8Err), pemOf(t, "EC PRIVATE KEY", sec1DER, sec1Err)
	parameters := pemOf(t, "EC PARAMETERS", []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}, nil)

	for name, tt := range map[string]struct{ pem, want string }{
		"PKCS#8":        {pkcs8, ""},
		"SEC 1":         {sec1, ""},
		"openssl's":     {parameters + sec1, ""},
		"empty":         {"", "not PEM"},
		"two keys":      {pkcs8 + pkcs8, "after the PEM block"},
		"public key":    {vectorPublicKey, "public key"},
		"encrypted":     {pemOf(t, "ENCRYPTED PRIVATE KEY", []byte("x"), nil), "encrypted"},
		"other":         {pemOf(t, "OPENSSH PRIVATE KEY", []byte("x"), nil), "neither"},
		"junk":          {pemOf(t, "PRIVATE KEY", []byte("junk"), nil), "no valid private key"},
		"another curve": {pemOf(t, "PRIVATE KEY", p384DER, p384Err), "P-256"},
	} {
		t.Run(name, func(t *testing.T) {
			private, err := ParsePrivateKeyPEM([]byte(tt.pem))
			switch {
			case tt.want == "" && (err != nil || !private.Equal(key)):
				t.Errorf("%v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func FuzzParsePublicKeyPEM(f *testing.F) {
	f.Add([]byte(vectorPublicKey))
	f.Add([]byte(strings.TrimSpace(vectorPublicKey)))
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----"))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte("-----BEGIN " + testToken + "-----\nAAAA\n-----END " + testToken + "-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		public, err := ParsePublicKeyPEM(data)
		if (public == nil) == (err == nil) {
			t.Fatalf("%v and %v", public, err)
		}
		if err != nil {
			mustBeSafe(t, err.Error())
			return
		}
		// What was understood is written and read as the same key.
		der, err := x509.MarshalPKIXPublicKey(public)
		again, againErr := ParsePublicKeyPEM([]byte(pemOf(t, "PUBLIC KEY", der, err)))
		if againErr != nil || !again.Equal(public) {
			t.Fatalf("%v", againErr)
		}
	})
}

func FuzzParsePrivateKeyPEM(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	for kind, marshal := range map[string]func() ([]byte, error){
		"PRIVATE KEY":    func() ([]byte, error) { return x509.MarshalPKCS8PrivateKey(key) },
		"EC PRIVATE KEY": func() ([]byte, error) { return x509.MarshalECPrivateKey(key) },
	} {
		der, err := marshal()
		f.Add([]byte(pemOf(f, kind, der, err)))
	}
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n" + testToken + "\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		private, err := ParsePrivateKeyPEM(data)
		if (private == nil) == (err == nil) {
			t.Fatalf("a key: %t, and %v", private != nil, err)
		}
		if err != nil {
			mustBeSafe(t, err.Error())
			return
		}
		// What was understood can sign.
		r := vectorRequest()
		signature, err := r.Sign(private)
		if err != nil || r.Verify(&private.PublicKey, signature) != nil {
			t.Fatalf("it signs: %v", err)
		}
	})
}

func FuzzVerifySignature(f *testing.F) {
	f.Add(vectorSignature)
	f.Add(acceptSignature)
	f.Add(" " + vectorSignature[:10] + "\n" + vectorSignature[10:])
	f.Add("")
	f.Add("MAYCAQACAQA=")
	f.Add(base64.StdEncoding.EncodeToString(make([]byte, 64)))
	public := vectorPublic(f)
	r := vectorRequest()
	f.Fuzz(func(t *testing.T, signature string) {
		signed, err := r.Signed(public, signature)
		if err != nil {
			mustBeSafe(t, err.Error())
			return
		}
		// Whatever was accepted goes out as a header that verifies.
		der, err := base64.StdEncoding.DecodeString(signed.signature)
		digest := r.Digest()
		if err != nil || !ecdsa.VerifyASN1(public, digest[:], der) {
			t.Fatalf("%q was accepted as %q", signature, signed.signature)
		}
		if strings.ContainsAny(signed.signature, "\r\n ") {
			t.Fatalf("%q is no header", signed.signature)
		}
	})
}

func TestIdentityPathIsTheSignedOne(t *testing.T) {
	want := http.MethodPost + "\n" + DefaultBaseURL + "/organisation/device-identities\n"
	if got := string(vectorRequest().payload()); !strings.HasPrefix(got, want) {
		t.Errorf("the payload begins otherwise: %q", got)
	}
}
