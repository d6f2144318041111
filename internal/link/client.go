package link

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"net"
	"sync"

	"github.com/go-json-experiment/json"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
)

var (
	// ErrClosed is what a call fails with when the connection had ended before it was
	// sent: the engine has seen nothing of it.
	ErrClosed = errors.New("the link is closed")
	// ErrGone is what a call fails with when the connection ended before its answer.
	ErrGone = errors.New("the engine is gone")
)

// A Client is the daemon's end of a link. [Client.Run] must be running for calls
// to be answered.
type Client struct {
	conn net.Conn

	mu    sync.Mutex // guards the fields below
	calls map[uint64]*call
	last  uint64
	asked *question // that the engine has not answered
	gone  bool

	out outbox
}

var _ infer.Handler = (*Client)(nil)

// NewClient returns the daemon's end of the link over conn. Run closes conn.
func NewClient(conn net.Conn) *Client {
	return &Client{conn: conn, calls: make(map[uint64]*call), out: outbox{wake: make(chan struct{}, 1)}}
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
			n, size := binary.Uvarint(msg)
			tokens, more := binary.Uvarint(msg[max(size, 0):])
			if size <= 0 || more <= 0 || tokens > math.MaxInt32 {
				return protocolError("text without a call, or without tokens")
			}
			if call := c.call(n); call != nil {
				call.add(&infer.Text{Delta: msg[size+more:], Tokens: int(tokens)})
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
		report(*n.Report)
		return nil
	}
	if n.Stats != nil {
		return c.told(n.Stats)
	}
	if n.Text == nil && n.Done == nil && n.Fail == nil {
		return protocolError("a note that says nothing")
	}
	call := c.call(n.Call)
	switch {
	case call == nil:
	case n.Text != nil:
		call.add(n.Text)
	default:
		call.finish(&n)
	}
	return nil
}

// call returns the call of that number, nil once nobody waits for it any more.
func (c *Client) call(n uint64) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[n]
}

// end fails every call: there is nobody left to answer them.
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
	if err := c.send(order{Stats: true}); err != nil {
		return nil, err
	}
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

// Handle sends req to the engine and passes its events on. It fails with ErrClosed
// if the engine had gone before, and with ErrGone if it goes before its answer has
// ended. What engines cannot do is refused by name.
func (c *Client) Handle(ctx context.Context, req *infer.Request, emit infer.Sink) error {
	call, err := c.start()
	if err != nil {
		return err
	}
	defer c.forget(call)
	o, err := orderOf(call.number, req)
	if err != nil {
		return err
	}
	if err := c.send(o); err != nil {
		return err
	}
	err = c.relay(ctx, call, req.Hold, emit)
	if !call.ended() {
		_ = c.send(order{Call: call.number, Cancel: true}) // encoding this cannot fail
	}
	return err
}

func (c *Client) start() (*call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return nil, ErrClosed
	}
	c.last++
	call := &call{number: c.last, wake: make(chan struct{}, 1)}
	c.calls[call.number] = call
	return call, nil
}

func (c *Client) forget(call *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.calls, call.number)
}

func (c *Client) send(o order) error {
	msg, err := json.Marshal(&o, json.FormatNilMapAsNull(true))
	if err != nil {
		return infer.Errorf(infer.Internal, "encode request: %w", err)
	}
	c.out.put(append(frame.AppendHead(make([]byte, 0, len(msg)+8), frame.JSON, len(msg)), msg...))
	return nil
}

// A call is one request on its way. Between the reader of the connection and the
// goroutine that answers the client stands a buffer that joins adjacent text, so
// that a client that reads slowly holds up nobody else. What it can grow to is
// bounded by the request: MaxTokens.
type call struct {
	number uint64
	wake   chan struct{} // has room for one: something below has changed

	mu   sync.Mutex // guards the fields below
	text infer.Text // arrived, not yet taken
	over bool
	last *note // how it ended; nil if the connection did
}

// add joins ev to what has arrived. Its bytes are copied, its logprobs kept.
func (c *call) add(ev *infer.Text) {
	c.mu.Lock()
	c.text.Delta = append(c.text.Delta, ev.Delta...)
	c.text.Tokens += ev.Tokens
	c.text.Logprobs = append(c.text.Logprobs, ev.Logprobs...)
	c.mu.Unlock()
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

func (c *call) ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.over
}

func (c *call) signal() {
	select {
	case c.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// relay passes on what arrives, and what becomes of hold, until the call ends, ctx does, or
// emit fails.
func (c *Client) relay(ctx context.Context, call *call, hold *infer.Hold, emit infer.Sink) error {
	var (
		ev    infer.Text
		spare []byte // the buffer that is not call.text's
		told  bool   // whether the engine holds the call
	)
	held, changed := hold.Watch()
	for {
		if held != told {
			told = held
			if err := c.send(order{Call: call.number, Hold: held, GoOn: !held}); err != nil {
				return err
			}
		}
		select {
		case <-call.wake:
		case <-changed:
			held, changed = hold.Watch()
			continue
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		call.mu.Lock()
		over, last := call.over, call.last
		ev = call.text
		call.text, spare = infer.Text{Delta: spare[:0]}, ev.Delta
		call.mu.Unlock()

		if len(ev.Delta) > 0 {
			if err := emit(&ev); err != nil {
				return err
			}
		}
		switch {
		case !over:
		case last == nil:
			return ErrGone
		case last.Fail != nil:
			return last.Fail.err()
		default:
			return last.emit(emit)
		}
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
