package kv

import (
	"testing"

	"pgregory.net/rapid"
)

// Every cell below the top is held by a sequence. The cells of a sequence are strictly ascending. A
// cell is active exactly while an active sequence has a token on it.
func TestCells(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const context, sequences = 40, 5
		c := newCells(context, sequences)
		sink := func() {
			c.top = c.lastLive()
			for seq := range c.held {
				c.release(seq, c.heldBelow(seq, c.top))
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"grow": func(t *rapid.T) {
				seq := rapid.IntRange(0, sequences-1).Draw(t, "seq")
				if n := min(rapid.IntRange(1, 9).Draw(t, "n"), c.size()-c.top); n > 0 && !c.retained[seq] && c.live[seq] == len(c.held[seq]) {
					c.grow(seq, n)
				}
			},
			"copy": func(t *rapid.T) {
				src, dst := rapid.IntRange(0, sequences-1).Draw(t, "src"), rapid.IntRange(0, sequences-1).Draw(t, "dst")
				if src != dst && len(c.held[dst]) == 0 && c.live[src] > 0 {
					c.copy(src, dst, rapid.IntRange(1, c.live[src]).Draw(t, "n"))
				}
			},
			"truncate": func(t *rapid.T) {
				seq := rapid.IntRange(0, sequences-1).Draw(t, "seq")
				n := rapid.IntRange(0, c.live[seq]).Draw(t, "n")
				c.truncate(seq, n)
				c.retained[seq] = c.retained[seq] && n > 0
				sink()
			},
			"retain": func(t *rapid.T) {
				if seq := rapid.IntRange(0, sequences-1).Draw(t, "seq"); c.live[seq] > 0 && !c.retained[seq] {
					c.retain(seq)
				}
			},
			"renumber": func(t *rapid.T) {
				for seq := range c.held {
					c.release(seq, c.live[seq])
				}
				c.renumber()
				if c.dead() != 0 || c.firstDead() != c.top {
					t.Fatalf("%d dead cells, the first is %d of %d", c.dead(), c.firstDead(), c.top)
				}
			},
			"": func(t *rapid.T) {
				held, refs, active := make(map[int32]bool), make(map[int32]int32), make(map[int32]int32)
				for seq, cells := range c.held {
					for i, cell := range cells {
						if i > 0 && cells[i-1] >= cell || cell >= int32(c.top) {
							t.Fatalf("sequence %d has cells %v below %d", seq, cells, c.top)
						}
						held[cell] = true
						if i >= c.live[seq] {
							continue
						}
						if refs[cell]++; !c.retained[seq] {
							active[cell]++
						}
					}
				}
				for cell := range int32(context) {
					if c.refs[cell] != refs[cell] || c.activeRefs[cell] != active[cell] || held[cell] != (cell < int32(c.top)) {
						t.Fatalf("cell %d: %d references, %d active, held %v; want %d, %d", cell, c.refs[cell], c.activeRefs[cell], held[cell], refs[cell], active[cell])
					}
				}
				if c.used != len(refs) || c.active != len(active) || c.lastLive() > c.top || c.firstDead() > c.top {
					t.Fatalf("%d used, %d active; want %d, %d", c.used, c.active, len(refs), len(active))
				}
			},
		})
	})
}
