// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"context"
	"crypto/tls"
	"net"
	"sync/atomic"
)

// connection is a client's connection, below TLS. It can go silent, as behind a
// load balancer that has forgotten it: nobody is told, nothing is refused, and
// nothing comes.
type connection struct {
	net.Conn

	server *Server
	silent atomic.Bool
}

func (c *connection) silence() { c.silent.Store(true) }

// Close also forgets the connection.
func (c *connection) Close() error {
	c.server.mu.Lock()
	delete(c.server.connections, c)
	c.server.mu.Unlock()
	return c.Conn.Close()
}

// Write loses what a silent connection would say.
func (c *connection) Write(p []byte) (int, error) {
	if c.silent.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// Read loses what a silent connection hears, until the client gives up.
func (c *connection) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err != nil || !c.silent.Load() {
			return n, err
		}
	}
}

// listener makes connections of this kind.
type listener struct {
	net.Listener

	server *Server
}

func (l listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &connection{Conn: accepted, server: l.server}
	l.server.mu.Lock()
	defer l.server.mu.Unlock()
	c.silent.Store(l.server.silent)
	l.server.connections[c] = struct{}{}
	return c, nil
}

// SetSilent lets the server fall silent: it goes on accepting connections and says
// nothing any more, not even a TLS handshake, and nothing on those that are open.
// When it is over, new connections are served; the others stay dead. It is about
// what [Server.Start], [Server.StartTLS] and [Server.Serve] listen on.
func (s *Server) SetSilent(silent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = silent
	for c := range s.connections {
		if silent {
			c.silence()
		}
	}
}

// connectionKey is where a request's context has its connection.
type connectionKey struct{}

// withConnection is the ConnContext of the HTTP servers.
func withConnection(ctx context.Context, c net.Conn) context.Context {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	return context.WithValue(ctx, connectionKey{}, c)
}
