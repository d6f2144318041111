// Package exchange takes one request from its arrival to its record: it calls the handler, ends the
// request when the client hangs up or the daemon stops, sends exactly one terminal message, and
// measures the times. All surfaces share it, whatever their framing. It depends on no dialect and
// no kind of connection: a [Client] encodes and sends the events, and may watch for the hang-up.
package exchange

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// A Client sends the answer of one request at a time. It may also be a [Watcher].
type Client interface {
	// Write sends an event, or does nothing if the dialect has no message for it. An
	// [infer.Error] means that nothing was sent, and becomes the failure of the request; any
	// other error means that the client has gone.
	Write(ev infer.Event) error
	// Fail sends the terminal message of a request that has failed. An error means that the client
	// has gone, or that the answer can no longer report a failure.
	Fail(cause error) error
}

var (
	errStopping   = infer.Errorf(infer.Unavailable, "daemon is shutting down")
	errNoTerminal = infer.Errorf(infer.Unavailable, "backend ended stream without terminal frame")
	errHungUp     = errors.New("the client hung up")
	errOver       = errors.New("the answer has ended already")
)

// Run answers req with one terminal message, unless the client has gone, and records the
// outcome. It returns nil if a terminal message was sent, else the reason why the client cannot
// get one.
//
// The end of ctx means that the client has hung up. The context of the handler also ends when
// client, as a [Watcher], reports a hang-up, and when the runner stops. When Run returns, the watch
// of client has ended.
func (r *Runner) Run(ctx context.Context, dialect wire.Dialect, req *infer.Request, client Client) error {
	x := &exchange{
		client: client, req: req, begin: time.Now(),
		record: &Record{Peer: req.Peer, Dialect: dialect, ID: req.ID, TraceID: req.TraceID()},
	}
	x.record.count(req.Task)
	x.runner = r
	x.watcher, _ = client.(Watcher)
	ctx, cancel := context.WithCancelCause(ctx)
	x.Context, x.cancel = ctx, cancel
	err := errStopping
	if r.enter(x) {
		defer r.leave(x)
		err = x.handle() //nolint:contextcheck // x has it
	}
	cause := context.Cause(ctx)
	cancel(nil)
	x.end()
	err = x.settle(err, cause)
	if r.Journal != nil {
		x.record.Timings = x.timings(time.Now())
		r.Journal.Request(x.record)
	}
	return err
}

// An exchange is one request and the state of its answer.
type exchange struct {
	watched // the context of the handler

	client Client
	req    *infer.Request
	record *Record

	lost     error      // error of the connection; nothing is sent after it
	refused  error      // error of the client for an event that it cannot encode
	terminal infer.Done // the Done that is sent, with its timings
	ended    bool       // terminal was sent

	begin, first time.Time // times when the request arrived, and when the first event of its answer was sent
}

// handle calls the handler. A panic there ends this request only.
func (x *exchange) handle() (err error) {
	defer func() {
		if p := recover(); p != nil {
			x.runner.Log.LogAttrs(x.Context, slog.LevelError, "handler panicked",
				slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			err = infer.Errorf(infer.Internal, "internal error")
		}
	}()
	return x.runner.Handler.Handle(&x.watched, x.req, x.emit)
}

// settle sends the terminal message unless it was sent, and records the outcome. err is the error
// of the handler; cause is the reason why its context ended, or nil if it did not.
func (x *exchange) settle(err, cause error) error {
	log, rec := x.runner.Log, x.record
	switch {
	case x.ended:
		rec.Outcome = Done
		if err != nil {
			log.LogAttrs(x.Context, slog.LevelWarn, "request failed after its answer", slog.Any("err", err))
		}
		return nil
	case x.lost != nil:
		rec.Outcome, rec.Stage = Gone, x.stage()
		return fmt.Errorf("write: %w", x.lost)
	case cause != nil && !errors.Is(cause, errStopping):
		rec.Outcome, rec.Stage = Gone, x.stage()
		return errHungUp
	case x.refused != nil:
		err = x.refused
	case cause != nil:
		err = cause
	case err == nil:
		err = errNoTerminal
	}
	rec.Outcome, rec.Code = Refused, infer.CodeOf(err)
	if rec.Started {
		rec.Outcome = Failed
	}
	if _, ok := errors.AsType[*infer.Error](err); !ok {
		log.LogAttrs(x.Context, slog.LevelError, "request failed", slog.Any("err", err))
	}
	if err := x.client.Fail(err); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// stage returns the stage of the request when its client left.
func (x *exchange) stage() Stage {
	switch {
	case x.req.Pause.Stalled.On() || errors.Is(x.lost, os.ErrDeadlineExceeded):
		return Unread
	case x.record.Started:
		return Decode
	case x.record.Admitted:
		return Prefill
	}
	return Queue
}

// emit sends an event. After a failure or a Done it sends nothing more, even if the handler emits
// further events, and returns an error.
func (x *exchange) emit(ev infer.Event) error {
	done, isDone := ev.(*infer.Done)
	x.note(ev)
	switch {
	case x.lost != nil:
		return x.lost
	case x.refused != nil:
		return x.refused
	case x.ended:
		return errOver
	}
	if isDone {
		x.terminal = *done
		x.terminal.Timings = x.timings(time.Now())
		ev = &x.terminal
	}
	if err := x.client.Write(ev); err != nil {
		if refused, ok := errors.AsType[*infer.Error](err); ok {
			x.refused = refused
		} else {
			x.lost = err
		}
		return err
	}
	x.wrote(ev)
	return nil
}

// note records the admission and the usage in an event, even if the event is not sent.
func (x *exchange) note(ev infer.Event) {
	rec := x.record
	switch ev := ev.(type) {
	case *infer.Admitted:
		rec.Admitted, rec.Admission = true, *ev
	case *infer.Done:
		if !rec.Answered {
			rec.Answered, rec.Usage = true, *ev
		}
	case *infer.Prompt, *infer.Text, *infer.Thinking, *infer.ToolCall, *infer.Vectors, *infer.Scores:
	}
}

// wrote records that an event was sent.
func (x *exchange) wrote(ev infer.Event) {
	switch ev := ev.(type) {
	case *infer.Admitted, *infer.Prompt:
		return // no part of the answer
	case *infer.Done:
		x.ended = true
	case *infer.Vectors:
		x.record.Dimensions = ev.Dimensions()
	case *infer.Scores:
		x.record.rank(x.req.Task, len(ev.Values))
	case *infer.Text, *infer.Thinking, *infer.ToolCall:
	}
	if !x.record.Started {
		x.record.Started, x.first = true, time.Now()
	}
}

// timings divides the time from the arrival to now into queue, prefill and decode time. All of it
// is queue time if the request ended before it was admitted.
func (x *exchange) timings(now time.Time) infer.Timings {
	rec := x.record
	t := infer.Timings{Queue: rec.Admission.Queued}
	switch {
	case rec.Started:
		t.Prefill = x.first.Sub(x.begin) - t.Queue
		t.Decode = now.Sub(x.first)
	case rec.Admitted || rec.Answered:
		t.Prefill = now.Sub(x.begin) - t.Queue
	default:
		t.Queue = now.Sub(x.begin)
	}
	return t
}
