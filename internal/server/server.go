// Package server runs the one connection loop that all inference surfaces share: read a
// request, answer it, read the next. It knows neither the contents of a message nor its
// framing; it knows the effect of an error on a connection, notices clients that hang up, and
// stops without cutting off an answer.
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

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/listen"
	"github.com/inferd-go/inferd/internal/quota"
	"github.com/inferd-go/inferd/internal/wire"
)

// A Codec speaks one dialect on one connection. It is used by one goroutine at a time.
type Codec interface {
	// Read returns the next request. An [infer.Error] is sent to the client and the
	// connection goes on; a [wire.FatalError] is sent and the connection closed; any other
	// error, [io.EOF] too, means that the client has gone.
	Read() (*infer.Request, error)
	// Write sends an event of the request that was read last. An [infer.Error] means
	// that nothing was sent, and becomes the end of the request; any other error means
	// that the client has gone.
	Write(ev infer.Event) error
	// Fail ends the request that was read last, or refused, with a word to the client.
	Fail(cause error) error
}

// A Surface is one way in.
type Surface struct {
	Name    string
	Dialect Dialect
	// Open binds a codec to a new connection. The codec reads and writes through nc,
	// which carries the server's time limits. It refuses the peer by failing, without
	// a word.
	Open func(nc net.Conn) (Codec, error)
}

// A Server answers the requests of any number of surfaces with one Handler. It stops as
// one, and cannot be used again then.
type Server struct {
	Handler infer.Handler
	Log     *slog.Logger
	// Journal records connections and the outcome of every request, never prompts or
	// answers. May be nil.
	Journal Journal
	// Grace is how long running requests may go on once the server has been told to
	// stop; 0 is not at all.
	Grace time.Duration
	// WriteTimeout is how long a client may take for one message of its answer; 0 is
	// for ever.
	WriteTimeout time.Duration
	// FrameTimeout is how long a message may take to arrive, from its first byte; 0
	// means 60 s. Between messages a client may be silent as long as it likes.
	FrameTimeout time.Duration
	// Conns limits connections; nil means no limit. A refused client gets one error message.
	Conns *quota.Quota
	// Slots bound the descriptors of connections; nil does not. See [listen.Slots].
	Slots *listen.Slots
	// Memory bounds the bytes of messages that are being read or held while they are
	// answered, beyond [frame.Small] each; nil does not. Past it nothing more is read
	// until there is room, for FrameTimeout at most.
	Memory *quota.Quota
	// AwaitHangUp waits until the client has closed nc, as [listen.AwaitHangUp] does,
	// which is what nil means.
	AwaitHangUp func(ctx context.Context, nc net.Conn) error

	hurry    atomic.Bool // the server is closed: a message has lastWrite to be taken
	trimming atomic.Bool // see trimSoon

	mu        sync.Mutex // guards the fields below
	state     state
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	running   int         // requests
	timer     *time.Timer // ends the grace; nil unless draining
	rounds    rounds
}

// state is a stage of the shutdown.
//
//	open ──drain──▶ draining ──no request runs, or the grace is over──▶ closed
//
// While draining everything goes on, but a connection closes after its next terminal
// message. The gate before the engines refuses new requests. When closed, listeners and idle
// connections are closed, and running requests are canceled.
type state int

const (
	open state = iota
	draining
	closed
)

// How much patience the server has with clients at the end.
const (
	defaultFrameTimeout = time.Minute
	lastWrite           = time.Second // for a message, once closed
	lingerFault         = time.Second // see conn.linger
	lingerDrain         = 50 * time.Millisecond
	lingerBytes         = 16 << 20
)

// A request that held as much as large leaves something to give back to the system.
const (
	large     = 1 << 20
	trimAfter = time.Second
)

var (
	errCrowded    = infer.Errorf(infer.Busy, "too many connections")
	errStopping   = infer.Errorf(infer.Unavailable, "daemon is shutting down")
	errNoTerminal = infer.Errorf(infer.Unavailable, "backend ended stream without terminal frame")
	errHungUp     = errors.New("the client hung up")
	errOver       = errors.New("the answer has ended already")
)

// Serve answers the clients that connect to ln. When ctx ends the server drains: running
// requests get Grace, after which their contexts end too. Serve returns nil then, once
// all its connections have ended. It closes ln. If ln is closed otherwise, the server drains
// as well and Serve returns an error.
//
// Surfaces that share a server share its end: their contexts should end together.
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
		<-serving.Done()
		srv.drain()
	})
	door := listen.Door{
		Surface: s.Name, Conns: srv.Conns, Slots: srv.Slots, Log: srv.Log,
		Refuse: func(nc net.Conn) { srv.refuseConn(nc, s) },
		Closed: stop,
	}
	err := door.Each(serving, ln, func(nc net.Conn, peer infer.Peer) {
		if err := srv.serveConn(serving, nc, peer, s); err != nil {
			srv.Log.LogAttrs(serving, slog.LevelDebug, "connection ended",
				slog.String("surface", s.Name), slog.Any("err", err))
		}
	})
	if ctx.Err() != nil {
		return nil // closed because it is over
	}
	return err
}

// refuseConn tells a client that there are too many.
func (srv *Server) refuseConn(nc net.Conn, s Surface) {
	c := &conn{Conn: nc, srv: srv}
	codec, err := s.Open(c)
	if err != nil || c.limitWrite(lastWrite) != nil {
		return
	}
	if codec.Fail(errCrowded) == nil {
		c.linger(lingerDrain)
	}
}

// serveConn answers one connection, a request at a time.
func (srv *Server) serveConn(ctx context.Context, nc net.Conn, peer infer.Peer, s Surface) error {
	// Memory is held until the connection ends, not until the order to stop.
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	c := &conn{Conn: nc, srv: srv, peer: peer, life: life, end: end}
	if !srv.enter(c) {
		return nil
	}
	j := &journal{log: srv.Journal, dialect: s.Dialect, peer: &c.peer}
	j.accepted(nc)
	defer srv.leave(c)
	defer c.letGo()
	codec, err := s.Open(c)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	for {
		c.letGo()
		req, err := codec.Read()
		if err == nil {
			req.Peer = peer
			err = srv.answer(ctx, c, codec, req, j)
		} else {
			j.unreadable(err)
			err = refuse(c, codec, err)
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case !srv.rest(ctx, c):
			c.linger(lingerDrain)
			return nil
		}
	}
}

// refuse sends the client the fault of a message. It returns the error that ends the
// connection, nil if the connection goes on.
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
