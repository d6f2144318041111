package speech

import (
	"strings"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/schema"
)

// anyObject is the schema of a tool that declares none.
const anyObject = `{"type":"object"}`

// arguments returns the grammar rule for the arguments of tool number tool, and appends to w.guarded whether the rule
// has guards. The code of an error is [infer.Invalid]; its text names the tool, the keyword and the JSON pointer, or
// the exceeded budget.
func (w *writer) arguments(tool int) (automaton.Rule, error) {
	t := &w.named[tool]
	source := t.Schema
	if len(source) == 0 {
		source = []byte(anyObject)
	}
	s, err := schema.CompileObject(source, w.notation(), w.b.Budget)
	switch {
	case err != nil && w.b.Budget.Err() != nil:
		return 0, infer.Refusef("tools", "tools: %w", w.b.Budget.Err())
	case err != nil:
		return 0, infer.Refusef("tools", "tools: %.64q: input_schema: %w", t.Name, err)
	}
	w.guarded = append(w.guarded, s.Grammar.Guarded())
	return w.b.Include(s.Grammar), nil
}

// notation returns the dialect's notation of arguments; nil means JSON with free white space.
func (s *Speech) notation() *schema.Notation {
	n := s.shapedNotation()
	space := s.Dialect.Calls.Space
	if space == nil {
		return n
	}
	if n == nil {
		n = new(schema.Notation)
	}
	n.Spaced, n.Comma, n.Colon, n.Sorted, n.ASCII = space.JSON, space.Comma, space.Colon, space.Sorted, space.ASCII
	return n
}

// shapedNotation returns the notation that the shape alone determines, without the template's white space and order of
// members; nil means JSON.
func (s *Speech) shapedNotation() *schema.Notation {
	p := &s.Dialect.Calls.Param
	x := &notationWriter{Speech: s, writers: make(map[*automaton.Builder]*writer)}
	switch s.Dialect.Shape {
	case dialect.Params:
		return &schema.Notation{
			Bare: true, Open: p.Open, Middle: p.Middle, MiddleJSON: p.MiddleJSON, Close: p.Close, Separator: p.Separator, None: p.None, Spells: s.spellsMember,
			WrapOpen: p.Wrap.Open, WrapClose: p.Wrap.Close, WrapOf: p.Wrap.Of, WrapJSON: p.Wrap.JSON,
			Write: x.tag, End: x.endOfValue,
		}
	case dialect.Python:
		n := &schema.Notation{
			Bare: true, Middle: p.Middle, Separator: p.Separator, Open: p.Open, Close: p.Close, Spells: s.spellsMember,
			Null: "None", False: "False", True: "True", Write: x.write,
		}
		if p.Raw {
			n.Around, n.Write = p.Quote, x.keyword
		}
		return n
	case dialect.Literal:
		return &schema.Notation{
			Bare: true, Middle: p.Middle, Separator: p.Separator, Open: p.Open, Close: p.Close, Quote: p.Quote, Spells: s.spellsMember,
			Write: x.quoted,
		}
	case dialect.NoCalls, dialect.Object, dialect.Array, dialect.Named:
	}
	return nil
}

// notationWriter writes the markers of a notation of arguments into the grammars of schemas. It keeps one writer per
// grammar.
type notationWriter struct {
	*Speech
	writers map[*automaton.Builder]*writer
}

// writerFor returns the writer of grammar b, for text behind the name of a call.
func (x *notationWriter) writerFor(b *automaton.Builder) *writer {
	w := x.writers[b]
	if w == nil {
		w = x.writer(b).behindName()
		x.writers[b] = w
	}
	return w
}

func (x *notationWriter) write(b *automaton.Builder, text string, mark automaton.Mark, next automaton.Node) automaton.Node {
	return x.writerFor(b).fixed(text, mark, next)
}

// quoted writes a marker of shape Literal. At a quote marker all other ways end, so a string never contains one.
func (x *notationWriter) quoted(b *automaton.Builder, text string, mark automaton.Mark, next automaton.Node) automaton.Node {
	if text == x.Dialect.Calls.Param.Quote {
		next = b.Mark(automaton.Commit, next)
	}
	return x.write(b, text, mark, next)
}

// tag writes a marker of shape Params. White space that the template writes between a tag and the value belongs to the
// tag if the answer has it, never to the value.
func (x *notationWriter) tag(b *automaton.Builder, text string, mark automaton.Mark, next automaton.Node) automaton.Node {
	switch p := &x.Dialect.Calls.Param; {
	case text != "" && text == p.Wrap.Open: // a value that begins with it is wrapped
		return x.write(b, text, mark, b.Mark(automaton.Commit, next))
	case text != p.Middle && text != p.MiddleJSON:
		return x.write(b, text, mark, next)
	}
	core := strings.TrimSpace(text)
	if space := trailing(text, core); space != "" {
		spaced := x.writerFor(b).exact(x.symbols(space), b.Mark(automaton.Commit, next))
		if next = b.Alt(next, spaced); x.strictBehindName() {
			next = spaced
		}
	}
	return x.write(b, leading(text, core), 0, x.write(b, core, mark, next))
}

