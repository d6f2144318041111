package schedule

import (
	"math/rand/v2"
	"testing"
	"time"
)

// machine returns the time of a step on a simulated machine, with the given numbers of streams and
// prompt tokens. It varies at random by up to 5 %.
func machine(r *rand.Rand, streams, prompt int) time.Duration {
	ms := 12.5 * float64(streams) // as if the weights were read for each stream
	if n := float64(streams + prompt); prompt > 0 || streams > 2 {
		ms = 20 + 2.6*n
	}
	return time.Duration(ms * (0.95 + 0.1*r.Float64()) * float64(time.Millisecond))
}

// With chunks of the size that StepTimes returns, steps stay within the stall budget and use most of
// it, for the default budget and for a set one. If even the shortest step exceeds the budget, chunks
// are as small as possible.
func TestStepTimes(t *testing.T) {
	for name, test := range map[string]struct {
		stall   time.Duration
		streams int
		want    time.Duration
	}{
		"by default 100 ms":                   {0, 1, 100 * time.Millisecond},
		"by default four steps, if those are": {0, 6, 142 * time.Millisecond},
		"as told":                             {600 * time.Millisecond, 1, 600 * time.Millisecond},
		"less than possible":                  {10 * time.Millisecond, 1, 27 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			p := &StepTimes{Stall: test.stall}
			for range 20 {
				p.ObserveStep(test.streams, 0, false, machine(r, test.streams, 0))
			}
			var worst, sum time.Duration
			const steps = 1000
			for i := range steps {
				n := p.Chunk(test.streams, 0)
				if n < 1 {
					t.Fatalf("a chunk of %d", n)
				}
				took := machine(r, test.streams, n)
				p.ObserveStep(test.streams, n, false, took)
				if i > 50 { // the first steps are for learning
					worst = max(worst, took)
				}
				sum += took
			}
			if mean := sum / steps; worst > test.want*103/100 || mean < test.want*7/10 {
				t.Errorf("steps take %v, at worst %v, want most of %v", mean, worst, test.want)
			}
		})
	}
}

// Chunks are small before the first steps are observed, and become small soon after the machine has
// become ten times slower.
func TestStepTimesAreCareful(t *testing.T) {
	p := &StepTimes{}
	if n := p.Chunk(1, 0); n != firstChunk {
		t.Errorf("the first chunk is %d", n)
	}
	p.ObserveStep(1, 0, false, 12500*time.Microsecond)
	if n := p.Chunk(1, 0); n > 7 { // of 12.5 ms each, if prefill is as slow as decoding
		t.Errorf("after the first token a chunk is %d", n)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		p.ObserveStep(1, p.Chunk(1, 0), false, machine(r, 1, p.Chunk(1, 0)))
	}
	before := p.Chunk(1, 0)
	for range 20 {
		n := p.Chunk(1, 0)
		p.ObserveStep(1, n, false, 10*machine(r, 1, n))
	}
	if after := p.Chunk(1, 0); after > before/4 {
		t.Errorf("chunks of %d became %d", before, after)
	}
}
