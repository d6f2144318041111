package kv_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/kv"
)

// A toy is a Memory in which the KV state of a token is the token itself. It allocates cells like
// llama.cpp, and makes some calls fail.
type toy struct {
	whole  bool
	piece  int
	cells  []cell
	head   int           // start of the search for an empty cell
	at     map[int][]int // by sequence: its cells
	calls  int
	faults int // one in this number of calls fails; 0 means none
	wrong  []string
}

type cell struct {
	token kv.Token
	users int // number of sequences that share the cell
}

var errToy = errors.New("no memory")

func newToy(size int) *toy { return &toy{cells: make([]cell, size), at: make(map[int][]int)} }

func (m *toy) fails() bool {
	m.calls++
	return m.faults > 0 && m.calls%m.faults == 0
}

func (m *toy) complain(format string, args ...any) {
	m.wrong = append(m.wrong, fmt.Sprintf(format, args...))
}

// used returns the number of occupied cells, and as top the number of the cell behind the last of
// them.
func (m *toy) used() (used, top int) {
	for i, c := range m.cells {
		if c.users > 0 {
			used, top = used+1, i+1
		}
	}
	return used, top
}

// add appends tokens to a sequence. It reports false if there is no room.
func (m *toy) add(seq int, tokens []kv.Token) bool {
	used, _ := m.used()
	if m.head > used+2*len(tokens) {
		m.head = 0
	}
	var found []int
	for n := 0; n < len(m.cells) && len(found) < len(tokens); n++ {
		if i := (m.head + n) % len(m.cells); m.cells[i].users == 0 {
			found = append(found, i)
		}
	}
	if len(found) < len(tokens) {
		m.complain("no room for %d tokens", len(tokens))
		return false
	}
	for n, i := range found {
		m.cells[i] = cell{tokens[n], 1}
		m.head = i + 1
	}
	m.at[seq] = append(m.at[seq], found...)
	return true
}

// tokens returns the tokens of a sequence.
func (m *toy) tokens(seq int) (tokens []kv.Token) {
	for _, i := range m.at[seq] {
		tokens = append(tokens, m.cells[i].token)
	}
	return tokens
}

func (m *toy) Copy(src, dst, n int) error {
	have := m.at[src]
	if n < 1 || n > len(have) || len(m.at[dst]) > 0 || m.whole && n < len(have) {
		m.complain("copies %d of %d to a sequence of %d", n, len(have), len(m.at[dst]))
	}
	if m.fails() {
		return errToy
	}
	m.at[dst] = slices.Clone(have[:n])
	for _, i := range m.at[dst] {
		m.cells[i].users++
	}
	return nil
}

func (m *toy) Truncate(seq, n int) error {
	have := m.at[seq]
	if n < 0 || n > len(have) || m.whole && n > 0 && n < len(have) {
		m.complain("truncates %d to %d", len(have), n)
	}
	if n > 0 && m.fails() {
		return errToy
	}
	m.at[seq] = have[:n:n]
	for _, i := range have[n:] {
		if m.cells[i].users--; m.cells[i].users == 0 {
			m.head = min(m.head, i)
		}
	}
	return nil
}

func (m *toy) Save(seq, from, to int) ([]byte, error) {
	have := m.tokens(seq)
	if from < 0 || from >= to || to > len(have) || m.whole && (from > 0 || to < len(have)) || m.piece > 0 && to-from > m.piece {
		m.complain("saves %d to %d of %d", from, to, len(have))
	}
	if m.fails() {
		return nil, errToy
	}
	state := []byte{byte(from)}
	for _, tok := range have[from:to] {
		state = append(state, byte(tok))
	}
	return state, nil
}

func (m *toy) Load(seq int, state []byte) error {
	if int(state[0]) != len(m.at[seq])%256 {
		m.complain("loads a state from %d into a sequence of %d", state[0], len(m.at[seq]))
	}
	if m.fails() {
		return errToy
	}
	var tokens []kv.Token
	for _, b := range state[1:] {
		tokens = append(tokens, kv.Token(b))
	}
	if !m.add(seq, tokens) {
		return errToy
	}
	m.head = m.at[seq][len(m.at[seq])-len(tokens)]
	return nil
}

