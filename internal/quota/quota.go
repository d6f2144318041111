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
	total   count
	users   map[string]count
	callers map[infer.Caller]count
	given   chan struct{} // closed when something is given back; nil while nobody waits
}

// A count is what is taken, and how much of that those have who wait for more.
type count struct{ taken, waits int64 }

// Take takes n for a caller, or reports false if it has no room for it.
func (q *Quota) Take(c infer.Caller, n int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.fitsLocked(c, n, 0) {
		return false
	}
	q.addLocked(c, count{taken: n})
	return true
}

// Wait takes n for a caller as soon as there is room; has is what it was given before, and
// will not give back until it gets more. It returns the cause of ctx if that ends first.
//
// Where everything that is taken is held by some who wait for more, nobody would ever give
// anything back. Then one of them gets it past the bounds, if has and n together are no
// more than a caller may have.
func (q *Quota) Wait(ctx context.Context, c infer.Caller, n, has int64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.addLocked(c, count{waits: has})
	defer func() { q.addLocked(c, count{waits: -has}) }()
	for !q.fitsLocked(c, n, has) {
		if q.given == nil {
			q.given = make(chan struct{})
		}
		given := q.given
		q.mu.Unlock()
		select {
		case <-given:
			q.mu.Lock()
		case <-ctx.Done():
			q.mu.Lock()
			return context.Cause(ctx)
		}
	}
	q.addLocked(c, count{taken: n})
	return nil
}

// Give gives back n that a caller had taken.
func (q *Quota) Give(c infer.Caller, n int64) {
	if n == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.addLocked(c, count{taken: -n})
	if q.given != nil {
		close(q.given)
		q.given = nil
	}
}

// fitsLocked reports whether a caller that has some already, for the same end, may take n.
func (q *Quota) fitsLocked(c infer.Caller, n, has int64) bool {
	room := func(now count, bound int64) bool {
		stuck := 0 < has && has < now.taken && now.taken == now.waits && has+n <= q.PerCaller
		return now.taken+n <= bound || stuck
	}
	return room(q.total, q.Total) && room(q.users[c.User], max(q.PerCaller, q.Total/2)) && room(q.callers[c], q.PerCaller)
}

func (q *Quota) addLocked(c infer.Caller, more count) {
	if q.callers == nil {
		q.callers = make(map[infer.Caller]count)
		q.users = make(map[string]count)
	}
	q.total = q.total.and(more)
	if q.users[c.User] = q.users[c.User].and(more); q.users[c.User] == (count{}) {
		delete(q.users, c.User)
	}
	if q.callers[c] = q.callers[c].and(more); q.callers[c] == (count{}) {
		delete(q.callers, c)
	}
}

func (a count) and(b count) count { return count{a.taken + b.taken, a.waits + b.waits} }

// Taken is how much all callers have together.
func (q *Quota) Taken() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.total.taken
}
