package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/shortdir"
	"github.com/inferd-go/inferd/internal/store"
)

// A disk models a file system with a volatile cache; its method do applies a change of a store. A
// sync of a file makes its content durable, and a sync of a folder makes its entries durable. A power
// cut may lose any combination of the other changes; real file systems lose less.
type disk struct {
	names   map[string]*file // current entries by path, including folders
	durable map[string]*file
	pending []change // changes of entries that are not synced
}

// A file has the content of its last sync, and the writes since then.
type file struct {
	dir    bool
	synced []byte
	writes []func([]byte) []byte
}

// A change is a change of entries in one folder; a nil file means that the entry is removed.
type change struct {
	folder  string
	entries map[string]*file
}

func newDisk() *disk {
	root := &file{dir: true}
	return &disk{names: map[string]*file{".": root}, durable: map[string]*file{".": root}}
}

func (d *disk) change(entries map[string]*file) {
	byFolder := make(map[string]map[string]*file)
	for name, f := range entries {
		folder := path.Dir(name)
		if byFolder[folder] == nil {
			byFolder[folder] = make(map[string]*file)
		}
		byFolder[folder][name] = f
		apply(d.names, name, f)
	}
	for folder, entries := range byFolder { // a rename within a folder is one change, any other is two
		d.pending = append(d.pending, change{folder, entries})
	}
}

func apply(names map[string]*file, name string, f *file) {
	if f == nil {
		delete(names, name)
	} else {
		names[name] = f
	}
}

// do applies a change that a store has made.
func (d *disk) do(op store.Op) {
	f := d.names[op.Path]
	switch op.Kind {
	case store.OpMkdir:
		if f == nil {
			d.change(map[string]*file{op.Path: {dir: true}})
		}
	case store.OpCreate:
		if f == nil {
			d.change(map[string]*file{op.Path: {}})
		}
	case store.OpWrite:
		data, off := bytes.Clone(op.Data), int(op.Offset)
		f.writes = append(f.writes, func(b []byte) []byte {
			b = append(bytes.Clone(b), make([]byte, max(off+len(data)-len(b), 0))...)
			copy(b[off:], data)
			return b
		})
	case store.OpTruncate:
		size := int(op.Size)
		f.writes = append(f.writes, func(b []byte) []byte {
			return append(bytes.Clone(b[:min(size, len(b))]), make([]byte, max(size-len(b), 0))...)
		})
	case store.OpSync:
		f.synced = f.content(func() bool { return true })
		f.writes = nil
	case store.OpSyncDir:
		d.pending = slices.DeleteFunc(d.pending, func(c change) bool {
			if c.folder != op.Path {
				return false
			}
			for name, f := range c.entries {
				apply(d.durable, name, f)
			}
			return true
		})
	case store.OpRename:
		d.change(map[string]*file{op.Path: nil, op.To: f})
	case store.OpRemove:
		if f != nil {
			d.change(map[string]*file{op.Path: nil})
		}
	case store.OpChmod, store.OpReserve, store.OpClone, store.OpLink: // no content, or not in these tests
	}
}

// content returns the content of a file after a power cut. survives reports for each write since
// the last sync, in order, whether it reached the disk.
func (f *file) content(survives func() bool) []byte {
	b := f.synced
	for _, w := range f.writes {
		if survives() {
			b = w(b)
		}
	}
	return b
}

