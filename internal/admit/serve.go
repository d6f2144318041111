package admit

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/sched"
)

// Refusals of a request with a deadline.
var (
	errLate    = infer.Errorf(infer.Busy, "queue full: the deadline passed while the request waited")
	errTooLate = infer.Errorf(infer.Busy, "queue full: the deadline passed before the answer was complete")
)

// Reasons for an incomplete answer.
var (
	errGone        = errors.New("the client has left before the end of the answer")
	errNoEnd error = infer.Errorf(infer.Internal, "the backend ended the answer without a terminal")
)

// deadlineGrace is the time that the handler gets after the deadline of a request to end the
// answer. Then the gate cancels the handler.
const deadlineGrace = time.Second

// Handle waits until req gets a slot, emits [infer.Admitted], and passes req on. It fails with
// [infer.Busy] at once if too many requests wait already, and later if the deadline of req passes
// while it waits. Once the gate is closed, it fails with [infer.Unavailable].
func (g *Gate) Handle(ctx context.Context, req *infer.Request, emit infer.Sink) error {
	t, err := g.enter(req)
	if err != nil {
		return err
	}
	if t.turn != nil {
		if err := g.wait(ctx, t); err != nil {
			return err
		}
	}
	return g.serve(ctx, t, emit)
}

// wait waits until t is admitted. It returns an error if t is refused, its deadline passes or ctx
// ends.
func (g *Gate) wait(ctx context.Context, t *ticket) error {
	came := time.Now()
	var late <-chan time.Time
	if at := t.req.Deadline; !at.IsZero() {
		timer := time.NewTimer(at.Sub(came))
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-t.turn:
		t.admission.Queued = time.Since(came)
		return t.refused
	case <-late:
		g.withdraw(t)
		return errLate
	case <-ctx.Done():
		g.withdraw(t)
		return context.Cause(ctx)
	}
}

// serve calls the handler of t, which has been admitted, and passes its answer on.
func (g *Gate) serve(ctx context.Context, t *ticket, emit infer.Sink) error {
	client := ctx
	if at := t.req.Deadline; !at.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, at.Add(deadlineGrace), errTooLate)
		defer cancel()
	}
	a := answer{gate: g, ticket: t, emit: emit, take: t.taken.add}
	// errNoEnd is the outcome if the handler panics.
	why := errNoEnd
	defer func() { g.leave(t, nil, why) }()
	if t.to.Pausable {
		var cancel context.CancelCauseFunc
		ctx, cancel = context.WithCancelCause(ctx)
		defer cancel(nil)
		t.cancel = cancel
		stop := t.req.Pause.Stalled.OnChange(func(on bool) { g.stall(t, on) })
		defer stop()
		t.req.Written = g.charger(t.reported.add)
		a.take = g.charger(a.take)
	}
	if err := emit(t.admitted()); err != nil {
		why = errGone
		return err
	}
	err := t.to.Handler.Handle(ctx, t.req, a.event)
	why = a.outcome(client, err)
	return err
}

// admitted returns the event that reports the admission.
func (t *ticket) admitted() *infer.Admitted {
	t.admission.Entry, t.admission.Backend = t.to.Name, t.to.Kind
	if t.to.Model != nil {
		t.admission.Model = t.to.Model()
	}
	return &t.admission
}

// An answer passes the events of a request from its handler to its client.
type answer struct {
	gate   *Gate
	ticket *ticket
	emit   infer.Sink
	take   func(tokens, cost int)
	result infer.Event // complete vectors or scores, held back until Done
	lost   error       // the error of the first event that emit refused
}

// event charges an event and passes it on. It frees the slot before it sends Done, because a client
// that has read Done may send its next request at once. It holds vectors and scores back until the
// slot is free, so that a client that reads slowly does not keep the slot.
func (a *answer) event(ev infer.Event) error {
	switch ev := ev.(type) {
	case *infer.Text:
		a.take(ev.Tokens, ev.Cost)
	case *infer.Thinking:
		a.take(ev.Tokens, ev.Cost)
	case *infer.ToolCall:
		a.take(ev.Tokens, ev.Cost)
	case *infer.Admitted:
		return nil // serve has emitted its own
	case *infer.Prompt: // costs nothing
	case *infer.Vectors:
		a.result = &infer.Vectors{Values: ev.Values}
		return nil
	case *infer.Scores:
		a.result = &infer.Scores{Values: ev.Values}
		return nil
	case *infer.Done:
		a.gate.leave(a.ticket, ev, nil)
		if a.result != nil {
			if err := a.send(a.result); err != nil {
				return err
			}
		}
	}
	return a.send(ev)
}

func (a *answer) send(ev infer.Event) error {
	err := a.emit(ev)
	if err != nil && a.lost == nil {
		a.lost = err
	}
	return err
}

// outcome returns the reason why an answer is incomplete, after the handler has returned err
// without emitting Done.
func (a *answer) outcome(client context.Context, err error) error {
	failure := cmp.Or(a.lost, err)
	_, known := errors.AsType[*infer.Error](failure)
	switch {
	case client.Err() != nil || a.lost != nil && !known:
		return errGone
	case known:
		return failure
	}
	return errNoEnd
}

// charger returns a function that calls add, and settles the gate after each quantum of tokens.
// Calls of that function must not overlap.
func (g *Gate) charger(add func(tokens, cost int)) func(tokens, cost int) {
	fresh := 0
	return func(tokens, cost int) {
		add(tokens, cost)
		if fresh += tokens + cost; fresh >= sched.Quantum {
			fresh = 0
			g.settle()
		}
	}
}
