package link

import (
	"context"
	"sync"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
)

// StallAfter is how long text may wait for its client until the call counts as stalled.
const StallAfter = time.Second

// A call is one request under way. Between the reader of the connection and the
// goroutine that writes to the client lies a buffer that joins adjacent text, so
// that a client that reads slowly delays no other. A client that does not read stalls
// its call, which bounds the buffer: the engine pauses.
//
//	         text untaken for StallAfter,
//	         or MaxUntaken bytes of it
//	flowing ───────────────────────────▶ stalled
//	        ◀───────────────────────────
//	               all text taken
type call struct {
	client *Client
	number uint64
	req    *infer.Request
	wake   chan struct{} // has room for one: something below has changed

	mu        sync.Mutex  // guards the fields below
	timer     *time.Timer // looks for a stall
	text      infer.Text  // arrived, not yet taken
	untaken   int         // bytes: of text, and of the text in the emit under way
	since     time.Time   // start of the emit under way; zero if there is none
	stalled   bool
	preempted bool
	paused    bool // what the engine was told last
	canceled  bool // the engine was told so
	closed    bool // relay has returned
	over      bool
	last      *note // how it ended; nil if the connection did
}

// logprobBytes is what the logprobs of a token take, roughly, for each alternative.
const logprobBytes = 64

func sizeOf(ev *infer.Text) int {
	n := len(ev.Delta)
	for i := range ev.Logprobs {
		n += logprobBytes * (1 + len(ev.Logprobs[i].Top))
	}
	return n
}

// add joins ev to what has arrived. Its bytes are copied, its logprobs kept.
func (c *call) add(ev *infer.Text) {
	c.mu.Lock()
	c.text.Delta = append(c.text.Delta, ev.Delta...)
	c.text.Tokens += ev.Tokens
	c.text.Cost += ev.Cost
	c.text.Logprobs = append(c.text.Logprobs, ev.Logprobs...)
	c.untaken += sizeOf(ev)
	stalls := c.untaken >= infer.MaxUntaken && c.stallLocked(true)
	c.mu.Unlock()
	if stalls {
		c.tellStalled()
	}
	if c.req.Written != nil {
		c.req.Written(ev.Tokens, ev.Cost)
	}
	c.signal()
}

func (c *call) finish(last *note) {
	c.mu.Lock()
	if !c.over {
		c.over, c.last = true, last
	}
	c.mu.Unlock()
	c.signal()
}

// active reports whether the engine owes the call progress.
func (c *call) active() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.over && !c.paused && !c.canceled
}

func (c *call) signal() {
	select {
	case c.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// cancel has the engine drop the call, unless it has ended.
func (c *call) cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over && !c.canceled {
		c.canceled = true
		c.client.send(order{Call: c.number, Cancel: true})
	}
}

// preempt pauses the call on behalf of the gate, or ends that.
func (c *call) preempt(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.preempted = on
	c.orderLocked()
}

// orderLocked tells the engine to pause or to resume, if that has changed.
func (c *call) orderLocked() {
	if pause := c.preempted || c.stalled; pause != c.paused {
		c.paused = pause
		c.client.send(order{Call: c.number, Pause: pause, Resume: !pause})
		if !pause {
			c.client.open()
		}
	}
}

// stallLocked changes whether the call is stalled. If it reports true, tellStalled must
// follow without the lock.
func (c *call) stallLocked(on bool) bool {
	if c.stalled == on || c.closed {
		return false
	}
	c.stalled = on
	c.orderLocked()
	return true
}

// tellStalled tells the gate.
func (c *call) tellStalled() {
	c.req.Pause.Stalled.Follow(func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.stalled
	})
}

// watch begins to look for a stall, and close ends it.
func (c *call) watch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timer = time.AfterFunc(StallAfter, c.look)
}

func (c *call) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.timer.Stop()
}

// look finds a client that does not read, and comes again when one could next be found.
func (c *call) look() {
	c.mu.Lock()
	wait, stalls := StallAfter, false
	if !c.since.IsZero() {
		if wait -= time.Since(c.since); wait <= 0 {
			wait, stalls = StallAfter, c.stallLocked(true)
		}
	}
	if !c.closed {
		c.timer.Reset(wait)
	}
	c.mu.Unlock()
	if stalls {
		c.tellStalled()
	}
}

// relay passes on what arrives until the call ends, ctx does, or emit fails.
func (c *call) relay(ctx context.Context, emit infer.Sink) error {
	var (
		ev      infer.Text
		spare   []byte // the buffer that is not c.text's
		emitted bool
	)
	for {
		select {
		case <-c.wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		c.mu.Lock()
		over, last := c.over, c.last
		ev = c.text
		c.text, spare = infer.Text{Delta: spare[:0]}, ev.Delta
		if len(ev.Delta) > 0 {
			c.since = time.Now()
		}
		c.mu.Unlock()

		if len(ev.Delta) > 0 {
			emitted = true
			ev.More = over && last != nil && last.Fail == nil
			if err := emit(&ev); err != nil {
				return err
			}
			c.taken(&ev)
		}
		switch {
		case !over:
		case last == nil:
			return &GoneError{Call: c.number, Emitted: emitted}
		case last.Fail != nil && ctx.Err() != nil: // most likely of the cancel
			return context.Cause(ctx)
		case last.Fail != nil:
			return last.Fail.err()
		default:
			return last.emit(emit)
		}
	}
}

// taken says that the client has taken ev.
func (c *call) taken(ev *infer.Text) {
	c.mu.Lock()
	c.untaken -= sizeOf(ev)
	c.since = time.Time{}
	flows := c.untaken == 0 && c.stallLocked(false)
	c.mu.Unlock()
	if flows {
		c.tellStalled()
	}
}

// emit passes on what the last note says.
func (n *note) emit(emit infer.Sink) error {
	if n.Vectors != nil {
		if err := emit(n.Vectors); err != nil {
			return err
		}
	}
	if n.Scores != nil {
		if err := emit(n.Scores); err != nil {
			return err
		}
	}
	return emit(n.Done.event())
}
