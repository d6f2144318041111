package bridge_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/inferd-go/inferd/internal/backend/mock"
	"github.com/inferd-go/inferd/internal/bridge"
	"github.com/inferd-go/inferd/internal/exchange"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

const (
	responsesPath = "/v1/responses"
	messagesPath  = "/v1/messages"
	countPath     = "/v1/messages/count_tokens"
)

// A dialectCase is a dialect that can generate, with its path and errors.
type dialectCase struct {
	dialect wire.Dialect
	path    string
	body    string // a request without its closing brace
	// failed returns the status with the type, and the message, of an error.
	failed func(answered) (kind, message string)
	// failures has the status and the type of each class of error.
	failures map[infer.Code]string
	broken   string // part of the last event of a stream that fails
}

var dialectCases = []dialectCase{
	{
		wire.OpenAI, chatPath, `{"model":"gen","messages":[{"role":"user","content":"hi"}]`, openAIError, openAIFailures,
		`data: {"error":{"message":"why","type":"api_error","param":null,"code":"server_is_overloaded"}}` + "\n\ndata: [DONE]\n\n",
	},
	{
		wire.Responses, responsesPath, `{"model":"gen","input":"hi"`, openAIError, openAIFailures, `"status":"failed","error":{"code":"server_error","message":"why"}`,
	},
	{
		wire.Anthropic, messagesPath, `{"model":"gen","max_tokens":9,"messages":[{"role":"user","content":"hi"}]`, anthropicError, map[infer.Code]string{
			infer.Busy: "429 rate_limit_error", infer.Unavailable: "529 overloaded_error", infer.Invalid: "400 invalid_request_error",
			infer.Unsupported: "400 invalid_request_error", infer.TooLarge: "413 request_too_large", infer.Malformed: "500 api_error", infer.Internal: "500 api_error",
		}, `event: error` + "\n" + `data: {"type":"error","error":{"type":"overloaded_error","message":"why"},"request_id":"req_`,
	},
}

var openAIFailures = map[infer.Code]string{
	infer.Busy: "429 rate_limit_error", infer.Unavailable: "503 api_error", infer.Invalid: "400 invalid_request_error",
	infer.Unsupported: "400 invalid_request_error", infer.TooLarge: "413 invalid_request_error", infer.Malformed: "502 api_error", infer.Internal: "500 api_error",
}

func (l *dialectCase) request(more string) string { return request("POST", l.path, l.body+more+"}") }

func openAIError(a answered) (kind, message string) {
	kind, _, _, message = a.failure()
	return fmt.Sprint(a.status, " ", kind), message
}

func anthropicError(a answered) (kind, message string) {
	var m struct {
		Type  string `json:"type"`
		Error struct {
			Type    string `json:"type"`
			Message string `json:"message"`
		} `json:"error"`
		RequestID string `json:"request_id"`
	}
	if err := json.Unmarshal([]byte(a.body), &m, json.RejectUnknownMembers(true)); err != nil || m.Type != "error" {
		return "no error: " + a.body, ""
	}
	if m.RequestID == "" || m.RequestID != a.header.Get("Request-Id") {
		return "another request_id: " + m.RequestID, ""
	}
	return fmt.Sprint(a.status, " ", m.Error.Type), m.Error.Message
}

// Each dialect answers on its path, with and without /v1, in one piece and as a stream. The records
// have the dialect's name.
func TestDialects(t *testing.T) {
	for _, l := range dialectCases {
		t.Run(string(l.dialect), func(t *testing.T) {
			h := open(t, words("a", "b"), nil)
			for _, path := range []string{l.path, strings.TrimPrefix(l.path, "/v1"), l.path + "?beta=true"} {
				got := h.once(request("POST", path, l.body+"}"))
				if got.status != 200 || got.header.Get("Content-Type") != "application/json" || !strings.Contains(got.body, `"ab"`) || !strings.Contains(got.body, `"model":"gen"`) {
					t.Errorf("%s: %+v", path, got)
				}
				got = h.once(request("POST", path, l.body+`,"stream":true}`))
				if got.status != 200 || got.header.Get("Content-Type") != "text/event-stream" || got.header.Get("Cache-Control") != "no-cache" || strings.Count(got.body, `"a"`) != 1 {
					t.Errorf("%s, as a stream: %+v", path, got)
				}
			}
			for i, r := range h.kept.records() {
				if r.Dialect != l.dialect || r.Outcome != exchange.Done || r.Usage.Out != 2 {
					t.Errorf("record %d: %+v", i, r)
				}
			}
		})
	}
}

