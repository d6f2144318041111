package llama

import "testing"

// After a long context, some batches smaller than a tile take longer than a full tile: padWorth finds
// them. The times in the cases were measured.
func TestPadWorth(t *testing.T) {
	for _, test := range []struct {
		n, depth, width int
		want            bool
	}{
		{42, 2048, 1024, true},   // 456 ms alone, 319 in a tile
		{36, 4096, 1024, true},   // 660, 482
		{42, 512, 1024, false},   // 208, 213
		{24, 2048, 1024, false},  // 263, 319
		{8, 16384, 1024, false},  // decoding streams need no padding
		{64, 16384, 1024, false}, // a tile
		{42, 2048, 4096, false},  // attention is the lesser part of such a model
		{63, 0, 1024, false},
	} {
		if got := padWorth(test.n, test.depth, test.width); got != test.want {
			t.Errorf("%d tokens behind %d, %d wide: %v", test.n, test.depth, test.width, got)
		}
	}
}