// check complains if the cells of a sequence are out of order, or if more cells are occupied than u
// counts. Without faults the two numbers must be equal.
func (m *toy) check(u kv.Usage) {
	for seq, cells := range m.at {
		if !m.whole && !slices.IsSorted(cells) {
			m.complain("sequence %d has cells %v", seq, cells)
		}
	}
	used, top := m.used()
	if all := u.Active + u.Retained + u.Dead; used != all && m.faults == 0 || used > all || top > all && !m.whole {
		m.complain("%d cells are occupied, up to %d; the books say %+v", used, top, u)
	}
}

// During random operations of several owners, the model's cache holds the tokens for which package
// kv accounts, in order. Each prefix comes from an earlier sequence of the same owner. Neither the
// cells in use nor the offloaded tokens exceed their limits.
func TestCacheLives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := kv.Options{
			Cells: rapid.IntRange(100, 600).Draw(t, "cells"), Sequences: rapid.IntRange(2, 6).Draw(t, "sequences"),
			Retain: true, Offloaded: rapid.IntRange(0, 500).Draw(t, "offloaded"), Whole: rapid.Bool().Draw(t, "whole"),
			Piece: rapid.SampledFrom([]int{0, 15}).Draw(t, "piece"),
		}
		m := newToy(o.Cells)
		m.whole, m.faults = o.Whole, rapid.SampledFrom([]int{0, 5, 11}).Draw(t, "faults")
		if !o.Whole {
			m.piece = o.Piece
		}
		c := kv.New(m, o)
		type sequence struct {
			*kv.Sequence
			owner  string
			tokens []kv.Token
		}
		var active []sequence
		shorten := func(all []sequence) { // removes tokens that were lost in slides
			for i := range all {
				if n := all[i].Len(); n < len(all[i].tokens) {
					if m.faults == 0 {
						t.Fatalf("sequence %d has %d of %d tokens left", all[i].ID(), n, len(all[i].tokens))
					}
					all[i].tokens = all[i].tokens[:n]
				}
			}
		}
		past := make(map[string][][]kv.Token) // by owner: the possible sources of a prefix
		pick := func(t *rapid.T) int {
			if len(active) == 0 {
				t.Skip("no active sequence")
			}
			return rapid.IntRange(0, len(active)-1).Draw(t, "sequence")
		}
		t.Repeat(map[string]func(*rapid.T){
			"start": func(t *rapid.T) {
				if len(active) == o.Sequences {
					t.Skip("no sequence is free")
				}
				owner := rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "owner")
				prompt := rapid.SliceOfN(rapid.Int32Range(0, 1), 2, 8).Draw(t, "prompt")
				if old := past[owner]; len(old) > 0 && rapid.Bool().Draw(t, "again") {
					prompt = append(slices.Clone(rapid.SampledFrom(old).Draw(t, "old")), prompt...)
				}
				p, _ := c.Lookup(owner, prompt)
				allocate := c.Allocate
				if rapid.Bool().Draw(t, "as empty") {
					allocate = c.AllocateAsEmpty
				}
				s, err := allocate(owner, p)
				if err != nil {
					t.Fatal(err)
				}
				n := s.Len()
				known := slices.ContainsFunc(past[owner], func(old []kv.Token) bool { return len(old) >= n && slices.Equal(old[:n], prompt[:n]) })
				if n > p.N || n > 0 && (owner == "" || !known) {
					t.Fatalf("%q begins with %d tokens, %d were found", owner, n, p.N)
				}
				active = append(active, sequence{s, owner, slices.Clone(prompt[:n])})
			},
			"append": func(t *rapid.T) {
				i := pick(t)
				more := rapid.SliceOfN(rapid.Int32Range(0, 1), 1, 150).Draw(t, "tokens")
				if c.Reserve(len(more)) != nil {
					if u := c.Usage(); u.Active+len(more) <= o.Cells {
						t.Fatalf("no room for %d tokens: %+v", len(more), u)
					}
					t.Skip("no room")
				}
				s := &active[i]
				shorten(active)
				m.add(s.ID(), more)
				c.Append(s.Sequence, more)
				s.tokens = append(s.tokens, more...)
				past[s.owner] = append(past[s.owner], slices.Clone(s.tokens))
			},
			"roll back": func(t *rapid.T) {
				s := &active[pick(t)]
				if o.Whole {
					t.Skip("no part can be dropped")
				}
				if c.Reserve(1) != nil {
					t.Skip("no room")
				}
				shorten(active)
				m.add(s.ID(), []kv.Token{7})
				for c.Rollback(s.Sequence) != nil { // some calls fail
				}
			},
			"end": func(t *rapid.T) {
				i := pick(t)
				end := c.Free
				if rapid.Bool().Draw(t, "retain") {
					end = func(s *kv.Sequence) error { return c.Retain(s, false) }
				}
				if err := end(active[i].Sequence); err != nil {
					t.Fatal(err)
				}
				active = slices.Delete(active, i, i+1)
			},
			"offload": func(t *rapid.T) { c.Offload(rapid.Bool().Draw(t, "idle")) },
			"slide": func(t *rapid.T) {
				c.Slide()
				shorten(active)
				if dead, cost := c.Dead(); dead != 0 || cost != 0 {
					t.Fatalf("%d dead cells after a slide, a slide would copy %d", dead, cost)
				}
			},
			"": func(t *rapid.T) {
				shorten(active)
				m.check(c.Usage())
				for _, s := range active {
					has := m.tokens(s.ID())
					if m.faults > 0 { // the next Reserve drops surplus tokens
						has = has[:min(len(has), len(s.tokens))]
					}
					if s.Len() != len(s.tokens) || !slices.Equal(has, s.tokens) {
						t.Fatalf("sequence %d has %v, want %v", s.ID(), m.tokens(s.ID()), s.tokens)
					}
				}
				if u := c.Usage(); u.Active+u.Retained+u.Dead > o.Cells || u.Offloaded > o.Offloaded || u.Offloaded < 0 {
					t.Fatalf("usage %+v of %+v", u, o)
				}
				if len(m.wrong) > 0 {
					t.Fatal(m.wrong)
				}
			},
		})
		for _, s := range active {
			if err := c.Free(s.Sequence); err != nil {
				t.Fatal(err)
			}
		}
		c.Clear()
		for seq, have := range m.at {
			if len(have) > 0 {
				t.Fatalf("sequence %d still has %d tokens", seq, len(have))
			}
		}
		if u := c.Usage(); u != (kv.Usage{Slides: u.Slides, Slid: u.Slid, Dead: u.Dead}) || u.Dead > 0 && m.faults == 0 {
			t.Fatalf("usage in the end %+v", u)
		}
	})
}

