package engine_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/chat"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialecttest"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/engine"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/speech"
	"github.com/inferd-go/inferd/internal/builtin"
	"github.com/inferd-go/inferd/internal/infer"
)

// familyTemplate returns the short template of a family.
func familyTemplate(t *testing.T, family string) string {
	t.Helper()
	source, ok := dialecttest.Templates()[family]
	if !ok {
		t.Fatalf("no template of %q", family)
	}
	return source
}

// families returns the families with a short template, sorted; with -short every second of the common ones.
func families() []string {
	var names []string
	for i, name := range dialecttest.Names(testing.Short()) {
		if !testing.Short() || i%2 == 0 {
			names = append(names, name)
		}
	}
	return names
}

// anchor is a control token that a template writes where an answer begins. The scripted model counts its
// position in the script from there.
const anchor = "<|answer|>"

// generation matches the condition under which a template begins an answer.
var generation = regexp.MustCompile(`\{%-? *if add_generation_prompt *-?%\}`)

// anchored adds the anchor to a template.
func anchored(source string) string {
	all := generation.FindAllStringIndex(source, -1)
	if len(all) == 0 {
		return source + "{% if add_generation_prompt %}" + anchor + "{% endif %}"
	}
	at := all[len(all)-1][1]
	return source[:at] + "{{- '" + anchor + "' -}}" + source[at:]
}

// A cut divides a text without control tokens into tokens.
type cut func(text string) []string

var words = regexp.MustCompile(`\s?[A-Za-z_]+|\s?[0-9]+|\s+|[^\sA-Za-z_0-9]`)

// cuts are the ways to divide an answer into tokens. Each keeps control tokens whole.
var cuts = map[string]cut{
	"bytes": func(text string) []string {
		all := make([]string, len(text))
		for i := range len(text) {
			all[i] = text[i : i+1]
		}
		return all
	},
	"words": func(text string) []string { return words.FindAllString(text, -1) },
	"whole": func(text string) []string {
		if text == "" {
			return nil
		}
		return []string{text}
	},
}

// chunkings returns the names of the cuts to test.
func chunkings() []string {
	if testing.Short() {
		return []string{"words"}
	}
	return slices.Sorted(maps.Keys(cuts))
}

// tokens divides a text into tokens: its control tokens, and by cut c the texts between them.
func tokens(text string, controls []string, c cut) (all []string) {
	from := 0
	for i := 0; i < len(text); {
		longest := ""
		for _, control := range controls {
			if len(control) > len(longest) && strings.HasPrefix(text[i:], control) {
				longest = control
			}
		}
		if longest == "" {
			i++
			continue
		}
		all = append(append(all, c(text[from:i])...), longest)
		i += len(longest)
		from = i
	}
	return append(all, c(text[from:])...)
}

// A scene describes a scripted model: its template, its tokens and its answer.
type scene struct {
	template string
	controls []string // spellings that are control tokens
	defined  []string // spellings of user-defined tokens
	answer   string
	wrong    []string // tokens that are always likelier than the scripted one
	rest     string   // a token behind the answer; empty is none
}

// commonControls are control tokens of every scripted model.
var commonControls = []string{"<|bos|>", "<|im_start|>", "<|im_end|>", "<|pad|>"}

// unused are tokens that no text contains.
var unused = []string{"<unused1>", "<unused2>"}

