package bridge_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/inferd-go/inferd/internal/admit"
	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/backend/mock"
	"github.com/inferd-go/inferd/internal/bridge"
	"github.com/inferd-go/inferd/internal/exchange"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/quota"
	"github.com/inferd-go/inferd/internal/shortdir"
	"github.com/inferd-go/inferd/internal/wire"
)

// waitLimit bounds each wait. It is long enough for a busy machine.
const waitLimit = 30 * time.Second

// A testBridge is a bridge in front of a gate with one slot and one place in the queue. A handler
// answers the requests.
type testBridge struct {
	t       *testing.T
	bridge  *bridge.Bridge
	gate    *admit.Gate
	kept    *journal
	addr    net.Addr // TCP address
	path    string   // path of the Unix socket
	stop    context.CancelFunc
	serving sync.WaitGroup
}

// A journal collects the records of requests and connections.
type journal struct {
	mu    sync.Mutex
	all   []exchange.Record
	conns []exchange.Connection
}

func (j *journal) Connection(c *exchange.Connection) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.conns = append(j.conns, *c)
}

func (j *journal) Request(r *exchange.Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.all = append(j.all, *r)
}

func (j *journal) records() []exchange.Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]exchange.Record(nil), j.all...)
}

// entries returns the entries of a testBridge: a model that generates and a model that embeds.
func entries() []bridge.Entry {
	can := infer.AllAbilities()
	can.Tools, can.Thinking = false, false
	return []bridge.Entry{
		{Name: "gen", Aliases: []string{"alias", "org/model"}, Can: can, NCtx: 512, Params: 1000, Size: 4000},
		{Name: "vec", Can: infer.Abilities{Embed: true}},
	}
}

// build returns a testBridge that is neither open nor listening. change, if not nil, may change the
// fields of its bridge.
func build(t *testing.T, handler infer.Handler, change func(*bridge.Bridge)) *testBridge {
	t.Helper()
	h := &testBridge{t: t, kept: &journal{}}
	can := entries()[0].Can
	to := admit.Destination{Backend: &backend.Backend{Name: "gen", Kind: "mock", Slots: 1, Handler: handler}}
	gate := &admit.Gate{Depth: 1, Total: 10, Choose: func(req *infer.Request) (admit.Destination, error) {
		return to, can.Check(req.Task)
	}}
	h.gate = gate
	h.bridge = &bridge.Bridge{
		Runner:       &exchange.Runner{Handler: gate, Log: slog.New(slog.DiscardHandler), Journal: h.kept},
		Access:       bridge.Access{UID: os.Getuid()},
		RetryAfter:   gate.RetryAfter,
		UserOf:       func(*net.TCPConn) (uint32, error) { return uint32(os.Getuid()), nil },
		WriteTimeout: time.Minute,
	}
	if change != nil {
		change(h.bridge)
	}
	return h
}

