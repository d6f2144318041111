package speech_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/chat"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialecttest"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/speech"
	"github.com/inferd-go/inferd/internal/infer"
)

// anything is a tool that takes values of all types.
var anything = infer.Tool{Name: "any_thing", Schema: []byte(`{"type":"object","properties":{` +
	`"text":{"type":"string"},"none":{"type":["string","null"]},"n":{"type":"number"},"yes":{"type":"boolean"},` +
	`"deep":{"type":"object"},"list":{"type":"array","items":{"type":["string","object","null"]}}}}`)}

// inputs are arguments of the tool anything.
var inputs = []string{
	`{}`,
	`{"text": "plain"}`,
	`{"text": "ünï ✓ 漢字 🎈", "n": -1.5}`,
	`{"text": "two\nlines, \"quoted\" \\ {brace} 'single'", "yes": true}`,
	`{"none": null, "yes": false}`,
	`{"deep": {"a": {"b": {"c": "x"}}, "d": 2}, "list": ["a", {"k": "v"}, null]}`,
	`{"deep": {}, "list": []}`,
}

// roundTrip writes calls with the arguments in list in a dialect, and reads them back, with thoughts in front
// of them unless position is dialect.Behind.
func roundTrip(t *testing.T, m model, d *dialect.Dialect, position dialect.Position, list []string) {
	t.Helper()
	calls := make([]dialect.Call, len(list))
	for i, input := range list {
		calls[i] = dialect.Call{ID: fmt.Sprintf("tc%07d", i+1), Name: anything.Name, Arguments: input}
	}
	all, err := d.Write(calls)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if position == dialect.Before {
		b.WriteString(d.Thinking.Begin)
	}
	if position != dialect.Behind {
		b.WriteString("Hm, {}." + d.Thinking.End + d.Next)
	}
	for _, f := range all {
		b.WriteString(f.Text)
	}
	got := parseAnswer(t, m, speech.Options{Dialect: d, Tools: []infer.Tool{anything}, Position: position}, withoutEnd(m, b.String()), false)
	if position != dialect.Behind {
		if len(got) == 0 || got[0] != "thought Hm, {}." {
			t.Errorf("%q gave %q", b.String(), got)
			return
		}
		got = got[1:]
	}
	if len(got) != len(list) {
		t.Errorf("%q gave %q", b.String(), got)
		return
	}
	for i, part := range got {
		input, ok := strings.CutPrefix(part, "call any_thing ")
		if !ok || !equalJSON(input, list[i]) {
			t.Errorf("%q gave %q, want %s", b.String(), part, list[i])
		}
	}
}

// withoutEnd cuts a token that ends the answer from the end of a text: the engine does not feed it.
func withoutEnd(m model, text string) string {
	for _, marker := range m.markers {
		if isEnd(marker) {
			text = strings.TrimSuffix(text, marker)
		}
	}
	return text
}

func equalJSON(a, b string) bool {
	var x, y any
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && reflect.DeepEqual(x, y)
}

// Calls that a dialect writes are read back as the same calls, with thinking on and off: with empty and nested
// arguments, with any characters, and ten in one answer.
func TestRoundTrip(t *testing.T) {
	for _, name := range dialecttest.Names(testing.Short()) {
		d := dialecttest.Fixtures()[name]
		for _, m := range modelsOf(d) {
			t.Run(fmt.Sprintf("%s, %d markers", name, len(m.markers)), func(t *testing.T) { roundTrips(t, m, d) })
		}
	}
}

func roundTrips(t *testing.T, m model, d *dialect.Dialect) {
	t.Helper()
	positions := []dialect.Position{dialect.Behind}
	if d.Thinking.Has() {
		positions = append(positions, dialect.Before)
		if d.Next == "" { // else thoughts are a message of their own, which no prompt opens
			positions = append(positions, dialect.Inside)
		}
	}
	for _, position := range positions {
		if d.Calls.Several {
			roundTrip(t, m, d, position, slices.Concat(inputs, inputs)[:10])
			if testing.Short() {
				return
			}
		}
		for _, input := range inputs {
			roundTrip(t, m, d, position, []string{input})
		}
	}
}

