package bridge_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/inferd-go/inferd/internal/admit"
	"github.com/inferd-go/inferd/internal/bridge"
	"github.com/inferd-go/inferd/internal/exchange"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// hiTo has the body of a valid request for each path.
var hiTo = map[string]string{
	"/api/chat":       `{"model":"gen","messages":[{"role":"user","content":"hi"}]}`,
	"/api/generate":   `{"model":"gen","prompt":"hi"}`,
	"/api/embed":      `{"model":"vec","input":"hi"}`,
	"/api/embeddings": `{"model":"vec","prompt":"hi"}`,
	"/api/show":       `{"model":"gen"}`,
	"/api/pull":       `{"model":"gen"}`,
	"/v1/completions": `{"model":"gen","prompt":"hi"}`,
	"/v1/rerank":      `{"model":"gen","query":"hi","documents":["a","hi"]}`,
	"/v2/rerank":      `{"model":"gen","query":"hi","documents":["a","hi"]}`,
	"/rerank":         `{"model":"gen","query":"hi","documents":["a","hi"]}`,
	"/completion":     `{"prompt":"hi"}`,
	"/infill":         `{"input_prefix":"h","input_suffix":"i"}`,
	"/tokenize":       `{"content":"hi"}`,
	"/detokenize":     `{"tokens":[104,105]}`,
	"/apply-template": `{"messages":[{"role":"user","content":"hi"}]}`,
}

