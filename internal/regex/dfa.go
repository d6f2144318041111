// Package regex compiles the regular expressions of ECMA 262, with the flag u, without look-around,
// back-references and word boundaries, into deterministic automata over characters. It combines
// such automata by intersection, union, difference and complement, builds automata for lists of
// words, ranges of lengths and sets of numbers, and converts all of them to automata over bytes for
// package automaton, as raw text or as the inside of a string of JSON or Python. It is independent of
// schemas and vocabularies, and does not match the text of answers itself.
//
// Automata may grow exponentially, so the operations that build them take a budget. Once the budget is
// exceeded, results are meaningless; the caller must check the budget's error once, at the end.
package regex

import (
	"math"
	"sort"
	"unicode/utf8"

	"github.com/inferd-go/inferd/internal/automaton"
)

// Budget bounds the operations of this package.
type Budget = automaton.Budget

// A DFA is a language over characters: Unicode scalar values. It is immutable. Its states
// are trimmed: each can be reached, and reaches an accepting one. The zero DFA is the empty
// language.
type DFA struct {
	alphabet
	next   []int32 // for each state and class, the next state; -1 if there is none
	accept []bool  // state 0 is the start
}

// An alphabet divides the characters into classes that a DFA treats alike.
type alphabet struct {
	starts  []rune  // first character of each range; sorted, beginning with 0
	class   []int32 // of each range
	classes int
}

const (
	surrogates    = 0xd800
	surrogatesEnd = 0xe000
	maxRune       = utf8.MaxRune
)

// classOf returns the class of a character.
func (a *alphabet) classOf(r rune) int32 {
	i := sort.Search(len(a.starts), func(i int) bool { return a.starts[i] > r }) - 1
	return a.class[i]
}

// plain is the alphabet with one class.
var plain = alphabet{starts: []rune{0}, class: []int32{0}, classes: 1}

// Any returns the language of all strings.
func Any() *DFA { return &DFA{alphabet: plain, next: []int32{0}, accept: []bool{true}} }

// None returns the language without strings.
func None() *DFA { return &DFA{alphabet: plain} }

// Empty reports whether the language has no string.
func (d *DFA) Empty() bool { return len(d.accept) == 0 }

// States returns the number of states.
func (d *DFA) States() int { return len(d.accept) }

// size returns the number of bytes that the DFA occupies.
func (d *DFA) size() int { return len(d.next)*4 + len(d.accept) + len(d.starts)*8 }

// Match reports whether a string is in the language.
func (d *DFA) Match(s string) bool {
	if d.Empty() {
		return false
	}
	state := int32(0)
	for _, r := range s {
		if state = d.next[int(state)*d.classes+int(d.classOf(r))]; state < 0 {
			return false
		}
	}
	return d.accept[state]
}

// Lengths returns the language of the strings of least to most characters; most < 0 means no
// maximum.
func Lengths(b *Budget, least, most int) *DFA {
	n := max(most, least)
	if n > automaton.MaxCount || !b.Spend(5*(n+1)) {
		b.Spend(math.MaxInt32)
		return None()
	}
	d := &DFA{alphabet: plain}
	for i := range n + 1 {
		d.next = append(d.next, int32(i+1))
		d.accept = append(d.accept, i >= least)
	}
	d.next[n] = -1
	if most < 0 {
		d.next[n] = int32(n)
	} else if least > most {
		return None()
	}
	return d
}

// Count returns the number of strings in the language, or limit if there are more.
func (d *DFA) Count(limit int) int {
	n := len(d.accept)
	if n == 0 {
		return 0
	}
	sizes := d.classSizes()
	counts := make([]int, n)
	state := make([]int8, n)
	var visit func(s int32) int
	visit = func(s int32) int {
		switch state[s] {
		case 1: // a loop, and every state reaches an accepting one
			return limit
		case 2:
			return counts[s]
		}
		state[s] = 1
		sum := 0
		if d.accept[s] {
			sum = 1
		}
		for c := range d.classes {
			if to := d.next[int(s)*d.classes+c]; to >= 0 && sizes[c] > 0 {
				k := visit(to)
				if k >= (limit+sizes[c]-1)/sizes[c] {
					sum = limit
				} else {
					sum = min(limit, sum+k*sizes[c])
				}
			}
		}
		counts[s], state[s] = sum, 2
		return sum
	}
	return min(visit(0), limit)
}

// classSizes returns the number of characters of each class.
func (d *DFA) classSizes() []int {
	sizes := make([]int, d.classes)
	d.ranges(func(lo, hi rune, class int32) { sizes[class] += int(hi - lo + 1) })
	return sizes
}

// ranges calls yield for each range of characters of one class; surrogates are not characters.
func (a *alphabet) ranges(yield func(lo, hi rune, class int32)) {
	for i, lo := range a.starts {
		hi := rune(maxRune)
		if i+1 < len(a.starts) {
			hi = a.starts[i+1] - 1
		}
		if lo < surrogates {
			yield(lo, min(hi, surrogates-1), a.class[i])
		}
		if hi >= surrogatesEnd {
			yield(max(lo, surrogatesEnd), hi, a.class[i])
		}
	}
}

// Longest returns the number of characters of the longest string of the language: -1 if there is no
// longest one, 0 if the language is empty.
func (d *DFA) Longest() int {
	n := len(d.accept)
	if n == 0 {
		return 0
	}
	longest := make([]int, n) // number of characters to an end, plus 1; 0 if unknown, -1 if under way
	var visit func(s int32) int
	visit = func(s int32) int {
		if longest[s] != 0 {
			return longest[s]
		}
		longest[s] = -1
		most := 1 // one more than the number of characters
		for _, to := range d.next[int(s)*d.classes : (int(s)+1)*d.classes] {
			if to < 0 {
				continue
			}
			k := visit(to)
			if k < 0 {
				return -1 // a loop, and every state reaches an end
			}
			most = max(most, k+1)
		}
		longest[s] = most
		return most
	}
	return max(visit(0)-1, -1)
}

// Finite reports whether the language is finite.
func (d *DFA) Finite() bool { return d.Count(math.MaxInt32) < math.MaxInt32 }