// In each dialect each class of error has the expected status and type, even if a stream was
// requested. Busy and Unavailable come with Retry-After, the estimate rounded up to whole seconds;
// Malformed comes with X-Should-Retry: false.
func TestFailuresOfDialects(t *testing.T) {
	for _, l := range dialectCases {
		for code, want := range l.failures {
			h := open(t, infer.HandlerFunc(func(context.Context, *infer.Request, infer.Sink) error { return infer.Errorf(code, "why") }), func(b *bridge.Bridge) {
				b.RetryAfter = func(req *infer.Request) time.Duration {
					if req.Task == nil {
						t.Errorf("%s: the estimate for %s is without the task", l.dialect, code)
					}
					return 6200 * time.Millisecond
				}
			})
			for _, more := range []string{"", `,"stream":true`} {
				got := h.once(l.request(more))
				if kind, message := l.failed(got); kind != want || message != "why" {
					t.Errorf("%s, %s: %s %q", l.dialect, code, kind, message)
				}
				again := code == infer.Busy || code == infer.Unavailable
				if got.header.Get("Retry-After") != map[bool]string{true: "7"}[again] || got.header.Get("X-Should-Retry") != map[bool]string{true: "false"}[code == infer.Malformed] {
					t.Errorf("%s, %s: headers %v", l.dialect, code, got.header)
				}
			}
		}
	}
}

// In each dialect an error in the middle of a stream is sent as an event, and the stream does not
// look complete.
func TestBrokenStreams(t *testing.T) {
	handler := infer.HandlerFunc(func(_ context.Context, _ *infer.Request, emit infer.Sink) error {
		if err := emit(&infer.Text{Delta: []byte("a")}); err != nil {
			return err
		}
		return infer.Errorf(infer.Unavailable, "why")
	})
	for _, l := range dialectCases {
		h := open(t, handler, nil)
		got := h.once(l.request(`,"stream":true`))
		last := got.body[strings.LastIndex(strings.TrimSuffix(strings.TrimSuffix(got.body, "data: [DONE]\n\n"), "\n\n"), "\n\n"):]
		if got.status != 200 || !strings.Contains(last, l.broken) {
			t.Errorf("%s ends with %s", l.dialect, last)
		}
		for _, complete := range []string{"message_stop", "end_turn", "response.completed", `"finish_reason":"stop"`} {
			if strings.Contains(got.body, complete) {
				t.Errorf("%s: %s in %s", l.dialect, complete, got.body)
			}
		}
	}
}

