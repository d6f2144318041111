package dialect

import (
	"regexp"
	"slices"
	"strings"
)

// A row is a family of the table in docs/tools.md: the shape and the words that distinguish its calls from those of
// other families.
type row struct {
	name  string
	shape Shape
	words []string // all must occur in the result of fixedText
}

// rows are the families, more specific ones first: the first match counts.
var rows = []row{
	{"seed-oss", Params, []string{"<seed:tool_call>"}},
	{"qwen3-coder", Params, []string{"<tool_call>", "<function=", "<parameter="}},
	{"glm", Params, []string{"<arg_key>", "<arg_value>"}},
	{"deepseek-v3.2", Params, []string{"DSML", "invoke name="}},
	{"minimax-m2", Params, []string{"<invoke name=", "<parameter name="}},
	{"hermes", Object, []string{"<tool_call>", `"arguments"`}},
	{"llama3-json", Object, []string{"\x00{", `"parameters"`}},
	{"mistral-nemo", Array, []string{"[TOOL_CALLS]", `"arguments"`}},
	{"mistral-small-3.2", Named, []string{"[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"}},
	{"devstral", Named, []string{"[TOOL_CALLS]", "[ARGS]"}},
	{"gemma4", Literal, []string{"<|tool_call>call:"}},
	{"functiongemma", Literal, []string{"<start_function_call>call:"}},
	{"gpt-oss", Named, []string{"to=functions.", "commentary"}},
	{"deepseek-r1", Named, []string{"<｜tool▁call▁begin｜>function<｜tool▁sep｜>", "```json"}},
	{"deepseek-v3.1", Named, []string{"<｜tool▁call▁begin｜>", "<｜tool▁sep｜>"}},
	{"lfm2", Python, []string{"<|tool_call_start|>"}},
	{"llama4-pythonic", Python, nil},
	{"command-r7b", Array, []string{"<|START_ACTION|>", `"tool_name"`}},
	{"phi4-mini", Array, []string{"<|tool_call|>", "<|/tool_call|>"}},
	{"granite-3.3", Array, []string{"<|tool_call|>"}},
	{"apriel", Array, []string{"<tool_calls>[", "</tool_calls>"}},
	{"kimi-k2", Named, []string{"<|tool_call_begin|>", "<|tool_call_argument_begin|>"}},
	{"nemotron-nano-v2", Array, []string{"<TOOLCALL>"}},
	{"apertus", Array, []string{"<|tools_prefix|>"}},
}

// family sets the name of the dialect: the name of the row that matches, or the name of the shape. ok is false if no
// row matches and calls begin without fixed text or with a fenced block, so that they cannot be distinguished from
// text.
func (d *Dialect) family() (ok bool) {
	all := d.fixedText()
	for _, r := range rows {
		if r.shape != d.Shape {
			continue
		}
		found := true
		for _, w := range r.words {
			found = found && strings.Contains(all, w)
		}
		if found {
			d.Name = r.name
			return true
		}
	}
	d.Name = string(d.Shape)
	opening := d.Calls.Begin
	if opening == "" && d.Calls.Call[0].Kind == Fixed {
		opening = d.Calls.Call[0].Text
	}
	return strings.TrimSpace(opening) != "" && !strings.Contains(opening, "```")
}

// declareOnly holds the dialects of families with templates that declare tools but write no calls. Such a template is
// identified by a word in its source.
var declareOnly = []struct {
	word string
	make func() *Dialect
}{
	{"List of tools: ", func() *Dialect {
		return &Dialect{Name: "lfm2", Shape: Python, Calls: Calls{
			Begin: "<|tool_call_start|>[", End: "]<|tool_call_end|>", Separator: ", ", Several: true,
			Call:  []Piece{{Name, ""}, {Fixed, "("}, {Arguments, ""}, {Fixed, ")"}},
			Param: Param{Middle: "=", Separator: ", ", Quote: `"`}, Space: &pythonSpace,
		}}
	}},
	{"<|tool_call|>", func() *Dialect {
		return &Dialect{Name: "granite-3.3", Shape: Array, Calls: Calls{
			Begin: "<|tool_call|>[", End: "]", Separator: ", ", Several: true,
			Call: object("", "arguments", ""), Space: &pythonSpace,
		}}
	}},
}

// declareOnlyDialect returns the dialect of a template that declares tools but writes no calls, or nil if it declares
// none or is not in declareOnly.
func declareOnlyDialect(source string, t *Traits) *Dialect {
	if !t.Tools {
		return nil
	}
	for _, s := range declareOnly {
		if strings.Contains(source, s.word) {
			return s.make()
		}
	}
	return nil
}

