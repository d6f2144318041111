package speech

import (
	"cmp"
	"slices"
	"strings"
	"unicode"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/internal/automaton"
)

// calls writes all calls and the end of the answer, as a way out of the text. If w.opening is set, or if the answer may
// not have calls, it writes only the beginning of the first call.
func (w *writer) calls() fork {
	b, c := w.b, &w.Dialect.Calls
	after := b.End()
	var first automaton.Node
	if w.opening || !w.mayCall() {
		first = b.Alt(w.spellings(after, false)...)
	} else {
		behind := w.behindName()
		again := b.Forward()
		after = behind.afterCall(again)
		b.Define(again, behind.spellings(after, false)...)
		if first = again; behind.strict != w.strict {
			first = b.Alt(w.spellings(after, false)...)
		}
	}
	all := w.allSpellings()
	byToken := len(slices.DeleteFunc(slices.Clone(all), func(p []dialect.Piece) bool { return w.firstOf(p) < 256 }))
	switch {
	case c.Begin != "" && w.symbols(c.Begin)[0] >= 256:
		first = w.fixed(c.Begin, w.certainMark(), first)
		return fork{first, first}
	case c.Begin != "":
		return fork{w.fixed(c.Begin, 0, first), b.Alt()}
	case byToken == len(all):
		return fork{first, first}
	case byToken == 0:
		return fork{first, b.Alt()}
	}
	return fork{first, b.Alt(w.spellings(after, true)...)}
}

// afterCall writes the continuations of a call: the end, or the separator and further calls.
func (w *writer) afterCall(further automaton.Node) automaton.Node {
	c := &w.Dialect.Calls
	end := w.b.End()
	if !w.strict {
		end = w.spaces(end)
	}
	if c.Param.Raw {
		end = w.b.Mark(automaton.Commit|markCallsEnd, end)
	}
	end = w.fixed(c.End, 0, end)
	if !c.Several || w.OneCall {
		return end
	}
	return w.b.Alt(end, w.fixed(c.Separator, 0, w.b.Mark(markFork, further)))
}

// certainMark returns the marks behind a token that only calls begin with: the call is certain, or refused.
func (w *writer) certainMark() automaton.Mark {
	if !w.opening && !w.mayCall() {
		return automaton.Forbid
	}
	return automaton.Commit | markCall
}

// allSpellings returns the spellings of one call, the template's first.
func (s *Speech) allSpellings() [][]dialect.Piece {
	return append([][]dialect.Piece{s.Dialect.Calls.Call}, s.Dialect.Calls.Others...)
}

// spellings writes one call in each of its spellings, or, if tokens is set, in each that begins with a token.
func (w *writer) spellings(after automaton.Node, tokens bool) (ways []automaton.Node) {
	for _, pieces := range w.allSpellings() {
		if tokens && w.firstOf(pieces) < 256 {
			continue
		}
		if kindAt(pieces, dialect.Name) < kindAt(pieces, dialect.Arguments) {
			ways = append(ways, w.call(pieces, after))
		} else {
			ways = append(ways, w.reversed(pieces, after)...)
		}
	}
	return ways
}

// call writes one call with its name before its arguments. Behind the name each tool has its own arguments. The call is
// certain behind its first symbol if that is a token, otherwise behind the symbol that follows a declared name. If only
// white space stands between name and arguments, it is certain at the last symbol of the name already, unless another
// name begins with this one: then only a first symbol that is a token makes it certain.
func (w *writer) call(pieces []dialect.Piece, after automaton.Node) automaton.Node {
	b := w.b
	at, args := kindAt(pieces, dialect.Name), kindAt(pieces, dialect.Arguments)
	before, between, behind := pieces[:at], pieces[at+1:args], w.withoutEnd(pieces[args+1:])
	sure := automaton.Commit | markCall | markNamed
	direct := blank(between)
	if direct {
		sure = automaton.Commit | markCall | markNameEnd
	}
	var rest func(tool int, longer bool) automaton.Node
	if w.opening || !w.mayCall() {
		if !w.opening {
			sure = automaton.Forbid
		}
		shared := b.Mark(sure, b.End())
		if first := w.firstOf(between); first >= 0 && !direct {
			shared = w.symbol(first, shared)
		}
		rest = func(int, bool) automaton.Node { return shared }
	} else {
		tail := b.Mark(markArgsEnd, w.behindName().pieces(behind, 0, b.Mark(markCallEnd, after)))
		rest = func(tool int, longer bool) automaton.Node {
			args := b.Mark(markArgs, b.Call(w.args[tool], tail))
			switch {
			case !direct:
				return w.beforeArguments(between, sure, args)
			case longer:
				return b.Mark(markNameEnd, w.pieces(between, 0, args))
			}
			return b.Mark(sure, w.pieces(between, 0, args))
		}
	}
	return w.pieces(before, w.markOf(before), b.Mark(markName, w.names(w.allNames(), 0, rest)))
}

