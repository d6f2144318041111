package llama

import (
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

// This file and threadpool.go have the calls that the binding lacks, and all unsafe code of the
// product.

// call calls a C function with integers and pointers as arguments. The Go memory to which they
// point stays alive and in place until the function returns, even while C calls Go.
//
//go:uintptrescapes
func call(symbol uintptr, args ...uintptr) uintptr {
	r, _, _ := purego.SyscallN(symbol, args...)
	return r
}

// callWithString calls a C function with one string as its argument.
func callWithString(symbol uintptr, text string) uintptr {
	buf := append([]byte(text), 0)
	return call(symbol, uintptr(unsafe.Pointer(unsafe.SliceData(buf))))
}

// goString copies a C string; a null pointer is the empty string.
func goString(p uintptr) string {
	if p == 0 {
		return ""
	}
	start := *(**byte)(unsafe.Pointer(&p)) // C's memory, which is unknown to the garbage collector
	n := 0
	for *(*byte)(unsafe.Add(unsafe.Pointer(start), n)) != 0 {
		n++
	}
	return string(unsafe.Slice(start, n))
}

// lookup finds a function of one of the loaded libraries.
func lookup(lib, name string) (uintptr, error) {
	handle, err := purego.Dlopen(loader.GetLibraryFilename(yzma.LibPath(), lib), purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return 0, err
	}
	return purego.Dlsym(handle, name)
}

// symbols are C functions that are called without the binding: tokenize, because the binding passes
// the text as a C string, which ends at a NUL; the others, because they are called for every token of
// a vocabulary or of an answer, and a call by the binding takes a microsecond and allocates.
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

// attr is llama_vocab_get_attr. The token must be in the vocabulary.
func (m *Model) attr(tok Token) yzma.TokenAttr {
	return yzma.TokenAttr(call(m.symbols.attr, uintptr(m.vocab), uintptr(tok)))
}

// isEOG is llama_vocab_is_eog.
func (m *Model) isEOG(tok Token) bool {
	return byte(call(m.symbols.isEOG, uintptr(m.vocab), uintptr(tok))) != 0 // a C bool is one byte
}

// piece is llama_token_to_piece: it writes the bytes into buf, which must not be empty, and returns
// their number. If they do not fit, it returns the negative of their number. The token must be in
// the vocabulary.
func (m *Model) piece(tok Token, buf []byte) int {
	return int(int32(call(m.symbols.piece, uintptr(m.vocab), uintptr(tok),
		uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)), 0, 0)))
}

// tokenize is llama_tokenize. With special, the spelling of a control token becomes that token. With
// whole, the result includes the model's tokens for the beginning and the end of a text.
func (m *Model) tokenize(text string, special, whole bool) ([]Token, error) {
	if text == "" {
		return nil, nil
	}
	if len(text) > math.MaxInt32/2 {
		return nil, fmt.Errorf("a text of %d bytes is too long to tokenize", len(text))
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
			return nil, fmt.Errorf("llama.cpp returned %d for the tokens of a text of %d bytes", n, len(text))
		}
		tokens = make([]Token, -n)
	}
}

// An abortFlag aborts a computation from another thread. After every operation, several hundred
// times per token, ggml calls a callback that returns whether to abort. A callback in Go would cost
// an eighth of the speed, so the callback is C's strlen: the flag is a C string, which is empty, or
// has one byte to abort.
type abortFlag struct {
	page []byte         // outside Go's heap, because C keeps a pointer to it
	word *atomic.Uint32 // its lowest byte is the string, the next byte ends it
	len  uintptr        // strlen
}

// Values of an abortFlag. The bit that marks a computation under way lies behind the end of the
// string, so one compare-and-swap can raise the flag, and only while a computation is under way.
const (
	flagIdle    uint32 = 0
	flagRunning uint32 = 1 << 16
	flagAborted uint32 = flagRunning | 1
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

func (f *abortFlag) begin()       { f.word.Store(flagRunning) }
func (f *abortFlag) end()         { f.word.Store(flagIdle) }
func (f *abortFlag) raise()       { f.word.CompareAndSwap(flagRunning, flagAborted) }
func (f *abortFlag) raised() bool { return f.word.Load() == flagAborted }
func (f *abortFlag) close()       { _ = unix.Munmap(f.page) }

// setBatch adds an entry to a batch. The caller must have checked that there is room.
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

// apply applies a sampler to tokens, which it may reorder, and returns the chosen token. It reports
// false if the sampler chooses none.
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
