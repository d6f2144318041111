package test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	inferd "github.com/inferd-go/inferd/client"
)

// The environment variables of make test-models, each the path of a model. The template of the
// first model has no tools. The second variable is optional; the template of its model has tools.
const (
	modelVariable      = "INFERD_TEST_MODEL"
	toolsModelVariable = "INFERD_TEST_TOOLS_MODEL"
)

// Real models make a required tool call, keep to a schema, and find the first turn of a conversation
// in the cache, with and without tools in their templates.
func TestRealModels(t *testing.T) {
	for variable, generic := range map[string]bool{modelVariable: true, toolsModelVariable: false} {
		t.Run(variable, func(t *testing.T) {
			path := os.Getenv(variable)
			if path == "" {
				t.Skip("make test-models sets it")
			}
			d := serve(t, "--model-path", path, "--n-ctx", "4096")
			able := d.capable()
			if spelt := able["tools_dialect"]; able["tools"] != true || (spelt == "generic") != generic {
				t.Errorf("capabilities say %v", able)
			}
			realCalls(t, d)
			realSchema(t, d)
			if generic {
				realThinking(t, d)
			}
			realTurns(t, d)
		})
	}
}

// capable returns the capabilities of the only entry.
func (d *daemon) capable() map[string]any {
	d.t.Helper()
	w := d.watch()
	defer w.Close()
	for _, frame := range w.until("ready", "") {
		if frame["status"] == "capabilities" {
			return frame
		}
	}
	d.t.Fatal("no capabilities")
	return nil
}

// realCalls checks that a required call is made, of any tool and of a named one.
func realCalls(t *testing.T, d *daemon) {
	t.Helper()
	for _, choice := range []inferd.ToolChoice{"required", "get_weather"} {
		req := inferd.Ask("What will the weather be in Rome, for the next 3 days?")
		req.MaxTokens, req.ToolChoice, req.Temperature = 120, choice, new(0.0)
		req.Tools = []inferd.Tool{{Name: "get_weather", Description: "The weather of a city for some days", InputSchema: []byte(weatherSchema)}}
		got, err := inferd.Collect((&inferd.Client{Dir: d.dir}).Generate(t.Context(), req))
		if err != nil || len(got.Calls) == 0 || got.ToolChoiceUnsatisfied {
			t.Fatalf("%s: %+v, %v", choice, got, err)
		}
		for _, c := range got.Calls {
			checkWeather(t, string(choice), c.Input)
			t.Logf("%s: %s %s", choice, c.Name, c.Input)
		}
	}
}

// realSchema checks that an answer satisfies its schema.
func realSchema(t *testing.T, d *daemon) {
	t.Helper()
	req := inferd.Ask("Describe a person.")
	req.MaxTokens, req.Temperature = 120, new(0.0)
	req.Format.JSONSchema = []byte(`{"type":"object","properties":{"name":{"type":"string","maxLength":20},"age":{"type":"integer","minimum":0,"maximum":120},` +
		`"kind":{"enum":["child","adult"]}},"required":["name","age","kind"],"additionalProperties":false}`)
	got, err := inferd.Collect((&inferd.Client{Dir: d.dir}).Generate(t.Context(), req))
	if err != nil {
		t.Fatal(err)
	}
	var person struct {
		Name, Kind *string
		Age        *int
	}
	in := json.NewDecoder(strings.NewReader(got.Text))
	in.DisallowUnknownFields()
	if err := in.Decode(&person); err != nil || person.Name == nil || person.Age == nil || *person.Age > 120 || person.Kind == nil {
		t.Errorf("%s, %v", got.Text, err)
	}
	t.Logf("schema: %s", got.Text)
}

// realThinking checks that a model that cannot think refuses a request for thinking, but not a
// request without it.
func realThinking(t *testing.T, d *daemon) {
	t.Helper()
	req := inferd.Ask("Hello")
	req.MaxTokens, req.Thinking = 5, inferd.ThinkOn
	_, err := inferd.Collect((&inferd.Client{Dir: d.dir}).Generate(t.Context(), req))
	if err == nil || !strings.Contains(err.Error(), "thinking is not supported by this model") {
		t.Errorf("thinking on: %v", err)
	}
	req.Thinking = inferd.ThinkOff
	if _, err := inferd.Collect((&inferd.Client{Dir: d.dir}).Generate(t.Context(), req)); err != nil {
		t.Errorf("thinking off: %v", err)
	}
}

// realTurns answers a tool call, and checks that the second prompt finds the tokens of the first
// turn in the cache. The temperature is not 0: at 0, only tokens that the same kernels would
// compute count as cached.
func realTurns(t *testing.T, d *daemon) {
	t.Helper()
	const question = `{"role":"user","content":[{"type":"text","text":"The weather in Rome?"}]}`
	ask := func(messages, more string) (calls []string, done map[string]any) {
		conn := d.dial("infer.v2.sock")
		defer conn.Close()
		if _, err := fmt.Fprintf(conn, `{"id":"q","temperature":0.2,"messages":[%s],"tools":%s%s}`+"\n", messages, weatherTools, more); err != nil {
			t.Fatal(err)
		}
		for in := json.NewDecoder(conn); ; {
			var f map[string]any
			if err := in.Decode(&f); err != nil || f["type"] == "error" {
				t.Fatalf("%v, %v", f, err)
			}
			if f["type"] == "done" {
				return calls, f
			}
			if block, ok := f["block"].(map[string]any); ok && block["type"] == "tool_use" {
				call, err := json.Marshal(block)
				if err != nil {
					t.Fatal(err)
				}
				calls = append(calls, string(call))
			}
		}
	}
	calls, first := ask(question, `,"max_tokens":60,"tool_choice":"required","parallel_tool_calls":false`)
	if len(calls) != 1 {
		t.Fatalf("%q, %v", calls, first)
	}
	_, second := ask(question+`,{"role":"assistant","content":[`+calls[0]+`]},`+
		`{"role":"user","content":[{"type":"tool_result","tool_call_id":"tc-1","content":[{"type":"text","text":"Sunny, 25 degrees."}]}]}`, `,"max_tokens":8,"tool_choice":"none"`)
	of := func(done map[string]any, name string) float64 {
		usage, _ := done["usage"].(map[string]any)
		n, _ := usage[name].(float64)
		return n
	}
	in, out, cached := of(first, "input_tokens"), of(first, "output_tokens"), of(second, "cached_tokens")
	t.Logf("the second turn found %v of the %v tokens of the first", cached, in+out)
	if cached < in-1 {
		t.Errorf("the second turn found %v tokens, the first prompt had %v", cached, in)
	}
}