// beforeArguments writes the pieces between a name and the arguments. The call is certain behind their first symbol,
// but the token of the vocabulary that has this symbol may have the next ones, too. So in shapes with JSON objects the
// template's white space is enforced only from the first letter on.
func (w *writer) beforeArguments(pieces []dialect.Piece, mark automaton.Mark, next automaton.Node) automaton.Node {
	if json := w.Dialect.Shape == dialect.Object || w.Dialect.Shape == dialect.Array; json && pieces[0].Kind == dialect.Fixed {
		text := pieces[0].Text
		if at := strings.IndexFunc(text, unicode.IsLetter); at > 0 {
			next = w.behindName().fixed(text[at:], 0, w.behindName().pieces(pieces[1:], 0, next))
			return w.fixed(text[:at], mark, next)
		}
	}
	return w.pieces(pieces, mark, next)
}

// kindAt returns the index of the first piece of kind k, or -1.
func kindAt(pieces []dialect.Piece, k dialect.Kind) int {
	return slices.IndexFunc(pieces, func(p dialect.Piece) bool { return p.Kind == k })
}

// allNames returns the names of the tools, sorted.
func (w *writer) allNames() []name {
	names := make([]name, 0, len(w.tools))
	for text, tool := range w.tools {
		names = append(names, name{text, tool})
	}
	slices.SortFunc(names, func(x, y name) int { return cmp.Compare(x.text, y.text) })
	return names
}

// markOf returns the marks behind the first symbol of a call. before are the first pieces of the call.
func (w *writer) markOf(before []dialect.Piece) automaton.Mark {
	if w.firstOf(before) >= 256 && w.Dialect.Next == "" { // the marker begins nothing else
		return w.certainMark()
	}
	return 0
}

// blank reports whether pieces consist only of white space.
func blank(pieces []dialect.Piece) bool {
	return !slices.ContainsFunc(pieces, func(p dialect.Piece) bool { return p.Kind != dialect.Fixed || strings.TrimSpace(p.Text) != "" })
}

// withoutEnd drops the last piece of a call if it is a token that ends the answer: the end of the grammar already
// allows it.
func (w *writer) withoutEnd(pieces []dialect.Piece) []dialect.Piece {
	if n := len(pieces); n > 0 && pieces[n-1].Kind == dialect.Fixed {
		if text := w.symbols(pieces[n-1].Text); len(text) == 1 && w.isEnd(text[0]) {
			return pieces[:n-1]
		}
	}
	return pieces
}

// firstOf returns the first symbol of pieces, or -1 if they do not begin with a fixed text.
func (w *writer) firstOf(pieces []dialect.Piece) automaton.Symbol {
	if len(pieces) == 0 || pieces[0].Kind != dialect.Fixed || pieces[0].Text == "" {
		return -1
	}
	return w.symbols(pieces[0].Text)[0]
}

// A name is a tool's name as it stands in a call.
type name struct {
	text string
	tool int
}

// names writes a sorted list of names as a tree. from is an offset up to which all names are equal; the tree begins
// there. rest writes the text behind a name; longer is set if another name begins with this one.
func (w *writer) names(list []name, from int, rest func(tool int, longer bool) automaton.Node) automaton.Node {
	to := common(list, from)
	var ways []automaton.Node
	i := 0
	if len(list[0].text) == to {
		ways = append(ways, rest(list[0].tool, len(list) > 1))
		i = 1
	}
	for i < len(list) {
		n := i + 1
		for n < len(list) && list[n].text[to] == list[i].text[to] {
			n++
		}
		ways = append(ways, w.names(list[i:n], to, rest))
		i = n
	}
	return w.b.Bytes(list[0].text[from:to], w.b.Alt(ways...))
}

