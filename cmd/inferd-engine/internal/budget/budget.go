// Package budget bounds the CPU time of single calls of foreign code, such as a template, which may
// never return. It measures the CPU clock of the thread that runs the call, not wall time: on a
// busy machine a call spends most of its time waiting. A thread cannot be stopped from outside. So
// a call over its budget is reported, its caller continues without it, and its thread is free again
// when the call returns.
//
// The package does not depend on the work of the calls.
package budget

import (
	"errors"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrExceeded is the error of a call over its budget.
var ErrExceeded = errors.New("the call has used up its CPU time")

// A CPU is the budget of each call of one kind. The zero value works.
type CPU struct {
	Limit time.Duration                  // of CPU time; 0 means 5 s
	Clock func(thread int) time.Duration // CPU time of an OS thread; nil means the kernel's

	mu   sync.Mutex // guards over
	over []*Watch   // calls over their budget that have not returned
}

const (
	defaultLimit = 5 * time.Second
	leastPause   = 50 * time.Millisecond // minimum time between two reads of a clock
)

// Max returns the limit that applies: Limit, or its default.
func (c *CPU) Max() time.Duration {
	if c.Limit > 0 {
		return c.Limit
	}
	return defaultLimit
}

func (c *CPU) clock(thread int) time.Duration {
	if c.Clock != nil {
		return c.Clock(thread)
	}
	return threadTime(thread)
}

// threadTime returns the CPU time of an OS thread, or 0 if the thread has ended. It computes the
// number of the clock like pthread_getcpuclockid.
func threadTime(thread int) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^thread<<3|6), &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// Overrun reports whether a call over its budget still runs. since is the CPU time that the call
// has used since it was found to be over its budget, the maximum if there are several such calls.
func (c *CPU) Overrun() (since time.Duration, running bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.over {
		since = max(since, c.clock(w.thread)-w.exceeded)
	}
	return since, len(c.over) > 0
}

// Do runs f on an OS thread of its own. It returns ErrExceeded once f is over its budget; f
// then continues to run.
func (c *CPU) Do(f func()) error {
	done := make(chan error, 2)
	go func() { // ends when f returns
		runtime.LockOSThread()
		// The thread is unlocked so that it does not end: the end of a thread crashes the process
		// (seen with purego 0.10.0).
		defer runtime.UnlockOSThread()
		w := c.Begin(func() { done <- ErrExceeded })
		f()
		if _, exceeded := w.End(); !exceeded {
			done <- nil
		}
	}()
	return <-done
}

// A Watch measures one call.
type Watch struct {
	cpu    *CPU
	thread int
	begun  time.Duration // on the thread's clock
	exceed func()
	timer  *time.Timer

	// Guarded by cpu.mu.
	ended    bool
	over     bool
	exceeded time.Duration // on the thread's clock, when the overrun was found
}

// Begin starts to measure a call on the calling goroutine, which must be locked to its OS thread.
// If the call is over its budget before End, overrun is called, once and on another goroutine.
func (c *CPU) Begin(overrun func()) *Watch {
	w := &Watch{cpu: c, thread: unix.Gettid(), exceed: overrun}
	w.begun = c.clock(w.thread)
	c.mu.Lock()
	defer c.mu.Unlock()
	// A call does not use more CPU time than wall time, so no earlier check is necessary.
	w.timer = time.AfterFunc(c.Max(), w.check)
	return w
}

// check compares the call's CPU time with the budget. If some is left, it checks again at the
// earliest time at which none may be left.
func (w *Watch) check() {
	if w.exceeds() {
		w.exceed()
	}
}

func (w *Watch) exceeds() bool {
	c := w.cpu
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.ended {
		return false
	}
	now := c.clock(w.thread)
	if left := c.Max() - (now - w.begun); left > 0 {
		w.timer.Reset(max(left, leastPause))
		return false
	}
	w.over, w.exceeded = true, now
	c.over = append(c.over, w)
	return true
}

// End ends the measurement. It returns the CPU time of the call, and reports whether overrun has
// been or is being called.
func (w *Watch) End() (used time.Duration, exceeded bool) {
	c := w.cpu
	used = c.clock(w.thread) - w.begun
	c.mu.Lock()
	defer c.mu.Unlock()
	w.ended = true
	w.timer.Stop()
	c.over = slices.DeleteFunc(c.over, func(o *Watch) bool { return o == w })
	return used, w.over
}
