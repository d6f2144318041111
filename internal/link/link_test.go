package link_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/inferd-go/inferd/client/stats"
	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/link"
)

// join connects a client to srv until the test ends.
func join(tb testing.TB, srv *link.Server) *link.Client {
	tb.Helper()
	near, far := net.Pipe()
	srv.Conn = far
	client := link.NewClient(near)
	var running sync.WaitGroup
	running.Go(func() {
		if err := client.Run(func(link.Report) {}); err != nil {
			tb.Errorf("client: %v", err)
		}
	})
	running.Go(func() {
		if err := srv.Serve(context.Background()); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			tb.Errorf("server: %v", err)
		}
	})
	tb.Cleanup(func() {
		client.Close()
		running.Wait()
	})
	return client
}

// words is a handler that answers with the words of the last message.
func words(_ context.Context, req *infer.Request, emit infer.Sink) error {
	gen := req.Task.(*infer.Generate)
	n := 0
	for word := range strings.FieldsSeq(gen.Messages[len(gen.Messages)-1].Text()) {
		if err := emit(&infer.Text{Delta: []byte(word)}); err != nil {
			return err
		}
		n++
	}
	return emit(&infer.Done{Reason: infer.Length, In: gen.MaxTokens, Out: n, Backend: "words"})
}

func ask(text string) *infer.Request {
	return &infer.Request{Task: &infer.Generate{
		Messages: []infer.Message{infer.TextMessage(infer.User, text)}, MaxTokens: 7,
	}}
}

// collect sends req to h and returns the answer as one line.
func collect(ctx context.Context, h infer.Handler, req *infer.Request) (string, error) {
	var b strings.Builder
	err := h.Handle(ctx, req, func(ev infer.Event) error {
		switch ev := ev.(type) {
		case *infer.Text:
			b.Write(ev.Delta)
		case *infer.Done:
			fmt.Fprintf(&b, " [%s %d %d %s]", ev.Reason, ev.In, ev.Out, ev.Backend)
		}
		return nil
	})
	return b.String(), err
}

