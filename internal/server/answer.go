package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
)

// answer runs one request and sends exactly one terminal message, unless the client has
// gone. It returns the error that ends the connection.
func (srv *Server) answer(ctx context.Context, c *conn, codec Codec, req *infer.Request, j *journal) error {
	// A running request outlives the order to stop; close ends it.
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	if !srv.begin(c, cancel) {
		return net.ErrClosed
	}
	w := &watched{Context: ctx, srv: srv, nc: c.Conn, cancel: cancel}
	a := answer{codec: codec, begin: time.Now()}
	err := srv.handle(w, req, a.emit) //nolint:contextcheck // w is ctx, watched
	cause := context.Cause(ctx)
	cancel(nil)
	w.end() // nothing else may read the connection before
	defer func() { j.ended(req, &a, err, errors.Is(cause, errHungUp)) }()

	switch {
	case a.lost != nil:
		return fmt.Errorf("write: %w", a.lost)
	case a.done:
		if err != nil {
			srv.Log.LogAttrs(ctx, slog.LevelWarn, "request failed after its answer", slog.Any("err", err))
		}
		return nil
	case errors.Is(cause, errHungUp):
		return errHungUp
	case a.refused != nil:
		err = a.refused
	case cause != nil:
		err = cause
	case err == nil:
		err = errNoTerminal
	}
	if _, ok := errors.AsType[*infer.Error](err); !ok {
		srv.Log.LogAttrs(ctx, slog.LevelError, "request failed", slog.Any("err", err))
	}
	if err := codec.Fail(err); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// handle calls the Handler. A panic there is the end of this request only.
func (srv *Server) handle(ctx context.Context, req *infer.Request, emit infer.Sink) (err error) {
	defer func() {
		if p := recover(); p != nil {
			srv.Log.LogAttrs(ctx, slog.LevelError, "handler panicked",
				slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			err = infer.Errorf(infer.Internal, "internal error")
		}
	}()
	return srv.Handler.Handle(ctx, req, emit)
}

// An answer tracks the events of one request.
type answer struct {
	codec   Codec
	lost    error // of the connection: nobody hears anything more
	refused error // of an event that cannot be told
	done    bool  // the last event has been sent

	begin    time.Time      // arrival of the request
	isIn     bool           // the request was admitted
	admitted infer.Admitted // zero before
	first    time.Time      // the first event of the answer was sent
	last     *infer.Done    // the first Done, sent or not
	size     int            // dimensions of the vectors, or number of scores
}

// emit sends an event. After a failure it sends nothing more: the handler may go on all the
// same.
func (a *answer) emit(ev infer.Event) error {
	switch ev := ev.(type) {
	case *infer.Admitted:
		a.isIn, a.admitted = true, *ev
	case *infer.Done:
		if a.last == nil {
			a.last = new(*ev) // the work is done and counts, sent or not
		}
	case *infer.Prompt, *infer.Text, *infer.Thinking, *infer.ToolCall, *infer.Vectors, *infer.Scores:
	}
	switch {
	case a.lost != nil:
		return a.lost
	case a.refused != nil:
		return a.refused
	case a.done:
		return errOver
	}
	if done, ok := ev.(*infer.Done); ok {
		whole := *done
		whole.Timings = a.timings(time.Now())
		ev = &whole
	}
	if err := a.codec.Write(ev); err != nil {
		if refused, ok := errors.AsType[*infer.Error](err); ok {
			a.refused = refused
		} else {
			a.lost = err
		}
		return err
	}
	switch ev := ev.(type) {
	case *infer.Admitted, *infer.Prompt:
		return nil // no piece of the answer
	case *infer.Done:
		a.done = true
	case *infer.Vectors:
		a.size = ev.Dimensions()
	case *infer.Scores:
		a.size = len(ev.Values)
	case *infer.Text, *infer.Thinking, *infer.ToolCall:
	}
	if a.first.IsZero() {
		a.first = time.Now()
	}
	return nil
}

// timings divide the time until now. All of it is queue time if the request ended before it
// was admitted.
func (a *answer) timings(now time.Time) infer.Timings {
	t := infer.Timings{Queue: a.admitted.Queued}
	switch {
	case !a.isIn && a.first.IsZero() && a.last == nil:
		t.Queue = now.Sub(a.begin)
		return t
	case a.first.IsZero():
		t.Prefill = now.Sub(a.begin) - t.Queue
		return t
	}
	t.Prefill = a.first.Sub(a.begin) - t.Queue
	t.Decode = now.Sub(a.first)
	return t
}
