package overhttp_test

import (
	"bytes"
	"context"
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

// A house is the daemon's bridge over a handler.
type house struct {
	tcp, unix string
	board     *status.Board
	asked     chan *infer.Request
}

// serve serves a bridge over TCP and a socket until the test ends.
func serve(t *testing.T, handler infer.Handler, change func(*bridge.Bridge)) *house {
	t.Helper()
	h := &house{board: status.NewBoard(status.Ready{}), asked: make(chan *infer.Request, 16)}
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
	b.Open(func() []bridge.Entry { return []bridge.Entry{{Name: "gen", Can: infer.AllAbilities()}} })
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

// Refusals have the daemon's words, and the codes of the sockets.
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
		"a failed stream":   {&mock.Backend{Tokens: []string{"a", "b"}, DropAfter: 1, TokenDelay: time.Millisecond}, ""},
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

// Another server is told apart from a daemon that refuses.
func TestNoDaemon(t *testing.T) {
	for name, test := range map[string]struct {
		serve func(http.ResponseWriter, *http.Request)
		want  string
	}{
		"another server": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusNotFound) }, "answers 404 Not Found, and is no inferd"},
		"no JSON":        {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "data: {x\n\n") }, "none of inferd's"},
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
		t.Errorf("nobody listens: %v", err)
	}
	if _, err := dial(t, "unix:"+filepath.Join(t.TempDir(), "none")).Stats(t.Context()); err == nil || !strings.Contains(err.Error(), "is inferd running") {
		t.Errorf("no socket: %v", err)
	}
}

// With Wait, the client waits for a daemon, and not longer.
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
		t.Error("an answer of nobody")
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
		t.Errorf("nobody listens: %v", err)
	}
	if got := (&overhttp.ListenerError{At: netip.MustParseAddrPort("127.0.0.1:80"), Why: "user 7 listens there"}).Error(); got != "127.0.0.1:80 is not used: user 7 listens there, and it must be you or root" {
		t.Errorf("it says %q", got)
	}
}
