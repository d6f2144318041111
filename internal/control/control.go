// Package control does what an operator asks for on the control socket. It accepts,
// reads, answers and reads the next; what the verbs do is given to it as functions, and
// how they look on the wire is the business of wire/control.
package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/listen"
	"github.com/inferd-go/inferd/internal/quota"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/control"
)

// writeTimeout is how long a client may take for an answer. Answers are short and
// sockets hold hundreds: a client that needs longer has stopped.
const writeTimeout = time.Second

// maxLine is how many bytes a request may have. It needs a fraction of that, and a program
// with a thousand connections must not be able to fill the memory by way of this socket.
const maxLine = frame.Small

// Verbs are what an operator may ask for. An error that is an [infer.Error] is told
// with its class, any other as a fault of ours.
type Verbs struct {
	// Retry starts the engine of an entry again. It fails with [infer.Invalid] if there
	// is no such entry or it has not been given up.
	Retry func(ctx context.Context, backend string) error
	// Stats says how busy the daemon is. It returns soon.
	Stats func(context.Context) *control.Stats
	// SetLogLevel logs from a level on: "debug", "info", "warn", "error" or "off".
	SetLogLevel func(level string)
}

// A server is one call of Serve.
type server struct {
	verbs Verbs
	log   *slog.Logger
}

// Serve answers everybody who connects to ln, one request after the other on each
// connection, until ctx ends. A verb that runs then is still answered; idle connections
// end at once, and Serve returns when all have. It closes ln, and fails only if
// somebody else did. A connection beyond conns, which may be nil, is closed; slots, which may
// be nil, bound the descriptors.
func Serve(ctx context.Context, ln net.Listener, verbs Verbs, conns *quota.Quota, slots *listen.Slots, log *slog.Logger) error {
	s := &server{verbs, log}
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	door := listen.Door{Surface: "control", Conns: conns, Slots: slots, Log: log}
	err := door.Each(ctx, ln, func(nc net.Conn, _ infer.Peer) {
		if err := s.serveConn(ctx, nc); err != nil && ctx.Err() == nil {
			log.LogAttrs(ctx, slog.LevelDebug, "control connection ended", slog.Any("err", err))
		}
	})
	if ctx.Err() != nil {
		return nil // closed because it is over
	}
	return err
}

// serveConn answers one connection until its client leaves or ctx ends.
func (s *server) serveConn(ctx context.Context, nc net.Conn) error {
	stop := context.AfterFunc(ctx, func() { _ = nc.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	c := &control.Codec{R: frame.Lines.NewReader(nc, maxLine), W: frame.Lines.NewWriter(nc)}
	for ctx.Err() == nil {
		verb, failure := c.Read()
		_, isTold := errors.AsType[*infer.Error](failure) // also within a FatalError
		_, isFatal := errors.AsType[*wire.FatalError](failure)
		switch {
		case failure == nil:
			failure = s.do(ctx, verb)
		case ctx.Err() != nil, errors.Is(failure, io.EOF):
			return nil // nobody was asking for anything
		case !isTold:
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

// do carries out a verb. It logs a failure that does not speak for itself, because the
// client is only told that there was one.
func (s *server) do(ctx context.Context, verb control.Verb) error {
	var err error
	switch verb := verb.(type) {
	case control.Retry:
		err = s.verbs.Retry(ctx, verb.Backend)
	case control.SetLogLevel:
		s.verbs.SetLogLevel(verb.Level)
	case control.GetStats: // is told with the answer
	}
	if _, ok := errors.AsType[*infer.Error](err); err != nil && !ok {
		s.log.LogAttrs(ctx, slog.LevelError, "control verb", slog.Any("verb", verb), slog.Any("err", err))
	}
	return err
}

// answer tells how a request has ended.
func (s *server) answer(ctx context.Context, nc net.Conn, c *control.Codec, verb control.Verb, failure error) error {
	var stats *control.Stats
	if _, ok := verb.(control.GetStats); ok && failure == nil {
		stats = s.verbs.Stats(ctx)
	}
	if err := nc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	switch {
	case failure != nil:
		return c.Fail(failure)
	case stats != nil:
		return c.Tell(stats)
	default:
		return c.Done()
	}
}