// serve listens on TCP and on a Unix socket until the end of the test.
func (h *testBridge) serve() *testBridge {
	h.t.Helper()
	dir := shortdir.New(h.t)
	h.path = filepath.Join(dir, "http.sock")
	local, err := net.Listen("unix", h.path)
	if err != nil {
		h.t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	h.addr = tcp.Addr()
	ctx, stop := context.WithCancel(context.Background())
	h.stop = stop
	for _, ln := range []net.Listener{local, tcp} {
		h.serving.Go(func() {
			if err := h.bridge.Serve(ctx, ln); err != nil {
				h.t.Errorf("Serve: %v", err)
			}
		})
	}
	h.t.Cleanup(func() {
		stop()
		h.serving.Wait()
	})
	return h
}

// open returns a testBridge that listens, is open, and answers with handler.
func open(t *testing.T, handler infer.Handler, change func(*bridge.Bridge)) *testBridge {
	t.Helper()
	h := build(t, handler, change)
	h.bridge.Open(entries)
	return h.serve()
}

func (h *testBridge) dial() net.Conn {
	h.t.Helper()
	nc, err := net.Dial("tcp", h.addr.String())
	if err != nil {
		h.t.Fatal(err)
	}
	if err := nc.SetDeadline(time.Now().Add(waitLimit)); err != nil {
		h.t.Fatal(err)
	}
	return nc
}

// request returns the bytes of a request. Each header is a line without its line break.
func request(method, path, body string, headers ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", method, path)
	host, length := "Host: localhost", fmt.Sprintf("Content-Length: %d", len(body))
	for _, line := range headers {
		if strings.HasPrefix(line, "Host:") {
			host = line
		}
		if strings.HasPrefix(line, "Transfer-Encoding:") || strings.HasPrefix(line, "Content-Length:") {
			length = ""
		}
	}
	b.WriteString(host + "\r\n")
	if method == http.MethodPost && length != "" {
		b.WriteString(length + "\r\n")
	}
	for _, line := range headers {
		if !strings.HasPrefix(line, "Host:") {
			b.WriteString(line + "\r\n")
		}
	}
	return b.String() + "\r\n" + body
}

const chatPath = "/v1/chat/completions"

// hi returns the body of a chat request. more is appended to its members.
func hi(more string) string {
	return `{"model":"gen","messages":[{"role":"user","content":"hi"}]` + more + `}`
}

// An answered is a complete answer of the bridge.
type answered struct {
	status int
	header http.Header
	body   string
	closes bool // the connection ends after the answer
}

// failure returns the members of an error in OpenAI's form. A missing member is empty.
func (a answered) failure() (kind, code, param, message string) {
	var m struct {
		Error struct {
			Message string  `json:"message"`
			Type    string  `json:"type"`
			Param   *string `json:"param"`
			Code    *string `json:"code"`
		} `json:"error"`
	}
	if err := json.Unmarshal([]byte(a.body), &m); err != nil {
		return "", "", "", "no error: " + a.body
	}
	text := func(p *string) string {
		if p == nil {
			return ""
		}
		return *p
	}
	return m.Error.Type, text(m.Error.Code), text(m.Error.Param), m.Error.Message
}

// send sends text on a connection, and reads one answer.
func send(t *testing.T, nc net.Conn, text string) answered {
	t.Helper()
	if _, err := io.WriteString(nc, text); err != nil {
		t.Fatal(err)
	}
	return receive(t, bufio.NewReader(nc))
}

func receive(t *testing.T, r *bufio.Reader) answered {
	t.Helper()
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answered{res.StatusCode, res.Header, string(body), res.Close}
}

// once sends one request on a new connection, and returns the answer.
func (h *testBridge) once(text string) answered {
	h.t.Helper()
	nc := h.dial()
	defer nc.Close()
	return send(h.t, nc, text)
}

// cutOff sends the head of a request and n bytes of its body, and closes the sending half. It
// returns all bytes that come back, which must be one answer with status 400.
func (h *testBridge) cutOff(path, body string, n int) string {
	h.t.Helper()
	nc := h.dial()
	defer nc.Close()
	head, _, _ := strings.Cut(request("POST", path, body), "\r\n\r\n")
	if _, err := io.WriteString(nc, head+"\r\n\r\n"+body[:n]); err != nil {
		h.t.Fatal(err)
	}
	if err := nc.(*net.TCPConn).CloseWrite(); err != nil {
		h.t.Fatal(err)
	}
	all, err := io.ReadAll(nc)
	if err != nil || strings.Count(string(all), "HTTP/1.1 ") != 1 || !strings.HasPrefix(string(all), "HTTP/1.1 400") {
		h.t.Errorf("%s, after %d of %d bytes: %q, %v", path, n, len(body), all, err)
	}
	return string(all)
}

func words(tokens ...string) *mock.Backend { return &mock.Backend{Tokens: tokens, PromptTokens: 7} }

func TestChat(t *testing.T) {
	h := open(t, words("a", "b"), nil)
	got := h.once(request("POST", chatPath, hi(`,"user":"u","reasoning_effort":"high"`)))
	if got.status != 200 || got.header.Get("Content-Type") != "application/json" ||
		!strings.Contains(got.body, `"content":"ab"`) || !strings.Contains(got.body, `"prompt_tokens":7,"completion_tokens":2,"total_tokens":9`) {
		t.Errorf("got %+v", got)
	}
	if ignored := got.header.Get("Inferd-Ignored"); ignored != "reasoning_effort, user" {
		t.Errorf("ignored %q", ignored)
	}
	id := got.header.Get("X-Request-Id")
	if id == "" || got.header.Get("Request-Id") != id || got.header.Get("X-Content-Type-Options") != "nosniff" || got.header.Get("Cross-Origin-Resource-Policy") != "same-origin" {
		t.Errorf("headers %v", got.header)
	}
	got = h.once(request("POST", "/chat/completions", hi(`,"stream":true,"stream_options":{"include_usage":true}`)))
	if got.status != 200 || got.header.Get("Content-Type") != "text/event-stream" || got.header.Get("Cache-Control") != "no-cache" ||
		strings.Count(got.body, `"content":"a"`) != 1 || !strings.HasSuffix(got.body, "data: [DONE]\n\n") || strings.Count(got.body, `"usage":{`) != 1 {
		t.Errorf("got %+v", got)
	}
	all := h.kept.records()
	if len(all) != 2 || all[0].ID != id || all[0].Outcome != exchange.Done || all[0].Dialect != wire.OpenAI || all[0].Usage.Out != 2 || all[0].Peer.Program != "http" {
		t.Errorf("records %+v", all)
	}
}

// A connection serves many requests, over TCP and over a Unix socket.
func TestKeepAlive(t *testing.T) {
	h := open(t, words("a"), nil)
	for _, dial := range []func() (net.Conn, error){
		func() (net.Conn, error) { return net.Dial("tcp", h.addr.String()) },
		func() (net.Conn, error) { return net.Dial("unix", h.path) },
	} {
		nc, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		for i := range 5 {
			stream := ""
			if i%2 == 1 {
				stream = `,"stream":true`
			}
			if got := send(t, nc, request("POST", chatPath, hi(stream))); got.status != 200 {
				t.Fatalf("request %d: %+v", i, got)
			}
		}
	}
	if len(h.kept.conns) != 2 || h.kept.conns[0].Dialect != wire.HTTP {
		t.Errorf("connections %+v", h.kept.conns)
	}
	if peer := h.kept.conns[1].Peer; peer.Transport != infer.Unix || peer.User != fmt.Sprint(os.Getuid()) {
		t.Errorf("over the Unix socket: %+v", peer)
	}
}

func TestEmbeddings(t *testing.T) {
	h := open(t, &mock.Backend{Dimensions: 2}, nil)
	for more, want := range map[string]string{
		``:                            `"embedding":[0.33333334,0.6666667]`,
		`,"encoding_format":"base64"`: `"embedding":"q6qqPquqKj8="`,
		`,"dimensions":1`:             `"embedding":[0.33333334]`,
	} {
		got := h.once(request("POST", "/v1/embeddings", `{"model":"vec","input":["hi"]`+more+`}`))
		if got.status != 200 || !strings.Contains(got.body, want) || !strings.Contains(got.body, `"model":"vec"`) || !strings.Contains(got.body, `"prompt_tokens":2`) {
			t.Errorf("%s: %+v", more, got)
		}
	}
}

func TestModelsAndHealth(t *testing.T) {
	h := build(t, words("a"), func(b *bridge.Bridge) { b.ReadyTimeout = 50 * time.Millisecond }).serve()
	if got := h.once(request("GET", "/health", "")); got.status != 503 || got.body != `{"status":"loading"}` {
		t.Errorf("while loading: %+v", got)
	}
	for _, path := range []string{"/v1/models", "/v1/models/m"} { // an empty list would be wrong, because clients cache it
		if got := h.once(request("GET", path, "")); got.status != 503 || got.header.Get("Retry-After") == "" {
			t.Errorf("%s while loading: %+v", path, got)
		}
	}
	h.bridge.Open(entries)
	if got := h.once(request("GET", "/health", "")); got.status != 200 || got.body != `{"status":"ok"}` {
		t.Errorf("ready: %+v", got)
	}
	for _, path := range []string{"/v1/models", "/models"} {
		if got := h.once(request("GET", path, "")); got.status != 200 || !strings.Contains(got.body, `"id":"gen"`) || !strings.Contains(got.body, `"meta":{"n_ctx":512,"n_params":1000,"size":4000}`) || !strings.Contains(got.body, `"id":"vec"`) {
			t.Errorf("%s: %+v", path, got)
		}
	}
	for path, want := range map[string]int{"/v1/models/gen": 200, "/v1/models/org/model": 200, "/v1/models/x": 404, "/v1/models/": 404} {
		if got := h.once(request("GET", path, "")); got.status != want {
			t.Errorf("%s: %+v", path, got)
		}
	}
	nc := h.dial()
	defer nc.Close()
	if _, err := io.WriteString(nc, request("HEAD", "/health", "", "Connection: close")); err != nil {
		t.Fatal(err)
	}
	if all, err := io.ReadAll(nc); err != nil || !strings.HasPrefix(string(all), "HTTP/1.1 200") || !strings.HasSuffix(string(all), "\r\n\r\n") {
		t.Errorf("HEAD: %q, %v", all, err)
	}
}

// The name or an alias of a model leads to its entry. An unknown name is refused, unless AnyModel
// is set.
func TestModelNames(t *testing.T) {
	var routed atomic.Value
	handler := infer.HandlerFunc(func(_ context.Context, req *infer.Request, emit infer.Sink) error {
		routed.Store(req.Task.(*infer.Generate).Model)
		return emit(&infer.Done{Reason: infer.EndOfTurn})
	})
	for _, anyModel := range []bool{false, true} {
		h := open(t, handler, func(b *bridge.Bridge) { b.AnyModel = anyModel })
		for asked, want := range map[string]struct{ routed, answered string }{
			`"gen"`: {"gen", "gen"}, `"org/model"`: {"org/model", "org/model"}, `""`: {"", "gen"}, `"gpt-9"`: {"", "gpt-9"},
		} {
			got := h.once(request("POST", chatPath, `{"model":`+asked+`,"messages":[{"role":"user","content":"hi"}]}`))
			if asked == `"gpt-9"` && !anyModel {
				if _, code, param, _ := got.failure(); got.status != 404 || code != "model_not_found" || param != "model" {
					t.Errorf("%s: %+v", asked, got)
				}
				continue
			}
			if got.status != 200 || routed.Load() != want.routed || !strings.Contains(got.body, `"model":"`+want.answered+`"`) {
				t.Errorf("any %v, %s: routed to %q, %+v", anyModel, asked, routed.Load(), got)
			}
		}
	}
}

// Each class of error has the expected status, type, code and headers, even if a stream was
// requested.
func TestFailures(t *testing.T) {
	for name, test := range map[string]struct {
		err    error
		status int
		kind   string
		code   string
		header string // a header of the answer
	}{
		"busy":        {infer.Errorf(infer.Busy, "why"), 429, "rate_limit_error", "queue_full", "Retry-After"},
		"unavailable": {infer.Errorf(infer.Unavailable, "why"), 503, "api_error", "server_is_overloaded", "Retry-After"},
		"invalid":     {infer.Errorf(infer.Invalid, "why"), 400, "invalid_request_error", "", ""},
		"unsupported": {infer.Errorf(infer.Unsupported, "why"), 400, "invalid_request_error", "", ""},
		"too large":   {infer.Errorf(infer.TooLarge, "why"), 413, "invalid_request_error", "", ""},
		"malformed":   {infer.Errorf(infer.Malformed, "why"), 502, "api_error", "", "X-Should-Retry"},
		"internal":    {infer.Errorf(infer.Internal, "why"), 500, "api_error", "", ""},
		"a long prompt": {
			infer.Errorf(infer.Invalid, "why: %w", &infer.PromptError{Tokens: 9, Most: 8}), 400, "invalid_request_error", "context_length_exceeded", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := open(t, infer.HandlerFunc(func(context.Context, *infer.Request, infer.Sink) error { return test.err }), nil)
			for _, stream := range []string{"", `,"stream":true`} {
				got := h.once(request("POST", chatPath, hi(stream)))
				kind, code, _, message := got.failure()
				if got.status != test.status || kind != test.kind || code != test.code || !strings.Contains(message, "why") ||
					test.header != "" && got.header.Get(test.header) == "" || got.header.Get("Content-Type") != "application/json" {
					t.Errorf("got %+v", got)
				}
			}
			all := h.kept.records()
			if len(all) != 2 || all[0].Outcome != exchange.Refused || all[0].Code != infer.CodeOf(test.err) {
				t.Errorf("records %+v", all)
			}
		})
	}
}

