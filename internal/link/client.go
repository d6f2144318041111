package link

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"net"
	"sync"
	"sync/atomic"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/printable"
)

var (
	// ErrClosed is the failure of a call that began after the end of the connection. The engine has
	// received no part of the call.
	ErrClosed = errors.New("the link is closed")
	// ErrGone is the failure of a call on a connection that ended before the end of the answer.
	// Calls return it as a [GoneError].
	ErrGone = errors.New("the engine is gone")
)

// A GoneError is an [ErrGone] with details of the call.
type GoneError struct {
	Call    uint64 // its number, as in [Beat.Calls]
	Emitted bool   // a part of the answer was emitted
}

// Error returns the text of ErrGone.
func (e *GoneError) Error() string { return ErrGone.Error() }

// Is reports whether target is ErrGone.
func (e *GoneError) Is(target error) bool { return target == ErrGone }

// A Client is the daemon's end of a link. [Client.Run] must be running for calls
// to be answered.
type Client struct {
	conn net.Conn

	mu    sync.Mutex // guards the fields below
	calls map[uint64]*call
	last  uint64
	query *statsCall // the open query for statistics; nil if there is none
	gone  bool
	beat  Beat // the last one received
	beats uint64
	due   bool // a beat was requested and has not been received

	frames   atomic.Uint64 // received, without beats and stats
	answered atomic.Bool   // a call has been answered to its end
	idle     atomic.Bool   // the last Pulse saw no active call, and none has become active since
	opened   chan struct{} // of capacity 1; see Opened
	out      sendQueue
}

var _ infer.Handler = (*Client)(nil)

// NewClient returns the daemon's end of the link over conn. The caller must call Run, which closes
// conn.
func NewClient(conn net.Conn) *Client {
	return &Client{
		conn: conn, calls: make(map[uint64]*call), opened: make(chan struct{}, 1), out: sendQueue{wake: make(chan struct{}, 1)},
	}
}

// Run reads the engine's messages until the connection ends, and passes the engine's reports to
// report. When Run returns, every call has ended, and later calls fail. It returns an error only if
// the engine violated the protocol.
func (c *Client) Run(report func(Report)) error {
	var writer sync.WaitGroup
	writer.Go(func() { c.out.writeTo(c.conn) })
	defer writer.Wait()
	defer c.out.close()
	defer c.endCalls()
	defer c.conn.Close()

	r := frame.Prefixed.NewReader(c.conn, limit)
	for {
		kind, msg, err := r.ReadFrame()
		switch {
		case err != nil:
			return protocolFault(err)
		case kind == frame.Blob:
			err = c.takeBlob(msg)
		default:
			err = c.take(msg, report)
		}
		if err != nil {
			return err
		}
	}
}

// protocolFault returns err if the engine sent bytes that are not a message. It returns nil for an
// error of the connection itself, because an engine may be killed at any time.
func protocolFault(err error) error {
	if _, ok := errors.AsType[*frame.MalformedError](err); ok {
		return err
	}
	if _, ok := errors.AsType[*frame.TooLongError](err); ok {
		return err
	}
	return nil
}

// Close closes the connection, which makes Run return.
func (c *Client) Close() { _ = c.conn.Close() }

// takeBlob handles a blob of text or thinking. It returns an error if the blob violates the protocol.
func (c *Client) takeBlob(msg []byte) error {
	c.frames.Add(1)
	if len(msg) == 0 || msg[0] > thinkingBlob {
		return protocolError("a blob of unknown kind")
	}
	kind := msg[0]
	msg = msg[1:]
	var head [3]uint64 // call, tokens, cost
	for i := range head {
		n, size := binary.Uvarint(msg)
		if size <= 0 || i > 0 && n > math.MaxInt32 {
			return protocolError("a blob without the numbers of its call, tokens and cost")
		}
		head[i], msg = n, msg[size:]
	}
	call := c.call(head[0])
	switch {
	case call == nil:
	case kind == thinkingBlob:
		call.addThinking(&infer.Thinking{Delta: msg, Tokens: int(head[1]), Cost: int(head[2])})
	default:
		call.addText(&infer.Text{Delta: msg, Tokens: int(head[1]), Cost: int(head[2])})
	}
	return nil
}