// play loads a model that answers gen with the answer of the scene.
func (s *scene) play(t *testing.T, gen *infer.Generate, c cut) *engine.Engine {
	t.Helper()
	source := anchored(s.template)
	if testing.Short() { // the prompt declares one tool, because its attention takes most of the time
		source = "{% if tools %}{% set tools = tools[:1] %}{% endif %}" + source
	}
	special := slices.Concat(commonControls, s.controls, []string{anchor})
	tmpl, err := chat.New(source, special, "<|bos|>", "<|im_end|>")
	if err != nil {
		t.Fatal(err)
	}
	talk := &chat.Conversation{Messages: gen.Messages, Tools: gen.Tools}
	if gen.Thinking != infer.ThinkAuto {
		talk.Think = new(gen.Thinking == infer.ThinkOn)
	}
	segments, err := tmpl.Prompt(talk)
	if err != nil {
		t.Fatal(err)
	}
	special = append(special, s.defined...)
	_, tail, ok := strings.Cut(segments[len(segments)-1].Text, anchor)
	if !ok {
		t.Fatalf("no anchor in %q", segments[len(segments)-1].Text)
	}
	script := builtin.Scripted{
		Template: source, Controls: append(slices.Clone(s.controls), anchor), Unused: unused, Defined: s.defined, Wrong: s.wrong,
		Recitals: []builtin.Recital{{
			After: anchor, Skip: len(tokens(tail, special, cuts["bytes"])), Tokens: tokens(s.answer, special, c),
		}},
	}
	if s.rest != "" {
		script.Recitals[0].Tokens = append(script.Recitals[0].Tokens, s.rest)
	}
	e := loadScripted(t, &script)
	e.Dialect = s.dialect(t)
	return e
}

// dialects caches the dialects of templates, because reading one takes 10 ms.
var dialects sync.Map

// dialect returns the dialect of the scene's template. It reads the template without the anchor, which may
// hide the dialect.
func (s *scene) dialect(t *testing.T) *dialect.Dialect {
	t.Helper()
	if d, ok := dialects.Load(s.template); ok {
		return d.(*dialect.Dialect)
	}
	tmpl, err := chat.New(s.template, commonControls, "<|bos|>", "<|im_end|>")
	if err != nil {
		t.Fatal(err)
	}
	dialects.Store(s.template, tmpl.Dialect())
	return tmpl.Dialect()
}

// loadScripted runs an engine with a scripted model.
func loadScripted(t *testing.T, script *builtin.Scripted) *engine.Engine {
	t.Helper()
	path := filepath.Join(t.TempDir(), "scripted.gguf")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(script.Write(f), f.Close()); err != nil {
		t.Fatal(err)
	}
	e := loadFile(t, path, batch.Limits{Context: 8192, Batch: 256, Sequences: 2}, func(*batch.Loop, *llama.Model) {})
	texts := e.Model.TokenTexts()
	e.Markers, e.Ends, e.Dialect = speech.NewMarkers(texts.Markers), texts.Ends, e.Template.Dialect()
	return e
}

// tag matches a marker that models usually have as a control token.
var tag = regexp.MustCompile(`<[^<>\s"=]+>|\[/?[A-Z_]{3,}\]`)

// markersOf returns the markers of a dialect.
func markersOf(d *dialect.Dialect) []string {
	var text strings.Builder
	text.WriteString(d.Calls.Begin + d.Calls.End + d.Calls.Separator + d.Thinking.Begin + d.Thinking.End + strings.Join(d.Text.Begins, "") + d.Text.End + d.Next)
	for _, pieces := range append([][]dialect.Piece{d.Calls.Call}, d.Calls.Others...) {
		for _, p := range pieces {
			text.WriteString(p.Text)
		}
	}
	all := tag.FindAllString(text.String(), -1)
	if q := d.Calls.Param.Quote; len(q) > 1 {
		all = append(all, q)
	}
	if d.Next != "" {
		all = append(all, "<|return|>") // llama.cpp recognises the family by this token
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(m string) bool { return slices.Contains(commonControls, m) })
}

// anything is a tool that takes values of all types.
var anything = infer.Tool{Name: "any_thing", Schema: []byte(`{"type":"object","properties":{` +
	`"text":{"type":"string"},"none":{"type":["string","null"]},"n":{"type":"number"},"yes":{"type":"boolean"},` +
	`"deep":{"type":"object"},"list":{"type":"array","items":{"type":["string","object","null"]}}}}`)}

