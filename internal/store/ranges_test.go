package store_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/inferd-go/inferd/internal/store"
)

// Ranges hold exactly the bytes that were inserted, in whatever order; clip keeps exactly the bytes
// below its end.
func TestRanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const size = 64
		var have [size]bool
		var ranges []store.Range
		for range rapid.IntRange(0, 20).Draw(t, "n") {
			start := rapid.Int64Range(0, size).Draw(t, "start")
			end := rapid.Int64Range(0, size).Draw(t, "end")
			ranges = store.Insert(ranges, store.Range{Start: start, End: end})
			for n := start; n < end; n++ {
				have[n] = true
			}
			if !store.Valid(ranges) {
				t.Fatalf("%v", ranges)
			}
		}
		cut := rapid.Int64Range(0, size).Draw(t, "cut")
		var got, clipped [size]bool
		for _, r := range ranges {
			for n := r.Start; n < r.End; n++ {
				got[n] = true
			}
		}
		for _, r := range store.Clip(ranges, cut) {
			for n := r.Start; n < r.End; n++ {
				clipped[n] = true
			}
		}
		for n := range have {
			if got[n] != have[n] || clipped[n] != (have[n] && int64(n) < cut) {
				t.Fatalf("%v, cut at %d: %v at %d, want %v", ranges, cut, got[n], n, have[n])
			}
		}
	})
	for _, bad := range [][]store.Range{{{0, 0}}, {{1, 0}}, {{0, 2}, {2, 3}}, {{0, 2}, {1, 3}}, {{-1, 3}}, {{4, 5}, {0, 1}}} {
		if store.Valid(bad) {
			t.Errorf("%v is valid", bad)
		}
	}
}
