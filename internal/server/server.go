// Package server runs the connection loop that all surfaces over sockets share: it reads a request,
// passes it to an exchange, which answers it, and reads the next one. It accounts for the memory of
// large messages, limits the time of reads and writes, and stops without cutting off an answer. It
// determines which errors end a connection. The content and the framing of messages are up to a
// codec, and the answers up to package exchange.
package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inferd-go/inferd/internal/exchange"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/listen"
	"github.com/inferd-go/inferd/internal/quota"
	"github.com/inferd-go/inferd/internal/wire"
)

// A Codec reads and writes a dialect on one connection. One goroutine at a time uses it. The events
// and failures that it writes belong to the last request that it has read.
type Codec interface {
	exchange.Client
	// Read returns the next request. An [infer.Error] is sent to the client with Fail, and the
	// connection stays open; a [wire.FatalError] is sent, and the connection is closed. Any other
	// error is the connection's: [io.EOF] if the client has closed it between two messages, or
	// [os.ErrDeadlineExceeded] if a message, or the memory for it, took too long.
	Read() (*infer.Request, error)
}

// A Surface is a name and a dialect for the connections of one or more listeners.
type Surface struct {
	Name    string
	Dialect wire.Dialect
	// Open makes the codec of a new connection. The codec reads and writes through nc, which
	// applies the server's time limits. If Open fails, the connection is closed without a message.
	Open func(nc net.Conn) (Codec, error)
}

// A Server answers the requests of any number of surfaces. It stops with its Runner, and cannot be
// used again.
type Server struct {
	// Runner answers the requests. The server also uses its Log and its Journal.
	Runner *exchange.Runner
	// WriteTimeout bounds the write of one message of an answer; 0 is no limit.
	WriteTimeout time.Duration
	// FrameTimeout bounds the time from the first to the last byte of a message; 0 means 60 s. The
	// time between messages has no bound.
	FrameTimeout time.Duration
	// Conns limits connections; nil means no limit. A refused client gets one error message.
	Conns *quota.Quota
	// Slots limits the descriptors of connections; nil means no limit. See [listen.Slots].
	Slots *listen.Slots
	// Memory bounds the bytes of messages that are being read or answered, beyond [frame.FreeBytes]
	// each; nil means no bound. If too little is free, the message waits, for FrameTimeout at most.
	Memory *quota.Quota
	// AwaitHangUp waits until the client has closed nc. The default is [listen.AwaitHangUp].
	AwaitHangUp func(ctx context.Context, nc net.Conn) error

	closing atomic.Bool // the server closes: idle connections are closed, and each write may take lastWrite

	mu        sync.Mutex // guards the fields below
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
}

// Limits on the time that a client may take, and on the bytes that linger discards.
const (
	defaultFrameTimeout = time.Minute
	lastWrite           = time.Second // for each write, once the server closes
	lingerFault         = time.Second // see conn.linger
	lingerDrain         = 50 * time.Millisecond
	lingerBytes         = 16 << 20
)

var errTooManyConns = infer.Errorf(infer.Busy, "too many connections")

// Serve answers the clients that connect to ln. When ctx ends, it drains the runner, and returns
// nil once all its connections have ended. It closes ln. If ln is closed by another caller, the
// runner drains as well, and Serve returns an error.
//
// Surfaces that share a runner end together, so their contexts should end together as well.
func (srv *Server) Serve(ctx context.Context, ln net.Listener, s Surface) error {
	defer ln.Close()
	var all sync.WaitGroup
	defer all.Wait()
	serving, stop := context.WithCancel(ctx)
	defer stop()
	if !srv.add(ln) {
		return nil
	}
	defer srv.remove(ln)
	all.Go(func() {
		select {
		case <-serving.Done():
			srv.Runner.Drain()
		case <-srv.Runner.Closed():
		}
		<-srv.Runner.Closed()
		srv.close()
	})
	acceptor := listen.Acceptor{
		Surface: s.Name, Conns: srv.Conns, Slots: srv.Slots, Log: srv.Runner.Log,
		Refuse: func(nc net.Conn) { srv.refuseConn(nc, s) },
		Closed: stop,
	}
	err := acceptor.Serve(serving, ln, func(nc net.Conn, peer infer.Peer) {
		if err := srv.serveConn(serving, nc, peer, s); err != nil {
			srv.Runner.Log.LogAttrs(serving, slog.LevelDebug, "connection ended",
				slog.String("surface", s.Name), slog.Any("err", err))
		}
	})
	if ctx.Err() != nil {
		return nil // ctx has ended
	}
	return err
}

