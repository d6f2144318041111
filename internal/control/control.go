// Package control serves the control socket: it reads requests of an operator and answers them, one
// after the other. Its caller passes the functions that carry out the verbs; the wire form is in
// wire/control.
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

// writeTimeout bounds the write of an answer. Answers are short and a socket buffers hundreds of
// them, so a client that needs longer does not read.
const writeTimeout = time.Second

// maxLine bounds the bytes of a request. Requests need a fraction of it. A larger bound would allow
// a program with a thousand connections to fill the memory.
const maxLine = frame.FreeBytes

// Verbs are the functions behind the verbs on the wire. If one returns an [infer.Error], the client
// gets its code and text; any other error becomes an internal error.
type Verbs struct {
	// Retry restarts the engine of an entry. The error is [infer.Invalid] if there is no such
	// entry, or if its engine was not given up.
	Retry func(ctx context.Context, backend string) error
	// Stats returns the load of the daemon at this moment. It must not block for long.
	Stats func(context.Context) *stats.Daemon
	// SetLogLevel sets the lowest level that is logged: "debug", "info", "warn", "error" or "off".
	SetLogLevel func(level string)
}

// A server is the state of one call of Serve.
type server struct {
	verbs Verbs
	log   *slog.Logger
}

// Serve answers all clients of ln until ctx ends, one request after the other on each connection.
// Then it closes idle connections, and returns when the running verbs have been answered and all
// connections have ended. It closes ln. It returns an error only if another caller has closed ln.
// Connections above the limits of conns are closed; slots limits descriptors. Both may be nil.
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
		return nil // Serve has closed ln
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
		_, isAnswered := errors.AsType[*infer.Error](failure) // a FatalError may wrap it
		_, isFatal := errors.AsType[*wire.FatalError](failure)
		switch {
		case failure == nil:
			failure = s.do(ctx, verb)
		case ctx.Err() != nil, errors.Is(failure, io.EOF):
			return nil // no request is being read
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
	case control.GetStats: // answer reads the stats
	}
	if _, ok := errors.AsType[*infer.Error](err); err != nil && !ok {
		s.log.LogAttrs(ctx, slog.LevelError, "control verb failed", slog.Any("verb", verb), slog.Any("err", err))
	}
	return err
}

// answer writes the answer to a request: the failure if it is not nil, otherwise the result of
// verb.
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
