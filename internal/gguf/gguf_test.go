package gguf_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/gguf"
)

func zeros(int, []float32) {}

// WriteTo writes exactly the expected bytes, which were composed by hand after the specification.
func TestWriteTo(t *testing.T) {
	var f gguf.File
	f.String("s", "é")
	f.Uint32("u", 7)
	f.Float32("f", -2)
	f.Bool("b", true)
	f.Strings("a.s", []string{"x", ""})
	f.Int32s("a.i", []int32{-1})
	f.Strings("a.e", nil)
	f.F32("one", func(row int, values []float32) { values[0] = float32(row + 1) }, 3, 2)
	f.Q8("two", func(_ int, blocks []gguf.Block) {
		blocks[0] = gguf.Block{Scale: 0x3c00}
		blocks[0].Q[0], blocks[0].Q[31] = -1, 127
	}, 32)

	want, err := hex.DecodeString(strings.Join(strings.Fields(`
		47475546 03000000 0200000000000000 0700000000000000
		0100000000000000 73 08000000 0200000000000000 c3a9
		0100000000000000 75 04000000 07000000
		0100000000000000 66 06000000 000000c0
		0100000000000000 62 07000000 01
		0300000000000000 612e73 09000000 08000000 0200000000000000 0100000000000000 78 0000000000000000
		0300000000000000 612e69 09000000 05000000 0100000000000000 ffffffff
		0300000000000000 612e65 09000000 08000000 0000000000000000
		0300000000000000 6f6e65 02000000 0300000000000000 0200000000000000 00000000 0000000000000000
		0300000000000000 74776f 01000000 2000000000000000 08000000 2000000000000000
	`), ""))
	if err != nil {
		t.Fatal(err)
	}
	for len(want)%32 != 0 {
		want = append(want, 0)
	}
	data, err := hex.DecodeString("0000803f" + strings.Repeat("00", 8) + "00000040" + strings.Repeat("00", 8) + strings.Repeat("00", 8) + // one, padded
		"003c" + "ff" + strings.Repeat("00", 30) + "7f" + strings.Repeat("00", 30)) // two, padded
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, data...)

	var got bytes.Buffer
	n, err := f.WriteTo(&got)
	if err != nil {
		t.Fatal(err)
	}
	if n != int64(got.Len()) {
		t.Errorf("WriteTo = %d, wrote %d bytes", n, got.Len())
	}
	if diff := cmp.Diff(hex.Dump(want), hex.Dump(got.Bytes())); diff != "" {
		t.Errorf("bytes (-want +got):\n%s", diff)
	}
}

func TestInvalid(t *testing.T) {
	for name, test := range map[string]struct {
		add  func(f *gguf.File)
		want string
	}{
		"a key twice":                        {func(f *gguf.File) { f.Bool("k", true); f.Uint32("k", 1) }, `gguf: duplicate key "k"`},
		"an empty key":                       {func(f *gguf.File) { f.Bool("", true) }, `gguf: key "": want 1 to 65535 lower-case letters`},
		"a key in capitals":                  {func(f *gguf.File) { f.Bool("Key", true) }, `gguf: key "Key": want`},
		"a key that is too long":             {func(f *gguf.File) { f.Bool(strings.Repeat("k", 65536), true) }, "want 1 to 65535"},
		"a string that is not UTF-8":         {func(f *gguf.File) { f.String("k", "\xff") }, `gguf: key "k": "\xff" is not UTF-8`},
		"a string in an array":               {func(f *gguf.File) { f.Strings("k", []string{"", "\xff"}) }, "is not UTF-8"},
		"a tensor twice":                     {func(f *gguf.File) { f.F32("t", zeros, 1); f.F32("t", zeros, 1) }, `gguf: duplicate tensor "t"`},
		"a tensor without a name":            {func(f *gguf.File) { f.F32("", zeros, 1) }, "want a name of 1 to 63 bytes"},
		"a tensor with a long name":          {func(f *gguf.File) { f.F32(strings.Repeat("t", 64), zeros, 1) }, "want a name of 1 to 63 bytes"},
		"no dimension":                       {func(f *gguf.File) { f.F32("t", zeros) }, "want 1 to 4 dimensions, got 0"},
		"five dimensions":                    {func(f *gguf.File) { f.F32("t", zeros, 1, 1, 1, 1, 1) }, "want 1 to 4 dimensions, got 5"},
		"a dimension of zero":                {func(f *gguf.File) { f.F32("t", zeros, 0, 2) }, "impossible dimensions [0 2]"},
		"an overflow of the size":            {func(f *gguf.File) { f.F32("t", zeros, 1<<40, 1<<40) }, "impossible dimensions"},
		"a row of incomplete blocks":         {func(f *gguf.File) { f.Q8("t", func(int, []gguf.Block) {}, 33) }, "a row of 33 cannot be cut into blocks of 32"},
		"several faults: the first is shown": {func(f *gguf.File) { f.F32("t", zeros); f.Bool("", true) }, "want 1 to 4 dimensions"},
	} {
		t.Run(name, func(t *testing.T) {
			var f gguf.File
			test.add(&f)
			f.Bool("later", true)
			var out bytes.Buffer
			n, err := f.WriteTo(&out)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("WriteTo: %v, want %q in it", err, test.want)
			}
			if n != 0 || out.Len() != 0 {
				t.Errorf("WriteTo = %d and wrote %d bytes, want none", n, out.Len())
			}
		})
	}
}

// A limited writer takes room bytes, then fails as a full disk does.
type limited struct{ room int }

var errFull = errors.New("no space left")

func (l *limited) Write(b []byte) (int, error) {
	n := min(len(b), l.room)
	l.room -= n
	if n < len(b) {
		return n, errFull
	}
	return n, nil
}

// WriteTo produces no more rows once the disk is full.
func TestFullDisk(t *testing.T) {
	const rows, room = 4096, 100_000
	produced := 0
	var f gguf.File
	f.F32("t", func(int, []float32) { produced++ }, 1024, rows)
	n, err := f.WriteTo(&limited{room})
	if !errors.Is(err, errFull) {
		t.Errorf("WriteTo: %v, want %v", err, errFull)
	}
	if n != room {
		t.Errorf("WriteTo = %d, want %d", n, room)
	}
	if produced == rows {
		t.Error("all rows were produced")
	}

	var small gguf.File
	small.Bool("k", true)
	if _, err := small.WriteTo(&limited{}); !errors.Is(err, errFull) {
		t.Errorf("WriteTo of less than a buffer: %v, want %v", err, errFull)
	}
}

// fill gets each row as zeros, although one buffer serves all rows.
func TestRows(t *testing.T) {
	var f gguf.File
	f.F32("f", func(row int, values []float32) {
		for i, v := range values {
			if v != 0 {
				t.Fatalf("value %d of row %d starts as %v", i, row, v)
			}
			values[i] = 1
		}
	}, 8, 2, 2)
	f.Q8("q", func(row int, blocks []gguf.Block) {
		for i := range blocks {
			if blocks[i] != (gguf.Block{}) {
				t.Fatalf("block %d of row %d starts as %v", i, row, blocks[i])
			}
			blocks[i] = gguf.Block{Scale: 1, Q: [32]int8{1}}
		}
	}, 64, 3)
	if _, err := f.WriteTo(io.Discard); err != nil {
		t.Fatal(err)
	}
}
