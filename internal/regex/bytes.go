package regex

import (
	"math"
	"slices"

	"github.com/inferd-go/inferd/internal/automaton"
)

// Raw returns an automaton for the strings of the language in UTF-8.
func Raw(b *Budget, d *DFA) *automaton.DFA { return spell(b, d, raw) }

// Quoted returns an automaton for the strings of the language as the inside of a JSON string. Each
// character has only the spelling that [automaton.Builder.Text] allows.
func Quoted(b *Budget, d *DFA) *automaton.DFA { return spell(b, d, quoted) }

// A style is a way to spell characters. The constants below are the only styles.
type style uint8

const (
	raw      style = iota
	quoted         // the inside of a JSON string
	ascii          // the inside of a JSON string, with letters beyond ASCII escaped
	inSingle       // the inside of a string of Python between single quotation marks
	inDouble       // the inside of a string of Python between double quotation marks
)

// A span is a range of characters, or of their last bits, and the state after it.
type span struct {
	lo, hi, to int32
}

// A speller makes the states of an [automaton.DFA]: the states of the language, which are between
// characters, and further states within characters. Equal states within characters are made once.
type speller struct {
	b     *Budget
	edges [][]automaton.Edge
	table []int32         // hash table, with open addressing, of states within a character by their edges; holds numbers plus one
	made  int             // the number of these states
	free  map[int32]int32 // for a state to which all escaped characters lead, the state after the backslash
}

func spell(b *Budget, d *DFA, as style) *automaton.DFA {
	n := len(d.accept)
	s := &speller{b: b, edges: make([][]automaton.Edge, n), table: make([]int32, 64), free: make(map[int32]int32)}
	var ranges [][3]int32 // lo, hi, class
	d.ranges(func(lo, hi rune, class int32) { ranges = append(ranges, [3]int32{lo, hi, class}) })
	var spans []span
	for state := range n {
		spans = spans[:0]
		for _, r := range ranges {
			to := d.next[state*d.classes+int(r[2])]
			if k := len(spans); to < 0 {
				continue
			} else if k > 0 && spans[k-1].to == to && spans[k-1].hi+1 == r[0] {
				spans[k-1].hi = r[1]
			} else {
				spans = append(spans, span{r[0], r[1], to})
			}
		}
		if !b.Spend(0) {
			return &automaton.DFA{First: []int32{0}}
		}
		switch as {
		case ascii:
			s.edges[state] = s.asASCII(spans)
		case inSingle:
			s.edges[state] = s.asPython(spans, '\'', n <= maxUnseen)
		case inDouble:
			s.edges[state] = s.asPython(spans, '"', n <= maxUnseen)
		default:
			s.edges[state] = s.first(spans, as == quoted)
		}
	}
	out := &automaton.DFA{First: []int32{0}, Accept: make([]bool, len(s.edges)), Plain: make([]int32, len(s.edges))}
	copy(out.Accept, d.accept)
	if as == raw || as == quoted {
		copy(out.Plain, d.plain())
	}
	edges := 0
	for _, e := range s.edges {
		edges += len(e)
	}
	out.Edges, out.First = make([]automaton.Edge, 0, edges), slices.Grow(out.First, len(s.edges))
	for _, e := range s.edges {
		out.Edges = append(out.Edges, e...)
		out.First = append(out.First, int32(len(out.Edges)))
	}
	return out
}

// first returns the edges of a state between characters, in the style quoted or raw.
func (s *speller) first(spans []span, quoted bool) []automaton.Edge {
	edges := make([]automaton.Edge, 0, len(spans)+3)
	ascii := cut(spans, 0, 0x7f)
	for _, p := range ascii {
		for c := p.lo; c <= p.hi; {
			if quoted && escaped(c) {
				c++
				continue
			}
			last := c
			for last < p.hi && (!quoted || !escaped(last+1)) {
				last++
			}
			edges = append(edges, automaton.Edge{Lo: byte(c), Hi: byte(last), To: p.to})
			c = last + 1
		}
	}
	if quoted {
		if to := s.behindBackslash(ascii); to >= 0 {
			edges = append(edges, automaton.Edge{Lo: '\\', Hi: '\\', To: to})
			edges = sorted(edges)
		}
	}
	edges = append(edges, s.digits(cut(spans, 0x80, 0x7ff), 1, 0xc0)...)
	edges = append(edges, s.digits(cut(spans, 0x800, 0xffff), 2, 0xe0)...)
	return append(edges, s.digits(cut(spans, 0x10000, maxRune), 3, 0xf0)...)
}

