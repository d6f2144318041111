package responses_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/openai"
	"github.com/inferd-go/inferd/internal/wire/responses"
)

// asked returns the task that ask("") encodes, modified by change.
func asked(change func(*infer.Generate)) *infer.Generate {
	gen := &infer.Generate{
		Model: "gen", Blocks: true, Messages: []infer.Message{infer.TextMessage(infer.User, "hi")}, Defaults: openai.Defaults(),
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

func call(id, name, input string) infer.Part {
	return &infer.CallPart{ID: id, Name: name, Input: []byte(input)}
}

func result(id, text string) infer.Part {
	return &infer.ResultPart{ID: id, Content: []infer.Part{&infer.TextPart{Text: text}}}
}

func thought(text string) infer.Part { return &infer.ThinkingPart{Text: text} }

// input returns a request with the given items.
func input(items string) string { return `{"model":"gen","input":[` + items + `]}` }

func TestRead(t *testing.T) {
	const custom = `{"type":"object","properties":{"input":{"type":"string"}},"required":["input"],"additionalProperties":false}`
	all := []infer.Tool{
		{Name: "f", Description: "d", Schema: []byte(`{"type":"object","properties":{"x":{"type":"string"}}}`)},
		{Name: "g"},
		{Name: "ns__h", Schema: []byte(`{"type":"object"}`)},
		{Name: "patch", Description: "p\n\nThe input follows this grammar (lark):\nstart: X", Schema: []byte(custom)},
	}
	withTools := func(c infer.ToolChoice, which ...infer.Tool) func(*infer.Generate) {
		return func(g *infer.Generate) { g.Tools, g.Choice = which, c }
	}
	user := said(infer.User, &infer.TextPart{Text: "hi"})
	for name, test := range map[string]struct {
		in   string
		want func(*infer.Generate)
	}{
		"a text": {ask(""), func(*infer.Generate) {}},
		"null means missing": {ask(`,"instructions":null,"stream":null,"max_output_tokens":null,"temperature":null,"tools":null,"tool_choice":null,
			"text":null,"reasoning":null,"include":null,"previous_response_id":null,"conversation":null,"background":null,"prompt":null,"store":null`), func(*infer.Generate) {}},
		"bounds": {ask(`,"max_output_tokens":9,"temperature":0,"top_p":0.5,"top_logprobs":3`), func(g *infer.Generate) {
			g.MaxTokens, g.Sampling, g.Logprobs = 9, infer.Sampling{Temperature: new(0.0), TopP: new(0.5)}, 3
		}},
		"logprobs":               {ask(`,"include":["message.output_text.logprobs"]`), func(g *infer.Generate) { g.Logprobs = 1 }},
		"text":                   {ask(`,"text":{"format":{"type":"text"}}`), func(*infer.Generate) {}},
		"an object":              {ask(`,"text":{"format":{"type":"json_object"}}`), func(g *infer.Generate) { g.Format.JSONObject = true }},
		"a schema":               {ask(`,"text":{"format":{"type":"json_schema","name":"n","strict":true,"schema":{"type":"object"}}}`), func(g *infer.Generate) { g.Format.Schema = []byte(`{"type":"object"}`) }},
		"effort":                 {ask(`,"reasoning":{"effort":"low"}`), func(g *infer.Generate) { g.Thinking, g.ThinkingBudget = infer.ThinkOn, 1024 }},
		"no effort":              {ask(`,"reasoning":{"effort":"none"}`), func(g *infer.Generate) { g.Thinking = infer.ThinkOff }},
		"a summary only":         {ask(`,"reasoning":{"summary":"auto"}`), func(*infer.Generate) {}},
		"tools":                  {ask(tools), withTools(infer.ToolChoice{}, all...)},
		"one call":               {ask(`,"parallel_tool_calls":false`), func(g *infer.Generate) { g.OneCall = true }},
		"a call":                 {ask(tools + `,"tool_choice":"required"`), withTools(infer.ToolChoice{Mode: infer.ToolRequired}, all...)},
		"no call":                {ask(tools + `,"tool_choice":"none"`), withTools(infer.ToolChoice{Mode: infer.ToolNone}, all...)},
		"a call of g":            {ask(tools + `,"tool_choice":{"type":"function","name":"g"}`), withTools(infer.ToolChoice{Mode: infer.ToolNamed, Tool: "g"}, all...)},
		"a call of a custom one": {ask(tools + `,"tool_choice":{"type":"custom","name":"patch"}`), withTools(infer.ToolChoice{Mode: infer.ToolNamed, Tool: "patch"}, all...)},
		"a call in a namespace":  {ask(tools + `,"tool_choice":{"type":"function","name":"h","namespace":"ns"}`), withTools(infer.ToolChoice{Mode: infer.ToolNamed, Tool: "ns__h"}, all...)},
		"some of the tools": {
			ask(tools + `,"tool_choice":{"type":"allowed_tools","mode":"required","tools":[{"type":"function","name":"g"},{"type":"namespace","name":"ns"}]}`),
			withTools(infer.ToolChoice{Mode: infer.ToolRequired}, all[1], all[2]),
		},
		"items without a type are messages": {input(`{"role":"user","content":"hi"}`), func(*infer.Generate) {}},
		"parts":                             {input(`{"type":"message","role":"user","content":[{"type":"input_text","text":"hi"}]}`), func(*infer.Generate) {}},
		"system messages at the start": {
			`{"model":"gen","instructions":"a","input":[{"role":"developer","content":"b"},{"role":"system","content":[{"type":"input_text","text":"c"}]},{"role":"user","content":"hi"},{"role":"developer","content":"later"}]}`,
			messages(infer.TextMessage(infer.System, "a\n\nb\n\nc"), user, infer.TextMessage(infer.System, "later")),
		},
		"instructions":       {ask(`,"instructions":"a"`), messages(infer.TextMessage(infer.System, "a"), user)},
		"developers alone":   {input(`{"role":"developer","content":"a"}`), messages(infer.TextMessage(infer.System, "a"))},
		"empty content":      {input(`{"role":"user","content":[]}`), messages(said(infer.User, &infer.TextPart{}))},
		"refusals":           {input(`{"role":"assistant","content":[{"type":"refusal","refusal":"no"}]}`), messages(infer.TextMessage(infer.Assistant, "no"))},
		"an item of another": {input(`{"type":"web_search_call","id":"ws_1","status":"completed","action":{}},{"role":"user","content":"hi"}`), func(*infer.Generate) {}},
		"a round of tools": {
			input(`{"role":"user","content":"hi"},
			{"type":"reasoning","id":"rs_1","summary":[],"content":[{"type":"reasoning_text","text":"hm"}]},
			{"type":"message","id":"msg_1","role":"assistant","status":"completed","content":[{"type":"output_text","text":"ok","annotations":[]}]},
			{"type":"function_call","id":"fc_1","call_id":"1","name":"f","arguments":"{\"x\":1}"},
			{"type":"function_call","call_id":"2","name":"h","namespace":"ns","arguments":""},
			{"type":"custom_tool_call","call_id":"3","name":"patch","input":"\"*\""},
			{"type":"function_call_output","call_id":"1","output":"r"},
			{"type":"function_call_output","call_id":"2","output":[{"type":"input_text","text":"s"}]},
			{"type":"custom_tool_call_output","call_id":"3","output":"t"},
			{"role":"user","content":"go"}`),
			messages(user,
				said(infer.Assistant, thought("hm"), &infer.TextPart{Text: "ok"}, call("1", "f", `{"x":1}`), call("2", "ns__h", "{}"), call("3", "patch", `{"input":"\"*\""}`)),
				said(infer.User, result("1", "r"), result("2", "s"), result("3", "t")), infer.TextMessage(infer.User, "go")),
		},
		"a text ends a turn": {
			input(`{"role":"assistant","content":"a"},{"type":"reasoning","summary":[{"type":"summary_text","text":"b"},{"type":"summary_text","text":"c"}]},{"role":"assistant","content":"d"}`),
			messages(infer.TextMessage(infer.Assistant, "a"), said(infer.Assistant, thought("b\n\nc"), &infer.TextPart{Text: "d"})),
		},
		"thinking of another server": {input(`{"type":"reasoning","summary":[],"encrypted_content":"gAAAA"},{"role":"user","content":"hi"}`), func(*infer.Generate) {}},
		"sampling of llama.cpp's": {ask(`,"top_k":7,"min_p":0.5,"seed":5`), func(g *infer.Generate) {
			g.Sampling = infer.Sampling{TopK: new(7), MinP: new(0.5), Seed: new(uint32(5))}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(asked(test.want), read(t, test.in).Generate); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// Members and tools without effect are listed as ignored.
func TestIgnored(t *testing.T) {
	for more, want := range map[string][]string{
		"":                         nil,
		`,"store":false,"user":""`: {"store", "user"},
		`,"metadata":{},"client_metadata":{},"service_tier":"auto","safety_identifier":"s","prompt_cache_key":"k","truncation":"auto","max_tool_calls":1,"stream_options":{},"text":{"verbosity":"low"}`: {
			"client_metadata", "max_tool_calls", "metadata", "prompt_cache_key", "safety_identifier", "service_tier", "stream_options", "text.verbosity", "truncation",
		},
		`,"include":["reasoning.encrypted_content"]`:                                            nil,
		`,"include":["web_search_call.results"]`:                                                {"include"},
		`,"tools":[{"type":"web_search"},{"type":"image_generation"}]`:                          {"image_generation", "web_search"},
		`,"tools":[{"type":"tool_search","x":1},{"type":"X: y"},{}]`:                            {"tool_search", "tools"},
		`,"tools":[{"type":"custom","name":"c","format":{"type":"grammar"}}]`:                   {"tools.format"},
		`,"tools":[{"type":"custom","name":"c","format":{"type":"text"}}]`:                      nil,
		`,"tools":[{"type":"namespace","name":"n","tools":[{"type":"mcp"}]}]`:                   {"mcp"},
		`,"tool_choice":{"type":"allowed_tools","mode":"auto","tools":[{"type":"web_search"}]}`: {"web_search"},
	} {
		if got := read(t, ask(more)).Ignored; !slices.Equal(got, want) {
			t.Errorf("%s: ignored %q, want %q", more, got, want)
		}
	}
	r := read(t, input(`{"type":"mcp_call"},{"role":"user","content":"hi"}`))
	if !slices.Equal(r.Ignored, []string{"input.mcp_call"}) {
		t.Errorf("ignored %q", r.Ignored)
	}
	r = read(t, ask(`,"reasoning":{"effort":"high"}`))
	if r.Offer(infer.Abilities{}); !slices.Equal(r.Ignored, []string{"reasoning.effort"}) || r.Generate.Thinking == infer.ThinkOn {
		t.Errorf("ignored %q", r.Ignored)
	}
	var many strings.Builder
	for range 500 {
		many.WriteString(`{"type":"t`)
		many.WriteString(strings.Repeat("x", many.Len()%50))
		many.WriteString(`"},`)
	}
	if got := read(t, ask(`,"tools":[`+strings.TrimSuffix(many.String(), ",")+`]`)).Ignored; len(got) > 65 {
		t.Errorf("%d are named", len(got))
	}
}

// picture is a part that is an image of one pixel.
const picture = `{"type":"input_image","image_url":"data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="}`

// Requests with invalid or unsupported members are refused; the error names the member.
func TestRefusals(t *testing.T) {
	for name, test := range map[string]struct{ in, param, text string }{
		"an earlier response":        {ask(`,"previous_response_id":"resp_1"`), "previous_response_id", "not stored"},
		"a conversation":             {ask(`,"conversation":{"id":"c"}`), "conversation", "not stored"},
		"the background":             {ask(`,"background":true`), "background", "not stored"},
		"a prompt template":          {ask(`,"prompt":{"id":"p"}`), "prompt", "templates"},
		"a reference":                {input(`{"type":"item_reference","id":"x"}`), "input", "input[0]: item_reference"},
		"no input":                   {`{"model":"gen"}`, "input", "missing"},
		"empty input":                {input(``), "input", "must not be empty"},
		"only items without effect":  {input(`{"type":"web_search_call"}`), "input", "no message"},
		"input of another type":      {`{"input":7}`, "input", "array of items"},
		"an unknown item":            {input(`{"type":"dream"}`), "input", `input[0].type "dream"`},
		"an unknown role":            {input(`{"role":"robot","content":"x"}`), "input", "input[0].role"},
		"an unknown part":            {input(`{"role":"user","content":[{"type":"input_file","file_id":"f"}]}`), "input", "input[0].content[0].type"},
		"a part without its member":  {input(`{"role":"user","content":[{"type":"input_text"}]}`), "input", "has no input_text"},
		"an image that is a file":    {input(`{"role":"user","content":[{"type":"input_image","file_id":"f"}]}`), "input", "no image_url"},
		"an image to fetch":          {input(`{"role":"user","content":[{"type":"input_image","image_url":"https://x/y.png"}]}`), "input", "nothing is fetched"},
		"audio of another format":    {input(`{"role":"user","content":[{"type":"input_audio","input_audio":{"format":"mp3","data":""}}]}`), "input", "mp3"},
		"content of another type":    {input(`{"role":"user","content":7}`), "input", "array of parts"},
		"media for the system":       {input(`{"role":"system","content":[` + picture + `]}`), "input", "takes text only"},
		"media for the assistant":    {input(`{"role":"assistant","content":[` + picture + `]}`), "input", "takes text only"},
		"media as thinking":          {input(`{"type":"reasoning","content":[` + picture + `],"summary":[]}`), "input", "takes text only"},
		"a call without an id":       {input(`{"type":"function_call","name":"f","arguments":"{}"}`), "input", "no call_id"},
		"a call of nothing":          {input(`{"type":"function_call","call_id":"1","arguments":"{}"}`), "input", "no name"},
		"arguments that are no JSON": {input(`{"type":"function_call","call_id":"1","name":"f","arguments":"{"}`), "input", "must be JSON"},
		"a result of no call":        {input(`{"type":"function_call_output","output":"x"}`), "input", "no call_id"},
		"instructions that are none": {ask(`,"instructions":["a"]`), "instructions", "must be a string"},
		"no tokens":                  {ask(`,"max_output_tokens":0`), "max_output_tokens", "at least 1"},
		"many logprobs":              {ask(`,"top_logprobs":21`), "top_logprobs", "between 0 and 20"},
		"a number out of range":      {ask(`,"temperature":-1`), "temperature", "must be between"},
		"an unknown format":          {ask(`,"text":{"format":{"type":"xml"}}`), "text.format", "must be one of"},
		"a schema that is none":      {ask(`,"text":{"format":{"type":"json_schema","name":"n"}}`), "text.format", "must be an object"},
		"an unknown effort":          {ask(`,"reasoning":{"effort":"huge"}`), "reasoning.effort", "must be one of"},
		"a tool without a name":      {ask(`,"tools":[{"type":"function"}]`), "tools", "no name"},
		"a namespace without a name": {ask(`,"tools":[{"type":"namespace","tools":[]}]`), "tools", "no name"},
		"two tools of one name":      {ask(`,"tools":[{"type":"function","name":"a__b"},{"type":"namespace","name":"a","tools":[{"type":"function","name":"b"}]}]`), "tools", "two tools are called"},
		"too many tools":             {ask(`,"tools":[` + strings.Repeat(`{"type":"function","name":"f"},`, 1024) + `{"type":"function","name":"g"}]`), "tools", ""},
		"a tool of another type":     {ask(`,"tools":[7]`), "tools", "wrong form"},
		"parameters that are none":   {ask(`,"tools":[{"type":"function","name":"f","parameters":[]}]`), "tools", "must be an object"},
		"a choice of a server's":     {ask(tools + `,"tool_choice":{"type":"web_search"}`), "tool_choice", "must be auto"},
		"a choice of another tool":   {ask(tools + `,"tool_choice":{"type":"function","name":"x"}`), "tool_choice", "not among the tools"},
		"a choice without namespace": {ask(tools + `,"tool_choice":{"type":"function","name":"h"}`), "tool_choice", `full name is "ns__h"`},
		"allowed without namespace":  {ask(tools + `,"tool_choice":{"type":"allowed_tools","mode":"auto","tools":[{"type":"function","name":"h"}]}`), "tool_choice", `full name is "ns__h"`},
		"a choice of no name":        {ask(tools + `,"tool_choice":{"type":"function"}`), "tool_choice", "the name of the tool is missing"},
		"a call without tools":       {ask(`,"tool_choice":"required"`), "tool_choice", "needs tools"},
		"a long salt":                {ask(`,"cache_salt":"` + strings.Repeat("x", 65) + `"`), "cache_salt", "65 bytes"},
		"a member of another type":   {ask(`,"temperature":"hot"`), "temperature", "wrong type"},
		"not JSON":                   {`{"model":`, "", "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := responses.Read([]byte(test.in))
			if err == nil {
				t.Fatalf("accepted as %+v", got)
			}
			f := openai.ErrorOf(err)
			if status, body := responses.Failure(err, ""); status != 400 || check("ErrorResponse", body) != nil || f.Param != test.param || !strings.Contains(f.Message, test.text) {
				t.Errorf("got %d %s, want param %q and %q", status, body, test.param, test.text)
			}
			if infer.CodeOf(err) != infer.Invalid {
				t.Errorf("its code is %s", infer.CodeOf(err))
			}
		})
	}
}

// An answer that the daemon ended early or that is too large fails, so that it does not look
// complete. Events of other tasks are errors.
func TestCanceled(t *testing.T) {
	r := read(t, ask(""))
	if _, err := answer(r).Collect(&infer.Done{Reason: infer.Canceled}); infer.CodeOf(err) != infer.Unavailable {
		t.Errorf("Collect: %v", err)
	}
	if _, err := answer(r).Stream(nil, &infer.Done{Reason: infer.Canceled}); infer.CodeOf(err) != infer.Unavailable {
		t.Errorf("Stream: %v", err)
	}
	if _, err := answer(r).Stream(nil, &infer.Vectors{}); infer.CodeOf(err) != infer.Internal {
		t.Errorf("vectors: %v", err)
	}
	if testing.Short() {
		t.Skip("the rest copies 65 MiB")
	}
	if _, err := answer(r).Collect(text(strings.Repeat("x", 65<<20))); infer.CodeOf(err) != infer.TooLarge {
		t.Errorf("65 MiB: %v", err)
	}
}

// Errors from code that is common to all dialects name members of this dialect, too.
func TestMembersOfFailures(t *testing.T) {
	for param, err := range map[string]error{
		"tools":            infer.Abilities{}.Check(&infer.Generate{Tools: []infer.Tool{{Name: "f"}}}),
		"text.format":      infer.Abilities{}.Check(&infer.Generate{Format: infer.Format{JSONObject: true}}),
		"reasoning.effort": infer.Abilities{}.Check(&infer.Generate{Thinking: infer.ThinkOn}),
		"top_logprobs":     infer.Abilities{}.Check(&infer.Generate{Logprobs: 1}),
		"input":            infer.Errorf(infer.Invalid, "%w", &infer.PromptError{Tokens: 9, Most: 8}),
	} {
		if status, body := responses.Failure(err, ""); status != 400 || !strings.Contains(string(body), `"param":"`+param+`"`) {
			t.Errorf("%s: %d %s", param, status, body)
		}
	}
	if status, body := responses.Failure(errors.New("secret"), ""); status != 500 || strings.Contains(string(body), "secret") {
		t.Errorf("%d %s", status, body)
	}
}

// Large members of a request are not repeated in the answer.
func TestEcho(t *testing.T) {
	small := split(t, stream(t, answer(read(t, ask(`,"instructions":"brief"`))), done(infer.EndOfTurn)))
	if !strings.Contains(string(small[0].data), `"instructions":"brief"`) {
		t.Errorf("got %s", small[0].data)
	}
	large := split(t, stream(t, answer(read(t, ask(`,"instructions":"`+strings.Repeat("x", 2<<20)+`"`))), done(infer.EndOfTurn)))
	if len(large[0].data) > 4096 || check("ResponseCreatedEvent", large[0].data) != nil {
		t.Errorf("%d bytes", len(large[0].data))
	}
}

// Each event is one line, whatever white space the request has.
func TestEchoIsOneLine(t *testing.T) {
	pretty := "{\n\t\"type\": \"function\",\r\n \"name\": \"f\",\n\"parameters\": {\n\"type\": \"object\"\n},\n \"strict\": null\n}"
	space := "{\n\"type\": \"namespace\",\n\"name\": \"n\", \"description\": \"\\n\",\n\"tools\": [\n" + pretty + "\n]}"
	body := ask(",\n\"tools\": [\n" + pretty + ",\n" + space + "],\n\"tool_choice\": {\n\"type\": \"function\",\n\"name\": \"f\"},\n\"metadata\": {\n\"a\": \"b\"\n},\n\"text\": {\n\"format\": {\n\"type\": \"text\"\n}}")
	for _, ev := range split(t, stream(t, answer(read(t, body)), text("a"), done(infer.EndOfTurn))) {
		if err := check(schemas[ev.kind], ev.data); err != nil {
			t.Error(err)
		}
	}
}

// Any body is either decoded, or refused with status 400 or 413. The answer to a decoded request is
// valid JSON.
func FuzzRead(f *testing.F) {
	for _, body := range requests {
		f.Add([]byte(body))
	}
	f.Add([]byte(input(`{"type":"reasoning","encrypted_content":"inferd1.aG0=","summary":[]},{"type":"function_call","call_id":"1","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"1","output":[{"type":"input_text","text":"x"}]}`)))
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := wire.Weigh(body); err != nil {
			return
		}
		r, err := responses.Read(body)
		if err != nil {
			if status, doc := responses.Failure(err, ""); status != 400 && status != 413 || !utf8.Valid(doc) {
				t.Fatalf("%d %s", status, doc)
			}
			return
		}
		if len(r.Generate.Messages) == 0 || r.Generate.MaxTokens < 0 {
			t.Fatalf("accepted %+v", r)
		}
		doc, err := answer(r).Collect(done(infer.EndOfTurn))
		if err != nil || !jsontext.Value(doc).IsValid() {
			t.Fatalf("%s: %v", doc, err)
		}
	})
}
