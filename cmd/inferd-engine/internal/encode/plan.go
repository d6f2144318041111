package encode

// Limits bound one batch.
type Limits struct {
	Tokens    int // of one sequence
	Batch     int // over all sequences, unless one alone has more; 0 is Tokens
	Sequences int
}

// plan returns, for each job, the number of its remaining sequences, given by their lengths, in the
// next batch. Jobs take turns, beginning with job first, one sequence at a time, so that a large
// job does not delay a small one; within a job the order is kept. Every sequence is at most
// l.Tokens long.
func plan(l Limits, jobs [][]int, first int) []int {
	take := make([]int, len(jobs))
	tokens, count := l.Tokens, l.Sequences
	if l.Batch > 0 {
		tokens = min(tokens, l.Batch)
	}
	for moved := true; moved; {
		moved = false
		for n := range jobs {
			i := (first + n) % len(jobs)
			if take[i] == len(jobs[i]) || count == 0 || jobs[i][take[i]] > tokens && count < l.Sequences {
				continue
			}
			tokens -= jobs[i][take[i]]
			count--
			take[i]++
			moved = true
		}
	}
	return take
}