// take handles a JSON message of the engine. It returns an error if the message violates the protocol.
func (c *Client) take(msg []byte, report func(Report)) error {
	var r response
	if err := json.Unmarshal(msg, &r); err != nil {
		return protocolError("%w", err)
	}
	switch {
	case r.Report != nil:
		r.Report.Model, r.Report.Device = printable.Text(r.Report.Model), printable.Text(r.Report.Device)
		r.Report.Problem, r.Report.Variant = printable.Text(r.Report.Problem), printable.Text(r.Report.Variant)
		r.Report.Architecture, r.Report.Quantization = printable.Text(r.Report.Architecture), printable.Text(r.Report.Quantization)
		r.Report.Inexact = printable.Text(r.Report.Inexact)
		for i, w := range r.Report.Warnings {
			r.Report.Warnings[i] = printable.Text(w)
		}
		report(*r.Report)
		return nil
	case r.Stats != nil:
		return c.onStats(r.Stats)
	case r.Beat != nil:
		c.onBeat(r.Beat)
		return nil
	}
	c.frames.Add(1)
	return c.takeEvent(&r)
}

// takeEvent handles an event or the end of a call. It drops the events of a call after the return
// of its Handle.
func (c *Client) takeEvent(r *response) error {
	call := c.call(r.Call)
	switch {
	case r.Prompt != nil:
		if call != nil {
			call.addPrompt(r.Prompt)
		}
	case r.Text != nil:
		if call != nil {
			call.addText(r.Text)
		}
	case r.ToolCall != nil:
		if !jsontext.Value(r.ToolCall.Input).IsValid() {
			return protocolError("a tool call whose input is not JSON")
		}
		if call != nil {
			call.addTool(r.ToolCall)
		}
	case r.Done == nil && r.Fail == nil:
		return protocolError("an empty message")
	default:
		if call != nil && r.Done != nil {
			c.answered.Store(true)
		}
		if call != nil {
			call.finish(r)
		}
	}
	return nil
}

// call returns the call with that number, or nil if its Handle has returned.
func (c *Client) call(n uint64) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[n]
}

// endCalls ends every call and the open query after the end of the connection.
func (c *Client) endCalls() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	for _, call := range c.calls {
		call.finish(nil)
	}
	if c.query != nil {
		close(c.query.over)
	}
}

// Handle sends req to the engine and emits its events. It fails with ErrClosed if the connection
// ended before the call, and with a [GoneError] if it ends before the end of the answer.
//
// The engine pauses the call while one of the switches of req.Pause is on. Handle sets
// req.Pause.Stalled when [infer.MaxUntaken] bytes of events wait for the client, or the oldest
// event has waited for [StallAfter], and clears it once all events are taken.
func (c *Client) Handle(ctx context.Context, req *infer.Request, emit infer.Sink) error {
	call, err := c.start(req)
	if err != nil {
		return err
	}
	defer c.forget(call)
	msg, err := messageOf(requestOf(call.number, req))
	if err != nil {
		return err
	}
	c.out.put(msg)
	// From here on, cancel and pause must not depend on this goroutine, which may block in emit.
	stopCancel := context.AfterFunc(ctx, call.cancel)
	defer stopCancel()
	stopPause := req.Pause.Preempted.OnChange(call.preempt)
	defer stopPause()
	call.watch()
	defer call.close()
	err = call.relay(ctx, emit)
	call.cancel()
	if _, counts := req.Task.(*infer.Count); counts {
		call.settle() // the caller's turn to count must last until the engine has ended the count
	}
	return err
}

func (c *Client) start(req *infer.Request) (*call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return nil, ErrClosed
	}
	c.last++
	call := &call{client: c, number: c.last, req: req, wake: make(chan struct{}, 1)}
	c.calls[call.number] = call
	c.open()
	return call, nil
}

// requestOf returns the message that begins a call.
func requestOf(call uint64, req *infer.Request) *request {
	r := &request{Call: call, User: req.Peer.Owner(), Key: req.Peer.Key, Salt: req.CacheSalt, Deadline: req.Deadline}
	switch t := req.Task.(type) {
	case *infer.Generate:
		r.Generate = t.Settled()
	case *infer.Count:
		whole := *t
		_, whole.Of = detach(t.Of)
		r.Count = &whole
	case *infer.Embed:
		r.Embed = t
	case *infer.Rerank:
		r.Rerank = t
	}
	return r
}

func (c *Client) forget(call *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.calls, call.number)
}

// send sends a request without a task, which can always be encoded.
func (c *Client) send(r request) {
	if msg, err := messageOf(&r); err == nil {
		c.out.put(msg)
	}
}
