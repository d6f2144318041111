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

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/printable"
)

var (
	// ErrClosed is what a call fails with when the connection had ended before it was
	// sent: the engine has seen nothing of it.
	ErrClosed = errors.New("the link is closed")
	// ErrGone is what a call fails with when the connection ended before its answer: it
	// comes as a [GoneError].
	ErrGone = errors.New("the engine is gone")
)

// A GoneError is an [ErrGone] with details of the call.
type GoneError struct {
	Call    uint64 // its number, as in [Beat.Calls]
	Emitted bool   // a part of the answer was passed on
}

// Error says that the engine is gone.
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
	asked *question // that the engine has not answered
	gone  bool
	beat  Beat // the last that came
	beats uint64
	due   bool // a beat was asked for and has not come

	frames   atomic.Uint64 // received, without beats and stats
	answered atomic.Bool   // a call has been answered to its end
	idle     atomic.Bool   // the last Pulse saw no active call, and none has become so since
	opened   chan struct{} // has room for one, see Opened
	out      outbox
}

var _ infer.Handler = (*Client)(nil)

// NewClient returns the daemon's end of the link over conn. Run closes conn.
func NewClient(conn net.Conn) *Client {
	return &Client{
		conn: conn, calls: make(map[uint64]*call), opened: make(chan struct{}, 1), out: outbox{wake: make(chan struct{}, 1)},
	}
}

// Run reads what the engine sends until the connection ends, and hands its reports
// to report. When it returns, every call has failed or ended, and no later one
// succeeds. It returns an error only
// if the engine sent what it never should.
func (c *Client) Run(report func(Report)) error {
	var writer sync.WaitGroup
	writer.Go(func() { c.out.writeTo(c.conn) })
	defer writer.Wait()
	defer c.out.close()
	defer c.end()
	defer c.conn.Close()

	r := frame.Prefixed.NewReader(c.conn, limit)
	for {
		kind, msg, err := r.ReadFrame()
		switch {
		case err != nil:
			return nonsense(err)
		case kind == frame.Blob:
			c.frames.Add(1)
			var head [3]uint64 // call, tokens, cost
			for i := range head {
				n, size := binary.Uvarint(msg)
				if size <= 0 || i > 0 && n > math.MaxInt32 {
					return protocolError("text without a call, or without tokens")
				}
				head[i], msg = n, msg[size:]
			}
			if call := c.call(head[0]); call != nil {
				call.add(&infer.Text{Delta: msg, Tokens: int(head[1]), Cost: int(head[2])})
			}
		default:
			if err := c.take(msg, report); err != nil {
				return err
			}
		}
	}
}

// nonsense returns err if the engine has sent what it never should, and nil if the
// connection has just ended: how a dead engine's connection ends says little.
func nonsense(err error) error {
	if _, ok := errors.AsType[*frame.MalformedError](err); ok {
		return err
	}
	if _, ok := errors.AsType[*frame.TooLongError](err); ok {
		return err
	}
	return nil
}

// Close ends the connection, and with it Run.
func (c *Client) Close() { _ = c.conn.Close() }

func (c *Client) take(msg []byte, report func(Report)) error {
	var n note
	if err := json.Unmarshal(msg, &n); err != nil {
		return protocolError("%w", err)
	}
	if n.Report != nil {
		n.Report.Model, n.Report.Device = printable.Text(n.Report.Model), printable.Text(n.Report.Device)
		n.Report.Problem, n.Report.Variant = printable.Text(n.Report.Problem), printable.Text(n.Report.Variant)
		report(*n.Report)
		return nil
	}
	if n.Stats != nil {
		return c.told(n.Stats)
	}
	if n.Beat != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.beat, c.due = *n.Beat, false
		c.beats++
		return nil
	}
	c.frames.Add(1)
	if n.Text == nil && n.Done == nil && n.Fail == nil {
		return protocolError("a note that says nothing")
	}
	call := c.call(n.Call)
	switch {
	case call == nil:
	case n.Text != nil:
		call.add(n.Text)
	default:
		if n.Done != nil {
			c.answered.Store(true)
		}
		call.finish(&n)
	}
	return nil
}

// call returns the call of that number, nil after its Handle has returned.
func (c *Client) call(n uint64) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[n]
}

// end fails every call: the engine is gone.
func (c *Client) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	for _, call := range c.calls {
		call.finish(nil)
	}
	if c.asked != nil {
		close(c.asked.over)
	}
}

// A question is how the engine is. Whoever asks while one is open waits for its answer: an
// engine that is stopped, and is asked every second, is asked once.
type question struct {
	over   chan struct{}
	answer *Stats // once over; nil if the connection ended
}

