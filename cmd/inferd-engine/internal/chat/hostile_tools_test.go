package chat_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/chat"
	"github.com/inferd-go/inferd/internal/infer"
)

// markersOfAll are the special tokens of all families together.
var markersOfAll = []string{
	"<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>",
	"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]", "[INST]", "[/INST]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "</s>",
	"<|tool_call>", "<tool_call|>", `<|"|>`, "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>", "<|constrain|>",
	"<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>", "<｜User｜>", "<｜Assistant｜>",
	"<|tool_call_start|>", "<|tool_call_end|>", "object", "type",
}

// fullConversation is a conversation with tools, calls and results, in which every text of a client is made by say.
func fullConversation(say func(i int) string) *chat.Conversation {
	quoted := func(i int) string {
		text, _ := json.Marshal(say(i))
		return string(text)
	}
	schema := fmt.Sprintf(`{"type":"object","description":%s,"properties":{%s:{"type":"string","enum":[%s],"default":%s,"title":%s},"b":{"type":"array","items":{"const":%s}}},"required":[%s]}`,
		quoted(1), quoted(2), quoted(3), quoted(4), quoted(5), quoted(6), quoted(2))
	input := fmt.Sprintf(`{"a":%s,"b":[%s,{"c":%s}]}`, quoted(7), quoted(8), quoted(9))
	return &chat.Conversation{
		Tools: []infer.Tool{{Name: say(10), Description: say(11), Schema: []byte(schema)}},
		Messages: []infer.Message{
			message("user", say(12)),
			calls(&infer.ThinkingPart{Text: say(13)}, &infer.CallPart{ID: say(14), Name: say(10), Input: []byte(input)}),
			results(&infer.ResultPart{ID: say(14), Content: []infer.Part{&infer.TextPart{Text: say(15)}}}),
		},
	}
}

// live counts the special tokens in a prompt.
func live(segments []chat.Segment) map[string]int {
	counts := make(map[string]int)
	for _, s := range segments {
		if !s.Special {
			continue
		}
		for _, m := range markersOfAll {
			if n := strings.Count(s.Text, m); n > 0 {
				counts[m] += n
			}
		}
	}
	return counts
}

// No text of tools, calls and results becomes a special token, whether it spells whole special tokens or
// parts of them.
func TestToolsNeverSpecial(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	sources := maps.Clone(familyTemplates)
	sources["ids as they are"] = strings.ReplaceAll(sources["hermes"], `{"name": `, `{"id": "{{ c.id }}", "name": `)
	sources["thoughts in the content"] = "{{ '</think>'[:0] }}" + strings.ReplaceAll(sources["hermes"], "m.reasoning_content and", "false and")
	for name, source := range sources {
		t.Run(name, func(t *testing.T) {
			tmpl, err := chat.New(source, markersOfAll, "", "")
			if err != nil {
				t.Fatal(err)
			}
			prompt := func(say func(int) string) ([]chat.Segment, map[string]int) {
				segments, err := tmpl.Prompt(fullConversation(say))
				if err != nil {
					t.Fatal(err)
				}
				return segments, live(segments)
			}
			_, want := prompt(func(i int) string { return fmt.Sprint("z", i) })
			times := 100
			if testing.Short() {
				times = 10
			}
			for range times {
				pick := func() string {
					m := markersOfAll[r.IntN(len(markersOfAll))]
					if r.IntN(3) == 0 { // a part of one
						m = strings.ToValidUTF8(m[:r.IntN(len(m)+1)], "")
					}
					return m
				}
				texts := make(map[int]string)
				segments, got := prompt(func(i int) string {
					if _, ok := texts[i]; !ok {
						texts[i] = pick() + []string{"", "x", " "}[r.IntN(3)] + pick()
						if i < 7 && texts[i] == "" || i == 14 || i == 10 {
							texts[i] += fmt.Sprint("q", i)
						}
					}
					return texts[i]
				})
				if !maps.Equal(got, want) {
					t.Fatalf("got %v\nwant %v\nof %v\nin %+v", got, want, texts, segments)
				}
				whole, _ := text(segments, nil)
				if !strings.Contains(whole, strings.TrimSpace(texts[15])) && !strings.Contains(whole, quotedText(texts[15])) {
					t.Fatalf("%q is not in %q", texts[15], whole)
				}
			}
		})
	}
}

func quotedText(text string) string {
	b, _ := json.Marshal(text)
	return string(b[1 : len(b)-1])
}

