package server

import (
	"cmp"
	"context"
	"io"
	"net"
	"os"
	"runtime/debug"
	"time"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
)

// A conn is a connection with the server's time limits. Its codec reads and writes
// through it.
type conn struct {
	net.Conn
	srv  *Server
	peer infer.Peer

	life context.Context //nolint:containedctx // of the connection, for Hold, which its codec's reader calls
	end  context.CancelCauseFunc
	held int64 // bytes taken of Server.Memory; only the connection's goroutine knows

	fresh time.Time // until then the write deadline is new enough; as held
	frame inFrame   // as held
	began time.Time // the message under way; as held

	// cancel ends the running request; nil while there is none. Guarded by Server.mu.
	cancel context.CancelCauseFunc
}

var _ frame.Watcher = (*conn)(nil)

// inFrame is the state of the message that a conn reads.
//
//	between ──first byte──▶ begun ──more is read──▶ timed
//	   ▲────────── whole, or failed ─────┴────────────┘
//
// A message that arrives whole never gets a deadline: setting one costs as much as a short
// read.
type inFrame int

const (
	between inFrame = iota
	begun
	timed // the read deadline is set
)

// Write sends a message, or fails when the client takes too long for it.
func (c *conn) Write(p []byte) (int, error) {
	if err := c.refresh(); err != nil {
		return 0, err
	}
	// Looked up after the deadline has been set: either it is seen here, or closeLocked
	// sets its own deadline later than we did ours.
	if c.srv.hurry.Load() {
		if err := c.limitWrite(lastWrite); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(p)
}

// refresh gives the next write its time. A deadline costs as much as a small write does,
// so it is set with a little more than is due, and then serves for that little.
func (c *conn) refresh() error {
	now, due := time.Now(), c.srv.WriteTimeout
	if due <= 0 || now.Before(c.fresh) {
		return nil
	}
	more := due / 64
	c.fresh = now.Add(more)
	return c.SetWriteDeadline(now.Add(due + more))
}

// limitWrite gives the write that goes on, or the next, time d.
func (c *conn) limitWrite(d time.Duration) error {
	return c.SetWriteDeadline(time.Now().Add(d))
}

// InFrame limits the time that a message may take to arrive.
func (c *conn) InFrame(under bool) {
	if under {
		c.frame, c.began = begun, time.Now()
		return
	}
	if c.frame == timed {
		_ = c.SetReadDeadline(time.Time{}) // fails if closed, which the next read tells
	}
	c.frame = between
}

// Read sets the read deadline of a message that did not arrive whole.
func (c *conn) Read(p []byte) (int, error) {
	if c.frame == begun {
		c.frame = timed
		_ = c.SetReadDeadline(c.began.Add(cmp.Or(c.srv.FrameTimeout, defaultFrameTimeout))) // fails if closed, as Read does
	}
	return c.Conn.Read(p)
}

// Hold takes memory for a message. Nothing is read while there is none.
func (c *conn) Hold(n int) error {
	if c.srv.Memory == nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(c.life, cmp.Or(c.srv.FrameTimeout, defaultFrameTimeout), os.ErrDeadlineExceeded)
	defer cancel()
	if err := c.srv.Memory.Wait(ctx, c.peer.Caller(), int64(n), c.held); err != nil {
		return err
	}
	c.held += int64(n)
	return nil
}

// letGo gives back what the last request held.
func (c *conn) letGo() {
	if c.held > 0 {
		c.srv.Memory.Give(c.peer.Caller(), c.held)
		if c.held >= large {
			c.srv.trimSoon()
		}
		c.held = 0
	}
}

// trimSoon returns the memory of large messages to the system, a moment after its last use:
// in an idle daemon the garbage collector would keep it for minutes.
func (srv *Server) trimSoon() {
	if srv.trimming.CompareAndSwap(false, true) {
		time.AfterFunc(trimAfter, func() {
			srv.trimming.Store(false)
			debug.FreeOSMemory()
		})
	}
}

// linger says that nothing more comes, and takes what the client still sends for a
// while. Without it the client might lose the last message, or not see a clean end,
// because a connection that is closed with something unread is reset.
func (c *conn) linger(d time.Duration) {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || c.SetReadDeadline(time.Now().Add(d)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes) // however it ends, that was it
}

// add makes ln known; it reports false if the server is closed.
func (srv *Server) add(ln net.Listener) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.state == closed {
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

// enter makes a connection known; it reports false if the server is closed.
func (srv *Server) enter(c *conn) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.state == closed {
		return false
	}
	if srv.conns == nil {
		srv.conns = make(map[*conn]struct{})
	}
	srv.conns[c] = struct{}{}
	return true
}

// leave is the end of a connection, and of its request if one runs.
func (srv *Server) leave(c *conn) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	delete(srv.conns, c)
	srv.finishLocked(c)
}

// begin counts a request, which lasts until rest or leave. It reports false if the
// server is closed, and so is c.
func (srv *Server) begin(c *conn, cancel context.CancelCauseFunc) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.state == closed {
		return false
	}
	srv.running++
	c.cancel = cancel
	return true
}

// rest reports whether c may read another request, after a terminal message has been
// sent. If not, its request counts until leave. It checks ctx as well, because the gate may
// have begun to refuse requests before drain runs.
func (srv *Server) rest(ctx context.Context, c *conn) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.state != open || ctx.Err() != nil {
		return false
	}
	srv.finishLocked(c)
	return true
}

func (srv *Server) finishLocked(c *conn) {
	if c.cancel == nil {
		return
	}
	c.cancel = nil
	srv.running--
	if srv.running == 0 && srv.state == draining {
		srv.closeLocked()
	}
}

// drain begins to stop the server.
func (srv *Server) drain() {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.state != open {
		return
	}
	srv.state = draining
	if srv.running == 0 || srv.Grace <= 0 {
		srv.closeLocked()
		return
	}
	srv.timer = time.AfterFunc(srv.Grace, func() {
		srv.mu.Lock()
		defer srv.mu.Unlock()
		srv.closeLocked()
	})
}

// closeLocked ends everything but the requests that run; those are told to end.
func (srv *Server) closeLocked() {
	if srv.state == closed {
		return
	}
	srv.state = closed
	if srv.timer != nil {
		srv.timer.Stop()
	}
	srv.hurry.Store(true)
	for ln := range srv.listeners {
		_ = ln.Close()
	}
	for c := range srv.conns {
		if c.cancel == nil {
			c.end(net.ErrClosed)
			_ = c.Close()
			continue
		}
		_ = c.limitWrite(lastWrite) // fails if closed, which its own goroutine sees
		c.cancel(errStopping)
	}
}