// Stats asks the engine how it is. It fails with ErrClosed or ErrGone if nobody is there
// to answer, and with the cause of ctx if that ends first.
func (c *Client) Stats(ctx context.Context) (*Stats, error) {
	q, err := c.ask()
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

func (c *Client) ask() (*question, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.gone:
		return nil, ErrClosed
	case c.asked != nil:
		return c.asked, nil
	}
	c.send(order{Stats: true})
	c.asked = &question{over: make(chan struct{})}
	return c.asked, nil
}

// told takes the answer to the question.
func (c *Client) told(s *Stats) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked == nil {
		return protocolError("an answer to no question")
	}
	c.asked.answer = s
	close(c.asked.over)
	c.asked = nil
	return nil
}

// A Pulse is the engine's progress as the daemon's end of the link sees it.
type Pulse struct {
	Beat     Beat   // the last that came
	Beats    uint64 // received so far
	Frames   uint64 // received so far, without beats and stats
	Active   int    // calls that have neither ended nor paused: the engine owes them progress
	Answered bool   // a call has been answered to its end
}

// AskBeat asks the engine for a [Beat], unless one is outstanding. It does not block.
func (c *Client) AskBeat() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone || c.due {
		return
	}
	c.due = true
	c.send(order{Beat: true})
}

// Pulse returns the engine's progress.
func (c *Client) Pulse() Pulse {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := Pulse{Beat: c.beat, Beats: c.beats, Frames: c.frames.Load(), Answered: c.answered.Load()}
	c.idle.Store(true) // before the look, so that no call becomes active unnoticed
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

// Opened receives when a call becomes active after a [Client.Pulse] that saw none.
func (c *Client) Opened() <-chan struct{} { return c.opened }

// open says that a call has become active.
func (c *Client) open() {
	if c.idle.CompareAndSwap(true, false) {
		select {
		case c.opened <- struct{}{}:
		default:
		}
	}
}

// Handle sends req to the engine and passes its events on. It fails with ErrClosed
// if the engine had gone before, and with a [GoneError] if it goes before its answer has
// ended. What engines cannot do is refused by name.
//
// The engine pauses the call while req.Pause says so. Handle itself sets req.Pause.Stalled
// while the client does not take the text: when [infer.MaxUntaken] bytes wait, or the
// oldest has waited for [StallAfter], until all are taken.
func (c *Client) Handle(ctx context.Context, req *infer.Request, emit infer.Sink) error {
	call, err := c.start(req)
	if err != nil {
		return err
	}
	defer c.forget(call)
	o, err := orderOf(call.number, req)
	if err != nil {
		return err
	}
	msg, err := encode(o)
	if err != nil {
		return err
	}
	c.out.put(msg)
	// From here on nothing waits for the goroutine of the client, which may stand in emit.
	stopCancel := context.AfterFunc(ctx, call.cancel)
	defer stopCancel()
	stopPause := req.Pause.Preempted.OnChange(call.preempt)
	defer stopPause()
	call.watch()
	defer call.close()
	err = call.relay(ctx, emit)
	call.cancel()
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

func (c *Client) forget(call *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.calls, call.number)
}

// send sends an order that has no task: encoding such cannot fail.
func (c *Client) send(o order) {
	if msg, err := encode(o); err == nil {
		c.out.put(msg)
	}
}

// encode returns the frame of an order.
func encode(o order) ([]byte, error) {
	msg, err := json.Marshal(&o, json.FormatNilMapAsNull(true))
	if err != nil {
		return nil, infer.Errorf(infer.Internal, "encode request: %w", err)
	}
	return append(frame.AppendHead(make([]byte, 0, len(msg)+8), frame.JSON, len(msg)), msg...), nil
}

// An outbox holds what is to be written, so that an engine that does not read
// cannot block a call past its context. It is bounded by what has been admitted.
type outbox struct {
	wake chan struct{} // has room for one

	mu     sync.Mutex // guards the fields below
	frames net.Buffers
	closed bool
}

func (o *outbox) put(f []byte) {
	o.mu.Lock()
	o.frames = append(o.frames, f)
	o.mu.Unlock()
	o.signal()
}

func (o *outbox) close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.signal()
}

func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// writeTo writes until the box is closed or the connection fails; the reader of
// the connection sees that as well and ends the link.
func (o *outbox) writeTo(conn net.Conn) {
	for range o.wake {
		o.mu.Lock()
		frames, closed := o.frames, o.closed
		o.frames = nil
		o.mu.Unlock()
		if closed {
			return
		}
		if _, err := frames.WriteTo(conn); err != nil {
			_ = conn.Close()
			return
		}
	}
}
