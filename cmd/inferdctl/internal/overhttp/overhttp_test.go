package overhttp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/client/stats"
	"github.com/inferd-go/inferd/cmd/inferdctl/internal/overhttp"
	"github.com/inferd-go/inferd/internal/backend/mock"
	"github.com/inferd-go/inferd/internal/bridge"
	"github.com/inferd-go/inferd/internal/exchange"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/page"
	"github.com/inferd-go/inferd/internal/status"
)

const secret = "0123456789abcdef"

// A testDaemon serves the daemon's bridge with a handler of the test.
type testDaemon struct {
	tcp, unix string
	board     *status.Board
	asked     chan *infer.Request
	can       infer.Abilities // of the model
}

// serve serves a bridge over TCP and a socket until the test ends. change, if not nil, is called
// with the bridge before.
func serve(t *testing.T, handler infer.Handler, change func(*bridge.Bridge)) *testDaemon {
	t.Helper()
	h := &testDaemon{board: status.NewBoard(status.Ready{}), asked: make(chan *infer.Request, 16), can: infer.AllAbilities()}
	h.board.Publish(status.Capabilities{Backend: "gen", Abilities: infer.Abilities{Generate: true}})
	recorded := infer.HandlerFunc(func(ctx context.Context, req *infer.Request, emit infer.Sink) error {
		h.asked <- req
		return handler.Handle(ctx, req, emit)
	})
	b := &bridge.Bridge{
		Runner: &exchange.Runner{Handler: recorded, Log: slog.New(slog.DiscardHandler)},
		Access: bridge.Access{UID: os.Getuid()},
		UserOf: func(*net.TCPConn) (uint32, error) { return uint32(os.Getuid()), nil },
		Page: &page.Page{
			Board: h.board, UID: os.Getuid(),
			Stats: func(context.Context) *stats.Daemon {
				return &stats.Daemon{Version: "1.2", Callers: []stats.Caller{}, Backends: []stats.Backend{{Name: "gen"}}}
			},
		},
	}
	if change != nil {
		change(b)
	}
	b.Open(func() []bridge.Entry { return []bridge.Entry{{Name: "gen", Can: h.can}} })
	dir, err := os.MkdirTemp("", "o")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "http.sock")
	local, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.tcp, h.unix = "http://"+tcp.Addr().String(), "unix:"+path
	ctx, stop := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	for _, ln := range []net.Listener{local, tcp} {
		serving.Go(func() { _ = b.Serve(ctx, ln) })
	}
	t.Cleanup(func() {
		stop()
		serving.Wait()
		_ = os.RemoveAll(dir)
	})
	return h
}

