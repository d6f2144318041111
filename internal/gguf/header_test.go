package gguf_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/builtin"
	"github.com/inferd-go/inferd/internal/gguf"
)

// model returns a small file with all keys that ReadHeader reads, except vocab_size, and with keys that it skips.
func model(tb testing.TB) []byte {
	tb.Helper()
	var f gguf.File
	f.Uint32("llama.context_length", 4096) // before the name of the architecture
	f.String("general.architecture", "llama")
	f.String("general.name", "A model")
	f.Uint32("general.file_type", 15)
	f.Uint32("other.context_length", 7)
	f.Float32("llama.rope.freq_base", 10000)
	f.Bool("tokenizer.ggml.add_bos_token", true)
	f.Strings("tokenizer.ggml.tokens", []string{"a", "", "bc"})
	f.Int32s("tokenizer.ggml.token_type", []int32{1, 2, 3})
	f.Uint32("split.no", 0)
	f.Uint32("split.count", 2)
	f.F32("t", zeros, 4)
	var buf bytes.Buffer
	if _, err := f.WriteTo(&buf); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

func read(data []byte) (*gguf.Header, error) {
	return gguf.ReadHeader(bytes.NewReader(data), int64(len(data)))
}

func TestReadHeader(t *testing.T) {
	got, err := read(model(t))
	if err != nil {
		t.Fatal(err)
	}
	want := &gguf.Header{Arch: "llama", Name: "A model", Quant: "Q4_K_M", NCtx: 4096, NVocab: 3, SplitCount: 2, Tensors: 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A raw is a header under construction. Its methods return it with a value appended.
type raw []byte

func newRaw(version uint32, tensors, keys uint64) raw {
	b := raw("GGUF").u32(version)
	return b.u64(tensors).u64(keys)
}

func (b raw) u32(n uint32) raw    { return binary.LittleEndian.AppendUint32(b, n) }
func (b raw) u64(n uint64) raw    { return binary.LittleEndian.AppendUint64(b, n) }
func (b raw) text(s string) raw   { return append(b.u64(uint64(len(s))), s...) }
func (b raw) pad(n int) raw       { return append(b, make([]byte, n)...) }
func (b raw) bytes(p ...byte) raw { return append(b, p...) }

func TestNumbersOfEveryType(t *testing.T) {
	for kind, value := range map[uint32][]byte{
		0: {9}, 1: {9}, 2: {9, 0}, 3: {9, 0}, 4: {9, 0, 0, 0}, 5: {9, 0, 0, 0}, 10: {9, 0, 0, 0, 0, 0, 0, 0}, 11: {9, 0, 0, 0, 0, 0, 0, 0},
	} {
		b := newRaw(3, 0, 2).text("general.architecture").u32(8).text("x").text("x.context_length").u32(kind).bytes(value...)
		if h, err := read(b); err != nil || h.NCtx != 9 {
			t.Errorf("type %d: %+v, %v", kind, h, err)
		}
	}
	for n, want := range map[uint64]string{1 | 1024: "F16", 5: "type 5", 1 << 40: "type 1099511627776", 37: "TQ2_0"} {
		if h, err := read(newRaw(2, 0, 1).text("general.file_type").u32(10).u64(n)); err != nil || h.Quant != want {
			t.Errorf("file type %d: %+v, %v", n, h, err)
		}
	}
}

// ReadHeader refuses each of these headers with an error that names the fault.
func TestHostileHeaders(t *testing.T) {
	array := func(kind uint32, n uint64) raw { return newRaw(3, 0, 1).text("a").u32(9).u32(kind).u64(n) }
	nested := newRaw(3, 0, 1).text("a").u32(9)
	for range 40 {
		nested = nested.u32(9).u64(1)
	}
	many := newRaw(3, 0, 1000)
	for n := range 1000 {
		many = many.text(fmt.Sprintf("%d.context_length", n)).u32(4).u32(1)
	}
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"empty":                       {nil, "ends within"},
		"another format":              {[]byte("PK\x03\x04 and more"), "does not begin"},
		"only the magic":              {[]byte("GGUF"), "ends within"},
		"version 1":                   {newRaw(1, 0, 0), "too old"},
		"version 4":                   {newRaw(4, 0, 0), "version 4"},
		"big-endian":                  {newRaw(3<<24, 0, 0), "big-endian"},
		"tensors without end":         {newRaw(3, math.MaxUint64, 0), "do not fit"},
		"keys without end":            {newRaw(3, 0, math.MaxUint64), "entries"},
		"keys beyond the file":        {newRaw(3, 0, 1000), "do not fit"},
		"a key without end":           {newRaw(3, 0, 1).u64(math.MaxUint64).pad(20), "a key has"},
		"a key beyond the file":       {newRaw(3, 0, 1).u64(1000).pad(20), "ends within"},
		"a key that is not UTF-8":     {newRaw(3, 0, 1).text("\xff").u32(4).u32(1), "UTF-8"},
		"a value without end":         {newRaw(3, 0, 1).text("a").u32(8).u64(math.MaxUint64), "ends within"},
		"a name of 1 MiB and a byte":  {newRaw(3, 0, 1).text("general.name").u32(8).u64(1<<20 + 1).pad(1<<20 + 1), "at most"},
		"an architecture in an array": {newRaw(3, 0, 1).text("general.architecture").u32(9).u32(8).u64(0), "not a string"},
		"a context that is a string":  {newRaw(3, 0, 1).text("a.context_length").u32(8).text("x"), "whole number"},
		"a context below zero":        {newRaw(3, 0, 1).text("a.context_length").u32(5).u32(math.MaxUint32), "negative"},
		"contexts without end":        {many, "more than 256 keys"},
		"an unknown type":             {newRaw(3, 0, 1).text("a").u32(13).u32(0), "unknown type 13"},
		"tokens that are no array":    {newRaw(3, 0, 1).text("tokenizer.ggml.tokens").u32(4).u32(3), "not an array"},
		"bytes without end":           {array(0, math.MaxUint64), "elements"},
		"numbers that overflow":       {array(10, 1<<61), "elements"},
		"strings without end":         {array(8, math.MaxUint64), "elements"},
		"arrays without end":          {array(9, math.MaxUint64), "elements"},
		"arrays in arrays in arrays":  {nested, "deep"},
		"elements of an unknown type": {array(99, 0), "unknown type 99"},
	} {
		t.Run(name, func(t *testing.T) {
			if h, err := read(test.data); h != nil || err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "gguf: ") {
				t.Errorf("%+v, %v, want %q", h, err, test.want)
			}
		})
	}
}

// ReadHeader reads a bounded number of bytes of a huge file with a header that announces a huge array.
func TestHugeFileIsReadInBounds(t *testing.T) {
	elements := uint64(1 << 24)
	if testing.Short() {
		elements = 1 << 20
	}
	for name, b := range map[string]raw{
		"strings": newRaw(3, 0, 1).text("a").u32(9).u32(8).u64(elements),
		"bytes":   newRaw(3, 0, 1).text("a").u32(9).u32(0).u64(1 << 40),
		"arrays":  newRaw(3, 0, 1).text("a").u32(9).u32(9).u64(elements),
	} {
		file := &zeroFile{head: b}
		_, err := gguf.ReadHeader(file, 1<<42)
		if name == "bytes" && err == nil || file.read > 300<<20 {
			t.Errorf("%s: %v after %d bytes", name, err, file.read)
		}
	}
}

// A zeroFile is a file that consists of head and endless zeros after it. read counts the bytes read.
type zeroFile struct {
	head []byte
	read int
}

func (f *zeroFile) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off < int64(len(f.head)) {
		copy(p, f.head[off:])
	}
	f.read += len(p)
	return len(p), nil
}

