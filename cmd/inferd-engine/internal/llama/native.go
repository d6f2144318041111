package llama

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync/atomic"
	"unsafe"

	"github.com/ebitengine/purego"
	yzma "github.com/hybridgroup/yzma/pkg/llama"
	"github.com/hybridgroup/yzma/pkg/loader"
	"golang.org/x/sys/unix"
)

// This file holds what the binding does not offer, and all of the unsafe.

// call calls a C function of integers and pointers. What its arguments point to is kept
// alive and in its place until it returns, also while C calls Go.
//
//go:uintptrescapes
func call(symbol uintptr, args ...uintptr) uintptr {
	r, _, _ := purego.SyscallN(symbol, args...)
	return r
}

// callWithString calls a C function of one string.
func callWithString(symbol uintptr, text string) uintptr {
	buf := append([]byte(text), 0)
	return call(symbol, uintptr(unsafe.Pointer(unsafe.SliceData(buf))))
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

// lookup finds a function of one of the libraries, which are loaded by then.
func lookup(lib, name string) (uintptr, error) {
	handle, err := purego.Dlopen(loader.GetLibraryFilename(yzma.LibPath(), lib), purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return 0, err
	}
	return purego.Dlsym(handle, name)
}

// symbols are functions that are called without the binding: its tokenize takes a C
// string, which ends at a NUL, and the others are called for every token of a vocabulary
// or of an answer, where the binding takes a microsecond and allocates.
type symbols struct{ tokenize, piece, attr, isEOG uintptr }

func findSymbols() (s symbols, err error) {
	for name, at := range map[string]*uintptr{
		"llama_tokenize":       &s.tokenize,
		"llama_token_to_piece": &s.piece,
		"llama_vocab_get_attr": &s.attr,
		"llama_vocab_is_eog":   &s.isEOG,
	} {
		if *at, err = lookup("llama", name); err != nil {
			return s, err
		}
	}
	return s, nil
}

// attr is llama_vocab_get_attr. The token is in the vocabulary.
func (m *Model) attr(tok Token) yzma.TokenAttr {
	return yzma.TokenAttr(call(m.symbols.attr, uintptr(m.vocab), uintptr(tok)))
}

// isEOG is llama_vocab_is_eog.
func (m *Model) isEOG(tok Token) bool {
	return byte(call(m.symbols.isEOG, uintptr(m.vocab), uintptr(tok))) != 0 // a C bool is one byte
}

// piece is llama_token_to_piece: bytes written into buf, which is not empty, or less than 0
// if there are more. The token is in the vocabulary.
func (m *Model) piece(tok Token, buf []byte) int {
	return int(int32(call(m.symbols.piece, uintptr(m.vocab), uintptr(tok),
		uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)), 0, 0)))
}

// tokenize is llama_tokenize.
func (m *Model) tokenize(text string, special, whole bool) ([]Token, error) {
	if text == "" {
		return nil, nil
	}
	if len(text) > math.MaxInt32/2 {
		return nil, fmt.Errorf("a text of %d bytes", len(text))
	}
	var parse, add uintptr
	if special {
		parse = 1
	}
	if whole {
		add = 1
	}
	tokens := make([]Token, len(text)/2+16)
	for {
		n := int32(call(m.symbols.tokenize, uintptr(m.vocab),
			uintptr(unsafe.Pointer(unsafe.StringData(text))), uintptr(len(text)),
			uintptr(unsafe.Pointer(unsafe.SliceData(tokens))), uintptr(len(tokens)), add, parse))
		switch {
		case n >= 0:
			return tokens[:n], nil
		case n == math.MinInt32 || -int(n) <= len(tokens):
			return nil, fmt.Errorf("llama.cpp finds %d tokens in %d bytes", n, len(text))
		}
		tokens = make([]Token, -n)
	}
}

// A threadpool is ggml's: threads that live as long as the context. Without one ggml
// starts and joins its threads in every step.
type threadpool struct {
	handle uintptr
	free   uintptr // ggml_threadpool_free

	all  unix.CPUSet // processors that threads may have
	home unix.CPUSet // that of the first thread, which ggml does not make; all if none has its own
}

// threadpoolParams is larger than struct ggml_threadpool_params: 512 flags, the number of
// threads, their priority, how long they spin, and two flags, which ggml itself fills in.
type threadpoolParams [1024]byte

// Where things are in the parameters.
const (
	flags    = 512           // one for each processor that threads may have
	spinAt   = flags + 4 + 4 // how long a thread spins
	strictAt = spinAt + 4    // the flag that each thread has one processor, in turn
)

// How long a thread that has nothing to do spins before it sleeps: in the unit that ggml has for
// it, some 2 ms, which is more than what comes between two steps. Of its own accord ggml takes
// fifty times that, and keeps a core from whoever else could use it.
const (
	spinGGML = 50
	spin     = 1
)

// giveWay has the calling thread, and those that it makes from now on, run when nobody else wants
// to. Low priorities of the other kind (nice) are not enough: a step beside such threads takes
// two to four times as long now and then, for the kernel lets them finish what they have begun,
// and puts the threads of the step on one processor. There is no way back without privileges.
func giveWay() error {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}
	if err := unix.SchedSetAttr(0, &attr, 0); err != nil {
		return fmt.Errorf("lower the priority of a thread: %w", err)
	}
	return nil
}

