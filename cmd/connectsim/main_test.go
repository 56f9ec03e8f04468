// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const token = "rporg_7Hk2pQ9xWcVbNmZt4RsYdFgA"

// console is what the program has printed.
type console struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case c.more <- struct{}{}:
	default:
	}
	return c.text.Write(p)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

// program is one that runs.
type program struct {
	*testing.T

	console *console
	url     string
	client  *http.Client
}

var (
	served = regexp.MustCompile(`is at (https?://\S+)`)
	ended  = regexp.MustCompile(`(?m)Ctrl-C ends\.$|Warning: .*$|not served beyond`)
)

// start runs the program until the test ends.
func start(t *testing.T, arguments ...string) program {
	t.Helper()
	p := program{T: t, console: &console{more: make(chan struct{}, 1)}, client: http.DefaultClient}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, append([]string{"--addr", "127.0.0.1:0"}, arguments...), p.console, p.console)
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for !ended.MatchString(p.console.String()) {
		select {
		case err := <-done:
			done <- nil
			t.Fatalf("it ended with %v: %s", err, p.console)
		case <-p.console.more:
		}
	}
	p.url = served.FindStringSubmatch(p.console.String())[1]
	return p
}

// get asks for something, and returns the status and the body.
func (p program) get(path, token string) (int, string) {
	p.Helper()
	req, _ := http.NewRequestWithContext(p.Context(), http.MethodGet, p.url+path, nil)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := p.client.Do(req)
	if err != nil {
		p.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(text)
}

// names are the names of a listing.
func (p program) names(path, token string) string {
	p.Helper()
	status, text := p.get(path, token)
	if status != http.StatusOK {
		p.Fatalf("%s: %d %s", path, status, text)
	}
	var names []string
	for _, name := range regexp.MustCompile(`"name":"([^"]*)"`).FindAllStringSubmatch(regexp.MustCompile(`"os":\{[^}]*\}`).ReplaceAllString(text, ""), -1) {
		names = append(names, name[1])
	}
	return strings.Join(names, " ")
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestItServesAnOrganisation(t *testing.T) {
	p := start(t, "--devices", "6", "--pis", "2", "--time", "2026-03-01T10:30:00Z", "--spent", "100")
	made := regexp.MustCompile(`rporg_\w+`).FindString(p.console.String())
	if got := p.names("/organisation/devices", made); got != "device-001 device-002 device-003 device-004 device-005 device-006 pi-1 pi-2" {
		t.Errorf("there is %s", got)
	}
	if got := p.names("/organisation/devices?query=model:cm5lite", made); got != "device-002" {
		t.Errorf("the CM5 Lites are %s", got)
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+"/organisation/devices", nil)
	req.Header.Set("Authorization", "Bearer "+made)
	res, err := p.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if got := res.Header.Get("X-Rate-Limit-Remaining"); got != "4897" {
		t.Errorf("%s requests are left", got)
	}
	if status, text := p.get("/_sim/pis", ""); status != http.StatusOK || !strings.Contains(text, `"hostname":"pi-2"`) || !strings.Contains(text, `"work_milliseconds":2000`) {
		t.Errorf("the Pis are %d %s", status, text)
	}
	steered, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, p.url+"/_sim/pis/pi-2", strings.NewReader(`{"offline":true}`))
	if res, err = p.client.Do(steered); err != nil || res.StatusCode != http.StatusNoContent {
		t.Errorf("it cannot be steered: %v", err)
	}
	_ = res.Body.Close()
	if _, text := p.get("/_sim/clock", ""); !strings.Contains(text, "2026-03-01T10:3") {
		t.Errorf("it is %s", text)
	}
}

// Of a fleet some are offline, some fail, and some are slow.
func TestSomePisAreNotAsTheyShouldBe(t *testing.T) {
	p := start(t, "--pis", "5", "--pis-offline", "1", "--pis-failing", "2", "--pis-slow", "1")
	_, text := p.get("/_sim/pis", "")
	var pis []struct {
		Hostname string
		Offline  bool
		FailWith string `json:"fail_with"`
		Work     int    `json:"work_milliseconds"`
	}
	if err := json.Unmarshal([]byte(text), &pis); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, pi := range pis {
		got = append(got, fmt.Sprint(pi.Hostname, " ", pi.Offline, " ", pi.FailWith != "", " ", pi.Work))
	}
	want := []string{"pi-1 false false 2000", "pi-2 false false 60000", "pi-3 false true 2000", "pi-4 false true 2000", "pi-5 true false 2000"}
	if !slices.Equal(got, want) {
		t.Errorf("they are %q", got)
	}
}

func TestItBeginsWithASeed(t *testing.T) {
	seed := write(t, "seed.json", `{"organisations":[{"artefacts":[{"name":"kiosk"}],"pis":[{"hostname":"shop","identity":true}]},{"name":"shops","token":"rporg_shops"}]}`)
	p := start(t, "--seed", seed, "--token", token, "--token", "rporg_more", "--devices", "1", "--organisations", "4")
	if got := p.names("/organisation/artefacts", token) + " " + p.names("/organisation/devices", token); got != "kiosk device-001 shop" {
		t.Errorf("there is %s", got)
	}
	for _, token := range []string{"rporg_shops", "rporg_more"} {
		if got := p.names("/organisation/devices", token); got != "" {
			t.Errorf("%s has %s", token, got)
		}
	}
	if got := strings.Count(p.console.String(), "curl"); got != 4 {
		t.Errorf("%d organisations", got)
	}
}

func TestItPlaysWhatTheFlagsSay(t *testing.T) {
	p := start(t, "--token", token, "--revision", "older", "--error-bodies", "plain", "--past-the-end", "not-found",
		"--fault", `{"Route":"GET /organisation/artefacts","Times":1,"Status":503}`, "--fault", `{"Route":"GET /organisation/devices","Times":1,"Status":502}`)
	for _, c := range []struct {
		path   string
		status int
		text   string
	}{
		{"/organisation/artefacts", http.StatusServiceUnavailable, ""},
		{"/organisation/devices", http.StatusBadGateway, ""},
		{"/organisation/auth-keys", http.StatusNotFound, "Not found"},
		{"/organisation/deployments/0", http.StatusNotFound, "Not found"},
		{"/organisation/devices?page=99", http.StatusNotFound, "Not found"},
	} {
		if status, text := p.get(c.path, token); status != c.status || text != c.text {
			t.Errorf("%s: %d %s, want %d %s", c.path, status, text, c.status, c.text)
		}
	}
}

func TestATokenIsRevoked(t *testing.T) {
	p := start(t, "--token", token, "--revoke-after", "1ms")
	for {
		if status, _ := p.get("/organisation/devices", token); status == http.StatusUnauthorized {
			return
		}
	}
}

// certificate writes a certificate for 127.0.0.1 and its key.
func certificate(t *testing.T) (certificate, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return write(t, "tls.crt", string(text)), write(t, "tls.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))), pool
}

func TestItServesHTTPS(t *testing.T) {
	crt, key, pool := certificate(t)
	seed := write(t, "seed.json", `{"organisations":[{"pis":[{"hostname":"shop","identity":true}]}]}`)
	p := start(t, "--token", token, "--tls-cert", crt, "--tls-key", key, "--seed", seed)
	p.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	if got := p.names("/organisation/devices", token); !strings.HasPrefix(p.url, "https://127.0.0.1:") || got != "shop" {
		t.Errorf("at %s there is %s", p.url, got)
	}
}

// Who reaches the simulator from elsewhere controls it only if that is said.
func TestTheAdminInterfaceIsForLoopback(t *testing.T) {
	for _, c := range []struct {
		flags  []string
		status int
		says   string
	}{
		{[]string{"--addr", "0.0.0.0:0"}, http.StatusNotFound, "not served beyond loopback"},
		{[]string{"--addr", "0.0.0.0:0", "--admin"}, http.StatusOK, "Warning: whoever reaches"},
		{[]string{"--addr", "127.0.0.1:0"}, http.StatusOK, "/_sim/. Ctrl-C ends"},
		{[]string{"--addr", "127.0.0.1:0", "--admin"}, http.StatusOK, "/_sim/. Ctrl-C ends"},
	} {
		p := start(t, append([]string{"--token", token, "--pis", "1", "--public-url", "https://connect.example.com/"}, c.flags...)...)
		if p.url != "https://connect.example.com" || !strings.Contains(p.console.String(), c.says) {
			t.Errorf("%v: %s", c.flags, p.console)
		}
		port := regexp.MustCompile(`(?:0\.0\.0\.0|127\.0\.0\.1|\[::\]):(\d+)`).FindStringSubmatch(p.console.String())
		p.url = "http://127.0.0.1:" + port[1]
		if status, _ := p.get("/_sim/state", ""); status != c.status {
			t.Errorf("%v: %d", c.flags, status)
		}
		if got := p.names("/organisation/devices", token); got != "pi-1" {
			t.Errorf("%v: there is %s", c.flags, got)
		}
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	crt, key, _ := certificate(t)
	for _, c := range []struct {
		flags []string
		why   string
	}{
		{[]string{"older"}, `what is "older"`},
		{[]string{"--pis", "1", "2"}, `what is "2"`},
		{[]string{"--revision", "newest"}, "current or older"},
		{[]string{"--error-bodies", "xml"}, "--error-bodies"},
		{[]string{"--past-the-end", "loop"}, "--past-the-end"},
		{[]string{"--pis", "-1"}, "--pis"},
		{[]string{"--pis", "2", "--pis-failing", "-1"}, "--pis-failing"},
		{[]string{"--pis", "2", "--pis-offline", "1", "--pis-slow", "2"}, "more Pis together than there are"},
		{[]string{"--devices", "-1"}, "--devices"},
		{[]string{"--rate-limit", "0"}, "--rate-limit"},
		{[]string{"--window", "0s"}, "--window"},
		{[]string{"--latency", "-1s"}, "--latency"},
		{[]string{"--spent", "-1"}, "--spent"},
		{[]string{"--journal", "0"}, "--journal"},
		{[]string{"--token", "rpoak_1"}, "begins with rporg_"},
		{[]string{"--token", token, "--token", token}, "one token opens one"},
		{[]string{"--token", token, "--token", "rporg_2", "--organisations", "1"}, "--organisations"},
		{[]string{"--public-url", "connect.example.com"}, "--public-url"},
		{[]string{"--public-url", "https://user@connect.example.com"}, "--public-url"},
		{[]string{"--tls-cert", crt}, "belong together"},
		{[]string{"--tls-cert", key, "--tls-key", crt}, "--tls-cert"},
		{[]string{"--seed", filepath.Join(t.TempDir(), "none")}, "--seed"},
		{[]string{"--seed", write(t, "seed.json", "{\n\"organisations\":[{\"devices\":1}]}")}, "line 2"},
		{[]string{"--seed", write(t, "seed.json", `{"organisations":[{"devices":[{}]}]}`)}, "organisations[0]: devices[0]: a device has a name"},
		{[]string{"--seed", write(t, "seed.json", `{"organisations":[{"pis":[{"hostname":"pi-1"}]}]}`), "--pis", "1"}, "already"},
		{[]string{"--fault", `{"Route":"GET /nothing"}`}, "no route"},
		{[]string{"--fault", `{"Stauts":500}`}, "Stauts"},
		{[]string{"--fault", `POST`}, "--fault POST"},
		{[]string{"--time", "noon"}, "give a time such as 2026-03-01T10:30:00Z"},
		{[]string{"--revision", "older", "--rate-limit", "5"}, "no rate limit"},
		{[]string{"--revision", "older", "--window", "1m"}, "no rate limit"},
		{[]string{"--revision", "older", "--spent", "5"}, "no rate limit"},
		{[]string{"--nonsense"}, "nonsense"},
		{[]string{"--addr", "nowhere"}, "nowhere"},
	} {
		var out bytes.Buffer
		err := run(t.Context(), append([]string{"--addr", "127.0.0.1:0"}, c.flags...), &out, &out)
		if err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%v: %v", c.flags, err)
		}
	}
	var out bytes.Buffer
	if err := run(t.Context(), []string{"--help"}, &out, &out); !errors.Is(err, flag.ErrHelp) || !strings.Contains(out.String(), "-superseded-as-cancelled") {
		t.Errorf("%v: %s", err, out.String())
	}
}
