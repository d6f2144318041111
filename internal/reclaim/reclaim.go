// Package reclaim returns the memory of large requests to the system: in an idle daemon the garbage
// collector would keep it for minutes. It depends on neither requests nor quotas.
package reclaim

import (
	"runtime/debug"
	"sync/atomic"
	"time"
)

// Memory is returned delay after the end of a request that held at least large bytes.
const (
	large = 1 << 20
	delay = time.Second
)

var (
	pending atomic.Bool // a return of memory is scheduled
	// free returns unused memory of the process to the system. Tests replace it.
	free = debug.FreeOSMemory
)

// After must be called when a request has ended. held is the number of bytes that it held. If that
// is at least 1 MiB, After schedules the return of memory, unless one is scheduled already for this
// process. It does not block.
func After(held int64) {
	if held < large || !pending.CompareAndSwap(false, true) {
		return
	}
	time.AfterFunc(delay, func() {
		pending.Store(false)
		free()
	})
}
