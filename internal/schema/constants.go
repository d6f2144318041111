package schema

import (
	"runtime"
	"sync"
	"time"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/regex"
)

// numbers holds the languages of numbers that all schemas share.
type numbers struct {
	decimals, integers *regex.DFA // all numbers; the numbers without a fraction, or with zeros only in it
	canonical          *regex.DFA // one spelling of each number
	plainInts          *regex.DFA // one spelling of each integer
}

// fixed holds the automata that do not depend on the schema.
type fixed struct {
	numbers
	any        *regex.DFA                  // all strings
	spelt      map[spelling]*automaton.DFA // spellings of decimals and of integers
	space, gap *automaton.DFA              // white space between tokens, and after a colon
}

// constants returns the automata that do not depend on the schema. They are made at the first use
// and never changed.
var constants = sync.OnceValue(func() *fixed {
	b := onceBudget()
	f := &fixed{numbers: numbers{decimals: regex.Decimals(b), canonical: regex.Canonical(b)}}
	one, _ := regex.ParseDecimal("1")       // cannot fail: 1 is a number
	f.integers, _ = regex.Multiples(b, one) // cannot fail: 1 is small
	f.plainInts = regex.And(b, f.canonical, f.integers)
	f.any = regex.Any()
	f.spelt = map[spelling]*automaton.DFA{
		{f.decimals, spellNumber}: regex.Raw(b, regex.JSONNumbers(b)),
		{f.integers, spellNumber}: regex.Raw(b, f.plainInts),
	}
	f.space, f.gap = whiteSpace()
	return f
})

// fixedReprs holds all strings, divided by their quotation marks in Python, and their spellings.
type fixedReprs struct {
	reprs
	spelt map[spelling]*automaton.DFA
}

// anyReprs returns the division of all strings. It is made at the first use, in 50 ms, and not with the
// constants, because few notations need it.
var anyReprs = sync.OnceValue(func() *fixedReprs {
	b := onceBudget()
	singles, _ := regex.Compile(b, "'") // cannot fail, nor can the next: the patterns are tiny
	doubles, _ := regex.Compile(b, `"`)
	r := newReprs(b, constants().any, singles, doubles)
	return &fixedReprs{reprs: r, spelt: map[spelling]*automaton.DFA{
		{r.double, spellDouble}: regex.Python(b, r.double, '"'),
		{r.single, spellSingle}: regex.Python(b, r.single, '\''),
	}}
})

// onceBudget returns a budget of a minute, with yields, for automata that are made only once.
func onceBudget() *regex.Budget { return &regex.Budget{Time: time.Minute, Yield: runtime.Gosched} }

// Prepare makes the automata that do not depend on the schema, so that no request waits for them.
func Prepare() {
	constants()
	for _, f := range formats {
		f().quoted()
	}
}

// A language is the set of strings of a format. It does not depend on the schema.
type language struct {
	lang   *regex.DFA
	quoted func() *automaton.DFA // as the inside of a JSON string
}

// onceLanguage returns a function that makes the language at its first call and returns it at every
// call.
func onceLanguage(lang func() *regex.DFA) func() *language {
	return sync.OnceValue(func() *language {
		l := &language{lang: lang()}
		l.quoted = sync.OnceValue(func() *automaton.DFA { return regex.Quoted(onceBudget(), l.lang) })
		return l
	})
}

// whiteSpace returns the white space between tokens (nothing, a space, or a newline and an
// indent) and after a colon (nothing or a space).
func whiteSpace() (space, gap *automaton.DFA) {
	space = &automaton.DFA{First: []int32{0, 2, 2}, Accept: []bool{true, true}, Edges: []automaton.Edge{{Lo: '\n', Hi: '\n', To: 2}, {Lo: ' ', Hi: ' ', To: 1}}}
	for i := range int32(maxIndent + 1) {
		if i < maxIndent {
			space.Edges = append(space.Edges, automaton.Edge{Lo: ' ', Hi: ' ', To: i + 3})
		}
		space.First = append(space.First, int32(len(space.Edges)))
		space.Accept = append(space.Accept, true)
	}
	gap = &automaton.DFA{First: []int32{0, 1, 1}, Accept: []bool{true, true}, Edges: []automaton.Edge{{Lo: ' ', Hi: ' ', To: 1}}}
	return space, gap
}
