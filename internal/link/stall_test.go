package link_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/link"
)

// A writer is an engine that emits a token of size bytes each millisecond, and obeys pauses.
type writer struct {
	size   int
	piece  func(token []byte) infer.Event // makes the event of a token; nil makes text
	paused atomic.Bool
	tokens atomic.Int64
	ended  atomic.Bool
}

func (w *writer) Handle(ctx context.Context, req *infer.Request, emit infer.Sink) error {
	defer w.ended.Store(true)
	stop := req.Pause.Preempted.OnChange(w.paused.Store)
	defer stop()
	token := []byte(strings.Repeat("x", w.size))
	most := req.Task.(*infer.Generate).MaxTokens
	for int(w.tokens.Load()) < most {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if w.paused.Load() {
			continue
		}
		w.tokens.Add(1)
		if err := emit(w.event(token)); err != nil {
			return err
		}
	}
	return emit(&infer.Done{Out: most})
}

func (w *writer) event(token []byte) infer.Event {
	if w.piece != nil {
		return w.piece(token)
	}
	return &infer.Text{Delta: token, Tokens: 1, Cost: 2}
}

// A reader is a client that takes one event for each value that is sent on take.
type reader struct {
	take         chan struct{}
	tokens, cost atomic.Int64
}

func (r *reader) emit(ev infer.Event) error {
	var tokens, cost int
	switch ev := ev.(type) {
	case *infer.Text:
		tokens, cost = ev.Tokens, ev.Cost
	case *infer.Thinking:
		tokens, cost = ev.Tokens, ev.Cost
	case *infer.ToolCall:
		tokens, cost = ev.Tokens, ev.Cost
	default:
		return nil
	}
	<-r.take
	r.tokens.Add(int64(tokens))
	r.cost.Add(int64(cost))
	return nil
}

// A scene is one call from a reader to a writer, in a synctest bubble.
type scene struct {
	writer
	reader
	t       *testing.T
	client  *link.Client
	req     *infer.Request
	cancel  context.CancelCauseFunc
	stalled atomic.Bool
	err     error
	call    sync.WaitGroup
}

func play(t *testing.T, size, tokens int, act func(s *scene)) {
	t.Helper()
	playPieces(t, nil, size, tokens, act)
}

// playPieces is play with another kind of event than text: piece makes the event of a token.
func playPieces(t *testing.T, piece func(token []byte) infer.Event, size, tokens int, act func(s *scene)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &scene{t: t, writer: writer{size: size, piece: piece}, reader: reader{take: make(chan struct{})}}
		s.client = join(t, &link.Server{Handler: &s.writer})
		s.req = &infer.Request{Task: &infer.Generate{Messages: []infer.Message{infer.TextMessage(infer.User, "a")}, MaxTokens: tokens}}
		stop := s.req.Pause.Stalled.OnChange(s.stalled.Store)
		defer stop()
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		s.cancel = cancel
		s.call.Go(func() { s.err = s.client.Handle(ctx, s.req, s.emit) })
		act(s)
	})
}

// after sleeps for d, and then waits until all goroutines are blocked.
func (s *scene) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// Pause, resume and cancel reach the engine while the client's write is blocked.
func TestOrdersPassABlockedWrite(t *testing.T) {
	play(t, 1, 1_000_000, func(s *scene) {
		s.after(100 * time.Millisecond)
		if s.paused.Load() || s.tokens() == 0 {
			s.t.Fatal("it does not write")
		}
		for _, on := range []bool{true, false, true} {
			s.req.Pause.Preempted.Set(on)
			s.after(time.Millisecond)
			if s.paused.Load() != on {
				s.t.Errorf("paused is %v, want %v", !on, on)
			}
		}
		s.cancel(errors.New("hung up"))
		s.after(time.Millisecond)
		if !s.ended.Load() {
			s.t.Error("the engine goes on")
		}
		s.after(time.Millisecond) // the engine has answered the cancel before the client reads
		close(s.take)
		s.call.Wait()
		if s.err == nil || s.err.Error() != "hung up" {
			s.t.Errorf("it ended with %v", s.err)
		}
	})
}

func (s *scene) tokens() int64 { return s.writer.tokens.Load() }

// thought returns a token as an event of thinking.
func thought(token []byte) infer.Event {
	return &infer.Thinking{Delta: token, Tokens: 1, Cost: 2}
}

