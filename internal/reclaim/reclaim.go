// Package reclaim returns the memory of large requests to the system: in an idle daemon the garbage
// collector would keep it for minutes. It knows neither requests nor quotas.
package reclaim

import (
	"runtime/debug"
	"sync/atomic"
	"time"
)

// Memory is returned after a request that held at least large bytes, once delay has passed.
const (
	large = 1 << 20
	delay = time.Second
)

var (
	pending atomic.Bool // memory is about to be returned
	// free returns the free memory of the process. Tests replace it.
	free = debug.FreeOSMemory
)

// After schedules the return of memory, if a request that has ended held at least 1 MiB. It returns
// at once. Calls within a second have one effect together, for the whole process.
func After(held int64) {
	if held < large || !pending.CompareAndSwap(false, true) {
		return
	}
	time.AfterFunc(delay, func() {
		pending.Store(false)
		free()
	})
}
