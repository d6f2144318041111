package assemble

import (
	"math"
	"time"

	"github.com/inferd-go/inferd/client/stats"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/budget"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/progress"
	"github.com/inferd-go/inferd/internal/link"
)

// beat returns the progress of all loops as one beat, with the calls over their budget.
func (a *assembly) beat() link.Beat {
	all := make([]progress.Report, len(a.parts))
	for i, p := range a.parts {
		all[i] = p.progress.Report()
	}
	b := join(all)
	for _, p := range a.parts {
		if p.overrun != nil {
			p.overrun(&b)
		}
	}
	return b
}

// join returns one beat for all loops. Of several loops, the beat describes the loop with the longest
// time in its current phase, so that a loop that hangs is reported whatever the progress of the
// others. If all loops are idle or wait for the lock, the beat describes a waiting loop, if there is
// one, and counts the steps of all loops.
func join(all []progress.Report) link.Beat {
	if len(all) == 1 {
		return beatOf(all[0])
	}
	longest, steps, at := -1, uint64(0), 0
	for i, r := range all {
		steps += r.Units
		switch {
		case r.Phase == progress.Idle:
		case r.Phase == progress.Lock:
			at = i
		case longest < 0 || r.Since > all[longest].Since:
			longest = i
		}
	}
	if longest >= 0 {
		b := beatOf(all[longest])
		b.Loop = longest + 1
		return b
	}
	b := beatOf(all[at])
	b.Steps = steps
	return b
}

// beatOf translates the progress of a loop for the link.
func beatOf(r progress.Report) link.Beat {
	return link.Beat{
		Steps: r.Units, Phase: r.Phase.String(), SinceMS: r.Since.Milliseconds(),
		Calls: r.Calls, StepCPUMS: int64(math.Ceil(float64(r.CPU) / float64(time.Millisecond))),
	}
}

// stats adds up the statistics of all parts. The usage of the cache and the time of a step are
// those of the first part.
func (a *assembly) stats() stats.Engine {
	sum := a.parts[0].stats()
	for _, p := range a.parts[1:] {
		sum.Add(p.stats())
	}
	return sum
}

// addOverrun adds a running call that is over its budget of cpu to a beat, under the name phase. Of
// several, the beat keeps the call that exceeds its budget by the most CPU time.
func addOverrun(b *link.Beat, phase string, cpu *budget.CPU) {
	if since, running := cpu.Overrun(); running && (b.Overrun == "" || since.Milliseconds() > b.OverrunCPUMS) {
		b.Overrun, b.OverrunCPUMS = phase, since.Milliseconds()
	}
}
