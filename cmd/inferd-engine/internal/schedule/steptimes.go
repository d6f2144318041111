package schedule

import (
	"math/bits"
	"time"
)

// StepTimes estimate how many prompt tokens a step may decode beside streams, and how long a step
// may wait for the prefill worker, so that no stream waits longer for its next token than the stall
// budget. The estimates come from past steps and prefill jobs. All times come from the caller.
type StepTimes struct {
	Stall time.Duration // the longest time for a step with streams; 0 means the default, see [StepTimes.StallBudget]

	alone   []Average // seconds of a step without prompts, by number of streams
	beside  []Average // the same while the prefill worker computes
	all     curve     // seconds of a step, by number of its tokens
	prefill Average   // seconds per token at the prefill worker
}

// The default stall budget is the longer of 100 ms, which are hardly noticeable, and the time of
// four steps without prompts.
const (
	defaultStall = 100 * time.Millisecond
	stallSteps   = 4
)

const (
	firstChunk = 8   // tokens, before any step has been observed
	margin     = 0.9 // fraction of the available time to use: the times of steps vary

	overdueFactor = 4    // a job is overdue after this multiple of its expected time
	besideFactor  = 1.15 // assumed ratio of the times of a step beside the prefill worker and alone, while one is unknown
	decay         = 0.98 // factor of the prefill estimate for each step in which the worker is too slow to be used
)

// An Average is a moving average of a quantity and of its deviation, as in TCP's estimate of
// round-trip times (RFC 6298), with larger gains. The zero value is an average of no values.
type Average struct{ mean, deviation float64 }

// Mean is the mean of the values; 0 before the first.
func (a Average) Mean() float64 { return a.mean }

// Add adds a value.
func (a *Average) Add(x float64) {
	if a.mean == 0 {
		a.mean, a.deviation = x, x/4
		return
	}
	off := x - a.mean
	a.mean += off / 4
	a.deviation += (max(off, -off) - a.deviation) / 4
}

func (a Average) times(x float64) Average { return Average{a.mean * x, a.deviation * x} }

// A curve estimates the time of a step by the size of its batch. It keeps one moving average per power
// of two and interpolates between them. A larger batch takes at least as much time in all, and at most
// as much per token, because the weights are read once per batch. A new value therefore raises the
// points that contradict it.
type curve [16]struct{ tokens, took Average }

func (c *curve) add(tokens int, seconds float64) {
	at := min(bits.Len(uint(tokens)), len(c)-1)
	p := &c[at]
	p.tokens.Add(float64(tokens))
	p.took.Add(seconds)
	for i := range c {
		if low := c[i].tokens.mean / p.tokens.mean; i < at {
			c[i].took.mean = max(c[i].took.mean, low*p.took.mean)
		} else if i > at && c[i].tokens.mean > 0 {
			c[i].took.mean = max(c[i].took.mean, p.took.mean)
		}
	}
}

// at returns an upper estimate of the seconds of a step with the given number of tokens; 0 before
// the first step.
func (c *curve) at(tokens int) float64 {
	var n, took float64 // tokens and seconds of the next smaller point
	for i := range c {
		to, high := c[i].tokens.mean, c[i].took.mean+c[i].took.deviation
		switch {
		case to == 0:
		case to < float64(tokens):
			n, took = to, high
		case n == 0:
			return high
		default:
			return min(high, took+max(high-took, 0)*(float64(tokens)-n)/(to-n), took*float64(tokens)/n)
		}
	}
	if n == 0 {
		return 0
	}
	return took * float64(tokens) / n
}

// ObserveStep updates the estimates with a step of the given numbers of streams and prompt tokens,
// which took the given time. beside is set if the prefill worker computed meanwhile.
func (t *StepTimes) ObserveStep(streams, prompt int, beside bool, took time.Duration) {
	t.all.add(streams+prompt, took.Seconds())
	if prompt > 0 {
		return
	}
	steps := &t.alone
	if beside {
		steps = &t.beside
	}
	for len(*steps) <= streams {
		*steps = append(*steps, Average{})
	}
	(*steps)[streams].Add(took.Seconds())
}

// ObservePrefill updates the estimates with a job of the prefill worker, which took the given time for
// the given number of tokens. Small jobs are ignored.
func (t *StepTimes) ObservePrefill(tokens int, took time.Duration) {
	if tokens >= ChunkTokens/2 { // the time of a smaller job is mostly overhead
		t.prefill.Add(took.Seconds() / float64(tokens))
	}
}

