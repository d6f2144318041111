package proc

import (
	"errors"
	"fmt"
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

// A meter adds up the figures of a process's threads. The kernel drops the figures of a thread
// that has ended; the meter keeps them.
type meter struct {
	mu    sync.Mutex // guards the fields below
	total Usage
	last  map[int]threadUsage // of the threads of the last reading
}

type threadUsage struct{ cpu, wait time.Duration }

// add adds a reading and returns the totals. A figure lower than before belongs to a new thread
// with a reused number.
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

// Usage reads the child's resources. It fails with [errors.ErrUnsupported] if the platform does
// not report them. Any other error is no evidence that the child has ended: the parent may have
// no descriptor left to read a file.
func (c *Child) Usage() (Usage, error) {
	u, threads, err := usageOf(c.PID())
	if err == nil {
		err = c.unreaped()
	}
	if err != nil {
		return Usage{}, fmt.Errorf("usage of a child: %w", err)
	}
	return c.meter.add(u, threads), nil
}

// Frozen reports whether the child's cgroup is frozen. A platform without cgroups has no
// frozen processes. Errors are as those of Usage.
func (c *Child) Frozen() (bool, error) {
	frozen, err := frozenOf(c.PID())
	if err == nil {
		err = c.unreaped()
	}
	if err != nil {
		return false, fmt.Errorf("cgroup of a child: %w", err)
	}
	return frozen, nil
}

// unreaped fails if the process has been reaped: its number may then be reused. A reading is
// valid if unreaped succeeds after it.
func (c *Child) unreaped() error { return c.cmd.Process.Signal(syscall.Signal(0)) }

// OutOfResources reports whether an error means that the system lacks descriptors,
// processes or memory just now.
func OutOfResources(err error) bool {
	for _, scarce := range []error{syscall.EMFILE, syscall.ENFILE, syscall.EAGAIN, syscall.ENOMEM} {
		if errors.Is(err, scarce) {
			return true
		}
	}
	return false
}

// SuspendedTime returns the time that the machine has been suspended since its start: the boot
// clock minus the monotonic clock. The clocks are read one after the other, so the result is too
// long by any delay between the two reads. It is 0 if the platform does not report it.
func SuspendedTime() time.Duration { return suspendedTime() }
