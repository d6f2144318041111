package daemon

import (
	"context"
	"maps"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync/atomic"
	"time"

	"github.com/inferd-go/inferd/internal/admit"
	"github.com/inferd-go/inferd/internal/count"
	"github.com/inferd-go/inferd/internal/link"
	"github.com/inferd-go/inferd/internal/quota"
	"github.com/inferd-go/inferd/internal/wire/control"
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
	counter       atomic.Pointer[count.Desk] // as gate
}

// open makes the gate and the counter in front of it known.
func (d *desk) open(g *admit.Gate, c *count.Desk) {
	d.gate.Store(g)
	d.counter.Store(c)
}

// close closes the gate, if there is one: nobody new is let in.
func (d *desk) close() {
	if g := d.gate.Load(); g != nil {
		g.Close()
	}
	if c := d.counter.Load(); c != nil {
		c.Close()
	}
}

// engineTimeout is how long an engine may take to say how it is. It takes a millisecond,
// or is stopped.
const engineTimeout = 500 * time.Millisecond

func (d *desk) stats(ctx context.Context) *control.Stats {
	s := &control.Stats{
		UptimeMS: time.Since(d.begin).Milliseconds(), Version: d.version,
		Connections: d.conns.Taken(), HeldBytes: d.memory.Taken(),
		Goroutines: runtime.NumGoroutine(), HeapBytes: heap(), LogLost: d.lost(),
		Callers: []control.Caller{},
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
		s.Callers = append(s.Callers, control.Caller{
			User: c.User, Program: c.Program, Exe: c.Exe, Refused: c.Refused,
			Counts: countsOf(c.Counts), KVTokens: kvOf(c.User, s.Backends),
		})
	}
	for _, p := range seen.Backends {
		for i := range s.Backends {
			if b := &s.Backends[i]; b.Name == p.Name {
				b.Counts = countsOf(p.Counts)
			}
		}
	}
	return s
}

func countsOf(c admit.Counts) control.Counts {
	return control.Counts{
		Running: c.Running, Waiting: c.Waiting, Parked: c.Parked, Stalled: c.Stalled,
		Requests: c.Requests, In: c.In, Out: c.Out, Cached: c.Cached, Rate: c.Rate,
	}
}

// kvOf is how many tokens all engines hold for a user: they do not know programs.
func kvOf(user string, backends []control.Backend) (tokens int) {
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

// engineOf says in the words of the control socket how an engine is.
func engineOf(s *link.Stats) *control.Engine {
	e := &control.Engine{
		KVSize: s.KVSize, KVUsed: s.KVUsed, KVKept: s.KVKept, KVStored: s.KVStored, KVDead: s.KVDead, Sequences: s.Sequences, Parked: s.Parked,
		Steps: s.Steps, StepMS: s.StepMS, Stalls: s.Stalls,
		PrefillTokens: s.PrefillTokens, DecodeTokens: s.DecodeTokens, CachedTokens: s.CachedTokens,
		Dropped: s.Dropped, Aborted: s.Aborted, KVSlides: s.KVSlides, KVSlid: s.KVSlid,
	}
	for _, name := range slices.Sorted(maps.Keys(s.Users)) {
		u := s.Users[name]
		e.Users = append(e.Users, control.EngineUser{User: name, KVTokens: u.KV, CachedTokens: u.CachedTokens})
	}
	return e
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
