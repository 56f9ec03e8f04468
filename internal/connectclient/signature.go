// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strings"
)

// IdentityRequest is the one request of the API that has to be signed: whoever
// registers a device identity proves that they hold the private key. It fixes the
// exact bytes that will be sent, and what of them is signed.
//
// A device signs nothing but [IdentityRequest.Digest]: 32 bytes, which do not
// reveal the access token that the signature covers. So the digest may be
// published, and the payload it is made of is not kept.
type IdentityRequest struct {
	baseURL string
	token   Secret
	body    []byte
	digest  [sha256.Size]byte
}

// NewIdentityRequest makes the request for a client with that base URL and that
// token; it can be sent by no other.
func NewIdentityRequest(baseURL string, token Secret, create DeviceIdentityCreate) IdentityRequest {
	r := IdentityRequest{
		baseURL: strings.TrimRight(baseURL, "/"),
		token:   token,
		body:    encode(create),
	}
	r.digest = sha256.Sum256(r.payload())
	return r
}

// payload is what is signed. It holds the access token. There is no line for an
// Accept header because none is sent, and no newline at the end.
func (r IdentityRequest) payload() []byte {
	sum := sha256.Sum256(r.body)
	return []byte(strings.Join([]string{
		http.MethodPost,
		r.baseURL + deviceIdentitiesPath,
		"Authorization: " + authorization(r.token),
		"Content-Type: " + contentType,
		hex.EncodeToString(sum[:]),
	}, "\n"))
}

// Body is the exact body that will be sent.
func (r IdentityRequest) Body() []byte { return bytes.Clone(r.body) }

// Digest is the SHA-256 that has to be signed, with ECDSA on P-256. It changes
// with the token, the address of the API, and everything in the identity.
func (r IdentityRequest) Digest() [sha256.Size]byte { return r.digest }

// Sign signs the request: ASN.1 DER in standard base64. The signature is
// deterministic (RFC 6979).
func (r IdentityRequest) Sign(key *ecdsa.PrivateKey) (string, error) {
	if key == nil || key.Curve != elliptic.P256() {
		return "", errWrongCurve
	}
	signature, err := key.Sign(nil, r.digest[:], crypto.SHA256) // no randomness: RFC 6979
	if err != nil {
		return "", fmt.Errorf("sign the device identity: %w", err)
	}
	return base64.StdEncoding.EncodeToString(signature), nil
}

// Verify tells whether the signature, as [IdentityRequest.Sign] and the vendor's
// tools make it, is the key's and of this very request. White space around and
// line breaks within it do not matter.
func (r IdentityRequest) Verify(public *ecdsa.PublicKey, signature string) error {
	_, err := r.verified(public, signature)
	return err
}

// Signed makes the request ready for [DeviceIdentityClient.Create]. It verifies
// the signature first, as [IdentityRequest.Verify] does.
func (r IdentityRequest) Signed(public *ecdsa.PublicKey, signature string) (*SignedIdentity, error) {
	der, err := r.verified(public, signature)
	if err != nil {
		return nil, err
	}
	return &SignedIdentity{request: r, signature: base64.StdEncoding.EncodeToString(der)}, nil
}

// SignedIdentity is an [IdentityRequest] with a signature that is known to be
// right.
type SignedIdentity struct {
	request   IdentityRequest
	signature string
}

// maxSignature is longer than any signature on P-256, in base64 and with line
// breaks: what comes from a user is bounded before it is looked at.
const maxSignature = 256

func (r IdentityRequest) verified(public *ecdsa.PublicKey, signature string) (der []byte, err error) {
	signature = strings.TrimSpace(signature)
	switch {
	case public == nil || public.Curve != elliptic.P256():
		return nil, errWrongCurve
	case signature == "":
		return nil, errors.New("the signature is empty")
	case len(signature) > maxSignature:
		return nil, errors.New("the signature is too long: give the base64 text of one ECDSA signature, about 96 characters")
	}
	der, err = base64.StdEncoding.Strict().DecodeString(signature)
	if err != nil {
		return nil, errors.New("the signature is not standard base64 with padding: encode the ASN.1 DER signature with, for example, base64 -w0")
	}
	var point struct{ R, S *big.Int }
	switch rest, err := asn1.Unmarshal(der, &point); {
	case err != nil && len(der) == 64:
		return nil, errors.New("the signature is the bare pair r and s: encode it as ASN.1 DER")
	case err != nil, len(rest) > 0:
		return nil, errors.New("the signature is not ASN.1 DER")
	case !ecdsa.VerifyASN1(public, r.digest[:], der):
		return nil, errors.New("the signature is of something else, or made with another key")
	}
	return der, nil
}

var errWrongCurve = errors.New("the key is not on the curve P-256 (prime256v1, secp256r1): device identities use no other")

// ParsePublicKeyPEM reads a public key on P-256: one PEM block of the type
// PUBLIC KEY, with nothing around it but white space. Two keys are the same if
// their parsed values are Equal; their PEM may differ.
func ParsePublicKeyPEM(data []byte) (*ecdsa.PublicKey, error) {
	block, err := onlyBlock(data, "PUBLIC KEY")
	if err != nil {
		return nil, err
	}
	switch {
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return nil, errors.New("this is a private key: give its public half, which openssl pkey -pubout prints, and keep the private one to yourself")
	case block.Type != "PUBLIC KEY":
		return nil, fmt.Errorf("the PEM block is %s: a PUBLIC KEY is needed, which openssl pkey -pubout prints", quoted(block.Type))
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the PEM block holds no valid public key")
	}
	public, ok := key.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		return nil, errWrongCurve
	}
	return public, nil
}

// ParsePrivateKeyPEM reads a private key on P-256, PKCS#8 or SEC 1, not encrypted.
// Its errors never quote the input.
func ParsePrivateKeyPEM(data []byte) (*ecdsa.PrivateKey, error) {
	// openssl ecparam -genkey writes the parameters of the curve first.
	if block, rest := pem.Decode(data); block != nil && block.Type == "EC PARAMETERS" {
		data = rest
	}
	block, err := onlyBlock(data, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	var key any
	switch {
	case block.Type == "ENCRYPTED PRIVATE KEY", block.Headers["DEK-Info"] != "":
		return nil, errors.New("the private key is encrypted: decrypt it with openssl pkey")
	case block.Type == "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case block.Type == "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case block.Type == "PUBLIC KEY":
		return nil, errors.New("this is a public key: give the private one")
	default:
		return nil, errors.New("the PEM block is neither a PRIVATE KEY (PKCS#8) nor an EC PRIVATE KEY (SEC 1)")
	}
	if err != nil {
		return nil, errors.New("the PEM block holds no valid private key")
	}
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok || private.Curve != elliptic.P256() {
		return nil, errWrongCurve
	}
	return private, nil
}

// onlyBlock reads a text that is one PEM block and nothing else: what precedes a
// block, or follows it, may be the key that was meant.
func onlyBlock(data []byte, kind string) (*pem.Block, error) {
	data = bytes.TrimSpace(data)
	block, rest := pem.Decode(data)
	switch {
	case block == nil, !bytes.HasPrefix(data, []byte("-----BEGIN ")):
		return nil, fmt.Errorf("this is not PEM: it has to begin with -----BEGIN %s----- and to end with -----END %[1]s-----, with the line breaks kept", kind)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("there is something after the PEM block: give one key and nothing else")
	}
	return block, nil
}

// quoted is a PEM block's type, which comes from a user, fit for a message.
func quoted(blockType string) string { return fmt.Sprintf("%q", clean(blockType, Secret{})) }