// fixedText returns all markers of calls, joined: Begin, the fixed pieces of a call, the markers of an argument, and
// End. A zero byte stands in front of them, so that a word can match their beginning.
func (d *Dialect) fixedText() string {
	var b strings.Builder
	p := &d.Calls.Param
	b.WriteString("\x00" + d.Calls.Begin)
	for _, piece := range d.Calls.Call {
		if piece.Kind == Fixed {
			b.WriteString(piece.Text)
		}
	}
	b.WriteString(p.Open + p.Middle + p.Close + d.Calls.End)
	return b.String()
}

// adjust adapts the dialect to facts that templates do not show, such as further spellings that the models of its
// family use.
func (d *Dialect) adjust() {
	switch d.Name {
	case "generic", "llama3-json":
		d.Calls.Alone = true
	case "llama4-pythonic":
		d.Calls.Alone = d.Calls.Begin == "["
	case "qwen3-coder":
		d.withoutOuterTag()
	case "gemma4":
		d.Calls.End = strings.TrimSuffix(d.Calls.End, "<|tool_response>")
		last := &d.Calls.Call[len(d.Calls.Call)-1]
		last.Text = strings.TrimSuffix(last.Text, "<|tool_response>")
		d.Thinking.End = strings.TrimSpace(d.Thinking.End)
	case "gpt-oss":
		d.harmony()
	}
	d.eitherOrder()
}

// These match the texts around the members of a call in JSON: the end of the text in front of a name, and the text
// between a name and the arguments.
var (
	nameMember = regexp.MustCompile(`("[^"]*":\s*)"$`)
	argsMember = regexp.MustCompile(`^"(,\s*)("[^"]*":\s*)$`)
)

// eitherOrder adds, in shapes Object and Array, the spelling with the arguments in front of the name, which models
// write occasionally.
func (d *Dialect) eitherOrder() {
	call := d.Calls.Call
	at := slices.IndexFunc(call, func(p Piece) bool { return p.Kind == Name })
	if d.Shape != Object && d.Shape != Array || at < 1 || len(call) < at+4 || len(d.Calls.Others) > 0 {
		return
	}
	name, args := nameMember.FindStringSubmatchIndex(call[at-1].Text), argsMember.FindStringSubmatch(call[at+1].Text)
	if name == nil || args == nil || call[at+2].Kind != Arguments || call[at+3].Kind != Fixed {
		return
	}
	before, member := call[at-1].Text[:name[0]], call[at-1].Text[name[2]:name[3]]
	other := append(slices.Clone(call[:at-1]),
		Piece{Fixed, before + args[2]}, Piece{Kind: Arguments}, Piece{Fixed, args[1] + member + `"`}, Piece{Kind: Name},
		Piece{Fixed, `"` + call[at+3].Text})
	d.Calls.Others = append(d.Calls.Others, append(other, call[at+4:]...))
}

// withoutOuterTag adds the spelling without <tool_call>: the call begins with the function's tag.
func (d *Dialect) withoutOuterTag() {
	call := d.Calls.Call
	n := len(call)
	first := strings.Index(call[0].Text, "<function=")
	end := strings.Index(call[n-1].Text, "</function>")
	if first < 0 || end < 0 {
		return
	}
	other := append([]Piece{{Fixed, call[0].Text[first:]}}, call[1:n-1]...)
	other = append(other, Piece{Fixed, call[n-1].Text[:end+len("</function>")]})
	d.Calls.Others = append(d.Calls.Others, other)
}

// harmony completes the dialect of gpt-oss: its template shows only one of the spellings of a call, and not all markers
// of thoughts and texts.
func (d *Dialect) harmony() {
	call := func(first, second string) []Piece {
		return []Piece{{Fixed, first}, {Name, ""}, {Fixed, second}, {Arguments, ""}, {Fixed, "<|call|>"}}
	}
	d.Calls = Calls{
		Space: d.Calls.Space, Call: call("<|channel|>commentary to=functions.", " <|constrain|>json<|message|>"),
		Others: [][]Piece{
			call(" to=functions.", "<|channel|>commentary json<|message|>"),
			call(" to=functions.", "<|channel|>commentary <|constrain|>json<|message|>"),
		},
	}
	d.Thinking.Begin, d.Thinking.End = "<|channel|>analysis<|message|>", "<|end|>"
	d.Text = Text{Begins: []string{"<|channel|>final<|message|>", "<|channel|>commentary<|message|>"}, End: "<|end|>"}
	d.Next = "<|start|>assistant"
}