func dial(t *testing.T, address string) *overhttp.Client {
	t.Helper()
	c, err := overhttp.New(address)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestGenerate(t *testing.T) {
	h := serve(t, &mock.Backend{Tokens: []string{"one ", "two"}, PromptTokens: 7}, nil)
	for _, address := range []string{h.tcp, h.tcp + "/", h.tcp + "/v1", h.unix} {
		c := dial(t, address)
		var trace bytes.Buffer
		c.Trace = func(line []byte) { trace.Write(append(line, '\n')) }
		seed, cold := int64(5), 0.0
		req := &client.Request{
			Model: "gen", Messages: []client.Message{client.Text(client.System, "be brief"), client.Text(client.User, "hi")},
			Seed: &seed, Temperature: &cold, Format: client.Format{JSONSchema: []byte(`{"type":"string"}`)},
		}
		answer, err := client.Collect(c.Generate(t.Context(), req))
		if err != nil || answer.Text != "one two" || answer.StopReason != client.EndTurn || answer.InputTokens != 7 || answer.OutputTokens != 2 {
			t.Errorf("%s: %+v, %v", address, answer, err)
		}
		if !strings.Contains(trace.String(), `"delta":{"content":"one "}`) || !strings.HasSuffix(trace.String(), "[DONE]\n") {
			t.Errorf("%s: trace %s", address, &trace)
		}
		asked := <-h.asked
		gen := asked.Task.(*infer.Generate)
		if gen.MaxTokens != client.DefaultMaxTokens || *gen.Sampling.Temperature != 0 || *gen.Sampling.Seed != 5 || len(gen.Messages) != 2 || string(gen.Format.Schema) != `{"type":"string"}` {
			t.Errorf("%s: asked %+v", address, gen)
		}
	}
}

// Tools, calls and thinking cross HTTP in both directions. A reader can leave the loop after any
// event.
func TestToolsAndThinking(t *testing.T) {
	handler := infer.HandlerFunc(func(_ context.Context, _ *infer.Request, emit infer.Sink) error {
		for _, ev := range []infer.Event{
			&infer.Thinking{Delta: []byte("Hm."), Tokens: 1},
			&infer.Text{Delta: []byte("I look."), Tokens: 2},
			&infer.ToolCall{ID: "tc-1", Name: "now", Input: []byte(`{"a":"<b>"}`)},
			&infer.ToolCall{ID: "tc-2", Name: "then", Input: []byte(`{}`)},
			&infer.Text{Delta: []byte("So."), Tokens: 1},
			&infer.Done{Reason: infer.CalledTool},
		} {
			if err := emit(ev); err != nil {
				return err
			}
		}
		return nil
	})
	h := serve(t, handler, nil)
	c := dial(t, h.unix)
	req := client.Ask("hi")
	req.Tools = []client.Tool{{Name: "now", Description: "d", InputSchema: []byte(`{"type":"object"}`)}, {Name: "then"}}
	seen := func(req *client.Request, most int) string {
		var all []string
		for ev, err := range c.Generate(t.Context(), req) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, ev.Thinking+ev.Text)
			if ev.Call != nil {
				all[len(all)-1] = ev.Call.ID + " " + ev.Call.Name + string(ev.Call.Input)
			}
			if ev.Done != nil {
				all[len(all)-1] = string(ev.Done.StopReason)
			}
			if len(all) == most {
				break
			}
		}
		return strings.Join(all, "|")
	}
	for _, test := range []struct {
		choice   client.ToolChoice
		thinking client.Thinking
		budget   int
		want     string // as the engine sees it
	}{
		{"", client.ThinkAuto, 0, "{ }  0"},
		{"auto", client.ThinkOn, 0, "{ } on 0"},
		{"required", client.ThinkOff, 0, "{required } off 0"},
		{"none", client.ThinkOn, 64, "{none } on 64"},
		{"then", client.ThinkAuto, 0, "{tool then}  0"},
	} {
		req.ToolChoice, req.Thinking, req.ThinkingBudget = test.choice, test.thinking, test.budget
		if got := seen(req, 0); got != `Hm.|I look.|tc-1 now{"a":"<b>"}|tc-2 then{}|So.|tool_use` {
			t.Errorf("%s: %s", test.choice, got)
		}
		gen := (<-h.asked).Task.(*infer.Generate)
		if got := fmt.Sprintf("%v %v %d", gen.Choice, gen.Thinking, gen.ThinkingBudget); got != test.want {
			t.Errorf("asked %s, want %s", got, test.want)
		}
		if len(gen.Tools) != 2 || gen.Tools[0].Description != "d" || string(gen.Tools[0].Schema) != `{"type":"object"}` || gen.Tools[1].Schema != nil {
			t.Errorf("asked with the tools %+v", gen.Tools)
		}
	}
	for most := 1; most < 6; most++ {
		if got := seen(req, most); strings.Count(got, "|") != most-1 {
			t.Errorf("left after %d events, got %s", most, got)
		}
		<-h.asked
	}
}

// If the model cannot think, a request for thinking fails instead of being ignored.
func TestThinkingIsNotIgnored(t *testing.T) {
	h := serve(t, &mock.Backend{}, nil)
	h.can.Thinking = false
	req := client.Ask("hi")
	for _, budget := range []int{0, 64} {
		req.Thinking, req.ThinkingBudget = client.ThinkOn, budget
		_, err := client.Collect(dial(t, h.tcp).Generate(t.Context(), req))
		if err == nil || err.Error() != "invalid_request: invalid request: thinking is not supported by this model" {
			t.Errorf("a budget of %d: %v", budget, err)
		}
	}
	req.Thinking, req.ThinkingBudget = client.ThinkOff, 0
	if _, err := client.Collect(dial(t, h.tcp).Generate(t.Context(), req)); err != nil {
		t.Errorf("no thinking: %v", err)
	}
}

