package speech_test

import (
	"slices"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialecttest"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/speech"
	"github.com/inferd-go/inferd/internal/infer"
)

// Text, thoughts and calls in the spelling of each common family are parsed; malformed calls are not.
func TestFamilies(t *testing.T) {
	for family, tests := range map[string]map[string][]string{
		"llama3-json": {
			`{"name": "get_weather", "parameters": {"city": "Rome", "days": 2}}`: {`call get_weather {"city": "Rome", "days": 2}`},
			`{"name": "nobody"}`: {`text {"name": "nobody"}`},
			"Just text {":        {"text Just text {"},
		},
		"generic": {
			`{"tool_calls": [{"name": "now", "arguments": {}}, {"name": "get", "arguments": {"list": [1, 2.5]}}]}`: {"call now {}", `call get {"list": [1, 2.5]}`},
			"Hello": {"text Hello"},
		},
		"mistral-nemo": {
			`[TOOL_CALLS][{"name": "now", "arguments": {}, "id": "abcDEF123"}]`:                                                                            {"call now {}"},
			`[TOOL_CALLS][{"name":"now","arguments":{},"id":"abcDEF123"},{"name":"get_weather","arguments":{"city":"x"},"id":"000000000"}]`:                {"call now {}", `call get_weather {"city":"x"}`},
			`So [TOOL_CALLS][{"name": "now", "arguments": {}, "id": "abcDEF123"}, {"name": "get", "arguments": {"url": "[1]\"}]"}, "id": "0123456789"[1:]`: nil,
		},
		"mistral-small-3.2": {
			`[TOOL_CALLS]get[CALL_ID]abc123DEF[ARGS]{"deep": {"a": {"b": []}}}`:                                        {`call get {"deep": {"a": {"b": []}}}`},
			`Ok.[TOOL_CALLS]now[CALL_ID]abc123DEF[ARGS]{}[TOOL_CALLS]get_weather[CALL_ID]abc123DEF[ARGS]{"city": "é"}`: {"text Ok.", "call now {}", `call get_weather {"city": "é"}`},
		},
		"qwen3-coder": {
			"<tool_call>\n<function=run>\n<parameter=command>\nls -l\n\n</para\n</parameter>\n<parameter=force>\ntrue\n</parameter>\n</function>\n</tool_call>": {`call run {"command": "ls -l\n\n</para", "force": true}`},
			"Sure\n\n<tool_call>\n<function=now>\n</function>\n</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>":                            {"text Sure", "call now {}", "call now {}"},
			"<function=now>\n</function>":               {"call now {}"},
			"<function=now>\n</function>\n</tool_call>": nil,
		},
		"lfm2": {
			`<|tool_call_start|>[get_weather(city="a, \"b\" None", days=3), now()]<|tool_call_end|>`:     {`call get_weather {"city": "a, \"b\" None", "days": 3}`, "call now {}"},
			`<|tool_call_start|>[get(url=None, deep={"x": True, "y": [None, "True"]})]<|tool_call_end|>`: {`call get {"url": null, "deep": {"x": true, "y": [null, "True"]}}`},
			`<think>so</think>ok`: {"thought so", "text ok"},
		},
		"gemma4": {
			`<|tool_call>call:get_weather{city:<|"|>a "b", {c}<|"|>,days:3}<tool_call|>`:                                   {`call get_weather {"city": "a \"b\", {c}", "days": 3}`},
			`<|tool_call>call:get{deep:{x:<|"|>1<|"|>,y:[true,<|"|><|"|>]}}<tool_call|><|tool_call>call:now{}<tool_call|>`: {`call get {"deep": {"x": "1", "y": [true, ""]}}`, "call now {}"},
			"<|channel>thought\nhm<channel|>Hi": {"thought hm", "text Hi"},
		},
		"gpt-oss": {
			"<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hi": {"thought Hm.", "text Hi"},
			"<|channel|>final<|message|>Hi": {"text Hi"},
			`<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city":"x"}`: {"thought Hm.", `call get_weather {"city":"x"}`},
			`<|channel|>commentary<|message|>I look.<|end|><|start|>assistant to=functions.now<|channel|>commentary json<|message|>{}`:                          {"text I look.", "call now {}"},
		},
		"deepseek-v3.1": {
			`Ok<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "x"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>`: {"text Ok", "call now {}", `call get_weather {"city": "x"}`},
		},
	} {
		d := dialecttest.Fixtures()[family]
		for text, want := range tests {
			t.Run(family+"/"+text, func(t *testing.T) {
				for _, m := range modelsOf(d) {
					for _, often := range []bool{true, false} {
						o := speech.Options{Dialect: d, Tools: tools}
						if want == nil {
							if r := begin(t, m, o); r.feed(text, nil) == "" && r.answer.Position().MayEnd && r.parser.Calls != 1 {
								t.Error("taken")
							}
							continue
						}
						if got := parseAnswer(t, m, o, text, often); !slices.Equal(got, want) {
							t.Errorf("%d markers, often %v: %q, want %q", len(m.markers), often, got, want)
						}
					}
				}
			})
		}
	}
}

