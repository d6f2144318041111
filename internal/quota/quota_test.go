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

func TestNobodyTakesEverything(t *testing.T) {
	q := &quota.Quota{PerCaller: 3, Total: 12}
	take := func(c infer.Caller) (n int) {
		for q.Take(c, 1) {
			n++
		}
		return n
	}
	if n := take(caller("1", "a")); n != 3 {
		t.Errorf("one program got %d, want 3", n)
	}
	more := 0
	for i := range 10 {
		more += take(caller("1", fmt.Sprint("copy", i)))
	}
	if more != 3 {
		t.Errorf("copies of it got %d more, want 3: half of all", more)
	}
	if n := take(caller("2", "a")); n != 3 {
		t.Errorf("another user got %d, want 3", n)
	}
	q.Give(caller("1", "a"), 2)
	if n := take(caller("1", "a")); n != 2 {
		t.Errorf("after giving back 2 it got %d", n)
	}
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &quota.Quota{PerCaller: 10, Total: 10}
		c := caller("1", "a")
		q.Take(c, 8)
		got := make(chan error)
		go func() { got <- q.Wait(t.Context(), c, 5, 0) }()
		synctest.Wait()
		q.Give(c, 2)
		synctest.Wait()
		select {
		case err := <-got:
			t.Fatalf("4 of 5 were enough: %v", err)
		default:
		}
		q.Give(c, 1)
		if err := <-got; err != nil {
			t.Error(err)
		}
		enough := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { got <- q.Wait(ctx, c, 5, 0) }()
		synctest.Wait()
		cancel(enough)
		if err := <-got; !errors.Is(err, enough) {
			t.Error(err)
		}
		if q.Taken() != 10 {
			t.Errorf("%d are taken, want 10", q.Taken())
		}
	})
}

// Some who hold everything and wait for more do not wait for each other: one after the
// other goes on, whichever bound it is that they stand at. One alone waits in vain.
func TestNobodyWaitsForThoseWhoWait(t *testing.T) {
	for name, q := range map[string]*quota.Quota{
		"of the caller":  {PerCaller: 10, Total: 100},
		"of all of them": {PerCaller: 10, Total: 10},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := caller("1", "a")
				var over atomic.Int32
				var all sync.WaitGroup
				q.Take(c, 9) // 3 of which each has
				for range 3 {
					all.Go(func() {
						for has := int64(3); has < 9; has += 3 {
							if err := q.Wait(t.Context(), c, 3, has); err != nil {
								t.Error(err)
							}
							if n := q.Taken(); n > 2*q.PerCaller {
								t.Errorf("%d are taken", n)
							}
						}
						over.Add(1)
						q.Give(c, 9)
					})
				}
				all.Wait()
				if over.Load() != 3 || q.Taken() != 0 {
					t.Errorf("%d are over, %d are taken", over.Load(), q.Taken())
				}
				q.Take(c, 8)
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				if err := q.Wait(ctx, c, 3, 8); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("one alone: %v", err)
				}
				other := caller("2", "b")
				if q.Take(other, 2) {
					go func() { _ = q.Wait(ctx, other, 9, 2) }() // more than anybody may have
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

// Whatever is taken and given back, no bound is passed and nothing is lost.
func TestCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := &quota.Quota{PerCaller: rapid.Int64Range(0, 8).Draw(t, "per caller"), Total: rapid.Int64Range(0, 20).Draw(t, "total")}
		have := make(map[infer.Caller]int64)
		users := make(map[string]int64)
		total := int64(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			c := caller(rapid.SampledFrom([]string{"1", "2"}).Draw(t, "user"), rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "program"))
			n := rapid.Int64Range(1, 4).Draw(t, "n")
			if have[c] >= n && rapid.Bool().Draw(t, "give") {
				q.Give(c, n)
				n = -n
			} else {
				fits := total+n <= q.Total && have[c]+n <= q.PerCaller && users[c.User]+n <= max(q.PerCaller, q.Total/2)
				if got := q.Take(c, n); got != fits {
					t.Fatalf("Take %d of %v = %v with %v taken", n, c, got, have)
				}
				if !fits {
					continue
				}
			}
			have[c] += n
			users[c.User] += n
			total += n
			if q.Taken() != total {
				t.Fatalf("Taken = %d, want %d", q.Taken(), total)
			}
		}
	})
}
