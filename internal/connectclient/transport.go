// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"time"
)

// NewTransport returns the default bottom of the chain: Go's transport with
// tighter timeouts. caPEM, if not empty, holds the certificate authorities to
// trust instead of the system's. TLS is always verified.
func NewTransport(caPEM []byte) (http.RoundTripper, error) {
	var roots *x509.CertPool
	if len(caPEM) > 0 {
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(caPEM) {
			return nil, errors.New("no certificate found: give one or more PEM blocks that begin with -----BEGIN CERTIFICATE-----")
		}
	}
	dial := &net.Dialer{
		Timeout: 10 * time.Second,
		// A connection that has silently died is noticed in half a minute while it is idle.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
	}
	return &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: counting(dial.DialContext),
		// The API's headers have less than 2 KiB. Go's bound is 10 MiB, which takes fifty times that to parse.
		MaxResponseHeaderBytes: 64 << 10,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    10 * time.Second,
		// And in less than [readTimeout] while requests wait on it. Without these HTTP/2 goes on to use
		// a dead connection for as long as the kernel tries to reach the other side: a quarter of an hour.
		HTTP2: &http.HTTP2Config{
			SendPingTimeout:  15 * time.Second,
			PingTimeout:      10 * time.Second,
			WriteByteTimeout: 10 * time.Second,
		},
		// Reconcile workers call in parallel, and all call one host.
		MaxIdleConns:        64,
		MaxIdleConnsPerHost: 32,
		// Load balancers commonly drop what has been idle for a minute, some without a word.
		IdleConnTimeout: 50 * time.Second,
	}, nil
}
