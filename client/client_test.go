package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/internal/config"
	"github.com/inferd-go/inferd/internal/daemon"
	"github.com/inferd-go/inferd/internal/paths"
	"github.com/inferd-go/inferd/internal/shortdir"
)

// waitLimit bounds each wait. It is long enough for a busy machine.
const waitLimit = 30 * time.Second

const oneMock = `{"backends":[{"kind":"mock","name":"m","tokens":["a","b","c"]}]}`

// start runs a real daemon with the config cfg in dir. The returned function stops it.
func start(dir, cfg string) (stop func() error, err error) {
	file := filepath.Join(dir, "config.json")
	if err := os.WriteFile(file, []byte(cfg), 0o600); err != nil {
		return nil, err
	}
	flags, err := config.ParseFlags([]string{
		"--config", file, "--uds", filepath.Join(dir, paths.V1Leaf), "--drain-timeout-secs", "0",
	}, paths.Env{Getenv: func(string) string { return "" }}, daemon.Kinds, io.Discard)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- daemon.Run(ctx, &flags, paths.Default(), daemon.Program{
			Version: "test", Log: slog.New(slog.DiscardHandler), SetLogLevel: func(string) {},
		})
	}()
	return func() error {
		cancel()
		return <-ended
	}, nil
}

// serve starts a daemon that runs until the end of the test, and returns a client of it.
func serve(t *testing.T, cfg string) *client.Client {
	t.Helper()
	dir := shortdir.New(t)
	stop, err := start(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("the daemon: %v", err)
		}
	})
	return &client.Client{Dir: dir, Wait: waitLimit}
}

func TestGenerate(t *testing.T) {
	c := serve(t, oneMock)
	want := &client.Answer{Text: "abc", Done: client.Done{StopReason: client.EndTurn, OutputTokens: 3, Backend: "mock"}}
	for name, events := range map[string]func(*client.Request) func(func(client.Event, error) bool){
		"length-prefixed": func(r *client.Request) func(func(client.Event, error) bool) { return c.Generate(t.Context(), r) },
		"v1":              func(r *client.Request) func(func(client.Event, error) bool) { return c.GenerateV1(t.Context(), r) },
	} {
		t.Run(name, func(t *testing.T) {
			var pieces []string
			for ev, err := range events(client.Ask("hi")) {
				if err != nil {
					t.Fatal(err)
				}
				pieces = append(pieces, ev.Text)
			}
			if !slices.Equal(pieces, []string{"a", "b", "c", ""}) {
				t.Errorf("pieces %q", pieces)
			}
			got, err := client.Collect(events(&client.Request{Messages: client.Ask("hi").Messages, Whole: true, MaxTokens: 5, Stop: []string{"x"}}))
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%v, -want +got\n%s", err, diff)
			}
		})
	}
}

