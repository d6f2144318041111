package speech_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/constraint"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/speech"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/vocab"
)

// tools are those of most tests.
var tools = []infer.Tool{
	{Name: "get_weather", Schema: []byte(`{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"}},"required":["city"]}`)},
	{Name: "get", Schema: []byte(`{"type":"object","properties":{"url":{"type":["string","null"]},"deep":{"type":"object"},"list":{"type":"array","items":{"type":"number"}}}}`)},
	{Name: "run", Schema: []byte(`{"type":"object","properties":{"command":{"type":"string"},"force":{"type":"boolean"},"mode":{"enum":["none","fast"]}}}`)},
	{Name: "now"},
}

// A model has a vocabulary of the bytes and of control tokens.
type model struct{ markers []string }

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

// plain has no control token but the end, so that all markers are bytes.
var plain = model{[]string{"<|im_end|>"}}

// controls has the markers of a dialect as control tokens.
func controls(d *dialect.Dialect) model {
	return model{append([]string{"<|im_end|>"}, markersOf[d.Name]...)}
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
	_, ends := m.Vocabulary(nil)
	o.Markers, o.Ends = speech.NewMarkers(m.ids()), ends
	s, err := speech.New(o)
	if err != nil {
		return nil, err
	}
	k, _, err := (&constraint.Compiler{Model: m, Time: time.Minute}).Compile(t.Context(), "", s)
	if err != nil {
		return nil, err
	}
	t.Cleanup(k.Release)
	a, err := k.Open(1 << 20)
	if err != nil {
		return nil, err
	}
	t.Cleanup(a.Close)
	r := &run{model: m, answer: a}
	r.speech, _ = k.Source().(*speech.Speech)
	r.parser = r.speech.Parser(a.Place())
	a.Watch = r.parser.Symbol
	return r, nil
}

// tokens cuts a text into tokens: markers and bytes.
func (m model) tokens(text string) (ids []int32) {
	for text != "" {
		id, size := int32(text[0]), 1
		for i, marker := range m.markers {
			if strings.HasPrefix(text, marker) && len(marker) > size {
				id, size = int32(256+i), len(marker)
			}
		}
		ids = append(ids, id)
		text = text[size:]
	}
	return ids
}

// feed follows a text. It returns the rest from the first token on that does not fit.
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

// drain moves the parts to the log: adjacent ones of a kind are joined.
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

// understand returns the parts of an answer that ends its turn, drained after each token, or at the end.
func understand(t *testing.T, m model, o speech.Options, text string, often bool) []string {
	t.Helper()
	r := begin(t, m, o)
	var each func()
	if often {
		each = r.drain
	}
	if rest := r.feed(text, each); rest != "" {
		r.drain()
		t.Errorf("refused before %q; so far %q", rest, r.log)
		return nil
	}
	if !r.answer.Place().MayEnd {
		t.Errorf("%q may not end", text)
	}
	r.parser.End()
	r.drain()
	return r.log
}
