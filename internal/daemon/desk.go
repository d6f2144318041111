package daemon

import (
	"context"
	"runtime"
	"runtime/metrics"
	"sync/atomic"
	"time"

	"github.com/inferd-go/inferd/client/stats"
	"github.com/inferd-go/inferd/internal/admit"
	"github.com/inferd-go/inferd/internal/quota"
)

// A desk answers an operator who asks how busy the daemon is. It is there before the
// gate.
type desk struct {
	version       string
	begin         time.Time
	conns, memory *quota.Quota
	backends      *backends
	lost          func() int64               // lines of the activity log
	gate          atomic.Pointer[admit.Gate] // nil until requests are let in
}

// open makes the gate known.
func (d *desk) open(g *admit.Gate) { d.gate.Store(g) }

// close closes the gate, if there is one: nobody new is let in.
func (d *desk) close() {
	if g := d.gate.Load(); g != nil {
		g.Close()
	}
}

// engineTimeout is how long an engine may take to say how it is. It takes a millisecond,
// or is stopped.
const engineTimeout = 500 * time.Millisecond

func (d *desk) stats(ctx context.Context) *stats.Daemon {
	s := &stats.Daemon{
		UptimeMS: time.Since(d.begin).Milliseconds(), Version: d.version,
		Connections: int(d.conns.Taken()), HeldBytes: d.memory.Taken(),
		Goroutines: runtime.NumGoroutine(), HeapBytes: heap(), LogLost: d.lost(),
		Callers: []stats.Caller{},
	}
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	s.Backends = d.backends.list(ctx)
	gate := d.gate.Load()
	if gate == nil {
		return s
	}
	seen := gate.Stats()
	s.Running, s.Waiting, s.Parked, s.Stalled = seen.Running, seen.Waiting, seen.Parked, seen.Stalled
	for _, c := range seen.Callers {
		s.Callers = append(s.Callers, stats.Caller{
			User: c.User, Program: c.Program, Exe: c.Exe, Refused: c.Refused,
			Counts: countsOf(c.Counts), KVTokens: kvOf(c.User, s.Backends),
		})
	}
	for _, p := range seen.Places {
		for i := range s.Backends {
			if b := &s.Backends[i]; b.Name == p.Name {
				b.Counts = countsOf(p.Counts)
			}
		}
	}
	return s
}

func countsOf(c admit.Counts) stats.Counts {
	return stats.Counts{
		Running: c.Running, Waiting: c.Waiting, Parked: c.Parked, Stalled: c.Stalled,
		Requests: c.Requests, InputTokens: c.In, OutputTokens: c.Out, CachedTokens: c.Cached, Rate: c.Rate,
	}
}

// kvOf is how many tokens all engines hold for a user: they do not know programs.
func kvOf(user string, backends []stats.Backend) (tokens int) {
	for _, b := range backends {
		if b.Engine == nil {
			continue
		}
		for _, u := range b.Engine.Users {
			if u.User == user {
				tokens += u.KVTokens
			}
		}
	}
	return tokens
}

// heap is how many bytes live objects, and those not yet swept, have.
func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return sample[0].Value.Uint64()
}
