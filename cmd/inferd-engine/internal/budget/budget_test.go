package budget_test

import (
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/budget"
)

func TestDo(t *testing.T) {
	for name, test := range map[string]struct {
		takes   time.Duration // of wall time
		share   float64       // part of takes that is CPU time
		want    error
		returns time.Duration // of wall time, at most
	}{
		"a short call": {time.Millisecond, 1, nil, time.Millisecond},
		"a call that has little of a busy processor": {time.Minute, 0.01, nil, time.Minute},
		"a call just within its budget":              {5*time.Second - 1, 1, nil, 5 * time.Second},
		"a call over its budget":                     {time.Hour, 1, budget.ErrExceeded, 5 * time.Second},
		"the same on a busy processor":               {time.Hour, 0.25, budget.ErrExceeded, 21 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				c := &budget.CPU{Clock: func(int) time.Duration {
					return time.Duration(test.share * float64(time.Since(began)))
				}}
				err := c.Do(func() { time.Sleep(test.takes) })
				if !errors.Is(err, test.want) || time.Since(began) > test.returns {
					t.Errorf("Do = %v after %v, want %v within %v", err, time.Since(began), test.want, test.returns)
				}
				since, running := c.Overrun()
				if since != 0 || running != (test.want != nil) {
					t.Errorf("at once: Overrun = %v, %v", since, running)
				}
				time.Sleep(8 * time.Second)
				if since, running := c.Overrun(); running && since != time.Duration(8*test.share*float64(time.Second)) {
					t.Errorf("8 s later: Overrun = %v, %v", since, running)
				}
				time.Sleep(time.Hour) // the call has returned
				if since, running := c.Overrun(); since != 0 || running {
					t.Errorf("after its end: Overrun = %v, %v", since, running)
				}
			})
		})
	}
}

// The kernel's clock of a thread advances while the thread works, and not while it sleeps.
func TestClock(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c := &budget.CPU{}
	measure := func(f func()) time.Duration {
		w := c.Begin(func() { t.Error("an overrun") })
		f()
		used, exceeded := w.End()
		if exceeded {
			t.Error("exceeded")
		}
		return used
	}
	if used := measure(func() { time.Sleep(20 * time.Millisecond) }); used > 15*time.Millisecond {
		t.Errorf("asleep: %v of CPU", used)
	}
	n := 0
	if used := measure(func() {
		for begun := time.Now(); time.Since(begun) < 20*time.Millisecond; n++ {
		}
	}); used <= 0 || used > 5*time.Second {
		t.Errorf("at work: %v of CPU", used)
	}
}

// The CPU time of an overrun is that of the call's thread, measured from another thread.
func TestOverrun(t *testing.T) {
	c := &budget.CPU{Limit: 20 * time.Millisecond}
	var stop atomic.Bool
	if err := c.Do(func() {
		for !stop.Load() {
		}
	}); !errors.Is(err, budget.ErrExceeded) {
		t.Fatalf("Do = %v", err)
	}
	for { // until the thread has used its time
		since, running := c.Overrun()
		if !running {
			t.Fatal("no overrun")
		}
		if since > 0 {
			break
		}
		runtime.Gosched()
	}
	stop.Store(true)
	for _, running := c.Overrun(); running; _, running = c.Overrun() {
		runtime.Gosched()
	}
}
