package gguf

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Limits of a header. They are far above the figures of real models, and bound the memory and
// time that a hostile file costs: ReadHeader takes less than 3 MiB of memory and reads at most
// maxHeader.
const (
	maxHeader = 256 << 20 // bytes of the metadata
	maxString = 1 << 20   // bytes of a value that is kept
	maxKeys   = 1 << 16   // metadata entries
	maxDepth  = 4         // of arrays in arrays
	maxNoted  = 256       // numbers kept until the architecture's name is known, which selects among them

	minEntry  = 8 + 1 + 4 + 1     // bytes of the smallest metadata entry
	minTensor = 8 + 4 + 8 + 4 + 8 // bytes of the smallest description of a tensor
)

// A Header describes the model in a file. A field is zero if the file lacks its key.
type Header struct {
	Arch       string // general.architecture
	Name       string // general.name
	Quant      string // name of general.file_type, such as "Q4_K_M"
	NCtx       uint64 // context in tokens that the model was trained with
	NVocab     uint64 // size of the vocabulary, in tokens
	SplitNo    uint64 // number of this part of a split model, from 0
	SplitCount uint64 // parts of the model; 0 or 1 if it is not split
	Tensors    uint64 // in this file
}

// ReadHeader reads the metadata of a file of size bytes. It reads no tensors, and skips values
// that a Header does not need. It checks every count and length against the remaining size
// before use. On an error it returns nil.
func ReadHeader(file io.ReaderAt, size int64) (*Header, error) {
	r := &headerReader{file: file, end: min(size, maxHeader), buf: bufio.NewReaderSize(nil, 1<<16)}
	r.seek(0)
	h := r.header(size)
	if r.err != nil {
		return nil, fmt.Errorf("gguf: %w", r.err)
	}
	return h, nil
}

// A headerReader reads values in order. It keeps the first error; after that, all values that it
// returns are zero.
type headerReader struct {
	file io.ReaderAt
	buf  *bufio.Reader
	at   int64 // position in the file
	end  int64 // position beyond which nothing is read
	err  error
}

var errShort = errors.New("the file ends within its header")

func (r *headerReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

func (r *headerReader) seek(at int64) {
	r.at = at
	r.buf.Reset(io.NewSectionReader(r.file, at, r.end-at))
}

// left returns how many bytes may still be read.
func (r *headerReader) left() uint64 { return uint64(r.end - r.at) }

// read fills p with the next bytes, or keeps an error and leaves p undefined.
func (r *headerReader) read(p []byte) {
	if r.err != nil {
		return
	}
	if uint64(len(p)) > r.left() {
		r.tooFar()
		return
	}
	n, err := io.ReadFull(r.buf, p)
	r.at += int64(n)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		r.fail("%w", errShort)
	case err != nil:
		r.fail("%w", err)
	}
}

// tooFar keeps the error of a read beyond r.end.
func (r *headerReader) tooFar() {
	if r.end == maxHeader {
		r.fail("its metadata are larger than %d MiB", maxHeader>>20)
		return
	}
	r.fail("%w", errShort)
}

// skip passes over n bytes.
func (r *headerReader) skip(n uint64) {
	switch {
	case r.err != nil:
	case n > r.left():
		r.tooFar()
	case n <= uint64(r.buf.Buffered()):
		d, err := r.buf.Discard(int(n))
		r.at += int64(d)
		if err != nil {
			r.fail("%w", err)
		}
	default:
		r.seek(r.at + int64(n))
	}
}

func (r *headerReader) uint32() uint32 {
	var b [4]byte
	r.read(b[:])
	if r.err != nil {
		return 0
	}
	return binary.LittleEndian.Uint32(b[:])
}

func (r *headerReader) uint64() uint64 {
	var b [8]byte
	r.read(b[:])
	if r.err != nil {
		return 0
	}
	return binary.LittleEndian.Uint64(b[:])
}

// text reads a string of at most limit bytes. what describes the string in errors.
func (r *headerReader) text(what string, limit uint64) string {
	n := r.uint64()
	switch {
	case r.err != nil:
		return ""
	case n > limit:
		r.fail("%s has %d bytes, at most %d are allowed", what, n, limit)
		return ""
	case n > r.left():
		r.tooFar()
		return ""
	}
	b := make([]byte, n)
	r.read(b)
	if r.err == nil && !utf8.Valid(b) {
		r.fail("%s is not UTF-8", what)
	}
	if r.err != nil {
		return ""
	}
	return string(b)
}

// header reads the whole metadata.
func (r *headerReader) header(size int64) *Header {
	var head [4]byte
	r.read(head[:])
	if r.err == nil && string(head[:]) != magic {
		r.fail("it does not begin with %q", magic)
	}
	v := r.uint32()
	switch {
	case r.err != nil:
	case v == 2 || v == version:
	case v == 1:
		r.fail("version 1 is too old: convert the model again")
	case v&0xffff == 0:
		r.fail("it is for big-endian machines")
	default:
		r.fail("version %d is unknown", v)
	}
	tensors, keys := r.uint64(), r.uint64()
	switch {
	case r.err != nil:
		return nil
	case tensors > uint64(size)/minTensor:
		r.fail("%d tensors do not fit into %d bytes", tensors, size)
	case keys > maxKeys:
		r.fail("%d metadata entries, at most %d are allowed", keys, maxKeys)
	case keys > r.left()/minEntry:
		r.fail("%d metadata entries do not fit into %d bytes", keys, size)
	}
	m := metadata{header: Header{Tensors: tensors}, noted: make(map[string]uint64)}
	for n := uint64(0); n < keys && r.err == nil; n++ {
		r.entry(&m)
	}
	if r.err != nil {
		return nil
	}
	return m.result()
}