// Each field of a request has an effect, or is refused by its name.
func TestNoFieldIsDropped(t *testing.T) {
	h := serve(t, &mock.Backend{Tokens: []string{"a"}}, nil)
	c := dial(t, h.unix)
	asked := func(req *client.Request) (string, error) {
		if _, err := client.Collect(c.Generate(t.Context(), req)); err != nil {
			return "", err
		}
		gen := (<-h.asked).Task.(*infer.Generate)
		text, err := json.Marshal(gen)
		return string(text), err
	}
	plain, err := asked(client.Ask("hi"))
	if err != nil {
		t.Fatal(err)
	}
	number, seed, text := 0.5, int64(5), "x"
	values := map[string]any{
		"Model": "gen", "Messages": []client.Message{client.Text(client.User, "ho")}, "Prompt": &text, "Suffix": &text,
		"Attachments": []client.Attachment{{ID: "a"}}, "Tools": []client.Tool{{Name: "f"}}, "ToolChoice": client.ToolChoice("required"),
		"OneCall": true, "Format": client.Format{JSONSchema: []byte(`{}`)}, "Thinking": client.ThinkOn, "ThinkingBudget": 9,
		"MaxTokens": 7, "Stop": []string{"x"}, "Temperature": &number, "TopP": &number, "TopK": new(4), "MinP": number,
		"RepeatPenalty": number, "PresencePenalty": number, "FrequencyPenalty": number, "Seed": &seed,
		"LogitBias": map[int]float64{1: 1}, "Logprobs": 2, "Background": true, "Client": "c", "CacheSalt": "s", "LocalOnly": true,
		"Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Whole": true,
	}
	for field := range reflect.TypeFor[client.Request]().Fields() {
		name := field.Name
		if name == "ID" { // tells apart the requests on a socket; HTTP does not send it
			continue
		}
		value, known := values[name]
		if !known {
			t.Errorf("no value for %s", name)
			continue
		}
		req := client.Ask("hi")
		reflect.ValueOf(req).Elem().FieldByName(name).Set(reflect.ValueOf(value))
		if name == "ToolChoice" {
			req.Tools = []client.Tool{{Name: "f"}}
		}
		got, err := asked(req)
		if err == nil && got == plain || err != nil && err.Error() != name+" does not go over HTTP" {
			t.Errorf("%s: asked %s, %v", name, got, err)
		}
	}
	for _, format := range []client.Format{{Grammar: `root ::= "a"`}, {JSONObject: true}} {
		req := client.Ask("hi")
		req.Format = format
		if _, err := asked(req); err == nil || err.Error() != "Format does not go over HTTP" {
			t.Errorf("%+v: %v", format, err)
		}
	}
}

func TestEmbedAndRerank(t *testing.T) {
	h := serve(t, &mock.Backend{Dimensions: 3}, nil)
	c := dial(t, h.tcp)
	e, err := c.Embed(t.Context(), &client.EmbedRequest{Model: "gen", Inputs: []string{"a", "bc"}, Dimensions: 2})
	if err != nil || len(e.Vectors) != 2 || len(e.Vectors[0]) != 2 {
		t.Errorf("Embed = %+v, %v", e, err)
	}
	if _, err := c.Embed(t.Context(), &client.EmbedRequest{Inputs: []string{"a"}, Task: "similarity"}); err == nil || !strings.Contains(err.Error(), "--task does not go over HTTP") {
		t.Errorf("a task: %v", err)
	}
	if _, err := c.Embed(t.Context(), &client.EmbedRequest{Inputs: []string{"a"}, Dimensions: -1}); err == nil || !strings.Contains(err.Error(), "dimensions") {
		t.Errorf("-1 dimensions: %v", err)
	}
	if _, err := c.Rerank(t.Context(), &client.RerankRequest{Query: "q", Documents: []string{"a"}, TopN: -1}); err == nil || !strings.Contains(err.Error(), "top_n") {
		t.Errorf("the best -1: %v", err)
	}
	r, err := c.Rerank(t.Context(), &client.RerankRequest{Query: "red fruit", Documents: []string{"a car", "a red fruit", "fruit"}, TopN: 2})
	if err != nil || len(r.Results) != 2 || r.Results[0].Index != 1 || r.Results[0].Score < r.Results[1].Score {
		t.Errorf("Rerank = %+v, %v", r, err)
	}
}

func TestState(t *testing.T) {
	h := serve(t, &mock.Backend{}, nil)
	c := dial(t, h.unix)
	s, err := c.Stats(t.Context())
	if err != nil || s.Version != "1.2" || !strings.Contains(string(s.Raw), `"backends":[{"name":"gen"`) {
		t.Errorf("Stats = %+v, %v", s, err)
	}
	var seen []string
	for st, err := range c.Watch(t.Context()) {
		if err != nil {
			if !errors.Is(err, client.ErrGone) {
				t.Error(err)
			}
			break
		}
		seen = append(seen, st.String())
		if st.Ready() {
			h.board.Publish(status.Draining{})
		}
	}
	if got := strings.Join(seen, ", "); got != "capabilities gen, ready, draining" {
		t.Errorf("Watch yields %s", got)
	}
	off := serve(t, &mock.Backend{}, func(b *bridge.Bridge) { b.Page = nil })
	if _, err := dial(t, off.tcp).Stats(t.Context()); err == nil || !strings.Contains(err.Error(), "http.page") {
		t.Errorf("without the page: %v", err)
	}
}