// common returns the length in bytes of the longest common prefix of sorted names. They must be equal up to the offset
// from.
func common(list []name, from int) int {
	first, last := list[0].text, list[len(list)-1].text
	to := from
	for to < len(first) && to < len(last) && first[to] == last[to] {
		to++
	}
	return to
}

// pieces writes pieces other than name and arguments, with mark behind their first symbol.
func (w *writer) pieces(list []dialect.Piece, mark automaton.Mark, next automaton.Node) automaton.Node {
	for i, p := range slices.Backward(list) {
		m := automaton.Mark(0)
		if i == 0 {
			m = mark
		}
		switch p.Kind {
		case dialect.Fixed:
			next = w.fixed(p.Text, m, next)
		case dialect.ID:
			next = w.id(p.Text, next)
		case dialect.NumberInConversation:
			next = w.b.Mark(markConvNumber, w.chars("0123456789", 1, 6, next))
		case dialect.NumberInAnswer:
			next = w.b.Mark(markAnsNumber, w.chars("0123456789", 1, 6, next))
		case dialect.Name, dialect.Arguments:
		}
	}
	if len(list) == 0 && mark != 0 {
		return w.b.Mark(mark, next)
	}
	return next
}

const alphanumeric = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// id writes an id in one of the alphabets of package dialect.
func (w *writer) id(alphabet string, next automaton.Node) automaton.Node {
	if alphabet == dialect.Nine {
		return w.b.Mark(markNine, w.chars(alphanumeric, 9, 9, next))
	}
	return w.b.Mark(markAnyLength, w.chars(alphanumeric+"-_", 1, 64, next))
}

// chars writes least to most characters of an alphabet.
func (w *writer) chars(alphabet string, least, most int, next automaton.Node) automaton.Node {
	var set automaton.Set
	for i := range len(alphabet) {
		set.Add(alphabet[i], alphabet[i])
	}
	one := w.b.Rule()
	w.b.Body(one, w.b.Set(set, w.b.End()))
	return w.b.Repeat(one, least, most, next)
}

// fixed writes a fixed text, with mark behind its first symbol. If w.strict is not set, the answer may have other white
// space than the text, or none: between the symbols of JSON in shapes with JSON objects, and outside tags in shape
// Params. Without this freedom, a call with other white space than the template's would be read as text.
func (w *writer) fixed(text string, mark automaton.Mark, next automaton.Node) automaton.Node {
	symbols := w.symbols(text)
	free := w.Dialect.Shape == dialect.Object || w.Dialect.Shape == dialect.Array
	spaced := false // next begins with optional white space
	for i, x := range slices.Backward(symbols) {
		switch {
		case w.strict, !free && (w.Dialect.Shape != dialect.Params || !isSpace(x) || inTag(symbols, i)):
			next = w.symbol(x, w.markIf(i == 0, mark, next))
		case isSpace(x):
			if !spaced {
				next = w.spaces(w.markIf(i == 0, mark, next))
			}
			spaced = true
			continue
		default:
			if mayPrecedeSpace(x) && !spaced {
				next = w.spaces(next)
			}
			next = w.symbol(x, w.markIf(i == 0, mark, next))
			if x == '}' || x == ']' {
				next = w.spaces(next)
				spaced = true
				continue
			}
		}
		spaced = false
	}
	return next
}

func (w *writer) markIf(on bool, mark automaton.Mark, next automaton.Node) automaton.Node {
	if !on || mark == 0 {
		return next
	}
	return w.b.Mark(mark, next)
}

// inTag reports whether symbol i of a text stands between the < and the > of a tag.
func inTag(symbols []automaton.Symbol, i int) bool {
	for _, x := range slices.Backward(symbols[:i]) {
		if x == '<' || x == '>' {
			return x == '<'
		}
	}
	return false
}

func isSpace(x automaton.Symbol) bool { return x == ' ' || x == '\n' || x == '\t' || x == '\r' }

// mayPrecedeSpace reports whether white space may follow a character of JSON.
func mayPrecedeSpace(x automaton.Symbol) bool { return x == '{' || x == '[' || x == ',' || x == ':' }
