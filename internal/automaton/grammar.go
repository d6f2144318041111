package automaton

import (
	"errors"
	"math"
)

// Errors of [Builder.Build].
var (
	ErrLeftRecursion = errors.New("a rule begins with itself")
	ErrNothing       = errors.New("no text satisfies it")
)

// Unlimited is the maximum of a repetition that has none.
const Unlimited = math.MaxInt32

// MaxCount is the largest minimum or maximum of a repetition. A larger maximum counts as Unlimited; no
// text reaches a larger minimum.
const MaxCount = 1<<27 - 1

// never is the cost of a node without a way to an end.
const never = 1 << 29 // the sum of two fits into an int32

// A Node is a node of a grammar under construction.
type Node int32

// A Rule is a part of a grammar that is called by nodes.
type Rule int32

// A Mark is a set of marks, a bit each. Guards, decisions, and parsers of the text react to them.
type Mark uint32

// Marks with a meaning in this package; see the package comment. A text passes a mark with the byte
// before the mark in the grammar, or at its beginning. At End, the spelling has ended before that
// byte. At Begin, the next spelling begins after that byte, without leading white space.
const (
	Open   Mark = 1 << iota // a scope begins: no spelling is known in it
	Begin                   // the next spelling begins
	End                     // the spelling has ended before this byte
	Close                   // the scope ends
	Commit                  // ways that do not pass it at this byte end; see the package comment
	Forbid                  // the byte before it is refused
	Outer                   // all scopes but the outermost one end
	_
	User // the first mark without a meaning here; 24 are free
)

const (
	guards  = Open | Begin | End | Close | Outer
	decides = Commit | Forbid
)

type kind uint8

const (
	kindEnd    kind = iota
	kindSet         // a byte of set x
	kindDFA         // a run of DFA x
	kindText        // min to max characters of a JSON string
	kindToken       // token x
	kindOther       // any token but x
	kindAlt         // the y nodes from lists[x]
	kindCall        // rule x
	kindRepeat      // rule x, min to max times
	kindMark        // marks x
)

type node struct {
	kind     kind
	deep     bool // a call that counts as a level of depth
	x, y     int32
	min, max int32
	next     int32
}

// A Set is a set of bytes.
type Set [4]uint64

// Add puts the bytes from lo to hi into the set.
func (s *Set) Add(lo, hi byte) {
	for b := int(lo); b <= int(hi); b++ {
		s[b>>6] |= 1 << (b & 63)
	}
}

// Has reports whether a byte is in the set.
func (s *Set) Has(b byte) bool { return s[b>>6]>>(b&63)&1 != 0 }

// A Grammar is the immutable result of a [Builder].
type Grammar struct {
	nodes []node
	lists []int32
	rules []int32 // start nodes; -1 while undefined
	sets  []Set
	dfas  []*DFA
	depth int32

	dist    [][]int32 // of each DFA and state, the smallest number of bytes to its end
	cost    []int32   // of each node, the smallest number of bytes to the end of its rule
	height  []int32   // of each node, the smallest number of levels of calls to the end of its rule
	class   [256]uint8
	bytes   []byte // a byte of each class
	members []Set  // the bytes of each class
	start   int32
	guard   bool
	decide  bool // the grammar has marks that decide between ways
	size    int
}

// Size returns the number of bytes that the grammar occupies.
func (g *Grammar) Size() int { return g.size }

// Guarded reports whether the grammar has guards.
func (g *Grammar) Guarded() bool { return g.guard }
