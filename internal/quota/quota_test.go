package quota_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/quota"
)

func caller(user, program string) infer.Caller { return infer.Caller{User: user, Program: program} }

func TestBounds(t *testing.T) {
	q := &quota.Quota{PerCaller: 3, Total: 12}
	fill := func(c infer.Caller) (n int) {
		for q.TryAcquire(c, 1) {
			n++
		}
		return n
	}
	if n := fill(caller("1", "a")); n != 3 {
		t.Errorf("one program got %d, want 3", n)
	}
	more := 0
	for i := range 10 {
		more += fill(caller("1", fmt.Sprint("copy", i)))
	}
	if more != 3 {
		t.Errorf("copies of it got %d more, want 3: half of all", more)
	}
	if n := fill(caller("2", "a")); n != 3 {
		t.Errorf("another user got %d, want 3", n)
	}
	q.Release(caller("1", "a"), 2)
	if n := fill(caller("1", "a")); n != 2 {
		t.Errorf("after giving back 2 it got %d", n)
	}
}

func TestAcquireWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &quota.Quota{PerCaller: 10, Total: 10}
		c := caller("1", "a")
		q.TryAcquire(c, 8)
		got := make(chan error)
		go func() { got <- q.Acquire(t.Context(), c, 5, 0) }()
		synctest.Wait()
		q.Release(c, 2)
		synctest.Wait()
		select {
		case err := <-got:
			t.Fatalf("acquired 5 of 4 free units: %v", err)
		default:
		}
		q.Release(c, 1)
		if err := <-got; err != nil {
			t.Error(err)
		}
		cause := errors.New("cancelled")
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { got <- q.Acquire(ctx, c, 5, 0) }()
		synctest.Wait()
		cancel(cause)
		if err := <-got; !errors.Is(err, cause) {
			t.Error(err)
		}
		if q.Taken() != 10 {
			t.Errorf("%d are taken, want 10", q.Taken())
		}
	})
}

// If all holders wait for more units, at the bound per caller or at the total, they do not
// deadlock, but proceed one after the other. A single holder that needs more than its bound waits
// until its context ends.
func TestHoldersDoNotDeadlock(t *testing.T) {
	for name, q := range map[string]*quota.Quota{
		"at the bound per caller": {PerCaller: 10, Total: 100},
		"at the total":            {PerCaller: 10, Total: 10},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := caller("1", "a")
				var finished atomic.Int32
				var all sync.WaitGroup
				q.TryAcquire(c, 9) // 3 for each holder
				for range 3 {
					all.Go(func() {
						for held := int64(3); held < 9; held += 3 {
							if err := q.Acquire(t.Context(), c, 3, held); err != nil {
								t.Error(err)
							}
							if n := q.Taken(); n > 2*q.PerCaller {
								t.Errorf("%d are taken", n)
							}
						}
						finished.Add(1)
						q.Release(c, 9)
					})
				}
				all.Wait()
				if finished.Load() != 3 || q.Taken() != 0 {
					t.Errorf("%d finished, %d units are taken", finished.Load(), q.Taken())
				}
				q.TryAcquire(c, 8)
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				if err := q.Acquire(ctx, c, 3, 8); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("single holder: %v", err)
				}
				other := caller("2", "b")
				if q.TryAcquire(other, 2) {
					go func() { _ = q.Acquire(ctx, other, 9, 2) }() // more than any caller may hold
					synctest.Wait()
					if q.Taken() != 10 {
						t.Errorf("%d are taken", q.Taken())
					}
					cancel()
				}
			})
		})
	}
}

// In any order of operations, no bound is exceeded and no unit is lost.
func TestCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := &quota.Quota{PerCaller: rapid.Int64Range(0, 8).Draw(t, "per caller"), Total: rapid.Int64Range(0, 20).Draw(t, "total")}
		held := make(map[infer.Caller]int64)
		users := make(map[string]int64)
		total := int64(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			c := caller(rapid.SampledFrom([]string{"1", "2"}).Draw(t, "user"), rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "program"))
			n := rapid.Int64Range(1, 4).Draw(t, "n")
			if held[c] >= n && rapid.Bool().Draw(t, "release") {
				q.Release(c, n)
				n = -n
			} else {
				fits := total+n <= q.Total && held[c]+n <= q.PerCaller && users[c.User]+n <= max(q.PerCaller, q.Total/2)
				if got := q.TryAcquire(c, n); got != fits {
					t.Fatalf("TryAcquire(%v, %d) = %v, held: %v", c, n, got, held)
				}
				if !fits {
					continue
				}
			}
			held[c] += n
			users[c.User] += n
			total += n
			if q.Taken() != total {
				t.Fatalf("Taken = %d, want %d", q.Taken(), total)
			}
		}
	})
}
