package responses_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/infer"
)

// Faults that were reported for other servers do not occur. Each case is named after its report.
func TestThreads(t *testing.T) {
	t.Run("ggml-org/llama.cpp#20156: tools of a server do not break a request", func(t *testing.T) {
		r := read(t, ask(`,"tools":[{"type":"web_search","external_web_access":false},{"type":"image_generation","output_format":"png"},{"type":"function","name":"f","parameters":{}}],"tool_choice":"auto"`))
		if len(r.Generate.Tools) != 1 || !slices.Equal(r.Ignored, []string{"image_generation", "web_search"}) {
			t.Errorf("tools %+v, ignored %q", r.Generate.Tools, r.Ignored)
		}
	})
	t.Run("jundot/omlx#3371: a call in a namespace comes back with it", func(t *testing.T) {
		all := split(t, stream(t, answer(read(t, requests["plain"])), &infer.ToolCall{ID: "c1", Name: "ns__h", Input: []byte(`{"x":1}`)}, done(infer.CalledTool)))
		item := all[len(all)-1].Response.Output[0]
		if item.Type != "function_call" || item.Name != "h" || item.Namespace != "ns" || item.CallID != "c1" || item.Arguments != `{"x":1}` {
			t.Errorf("item %+v", item)
		}
		again := read(t, input(`{"role":"user","content":"hi"},{"type":"function_call","call_id":"c1","name":"h","namespace":"ns","arguments":"{}"},{"type":"function_call_output","call_id":"c1","output":"r"}`))
		if part, ok := again.Generate.Messages[1].Content[0].(*infer.CallPart); !ok || part.Name != "ns__h" {
			t.Errorf("sent back: %+v", again.Generate.Messages[1])
		}
	})
	t.Run("ggml-org/llama.cpp#23465: the output of a call may be parts", func(t *testing.T) {
		r := read(t, input(`{"type":"function_call","call_id":"1","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"1","output":[{"type":"input_text","text":"a"},{"type":"output_text","text":"b"}]}`))
		part, ok := r.Generate.Messages[1].Content[0].(*infer.ResultPart)
		if !ok || (infer.Message{Content: part.Content}).Text() != "ab" {
			t.Errorf("got %+v", r.Generate.Messages[1])
		}
	})
	t.Run("lemonade-sdk/lemonade#3607: events have their indices", func(t *testing.T) {
		for form, body := range requests {
			for _, ev := range split(t, stream(t, answer(read(t, body)), answers()["all"]...)) {
				var m map[string]any
				if err := json.Unmarshal(ev.data, &m); err != nil {
					t.Fatal(err)
				}
				need := map[string]bool{
					"output_index":  !strings.HasPrefix(ev.kind, "response.created") && m["response"] == nil,
					"content_index": strings.Contains(ev.kind, "content_part") || strings.Contains(ev.kind, "output_text") || strings.Contains(ev.kind, "reasoning_text"),
					"summary_index": strings.Contains(ev.kind, "reasoning_summary"),
					"item_id":       m["item"] == nil && m["response"] == nil,
				}
				for member, needed := range need {
					if _, there := m[member]; there != needed {
						t.Errorf("%s: %s is there: %v: %s", form, member, there, ev.data)
					}
				}
			}
		}
	})
	t.Run("SaladDay/cc-switch-cli#387: an item begins before its first piece", func(t *testing.T) {
		begun := 0
		for _, ev := range split(t, stream(t, answer(read(t, requests["plain"])), answers()["all"]...)) {
			switch {
			case ev.kind == "response.output_item.added":
				begun++
			case strings.HasSuffix(ev.kind, ".delta") && ev.Output != begun-1:
				t.Errorf("a piece of item %d when %d have begun", ev.Output, begun)
			}
		}
	})
	t.Run("ggml-org/llama.cpp#21174: the first events have the whole response", func(t *testing.T) {
		all := split(t, stream(t, answer(read(t, requests["plain"])), text("a")))
		for _, ev := range all[:2] {
			for _, member := range []string{`"created_at":1700000000`, `"model":"gen"`, `"status":"in_progress"`, `"tools":[{`, `"output":[]`} {
				if !strings.Contains(string(ev.data), member) {
					t.Errorf("no %s in %s", member, ev.data)
				}
			}
		}
	})
}

// The model sees a custom tool as a function. In a call, the client gets the text in the model's
// arguments as the input of the tool.
func TestCustomTool(t *testing.T) {
	for wrote, want := range map[string]string{
		`{"input":"*** Begin\n\"é\""}`: "*** Begin\n\"é\"", `"bare"`: "bare", `{"other":1}`: `{"other":1}`, `{"input":""}`: "",
	} {
		all := split(t, stream(t, answer(read(t, requests["plain"])), &infer.ToolCall{ID: "c1", Name: "patch", Input: []byte(wrote)}, done(infer.CalledTool)))
		var kinds []string
		for _, ev := range all {
			kinds = append(kinds, ev.kind)
		}
		if diff := cmp.Diff([]string{
			"response.created", "response.in_progress", "response.output_item.added", "response.custom_tool_call_input.delta",
			"response.custom_tool_call_input.done", "response.output_item.done", "response.completed",
		}, kinds); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		item := all[len(all)-1].Response.Output[0]
		if item.Type != "custom_tool_call" || item.Name != "patch" || item.Input != want || all[3].Delta != want {
			t.Errorf("%s: %+v", wrote, item)
		}
	}
}

// The answer has the sealed form of thinking only if the request asks for it. When the client sends it
// back, the whole thinking is restored from it, even if the summary differs.
func TestSealedThinking(t *testing.T) {
	for _, body := range []string{requests["summary"], ask(`,"include":["reasoning.encrypted_content"]`)} {
		all := split(t, stream(t, answer(read(t, body)), &infer.Thinking{Delta: []byte("h\xc3\xa9 ")}, &infer.Thinking{Delta: []byte("\"m\"")}, text("a"), done(infer.EndOfTurn)))
		item := all[len(all)-1].Response.Output[0]
		if item.Type != "reasoning" || item.Encrypted == "" {
			t.Fatalf("item %+v", item)
		}
		again := read(t, input(`{"role":"user","content":"hi"},{"type":"reasoning","summary":[{"type":"summary_text","text":"other"}],"content":null,"encrypted_content":"`+item.Encrypted+`"},{"role":"assistant","content":"a"},{"role":"user","content":"go"}`))
		if part, ok := again.Generate.Messages[1].Content[0].(*infer.ThinkingPart); !ok || part.Text != "hé \"m\"" || len(again.Generate.Messages[1].Content) != 2 {
			t.Errorf("sent back: %+v", again.Generate.Messages[1])
		}
	}
	if all := split(t, stream(t, answer(read(t, ask(""))), &infer.Thinking{Delta: []byte("h")}, done(infer.EndOfTurn))); all[len(all)-1].Response.Output[0].Encrypted != "" {
		t.Error("sealed without being asked for")
	}
	for _, sealed := range []string{"inferd1.***", "inferd1.", "other"} { // not made by seal: the summary is used
		r := read(t, input(`{"type":"reasoning","summary":[{"type":"summary_text","text":"s"}],"encrypted_content":"`+sealed+`"},{"role":"user","content":"go"}`))
		if part, ok := r.Generate.Messages[0].Content[0].(*infer.ThinkingPart); !ok || part.Text != "s" {
			t.Errorf("%s: %+v", sealed, r.Generate.Messages[0])
		}
	}
}
