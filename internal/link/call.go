package link

import (
	"context"
	"sync"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
)

// StallAfter is the time that an event may wait for the client before the call stalls.
const StallAfter = time.Second

// A call is a request on the link that has not ended. A buffer between the reader of the connection
// and the goroutine that writes to the client joins adjacent text, so a client that reads slowly
// delays no other client. If the client does not read, the call stalls and the engine pauses it;
// this bounds the buffer.
//
//	         events untaken for StallAfter,
//	         or MaxUntaken bytes of them
//	flowing ───────────────────────────▶ stalled
//	        ◀───────────────────────────
//	               all events taken
type call struct {
	client *Client
	number uint64
	req    *infer.Request
	wake   chan struct{} // of capacity 1: a field below has changed

	mu        sync.Mutex  // guards the fields below
	timer     *time.Timer // checks for a stall
	pending   pieces      // received, not yet taken
	carry     infer.Text  // tokens received without text; the next piece reports them
	untaken   int         // bytes of pending and of the events that relay is emitting
	emitStart time.Time   // start of the present call of emit; zero if there is none
	stalled   bool
	preempted bool
	paused    bool // the last state sent to the engine
	canceled  bool // the engine was sent a cancel, or will never be sent the request
	dropped   bool // the request will never be sent
	closed    bool // relay has returned
	ended     bool
	final     *response // the end of the call; nil if the connection ended first
}

func (c *call) addText(ev *infer.Text) {
	c.mu.Lock()
	if len(ev.Delta) > 0 {
		c.pending.addText(ev, &c.carry)
	} else {
		c.carry.Tokens += ev.Tokens
		c.carry.Cost += ev.Cost
		c.carry.Logprobs = append(c.carry.Logprobs, ev.Logprobs...)
	}
	stalls := c.growLocked(sizeOfText(ev))
	c.mu.Unlock()
	c.added(stalls, ev.Tokens, ev.Cost)
}

func (c *call) addPrompt(ev *infer.Prompt) {
	c.mu.Lock()
	c.pending.addPrompt(ev)
	c.mu.Unlock()
	c.signal()
}

func (c *call) addThinking(ev *infer.Thinking) {
	c.mu.Lock()
	if len(ev.Delta) > 0 {
		c.pending.addThinking(ev, &c.carry)
	} else {
		c.carry.Tokens += ev.Tokens
		c.carry.Cost += ev.Cost
	}
	stalls := c.growLocked(len(ev.Delta))
	c.mu.Unlock()
	c.added(stalls, ev.Tokens, ev.Cost)
}

func (c *call) addTool(ev *infer.ToolCall) {
	c.mu.Lock()
	c.pending.addTool(ev)
	stalls := c.growLocked(sizeOfTool(ev))
	c.mu.Unlock()
	c.added(stalls, ev.Tokens, ev.Cost)
}

// growLocked adds the bytes of a new event to untaken, and reports whether that has stalled the
// call; added must then be called with the result.
func (c *call) growLocked(bytes int) (stalls bool) {
	c.untaken += bytes
	return c.untaken >= infer.MaxUntaken && c.stallLocked(true)
}

// added reports a new event to the gate, which charges its tokens and cost, and to relay. stalls is
// the result of growLocked for the event.
func (c *call) added(stalls bool, tokens, cost int) {
	if stalls {
		c.publishStalled()
	}
	if c.req.Written != nil {
		c.req.Written(tokens, cost)
	}
	c.signal()
}

func (c *call) finish(last *response) {
	c.mu.Lock()
	if !c.ended {
		c.ended, c.final = true, last
	}
	c.mu.Unlock()
	c.signal()
}

// active reports whether the engine is expected to make progress on the call. It is false for a
// request to count tokens, because no computing loop works on it, and a busy machine may delay it.
func (c *call) active() bool {
	if _, counts := c.req.Task.(*infer.Count); counts {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.ended && !c.paused && !c.canceled
}

func (c *call) signal() {
	select {
	case c.wake <- struct{}{}:
	default: // relay will wake anyway
	}
}

// cancel ends the call in the engine, or takes its request out of the send queue, unless
// the call has ended.
func (c *call) cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || c.canceled {
		return
	}
	c.canceled = true
	if c.client.out.drop(c.number) {
		c.dropped = true
		return
	}
	c.client.send(request{Call: c.number, Cancel: true})
}

