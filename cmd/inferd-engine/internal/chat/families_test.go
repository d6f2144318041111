package chat_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/chat"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/internal/infer"
)

// declared declares tools as most templates do.
const declared = `{% if tools %}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif %}`

// family templates are short ones in the notations of the families.
var familyTemplates = map[string]string{
	"hermes": declared + `{% for m in messages %}<|im_start|>{{ 'user' if m.role == 'tool' else m.role }}
{% if m.role == 'tool' %}<tool_response>
{{ m.content }}
</tool_response>{% else %}{% if m.reasoning_content and loop.last %}<think>
{{ m.reasoning_content }}
</think>

{% endif %}{{ m.content }}{% for c in m.tool_calls %}{% if m.content or not loop.first %}{{ '\n' }}{% endif %}<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{% endif %}`,
	"llama3-json": `{% if tools %}{% for t in tools %}{{ t | tojson(indent=4) }}{% endfor %}{% endif %}{% for m in messages %}` +
		`{% if m.tool_calls %}{% if m.tool_calls | length != 1 %}{{ raise_exception('one call at once') }}{% endif %}` +
		`<|start_header_id|>assistant<|end_header_id|>

{{ '{"name": "' + m.tool_calls[0].function.name + '", "parameters": ' + (m.tool_calls[0].function.arguments | tojson) + '}' }}<|eot_id|>` +
		`{% else %}<|start_header_id|>{{ 'ipython' if m.role == 'tool' else m.role }}<|end_header_id|>

{{ m.content }}<|eot_id|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}`,
	"mistral-nemo": `{% for m in messages %}{% if m.role == 'user' %}{% if tools and loop.last %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}` +
		`[INST]{{ m.content }}[/INST]{% elif m.role == 'tool' %}[TOOL_RESULTS]{{ m.content }}[/TOOL_RESULTS]{% elif m.tool_calls %}[TOOL_CALLS][` +
		`{% for c in m.tool_calls %}{% if c.id | length != 9 %}{{ raise_exception('ids have nine characters') }}{% endif %}` +
		`{{ (c.function | tojson)[:-1] + ', "id": "' + c.id + '"}' }}{% if not loop.last %}{{ ', ' }}{% endif %}{% endfor %}]</s>` +
		`{% elif m.role == 'assistant' %}{{ m.content }}</s>{% else %}{{ raise_exception('no such role') }}{% endif %}{% endfor %}`,
	"mistral-small-3.2": `{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]` +
		`{% elif m.role == 'system' %}[SYSTEM_PROMPT]{{ m.content }}[/SYSTEM_PROMPT]{% elif m.role == 'tool' %}[TOOL_RESULTS]{{ m.content }}[/TOOL_RESULTS]{% else %}{{ m.content }}` +
		`{% for c in m.tool_calls %}{% if c.id | length != 9 %}{{ raise_exception('nine') }}{% endif %}[TOOL_CALLS]{{ c.function.name }}[CALL_ID]{{ c.id }}[ARGS]{{ c.function.arguments | tojson }}{% endfor %}</s>{% endif %}{% endfor %}`,
	"qwen3-coder": declared + `{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}{% for c in m.tool_calls %}{% if m.content or not loop.first %}{{ '\n' }}{% endif %}<tool_call>
<function={{ c.function.name }}>
{% for k, v in c.function.arguments.items() %}<parameter={{ k }}>
{{ v if v is string else v | tojson }}
</parameter>
{% endfor %}</function>
</tool_call>{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}`,
	"lfm2": declared + `{% for m in messages %}<|im_start|>{{ m.role }}
{% if m.thinking %}<think>{{ m.thinking }}</think>{% endif %}{{ m.content }}{% if m.tool_calls %}<|tool_call_start|>[{% for c in m.tool_calls %}{{ c.function.name }}({% for k, v in c.function.arguments.items() %}{{ k }}=` +
		`{{ v | tojson }}{% if not loop.last %}{{ ', ' }}{% endif %}{% endfor %}){% if not loop.last %}{{ ', ' }}{% endif %}{% endfor %}]<|tool_call_end|>{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}`,
	"gemma4": `{% macro lit(v) %}{% if v is string %}<|"|>{{ v }}<|"|>{% elif v is mapping %}{{ '{' }}{% for k, x in v | dictsort %}{{ k }}:{{ lit(x) }}{% if not loop.last %},{% endif %}{% endfor %}{{ '}' }}{% else %}{{ v | tojson }}{% endif %}{% endmacro %}` +
		`{% if tools %}<|tool>{{ tools | tojson }}<tool|>{% endif %}{% if enable_thinking %}<|think|>{% endif %}{% for m in messages %}<|turn>{{ m.role }}
{% if m.reasoning_content and m.tool_calls %}<|channel>thought
{{ m.reasoning_content }}<channel|>{% endif %}{% for c in m.tool_calls %}<|tool_call>call:{{ c.function.name }}{{ '{' }}{% for k, v in c.function.arguments | dictsort %}{{ k }}:{{ lit(v) }}{% if not loop.last %},{% endif %}{% endfor %}{{ '}' }}<tool_call|>{% endfor %}{{ m.content }}<turn|>
{% endfor %}{% if add_generation_prompt %}<|turn>model
{% endif %}`,
	"gpt-oss": `<|start|>system<|message|>Reasoning: {{ reasoning_effort | default('medium') }}{% if tools %}{{ tools | tojson }}{% endif %}<|end|>{% for m in messages %}{% if m.role == 'tool' %}<|start|>functions.{{ m.name }} to=assistant<|channel|>commentary<|message|>{{ m.content }}<|end|>` +
		`{% elif m.tool_calls %}{% if m.thinking %}<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}<|start|>assistant to=functions.{{ m.tool_calls[0].function.name }}<|channel|>commentary json<|message|>{{ m.tool_calls[0].function.arguments | tojson }}<|call|>` +
		`{% elif m.role == 'assistant' %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}`,
	"deepseek-v3.1": `{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}<｜User｜>{{ m.content }}{% elif m.role == 'tool' %}<｜tool▁output▁begin｜>{{ m.content }}<｜tool▁output▁end｜>` +
		`{% else %}<｜Assistant｜></think>{{ m.content }}{% if m.tool_calls %}<｜tool▁calls▁begin｜>{% for c in m.tool_calls %}<｜tool▁call▁begin｜>{{ c.function.name }}<｜tool▁sep｜>{{ c.function.arguments | tojson }}<｜tool▁call▁end｜>{% endfor %}<｜tool▁calls▁end｜>{% endif %}<｜end▁of▁sentence｜>{% endif %}{% endfor %}` +
		`{% if add_generation_prompt %}<｜Assistant｜>{% if thinking is defined and not thinking %}</think>{% else %}<think>{% endif %}{% endif %}`,
	"generic": `{% for m in messages %}{{ m.role }}: {{ m.content }}
{% endfor %}`,
}

