package kv

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// No cell is allocated twice or lost, and one is active exactly while an active sequence has it.
func TestCells(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const context, sequences = 40, 5
		c := newCells(context, sequences)
		t.Repeat(map[string]func(*rapid.T){
			"grow": func(t *rapid.T) {
				seq := rapid.IntRange(0, sequences-1).Draw(t, "seq")
				if n := min(rapid.IntRange(1, 9).Draw(t, "n"), len(c.free)); n > 0 && !c.retained[seq] {
					c.grow(seq, n)
				}
			},
			"copy": func(t *rapid.T) {
				src, dst := rapid.IntRange(0, sequences-1).Draw(t, "src"), rapid.IntRange(0, sequences-1).Draw(t, "dst")
				if src != dst && c.size(dst) == 0 && c.size(src) > 0 {
					c.copy(src, dst, rapid.IntRange(1, c.size(src)).Draw(t, "n"))
				}
			},
			"truncate": func(t *rapid.T) {
				seq := rapid.IntRange(0, sequences-1).Draw(t, "seq")
				c.truncate(seq, rapid.IntRange(0, c.size(seq)).Draw(t, "n"))
			},
			"retain": func(t *rapid.T) {
				if seq := rapid.IntRange(0, sequences-1).Draw(t, "seq"); c.size(seq) > 0 && !c.retained[seq] {
					c.retain(seq)
				}
			},
			"": func(t *rapid.T) {
				refs, active := make(map[int32]int32), make(map[int32]int32)
				for seq, cells := range c.of {
					mine := make(map[int32]bool)
					for _, cell := range cells {
						if mine[cell] {
							t.Fatalf("sequence %d has cell %d twice", seq, cell)
						}
						mine[cell] = true
						refs[cell]++
						if !c.retained[seq] {
							active[cell]++
						}
					}
				}
				for cell := range int32(context) {
					if c.refs[cell] != refs[cell] || c.activeRefs[cell] != active[cell] || slices.Contains(c.free, cell) != (refs[cell] == 0) {
						t.Fatalf("cell %d: %d references, %d active, want %d, %d", cell, c.refs[cell], c.activeRefs[cell], refs[cell], active[cell])
					}
				}
				if c.used() != len(refs) || c.active != len(active) {
					t.Fatalf("%d used, %d active; want %d, %d", c.used(), c.active, len(refs), len(active))
				}
			},
		})
	})
}
