// Package count answers requests that only count tokens, in front of the gate. Counting needs no
// slot, so it has bounds of its own: otherwise a caller could use up the CPU with it. The entries
// themselves count the tokens. All other requests are passed on.
package count

import (
	"cmp"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/quota"
)

// An Entry answers requests to count.
type Entry struct {
	Name    string
	Kind    string // of backend, as in [infer.Done]
	Handler infer.Handler
}

// A Desk is a Handler that answers requests to count, one at a time for each user and two in all,
// and passes all others to Next.
type Desk struct {
	Next infer.Handler
	// Choose returns the entry for a request to count. Handle returns its error.
	Choose func(*infer.Request) (Entry, error)
	// Charge charges the caller of a request for work, in tokens that are prefilled. May be nil.
	Charge func(req *infer.Request, tokens int)
	Wait   time.Duration // the longest time that a request waits for its turn; 0 means 10 s

	closed atomic.Bool
	turns  quota.Quota
}

var _ infer.Handler = (*Desk)(nil)

// Bounds of a Desk.
const (
	perCaller   = 1
	total       = 2
	defaultWait = 10 * time.Second
)

// tokensPerCharge is the number of tokens that are counted in about the time of prefilling one.
const tokensPerCharge = 64

// timePerCharge is the time for which a failed or canceled count is charged one token: about the time
// of prefilling one.
const timePerCharge = 10 * time.Millisecond

var (
	errBusy   = infer.Errorf(infer.Busy, "queue full: too many requests count tokens")
	errClosed = infer.Errorf(infer.Unavailable, "admission closed")
)

// New returns a Desk in front of next.
func New(next infer.Handler, choose func(*infer.Request) (Entry, error)) *Desk {
	return &Desk{Next: next, Choose: choose, turns: quota.Quota{PerCaller: perCaller, Total: total}}
}

// Close refuses requests to count from now on; running ones may finish.
func (d *Desk) Close() { d.closed.Store(true) }

// Handle answers req, or passes it on to Next. A request to count that gets no turn within Wait, or
// before its deadline, is refused with [infer.Busy]; after Close, with [infer.Unavailable].
func (d *Desk) Handle(ctx context.Context, req *infer.Request, emit infer.Sink) error {
	if _, counts := req.Task.(*infer.Count); !counts {
		return d.Next.Handle(ctx, req, emit)
	}
	if d.closed.Load() {
		return errClosed
	}
	entry, err := d.Choose(req)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := d.wait(ctx, req); err != nil {
		return err
	}
	defer d.turns.Release(req.Peer.Caller(), 1)
	if d.closed.Load() {
		return errClosed
	}
	if err := emit(&infer.Admitted{Queued: time.Since(begin), Entry: entry.Name, Backend: entry.Kind}); err != nil {
		return err
	}
	charge, began := 0, time.Now()
	if d.Charge != nil {
		defer func() {
			if charge == 0 { // the count failed or was canceled, but used CPU time
				charge = 1 + int(time.Since(began)/timePerCharge)
			}
			d.Charge(req, charge)
		}()
	}
	return entry.Handler.Handle(ctx, req, func(ev infer.Event) error {
		if done, ok := ev.(*infer.Done); ok {
			charge = 1 + done.In/tokensPerCharge
		}
		return emit(ev)
	})
}

// wait waits for a turn and takes it. It fails with [infer.Busy] if that takes too long, or with
// the cause of ctx.
func (d *Desk) wait(ctx context.Context, req *infer.Request) error {
	late := time.Now().Add(cmp.Or(d.Wait, defaultWait))
	if !req.Deadline.IsZero() && req.Deadline.Before(late) {
		late = req.Deadline
	}
	limited, cancel := context.WithDeadlineCause(ctx, late, errBusy)
	defer cancel()
	err := d.turns.Acquire(limited, req.Peer.Caller(), 1, 0)
	if err != nil && ctx.Err() != nil && !errors.Is(err, errBusy) {
		return context.Cause(ctx)
	}
	return err
}