// endOfValue writes the tag behind a value. The tag ends a raw value wherever it occurs, as in the reference parsers of
// these models. White space that the template writes in front of the tag is required only if calls must have the
// template's white space, and if the value is not free text or the tag is a token.
func (x *notationWriter) endOfValue(b *automaton.Builder, kind schema.Value, next automaton.Node) automaton.Node {
	text := x.Dialect.Calls.Param.Close
	core := strings.TrimSpace(text)
	next = x.write(b, trailing(text, core), 0, next)
	end := func(mark automaton.Mark) automaton.Node {
		if kind == schema.JSON {
			mark = markJSON
		}
		return x.write(b, core, 0, b.Mark(automaton.Commit|mark, next))
	}
	space := leading(text, core)
	if space == "" {
		return end(markRaw)
	}
	spaced := x.writerFor(b).exact(x.symbols(space), end(markLine))
	if x.strictBehindName() && (kind != schema.Raw || x.symbols(core)[0] >= 256) {
		return spaced
	}
	return b.Alt(end(markRaw), spaced)
}

func leading(text, core string) string { return text[:strings.Index(text, core)] }

func trailing(text, core string) string { return text[strings.Index(text, core)+len(core):] }

// A valueEnd is an offset in the symbols of a call's arguments, and the marks passed there. In shape Params it is
// behind the tag that ends an argument; with raw strings of Python, behind a separator or an equals sign.
type valueEnd struct {
	marks automaton.Mark
	at    int
}

// input returns the arguments of a call as a JSON object. Only shape Params and raw strings of Python need ends.
func (s *Speech) input(text []automaton.Symbol, ends []valueEnd) []byte {
	switch s.Dialect.Shape {
	case dialect.Params:
		return s.fromParams(text, ends)
	case dialect.Python:
		if s.Dialect.Calls.Param.Raw {
			return s.fromRaw(text, ends)
		}
		return s.fromPython(textOf(text))
	case dialect.Literal:
		return s.fromLiteral(text)
	case dialect.NoCalls, dialect.Object, dialect.Array, dialect.Named:
	}
	return []byte(strings.TrimSpace(textOf(text)))
}

// An object collects the members of a JSON object. If a name is set twice, the last value counts.
type object struct {
	names  []string
	values map[string]string
}

func (o *object) set(name, value string) {
	if o.values == nil {
		o.values = make(map[string]string)
	}
	if _, ok := o.values[name]; !ok {
		o.names = append(o.names, name)
	}
	o.values[name] = value
}

func (o *object) bytes() []byte {
	var b strings.Builder
	b.WriteByte('{')
	for i, name := range o.names {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quote(name) + ": " + o.values[name])
	}
	b.WriteByte('}')
	return []byte(b.String())
}

// fromParams reads the arguments of shape Params. ends are the offsets behind the closing tags; their marks show
// whether the grammar accepted a value as JSON or as raw text.
func (s *Speech) fromParams(text []automaton.Symbol, ends []valueEnd) []byte {
	p := &s.Dialect.Calls.Param
	var o object
	end := strings.TrimSpace(p.Close)
	size, from := len(s.symbols(end)), 0
	for _, e := range ends {
		_, member, _ := strings.Cut(s.spelling(text[from:max(from, e.at-size)]), strings.TrimSpace(p.Open))
		name, value := s.cutParam(member)
		from = e.at
		switch {
		case e.marks&markJSON != 0:
			value = unwrapped(strings.TrimSpace(value), &p.Wrap)
		case e.marks&markLine != 0:
			value = quote(unwrapped(strings.TrimSuffix(value, leading(p.Close, end)), &p.Wrap))
		default:
			value = quote(unwrapped(value, &p.Wrap))
		}
		o.set(name, value)
	}
	return o.bytes()
}

// unwrapped returns a value without the markers of w, if it is wrapped in them.
func unwrapped(value string, w *dialect.Wrap) string {
	if inner, ok := strings.CutPrefix(value, w.Open); ok && w.Open != "" {
		return strings.TrimSuffix(inner, w.Close)
	}
	return value
}

// cutParam divides the text between the outer tags of an argument into name and value. White space at either end of the
// name is part of the name, unless the template writes white space there.
func (s *Speech) cutParam(text string) (name, value string) {
	name = text
	p := &s.Dialect.Calls.Param
	tight := true // no white space in front of the middle
	for _, middle := range []string{p.Middle, p.MiddleJSON} {
		core := strings.TrimSpace(middle)
		if before, behind, ok := strings.Cut(text, core); ok && core != "" && len(before) < len(name) {
			name, value = before, strings.TrimPrefix(behind, trailing(middle, core))
			tight = leading(middle, core) == ""
		}
	}
	if !tight {
		name = strings.TrimRight(name, whiteSpace)
	}
	if p.Open != strings.TrimRight(p.Open, whiteSpace) {
		name = strings.TrimLeft(name, whiteSpace)
	}
	return name, value
}
