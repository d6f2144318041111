package automaton

import (
	"math"
	"slices"
)

// Plain returns a number n such that a state takes any n plain characters (see the function [Plain]).
// It need not be the largest such number. If only is true, the state takes nothing but up to n plain
// characters and the end of the string.
func (a *Automaton) Plain(s State) (n int, only bool) {
	if st := &a.states[s]; st.several {
		st.several = false
		if n := a.together(s); n > a.states[s].plain {
			a.states[s].plain = n
		}
	}
	return int(a.states[s].plain), a.states[s].only
}

// mostTogether is the maximum number of states between characters that together looks at.
const mostTogether = 32

// A midway is a state of the automaton and a state within a character.
type midway struct {
	state State
	text  int32
	line  uint8 // bytes so far of a line separator: U+2028 and U+2029 are E2 80 A8 and E2 80 A9
}

// together returns a number n such that a state takes any n plain characters by all of its ways
// together: where one way refuses a character, another one may take it. An object with
// patternProperties has such ways for its names. To stay cheap, together stops counting at mostTogether
// states.
func (a *Automaton) together(s State) (n int32) {
	layer, seen := []State{s}, []State{s}
	var within []midway
	for ; len(layer) > 0; n++ {
		var next []State
		for _, from := range layer {
			within = append(within[:0], midway{from, whole, 0})
			for i := 0; i < len(within); i++ {
				fits := a.plainBytes(within[i], func(to midway) {
					switch {
					case to.text != whole:
						if !slices.Contains(within, to) {
							within = append(within, to)
						}
					case a.states[to.state].plain < math.MaxInt32 && !slices.Contains(seen, to.state):
						next, seen = append(next, to.state), append(seen, to.state)
					}
				})
				if !fits || len(seen) > mostTogether {
					return n
				}
			}
		}
		layer = next
	}
	return math.MaxInt32
}

// plainBytes calls yield with the midway after each byte that continues a plain character. It
// reports false at the first such byte that does not fit.
func (a *Automaton) plainBytes(from midway, yield func(to midway)) bool {
	last := midway{Dead, -1, 0}
	for _, e := range textEdges()[from.text] {
		if e.To == escape {
			continue
		}
		for b := int(e.Lo); b <= int(e.Hi); b++ {
			if b == 0x7f || from.line == 2 && b&^1 == 0xa8 { // not plain
				continue
			}
			to := midway{a.Next(from.state, byte(b)), e.To, 0}
			switch {
			case from.text == whole && b == 0xe2:
				to.line = 1
			case from.line == 1 && b == 0x80:
				to.line = 2
			}
			if to.state == Dead {
				return false
			}
			if to != last {
				yield(to)
				last = to
			}
		}
	}
	return true
}