// settleTime is the longest time for which settle waits.
const settleTime = 10 * time.Second

// settle waits until the engine has ended the call, or settleTime has passed. relay must have
// returned, because both receive from wake.
func (c *call) settle() {
	timer := time.NewTimer(settleTime)
	defer timer.Stop()
	for {
		c.mu.Lock()
		settled := c.ended || c.dropped
		c.mu.Unlock()
		if settled {
			return
		}
		select {
		case <-c.wake:
		case <-timer.C:
			return
		}
	}
}

// preempt starts or ends a pause on behalf of the gate.
func (c *call) preempt(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.preempted = on
	c.sendPauseLocked()
}

// sendPauseLocked sends a pause or a resume to the engine, if the state has changed.
func (c *call) sendPauseLocked() {
	if pause := c.preempted || c.stalled; pause != c.paused && !c.canceled {
		c.paused = pause
		c.client.send(request{Call: c.number, Pause: pause, Resume: !pause})
		if !pause {
			c.client.open()
		}
	}
}

// stallLocked starts or ends a stall, and reports whether that is a change. If so, the caller must
// call publishStalled without the lock.
func (c *call) stallLocked(on bool) bool {
	if c.stalled == on || c.closed {
		return false
	}
	c.stalled = on
	c.sendPauseLocked()
	return true
}

// publishStalled sets the switch Stalled of the request to the state of the call. The gate follows
// the switch.
func (c *call) publishStalled() {
	c.req.Pause.Stalled.Follow(func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.stalled
	})
}

// watch starts the timer that calls check; close stops it.
func (c *call) watch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timer = time.AfterFunc(StallAfter, c.check)
}

func (c *call) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.timer.Stop()
}

// check stalls the call if the present call of emit has lasted for StallAfter, and sets the time of
// the next check.
func (c *call) check() {
	c.mu.Lock()
	wait, stalls := StallAfter, false
	if !c.emitStart.IsZero() {
		if wait -= time.Since(c.emitStart); wait <= 0 {
			wait, stalls = StallAfter, c.stallLocked(true)
		}
	}
	if !c.closed {
		c.timer.Reset(wait)
	}
	c.mu.Unlock()
	if stalls {
		c.publishStalled()
	}
}

// relay emits the events of the call until the call ends, ctx ends, or emit fails. Handle returns
// its error.
func (c *call) relay(ctx context.Context, emit infer.Sink) error {
	var ready, spare pieces // ready was taken from pending; spare will replace it
	emitted := false
	for {
		select {
		case <-c.wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		c.mu.Lock()
		over, last := c.ended, c.final
		ready, c.pending = c.pending, spare
		if len(ready) > 0 {
			c.emitStart = time.Now()
		}
		c.mu.Unlock()

		for i := range ready {
			emitted = emitted || ready[i].kind != promptPiece
			ready[i].text.More = i+1 == len(ready) && over && last != nil && last.Fail == nil
			if err := emit(ready[i].event()); err != nil {
				return err
			}
			c.taken(ready[i].size(), i+1 < len(ready))
		}
		spare = ready.reset()
		switch {
		case !over:
		case last == nil:
			return &GoneError{Call: c.number, Emitted: emitted}
		case last.Fail != nil && ctx.Err() != nil: // most likely caused by the cancel
			return context.Cause(ctx)
		case last.Fail != nil:
			return last.Fail.err()
		default:
			return last.emit(emit)
		}
	}
}

// taken records that the client has taken an event of that size. more reports that relay emits the
// next event at once.
func (c *call) taken(bytes int, more bool) {
	c.mu.Lock()
	c.untaken -= bytes
	c.emitStart = time.Time{}
	if more {
		c.emitStart = time.Now()
	}
	flows := c.untaken == 0 && c.stallLocked(false)
	c.mu.Unlock()
	if flows {
		c.publishStalled()
	}
}

// emit emits the events of a response that ends a call: vectors or scores, if any, and the Done.
func (r *response) emit(emit infer.Sink) error {
	if r.Vectors != nil {
		if err := emit(r.Vectors); err != nil {
			return err
		}
	}
	if r.Scores != nil {
		if err := emit(r.Scores); err != nil {
			return err
		}
	}
	return emit(r.Done.event())
}
