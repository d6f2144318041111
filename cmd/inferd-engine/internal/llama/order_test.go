package llama_test

import (
	"encoding/binary"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/kv"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
)

// positions returns the positions of a sequence's tokens, in the order of their cells. It reads them
// from a saved state, which begins with 8 bytes, the number of streams and the number of cells, and
// then has, for each cell, its position, the number of its sequences, and their numbers.
func positions(t *rapid.T, state []byte) (all []int) {
	word := func(i int) int { return int(binary.LittleEndian.Uint32(state[8+4*i:])) }
	if word(0) != 1 {
		t.Fatalf("a state of %d streams", word(0))
	}
	for at := 2; len(all) < word(1); at += 2 + word(at+1) {
		all = append(all, word(at))
	}
	return all
}

// lastLogits decodes the last token of a prompt in a sequence that has the other tokens already. It
// returns the log probability of each token of the vocabulary as the next one.
func lastLogits(m *llama.Model, c *llama.Context, seq int, prompt []llama.Token) ([]float64, error) {
	i, err := read(c, seq, len(prompt)-1, prompt[len(prompt)-1:])
	if err != nil {
		return nil, err
	}
	p, err := m.Logprobs(c, i, 0, m.NTokens())
	all := make([]float64, m.NTokens())
	for _, one := range p.Top {
		all[one.ID] = one.Logprob
	}
	return all, err
}

// checkOrder fails the test unless a sequence has one cell for each token, in the order of the tokens.
func checkOrder(t *rapid.T, c *llama.Context, seq, tokens int) {
	if tokens == 0 {
		return
	}
	state, err := c.Save(seq, 0, tokens)
	if err != nil {
		t.Fatal(err)
	}
	all := positions(t, state)
	if len(all) != tokens {
		t.Fatalf("sequence %d has %d cells for %d tokens", seq, len(all), tokens)
	}
	for i, pos := range all {
		if pos != i {
			t.Fatalf("sequence %d has position %d in its cell %d of %d", seq, pos, i, tokens)
		}
	}
}

