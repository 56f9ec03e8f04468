// SPDX-License-Identifier: Apache-2.0

package connectsim_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"rpi-connect.dev/operator/internal/connectsim"
)

const identities = "/organisation/device-identities"

// newKey makes the key of a device, and the PEM of its public half.
func newKey(t *testing.T) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key, pemOf(t, &key.PublicKey)
}

func pemOf(t *testing.T, public any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// payload is what is signed: lines without a newline at the end, the header lines
// as they are given, and the hash of the body.
func payload(method, url, body string, headers ...string) string {
	sum := sha256.Sum256([]byte(body))
	lines := append([]string{method, url}, headers...)
	return strings.Join(append(lines, hex.EncodeToString(sum[:])), "\n")
}

// sign signs as the device would: the digest, in DER, in base64.
func sign(t *testing.T, key *ecdsa.PrivateKey, payload string) string {
	t.Helper()
	digest := sha256.Sum256([]byte(payload))
	der, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

// jsonOf is the JSON of an object.
func jsonOf(o object) string {
	text, _ := json.Marshal(o)
	return string(text)
}

// register is a signed creation, as the vendor's provisioner sends it.
func (s env) register(key *ecdsa.PrivateKey, body string) request {
	s.Helper()
	return request{"POST", identities, body, http.Header{
		"X-Connect-Identity-Signature": {sign(s.T, key, payload("POST", s.url+identities, body, "Authorization: Bearer "+token, "Content-Type: application/json"))},
	}}
}

// The published test vectors: a key of RFC 6979, the production URL, and a token
// that is no secret.
const (
	vectorKey = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYP7UuiVanTHJYet0xjVtaMBJuJI7
Yfps5mliLmDyn7Z5A/4QCLi8maQa6elWKLxk8vGyDC1+n1F3o8KU1EYimQ==
-----END PUBLIC KEY-----
`
	vectorURL   = "https://api.connect.raspberrypi.com"
	vectorToken = "rporg_accesstokenhere"
)

var vectors = []struct {
	accept    string
	bytes     int
	sum       string
	signature string
}{
	{"", 211, "b4ab12fb1a896409dd1f9d337395cfee0b7e00a28d12581a22e0a10090adbd10", "MEUCIQCAcJh1kMXXmRnFX9YJrswk43AF9zVNBxFvMXlfo38VKAIgWOWgP1Ba84ZZKQwgBr4D4aVmlLgCddaw29O23Cd/OCk="},
	{"*/*", 223, "d0dcb4aa26e7a5b6c4aa79a16f4e69fe2c417bf001dd9d887a8682998fd5c4b8", "MEQCIC7nahWshT2jLCx5fzuI9hoIxC5aAdmq21yaCe8JtsCuAiA4Gx4YqxoT527izbXMQh0dfsIdjn6ie5a09tGW4p+lvQ=="},
}

func vectorBody() string {
	return `{"public_key":"` + strings.ReplaceAll(vectorKey, "\n", `\n`) + `","description":"my-device-identity","device_name":"pi5-001"}`
}

func TestThePublishedSignatures(t *testing.T) {
	body := vectorBody()
	if sum := sha256.Sum256([]byte(body)); len(body) != 258 || hex.EncodeToString(sum[:]) != "c4831760c23e8208ee28e93cd2a0aed53bad93eb0ad413d9dd0d150cf1351bcf" {
		t.Fatalf("the body is not the published one: %d bytes, %x", len(body), sum)
	}
	for _, vector := range vectors {
		lines := []string{"Authorization: Bearer " + vectorToken, "Content-Type: application/json"}
		header := http.Header{"Authorization": {"Bearer " + vectorToken}, "X-Connect-Identity-Signature": {vector.signature}}
		if vector.accept != "" {
			lines = append(lines, "Accept: "+vector.accept)
			header["Accept"] = []string{vector.accept}
		}
		text := payload("POST", vectorURL+identities, body, lines...)
		if sum := sha256.Sum256([]byte(text)); len(text) != vector.bytes || hex.EncodeToString(sum[:]) != vector.sum {
			t.Fatalf("the payload is not the published one: %d bytes, %x", len(text), sum)
		}
		for _, revision := range []connectsim.Revision{connectsim.Older, connectsim.Current} {
			s := begin(t, connectsim.Options{Revision: revision, PublicURL: vectorURL})
			s.org.AddToken(vectorToken)
			made := s.send(request{"POST", identities, body, header})
			tags := `,"tags":[]`
			if s.older {
				tags = ""
			}
			s.samef(made.object(), `{"id":%q,"description":"my-device-identity","device_name":"pi5-001","created_at":%q,"public_key":%q`+tags+`}`, made.id(), now, vectorKey)
		}

		// They are good for that URL alone.
		elsewhere := begin(t, connectsim.Options{})
		elsewhere.org.AddToken(vectorToken)
		elsewhere.send(request{"POST", identities, body, header}).is(422)
	}
}

func TestWhatASignatureCovers(t *testing.T) {
	s := begin(t, connectsim.Options{})
	const second = "rporg_second111111111111111111"
	s.org.AddToken(second)
	key, public := newKey(t)
	stranger, _ := newKey(t)
	body := jsonOf(object{"public_key": public, "description": "pi5"})
	url := s.url + identities
	authorisation, kind := "Authorization: Bearer "+token, "Content-Type: application/json"
	good := payload("POST", url, body, authorisation, kind)
	signed := func(text string) string { return sign(t, key, text) }
	for name, r := range map[string]request{
		"no signature":          {"POST", identities, body, nil},
		"no base64":             {"POST", identities, body, http.Header{"X-Connect-Identity-Signature": {"!"}}},
		"in hex":                {"POST", identities, body, http.Header{"X-Connect-Identity-Signature": {hex.EncodeToString([]byte(signed(good)))}}},
		"a stranger's":          {"POST", identities, body, http.Header{"X-Connect-Identity-Signature": {sign(t, stranger, good)}}},
		"of another method":     {"POST", identities, body, http.Header{"X-Connect-Identity-Signature": {signed(payload("PUT", url, body, authorisation, kind))}}},
		"of a path":             {"POST", identities, body, http.Header{"X-Connect-Identity-Signature": {signed(payload("POST", identities, body, authorisation, kind))}}},
		"of another body":       {"POST", identities, body + " ", http.Header{"X-Connect-Identity-Signature": {signed(good)}}},
		"of another URL":        {"POST", identities + "?x=1", body, http.Header{"X-Connect-Identity-Signature": {signed(good)}}},
		"with a newline":        {"POST", identities, body, http.Header{"X-Connect-Identity-Signature": {signed(good + "\n")}}},
		"without a token":       {"POST", identities, body, http.Header{"X-Connect-Identity-Signature": {signed(payload("POST", url, body, kind))}}},
		"of another token":      {"POST", identities, body, http.Header{"X-Connect-Identity-Signature": {signed(good)}, "Authorization": {"Bearer " + second}}},
		"of another type":       {"POST", identities, body, http.Header{"X-Connect-Identity-Signature": {signed(good)}, "Content-Type": {"application/json; charset=utf-8"}}},
		"with an unsigned type": {"POST", identities, body, http.Header{"X-Connect-Identity-Signature": {signed(payload("POST", url, body, authorisation))}}},
		"with unsigned Accept":  {"POST", identities, body, http.Header{"X-Connect-Identity-Signature": {signed(good)}, "Accept": {"*/*"}}},
		"with an Accept unsent": {"POST", identities, body, http.Header{"X-Connect-Identity-Signature": {signed(payload("POST", url, body, authorisation, kind, "Accept: */*"))}}},
		"with an empty Accept":  {"POST", identities, body, http.Header{"X-Connect-Identity-Signature": {signed(payload("POST", url, body, authorisation, kind, "Accept:"))}}},
	} {
		if a := s.send(r); a.status != http.StatusUnprocessableEntity {
			t.Errorf("a signature %s: %d %s", name, a.status, a.text)
		}
	}
	if len(s.org.DeviceIdentities()) != 0 {
		t.Fatal("a bad signature registered a key")
	}
	s.send(request{"POST", identities, body, http.Header{
		"X-Connect-Identity-Signature": {signed(payload("POST", url, body, authorisation, "Content-Type: application/json; charset=utf-8", "Accept: application/json"))},
		"Content-Type":                 {"application/json; charset=utf-8"}, "Accept": {"application/json"},
	}}).is(201)
}

func TestIdentitiesThatAreRefused(t *testing.T) {
	onBothRevisions(t, func(s env) {
		key, public := newKey(t)
		other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		old, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]any{
			"none": nil, "empty": "", "junk": "junk", "P-384": pemOf(t, &other.PublicKey), "RSA": pemOf(t, &old.PublicKey),
			"a certificate": strings.ReplaceAll(public, "PUBLIC KEY", "CERTIFICATE"),
			"broken":        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
		} {
			s.Run(name, func(*testing.T) {
				s.send(s.register(key, jsonOf(object{"public_key": text, "description": "pi5"}))).says(422, "Validation failed: Public key is invalid")
			})
		}
		s.send(s.register(key, jsonOf(object{"public_key": public}))).says(422, "Validation failed: Description can't be blank")

		// The same key is the same however its PEM ends.
		s.send(s.register(key, jsonOf(object{"public_key": public, "description": "pi5"}))).is(201)
		for _, text := range []string{public, strings.TrimSpace(public)} {
			s.send(s.register(key, jsonOf(object{"public_key": text, "description": "again"}))).is(422)
		}
		s.list(identities).has("description", "pi5")
	})
}

// The older revision takes no tags with a new identity, but shows and changes them.
func TestAnIdentitysLife(t *testing.T) {
	onBothRevisions(t, func(s env) {
		key, public := newKey(t)
		public = strings.TrimSpace(public) // it is shown as it was sent
		made := s.send(s.register(key, jsonOf(object{"public_key": public, "description": "pi5", "tags": []string{"lab"}})))
		form := `{"id":"` + made.id() + `","description":%q,"device_name":%s,"created_at":"` + now + `","public_key":` + strconv.Quote(public)
		if s.older {
			s.same(made.object(), fmt.Sprintf(form, "pi5", "null")+"}")
			s.call("PATCH", identities+"/"+made.id(), `{"tags":["lab"]}`).is(200)
		} else {
			s.same(made.object(), fmt.Sprintf(form, "pi5", "null")+`,"tags":["lab"]}`)
		}
		path := identities + "/" + made.id()
		for _, step := range []struct{ body, description, name, tags string }{
			{`{}`, "pi5", `null`, `["lab"]`},
			{`{"description":"shop","device_name":"pi5-001"}`, "shop", `"pi5-001"`, `["lab"]`},
			{`{"tags":["a","b"]}`, "shop", `"pi5-001"`, `["a","b"]`},
			{`{"tags":[],"device_name":null}`, "shop", `null`, `[]`},
		} {
			want := fmt.Sprintf(form, step.description, step.name) + `,"tags":` + step.tags + `}`
			s.same(s.call("PATCH", path, step.body).is(200).object(), want)
			s.same(s.get(path).is(200).object(), want)
			s.same(s.list(identities).rows, "["+want+"]")
		}
		s.call("PATCH", path, `{"description":""}`).says(422, "Validation failed: Description can't be blank")
		s.call("PATCH", path, `{"tags":["No!"]}`).says(422, "Validation failed: Tags are invalid")
		s.call("PATCH", path, `[]`).is(400)

		s.call("DELETE", path, nil).deleted(fmt.Sprintf(form, "shop", "null") + `,"tags":[]}`)
		s.get(path).is(404)
		s.call("DELETE", path, nil).is(404)
	})
}

func TestAnExchangedIdentity(t *testing.T) {
	onBothRevisions(t, func(s env) {
		key, public := newKey(t)
		there := s.org.AddDeviceIdentity(public, "pi5", "pi5-001", []string{"lab"})
		path := identities + "/" + there.ID
		before := s.get(path).is(200).text
		signedIn := s.send(s.exchangeIdentity(key, public)).is(200).object()

		// Nothing says that it has been exchanged.
		if after := s.get(path).is(200).text; after != before {
			t.Errorf("it was %s, and is %s", before, after)
		}
		s.list("/organisation/devices").has("name", "pi5-001")

		// Its name and tags are ignored from now on, without a word.
		for _, body := range []string{`{"device_name":"x"}`, `{"tags":["x"]}`, `{"device_name":null,"tags":[]}`, `{"tags":["Not even valid"]}`} {
			if a := s.call("PATCH", path, body).is(200); a.text != before {
				t.Errorf("%s changed it to %s", body, a.text)
			}
		}
		got := s.call("PATCH", path, `{"description":"shop","device_name":"x","tags":["x"]}`).is(200).object()
		s.same([]any{got["description"], got["device_name"], got["tags"]}, `["shop","pi5-001",["lab"]]`)
		s.call("PATCH", path, `{"description":" "}`).says(422, "Validation failed: Description can't be blank")
		s.list("/organisation/devices").has("name", "pi5-001")

		// It takes its device with it, and only that.
		s.org.AddDevice(connectsim.Device{Name: "other"})
		s.call("DELETE", path, nil)
		s.list("/organisation/devices").has("name", "other")
		s.send(request{"GET", "/deployments/pending", nil, bearer(signedIn["access_token"].(string))}).is(401)
		s.send(s.exchangeIdentity(key, public)).is(404)
	})
}

// Whoever else removes one does it through the same API.
func TestIdentitiesBehindTheAPI(t *testing.T) {
	s := begin(t, connectsim.Options{})
	if got := s.org.AddDeviceIdentity("junk", "pi5", "", nil); got.ID != "" {
		t.Errorf("junk made %+v", got)
	}
	key, public := newKey(t)
	there := s.org.AddDeviceIdentity(public, "pi5", "", nil)
	s.org.ChangeDeviceIdentity(there.ID, func(i *connectsim.Identity) { i.Description = "shop" })
	s.list(identities).has("description", "shop")
	s.send(s.exchangeIdentity(key, public)).is(200)
	if got := s.org.DeviceIdentities()[0]; got.DeviceID != s.org.Devices()[0].ID {
		t.Errorf("it became %q", got.DeviceID)
	}
	s.org.RemoveDeviceIdentity(there.ID)
	s.org.RemoveDeviceIdentity(there.ID)
	s.list(identities).has("id")
	s.list("/organisation/devices").has("id")
}
