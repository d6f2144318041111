package proc

import (
	"sync"
	"syscall"
	"time"
)

// A Usage is a reading of a child's resources. Durations and counts are totals of the
// readings so far; they never fall.
type Usage struct {
	// State is 'T' if the process is stopped, 'D' if any thread is in uninterruptible sleep,
	// 'R' if any thread runs or waits for a CPU, else the letter of the main thread, as in
	// /proc/PID/stat.
	State  byte
	Tracer int           // process that traces it; 0 is none
	CPU    time.Duration // used by all threads
	Wait   time.Duration // spent by all threads waiting for a CPU
	Faults int64         // major page faults
}

// A meter adds up the figures of a process's threads. Threads come and go, and the kernel
// drops the figures of a thread that has ended.
type meter struct {
	mu    sync.Mutex // guards the fields below
	total Usage
	last  map[int]threadUsage // of the threads of the last reading
}

type threadUsage struct{ cpu, wait time.Duration }

// add adds a reading and returns the totals. A figure that fell belongs to a new thread
// with an old number.
func (m *meter) add(u Usage, threads map[int]threadUsage) Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, now := range threads {
		before := m.last[id]
		if now.cpu < before.cpu || now.wait < before.wait {
			before = threadUsage{}
		}
		m.total.CPU += now.cpu - before.cpu
		m.total.Wait += now.wait - before.wait
	}
	m.last = threads
	m.total.State, m.total.Tracer = u.State, u.Tracer
	m.total.Faults = max(m.total.Faults, u.Faults)
	return m.total
}

// Usage reads the child's resources. It reports false if they are unknown: the process has
// ended, the platform does not report them, or a file cannot be read, for example because
// the parent has no descriptor left.
func (c *Child) Usage() (Usage, bool) {
	u, threads, err := usageOf(c.PID())
	if err != nil || !c.ours() {
		return Usage{}, false
	}
	return c.meter.add(u, threads), true
}

// Frozen reports whether the child's cgroup is frozen. It reports false for known if that
// cannot be read. A platform without cgroups has no frozen processes.
func (c *Child) Frozen() (frozen, known bool) {
	frozen, err := frozenOf(c.PID())
	return frozen, err == nil && c.ours()
}

// ours reports whether the process has not been reaped yet, so that its number is not
// another one's. Asked after a reading, it vouches for the reading.
func (c *Child) ours() bool { return c.cmd.Process.Signal(syscall.Signal(0)) == nil }

// UsageKnown reports whether the platform reports the resources of a child.
func UsageKnown() bool { return usageKnown }

// SuspendedTime returns how long the machine has been suspended since its start: the boot
// clock minus the monotone clock, which are read one after the other: two readings without a
// suspend in between differ by as much as the reader was held up. It is 0 where the platform does not report it.
func SuspendedTime() time.Duration { return suspendedTime() }