func TestAnswer(t *testing.T) {
	client := join(t, &link.Server{Handler: infer.HandlerFunc(words)})
	got, err := collect(t.Context(), client, ask("a bc d"))
	if want := "abcd [length 7 3 words]"; got != want || err != nil {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func TestManyCallsAtOnce(t *testing.T) {
	client := join(t, &link.Server{Handler: infer.HandlerFunc(words)})
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			word := fmt.Sprintf("<%d>", i)
			got, err := collect(t.Context(), client, ask(strings.Repeat(word+" ", 100)))
			if want := strings.Repeat(word, 100) + " [length 7 100 words]"; got != want || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	all.Wait()
}

// A PromptError crosses the link with its numbers, as the cause of an error of the same class.
func TestPromptDoesNotFit(t *testing.T) {
	want := infer.PromptError{Tokens: 12, AtLeast: true, Most: 10}
	client := join(t, &link.Server{Handler: infer.HandlerFunc(func(context.Context, *infer.Request, infer.Sink) error {
		return infer.Errorf(infer.Invalid, "refused: %w", &want)
	})})
	_, err := collect(t.Context(), client, ask("x"))
	got, ok := errors.AsType[*infer.PromptError](err)
	if !ok || *got != want || infer.CodeOf(err) != infer.Invalid {
		t.Errorf("got %v", err)
	}
}

// The user, the key and the salt cross the link, because retained KV is never shared across them.
func TestOwner(t *testing.T) {
	want := infer.Request{Peer: infer.Peer{User: "1000", Key: "ci"}, CacheSalt: "pepper"}
	client := join(t, &link.Server{Handler: infer.HandlerFunc(func(_ context.Context, req *infer.Request, emit infer.Sink) error {
		if req.Peer != want.Peer || req.CachePart() != want.CachePart() {
			return infer.Errorf(infer.Internal, "asked by %+v, part %q", req.Peer, req.CachePart())
		}
		return emit(&infer.Done{})
	})})
	req := ask("x")
	req.Peer, req.CacheSalt = want.Peer, want.CacheSalt
	req.Peer.Exe, req.Peer.Program = "/bin/x", "x" // an engine has no use for them
	if _, err := collect(t.Context(), client, req); err != nil {
		t.Error(err)
	}
}

// The user, the deadline and the number of tokens of a text cross the link, and so do a pause and
// its end.
func TestPauseAndTokens(t *testing.T) {
	deadline := time.Now().Add(time.Hour)
	states := make(chan bool, 2)
	client := join(t, &link.Server{Handler: infer.HandlerFunc(func(ctx context.Context, req *infer.Request, emit infer.Sink) error {
		if req.Peer.User != "1000" || !req.Deadline.Equal(deadline) {
			return infer.Errorf(infer.Internal, "asked by %q, until %v", req.Peer.User, req.Deadline)
		}
		changed := make(chan bool, 3)
		defer req.Pause.Preempted.OnChange(func(on bool) { changed <- on })()
		held := <-changed // the state at the start of the call
		if err := emit(&infer.Text{Delta: []byte("x"), Tokens: 3}); err != nil {
			return err
		}
		for range 2 {
			select {
			case held = <-changed:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			states <- held
		}
		if held {
			return infer.Errorf(infer.Internal, "it is still held")
		}
		return emit(&infer.Done{In: 9, Cached: 4, Unsatisfied: true})
	})})
	req := ask("x")
	req.Peer.User, req.Deadline = "1000", deadline
	tokens := 0
	var done infer.Done
	err := client.Handle(t.Context(), req, func(ev infer.Event) error {
		switch ev := ev.(type) {
		case *infer.Text:
			tokens += ev.Tokens
			req.Pause.Preempted.Set(true)
			go func() {
				if held := <-states; !held {
					t.Error("it was not held")
				}
				req.Pause.Preempted.Set(false)
			}()
		case *infer.Done:
			done = *ev
		}
		return nil
	})
	if want := (infer.Done{In: 9, Cached: 4, Unsatisfied: true}); err != nil || tokens != 3 || done != want {
		t.Errorf("%d tokens, %+v, %v", tokens, done, err)
	}
}

func TestDeferredTextComesWithTheFlushOrTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &link.Server{Deferred: true}
		srv.Handler = infer.HandlerFunc(func(_ context.Context, _ *infer.Request, emit infer.Sink) error {
			_ = emit(&infer.Text{Delta: []byte("a")})
			time.Sleep(time.Second)
			_ = emit(&infer.Text{Delta: []byte("b")})
			_ = srv.Flush()
			time.Sleep(time.Second)
			_ = emit(&infer.Text{Delta: []byte("c")})
			return emit(&infer.Done{})
		})
		client := join(t, srv)
		begin := time.Now()
		var got []string
		err := client.Handle(t.Context(), ask("x"), func(ev infer.Event) error {
			if text, ok := ev.(*infer.Text); ok {
				got = append(got, fmt.Sprintf("%s@%s", text.Delta, time.Since(begin)))
			}
			return nil
		})
		if want := "[ab@1s c@2s]"; fmt.Sprint(got) != want || err != nil {
			t.Errorf("got %v, %v; want %s", got, err, want)
		}
	})
}

