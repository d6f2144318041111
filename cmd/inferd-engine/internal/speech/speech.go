// Package speech constrains and parses answers: thoughts, text and calls of tools, in the spelling of a family of
// models. A [Speech] describes the answers that one request allows. Its grammar is one automaton for the whole answer:
//
//	[thoughts] ─▶ text ─▶ [calls] ─▶ end
//
// The automaton masks tokens (package constraint), and its marks show a [Parser] which part each byte belongs to. So an
// answer that the masks accept cannot fail to parse.
//
// The package does not know templates, models or samplers: dialects are data, and control tokens come as a map.
package speech

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/constraint"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/infer"
)

// Options describe the answers that a request allows.
type Options struct {
	Dialect  *dialect.Dialect
	*Markers         // the control tokens; nil is none
	Ends     []int32 // the tokens that end an answer

	Tools   []infer.Tool
	Choice  infer.ToolChoice
	OneCall bool
	Format  *infer.Format // of the text; nil is none

	Position dialect.Position // whether the answer begins before, inside or behind its thoughts
	// NoThoughts forbids thoughts that the prompt has not opened.
	NoThoughts bool
}

// A Speech describes the answers to a request. It is immutable once [Speech.Grammar] has returned.
// [constraint.Compiler] keeps it together with that grammar.
type Speech struct {
	Options
	opener *automaton.Grammar // made by openerGrammar; nil if no text can turn out to be something else
	tools  map[string]int     // indices in named, by the name as the dialect spells it
	named  []infer.Tool       // the tools that may be called
	end    []automaton.Symbol // the marker at the end of thoughts, without white space
}

var _ constraint.Source = (*Speech)(nil)

// New returns the speech of a request. If the tools or the tool choice cannot be used, the code of the error is
// [infer.Invalid].
func New(o Options) (*Speech, error) {
	s := &Speech{Options: o, tools: make(map[string]int)}
	if s.Markers == nil {
		s.Markers = new(Markers)
	}
	s.end = s.symbols(strings.TrimSpace(o.Dialect.Thinking.End))
	if err := s.checkTools(); err != nil {
		return nil, err
	}
	return s, nil
}

// checkTools checks the tools and the choice, and fills tools and named.
func (s *Speech) checkTools() error {
	d := s.Dialect
	switch {
	case len(s.Tools) == 0, s.Choice.Mode == infer.ToolNone && !s.declaresTools():
		return nil
	case s.Format != nil && (s.Choice.Mode == infer.ToolRequired || s.Choice.Mode == infer.ToolNamed):
		return infer.Refusef("tool_choice", "tool_choice cannot demand a call beside response_format")
	case d.Shape == dialect.NoCalls:
		return infer.Refusef("tools", "tools are not supported by this model's template")
	}
	for i, t := range s.Tools {
		if s.Choice.Mode == infer.ToolNamed && t.Name != s.Choice.Tool {
			continue
		}
		spelt := s.spellName(t.Name)
		if why := s.refuseName(spelt); why != "" {
			return infer.Refusef("tools", "tools[%d]: the name %.64q %s", i, t.Name, why)
		}
		s.tools[spelt] = len(s.named)
		s.named = append(s.named, t)
	}
	if len(s.named) == 0 {
		return infer.Refusef("tool_choice", "tool_choice names %.64q, which is not among the tools", s.Choice.Tool)
	}
	return nil
}

// declaresTools reports whether the prompt declares tools. The model could then begin a call, so the grammar must
// refuse that if the answer may not have calls.
func (s *Speech) declaresTools() bool { return len(s.Tools) > 0 && s.Dialect.Shape != dialect.NoCalls }

// mayCall reports whether the answer may have calls.
func (s *Speech) mayCall() bool { return len(s.named) > 0 && s.Choice.Mode != infer.ToolNone }

// mayThink reports whether the answer may open thoughts in front of its text. It is false in a dialect with messages,
// where a marker begins each part.
func (s *Speech) mayThink() bool {
	return s.Dialect.Next == "" && s.Dialect.Thinking.Has() && s.Position == dialect.Before && !s.NoThoughts
}

// mustCall reports whether the answer must have a call.
func (s *Speech) mustCall() bool {
	return s.Choice.Mode == infer.ToolRequired || s.Choice.Mode == infer.ToolNamed
}

// Needed reports whether answers under these options are more than free text, so that they need a Speech.
func Needed(o *Options) bool {
	d := o.Dialect
	return o.Format != nil || len(o.Tools) > 0 || d.Next != "" || len(d.Text.Begins) > 0 || d.Thinking.Has() && (o.Position != dialect.Behind || o.NoThoughts)
}

// spellName returns a tool's name as a call spells it: escaped in shapes with JSON objects.
func (s *Speech) spellName(name string) string {
	if s.Dialect.Shape != dialect.Object && s.Dialect.Shape != dialect.Array {
		return name
	}
	quoted := quote(name)
	return quoted[1 : len(quoted)-1]
}

// quote returns a text as a JSON string, without escapes for HTML.
func quote(text string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(text); err != nil { // no string fails
		return `""`
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// maxName is the maximum length in bytes of the name of a tool. It is less than the limit of the shortest answer, so that
// every tool can be called.
const maxName = 4096

// refuseName returns the reason why a call cannot have a name, or an empty string.
func (s *Speech) refuseName(spelt string) string {
	switch {
	case spelt == "":
		return "is empty"
	case len(spelt) > maxName:
		return fmt.Sprintf("has more than %d bytes", maxName)
	}
	for i := range len(spelt) {
		if s.prefix(spelt[i:]) != "" {
			return "spells a control token of the model"
		}
	}
	if s.Dialect.Shape != dialect.Object && s.Dialect.Shape != dialect.Array && strings.ContainsAny(spelt, " \t\r\n\"'<>(){}[]:,=") {
		return "has a character that the model's calls cannot spell"
	}
	return ""
}

// isEnd reports whether a symbol is a token that ends an answer.
func (s *Speech) isEnd(x automaton.Symbol) bool {
	return x >= 256 && slices.Contains(s.Ends, int32(x-256))
}

// Digest implements [constraint.Source].
func (s *Speech) Digest() [sha256.Size]byte {
	key, err := json.Marshal(struct {
		Dialect    *dialect.Dialect
		Tools      []infer.Tool
		Choice     infer.ToolChoice
		OneCall    bool
		Format     *infer.Format
		Position   dialect.Position
		NoThoughts bool
	}{s.Dialect, s.Tools, s.Choice, s.OneCall, s.Format, s.Position, s.NoThoughts})
	if err != nil {
		panic("internal error: " + err.Error()) // structs of strings, numbers and bools
	}
	return sha256.Sum256(append([]byte("speech\x00"), key...))
}

// Size implements [constraint.Source].
func (s *Speech) Size() int {
	n := 0
	if s.opener != nil {
		n = s.opener.Size()
	}
	for i := range s.Tools {
		n += len(s.Tools[i].Name) + len(s.Tools[i].Description) + len(s.Tools[i].Schema)
	}
	return n
}

// Member implements [constraint.Source].
func (s *Speech) Member() string {
	if s.Format != nil {
		return "response_format"
	}
	return "tools"
}
