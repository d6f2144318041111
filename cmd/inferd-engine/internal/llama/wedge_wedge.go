//go:build wedge

package llama

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/ebitengine/purego"
	"golang.org/x/sys/unix"
)

// wedgeEnv is the environment variable with the path of a file that requests a fault. The content of
// the file is the mode. Every Decode of a context of normal priority checks for the file, and
// removes it, so that the fault happens once.
//
//	spin     the step never ends; all compute threads burn CPU
//	sleep    the step never begins; no thread runs
//	block    the step never ends; one compute thread sleeps, the others burn CPU
//	slow     the step first burns CPU time, 100 times as long as the last step took, but at least 3 s
//	worker   the next Decode of a context of idle priority sleeps, and never returns
const wedgeEnv = "INFERD_ENGINE_WEDGE"

// A wedge makes an engine stop working on demand, for tests of the daemon's watchdog.
type wedge struct {
	worker atomic.Bool // the next Decode of a context of idle priority must hang

	last atomic.Int64 // nanoseconds between the starts of the last two steps
	at   atomic.Int64 // start of the last step, in Unix nanoseconds

	once sync.Once // sets lock
	lock uintptr   // a spinlock that is never released
}

// minSlow is the minimum delay of a slow step.
const minSlow = 3 * time.Second

func (w *wedge) decode(c *Context) {
	if c.opt.IdlePriority {
		if w.worker.CompareAndSwap(true, false) {
			w.sleep()
		}
		return
	}
	now := time.Now().UnixNano()
	if at := w.at.Swap(now); at > 0 {
		w.last.Store(now - at)
	}
	path := os.Getenv(wedgeEnv)
	if path == "" {
		return
	}
	text, err := os.ReadFile(path)            //nolint:gosec // the tester names the file
	if err != nil || os.Remove(path) != nil { //nolint:gosec // as above
		return
	}
	mode := strings.TrimSpace(string(text))
	fmt.Fprintln(os.Stderr, "wedge:", mode)
	switch mode {
	case "spin":
		w.callback(c, symbol("pthread_spin_lock"), w.locked())
	case "block":
		w.callback(c, symbol("pause"), 0)
	case "sleep":
		w.sleep()
	case "slow":
		w.burn(max(minSlow, 100*time.Duration(w.last.Load())))
	case "worker":
		w.worker.Store(true)
	default:
		fmt.Fprintf(os.Stderr, "wedge: the mode %q is not known\n", mode)
	}
}

// callback makes ggml call a C function of one argument after every operation, on its first thread,
// while the other threads wait.
func (w *wedge) callback(c *Context, function, argument uintptr) {
	set, err := lookup("llama", "llama_set_abort_callback")
	if err != nil {
		panic(err)
	}
	call(set, uintptr(c.handle), function, argument)
}

func (w *wedge) sleep() {
	for {
		call(symbol("pause")) // returns at a signal, such as Go's for preemption
	}
}

// burn computes in C for the time d.
func (w *wedge) burn(d time.Duration) {
	text := make([]byte, 1<<20)
	for i := range len(text) - 1 {
		text[i] = 'x'
	}
	length := symbol("strlen")
	for end := time.Now().Add(d); time.Now().Before(end); {
		call(length, uintptr(unsafe.Pointer(unsafe.SliceData(text))))
	}
}

// locked returns the address of a locked spinlock outside Go's heap.
func (w *wedge) locked() uintptr {
	w.once.Do(func() {
		page, err := unix.Mmap(-1, 0, unix.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			panic(err)
		}
		w.lock = uintptr(unsafe.Pointer(&page[0]))
		call(symbol("pthread_spin_init"), w.lock, 0)
		call(symbol("pthread_spin_lock"), w.lock)
	})
	return w.lock
}

// symbol finds a function of C's library.
func symbol(name string) uintptr {
	f, err := purego.Dlsym(purego.RTLD_DEFAULT, name)
	if err != nil {
		panic(err)
	}
	return f
}