// Text with and without logprobs arrives in order, however it is joined on the way, and no logprob
// is lost or doubled.
func TestLogprobs(t *testing.T) {
	one := func(i int) infer.Logprob {
		c := infer.Candidate{ID: i, Piece: []byte{byte(i), 0xff}, Logprob: -0.5 * float64(i)}
		return infer.Logprob{Candidate: c, Top: []infer.Candidate{c, {ID: 7}}}
	}
	const n = 200
	for _, deferred := range []bool{false, true} {
		srv := &link.Server{Deferred: deferred}
		srv.Handler = infer.HandlerFunc(func(_ context.Context, _ *infer.Request, emit infer.Sink) error {
			for i := range n {
				ev := &infer.Text{Delta: fmt.Appendf(nil, "%d,", i), Tokens: 1}
				if i%3 > 0 {
					ev.Logprobs = []infer.Logprob{one(2 * i), one(2*i + 1)}
				}
				if err := emit(ev); err != nil {
					return err
				}
				if i%7 == 0 {
					_ = srv.Flush()
				}
			}
			return emit(&infer.Done{})
		})
		client := join(t, srv)
		var text, wantText []byte
		var likely, want []infer.Logprob
		tokens := 0
		err := client.Handle(t.Context(), ask("x"), func(ev infer.Event) error {
			if ev, ok := ev.(*infer.Text); ok {
				text = append(text, ev.Delta...)
				likely = append(likely, ev.Logprobs...)
				tokens += ev.Tokens
			}
			return nil
		})
		for i := range n {
			wantText = fmt.Appendf(wantText, "%d,", i)
			if i%3 > 0 {
				want = append(want, one(2*i), one(2*i+1))
			}
		}
		if err != nil || string(text) != string(wantText) || tokens != n {
			t.Errorf("deferred %v: %d tokens, %q, %v", deferred, tokens, text, err)
		}
		if diff := cmp.Diff(want, likely, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("deferred %v: -want +got\n%s", deferred, diff)
		}
	}
}

func TestFailuresKeepTheirClass(t *testing.T) {
	client := join(t, &link.Server{Handler: infer.HandlerFunc(func(_ context.Context, req *infer.Request, _ infer.Sink) error {
		switch req.Task.(*infer.Generate).Messages[0].Text() {
		case "invalid":
			return infer.Errorf(infer.Invalid, "the prompt has 9 tokens")
		case "refused":
			return infer.Refusef("tools", "tools: too many")
		case "nothing":
			return nil
		default:
			return errors.New("boom")
		}
	})})
	for text, want := range map[string]struct {
		code   infer.Code
		text   string
		member string
	}{
		"invalid": {infer.Invalid, "the prompt has 9 tokens", ""},
		"refused": {infer.Invalid, "invalid request: tools: too many", "tools"},
		"nothing": {infer.Internal, "the engine ended without an answer", ""},
		"other":   {infer.Internal, "boom", ""},
	} {
		_, err := collect(t.Context(), client, ask(text))
		if infer.CodeOf(err) != want.code || err == nil || err.Error() != want.text {
			t.Errorf("%s: got %v (%s), want %q (%s)", text, err, infer.CodeOf(err), want.text, want.code)
		}
		if cause, ok := errors.AsType[*infer.FeatureError](err); ok != (want.member != "") || ok && cause.Member != want.member {
			t.Errorf("%s: the error is about %+v, want %q", text, cause, want.member)
		}
	}
}

// A call ends in the engine when its context ends, or when its client has gone.
func TestCancel(t *testing.T) {
	gone := errors.New("the client hung up")
	for name, test := range map[string]func(ctx context.Context, cancel context.CancelCauseFunc) infer.Sink{
		"the context ends": func(_ context.Context, cancel context.CancelCauseFunc) infer.Sink {
			return func(infer.Event) error { cancel(gone); return nil }
		},
		"the sink fails": func(context.Context, context.CancelCauseFunc) infer.Sink {
			return func(infer.Event) error { return gone }
		},
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan error, 1)
			client := join(t, &link.Server{Handler: infer.HandlerFunc(func(ctx context.Context, _ *infer.Request, emit infer.Sink) error {
				_ = emit(&infer.Text{Delta: []byte("a")})
				<-ctx.Done()
				ended <- ctx.Err()
				return ctx.Err()
			})})
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			if err := client.Handle(ctx, ask("x"), test(ctx, cancel)); !errors.Is(err, gone) {
				t.Errorf("Handle = %v, want %v", err, gone)
			}
			<-ended
		})
	}
}

