package batch

import (
	"math/rand/v2"
	"testing"
	"time"
)

// A machine takes that long for a step: what the writers' tokens take, and what the
// prompts' do, give or take a tenth.
func machine(r *rand.Rand, writers, prompt int) time.Duration {
	ms := 12.5 * float64(writers) // the weights are read once for each
	if n := float64(writers + prompt); prompt > 0 || writers > 2 {
		ms = 20 + 2.6*n
	}
	return time.Duration(ms * (0.95 + 0.1*r.Float64()) * float64(time.Millisecond))
}

// However slow the machine is and whatever it is told, a step stays within what it may take,
// and uses most of it.
func TestPace(t *testing.T) {
	for name, test := range map[string]struct {
		stall   time.Duration
		writers int
		want    time.Duration
	}{
		"by default 100 ms":                   {0, 1, 100 * time.Millisecond},
		"by default four steps, if those are": {0, 6, 142 * time.Millisecond},
		"as told":                             {600 * time.Millisecond, 1, 600 * time.Millisecond},
		"less than is had":                    {10 * time.Millisecond, 1, 27 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			p := &pace{stall: test.stall}
			for range 20 {
				p.observe(test.writers, 0, false, machine(r, test.writers, 0))
			}
			var worst, sum time.Duration
			const steps = 1000
			for i := range steps {
				n := p.chunk(test.writers, 0)
				if n < 1 {
					t.Fatalf("a chunk of %d", n)
				}
				took := machine(r, test.writers, n)
				p.observe(test.writers, n, false, took)
				if i > 50 { // it has learnt
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

// Before it knows anything, and when the machine becomes ten times slower, it is careful.
func TestPaceIsCareful(t *testing.T) {
	p := &pace{}
	if n := p.chunk(1, 0); n != firstChunk {
		t.Errorf("the first chunk is %d", n)
	}
	p.observe(1, 0, false, 12500*time.Microsecond)
	if n := p.chunk(1, 0); n > 7 { // of 12.5 ms each, if it is as slow as what is written
		t.Errorf("after the first token a chunk is %d", n)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		p.observe(1, p.chunk(1, 0), false, machine(r, 1, p.chunk(1, 0)))
	}
	before := p.chunk(1, 0)
	for range 20 {
		n := p.chunk(1, 0)
		p.observe(1, n, false, 10*machine(r, 1, n))
	}
	if after := p.chunk(1, 0); after > before/4 {
		t.Errorf("chunks of %d became %d", before, after)
	}
}