// The status is not sent before the first piece of the answer, because the engine may still refuse
// the request after it has counted the tokens of the prompt.
func TestFailureAfterAdmission(t *testing.T) {
	h := open(t, infer.HandlerFunc(func(_ context.Context, _ *infer.Request, emit infer.Sink) error {
		if err := emit(&infer.Prompt{Tokens: 7}); err != nil {
			return err
		}
		return infer.Errorf(infer.Invalid, "why")
	}), nil)
	if got := h.once(request("POST", chatPath, hi(`,"stream":true`))); got.status != 400 {
		t.Errorf("got %+v", got)
	}
	if all := h.kept.records(); len(all) != 1 || all[0].Outcome != exchange.Refused || !all[0].Admitted || all[0].Started {
		t.Errorf("records %+v", all)
	}
}

// An error in the middle of a stream is sent as an event. An answer in one piece gets the status of
// the error.
func TestFailureInTheMiddle(t *testing.T) {
	h := open(t, infer.HandlerFunc(func(_ context.Context, _ *infer.Request, emit infer.Sink) error {
		if err := emit(&infer.Text{Delta: []byte("a")}); err != nil {
			return err
		}
		return infer.Errorf(infer.Unavailable, "the engine has died")
	}), nil)
	got := h.once(request("POST", chatPath, hi(`,"stream":true`)))
	if got.status != 200 || !strings.HasSuffix(got.body, `data: {"error":{"message":"the engine has died","type":"api_error","param":null,"code":"server_is_overloaded"}}`+"\n\ndata: [DONE]\n\n") ||
		strings.Contains(got.body, `"finish_reason":"stop"`) {
		t.Errorf("got %+v", got)
	}
	if got := h.once(request("POST", chatPath, hi(""))); got.status != 503 {
		t.Errorf("got %+v", got)
	}
	if all := h.kept.records(); len(all) != 2 || all[0].Outcome != exchange.Failed {
		t.Errorf("records %+v", all)
	}
}

