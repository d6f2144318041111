package schema

import (
	"fmt"
	"unicode/utf16"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/regex"
)

type spelling struct {
	lang *regex.DFA
	kind uint8
}

// Kinds of spellings.
const (
	spellQuoted uint8 = iota
	spellNumber
	spellCanonical
	spellRaw
	spellASCII
	spellSingle
	spellDouble
)

// spell returns the automaton for one kind of spelling of lang. It calls write at the first use.
func (e *emitter) spell(lang *regex.DFA, kind uint8, write func() *automaton.DFA) *automaton.DFA {
	k := spelling{lang, kind}
	d, ok := e.spelt[k]
	if !ok {
		d = write()
		e.spelt[k] = d
	}
	return d
}

// number writes the numbers in nums, followed by next. Integers have no fraction, finite sets have
// no redundant zeros, and only the set of all numbers has exponents. If single is set, each number
// has one spelling.
func (e *emitter) number(nums *regex.DFA, single bool, next automaton.Node) automaton.Node {
	kind := spellNumber
	if single {
		kind = spellCanonical
	}
	return e.b.DFA(e.spell(nums, kind, func() *automaton.DFA {
		switch {
		case single:
			nums = regex.And(e.budget, nums, e.canonical)
		case nums == e.decimals:
			nums = regex.JSONNumbers(e.budget)
		case nums == e.integers:
			nums = e.plainInts
		default:
			if regex.Minus(e.budget, nums, e.integers).Empty() {
				nums = regex.And(e.budget, nums, e.plainInts)
			} else if short := regex.And(e.budget, nums, e.canonical); short.Finite() {
				nums = short
			}
		}
		return regex.Raw(e.budget, nums)
	}), next)
}

func (e *emitter) string(x strs, next automaton.Node) (automaton.Node, error) {
	if e.bare() {
		n, err := e.rawString(x, e.notation.Write(e.b, e.notation.Quote, 0, next))
		if err != nil {
			return 0, err
		}
		return e.notation.Write(e.b, e.notation.Quote, 0, n), nil
	}
	next = e.b.Bytes(`"`, next)
	if x.lang == nil {
		most := x.most
		if most < 0 {
			most = automaton.Unlimited
		}
		return e.b.Bytes(`"`, e.text(x.least, most, next)), nil
	}
	lang, err := e.cutStrs(x)
	if err != nil {
		return 0, err
	}
	return e.b.Bytes(`"`, e.quoted(lang, next)), nil
}

// quoted writes the strings of lang as the inside of JSON strings, followed by next.
func (e *emitter) quoted(lang *regex.DFA, next automaton.Node) automaton.Node {
	if lang.Empty() {
		return e.b.Alt()
	}
	if e.ascii() {
		return e.b.DFA(e.spell(lang, spellASCII, func() *automaton.DFA { return regex.ASCII(e.budget, lang) }), next)
	}
	return e.b.DFA(e.spell(lang, spellQuoted, func() *automaton.DFA {
		if written := e.written[lang]; written != nil {
			return written()
		}
		return regex.Quoted(e.budget, lang)
	}), next)
}

// inner returns s as the inside of a JSON string, each character in the only spelling that
// [automaton.Builder.Text] allows.
func inner(s string) string {
	var out []byte
	for i := range len(s) {
		switch b := s[i]; b {
		case '"', '\\':
			out = append(out, '\\', b)
		case '\b':
			out = append(out, `\b`...)
		case '\f':
			out = append(out, `\f`...)
		case '\n':
			out = append(out, `\n`...)
		case '\r':
			out = append(out, `\r`...)
		case '\t':
			out = append(out, `\t`...)
		default:
			if b < 0x20 {
				out = append(out, `\u00`...)
				out = append(out, "01"[b>>4], "0123456789abcdef"[b&15])
			} else {
				out = append(out, b)
			}
		}
	}
	return string(out)
}

// innerASCII is inner with characters beyond ASCII escaped.
func innerASCII(s string) string {
	var out []byte
	for _, r := range s {
		switch {
		case r < 0x7f:
			out = append(out, inner(string(r))...)
		case r < 0x10000:
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		}
	}
	return string(out)
}