// The paths of Ollama and of llama.cpp's server, and the paths for completions and reranking,
// answer with the expected status, content type and body. The model's name in an answer has the
// spelling of the request.
func TestPathsOfOtherDialects(t *testing.T) {
	h := open(t, words("a", "b"), nil)
	for name, test := range map[string]struct {
		request string
		status  int
		kind    string // the content type
		want    string // a part of the body
	}{
		"the root":    {request("GET", "/", ""), 200, "text/plain; charset=utf-8", "Ollama is running"},
		"its version": {request("GET", "/api/version", ""), 200, "application/json", `{"version":"`},
		"tags":        {request("GET", "/api/tags", ""), 200, "application/json", `{"models":[{"name":"gen:latest","model":"gen:latest",`},
		"processes":   {request("GET", "/api/ps", ""), 200, "application/json", `"context_length":512`},
		"show":        {request("POST", "/api/show", `{"name":"gen:latest"}`), 200, "application/json", `"capabilities":["completion","vision","embedding","insert"]`},
		"a chat":      {request("POST", "/api/chat", hiTo["/api/chat"]), 200, "application/x-ndjson", `"message":{"role":"assistant","content":"a"},"done":false}` + "\n"},
		"a chat by another name": {
			request("POST", "/api/chat", `{"model":"gen:latest","messages":[{"role":"user","content":"hi"}],"stream":false}`), 200, "application/json",
			`{"model":"gen:latest","created_at":"`,
		},
		"a chat with an alias": {request("POST", "/api/chat", `{"model":"org/model:latest","messages":[{"role":"user","content":"hi"}],"stream":false}`), 200, "application/json", `"content":"ab"},"done":true,"done_reason":"stop"`},
		"a chat with any":      {request("POST", "/api/chat", `{"messages":[{"role":"user","content":"hi"}],"stream":false}`), 200, "application/json", `{"model":"gen",`},
		"a prompt":             {request("POST", "/api/generate", `{"model":"gen","prompt":"hi","stream":false}`), 200, "application/json", `"response":"ab","done":true,"done_reason":"stop","total_duration":`},
		"a gap":                {request("POST", "/api/generate", `{"model":"gen","prompt":"hi","suffix":"x","stream":false}`), 200, "application/json", `"response":"ab"`},
		"a load":               {request("POST", "/api/generate", `{"model":"gen"}`), 200, "application/x-ndjson", `"done_reason":"load"}` + "\n"},
		"a load in a chat":     {request("POST", "/api/chat", `{"model":"gen","messages":[],"stream":false}`), 200, "application/json", `"done_reason":"load"}`},
		"vectors":              {request("POST", "/api/embed", hiTo["/api/embed"]), 200, "application/json", `{"model":"vec","embeddings":[[`},
		"no vectors":           {request("POST", "/api/embed", `{"model":"vec:latest","input":[]}`), 200, "application/json", `"embeddings":[]`},
		"a vector":             {request("POST", "/api/embeddings", hiTo["/api/embeddings"]), 200, "application/json", `{"embedding":[0.`},
		"a pull":               {request("POST", "/api/pull", `{"model":"gen:latest"}`), 200, "application/x-ndjson", `{"status":"success"}` + "\n"},
		"a pull in one piece":  {request("POST", "/api/pull", `{"name":"gen","stream":false}`), 200, "application/json", `{"status":"success"}`},
		"a completion":         {request("POST", "/v1/completions", hiTo["/v1/completions"]), 200, "application/json", `"object":"text_completion"`},
		"a stream of it":       {request("POST", "/completions", `{"model":"gen","prompt":"hi","stream":true}`), 200, "text/event-stream", "data: [DONE]\n\n"},
		"an echo of tokens":    {request("POST", "/v1/completions", `{"model":"gen","prompt":[104,105],"echo":true}`), 200, "application/json", `"text":"hiab"`},
		"a rerank":             {request("POST", "/v1/rerank", hiTo["/v1/rerank"]), 200, "application/json", `"results":[{"index":1,"relevance_score":0.73`},
		"another rerank":       {request("POST", "/v2/rerank", hiTo["/v2/rerank"]), 200, "application/json", `"model":"gen"`},
		"a third rerank":       {request("POST", "/rerank", hiTo["/rerank"]), 200, "application/json", `"id":"rerank-`},
		"properties":           {request("GET", "/props", ""), 200, "application/json", `{"default_generation_settings":{"n_ctx":512}`},
		"a llama completion":   {request("POST", "/completion", hiTo["/completion"]), 200, "application/json", `{"index":0,"content":"ab",`},
		"a stream of llama's":  {request("POST", "/completion", `{"prompt":"hi","stream":true,"model":"whatever"}`), 200, "text/event-stream", `data: {"index":0,"content":"a",`},
		"an infill":            {request("POST", "/infill", hiTo["/infill"]), 200, "application/json", `"content":"ab"`},
		"tokens":               {request("POST", "/tokenize", hiTo["/tokenize"]), 200, "application/json", `{"tokens":[104,105]}`},
		"vLLM's tokens":        {request("POST", "/tokenize", `{"model":"gen","messages":[{"role":"user","content":"hi"}]}`), 200, "application/json", `{"count":2,"max_model_len":512,"tokens":[104,105]`},
		"text of tokens":       {request("POST", "/detokenize", hiTo["/detokenize"]), 200, "application/json", `{"content":"hi","prompt":"hi"}`},
		"a template":           {request("POST", "/apply-template", hiTo["/apply-template"]), 200, "application/json", `{"prompt":"hi"}`},
	} {
		t.Run(name, func(t *testing.T) {
			got := h.once(test.request)
			if got.status != test.status || got.header.Get("Content-Type") != test.kind || !strings.Contains(got.body, test.want) {
				t.Errorf("got %+v, want %s", got, test.want)
			}
			if strings.Contains(got.body, "\n\n") && test.kind == "application/x-ndjson" {
				t.Errorf("an empty line: %q", got.body)
			}
		})
	}
	kinds := map[wire.Dialect]int{}
	for _, r := range h.kept.records() {
		kinds[r.Dialect]++
		if r.Outcome != exchange.Done {
			t.Errorf("record %+v", r)
		}
	}
	if kinds[wire.Ollama] == 0 || kinds[wire.Llama] == 0 || kinds[wire.OpenAI] == 0 {
		t.Errorf("dialects %v", kinds)
	}
}

