package schedule

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestReusable(t *testing.T) {
	for _, test := range []struct{ cached, fresh, total, want int }{
		{0, 0, 10, 0},
		{9, 9, 10, 0},            // fewer than a tile
		{99, 99, 100, 0},         // reusing one tile would leave less than a tile to compute
		{127, 127, 128, 64},      // the same prompt again
		{300, 300, 340, 256},     // a shared beginning
		{300, 100, 340, 64},      // a shared beginning, fresh in part
		{615, 600, 657, 576},     // the next turn of a conversation
		{615, 340, 657, 615},     // with a long answer: too much to be computed again
		{2000, 0, 2001, 2000},    // a long prompt: likewise
		{512, 512, 520, 512},     // the last batch is smaller than a tile
		{519, 512, 520, 512},     // the same, with a few tokens more in the cache
		{1023, 1000, 1024, 960},  // in the second batch
		{1024, 1024, 1100, 1024}, // between batches
		{255, 0, 4000, 0},        // little to be computed again
		{257, 0, 4000, 257},      // too much to be computed again
	} {
		if got := Reusable(test.cached, test.fresh, test.total, 512); got != test.want {
			t.Errorf("Reusable(%d, %d, %d, 512) = %d, want %d", test.cached, test.fresh, test.total, got, test.want)
		}
	}
}

// kernels identifies the kernel that computes each token of a prompt behind a prefix: by the position
// at which its tile begins, or by -1 in a batch smaller than a tile.
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

// Unless more than maxAgain cached tokens would have to be computed again, all tokens behind the
// reusable part of a prefix are computed by the same kernels as in an empty cache: each is in a tile
// that begins at the same token, or in a batch smaller than a tile.
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