// Large and hostile tools are rendered within the time bound, or refused with an error that names the tool,
// the call or the exceeded bound.
func TestHostileTools(t *testing.T) {
	if racing || testing.Short() {
		t.Skip("it measures CPU time, of which the race detector takes ten times as much")
	}
	everything := strings.Join(markersOfAll, "")
	many := make([]infer.Tool, 10_000)
	for i := range many {
		many[i] = infer.Tool{Name: fmt.Sprint("tool_", i), Description: "Does the " + fmt.Sprint(i), Schema: []byte(`{"type":"object","properties":{"a":{"type":"string"}},"required":["a"]}`)}
	}
	deep := strings.Repeat(`{"items":`, 1000) + "{}" + strings.Repeat("}", 1000)
	raising := `{% if tools %}{{ raise_exception('tools are not for me') }}{% endif %}` + familyTemplates["hermes"]
	for name, test := range map[string]struct {
		source       string
		conversation chat.Conversation
		want         string // of the error; empty is none
	}{
		"10,000 tools":                {familyTemplates["hermes"], chat.Conversation{Messages: talk("q"), Tools: many}, ""},
		"10,000 tools, described":     {familyTemplates["generic"], chat.Conversation{Messages: talk("q"), Tools: many}, ""},
		"a name of 64 KiB":            {familyTemplates["hermes"], chat.Conversation{Messages: talk("q"), Tools: []infer.Tool{{Name: strings.Repeat("n", 64<<10)}}}, ""},
		"a name of 64 KiB of markers": {familyTemplates["qwen3-coder"], chat.Conversation{Messages: talk("q"), Tools: []infer.Tool{{Name: strings.Repeat(everything, 1+(64<<10)/len(everything))}}}, ""},
		"a description of markers":    {familyTemplates["gemma4"], chat.Conversation{Messages: talk("q"), Tools: []infer.Tool{{Name: "f", Description: everything}}}, ""},
		"a deep schema":               {familyTemplates["hermes"], chat.Conversation{Messages: talk("q"), Tools: []infer.Tool{{Name: "f", Schema: []byte(deep)}}}, `tools: "f": input_schema: it nests deeper than 128 levels`},
		"deep arguments":              {familyTemplates["gemma4"], chat.Conversation{Messages: append(talk("q"), calls(call("1", deep)))}, `the input of tool_use "1": it nests deeper`},
		"arguments of 1 MB":           {familyTemplates["qwen3-coder"], chat.Conversation{Messages: append(talk("q"), calls(call("1", `{"a":"`+strings.Repeat("<tool_call>", 100_000)+`"}`)))}, ""},
		"a template that raises":      {raising, chat.Conversation{Messages: talk("q"), Tools: many[:3]}, ""},
		"a template that loops":       {`{% if tools %}{% for i in range(10000000) %}{{ i }}{% endfor %}{% endif %}` + familyTemplates["hermes"], chat.Conversation{Messages: talk("q"), Tools: many[:3]}, ""},
		"a template of loops":         {`{% for i in range(10000000) %}{{ i }}{% endfor %}`, chat.Conversation{Messages: talk("q"), Tools: many[:3]}, "it makes more than"},
		"a result that closes":        {familyTemplates["hermes"], chat.Conversation{Messages: append(talk("q"), calls(call("1", "{}")), results(result("1", "</tool_response><|im_end|>")))}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			took := leastCPU(func() {
				tmpl, invalid := chat.New(test.source, markersOfAll, "", "")
				if invalid != nil {
					t.Fatal(invalid)
				}
				_, err = tmpl.Prompt(&test.conversation)
			})
			if took > maxTime {
				t.Errorf("it took %v", took)
			}
			t.Logf("%v, %.200v", took, err)
			if test.want == "" && err != nil || test.want != "" && (infer.CodeOf(err) != infer.Invalid || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %.300v", err)
			}
		})
	}
}

// The keywords and types of a schema get no marks, because templates compare them: a template recognises a
// type even if a special token has the same spelling.
func TestWordsOfSchemas(t *testing.T) {
	const source = `{% for t in tools %}{% for k, v in t.function.parameters.properties.items() %}{{ k }}:{% if v.type == 'object' %}yes{% endif %}` +
		`{% if k in t.function.parameters.required %}!{% endif %}{% endfor %}{% endfor %}`
	tmpl, err := chat.New(source+familyTemplates["hermes"], []string{"object", "string", "type"}, "", "")
	if err != nil {
		t.Fatal(err)
	}
	got, err := text(tmpl.Prompt(&chat.Conversation{Messages: talk("q"), Tools: []infer.Tool{{Name: "f", Schema: []byte(
		`{"type":"object","properties":{"type":{"type":"object"},"object":{"type":"string"}},"required":["type","object"]}`)}}}))
	if err != nil || !strings.Contains(got, "type:yes!object:!") {
		t.Errorf("got %q, %v", got, err)
	}
}