// A cancelled count returns when the engine has ended it, or after 10 s if the engine does not
// answer. A count that was never sent returns at once.
func TestCanceledCountSettles(t *testing.T) {
	gone := errors.New("the client hung up")
	counts := &infer.Request{Task: &infer.Count{Of: &infer.Generate{}}}
	synctest.Test(t, func(t *testing.T) {
		const work = 3 * time.Second
		client := join(t, &link.Server{Handler: infer.HandlerFunc(func(ctx context.Context, _ *infer.Request, _ infer.Sink) error {
			<-ctx.Done()
			time.Sleep(work)
			return ctx.Err()
		})})
		begin := time.Now()
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(gone) })
		if err := client.Handle(ctx, counts, func(infer.Event) error { return nil }); !errors.Is(err, gone) || time.Since(begin) != time.Second+work {
			t.Errorf("Handle = %v after %s", err, time.Since(begin))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe() // nothing reads from far
		client := link.NewClient(near)
		var running sync.WaitGroup
		running.Go(func() { _ = client.Run(func(link.Report) {}) })
		for i, want := range []time.Duration{11 * time.Second, time.Second} { // written to the engine; still in the queue
			begin := time.Now()
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Second, func() { cancel(gone) })
			if err := client.Handle(ctx, counts, func(infer.Event) error { return nil }); !errors.Is(err, gone) || time.Since(begin) != want {
				t.Errorf("count %d: Handle = %v after %s", i, err, time.Since(begin))
			}
		}
		_ = far.Close()
		client.Close()
		running.Wait()
	})
}

func TestEngineDies(t *testing.T) {
	started := make(chan struct{})
	srv := &link.Server{Handler: infer.HandlerFunc(func(ctx context.Context, _ *infer.Request, _ infer.Sink) error {
		close(started)
		<-ctx.Done()
		return ctx.Err()
	})}
	client := join(t, srv)
	go func() {
		<-started
		_ = srv.Conn.Close()
	}()
	if _, err := collect(t.Context(), client, ask("x")); !errors.Is(err, link.ErrGone) {
		t.Errorf("in the middle: %v, want %v", err, link.ErrGone)
	}
	for { // until the client has noticed the end of the connection
		_, err := collect(t.Context(), client, ask("x"))
		if errors.Is(err, link.ErrClosed) {
			break
		}
		if !errors.Is(err, link.ErrGone) {
			t.Fatalf("afterwards: %v, want %v", err, link.ErrClosed)
		}
	}
}

// blob returns a frame with that payload.
func blob(kind frame.Kind, payload string) []byte {
	return append(frame.AppendHead(nil, kind, len(payload)), payload...)
}

