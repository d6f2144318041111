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

// A conn is a connection between net/http and the socket, with the identity of its client. net/http
// sets some ten deadlines for a request, and reads while its handler runs, to notice a hang-up.
// Either takes more time than all other work for a short answer. Therefore a conn sets deadlines on
// the socket only when they matter, and watches for hang-ups itself, while requests wait.
//
// net/http counts the time for the first header from the beginning of the connection. A conn counts
// it from the first byte, and before that the connection is idle: clients open connections in
// advance (Node's fetch opens one after each request that it aborts), and may send a request at any
// time.
type conn struct {
	net.Conn

	peer         infer.Peer
	local        bool          // the peer is on this machine
	writeTimeout time.Duration // time limit of a write; 0 means no limit
	closed       chan struct{}
	once         sync.Once

	mu             sync.Mutex // guards the fields below
	limit          time.Time  // the read deadline that was requested; zero means none
	set            time.Time  // the read deadline of the socket, which may be earlier
	reading        bool       // a read of net/http is under way
	used           bool       // the client has sent something
	freshUntil     time.Time  // the write deadline need not be set again before this time
	customDeadline bool       // the handler has set a write deadline of its own
	probesSkipped  bool       // reads of one byte return at once, without a byte; see skipProbes
	ahead          []byte     // bytes after the request that awaitHangUp has read
	ended          error      // the error of the read with which awaitHangUp found the end of the connection
}

// past is a deadline that ends a read at once.
var past = time.Unix(1, 0)

// SetReadDeadline sets the deadline of the current read, or else of the next one.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit = t
	if !c.reading {
		return nil // the next read sets it on the socket
	}
	return c.setLocked(t)
}

func (c *conn) setLocked(t time.Time) error {
	c.set = t
	return c.Conn.SetReadDeadline(t)
}

// Read reads for net/http. The socket may have an earlier deadline than the last one that was set.
// Read does not replace it, but continues when it has passed.
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

// begin begins a read. If over is true, the read has ended already, with the results n and err.
func (c *conn) begin(p []byte) (n int, over bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.probesSkipped && len(p) == 1: // net/http looks for a hang-up
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

// end reports whether a read that returned n bytes and err has ended. If only an outdated deadline
// ended it, end sets the current deadline and reports false. end may replace err.
func (c *conn) end(p []byte, n int, err *error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > 0 && !c.used {
		c.used, c.limit = true, time.Now().Add(headerTimeout)
	}
	if n == 0 && errors.Is(*err, os.ErrDeadlineExceeded) {
		switch {
		case c.probesSkipped && len(p) == 1:
			*err = nil // net/http looks for a hang-up, as in begin
		case c.limit.IsZero() || time.Now().Before(c.limit):
			if *err = c.setLocked(c.limit); *err == nil {
				return false
			}
		}
	}
	c.reading = false
	return true
}

// SetWriteDeadline sets a deadline that replaces the usual limit of each write. The zero time
// restores that limit.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.IsZero() && !c.customDeadline {
		return nil // each write sets a deadline
	}
	c.customDeadline, c.freshUntil = !t.IsZero(), time.Time{}
	return c.Conn.SetWriteDeadline(t)
}

// Write writes p. It returns an error if that takes longer than writeTimeout.
func (c *conn) Write(p []byte) (int, error) {
	if err := c.refresh(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// refresh sets the deadline of the next write. Setting a deadline costs as much as a small write.
// So refresh adds 1/64 to writeTimeout, and sets no new deadline until that additional time has
// passed.
func (c *conn) refresh() error {
	if c.writeTimeout <= 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.customDeadline || now.Before(c.freshUntil) {
		return nil
	}
	more := c.writeTimeout / 64
	c.freshUntil = now.Add(more)
	return c.Conn.SetWriteDeadline(now.Add(c.writeTimeout + more))
}

// skipProbes makes reads of one byte return at once, without a byte, until the request is answered.
// After the end of the body, net/http reads one byte while the handler runs, to notice a hang-up.
// awaitHangUp replaces that read, for requests that wait. If the length of a body is known,
// skipProbes may be called before the body is read: net/http reads such a body through a buffer, never
// with a read of one byte.
func (c *conn) skipProbes() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.probesSkipped = true
	if c.reading {
		_ = c.setLocked(past) // fails if the connection is closed, which also ends the read
	}
}

// onState ends the effect of skipProbes when a request was answered and the connection is idle. It
// is the hook ConnState of [http.Server].
func onState(nc net.Conn, state http.ConnState) {
	if c, ok := nc.(*conn); ok && state == http.StateIdle {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.probesSkipped = false
	}
}

// hangUpInterval is the time between two checks for a hang-up if the client has sent bytes after
// its request.
const hangUpInterval = 50 * time.Millisecond

// maxAhead bounds the bytes that are read while awaitHangUp watches a client.
const maxAhead = 512

// awaitHangUp returns nil once the client has closed its connection or its sending half while its
// request is being answered. If ctx ends first, it returns the cause. skipProbes must have been
// called for the request; otherwise the error is [errors.ErrUnsupported].
func (c *conn) awaitHangUp(ctx context.Context) error {
	c.mu.Lock()
	skipped, ahead, ended := c.probesSkipped, len(c.ahead) > 0, c.ended
	c.mu.Unlock()
	switch {
	case !skipped:
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

// readAhead waits for bytes or for the end of the connection, and keeps either for the next read.
// If ctx ends first, it returns the cause.
func (c *conn) readAhead(ctx context.Context) error {
	if err := c.Conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = c.Conn.SetReadDeadline(past) // fails if the connection is closed, which also ends the read
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
	defer watch.Wait() // the watch must have stopped before the next read
	defer cancel(nil)
	return wait(ctx)
}

// errLeft is the cause of a context that ends because the client of a waiting request hangs up.
var errLeft = errors.New("the client hung up")

// Close closes the connection.
func (c *conn) Close() error {
	defer c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// CloseWrite closes the sending half, so that the client gets a clean end of the stream.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