// metadata has the values read so far.
type metadata struct {
	header   Header
	fileType uint64
	typed    bool              // fileType has been read
	noted    map[string]uint64 // by key: numbers that matter if the key begins with the architecture's name
	tokens   uint64            // length of the array of tokens
}

// result returns the header. It is called after the last entry, because keys that begin with the
// architecture's name may come before the entry with that name.
func (m *metadata) result() *Header {
	h := m.header
	h.NCtx = m.noted[h.Arch+contextKey]
	h.NVocab = m.noted[h.Arch+vocabKey]
	if h.NVocab == 0 {
		h.NVocab = m.tokens
	}
	if m.typed {
		h.Quant = fileTypeName(m.fileType)
	}
	return &h
}

// Suffixes of the keys that begin with the name of the architecture.
const (
	contextKey = ".context_length"
	vocabKey   = ".vocab_size"
)

// entry reads a key, and reads or skips its value.
func (r *headerReader) entry(m *metadata) {
	key := r.text("a key", maxKey)
	kind := r.uint32()
	if r.err != nil {
		return
	}
	switch key {
	case "general.architecture":
		m.header.Arch = r.stringOf(key, kind)
	case "general.name":
		m.header.Name = r.stringOf(key, kind)
	case "general.file_type":
		m.fileType, m.typed = r.number(key, kind), true
	case "split.no":
		m.header.SplitNo = r.number(key, kind)
	case "split.count":
		m.header.SplitCount = r.number(key, kind)
	case "tokenizer.ggml.tokens":
		if kind != typeArray {
			r.fail("%s is not an array", key)
			return
		}
		m.tokens = r.array(key, 1)
	default:
		if strings.HasSuffix(key, contextKey) || strings.HasSuffix(key, vocabKey) {
			if len(m.noted) == maxNoted {
				r.fail("more than %d keys end in %q or %q", maxNoted, contextKey, vocabKey)
				return
			}
			m.noted[key] = r.number(key, kind)
			return
		}
		r.value(key, kind, 0)
	}
}

func (r *headerReader) stringOf(key string, kind uint32) string {
	if kind != typeString {
		r.fail("%s is not a string", key)
		return ""
	}
	return r.text(key, maxString)
}

// number reads an integer of any type. A negative value is an error.
func (r *headerReader) number(key string, kind uint32) uint64 {
	var b [8]byte
	size := scalarSize(kind)
	signed := kind == typeInt8 || kind == typeInt16 || kind == typeInt32 || kind == typeInt64
	if !signed && kind != typeUint8 && kind != typeUint16 && kind != typeUint32 && kind != typeUint64 {
		r.fail("%s is not a whole number", key)
		return 0
	}
	r.read(b[:size])
	if signed && b[size-1]&0x80 != 0 {
		r.fail("%s is negative", key)
	}
	if r.err != nil {
		return 0
	}
	return binary.LittleEndian.Uint64(b[:])
}

// value skips a value of any type. depth is the number of arrays around it.
func (r *headerReader) value(key string, kind uint32, depth int) {
	switch size := scalarSize(kind); {
	case size > 0:
		r.skip(size)
	case kind == typeString:
		r.skip(r.uint64())
	case kind == typeArray:
		r.array(key, depth+1)
	default:
		r.fail("%s has the unknown type %d", key, kind)
	}
}

// array skips an array and returns its length. depth is 1 for an array that is not in another one.
func (r *headerReader) array(key string, depth int) uint64 {
	kind, n := r.uint32(), r.uint64()
	size := scalarSize(kind)
	least := size
	if size == 0 {
		least = 8 // the length of a string or an array
	}
	switch {
	case r.err != nil:
		return 0
	case depth > maxDepth:
		r.fail("%s has arrays within arrays, more than %d deep", key, maxDepth)
		return 0
	case kind > typeFloat64:
		r.fail("%s has elements of the unknown type %d", key, kind)
		return 0
	case n > r.left()/least:
		r.fail("%s has %d elements, more than fit into the file", key, n)
		return 0
	}
	if size > 0 {
		r.skip(n * size)
		return n
	}
	for range n {
		if r.value(key, kind, depth); r.err != nil {
			return 0
		}
	}
	return n
}

// scalarSize returns the size in bytes of a number or truth value, and 0 for other types.
func scalarSize(kind uint32) uint64 {
	switch kind {
	case typeUint8, typeInt8, typeBool:
		return 1
	case typeUint16, typeInt16:
		return 2
	case typeUint32, typeInt32, typeFloat32:
		return 4
	case typeUint64, typeInt64, typeFloat64:
		return 8
	}
	return 0
}

// fileTypes are the names of the values of general.file_type; retired numbers have none.
var fileTypes = [...]string{
	0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L",
	14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
	23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M",
	32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}

// guessed is the bit that marks a file type as guessed by the program that wrote the file.
const guessed = 1024

func fileTypeName(n uint64) string {
	if n&^guessed < uint64(len(fileTypes)) {
		if name := fileTypes[n&^guessed]; name != "" {
			return name
		}
	}
	return fmt.Sprintf("type %d", n)
}