// A refusal has the same code as over the sockets. If the daemon requires a key, a request without
// it is refused.
func TestRefusals(t *testing.T) {
	ask := func(c *overhttp.Client) error {
		_, err := client.Collect(c.Generate(t.Context(), client.Ask("hi")))
		return err
	}
	for name, test := range map[string]struct {
		handler infer.Handler
		want    string
	}{
		"a refusal":         {&mock.Backend{PreStream: "invalid_request"}, "invalid_request: "},
		"not available":     {&mock.Backend{PreStream: "unavailable"}, "backend_unavailable: "},
		"a failed stream":   {&mock.Backend{Tokens: []string{"a", "b"}, DropAfter: 1, TokenDelay: time.Millisecond}, "backend_unavailable: "},
		"an internal fault": {&mock.Backend{PreStream: "internal"}, "internal: "},
	} {
		h := serve(t, test.handler, nil)
		if err := ask(dial(t, h.tcp)); err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	k, err := bridge.NewKey("ci", secret)
	if err != nil {
		t.Fatal(err)
	}
	h := serve(t, &mock.Backend{}, func(b *bridge.Bridge) { b.Access.Keys, b.Access.UID = []*bridge.Key{k}, os.Getuid()+1 })
	c := dial(t, h.tcp)
	if err := ask(c); err == nil || !strings.Contains(err.Error(), "needs a key") {
		t.Errorf("without a key: %v", err)
	}
	c.Key = secret
	if err := ask(c); err != nil {
		t.Errorf("with a key: %v", err)
	}
}

// The error says whether the server is not inferd, its answer is invalid or breaks off, or no
// daemon listens.
func TestNoDaemon(t *testing.T) {
	for name, test := range map[string]struct {
		serve func(http.ResponseWriter, *http.Request)
		want  string
	}{
		"another server": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusNotFound) }, "is not inferd: it answered 404 Not Found"},
		"no JSON":        {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "data: {x\n\n") }, "not from inferd"},
		"an early end":   {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "data: {\"choices\":[]}\n\n") }, "went away before the end"},
		"a broken end": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9")
			_, _ = io.WriteString(w, "data")
		}, "went away before the end"},
		"an error at last": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "data: {\"error\":{\"message\":\"too late\"}}\n\n")
		}, "too late"},
	} {
		server := httptest.NewServer(http.HandlerFunc(test.serve))
		_, err := client.Collect(dial(t, server.URL).Generate(t.Context(), client.Ask("hi")))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		server.Close()
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := ln.Addr().String()
	_ = ln.Close()
	if _, err := dial(t, "http://"+at).Stats(t.Context()); err == nil || !strings.Contains(err.Error(), "is inferd running with --http?") {
		t.Errorf("no process listens: %v", err)
	}
	if _, err := dial(t, "unix:"+filepath.Join(t.TempDir(), "none")).Stats(t.Context()); err == nil || !strings.Contains(err.Error(), "is inferd running") {
		t.Errorf("no socket: %v", err)
	}
}

// With Wait the client waits for a daemon that does not run yet. If none begins to listen within
// Wait, the client returns an error.
func TestWait(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := ln.Addr().String()
	_ = ln.Close()
	c := dial(t, "http://"+at)
	c.Wait = 150 * time.Millisecond
	if _, err := c.Stats(t.Context()); err == nil {
		t.Error("an answer without a daemon")
	}
	c.Wait = -1
	began := make(chan struct{})
	go func() {
		<-began
		ln, err := net.Listen("tcp", at)
		if err != nil {
			return
		}
		_ = http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"version":"late"}`) }))
	}()
	close(began)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if s, err := c.Stats(ctx); err != nil || s.Version != "late" {
		t.Errorf("Stats = %+v, %v", s, err)
	}
}

func TestAddresses(t *testing.T) {
	for _, address := range []string{"", "here", "ftp://x", "http://", "unix:", "http://user@host", "http://host/?q=1", "127.0.0.1:8080"} {
		if _, err := overhttp.New(address); err == nil || !strings.Contains(err.Error(), "want ") {
			t.Errorf("New(%q): %v", address, err)
		}
	}
}

func TestCheckListener(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := ln.Addr().(*net.TCPAddr).AddrPort()
	if err := overhttp.CheckListener(at); err != nil {
		t.Errorf("our own: %v", err)
	}
	_ = ln.Close()
	err = overhttp.CheckListener(at)
	if _, ok := errors.AsType[*overhttp.ListenerError](err); err != nil && !ok {
		t.Errorf("no process listens: %v", err)
	}
	if got := (&overhttp.ListenerError{At: netip.MustParseAddrPort("127.0.0.1:80"), Why: "user 7 listens there"}).Error(); got != "127.0.0.1:80 is not used: user 7 listens there, and it must be you or root" {
		t.Errorf("it says %q", got)
	}
}
