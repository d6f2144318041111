package bridge

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/listen"
)

// A conn is a connection with its client, between net/http and the socket. net/http sets some ten
// deadlines for a request, and reads beside its handler to notice a hang-up; each costs more than
// a short answer does otherwise. So a conn sets deadlines on the socket only when they matter, and
// notices the hang-up of a client itself, for requests that wait.
//
// net/http counts the time for the first header from the beginning of the connection, a conn from the
// first byte: before that the connection is idle. Clients open connections in advance (Node's fetch
// one after each request that it aborts), and may send a request at any time.
type conn struct {
	net.Conn

	peer         infer.Peer
	local        bool          // the peer is on this machine
	writeTimeout time.Duration // of a write; 0 is no limit
	closed       chan struct{}
	once         sync.Once

	mu      sync.Mutex // guards the fields below
	limit   time.Time  // the read deadline that is wanted; zero is none
	set     time.Time  // the read deadline of the socket, which may be earlier
	reading bool       // a read of net/http is under way
	used    bool       // the client has sent something
	fresh   time.Time  // until then the write deadline of the socket is new enough
	own     bool       // the handler has set a write deadline of its own
	alone   bool       // the reads beside the handler read nothing: see leaveAlone
	ahead   []byte     // bytes behind the request, read by awaitHangUp
	ended   error      // the end of the connection, read by awaitHangUp
}

// past is a deadline that ends a read at once.
var past = time.Unix(1, 0)

// SetReadDeadline sets the deadline of the present read, or of the next one.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit = t
	if !c.reading {
		return nil // the next read looks at it
	}
	return c.setLocked(t)
}

func (c *conn) setLocked(t time.Time) error {
	c.set = t
	return c.Conn.SetReadDeadline(t)
}

// Read reads for net/http. A deadline of the socket that is earlier than the wanted one stays until
// it passes: then the read goes on.
func (c *conn) Read(p []byte) (int, error) {
	if n, over, err := c.begin(p); over {
		return n, err
	}
	for {
		n, err := c.Conn.Read(p)
		if c.end(p, n, &err) {
			return n, err
		}
	}
}

// begin begins a read. It reports whether the read is over already, with its results.
func (c *conn) begin(p []byte) (n int, over bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.alone && len(p) == 1: // the read beside the handler: nothing has happened
		return 0, true, nil
	case len(c.ahead) > 0:
		n = copy(p, c.ahead)
		c.ahead = c.ahead[n:]
		return n, true, nil
	case c.ended != nil:
		return 0, true, c.ended
	}
	if !c.used {
		c.limit = time.Now().Add(idleTimeout)
	}
	if !c.limit.IsZero() && (c.set.IsZero() || c.limit.Before(c.set)) {
		if err := c.setLocked(c.limit); err != nil {
			return 0, true, err
		}
	}
	c.reading = true
	return 0, false, nil
}

// end reports whether a read has ended, with n bytes and err. It has not if its deadline was none.
func (c *conn) end(p []byte, n int, err *error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > 0 && !c.used {
		c.used, c.limit = true, time.Now().Add(headerTimeout)
	}
	if n == 0 && errors.Is(*err, os.ErrDeadlineExceeded) {
		switch {
		case c.alone && len(p) == 1:
			*err = nil // as in begin
		case c.limit.IsZero() || time.Now().Before(c.limit):
			if *err = c.setLocked(c.limit); *err == nil {
				return false
			}
		}
	}
	c.reading = false
	return true
}

// SetWriteDeadline sets the deadline of a handler that has one of its own; zero ends that.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.IsZero() && !c.own {
		return nil // each write has one
	}
	c.own, c.fresh = !t.IsZero(), time.Time{}
	return c.Conn.SetWriteDeadline(t)
}

// Write writes within the time for a write.
func (c *conn) Write(p []byte) (int, error) {
	if err := c.refresh(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// refresh sets the deadline of the next write. That costs as much as a small write, so a deadline
// is set a little later than due, and then serves for that long.
func (c *conn) refresh() error {
	if c.writeTimeout <= 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.own || now.Before(c.fresh) {
		return nil
	}
	more := c.writeTimeout / 64
	c.fresh = now.Add(more)
	return c.Conn.SetWriteDeadline(now.Add(c.writeTimeout + more))
}

// leaveAlone makes the read of one byte read nothing until the request is answered. From the end of
// the body on net/http reads one byte beside the handler, to notice a hang-up by it; awaitHangUp
// does that instead, for requests that wait. Bodies of a known length may be left alone before they
// are read: net/http never reads one byte of them.
func (c *conn) leaveAlone() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.alone = true
	if c.reading {
		_ = c.setLocked(past) // fails if closed, which ends the read, too
	}
}

// rested notes that a request has been answered, and its connection waits for the next one.
func rested(nc net.Conn, state http.ConnState) {
	if c, ok := nc.(*conn); ok && state == http.StateIdle {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.alone = false
	}
}

// hangUpInterval is the time between two looks for a hang-up behind bytes that the client has sent
// after its request.
const hangUpInterval = 50 * time.Millisecond

// maxAhead bounds the bytes that are read while a client is watched.
const maxAhead = 512

// awaitHangUp returns nil once the client has closed its connection or its sending half, while its
// request is answered. If ctx ends first, it returns the cause. It works for requests that
// leaveAlone was called for.
func (c *conn) awaitHangUp(ctx context.Context) error {
	c.mu.Lock()
	alone, ahead, ended := c.alone, len(c.ahead) > 0, c.ended
	c.mu.Unlock()
	switch {
	case !alone:
		return errors.ErrUnsupported
	case ended != nil:
		return nil
	case !ahead:
		if err := c.readAhead(ctx); err != nil || c.hasEnded() {
			return err
		}
	}
	tick := time.NewTicker(hangUpInterval)
	defer tick.Stop()
	for {
		if closed, err := listen.SendingEnded(c.Conn); closed || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// readAhead waits for bytes, or the end of the connection, and keeps them for the next read.
func (c *conn) readAhead(ctx context.Context) error {
	if err := c.Conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = c.Conn.SetReadDeadline(past) // fails if closed, which ends the read, too
	})
	buf := make([]byte, maxAhead)
	n, err := c.Conn.Read(buf)
	stopped := stop()
	if !stopped {
		<-interrupted
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead, c.set = buf[:n], time.Time{}
	if !stopped {
		c.set = past
	}
	switch {
	case n > 0:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return context.Cause(ctx)
	}
	c.ended = err
	return nil
}

func (c *conn) hasEnded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended != nil
}

// whilePresent calls wait with a context that also ends when the client hangs up.
func (c *call) whilePresent(wait func(context.Context) error) error {
	if c.conn == nil {
		return wait(c.r.Context())
	}
	ctx, cancel := context.WithCancelCause(c.r.Context())
	var watch sync.WaitGroup
	watch.Go(func() {
		if c.conn.awaitHangUp(ctx) == nil {
			cancel(errLeft)
		}
	})
	defer watch.Wait() // nothing else may read beside it
	defer cancel(nil)
	return wait(ctx)
}

// errLeft ends the wait of a request whose client has hung up.
var errLeft = errors.New("the client hung up")

// Close closes the connection.
func (c *conn) Close() error {
	defer c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// CloseWrite closes the sending half, so that the client sees a clean end.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
