package daemon

import (
	"context"
	"net"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"sync"
	"time"

	"github.com/inferd-go/inferd/client/stats"
	"github.com/inferd-go/inferd/internal/infer"
)

// A desk executes the verbs of the control socket, and gives statistics and estimates to HTTP. It
// exists from before the config is read, with an empty chain, until the control socket is closed.
type desk struct {
	version string
	begin   time.Time
	bounds  *bounds
	lost    func() int64 // returns the number of lines that the activity log has lost

	mu     sync.Mutex // guards the fields below
	chain  *chain     // never nil: at first it is empty
	closed bool       // the daemon drains
	bound  []stats.Listener
	// unknown returns the number of HTTP connections over TCP from unknown users. It is nil if
	// users are not looked up.
	unknown func() int64
}

// addListener records that a surface is bound. It records the absolute path of a socket, because the
// working folder of a client may differ from the daemon's.
func (d *desk) addListener(surface string, ln net.Listener) {
	at := ln.Addr().String()
	if _, ok := ln.Addr().(*net.UnixAddr); ok {
		if path, err := filepath.Abs(at); err == nil {
			at = path
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bound = append(d.bound, stats.Listener{Surface: surface, Addr: at})
}

func (d *desk) listeners() []stats.Listener {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]stats.Listener{}, d.bound...)
}

// setUnknownPeers sets the function that counts the connections of unknown users.
func (d *desk) setUnknownPeers(unknown func() int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unknown = unknown
}

func (d *desk) unknownPeers() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.unknown == nil {
		return 0
	}
	return d.unknown()
}

// setChain replaces the chain. If the daemon drains, the new chain refuses all requests.
func (d *desk) setChain(c *chain) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.chain = c
	if d.closed {
		c.refuse()
	}
}

// close makes the present chain, and any later one, refuse all requests.
func (d *desk) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.chain.refuse()
}

func (d *desk) currentChain() *chain {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.chain
}

// retry restarts the engine of an entry that was given up.
func (d *desk) retry(_ context.Context, name string) error { return d.currentChain().retry(name) }

// retryAfter estimates the time after which a refused request, if it is sent again, would get a
// slot.
func (d *desk) retryAfter(req *infer.Request) time.Duration {
	return d.currentChain().gate.RetryAfter(req)
}

// engineTimeout bounds the wait for the statistics of an engine, which answers within a millisecond
// unless it is stopped.
const engineTimeout = 500 * time.Millisecond

func (d *desk) stats(ctx context.Context) *stats.Daemon {
	s := &stats.Daemon{
		UptimeMS: time.Since(d.begin).Milliseconds(), Version: d.version,
		Connections: int(d.bounds.conns.Taken()), UnknownPeers: d.unknownPeers(), HeldBytes: d.bounds.memory.Taken(),
		Goroutines: runtime.NumGoroutine(), HeapBytes: heap(), LogLost: d.lost(),
		Callers: []stats.Caller{}, Listeners: d.listeners(),
	}
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	c := d.currentChain()
	s.Backends = c.describe(ctx)
	seen := c.gate.Stats()
	s.Running, s.Waiting, s.Parked, s.Stalled = seen.Running, seen.Waiting, seen.Parked, seen.Stalled
	for _, caller := range seen.Callers {
		caller.KVTokens = kvOf(caller.User, s.Backends)
		s.Callers = append(s.Callers, caller)
	}
	for _, p := range seen.Backends {
		for i := range s.Backends {
			if b := &s.Backends[i]; b.Name == p.Name {
				b.Counts = p.Counts
			}
		}
	}
	return s
}

// kvOf returns the number of tokens of KV that all engines together keep for a user. Engines do not
// distinguish the programs of a user.
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

// heap returns the size of the live objects and of those not yet swept, in bytes; 0 if it is
// unknown.
func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return sample[0].Value.Uint64()
}
