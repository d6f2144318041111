package automaton

import (
	"math"
	"slices"
)

// Plain returns the number n of arbitrary plain characters that a state surely takes; see the
// function [Plain]. If only is true, the state takes nothing but the end of the string and up to n
// plain characters before it.
func (a *Automaton) Plain(s State) (n int, only bool) {
	if st := &a.states[s]; st.several {
		st.several = false
		if n := a.together(s); n > a.states[s].plain {
			a.states[s].plain = n
		}
	}
	return int(a.states[s].plain), a.states[s].only
}

// mostTogether bounds the states that together looks at, behind whole characters.
const mostTogether = 32

// A midway is a state within a character.
type midway struct {
	state State
	text  int32
	line  uint8 // bytes of an end of a line so far: U+2028 and U+2029 are E2 80 A8 and E2 80 A9
}

// together returns how many plain characters the ways of a state surely take together: where one of
// them ends, such as that of names without a pattern, another one may continue. To stay cheap, it
// stops counting at mostTogether states.
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

// plainBytes calls yield with the place behind each byte that continues a plain character. It
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