// Step returns the expected time of a step with the given number of tokens; 0 means unknown.
func (t *StepTimes) Step(tokens int) time.Duration { return seconds(t.all.at(tokens)) }

// DecodeStep returns the mean time of a step with the given number of streams and without prompts;
// 0 means unknown.
func (t *StepTimes) DecodeStep(streams int) time.Duration { return seconds(t.decode(streams).mean) }

// UseWorker reports whether to use the prefill worker beside streams. Other programs have a higher
// priority than the worker, so it may be much slower than steps with chunk prompt tokens. In that
// case UseWorker reports false, and lowers the estimate of the worker's time, so that the worker is
// tried again after a while.
func (t *StepTimes) UseWorker(streams, chunk int) bool {
	if streams == 0 || t.prefill.mean*float64(chunk) <= overdueFactor*t.StallBudget(streams).Seconds() {
		return true
	}
	t.prefill.mean *= decay
	return false
}

// PrefillTimeout returns the time after which a job of the prefill worker with the given number of
// tokens is overdue.
func (t *StepTimes) PrefillTimeout(tokens int) time.Duration {
	takes := t.prefill.mean * float64(tokens)
	if takes == 0 {
		takes = t.all.at(tokens)
	}
	return max(time.Second, seconds(overdueFactor*takes))
}

// DecodeDeadline returns the time at which the next step, without prompts, should begin if the
// previous one ended at time last. Until then the prefill worker has all processors. If its job is
// urgent, the wait is as long as the stall budget allows, otherwise at most as long as the step takes.
func (t *StepTimes) DecodeDeadline(streams int, last time.Time, urgent bool) time.Time {
	budget, takes := t.StallBudget(streams).Seconds()*margin, known(t.beside, streams)
	if takes.mean == 0 {
		takes = t.decode(streams).times(besideFactor)
	}
	pause := budget - min(takes.mean+2*takes.deviation, budget/2)
	if !urgent {
		pause = min(pause, takes.mean)
	}
	return last.Add(seconds(pause))
}

// decode estimates the time of a step without prompts and without the prefill worker: the shortest known
// time of such a step with at least the given number of streams, or the time beside the worker with
// exactly that number, divided by besideFactor, if that is shorter. If neither is known, it is the time
// alone with the nearest known number of streams. The mean is 0 if there is none.
func (t *StepTimes) decode(streams int) Average {
	least := fewest(t.alone, streams)
	if beside := known(t.beside, streams).times(1 / besideFactor); least.mean == 0 || beside.mean > 0 && beside.mean < least.mean {
		least = beside
	}
	if least.mean == 0 {
		return nearest(t.alone, streams)
	}
	return least
}

// fewest returns the shortest known time of a step with at least the given number of streams.
func fewest(steps []Average, streams int) (least Average) {
	for _, a := range steps[min(streams, len(steps)):] {
		if least.mean == 0 || a.mean > 0 && a.mean < least.mean {
			least = a
		}
	}
	return least
}

func known(steps []Average, streams int) Average {
	if streams >= len(steps) {
		return Average{}
	}
	return steps[streams]
}

// nearest returns the time of a step with the given number of streams, or with the next smaller
// number for which it is known.
func nearest(steps []Average, streams int) Average {
	for n := min(streams, len(steps)-1); n > 0; n-- {
		if steps[n].mean > 0 {
			return steps[n]
		}
	}
	return Average{}
}

// StallBudget returns the longest time that a step with the given number of streams may take.
func (t *StepTimes) StallBudget(streams int) time.Duration {
	if t.Stall > 0 {
		return t.Stall
	}
	return max(defaultStall, seconds(stallSteps*t.decode(streams).mean))
}

// Chunk returns the number of prompt tokens that the next step may decode, if its streams have
// already waited for the given time. It is at least 1, so that every prompt progresses.
func (t *StepTimes) Chunk(streams int, waited time.Duration) int {
	if t.all.at(1) == 0 {
		return firstChunk
	}
	n, budget := 0, t.StallBudget(streams).Seconds()*margin-waited.Seconds()
	for n+kernelRows <= maxBatch && t.all.at(n+kernelRows) <= budget {
		n += kernelRows
	}
	return max(1, n-streams)
}

// kernelRows is the number of tokens that the CPU kernels compute at a time. If the number of tokens
// of a batch is not a multiple of it, the last ones are computed one by one, each in nearly the time
// of kernelRows tokens.
const (
	kernelRows = 4
	maxBatch   = 4096 // tokens of any step
)

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
