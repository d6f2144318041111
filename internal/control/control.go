// Package control serves the control socket: it reads an operator's requests and answers
// them, one after the other. It does not know the effect of the verbs, which are functions of
// its caller, nor their wire form, which is in wire/control.
package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/inferd-go/inferd/client/stats"
	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/listen"
	"github.com/inferd-go/inferd/internal/quota"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/control"
)

// writeTimeout bounds the writing of an answer. Answers are short and a socket buffers
// hundreds, so a client that needs longer does not read.
const writeTimeout = time.Second

// maxLine bounds the bytes of a request. Requests need a fraction of it, and a program with a
// thousand connections must not be able to fill the memory through this socket.
const maxLine = frame.FreeBytes

// Verbs are the functions behind the verbs of the wire. The client gets an [infer.Error] with
// its code and text, and any other error as an internal error.
type Verbs struct {
	// Retry restarts the engine of an entry. It fails with [infer.Invalid] if there is no
	// such entry, or its engine was not given up.
	Retry func(ctx context.Context, backend string) error
	// Stats returns the present load of the daemon. It must not block for long.
	Stats func(context.Context) *stats.Daemon
	// SetLogLevel sets the least level that is logged: "debug", "info", "warn", "error" or
	// "off".
	SetLogLevel func(level string)
}

// A server is one call of Serve.
type server struct {
	verbs Verbs
	log   *slog.Logger
}

// Serve answers all clients of ln until ctx ends, one request after the other on each
// connection. Verbs that run at that moment are still answered, idle connections are closed at
// once, and Serve returns when all connections have ended. It closes ln, and fails only if ln
// was closed elsewhere. Connections above the limits of conns are closed; slots limits
// descriptors. Both may be nil.
func Serve(ctx context.Context, ln net.Listener, verbs Verbs, conns *quota.Quota, slots *listen.Slots, log *slog.Logger) error {
	s := &server{verbs, log}
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	acceptor := listen.Acceptor{Surface: "control", Conns: conns, Slots: slots, Log: log}
	err := acceptor.Serve(ctx, ln, func(nc net.Conn, _ infer.Peer) {
		if err := s.serveConn(ctx, nc); err != nil && ctx.Err() == nil {
			log.LogAttrs(ctx, slog.LevelDebug, "control connection ended", slog.Any("err", err))
		}
	})
	if ctx.Err() != nil {
		return nil // Serve itself has closed ln
	}
	return err
}

// serveConn answers one connection until its client hangs up or ctx ends.
func (s *server) serveConn(ctx context.Context, nc net.Conn) error {
	stop := context.AfterFunc(ctx, func() { _ = nc.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	c := &control.Codec{R: frame.Lines.NewReader(nc, maxLine), W: frame.Lines.NewWriter(nc)}
	for ctx.Err() == nil {
		verb, failure := c.Read()
		_, isAnswered := errors.AsType[*infer.Error](failure) // also within a FatalError
		_, isFatal := errors.AsType[*wire.FatalError](failure)
		switch {
		case failure == nil:
			failure = s.do(ctx, verb)
		case ctx.Err() != nil, errors.Is(failure, io.EOF):
			return nil // no request is open
		case !isAnswered:
			return fmt.Errorf("read: %w", failure)
		}
		if err := s.answer(ctx, nc, c, verb, failure); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
		if isFatal {
			return failure
		}
	}
	return nil
}

// do executes a verb. It logs internal errors, because the client does not get their text.
func (s *server) do(ctx context.Context, verb control.Verb) error {
	var err error
	switch verb := verb.(type) {
	case control.Retry:
		err = s.verbs.Retry(ctx, verb.Backend)
	case control.SetLogLevel:
		s.verbs.SetLogLevel(verb.Level)
	case control.GetStats: // see answer
	}
	if _, ok := errors.AsType[*infer.Error](err); err != nil && !ok {
		s.log.LogAttrs(ctx, slog.LevelError, "control verb", slog.Any("verb", verb), slog.Any("err", err))
	}
	return err
}

// answer writes the answer to a request: failure, if it is not nil, else the result.
func (s *server) answer(ctx context.Context, nc net.Conn, c *control.Codec, verb control.Verb, failure error) error {
	var load *stats.Daemon
	if _, ok := verb.(control.GetStats); ok && failure == nil {
		load = s.verbs.Stats(ctx)
	}
	if err := nc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	switch {
	case failure != nil:
		return c.Fail(failure)
	case load != nil:
		return c.Stats(load)
	default:
		return c.Done()
	}
}
