// Package gguf writes GGUF files of version 3, and reads the headers of GGUF files of versions 2 and 3,
// after ggml's specification (docs/gguf.md of the ggml project). It covers the container and a few keys
// that describe a model, but not the tensors that an architecture needs. Reading is bounded, because
// files are untrusted; tensors are parsed only in the engine's process.
//
// The rows of a tensor are produced one at a time while the file is written, so a file may be
// larger than memory.
package gguf

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	magic     = "GGUF"
	version   = 3
	alignment = 32 // the specification's default, which needs no key

	maxKey  = 1<<16 - 1 // bytes
	maxName = 63        // bytes of a tensor's name: ggml stores 64 with the final zero
	maxDims = 4
	maxSize = 1 << 48 // bytes of a tensor: far above any use, far below overflow
)

// Type codes of metadata values.
const (
	typeUint8   uint32 = 0
	typeInt8    uint32 = 1
	typeUint16  uint32 = 2
	typeInt16   uint32 = 3
	typeUint32  uint32 = 4
	typeInt32   uint32 = 5
	typeFloat32 uint32 = 6
	typeBool    uint32 = 7
	typeString  uint32 = 8
	typeArray   uint32 = 9
	typeUint64  uint32 = 10
	typeInt64   uint32 = 11
	typeFloat64 uint32 = 12
)

// Type codes of tensors.
const (
	tensorF32 uint32 = 0
	tensorQ8  uint32 = 8
)

// A Block is 32 adjacent values in a row of a Q8_0 tensor: Scale times each of Q.
type Block struct {
	Scale uint16 // the bits of an IEEE 754 half-precision number
	Q     [blockLen]int8
}

const (
	blockLen  = 32
	blockSize = 2 + blockLen // bytes
)

// A File is the content of a GGUF file: metadata and tensors, each in the order in which they were
// added. The zero File is empty and ready for use. The methods that add something return no error;
// [File.WriteTo] fails with the error of the first invalid addition: a key or name that is a
// duplicate, empty or too long, a key with a character that is not allowed, text that is not UTF-8,
// or impossible dimensions.
type File struct {
	keys, names map[string]bool
	meta        []byte // the metadata, encoded
	tensors     []tensor
	size        uint64 // bytes of all tensors, including padding
	err         error  // the first invalid addition
}

type tensor struct {
	name   string
	kind   uint32
	dims   []uint64
	offset uint64 // from the start of the first tensor
	rows   int
	// row returns the bytes of row i, valid until the next call. Calls go in order, from row 0.
	row func(i int) []byte
}

// String adds a string, which must be valid UTF-8.
func (f *File) String(key, value string) {
	f.key(key, typeString)
	f.text(key, value)
}

// Uint32 adds an unsigned number.
func (f *File) Uint32(key string, value uint32) {
	f.key(key, typeUint32)
	f.meta = binary.LittleEndian.AppendUint32(f.meta, value)
}

// Float32 adds a floating-point number.
func (f *File) Float32(key string, value float32) {
	f.key(key, typeFloat32)
	f.meta = binary.LittleEndian.AppendUint32(f.meta, math.Float32bits(value))
}

// Bool adds a truth value.
func (f *File) Bool(key string, value bool) {
	f.key(key, typeBool)
	b := byte(0)
	if value {
		b = 1
	}
	f.meta = append(f.meta, b)
}

// Strings adds an array of strings, which may be empty. Each string must be valid UTF-8.
func (f *File) Strings(key string, values []string) {
	f.array(key, typeString, len(values))
	for _, v := range values {
		f.text(key, v)
	}
}

// Int32s adds an array of numbers, which may be empty.
func (f *File) Int32s(key string, values []int32) {
	f.array(key, typeInt32, len(values))
	for _, v := range values {
		f.meta = binary.LittleEndian.AppendUint32(f.meta, uint32(v))
	}
}

// F32 adds a tensor of 32-bit floats with one to four dimensions; dims[0] is the length of a
// row. During [File.WriteTo], fill is called once for every row, in order, with dims[0] zeros
// to overwrite; fill must not keep the slice.
func (f *File) F32(name string, fill func(row int, values []float32), dims ...uint64) {
	t, ok := f.tensor(name, tensorF32, 1, 4, dims)
	if !ok {
		return
	}
	var values []float32
	var buf []byte
	t.row = func(i int) []byte {
		if i == 0 {
			values = make([]float32, dims[0])
		}
		clear(values)
		fill(i, values)
		buf = buf[:0]
		for _, v := range values {
			buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(v))
		}
		return buf
	}
	f.tensors = append(f.tensors, t)
}

