package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
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

// A model with random weights makes the required call: over v2 in both framings and with the Go
// client, where the arguments are checked, and over HTTP.
func TestTools(t *testing.T) {
	d := serve(t, "--model-path", "builtin:tiny", "--n-ctx", "4096")
	if able := d.capable(); able["tools"] != true || able["tools_dialect"] != "hermes" {
		t.Errorf("capabilities say %v", able)
	}
	for _, leaf := range []string{"infer.v2.sock", "inferd.sock"} {
		for _, choice := range []string{`"required"`, `{"type":"tool","name":"get_weather"}`} {
			for _, stream := range []bool{true, false} {
				frames := d.peer(leaf).askFrames("hello", fmt.Sprintf(`,"max_tokens":200,"stream":%v,"tool_choice":%s,"tools":%s`, stream, choice, weatherTools))
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

// A request that cannot be satisfied is refused: on a socket as invalid_request with the reason, over
// HTTP with the member at fault as param. A model that cannot think accepts thinking: false.
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
		frames := p.askFrames("hello", more)
		if last := frames[len(frames)-1]; last["code"] != "invalid_request" || !strings.HasPrefix(fmt.Sprint(last["message"]), "invalid request: ") || !strings.Contains(fmt.Sprint(last["message"]), want) {
			t.Errorf("%s: %v, want %q", more, last, want)
		}
	}
	for member, body := range map[string]string{
		"tools":           `"tools":[{"type":"function","function":{"name":"f","parameters":{"$dynamicRef":"#x"}}}]`,
		"tool_choice":     `"tool_choice":"required","response_format":{"type":"json_object"},"tools":` + weatherOpenAI,
		"response_format": `"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"$dynamicRef":"#x"}}}`,
		"messages":        `"messages":[{"role":"tool","tool_call_id":"x","content":"y"}]`,
	} {
		if member != "messages" {
			body += `,"messages":[{"role":"user","content":"hello"}]`
		}
		if status, answer := d.overHTTP("/v1/chat/completions", "{"+body+"}"); status != http.StatusBadRequest || !strings.Contains(answer, `"param":"`+member+`"`) {
			t.Errorf("%s: %d %s", body, status, answer)
		}
	}
	if frames := p.askFrames("hello", `,"max_tokens":3,"thinking":false`); frames[len(frames)-1]["type"] != "done" {
		t.Errorf("thinking off: %v", frames)
	}
}

// addresses returns the flags with which inferdctl uses the length-prefixed socket and HTTP. Its
// other flags mean the same over both.
func (d *daemon) addresses() [][]string {
	return [][]string{{"--addr", d.socket("inferd.sock")}, {"--http", "unix:" + d.socket("http.sock")}}
}

// chats runs inferdctl chat over the length-prefixed socket and over HTTP, and checks its output.
// An empty wantErr means success.
func (d *daemon) chats(want, wantErr string, args ...string) {
	d.t.Helper()
	for _, at := range d.addresses() {
		out, errs, code := d.ctlAt(at, append([]string{"chat", "-m", "hello"}, args...)...)
		if out != want || (code == 0) != (wantErr == "") || !strings.Contains(errs, wantErr) {
			d.t.Errorf("%s, %s: exit code %d, %q, %q; want %q, %q", at, args, code, out, errs, want, wantErr)
		}
	}
}

// inferdctl's flags about tools and thinking reach the engine, over the sockets and over HTTP.
func TestToolFlags(t *testing.T) {
	v2, openAI := filepath.Join(t.TempDir(), "v2.json"), filepath.Join(t.TempDir(), "openai.json")
	for path, text := range map[string]string{
		v2:     "[" + scriptedTool + "]",
		openAI: `[{"type":"function","function":{"name":"get_weather","description":"d","parameters":` + weatherParameters + `}}]`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := serve(t, "--model-path", scripted(t, ""), "--n-ctx", "4096")
	called := scriptedText + "\ncall get_weather " + scriptedInput + "\n"
	for _, flags := range [][]string{
		{},
		{"--tool-choice", "auto"},
		{"--tool-choice", "required"},
		{"--tool-choice", "get_weather"},
		{"--thinking", "on"},
		{"--thinking", "off"},
		{"--thinking", "64"},
		{"--thinking", "off", "--tool-choice", "required"},
	} {
		d.chats(called, "", append([]string{"--tools", v2, "--max-tokens", "200"}, flags...)...)
	}
	d.chats(called, "", "--max-tokens", "200", "--tools", openAI)
	const short = "the shortest answer has "
	d.chats("", short, "--max-tokens", "5", "--tools", v2, "--tool-choice", "required")
	d.chats("", short, "--max-tokens", "5", "--tools", v2, "--tool-choice", "get_weather")
	d.chats("", `"other"`, "--tools", v2, "--tool-choice", "other")
	d.chats("", "neither on nor off", "--thinking", "perhaps")
	for _, flag := range []string{"--thinking", "--tools", "--tool-choice"} {
		d.chats("", "it is empty", flag, "")
	}
	d.chats("", "--tool-choice needs --tools", "--tool-choice", "auto")
	if _, errs, code := d.ctl("chat", "-m", "hello", "--tools", v2); code != 2 || !strings.Contains(errs, "need the length-prefixed socket inferd.sock") {
		t.Errorf("over v1: exit code %d, %s", code, errs)
	}
	for _, at := range d.addresses() {
		if out, errs, code := d.ctlAt(at, "chat", "-m", "hello", "--max-tokens", "200", "--tools", v2, "--tool-choice", "none"); code != 0 || !strings.HasPrefix(out, scriptedText) || strings.Contains(out, "call get_weather") {
			t.Errorf("%s, no calls: exit code %d, %q, %q", at, code, out, errs)
		}
		for thinking, thoughts := range map[string]bool{"on": true, "off": false} {
			out, _, code := d.ctlAt(at, "chat", "-m", "hello", "--json", "--max-tokens", "200", "--tools", v2, "--thinking", thinking)
			if code != 0 || strings.Contains(out, "Hm") != thoughts || !strings.Contains(out, "get_weather") {
				t.Errorf("%s, thinking %s: exit code %d, %s", at, thinking, code, out)
			}
		}
	}
	plain := serve(t, "--model-path", "builtin:tiny", "--n-ctx", "2048")
	for _, value := range []string{"on", "64"} {
		plain.chats("", "invalid_request: invalid request: thinking is not supported by this model", "--max-tokens", "3", "--thinking", value)
	}
}