// cut returns the parts of spans from lo to hi, both included.
func cut(spans []span, lo, hi int32) (out []span) {
	for _, p := range spans {
		if p.hi >= lo && p.lo <= hi {
			out = append(out, span{max(p.lo, lo), min(p.hi, hi), p.to})
		}
	}
	return out
}

// digits returns the edges for one byte of the characters in spans. The byte is base plus the upper
// bits of a character, and rest continuation bytes follow it.
func (s *speller) digits(spans []span, rest int, base byte) []automaton.Edge {
	var edges []automaton.Edge
	block := int32(1) << (6 * rest)
	for i := 0; i < len(spans); {
		digit := spans[i].lo / block
		low := digit * block
		if p := spans[i]; p.lo == low && p.hi >= low+block-1 {
			last := (p.hi+1)/block - 1
			edges = append(edges, automaton.Edge{Lo: base + byte(digit), Hi: base + byte(last), To: s.all(rest, p.to)})
			if spans[i].lo = (last + 1) * block; spans[i].lo > p.hi {
				i++
			}
			continue
		}
		var within []span
		for ; i < len(spans) && spans[i].lo < low+block; i++ {
			p := spans[i]
			within = append(within, span{p.lo - low, min(p.hi-low, block-1), p.to})
			if p.hi >= low+block {
				spans[i].lo = low + block
				break
			}
		}
		edges = append(edges, automaton.Edge{Lo: base + byte(digit), Hi: base + byte(digit), To: s.state(s.tail(within, rest))})
	}
	return edges
}

// tail returns the edges for the next byte of characters of which only rest continuation bytes are left.
func (s *speller) tail(spans []span, rest int) []automaton.Edge {
	if rest > 1 {
		return s.digits(spans, rest-1, 0x80)
	}
	edges := make([]automaton.Edge, len(spans))
	for i, p := range spans {
		edges[i] = automaton.Edge{Lo: 0x80 + byte(p.lo), Hi: 0x80 + byte(p.hi), To: p.to}
	}
	return edges
}

// all returns the state from which any rest continuation bytes lead to the state to.
func (s *speller) all(rest int, to int32) int32 {
	for range rest {
		to = s.state([]automaton.Edge{{Lo: 0x80, Hi: 0xbf, To: to}})
	}
	return to
}

// state returns the state with the given edges.
func (s *speller) state(edges []automaton.Edge) int32 {
	slot := s.slot(edges)
	if s.table[slot] != 0 {
		return s.table[slot] - 1
	}
	s.edges = append(s.edges, edges)
	i := int32(len(s.edges))
	s.table[slot] = i
	s.b.Spend(80 + 12*len(edges))
	if s.made++; 2*s.made > len(s.table) {
		old := s.table
		s.table = make([]int32, 4*len(old))
		for _, k := range old {
			if k != 0 {
				s.table[s.slot(s.edges[k-1])] = k
			}
		}
	}
	return i - 1
}

// slot returns the slot in the table of the state with the given edges, or a free slot for it.
func (s *speller) slot(edges []automaton.Edge) uint64 {
	h := uint64(len(edges))
	for _, e := range edges {
		h = mix(h, uint64(e.Lo)<<40|uint64(e.Hi)<<32|uint64(uint32(e.To)))
	}
	mask := uint64(len(s.table) - 1)
	slot := h & mask
	for s.table[slot] != 0 && !slices.Equal(s.edges[s.table[slot]-1], edges) {
		slot = (slot + 1) & mask
	}
	return slot
}

