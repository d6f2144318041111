// Package inbox passes values from any goroutine to the goroutine of a loop, and wakes the loop. It
// depends neither on the values nor on the work of the loop.
package inbox

import (
	"sync"
	"time"
)

// An Inbox holds submitted values until its loop takes them. The zero value works. Submit and
// Wake may be called from any goroutine, the other methods only from the loop's.
type Inbox[T any] struct {
	once sync.Once     // guards the making of wake
	wake chan struct{} // has room for one

	mu     sync.Mutex // guards the fields below
	values []T
	closed bool
}

// Submit adds a value and wakes the loop. It reports false once the inbox is closed.
func (b *Inbox[T]) Submit(v T) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.values = append(b.values, v)
	b.Wake()
	return true
}

// Wake ends the current wait of the loop or, if the loop does not wait, its next wait.
func (b *Inbox[T]) Wake() {
	select {
	case b.signal() <- struct{}{}:
	default:
	}
}

func (b *Inbox[T]) signal() chan struct{} {
	b.once.Do(func() { b.wake = make(chan struct{}, 1) })
	return b.wake
}

// Take returns the values submitted since the last call, in the order of submission.
func (b *Inbox[T]) Take() []T {
	b.mu.Lock()
	defer b.mu.Unlock()
	values := b.values
	b.values = nil
	return values
}

// Close makes Submit refuse further values, and returns the values that were not taken.
func (b *Inbox[T]) Close() []T {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	return b.Take()
}

// Wait waits for a wake-up.
func (b *Inbox[T]) Wait() { <-b.signal() }

// WaitUntil waits for the deadline or for a wake-up. It reports true if the deadline came first.
func (b *Inbox[T]) WaitUntil(deadline time.Time) bool {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-b.signal():
		return false
	case <-timer.C:
		return true
	}
}
