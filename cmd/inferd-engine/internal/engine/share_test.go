package engine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/engine"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/prefill"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/schedule"
	"github.com/inferd-go/inferd/internal/builtin"
	"github.com/inferd-go/inferd/internal/infer"
)

// tie is a difference of log probabilities below which rounding may decide between two tokens.
// Rounding depends on the pieces in which a prompt was prefilled. With prompts as short as these it
// changes log probabilities by 0.000002 (measured), with hundreds of tokens by more.
const tie = 1e-3

// answerWithoutTie returns a greedy answer. ok reports that it has no tie, so that the answer is the same
// every time.
func answerWithoutTie(t *testing.T, e *engine.Engine, req *infer.Request) (text string, ok bool) {
	t.Helper()
	req.Task.(*infer.Generate).Logprobs = 2
	ok = true
	err := e.Handle(t.Context(), req, func(ev infer.Event) error {
		if ev, isText := ev.(*infer.Text); isText {
			text += string(ev.Delta)
			for _, l := range ev.Logprobs {
				ok = ok && l.Top[0].Logprob-l.Top[1].Logprob > tie
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return text, ok
}

// questions returns n questions with answers that have no ties, and these answers.
func questions(t *testing.T, e *engine.Engine, n, most int, question func(i int) string) (texts, want []string) {
	t.Helper()
	for i := 0; len(texts) < n; i++ {
		if i == 500 {
			t.Fatal("every answer has a tie")
		}
		if text, ok := answerWithoutTie(t, e, greedyRequest("", most, question(i))); ok {
			texts, want = append(texts, question(i)), append(want, text)
		}
	}
	return texts, want
}

// answer returns an engine's answer. seen, if not nil, is called after each piece of text with the text
// so far.
func answer(ctx context.Context, e *engine.Engine, req *infer.Request, seen func(string)) (string, infer.Done, error) {
	var text strings.Builder
	var prompt infer.Prompt
	var done infer.Done
	err := e.Handle(ctx, req, func(ev infer.Event) error {
		switch ev := ev.(type) {
		case *infer.Prompt:
			prompt = *ev
		case *infer.Text:
			text.Write(ev.Delta)
			if seen != nil {
				seen(text.String())
			}
		case *infer.Done:
			if done = *ev; done.Out > 0 && (prompt.Tokens != done.In || prompt.Cached != done.Cached) {
				return fmt.Errorf("%d of %d tokens were cached at first, %d of %d at the end", prompt.Cached, prompt.Tokens, done.Cached, done.In)
			}
		}
		return nil
	})
	return text.String(), done, err
}

func greedyRequest(who string, most int, turns ...string) *infer.Request {
	gen := &infer.Generate{MaxTokens: most}
	for i, text := range turns {
		role := infer.User
		if i%2 == 1 {
			role = infer.Assistant
		}
		gen.Messages = append(gen.Messages, infer.TextMessage(role, text))
	}
	return &infer.Request{Peer: infer.Peer{User: who}, Task: gen}
}

var roomy = batch.Limits{Context: 4096, Batch: 256, Sequences: 4, Retained: 8}

// A continued conversation starts from its cached prefix, and has the same answer as without it. A
// user's prefix is not reused for another user, nor for a request without a user.
func TestConversationsGoOn(t *testing.T) {
	moved := roomy
	moved.Offloaded = roomy.Context
	for name, limits := range map[string]batch.Limits{"in the cache": roomy, "in memory": moved} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && limits.Offloaded == 0 {
				t.Skip("offloaded sequences were in the cache before")
			}
			conversationsGoOn(t, load(t, "tiny", limits), limits, true)
		})
	}
	t.Run("through a window", func(t *testing.T) {
		if testing.Short() {
			t.Skip("the same steps on a third kind of cache")
		}
		path := filepath.Join(t.TempDir(), "sliding.gguf")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(builtin.Sliding(f), f.Close()); err != nil {
			t.Fatal(err)
		}
		// The window is shorter than a piece, so a prompt that differs within a piece is prefilled
		// again.
		conversationsGoOn(t, loadFile(t, path, moved, func(*batch.Loop, *llama.Model) {}), moved, false)
	})
}

func conversationsGoOn(t *testing.T, e *engine.Engine, limits batch.Limits, known bool) {
	t.Helper()
	ask := func(who string, n int, turns ...string) (string, infer.Done) {
		t.Helper()
		text, done, err := answer(t.Context(), e, greedyRequest(who, n, turns...), nil)
		if err != nil {
			t.Fatal(err)
		}
		for limits.Offloaded > 0 && e.Loop.Stats().KVKept > 0 { // until the sequence is offloaded
			time.Sleep(10 * time.Millisecond)
		}
		return text, done
	}
	asked, _ := questions(t, e, 1, 20, func(i int) string { return fmt.Sprint(strings.Repeat("A question of many words. ", 12), i) })
	question := asked[0]
	first, done := ask("1000", 20, question)
	if done.Cached != 0 {
		t.Fatalf("%+v", done)
	}
	for _, who := range []string{"1001", ""} {
		if text, done := ask(who, 20, question); done.Cached != 0 || text != first {
			t.Errorf("%q: %+v; %q, want %q", who, done, text, first)
		}
	}
	if text, again := ask("1000", 20, question); known && again.Cached != again.In-1 || text != first {
		t.Errorf("again: %+v; %q, want %q", again, text, first)
	}
	for i := range 100 {
		then := fmt.Sprint("And then? ", i)
		anew, ok := answerWithoutTie(t, e, greedyRequest("", 20, question, first, then))
		if !ok {
			continue
		}
		if second, on := ask("1000", 20, question, first, then); known && on.Cached < done.In-20 || on.Cached >= on.In || second != anew {
			t.Errorf("it goes on: %+v; %q, anew %q", on, second, anew)
		}
		return
	}
	t.Fatal("every answer has a tie")
}

// A prompt that the prefill worker decodes beside a stream has the same answer as alone, even behind a
// cached prefix.
func TestOffload(t *testing.T) {
	e := loadWith(t, "tiny", roomy, func(l *batch.Loop, m *llama.Model) {
		l.Stall = time.Millisecond // steps have no time for prompts
		var err error
		l.Prefill, err = prefill.Start(roomy.Context/2, roomy.Sequences, func() (prefill.Context, error) {
			// The context has no idle priority: with it, the worker's jobs would be abandoned on a
			// busy machine.
			c, err := llama.NewContext(m, llama.ContextOptions{NCtx: roomy.Context / 2, NBatch: schedule.ChunkTokens, NSeq: roomy.Sequences, Threads: 1})
			return prefill.Context{Decoder: c, Memory: c, Close: c.Close}, err
		})
		if err != nil {
			t.Fatal(err)
		}
	})
	same := strings.Repeat("What everybody begins with. ", 12)
	asked, want := questions(t, e, 4, 20, func(i int) string { return fmt.Sprint(same, strings.Repeat(fmt.Sprint(i, " and so on. "), 20)) })
	ctx, cancel := context.WithCancel(t.Context())
	var stream sync.WaitGroup
	begun := make(chan struct{})
	var once sync.Once
	stream.Go(func() {
		_, _, _ = answer(ctx, e, greedyRequest("1000", 3000, "a"), func(string) { once.Do(func() { close(begun) }) })
	})
	<-begun
	for i, question := range asked {
		before := e.Loop.Stats().PrefillOffloaded
		text, done, err := answer(t.Context(), e, greedyRequest("1001", 20, question), nil)
		if err != nil || text != want[i] {
			t.Errorf("%+v, %v; %q, want %q", done, err, text, want[i])
		}
		if read := e.Loop.Stats().PrefillOffloaded - before; read < int64(done.In-done.Cached)/2 || i > 0 && done.Cached < len(same) {
			t.Errorf("the worker decoded %d of %d, %d were cached", read, done.In, done.Cached)
		}
	}
	cancel()
	stream.Wait()
}

// A paused request emits nothing until it resumes, and then the same text as without a pause.
// Meanwhile another request has the slot.
func TestPause(t *testing.T) {
	e := load(t, "loop", batch.Limits{Context: 2048, Batch: 256, Sequences: 1, Retained: 4})
	want, _, err := answer(t.Context(), e, greedyRequest("", 100, "a"), nil)
	if err != nil {
		t.Fatal(err)
	}
	req := greedyRequest("1000", 100, "a")
	var once sync.Once
	paused := make(chan struct{})
	var held sync.WaitGroup
	held.Go(func() {
		text, done, err := answer(t.Context(), e, req, func(text string) {
			if len(text) >= 10 {
				once.Do(func() {
					req.Pause.Preempted.Set(true)
					close(paused)
				})
			}
		})
		if err != nil || text != want || done.Out != 100 {
			t.Errorf("%q, %+v, %v; want %q", text, done, err, want)
		}
	})
	<-paused
	for i := range 5 { // there is one slot only
		if text, _, err := answer(t.Context(), e, greedyRequest("1001", 20, "k"), nil); err != nil || text != "lmnopqrstuvwxyzabcde" {
			t.Errorf("%d: %q, %v", i, text, err)
		}
	}
	req.Pause.Preempted.Set(false)
	held.Wait()
}

// A request that has lost its cells in a long pause resumes with the same text, and its tokens are not
// decoded again.
func TestLongPause(t *testing.T) {
	e := load(t, "loop", batch.Limits{Context: 2048, Batch: 256, Sequences: 2, Retained: 4, Offloaded: 2048})
	want, _, err := answer(t.Context(), e, greedyRequest("", 100, "a"), nil)
	if err != nil {
		t.Fatal(err)
	}
	req := greedyRequest("1000", 100, "a")
	var once sync.Once
	paused := make(chan struct{})
	var held sync.WaitGroup
	held.Go(func() {
		text, done, err := answer(t.Context(), e, req, func(text string) {
			if len(text) >= 50 {
				once.Do(func() {
					req.Pause.Preempted.Set(true)
					close(paused)
				})
			}
		})
		if err != nil || text != want || done.Out != 100 || done.Cached != 0 {
			t.Errorf("%q, %+v, %v; want %q", text, done, err, want)
		}
	})
	<-paused
	deadline := time.Now().Add(time.Minute)
	for s := e.Loop.Stats(); s.KVUsed > 0 || s.KVKept > 0 || s.KVStored < 50; s = e.Loop.Stats() {
		if time.Now().After(deadline) {
			t.Fatalf("it stays in the cache: %+v", s)
		}
		time.Sleep(time.Millisecond)
	}
	req.Pause.Preempted.Set(false)
	held.Wait()
	if s := e.Loop.Stats(); s.PrefillTokens > 20 { // the two prompts have 3 tokens, the answer had 50 before the pause
		t.Errorf("it was read again: %+v", s)
	}
}

// A shared prefix of the operator is cached for all users, from the first request on. A prefix of more
// than half the context is refused.
func TestShare(t *testing.T) {
	e := load(t, "tiny", roomy)
	system := strings.Repeat("You are a helpful assistant. ", 3)
	ask := func(who, question string) *infer.Request {
		req := greedyRequest(who, 10, question)
		gen := req.Task.(*infer.Generate)
		gen.Messages = append([]infer.Message{infer.TextMessage(infer.System, system)}, gen.Messages...)
		return req
	}
	var question, want string
	for i, ok := 0, false; !ok; i++ {
		if i == 100 {
			t.Fatal("every answer has a tie")
		}
		question = fmt.Sprint("Hello? ", i)
		want, ok = answerWithoutTie(t, e, ask("", question))
	}
	if err := e.Share(t.Context(), system); err != nil {
		t.Fatal(err)
	}
	for _, who := range []string{"1000", "1001", ""} {
		text, done, err := answer(t.Context(), e, ask(who, question), nil)
		if err != nil || done.Cached < len(system) || text != want { // one token per byte
			t.Errorf("%q: %+v, %v; %q, want %q", who, done, err, text, want)
		}
	}
	if err := e.Share(t.Context(), strings.Repeat("x", 3000)); infer.CodeOf(err) != infer.Invalid {
		t.Errorf("more than half of the context: %v", err)
	}
}

// At its deadline an answer ends with its text so far, and with the reason canceled, even if the
// deadline has passed before the answer begins.
func TestDeadline(t *testing.T) {
	e := load(t, "loop", batch.Limits{Context: 65536, Batch: 256, Sequences: 1})
	for name, left := range map[string]time.Duration{"soon": 50 * time.Millisecond, "past": -time.Second} {
		req := greedyRequest("1000", 65000, "a")
		req.Deadline = time.Now().Add(left)
		text, done, err := answer(t.Context(), e, req, nil)
		if err != nil || done.Reason != infer.Canceled || done.Out != len(text) || done.Out == 65000 {
			t.Errorf("%s: %d bytes, %+v, %v", name, len(text), done, err)
		}
	}
}

// If several users send prompts with a common beginning at once, each answer is the same as alone.
func TestManyWithMuchInCommon(t *testing.T) {
	e := load(t, "tiny", batch.Limits{Context: 1024, Batch: 128, Sequences: 4, Retained: 6})
	asked, want := questions(t, e, 6, 20, func(i int) string { return strings.Repeat("the same ", 4) + fmt.Sprint(i) })
	var all sync.WaitGroup
	for n := range 6 {
		all.Go(func() {
			for i := range want {
				i = (i + n) % len(want)
				text, _, err := answer(t.Context(), e, greedyRequest(fmt.Sprint(n%3), 20, asked[i]), nil)
				if err != nil || text != want[i] {
					t.Errorf("%d: %q, %v; want %q", i, text, err, want[i])
				}
			}
		})
	}
	all.Wait()
}