// inputs are arguments of the tool anything.
var inputs = []string{
	`{"text": "two\nlines, \"quoted\" ü 漢 <b>&", "yes": true}`,
	`{}`,
	`{"none": null, "n": -1.5, "deep": {"a": {"b": "x"}}, "list": ["a", {"k": "v"}, null]}`,
}

// spelt returns an answer in a dialect, with thoughts and text if the dialect has a place for them. It also
// returns the parts into which the engine should parse the answer, and the inputs of its calls.
func spelt(t *testing.T, d *dialect.Dialect, position dialect.Position, thoughts, text string) (answer string, want *reply, list []string) {
	t.Helper()
	var b strings.Builder
	want = new(reply)
	next := func() {
		if d.Next != "" {
			b.WriteString(d.Next)
		}
	}
	if d.Thinking.Has() && position != dialect.Behind {
		if position == dialect.Before {
			b.WriteString(d.Thinking.Begin)
		}
		b.WriteString(thoughts + d.Thinking.End)
		want.thoughts.WriteString(thoughts)
		next()
	}
	if !d.Calls.Alone {
		if n := len(d.Text.Begins); n > 0 {
			b.WriteString(d.Text.Begins[n-1])
		}
		b.WriteString(text + d.Text.End)
		want.text.WriteString(text)
		next()
		b.WriteString(d.Calls.Lead)
	}
	list = inputs
	if !d.Calls.Several {
		list = inputs[:1]
	}
	calls := make([]dialect.Call, len(list))
	for i, input := range list {
		calls[i] = dialect.Call{ID: fmt.Sprintf("tc%07d", i+1), Name: anything.Name, Arguments: input}
	}
	all, err := d.Write(calls)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		b.WriteString(f.Text)
	}
	return b.String(), want, list
}

func equalJSON(a, b string) bool {
	var x, y any
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && reflect.DeepEqual(x, y)
}

// greedy returns a request with tools. It sets no temperature, so the engine samples the likeliest tokens.
func greedy(tools []infer.Tool) *infer.Generate {
	return &infer.Generate{
		Messages: []infer.Message{infer.TextMessage(infer.User, "Please call.")}, Tools: tools,
		MaxTokens: 1000, Blocks: true,
	}
}

// The engine parses thoughts, text and calls of every family. It does not matter how the answer is divided
// into tokens, whether the markers are control tokens or text, or that a wrong token is always the
// likeliest.
func TestFamiliesInEveryChunking(t *testing.T) {
	for i, family := range families() {
		t.Run("S#35564 "+family, func(t *testing.T) {
			t.Parallel()
			everyChunking(t, familyTemplate(t, family), i)
		})
	}
}

// everyChunking checks all variants of an answer; with -short only one of them, chosen by the number of the
// family.
func everyChunking(t *testing.T, template string, number int) {
	t.Helper()
	tmpl, err := chat.New(template, nil, "<|bos|>", "<|im_end|>")
	if err != nil {
		t.Fatal(err)
	}
	d := tmpl.Dialect()
	gen := greedy([]infer.Tool{anything})
	segments, err := tmpl.Prompt(&chat.Conversation{Messages: gen.Messages, Tools: gen.Tools})
	if err != nil {
		t.Fatal(err)
	}
	position := d.Thinking.Position(segments[len(segments)-1].Text)
	answer, want, list := spelt(t, d, position, "Hm, so be it.", "I look it up ✓.")
	markers := markersOf(d)
	kinds := [][2][]string{{markers, nil}} // control tokens, and user-defined tokens
	if d.Next == "" && len(markers) > 0 {
		kinds = append(kinds, [2][]string{nil, nil})
		if d.Calls.Lead != "" || !strings.HasPrefix(markers[0], "[") { // the markers of Mistral are always control tokens
			kinds = append(kinds, [2][]string{nil, markers})
		}
	}
	type variant struct {
		scene
		chunking string
	}
	var variants []variant
	for _, kind := range kinds {
		for _, name := range chunkings() {
			for _, wrong := range [][]string{nil, {"<|pad|>", "<unused1>", "<|bos|>"}} {
				if wrong != nil && kind[0] == nil || (wrong != nil || kind[1] != nil) && name != "words" {
					continue
				}
				s := scene{template: template, controls: kind[0], defined: kind[1], answer: answer, wrong: wrong}
				variants = append(variants, variant{s, name})
			}
		}
	}
	if testing.Short() {
		number %= len(variants)
		variants = variants[number : number+1]
	}
	for _, v := range variants {
		got := request(t, v.play(t, gen, cuts[v.chunking]), gen)
		where := fmt.Sprintf("%d control tokens, %d others, %s, wrong %q", len(v.controls), len(v.defined), v.chunking, v.wrong)
		compare(t, where, got, want, list)
	}
}

