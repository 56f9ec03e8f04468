// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// network is connections in memory, so that time can be simulated around them. Once they are swallowed
// they stay open and nothing arrives on them any more, as when a firewall has forgotten them.
type network struct {
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once

	mu    sync.Mutex
	conns []*memoryConn
}

func newNetwork() *network {
	return &network{accept: make(chan net.Conn), closed: make(chan struct{})}
}

// dial makes a connection to whoever accepts.
func (n *network) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	up, down := newQueue(), newQueue()
	near, far := &memoryConn{in: down, out: up}, &memoryConn{in: up, out: down}
	n.mu.Lock()
	n.conns = append(n.conns, near, far)
	n.mu.Unlock()
	select {
	case n.accept <- far:
		return near, nil
	case <-n.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// swallow silences the connections that there are, and none that is made later.
func (n *network) swallow() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		c.out.silence()
	}
}

// Accept implements [net.Listener].
func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.accept:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener]. It ends the connections, too, at both ends.
func (n *network) Close() error {
	n.once.Do(func() { close(n.closed) })
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		c.Close()
	}
	return nil
}

// Addr implements [net.Listener].
func (n *network) Addr() net.Addr { return memoryAddr{} }

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "memory" }

// memoryConn is one end of a connection. Writing never waits, so deadlines are for nothing.
type memoryConn struct{ in, out *queue }

func (c *memoryConn) Read(p []byte) (int, error)  { return c.in.read(p) }
func (c *memoryConn) Write(p []byte) (int, error) { return c.out.write(p) }

func (c *memoryConn) Close() error {
	c.out.finish()
	c.in.abandon()
	return nil
}

func (*memoryConn) LocalAddr() net.Addr              { return memoryAddr{} }
func (*memoryConn) RemoteAddr() net.Addr             { return memoryAddr{} }
func (*memoryConn) SetDeadline(time.Time) error      { return nil }
func (*memoryConn) SetReadDeadline(time.Time) error  { return nil }
func (*memoryConn) SetWriteDeadline(time.Time) error { return nil }

// queue is the bytes on their way in one direction.
type queue struct {
	mu        sync.Mutex
	changed   *sync.Cond
	bytes     []byte
	silent    bool // what is written from now on is lost, and so is the end
	finished  bool // by the writer
	abandoned bool // by the reader
}

func newQueue() *queue {
	q := &queue{}
	q.changed = sync.NewCond(&q.mu)
	return q
}

func (q *queue) read(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		switch {
		case q.abandoned:
			return 0, net.ErrClosed
		case len(q.bytes) > 0:
			n := copy(p, q.bytes)
			q.bytes = q.bytes[n:]
			return n, nil
		case q.finished:
			return 0, io.EOF
		}
		q.changed.Wait()
	}
}

func (q *queue) write(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.finished, q.abandoned && !q.silent:
		return 0, net.ErrClosed
	case !q.silent:
		q.bytes = append(q.bytes, p...)
		q.changed.Broadcast()
	}
	return len(p), nil
}

func (q *queue) silence() { q.change(func() { q.silent = true }) }
func (q *queue) abandon() { q.change(func() { q.abandoned = true }) }
func (q *queue) finish()  { q.change(func() { q.finished = !q.silent }) }

func (q *queue) change(how func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	how()
	q.changed.Broadcast()
}
