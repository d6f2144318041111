// Package gbnf reads grammars in llama.cpp's notation. [Compile] makes a grammar for package
// automaton, and reports the position of an error. The package does not depend on vocabularies: its
// caller looks up the tokens that a grammar names.
package gbnf

import "fmt"

// maxDepth bounds nested parentheses.
const maxDepth = 100

// An Error is an error in a grammar, with its position.
type Error struct {
	Line, Column int // from 1; in bytes
	Problem      string
}

func (e *Error) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Problem)
}

// A rule is the definition of a name.
type rule struct {
	at    int  // position of its last definition, or of its first use if it is not defined
	known bool // it has been defined
	body  []sequence

	state    state
	nullable bool // it matches the empty text; valid once state is seen
}

// state is the progress of the analysis of a rule.
type state int

const (
	unseen state = iota
	underWay
	seen
)

type sequence []element

// An element is a part of a sequence, with the repetition operators after it.
type element struct {
	at      int
	literal []charRange  // the characters of a literal
	class   []charRange  // the members of a class
	negated bool         // it takes the characters not in class, or any token except token
	token   string       // in angle brackets
	repeats []repetition // operators, from the inside to the outside
	rule    string       // name of the rule that it refers to
	group   []sequence   // in parentheses

	optional bool // repeated, with a minimum of 0
}

// A repetition is an operator after an element. If most is math.MaxInt, there is no maximum.
type repetition struct{ at, least, most int }