// A request that is refused before its body is read gets an error in the form of its path's
// dialect, even if the path has no route.
func TestRefusalsOfDialects(t *testing.T) {
	h := open(t, words("a"), func(b *bridge.Bridge) {
		b.Access.Keys = append(b.Access.Keys, key(t, "ci", secret))
	})
	for _, l := range dialectCases {
		for name, test := range map[string]struct {
			request string
			want    string
		}{
			"a wrong key":       {request("POST", l.path, l.body+"}", "Authorization: Bearer nothing-of-the-kind"), "401 authentication_error"},
			"a wrong x-api-key": {request("POST", l.path, l.body+"}", "X-Api-Key: nothing-of-the-kind"), "401 authentication_error"},
			"a stranger":        {request("POST", l.path, l.body+"}", "Via: proxy"), "403 permission_error"},
			"another host":      {request("POST", l.path, l.body+"}", "Host: evil.example"), "403 permission_error"},
			"another origin":    {request("POST", l.path, l.body+"}", "Origin: https://evil.example"), "403 permission_error"},
			"another method":    {request("GET", l.path, ""), "405 invalid_request_error"},
			"PUT":               {request("PUT", l.path, ""), "405 invalid_request_error"},
			"DELETE":            {request("DELETE", l.path, ""), "405 invalid_request_error"},
			"a page's text":     {request("POST", l.path, l.body+"}", "Origin: http://localhost", "Content-Type: text/plain"), "415 invalid_request_error"},
			"gzip":              {request("POST", l.path, l.body+"}", "Content-Encoding: gzip"), "415 invalid_request_error"},
			"an unknown model":  {request("POST", l.path, strings.Replace(l.body, `"gen"`, `"x"`, 1)+"}"), "404 not_found_error"},
			"no body":           {request("POST", l.path, ""), "400 invalid_request_error"},
			"an array":          {request("POST", l.path, "[]"), "400 invalid_request_error"},
			"deeply nested":     {request("POST", l.path, `{"x":`+strings.Repeat("[", 1000)), "400 invalid_request_error"},
			"invalid UTF-8":     {request("POST", l.path, "{\"model\":\"\xff\"}"), "400 invalid_request_error"},
			"malformed chunks":  {request("POST", l.path, "zz\r\n", "Transfer-Encoding: chunked"), "400 invalid_request_error"},
			"a path below":      {request("POST", l.path+"/x", "{}"), "404 not_found_error"},
		} {
			want := test.want
			if l.dialect != wire.Anthropic {
				want = want[:4] + "invalid_request_error"
			}
			if kind, message := l.failed(h.once(test.request)); kind != want || message == "" {
				t.Errorf("%s, %s: %s %q, want %s", l.dialect, name, kind, message, want)
			}
		}
		if got := h.once(request("POST", l.path, l.body+"}", "X-Api-Key: "+secret)); got.status != 200 { // a right key
			t.Errorf("%s: %+v", l.dialect, got)
		}
	}
	large := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", messagesPath, 65<<20)
	if kind, _ := anthropicError(h.once(large)); kind != "413 request_too_large" {
		t.Errorf("65 MiB: %s", kind)
	}
}

// In each dialect a request is refused, and does not run, if its body or the JSON in its body is
// cut off anywhere.
func TestBodiesCutOff(t *testing.T) {
	var ran atomic.Int64
	h := open(t, infer.HandlerFunc(func(context.Context, *infer.Request, infer.Sink) error {
		ran.Add(1)
		return nil
	}), nil)
	for _, l := range dialectCases {
		body := l.body + `,"stream":true}`
		for n := 0; n < len(body); n += 10 {
			h.cutOff(l.path, body, n)
		}
		for n := 1; n < len(body); n += 10 { // the body is complete, but its JSON is not
			got := h.once(request("POST", l.path, body[:n]))
			if kind, message := l.failed(got); kind != "400 invalid_request_error" || message == "" {
				t.Errorf("%s, %d bytes: %+v", l.dialect, n, got)
			}
		}
	}
	if ran.Load() != 0 {
		t.Errorf("%d requests ran", ran.Load())
	}
}

// In each dialect a silent stream sends a keep-alive, even before the beginning of the answer.
func TestKeepAlivesOfDialects(t *testing.T) {
	pings := map[wire.Dialect]string{
		wire.OpenAI: ": ping\n", wire.Responses: ": ping\n", wire.Anthropic: "event: ping\ndata: {\"type\":\"ping\"}\n\n",
	}
	for _, l := range dialectCases {
		bubble(t, slowly{25 * time.Second, 11 * time.Second}, func(_ *testBridge, dial func() net.Conn) {
			got := send(t, dial(), l.request(`,"stream":true`))
			pieces := strings.Split(got.body, pings[l.dialect])
			if len(pieces) != 4 || pieces[0] != "" || pieces[1] != "" || strings.Count(pieces[2], `"a"`) != 1 || strings.Count(pieces[3], `"a"`) != 1 {
				t.Errorf("%s: %q", l.dialect, got.body)
			}
			for i, piece := range pieces[2:] {
				if !strings.HasPrefix(piece, "data: ") && !strings.HasPrefix(piece, "event: ") || !strings.HasSuffix(piece, "\n\n") {
					t.Errorf("%s: piece %d is %q", l.dialect, i, piece)
				}
			}
		})
	}
}

