package server

import (
	"cmp"
	"context"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/reclaim"
)

// A conn is a connection with the time and memory limits of the server. Its codec reads and writes
// through it.
type conn struct {
	net.Conn
	srv  *Server
	peer infer.Peer

	life context.Context //nolint:containedctx // of the connection, for Reserve, which its codec's reader calls
	end  context.CancelCauseFunc
	busy atomic.Bool // a request runs, or the connection lingers after the last one

	// Used only by the goroutine of the connection.
	held  int64     // bytes taken from Server.Memory
	fresh time.Time // the write deadline need not be set again before this time
	frame inFrame
	began time.Time // when the message being read began
}

var _ frame.Limiter = (*conn)(nil)

// inFrame is the state of the message that a conn reads.
//
//	between ──first byte──▶ begun ──more is read──▶ timed
//	   ▲────────── whole, or failed ─────┴────────────┘
//
// A message that arrives with one read never gets a deadline, because setting a deadline costs as
// much as a short read.
type inFrame int

const (
	between inFrame = iota
	begun
	timed // the read deadline is set
)

// Write sends a message. It returns an error if the client does not read the message in time.
func (c *conn) Write(p []byte) (int, error) {
	if err := c.refresh(); err != nil {
		return 0, err
	}
	// Checked after refresh, which may have overwritten the deadline that close has set. If the
	// server closes later, close sets its own deadline.
	if c.srv.closing.Load() {
		if err := c.limitWrite(lastWrite); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(p)
}

// refresh sets the deadline of the next write. Setting a deadline costs as much as a small write.
// So refresh adds 1/64 to WriteTimeout, and sets no new deadline until that additional time has
// passed.
func (c *conn) refresh() error {
	now, due := time.Now(), c.srv.WriteTimeout
	if due <= 0 || now.Before(c.fresh) {
		return nil
	}
	more := due / 64
	c.fresh = now.Add(more)
	return c.SetWriteDeadline(now.Add(due + more))
}

// limitWrite sets the deadline of the present write, or else of the next one, to d from now.
func (c *conn) limitWrite(d time.Duration) error {
	return c.SetWriteDeadline(time.Now().Add(d))
}

// FrameActive begins or ends the time limit for the arrival of a message. The codec's reader calls it
// with true when the first byte has arrived, and with false when the message is whole or has failed.
func (c *conn) FrameActive(under bool) {
	if under {
		c.frame, c.began = begun, time.Now()
		return
	}
	if c.frame == timed {
		_ = c.SetReadDeadline(time.Time{}) // fails if the connection is closed; so will the next read
	}
	c.frame = between
}

// Read reads bytes. It sets the read deadline of a message of which an earlier read brought only a
// part.
func (c *conn) Read(p []byte) (int, error) {
	if c.frame == begun {
		c.frame = timed
		_ = c.SetReadDeadline(c.began.Add(cmp.Or(c.srv.FrameTimeout, defaultFrameTimeout))) // fails if closed, as Read does
	}
	return c.Conn.Read(p)
}

// Reserve takes n bytes of memory for a message. It waits until they are free, for FrameTimeout at
// most; after that the error is [os.ErrDeadlineExceeded]. The end of the connection also ends the
// wait.
func (c *conn) Reserve(n int) error {
	if c.srv.Memory == nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(c.life, cmp.Or(c.srv.FrameTimeout, defaultFrameTimeout), os.ErrDeadlineExceeded)
	defer cancel()
	if err := c.srv.Memory.Acquire(ctx, c.peer.Caller(), int64(n), c.held); err != nil {
		return err
	}
	c.held += int64(n)
	return nil
}

// releaseMemory returns the memory that the last request held.
func (c *conn) releaseMemory() {
	if c.held > 0 {
		c.srv.Memory.Release(c.peer.Caller(), c.held)
		reclaim.After(c.held)
		c.held = 0
	}
}

// linger closes the server's half of the connection, and then discards the bytes that the client
// still sends, for at most d. Without linger the client might lose the last message, or get an error
// in place of the end of the stream, because closing a connection with unread bytes resets it.
func (c *conn) linger(d time.Duration) {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || c.SetReadDeadline(time.Now().Add(d)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes) // an error also ends the wait
}

// add adds a listener. It reports false if the server is closed.
func (srv *Server) add(ln net.Listener) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.closing.Load() {
		return false
	}
	if srv.listeners == nil {
		srv.listeners = make(map[net.Listener]struct{})
	}
	srv.listeners[ln] = struct{}{}
	return true
}

func (srv *Server) remove(ln net.Listener) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	delete(srv.listeners, ln)
}

// track adds a connection. It reports false if the server is closed.
func (srv *Server) track(c *conn) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.closing.Load() {
		return false
	}
	if srv.conns == nil {
		srv.conns = make(map[*conn]struct{})
	}
	srv.conns[c] = struct{}{}
	return true
}

func (srv *Server) untrack(c *conn) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	delete(srv.conns, c)
}

// close closes the listeners and the idle connections. On the other connections, on which the runner has
// canceled the requests, the present write and each further one may take at most lastWrite.
func (srv *Server) close() {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.closing.Swap(true) {
		return
	}
	for ln := range srv.listeners {
		_ = ln.Close()
	}
	for c := range srv.conns {
		if c.busy.Load() {
			_ = c.limitWrite(lastWrite) // fails if the connection is closed, which its goroutine notices
			continue
		}
		c.end(net.ErrClosed)
		_ = c.Close()
	}
}
