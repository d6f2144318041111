package llama

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	yzma "github.com/hybridgroup/yzma/pkg/llama"
	"golang.org/x/sys/unix"
)

// A threadpool is a thread pool of ggml: threads that live as long as the context. Without one
// ggml starts and joins its threads in every step.
type threadpool struct {
	handle uintptr
	free   uintptr // ggml_threadpool_free

	all  unix.CPUSet // processors of the process
	home unix.CPUSet // processors of the first thread, which ggml does not make; the same as all if threads are not bound
}

// threadpoolParams has room for a struct ggml_threadpool_params, which ggml fills in. The struct has
// 512 flags, the number of threads, their priority, the spin time, and two flags.
type threadpoolParams [1024]byte

// Offsets in the parameters.
const (
	flags    = 512           // one for each processor that threads may use
	spinAt   = flags + 4 + 4 // the spin time
	strictAt = spinAt + 4    // the flag that binds each thread to one processor, in turn
)

// spin is the time that an idle thread spins before it sleeps, in ggml's unit of some 2 ms. That is
// longer than the time between two steps. spinGGML, ggml's default, would keep a core from other
// programs.
const (
	spinGGML = 50
	spin     = 1
)

// SetIdlePriority gives the calling thread, and the threads that it makes from now on, the scheduling class
// for idle time. A low priority (nice) is not enough: the kernel lets nice threads use up their time slices
// and meanwhile puts several threads of a step on one processor, so that a step now and then takes two to
// four times as long. SetIdlePriority cannot be undone without privileges.
func SetIdlePriority() error {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}
	if err := unix.SchedSetAttr(0, &attr, 0); err != nil {
		return fmt.Errorf("lower the priority of a thread: %w", err)
	}
	return nil
}

// newThreadpool makes a pool of the given number of threads; the first is the decoding thread. If bind
// is set, and the process may use exactly one processor per thread, each thread is bound to one. The
// kernel sometimes puts two unbound threads on one processor, where each waits for the other at every
// operation. That lasts 50 ms if the other threads have idle priority, as those of the prefill worker,
// and does not end by itself if they belong to a program that never sleeps.
func newThreadpool(threads int, bind bool) (*threadpool, error) {
	runtime.LockOSThread() // the set of processors is the thread's
	defer runtime.UnlockOSThread()
	create, free, err := threadpoolFunctions()
	if err != nil {
		return nil, err
	}
	params, err := newThreadpoolParams(threads)
	if err != nil {
		return nil, err
	}
	p := &threadpool{free: free}
	if err := unix.SchedGetaffinity(0, &p.all); err != nil {
		return nil, fmt.Errorf("get the processors of a thread: %w", err)
	}
	if bind && p.all.Count() == threads {
		for i := range flags {
			if p.all.IsSet(i) {
				params[i] = 1
			}
		}
		params[strictAt] = 1
	}
	p.handle = call(create, uintptr(unsafe.Pointer(params)))
	if p.handle == 0 {
		return nil, errors.New("ggml made no thread pool")
	}
	// ggml has bound the calling thread, which need not be the later decoding thread. It is unbound here,
	// because threads inherit the binding from the thread that makes them.
	if err := errors.Join(unix.SchedGetaffinity(0, &p.home), unix.SchedSetaffinity(0, &p.all)); err != nil {
		p.close()
		return nil, fmt.Errorf("get the processors of a thread: %w", err)
	}
	return p, nil
}

// threadpoolFunctions returns ggml_threadpool_new and ggml_threadpool_free.
func threadpoolFunctions() (create, free uintptr, err error) {
	procAddress, err := lookup("ggml-base", "ggml_backend_reg_get_proc_address")
	if err != nil {
		return 0, 0, err
	}
	cpu := yzma.GGMLBackendDeviceBackendReg(yzma.GGMLBackendDeviceByType(yzma.GGMLBackendDeviceTypeCPU))
	if cpu == 0 {
		return 0, 0, errors.New("no CPU backend")
	}
	find := func(name string) uintptr {
		text := append([]byte(name), 0)
		return call(procAddress, uintptr(cpu), uintptr(unsafe.Pointer(&text[0])))
	}
	create, free = find("ggml_threadpool_new"), find("ggml_threadpool_free")
	if create == 0 || free == 0 {
		return 0, 0, errors.New("the CPU backend has no thread pools")
	}
	return create, free, nil
}

// newThreadpoolParams returns ggml's default parameters, except the spin time.
func newThreadpoolParams(threads int) (*threadpoolParams, error) {
	init, err := lookup("ggml-base", "ggml_threadpool_params_init")
	if err != nil {
		return nil, err
	}
	params := new(threadpoolParams)
	call(init, uintptr(unsafe.Pointer(params)), uintptr(threads))
	poll := (*uint32)(unsafe.Pointer(&params[spinAt]))
	if *poll != spinGGML {
		return nil, errors.New("the libraries lay out a thread pool's parameters differently than llama.cpp 0.5.0 does: " + remedy)
	}
	*poll = spin
	return params, nil
}

// enter binds the calling thread to the processor of the pool's first thread, and leave undoes that.
// If the process may no longer use that processor, the thread stays unbound.
func (p *threadpool) enter() { _ = unix.SchedSetaffinity(0, &p.home) }
func (p *threadpool) leave() { _ = unix.SchedSetaffinity(0, &p.all) }

func (p *threadpool) close() { call(p.free, p.handle) }
