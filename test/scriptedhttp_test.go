package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/builtin"
)

// A parsedAnswer is an answer with thoughts and calls, as the client of a dialect understands it.
type parsedAnswer struct {
	Thoughts, Text string
	Calls          []string // the name and the input of each, separated by a space
	End            string   // the reason
}

// eachObject calls read with every JSON object of a body, which is a stream or one object. Each object is on one
// line, alone or as the data of an event.
func eachObject(body string, read func(object []byte)) {
	for line := range strings.Lines(body) {
		line = strings.TrimSpace(strings.TrimPrefix(line, "data: "))
		if strings.HasPrefix(line, "{") {
			read([]byte(line))
		}
	}
}

// parseChat reads an answer of chat completions.
func parseChat(t *testing.T, body string) (got parsedAnswer) {
	t.Helper()
	type message struct {
		Content   string
		Reasoning string `json:"reasoning_content"`
		Calls     []struct {
			Function struct{ Name, Arguments string }
		} `json:"tool_calls"`
	}
	eachObject(body, func(object []byte) {
		var m struct {
			Choices []struct {
				Delta, Message message
				Finish         string `json:"finish_reason"`
			}
		}
		decoded(t, object, &m)
		for _, c := range m.Choices {
			got.End += c.Finish
			for _, part := range []message{c.Delta, c.Message} {
				got.Text += part.Content
				got.Thoughts += part.Reasoning
				for _, call := range part.Calls {
					if call.Function.Name != "" {
						got.Calls = append(got.Calls, call.Function.Name+" ")
					}
					got.Calls[len(got.Calls)-1] += call.Function.Arguments
				}
			}
		}
	})
	return got
}

// parseResponse reads a response. The pieces of a stream must equal the whole answer in its last event.
func parseResponse(t *testing.T, body string) (got parsedAnswer) {
	t.Helper()
	type response struct {
		Status string
		Output []struct {
			Type, Name, Namespace, Arguments, Input string
			Content                                 []struct{ Type, Text string }
		}
	}
	var pieces parsedAnswer
	var whole response
	streamed := false
	eachObject(body, func(object []byte) {
		var m struct {
			response

			Type, Delta string
			Item        struct{ Type, Name, Namespace string }
			Response    response
		}
		decoded(t, object, &m)
		switch m.Type {
		case "":
			whole = m.response
		case "response.completed", "response.incomplete":
			whole, streamed = m.Response, true
		case "response.reasoning_text.delta":
			pieces.Thoughts += m.Delta
		case "response.output_text.delta":
			pieces.Text += m.Delta
		case "response.output_item.added":
			if strings.HasSuffix(m.Item.Type, "_call") {
				pieces.Calls = append(pieces.Calls, m.Item.Namespace+"/"+m.Item.Name+" ")
			}
		case "response.function_call_arguments.delta", "response.custom_tool_call_input.delta":
			pieces.Calls[len(pieces.Calls)-1] += m.Delta
		}
	})
	got.End = whole.Status
	for _, item := range whole.Output {
		for _, c := range item.Content {
			switch c.Type {
			case "reasoning_text":
				got.Thoughts += c.Text
			case "output_text":
				got.Text += c.Text
			}
		}
		if strings.HasSuffix(item.Type, "_call") {
			got.Calls = append(got.Calls, item.Namespace+"/"+item.Name+" "+item.Arguments+item.Input)
		}
	}
	pieces.End = got.End
	if streamed && fmt.Sprint(pieces) != fmt.Sprint(got) {
		t.Errorf("in pieces %q, whole %q", pieces, got)
	}
	return got
}

// parseMessage reads a message of Anthropic's interface. It checks that thinking has a signature.
func parseMessage(t *testing.T, body string) (got parsedAnswer) {
	t.Helper()
	type block struct {
		Type, Text, Thinking, Signature, Name string
		Partial                               string `json:"partial_json"`
		Input                                 json.RawMessage
	}
	signed := false
	add := func(b block) {
		got.Text += b.Text
		got.Thoughts += b.Thinking
		signed = signed || b.Signature != ""
		if b.Name != "" {
			got.Calls = append(got.Calls, b.Name+" ")
		}
		if b.Partial != "" || len(b.Input) > 2 { // a stream begins with an empty input
			got.Calls[len(got.Calls)-1] += b.Partial + string(b.Input)
		}
	}
	eachObject(body, func(object []byte) {
		var m struct {
			Content []block
			Block   block `json:"content_block"`
			Delta   struct {
				block

				End string `json:"stop_reason"`
			}
			End string `json:"stop_reason"`
		}
		decoded(t, object, &m)
		for _, b := range append(m.Content, m.Block, m.Delta.block) {
			add(b)
		}
		got.End += m.End + m.Delta.End
	})
	if signed != (got.Thoughts != "") {
		t.Errorf("the thoughts %q, signed: %v", got.Thoughts, signed)
	}
	return got
}

