package builtin_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"testing"
)

// A header is the part of a GGUF file before its tensors.
type header struct {
	meta    map[string]any // uint32, float32, bool, string, []string, []int32
	tensors map[string]tensor
	data    []byte // of all tensors
}

type tensor struct {
	kind   uint32
	dims   []uint64
	offset uint64
}

// parse reads a file by the specification, without code of the writer.
func parse(t *testing.T, file []byte) header {
	t.Helper()
	p := &parser{t: t, rest: file}
	if got := string(p.take(4)); got != "GGUF" {
		t.Fatalf("magic %q", got)
	}
	if v := p.u32(); v != 3 {
		t.Fatalf("version %d", v)
	}
	h := header{meta: map[string]any{}, tensors: map[string]tensor{}}
	tensors, keys := p.u64(), p.u64()
	for range keys {
		key := p.text()
		h.meta[key] = p.value(p.u32())
	}
	for range tensors {
		name := p.text()
		var x tensor
		for range p.u32() {
			x.dims = append(x.dims, p.u64())
		}
		x.kind, x.offset = p.u32(), p.u64()
		h.tensors[name] = x
	}
	if len(h.meta) != int(keys) || len(h.tensors) != int(tensors) {
		t.Fatal("two tensors or keys have the same name")
	}
	for (len(file)-len(p.rest))%32 != 0 {
		if b := p.take(1)[0]; b != 0 {
			t.Fatalf("padding is %d", b)
		}
	}
	h.data = p.rest
	return h
}

// floats returns the numbers of an F32 tensor.
func (h header) floats(t *testing.T, name string) []float32 {
	t.Helper()
	x, ok := h.tensors[name]
	if !ok || x.kind != 0 {
		t.Fatalf("tensor %s: %+v", name, x)
	}
	n := uint64(1)
	for _, d := range x.dims {
		n *= d
	}
	out := make([]float32, n)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(h.data[x.offset+4*uint64(i):]))
	}
	return out
}

type parser struct {
	t    *testing.T
	rest []byte
}

func (p *parser) take(n uint64) []byte {
	if n > uint64(len(p.rest)) {
		p.t.Fatal(fmt.Errorf("%w: want %d bytes, have %d", io.ErrUnexpectedEOF, n, len(p.rest)))
	}
	b := p.rest[:n]
	p.rest = p.rest[n:]
	return b
}

func (p *parser) u32() uint32  { return binary.LittleEndian.Uint32(p.take(4)) }
func (p *parser) u64() uint64  { return binary.LittleEndian.Uint64(p.take(8)) }
func (p *parser) text() string { return string(p.take(p.u64())) }

func (p *parser) value(kind uint32) any {
	switch kind {
	case 4:
		return p.u32()
	case 6:
		return math.Float32frombits(p.u32())
	case 7:
		return p.take(1)[0] == 1
	case 8:
		return p.text()
	case 9:
		of, n := p.u32(), p.u64()
		switch of {
		case 5:
			out := make([]int32, n)
			for i := range out {
				out[i] = int32(p.u32())
			}
			return out
		case 8:
			out := make([]string, n)
			for i := range out {
				out[i] = p.text()
			}
			return out
		}
		p.t.Fatalf("array of type %d", of)
	default:
		p.t.Fatalf("value of type %d", kind)
	}
	return nil
}
