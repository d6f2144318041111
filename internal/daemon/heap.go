package daemon

import (
	"runtime"
	"runtime/debug"
)

// heapFloor is the size in bytes of memory that is never touched, so it takes up no RAM. The
// garbage collector counts it, and runs when the heap has doubled: over the heap of an idle daemon,
// of a few MiB, it would run some hundred times a second beside short requests, and take a fifth of
// their processor time.
const heapFloor = 16 << 20

// raiseHeap returns the memory of the start to the system, and allocates the floor of the heap, which
// lower frees.
func raiseHeap() (lower func()) {
	debug.FreeOSMemory()
	floor := make([]byte, heapFloor)
	return func() { runtime.KeepAlive(floor) }
}