// A call stalls when its client takes no event for a second, or when too many bytes wait. It
// resumes once all events are taken, and no event is lost.
func TestStall(t *testing.T) {
	for name, test := range map[string]struct {
		piece  func(token []byte) infer.Event
		size   int
		before time.Duration // time during which the call does not stall
		stalls time.Duration // further time after which the call has stalled
	}{
		"text untaken for long":     {nil, 1, link.StallAfter - 50*time.Millisecond, 100 * time.Millisecond},
		"much text untaken":         {nil, infer.MaxUntaken / 64, 50 * time.Millisecond, 20 * time.Millisecond},
		"thinking untaken for long": {thought, 1, link.StallAfter - 50*time.Millisecond, 100 * time.Millisecond},
		"much thinking untaken":     {thought, infer.MaxUntaken / 64, 50 * time.Millisecond, 20 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			const tokens = 3000
			playPieces(t, test.piece, test.size, tokens, func(s *scene) {
				s.after(test.before)
				if s.stalled.Load() || s.paused.Load() {
					s.t.Error("it stalls too soon")
				}
				s.after(test.stalls)
				if !s.stalled.Load() || !s.paused.Load() {
					s.t.Fatal("it does not stall")
				}
				written := s.tokens()
				s.after(time.Minute)
				if now := s.tokens(); now > written {
					s.t.Errorf("%d tokens more", now-written)
				}
				if p := s.client.Pulse(); p.Active != 0 {
					s.t.Errorf("%d calls count as active", p.Active)
				}
				s.take <- struct{}{} // a second piece is still waiting
				s.after(0)
				if !s.stalled.Load() {
					s.t.Error("one piece was enough")
				}
				s.take <- struct{}{}
				s.after(10 * time.Millisecond)
				if s.stalled.Load() || s.paused.Load() || s.tokens() == written {
					s.t.Error("it does not flow again")
				}
				select {
				case <-s.client.Opened():
				default:
					s.t.Error("that a call became active was not said")
				}
				close(s.take)
				s.call.Wait()
				if s.err != nil || s.reader.tokens.Load() != tokens || s.cost.Load() != 2*tokens {
					s.t.Errorf("%d tokens of cost %d came, %v", s.reader.tokens.Load(), s.cost.Load(), s.err)
				}
			})
		})
	}
}

// Untaken tool calls also stall a call. Unlike text, tool calls are not joined: the client takes each
// separately.
func TestStallOfToolCalls(t *testing.T) {
	const tokens = 70
	call := func(token []byte) infer.Event {
		return &infer.ToolCall{Input: append(append([]byte{'"'}, token...), '"'), Tokens: 1, Cost: 2}
	}
	playPieces(t, call, infer.MaxUntaken/64, tokens, func(s *scene) {
		s.after(100 * time.Millisecond)
		if !s.stalled.Load() || !s.paused.Load() || s.tokens() >= tokens {
			s.t.Fatal("it does not stall")
		}
		close(s.take)
		s.call.Wait()
		if s.err != nil || s.reader.tokens.Load() != tokens || s.cost.Load() != 2*tokens || s.stalled.Load() {
			s.t.Errorf("%d tokens of cost %d came, stalled %v, %v", s.reader.tokens.Load(), s.cost.Load(), s.stalled.Load(), s.err)
		}
	})
}

// A call that is both stalled and preempted resumes only when both reasons have ended, in either
// order.
func TestTwoReasons(t *testing.T) {
	for _, clientFirst := range []bool{true, false} {
		play(t, 1, 1_000_000, func(s *scene) {
			s.after(2 * link.StallAfter)
			s.req.Pause.Preempted.Set(true)
			read := func() {
				s.take <- struct{}{}
				s.take <- struct{}{}
			}
			resume := func() { s.req.Pause.Preempted.Set(false) }
			first, second := resume, read
			if clientFirst {
				first, second = read, resume
			}
			first()
			s.after(10 * time.Millisecond)
			if !s.paused.Load() {
				s.t.Error("one reason less, and it resumes")
			}
			second()
			s.after(10 * time.Millisecond)
			if s.paused.Load() {
				s.t.Error("it does not resume")
			}
			s.cancel(nil)
			close(s.take)
			s.call.Wait()
		})
	}
}

// If its client does not read, a call can stall even after the end of its answer. That frees its
// slot.
func TestStallAfterTheEnd(t *testing.T) {
	play(t, 1, 10, func(s *scene) {
		s.after(2 * link.StallAfter)
		if !s.ended.Load() || !s.stalled.Load() {
			s.t.Errorf("ended %v, stalled %v", s.ended.Load(), s.stalled.Load())
		}
		close(s.take)
		s.call.Wait()
		if s.err != nil || s.stalled.Load() {
			s.t.Errorf("stalled %v, %v", s.stalled.Load(), s.err)
		}
	})
}

// At most one query for a beat is open at a time, and Pulse returns the engine's answer.
func TestBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := make(chan struct{})
		srv := &link.Server{
			Handler: infer.HandlerFunc(words),
			Beat: func() link.Beat {
				<-answer
				return link.Beat{Steps: 7, Phase: "decode", SinceMS: 30, Calls: []uint64{3}, StepCPUMS: 9}
			},
		}
		client := join(t, srv)
		for range 3 {
			client.AskBeat()
		}
		synctest.Wait()
		if p := client.Pulse(); p.Beats != 0 {
			t.Errorf("%d beats", p.Beats)
		}
		close(answer)
		synctest.Wait()
		p := client.Pulse()
		if p.Beats != 1 || p.Beat.Steps != 7 || p.Beat.Phase != "decode" || len(p.Beat.Calls) != 1 || p.Frames != 0 || p.Answered {
			t.Errorf("%+v", p)
		}
		if _, err := collect(t.Context(), client, ask("a b")); err != nil {
			t.Error(err)
		}
		client.AskBeat()
		synctest.Wait()
		if p := client.Pulse(); p.Beats != 2 || p.Frames != 3 || !p.Answered {
			t.Errorf("%+v", p)
		}
	})
}