// A request that cannot be served is refused before it reaches a model, with a status and a code.
func TestRefusals(t *testing.T) {
	h := open(t, words("a"), nil)
	deep := strings.Repeat("[", 1000)
	for name, test := range map[string]struct {
		request string
		status  int
		code    string
		text    string
	}{
		"an unknown path":           {request("POST", "/v1/x", "{}"), 404, "unknown_url", "there is no POST /v1/x"},
		"a path outside":            {request("GET", "/x", ""), 404, "unknown_url", ""},
		"another method":            {request("GET", chatPath, ""), 405, "method_not_allowed", "POST"},
		"another method, of models": {request("POST", "/v1/models", ""), 405, "method_not_allowed", "GET"},
		"TRACE":                     {request("TRACE", chatPath, ""), 405, "method_not_allowed", "POST"},
		"gzip":                      {request("POST", chatPath, hi(""), "Content-Encoding: gzip"), 415, "", "gzip"},
		"two answers":               {request("POST", chatPath, hi(`,"n":2`)), 400, "", "n must be 1"},
		"an image to fetch":         {request("POST", chatPath, `{"model":"gen","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://x/y"}}]}]}`), 400, "", "nothing is fetched"},
		"token arrays":              {request("POST", "/v1/embeddings", `{"model":"vec","input":[[1,2]]}`), 400, "", "send text"},
		"tools that are not offered": {
			request("POST", chatPath, hi(`,"tools":[{"type":"function","function":{"name":"f"}}]`)), 400, "", "tools is not supported by this model",
		},
		"deeply nested":    {request("POST", chatPath, `{"x":`+deep), 400, "", "nested deeper"},
		"invalid UTF-8":    {request("POST", chatPath, "{\"model\":\"\xff\"}"), 400, "", "UTF-8"},
		"no body":          {request("POST", chatPath, ""), 400, "", "EOF"},
		"an unknown model": {request("POST", "/v1/embeddings", `{"model":"x","input":"a"}`), 404, "model_not_found", `"x"`},
		"malformed chunks": {request("POST", chatPath, "zz\r\n", "Transfer-Encoding: chunked"), 400, "", "the body cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			got := h.once(test.request)
			kind, code, _, message := got.failure()
			if got.status != test.status || kind != "invalid_request_error" || code != test.code || !strings.Contains(message, test.text) {
				t.Errorf("got %+v", got)
			}
		})
	}
	if got := h.once(request("POST", chatPath, hi(""))); got.status != 200 { // other requests are not affected
		t.Errorf("got %+v", got)
	}
	for _, r := range h.kept.records() {
		if r.Outcome == exchange.Unreadable && (r.Code != infer.Invalid || r.Dialect != wire.OpenAI) {
			t.Errorf("record %+v", r)
		}
	}
}

