// Package computelock serialises the computation of the engines of one daemon, so that each
// has all cores while it computes: two engines that compute at once on the same cores take
// ten to forty times as long, not twice, because the threads of each wait for one another
// after every layer. It depends neither on the computation nor on the number of engines.
package computelock

import (
	"cmp"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/trust"
)

// A Lock is one engine's handle of a file that all engines lock. When an engine ends, the kernel
// releases its lock. The zero value and nil lock nothing. Only one goroutine at a time may use a
// Lock.
type Lock struct {
	// Timeout bounds the wait for the lock; 0 means 2 s. After that the engine computes without the
	// lock, so that an engine that hangs, or computes for longer, does not stop the others.
	Timeout time.Duration

	file    *os.File
	pending chan struct{} // closed when the lock is granted after a timeout; nil if no such request is outstanding
}

// Open opens the lock file, which the daemon has made. It refuses a symbolic link, a file that is
// not regular, and a file that other users can change.
func Open(path string) (*Lock, error) {
	f, err := trust.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("compute lock: %w", err)
	}
	return &Lock{file: f}, nil
}

// The bytes of the file that are locked. A waiter locks the queue byte before the compute
// byte, so an engine that has just released the lock queues behind those already waiting.
const (
	queueByte   = 0
	computeByte = 1
)

// Do runs compute while it holds the lock, or without it if the lock is not granted in time.
func (l *Lock) Do(compute func()) {
	if l.acquire() {
		defer l.unlock(computeByte)
	}
	compute()
}

// acquire waits for the lock, and reports whether it is granted. It reports false after l.Timeout, at
// once if there is no lock file, and at once while an earlier request that timed out is not granted.
func (l *Lock) acquire() bool {
	if l == nil || l.file == nil {
		return false
	}
	if l.pending != nil { // an earlier request has timed out: another engine hangs, or has hung
		select {
		case <-l.pending:
			l.pending = nil
			return true
		default:
			return false
		}
	}
	if l.lock(queueByte, unix.F_OFD_SETLK) {
		granted := l.lock(computeByte, unix.F_OFD_SETLK)
		if granted {
			l.unlock(queueByte)
			return true
		}
	}
	granted := make(chan struct{})
	go func() { // ends when the lock is granted, at the latest when the engine that holds it ends
		defer close(granted)
		if l.lock(queueByte, unix.F_OFD_SETLKW) {
			l.lock(computeByte, unix.F_OFD_SETLKW)
			l.unlock(queueByte)
		}
	}()
	timer := time.NewTimer(cmp.Or(l.Timeout, 2*time.Second))
	defer timer.Stop()
	select {
	case <-granted:
		return true
	case <-timer.C:
		l.pending = granted
		return false
	}
}

// lock tries to lock a byte of the file, and reports whether it succeeded.
func (l *Lock) lock(at int64, how int) bool {
	for {
		err := unix.FcntlFlock(l.file.Fd(), how, &unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1})
		if err != unix.EINTR {
			return err == nil
		}
	}
}

func (l *Lock) unlock(at int64) {
	_ = unix.FcntlFlock(l.file.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK, Start: at, Len: 1}) // cannot fail, because this handle has locked the byte
}
