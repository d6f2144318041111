// Package turn has the engines of one daemon compute one after the other, so that each has
// all cores while it does: two that compute at once on the same cores do not take twice as
// long, but ten or forty times, for the threads of each wait for one another at every layer. It
// knows nothing of what is computed, nor how many engines there are.
package turn

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Patience is how long a step waits for its turn. A neighbour that is stopped, or that
// computes for so long, must not stop everybody.
const Patience = 2 * time.Second

// A Turn is one engine's part in a file that all of them lock. The kernel takes back what an
// engine had that dies. The zero value and nil are alone, and never wait. It is used by one
// goroutine.
type Turn struct {
	file *os.File
	late chan struct{} // closed when the turn has come for which somebody would not wait; nil if there is none
}

// Open takes part in the turns of a file, which the daemon has made.
func Open(path string) (*Turn, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("turns: %w", err)
	}
	return &Turn{file: f}, nil
}

// The bytes of the file that are locked. Who wants a turn stands at the door until the seat
// is free; so who has just had it comes behind who waits.
const (
	door = 0
	seat = 1
)

// Do computes a step when it is its turn.
func (t *Turn) Do(step func()) {
	if t.take() {
		defer t.unlock(seat)
	}
	step()
}

// take waits for the seat. It reports false if there is none, or if that took too long.
func (t *Turn) take() bool {
	if t == nil || t.file == nil {
		return false
	}
	if t.late != nil { // a neighbour hangs, or has hung
		select {
		case <-t.late:
			t.late = nil
			return true
		default:
			return false
		}
	}
	if t.lock(door, unix.F_OFD_SETLK) {
		free := t.lock(seat, unix.F_OFD_SETLK)
		if free {
			t.unlock(door)
			return true
		}
	}
	came := make(chan struct{})
	go func() { // ends when the turn comes, at the latest when the neighbour ends
		defer close(came)
		if t.lock(door, unix.F_OFD_SETLKW) {
			t.lock(seat, unix.F_OFD_SETLKW)
			t.unlock(door)
		}
	}()
	timer := time.NewTimer(Patience)
	defer timer.Stop()
	select {
	case <-came:
		return true
	case <-timer.C:
		t.late = came
		return false
	}
}

// lock reports whether a byte of the file is ours now.
func (t *Turn) lock(at int64, how int) bool {
	for {
		err := unix.FcntlFlock(t.file.Fd(), how, &unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1})
		if err != unix.EINTR {
			return err == nil
		}
	}
}

func (t *Turn) unlock(at int64) {
	_ = unix.FcntlFlock(t.file.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK, Start: at, Len: 1}) // it was ours
}