// Each violation of the protocol by the engine ends Run with an error.
func TestProtocolFaultEndsTheLink(t *testing.T) {
	for name, bytes := range map[string][]byte{
		"not a frame":         {0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"not JSON":            blob(frame.JSON, "{"),
		"an empty message":    blob(frame.JSON, "{}"),
		"unasked statistics":  blob(frame.JSON, `{"Stats":{}}`),
		"a call without JSON": blob(frame.JSON, `{"ToolCall":{"Input":"eA=="}}`),
		"an empty blob":       blob(frame.Blob, ""),
		"an unknown kind":     blob(frame.Blob, "\x02\x01\x01\x01x"),
		"text without a call": blob(frame.Blob, "\x00"),
		"text of no tokens":   blob(frame.Blob, "\x00\x01"),
		"half a frame":        append(frame.AppendHead(nil, frame.Blob, 9), 'x'),
	} {
		t.Run(name, func(t *testing.T) {
			near, far := net.Pipe()
			client := link.NewClient(near)
			go func() {
				_, _ = far.Write(bytes)
				_ = far.Close()
			}()
			if err := client.Run(func(link.Report) {}); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestTextOfUnknownCallsIsDropped(t *testing.T) {
	near, far := net.Pipe()
	client := link.NewClient(near)
	var reports []link.Report
	go func() {
		_, _ = far.Write(blob(frame.Blob, "\x00\x63\x01\x01x")) // of call 99
		_, _ = far.Write(blob(frame.JSON, `{"Call":99,"ToolCall":{"Input":"e30="}}`))
		srv := &link.Server{Conn: far}
		_ = srv.Report(link.Report{State: link.Ready, Slots: 4})
		_ = far.Close()
	}()
	if err := client.Run(func(r link.Report) { reports = append(reports, r) }); err != nil {
		t.Error(err)
	}
	if len(reports) != 1 || reports[0].Slots != 4 {
		t.Errorf("reports %v", reports)
	}
}

// Texts of reports and failures, which an engine or its model may choose, arrive as one short line of
// printable characters.
func TestForeignTextIsCut(t *testing.T) {
	near, far := net.Pipe()
	client := link.NewClient(near)
	var got link.Report
	go func() {
		long := "\x1b[2J" + strings.Repeat("m\n", 1000)
		_ = (&link.Server{Conn: far}).Report(link.Report{State: link.Failed, Model: long, Device: long, Problem: long})
		_ = far.Close()
	}()
	if err := client.Run(func(r link.Report) { got = r }); err != nil {
		t.Error(err)
	}
	for name, text := range map[string]string{"model": got.Model, "device": got.Device, "problem": got.Problem} {
		if !strings.HasPrefix(text, "[2Jm m") || len(text) > 256 {
			t.Errorf("%s: %d bytes, %.20q", name, len(text), text)
		}
	}

	loud := join(t, &link.Server{Handler: infer.HandlerFunc(func(context.Context, *infer.Request, infer.Sink) error {
		return infer.Errorf(infer.Invalid, "bad\x07 %s", strings.Repeat("x", 1000))
	})})
	_, err := collect(t.Context(), loud, ask("a"))
	if infer.CodeOf(err) != infer.Invalid || !strings.HasPrefix(err.Error(), "bad  x") || len(err.Error()) > 256 {
		t.Errorf("a failure: %v", err)
	}
}

// An engine that does not read must not delay a cancel.
func TestStoppedEngineDoesNotHoldUpCancel(t *testing.T) {
	near, far := net.Pipe() // nothing reads from far
	defer far.Close()
	client := link.NewClient(near)
	var running sync.WaitGroup
	running.Go(func() { _ = client.Run(func(link.Report) {}) })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := collect(ctx, client, ask("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("Handle = %v", err)
	}
	client.Close()
	running.Wait()
}

// Requests that are cancelled while the engine does not read are not sent. Of many, the engine gets
// only the first, which was being written, and its cancel.
func TestCanceledRequestsAreNotQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		client := link.NewClient(near)
		var running sync.WaitGroup
		running.Go(func() {
			if err := client.Run(func(link.Report) {}); err != nil {
				t.Error(err)
			}
		})
		hangUp := errors.New("hung up")
		for range 50 {
			ctx, cancel := context.WithCancelCause(t.Context())
			var call sync.WaitGroup
			call.Go(func() {
				req := ask("x")
				if _, err := collect(ctx, client, req); !errors.Is(err, hangUp) {
					t.Errorf("Handle = %v", err)
				}
				req.Pause.Preempted.Set(true)
			})
			synctest.Wait()
			cancel(hangUp)
			call.Wait()
		}
		running.Go(func() {
			if _, err := collect(t.Context(), client, ask("y")); !errors.Is(err, link.ErrGone) {
				t.Errorf("the last call: %v", err)
			}
		})
		synctest.Wait()
		r := frame.Prefixed.NewReader(far, frame.Limit)
		for _, want := range []string{`{"Call":1,"Generate":`, `{"Call":1,"Cancel":true}`, `{"Call":51,"Generate":`} {
			if _, msg, err := r.ReadFrame(); err != nil || !strings.HasPrefix(string(msg), want) {
				t.Errorf("the engine reads %s, %v, want %s", msg, err, want)
			}
		}
		client.Close()
		running.Wait()
	})
}

// Every counter of the statistics crosses the link, even during a call.
func TestStats(t *testing.T) {
	want := stats.Engine{Users: []stats.User{{KVTokens: 16}, {User: "1000", KVTokens: 14, CachedTokens: 15}}}
	for i := range reflect.TypeFor[stats.Engine]().NumField() {
		switch field := reflect.ValueOf(&want).Elem().Field(i); field.Kind() {
		case reflect.Int, reflect.Int64:
			field.SetInt(int64(i + 1))
		case reflect.Float64:
			field.SetFloat(float64(i) + 1.5)
		case reflect.Slice: // Users
		default:
			t.Fatalf("no value for field %d", i)
		}
	}
	client := join(t, &link.Server{
		Handler: infer.HandlerFunc(func(ctx context.Context, _ *infer.Request, emit infer.Sink) error {
			_ = emit(&infer.Text{Delta: []byte("a")})
			<-ctx.Done()
			return ctx.Err()
		}),
		Stats: func() stats.Engine { return want },
	})
	ctx, cancel := context.WithCancel(t.Context())
	_ = client.Handle(ctx, ask("x"), func(infer.Event) error {
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				got, err := client.Stats(t.Context())
				if err != nil {
					t.Error(err)
				} else if diff := cmp.Diff(want, *got); diff != "" {
					t.Errorf("-want +got\n%s", diff)
				}
			})
		}
		all.Wait()
		cancel()
		return nil
	})
}

