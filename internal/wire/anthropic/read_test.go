package anthropic_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"image"
	"image/png"
	"net/http"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/anthropic"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// asked returns the task that ask("") encodes, modified by change.
func asked(change func(*infer.Generate)) *infer.Generate {
	gen := &infer.Generate{
		Model: "gen", Blocks: true, MaxTokens: 9, Messages: []infer.Message{infer.TextMessage(infer.User, "hi")}, Defaults: anthropic.Defaults(),
	}
	change(gen)
	return gen
}

func messages(all ...infer.Message) func(*infer.Generate) {
	return func(g *infer.Generate) { g.Messages = all }
}

func said(role infer.Role, parts ...infer.Part) infer.Message {
	return infer.Message{Role: role, Content: parts}
}

func part(text string) infer.Part { return &infer.TextPart{Text: text} }

// talk returns a request with the given messages.
func talk(all string) string { return `{"model":"gen","max_tokens":9,"messages":[` + all + `]}` }

// block1 returns a request with one message, which has the given block.
func block1(text string) string { return talk(`{"role":"user","content":[` + text + `]}`) }

const tools = `,"tools":[{"name":"f","description":"d","input_schema":{"type":"object"}},{"type":"custom","name":"g","input_schema":{}}]`

// pixel returns a PNG image of one pixel, in base64.
func pixel(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewNRGBA(image.Rect(0, 0, 1, 1))); err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(b.Bytes())
}

