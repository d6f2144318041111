package schema

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/regex"
)

// A Notation is a spelling of objects that differs from JSON, such as the spelling of the arguments in a
// model's tool calls. The values are the same as in JSON. A nil *Notation means JSON.
type Notation struct {
	// Write adds the marker text to the grammar, with mark behind its first symbol, followed by next. The symbols
	// of a marker may be tokens.
	Write func(b *automaton.Builder, text string, mark automaton.Mark, next automaton.Node) automaton.Node
	// If Bare is set, the outermost object has no braces. Each member is Open, name, Middle, value,
	// Close, with Separator between two members. If End is set, MiddleJSON, unless it is empty,
	// replaces Middle before values that are not strings.
	Bare                                       bool
	Open, Middle, MiddleJSON, Close, Separator string
	// None is written for an outermost object without members. It is used only with Bare.
	None string
	// End, if not nil, writes Close, followed by next; kind is the kind of the value before Close. With
	// End, a string that is the value of a member of the outermost object has no quotes; strings
	// deeper inside keep theirs.
	End func(b *automaton.Builder, kind Value, next automaton.Node) automaton.Node
	// WrapOpen and WrapClose, if not empty, are markers that may enclose a string that is the value of a
	// member of the outermost object. If WrapOf is not empty, a string of a finite list is enclosed if
	// and only if it contains a character of WrapOf. They are used only with End.
	WrapOpen, WrapClose, WrapOf string
	// WrapJSON reports that arrays and objects may have these markers, too.
	WrapJSON bool
	// Spells reports whether a name can be written without quotes; nil means that all can. A schema that declares
	// any other name is refused.
	Spells func(name string) bool
	// Quote is the marker on both sides of all strings; the inside is raw. If it is set, names
	// have no quotes, and there is no white space between tokens. Empty means the strings of JSON.
	Quote string
	// Around, if not empty, is the quotation mark on both sides of each value of the outermost object that
	// is a string. The string is raw and may contain Around, so its end is found by the automaton's marks
	// that Write adds. Arrays in the outermost object, and all values within them, are then spelt as
	// Python's repr spells them; objects in the outermost object are JSON, with JSON's words. Around is
	// used only with Bare and without End and Quote.
	Around string
	// Null, False and True are the words for these values; empty means JSON's word.
	Null, False, True string
	// If Spaced is set, each value has one spelling: numbers have no redundant zeros, and the only
	// white space is Comma after a comma and Colon after a colon.
	Spaced       bool
	Comma, Colon string
	// If ASCII is set, characters beyond ASCII are written as \uXXXX in strings. It is used only
	// without Bare and Quote.
	ASCII bool
	// If Sorted is set, declared members are sorted by name, without regard to case. Otherwise they
	// have the order of the schema.
	Sorted bool
}

// A Value is a kind of value in the outermost object; it is an argument of End in a [Notation]. The
// constants below are the only kinds.
type Value uint8

// Kinds of values.
const (
	JSON   Value = iota // all values except strings
	Raw                 // strings that are not Listed, without quotes
	Listed              // strings of a finite list, without quotes: their ends are certain
)

// Styles of a rule, for the outermost value, its members, and all other values (inside).
const (
	inside uint8 = iota
	outermost
	rawMember   // only strings, without quotes
	rawWrapped  // only strings, between the markers of WrapOpen and WrapClose
	jsonMember  // all values except strings
	jsonWrapped // arrays and objects, between the same markers
	around      // all values, with strings between the marks of Around
	repr        // all values, as Python's repr writes them
)

// CompileObject is Compile for the objects that a schema allows, without its other values. The
// objects are spelt in notation n; nil means JSON.
func CompileObject(source []byte, n *Notation, b *automaton.Budget) (*Schema, error) {
	return compile(source, n, true, b)
}

