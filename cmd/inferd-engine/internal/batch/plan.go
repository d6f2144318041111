package batch

// Limits is what a model's context has room for.
type Limits struct {
	Context   int // tokens in the cache, over all sequences
	Batch     int // tokens that one step may decode
	Sequences int // sequences that may be in the cache at once; at most Batch
	Chunk     int // tokens of prompts that a step may read while answers are being written
}

// headroom is how much of the context must stay free after a sequence is taken in
// beside others, so that it is not parked again a few steps later.
func (l Limits) headroom() int { return min(256, l.Context/8) }

// A view is what the plan knows of a sequence.
type view struct {
	cached int // tokens in the cache
	known  int // tokens of the prompt and of the answer so far; more than cached
}

func (v view) pending() int { return v.known - v.cached }

// A step is what is to be done next.
type step struct {
	park []int // indices of sequences that give up their cache
	feed []int // for every sequence, how many of its pending tokens to decode
}

// plan decides a step. The sequences stand in the order in which they came; a cached
// count of 0 means that a sequence waits, or was parked.
//
// The cache is given out by need: every sequence in it counts with all tokens that it
// is known to have, so that what has been begun can always be read to its end. When
// answers have grown beyond the context the youngest is parked; it loses its cache,
// not its text, and reads it again once there is room. The oldest is never parked:
// so all get on.
//
// In a step each sequence that is writing decodes its one token; prompts get what is
// left, up to Chunk tokens beside somebody who is writing, up to Batch alone.
func plan(l Limits, seqs []view) step {
	s := step{feed: make([]int, len(seqs))}
	begun := make([]bool, len(seqs))
	used, count := 0, 0
	for i, v := range seqs {
		if v.cached > 0 {
			begun[i] = true
			used += v.known
			count++
		}
	}
	for i := len(seqs) - 1; i > 0 && used > l.Context; i-- {
		if begun[i] {
			begun[i] = false
			used -= seqs[i].known
			count--
			s.park = append(s.park, i)
		}
	}
	for i, v := range seqs {
		if begun[i] {
			continue
		}
		room := l.Context - used
		if count > 0 {
			room -= l.headroom()
		}
		if count == l.Sequences || v.known > room || len(s.park) > 0 {
			break // nobody overtakes
		}
		begun[i] = true
		used += v.known
		count++
	}

	left := l.Batch
	writing := false
	for i, v := range seqs {
		if begun[i] && v.cached > 0 && v.pending() == 1 {
			s.feed[i] = 1
			left--
			writing = true
		}
	}
	if writing {
		left = min(left, max(l.Chunk, 1))
	}
	for i, v := range seqs {
		if begun[i] && s.feed[i] == 0 {
			s.feed[i] = min(v.pending(), left)
			left -= s.feed[i]
		}
	}
	return s
}
