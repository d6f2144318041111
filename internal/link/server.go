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
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/client/stats"
	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
)

// A Server is the engine's end of a link.
type Server struct {
	Conn net.Conn
	// Handler answers the calls, each in its own goroutine.
	Handler infer.Handler
	// Deferred keeps events in a buffer until Flush is called, so a step that decodes one token of
	// each of several sequences costs one write and wakes the daemon once. The end of a call is
	// always written at once.
	Deferred bool
	// Stats returns the engine's statistics. It may be called from any goroutine, and must not wait
	// for a computing loop. If it is nil, zeros are sent.
	Stats func() stats.Engine
	// Beat returns the engine's progress. The rules of Stats hold for it, too.
	Beat func() Beat

	mu  sync.Mutex // guards the fields below, and writing to Conn
	buf []byte     // frames not yet written
	err error      // of the first write that failed
}

// Report sends r to the daemon at once.
func (s *Server) Report(r Report) error {
	return s.put(response{Report: &r}, true)
}

// Flush writes the buffered events, if any.
func (s *Server) Flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flushLocked()
}

// Serve answers calls until the connection or ctx ends. Then it cancels the running calls and waits
// for them. It returns an error only if the daemon violated the protocol or the connection failed.
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
		req, err := readRequest(r)
		switch {
		case errors.Is(err, io.EOF), ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case req.Stats:
			answers.Go(s.sendStats)
		case req.Beat:
			answers.Go(s.sendBeat)
		case req.Cancel:
			calls.cancel(req.Call)
		case req.Pause, req.Resume:
			calls.pause(req.Call, req.Pause)
		case req.task() == nil:
			return protocolError("an empty request")
		default:
			work := &infer.Request{
				ID: strconv.FormatUint(req.Call, 10), Task: req.task(), Deadline: req.Deadline,
				Peer: infer.Peer{User: req.User, Key: req.Key}, CacheSalt: req.Salt,
			}
			ctx, done := calls.begin(ctx, req.Call, &work.Pause)
			answers.Go(func() {
				defer done()
				s.answer(ctx, req.Call, work)
			})
		}
	}
}

// readRequest reads the next message, and the attachments after it.
func readRequest(r frame.Reader) (*request, error) {
	kind, msg, err := r.ReadFrame()
	switch {
	case err != nil:
		return nil, err
	case kind != frame.JSON:
		return nil, protocolError("a blob instead of a request")
	}
	var req request
	if err := json.Unmarshal(msg, &req, decodeOptions); err != nil {
		return nil, protocolError("%w", err)
	}
	if req.Generate == nil {
		return &req, nil
	}
	if err := attach(req.Generate, r); err != nil {
		if errors.Is(err, io.EOF) {
			err = protocolError("the end of the stream instead of attachments")
		}
		return nil, err
	}
	return &req, nil
}

// answer runs one call. It returns no error, because a write that fails closes the connection, which
// ends Serve.
func (s *Server) answer(ctx context.Context, call uint64, req *infer.Request) {
	end := response{Call: call}
	err := s.Handler.Handle(ctx, req, func(ev infer.Event) error {
		switch ev := ev.(type) {
		case *infer.Admitted: // emitted by the daemon's gate only
		case *infer.Prompt:
			return s.put(response{Call: call, Prompt: ev}, !s.Deferred)
		case *infer.Text:
			if len(ev.Logprobs) > 0 {
				return s.put(response{Call: call, Text: ev}, !s.Deferred)
			}
			return s.blob(textBlob, call, ev.Delta, ev.Tokens, ev.Cost)
		case *infer.Thinking:
			return s.blob(thinkingBlob, call, ev.Delta, ev.Tokens, ev.Cost)
		case *infer.ToolCall:
			if !jsontext.Value(ev.Input).IsValid() {
				return infer.Errorf(infer.Malformed, "the input of a tool call is not JSON")
			}
			return s.put(response{Call: call, ToolCall: ev}, !s.Deferred)
		case *infer.Vectors:
			end.Vectors = ev
		case *infer.Scores:
			end.Scores = ev
		case *infer.Done:
			end.Done = doneOf(ev)
		}
		return nil
	})
	switch {
	case err != nil:
		end = response{Call: call, Fail: failureOf(err)}
	case end.Done == nil:
		end = response{Call: call, Fail: &wireFailure{Code: infer.Internal, Text: "the engine ended without an answer"}}
	}
	_ = s.put(end, true)
}

func (s *Server) sendStats() {
	var now stats.Engine
	if s.Stats != nil {
		now = s.Stats()
	}
	_ = s.put(response{Stats: &now}, true) // a write that fails ends Serve
}

func (s *Server) sendBeat() {
	var now Beat
	if s.Beat != nil {
		now = s.Beat()
	}
	_ = s.put(response{Beat: &now}, true) // a write that fails ends Serve
}

// blob sends text or thinking.
func (s *Server) blob(kind byte, call uint64, delta []byte, tokens, cost int) error {
	var head [1 + 3*binary.MaxVarintLen64]byte
	head[0] = kind
	n := 1 + binary.PutUvarint(head[1:], call)
	n += binary.PutUvarint(head[n:], uint64(max(tokens, 0)))
	n += binary.PutUvarint(head[n:], uint64(max(cost, 0)))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf = frame.AppendHead(s.buf, frame.Blob, n+len(delta))
	s.buf = append(append(s.buf, head[:n]...), delta...)
	if s.Deferred {
		return s.err
	}
	return s.flushLocked()
}

// put appends a message to the buffer. If now is set, it also writes the buffer to the connection.
func (s *Server) put(r response, now bool) error {
	msg, err := json.Marshal(&r, encodeOptions)
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

// A callTable finds the running calls by their numbers.
type callTable struct {
	mu      sync.Mutex // guards running
	running map[uint64]running
}

type running struct {
	cancel context.CancelFunc
	pause  *infer.Pause
}

// begin adds a call. It returns the context of the call, and a function that ends the context and
// removes the call.
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

// cancel cancels a call if it is still running.
func (t *callTable) cancel(call uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r, ok := t.running[call]; ok {
		r.cancel()
	}
}

// pause pauses or resumes a call if it is still running. The daemon has merged the two reasons for
// a pause, so one switch is used for both.
func (t *callTable) pause(call uint64, on bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r, ok := t.running[call]; ok {
		r.pause.Preempted.Set(on)
	}
}