// Lookup finds the longest prefix and the prefix with the most fresh tokens, which may come from two
// sequences. A sequence has the fresh tokens of its prefix, and no more after an append.
func TestFresh(t *testing.T) {
	m := newToy(100)
	c := kv.New(m, kv.Options{Cells: 100, Sequences: 5, Retain: true, Offloaded: 100})
	add := func(fresh int, tokens ...kv.Token) {
		t.Helper()
		s, err := c.AllocateAsEmpty("a", kv.Prefix{})
		if err != nil || c.Reserve(len(tokens)) != nil {
			t.Fatal(err)
		}
		m.add(s.ID(), tokens)
		c.Append(s, tokens)
		if !c.Alone(s) {
			t.Error("a lone sequence counts as one beside others")
		}
		s.SetFresh(fresh)
		if err := c.Retain(s, false); err != nil {
			t.Fatal(err)
		}
	}
	add(0, 1, 2, 3, 4, 5)
	add(3, 1, 2, 3, 4, 6)
	add(2, 1, 2, 3, 7)
	for _, test := range []struct {
		prompt                     []kv.Token
		longest, fresh, freshestOf int
	}{
		{[]kv.Token{1, 2, 3, 4, 5, 9}, 5, 0, 3},
		{[]kv.Token{1, 2, 3, 4, 8, 9}, 4, 3, 3}, // of two prefixes of equal length, the one with fresh tokens
		{[]kv.Token{1, 2, 9}, 2, 2, 2},
		{[]kv.Token{8, 9}, 0, 0, 0},
	} {
		longest, freshest := c.Lookup("a", test.prompt)
		if longest.N != test.longest || longest.Fresh != test.fresh || freshest.Fresh != test.freshestOf {
			t.Errorf("%v: %+v, %+v", test.prompt, longest, freshest)
		}
	}
	_, freshest := c.Lookup("a", []kv.Token{1, 2, 3, 4, 5, 9})
	s, err := c.AllocateAsEmpty("a", freshest.First(2))
	if err != nil || s.Len() != 2 || s.Fresh() != 2 || !c.Alone(s) {
		t.Fatalf("%+v, %v", s, err)
	}
	if err := c.Reserve(1); err != nil {
		t.Fatal(err)
	}
	m.add(s.ID(), []kv.Token{9})
	c.Append(s, []kv.Token{9})
	if s.Fresh() != 2 {
		t.Errorf("after an append %d tokens are fresh, want 2", s.Fresh())
	}
	if _, err := c.Allocate("a", kv.Prefix{}); err != nil || c.Alone(s) {
		t.Errorf("beside another sequence: %v, %v", c.Alone(s), err)
	}
}