func TestStatsOfAnEngineThatHasNothingToSay(t *testing.T) {
	client := join(t, &link.Server{})
	if got, err := client.Stats(t.Context()); err != nil || cmp.Diff(stats.Engine{}, *got) != "" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// A stopped engine delays no caller of Stats, and no canceled request, past its context. The first
// message that it gets is a query, and a late answer reaches a later caller.
func TestStatsOfAStoppedEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		client := link.NewClient(near)
		var running sync.WaitGroup
		running.Go(func() {
			if err := client.Run(func(link.Report) {}); err != nil {
				t.Error(err)
			}
		})
		late := errors.New("no patience")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(late)
		for range 1000 {
			if _, err := client.Stats(ctx); !errors.Is(err, late) {
				t.Fatalf("Stats = %v, want %v", err, late)
			}
		}
		if _, err := collect(ctx, client, ask("x")); !errors.Is(err, late) {
			t.Fatalf("Handle = %v, want %v", err, late)
		}
		r := frame.Prefixed.NewReader(far, frame.Limit)
		if _, query, err := r.ReadFrame(); err != nil || !strings.Contains(string(query), `"Stats":true`) {
			t.Fatalf("it was sent %s, %v, want a query", query, err)
		}
		running.Go(func() { _, _ = io.Copy(io.Discard, far) })
		running.Go(func() {
			if got, err := client.Stats(t.Context()); err != nil || got.Steps != 7 {
				t.Errorf("late: %+v, %v", got, err)
			}
		})
		synctest.Wait()
		answer := `{"Stats":{"steps":7}}`
		_, _ = far.Write(append(frame.AppendHead(nil, frame.JSON, len(answer)), answer...))
		synctest.Wait()
		client.Close()
		running.Wait()
	})
}