// A request may have a prompt in place of messages. The first event of its answer has the number of
// prompt tokens, and Count returns the same number.
func TestPromptAndCount(t *testing.T) {
	c := serve(t, `{"backends":[{"kind":"mock","name":"m","tokens":["a"],"prompt_tokens":7,"cached_tokens":3}]}`)
	req := &client.Request{Prompt: new("once"), CacheSalt: "s"}
	var got []client.Event
	for ev, err := range c.Generate(t.Context(), req) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, ev)
	}
	want := []client.Event{{InputTokens: 7, CachedTokens: 3}, {Text: "a"}, {Done: &client.Done{StopReason: client.EndTurn, InputTokens: 7, CachedTokens: 3, OutputTokens: 1, Backend: "mock"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if n, err := c.Count(t.Context(), req); n != 7 || err != nil {
		t.Errorf("Count = %d, %v", n, err)
	}
	req.Messages = client.Ask("hi").Messages
	if _, err := c.Count(t.Context(), req); err == nil || !strings.Contains(err.Error(), "mutually exclusive") {
		t.Errorf("a prompt beside messages: %v", err)
	}
}

// The daemon accepts a request with nearly every member of v2, in both framings.
func TestAllMembersOfV2(t *testing.T) {
	c := serve(t, `{"backends":[{"kind":"mock","name":"m","emit_tool_use":"look"}]}`)
	req := &client.Request{
		ID: "1", Model: "m",
		Messages: []client.Message{
			client.Text(client.System, "be"),
			{Role: client.User, Blocks: []client.Block{{Text: "what"}, {Media: "cat"}, {Media: "purr"}}},
			{Role: client.Assistant, Blocks: []client.Block{{Thinking: "hm"}, {Call: &client.ToolCall{ID: "c", Name: "look", Input: []byte(`{"at":"cat"}`)}}}},
			{Role: client.User, Blocks: []client.Block{{Result: &client.ToolResult{ID: "c", Blocks: []client.Block{{Text: "a cat"}}, IsError: true}}}},
		},
		Attachments: []client.Attachment{
			{ID: "cat", Kind: client.Image, Width: 1, Height: 1, Data: []byte{1, 2, 3}},
			{ID: "purr", Kind: client.Audio, SampleRate: 16000, Data: make([]byte, 1<<20)},
		},
		Tools:      []client.Tool{{Name: "look", Description: "looks", InputSchema: []byte(`{"type":"object"}`)}},
		ToolChoice: "look", Format: client.Format{JSONSchema: []byte(`{}`)}, Thinking: client.ThinkOn,
		LogitBias: map[int]float64{5: -1}, Background: true, Client: "test", CacheSalt: "s", OneCall: true, LocalOnly: true,
		Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}
	want := &client.Answer{
		Calls: []client.ToolCall{{ID: "mock-call-1", Name: "look", Input: []byte("{}")}},
		Done:  client.Done{StopReason: client.ToolUse, OutputTokens: 1, Backend: "mock"},
	}
	for _, s := range []client.Surface{client.LP, client.V2} {
		conn, err := c.Dial(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 { // several requests on one connection
			got, err := client.Collect(conn.Generate(t.Context(), req))
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%s: %v, -want +got\n%s", s, err, diff)
			}
		}
		_ = conn.Close()
	}
}

func TestEmbedAndRerank(t *testing.T) {
	c := serve(t, oneMock)
	e, err := c.Embed(t.Context(), &client.EmbedRequest{Inputs: []string{"abc", "a"}, Dimensions: 2, Task: "similarity"})
	if diff := cmp.Diff(&client.Embeddings{Vectors: [][]float32{{0.25, 0.5}, {0.5, 1}}, Model: "mock", InputTokens: 4, Backend: "mock"}, e); err != nil || diff != "" {
		t.Errorf("%v, -want +got\n%s", err, diff)
	}
	r, err := c.Rerank(t.Context(), &client.RerankRequest{Query: "b", Documents: []string{"a", "b", "ab"}, TopN: 2})
	want := &client.Ranking{Results: []client.Ranked{{Index: 1, Score: 1}, {Index: 2, Score: 1}}, Model: "mock", InputTokens: 7, Backend: "mock"}
	if diff := cmp.Diff(want, r); err != nil || diff != "" {
		t.Errorf("%v, -want +got\n%s", err, diff)
	}
}

// An embed or rerank request chooses an entry by its model, as generation does.
func TestEmbedAndRerankByModel(t *testing.T) {
	c := serve(t, `{"backends":[{"kind":"mock","name":"a"},{"kind":"mock","name":"b","embed_dimensions":1,"unsupported":["rerank"]}]}`)
	e, err := c.Embed(t.Context(), &client.EmbedRequest{Inputs: []string{"abc"}, Model: "b"})
	if err != nil || len(e.Vectors[0]) != 1 {
		t.Errorf("embed: %+v, %v", e, err)
	}
	_, err = c.Rerank(t.Context(), &client.RerankRequest{Query: "b", Documents: []string{"a"}, Model: "b"})
	if err == nil || !strings.Contains(err.Error(), "rerank not supported") {
		t.Errorf("rerank: %v", err)
	}
}

// A refusal has a code, and the connection can be used again afterwards. A request on a connection
// to another surface fails.
func TestErrors(t *testing.T) {
	c := serve(t, `{"backends":[{"kind":"mock","name":"m","fail_first":1,"unsupported":["embed","rerank"]}]}`)
	conn, err := c.Dial(t.Context(), client.LP)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, want := range []client.Error{
		{client.BackendUnavailable, "mock"},
		{client.InvalidRequest, "invalid request: messages must not be empty"},
	} {
		req := client.Ask("hi")
		if want.Code == client.InvalidRequest {
			req.Messages = nil
		}
		_, err := client.Collect(conn.Generate(t.Context(), req))
		if got, ok := errors.AsType[*client.Error](err); !ok || *got != want {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	if a, err := client.Collect(conn.Generate(t.Context(), client.Ask("hi"))); err != nil || a.Text != "mock-response" {
		t.Errorf("afterwards: %+v, %v", a, err)
	}
	for code, ask := range map[client.Code]func() error{
		client.EmbedUnsupported: func() error {
			_, err := c.Embed(t.Context(), &client.EmbedRequest{Inputs: []string{"a"}})
			return err
		},
		client.RerankUnsupported: func() error {
			_, err := c.Rerank(t.Context(), &client.RerankRequest{Query: "a", Documents: []string{"b"}})
			return err
		},
		client.InvalidRequest: func() error { return c.Retry(t.Context(), "unknown") },
	} {
		if got, ok := errors.AsType[*client.Error](ask()); !ok || got.Code != code {
			t.Errorf("got %v, want %s", got, code)
		}
	}
	if _, err := conn.Embed(t.Context(), &client.EmbedRequest{}); err == nil || !strings.Contains(err.Error(), "does not embed") {
		t.Errorf("embed on a generation surface: %v", err)
	}
}

// If the context ends, or the caller leaves the loop, the connection is closed and the daemon's
// slot becomes free.
func TestCancel(t *testing.T) {
	c := serve(t, `{"admission":{"active_permits":1,"queue_depth":0},"backends":[{"kind":"mock","name":"m","tokens":["a","b"],"token_delay_ms":200}]}`)
	idle := func() {
		t.Helper()
		for deadline := time.Now().Add(waitLimit); ; time.Sleep(time.Millisecond) {
			s, err := c.Stats(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if s.Running == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatal("the request still runs")
			}
		}
	}
	for ev, err := range c.Generate(t.Context(), client.Ask("hi")) {
		if err != nil || ev.Text != "a" {
			t.Fatalf("%+v, %v", ev, err)
		}
		break
	}
	idle()
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := client.Collect(func(yield func(client.Event, error) bool) {
		for ev, err := range c.Generate(ctx, client.Ask("hi")) {
			cancel(enough)
			if !yield(ev, err) {
				return
			}
		}
	})
	if !errors.Is(err, enough) {
		t.Errorf("got %v, want %v", err, enough)
	}
	idle()
	if _, err := c.Embed(ctx, &client.EmbedRequest{Inputs: []string{"a"}}); !errors.Is(err, enough) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

func TestDialErrors(t *testing.T) {
	dir := shortdir.New(t)
	c := &client.Client{Dir: dir}
	_, err := c.Dial(t.Context(), client.LP)
	absent, ok := errors.AsType[*client.DialError](err)
	if !ok || !absent.Transient() || absent.Path != filepath.Join(dir, "inferd.sock") || !strings.Contains(err.Error(), "is inferd running?") {
		t.Errorf("no daemon: %v", err)
	}
	// A daemon that was killed has left its socket.
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(dir, "inferd.sock")})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	_ = ln.Close()
	if _, err := c.Dial(t.Context(), client.LP); !errors.As(err, &absent) || !absent.Transient() {
		t.Errorf("killed daemon: %v", err)
	}
	// Permanent errors are returned at once, whatever Wait is.
	c = &client.Client{Sockets: map[client.Surface]string{client.LP: filepath.Join(dir, strings.Repeat("x", 200))}, Wait: -1}
	if _, err := c.Dial(t.Context(), client.LP); err == nil || strings.Contains(err.Error(), "is inferd running?") {
		t.Errorf("an impossible path: %v", err)
	}
	refused := &client.DialError{Path: "/x", Err: fs.ErrPermission}
	if !strings.Contains(refused.Error(), "--group") || refused.Transient() {
		t.Errorf("a socket of another user: %v", refused)
	}
	begin := time.Now()
	c = &client.Client{Dir: dir, Wait: 60 * time.Millisecond}
	if _, err := c.Dial(t.Context(), client.V1); err == nil || !strings.HasSuffix(err.Error(), "(waited 60ms)") || time.Since(begin) < 60*time.Millisecond {
		t.Errorf("after a wait: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	c.Wait = -1
	if _, err := c.Dial(ctx, client.V1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a context that ends: %v", err)
	}
}

// A daemon refuses a request, and closes the connection before it has read the whole request. The
// client still gets the reason; if the daemon sends none, the client gets another error.
func TestRefusedWhileSending(t *testing.T) {
	dir := shortdir.New(t)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(dir, "infer.sock")})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for name, word := range map[string]string{
		"with an error":    `{"type":"error","id":"","code":"queue_full","message":"too many connections"}` + "\n",
		"without an error": "",
	} {
		t.Run(name, func(t *testing.T) {
			var daemon sync.WaitGroup
			defer daemon.Wait()
			daemon.Go(func() {
				nc, err := ln.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.WriteString(nc, word)
				_ = nc.Close()
			})
			c := &client.Client{Dir: dir}
			_, err := client.Collect(c.GenerateV1(t.Context(), client.Ask(strings.Repeat("a lot ", 1<<20))))
			refused, ok := errors.AsType[*client.Error](err)
			switch {
			case err == nil, ok != (word != ""):
				t.Errorf("GenerateV1: %v", err)
			case ok && refused.Code != client.QueueFull:
				t.Errorf("refused with %v", refused)
			}
		})
	}
}

// A client with Wait gets its answer once the daemon is ready. If that takes longer than Wait, the
// error has the daemon's state.
func TestWaitsForReady(t *testing.T) {
	dir := shortdir.New(t)
	var pauses atomic.Int64
	c := &client.Client{Dir: dir, Wait: waitLimit}
	answer := make(chan error, 1)
	go func() {
		pauses.Add(1)
		a, err := client.Collect(c.Generate(t.Context(), client.Ask("hi")))
		if err == nil && a.Text != "abc" {
			err = fmt.Errorf("the answer is %q", a.Text)
		}
		answer <- err
	}()
	stop, err := start(dir, `{"backends":[{"kind":"mock","name":"m","tokens":["a","b","c"],"ready_after_ms":300}]}`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stop() }()
	hasty := &client.Client{Dir: dir, Wait: 50 * time.Millisecond}
	for s, err := range c.Watch(t.Context()) { // until the daemon runs, but is not ready
		if err != nil || s.Ready() {
			t.Fatalf("%v, %v", s, err)
		}
		break
	}
	if _, err := hasty.Dial(t.Context(), client.LP); err == nil || !strings.HasPrefix(err.Error(), "the daemon is not ready: ") {
		t.Errorf("without a wait: %v", err)
	}
	if err := <-answer; err != nil {
		t.Error(err)
	}
}

// If the daemon is ready but a surface is missing, the client waits for a second and then gives up,
// even if Wait is longer. The error has the time of the wait, unless Wait is 0.
func TestMissingSurface(t *testing.T) {
	c := serve(t, `{"surfaces":{"rerank":false},"backends":[{"kind":"mock","name":"m"}]}`)
	if _, err := client.Collect(c.Generate(t.Context(), client.Ask("hi"))); err != nil {
		t.Fatal(err)
	}
	for _, wait := range []time.Duration{-1, waitLimit, 0} {
		c.Wait = wait
		begin := time.Now()
		_, err := c.Rerank(t.Context(), &client.RerankRequest{Query: "q", Documents: []string{"d"}})
		took := time.Since(begin)
		failed, ok := errors.AsType[*client.DialError](err)
		if !ok || !strings.Contains(err.Error(), "nothing listens") {
			t.Fatalf("Wait %v: %v", wait, err)
		}
		if failed.Waited > took || (failed.Waited < time.Second) != (wait == 0) || strings.Contains(err.Error(), "waited") != (wait != 0) {
			t.Errorf("Wait %v: %v, after %v", wait, err, took)
		}
	}
}

func TestWatch(t *testing.T) {
	dir := shortdir.New(t)
	stop, err := start(dir, oneMock)
	if err != nil {
		t.Fatal(err)
	}
	c := &client.Client{Dir: dir, Wait: waitLimit}
	var states []string
	for s, err := range c.Watch(t.Context()) {
		if err != nil {
			if !errors.Is(err, client.ErrGone) {
				t.Errorf("the watch ended with %v", err)
			}
			break
		}
		if !bytes.Contains(s.Raw, []byte(`"status":"`+s.State+`"`)) {
			t.Errorf("%+v of %s", s, s.Raw)
		}
		if states = append(states, s.State); s.Ready() {
			go func() { _ = stop() }()
		}
	}
	if n := len(states); n < 3 || !slices.Equal(states[n-2:], []string{"ready", "draining"}) || !slices.Contains(states, "capabilities") {
		t.Errorf("states %q", states)
	}
}

// ParseStatus reads the facts of a model from the capabilities of its entry.
func TestParseStatus(t *testing.T) {
	const line = `{"architecture":"llama","backend":"gen","model":"Chain","n_ctx":512,"n_params":7,"quantization":"Q4_K_M","size_bytes":8,"status":"capabilities","x":1}`
	got, err := client.ParseStatus([]byte(line))
	want := client.Status{
		State: "capabilities", Backend: "gen", Raw: []byte(line),
		Facts: client.Facts{Model: "Chain", Architecture: "llama", Quantization: "Q4_K_M", NCtx: 512, Params: 7, Size: 8},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, -want +got\n%s", err, diff)
	}
	if _, err := client.ParseStatus([]byte("{}")); err == nil {
		t.Error("a message without a status is accepted")
	}
}

func TestStats(t *testing.T) {
	c := serve(t, oneMock)
	if _, err := client.Collect(c.Generate(t.Context(), client.Ask("hi"))); err != nil {
		t.Fatal(err)
	}
	s, err := c.Stats(t.Context())
	for err == nil && s.Backends[0].Breaker == "" && t.Context().Err() == nil { // until the request counts as ended
		s, err = c.Stats(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Callers) != 1 || s.Callers[0].Exe != exe && s.Callers[0].Exe != "" || s.Callers[0].OutputTokens != 3 || s.Callers[0].Requests != 1 {
		t.Errorf("callers %+v", s.Callers)
	}
	for i := range s.Backends {
		s.Backends[i].Rate = 0 // depends on the time
	}
	want := []client.BackendStats{{
		Name: "m", Kind: "mock", State: "ready", Slots: 4, Breaker: "closed", Counts: client.Counts{Requests: 1, OutputTokens: 3},
	}}
	if diff := cmp.Diff(want, s.Backends); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if s.Version != "test" || !bytes.Contains(s.Raw, []byte(`"goroutines"`)) {
		t.Errorf("stats %+v", s)
	}
	if err := c.SetLogLevel(t.Context(), "debug"); err != nil {
		t.Error(err)
	}
	if err := c.SetLogLevel(t.Context(), "loud"); err == nil {
		t.Error("an unknown level was set")
	}
}

func TestTrace(t *testing.T) {
	c := serve(t, oneMock)
	var seen []string
	c.Trace = func(m []byte) { seen = append(seen, string(m)) }
	if _, err := client.Collect(c.Generate(t.Context(), client.Ask("hi"))); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 4 || !strings.HasPrefix(seen[3], `{"type":"done"`) {
		t.Errorf("seen %q", seen)
	}
}
