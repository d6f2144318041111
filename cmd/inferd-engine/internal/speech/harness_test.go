package speech_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/constraint"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialecttest"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/speech"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/vocab"
)

// tools are the tools in most tests.
var tools = []infer.Tool{
	{Name: "get_weather", Schema: []byte(`{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"}},"required":["city"]}`)},
	{Name: "get", Schema: []byte(`{"type":"object","properties":{"url":{"type":["string","null"]},"deep":{"type":"object"},"list":{"type":"array","items":{"type":"number"}}}}`)},
	{Name: "run", Schema: []byte(`{"type":"object","properties":{"command":{"type":"string"},"force":{"type":"boolean"},"mode":{"enum":["none","fast"]}}}`)},
	{Name: "now"},
}

// A model has a vocabulary of the bytes, of control tokens and of pieces of text.
type model struct{ markers, pieces []string }

func (m model) Vocabulary(func()) (tokens []vocab.Token, ends []int32) {
	for i := range 256 {
		tokens = append(tokens, vocab.Token{Bytes: []byte{byte(i)}})
	}
	for i, text := range m.markers {
		tokens = append(tokens, vocab.Token{Control: true})
		if isEnd(text) {
			ends = append(ends, int32(256+i))
		}
	}
	for _, text := range m.pieces {
		tokens = append(tokens, vocab.Token{Bytes: []byte(text)})
	}
	return tokens, ends
}

func (m model) ByName(name string) (int32, bool) {
	id, ok := m.ids()[name]
	return id, ok
}

func (m model) ids() map[string]int32 {
	ids := make(map[string]int32)
	for i, text := range m.markers {
		ids[text] = int32(256 + i)
	}
	return ids
}

func isEnd(marker string) bool {
	return marker == "<|im_end|>" || marker == "<|return|>" || marker == "<|call|>"
}

// plain has only one control token, the end of an answer, so that all other markers are bytes.
var plain = model{markers: []string{"<|im_end|>"}}

// controls returns a model with the markers of a dialect as control tokens: the list in markersOf for a common family,
// else all markers.
func controls(d *dialect.Dialect) model {
	if !slices.Contains(dialecttest.Names(true), d.Name) {
		return markersIn(d)
	}
	return model{markers: append([]string{"<|im_end|>"}, markersOf[d.Name]...)}
}

var markersOf = map[string][]string{
	"hermes":            {"<tool_call>", "</tool_call>", "<think>", "</think>"},
	"mistral-nemo":      {"[TOOL_CALLS]"},
	"mistral-small-3.2": {"[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"},
	"qwen3-coder":       {"<tool_call>", "</tool_call>"},
	"lfm2":              {"<|tool_call_start|>", "<|tool_call_end|>", "<think>", "</think>"},
	"gemma4":            {"<|tool_call>", "<tool_call|>", `<|"|>`, "<|channel>", "<channel|>"},
	"gpt-oss":           {"<|channel|>", "<|message|>", "<|end|>", "<|start|>", "<|constrain|>", "<|call|>", "<|return|>"},
	"deepseek-v3.1":     {"<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>", "<think>", "</think>"},
}

// A run is one answer under way.
type run struct {
	model  model
	speech *speech.Speech
	answer *constraint.Answer
	parser *speech.Parser
	log    []string
}