// parseOllama reads an answer of Ollama's interface.
func parseOllama(t *testing.T, body string) (got parsedAnswer) {
	t.Helper()
	eachObject(body, func(object []byte) {
		var m struct {
			Message struct {
				Content, Thinking string
				Calls             []struct {
					Function struct {
						Name      string
						Arguments json.RawMessage
					}
				} `json:"tool_calls"`
			}
			Response string // to a prompt
			End      string `json:"done_reason"`
		}
		decoded(t, object, &m)
		got.Text += m.Message.Content + m.Response
		got.Thoughts += m.Message.Thinking
		got.End += m.End
		for _, call := range m.Message.Calls {
			got.Calls = append(got.Calls, call.Function.Name+" "+string(call.Function.Arguments))
		}
	})
	return got
}

// parseCompletion reads an answer of llama.cpp's server.
func parseCompletion(t *testing.T, body string) (got parsedAnswer) {
	t.Helper()
	eachObject(body, func(object []byte) {
		var m struct {
			Content string
			End     string `json:"stop_type"`
		}
		decoded(t, object, &m)
		got.Text += m.Content
		got.End += m.End
	})
	return got
}

func decoded(t *testing.T, object []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(object, into); err != nil {
		t.Errorf("%s: %v", object, err)
	}
}

// weatherParameters is the schema of scriptedTool.
var weatherParameters = strings.TrimPrefix(strings.TrimSuffix(scriptedTool, "}"), `{"name":"get_weather","description":"d","input_schema":`)

// compactInput is scriptedInput without the white space between its values.
const compactInput = `{"city":"Köln <b>&","days":3}`

// scriptedOverHTTP sends requests in the dialects of HTTP, streamed and whole: with thinking, without it, and with a
// call and its result in the history.
func scriptedOverHTTP(t *testing.T, d *daemon) {
	t.Helper()
	openAI := `"tools":[{"type":"function","function":{"name":"get_weather","parameters":` + weatherParameters + `}}]`
	flat := `"tools":[{"type":"function","name":"get_weather","parameters":` + weatherParameters + `}]`
	messages := `"tools":[` + scriptedTool + `]`
	user := `{"role":"user","content":"hello"}`
	quoted, _ := json.Marshal(scriptedInput)
	called := `{"id":"c","type":"function","function":{"name":"get_weather","arguments":` + string(quoted) + `}}`
	for _, test := range []struct {
		path       string
		read       func(*testing.T, string) parsedAnswer
		first      string // asks for a call
		on, off    string // members about thinking
		second     string // has a call and its result
		calls, end string // of the first answer: the name and the input, and the reason
	}{
		{
			"/v1/chat/completions", parseChat, `"max_tokens":200,` + openAI + `,"messages":[` + user + `]`,
			`,"reasoning_effort":"low"`, `,"reasoning_effort":"none"`,
			`"max_tokens":100,` + openAI + `,"messages":[` + user + `,{"role":"assistant","reasoning_content":"Hm.","content":"` + scriptedText + `","tool_calls":[` + called + `]},{"role":"tool","tool_call_id":"c","content":"sunny"}]`,
			"get_weather " + scriptedInput, "tool_calls",
		},
		{
			"/v1/responses", parseResponse, `"max_output_tokens":200,` + flat + `,"input":"hello"`,
			`,"reasoning":{"effort":"low"}`, `,"reasoning":{"effort":"none"}`,
			`"max_output_tokens":100,` + flat + `,"input":[` + user + `,{"type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"Hm."}]},` +
				`{"type":"function_call","call_id":"c","name":"get_weather","arguments":` + string(quoted) + `},{"type":"function_call_output","call_id":"c","output":"sunny"}]`,
			"/get_weather " + scriptedInput, "completed",
		},
		{
			"/v1/messages", parseMessage, `"max_tokens":200,` + messages + `,"messages":[` + user + `]`,
			`,"thinking":{"type":"enabled","budget_tokens":1024}`, `,"thinking":{"type":"disabled"}`,
			`"max_tokens":100,` + messages + `,"messages":[` + user + `,{"role":"assistant","content":[{"type":"thinking","thinking":"Hm.","signature":"s"},{"type":"tool_use","id":"c","name":"get_weather","input":` + scriptedInput + `}]},` +
				`{"role":"user","content":[{"type":"tool_result","tool_use_id":"c","content":"sunny"}]}]`,
			"get_weather " + scriptedInput, "tool_use",
		},
		{
			"/api/chat", parseOllama, `"model":"llamacpp","options":{"num_predict":200},` + openAI + `,"messages":[` + user + `]`,
			`,"think":true`, `,"think":false`,
			`"model":"llamacpp",` + openAI + `,"messages":[` + user + `,{"role":"assistant","thinking":"Hm.","content":"","tool_calls":[{"function":{"name":"get_weather","arguments":` + scriptedInput + `}}]},{"role":"tool","tool_name":"get_weather","content":"sunny"}]`,
			"get_weather " + compactInput, "stop",
		},
	} {
		for _, stream := range []bool{true, false} {
			for _, thinking := range []string{"", test.on, test.off} {
				want := parsedAnswer{"Hm.", scriptedText, []string{test.calls}, test.end}
				if thinking == test.off {
					want.Thoughts = ""
				}
				d.checkAnswer(test.path, fmt.Sprintf(`{%s%s,"stream":%v}`, test.first, thinking, stream), test.read, want)
			}
			want := parsedAnswer{Text: scriptedReply, End: strings.NewReplacer("tool_calls", "stop", "tool_use", "end_turn").Replace(test.end)}
			d.checkAnswer(test.path, fmt.Sprintf(`{%s,"stream":%v}`, test.second, stream), test.read, want)
		}
	}
	scriptedNames(t, d)
}

