package daemon

import (
	"runtime"
	"runtime/debug"
)

// heapFloor is the size, in bytes, of an allocation that is never touched, so it takes up no RAM.
// The garbage collector counts it, and runs when the heap has doubled. Without it, the heap of an
// idle daemon has a few MiB; the collector would run some hundred times a second during short
// requests, and take a fifth of their processor time.
const heapFloor = 16 << 20

// raiseHeap returns the unused memory of the start to the system, and allocates heapFloor bytes,
// which lower frees.
func raiseHeap() (lower func()) {
	debug.FreeOSMemory()
	floor := make([]byte, heapFloor)
	return func() { runtime.KeepAlive(floor) }
}