// In every family an answer may not end without a call that is demanded. If markers are control tokens, it may not
// begin a call if there must be none.
func TestChoiceOfFamilies(t *testing.T) {
	for _, family := range dialecttest.Names(testing.Short()) {
		d := dialecttest.Fixtures()[family]
		for _, m := range modelsOf(d) {
			r := begin(t, m, speech.Options{Dialect: d, Tools: tools, Choice: required})
			if r.answer.Position().MayEnd {
				t.Errorf("%s: a demanded call may be missing", family)
			}
			none := begin(t, m, speech.Options{Dialect: d, Tools: tools, Choice: infer.ToolChoice{Mode: infer.ToolNone}})
			if rest := none.feed(r.beginning()+`now`, nil); rest == "" && len(m.markers) > 1 {
				t.Errorf("%s: a call may begin although there may be none", family)
			}
		}
	}
}

// modelsOf returns vocabularies in which the markers of a dialect are bytes, and in which they are control
// tokens. Messages in an answer need control tokens.
func modelsOf(d *dialect.Dialect) []model {
	if d.Next != "" {
		return []model{controls(d)}
	}
	return []model{plain, controls(d)}
}

// beginning returns the spelling of a call up to the name.
func (r *run) beginning() (text string) {
	for _, x := range r.parser.CallStart() {
		if x < 256 {
			text += string([]byte{byte(x)})
		} else {
			text += r.model.markers[x-512]
		}
	}
	return text
}

