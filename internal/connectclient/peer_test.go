// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// peer is a server that does what servers and proxies do that break: it counts the requests that
// arrive whole, and what becomes of them is up to the test.
type peer struct {
	URL       string
	transport *http.Transport // the client's, which trusts the peer

	mu       sync.Mutex
	complete []string // the methods of the requests that arrived whole
	accepted int      // connections
}

// arrived counts a complete request and returns which one it is, from 1.
func (p *peer) arrived(method string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.complete = append(p.complete, method)
	return len(p.complete)
}

func (p *peer) requests() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.complete)
}

func (p *peer) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

// listen accepts connections until the test ends; one after the other they are handed to talk, which
// closes them by returning.
func (p *peer) listen(t *testing.T, listener net.Listener, talk func(net.Conn)) {
	t.Helper()
	var talks sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	talks.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.accepted++
			p.mu.Unlock()
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			talks.Go(func() {
				defer conn.Close()
				talk(conn)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		mu.Lock()
		for _, conn := range open {
			conn.Close()
		}
		mu.Unlock()
		talks.Wait()
	})
}

// stream is a complete request over HTTP/2 that waits for what becomes of it.
type stream struct {
	*http2.Framer

	ID     uint32
	Number int // of all complete requests the peer has seen, from 1
	Method string
	Conn   net.Conn
}

// answer gives the request a success with a JSON body.
func (s stream) answer(body string) {
	s.WriteHeaders(http2.HeadersFrameParam{StreamID: s.ID, BlockFragment: headers(":status", "200", "content-type", "application/json"), EndHeaders: true})
	s.WriteData(s.ID, true, []byte(body))
}

// headers encodes names and values without a reference to any before, so that a decoder of any
// connection understands them.
func headers(pairs ...string) []byte {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	encoder.SetMaxDynamicTableSize(0)
	for i := 0; i < len(pairs); i += 2 {
		encoder.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return block.Bytes()
}

// http2Peer speaks HTTP/2 over TLS, on loopback. Each complete request is handed to react, which returns
// whether the connection goes on.
func http2Peer(t *testing.T, react func(stream) bool) *peer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	certificate, transport := trusted(t)
	p := &peer{URL: "https://" + listener.Addr().String(), transport: transport}
	p.serveHTTP2(t, listener, certificate, react)
	return p
}

func (p *peer) serveHTTP2(t *testing.T, listener net.Listener, certificate tls.Certificate, react func(stream) bool) {
	t.Helper()
	listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2"}})
	p.listen(t, listener, func(conn net.Conn) {
		preface := make([]byte, len(http2.ClientPreface))
		if _, err := io.ReadFull(conn, preface); err != nil {
			return
		}
		framer := http2.NewFramer(conn, conn)
		framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		framer.WriteSettings()
		methods := map[uint32]string{}
		for {
			frame, err := framer.ReadFrame()
			if err != nil {
				return
			}
			ends := false
			switch f := frame.(type) {
			case *http2.SettingsFrame:
				if !f.IsAck() {
					framer.WriteSettingsAck()
				}
			case *http2.PingFrame:
				if !f.IsAck() {
					framer.WritePing(true, f.Data)
				}
			case *http2.MetaHeadersFrame:
				methods[f.StreamID] = f.PseudoValue("method")
				ends = f.StreamEnded()
			case *http2.DataFrame:
				ends = f.StreamEnded()
			}
			if id := frame.Header().StreamID; ends && !react(stream{framer, id, p.arrived(methods[id]), methods[id], conn}) {
				return
			}
		}
	})
}

// http1Peer speaks HTTP/1.1 in clear text, on loopback. Each complete request is handed to react with its
// number, which returns whether the connection goes on.
func http1Peer(t *testing.T, react func(conn net.Conn, number int) bool) *peer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, transport := trusted(t)
	p := &peer{URL: "http://" + listener.Addr().String(), transport: transport}
	p.serveHTTP1(t, listener, react)
	return p
}

func (p *peer) serveHTTP1(t *testing.T, listener net.Listener, react func(conn net.Conn, number int) bool) {
	t.Helper()
	p.listen(t, listener, func(conn net.Conn) {
		reader := bufio.NewReader(conn)
		for {
			r, err := http.ReadRequest(reader)
			if err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return
			}
			if !react(conn, p.arrived(r.Method)) {
				return
			}
		}
	})
}

// answerHTTP1 gives a request over HTTP/1.1 a success with a JSON body.
func answerHTTP1(conn net.Conn, body string) {
	fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// trusted returns a certificate and the default transport that trusts it.
func trusted(t *testing.T) (tls.Certificate, *http.Transport) {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	certificate := server.TLS.Certificates[0]
	server.Close()
	leaf, err := x509.ParseCertificate(certificate.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	roundTripper, err := NewTransport(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw}))
	if err != nil {
		t.Fatal(err)
	}
	transport, ok := roundTripper.(*http.Transport)
	if !ok {
		t.Fatalf("the default transport is a %T", roundTripper)
	}
	transport.Proxy = nil
	t.Cleanup(transport.CloseIdleConnections)
	return certificate, transport
}
