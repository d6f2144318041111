package chat

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// A nonce is a set of three random marks that are inserted into texts of clients, and found again in
// the rendered text.
type nonce struct {
	inside  string // cut here
	literal string // on both sides of text that is never parsed
	edge    string // cut here if it is inside a spelling
}

// newNonce returns marks of random private-use characters, which templates do not change.
func newNonce() nonce {
	for {
		n := nonce{draw(), draw(), draw()}
		if n.inside != n.literal && n.literal != n.edge && n.edge != n.inside {
			return n
		}
	}
}

// draw returns 120 random bits as private-use characters.
func draw() string {
	const first, count = 0xF0000, 1 << 15 // half of a private-use plane
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // it never fails
	var b strings.Builder
	for i := 0; i < len(raw); i += 2 {
		b.WriteRune(first + rune(binary.LittleEndian.Uint16(raw[i:])%count))
	}
	return b.String()
}

// occursIn reports whether text contains a mark.
func (n nonce) occursIn(text string) bool {
	return strings.Contains(text, n.inside) || strings.Contains(text, n.literal) || strings.Contains(text, n.edge)
}

// unescaped returns text with the marks restored that a template has written as JSON escapes.
func (n nonce) unescaped(text string) string {
	if !strings.Contains(text, `\ud`) {
		return text
	}
	for _, mark := range []string{n.inside, n.literal, n.edge} {
		var escaped strings.Builder
		for _, r := range mark {
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&escaped, `\u%04x\u%04x`, high, low)
		}
		text = strings.ReplaceAll(text, escaped.String(), mark)
	}
	return text
}

// strip returns text without marks.
func (n nonce) strip(text string) string {
	for _, mark := range []string{n.inside, n.literal, n.edge} {
		text = strings.ReplaceAll(text, mark, "")
	}
	return text
}

// specials are the spellings of special tokens.
type specials struct {
	forward  trie
	backward trie   // every spelling reversed
	all      string // joined by NULs
	longest  int    // bytes
	first    [256]bool
}

func index(spellings []string) specials {
	s := specials{forward: newTrie(), backward: newTrie(), all: strings.Join(spellings, "\x00")}
	for _, text := range spellings {
		if text == "" {
			continue
		}
		s.forward.add(text)
		s.backward.add(reversed(text))
		s.longest = max(s.longest, len(text))
		s.first[text[0]] = true
	}
	return s
}

// guard inserts a mark behind the first character of every spelling in text, overlapping ones
// included. A spelling of one character is put between literal marks instead. The beginning and the
// end of text get an edge mark if they could become part of a spelling.
func (s *specials) guard(text string, n nonce) string {
	head, tail := s.edges(text)
	var b strings.Builder
	done := 0 // bytes of text already in b
	mark := func(i int, mark string) {
		b.WriteString(text[done:i])
		b.WriteString(mark)
		done = i
	}
	for i := 0; i < len(text); i++ {
		if i == head || i == tail {
			mark(i, n.edge)
		}
		if !s.first[text[i]] || s.forward.match(text[i:]) == 0 {
			continue
		}
		_, size := utf8.DecodeRuneInString(text[i:])
		if s.forward.match(text[i:i+size]) == size {
			mark(i, n.literal)
			mark(i+size, n.literal)
		} else {
			mark(i+size, n.inside)
		}
		i += size - 1
	}
	if tail == len(text) {
		mark(tail, n.edge)
	}
	if b.Len() == 0 {
		return text
	}
	b.WriteString(text[done:])
	return b.String()
}

// edges returns the offsets at which text, without the surrounding white space that templates trim,
// begins and ends. head is -1 unless the trimmed text begins with the end of a spelling or lies inside
// one; tail is -1 unless it ends with the beginning of one. For a text inside a spelling head suffices.
func (s *specials) edges(text string) (head, tail int) {
	head, tail = -1, -1
	core := strings.TrimSpace(text)
	if core == "" {
		return head, tail
	}
	begin := strings.Index(text, core)
	middle := len(core) < s.longest && strings.Contains(s.all, core)
	if middle || s.backward.pending(reversed(core[:min(len(core), s.longest)])) {
		head = begin
	}
	if s.forward.pending(core[max(0, len(core)-s.longest):]) {
		tail = begin + len(core)
	}
	return head, tail
}

