package regex

import "slices"

// Cut returns the strings of a language that have least to most characters; most < 0 means no
// maximum. It returns the same language as [And] with [Lengths], but is faster: it looks up states in
// a table, and does not merge equal states, which are rare here.
func Cut(b *Budget, d *DFA, least, most int) *DFA {
	n := len(d.accept)
	limit := max(least, most)
	if n == 0 || most >= 0 && least > most || !b.Spend(4*n*(limit+1)) {
		return None()
	}
	defer b.Free(4 * n * (limit + 1))
	out := &DFA{alphabet: d.alphabet}
	numbers := slices.Repeat([]int32{-1}, n*(limit+1)) // by characters and state
	numbers[0] = 0
	queue := []int32{0}
	for i := 0; i < len(queue); i++ {
		chars, s := int(queue[i])/n, int(queue[i])%n
		if !b.Spend(4*d.classes + 1) {
			return None()
		}
		out.accept = append(out.accept, d.accept[s] && chars >= least)
		if chars++; most < 0 {
			chars = min(chars, least)
		}
		for _, to := range d.next[s*d.classes : (s+1)*d.classes] {
			if to < 0 || chars > limit {
				out.next = append(out.next, -1)
				continue
			}
			at := chars*n + int(to)
			if numbers[at] < 0 {
				numbers[at] = int32(len(queue))
				queue = append(queue, int32(at))
			}
			out.next = append(out.next, numbers[at])
		}
	}
	useful := out.useful()
	if !useful[0] {
		return None()
	}
	for i, to := range out.next {
		if to >= 0 && !useful[to] {
			out.next[i] = -1
		}
	}
	return out.order(b, nil)
}
