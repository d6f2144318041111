package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	inferd "github.com/inferd-go/inferd/client"
)

// The tools in these tests, in the forms of v2 and of OpenAI.
const (
	weatherSchema = `{"type":"object","properties":{"city":{"type":"string","maxLength":8},"days":{"type":"integer","minimum":1,"maximum":9}},"required":["city","days"],"additionalProperties":false}`
	weatherTools  = `[{"name":"get_weather","description":"d","input_schema":` + weatherSchema + `}]`
	weatherOpenAI = `[{"type":"function","function":{"name":"get_weather","parameters":` + weatherSchema + `}}]`
)

// checkWeather checks the arguments of a call. where is the surface, for errors.
func checkWeather(t *testing.T, where string, input []byte) {
	t.Helper()
	var args struct {
		City *string
		Days *int
	}
	in := json.NewDecoder(strings.NewReader(string(input)))
	in.DisallowUnknownFields()
	if err := in.Decode(&args); err != nil || args.City == nil || args.Days == nil || *args.Days < 1 || *args.Days > 9 {
		t.Errorf("%s: %s, %v", where, input, err)
	}
}

// On every surface a model with random weights makes the required call, with valid arguments.
func TestTools(t *testing.T) {
	d := serve(t, "--model-path", "builtin:tiny", "--n-ctx", "4096")
	if able := d.capable(); able["tools"] != true || able["tools_dialect"] != "hermes" {
		t.Errorf("capabilities say %v", able)
	}
	for _, leaf := range []string{"infer.v2.sock", "inferd.sock"} {
		for _, choice := range []string{`"required"`, `{"type":"tool","name":"get_weather"}`} {
			for _, stream := range []bool{true, false} {
				frames := d.peer(leaf).asked("hello", fmt.Sprintf(`,"max_tokens":200,"stream":%v,"tool_choice":%s,"tools":%s`, stream, choice, weatherTools))
				calls := 0
				for _, f := range frames {
					if block, ok := f["block"].(map[string]any); ok && block["type"] == "tool_use" {
						calls++
						input, err := json.Marshal(block["input"])
						if err != nil || block["tool_call_id"] != fmt.Sprintf("tc-%d", calls) || block["name"] != "get_weather" {
							t.Errorf("%s: %v, %v", leaf, block, err)
						}
						checkWeather(t, leaf, input)
					}
				}
				if done := frames[len(frames)-1]; calls == 0 || done["tool_choice_unsatisfied"] != nil || done["type"] != "done" {
					t.Errorf("%s: %d calls, %v", leaf, calls, done)
				}
			}
		}
	}
	c := inferd.Client{Dir: d.dir}
	req := inferd.Ask("hello")
	req.MaxTokens, req.ToolChoice = 200, "required"
	req.Tools = []inferd.Tool{{Name: "get_weather", InputSchema: []byte(weatherSchema)}}
	got, err := inferd.Collect(c.Generate(t.Context(), req))
	if err != nil || len(got.Calls) == 0 {
		t.Fatalf("%+v, %v", got, err)
	}
	checkWeather(t, "the Go client", got.Calls[0].Input)
	for path, body := range map[string]string{
		"/v1/chat/completions": `{"max_tokens":200,"messages":[{"role":"user","content":"a"}],"tool_choice":"required","tools":` + weatherOpenAI + `}`,
		"/v1/messages":         `{"max_tokens":200,"messages":[{"role":"user","content":"a"}],"tool_choice":{"type":"any"},"tools":` + weatherTools + `}`,
	} {
		if status, answer := d.overHTTP(path, body); status != http.StatusOK || !strings.Contains(answer, `"get_weather"`) {
			t.Errorf("%s: %d %s", path, status, answer)
		}
	}
}

// A request that cannot be fulfilled is refused with the name of the member, before the prompt is
// prefilled.
func TestToolRefusals(t *testing.T) {
	d := serve(t, "--model-path", "builtin:tiny", "--n-ctx", "2048")
	p := d.peer("inferd.sock")
	for more, want := range map[string]string{
		`,"tools":[{"name":"f","description":"","input_schema":{"type":"object","properties":{"a":{"$dynamicRef":"#x"}}}}]`: `"f": input_schema: /properties/a/$dynamicRef`,
		`,"tools":[{"name":"<|im_end|>","description":"","input_schema":{}}]`:                                               "spells a control token",
		`,"tool_choice":"required","max_tokens":5,"tools":` + weatherTools:                                                  "the shortest answer has ",
		`,"thinking":true`: "thinking is not supported by this model",
		`,"tool_choice":"required","response_format":{"type":"json_object"},"tools":` + weatherTools: "beside response_format",
	} {
		frames := p.asked("hello", more)
		if last := frames[len(frames)-1]; last["code"] != "invalid_request" || !strings.Contains(fmt.Sprint(last["message"]), want) {
			t.Errorf("%s: %v, want %q", more, last, want)
		}
	}
	if frames := p.asked("hello", `,"max_tokens":3,"thinking":false`); frames[len(frames)-1]["type"] != "done" {
		t.Errorf("thinking off: %v", frames)
	}
}