// scriptedNames requests calls of tools that only Responses has: in a namespace, or with a text as input.
func scriptedNames(t *testing.T, d *daemon) {
	t.Helper()
	for tool, want := range map[string]string{
		`{"type":"namespace","name":"home","description":"d","tools":[{"type":"function","name":"get_weather","description":"d","parameters":` + weatherParameters + `}]}`: "home/get_weather " + scriptedInput,
		`{"type":"custom","name":"apply_patch","description":"d","format":{"type":"grammar","syntax":"lark","definition":"start: /.+/"}}`:                                  "/apply_patch " + scriptedPatch,
	} {
		for _, stream := range []bool{true, false} {
			d.checkAnswer("/v1/responses", fmt.Sprintf(`{"max_output_tokens":200,"tools":[%s],"input":"hello","stream":%v}`, tool, stream), parseResponse,
				parsedAnswer{Text: scriptedText, Calls: []string{want}, End: "completed"})
		}
	}
}

// checkAnswer sends a request, and compares the answer, as read decodes it, with want.
func (d *daemon) checkAnswer(path, body string, read func(*testing.T, string) parsedAnswer, want parsedAnswer) {
	d.t.Helper()
	status, answer := d.overHTTP(path, body)
	if got := read(d.t, answer); status != http.StatusOK || fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		d.t.Errorf("%s %s: %d, %q, want %q\n%s", path, body, status, got, want, answer)
	}
}

