// Package quota bounds the part of a limited resource that each caller holds: connections, or
// memory of requests. It does not depend on the kind of the resource.
package quota

import (
	"context"
	"sync"

	"github.com/inferd-go/inferd/internal/infer"
)

// A Quota counts units of one resource. It bounds the units of each caller, of each user, and of
// all callers together. A user gets half of Total, or PerCaller if that is more, so no user can
// take all units with many programs.
type Quota struct {
	PerCaller int64 // 0 allows nothing
	Total     int64 // 0 allows nothing

	mu       sync.Mutex // guards the fields below
	total    count
	users    map[string]count
	callers  map[infer.Caller]count
	released chan struct{} // closed at the next Release; nil while no Acquire waits
}

// A count is a number of units taken, and the part of them that belongs to holders with a waiting
// call of Acquire.
type count struct{ taken, waiting int64 }

// TryAcquire takes n units for a caller. It reports false, and takes none, if they do not fit.
func (q *Quota) TryAcquire(c infer.Caller, n int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.fitsLocked(c, n, 0) {
		return false
	}
	q.addLocked(c, count{taken: n})
	return true
}

// Acquire takes n units for a caller as soon as they fit. held is the number of units that the same
// holder already has and does not release before it gets n more. Acquire returns the cause of ctx
// if ctx ends first.
//
// If all taken units belong to holders that wait for more, none of them would ever be released. Then
// one of these holders gets its units even beyond the bounds, if its held and n together are at most
// PerCaller.
func (q *Quota) Acquire(ctx context.Context, c infer.Caller, n, held int64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.addLocked(c, count{waiting: held})
	defer func() { q.addLocked(c, count{waiting: -held}) }()
	for !q.fitsLocked(c, n, held) {
		if q.released == nil {
			q.released = make(chan struct{})
		}
		released := q.released
		q.mu.Unlock()
		select {
		case <-released:
			q.mu.Lock()
		case <-ctx.Done():
			q.mu.Lock()
			return context.Cause(ctx)
		}
	}
	q.addLocked(c, count{taken: n})
	return nil
}

// Release returns n units that the caller has taken, and lets waiting calls of Acquire try again.
func (q *Quota) Release(c infer.Caller, n int64) {
	if n == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.addLocked(c, count{taken: -n})
	if q.released != nil {
		close(q.released)
		q.released = nil
	}
}

// fitsLocked reports whether a holder that already has held units may take n more: within the bounds,
// or to resolve the deadlock that Acquire describes.
func (q *Quota) fitsLocked(c infer.Caller, n, held int64) bool {
	within := func(now count, bound int64) bool {
		deadlock := 0 < held && held < now.taken && now.taken == now.waiting && held+n <= q.PerCaller
		return now.taken+n <= bound || deadlock
	}
	return within(q.total, q.Total) && within(q.users[c.User], max(q.PerCaller, q.Total/2)) && within(q.callers[c], q.PerCaller)
}

func (q *Quota) addLocked(c infer.Caller, more count) {
	if q.callers == nil {
		q.callers = make(map[infer.Caller]count)
		q.users = make(map[string]count)
	}
	q.total = q.total.plus(more)
	if q.users[c.User] = q.users[c.User].plus(more); q.users[c.User] == (count{}) {
		delete(q.users, c.User)
	}
	if q.callers[c] = q.callers[c].plus(more); q.callers[c] == (count{}) {
		delete(q.callers, c)
	}
}

func (a count) plus(b count) count { return count{a.taken + b.taken, a.waiting + b.waiting} }

// Taken returns the number of units that all callers have together.
func (q *Quota) Taken() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.total.taken
}