// During random operations on a real cache, the cells of each sequence are in the order of its tokens,
// no cell in use is overwritten, and the cache is full exactly when package kv counts no free cell. At
// the end a prompt has the same logits, bit for bit, as in an empty cache, wherever its cells are.
func TestOrder(t *testing.T) {
	for _, name := range []string{"whole", "sliding"} {
		t.Run(name, func(t *testing.T) {
			if _, ok := kinds()[name]; !ok {
				t.Skip("covered by the other kind of memory")
			}
			const cells, sequences = 512, 12
			m, c := loadFile(t, file(t, memories[name].write), llama.ContextOptions{NCtx: cells, NBatch: 512, NSeq: sequences, Threads: 1})
			prompt := text(77, 40)
			want := func() []float64 {
				_, err := read(c, 0, 0, prompt[:len(prompt)-1])
				got, more := lastLogits(m, c, 0, prompt)
				if err := errors.Join(err, more, c.ClearAll()); err != nil {
					t.Fatal(err)
				}
				return got
			}()
			rapid.Check(t, func(t *rapid.T) {
				if err := c.ClearAll(); err != nil {
					t.Fatal(err)
				}
				cache := kv.New(c, kv.Options{Cells: cells, Sequences: sequences, Retain: true, Offloaded: rapid.SampledFrom([]int{0, cells}).Draw(t, "offloaded"), Piece: c.Piece()})
				var active []*kv.Sequence
				tokens := make(map[*kv.Sequence][]kv.Token) // expected tokens
				pick := func(t *rapid.T) *kv.Sequence {
					if len(active) == 0 {
						t.Skip("no active sequence")
					}
					return rapid.SampledFrom(active).Draw(t, "sequence")
				}
				decode := func(t *rapid.T, more map[*kv.Sequence][]kv.Token) {
					n := 0
					for _, s := range active {
						n += len(more[s])
					}
					if cache.Reserve(n) != nil {
						t.Skip("no room")
					}
					c.Pad(cache.Room() - n)
					for _, s := range active {
						for i, tok := range more[s] {
							if err := c.Add(tok, s.Len()+i, s.ID(), i == len(more[s])-1); err != nil {
								t.Fatal(err)
							}
						}
					}
					if err := c.Decode(); err != nil {
						t.Fatal(err)
					}
					for _, s := range active {
						cache.Append(s, more[s])
						tokens[s] = append(tokens[s], more[s]...)
					}
				}
				old := [][]kv.Token{text(1, 100)}
				t.Repeat(map[string]func(*rapid.T){
					"start": func(t *rapid.T) {
						if len(active) == 4 {
							t.Skip("enough")
						}
						begin := rapid.SampledFrom(old).Draw(t, "old")
						begin = append(slices.Clone(begin[:rapid.IntRange(0, len(begin)).Draw(t, "begin")]), text(rapid.IntRange(2, 9).Draw(t, "seed"), 2)...)
						p, _ := cache.Lookup("a", begin)
						s, err := cache.AllocateAsEmpty("a", p)
						if err != nil {
							t.Fatal(err)
						}
						active = append(active, s)
						tokens[s] = slices.Clone(begin[:s.Len()])
						if len(active) == 1 && cache.Usage().Dead > 0 && cache.Usage().Offloaded > 0 {
							t.Fatalf("beside a lone sequence: %+v", cache.Usage())
						}
					},
					"prompt": func(t *rapid.T) {
						s := pick(t)
						n := rapid.IntRange(1, 150).Draw(t, "tokens")
						decode(t, map[*kv.Sequence][]kv.Token{s: text(rapid.IntRange(10, 19).Draw(t, "seed"), n)})
					},
					"step": func(t *rapid.T) {
						pick(t)
						more := make(map[*kv.Sequence][]kv.Token)
						for _, s := range active {
							more[s] = text(s.Len(), 1)
						}
						decode(t, more)
					},
					"roll back": func(t *rapid.T) {
						s := pick(t)
						if cache.Reserve(1) != nil {
							t.Skip("no room")
						}
						if _, err := read(c, s.ID(), s.Len(), text(5, 1)); err != nil {
							t.Fatal(err)
						}
						if err := cache.Rollback(s); err != nil {
							t.Fatal(err)
						}
					},
					"end": func(t *rapid.T) {
						s := pick(t)
						end := cache.Free
						if rapid.Bool().Draw(t, "retain") {
							end = func(s *kv.Sequence) error { return cache.Retain(s, false) }
							old = append(old, tokens[s])
						}
						active = slices.DeleteFunc(active, func(a *kv.Sequence) bool { return a == s })
						if err := end(s); err != nil {
							t.Fatal(err)
						}
					},
					"offload": func(*rapid.T) { cache.Offload(true) },
					"slide":   func(*rapid.T) { cache.Slide() },
					"": func(t *rapid.T) {
						for _, s := range active {
							if s.Len() != len(tokens[s]) {
								t.Fatalf("sequence %d has %d tokens, want %d", s.ID(), s.Len(), len(tokens[s]))
							}
							checkOrder(t, c, s.ID(), s.Len())
						}
						if u := cache.Usage(); u.Active+u.Retained+u.Dead+cache.Room() != cells {
							t.Fatalf("usage %+v, room for %d", u, cache.Room())
						}
					},
				})
				for len(active) > 2 {
					if err := cache.Free(active[0]); err != nil {
						t.Fatal(err)
					}
					active = active[1:]
				}
				for _, slide := range []bool{false, true} {
					s, err := cache.Allocate("", kv.Prefix{})
					if err != nil {
						t.Fatal(err)
					}
					active = append(active, s)
					if cache.Reserve(len(prompt)) != nil {
						return
					}
					if _, err := read(c, s.ID(), 0, prompt[:len(prompt)-1]); err != nil {
						t.Fatal(err)
					}
					cache.Append(s, prompt[:len(prompt)-1])
					if slide {
						cache.Slide()
					}
					if got, err := lastLogits(m, c, s.ID(), prompt); err != nil || !slices.Equal(got, want) {
						t.Fatalf("other logits, after a slide %v: %v, %v", slide, got, err)
					}
					cache.Append(s, prompt[len(prompt)-1:])
					checkOrder(t, c, s.ID(), s.Len())
				}
				last := active[len(active)-1]
				rest := text(6, cells-cache.Usage().Active)
				if len(rest) == 0 || last.Len()+len(rest) > cells {
					return
				}
				decode(t, map[*kv.Sequence][]kv.Token{last: rest})
				checkOrder(t, c, last.ID(), last.Len())
				if err := c.Add(1, last.Len()%cells, last.ID(), false); err != nil {
					t.Fatal(err)
				}
				if err := c.Decode(); name == "whole" && !errors.Is(err, llama.ErrCacheFull) {
					t.Fatalf("one token more than there are cells: %v", err)
				}
			})
		})
	}
}