// refuseConn sends errTooManyConns to the client.
func (srv *Server) refuseConn(nc net.Conn, s Surface) {
	c := &conn{Conn: nc, srv: srv}
	codec, err := s.Open(c)
	if err != nil || c.limitWrite(lastWrite) != nil {
		return
	}
	if codec.Fail(errTooManyConns) == nil {
		c.linger(lingerDrain)
	}
}

// serveConn answers the requests on one connection, one after the other.
func (srv *Server) serveConn(ctx context.Context, nc net.Conn, peer infer.Peer, s Surface) error {
	running := context.WithoutCancel(ctx) // running requests are ended by the runner, not by ctx
	// A message may wait for memory until the connection ends, even after ctx has ended.
	life, end := context.WithCancelCause(running)
	defer end(nil)
	c := &conn{Conn: nc, srv: srv, peer: peer, life: life, end: end}
	if !srv.track(c) {
		return nil
	}
	defer srv.untrack(c)
	srv.recordConn(c, s)
	defer c.releaseMemory()
	codec, err := s.Open(c)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	client := &client{Codec: codec, conn: c}
	for {
		c.releaseMemory()
		req, err := codec.Read()
		if err == nil {
			req.Peer = peer
			c.busy.Store(true)
			err = srv.Runner.Run(running, s.Dialect, req, client)
		} else {
			srv.recordFault(c, s, err)
			err = refuse(c, codec, err)
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case !srv.mayContinue(ctx, c):
			c.linger(lingerDrain)
			return nil
		}
	}
}

// A client is the [exchange.Client] of a connection: the codec, and the watch for a hang-up.
type client struct {
	Codec

	conn *conn
}

var _ exchange.Watcher = (*client)(nil)

// AwaitHangUp watches the connection itself, without the time limits of conn.
func (c *client) AwaitHangUp(ctx context.Context) error {
	if await := c.conn.srv.AwaitHangUp; await != nil {
		return await(ctx, c.conn.Conn)
	}
	return listen.AwaitHangUp(ctx, c.conn.Conn)
}

// mayContinue reports whether c may read another request, and if so marks it as idle. It checks ctx
// as well, because the gate may refuse requests before the runner drains.
func (srv *Server) mayContinue(ctx context.Context, c *conn) bool {
	if ctx.Err() != nil || srv.Runner.Draining() {
		return false
	}
	c.busy.Store(false)
	return !srv.closing.Load() // close may have found c busy, and left it open
}

// refuse sends the client the error of a message that could not be read. It returns the error that
// ends the connection, or nil if the connection stays open.
func refuse(c *conn, codec Codec, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = &wire.FatalError{Err: infer.Errorf(infer.Invalid, "frame took too long to arrive")}
	}
	if fatal, ok := errors.AsType[*wire.FatalError](err); ok {
		if err := codec.Fail(fatal); err != nil {
			return errors.Join(fatal, err)
		}
		c.linger(lingerFault)
		return fatal
	}
	if refused, ok := errors.AsType[*infer.Error](err); ok {
		return codec.Fail(refused)
	}
	return err
}

// recordConn records a new connection.
func (srv *Server) recordConn(c *conn, s Surface) {
	if srv.Runner.Journal == nil {
		return
	}
	record := &exchange.Connection{Peer: c.peer, Dialect: s.Dialect}
	if c.peer.Transport == infer.TCP {
		record.Addr = c.RemoteAddr().String()
	}
	srv.Runner.Journal.Connection(record)
}

// recordFault records a message that the codec has refused. Hang-ups, timeouts and other errors of
// the connection are not recorded.
func (srv *Server) recordFault(c *conn, s Surface, err error) {
	_, fatal := errors.AsType[*wire.FatalError](err)
	_, refused := errors.AsType[*infer.Error](err)
	if srv.Runner.Journal == nil || errors.Is(err, io.EOF) || !fatal && !refused {
		return
	}
	srv.Runner.Journal.Request(&exchange.Record{
		Peer: c.peer, Dialect: s.Dialect, Outcome: exchange.Unreadable, Code: infer.CodeOf(err),
	})
}