// cut splits rendered text into segments at the marks, and removes them. Text between two literal
// marks is not special.
func (s *specials) cut(text string, n nonce) []Segment {
	var all []Segment
	add := func(text string, special bool) {
		if text != "" {
			all = append(all, Segment{Text: text, Special: special})
		}
	}
	work := maxSweep
	for i, part := range strings.Split(text, n.literal) {
		for piece := range strings.SplitSeq(part, n.inside) {
			whole := strings.ReplaceAll(piece, n.edge, "")
			spans := sweep{specials: s, text: whole, work: &work}
			done, at := 0, 0
			for between := range strings.SplitSeq(piece, n.edge) {
				if spans.inSpelling(at) {
					add(whole[done:at], i%2 == 0)
					done = at
				}
				at += len(between)
			}
			add(whole[done:], i%2 == 0)
		}
	}
	return all
}

// maxSweep limits the bytes of one prompt that are compared with spellings, to about half a second
// of CPU time: spellings may be long, and a template may repeat a message millions of times.
const maxSweep = 10_000_000

// A sweep finds the spellings in a text from its beginning to its end.
type sweep struct {
	specials *specials
	text     string
	next     int  // first position not yet searched for a spelling
	reach    int  // end of the spellings that begin before next
	work     *int // remaining bytes to compare
}

// inSpelling reports whether text[at:] begins inside a spelling. Successive calls must have ascending at.
// Beyond the limit it reports true: an additional cut does no harm.
func (w *sweep) inSpelling(at int) bool {
	for w.next = max(w.next, at-w.specials.longest+1); w.next < at; w.next++ {
		if !w.specials.first[w.text[w.next]] {
			continue
		}
		if *w.work <= 0 {
			return true
		}
		length, compared := w.specials.forward.walk(w.text[w.next:])
		*w.work -= compared + 1
		w.reach = max(w.reach, w.next+length)
	}
	return w.reach > at
}

// A trie is a set of byte strings. The time of a search does not depend on the size of the
// set.
type trie struct {
	next map[int]int // by node<<8 | byte: the child; node 0 is the root
	ends []bool      // by node: whether a string ends there
}

func newTrie() trie { return trie{next: make(map[int]int), ends: make([]bool, 1)} }

func (t *trie) add(text string) {
	node := 0
	for i := range len(text) {
		key := node<<8 | int(text[i])
		next, ok := t.next[key]
		if !ok {
			next = len(t.ends)
			t.next[key] = next
			t.ends = append(t.ends, false)
		}
		node = next
	}
	t.ends[node] = true
}

// match returns the length of the longest string of the set that is a prefix of text, or 0.
func (t *trie) match(text string) int {
	longest, _ := t.walk(text)
	return longest
}

// walk is match; it also returns the number of compared bytes.
func (t *trie) walk(text string) (longest, compared int) {
	node := 0
	for compared < len(text) {
		next, ok := t.next[node<<8|int(text[compared])]
		if !ok {
			break
		}
		compared++
		if node = next; t.ends[node] {
			longest = compared
		}
	}
	return longest, compared
}

// pending reports whether a suffix of text is a prefix of a string of the set.
func (t *trie) pending(text string) bool {
	for begin := range len(text) {
		node, ok := 0, true
		for i := begin; i < len(text) && ok; i++ {
			node, ok = t.next[node<<8|int(text[i])]
		}
		if ok {
			return true
		}
	}
	return false
}

func reversed(text string) string {
	b := []byte(text)
	slices.Reverse(b)
	return string(b)
}