// A request is refused, and does not run, if its body is cut off anywhere.
func TestBodyCutOff(t *testing.T) {
	var ran atomic.Int64
	h := open(t, infer.HandlerFunc(func(context.Context, *infer.Request, infer.Sink) error {
		ran.Add(1)
		return nil
	}), nil)
	body := hi(`,"stream":true`)
	for n := 0; n < len(body); n += len(body) / 10 {
		h.cutOff(chatPath, body, n)
	}
	if ran.Load() != 0 {
		t.Errorf("%d requests ran", ran.Load())
	}
}

// Requests that net/http itself refuses get one answer, and no part of their bytes is read as
// another request.
func TestBeforeTheHandler(t *testing.T) {
	var ran atomic.Int64
	h := open(t, infer.HandlerFunc(func(_ context.Context, _ *infer.Request, emit infer.Sink) error {
		ran.Add(1)
		return emit(&infer.Done{Reason: infer.EndOfTurn})
	}), nil)
	inner := request("POST", chatPath, hi(""))
	for name, test := range map[string]struct {
		request string
		want    string
		ran     int64
	}{
		"two lengths":            {request("POST", chatPath, inner, "Content-Length: 5", "Content-Length: 6"), "HTTP/1.1 400", 0},
		"a length that is none":  {request("POST", chatPath, inner, "Content-Length: five"), "HTTP/1.1 400", 0},
		"an unknown coding":      {request("POST", chatPath, inner, "Transfer-Encoding: x"), "HTTP/1.1 501", 0},
		"large headers":          {request("POST", chatPath, "", "X: "+strings.Repeat("x", 80<<10)), "HTTP/1.1 431", 0},
		"a length beside chunks": {request("POST", chatPath, "0\r\n\r\n", "Content-Length: 4", "Transfer-Encoding: chunked", "Connection: close"), "HTTP/1.1 400", 0},
	} {
		t.Run(name, func(t *testing.T) {
			before := ran.Load()
			nc := h.dial()
			defer nc.Close()
			go func() { _, _ = io.WriteString(nc, test.request) }()
			all, _ := io.ReadAll(nc) // the connection may be reset after the answer
			if !strings.HasPrefix(string(all), test.want) || strings.Count(string(all), "HTTP/1.1 ") != 1 {
				t.Errorf("got %q", all)
			}
			if ran.Load()-before != test.ran {
				t.Errorf("%d requests ran", ran.Load()-before)
			}
		})
	}
}

