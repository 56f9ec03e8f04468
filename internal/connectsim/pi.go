// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Pi is a virtual Raspberry Pi: it signs in and runs deployments through the
// device side of the API, over HTTP, as a real one does.
type Pi struct {
	// Hostname is what the device is called if its key does not say.
	Hostname string
	// SerialNumber of the board.
	SerialNumber string

	baseURL string
	// publicURL is the base URL that is signed, if it is another one.
	publicURL string
	client    *http.Client

	mu        sync.Mutex
	token     string
	behaviour Behaviour
}

// Behaviour is how a Pi takes deployments.
type Behaviour struct {
	// Every is how often it asks for deployments. Default one second.
	Every time.Duration
	// WorkTime is how long it installs.
	WorkTime time.Duration
	// Offline: it does not ask, nor go on with what it has begun.
	Offline bool
	// FailWith makes it fail with this reason.
	FailWith string
	// FailShare, between 0 and 1, is the share of the deployments that fail; 0
	// stands for all of them. Which ones is decided by their ids.
	FailShare float64
	// FailURI is what the URI of an artefact has in it that fails, such as a bad
	// version; empty for every artefact.
	FailURI string
	// RemoteUpdateOff: it is online, and takes no deployments.
	RemoteUpdateOff bool
}

// fails tells whether a deployment of the artefact at the URI fails.
func (b Behaviour) fails(deployment, uri string) bool {
	if b.FailWith == "" || !strings.Contains(uri, b.FailURI) {
		return false
	}
	sum := sha256.Sum256([]byte(deployment))
	return b.FailShare <= 0 || float64(binary.BigEndian.Uint32(sum[:]))/(1<<32) < b.FailShare
}

// NewPi returns a Pi that talks to the server at the base URL.
func NewPi(baseURL, hostname, serialNumber string) *Pi {
	return &Pi{
		Hostname: hostname, SerialNumber: serialNumber,
		baseURL: strings.TrimRight(baseURL, "/"), client: &http.Client{Timeout: 30 * time.Second},
	}
}

// Behave changes how the Pi takes deployments, from now on.
func (p *Pi) Behave(b Behaviour) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.behaviour = b
}

func (p *Pi) state() (Behaviour, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.behaviour
	if b.Every <= 0 {
		b.Every = time.Second
	}
	return b, p.token
}

// SignInWithAuthKey exchanges an auth key (rpoak_…) for the Pi's own token.
func (p *Pi) SignInWithAuthKey(ctx context.Context, key string) error {
	return p.signIn(ctx, "/client/auth-key-exchange", map[string]string{
		"auth_key": key, "serial_number": p.SerialNumber, "hostname": p.Hostname, "client_id": "connectsim",
	}, nil)
}

// SignInWithIdentity exchanges the identity of the key, proving to hold it.
func (p *Pi) SignInWithIdentity(ctx context.Context, key *ecdsa.PrivateKey) error {
	return p.signIn(ctx, "/client/device-identity-exchange", map[string]string{
		"client_id": "connectsim", "public_key": publicPEM(key), "hostname": p.Hostname, "serial_number": p.SerialNumber,
	}, key)
}

func (p *Pi) signIn(ctx context.Context, path string, body map[string]string, key *ecdsa.PrivateKey) error {
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	status, err := p.call(ctx, http.MethodPost, path, body, key, &answer)
	if err != nil {
		return err
	}
	if status != http.StatusOK || answer.AccessToken == "" {
		return fmt.Errorf("sign in: Connect answers %d", status)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.token = answer.AccessToken
	return nil
}

// SignedIn lets the Pi be a device that is signed in already.
func (p *Pi) SignedIn(o *Organisation, deviceID string) {
	o.server.mu.Lock()
	token := ""
	if d, found := o.devices.byID[deviceID]; found {
		token = d.token
	}
	o.server.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.token = token
}

// Run takes deployments until the context ends.
func (p *Pi) Run(ctx context.Context) {
	for {
		b, token := p.state()
		if token != "" && !b.Offline && !b.RemoteUpdateOff {
			p.takeNext(ctx, b)
		}
		if !pause(ctx, b.Every) {
			return
		}
	}
}

// takeNext runs the next pending deployment to its end, if there is one. What
// cannot be started is tried again the next time.
func (p *Pi) takeNext(ctx context.Context, b Behaviour) {
	var pending struct {
		Deployments []struct{ ID string }
	}
	status, err := p.call(ctx, http.MethodGet, "/deployments/pending", nil, nil, &pending)
	if err != nil || status != http.StatusOK || len(pending.Deployments) == 0 {
		return
	}
	id := pending.Deployments[0].ID
	var started struct {
		Artefact struct{ URI string }
	}
	if status, err := p.call(ctx, http.MethodPost, "/deployments/"+id+"/start", nil, nil, &started); err != nil || status != http.StatusOK {
		return
	}
	if !pause(ctx, b.WorkTime) {
		return
	}
	for !p.report(ctx, id, started.Artefact.URI) {
		b, _ := p.state()
		if !pause(ctx, b.Every) {
			return
		}
	}
}

// report says how the deployment went. It returns false if that was not heard:
// the Pi is offline, or Connect in trouble.
func (p *Pi) report(ctx context.Context, deployment, uri string) bool {
	b, _ := p.state()
	if b.Offline {
		return false
	}
	outcome, body := "/complete", any(nil)
	if b.fails(deployment, uri) {
		outcome, body = "/fail", map[string]string{"reason": b.FailWith}
	}
	status, err := p.call(ctx, http.MethodPost, "/deployments/"+deployment+outcome, body, nil, nil)
	return err == nil && status < http.StatusInternalServerError
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// call sends a request of the device side; with a key it is signed, without it
// carries the device's token.
func (p *Pi) call(ctx context.Context, method, path string, body any, key *ecdsa.PrivateKey, into any) (int, error) {
	var text []byte
	if body != nil {
		text, _ = json.Marshal(body) // maps of strings always marshal
	}
	req, err := http.NewRequestWithContext(ctx, method, p.baseURL+path, bytes.NewReader(text))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	if key != nil {
		signature, err := signRequest(key, req, strings.TrimRight(orElse(p.publicURL, p.baseURL), "/")+path, text)
		if err != nil {
			return 0, err
		}
		req.Header.Set(signatureHeader, signature)
	} else if _, token := p.state(); token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := p.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	if err != nil {
		return 0, err
	}
	if into != nil && res.StatusCode == http.StatusOK {
		return res.StatusCode, json.Unmarshal(answer, into)
	}
	return res.StatusCode, nil
}

// signRequest signs as a device does, which has no Authorization to sign.
func signRequest(key *ecdsa.PrivateKey, req *http.Request, url string, body []byte) (string, error) {
	sum := sha256.Sum256(body)
	payload := strings.Join([]string{
		req.Method, url, "Content-Type: " + req.Header.Get("Content-Type"), hex.EncodeToString(sum[:]),
	}, "\n")
	digest := sha256.Sum256([]byte(payload))
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	return base64.StdEncoding.EncodeToString(signature), err
}