// Q8 adds a tensor of type Q8_0 with one to four dimensions; dims[0] is the length of a row,
// a multiple of 32. During [File.WriteTo], fill is called once for every row, in order, with
// dims[0]/32 zero blocks to overwrite; fill must not keep the slice.
func (f *File) Q8(name string, fill func(row int, blocks []Block), dims ...uint64) {
	t, ok := f.tensor(name, tensorQ8, blockLen, blockSize, dims)
	if !ok {
		return
	}
	var blocks []Block
	var buf []byte
	t.row = func(i int) []byte {
		if i == 0 {
			blocks = make([]Block, dims[0]/blockLen)
			buf = make([]byte, len(blocks)*blockSize)
		}
		clear(blocks)
		fill(i, blocks)
		for n := range blocks {
			out := buf[n*blockSize:][:blockSize]
			binary.LittleEndian.PutUint16(out, blocks[n].Scale)
			for j, q := range &blocks[n].Q {
				out[2+j] = byte(q)
			}
		}
		return buf
	}
	f.tensors = append(f.tensors, t)
}

// WriteTo writes the file and returns the number of bytes written. After an invalid addition
// it writes nothing and returns the error.
func (f *File) WriteTo(w io.Writer) (int64, error) {
	if f.err != nil {
		return 0, f.err
	}
	counter := &counter{w: w}
	out := bufio.NewWriterSize(counter, 1<<18)
	err := f.encode(out)
	if err == nil {
		err = out.Flush()
	}
	return counter.n, err
}

func (f *File) encode(w io.Writer) error {
	head := []byte(magic)
	head = binary.LittleEndian.AppendUint32(head, version)
	head = binary.LittleEndian.AppendUint64(head, uint64(len(f.tensors)))
	head = binary.LittleEndian.AppendUint64(head, uint64(len(f.keys)))
	head = append(head, f.meta...)
	for _, t := range f.tensors {
		head = appendText(head, t.name)
		head = binary.LittleEndian.AppendUint32(head, uint32(len(t.dims)))
		for _, d := range t.dims {
			head = binary.LittleEndian.AppendUint64(head, d)
		}
		head = binary.LittleEndian.AppendUint32(head, t.kind)
		head = binary.LittleEndian.AppendUint64(head, t.offset)
	}
	if _, err := w.Write(append(head, make([]byte, aligned(len(head))-len(head))...)); err != nil {
		return err
	}
	for _, t := range f.tensors {
		size := 0
		for i := range t.rows {
			n, err := w.Write(t.row(i))
			if err != nil {
				return err
			}
			size += n
		}
		if _, err := w.Write(make([]byte, aligned(size)-size)); err != nil {
			return err
		}
	}
	return nil
}

func aligned[T int | uint64](n T) T { return (n + alignment - 1) / alignment * alignment }

// key begins a metadata entry: it writes the key and the type of its value.
func (f *File) key(key string, kind uint32) {
	switch {
	case key == "", len(key) > maxKey, strings.Trim(key, "abcdefghijklmnopqrstuvwxyz0123456789_-.") != "":
		f.fail("key %q: want 1 to %d lower-case letters, digits, _ - or .", key, maxKey)
	case f.keys[key]:
		f.fail("duplicate key %q", key)
	}
	if f.keys == nil {
		f.keys = make(map[string]bool)
	}
	f.keys[key] = true
	f.meta = appendText(f.meta, key)
	f.meta = binary.LittleEndian.AppendUint32(f.meta, kind)
}

func (f *File) array(key string, kind uint32, n int) {
	f.key(key, typeArray)
	f.meta = binary.LittleEndian.AppendUint32(f.meta, kind)
	f.meta = binary.LittleEndian.AppendUint64(f.meta, uint64(n))
}

func (f *File) text(key, s string) {
	if !utf8.ValidString(s) {
		f.fail("key %q: %q is not UTF-8", key, s)
	}
	f.meta = appendText(f.meta, s)
}

// tensor returns the layout of a tensor in which count elements take size bytes. If the tensor is
// invalid, it returns false, and records the error in f.err.
func (f *File) tensor(name string, kind uint32, count, size uint64, dims []uint64) (tensor, bool) {
	switch {
	case name == "", len(name) > maxName, !utf8.ValidString(name):
		f.fail("tensor %q: want a name of 1 to %d bytes", name, maxName)
		return tensor{}, false
	case f.names[name]:
		f.fail("duplicate tensor %q", name)
		return tensor{}, false
	case len(dims) == 0 || len(dims) > maxDims:
		f.fail("tensor %q: want 1 to %d dimensions, got %d", name, maxDims, len(dims))
		return tensor{}, false
	case dims[0]%count != 0:
		f.fail("tensor %q: a row of %d cannot be cut into blocks of %d", name, dims[0], count)
		return tensor{}, false
	}
	elements := uint64(1)
	for _, d := range dims {
		if d == 0 || d > maxSize/elements {
			f.fail("tensor %q: impossible dimensions %d", name, dims)
			return tensor{}, false
		}
		elements *= d
	}
	if f.names == nil {
		f.names = make(map[string]bool)
	}
	f.names[name] = true
	t := tensor{name: name, kind: kind, dims: slices.Clone(dims), offset: f.size, rows: int(elements / dims[0])}
	f.size += aligned(elements / count * size)
	return t, true
}

func (f *File) fail(format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf("gguf: "+format, args...)
	}
}

func appendText(b []byte, s string) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
	return append(b, s...)
}

// A counter passes writes on to w and counts the bytes that w has taken.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}
