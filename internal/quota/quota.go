// Package quota bounds what callers hold of something of which there is only so much:
// connections, places in a queue, memory of requests. It does not know what it counts.
package quota

import (
	"context"
	"sync"

	"github.com/inferd-go/inferd/internal/infer"
)

// A Quota counts. Besides each caller and all together it bounds each user: to half of
// all, or what one caller may have if that is more, so that nobody takes everything by
// having many programs.
type Quota struct {
	PerCaller int64 // 0 is nothing
	Total     int64 // 0 is nothing

	mu      sync.Mutex // guards the fields below
	total   int64
	users   map[string]int64
	callers map[infer.Caller]int64
	given   chan struct{} // closed when something is given back; nil while nobody waits
}

// Take takes n for a caller, or reports false if it has no room for it.
func (q *Quota) Take(c infer.Caller, n int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.takeLocked(c, n)
}

// Wait takes n for a caller as soon as there is room. It returns the cause of ctx if
// that ends first.
func (q *Quota) Wait(ctx context.Context, c infer.Caller, n int64) error {
	for {
		q.mu.Lock()
		if q.takeLocked(c, n) {
			q.mu.Unlock()
			return nil
		}
		if q.given == nil {
			q.given = make(chan struct{})
		}
		given := q.given
		q.mu.Unlock()
		select {
		case <-given:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Give gives back n that a caller had taken.
func (q *Quota) Give(c infer.Caller, n int64) {
	if n == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.total -= n
	if q.users[c.User] -= n; q.users[c.User] == 0 {
		delete(q.users, c.User)
	}
	if q.callers[c] -= n; q.callers[c] == 0 {
		delete(q.callers, c)
	}
	if q.given != nil {
		close(q.given)
		q.given = nil
	}
}

func (q *Quota) takeLocked(c infer.Caller, n int64) bool {
	perUser := max(q.PerCaller, q.Total/2)
	if q.total+n > q.Total || q.users[c.User]+n > perUser || q.callers[c]+n > q.PerCaller {
		return false
	}
	if q.callers == nil {
		q.callers = make(map[infer.Caller]int64)
		q.users = make(map[string]int64)
	}
	q.total += n
	q.users[c.User] += n
	q.callers[c] += n
	return true
}

// Taken is how much all callers have together.
func (q *Quota) Taken() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.total
}
