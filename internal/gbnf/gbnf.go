// Package gbnf reads grammars in llama.cpp's notation. It reports the place of an error. It
// does not know vocabularies: a grammar's tokens are looked up by its caller.
//
// [Compile] makes a grammar for package automaton.
//
// [Check] validates a grammar before llama.cpp parses it, as long as llama.cpp's sampler is
// used: llama.cpp reports errors to standard error only, with the whole grammar; some grammars
// crash its process, and others take minutes of CPU time per token. Check refuses grammars
// that are too large or too ambiguous for it.
package gbnf

import "fmt"

// Limits of a grammar for llama.cpp.
const (
	maxDepth       = 100     // of nested parentheses
	maxRepetitions = 2000    // llama.cpp treats larger numbers as no limit
	maxRules       = 2000    // from the expansion of one repetition: llama.cpp's own limit
	maxElements    = 1 << 17 // after the expansion of repetitions
	maxWays        = 4096    // alternatives for the next character, at any position
	maxWork        = 1 << 14 // alternatives after the next character, in total over those for it
	maxOpen        = 128     // alternatives that are open at once in nested rules
)

// An Error is an error in a grammar, with its position.
type Error struct {
	Line, Column int // from 1; in bytes
	Problem      string
}

func (e *Error) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Problem)
}

// Check reports the first error in a grammar with the start symbol root. The error is an
// [*Error].
func Check(source string) error {
	p := &parser{source: source, most: maxRepetitions, rules: make(map[string]*rule)}
	if err := p.parse(); err != nil {
		return err
	}
	return p.weigh()
}

// A rule is the definition of a name.
type rule struct {
	at    int // position of its last definition, or of its first use
	known bool
	body  []sequence

	state state
	beginning
	weighed bool
	weight
	open float64 // alternatives that stay open at its end
}

type sequence []element

// An element is a part of a sequence, with the repetitions in its last three fields.
type element struct {
	at      int
	chars   int          // number of characters that a literal or class consumes
	literal []charRange  // the characters of a literal
	class   []charRange  // what a class has
	not     bool         // a class has all others; any token but the one is meant
	token   string       // in angle brackets
	repeats []repetition // operators, from the inside to the outside
	rule    string       // name of the rule that it refers to
	group   []sequence   // in parentheses

	optional bool // repeated, with a minimum of 0
	several  bool // repeated, with a maximum of more than 1
	never    bool // repeated 0 times
}

// A repetition is an operator behind an element; a most of math.MaxInt is no maximum.
type repetition struct{ at, least, most int }
