//go:build linux

package assemble_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/assemble"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/launch"
	"github.com/inferd-go/inferd/internal/link"
	"github.com/inferd-go/inferd/internal/paths"
	"github.com/inferd-go/inferd/internal/proc"
	"github.com/inferd-go/inferd/internal/store"
)

const asEngine = "ASSEMBLE_TEST_ENGINE"

// patience bounds the wait for an event that must come.
const patience = time.Minute

// TestMain runs an engine instead of the tests if the environment variable asEngine is set:
// llama.cpp can be loaded only once in a process, so each engine of these tests is a process of its
// own.
func TestMain(m *testing.M) {
	if os.Getenv(asEngine) == "" {
		os.Exit(m.Run())
	}
	conn, c, err := launch.Receive()
	if err == nil {
		err = assemble.Run(conn, c)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func libraries() string {
	if dir := os.Getenv("INFERD_ENGINE_LIB"); dir != "" {
		return dir
	}
	return paths.Default().EngineDir()
}

// An engine is a running engine process, with a client on its link and the reports that arrive
// there.
type engine struct {
	*proc.Child
	client  *link.Client
	reports chan link.Report
}

// start starts an engine with a model. edit, if not nil, changes its contract.
func start(t *testing.T, ref store.Ref, edit func(*launch.Contract)) *engine {
	t.Helper()
	models := store.Store{BuiltinDir: t.TempDir()}
	m, err := models.Ensure(t.Context(), ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	c := launch.Contract{
		LibDir: libraries(), Model: launch.Model{Path: m.Path},
		NCtx: 1024, EmbedNCtx: 1 << 20, RerankNCtx: 1 << 20, Slots: 3, Threads: 1,
	}
	if edit != nil {
		edit(&c)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child, err := launch.Start(exe, c, m.Files, []string{asEngine + "=1", "LD_LIBRARY_PATH=" + libraries()})
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{Child: child, client: link.NewClient(child.Conn()), reports: make(chan link.Report, 1000)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(e.reports)
		_ = e.client.Run(func(r link.Report) { e.reports <- r })
	}()
	t.Cleanup(func() {
		child.Kill()
		<-child.Done()
		e.client.Close()
		<-ended
	})
	return e
}

// outcome waits until the engine is ready or has failed. It returns that report, and the states of
// all reports up to it, in order.
func (e *engine) outcome(t *testing.T) (last link.Report, states string) {
	t.Helper()
	for deadline := time.After(patience); ; {
		select {
		case r, ok := <-e.reports:
			if !ok {
				<-e.Done()
				t.Fatalf("the engine ended: %v\n%s", e.Exit(), e.Exit().Stderr)
			}
			if !strings.HasSuffix(states, string(r.State)) {
				states += " " + string(r.State)
			}
			if r.State == link.Ready || r.State == link.Failed {
				return r, states[1:]
			}
		case <-deadline:
			t.Fatal("the engine is neither ready nor failed")
		}
	}
}

func TestReady(t *testing.T) {
	for name, test := range map[string]struct {
		model string
		edit  func(*launch.Contract)
		tasks infer.Abilities
		nCtx  int
	}{
		"a model that generates":       {"chain", nil, infer.Abilities{Generate: true}, 1024},
		"with one slot, and no worker": {"chain", func(c *launch.Contract) { c.Slots = 1 }, infer.Abilities{Generate: true}, 1024},
		"a model that embeds":          {"embed", nil, infer.Abilities{Embed: true}, 0},
		"a model that reranks":         {"rerank", nil, infer.Abilities{Rerank: true}, 0},
		"embedding with a small bound": {"embed", func(c *launch.Contract) { c.Tasks.Embed, c.EmbedNCtx = true, 64 }, infer.Abilities{Embed: true}, 64},
		"a generating model that also embeds": {
			"chain", func(c *launch.Contract) { c.Tasks.Embed, c.Pooling, c.EmbedNCtx = true, "mean", 128 }, infer.Abilities{Generate: true, Embed: true}, 1024,
		},
		"one that only embeds": {
			"chain", func(c *launch.Contract) {
				c.Tasks, c.Pooling, c.EmbedNCtx = launch.Tasks{NoGenerate: true, Embed: true}, "last", 128
			}, infer.Abilities{Embed: true}, 128,
		},
		"all tasks": {
			"chain", func(c *launch.Contract) { c.Tasks.Embed, c.Tasks.Rerank = true, true }, infer.Abilities{Generate: true, Embed: true, Rerank: true}, 1024,
		},
		"shared prefixes": {
			"tiny", func(c *launch.Contract) { c.SharedPrefixes = []string{"You are brief.", "You are not."} }, infer.Abilities{Generate: true}, 1024,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, states := start(t, store.Ref{Builtin: test.model}, test.edit).outcome(t)
			if r.State != link.Ready {
				t.Fatalf("%+v", r)
			}
			if states != "selecting mapping caching ready" {
				t.Errorf("states: %s", states)
			}
			if got := (infer.Abilities{Generate: r.Abilities.Generate, Embed: r.Abilities.Embed, Rerank: r.Abilities.Rerank}); got != test.tasks || test.nCtx > 0 && r.NCtx != test.nCtx || r.NCtx < 1 || r.NCtx >= 1<<20 || r.Slots < 1 {
				t.Errorf("%+v, want %+v and %d tokens", r, test.tasks, test.nCtx)
			}
		})
	}
}

func TestFailed(t *testing.T) {
	garbage := filepath.Join(t.TempDir(), "garbage.gguf")
	if err := os.WriteFile(garbage, []byte("no model"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		ref  store.Ref
		edit func(*launch.Contract)
		want []string
	}{
		"no libraries": {
			store.Ref{Builtin: "chain"},
			func(c *launch.Contract) { c.LibDir = "/nonexistent" },
			[]string{"llama.cpp's libraries", "/nonexistent", "make engine"},
		},
		"no model": {store.Ref{Path: garbage}, nil, []string{"load " + garbage + ": ", "magic"}},
		"nothing left to do": {
			store.Ref{Builtin: "chain"},
			func(c *launch.Contract) { c.Tasks.NoGenerate = true },
			[]string{"generate is switched off, and neither embed nor rerank is on"},
		},
		"a shared prefix for a model that does not generate": {
			store.Ref{Builtin: "embed"},
			func(c *launch.Contract) { c.SharedPrefixes = []string{"You are brief."} },
			[]string{"shared prefixes: this engine does not generate text"},
		},
		"no compute lock": {
			store.Ref{Builtin: "chain"},
			func(c *launch.Contract) { c.ComputeLock = "/nonexistent/compute.lock" },
			[]string{"/nonexistent/compute.lock"},
		},
		"a shared prefix beyond the context": {
			store.Ref{Builtin: "tiny"},
			func(c *launch.Contract) { c.SharedPrefixes = []string{"short", strings.Repeat("long ", 1000)} },
			[]string{"shared prefix 1: "},
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := start(t, test.ref, test.edit)
			r, _ := e.outcome(t)
			if r.State != link.Failed {
				t.Fatalf("%+v", r)
			}
			for _, want := range test.want {
				if !strings.Contains(r.Problem, want) {
					t.Errorf("no %q in %q", want, r.Problem)
				}
			}
			if strings.Contains(r.Problem, "/proc/self") {
				t.Errorf("the problem names a descriptor: %s", r.Problem)
			}
			select {
			case <-e.Done():
				if exit := e.Exit(); exit.Code != 1 {
					t.Errorf("ended with %v", exit)
				}
			case <-time.After(patience):
				t.Error("the engine stays")
			}
		})
	}
}

// One engine answers three tasks at once, and its statistics cover all of them.
func TestAllTasks(t *testing.T) {
	e := start(t, store.Ref{Builtin: "loop"}, func(c *launch.Contract) {
		c.Tasks.Embed, c.Tasks.Rerank, c.EmbedNCtx, c.RerankNCtx = true, true, 64, 32
	})
	r, _ := e.outcome(t)
	if r.State != link.Ready || r.EmbedNCtx != 64 || r.RerankNCtx != 32 || len(r.Warnings) != 2 ||
		!strings.Contains(r.Warnings[0], "embed_pooling") || !strings.Contains(r.Warnings[1], "trained to rank") {
		t.Fatalf("%+v", r)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	writing, stop := context.WithCancel(ctx)
	var (
		all    sync.WaitGroup
		tokens atomic.Int64
	)
	all.Go(func() {
		task := infer.Generate{Messages: []infer.Message{infer.TextMessage(infer.User, "a")}, MaxTokens: 1000}
		for writing.Err() == nil {
			_ = e.client.Handle(writing, &infer.Request{Task: &task}, func(ev infer.Event) error {
				if text, ok := ev.(*infer.Text); ok {
					tokens.Add(int64(text.Tokens))
				}
				return nil
			})
		}
	})
	for range 20 {
		var vectors, scores int
		for _, task := range []infer.Task{&infer.Embed{Inputs: []string{"a", "bc"}}, &infer.Rerank{Query: "a", Documents: []string{"b", "c", "d"}}} {
			if err := e.client.Handle(ctx, &infer.Request{Task: task}, func(ev infer.Event) error {
				switch ev := ev.(type) {
				case *infer.Vectors:
					vectors += len(ev.Values)
				case *infer.Scores:
					scores += len(ev.Values)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		if vectors != 2 || scores != 3 {
			t.Errorf("%d vectors, %d scores", vectors, scores)
		}
	}
	before := tokens.Load()
	for begin := time.Now(); tokens.Load() < before+5; time.Sleep(time.Millisecond) {
		if time.Since(begin) > patience {
			t.Fatal("the stream stands")
		}
	}
	stats, err := e.client.Stats(ctx)
	if err != nil || stats.Steps < stats.DecodeTokens/3+2*20 || stats.PrefillTokens < 20*(2+3) || stats.DecodeTokens < before || stats.Sequences > 1 { // between two answers, no sequence is counted
		t.Errorf("%+v, %v", stats, err)
	}
	stop()
	all.Wait()
}

// An engine reports whether its answers are exact if the contract requests that, and otherwise
// reports nothing about it.
func TestReadyExact(t *testing.T) {
	for model, exact := range map[string]bool{"tiny": true, "embed": true, "rerank": true} {
		r, _ := start(t, store.Ref{Builtin: model}, func(c *launch.Contract) { c.Exact = true }).outcome(t)
		if r.State != link.Ready || r.Exact != exact || (r.Inexact == "") != exact {
			t.Errorf("%s: %+v", model, r)
		}
	}
	if r, _ := start(t, store.Ref{Builtin: "tiny"}, nil).outcome(t); r.Exact || r.Inexact != "" {
		t.Errorf("nobody asked: %+v", r)
	}
}

// An engine reports the requested number of tokens, and can use all of them, even if llama.cpp
// makes a larger context for its sequences.
func TestSmallContexts(t *testing.T) {
	sizes := []int{4, 8, 64}
	if testing.Short() {
		sizes = sizes[:1]
	}
	for _, n := range sizes {
		e := start(t, store.Ref{Builtin: "chain"}, func(c *launch.Contract) {
			c.NCtx, c.Tasks.Embed, c.Tasks.Rerank, c.EmbedNCtx, c.RerankNCtx = n, true, true, n, n
		})
		if r, _ := e.outcome(t); r.State != link.Ready || r.NCtx != n || r.EmbedNCtx != n {
			t.Fatalf("%d tokens: %+v", n, r)
		}
		for i, test := range []struct {
			task infer.Task
			want infer.Code
		}{
			{&infer.Generate{Messages: []infer.Message{infer.TextMessage(infer.User, "w")}, MaxTokens: 1}, ""},
			{&infer.Generate{Messages: []infer.Message{infer.TextMessage(infer.User, strings.Repeat("w", n))}, MaxTokens: 1}, infer.Invalid},
			{&infer.Embed{Inputs: []string{"a", "b"}}, ""},
			{&infer.Embed{Inputs: []string{strings.Repeat("a", n+1)}}, infer.Invalid},
			{&infer.Rerank{Query: "a", Documents: []string{"b"}}, ""},
			{&infer.Rerank{Query: "a", Documents: []string{strings.Repeat("a", n+1)}}, infer.Invalid},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			err := e.client.Handle(ctx, &infer.Request{Task: test.task}, func(infer.Event) error { return nil })
			cancel()
			if err == nil && test.want != "" || err != nil && infer.CodeOf(err) != test.want {
				t.Errorf("%d tokens, request %d: %v, want %q", n, i, err, test.want)
			}
		}
	}
}

// An engine answers, reports statistics, and ends when its link ends.
func TestLife(t *testing.T) {
	e := start(t, store.Ref{Builtin: "chain"}, nil)
	if r, _ := e.outcome(t); r.State != link.Ready {
		t.Fatalf("%+v", r)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var text strings.Builder
	task := infer.Generate{Messages: []infer.Message{infer.TextMessage(infer.User, "w")}, MaxTokens: 10}
	if err := e.client.Handle(ctx, &infer.Request{Task: &task}, func(ev infer.Event) error {
		if piece, ok := ev.(*infer.Text); ok {
			text.Write(piece.Delta)
		}
		return nil
	}); err != nil || text.String() != "xyz" {
		t.Errorf("%q, %v", text.String(), err)
	}
	stats, err := e.client.Stats(ctx)
	if err != nil || stats.KVSize != 1024 || stats.Steps < 3 || stats.DecodeTokens < 3 {
		t.Errorf("%+v, %v", stats, err)
	}
	e.client.Close()
	select {
	case <-e.Done():
		if exit := e.Exit(); exit.Code != 0 {
			t.Errorf("ended with %v\n%s", exit, exit.Stderr)
		}
	case <-time.After(patience):
		t.Error("the engine stays")
	}
}