// compare checks the parts of an answer and the inputs of its calls.
func compare(t *testing.T, where string, got, want *reply, inputs []string) {
	t.Helper()
	if got.text.String() != want.text.String() || got.thoughts.String() != want.thoughts.String() {
		t.Errorf("%s: text %q, thoughts %q; want %q, %q", where, got.text.String(), got.thoughts.String(), want.text.String(), want.thoughts.String())
	}
	if len(got.calls) != len(inputs) || got.done.Reason != infer.CalledTool {
		t.Errorf("%s: %d calls, want %d; %+v", where, len(got.calls), len(inputs), got.done)
		return
	}
	for i, c := range got.calls {
		if c.Name != anything.Name || c.ID != fmt.Sprintf("tc-%d", i+1) || !equalJSON(string(c.Input), inputs[i]) {
			t.Errorf("%s: %s %s%s, want %s", where, c.ID, c.Name, c.Input, inputs[i])
		}
	}
}

// Text of messages never becomes a marker, even if llama.cpp would find the token of the marker in any
// text, such as the markers of gpt-oss and the tags of Qwen.
func TestMarkersInMessages(t *testing.T) {
	for family, markers := range map[string][]string{
		"gpt-oss": {"<|start|>", "<|message|>", "<|end|>", "<|channel|>", "<|constrain|>", "<|call|>", "<|return|>"},
		"hermes":  {"<tool_call>", "</tool_call>", "<think>", "</think>", "<tool_response>", "</tool_response>"},
	} {
		s := &scene{template: familyTemplate(t, family), answer: "Ok"}
		if family == "gpt-oss" {
			s.controls = markers
		} else {
			s.defined = markers
		}
		count := func(text string) (n int) {
			gen := greedy([]infer.Tool{{Name: "f", Description: text}})
			gen.Messages = []infer.Message{
				infer.TextMessage(infer.User, text),
				{Role: infer.Assistant, Content: []infer.Part{&infer.CallPart{ID: "tc-1", Name: "f", Input: fmt.Appendf(nil, `{"a":%q}`, text)}}},
				{Role: infer.User, Content: []infer.Part{&infer.ResultPart{ID: "tc-1", Content: []infer.Part{&infer.TextPart{Text: text}}}}},
				infer.TextMessage(infer.User, text),
			}
			gen.MaxTokens, gen.Reveal.IDs = 30, true
			e := s.play(t, gen, cuts["words"])
			special := make(map[int32]bool)
			for _, m := range markers {
				id, ok := e.Model.ByName(m)
				if !ok {
					t.Fatalf("%q is no token", m)
				}
				special[id] = true
			}
			for _, id := range request(t, e, gen).ids {
				if special[id] {
					n++
				}
			}
			return n
		}
		want := count("x")
		if got := count(strings.Join(markers, "") + "x" + strings.Join(markers, " ")); got != want || want == 0 {
			t.Errorf("%s: %d markers in the prompt, want %d", family, got, want)
		}
	}
}
