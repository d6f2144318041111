package link

import (
	"context"

	"github.com/inferd-go/inferd/client/stats"
)

// A statsCall is an open query for the engine's statistics. Later callers of Stats wait for the
// same answer, so a stopped engine that is polled every second is sent one query.
type statsCall struct {
	over   chan struct{}
	answer *stats.Engine // valid once over is closed; nil if the connection ended
}

// Stats returns the engine's statistics. It fails with ErrClosed if the connection has ended, with
// ErrGone if the connection ends before the answer, and with the cause of ctx if ctx ends first.
func (c *Client) Stats(ctx context.Context) (*stats.Engine, error) {
	q, err := c.openStats()
	if err != nil {
		return nil, err
	}
	select {
	case <-q.over:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if q.answer == nil {
		return nil, ErrGone
	}
	return q.answer, nil
}

// openStats returns the open query, or a new one.
func (c *Client) openStats() (*statsCall, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.gone:
		return nil, ErrClosed
	case c.query != nil:
		return c.query, nil
	}
	c.send(request{Stats: true})
	c.query = &statsCall{over: make(chan struct{})}
	return c.query, nil
}

// onStats takes the answer to the open query. It returns an error if no query is open.
func (c *Client) onStats(s *stats.Engine) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.query == nil {
		return protocolError("statistics without a query")
	}
	c.query.answer = s
	close(c.query.over)
	c.query = nil
	return nil
}

// A Pulse is the engine's progress as seen from the daemon's end of the link.
type Pulse struct {
	Beat     Beat   // the last one received
	Beats    uint64 // received so far
	Frames   uint64 // received so far, without beats and stats
	Active   int    // calls that the engine should work on: not ended, paused or canceled, and not counting tokens
	Answered bool   // a call has been answered to its end
}

// AskBeat requests a [Beat] from the engine, unless an earlier request is unanswered. It does not
// block.
func (c *Client) AskBeat() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone || c.due {
		return
	}
	c.due = true
	c.send(request{Beat: true})
}

func (c *Client) onBeat(b *Beat) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.beat, c.due = *b, false
	c.beats++
}

// Pulse returns the engine's progress, without a query to the engine; see [Client.AskBeat].
func (c *Client) Pulse() Pulse {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := Pulse{Beat: c.beat, Beats: c.beats, Frames: c.frames.Load(), Answered: c.answered.Load()}
	c.idle.Store(true) // before counting, so a call that becomes active meanwhile is noticed
	for _, call := range c.calls {
		if call.active() {
			p.Active++
		}
	}
	if p.Active > 0 {
		c.idle.Store(false)
	}
	return p
}

// Opened returns a channel that receives a value when a call becomes active after a [Client.Pulse]
// that found no active call.
func (c *Client) Opened() <-chan struct{} { return c.opened }

// open is called when a call becomes active. It sends to opened if the last Pulse found no active call
// and no call has become active since.
func (c *Client) open() {
	if c.idle.CompareAndSwap(true, false) {
		select {
		case c.opened <- struct{}{}:
		default:
		}
	}
}
