package schedule

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Behind the reusable part of a prefix, all tokens of a prompt are computed with the same kernels as in
// an empty cache: in a batch that ends at the same token, in a tile that begins at the same token, or
// with fewer tokens than a tile.
func TestReusable(t *testing.T) {
	for _, test := range []struct{ cached, fresh, total, want int }{
		{0, 0, 10, 0},
		{9, 9, 10, 0},            // fewer than a tile
		{99, 99, 100, 0},         // one tile, and a part of it would be alone
		{127, 127, 128, 64},      // the last token, asked again
		{300, 300, 340, 256},     // a shared beginning
		{300, 100, 340, 64},      // of which a part is fresh
		{615, 600, 657, 576},     // the next turn of a conversation
		{615, 340, 657, 615},     // a long answer in it: too much to be computed again
		{2000, 0, 2001, 2000},    // nor is all of a long prompt
		{512, 512, 520, 512},     // the last batch is smaller than a tile
		{519, 512, 520, 512},     // as it was
		{1023, 1000, 1024, 960},  // in the second batch
		{1024, 1024, 1100, 1024}, // between batches
		{255, 0, 4000, 0},        // little
		{257, 0, 4000, 257},      // too much
	} {
		if got := Reusable(test.cached, test.fresh, test.total, 512); got != test.want {
			t.Errorf("Reusable(%d, %d, %d, 512) = %d, want %d", test.cached, test.fresh, test.total, got, test.want)
		}
	}
}

// kernels returns the kernel of each token of a prompt behind a prefix: the first token of its tile, or
// -1 in a batch smaller than a tile.
func kernels(prefix, total, batch int) []int {
	by := make([]int, 0, total-prefix)
	for at := prefix; at < total; {
		step := Plan(Limits{Context: total, Batch: batch, Sequences: 1}, []Sequence{{Cached: at, Total: total, State: Prefilling, Exclusive: at}}, at, Budget{})
		n := step.Feed[0]
		for i := range n {
			tile := -1
			if n >= Tile {
				tile = at + i/Tile*Tile
			}
			by = append(by, tile)
		}
		at += n
	}
	return by
}

func TestReusableKeepsTheKernels(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		batch := Tile * rapid.IntRange(1, 8).Draw(t, "tiles of a batch")
		total := rapid.IntRange(2, 2000).Draw(t, "total")
		cached := rapid.IntRange(0, total-1).Draw(t, "cached")
		fresh := rapid.IntRange(0, cached).Draw(t, "fresh")
		n := Reusable(cached, fresh, total, batch)
		switch {
		case n == cached && (cached > fresh || cached-cached%Tile < cached):
			if most := (total - 1) / batch * batch; cached-min(fresh, most) <= maxAgain-2*Tile {
				t.Fatalf("reuses %d, of which %d are fresh", n, fresh)
			}
		case n > fresh || cached-n > maxAgain:
			t.Fatalf("reuses %d of %d, of which %d are fresh", n, cached, fresh)
		default:
			if got, want := kernels(n, total, batch), kernels(0, total, batch)[n:]; !slices.Equal(got, want) {
				t.Fatalf("behind %d: tiles at %v, want %v", n, got, want)
			}
		}
	})
}