// A raw value is read as the type under which the schema accepts it: as JSON if that fits, else as a string. White
// space that the template writes around it is no part of it.
func TestRawValues(t *testing.T) {
	raw := []infer.Tool{{Name: "f", Schema: []byte(`{"type":"object","properties":{"a":{"enum":["none","fast",4]},` +
		`"b":{"anyOf":[{"type":"integer","minimum":100},{"type":"string","maxLength":3}]},"c":{"type":"string","minLength":3},"d":{"type":["integer","string"]},` +
		`"e":{"type":["string","null"]}},"additionalProperties":false}`)}}
	d := dialecttest.Fixtures()["qwen3-coder"]
	for text, want := range map[string]string{
		"a>\nnone\n":      `{"a": "none"}`,
		"a>none":          `{"a": "none"}`,
		"a>\n4\n":         `{"a": 4}`,
		"a>\n\tnone":      "",
		"a>\nnone\n\n":    "",
		"b>\n5\n":         `{"b": "5"}`,
		"b>\n500\n":       `{"b": 500}`,
		"b>\n5000":        `{"b": 5000}`,
		"b>\nabcd":        "",
		"c>\n\nab\n":      `{"c": "\nab"}`,
		"c>\nab\n\n":      `{"c": "ab\n"}`,
		"c>\nab\n":        `{"c": "ab\n"}`,
		"c>\nabc\n":       `{"c": "abc"}`,
		"d>\n1.5\n":       `{"d": "1.5"}`,
		"d>\n15\n":        `{"d": 15}`,
		"d>\n 15\n":       `{"d": " 15"}`,
		"e>\nnull\n":      `{"e": null}`,
		"e>\nnull \n":     `{"e": "null "}`,
		"e>\n\n":          `{"e": ""}`,
		"e>\n\n\n\n":      `{"e": "\n\n"}`,
		"e>\n<parameter=": `{"e": "<parameter="}`,
	} {
		for _, m := range modelsOf(d) {
			o := speech.Options{Dialect: d, Tools: raw}
			text := "<tool_call>\n<function=f>\n<parameter=" + text + "</parameter>\n</function>\n</tool_call>"
			if want == "" {
				if begin(t, m, o).feed(text, nil) == "" {
					t.Errorf("%q is taken", text)
				}
			} else if got := parseAnswer(t, m, o, text, true); !slices.Equal(got, []string{"call f " + want}) {
				t.Errorf("%q: %q, want %s", text, got, want)
			}
		}
	}
}

// The markers around a wrapped value are no part of it. If the schema determines whether the template wraps the value,
// the mask requires the markers, or refuses them.
func TestWrappedValues(t *testing.T) {
	raw := []infer.Tool{{Name: "f", Schema: []byte(`{"type":"object","properties":{"a":{"type":"string","maxLength":20},"b":{"enum":["<b>","b",4]},` +
		`"c":{"type":"array"},"d":{"type":["integer","null"]}},"additionalProperties":false}`)}}
	d := dialecttest.Fixtures()["qwen3-coder"]
	d.Calls.Param.Wrap = dialect.Wrap{Open: "<![CDATA[", Close: "]]>", Of: "<&\n", JSON: true}
	for text, want := range map[string]string{
		"a>\n<![CDATA[<b>]]>\n":           `{"a": "<b>"}`,
		"a>\n<![CDATA[]]>\n":              `{"a": ""}`,
		"a>\n<![CDATA[x]]>]]>\n":          `{"a": "x]]>"}`,
		"a>\n<![CDATA[<![CDATA[x]]>]]>\n": `{"a": "<![CDATA[x]]>"}`,
		"a>\n<b>\n":                       `{"a": "<b>"}`,
		"a>\n<![CDAT\n":                   `{"a": "<![CDAT"}`,
		"a>\n<![CDATA[x\n":                "", // what is opened is closed
		"b>\n<![CDATA[<b>]]>\n":           `{"b": "<b>"}`,
		"b>\n<b>\n":                       "",
		"b>\nb\n":                         `{"b": "b"}`,
		"b>\n<![CDATA[b]]>\n":             "",
		"b>\n4\n":                         `{"b": 4}`,
		"c>\n<![CDATA[[\"&\", 1]]]>\n":    `{"c": ["&", 1]}`,
		"c>\n[]\n":                        `{"c": []}`,
		"d>\n<![CDATA[4]]>\n":             "",
		"d>\nnull\n":                      `{"d": null}`,
	} {
		for _, m := range modelsOf(d) {
			o := speech.Options{Dialect: d, Tools: raw}
			text := "<tool_call>\n<function=f>\n<parameter=" + text + "</parameter>\n</function>\n</tool_call>"
			if want == "" {
				if begin(t, m, o).feed(text, nil) == "" {
					t.Errorf("%q is taken", text)
				}
			} else if got := parseAnswer(t, m, o, text, true); !slices.Equal(got, []string{"call f " + want}) {
				t.Errorf("%q: %q, want %s", text, got, want)
			}
		}
	}
	for _, m := range modelsOf(d) {
		roundTrips(t, m, d)
	}
}
