// Package progress publishes the progress of a computing loop. The loop writes it and any
// goroutine reads it; neither waits for the other, so it can be read while a step hangs. The
// package depends neither on the computation nor on its limits.
package progress

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Phase is the current activity of a loop. The set is closed.
//
//	Idle ─▶ Plan ─▶ Lock ─▶ Decode ─▶ Sample ─▶ Idle, or Plan again
//
// A loop may leave out any phase.
type Phase uint8

// Phases.
const (
	Idle   Phase = iota // it waits for work, or for a prefill job
	Plan                // it plans the next step
	Lock                // it waits for the compute lock
	Decode              // the model computes
	Sample              // it chooses tokens
)

var names = [...]string{Idle: "idle", Plan: "plan", Lock: "lock", Decode: "decode", Sample: "sample"}

func (p Phase) String() string { return names[p] }

const phaseBits = 3

// A Progress is the progress of one loop. The zero value is idle.
type Progress struct {
	units atomic.Uint64
	now   atomic.Uint64 // nanoseconds since epoch << phaseBits | phase
	step  atomic.Pointer[step]

	once  sync.Once // sets epoch
	epoch time.Time

	last *step // used by the loop's thread only: the latest step, reused if the next has the same calls and cpu
}

// A step describes the step under way. It is immutable.
type step struct {
	calls []uint64
	cpu   time.Duration
}

// A Report is a Progress at one time.
type Report struct {
	Units uint64 // finished units of work, such as steps
	Phase Phase
	Since time.Duration // time since the phase began
	Calls []uint64      // in the step under way
	CPU   time.Duration // estimated CPU time of the step under way, over all threads; 0 means unknown
}

func (p *Progress) clock() uint64 {
	p.once.Do(func() { p.epoch = time.Now() })
	return uint64(time.Since(p.epoch))
}

// Enter sets the phase, which begins now. Only the loop may call it.
func (p *Progress) Enter(phase Phase) { p.now.Store(p.clock()<<phaseBits | uint64(phase)) }

// Finish counts n finished units of work. Any goroutine may call it.
func (p *Progress) Finish(n int) { p.units.Add(uint64(n)) }

// Begin records the start of a step, with the calls that have tokens in it, and the estimate of its
// CPU time. Calls with the number 0 are not reported. Only the loop may call Begin, which copies
// calls.
func (p *Progress) Begin(calls []uint64, cpu time.Duration) {
	if p.last == nil || p.last.cpu != cpu || !slices.Equal(p.last.calls, calls) {
		p.last = &step{calls: slices.Clone(calls), cpu: cpu}
	}
	p.step.Store(p.last)
}

// End ends the step under way, and counts it. Only the loop may call it.
func (p *Progress) End() {
	p.step.Store(nil)
	p.Finish(1)
}

// Report returns the current progress. Any goroutine may call it.
func (p *Progress) Report() Report {
	now, at := p.now.Load(), p.clock()
	r := Report{Units: p.units.Load(), Phase: Phase(now & (1<<phaseBits - 1))}
	r.Since = time.Duration(at - min(at, now>>phaseBits))
	if s := p.step.Load(); s != nil {
		r.CPU = s.cpu
		for _, call := range s.calls {
			if call != 0 {
				r.Calls = append(r.Calls, call)
			}
		}
	}
	return r
}
