package responses_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire/responses"
)

// testdata/openapi.json has the schemas of the answers and events that this package writes, from
// OpenAI's published description (github.com/openai/openai-openapi at f85dbe22, MIT: see LICENSE
// there), without its prose. "nullable" is expressed as a null type, and unions contain only the
// alternatives that the answers use.

var compiler = func() *jsonschema.Compiler {
	text, err := os.ReadFile("testdata/openapi.json")
	if err != nil {
		panic(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		panic(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("openapi.json", doc); err != nil {
		panic(err)
	}
	return c
}()

// check validates a document against the published schema of the given name.
func check(name string, doc []byte) error {
	s, err := compiler.Compile("openapi.json#/components/schemas/" + name)
	if err != nil {
		return err
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
	if err != nil {
		return err
	}
	if err := s.Validate(v); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, doc)
	}
	return nil
}

// schemas maps types of events to the names of their schemas.
var schemas = map[string]string{
	"response.created":                       "ResponseCreatedEvent",
	"response.in_progress":                   "ResponseInProgressEvent",
	"response.output_item.added":             "ResponseOutputItemAddedEvent",
	"response.output_item.done":              "ResponseOutputItemDoneEvent",
	"response.content_part.added":            "ResponseContentPartAddedEvent",
	"response.content_part.done":             "ResponseContentPartDoneEvent",
	"response.output_text.delta":             "ResponseTextDeltaEvent",
	"response.output_text.done":              "ResponseTextDoneEvent",
	"response.function_call_arguments.delta": "ResponseFunctionCallArgumentsDeltaEvent",
	"response.function_call_arguments.done":  "ResponseFunctionCallArgumentsDoneEvent",
	"response.custom_tool_call_input.delta":  "ResponseCustomToolCallInputDeltaEvent",
	"response.custom_tool_call_input.done":   "ResponseCustomToolCallInputDoneEvent",
	"response.reasoning_text.delta":          "ResponseReasoningTextDeltaEvent",
	"response.reasoning_text.done":           "ResponseReasoningTextDoneEvent",
	"response.reasoning_summary_part.added":  "ResponseReasoningSummaryPartAddedEvent",
	"response.reasoning_summary_part.done":   "ResponseReasoningSummaryPartDoneEvent",
	"response.reasoning_summary_text.delta":  "ResponseReasoningSummaryTextDeltaEvent",
	"response.reasoning_summary_text.done":   "ResponseReasoningSummaryTextDoneEvent",
	"response.completed":                     "ResponseCompletedEvent",
	"response.incomplete":                    "ResponseIncompleteEvent",
	"response.failed":                        "ResponseFailedEvent",
}

// An event is an event of a stream, with the members that these tests read.
type event struct {
	kind string
	data []byte

	Type     string `json:"type"`
	Sequence int    `json:"sequence_number"`
	Output   int    `json:"output_index"`
	ItemID   string `json:"item_id"`
	Delta    string `json:"delta"`
	Item     struct {
		ID     string `json:"id"`
		Status string `json:"status"`
	} `json:"item"`
	Response response `json:"response"`
}

// split returns the events of a stream.
func split(t *testing.T, stream []byte) (all []event) {
	t.Helper()
	for block := range strings.SplitSeq(strings.TrimSuffix(string(stream), "\n\n"), "\n\n") {
		first, second, ok := strings.Cut(block, "\n")
		kind, named := strings.CutPrefix(first, "event: ")
		data, is := strings.CutPrefix(second, "data: ")
		if !ok || !named || !is || strings.Contains(data, "\n") {
			t.Fatalf("event %q", block)
		}
		ev := event{kind: kind, data: []byte(data)}
		if err := json.Unmarshal(ev.data, &ev); err != nil {
			t.Fatalf("%v: %s", err, data)
		}
		all = append(all, ev)
	}
	return all
}

// A response is the body of an answer, and a member of some events.
type response struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	Error  *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
	IncompleteDetails *struct {
		Reason string `json:"reason"`
	} `json:"incomplete_details"`
	Output []struct {
		Type      string                  `json:"type"`
		ID        string                  `json:"id"`
		Status    string                  `json:"status"`
		CallID    string                  `json:"call_id"`
		Name      string                  `json:"name"`
		Namespace string                  `json:"namespace"`
		Arguments string                  `json:"arguments"`
		Input     string                  `json:"input"`
		Content   []struct{ Text string } `json:"content"`
		Summary   []struct{ Text string } `json:"summary"`
		Encrypted string                  `json:"encrypted_content"`
	} `json:"output"`
	Usage *struct {
		InputTokens  int `json:"input_tokens"`
		OutputTokens int `json:"output_tokens"`
		TotalTokens  int `json:"total_tokens"`
	} `json:"usage"`
}

// tools declares tools of each kind.
const tools = `,"tools":[
	{"type":"function","name":"f","description":"d","parameters":{"type":"object","properties":{"x":{"type":"string"}}},"strict":true},
	{"type":"function","name":"g"},
	{"type":"namespace","name":"ns","description":"n","tools":[{"type":"function","name":"h","parameters":{"type":"object"}}]},
	{"type":"custom","name":"patch","description":"p","format":{"type":"grammar","syntax":"lark","definition":"start: X"}}]`

func ask(more string) string { return `{"model":"gen","input":"hi"` + more + `}` }

func read(t *testing.T, body string) *responses.Request {
	t.Helper()
	r, err := responses.Read([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// requests are requests with answers of different forms.
var requests = map[string]string{
	"plain":    ask(tools),
	"summary":  ask(`,"reasoning":{"effort":"high","summary":"auto"},"include":["reasoning.encrypted_content"],"instructions":"be \"brief\"","store":false` + tools),
	"logprobs": ask(`,"top_logprobs":1,"temperature":0.5,"max_output_tokens":9,"parallel_tool_calls":false,"metadata":{"a":"b"},"tool_choice":{"type":"function","name":"f"},"text":{"format":{"type":"json_schema","name":"n","schema":{"type":"object"}}}` + tools),
}

func done(r infer.Reason) *infer.Done {
	return &infer.Done{Reason: r, In: 7, Cached: 3, Out: 5, Backend: "mock"}
}

func text(s string) *infer.Text { return &infer.Text{Delta: []byte(s)} }

// answers returns the events of several answers.
func answers() map[string][]infer.Event {
	logprobs := []infer.Logprob{
		{Candidate: infer.Candidate{ID: 7, Piece: []byte("é"), Logprob: -0.5}, Top: []infer.Candidate{{ID: 7, Piece: []byte("é"), Logprob: -0.5}, {ID: 8, Piece: []byte{0xc3}, Logprob: infer.LeastLogprob}}},
	}
	return map[string][]infer.Event{
		"text":     {&infer.Admitted{}, &infer.Prompt{Tokens: 7}, text("a\n\""), &infer.Text{Delta: []byte("é"), Logprobs: logprobs}, done(infer.EndOfTurn)},
		"nothing":  {done(infer.Length)},
		"thinking": {&infer.Thinking{Delta: []byte("hm"), Tokens: 2}, &infer.Thinking{Delta: []byte(" \"é"), Tokens: 1}, text("a"), done(infer.StopSequence)},
		"cut off":  {text("a"), done(infer.Length)},
		"calls": {
			&infer.ToolCall{ID: "c1", Name: "f", Input: []byte(`{"x":"é"}`)}, &infer.ToolCall{Name: "ns__h", Input: []byte(`{}`)},
			&infer.ToolCall{ID: "c3", Name: "patch", Input: []byte(`{"input":"*** \"é\""}`)}, &infer.ToolCall{ID: "c4", Name: "unknown", Input: []byte(`{}`)}, done(infer.CalledTool),
		},
		"all": {
			&infer.Thinking{Delta: []byte("hm")}, text("a"), &infer.Thinking{Delta: []byte("hm")}, &infer.ToolCall{ID: "c1", Name: "f", Input: []byte(`{}`)},
			text("b"), text("c"), done(infer.EndOfTurn),
		},
	}
}

func answer(r *responses.Request) *responses.Answer {
	return &responses.Answer{ID: "0123", Model: "gen", Created: 1700000000, Request: r}
}

func stream(t *testing.T, a *responses.Answer, events ...infer.Event) []byte {
	t.Helper()
	var out []byte
	for _, ev := range events {
		var err error
		if out, err = a.Stream(out, ev); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// Every answer and every event matches the published schema. Events are numbered from 0, each item
// has the same index and ID from its beginning to its end, and the last event has the whole answer.
func TestAnswersMatchTheDescription(t *testing.T) {
	for name, events := range answers() {
		for form, body := range requests {
			t.Run(name+", "+form, func(t *testing.T) {
				all := split(t, stream(t, answer(read(t, body)), events...))
				var ids []string
				for i, ev := range all {
					schema, known := schemas[ev.kind]
					if !known || ev.Type != ev.kind || ev.Sequence != i {
						t.Errorf("event %d: %s", i, ev.data)
					}
					if err := check(schema, ev.data); err != nil {
						t.Error(err)
					}
					switch {
					case ev.kind == "response.output_item.added":
						if ev.Output != len(ids) || ev.Item.Status == "completed" {
							t.Errorf("event %d: %s", i, ev.data)
						}
						ids = append(ids, ev.Item.ID)
					case ev.Item.ID != "" && ev.Item.ID != ids[ev.Output], ev.ItemID != "" && ev.ItemID != ids[ev.Output]:
						t.Errorf("event %d has another id: %s", i, ev.data)
					}
				}
				if all[0].kind != "response.created" || all[1].kind != "response.in_progress" || all[0].Response.Status != "in_progress" || len(all[0].Response.Output) > 0 {
					t.Errorf("the stream begins with %s\n%s", all[0].data, all[1].data)
				}
				last := all[len(all)-1].Response
				if len(last.Output) != len(ids) || last.ID != all[0].Response.ID || last.Usage.TotalTokens != 12 {
					t.Errorf("the last event has %+v", last)
				}
				for i, item := range last.Output {
					if item.ID != ids[i] {
						t.Errorf("item %d has the id %q, was %q", i, item.ID, ids[i])
					}
				}
				a := answer(read(t, body))
				var doc []byte
				for _, ev := range events {
					var err error
					if doc, err = a.Collect(ev); err != nil {
						t.Fatal(err)
					}
				}
				if err := check("Response", doc); err != nil {
					t.Error(err)
				}
				if whole := string(all[len(all)-1].data); !strings.Contains(whole, string(doc)) {
					t.Errorf("in one piece\n%s\nin the stream\n%s", doc, whole)
				}
			})
		}
	}
}

// The event of a failure matches the published schema, after any number of events of the answer.
func TestFailuresMatchTheDescription(t *testing.T) {
	for code, class := range map[string]infer.Code{
		"server_error": infer.Unavailable, "rate_limit_exceeded": infer.Busy, "invalid_prompt": infer.Invalid,
	} {
		for name, events := range answers() {
			for n := range events {
				a := answer(read(t, requests["summary"]))
				all := split(t, a.Fail(stream(t, a, events[:n]...), infer.Errorf(class, "why")))
				last := all[len(all)-1]
				if err := check("ResponseFailedEvent", last.data); err != nil {
					t.Error(err)
				}
				if all[0].kind != "response.created" || last.kind != "response.failed" || last.Sequence != len(all)-1 || last.Response.Status != "failed" ||
					last.Response.Error == nil || last.Response.Error.Code != code || last.Response.Error.Message != "why" {
					t.Errorf("%s, after %d events: %s", name, n, last.data)
				}
			}
		}
	}
	status, body := responses.Failure(infer.Errorf(infer.Invalid, "why: %w", &infer.PromptError{Tokens: 9, Most: 8}), "")
	if err := check("ErrorResponse", body); err != nil || status != 400 || !strings.Contains(string(body), `"param":"input","code":"context_length_exceeded"`) {
		t.Errorf("%d %s: %v", status, body, err)
	}
}

// The published schemas refuse wrong documents: a schema that accepts everything would hide faults.
func TestDescriptionRefuses(t *testing.T) {
	for name, doc := range map[string]string{
		"Response":                               `{"id":"resp_1","object":"response","created_at":1,"status":"completed","model":"m","output":[],"parallel_tool_calls":true,"tool_choice":"auto","tools":[]}`,
		"ResponseTextDeltaEvent":                 `{"type":"response.output_text.delta","item_id":"i","output_index":0,"content_index":0,"delta":"a","sequence_number":1}`,
		"ResponseFunctionCallArgumentsDoneEvent": `{"type":"response.function_call_arguments.done","item_id":"i","output_index":0,"arguments":"{}","sequence_number":1}`,
		"ResponseOutputItemDoneEvent":            `{"type":"response.output_item.done","output_index":0,"sequence_number":1,"item":{"type":"message","id":"i","role":"assistant","status":"completed","content":[{"type":"output_text","text":"a"}]}}`,
	} {
		if check(name, []byte(doc)) == nil {
			t.Errorf("%s accepts %s", name, doc)
		}
	}
}
