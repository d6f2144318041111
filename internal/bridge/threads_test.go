package bridge_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/bridge"
	"github.com/inferd-go/inferd/internal/infer"
)

// Faults that were reported for other servers do not occur in any dialect. Each case is named after
// its report.
func TestThreads(t *testing.T) {
	t.Run("earendil-works/pi#1887: a request waits while models are loaded", func(t *testing.T) {
		for _, l := range dialectCases {
			h := build(t, words("a"), func(b *bridge.Bridge) { b.ReadyTimeout = waitLimit }).serve()
			nc := h.dial()
			if _, err := io.WriteString(nc, l.request("")); err != nil {
				t.Fatal(err)
			}
			if got := h.once(request("GET", "/health", "")); got.status != 503 {
				t.Errorf("got %+v", got)
			}
			h.bridge.Open(entries)
			if got := receive(t, bufio.NewReader(nc)); got.status != 200 {
				t.Errorf("%s: %+v", l.dialect, got)
			}
			_ = nc.Close()
		}
	})
	t.Run("open-mercato/cezar#426: a page's request needs a preflight", func(t *testing.T) {
		h := open(t, words("a"), nil)
		for _, l := range dialectCases {
			for _, kind := range []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""} {
				for _, page := range []string{"Origin: http://localhost", "Sec-Fetch-Site: same-origin"} {
					if got := h.once(request("POST", l.path, l.body+"}", page, "Content-Type: "+kind)); got.status != 415 {
						t.Errorf("%s, %s, %q: %+v", l.dialect, page, kind, got)
					}
				}
				if got := h.once(request("POST", l.path, l.body+"}", "Content-Type: "+kind)); got.status != 200 { // as curl -d sends it
					t.Errorf("%s, %q, no page: %+v", l.dialect, kind, got)
				}
			}
		}
	})
	t.Run("openai/openai-python#2722, mckinsey/agents-at-scale-ark#2567, anomalyco/opencode#50871: a keep-alive is no event without data", func(t *testing.T) {
		for _, l := range dialectCases {
			bubble(t, slowly{25 * time.Second}, func(_ *testBridge, dial func() net.Conn) {
				got := send(t, dial(), l.request(`,"stream":true`))
				for event := range strings.SplitSeq(strings.TrimSuffix(got.body, "\n\n"), "\n\n") {
					var data strings.Builder
					for line := range strings.SplitSeq(event, "\n") {
						if text, is := strings.CutPrefix(line, "data:"); is {
							data.WriteString(strings.TrimSpace(text))
						}
					}
					if data.String() == "" || data.String() != "[DONE]" && data.String()[0] != '{' {
						t.Errorf("%s: the event %q", l.dialect, event)
					}
				}
			})
		}
	})
	t.Run("ggml-org/llama.cpp#20733: system messages at the start are one", func(t *testing.T) {
		var asked atomic.Pointer[infer.Generate]
		h := open(t, infer.HandlerFunc(func(_ context.Context, req *infer.Request, emit infer.Sink) error {
			gen, _ := req.Task.(*infer.Generate)
			asked.Store(gen)
			return emit(&infer.Done{Reason: infer.EndOfTurn})
		}), nil)
		const turns = `[{"role":"system","content":"a"},{"role":"system","content":"b"},{"role":"user","content":"hi"}]`
		for path, member := range map[string]string{chatPath: "messages", responsesPath: "input", messagesPath: "messages"} {
			if got := h.once(request("POST", path, `{"model":"gen","`+member+`":`+turns+`}`)); got.status != 200 {
				t.Fatalf("%s: %+v", path, got)
			}
			if got := strings.Join(text(asked.Load()), "|"); got != "system: a\n\nb|user: hi" {
				t.Errorf("%s: %q", path, got)
			}
		}
	})
	t.Run("router-for-me/CLIProxyAPI#679, BerriAI/litellm#13252: a count is that of the whole prompt", func(t *testing.T) {
		var counted, generated atomic.Pointer[infer.Generate]
		h := open(t, infer.HandlerFunc(func(_ context.Context, req *infer.Request, emit infer.Sink) error {
			switch task := req.Task.(type) {
			case *infer.Count:
				counted.Store(task.Of)
			case *infer.Generate:
				generated.Store(task)
			case *infer.Embed, *infer.Rerank:
			}
			return emit(&infer.Done{Reason: infer.EndOfTurn, In: 42})
		}), nil)
		const body = `{"model":"gen","system":[{"type":"text","text":"be brief"}],"messages":[{"role":"user","content":"hi"}]}`
		for _, path := range []string{countPath, messagesPath} {
			if got := h.once(request("POST", path, body)); got.status != 200 || !strings.Contains(got.body, `"input_tokens":42`) {
				t.Errorf("%s: %+v", path, got)
			}
		}
		if a, b := strings.Join(text(counted.Load()), "|"), strings.Join(text(generated.Load()), "|"); a != b || !strings.Contains(a, "be brief") {
			t.Errorf("counted %q, generated of %q", a, b)
		}
	})
}