// In an exact context the logits behind a prompt are the same, bit for bit, however the prompt is
// divided into batches, and whatever other tokens the batches have.
func TestExact(t *testing.T) {
	for name, memory := range kinds() {
		t.Run(name, func(t *testing.T) {
			path := file(t, memory.write)
			m, err := llama.Load(path, llama.Options{Exact: true}, nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(m.Close)
			runtime.LockOSThread()
			t.Cleanup(runtime.UnlockOSThread)
			c, err := llama.NewContext(m, llama.ContextOptions{NCtx: 2048, NBatch: 512, NSeq: 4, Threads: 2, Exact: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			switch reason := c.Inexact(); {
			case reason == "":
			case memory.cuts:
				t.Fatal(reason)
			default: // a batch of one token cannot be padded with a second one
				t.Skip(reason)
			}
			n := 300
			if testing.Short() {
				n = 120
			}
			prompt := text(1, n)
			// in decodes the prompt in batches, and returns the log probabilities of the next token. Each
			// batch has tokens of a second sequence (others is their number), and then at most piece tokens
			// of the prompt.
			in := func(piece, others int) []float64 {
				t.Helper()
				if err := c.ClearAll(); err != nil {
					t.Fatal(err)
				}
				entry := 0
				for pos := 0; pos < len(prompt); pos += piece {
					for i, tok := range text(pos, others) {
						if err := c.Add(tok, pos/piece*others+i, 1, false); err != nil {
							t.Fatal(err)
						}
					}
					part := prompt[pos:min(pos+piece, len(prompt))]
					for i, tok := range part {
						if err := c.Add(tok, pos+i, 0, pos+i == len(prompt)-1); err != nil {
							t.Fatal(err)
						}
					}
					if err := c.Decode(); err != nil {
						t.Fatal(err)
					}
					entry = others + len(part) - 1
				}
				p, err := m.Logprobs(c, entry, 0, m.NTokens())
				if err != nil {
					t.Fatal(err)
				}
				all := make([]float64, m.NTokens())
				for _, one := range p.Top {
					all[one.ID] = one.Logprob
				}
				return all
			}
			want := in(n, 0)
			for _, try := range [][2]int{{7, 0}, {n - 1, 0}, {100, 30}, {1, 0}, {96, 3}, {n, 0}} {
				if piece := min(try[0], 512-try[1]); !slices.Equal(in(piece, try[1]), want) {
					t.Errorf("in pieces of %d beside %d other tokens the logits differ", piece, try[1])
				}
			}
		})
	}
}

// Inexact returns a reason for a context that was not made for exact logits, because its K and V have
// one type. The context can be used afterwards.
func TestInexact(t *testing.T) {
	_, c := load(t, "tiny")
	if reason := c.Inexact(); !strings.Contains(reason, "K and V in the same type") {
		t.Errorf("with K and V of one type: %q", reason)
	}
	if _, err := read(c, 0, 0, text(1, 10)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
