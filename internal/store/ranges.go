package store

import "slices"

// A Range is the bytes from Start up to, but not including, End.
type Range struct {
	Start int64 `json:"start"`
	End   int64 `json:"end"`
}

// insert adds a range to sorted ranges that do not touch, and merges the ranges that it touches.
func insert(ranges []Range, r Range) []Range {
	if r.Start >= r.End {
		return ranges
	}
	from, _ := slices.BinarySearchFunc(ranges, r.Start, func(have Range, start int64) int {
		if have.End < start {
			return -1
		}
		return 1
	})
	to := from
	for ; to < len(ranges) && ranges[to].Start <= r.End; to++ {
		r.Start, r.End = min(r.Start, ranges[to].Start), max(r.End, ranges[to].End)
	}
	return slices.Replace(ranges, from, to, r)
}

// clip returns the parts of the ranges below end.
func clip(ranges []Range, end int64) []Range {
	var kept []Range
	for _, r := range ranges {
		if r.End = min(r.End, end); r.Start < r.End {
			kept = append(kept, r)
		}
	}
	return kept
}

// contiguous returns the end of the range that begins at 0, or 0 if there is none.
func contiguous(ranges []Range) int64 {
	if len(ranges) == 0 || ranges[0].Start != 0 {
		return 0
	}
	return ranges[0].End
}

// sum returns the number of bytes in ranges.
func sum(ranges []Range) (n int64) {
	for _, r := range ranges {
		n += r.End - r.Start
	}
	return n
}

// valid reports whether the ranges are sorted, none is empty and no two touch, as insert leaves
// them.
func valid(ranges []Range) bool {
	last := int64(-1)
	for _, r := range ranges {
		if r.Start <= last || r.Start >= r.End {
			return false
		}
		last = r.End
	}
	return true
}
