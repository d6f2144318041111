package encode

// Limits bound one batch.
type Limits struct {
	Tokens    int // maximum of one sequence
	Batch     int // maximum over all sequences, unless a single one has more; 0 means Tokens
	Sequences int // maximum
}

// plan returns for each job how many of its remaining sequences are in the next batch. jobs has the
// lengths of these sequences, each at most l.Tokens. Jobs take turns, beginning with job first, one
// sequence at a time, so that a large job does not delay a small one. Within a job the order is
// kept.
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
