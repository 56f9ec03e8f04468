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

	silent atomic.Bool
}

func (c *connection) silence() { c.silent.Store(true) }

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
type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &connection{Conn: c}, nil
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