// A body that is too large is refused at once, with Content-Length and with chunks. The client can
// read the refusal while it sends.
func TestLargeBody(t *testing.T) {
	h := open(t, words("a"), nil)
	const size = 65 << 20
	for name, head := range map[string]string{
		"a length": fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", chatPath, size),
		"a chunk":  fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n", chatPath, size),
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && name == "a chunk" {
				t.Skip("reads 64 MiB")
			}
			nc := h.dial()
			defer nc.Close()
			var sending sync.WaitGroup
			defer sending.Wait()
			sending.Go(func() {
				_, _ = io.WriteString(nc, head)
				_, _ = io.Copy(nc, io.LimitReader(zeros{}, size)) // fails once the server has answered
			})
			got := receive(t, bufio.NewReader(nc))
			if kind, _, _, message := got.failure(); got.status != 413 || kind != "invalid_request_error" || !strings.Contains(message, "67108864") {
				t.Errorf("got %+v", got)
			}
			_ = nc.Close()
		})
	}
}

// A client that sends Expect: 100-continue gets the refusal of a body that is too large before it
// sends the body. For any other body it gets 100 Continue.
func TestLargeBodyIsAskedFor(t *testing.T) {
	h := open(t, words("a"), nil)
	got := h.once(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", chatPath, 65<<20))
	if got.status != 413 {
		t.Errorf("got %+v", got)
	}
	nc := h.dial()
	defer nc.Close()
	head, body, _ := strings.Cut(request("POST", chatPath, hi(""), "Expect: 100-continue"), "\r\n\r\n")
	if _, err := io.WriteString(nc, head+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(nc)
	if line, err := r.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Errorf("got %q, %v", line, err)
	}
	_, _ = r.ReadString('\n')
	if _, err := io.WriteString(nc, body); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, r); got.status != 200 {
		t.Errorf("got %+v", got)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// The memory reserved for a body is returned after the answer, for a body with Content-Length and
// for chunks.
func TestMemory(t *testing.T) {
	memory := &quota.Quota{PerCaller: 10 << 20, Total: 10 << 20}
	h := open(t, words("a"), func(b *bridge.Bridge) { b.Memory = memory })
	body := `{"model":"gen","messages":[{"role":"user","content":"` + strings.Repeat("x", 4<<20) + `"}]}`
	rounds := 5
	if testing.Short() {
		rounds = 3 // the quota has room for two
	}
	for range rounds {
		if got := h.once(request("POST", chatPath, body)); got.status != 200 {
			t.Fatalf("got %.200s", got.body)
		}
		chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
		if got := h.once(request("POST", chatPath, chunked, "Transfer-Encoding: chunked")); got.status != 200 {
			t.Fatalf("got %.200s", got.body)
		}
	}
	for late := time.Now().Add(waitLimit); memory.Taken() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("%d bytes are still taken", memory.Taken())
		}
	}
}

// A hold is a handler that runs until its context ends. It reports the beginning and the end of
// each request.
type hold struct {
	began, ended chan struct{}
	text         bool // sends a piece of text first
}

func newHold(text bool) *hold {
	return &hold{make(chan struct{}, 100), make(chan struct{}, 100), text}
}

func (h *hold) Handle(ctx context.Context, _ *infer.Request, emit infer.Sink) error {
	if h.text {
		if err := emit(&infer.Text{Delta: []byte("a")}); err != nil {
			return err
		}
	}
	h.began <- struct{}{}
	<-ctx.Done()
	h.ended <- struct{}{}
	return context.Cause(ctx)
}

func wait(t *testing.T, c chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(waitLimit):
		t.Fatal("timed out: ", what)
	}
}

// A client that hangs up frees its slot, with or without a stream, even if it closes only its
// sending half.
func TestAbort(t *testing.T) {
	for _, stream := range []string{"", `,"stream":true`} {
		for name, leave := range map[string]func(*net.TCPConn) error{"close": (*net.TCPConn).Close, "close a half": (*net.TCPConn).CloseWrite} {
			t.Run(name+stream, func(t *testing.T) {
				handler := newHold(stream != "")
				h := open(t, handler, nil)
				nc := h.dial()
				defer nc.Close()
				if _, err := io.WriteString(nc, request("POST", chatPath, hi(stream))); err != nil {
					t.Fatal(err)
				}
				wait(t, handler.began, "it begins")
				if err := leave(nc.(*net.TCPConn)); err != nil {
					t.Fatal(err)
				}
				wait(t, handler.ended, "it ends")
				for late := time.Now().Add(waitLimit); ; time.Sleep(time.Millisecond) {
					if all := h.kept.records(); len(all) == 1 && all[0].Outcome == exchange.Gone {
						break
					} else if time.Now().After(late) {
						t.Fatalf("records %+v", all)
					}
				}
			})
		}
	}
}