// short lists the characters that have a short escape, each with the letter of its escape.
var short = [...][2]int32{{'"', '"'}, {'\\', '\\'}, {'\b', 'b'}, {'\f', 'f'}, {'\n', 'n'}, {'\r', 'r'}, {'\t', 't'}}

// shortOf returns the letter of a character's short escape, or 0 if it has none.
func shortOf(c int32) byte {
	if i := slices.IndexFunc(short[:], func(e [2]int32) bool { return e[0] == c }); i >= 0 {
		return byte(short[i][1])
	}
	return 0
}

// escaped reports whether a character has an escape in a JSON string.
func escaped(c int32) bool { return c < 0x20 || c == '"' || c == '\\' }

// behindBackslash returns the state after a backslash, or -1 if no escaped character fits.
func (s *speller) behindBackslash(ascii []span) int32 {
	free := len(ascii) == 1 && ascii[0].lo == 0 && ascii[0].hi >= '\\'
	if free {
		if state, ok := s.free[ascii[0].to]; ok {
			return state
		}
	}
	escapes := s.escapes(ascii)
	if len(escapes) == 0 {
		return -1
	}
	state := s.state(escapes)
	if free {
		s.free[ascii[0].to] = state
	}
	return state
}

// escapes returns the edges after a backslash.
func (s *speller) escapes(spans []span) []automaton.Edge {
	var edges []automaton.Edge
	var rows [2][]automaton.Edge // after \u000 and \u001
	for _, p := range spans {
		for c := p.lo; c <= p.hi; c++ {
			if !escaped(c) {
				continue
			}
			if letter := shortOf(c); letter != 0 {
				edges = append(edges, automaton.Edge{Lo: letter, Hi: letter, To: p.to})
				continue
			}
			digit := hexDigits[c&15]
			rows[c>>4] = append(rows[c>>4], automaton.Edge{Lo: digit, Hi: digit, To: p.to})
		}
	}
	var digit []automaton.Edge
	for i, row := range rows {
		if len(row) > 0 {
			digit = append(digit, automaton.Edge{Lo: '0' + byte(i), Hi: '0' + byte(i), To: s.state(row)})
		}
	}
	if len(digit) > 0 {
		zero := s.state([]automaton.Edge{{Lo: '0', Hi: '0', To: s.state(digit)}})
		zero = s.state([]automaton.Edge{{Lo: '0', Hi: '0', To: zero}})
		edges = append(edges, automaton.Edge{Lo: 'u', Hi: 'u', To: zero})
	}
	return sorted(edges)
}

func sorted(edges []automaton.Edge) []automaton.Edge {
	slices.SortFunc(edges, func(x, y automaton.Edge) int { return int(x.Lo) - int(y.Lo) })
	return edges
}

// plain returns, for each state, the largest n such that the state takes any n plain characters: the
// distance to the nearest state that refuses one. It does not compute distances beyond maxPlain.
func (d *DFA) plain() []int32 {
	relevant := make([]bool, d.classes)
	d.ranges(func(lo, hi rune, class int32) {
		for r := lo; r <= hi && !relevant[class]; r++ {
			relevant[class] = automaton.Plain(r)
		}
	})
	n := len(d.accept)
	plain := slices.Repeat([]int32{math.MaxInt32}, n)
	for s := range n {
		for c, ok := range relevant {
			if ok && d.next[s*d.classes+c] < 0 {
				plain[s] = 0
			}
		}
	}
	changed := true
	for round := int32(0); changed && round < maxPlain; round++ {
		changed = false
		for s := range n {
			if plain[s] != math.MaxInt32 {
				continue
			}
			for c, ok := range relevant {
				if ok && plain[d.next[s*d.classes+c]] == round {
					plain[s], changed = round+1, true
					break
				}
			}
		}
	}
	if changed {
		for s := range plain {
			plain[s] = min(plain[s], maxPlain)
		}
	}
	return plain
}

// maxPlain is the maximum distance, in characters, that plain computes.
const maxPlain = 256