// In every dialect of HTTP, streamed and whole, a model with random weights answers with a value of the requested
// schema, or with a JSON object if only that is requested.
func TestSchemasOverHTTP(t *testing.T) {
	d := serve(t, "--model-path", "builtin:tiny", "--n-ctx", "2048")
	user := `"messages":[{"role":"user","content":"hello"}]`
	for _, test := range []struct {
		path           string
		read           func(*testing.T, string) parsedAnswer
		body           string
		schema, object string // members that request a schema and any JSON object; empty if the dialect has none
	}{
		{
			"/v1/chat/completions", parseChat, user + `,"max_tokens":40`,
			`"response_format":{"type":"json_schema","json_schema":{"name":"person","strict":true,"schema":` + personSchema + `}}`,
			`"response_format":{"type":"json_object"}`,
		},
		{
			"/v1/responses", parseResponse, `"input":"hello","max_output_tokens":40`,
			`"text":{"format":{"type":"json_schema","name":"person","strict":true,"schema":` + personSchema + `}}`,
			`"text":{"format":{"type":"json_object"}}`,
		},
		{
			"/v1/messages", parseMessage, user + `,"max_tokens":40`,
			`"output_config":{"format":{"type":"json_schema","schema":` + personSchema + `}}`, "",
		},
		{
			"/api/chat", parseOllama, `"model":"llamacpp","options":{"num_predict":40},` + user,
			`"format":` + personSchema, `"format":"json"`,
		},
		{"/api/generate", parseOllama, `"model":"llamacpp","options":{"num_predict":40},"prompt":"hello"`, `"format":` + personSchema, `"format":"json"`},
		{"/completion", parseCompletion, `"prompt":"hello","n_predict":40`, `"json_schema":` + personSchema, `"json_schema":{"type":"object"}`},
	} {
		for _, stream := range []bool{true, false} {
			status, answer := d.overHTTP(test.path, fmt.Sprintf(`{%s,%s,"stream":%v}`, test.body, test.schema, stream))
			got := test.read(t, answer)
			if checkPerson(t, test.path, got.Text); status != http.StatusOK || len(got.Calls) > 0 {
				t.Errorf("%s: %d %s", test.path, status, answer)
			}
			if test.object == "" {
				continue
			}
			status, answer = d.overHTTP(test.path, fmt.Sprintf(`{%s,%s,"stream":%v}`, test.body, test.object, stream))
			var object map[string]json.RawMessage // numbers may exceed a float64
			if err := json.Unmarshal([]byte(test.read(t, answer).Text), &object); err != nil || status != http.StatusOK {
				t.Errorf("%s: %d %s: %v", test.path, status, answer, err)
			}
		}
	}
}

// In every dialect of HTTP, streamed and whole, a model that thinks answers with a value of the requested schema behind
// its thoughts, which are not part of the value. Without the schema it would go on after the value.
func TestSchemasWhileThinking(t *testing.T) {
	value := []string{`{"name": "An`, `n", "age"`, ": 3}"}
	more := []string{" That", " is", " she."}
	path := recite(t, hermes, "{% if enable_thinking is defined and not enable_thinking %}{{- '<|quiet|>' -}}{% else %}{{- '<|first|>' -}}{% endif %}",
		builtin.Recital{After: "<|first|>", Tokens: slices.Concat([]string{"<think>", "\nHm", ".\n", "</think>", "\n\n"}, value, more)},
		builtin.Recital{After: "<|quiet|>", Skip: len("\n\n\n\n") + 2, Tokens: slices.Concat(value, more)})
	d := serve(t, "--model-path", path, "--n-ctx", "2048")
	user := `"messages":[{"role":"user","content":"hello"}]`
	for _, test := range []struct {
		path         string
		read         func(*testing.T, string) parsedAnswer
		body, schema string
		on, off      string // members about thinking
		end          string
	}{
		{
			"/v1/chat/completions", parseChat, `"max_tokens":200,` + user,
			`,"response_format":{"type":"json_schema","json_schema":{"name":"person","strict":true,"schema":` + personSchema + `}}`,
			`,"reasoning_effort":"low"`, `,"reasoning_effort":"none"`, "stop",
		},
		{
			"/v1/responses", parseResponse, `"max_output_tokens":200,"input":"hello"`,
			`,"text":{"format":{"type":"json_schema","name":"person","strict":true,"schema":` + personSchema + `}}`,
			`,"reasoning":{"effort":"low"}`, `,"reasoning":{"effort":"none"}`, "completed",
		},
		{
			"/v1/messages", parseMessage, `"max_tokens":200,` + user,
			`,"output_config":{"format":{"type":"json_schema","schema":` + personSchema + `}}`,
			`,"thinking":{"type":"enabled","budget_tokens":1024}`, `,"thinking":{"type":"disabled"}`, "end_turn",
		},
		{
			"/api/chat", parseOllama, `"model":"llamacpp","options":{"num_predict":200},` + user, `,"format":` + personSchema,
			`,"think":true`, `,"think":false`, "stop",
		},
	} {
		for _, stream := range []bool{true, false} {
			for _, thinking := range []string{"", test.on, test.off} {
				want := parsedAnswer{Thoughts: "Hm.", Text: strings.Join(value, ""), End: test.end}
				if thinking == test.off {
					want.Thoughts = ""
				}
				d.checkAnswer(test.path, fmt.Sprintf(`{%s%s%s,"stream":%v}`, test.body, test.schema, thinking, stream), test.read, want)
			}
		}
		free := fmt.Sprintf(`{%s%s,"stream":false}`, test.body, test.off)
		d.checkAnswer(test.path, free, test.read, parsedAnswer{Text: strings.Join(append(value, more...), ""), End: test.end})
	}
}