func TestEngineDiesInsteadOfSayingHowItIs(t *testing.T) {
	near, far := net.Pipe()
	client := link.NewClient(near)
	go func() {
		_, _ = far.Read(make([]byte, 1)) // the query
		_ = far.Close()
	}()
	var running sync.WaitGroup
	running.Go(func() { _ = client.Run(func(link.Report) {}) })
	if _, err := client.Stats(t.Context()); !errors.Is(err, link.ErrGone) {
		t.Errorf("Stats = %v, want %v", err, link.ErrGone)
	}
	running.Wait()
	if _, err := client.Stats(t.Context()); !errors.Is(err, link.ErrClosed) {
		t.Errorf("afterwards: %v, want %v", err, link.ErrClosed)
	}
}

// The daemon relays a token without allocating.
func TestRelayDoesNotAllocate(t *testing.T) {
	const tokens = 20_000
	piece := []byte("token")
	client := join(t, &link.Server{Handler: infer.HandlerFunc(func(_ context.Context, _ *infer.Request, emit infer.Sink) error {
		ev := infer.Text{Delta: piece}
		for range tokens {
			if err := emit(&ev); err != nil {
				return err
			}
		}
		return emit(&infer.Done{})
	})})
	sink := func(infer.Event) error { return nil }
	perRun := testing.AllocsPerRun(3, func() {
		if err := client.Handle(t.Context(), ask("x"), sink); err != nil {
			t.Error(err)
		}
	})
	if perToken := perRun / tokens; perToken > 0.02 { // what is left are the allocations of the call itself
		t.Errorf("%.3f allocations a token", perToken)
	}
}

func FuzzClient(f *testing.F) {
	f.Add(append(frame.AppendHead(nil, frame.JSON, 2), '{', '}'))
	f.Add(blob(frame.Blob, "\x00\x01\x01\x01ab"))
	f.Add(blob(frame.Blob, "\x01\x01\x01\x01ab"))
	f.Add(blob(frame.JSON, `{"Call":1,"ToolCall":{"Name":"f","Input":"e30=","Tokens":3}}`))
	f.Fuzz(func(_ *testing.T, stream []byte) {
		near, far := net.Pipe()
		client := link.NewClient(near)
		go func() {
			_, _ = far.Write(stream)
			_ = far.Close()
		}()
		_ = client.Run(func(link.Report) {})
	})
}

// FuzzServer checks that the server returns after any input, and that every call has ended by then.
func FuzzServer(f *testing.F) {
	order := func(text string) []byte { return blob(frame.JSON, text) }
	f.Add(order(`{"Call":1,"Generate":{"Messages":[{"Role":"user","Content":[{"Text":{"Text":"a b"}}]}],"MaxTokens":3},"User":"1000","Deadline":"2026-01-01T00:00:00Z"}`))
	f.Add(append(order(`{"Call":1,"Embed":{"Inputs":["a"]}}`), order(`{"Call":1,"Pause":true}`)...))
	f.Add(append(order(`{"Call":1,"Rerank":{"Query":"a","Documents":["b"]}}`), order(`{"Call":1,"Cancel":true}`)...))
	f.Add(order(`{"Call":0,"Stats":true}`))
	f.Add(append(order(`{"Call":1,"Generate":{"Attachments":[{"ID":"a","Kind":"image"}]}}`), blob(frame.Blob, "rgb")...))
	f.Fuzz(func(_ *testing.T, stream []byte) {
		near, far := net.Pipe()
		srv := &link.Server{Conn: near, Handler: infer.HandlerFunc(func(_ context.Context, req *infer.Request, emit infer.Sink) error {
			if gen, ok := req.Task.(*infer.Generate); ok && len(gen.Messages) > 0 {
				if err := emit(&infer.Text{Delta: []byte("x"), Tokens: gen.MaxTokens}); err != nil {
					return err
				}
			}
			return emit(&infer.Done{})
		})}
		go func() {
			_, _ = far.Write(stream)
			_ = far.Close()
		}()
		go func() { _, _ = io.Copy(io.Discard, far) }()
		_ = srv.Serve(context.Background())
	})
}
