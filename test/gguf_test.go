package test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/builtin"
	"github.com/inferd-go/inferd/internal/shortdir"
)

// A damagedFile is a damaged model file.
type damagedFile struct {
	name string
	data []byte
}

// ggufOffsets has the offsets of the parts of a GGUF file, in bytes.
type ggufOffsets struct {
	keys    []int // of the lengths of the keys
	values  []int // of the types of the values
	tensors []tensorAt
	data    int // of the content of the tensors
}

// A tensorAt has the offsets of the fields of a tensor.
type tensorAt struct{ name, dims, size, kind, offset int }

// dissect finds the parts of a file that package gguf has written.
func dissect(t *testing.T, data []byte) ggufOffsets {
	t.Helper()
	u32 := func(at int) int { return int(binary.LittleEndian.Uint32(data[at:])) }
	u64 := func(at int) int { return int(binary.LittleEndian.Uint64(data[at:])) }
	sizes := map[int]int{0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
	var value func(kind, at int) int
	value = func(kind, at int) int {
		switch kind {
		case 8:
			return at + 8 + u64(at)
		case 9:
			inner, n := u32(at), u64(at+4)
			at += 12
			for range n {
				at = value(inner, at)
			}
			return at
		}
		return at + sizes[kind]
	}
	var a ggufOffsets
	at := 24
	for range u64(16) {
		a.keys = append(a.keys, at)
		at += 8 + u64(at)
		a.values = append(a.values, at)
		at = value(u32(at), at+4)
	}
	for range u64(8) {
		f := tensorAt{name: at}
		at += 8 + u64(at)
		f.dims, f.size = at, at+4
		at += 4 + 8*u32(at)
		f.kind, f.offset = at, at+4
		at += 12
		a.tensors = append(a.tensors, f)
	}
	a.data = (at + 31) / 32 * 32
	if len(a.tensors) == 0 || a.data >= len(data) {
		t.Fatal("the layout of the model file is unknown")
	}
	return a
}

// damagedFiles returns copies of a file with wrong numbers in each part of the header, truncated copies,
// and files of other content.
func damagedFiles(t *testing.T, whole []byte) (all []damagedFile) {
	t.Helper()
	a := dissect(t, whole)
	add := func(name string, data []byte) { all = append(all, damagedFile{name, data}) }
	put32 := func(name string, at int, v uint32) {
		m := bytes.Clone(whole)
		binary.LittleEndian.PutUint32(m[at:], v)
		add(fmt.Sprintf("%s %#x", name, v), m)
	}
	put64 := func(name string, at int, values ...uint64) {
		for _, v := range values {
			m := bytes.Clone(whole)
			binary.LittleEndian.PutUint64(m[at:], v)
			add(fmt.Sprintf("%s %#x", name, v), m)
		}
	}
	huge := []uint64{0, 1 << 20, 1 << 32, math.MaxInt64, math.MaxUint64}
	for n := range 40 { // cut in the header and in the tensors
		add(fmt.Sprintf("cut at %d/40", n), whole[:len(whole)*n/40])
	}
	for n := range 30 {
		add(fmt.Sprintf("header cut at %d/30", n), whole[:a.data*n/30])
	}
	add("a byte is missing", whole[:len(whole)-1])
	add("empty", []byte{})
	add("zeros", make([]byte, 1<<20))
	add("text", []byte(strings.Repeat("hello\n", 1000)))
	for _, v := range []uint32{0, 1, 4, math.MaxUint32, 3 << 24} {
		put32("version", 4, v)
	}
	put64("tensors", 8, append(huge, uint64(len(a.tensors)+1), uint64(len(a.tensors)-1))...)
	put64("keys", 16, append(huge, uint64(len(a.keys)+1), uint64(len(a.keys)-1))...)
	for n, at := range a.keys {
		put64(fmt.Sprintf("length of key %d", n), at, huge[1], math.MaxUint64)
		put32(fmt.Sprintf("type of value %d", n), a.values[n], 8)
		put32(fmt.Sprintf("type of value %d", n), a.values[n], 99)
	}
	for n, f := range a.tensors {
		put64(fmt.Sprintf("name of tensor %d", n), f.name, 0, math.MaxUint64)
		put32(fmt.Sprintf("dimensions of tensor %d", n), f.dims, 0)
		put32(fmt.Sprintf("dimensions of tensor %d", n), f.dims, math.MaxUint32)
		put64(fmt.Sprintf("size of tensor %d", n), f.size, huge...)
		put32(fmt.Sprintf("type of tensor %d", n), f.kind, 7)
		put32(fmt.Sprintf("type of tensor %d", n), f.kind, math.MaxUint32)
		put64(fmt.Sprintf("offset of tensor %d", n), f.offset, 1, 1<<20, 1<<40, math.MaxUint64)
	}
	return all
}

// A damaged model in place of a served file is refused with its path and a reason, unless it can be
// loaded. The daemon and its other entry go on, and no load hangs.
func TestHostileModels(t *testing.T) {
	var model bytes.Buffer
	if err := builtin.Write("chain", &model); err != nil {
		t.Fatal(err)
	}
	all := damagedFiles(t, model.Bytes())
	if len(all) < 300 {
		t.Fatalf("only %d damages", len(all))
	}
	stride := 1
	if testing.Short() {
		stride = 29
	}
	dir := shortdir.New(t)
	path := filepath.Join(t.TempDir(), "model.gguf")
	place := func(data []byte) {
		t.Helper()
		write(t, path+".new", string(data))
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	place(model.Bytes())
	write(t, filepath.Join(dir, "config.json"), fmt.Sprintf(`{"backends":[
		{"kind":"llamacpp","name":"gen","n_ctx":512,"n_slots":1,"model":{"path":%q}},
		{"kind":"mock","name":"fake","tokens":["mock"]}]}`, path))
	d := start(t, dir)
	d.waitReady()
	w := d.watch()
	defer w.Close()
	w.until("ready", "")
	given, loaded := true, 0
	for n := 0; n < len(all); n += stride {
		damage := all[n]
		place(damage.data)
		if given { // the previous model was loaded, and its engine runs
			kill(t, d.engine(), 9)
		} else if _, errs, code := d.ctl("retry", "gen"); code != 0 {
			t.Fatalf("%s: retry: %d, %s", damage.name, code, errs)
		}
		last := w.outcome()
		if given = last["status"] == "ready"; given {
			loaded++
			continue
		}
		reason := fmt.Sprint(last["reason"])
		if !strings.Contains(reason, path) || len(reason) > 1000 || strings.Contains(reason, "goroutine") {
			t.Errorf("%s: reason %q", damage.name, reason)
		}
		if text, end := d.ask("w", `,"model":"fake"`); text != "mock" || end.Type != "done" {
			t.Fatalf("%s: the other entry: %q, %+v", damage.name, text, end)
		}
	}
	t.Logf("%d damaged models, of which %d were loaded", (len(all)+stride-1)/stride, loaded)
	place(model.Bytes())
	if !given {
		if _, errs, code := d.ctl("retry", "gen"); code != 0 {
			t.Fatalf("retry: %d, %s", code, errs)
		}
		w.until("ready", "")
	}
	d.works()
}

// outcome reads admin frames until the daemon is ready or an entry has been given up. It returns
// the last frame.
func (w *watcher) outcome() map[string]any {
	w.d.t.Helper()
	for {
		frame, err := w.next()
		if err != nil {
			w.d.t.Fatalf("admin ended: %v\n%s", err, w.d.stderr)
		}
		if frame["status"] == "ready" || frame["phase"] == "gave_up" {
			return frame
		}
	}
}