func TestRead(t *testing.T) {
	f, g := infer.Tool{Name: "f", Description: "d", Schema: []byte(`{"type":"object"}`)}, infer.Tool{Name: "g", Schema: []byte("{}")}
	withTools := func(c infer.ToolChoice, one bool) func(*infer.Generate) {
		return func(gen *infer.Generate) { gen.Tools, gen.Choice, gen.OneCall = []infer.Tool{f, g}, c, one }
	}
	think := func(budget int) func(*infer.Generate) {
		return func(gen *infer.Generate) { gen.Thinking, gen.ThinkingBudget = infer.ThinkOn, budget }
	}
	same := func(*infer.Generate) {}
	user := infer.TextMessage(infer.User, "hi")
	schema := func(gen *infer.Generate) { gen.Format.Schema = []byte(`{"type":"object"}`) }
	for name, test := range map[string]struct {
		in   string
		want func(*infer.Generate)
	}{
		"a text": {ask(""), same},
		"null means missing": {ask(`,"system":null,"stream":null,"stop_sequences":null,"temperature":null,"tools":null,"tool_choice":null,"thinking":null,
			"output_config":null,"output_format":null,"metadata":null,"service_tier":null`), same},
		"no bound": {`{"model":"gen","messages":[{"role":"user","content":"hi"}]}`, func(gen *infer.Generate) { gen.MaxTokens = 0 }},
		"sampling": {ask(`,"temperature":0.5,"top_p":0.25,"top_k":7,"stop_sequences":["x","é"]`), func(gen *infer.Generate) {
			gen.Sampling, gen.Stop = infer.Sampling{Temperature: new(0.5), TopP: new(0.25), TopK: new(7)}, []string{"x", "é"}
		}},
		"tools":                    {ask(tools), withTools(infer.ToolChoice{}, false)},
		"auto":                     {ask(tools + `,"tool_choice":{"type":"auto"}`), withTools(infer.ToolChoice{}, false)},
		"any":                      {ask(tools + `,"tool_choice":{"type":"any","disable_parallel_tool_use":true}`), withTools(infer.ToolChoice{Mode: infer.ToolRequired}, true)},
		"none":                     {ask(tools + `,"tool_choice":{"type":"none"}`), withTools(infer.ToolChoice{Mode: infer.ToolNone}, false)},
		"one":                      {ask(tools + `,"tool_choice":{"type":"tool","name":"g"}`), withTools(infer.ToolChoice{Mode: infer.ToolNamed, Tool: "g"}, false)},
		"no thinking":              {ask(`,"thinking":{"type":"disabled"},"output_config":{"effort":"high"}`), func(g *infer.Generate) { g.Thinking = infer.ThinkOff }},
		"thinking, with a budget":  {ask(`,"thinking":{"type":"enabled","budget_tokens":1024}`), think(1024)},
		"thinking, its own way":    {ask(`,"thinking":{"type":"adaptive"}`), think(0)},
		"thinking, with an effort": {ask(`,"thinking":{"type":"adaptive"},"output_config":{"effort":"low"}`), think(1024)},
		"an effort":                {ask(`,"output_config":{"effort":"medium"}`), think(4096)},
		"the largest effort":       {ask(`,"output_config":{"effort":"max"}`), think(0)},
		"a schema":                 {ask(`,"output_config":{"format":{"type":"json_schema","schema":{"type":"object"}}}`), schema},
		"a schema, the older way":  {ask(`,"output_format":{"type":"json_schema","schema":{"type":"object"}}`), schema},
		"a system message":         {ask(`,"system":"be brief"`), messages(infer.TextMessage(infer.System, "be brief"), user)},
		"an empty system message":  {ask(`,"system":""`), same},
		"system blocks": {
			ask(`,"system":[{"type":"text","text":"a"},{"type":"text","text":""},{"type":"text","text":"b"}]`),
			messages(infer.TextMessage(infer.System, "a\n\nb"), user),
		},
		"system messages": {
			`{"model":"gen","max_tokens":9,"system":"a","messages":[{"role":"system","content":"b"},{"role":"user","content":"hi"},{"role":"system","content":[{"type":"text","text":"c"}]}]}`,
			messages(infer.TextMessage(infer.System, "a\n\nb"), user, infer.TextMessage(infer.System, "c")),
		},
		"blocks":   {block1(`{"type":"text","text":"a"},{"type":"text","text":"b"}`), messages(said(infer.User, part("a"), part("b")))},
		"no block": {block1(``), messages(said(infer.User, part("")))},
		"a round of tools": {
			talk(`{"role":"user","content":"hi"},
			{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"any"},{"type":"redacted_thinking","data":"x"},{"type":"text","text":"ok"},{"type":"tool_use","id":"1","name":"f","input":{"x":1}},{"type":"tool_use","id":"2","name":"g"}]},
			{"role":"user","content":[{"type":"tool_result","tool_use_id":"1","content":"r"},{"type":"tool_result","tool_use_id":"2","is_error":true,"content":[{"type":"text","text":"s"}]},{"type":"tool_result","tool_use_id":"3"},{"type":"text","text":"go"}]}`),
			messages(user,
				said(infer.Assistant, &infer.ThinkingPart{Text: "hm"}, part("ok"), &infer.CallPart{ID: "1", Name: "f", Input: []byte(`{"x":1}`)}, &infer.CallPart{ID: "2", Name: "g", Input: []byte("{}")}),
				said(infer.User, &infer.ResultPart{ID: "1", Content: []infer.Part{part("r")}}, &infer.ResultPart{ID: "2", Content: []infer.Part{part("s")}, Failed: true},
					&infer.ResultPart{ID: "3", Content: []infer.Part{part("")}}, part("go"))),
		},
		"a document":            {block1(`{"type":"document","title":"T","context":"C","source":{"type":"text","media_type":"text/plain","data":"d"}}`), messages(said(infer.User, part("T\n\n"), part("C\n\n"), part("d")))},
		"a document of blocks":  {block1(`{"type":"document","source":{"type":"content","content":[{"type":"text","text":"d"}]}}`), messages(said(infer.User, part("d")))},
		"a tool that was found": {block1(`{"type":"tool_result","tool_use_id":"1","content":[{"type":"tool_reference","tool_name":"f"}]}`), messages(said(infer.User, &infer.ResultPart{ID: "1", Content: []infer.Part{part("f")}}))},
		"a block of a server's": {block1(`{"type":"server_tool_use","id":"s","name":"web_search","input":{}},{"type":"text","text":"hi"}`), same},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(asked(test.want), read(t, test.in).Generate); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestImages(t *testing.T) {
	picture := `{"type":"image","source":{"type":"base64","media_type":"image/png","data":"` + pixel(t) + `"}}`
	r := read(t, talk(`{"role":"user","content":[`+picture+`,{"type":"tool_result","tool_use_id":"1","content":[`+picture+`]}]}`))
	if all := r.Generate.Attachments; len(all) != 2 || all[0].Kind != infer.Image || all[0].Width != 1 || r.Images() == 0 {
		t.Errorf("attachments %+v", all)
	}
	if err := r.Decode(); err != nil || len(r.Generate.Attachments[1].Data) != 3 {
		t.Errorf("decoded: %+v, %v", r.Generate.Attachments, err)
	}
}

// Members, blocks and tools without effect are listed as ignored.
func TestIgnored(t *testing.T) {
	for more, want := range map[string][]string{
		"":                        nil,
		`,"stop_sequences":["x"]`: nil,
		`,"stop_sequences":["x"],"output_config":{"format":{"type":"json_schema","schema":{}}}`: {"stop_sequences"},
		`,"output_config":{"format":{"type":"json_schema","schema":{}}}`:                        nil,
		`,"metadata":{"user_id":"u"},"context_management":{"edits":[]},"service_tier":"auto","cache_control":{"type":"ephemeral"},"container":"c","mcp_servers":[]`: {
			"cache_control", "container", "context_management", "mcp_servers", "metadata", "service_tier",
		},
		`,"system":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}}]`:                                                  {"cache_control"},
		`,"tools":[{"name":"f","input_schema":{},"cache_control":{},"strict":true,"eager_input_streaming":true,"defer_loading":true}]`: {"cache_control", "tools.defer_loading", "tools.eager_input_streaming", "tools.strict"},
		`,"tools":[{"type":"web_search_20250305","name":"web_search"},{"type":"bash_20250124","name":"bash"}]`:                         {"bash_20250124", "web_search_20250305"},
	} {
		if got := read(t, ask(more)).Ignored; !slices.Equal(got, want) {
			t.Errorf("%s: ignored %q, want %q", more, got, want)
		}
	}
	if got := read(t, block1(`{"type":"text","text":"a","cache_control":{"type":"ephemeral"}},{"type":"redacted_thinking","data":"x"}`)).Ignored; !slices.Equal(got, []string{"cache_control", "messages.redacted_thinking"}) {
		t.Errorf("blocks: ignored %q", got)
	}
	for more, want := range map[string]string{
		`,"thinking":{"type":"adaptive"}`:                  "thinking",
		`,"thinking":{"type":"enabled","budget_tokens":5}`: "thinking",
		`,"output_config":{"effort":"high"}`:               "output_config.effort",
	} { // if the model cannot think, thinking is ignored
		r := read(t, ask(more))
		if r.Offer(infer.Abilities{}); !slices.Equal(r.Ignored, []string{want}) || r.Generate.Thinking == infer.ThinkOn || r.Generate.ThinkingBudget != 0 {
			t.Errorf("%s: ignored %q", more, r.Ignored)
		}
	}
}

// Requests with invalid or unsupported members are refused; the error names the member.
func TestRefusals(t *testing.T) {
	for name, test := range map[string]struct{ in, text string }{
		"no messages":                {talk(``), "messages must not be empty"},
		"messages missing":           {`{"model":"gen"}`, "messages must not be empty"},
		"an unknown role":            {talk(`{"role":"robot","content":"x"}`), "messages[0].role"},
		"content of another type":    {talk(`{"role":"user","content":7}`), "messages[0].content"},
		"an answer to continue":      {talk(`{"role":"user","content":"x"},{"role":"assistant","content":"y"}`), "an answer is not continued"},
		"an unknown block":           {block1(`{"type":"dream"}`), "messages[0].content[0].type"},
		"a text without a text":      {block1(`{"type":"text"}`), "has no text"},
		"an image without a source":  {block1(`{"type":"image"}`), "source must be an object"},
		"an image to fetch":          {block1(`{"type":"image","source":{"type":"url","url":"https://x/y.png"}}`), "nothing is fetched"},
		"an image that is none":      {block1(`{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}}`), "PNG or JPEG"},
		"a PDF":                      {block1(`{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":""}}`), "must be text"},
		"a document of nothing":      {block1(`{"type":"document","source":"x"}`), "source must be an object"},
		"a call without an id":       {block1(`{"type":"tool_use","name":"f","input":{}}`), "has no id"},
		"a call of nothing":          {block1(`{"type":"tool_use","id":"1","input":{}}`), "has no name"},
		"a result of no call":        {block1(`{"type":"tool_result","content":"x"}`), "no tool_use_id"},
		"a result in a result":       {block1(`{"type":"tool_result","tool_use_id":"1","content":[{"type":"tool_result","tool_use_id":"2"}]}`), "texts, images and documents only"},
		"a call of the user":         {block1(`{"type":"tool_use","id":"1","name":"f","input":{}}`), "belong to the assistant"},
		"thinking of the user":       {block1(`{"type":"thinking","thinking":"hm","signature":"x"}`), "belong to the assistant"},
		"a result of the assistant":  {talk(`{"role":"assistant","content":[{"type":"tool_result","tool_use_id":"1"}]},{"role":"user","content":"x"}`), "tool_result to the user"},
		"a document in a document":   {block1(`{"type":"document","source":{"type":"content","content":[{"type":"document","source":{"type":"text","data":"x"}}]}}`), "a document has no document"},
		"a system block of another":  {ask(`,"system":[{"type":"image"}]`), "system[0] must be a text block"},
		"a system of another type":   {ask(`,"system":7`), "system: it has the wrong form"},
		"media for the system":       {talk(`{"role":"system","content":[{"type":"tool_use","id":"1","name":"f"}]},{"role":"user","content":"hi"}`), "takes text only"},
		"no tokens":                  {`{"max_tokens":0,"messages":[{"role":"user","content":"hi"}]}`, "max_tokens must be at least 1"},
		"an empty stop":              {ask(`,"stop_sequences":[""]`), "stop_sequences[0] has 0 bytes"},
		"many stops":                 {ask(`,"stop_sequences":[` + strings.Repeat(`"x",`, 16) + `"x"]`), "17 strings"},
		"a number out of range":      {ask(`,"top_p":1.5`), "top_p must be between"},
		"a tool without a name":      {ask(`,"tools":[{"input_schema":{}}]`), "no name"},
		"a tool without a schema":    {ask(`,"tools":[{"name":"f"}]`), "input_schema must be an object"},
		"two tools of one name":      {ask(`,"tools":[{"name":"f","input_schema":{}},{"name":"f","input_schema":{}}]`), "two tools are called"},
		"a choice of another tool":   {ask(tools + `,"tool_choice":{"type":"tool","name":"x"}`), "not among the tools"},
		"a choice without a name":    {ask(tools + `,"tool_choice":{"type":"tool"}`), "the name of the tool is missing"},
		"a word as a choice":         {ask(tools + `,"tool_choice":"auto"`), `it must be an object, such as {"type":"auto"}`},
		"an unknown choice":          {ask(tools + `,"tool_choice":{"type":"maybe"}`), "must be one of"},
		"a call without tools":       {ask(`,"tool_choice":{"type":"any"}`), "needs tools"},
		"an unknown way of thinking": {ask(`,"thinking":{"type":"deep"}`), "thinking.type must be one of"},
		"an empty budget":            {ask(`,"thinking":{"type":"enabled","budget_tokens":0}`), "budget_tokens must be at least 1"},
		"an unknown effort":          {ask(`,"output_config":{"effort":"huge"}`), "output_config.effort must be one of"},
		"an unknown format":          {ask(`,"output_config":{"format":{"type":"xml"}}`), "must be json_schema"},
		"a schema that is none":      {ask(`,"output_config":{"format":{"type":"json_schema"}}`), "schema must be an object"},
		"a long salt":                {ask(`,"cache_salt":"` + strings.Repeat("x", 65) + `"`), "65 bytes"},
		"a member of another type":   {ask(`,"temperature":"hot"`), "wrong type"},
		"not JSON":                   {`{"model":`, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := anthropic.Read([]byte(test.in))
			if err == nil {
				t.Fatalf("accepted as %+v", got)
			}
			if status, kind, text := failure(t, err); status != 400 || kind != "invalid_request_error" || !strings.Contains(text, test.text) {
				t.Errorf("got %d %s %q, want %q", status, kind, text, test.text)
			}
			if infer.CodeOf(err) != infer.Invalid {
				t.Errorf("its code is %s", infer.CodeOf(err))
			}
		})
	}
}

// failure returns the status, the type and the message of the answer to a request that has failed
// with err.
func failure(t *testing.T, err error) (status int, kind, text string) {
	t.Helper()
	status, body := anthropic.Failure(err, "req_1")
	var m struct {
		Type  string `json:"type"`
		Error struct {
			Type    string `json:"type"`
			Message string `json:"message"`
		} `json:"error"`
		RequestID string `json:"request_id"`
	}
	if err := json.Unmarshal(body, &m, json.RejectUnknownMembers(true)); err != nil || m.Type != "error" || m.RequestID != "req_1" {
		t.Errorf("%s: %v", body, err)
	}
	return status, m.Error.Type, m.Error.Message
}

// Each kind of error gets the right status and type.
func TestFailures(t *testing.T) {
	for name, test := range map[string]struct {
		err        error
		status     int
		kind, text string
	}{
		"busy":          {infer.Errorf(infer.Busy, "queue full"), 429, "rate_limit_error", "queue full"},
		"unavailable":   {infer.Errorf(infer.Unavailable, "why"), 529, "overloaded_error", "why"},
		"invalid":       {infer.Errorf(infer.Invalid, "why"), 400, "invalid_request_error", "why"},
		"unsupported":   {infer.Errorf(infer.Unsupported, "why"), 400, "invalid_request_error", "why"},
		"too large":     {infer.Errorf(infer.TooLarge, "why"), 413, "request_too_large", "why"},
		"malformed":     {infer.Errorf(infer.Malformed, "why"), 500, "api_error", "why"},
		"internal":      {infer.Errorf(infer.Internal, "why"), 500, "api_error", "why"},
		"no class":      {errors.New("secret"), 500, "api_error", "internal error"},
		"a wrong key":   {web.Refused(http.StatusUnauthorized, web.WrongKey, "why"), 401, "authentication_error", "why"},
		"a stranger":    {web.Refused(http.StatusForbidden, "", "why"), 403, "permission_error", "why"},
		"no such model": {web.UnknownModel("x"), 404, "not_found_error", `"x"`},
		"media":         {web.Refused(http.StatusRequestEntityTooLarge, "", "why"), 413, "request_too_large", "why"},
		"another type":  {web.Refused(http.StatusUnsupportedMediaType, "", "why"), 415, "invalid_request_error", "why"},
		"a long prompt": {infer.Errorf(infer.Invalid, "x: %w", &infer.PromptError{Tokens: 9, Most: 8}), 400, "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"},
		"a very long prompt": {
			infer.Errorf(infer.Invalid, "x: %w", &infer.PromptError{Tokens: 8, AtLeast: true, Most: 8}), 400, "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum",
		},
		"a wrapped one": {fmt.Errorf("x: %w", web.Invalid("n", "why")), 400, "invalid_request_error", "why"},
	} {
		if status, kind, text := failure(t, test.err); status != test.status || kind != test.kind || !strings.Contains(text, test.text) {
			t.Errorf("%s: %d %s %q", name, status, kind, text)
		}
	}
}

// Any body is either decoded, or refused with status 400 or 413. A decoded request has messages,
// and the last message is not from the assistant.
func FuzzRead(f *testing.F) {
	for _, more := range []string{"", tools + `,"tool_choice":{"type":"tool","name":"f"}`, `,"system":[{"type":"text","text":"x-anthropic-billing-header: a"}],"thinking":{"type":"adaptive"}`} {
		f.Add([]byte(ask(more)))
	}
	f.Add([]byte(block1(`{"type":"tool_result","tool_use_id":"1","content":[{"type":"image","source":{"type":"base64","data":"iVBORw0KGgo="}}]},{"type":"document","source":{"type":"text","data":"d"}}`)))
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := wire.Weigh(body); err != nil {
			return
		}
		r, err := anthropic.Read(body)
		if err != nil {
			if status, doc := anthropic.Failure(err, "x"); status != 400 && status != 413 || !utf8.Valid(doc) {
				t.Fatalf("%d %s", status, doc)
			}
			return
		}
		if n := len(r.Generate.Messages); n == 0 || r.Generate.MaxTokens < 0 || r.Generate.Messages[n-1].Role == infer.Assistant {
			t.Fatalf("accepted %+v", r)
		}
	})
}