// A hang-up is noticed even if the client has sent a byte after its request.
func TestAbortBehindAStrayByte(t *testing.T) {
	for name, leave := range map[string]func(*net.TCPConn) error{"close": (*net.TCPConn).Close, "close a half": (*net.TCPConn).CloseWrite} {
		t.Run(name, func(t *testing.T) {
			handler := newHold(false)
			h := open(t, handler, nil)
			nc := h.dial()
			defer nc.Close()
			if _, err := io.WriteString(nc, request("POST", chatPath, hi(""))+"\n"); err != nil {
				t.Fatal(err)
			}
			wait(t, handler.began, "it begins")
			if err := leave(nc.(*net.TCPConn)); err != nil {
				t.Fatal(err)
			}
			wait(t, handler.ended, "it ends")
		})
	}
}

// The memory of a large body includes the copies of its texts.
func TestMemoryOfCopies(t *testing.T) {
	const size = 1 << 20
	memory := &quota.Quota{PerCaller: 64 << 20, Total: 64 << 20}
	taken := make(chan int64, 1)
	handler := infer.HandlerFunc(func(_ context.Context, _ *infer.Request, emit infer.Sink) error {
		taken <- memory.Taken()
		return emit(&infer.Done{Reason: infer.EndOfTurn})
	})
	h := open(t, handler, func(b *bridge.Bridge) { b.Memory = memory })
	body := `{"model":"gen","messages":[{"role":"user","content":"` + strings.Repeat("x", size) + `"}]}`
	if got := h.once(request("POST", chatPath, body)); got.status != 200 {
		t.Fatalf("got %+v", got)
	}
	if n := <-taken; n < 4*size {
		t.Errorf("%d bytes are held", n)
	}
}

// If the queue is full, the status is 429, even if a stream was requested.
func TestQueueFull(t *testing.T) {
	handler := newHold(false)
	h := open(t, handler, nil)
	var others []net.Conn
	for range 2 { // one runs and one waits
		nc := h.dial()
		t.Cleanup(func() { _ = nc.Close() })
		others = append(others, nc)
		if _, err := io.WriteString(nc, request("POST", chatPath, hi(`,"stream":true`))); err != nil {
			t.Fatal(err)
		}
		if len(others) == 1 {
			wait(t, handler.began, "it begins")
		}
	}
	for late := time.Now().Add(waitLimit); h.gate.Stats().Waiting == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			t.Fatal("the second one does not wait")
		}
	}
	got := h.once(request("POST", chatPath, hi(`,"stream":true`), "Connection: close"))
	if _, code, _, _ := got.failure(); got.status != 429 || code != "queue_full" || got.header.Get("Retry-After") != "1" {
		t.Errorf("got %+v", got)
	}
}

// When the grace of a drain ends, a running stream ends with an error in the form of its dialect.
// After that the bridge no longer listens, and an idle connection gets no bytes.
func TestDrain(t *testing.T) {
	handler := newHold(true)
	h := open(t, handler, func(b *bridge.Bridge) { b.Runner.Grace = 100 * time.Millisecond })
	idle := h.dial()
	defer idle.Close()
	if got := send(t, idle, request("GET", "/health", "")); got.status != 200 {
		t.Fatalf("got %+v", got)
	}
	stream := h.dial()
	defer stream.Close()
	if _, err := io.WriteString(stream, request("POST", chatPath, hi(`,"stream":true`))); err != nil {
		t.Fatal(err)
	}
	wait(t, handler.began, "it begins")
	h.stop()
	got := receive(t, bufio.NewReader(stream))
	if !strings.HasSuffix(got.body, `data: {"error":{"message":"daemon is shutting down","type":"api_error","param":null,"code":"server_is_overloaded"}}`+"\n\ndata: [DONE]\n\n") {
		t.Errorf("the stream ends with %q", got.body)
	}
	h.serving.Wait()
	if _, err := net.Dial("tcp", h.addr.String()); err == nil {
		t.Error("it still listens")
	}
	if all, err := io.ReadAll(idle); len(all) > 0 || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !isReset(err) {
		t.Errorf("the idle connection: %q, %v", all, err)
	}
}

// During a drain a new connection is still accepted, so that its request gets an answer: an error
// with the dialect's status, and then the end of the connection.
func TestRequestsDuringADrain(t *testing.T) {
	handler := newHold(true)
	h := open(t, handler, func(b *bridge.Bridge) { b.Runner.Grace = waitLimit })
	stream := h.dial()
	defer stream.Close()
	if _, err := io.WriteString(stream, request("POST", chatPath, hi(`,"stream":true`))); err != nil {
		t.Fatal(err)
	}
	wait(t, handler.began, "it begins")
	h.gate.Close()
	h.stop()
	until(t, "it drains", h.bridge.Runner.Draining)
	for _, l := range dialectCases {
		got := h.once(l.request(""))
		if kind, message := l.failed(got); kind != l.failures[infer.Unavailable] || message != "admission closed" || got.header.Get("Retry-After") != "1" || !got.closes {
			t.Errorf("%s: %+v", l.dialect, got)
		}
	}
	if got := h.once(request("GET", "/health", "")); got.status != 503 || got.body != `{"status":"draining"}` || !got.closes {
		t.Errorf("health: %+v", got)
	}
}

