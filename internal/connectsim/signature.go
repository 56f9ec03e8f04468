// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strings"
)

// signatureHeader is where a device's signature is.
const signatureHeader = "X-Connect-Identity-Signature"

// toBeSigned is what a signature is over: the method, the URL, each of the headers
// with its value, and the hash of the body. Accept and X-Connect-Timestamp are
// lines only if the request carries them.
func (c *call) toBeSigned(headers ...string) string {
	sum := sha256.Sum256(c.body)
	lines := []string{c.Method, c.url()}
	for _, name := range headers {
		values, has := c.Header[name]
		if optional := name == "Accept" || name == timestampHeader; has || !optional {
			lines = append(lines, name+": "+strings.Join(values, ", "))
		}
	}
	return strings.Join(append(lines, hex.EncodeToString(sum[:])), "\n")
}

// url is the full URL as the client sees it.
func (c *call) url() string {
	path := c.RequestURI // as it was sent, with slashes that say nothing
	if !strings.HasPrefix(path, "/") {
		path = c.URL.RequestURI()
	}
	if c.server.options.PublicURL != "" {
		return strings.TrimRight(c.server.options.PublicURL, "/") + path
	}
	scheme := "http"
	if c.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + c.Host + path
}

// signed tells whether the request's signature is that of the key: ECDSA over the
// SHA-256, in DER, in base64.
func (c *call) signed(key *ecdsa.PublicKey, payload string) bool {
	signature, err := base64.StdEncoding.DecodeString(c.Header.Get(signatureHeader))
	digest := sha256.Sum256([]byte(payload))
	return err == nil && ecdsa.VerifyASN1(key, digest[:], signature)
}

// badSignature refuses a signature. It says what was expected to be signed, which
// the API does not: who gets it wrong has nothing else to go by. The body of such
// a refusal is unpublished; only the form with a message can say more.
func (c *call) badSignature(status int, text, payload string) reply {
	digest := sha256.Sum256([]byte(payload))
	expected := object{"payload": redact(payload), "sha256": hex.EncodeToString(digest[:])}
	c.note = "expected to be signed, with the SHA-256 " + hex.EncodeToString(digest[:]) + ":\n" + payload
	if status != http.StatusUnprocessableEntity && c.server.options.ErrorBodies != MessageBodies {
		return c.unpublished(status, text)
	}
	return reply{status, object{"message": text, "expected": expected}}
}
