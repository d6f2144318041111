package store_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/shortdir"
	"github.com/inferd-go/inferd/internal/store"
)

// recordPut puts the model named new into the store at home, and returns the changes.
func recordPut(t *testing.T, home string) (ops []store.Op) {
	t.Helper()
	s := &store.Store{Home: home, Boot: "first", Before: func(op store.Op) error {
		op.Data = bytes.Clone(op.Data)
		ops = append(ops, op)
		return nil
	}}
	defer s.Close()
	l := workload{s: s}
	if err := l.put("new", newData); err != nil {
		t.Fatal(err)
	}
	return ops
}

// For each change, a process is killed right after it, and the next process finishes the work. If the
// machine then loses power, the model is whole, although the first process never synced its changes.
func TestKillThenPowerCut(t *testing.T) {
	home := filepath.Join(shortdir.InMemory(t), "models")
	if err := os.Mkdir(home, 0o755); err != nil {
		t.Fatal(err)
	}
	first := recordPut(t, home)
	stride, randoms := 1, 1
	if testing.Short() {
		stride, randoms = 12, 0
	}
	for n := 1; n <= len(first); n += stride {
		before := newDisk()
		for _, op := range first[:n] {
			before.do(op)
		}
		home := filepath.Join(shortdir.InMemory(t), "models")
		before.crash(t, home, always, always)
		killWriters(t, home)
		second := recordPut(t, home)
		_ = os.RemoveAll(home)
		cut := func(m int, entry, data func() bool, done ...string) {
			t.Helper()
			d := newDisk()
			for _, op := range append(first[:n:n], second[:m]...) {
				d.do(op)
			}
			dir := filepath.Join(shortdir.InMemory(t), "models")
			d.crash(t, dir, entry, data)
			if err := check(t, dir, "second", done); err != nil {
				t.Fatalf("killed after change %d of %d, cut after %d of %d: %v\n%s", n, len(first), m, len(second), err, strings.Join(tree(t, dir), "\n"))
			}
			_ = os.RemoveAll(dir)
		}
		cut(len(second), never, never, "new is there")
		cut(len(second), always, never, "new is there")
		r := rand.New(rand.NewPCG(uint64(n), 2))
		for range randoms {
			cut(r.IntN(len(second)), never, always)
			cut(r.IntN(len(second)), always, never)
		}
	}
}

// A process is killed between its commit and its manifest. The next process finds the blob, and
// writing the manifest removes the files of the ingest.
func TestRestOfAKilledCommit(t *testing.T) {
	s, home := open(t)
	in := begin(t, s, wantNew())
	write1(t, in, newData, 0)
	if _, err := in.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A copy of the store, as the killed process leaves it: with the states of its ingest, and
	// without a lock.
	killed := copyOf(t, home)
	killWriters(t, killed)
	rests := func(dir string) int {
		left, err := filepath.Glob(filepath.Join(dir, "blobs/sha256/*/.partial-*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(left)
	}
	if rests(killed) != 1 {
		t.Fatalf("%q", tree(t, killed))
	}
	next := &store.Store{Home: killed}
	t.Cleanup(func() { next.Close() })
	if present, err := next.Have(t.Context(), wantNew().SHA256, nil); err != nil || !present {
		t.Fatal(present, err)
	}
	manifest := func() *store.Manifest {
		return &store.Manifest{Name: "new", Blob: "sha256:" + wantNew().SHA256, Size: int64(len(newData))}
	}
	// Temporary files of processes that were killed while they wrote manifests.
	if err := os.MkdirAll(filepath.Join(killed, "manifests"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, leaf := range []string{".new.json.ABCDEFGH", ".newer.json.ABCDEFGH"} {
		write(t, filepath.Join(killed, "manifests", leaf), "{")
	}
	if err := next.PutManifest(manifest(), false); err != nil || rests(killed) != 0 {
		t.Errorf("%v, %q", err, tree(t, killed))
	}
	if left, err := filepath.Glob(filepath.Join(killed, "manifests/.*")); err != nil || len(left) != 1 {
		t.Errorf("%q, %v: want only that of the other model", left, err)
	}
	// In the store of the first process, too, the files are gone once the manifest is written.
	if err := s.PutManifest(manifest(), false); err != nil || rests(home) != 0 {
		t.Errorf("%v, %q", err, tree(t, home))
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
}