// notationMember writes a member of the outermost object in the notation, followed by next.
func (w *objectWriter) notationMember(name func(automaton.Node) automaton.Node, value expr, next automaton.Node) automaton.Node {
	n, b := w.notation, w.b
	begin, nameEnd := automaton.Outer|automaton.Begin, automaton.End
	if !w.markObjects {
		begin, nameEnd = 0, 0
	}
	member := func(style uint8, middle string, end automaton.Node) automaton.Node {
		return n.Write(b, middle, nameEnd, b.Nest(w.styled(value, false, style), end))
	}
	var rest automaton.Node
	if n.End == nil {
		style := inside
		if n.Around != "" {
			style = around
		}
		rest = member(style, n.Middle, n.Write(b, n.Close, 0, next))
	} else {
		raw := Raw
		if w.listed(value) {
			raw = Listed
		}
		middle := cmp.Or(n.MiddleJSON, n.Middle)
		ways := []automaton.Node{member(rawMember, n.Middle, n.End(b, raw, next)), member(jsonMember, middle, n.End(b, JSON, next))}
		wrapped := func(style uint8, middle string, kind Value) automaton.Node {
			inside := b.Nest(w.styled(value, false, style), n.Write(b, n.WrapClose, 0, n.End(b, kind, next)))
			return n.Write(b, middle, nameEnd, n.Write(b, n.WrapOpen, 0, inside))
		}
		if n.WrapOpen != "" {
			ways = append(ways, wrapped(rawWrapped, n.Middle, raw))
		}
		if n.WrapOpen != "" && n.WrapJSON {
			ways = append(ways, wrapped(jsonWrapped, middle, JSON))
		}
		rest = b.Alt(ways...)
	}
	return n.Write(b, n.Open, 0, w.mark(begin != 0, begin, name(rest)))
}

// checkNames refuses declared names that the notation cannot write without quotes.
func (w *objectWriter) checkNames(object expr) {
	if !w.root && !w.bare() || w.notation.Spells == nil {
		return
	}
	for _, p := range w.props {
		if !w.notation.Spells(p.name) {
			w.refuse(&fault{w.declaring(p.name, object), &nameError{p.name}}, object)
		}
	}
}

// A nameError is the reason to refuse a declared name that the notation cannot write.
type nameError struct{ name string }

func (e *nameError) Error() string {
	return fmt.Sprintf("the spelling of this model's calls does not support the name %.64q", e.name)
}

// listed reports whether an expression allows only finitely many strings.
func (e *emitter) listed(x expr) bool {
	s, err := e.eval(x)
	return err == nil && !slices.ContainsFunc(s.strs, func(x strs) bool { return x.lang == nil || !x.lang.Finite() })
}

// bareNames writes undeclared names without quotes: the words that are in names, or all words if names is nil.
func (w *objectWriter) bareNames(names *regex.DFA, next automaton.Node) automaton.Node {
	words, err := w.langs.pattern("^[A-Za-z_][A-Za-z0-9_-]*$")
	switch {
	case err != nil: // the budget is exhausted
		return w.b.Alt()
	case names == nil:
		words = w.langs.without(words, w.declared)
	default:
		words = w.langs.and(words, names)
	}
	if words.Empty() {
		return w.b.Alt()
	}
	return w.b.DFA(regex.Raw(w.budget, words), next)
}

// rawString writes strings without quotes and escapes.
func (e *emitter) rawString(x strs, next automaton.Node) (automaton.Node, error) {
	if x.lang == nil {
		most := x.most
		if most < 0 {
			most = automaton.Unlimited
		}
		if e.character == nil {
			all, err := regex.Compile(e.budget, `^[\s\S]$`)
			if err != nil {
				return 0, err
			}
			e.character = regex.Raw(e.budget, all)
		}
		one := e.b.Rule()
		e.b.Body(one, e.b.DFA(e.character, e.b.End()))
		return e.b.Repeat(one, x.least, most, next), nil
	}
	lang, err := e.cutStrs(x)
	if err != nil {
		return 0, err
	}
	if lang.Empty() {
		return e.b.Alt(), nil
	}
	return e.b.DFA(e.spell(lang, spellRaw, func() *automaton.DFA { return regex.Raw(e.budget, lang) }), next), nil
}

// wrappable returns a function that writes the raw strings that may stand between WrapOpen and WrapClose, or, if
// wrapped is false, the raw strings that may stand without them. It does not write the markers.
func (e *emitter) wrappable(wrapped bool) func(strs, automaton.Node) (automaton.Node, error) {
	return func(x strs, next automaton.Node) (automaton.Node, error) {
		if e.notation.WrapOf == "" || x.lang == nil || !x.lang.Finite() {
			return e.rawString(x, next)
		}
		var ranges [][2]rune
		for _, c := range e.notation.WrapOf {
			ranges = append(ranges, [2]rune{c, c})
		}
		all := regex.Repeat(regex.Chars(nil, true), 0, -1)
		having, err := regex.Build(e.budget, regex.Seq(all, regex.Chars(ranges, false), all))
		if err != nil {
			return 0, err
		}
		if wrapped {
			x.lang = regex.And(e.budget, x.lang, having)
		} else {
			x.lang = regex.Minus(e.budget, x.lang, having)
		}
		return e.rawString(x, next)
	}
}

