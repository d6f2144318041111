package schedule

import (
	"math/bits"
	"time"
)

// StepTimes estimate the number of prompt tokens that a step may decode beside streams, and the
// time that a step may wait for the prefill worker, so that no stream waits longer for its next
// token than the stall budget. They are estimated from past steps; all times come from the caller.
type StepTimes struct {
	Stall time.Duration // the longest time for a step beside streams; 0 is the default, see [StepTimes.StallBudget]

	alone   []Average // seconds of a step without prompts, by number of streams
	beside  []Average // seconds of such a step while the prefill worker computes
	all     curve     // of all steps
	prefill Average   // seconds of the prefill worker for each token
}

// The default stall is the longer of 100 ms, which are hardly noticeable, and four steps of the
// streams.
const (
	defaultStall = 100 * time.Millisecond
	stallSteps   = 4
)

const (
	firstChunk = 8   // tokens, before any step has been observed
	margin     = 0.9 // fraction of the available time to use: the times of steps vary

	overdueFactor = 4    // times the expected time
	besideFactor  = 1.15 // ratio of step times beside the prefill worker and alone, while one of them is unknown
	decay         = 0.98 // factor of the prefill estimate for each step in which the worker is not used
)

// An Average is a moving average of a quantity and of its deviation, as in TCP's estimate of
// round-trip times (RFC 6298), with larger gains. The zero value has no values.
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

// A curve estimates step time by batch size. It keeps one moving average per power of two and
// interpolates between them. A larger batch takes no less time, and no more per token, because
// the weights are read once for all: older points that contradict a new one are moved.
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

// at is an upper estimate of the seconds of a step with that number of tokens; zero before the
// first step.
func (c *curve) at(tokens int) float64 {
	var n, took float64 // of the next smaller point
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

// ObserveStep learns from a step: its streams and prompt tokens, whether the prefill worker
// computed meanwhile, and its time.
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

// ObservePrefill learns from a job of the prefill worker.
func (t *StepTimes) ObservePrefill(tokens int, took time.Duration) {
	if tokens >= ChunkTokens/2 { // the time of a smaller job is mostly overhead
		t.prefill.Add(took.Seconds() / float64(tokens))
	}
}

// Step is the expected time of a step with that number of tokens; 0 is unknown.
func (t *StepTimes) Step(tokens int) time.Duration { return seconds(t.all.at(tokens)) }

// DecodeStep is the mean time of a step with that number of streams and without prompts; 0 is
// unknown.
func (t *StepTimes) DecodeStep(streams int) time.Duration { return seconds(t.decode(streams).mean) }

// UseWorker reports whether to use the prefill worker beside streams. Because other programs also
// have a higher priority, it may be much slower than steps with that chunk of prompt tokens; then
// it is not used, and tried again after a while.
func (t *StepTimes) UseWorker(streams, chunk int) bool {
	if streams == 0 || t.prefill.mean*float64(chunk) <= overdueFactor*t.StallBudget(streams).Seconds() {
		return true
	}
	t.prefill.mean *= decay
	return false
}

// PrefillTimeout bounds the time of a job of the prefill worker with that number of tokens.
func (t *StepTimes) PrefillTimeout(tokens int) time.Duration {
	takes := t.prefill.mean * float64(tokens)
	if takes == 0 {
		takes = t.all.at(tokens)
	}
	return max(time.Second, seconds(overdueFactor*takes))
}

// DecodeDeadline is the time at which a step without prompts should begin if the last step ended
// at last: until then the prefill worker has all processors. If its job is urgent, the wait is as
// long as the stall budget allows, otherwise as long as such a step.
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

// decode estimates the time of a step without prompts; zero before the first one.
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

// fewest is the shortest known time of a step with at least that number of streams.
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

// nearest is the known time of a step for the largest number of streams up to streams.
func nearest(steps []Average, streams int) Average {
	for n := min(streams, len(steps)-1); n > 0; n-- {
		if steps[n].mean > 0 {
			return steps[n]
		}
	}
	return Average{}
}

// StallBudget is the longest time for a step with that number of streams.
func (t *StepTimes) StallBudget(streams int) time.Duration {
	if t.Stall > 0 {
		return t.Stall
	}
	return max(defaultStall, seconds(stallSteps*t.decode(streams).mean))
}

// Chunk is the number of prompt tokens that the next step may decode if its streams have waited
// for that time already: at least one, so that every prompt progresses.
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

// kernelRows is the number of tokens that the CPU kernels compute at a time. They compute the rest
// of a batch one by one, each in nearly the time of kernelRows tokens.
const (
	kernelRows = 4
	maxBatch   = 4096 // tokens of any step
)

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