// begin compiles a speech and begins an answer.
func begin(t *testing.T, m model, o speech.Options) *run {
	t.Helper()
	r, err := tryBegin(t, m, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func tryBegin(t *testing.T, m model, o speech.Options) (*run, error) {
	t.Helper()
	k, err := compile(t, m, o)
	if err != nil {
		return nil, err
	}
	return open(t, m, k)
}

// compile compiles a speech for a model.
func compile(tb testing.TB, m model, o speech.Options) (*constraint.Constraint, error) {
	tb.Helper()
	_, ends := m.Vocabulary(nil)
	o.Markers, o.Ends = speech.NewMarkers(m.ids()), ends
	s, err := speech.New(o)
	if err != nil {
		return nil, err
	}
	k, _, err := (&constraint.Compiler{Model: m, Time: time.Minute}).Compile(tb.Context(), "", s)
	if err != nil {
		return nil, err
	}
	tb.Cleanup(k.Release)
	return k, nil
}

// open begins an answer with a limit on its tokens that no test reaches.
func open(tb testing.TB, m model, k *constraint.Constraint) (*run, error) {
	tb.Helper()
	return openWithin(tb, m, k, 1<<20)
}

// openWithin begins an answer of up to most tokens.
func openWithin(tb testing.TB, m model, k *constraint.Constraint, most int) (*run, error) {
	tb.Helper()
	a, err := k.Open(most)
	if err != nil {
		return nil, err
	}
	tb.Cleanup(a.Close)
	r := &run{model: m, answer: a}
	r.speech, _ = k.Source().(*speech.Speech)
	r.parser = r.speech.Parser(a.Position())
	a.Watch = r.parser.Symbol
	return r, nil
}

// tokens cuts a text into tokens: markers and bytes.
func (m model) tokens(text string) (ids []int32) {
	for text != "" {
		id, size := m.first(text)
		ids = append(ids, id)
		text = text[size:]
	}
	return ids
}

// first returns the first token of a text, and its size in bytes.
func (m model) first(text string) (id int32, size int) {
	id, size = int32(text[0]), 1
	for i, marker := range m.markers {
		if len(marker) > size && strings.HasPrefix(text, marker) {
			id, size = int32(256+i), len(marker)
		}
	}
	return id, size
}

// feed feeds a text, and calls each after each token. It returns the part of the text from the first refused token on.
func (r *run) feed(text string, each func()) (rest string) {
	for _, id := range r.model.tokens(text) {
		if !r.answer.Try(id) {
			return text
		}
		if id < 256 {
			text = text[1:]
		} else {
			text = text[len(r.model.markers[id-256]):]
		}
		if each != nil {
			each()
		}
	}
	return ""
}

// drain moves the parser's parts to the log, and joins adjacent texts and adjacent thoughts.
func (r *run) drain() {
	for _, p := range r.parser.Out {
		switch {
		case p.Call != nil:
			r.log = append(r.log, fmt.Sprintf("call %s %s", p.Call.Name, p.Call.Input))
		case p.Text != nil:
			r.add("text ", p.Text)
		default:
			r.add("thought ", p.Thought)
		}
	}
	r.parser.Out = r.parser.Out[:0]
}

func (r *run) add(kind string, text []byte) {
	if n := len(r.log); n > 0 && strings.HasPrefix(r.log[n-1], kind) {
		r.log[n-1] += string(text)
		return
	}
	r.log = append(r.log, kind+string(text))
}

// cuts are ways to cut a text without markers into tokens: of one byte each, of one word each, or all of it in one.
var cuts = map[string]func(string) []string{
	"bytes": func(text string) (all []string) {
		for i := range len(text) {
			all = append(all, text[i:i+1])
		}
		return all
	},
	"words": func(text string) []string { return wordPattern.FindAllString(text, -1) },
	"whole": func(text string) []string { return []string{text} },
}

var wordPattern = regexp.MustCompile(`\s?[A-Za-z_]+|\s?[0-9]+|\s+|[^\sA-Za-z_0-9]{1,3}`)

// chunks returns a text as tokens of a model: markers, and pieces between them.
func (m model) chunks(text string, cut func(string) []string) (ids []int32) {
	from := 0
	cutUntil := func(until int) {
		for _, piece := range cut(text[from:until]) {
			if i := slices.Index(m.pieces, piece); i >= 0 {
				ids = append(ids, int32(256+len(m.markers)+i))
				continue
			}
			for i := range len(piece) {
				ids = append(ids, int32(piece[i]))
			}
		}
	}
	for i := 0; i < len(text); {
		id, size := m.first(text[i:])
		if id >= 256 {
			cutUntil(i)
			ids = append(ids, id)
			from = i + size
		}
		i += size
	}
	cutUntil(len(text))
	return ids
}

// withPieces returns the model with further tokens: all pieces into which cuts divide a text.
func (m model) withPieces(text string) model {
	whole := model{markers: m.markers}
	seen := make(map[string]bool)
	for _, cut := range cuts {
		whole.chunks(text, func(part string) []string {
			for _, piece := range cut(part) {
				if len(piece) > 1 && !seen[piece] {
					seen[piece] = true
					m.pieces = append(m.pieces, piece)
				}
			}
			return nil
		})
	}
	return m
}

// text returns the text of tokens.
func (m model) text(ids []int32) string {
	var b strings.Builder
	for _, id := range ids {
		switch n := int(id) - 256 - len(m.markers); {
		case id < 256:
			b.WriteByte(byte(id))
		case n < 0:
			b.WriteString(m.markers[id-256])
		default:
			b.WriteString(m.pieces[n])
		}
	}
	return b.String()
}

// follow feeds tokens, and calls each after each of them. It returns the text from the first refused token on.
func (r *run) follow(ids []int32, each func()) (rest string) {
	for i, id := range ids {
		if !r.answer.Try(id) {
			return r.model.text(ids[i:])
		}
		if each != nil {
			each()
		}
	}
	return ""
}

// parseAnswer follows a whole answer and returns its parts. It drains them after each token if often is set, else at
// the end. It fails the test if the answer may not end there, or if the parts depend on the division into tokens.
func parseAnswer(t *testing.T, m model, o speech.Options, text string, often bool) (log []string) {
	t.Helper()
	m = m.withPieces(text)
	k, err := compile(t, m, o)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range slices.Sorted(maps.Keys(cuts)) {
		r, err := open(t, m, k)
		if err != nil {
			t.Fatal(err)
		}
		var each func()
		if often {
			each = r.drain
		}
		if rest := r.follow(m.chunks(text, cuts[name]), each); rest != "" {
			r.drain()
			t.Errorf("%s: refused before %q; so far %q", name, rest, r.log)
			return nil
		}
		if !r.answer.Position().MayEnd {
			t.Errorf("%s: %q may not end", name, text)
		}
		r.parser.End()
		r.drain()
		if i > 0 && !slices.Equal(r.log, log) {
			t.Errorf("%s: %q; in other tokens %q", name, r.log, log)
		}
		log = r.log
	}
	return log
}