// Reading a template gives the dialect of its family, to the byte.
func TestFamilies(t *testing.T) {
	fixtures := dialect.Fixtures()
	for name, source := range familyTemplates {
		t.Run(name, func(t *testing.T) {
			got := compile(t, source).Dialect()
			want := *fixtures[name]
			if name == "lfm2" { // the template says more than the hand
				want.Calls.Param.Quote, want.Thinking.Closed = `"`, "<think></think>"
			}
			want.Thinking.Always = name == "gpt-oss"
			if !reflect.DeepEqual(*got, want) {
				t.Errorf("got  %+v\nwant %+v", *got, want)
			}
		})
	}
}

// What a template writes for calls of any arguments is what its dialect writes: a parser of the dialect
// reads back the history.
func TestCallsInHistory(t *testing.T) {
	for name, source := range familyTemplates {
		t.Run(name, func(t *testing.T) {
			tmpl := compile(t, source)
			r := rand.New(rand.NewPCG(1, 2))
			for range 200 {
				many := 1
				if tmpl.Dialect().Calls.Several {
					many += r.IntN(10)
				}
				var m infer.Message
				m.Role = infer.Assistant
				var calls []dialect.Call
				for i := range many {
					c := dialect.Call{ID: fmt.Sprintf("tc-%d", i+1), Name: word(r), Arguments: arguments(r)}
					m.Content = append(m.Content, &infer.CallPart{ID: c.ID, Name: c.Name, Input: []byte(c.Arguments)})
					c.ID = fmt.Sprintf("tc%07d", i+1)
					calls = append(calls, c)
				}
				d := *tmpl.Dialect()
				if name == "gpt-oss" { // the template writes another spelling than models do
					d.Calls.Call = d.Calls.Others[0]
				}
				all, err := d.Write(calls)
				if err != nil {
					t.Fatal(err)
				}
				var want strings.Builder
				for _, f := range all {
					want.WriteString(f.Text)
				}
				got, err := text(tmpl.Prompt(&chat.Conversation{Messages: append(talk("q"), m)}))
				if err != nil || !strings.Contains(got, want.String()) {
					t.Fatalf("%v\n%q\nhas no\n%q", err, got, want.String())
				}
			}
		})
	}
}

func word(r *rand.Rand) string {
	return []string{"get", "a-b", "x_1", "wetter_über", "z.z"}[r.IntN(5)]
}

// arguments returns a JSON object as templates write it: sorted names, a space behind commas and colons.
func arguments(r *rand.Rand) string {
	var all []string
	for i := range r.IntN(5) {
		all = append(all, fmt.Sprintf("\"k%d\": %s", i, value(r)))
	}
	return "{" + strings.Join(all, ", ") + "}"
}

func value(r *rand.Rand) string {
	switch r.IntN(6) {
	case 0:
		return fmt.Sprint(r.IntN(1000) - 500)
	case 1:
		return fmt.Sprintf("%d.5", r.IntN(100))
	case 2:
		return `{"n": {"m": "tiefü"}}`
	case 3:
		return `{}`
	default:
		text, _ := json.Marshal([]string{"", "plain", "two\nlines ", "ünï ✓ 漢字", `"quoted" \ {brace}`, "don't"}[r.IntN(6)])
		return string(text)
	}
}