// A pinned sequence is a prefix for all owners, and is never evicted.
func TestPinned(t *testing.T) {
	m := newToy(100)
	c := kv.New(m, kv.Options{Cells: 100, Sequences: 3, Retain: true, Offloaded: 100})
	prompt := []kv.Token{1, 2, 3, 4, 5}
	add := func(owner string, tokens []kv.Token) *kv.Sequence {
		t.Helper()
		p, _ := c.Lookup(owner, tokens)
		s, err := c.AllocateAsEmpty(owner, p)
		if err != nil {
			t.Fatal(err)
		}
		rest := tokens[s.Len():]
		if err := c.Reserve(len(rest)); err != nil {
			t.Fatal(err)
		}
		m.add(s.ID(), rest)
		c.Append(s, rest)
		return s
	}
	if err := c.Retain(add("", prompt), true); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c.Offload(true)
	}
	for _, owner := range []string{"", "a", "b"} {
		if p, _ := c.Lookup(owner, append(prompt, 6, 7)); p.N != 5 || p.Shared != 5 {
			t.Errorf("%q: %+v", owner, p)
		}
	}
	for i := range 4 {
		if err := c.Retain(add("a", append(prompt, kv.Token(10+i))), false); err != nil {
			t.Fatal(err)
		}
	}
	if n, tokens := c.Pinned(); n != 1 || tokens != 5 {
		t.Errorf("pinned %d sequences of %d tokens", n, tokens)
	}
	if u := c.Usage(); u.Active != 5 || u.Retained != 1 || u.Offloaded != 3 || u.Slides != 0 {
		t.Errorf("usage %+v", u)
	}
}

// A sequence that starts while no other one is active gets the same cells as in an empty cache,
// whatever happened in the cache before: its prefix is on the first cells, and no cell behind them
// is occupied, except pinned ones.
func TestLoneSequence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const cells = 400
		m := newToy(cells)
		c := kv.New(m, kv.Options{Cells: cells, Sequences: 8, Retain: true, Offloaded: cells})
		grow := func(s *kv.Sequence, n int) {
			tokens := make([]kv.Token, n)
			for i := range tokens {
				tokens[i] = kv.Token((s.Len() + i) % 100)
			}
			if err := c.Reserve(n); err != nil {
				t.Fatal(err)
			}
			m.add(s.ID(), tokens)
			c.Append(s, tokens)
		}
		prompt := make([]kv.Token, 120)
		for i := range prompt {
			prompt[i] = kv.Token(i % 100)
		}
		pinned := rapid.IntRange(0, 20).Draw(t, "pinned")
		if s, err := c.Allocate("", kv.Prefix{}); err != nil {
			t.Fatal(err)
		} else if grow(s, pinned); c.Retain(s, true) != nil {
			t.Fatal("no pin")
		}
		for range rapid.IntRange(1, 3).Draw(t, "rounds") {
			var active []*kv.Sequence
			for range rapid.IntRange(1, 3).Draw(t, "active") {
				p, _ := c.Lookup("a", prompt[:rapid.IntRange(pinned+1, 120).Draw(t, "prompt")])
				s, err := c.Allocate("a", p)
				if err != nil {
					t.Fatal(err)
				}
				active = append(active, s)
			}
			for range 3 {
				for _, s := range active {
					grow(s, rapid.IntRange(1, 15).Draw(t, "tokens"))
				}
			}
			for _, s := range active {
				if err := c.Retain(s, false); err != nil {
					t.Fatal(err)
				}
			}
			for range rapid.IntRange(0, 4).Draw(t, "offloads") {
				c.Offload(true)
			}
		}
		p, _ := c.Lookup("a", prompt)
		s, err := c.AllocateAsEmpty("a", p)
		if err != nil {
			t.Fatal(err)
		}
		if s.Len() != p.N {
			t.Fatalf("%d of %d tokens", s.Len(), p.N)
		}
		for k, cell := range m.at[s.ID()] {
			if cell != k {
				t.Fatalf("token %d is in cell %d", k, cell)
			}
		}
		if used, top := m.used(); used != max(p.N, pinned) || top != used {
			t.Fatalf("%d cells are occupied, up to %d, by %d tokens", used, top, p.N)
		}
	})
}