// If nothing but white space stands between name and arguments, as in GLM's calls, the text behind a name distinguishes
// it from a longer name that begins with it.
func TestNamesWithoutEnd(t *testing.T) {
	glm := func(between string) *dialect.Dialect {
		call := []dialect.Piece{{Kind: dialect.Fixed, Text: "<tool_call>"}, {Kind: dialect.Name}}
		if between != "" {
			call = append(call, dialect.Piece{Kind: dialect.Fixed, Text: between})
		}
		call = append(call, dialect.Piece{Kind: dialect.Arguments}, dialect.Piece{Kind: dialect.Fixed, Text: "</tool_call>"})
		return &dialect.Dialect{Name: "glm", Shape: dialect.Params, Calls: dialect.Calls{
			Several: true, Call: call,
			Param: dialect.Param{Open: "<arg_key>", Middle: "</arg_key><arg_value>", Close: "</arg_value>"},
		}}
	}
	tokens := model{markers: []string{"<|im_end|>", "<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"}}
	for _, between := range []string{"", "\n"} {
		o := speech.Options{Dialect: glm(between), Tools: tools}
		text := "So <tool_call>get" + between + "<arg_key>url</arg_key><arg_value>a</arg_value></tool_call>" +
			"<tool_call>get_weather" + between + "<arg_key>city</arg_key><arg_value>Rome</arg_value></tool_call><tool_call>get</tool_call>"
		want := []string{"text So", `call get {"url": "a"}`, `call get_weather {"city": "Rome"}`, "call get {}"}
		if got := parseAnswer(t, tokens, o, text, true); !slices.Equal(got, want) {
			t.Errorf("%q: %q", between, got)
		}
		r := begin(t, tokens, o)
		if rest := r.feed("<tool_call>get_other", nil); rest != "other" {
			t.Errorf("%q: an undeclared name goes on to %q", between, rest)
		}
		text = "So <tool_call>now" + between + "</tool_call>"
		for _, m := range []model{plain, tokens} {
			if got := parseAnswer(t, m, o, text, false); !slices.Equal(got, []string{"text So", "call now {}"}) {
				t.Errorf("%q, %d markers: %q", between, len(m.markers), got)
			}
		}
		none := begin(t, plain, speech.Options{Dialect: glm(between), Tools: tools, Choice: infer.ToolChoice{Mode: infer.ToolNone}})
		if rest := none.feed("So <tool_call>now", nil); rest == "" {
			t.Errorf("%q: a call begins although there may be none", between)
		}
	}
}

// tag matches a marker that models usually have as a control token.
var tag = regexp.MustCompile(`<[^<>\s"=]+>|\[/?[A-Z_]{3,}\]`)

// publicTemplates returns the files of the public templates. It skips the test unless make test-templates has
// set the environment variable for their folder.
func publicTemplates(t *testing.T) []string {
	t.Helper()
	folder := os.Getenv("INFERD_TEST_TEMPLATES")
	if folder == "" {
		t.Skip("make test-templates sets INFERD_TEST_TEMPLATES")
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.jinja"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d templates, %v", len(files), err)
	}
	return files
}

// The dialects of the public templates read back the calls that they write, with thinking on and off.
func TestPublicRoundTrip(t *testing.T) {
	for _, file := range publicTemplates(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			tmpl, err := chat.New(string(source), nil, "", "")
			if err != nil {
				t.Fatal(err)
			}
			read := *tmpl.Dialect()
			d := &read
			if d.Shape == dialect.Python && !d.Calls.Param.Raw {
				d.Calls.Param.Quote = `"` // the masks take no others
			}
			for _, m := range []model{plain, markersIn(d)} {
				if d.Next == "" || len(m.markers) > 1 {
					roundTrips(t, m, d)
				}
			}
		})
	}
}
