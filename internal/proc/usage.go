package proc

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"
)

// A Usage is a reading of a child's resources. Durations and counts are totals since the child's
// start, and never fall. CPU and Wait lack the time that a thread used between the last reading and
// its end.
type Usage struct {
	// State is 'T' if the process is stopped, else 'D' if any thread is in uninterruptible sleep,
	// else 'R' if any thread runs or waits for a CPU, else the state letter of the main thread in
	// /proc/PID/stat.
	State  byte
	Tracer int           // number of the process that traces the child; 0: none
	CPU    time.Duration // used by all threads
	Wait   time.Duration // spent by all threads waiting for a CPU
	Faults int64         // major page faults
}

// A meter adds up the CPU and wait times of a process's threads. It keeps the times of threads that
// have ended, which the kernel no longer reports.
type meter struct {
	mu    sync.Mutex // guards the fields below
	total Usage
	last  map[int]threadUsage // by thread number, of the last reading
}

type threadUsage struct{ cpu, wait time.Duration }

// add adds a reading and returns the totals. A time below that of the last reading belongs to a new
// thread with a reused number.
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
// not report them. Any other error does not imply that the child has ended: the parent may have
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

// Frozen reports whether the child's cgroup is frozen. On a platform without cgroups it returns false.
// As with Usage, an error does not imply that the child has ended.
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

// unreaped returns an error if the process has been reaped. Then another process may have its number,
// so a reading is valid only if a later call of unreaped succeeds.
func (c *Child) unreaped() error { return c.cmd.Process.Signal(syscall.Signal(0)) }

// OutOfResources reports whether an error means that the system has run out of descriptors,
// processes or memory for the moment.
func OutOfResources(err error) bool {
	for _, scarce := range []error{syscall.EMFILE, syscall.ENFILE, syscall.EAGAIN, syscall.ENOMEM} {
		if errors.Is(err, scarce) {
			return true
		}
	}
	return false
}

// SuspendedTime returns the time that the machine has been suspended since its start: the boot
// clock minus the monotonic clock. The monotonic clock is read first, so any delay between the two
// reads makes the result too long. It is 0 if the platform does not report it.
func SuspendedTime() time.Duration { return suspendedTime() }
