package llama

import (
	"errors"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"
	yzma "github.com/hybridgroup/yzma/pkg/llama"
	"github.com/hybridgroup/yzma/pkg/loader"
)

// This file holds what the binding does not offer, and all of the unsafe.

// call calls a C function of integers and pointers.
func call(symbol uintptr, args ...uintptr) uintptr {
	r, _, _ := purego.SyscallN(symbol, args...)
	return r
}

// goString copies a C string.
func goString(p uintptr) string {
	if p == 0 {
		return ""
	}
	start := *(**byte)(unsafe.Pointer(&p)) // p is C's: the collector must not look at it
	n := 0
	for *(*byte)(unsafe.Add(unsafe.Pointer(start), n)) != 0 {
		n++
	}
	return string(unsafe.Slice(start, n))
}

// A threadpool is ggml's: threads that live as long as the context. Without one ggml
// starts and joins its threads in every step.
type threadpool struct {
	handle uintptr
	free   uintptr // ggml_threadpool_free
}

// threadpoolParams is larger than struct ggml_threadpool_params (512 flags and five small
// fields), which ggml itself fills in.
type threadpoolParams [1024]byte

func newThreadpool(threads int) (*threadpool, error) {
	base, err := purego.Dlopen(loader.GetLibraryFilename(yzma.LibPath(), "ggml-base"), purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return nil, err
	}
	init, err := purego.Dlsym(base, "ggml_threadpool_params_init")
	if err != nil {
		return nil, err
	}
	lookup, err := purego.Dlsym(base, "ggml_backend_reg_get_proc_address")
	if err != nil {
		return nil, err
	}
	cpu := yzma.GGMLBackendDeviceBackendReg(yzma.GGMLBackendDeviceByType(yzma.GGMLBackendDeviceTypeCPU))
	if cpu == 0 {
		return nil, errors.New("no CPU backend")
	}
	find := func(name string) uintptr {
		text := append([]byte(name), 0)
		defer runtime.KeepAlive(text)
		return call(lookup, uintptr(cpu), uintptr(unsafe.Pointer(&text[0])))
	}
	create, free := find("ggml_threadpool_new"), find("ggml_threadpool_free")
	if create == 0 || free == 0 {
		return nil, errors.New("the CPU backend has no thread pools")
	}
	params := new(threadpoolParams)
	call(init, uintptr(unsafe.Pointer(params)), uintptr(threads))
	handle := call(create, uintptr(unsafe.Pointer(params)))
	runtime.KeepAlive(params)
	if handle == 0 {
		return nil, errors.New("no thread pool could be made")
	}
	return &threadpool{handle: handle, free: free}, nil
}

func (p *threadpool) close() { call(p.free, p.handle) }

// setBatch writes an entry of a batch. The caller has checked that it fits.
func setBatch(b *yzma.Batch, tok Token, pos, seq int, logits bool) {
	i := uintptr(b.NTokens)
	*at(b.Token, i) = yzma.Token(tok)
	*at(b.Pos, i) = yzma.Pos(pos)
	*at(b.NSeqId, i) = 1
	**at(b.SeqId, i) = yzma.SeqId(seq)
	*at(b.Logits, i) = 0
	if logits {
		*at(b.Logits, i) = 1
	}
	b.NTokens++
}

func at[T any](first *T, i uintptr) *T {
	return (*T)(unsafe.Add(unsafe.Pointer(first), i*unsafe.Sizeof(*first)))
}