// aroundString writes raw strings between the quotation marks of Around.
func (e *emitter) aroundString(x strs, next automaton.Node) (automaton.Node, error) {
	n, err := e.rawString(x, e.b.Bytes(e.notation.Around, next))
	if err != nil {
		return 0, err
	}
	return e.b.Bytes(e.notation.Around, n), nil
}

// setInnerStyle sets the style of the values within an array or an object that has the given style.
func (e *emitter) setInnerStyle(style uint8, array bool) {
	e.innerStyle = inside
	if style == repr || style == around && array {
		e.innerStyle = repr
	}
}

// reprString writes strings as Python's repr does: between double quotation marks if a string contains single ones and
// no double ones, otherwise between single ones. If bounds on the length of arbitrary strings make the automaton too
// large, all strings are between single ones.
func (e *emitter) reprString(x strs, next automaton.Node) (automaton.Node, error) {
	lang, err := e.cutStrs(x)
	if err != nil {
		if x.lang != nil {
			return 0, err
		}
		most := x.most
		if most < 0 {
			most = automaton.Unlimited
		}
		one := e.b.Rule()
		e.b.Body(one, e.b.DFA(regex.Python(e.budget, regex.Cut(e.budget, regex.Any(), 1, 1), '\''), e.b.End()))
		return e.b.Bytes("'", e.b.Repeat(one, x.least, most, e.b.Bytes("'", next))), nil
	}
	parts, err := e.langs.reprsOf(lang)
	if err != nil {
		return 0, err
	}
	if lang == constants().any {
		maps.Copy(e.spelt, anyReprs().spelt)
	}
	var ways []automaton.Node
	between := func(quote string, kind uint8, lang *regex.DFA) {
		if !lang.Empty() {
			d := e.spell(lang, kind, func() *automaton.DFA { return regex.Python(e.budget, lang, quote[0]) })
			ways = append(ways, e.b.Bytes(quote, e.b.DFA(d, e.b.Bytes(quote, next))))
		}
	}
	between(`"`, spellDouble, parts.double)
	between("'", spellSingle, parts.single)
	return e.b.Alt(ways...), nil
}

// reprName writes the names of members as reprString writes strings, followed by next. If names is nil, it writes all
// names except those in but.
func (e *emitter) reprName(names *regex.DFA, but []string, next automaton.Node) automaton.Node {
	if names == nil {
		if names = constants().any; len(but) > 0 {
			names = e.langs.without(nil, but)
		}
	}
	n, err := e.reprString(strs{lang: names, most: -1}, next)
	if err != nil { // the budget is exhausted
		return e.b.Alt()
	}
	return n
}

// ascii reports whether characters beyond ASCII are escaped in strings.
func (e *emitter) ascii() bool { return e.notation != nil && e.notation.ASCII }

// text writes the inside of a string of least to most arbitrary characters.
func (e *emitter) text(least, most int, next automaton.Node) automaton.Node {
	if !e.ascii() {
		return e.b.Text(least, most, next)
	}
	if e.character == nil {
		e.character = regex.ASCII(e.budget, regex.Cut(e.budget, regex.Any(), 1, 1))
	}
	one := e.b.Rule()
	e.b.Body(one, e.b.DFA(e.character, e.b.End()))
	return e.b.Repeat(one, least, most, next)
}

// spaced reports whether white space is fixed.
func (e *emitter) spaced() bool { return e.notation != nil && e.notation.Spaced }

// afterComma writes the white space after a comma.
func (e *emitter) afterComma(next automaton.Node) automaton.Node {
	if e.spaced() && !e.bare() {
		return e.b.Bytes(e.notation.Comma, next)
	}
	return e.ws(next)
}

// afterColon writes the white space after a colon.
func (e *emitter) afterColon(next automaton.Node) automaton.Node {
	if e.spaced() {
		return e.b.Bytes(e.notation.Colon, next)
	}
	return e.b.DFA(constants().gap, next)
}

// sort puts the declared members of an object into the order of the notation.
func (w *objectWriter) sort() {
	if w.notation != nil && w.notation.Sorted {
		slices.SortStableFunc(w.props, func(x, y prop) int { return strings.Compare(strings.ToLower(x.name), strings.ToLower(y.name)) })
	}
}