// newThreadpool makes threads, but for the first, which is whoever computes. If there are as many
// as processors and they are to stay, each has one of its own. Left alone, the kernel now and
// then puts two on one: then each waits for the other at every operation, for 50 ms beside threads
// that give way, and all the time beside a program that never rests.
func newThreadpool(threads int, stay bool) (*threadpool, error) {
	runtime.LockOSThread() // for its processors
	defer runtime.UnlockOSThread()
	init, err := lookup("ggml-base", "ggml_threadpool_params_init")
	if err != nil {
		return nil, err
	}
	procAddress, err := lookup("ggml-base", "ggml_backend_reg_get_proc_address")
	if err != nil {
		return nil, err
	}
	cpu := yzma.GGMLBackendDeviceBackendReg(yzma.GGMLBackendDeviceByType(yzma.GGMLBackendDeviceTypeCPU))
	if cpu == 0 {
		return nil, errors.New("no CPU backend")
	}
	find := func(name string) uintptr {
		text := append([]byte(name), 0)
		return call(procAddress, uintptr(cpu), uintptr(unsafe.Pointer(&text[0])))
	}
	create, free := find("ggml_threadpool_new"), find("ggml_threadpool_free")
	if create == 0 || free == 0 {
		return nil, errors.New("the CPU backend has no thread pools")
	}
	params := new(threadpoolParams)
	call(init, uintptr(unsafe.Pointer(params)), uintptr(threads))
	poll := (*uint32)(unsafe.Pointer(&params[spinAt]))
	if *poll != spinGGML {
		return nil, errors.New("the libraries lay out a thread pool's parameters differently than llama.cpp 0.5.0 does")
	}
	*poll = spin
	p := &threadpool{free: free}
	if err := unix.SchedGetaffinity(0, &p.all); err != nil {
		return nil, fmt.Errorf("the processors of a thread: %w", err)
	}
	if stay && p.all.Count() == threads {
		for i := range flags {
			if p.all.IsSet(i) {
				params[i] = 1
			}
		}
		params[strictAt] = 1
	}
	p.handle = call(create, uintptr(unsafe.Pointer(params)))
	if p.handle == 0 {
		return nil, errors.New("no thread pool could be made")
	}
	// ggml has bound the calling thread, which need not be the one that is to compute, and what
	// that makes would be bound as well.
	if err := errors.Join(unix.SchedGetaffinity(0, &p.home), unix.SchedSetaffinity(0, &p.all)); err != nil {
		p.close()
		return nil, fmt.Errorf("the processors of a thread: %w", err)
	}
	return p, nil
}

// enter makes the calling thread the first, and leave ends that. A processor that it may not have
// any more is no reason to fail.
func (p *threadpool) enter() { _ = unix.SchedSetaffinity(0, &p.home) }
func (p *threadpool) leave() { _ = unix.SchedSetaffinity(0, &p.all) }

func (p *threadpool) close() { call(p.free, p.handle) }

// An abortFlag is how a computation is called off from another thread. ggml asks after every
// operation, several hundred times a token, whether it should go on; to ask Go there costs
// an eighth of the speed. So it asks C's strlen: the flag is a string, empty or of one byte,
// and its length is the answer.
type abortFlag struct {
	page []byte         // not on Go's heap, where C must not keep a pointer to
	word *atomic.Uint32 // its lowest byte is the string, the next one its end
	len  uintptr        // strlen
}

// What an abortFlag says. That a computation runs stands where strlen does not look, so that
// one comparison decides whether it is this one that is called off.
const (
	nothingRuns uint32 = 0
	runs        uint32 = 1 << 16
	calledOff   uint32 = runs | 1
)

func newAbortFlag() (*abortFlag, error) {
	strlen, err := purego.Dlsym(purego.RTLD_DEFAULT, "strlen")
	if err != nil {
		return nil, err
	}
	page, err := unix.Mmap(-1, 0, unix.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, err
	}
	return &abortFlag{page: page, word: (*atomic.Uint32)(unsafe.Pointer(&page[0])), len: strlen}, nil
}

// callback returns the function and its argument for a context's parameters.
func (f *abortFlag) callback() (function, data uintptr) {
	return f.len, uintptr(unsafe.Pointer(&f.page[0]))
}

func (f *abortFlag) begin()       { f.word.Store(runs) }
func (f *abortFlag) end()         { f.word.Store(nothingRuns) }
func (f *abortFlag) raise()       { f.word.CompareAndSwap(runs, calledOff) }
func (f *abortFlag) raised() bool { return f.word.Load() == calledOff }
func (f *abortFlag) close()       { _ = unix.Munmap(f.page) }

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

// apply has a sampler work on tokens, which it may put into another order, and returns the
// one that it has chosen, if it chooses.
func apply(s yzma.Sampler, tokens []yzma.TokenData) (Token, bool) {
	array := yzma.TokenDataArray{Data: unsafe.SliceData(tokens), Size: uint64(len(tokens)), Selected: -1}
	yzma.SamplerApply(s, &array)
	runtime.KeepAlive(tokens)
	if array.Selected < 0 || array.Selected >= int64(array.Size) {
		return 0, false
	}
	return Token(at(array.Data, uintptr(array.Selected)).Id), true
}

func at[T any](first *T, i uintptr) *T {
	return (*T)(unsafe.Add(unsafe.Pointer(first), i*unsafe.Sizeof(*first)))
}