// An error has the form of the dialect that owns the path.
func TestRefusalsOfOtherDialects(t *testing.T) {
	h := open(t, words("a"), nil)
	const ollama, llama, openai = `{"error":"`, `{"error":{"code":`, `{"error":{"message":`
	for name, test := range map[string]struct {
		request string
		status  int
		words   string // beginning of the body
		text    string
	}{
		"an unknown path":              {request("GET", "/api/x", ""), 404, ollama, "there is no GET /api/x"},
		"another method":               {request("GET", "/api/chat", ""), 405, ollama, "POST"},
		"another method of a list":     {request("POST", "/api/tags", ""), 405, ollama, "GET"},
		"an unknown model":             {request("POST", "/api/chat", `{"model":"llama3","messages":[{"role":"user","content":"hi"}]}`), 404, ollama, `model \"llama3\" not found`},
		"an unknown model to load":     {request("POST", "/api/generate", `{"model":"llama3"}`), 404, ollama, "not found"},
		"an unknown model to show":     {request("POST", "/api/show", `{"model":"llama3"}`), 404, ollama, "not found"},
		"an unknown model to embed":    {request("POST", "/api/embed", `{"model":"llama3","input":"a"}`), 404, ollama, "not found"},
		"a model to pull":              {request("POST", "/api/pull", `{"model":"llama3"}`), 501, ollama, "/api/pull is not supported"},
		"a model to push":              {request("POST", "/api/push", `{"model":"gen"}`), 501, ollama, "not supported"},
		"a model to create":            {request("POST", "/api/create", `{}`), 501, ollama, "not supported"},
		"a model to copy":              {request("POST", "/api/copy", `{}`), 501, ollama, "not supported"},
		"a model to delete":            {request("DELETE", "/api/delete", ""), 501, ollama, "not supported"},
		"a blob":                       {request("POST", "/api/blobs/sha256:00", "x"), 501, ollama, "not supported"},
		"tools that are not offered":   {request("POST", "/api/chat", `{"model":"gen","messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function","function":{"name":"f"}}]}`), 400, ollama, "tools is not supported by this model"},
		"gzip":                         {request("POST", "/api/chat", "{}", "Content-Encoding: gzip"), 415, ollama, "gzip"},
		"no body":                      {request("POST", "/api/chat", ""), 400, ollama, "EOF"},
		"deeply nested":                {request("POST", "/api/chat", `{"x":`+strings.Repeat("[", 1000)), 400, ollama, "nested deeper"},
		"invalid UTF-8":                {request("POST", "/api/generate", "{\"prompt\":\"\xff\"}"), 400, ollama, "UTF-8"},
		"token arrays":                 {request("POST", "/api/embed", `{"model":"vec","input":[1,2]}`), 400, ollama, "list of texts"},
		"slots":                        {request("GET", "/slots", ""), 501, llama, "prompts of other users"},
		"another method of llama's":    {request("GET", "/completion", ""), 405, llama, "POST"},
		"properties to change":         {request("POST", "/props", "{}"), 405, llama, "GET"},
		"an unknown model, vLLM's way": {request("POST", "/tokenize", `{"model":"x","prompt":"a"}`), 404, llama, `does not exist`},
		"messages that are none":       {request("POST", "/apply-template", `{"messages":["a"]}`), 400, llama, "wrong form"},
		"messages without a role":      {request("POST", "/apply-template", `{"messages":[{"content":"a"}]}`), 400, llama, "role must be one of"},
		"a template without tools":     {request("POST", "/apply-template", `{"messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function","function":{"name":"f"}}]}`), 400, llama, "tools is not supported by this model"},
		"tokens without tools":         {request("POST", "/tokenize", `{"messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function","function":{"name":"f"}}]}`), 400, llama, "tools is not supported by this model"},
		"tools that are none":          {request("POST", "/tokenize", `{"messages":[{"role":"user","content":"hi"}],"tools":["f"]}`), 400, llama, "tools: it has the wrong form"},
		"a wrong type":                 {request("POST", "/completion", `{"prompt":{}}`), 400, llama, "one text"},
		"vLLM's version":               {request("GET", "/version", ""), 404, openai, "there is no GET /version"},
		"vLLM's information":           {request("GET", "/server_info", ""), 404, openai, "/server_info"},
		"two texts":                    {request("POST", "/v1/completions", `{"model":"gen","prompt":["a","b"]}`), 400, openai, "one at a time"},
		"an unknown model to rerank":   {request("POST", "/v1/rerank", `{"model":"x","query":"a","documents":["a"]}`), 404, openai, `\"x\"`},
		"a page's text/plain":          {request("POST", "/api/chat", "{}", "Origin: http://localhost", "Content-Type: text/plain"), 415, ollama, "application/json"},
		"a page of another origin":     {request("POST", "/completion", "{}", "Origin: https://evil.example", "Content-Type: application/json"), 403, llama, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := h.once(test.request)
			if got.status != test.status || !strings.HasPrefix(got.body, test.words) || !strings.Contains(got.body, test.text) || got.header.Get("Content-Type") != "application/json" {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// On every path a request is refused, and does not run, if its body is cut off anywhere.
func TestOtherBodiesCutOff(t *testing.T) {
	h := open(t, infer.HandlerFunc(func(context.Context, *infer.Request, infer.Sink) error {
		t.Error("it runs")
		return nil
	}), nil)
	for path, body := range hiTo {
		for n := 0; n < len(body); n += max(len(body)/10, 1) {
			for _, whole := range []bool{false, true} { // false: shorter than its Content-Length; true: complete, but not complete JSON
				length := len(body)
				if whole {
					length = n
				}
				if all := h.cutOff(path, body[:length], n); !strings.Contains(all, `{"error":`) {
					t.Errorf("%s after %d bytes (%v): %q", path, n, whole, all)
				}
			}
		}
	}
}

// On every path that generates, a client that hangs up frees its slot.
func TestOtherAborts(t *testing.T) {
	for path, bodies := range map[string][]string{
		"/api/chat":       {hiTo["/api/chat"], `{"model":"gen","messages":[{"role":"user","content":"hi"}],"stream":false}`},
		"/api/generate":   {hiTo["/api/generate"], `{"model":"gen","prompt":"hi","stream":false}`},
		"/v1/completions": {hiTo["/v1/completions"], `{"model":"gen","prompt":"hi","stream":true}`},
		"/completion":     {hiTo["/completion"], `{"prompt":"hi","stream":true}`},
		"/infill":         {hiTo["/infill"]},
		"/tokenize":       {hiTo["/tokenize"]},
	} {
		for _, body := range bodies {
			t.Run(path+body, func(t *testing.T) {
				handler := newHold(path != "/tokenize")
				h := open(t, handler, nil)
				nc := h.dial()
				defer nc.Close()
				if _, err := io.WriteString(nc, request("POST", path, body)); err != nil {
					t.Fatal(err)
				}
				wait(t, handler.began, "it begins")
				_ = nc.Close()
				wait(t, handler.ended, "it ends")
			})
		}
	}
}

// An error in the middle of a stream has the form of the dialect, and no message of the stream has
// done or stop set. OpenAI's stream still ends with [DONE]. An answer in one piece gets the status
// 503.
func TestFailuresInTheMiddle(t *testing.T) {
	h := open(t, infer.HandlerFunc(func(_ context.Context, _ *infer.Request, emit infer.Sink) error {
		if err := emit(&infer.Text{Delta: []byte("a")}); err != nil {
			return err
		}
		return infer.Errorf(infer.Unavailable, "the engine has died")
	}), nil)
	for path, test := range map[string]struct{ body, end string }{
		"/api/chat":       {hiTo["/api/chat"], "\n" + `{"error":"the engine has died"}` + "\n"},
		"/api/generate":   {hiTo["/api/generate"], "\n" + `{"error":"the engine has died"}` + "\n"},
		"/completion":     {`{"prompt":"hi","stream":true}`, `data: {"error":{"code":503,"message":"the engine has died","type":"unavailable_error"}}` + "\n\n"},
		"/v1/completions": {`{"model":"gen","prompt":"hi","stream":true}`, "data: [DONE]\n\n"},
	} {
		got := h.once(request("POST", path, test.body))
		if got.status != 200 || !strings.HasSuffix(got.body, test.end) || strings.Contains(got.body, `"done":true`) || strings.Contains(got.body, `"stop":true`) {
			t.Errorf("%s: %+v", path, got)
		}
	}
	for path, body := range map[string]string{"/api/chat": `{"model":"gen","messages":[{"role":"user","content":"hi"}],"stream":false}`, "/completion": `{"prompt":"hi"}`} {
		if got := h.once(request("POST", path, body)); got.status != 503 || got.header.Get("Retry-After") == "" {
			t.Errorf("%s: %+v", path, got)
		}
	}
}

// After 10 s of silence, a stream in Ollama's dialect sends a line with an empty text, because its
// clients fail on a blank line. A stream in llama.cpp's dialect sends a comment without a blank
// line, because its clients fail on a comment with one.
func TestOtherKeepAlives(t *testing.T) {
	slow := infer.HandlerFunc(func(ctx context.Context, _ *infer.Request, emit infer.Sink) error {
		select {
		case <-time.After(25 * time.Second):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := emit(&infer.Text{Delta: []byte("a"), Tokens: 1}); err != nil {
			return err
		}
		return emit(&infer.Done{Reason: infer.EndOfTurn, Out: 1})
	})
	bubble(t, slow, func(_ *testBridge, dial func() net.Conn) {
		for path, body := range map[string]string{"/api/chat": hiTo["/api/chat"], "/api/generate": hiTo["/api/generate"], "/completion": `{"prompt":"hi","stream":true}`} {
			nc := dial()
			go func() { _, _ = io.WriteString(nc, request("POST", path, body)) }()
			got := receive(t, bufio.NewReader(nc))
			if path == "/completion" {
				if strings.Count(got.body, ": ping\n") != 2 || strings.Contains(got.body, ": ping\n\n") {
					t.Errorf("%s: %q", path, got.body)
				}
				continue
			}
			lines := strings.Split(strings.TrimSuffix(got.body, "\n"), "\n")
			if len(lines) != 4 {
				t.Errorf("%s: %d lines: %q", path, len(lines), got.body)
			}
			for i, line := range lines {
				var m struct {
					Message struct {
						Content string `json:"content"`
					} `json:"message"`
					Response string `json:"response"`
					Done     bool   `json:"done"`
				}
				if err := json.Unmarshal([]byte(line), &m); err != nil || m.Done != (i == 3) || m.Message.Content+m.Response != map[int]string{2: "a"}[i] {
					t.Errorf("%s: line %d: %s, %v", path, i, line, err)
				}
			}
		}
	})
}

// ollama/ollama#8029: options of a request neither load nor unload a model that other clients use.
// A header lists the ignored members.
func TestOptionsReloadNothing8029(t *testing.T) {
	h := open(t, words("a"), nil)
	for path, body := range map[string]string{
		"/api/chat":     `{"model":"gen","messages":[{"role":"user","content":"hi"}],"options":{"num_ctx":131072},"keep_alive":0}`,
		"/api/generate": `{"model":"gen","prompt":"","options":{"num_ctx":131072},"keep_alive":0}`,
	} {
		got := h.once(request("POST", path, body))
		if got.status != 200 || got.header.Get("Inferd-Ignored") != "keep_alive, num_ctx" {
			t.Errorf("%s: %+v", path, got)
		}
		if got := h.once(request("GET", "/api/ps", "")); !strings.Contains(got.body, `"name":"gen:latest"`) || !strings.Contains(got.body, `"context_length":512`) {
			t.Errorf("%s: %+v", path, got)
		}
	}
}

// aweussom/NoLlama#9: an editor refuses a version that does not consist of digits, or is older than
// 0.6.4.
func TestVersionHasDigits9(t *testing.T) {
	h := open(t, words("a"), nil)
	var m struct {
		Version string `json:"version"`
	}
	got := h.once(request("GET", "/api/version", ""))
	if err := json.Unmarshal([]byte(got.body), &m); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(m.Version, ".")
	if len(parts) != 3 || strings.Trim(m.Version, "0123456789.") != "" || parts[0] == "0" && len(parts[1]) < 2 {
		t.Errorf("version %q", m.Version)
	}
}

// jjang-ai/mlxstudio#72: an editor lists a model by its capabilities, and the stock client fails
// without model_info.
func TestShowHasCapabilities72(t *testing.T) {
	h := open(t, words("a"), nil)
	got := h.once(request("POST", "/api/show", `{"model":"vec"}`))
	var m struct {
		Capabilities []string        `json:"capabilities"`
		Info         *map[string]any `json:"model_info"`
	}
	if err := json.Unmarshal([]byte(got.body), &m); err != nil || len(m.Capabilities) != 1 || m.Capabilities[0] != "embedding" || m.Info == nil {
		t.Errorf("got %+v, %v", got, err)
	}
}

// docker/model-runner#403: a suffix reaches the handler. If the model cannot infill, the error names the
// suffix; it is never ignored.
func TestSuffixIsNotIgnored403(t *testing.T) {
	var asked infer.Generate
	handler := infer.HandlerFunc(func(_ context.Context, req *infer.Request, emit infer.Sink) error {
		asked = *req.Task.(*infer.Generate)
		if !infer.Needs(req.Task).Infill {
			return emit(&infer.Done{Reason: infer.EndOfTurn})
		}
		return infer.Abilities{Generate: true, Prompt: true}.Check(req.Task)
	})
	h := open(t, handler, nil)
	for path, body := range map[string]string{
		"/v1/completions": `{"model":"gen","prompt":"a","suffix":"b"}`,
		"/api/generate":   `{"model":"gen","prompt":"a","suffix":"b"}`,
		"/infill":         `{"input_prefix":"a","input_suffix":"b"}`,
	} {
		got := h.once(request("POST", path, body))
		if got.status != 400 || !strings.Contains(got.body, "suffix is not supported by this model") || *asked.Suffix != "b" || *asked.Prompt != "a" {
			t.Errorf("%s: %+v", path, got)
		}
	}
	got := h.once(request("POST", "/v1/completions", `{"model":"gen","prompt":"a","suffix":"b"}`))
	if _, _, param, _ := got.failure(); param != "suffix" {
		t.Errorf("got %+v", got)
	}
}

// osaurus-ai/osaurus#1247: the prompt of a completion is continued as it is, without the model's
// template.
func TestCompletionsHaveNoTemplate1247(t *testing.T) {
	var asked infer.Generate
	h := open(t, infer.HandlerFunc(func(_ context.Context, req *infer.Request, emit infer.Sink) error {
		asked = *req.Task.(*infer.Generate)
		return emit(&infer.Done{Reason: infer.EndOfTurn})
	}), nil)
	for path, body := range map[string]string{
		"/v1/completions": `{"model":"gen","prompt":"<|im_start|>user\nhi"}`,
		"/completion":     `{"prompt":"<|im_start|>user\nhi"}`,
		"/api/generate":   `{"model":"gen","prompt":"<|im_start|>user\nhi","raw":true}`,
	} {
		got := h.once(request("POST", path, body))
		if got.status != 200 || asked.Prompt == nil || *asked.Prompt != "<|im_start|>user\nhi" || len(asked.Messages) > 0 {
			t.Errorf("%s: %+v, %+v", path, got, asked)
		}
		if limit := asked.Defaults.MaxTokens; limit != map[string]int{"/v1/completions": 16}[path] {
			t.Errorf("%s: the limit is %d", path, limit)
		}
	}
}

// On llama.cpp's paths a request need not name a model. If it names none, or none that generates, the
// first entry that can do the task answers.
func TestFirstModelAnswers(t *testing.T) {
	var routed string
	handler := infer.HandlerFunc(func(_ context.Context, req *infer.Request, emit infer.Sink) error {
		routed = infer.ModelOf(req.Task)
		return emit(&infer.Done{Reason: infer.EndOfTurn})
	})
	h := build(t, handler, nil)
	plain, fills := infer.AllAbilities(), infer.AllAbilities()
	plain.Infill, plain.Tools = false, false
	choose := h.gate.Choose
	h.gate.Choose = func(req *infer.Request) (admit.Destination, error) { // every request may run
		to, _ := choose(req)
		return to, nil
	}
	h.bridge.Open(func() []bridge.Entry {
		return []bridge.Entry{
			{Name: "vec", Can: infer.Abilities{Embed: true}}, {Name: "gen", Can: plain, NCtx: 512}, {Name: "code", Can: fills, NCtx: 1024},
		}
	})
	h.serve()
	for name, test := range map[string]struct{ path, body, model string }{
		"a completion":               {"/completion", `{"prompt":"a"}`, "gen"},
		"an unknown name":            {"/completion", `{"prompt":"a","model":"gpt-4"}`, "gen"},
		"a name":                     {"/completion", `{"prompt":"a","model":"code"}`, "code"},
		"a name that cannot":         {"/completion", `{"prompt":"a","model":"vec"}`, "gen"},
		"a gap":                      {"/infill", `{"input_prefix":"a"}`, "code"},
		"a gap, where it cannot be":  {"/infill", `{"input_prefix":"a","model":"gen"}`, "gen"},
		"tokens":                     {"/tokenize", `{"content":"a"}`, "gen"},
		"tokens of a name, vLLM's":   {"/tokenize", `{"model":"code","prompt":"a"}`, "code"},
		"text of tokens of any name": {"/detokenize", `{"model":"x","tokens":[1]}`, "gen"},
		"a conversation":             {"/apply-template", hiTo["/apply-template"], "gen"},
		"no tools":                   {"/apply-template", `{"messages":[{"role":"user","content":"hi"}],"tools":[]}`, "gen"},
		"tools":                      {"/apply-template", `{"messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function","function":{"name":"f"}}]}`, "code"},
		"tokens with tools":          {"/tokenize", `{"messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function","function":{"name":"f"}}]}`, "code"},
	} {
		if got := h.once(request("POST", test.path, test.body)); got.status != 200 || routed != test.model {
			t.Errorf("%s: routed to %q, %+v", name, routed, got)
		}
	}
}

// If keys are configured, all paths of other dialects need one.
func TestOtherPathsNeedTheKey(t *testing.T) {
	h := open(t, words("a"), func(b *bridge.Bridge) { b.Access = bridge.Access{UID: -1, Keys: []*bridge.Key{key(t, "ci", secret)}} })
	for path, body := range hiTo {
		if got := h.once(request("POST", path, body)); got.status != http.StatusForbidden {
			t.Errorf("%s without a key: %+v", path, got)
		}
		if got := h.once(request("POST", path, body, "Authorization: Bearer "+secret)); got.status != http.StatusOK {
			t.Errorf("%s: %+v", path, got)
		}
	}
	for _, path := range []string{"/", "/api/tags", "/api/ps", "/api/version", "/props", "/slots"} {
		if got := h.once(request("GET", path, "")); got.status != http.StatusForbidden {
			t.Errorf("%s without a key: %+v", path, got)
		}
	}
}
