package openai_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire/openai"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// testdata/openapi.json has the schemas of the answers that this package writes, from OpenAI's
// published description (github.com/openai/openai-openapi at f85dbe22, MIT: see LICENSE there),
// without its prose. "nullable" is expressed as a null type.

// schema compiles the published schema with the given name.
func schema(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	return schemaIn(t, "openapi.json", name)
}

// schemaIn compiles a schema in a file of testdata.
func schemaIn(t *testing.T, file, name string) *jsonschema.Schema {
	t.Helper()
	text, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource(file, doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(file + "#/components/schemas/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(t *testing.T, s *jsonschema.Schema, doc []byte) {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
	if err != nil {
		t.Fatalf("%v: %s", err, doc)
	}
	if err := s.Validate(v); err != nil {
		t.Errorf("%v\n%s", err, doc)
	}
}

// answers returns the events of several answers.
func answers() map[string][]infer.Event {
	logprobs := []infer.Logprob{
		{Candidate: infer.Candidate{ID: 7, Piece: []byte("é"), Logprob: -0.5}, Top: []infer.Candidate{{ID: 7, Piece: []byte("é"), Logprob: -0.5}, {ID: 8, Piece: []byte{0xc3}, Logprob: infer.LeastLogprob}}},
	}
	done := func(r infer.Reason) *infer.Done {
		return &infer.Done{Reason: r, In: 7, Cached: 3, Out: 5, Backend: "mock"}
	}
	return map[string][]infer.Event{
		"text":     {&infer.Admitted{}, &infer.Prompt{Tokens: 7}, &infer.Text{Delta: []byte("a\n\"")}, &infer.Text{Delta: []byte("é"), Logprobs: logprobs}, done(infer.EndOfTurn)},
		"nothing":  {done(infer.Length)},
		"thinking": {&infer.Thinking{Delta: []byte("hm"), Tokens: 2}, &infer.Text{Delta: []byte("a")}, done(infer.StopSequence)},
		"calls": {
			&infer.ToolCall{ID: "c1", Name: "f", Input: []byte(`{"x":"é"}`)}, &infer.ToolCall{Name: "g", Input: []byte(`{}`)}, done(infer.CalledTool),
		},
		"text and a call": {&infer.Text{Delta: []byte("a")}, &infer.ToolCall{ID: "c1", Name: "f", Input: []byte(`{}`)}, done(infer.EndOfTurn)},
	}
}

// chats are requests with answers of different forms.
var chats = map[string]openai.Chat{
	"plain":    {},
	"usage":    {Usage: true},
	"logprobs": {Logprobs: true, Top: 1},
}

func TestAnswersMatchTheDescription(t *testing.T) {
	body, chunk := schema(t, "CreateChatCompletionResponse"), schema(t, "CreateChatCompletionStreamResponse")
	for name, events := range answers() {
		for form, chat := range chats {
			t.Run(name+", "+form, func(t *testing.T) {
				a := openai.Answer{ID: "chatcmpl-1", Model: "gen", Created: 1700000000, Chat: &chat}
				for _, ev := range events {
					doc, err := a.Collect(ev)
					if _, last := ev.(*infer.Done); err != nil || (doc != nil) != last {
						t.Fatalf("%T: %q, %v", ev, doc, err)
					}
					if doc != nil {
						validate(t, body, doc)
					}
				}
				a = openai.Answer{ID: "chatcmpl-1", Model: "gen", Created: 1700000000, Chat: &chat}
				var stream []byte
				for _, ev := range events {
					var err error
					if stream, err = a.Stream(stream, ev); err != nil {
						t.Fatal(err)
					}
				}
				all := strings.Split(strings.TrimSuffix(string(stream), "\n\n"), "\n\n")
				for i, event := range all {
					data, ok := strings.CutPrefix(event, "data: ")
					switch {
					case !ok:
						t.Errorf("event %q", event)
					case i == len(all)-1:
						if data != "[DONE]" {
							t.Errorf("the last event is %q", event)
						}
					default:
						validate(t, chunk, []byte(data))
					}
				}
			})
		}
	}
}

func TestOthersMatchTheDescription(t *testing.T) {
	for _, base64 := range []bool{false, true} {
		e := openai.Embeddings{Task: &infer.Embed{}, Model: "gen", Base64: base64}
		if _, err := e.Collect(&infer.Vectors{Values: [][]float32{{0.5, -1}, {1e-9, 3}}}); err != nil {
			t.Fatal(err)
		}
		doc, err := e.Collect(&infer.Done{In: 3})
		if err != nil {
			t.Fatal(err)
		}
		if base64 { // the schema allows only numbers; the prose mentions base64
			if want := `"embedding":"AAAAPwAAgL8="`; !strings.Contains(string(doc), want) {
				t.Errorf("no %s in %s", want, doc)
			}
			continue
		}
		validate(t, schema(t, "CreateEmbeddingResponse"), doc)
	}
	models := []openai.Model{{ID: "gen", NCtx: 512, Params: 1, Size: 2}, {ID: "é \""}}
	validate(t, schema(t, "ListModelsResponse"), openai.AppendModels(nil, models))
	validate(t, schema(t, "ListModelsResponse"), openai.AppendModels(nil, nil))
	for i := range models {
		validate(t, schema(t, "Model"), models[i].Append(nil))
	}
	for _, f := range []error{web.Invalid("n", "why"), web.Refused(404, "", "why"), web.UnknownModel("x")} {
		validate(t, schema(t, "ErrorResponse"), openai.ErrorOf(f).Append(nil))
	}
}

// The published schemas refuse wrong documents: a schema that accepts everything would hide faults.
func TestDescriptionRefuses(t *testing.T) {
	for name, doc := range map[string]string{
		"CreateChatCompletionResponse":       `{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"a"},"logprobs":null,"finish_reason":"stop"}]}`,
		"CreateChatCompletionStreamResponse": `{"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{}}]}`,
		"ListModelsResponse":                 `{"object":"list","data":[{"id":"m"}]}`,
		"ErrorResponse":                      `{"error":{"message":"m"}}`,
	} {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(doc))
		if err != nil {
			t.Fatal(err)
		}
		if schema(t, name).Validate(v) == nil {
			t.Errorf("%s accepts %s", name, doc)
		}
	}
}