// crash writes to dir the files and folders that are left after a power cut. entry reports for each
// change of entries that is not synced whether it reached the disk, and data does so for each
// write.
func (d *disk) crash(t *testing.T, dir string, entry, data func() bool) {
	t.Helper()
	names := maps.Clone(d.durable)
	for _, c := range d.pending {
		if entry() {
			for name, f := range c.entries {
				apply(names, name, f)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) { // folders come before their entries
		if parent := names[path.Dir(name)]; parent == nil {
			delete(names, name)
			continue
		}
		to := filepath.Join(dir, filepath.FromSlash(name))
		var err error
		if f := names[name]; f.dir {
			err = os.MkdirAll(to, 0o755)
		} else {
			err = os.WriteFile(to, f.content(data), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A workload is a series of changes to a store, in steps. The result of a finished step must survive a
// crash.
type workload struct {
	s    *store.Store
	dir  string            // the folder of the files to import
	done func(step string) // called after each step; may be nil
}

var (
	oldData, newData, sameData = random(5000, 10), random(70000, 11), random(3000, 12)
	wrongData                  = random(2000, 13)
)

func wantNew() store.Want {
	return store.Want{SHA256: digestOf(newData), Name: "new", Upstream: store.Upstream{URL: "https://a/new", ETag: `"1"`, Total: int64(len(newData))}}
}

// run does the steps in order, and returns the first error.
func (l *workload) run() error {
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"old is there", func() error { return l.put("old", oldData) }},
		{"new is begun", func() error { return l.fill(wantNew(), newData, 40000, false) }},
		{"new is reset", l.reset},
		{"new is there", func() error { return l.put("new", newData) }},
		{"a wrong one came", func() error { return l.wrong() }},
		{"a wrong one came again", func() error { return l.wrong() }},
		{"the imported is there", l.load},
		{"old is gone", func() error { _, err := l.s.Remove("old", false); return err }},
		{"all is collected", func() error {
			_, _, err := l.s.GC(context.Background(), store.GCOptions{Now: time.Now().Add(30 * 24 * time.Hour)})
			return err
		}},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		if l.done != nil {
			l.done(step.name)
		}
	}
	return nil
}

// fill writes the bytes that are missing among the first n, and commits the blob if commit is set.
func (l *workload) fill(w store.Want, data []byte, n int, commit bool) (err error) {
	in, err := l.s.Begin(w)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	for at := 0; at < n; {
		end := min(at+16000, n)
		for _, r := range in.Ranges() {
			if int64(at) >= r.Start && int64(at) < r.End {
				at = int(r.End)
			} else if r.Start > int64(at) {
				end = min(end, int(r.Start))
			}
		}
		if at >= n {
			break
		}
		end = max(min(at+16000, n), end)
		if _, err := in.WriteAt(data[at:min(end, n)], int64(at)); err != nil {
			return err
		}
		at = end
		if err := in.Checkpoint(); err != nil {
			return err
		}
	}
	if !commit {
		return nil
	}
	_, err = in.Commit(context.Background())
	return err
}

func (l *workload) reset() (err error) {
	in, err := l.s.Begin(wantNew())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	return in.Reset(store.Upstream{URL: "https://a/new", ETag: `"2"`, Total: int64(len(newData))})
}

func (l *workload) put(name string, data []byte) error {
	lock, err := l.s.LockName(name)
	if err != nil {
		return err
	}
	defer lock.Release()
	w := store.Want{SHA256: digestOf(data), Name: name, Upstream: store.Upstream{URL: "https://a/" + name, Total: int64(len(data))}}
	if ok, err := l.s.Have(context.Background(), w.SHA256, nil); err != nil {
		return err
	} else if !ok {
		if err := l.fill(w, data, len(data), true); err != nil {
			return err
		}
	}
	return l.s.PutManifest(&store.Manifest{Name: name, Blob: "sha256:" + w.SHA256, Size: w.Total}, false)
}

func (l *workload) wrong() error {
	err := l.fill(store.Want{SHA256: sum("right"), Name: "wrong", Upstream: store.Upstream{URL: "https://a/wrong"}}, wrongData, len(wrongData), true)
	if _, ok := errors.AsType[*store.MismatchError](err); ok && !errors.Is(err, errNoSpace) && !errors.Is(err, errInputOutput) {
		return nil
	}
	if err == nil {
		return errors.New("a wrong digest was committed")
	}
	return err
}

func (l *workload) load() error {
	file := filepath.Join(l.dir, "Same.gguf")
	if err := os.WriteFile(file, sameData, 0o600); err != nil {
		return err
	}
	_, err := l.s.Import(context.Background(), store.Import{Path: file}, nil)
	return err
}

// present returns the models that must and must not be there after the given steps.
func present(steps []string) (must, mustNot []string) {
	for _, s := range steps {
		switch s {
		case "old is there":
			must = append(must, "old")
		case "new is there":
			must = append(must, "new")
		case "the imported is there":
			must = []string{"new", "same"} // the next step removes old
		case "old is gone":
			mustNot = append(mustNot, "old")
		}
	}
	return must, mustNot
}

// check opens a store after a crash. It returns an error unless the blobs of all manifests are
// whole and the models of the finished steps are there. Then it adds all models of the workload and
// collects garbage, and returns an error unless exactly the files of these models are left.
func check(t *testing.T, dir, boot string, steps []string) error {
	t.Helper()
	s := &store.Store{Home: dir, Boot: boot}
	defer s.Close()
	l, err := s.Verify(t.Context(), nil, nil)
	if err != nil {
		return err
	}
	if len(l.Torn) > 0 {
		return fmt.Errorf("torn manifests: %v", l.Torn)
	}
	var names []string
	for _, e := range l.Models {
		names = append(names, e.Name)
		if e.State != store.OK {
			return fmt.Errorf("%s is %s: %s", e.Name, e.State, e.Why)
		}
	}
	must, mustNot := present(steps)
	for _, n := range must {
		if !slices.Contains(names, n) {
			return fmt.Errorf("%s is missing after %q", n, steps)
		}
	}
	for _, n := range mustNot {
		if slices.Contains(names, n) {
			return fmt.Errorf("%s is there after %q", n, steps)
		}
	}
	again := workload{s: s, dir: t.TempDir()}
	for name, data := range map[string][]byte{"new": newData, "old": oldData} {
		if err := again.put(name, data); err != nil {
			return fmt.Errorf("go on with %s: %w", name, err)
		}
	}
	if err := again.wrong(); err != nil {
		return fmt.Errorf("go on with the wrong one: %w", err)
	}
	if err := again.load(); err != nil {
		return fmt.Errorf("go on with the import: %w", err)
	}
	if _, _, err := s.GC(t.Context(), store.GCOptions{Now: time.Now().Add(30 * 24 * time.Hour)}); err != nil {
		return fmt.Errorf("collect: %w", err)
	}
	want := []string{"manifests/new.json", "manifests/old.json", "manifests/same.json"}
	for _, data := range [][]byte{newData, oldData, sameData} {
		want = append(want, "blobs/sha256/"+digestOf(data)[:2]+"/"+digestOf(data)+"/data")
	}
	slices.Sort(want)
	if got := tree(t, dir); !slices.Equal(got, want) {
		return fmt.Errorf("after all there are %q", got)
	}
	return nil
}

var writerPID = regexp.MustCompile(`"pid": *[0-9]+`)

// killWriters removes the writer from the states of ingests, so that it counts as killed although
// this process runs on.
func killWriters(t *testing.T, dir string) {
	t.Helper()
	states, err := filepath.Glob(filepath.Join(dir, "blobs/sha256/*/.partial-*/state.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range states {
		data, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(name, writerPID.ReplaceAll(data, []byte(`"pid":0`)), 0o600)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// record runs a workload. It returns the changes, and the name of each step by the number of changes at
// its end.
func record(t *testing.T) (ops []store.Op, steps map[int]string) {
	t.Helper()
	dir := shortdir.InMemory(t)
	steps = make(map[int]string)
	s := &store.Store{Home: filepath.Join(dir, "models"), Boot: "first"}
	if err := os.Mkdir(s.Home, 0o755); err != nil {
		t.Fatal(err)
	}
	s.Before = func(op store.Op) error {
		op.Data = bytes.Clone(op.Data)
		ops = append(ops, op)
		return nil
	}
	l := workload{s: s, dir: dir, done: func(step string) { steps[len(ops)] = step }}
	if err := l.run(); err != nil {
		t.Fatal(err)
	}
	return ops, steps
}

func always() bool { return true }
func never() bool  { return false }

// After each change of a workload the machine loses power, with several outcomes, or the process is
// killed. In each case the store is whole, and the next process can finish the workload.
func TestCrashes(t *testing.T) {
	ops, steps := record(t)
	randoms, stride := 2, 1
	if testing.Short() {
		randoms, stride = 0, 83
	}
	cuts := 0
	d := newDisk()
	var done []string
	for n := 0; n <= len(ops); n++ {
		if n > 0 {
			d.do(ops[n-1])
		}
		if steps[n] != "" {
			done = append(done, steps[n])
		}
		if n%stride != 0 {
			continue
		}
		r := rand.New(rand.NewPCG(uint64(n), 1))
		coin := func() bool { return r.IntN(2) == 0 }
		type cut struct {
			name        string
			entry, data func() bool
		}
		cutsHere := []cut{
			{"nothing that is not synced survives", never, never},
			{"only entries survive", always, never},
			{"only data survive", never, always},
			{"all survives", always, always},
			{"the process is killed", always, always},
		}
		for range randoms {
			cutsHere = append(cutsHere, cut{"something survives", coin, coin})
		}
		for _, c := range cutsHere {
			cuts++
			dir := filepath.Join(shortdir.InMemory(t), "models")
			d.crash(t, dir, c.entry, c.data)
			boot := "second"
			if strings.Contains(c.name, "killed") {
				boot = "first"
				killWriters(t, dir)
			}
			if err := check(t, dir, boot, done); err != nil {
				last := store.Op{}
				if n > 0 {
					last = ops[n-1]
				}
				t.Fatalf("%s after change %d of %d (%s %s %s), after %q: %v\n%s", c.name, n, len(ops), last.Kind, last.Path, last.To, done, err, strings.Join(tree(t, dir), "\n"))
			}
			_ = os.RemoveAll(dir)
		}
	}
	t.Logf("%d changes, %d crashes", len(ops), cuts)
	if !testing.Short() && cuts < 1000 {
		t.Errorf("only %d crashes", cuts)
	}
}

// Each change of a workload fails once, with the error of a full disk or of a broken one. The workload
// returns that error; it may ignore a failure only if the change is of a mode or of a lock file. The
// next process can finish the workload.
func TestFailures(t *testing.T) {
	ops, _ := record(t)
	failures, stride := []error{errNoSpace, errInputOutput}, 1
	if testing.Short() {
		failures, stride = failures[:1], 29
	}
	for _, failure := range failures {
		for n := 0; n < len(ops); n += stride {
			dir := shortdir.InMemory(t)
			s := &store.Store{Home: filepath.Join(dir, "models"), Boot: "first"}
			// The number of a change is not the same in each run: the ingest of an import is named
			// by a digest of its random path, which may fall into a folder that exists. So this
			// test records which change failed.
			count, failed := 0, store.Op{}
			s.Before = func(op store.Op) error {
				if count++; count == n+1 {
					failed = op
					return failure
				}
				return nil
			}
			l := workload{s: s, dir: dir}
			var done []string
			l.done = func(step string) { done = append(done, step) }
			err := l.run()
			if err != nil && !errors.Is(err, failure) {
				t.Errorf("change %d (%s %s): %v", n, failed.Kind, failed.Path, err)
			}
			if err == nil && count > n && failed.Kind != store.OpChmod && !strings.Contains(failed.Path, ".lock") {
				t.Errorf("change %d (%s %s) failed, but run returned no error", n, failed.Kind, failed.Path)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			killWriters(t, s.Home)
			if err := check(t, s.Home, "first", done); err != nil {
				t.Fatalf("after change %d (%s %s) failed with %v: %v", n, failed.Kind, failed.Path, failure, err)
			}
			_ = os.RemoveAll(dir)
		}
	}
}
