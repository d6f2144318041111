package regex

import "slices"

// A set is a sorted list of ranges of characters.
type set [][2]rune

func union(sets ...set) set { return normal(slices.Concat(sets...)) }

// normal returns sorted and merged ranges. It does not change s.
func normal(s set) set {
	s = slices.Clone(s)
	slices.SortFunc(s, func(a, b [2]rune) int { return int(a[0] - b[0]) })
	out := s[:0]
	for _, r := range s {
		if n := len(out); n > 0 && r[0] <= out[n-1][1]+1 {
			out[n-1][1] = max(out[n-1][1], r[1])
			continue
		}
		out = append(out, r)
	}
	return out
}

// negate returns the characters that are not in s.
func negate(s set) set {
	var out set
	next := rune(0)
	for _, r := range s {
		if r[0] > next {
			out = append(out, [2]rune{next, r[0] - 1})
		}
		next = r[1] + 1
	}
	if next <= maxRune {
		out = append(out, [2]rune{next, maxRune})
	}
	return out
}
