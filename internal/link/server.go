package link

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"

	"github.com/go-json-experiment/json"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
)

// A Server is the engine's end of a link.
type Server struct {
	Conn net.Conn
	// Handler answers the calls, each in a goroutine of its own.
	Handler infer.Handler
	// Deferred keeps text in a buffer until Flush is called, so that a step that
	// wrote a token for several sequences costs one write and wakes the daemon
	// once. The end of a call is always written at once.
	Deferred bool
	// Stats says how the engine is. It is called from any goroutine, and must not wait for
	// what computes. May be nil, which says nothing of it.
	Stats func() Stats
	// Beat says how far the engine has come, under the same rules.
	Beat func() Beat

	mu  sync.Mutex // guards the fields below, and writing to Conn
	buf []byte     // frames not yet written
	err error      // of the first write that failed
}

// Report tells the daemon how far the engine is.
func (s *Server) Report(r Report) error {
	return s.write(note{Report: &r})
}

// Flush writes the text that is waiting, if any.
func (s *Server) Flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flushLocked()
}

// Serve answers calls until the connection ends or ctx does. It cancels what is
// still running then, and waits for it.
func (s *Server) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var answers sync.WaitGroup
	defer answers.Wait()
	defer cancel(ErrGone)
	stop := context.AfterFunc(ctx, func() { _ = s.Conn.Close() })
	defer stop()

	calls := callTable{running: make(map[uint64]running)}
	r := frame.Prefixed.NewReader(s.Conn, limit)
	for {
		kind, msg, err := r.ReadFrame()
		switch {
		case errors.Is(err, io.EOF), ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case kind != frame.JSON:
			return protocolError("a blob where an order belongs")
		}
		var o order
		if err := json.Unmarshal(msg, &o); err != nil {
			return protocolError("%w", err)
		}
		switch {
		case o.Stats:
			answers.Go(s.tell)
		case o.Beat:
			answers.Go(s.beat)
		case o.Cancel:
			calls.end(o.Call)
		case o.Pause, o.Resume:
			calls.pause(o.Call, o.Pause)
		case o.task() == nil:
			return protocolError("an order for nothing")
		default:
			req := &infer.Request{
				ID: strconv.FormatUint(o.Call, 10), Task: o.task(), Peer: infer.Peer{User: o.User}, Deadline: o.Deadline,
			}
			ctx, done := calls.begin(ctx, o.Call, &req.Pause)
			answers.Go(func() {
				defer done()
				s.answer(ctx, o.Call, req)
			})
		}
	}
}

// answer runs one call. A write that fails ends the connection, which Serve
// notices; so there is nothing to return.
func (s *Server) answer(ctx context.Context, call uint64, req *infer.Request) {
	n := note{Call: call}
	err := s.Handler.Handle(ctx, req, func(ev infer.Event) error {
		switch ev := ev.(type) {
		case *infer.Text:
			return s.text(call, ev)
		case *infer.Vectors:
			n.Vectors = ev
		case *infer.Scores:
			n.Scores = ev
		case *infer.Done:
			n.Done = doneOf(ev)
		case *infer.Thinking, *infer.ToolCall:
			return protocolError("no word for a %T", ev)
		}
		return nil
	})
	switch {
	case err != nil:
		n = note{Call: call, Fail: &failure{Code: infer.CodeOf(err), Text: err.Error()}}
	case n.Done == nil:
		n = note{Call: call, Fail: &failure{Code: infer.Internal, Text: "the engine ended without an answer"}}
	}
	_ = s.write(n)
}

// tell says how the engine is.
func (s *Server) tell() {
	var now Stats
	if s.Stats != nil {
		now = s.Stats()
	}
	_ = s.write(note{Stats: &now}) // as in answer
}

// beat says how far the engine has come.
func (s *Server) beat() {
	var now Beat
	if s.Beat != nil {
		now = s.Beat()
	}
	_ = s.write(note{Beat: &now}) // as in answer
}

func (s *Server) text(call uint64, ev *infer.Text) error {
	if len(ev.Logprobs) > 0 {
		return s.put(note{Call: call, Text: ev}, !s.Deferred)
	}
	var numbers [3 * binary.MaxVarintLen64]byte
	head := binary.PutUvarint(numbers[:], call)
	head += binary.PutUvarint(numbers[head:], uint64(max(ev.Tokens, 0)))
	head += binary.PutUvarint(numbers[head:], uint64(max(ev.Cost, 0)))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf = frame.AppendHead(s.buf, frame.Blob, head+len(ev.Delta))
	s.buf = append(append(s.buf, numbers[:head]...), ev.Delta...)
	if s.Deferred {
		return s.err
	}
	return s.flushLocked()
}

// write sends a note at once.
func (s *Server) write(n note) error { return s.put(n, true) }

// put appends a note to what is waiting, and sends all of it if that is to be now.
func (s *Server) put(n note, now bool) error {
	msg, err := json.Marshal(&n)
	if err != nil {
		return protocolError("%w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf = append(frame.AppendHead(s.buf, frame.JSON, len(msg)), msg...)
	if !now {
		return s.err
	}
	return s.flushLocked()
}

func (s *Server) flushLocked() error {
	if len(s.buf) > 0 && s.err == nil {
		if _, s.err = s.Conn.Write(s.buf); s.err != nil {
			_ = s.Conn.Close()
		}
	}
	s.buf = s.buf[:0]
	return s.err
}

// callTable finds the calls that run by their numbers.
type callTable struct {
	mu      sync.Mutex // guards running
	running map[uint64]running
}

type running struct {
	cancel context.CancelFunc
	pause  *infer.Pause
}

// begin enters a call and returns its context, and the function that takes it out again.
func (t *callTable) begin(ctx context.Context, call uint64, pause *infer.Pause) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running[call] = running{cancel, pause}
	return ctx, func() {
		cancel()
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.running, call)
	}
}

// end cancels a call, if it is still running.
func (t *callTable) end(call uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r, ok := t.running[call]; ok {
		r.cancel()
	}
}

// pause pauses or resumes a call, if it is still running. The daemon has merged the
// reasons; here one switch stands for both.
func (t *callTable) pause(call uint64, on bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r, ok := t.running[call]; ok {
		r.pause.Preempted.Set(on)
	}
}
