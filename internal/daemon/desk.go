package daemon

import (
	"runtime"
	"runtime/metrics"
	"sync/atomic"
	"time"

	"github.com/inferd-go/inferd/internal/admit"
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
}

// open makes the gate known.
func (d *desk) open(g *admit.Gate) { d.gate.Store(g) }

func (d *desk) stats() *control.Stats {
	s := &control.Stats{
		UptimeMS: time.Since(d.begin).Milliseconds(), Version: d.version,
		Connections: d.conns.Taken(), HeldBytes: d.memory.Taken(),
		Goroutines: runtime.NumGoroutine(), HeapBytes: heap(), LogLost: d.lost(),
		Callers: []control.Caller{}, Backends: d.backends.list(),
	}
	gate := d.gate.Load()
	if gate == nil {
		return s
	}
	seen := gate.Stats()
	s.Running, s.Waiting = seen.Running, seen.Waiting
	for _, c := range seen.Callers {
		s.Callers = append(s.Callers, control.Caller{
			User: c.User, Program: c.Program, Exe: c.Exe, Refused: c.Refused,
			Counts: control.Counts{Running: c.Running, Waiting: c.Waiting, Requests: c.Requests, In: c.In, Out: c.Out},
		})
	}
	for _, p := range seen.Places {
		for i := range s.Backends {
			if b := &s.Backends[i]; b.Name == p.Name {
				b.Counts = control.Counts{Running: p.Running, Waiting: p.Waiting, Requests: p.Requests, In: p.In, Out: p.Out}
			}
		}
	}
	return s
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