// Unknown clients count as one user together. Their connections count against one quota, and do not
// take connections from other users.
func TestUnknownClientsAreOneUser(t *testing.T) {
	known := atomic.Bool{}
	h := open(t, words("a"), func(b *bridge.Bridge) {
		b.Conns = &quota.Quota{PerCaller: 2, Total: 100}
		b.Access.Open = true
		b.UserOf = func(*net.TCPConn) (uint32, error) {
			if known.Load() {
				return uint32(os.Getuid()), nil
			}
			return 0, errors.New("unknown")
		}
	})
	for range 2 {
		nc := h.dial()
		t.Cleanup(func() { _ = nc.Close() })
		if got := send(t, nc, request("GET", "/health", "")); got.status != 200 {
			t.Fatalf("got %+v", got)
		}
	}
	if got := h.once(""); got.status != 503 || got.header.Get("Retry-After") != "1" {
		t.Errorf("a third unknown one: %+v", got)
	}
	known.Store(true)
	if got := h.once(request("GET", "/health", "")); got.status != 200 {
		t.Errorf("a known one: %+v", got)
	}
}

func isReset(err error) bool { return strings.Contains(err.Error(), "reset") }

// A connection above the quota is refused with a status. When a connection ends, another one is
// accepted.
func TestConnections(t *testing.T) {
	h := open(t, words("a"), func(b *bridge.Bridge) { b.Conns = &quota.Quota{PerCaller: 2, Total: 4} })
	var all []net.Conn
	for range 2 {
		nc := h.dial()
		t.Cleanup(func() { _ = nc.Close() })
		all = append(all, nc)
		if got := send(t, nc, request("GET", "/health", "")); got.status != 200 {
			t.Fatalf("got %+v", got)
		}
	}
	got := h.once("")
	if _, code, _, message := got.failure(); got.status != 503 || code != "server_is_overloaded" || message != "too many connections" || got.header.Get("Retry-After") != "1" {
		t.Errorf("got %+v", got)
	}
	_ = all[0].Close()
	for late := time.Now().Add(waitLimit); ; time.Sleep(time.Millisecond) {
		if got := h.once(request("GET", "/health", "")); got.status == 200 {
			break
		} else if time.Now().After(late) {
			t.Fatalf("got %+v", got)
		}
	}
}

// Requests wait until the models are loaded, but not longer than ReadyTimeout.
func TestLoading(t *testing.T) {
	h := build(t, words("a"), func(b *bridge.Bridge) { b.ReadyTimeout = waitLimit }).serve()
	nc := h.dial()
	defer nc.Close()
	if _, err := io.WriteString(nc, request("POST", chatPath, hi(""))); err != nil {
		t.Fatal(err)
	}
	if got := h.once(request("GET", "/health", "")); got.status != 503 {
		t.Errorf("got %+v", got)
	}
	h.bridge.Open(entries)
	if got := receive(t, bufio.NewReader(nc)); got.status != 200 {
		t.Errorf("got %+v", got)
	}
	h = build(t, words("a"), func(b *bridge.Bridge) { b.ReadyTimeout = time.Millisecond }).serve()
	got := h.once(request("POST", chatPath, hi(`,"stream":true`)))
	if _, code, _, message := got.failure(); got.status != 503 || code != "server_is_overloaded" || !strings.Contains(message, "still being loaded") {
		t.Errorf("got %+v", got)
	}
}

func TestManyAtOnce(t *testing.T) {
	h := open(t, words(strings.Split("abcdefghij", "")...), nil)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			nc, err := net.Dial("tcp", h.addr.String())
			if err != nil {
				t.Error(err)
				return
			}
			defer nc.Close()
			r := bufio.NewReader(nc)
			for range 20 {
				stream := fmt.Sprintf(`,"stream":%v`, i%2 == 0)
				if _, err := io.WriteString(nc, request("POST", chatPath, hi(stream))); err != nil {
					t.Error(err)
					return
				}
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Error(err)
					return
				}
				var body bytes.Buffer
				_, err = body.ReadFrom(res.Body)
				_ = res.Body.Close()
				if err != nil || res.StatusCode != http.StatusOK && res.StatusCode != http.StatusTooManyRequests {
					t.Errorf("%d: %s, %v", res.StatusCode, &body, err)
				}
			}
		})
	}
	all.Wait()
}