// mutants returns damaged copies of a file: cut after each byte of its header, with each byte of
// the header replaced, and with the eight bytes at each position replaced by a large number.
func mutants(data []byte) (all [][]byte) {
	header := data[:len(data)-32]
	for n := range header {
		all = append(all, data[:n])
		for _, b := range []byte{0, 0x7f, 0x80, 0xff} {
			m := bytes.Clone(data)
			m[n] = b
			all = append(all, m)
		}
		if n+8 <= len(header) {
			for _, v := range []uint64{math.MaxUint64, math.MaxInt64, 1 << 32, uint64(len(data))} {
				m := bytes.Clone(data)
				binary.LittleEndian.PutUint64(m[n:], v)
				all = append(all, m)
			}
		}
	}
	return all
}

func TestMutants(t *testing.T) {
	all := mutants(model(t))
	if len(all) < 300 {
		t.Fatalf("only %d mutants", len(all))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	refused := 0
	for n, m := range all {
		h, err := read(m)
		if (h == nil) != (err != nil) {
			t.Fatalf("mutant %d: %+v, %v", n, h, err)
		}
		if err != nil {
			refused++
		}
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / uint64(len(all)); each > 3<<20 {
		t.Errorf("%d bytes of memory for a mutant of %d bytes", each, len(all[0]))
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("%d mutants took %s", len(all), took)
	}
	if refused < len(all)/4 {
		t.Errorf("only %d of %d mutants are refused", refused, len(all))
	}
}

func TestErrorOfTheFile(t *testing.T) {
	broken := errors.New("broken")
	if _, err := gguf.ReadHeader(failing{broken}, 1<<20); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	data := model(t)
	if _, err := gguf.ReadHeader(bytes.NewReader(data[:40]), int64(len(data))); err == nil { // truncated after its size was taken
		t.Error("read beyond the end")
	}
}

type failing struct{ err error }

func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.err }

func FuzzReadHeader(f *testing.F) {
	f.Add(model(f))
	f.Add([]byte(newRaw(3, 0, 1).text("a").u32(9).u32(9).u64(2).u32(8).u64(1).text("x").u32(0).u64(0)))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := gguf.ReadHeader(bytes.NewReader(data), int64(len(data)))
		switch {
		case (h == nil) != (err != nil):
			t.Errorf("%+v, %v", h, err)
		case h != nil && len(h.Arch)+len(h.Name)+24 > len(data):
			t.Errorf("%+v from %d bytes", h, len(data))
		}
	})
}

func TestBuiltInModel(t *testing.T) {
	path, err := builtin.Ensure(t.TempDir(), "chain")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	h, err := gguf.ReadHeader(f, info.Size())
	if err != nil || h.Arch != "llama" || h.NCtx == 0 || h.NVocab == 0 || h.Tensors == 0 {
		t.Errorf("%+v, %v", h, err)
	}
}
