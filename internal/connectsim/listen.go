// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"time"
)

// Start serves on the address, such as 127.0.0.1:0 (the default if it is empty),
// and returns the base URL.
func (s *Server) Start(address string) (string, error) {
	return s.start(address, "http", nil)
}

// StartTLS serves with TLS, over HTTP/2 to clients that speak it, and returns the
// base URL and, in PEM, the certificate authority that clients have to trust. The
// certificate is good for localhost and the addresses of loopback.
func (s *Server) StartTLS(address string) (baseURL string, ca []byte, err error) {
	certificate, err := selfSigned()
	if err != nil {
		return "", nil, err
	}
	baseURL, err = s.start(address, "https", &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12})
	return baseURL, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}), err
}

func (s *Server) start(address, scheme string, secure *tls.Config) (string, error) {
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return "", err
	}
	server := s.register(s, secure)
	go func() { _ = serve(server, listener{l, s}) }() // ends with Close
	return scheme + "://" + l.Addr().String(), nil
}

// Serve serves the handler, which is the server itself or its [Server.Admin], on
// a listener until [Server.Close]; with TLS if there is a configuration of it.
// Faults of the connection itself need it: behind another HTTP server [Fault.Dead]
// holds back its own answer alone.
func (s *Server) Serve(l net.Listener, handler http.Handler, secure *tls.Config) error {
	return serve(s.register(handler, secure), listener{l, s})
}

// register makes an HTTP server that Close closes, whether it is serving yet or
// not.
func (s *Server) register(handler http.Handler, secure *tls.Config) *http.Server {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, ConnContext: withConnection, TLSConfig: secure}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving = append(s.serving, server)
	return server
}

func serve(server *http.Server, l net.Listener) error {
	var err error
	if server.TLSConfig != nil {
		err = server.ServeTLS(l, "", "")
	} else {
		err = server.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Close stops serving.
func (s *Server) Close() {
	s.mu.Lock()
	serving := s.serving
	s.serving = nil
	s.mu.Unlock()
	for _, server := range serving {
		_ = server.Close()
	}
}

// selfSigned returns a certificate that is its own authority.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "connectsim"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
