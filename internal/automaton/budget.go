package automaton

import (
	"errors"
	"time"
)

// Default bounds of a [Budget].
const (
	DefaultTime  = time.Second
	DefaultBytes = 64 << 20
)

// Errors of a [Budget].
var (
	ErrTime   = errors.New("compiling takes longer than the time limit")
	ErrMemory = errors.New("compiling takes more memory than the limit")
)

// A Budget bounds the time and the memory of one compilation. The zero value has the default bounds.
// A compiler calls [Budget.Spend] in its loops, leaves a loop when Spend returns false, and checks
// [Budget.Err], which keeps the first error, once at the end.
type Budget struct {
	Time  time.Duration // from the first Spend on, without the time in Yield; 0 means DefaultTime
	Bytes int           // 0 means DefaultBytes
	Yield func()        // if not nil, called about every 100 µs

	begin, yielded time.Time
	calls          int
	used           int
	err            error
}

// Spend counts an allocation of the given number of bytes, or, if it is 0, a unit of work without an
// allocation. It reports false once a bound is exceeded.
func (b *Budget) Spend(bytes int) bool {
	if b.err != nil {
		return false
	}
	limit := b.Bytes
	if limit == 0 {
		limit = DefaultBytes
	}
	if b.used += bytes; b.used > limit {
		b.err = ErrMemory
		return false
	}
	if b.calls++; b.calls&63 == 1 {
		b.look()
	}
	return b.err == nil
}

// look checks the time limit, and calls Yield if that is due.
func (b *Budget) look() {
	now := time.Now()
	if b.begin.IsZero() {
		b.begin, b.yielded = now, now
	}
	limit := b.Time
	if limit == 0 {
		limit = DefaultTime
	}
	if now.Sub(b.begin) > limit {
		b.err = ErrTime
	}
	if b.Yield != nil && now.Sub(b.yielded) > 100*time.Microsecond {
		b.Yield()
		b.yielded = time.Now()
		b.begin = b.begin.Add(b.yielded.Sub(now)) // the time in Yield does not count
	}
}

// Free subtracts bytes that were counted by Spend and are no longer in use.
func (b *Budget) Free(bytes int) { b.used -= bytes }

// Used returns the number of bytes that were counted and not freed.
func (b *Budget) Used() int { return b.used }

// Err returns [ErrTime] or [ErrMemory], whichever bound was exceeded first, or nil.
func (b *Budget) Err() error { return b.err }
