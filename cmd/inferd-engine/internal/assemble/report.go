package assemble

import (
	"math"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/budget"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/progress"
	"github.com/inferd-go/inferd/internal/link"
)

// beatOf translates the progress of a loop for the link.
func beatOf(r progress.Report) link.Beat {
	return link.Beat{
		Steps: r.Units, Phase: r.Phase.String(), SinceMS: r.Since.Milliseconds(),
		Calls: r.Calls, StepCPUMS: int64(math.Ceil(float64(r.CPU) / float64(time.Millisecond))),
	}
}

// addOverrun adds a running call that is over its budget. Of several, a beat names the call
// with the most CPU time since.
func addOverrun(b *link.Beat, phase string, of *budget.CPU) {
	if since, running := of.Overrun(); running && (b.Overrun == "" || since.Milliseconds() > b.OverrunCPUMS) {
		b.Overrun, b.OverrunCPUMS = phase, since.Milliseconds()
	}
}

// statsOf translates the statistics of a loop for the link.
func statsOf(s batch.Stats, nCtx int) link.Stats {
	all := link.Stats{
		KVSize: nCtx, KVUsed: s.Used, KVKept: s.Retained, KVStored: s.Offloaded, Sequences: s.Running + s.Paused, Parked: s.Paused,
		Steps: s.Steps, Stalls: s.Stalls, StepMS: float64(s.Step.Microseconds()) / 1000,
		KVDead: s.Dead, KVSlides: s.Slides, KVSlid: s.Slid, PrefillTokens: s.Prefill, DecodeTokens: s.Decode, CachedTokens: s.Cached, Dropped: s.Evicted, Aborted: s.Aborted,
		Users: make(map[string]link.UserStats),
	}
	for user, o := range s.Owners {
		if user != "" {
			all.Users[user] = link.UserStats{KV: o.Used + o.Retained, CachedTokens: o.Cached}
		}
	}
	return all
}
