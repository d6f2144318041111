package automaton

import (
	"errors"
	"slices"
)

// Bounds of an [Automaton].
const (
	MaxItems  = 4096
	MaxStates = 65536
	maxBytes  = 32 << 20 // of all states
)

// ErrItems is the error for a text that could continue in more than [MaxItems] ways.
var ErrItems = errors.New("the text could go on in more than 4096 ways: too many alternatives begin alike")

// A State is an index of a state of an [Automaton]. It stays valid until Renew.
type State int32

// Dead is the state of a text that no longer fits.
const Dead State = -1

// An item is a position in the grammar (see the package comment).
type item struct {
	node, stack, count int32
	marks              Mark
}

// A frame is a stack of return nodes with their counts: the top node, and the index of the frame below
// it. Frame 0 is the empty stack.
type frame struct {
	node, count, parent int32
	depth               int32 // levels of the whole stack
	cost                int32 // smallest number of bytes to the end of the whole stack
}

type state struct {
	first, items int32
	hash         uint32
	plain        int32
	cost         int32
	like         int32 // result of Alike; 0 if unknown
	near         int32 // (symbol of Nearest + 2) << 2, and the low bits alone and notAlone; 0 if unknown
	marks, sure  Mark
	end          bool // the text may end here
	only         bool // nothing but plain characters, up to the number plain, and the end of the string can come next
	tokens       bool // a token by its id may come
	several      bool // several ways may take plain characters, and Plain has not computed how many they take together
}

// An Automaton holds the states of a [Grammar] that have been needed so far. Only one goroutine at a
// time may use it and its cursors.
type Automaton struct {
	g       *Grammar
	frames  []frame
	items   []item
	states  []state
	next    [][]State // for each state and class, the next state; 0 means unknown, and state 0 is unused. See row
	classes int

	frameTable, stateTable []int32
	cursors                []*Cursor
	renewed                int
	err                    error

	// Scratch space for closures.
	work, out []item
	seen      itemSet
}

// rowBits is the binary logarithm of the number of states in one part of next. Copying a single
// slice when it grows would take milliseconds in the middle of a mask.
const rowBits = 6

// row returns the transitions of a state.
func (a *Automaton) row(s State) []State {
	return a.next[s>>rowBits][int(s&(1<<rowBits-1))*a.classes:][:a.classes]
}

// New returns the automaton of a grammar.
func New(g *Grammar) *Automaton {
	a := &Automaton{g: g, classes: len(g.bytes)}
	a.reset()
	return a
}

func (a *Automaton) reset() {
	a.frames = append(a.frames[:0], frame{})
	a.items = a.items[:0]
	a.states = append(a.states[:0], state{})
	a.next = append(a.next[:0], make([]State, a.classes<<rowBits))
	a.frameTable = make([]int32, 64)
	a.stateTable = make([]int32, 64)
}

// Grammar returns the grammar of the automaton.
func (a *Automaton) Grammar() *Grammar { return a.g }

// Bytes returns the number of bytes that the states occupy.
func (a *Automaton) Bytes() int {
	return cap(a.frames)*20 + cap(a.items)*16 + cap(a.states)*40 + len(a.next)*a.classes*4<<rowBits + 4*(len(a.frameTable)+len(a.stateTable))
}

// States returns the number of states so far.
func (a *Automaton) States() int { return len(a.states) - 1 }

// Err returns the first error of a step, [ErrItems], or nil. Such a step leads to [Dead].
func (a *Automaton) Err() error { return a.err }

// Start returns the state before the first byte.
func (a *Automaton) Start() State {
	a.begin()
	a.push(a.g.start, 0, 0, 0)
	return a.intern()
}

// without returns state s without the ways that passed a mark of m at the byte before it, or [Dead]
// if no way is left.
func (a *Automaton) without(s State, m Mark) State {
	st := a.states[s]
	a.begin()
	end := false
	for _, it := range a.items[st.first : st.first+st.items] {
		if it.marks&m == 0 {
			a.out = append(a.out, it)
			end = end || a.g.nodes[it.node].kind == kindEnd
		}
	}
	if len(a.out) == 0 {
		return Dead
	}
	return a.stateOf(end)
}

// MayEnd reports whether the text may end in a state.
func (a *Automaton) MayEnd(s State) bool { return s > 0 && a.states[s].end }

// Cost returns the smallest number of bytes from a state to the end of the text. A token by its id
// counts as one byte. With guards the result is a lower bound.
func (a *Automaton) Cost(s State) int { return int(a.states[s].cost) }

// Marks returns the marks that at least one way has passed at the byte before a state.
func (a *Automaton) Marks(s State) Mark { return a.states[s].marks }

// SureMarks returns the marks that every way has passed at the byte before a state.
func (a *Automaton) SureMarks(s State) Mark { return a.states[s].sure }

// Guarding reports whether a way has passed a mark of a guard at the byte before a state.
func (a *Automaton) Guarding(s State) bool { return a.states[s].marks&guards != 0 }

// Full reports whether the automaton has reached its bounds; Renew should then be called.
func (a *Automaton) Full() bool { return len(a.states) > MaxStates || a.Bytes() > maxBytes }

// Renewed returns the number of calls of Renew. States from before and after a Renew must not be
// mixed.
func (a *Automaton) Renewed() int { return a.renewed }

// Renew drops all states except those of open cursors and the states in live. It replaces the elements
// of live by their new numbers.
func (a *Automaton) Renew(live []State) {
	old := Automaton{g: a.g, frames: a.frames, items: a.items, states: a.states}
	a.renewed++
	a.frames, a.items, a.states, a.next = nil, nil, nil, nil
	a.reset()
	moved := make(map[int32]int32)
	var move func(stack int32) int32
	move = func(stack int32) int32 {
		if stack == 0 {
			return 0
		}
		if to, ok := moved[stack]; ok {
			return to
		}
		f := &old.frames[stack]
		to := a.frame(f.node, f.count, move(f.parent), f.depth-old.frames[f.parent].depth)
		moved[stack] = to
		return to
	}
	renew := func(s State) State {
		if s <= 0 {
			return s
		}
		st := &old.states[s]
		a.out = a.out[:0]
		for _, it := range old.items[st.first : st.first+st.items] {
			it.stack = move(it.stack)
			a.out = append(a.out, it)
		}
		slices.SortFunc(a.out, compareItems)
		return a.stateOf(st.end)
	}
	for i, s := range live {
		live[i] = renew(s)
	}
	for _, c := range a.cursors {
		c.state = renew(c.state)
	}
}