// If the handler fails after silence has led to the status 200, the stream consists of an error
// event.
func TestLateFailures(t *testing.T) {
	late := infer.HandlerFunc(func(ctx context.Context, _ *infer.Request, _ infer.Sink) error {
		select {
		case <-time.After(11 * time.Second):
			return infer.Errorf(infer.Unavailable, "why")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	for _, l := range dialectCases {
		bubble(t, late, func(_ *testBridge, dial func() net.Conn) {
			got := send(t, dial(), l.request(`,"stream":true`))
			if got.status != 200 || !strings.Contains(got.body, l.broken) || l.dialect == wire.Responses && !strings.Contains(got.body, "event: response.created\n") {
				t.Errorf("%s: %+v", l.dialect, got)
			}
		})
	}
}

// In each dialect a client that hangs up frees its slot, with or without a stream.
func TestAbortsOfDialects(t *testing.T) {
	for _, l := range dialectCases {
		for _, more := range []string{"", `,"stream":true`} {
			handler := newHold(more != "")
			h := open(t, handler, nil)
			nc := h.dial()
			if _, err := io.WriteString(nc, l.request(more)); err != nil {
				t.Fatal(err)
			}
			wait(t, handler.began, "it begins")
			_ = nc.Close()
			wait(t, handler.ended, "it ends")
		}
	}
}

// A request to count tokens reaches the handler as an infer.Count of the whole prompt, and the
// answer has only the number.
func TestCountTokens(t *testing.T) {
	var counted atomic.Pointer[infer.Generate]
	h := open(t, infer.HandlerFunc(func(_ context.Context, req *infer.Request, emit infer.Sink) error {
		if c, ok := req.Task.(*infer.Count); ok {
			counted.Store(c.Of)
			return emit(&infer.Done{Reason: infer.EndOfTurn, In: 42})
		}
		return infer.Errorf(infer.Internal, "it generates")
	}), func(b *bridge.Bridge) { b.AnyModel = true })
	body := `{"model":"claude","system":"be brief","messages":[{"role":"user","content":"hi"}]}`
	for _, path := range []string{countPath, "/messages/count_tokens?beta=true"} {
		got := h.once(request("POST", path, body))
		if of := counted.Load(); got.status != 200 || got.body != `{"input_tokens":42}` || of == nil || len(of.Messages) != 2 || of.MaxTokens != 0 {
			t.Errorf("%s: %+v, counted %+v", path, got, of)
		}
	}
	if kind, _ := anthropicError(h.once(request("POST", countPath, `{"messages":[]}`))); kind != "400 invalid_request_error" {
		t.Errorf("without messages: %s", kind)
	}
	if all := h.kept.records(); len(all) != 3 || all[0].Dialect != wire.Anthropic || all[0].Outcome != exchange.Done {
		t.Errorf("records %+v", all)
	}
}

// The list of models also has the members of Anthropic's interface. Clients of that interface get
// errors in its form for GET requests.
func TestModelsOfDialects(t *testing.T) {
	h := open(t, words("a"), nil)
	const version = "Anthropic-Version: 2026-10-21"
	got := h.once(request("GET", "/v1/models?limit=1000", "", version))
	var list struct {
		Data []struct {
			ID        string    `json:"id"`
			Type      string    `json:"type"`
			Name      string    `json:"display_name"`
			Created   time.Time `json:"created_at"`
			Lifecycle string    `json:"lifecycle"`
		} `json:"data"`
		HasMore bool   `json:"has_more"`
		First   string `json:"first_id"`
		Last    string `json:"last_id"`
	}
	if err := json.Unmarshal([]byte(got.body), &list); err != nil || len(list.Data) != 2 || list.HasMore || list.First != "gen" || list.Last != "vec" ||
		list.Data[0].Type != "model" || list.Data[0].Name != "gen" || list.Data[0].Lifecycle != "active" || list.Data[0].Created.IsZero() {
		t.Errorf("%v: %+v", err, got)
	}
	for _, path := range []string{"/v1/models/x", "/v1/x", "/v1/messages/batches"} {
		if kind, _ := anthropicError(h.once(request("GET", path, "", version))); kind != "404 not_found_error" {
			t.Errorf("%s: %s", path, kind)
		}
	}
	if kind, _ := openAIError(h.once(request("GET", "/v1/models/x", ""))); kind != "404 invalid_request_error" {
		t.Errorf("without a version: %s", kind)
	}
	if kind, _ := openAIError(h.once(request("POST", chatPath, "{}", version))); kind != "400 invalid_request_error" {
		t.Errorf("a chat with a version: %s", kind)
	}
}

// HEAD / is answered with the status 200, so that clients see that a server runs.
func TestRoot(t *testing.T) {
	h := open(t, words("a"), nil)
	nc := h.dial()
	defer nc.Close()
	if _, err := io.WriteString(nc, request(http.MethodHead, "/", "", "Connection: close")); err != nil {
		t.Fatal(err)
	}
	if all, err := io.ReadAll(nc); err != nil || !strings.HasPrefix(string(all), "HTTP/1.1 200") || !strings.HasSuffix(string(all), "\r\n\r\n") {
		t.Errorf("got %q, %v", all, err)
	}
}

// The same request leads to the same text, the same numbers of tokens and the same reason for the
// end in every dialect.
func TestOneCaseInAllDialects(t *testing.T) {
	var asked []*infer.Generate
	backend := &mock.Backend{Tokens: []string{"Hel", "lo é\n"}, PromptTokens: 7}
	h := open(t, infer.HandlerFunc(func(ctx context.Context, req *infer.Request, emit infer.Sink) error {
		asked = append(asked, req.Task.(*infer.Generate))
		return backend.Handle(ctx, req, emit)
	}), nil)
	const sampling = `,"temperature":0.5,"top_p":0.25,"max_tokens":9,"max_output_tokens":9`
	for path, body := range map[string]string{
		chatPath:      `{"model":"gen","messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hi"},{"role":"assistant","content":"yes?"},{"role":"user","content":"go"}]`,
		responsesPath: `{"model":"gen","instructions":"be brief","input":[{"role":"user","content":"hi"},{"role":"assistant","content":"yes?"},{"role":"user","content":"go"}]`,
		messagesPath:  `{"model":"gen","system":"be brief","messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"yes?"},{"role":"user","content":"go"}]`,
	} {
		for _, more := range []string{"", `,"stream":true,"stream_options":{"include_usage":true}`} {
			got := h.once(request("POST", path, body+sampling+more+"}"))
			in, out := `"input_tokens":7`, `"output_tokens":2`
			if path == chatPath {
				in, out = `"prompt_tokens":7`, `"completion_tokens":2`
			}
			ends := map[string]string{chatPath: `"finish_reason":"stop"`, responsesPath: `"status":"completed"`, messagesPath: `"stop_reason":"end_turn"`}
			if more == "" && !strings.Contains(got.body, `"Hello é\n"`) || !strings.Contains(got.body, in) || !strings.Contains(got.body, out) || !strings.Contains(got.body, ends[path]) {
				t.Errorf("%s: %+v", path, got)
			}
		}
	}
	for _, g := range asked[1:] {
		if fmt.Sprintf("%+v", text(g)) != fmt.Sprintf("%+v", text(asked[0])) || *g.Sampling.Temperature != 0.5 || *g.Sampling.TopP != 0.25 || g.MaxTokens != 9 {
			t.Errorf("asked for %+v and %+v", text(asked[0]), text(g))
		}
	}
}

// text returns the messages of a request as "role: text".
func text(g *infer.Generate) (all []string) {
	for _, m := range g.Messages {
		all = append(all, string(m.Role)+": "+m.Text())
	}
	return all
}
