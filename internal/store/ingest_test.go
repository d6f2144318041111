package store_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/store"
)

// open returns a store in a new folder, and the path of the folder.
func open(t *testing.T) (*store.Store, string) {
	t.Helper()
	home := filepath.Join(t.TempDir(), "models")
	s := &store.Store{Home: home}
	t.Cleanup(func() { s.Close() })
	return s, home
}

// random returns n pseudo-random bytes, which depend on the seed only.
func random(n int, seed byte) []byte {
	data := make([]byte, n)
	if _, err := rand.NewChaCha8([32]byte{seed}).Read(data); err != nil {
		panic(err)
	}
	return data
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func begin(t *testing.T, s *store.Store, w store.Want) *store.Ingest {
	t.Helper()
	i, err := s.Begin(w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	return i
}

func write1(t *testing.T, i *store.Ingest, data []byte, off int) {
	t.Helper()
	if n, err := i.WriteAt(data, int64(off)); err != nil || n != len(data) {
		t.Fatalf("WriteAt = %d, %v", n, err)
	}
}

func commit(t *testing.T, i *store.Ingest) store.Blob {
	t.Helper()
	b, err := i.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	return b
}

// put commits a blob with the given data, and writes a manifest that gives it the name.
func put(t *testing.T, s *store.Store, name string, data []byte) store.Blob {
	t.Helper()
	i := begin(t, s, store.Want{SHA256: digestOf(data)})
	write1(t, i, data, 0)
	b := commit(t, i)
	if err := s.PutManifest(&store.Manifest{Name: name, Blob: "sha256:" + b.Digest, Size: b.Size}, false); err != nil {
		t.Fatal(err)
	}
	return b
}

// tree returns the files below a folder, without the lock files.
func tree(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && filepath.Ext(path) != ".lock" {
			rel, _ := filepath.Rel(dir, path)
			files = append(files, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// If an ingest is closed while Commit waits for the hash, the wait returns an error. Otherwise Commit
// would compare the digest of the bytes hashed so far, and move the data to the quarantine.
func TestCommitBesideClose(t *testing.T) {
	s, _ := open(t)
	i := begin(t, s, store.Want{Upstream: store.Upstream{URL: "https://a/b", Total: 2}})
	write1(t, i, []byte("a"), 0)
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	if err := i.Wait(t.Context(), 2); err == nil || !strings.Contains(err.Error(), "the ingest has ended") {
		t.Errorf("Wait: %v", err)
	}
}

func TestCommitMakesABlobAndNothingElse(t *testing.T) {
	s, home := open(t)
	data := random(20<<20, 1)
	name := digestOf(data)
	i := begin(t, s, store.Want{SHA256: name, Upstream: store.Upstream{Total: int64(len(data))}})
	if err := i.Reserve(); err != nil {
		t.Fatal(err)
	}
	for _, part := range []int{10 << 20, 15 << 20, 0, 5 << 20} { // in any order
		write1(t, i, data[part:part+5<<20], part)
	}
	b := commit(t, i)
	want := fmt.Sprintf("blobs/sha256/%s/%s/data", name[:2], name)
	if b != (store.Blob{Digest: name, Size: int64(len(data)), Path: filepath.Join(home, filepath.FromSlash(want))}) {
		t.Errorf("%+v", b)
	}
	if got := tree(t, home); len(got) != 1 || got[0] != want {
		t.Errorf("files: %q", got)
	}
	info, err := os.Stat(b.Path)
	if err != nil || info.Mode().Perm() != 0o444 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if got, err := os.ReadFile(b.Path); err != nil || !bytes.Equal(got, data) {
		t.Errorf("other content, %v", err)
	}
	if ok, err := s.Have(t.Context(), name, func(p store.Phase) { t.Errorf("hashed again: %v", p) }); !ok || err != nil {
		t.Errorf("Have = %v, %v", ok, err)
	}
}

func TestIngestIsResumed(t *testing.T) {
	s, home := open(t)
	data := random(3<<20, 2)
	w := store.Want{SHA256: digestOf(data), Upstream: store.Upstream{URL: "https://a/b", ETag: `"x"`, Total: int64(len(data))}}
	i := begin(t, s, w)
	write1(t, i, data[:1<<20], 0)
	write1(t, i, data[2<<20:], 2<<20)
	if _, err := s.Begin(w); err == nil {
		t.Fatal("two at once")
	} else if busy, ok := errors.AsType[*store.BusyError](err); !ok || busy.PID != os.Getpid() {
		t.Errorf("%v", err)
	}
	all, err := s.Unfinished()
	if err != nil || len(all) != 1 || !all[0].Running || all[0].PID != os.Getpid() || all[0].Total != 3<<20 {
		t.Errorf("%+v, %v", all, err)
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := i.WriteAt(data, 0); err == nil {
		t.Error("a closed ingest is written to")
	}
	again := store.Store{Home: home}
	i = begin(t, &again, store.Want{SHA256: w.SHA256})
	if got := fmt.Sprint(i.Ranges(), i.Upstream()); got != fmt.Sprint([]store.Range{{0, 1 << 20}, {2 << 20, 3 << 20}}, w.Upstream) {
		t.Errorf("resumed with %s", got)
	}
	if i.Hashed() != 1<<20 {
		t.Errorf("%d bytes are hashed: they are read again", i.Hashed())
	}
	if _, err := i.Commit(t.Context()); err == nil {
		t.Error("committed with a hole")
	}
	write1(t, i, data[1<<20:2<<20], 1<<20)
	commit(t, i)
}

func TestContentNamesABlobWithoutDigest(t *testing.T) {
	s, _ := open(t)
	i := begin(t, s, store.Want{Upstream: store.Upstream{URL: "https://a/b"}})
	write1(t, i, []byte("content"), 0)
	if b := commit(t, i); b.Digest != sum("content") || b.Size != 7 {
		t.Errorf("%+v", b)
	}
}

func TestWrongDigestIsQuarantined(t *testing.T) {
	s, home := open(t)
	w := store.Want{SHA256: sum("right"), Name: "m", Upstream: store.Upstream{URL: "https://a/b"}}
	for times := 1; times <= 2; times++ {
		i := begin(t, s, w)
		write1(t, i, []byte("wrong"), 0)
		_, err := i.Commit(t.Context())
		m, ok := errors.AsType[*store.MismatchError](err)
		if !ok || m.Expected != sum("right") || m.Actual != sum("wrong") || m.Times != times || m.Damaged {
			t.Fatalf("%v, %+v", err, m)
		}
		if got, err := os.ReadFile(m.MovedTo); string(got) != "wrong" {
			t.Errorf("%q, %v", got, err)
		}
		if err := i.Close(); err != nil {
			t.Error(err)
		}
		again := store.Store{Home: home} // stands for another process
		if q, err := again.Refused(w.SHA256); (q != nil) != (times == 2) || err != nil {
			t.Errorf("after %d: %+v, %v", times, q, err)
		}
	}
	if files := tree(t, home); len(files) != 2 {
		t.Errorf("%q", files)
	}
	if err := s.Forgive(w.SHA256); err != nil {
		t.Error(err)
	}
	if files := tree(t, home); len(files) != 0 {
		t.Errorf("%q", files)
	}
}

func TestStrangersBytesAreHashed(t *testing.T) {
	s, home := open(t)
	i := begin(t, s, store.Want{SHA256: sum("right")})
	write1(t, i, []byte("rig"), 0)
	all, _ := filepath.Glob(filepath.Join(home, "blobs/sha256/*/.partial-*/data.tmp"))
	f, err := os.OpenFile(all[0], os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i.Hashed() < 3 { // the ingest has read the bytes that are about to change
	}
	if _, err := f.WriteAt([]byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	f.Close()
	write1(t, i, []byte("ht"), 3)
	_, err = i.Commit(t.Context())
	if m, ok := errors.AsType[*store.MismatchError](err); !ok || m.Actual != sum("xight") || !m.Damaged {
		t.Errorf("%v", err)
	}
}

func TestModelByName(t *testing.T) {
	s, home := open(t)
	b := put(t, s, "m", []byte("content"))
	m, phases := ensure(t, s, store.Ref{Name: "m"})
	if got := content(t, m); len(got) != 1 || got[0] != "content" || m.Digest != b.Digest || m.Name != "m" || m.Path != b.Path || phases != "CheckingLocal" {
		t.Errorf("%q, %+v, %s", got, m, phases)
	}
	for name, ref := range map[string]store.Ref{"another digest": {Name: "m", SHA256: sum("x")}, "a missing": {Name: "n"}, "a bad": {Name: "../m"}, "no digest's": {Name: "m", SHA256: "a"}} {
		if _, err := s.Ensure(t.Context(), ref, nil); err == nil {
			t.Errorf("%s name is found", name)
		}
	}
	if err := os.Remove(filepath.Join(home, "manifests", "m.json")); err != nil {
		t.Fatal(err)
	}
	ensure(t, s, store.Ref{Name: "m", SHA256: b.Digest}) // a blob needs no manifest then
	if err := os.Chmod(b.Path, 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, b.Path, "contend")
	if _, err := s.Ensure(t.Context(), store.Ref{Name: "m", SHA256: b.Digest}, nil); err == nil {
		t.Error("a damaged blob is handed out")
	}
	if ok, err := s.Have(t.Context(), b.Digest, nil); ok || err != nil {
		t.Errorf("Have = %v, %v", ok, err)
	}
	if _, err := os.Stat(b.Path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the damaged blob is still there: %v", err)
	}
}

var _ io.WriterAt = (*store.Ingest)(nil)

func TestUpstreamChanges(t *testing.T) {
	s, _ := open(t)
	first := store.Upstream{URL: "https://a/b", ETag: `"1"`, Total: 5}
	i := begin(t, s, store.Want{SHA256: sum("right"), Upstream: first})
	write1(t, i, []byte("wro"), 0)
	second := store.Upstream{URL: "https://mirror/b", LastModified: "x", Total: 5}
	if err := i.SetUpstream(second); err != nil || i.Upstream() != second || i.Done() != 3 {
		t.Errorf("%+v, %d bytes, %v", i.Upstream(), i.Done(), err)
	}
	if _, err := i.WriteAt([]byte("ght"), 3); !errors.Is(err, store.ErrTooLong) {
		t.Errorf("beyond the total: %v", err)
	}
	if _, err := i.WriteAt([]byte("x"), -1); err == nil {
		t.Error("before the begin")
	}
	if err := i.Reset(first); err != nil || i.Upstream() != first || i.Done() != 0 || i.Hashed() != 0 {
		t.Errorf("%+v, %d bytes, %v", i.Upstream(), i.Done(), err)
	}
	write1(t, i, []byte("right"), 0)
	commit(t, i)
}

// If bytes are written twice, the later ones are hashed.
func TestBytesAreReplaced(t *testing.T) {
	s, _ := open(t)
	i := begin(t, s, store.Want{SHA256: sum("right")})
	write1(t, i, []byte("wrongs"[:5]), 0)
	for i.Hashed() < 5 {
		runtime.Gosched()
	}
	write1(t, i, []byte("right"), 0)
	commit(t, i)
}

// After a power cut only synced bytes count; after a mere kill, all bytes of the last checkpoint do.
func TestResumeAfterAPowerCut(t *testing.T) {
	s, home := open(t)
	data := random(3<<20, 5)
	w := store.Want{SHA256: digestOf(data), Upstream: store.Upstream{Total: int64(len(data))}}
	i := begin(t, s, w)
	write1(t, i, data[:1<<20], 0)
	if err := i.Close(); err != nil { // this syncs
		t.Fatal(err)
	}
	i = begin(t, s, w)
	write1(t, i, data[1<<20:2<<20], 1<<20)
	if err := i.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	for boot, want := range map[string]int64{"": 2 << 20, "another": 1 << 20} {
		after := copyOf(t, home)
		killWriters(t, after)
		next := &store.Store{Home: after, Boot: boot}
		in := begin(t, next, w)
		// The file is a copy and has another inode. Its bytes count nevertheless, because the
		// digest is known.
		if got := in.Done(); got != want {
			t.Errorf("boot %q: %d bytes, want %d", boot, got, want)
		}
		write1(t, in, data[want:], int(want))
		commit(t, in)
	}
	// Without a digest the bytes of a file with another inode do not count.
	i = begin(t, s, store.Want{Upstream: store.Upstream{URL: "https://a/b"}})
	write1(t, i, []byte("abc"), 0)
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	if in := begin(t, &store.Store{Home: copyOf(t, home)}, store.Want{Upstream: store.Upstream{URL: "https://a/b"}}); in.Done() != 0 {
		t.Errorf("%d bytes of another file", in.Done())
	}
}

// copyOf copies the folder of a store, and returns the path of the copy.
func copyOf(t *testing.T, home string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(home)); err != nil {
		t.Fatal(err)
	}
	return to
}

// Bytes that another program changes between two processes are hashed again.
func TestChangeBetweenProcesses(t *testing.T) {
	s, home := open(t)
	w := store.Want{SHA256: sum("right"), Name: "m", Upstream: store.Upstream{URL: "https://a/b", Total: 5}}
	i := begin(t, s, w)
	write1(t, i, []byte("righ"), 0)
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	all, err := filepath.Glob(filepath.Join(home, "blobs/sha256/*/.partial-*/data.tmp"))
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	write(t, all[0], "wigh")
	i = begin(t, s, w)
	write1(t, i, []byte("t"), 4)
	_, err = i.Commit(t.Context())
	if m, ok := errors.AsType[*store.MismatchError](err); !ok || !m.Damaged || m.Actual != sum("wight") {
		t.Errorf("%v", err)
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	if q, err := s.Refused(w.SHA256); q != nil || err != nil { // the source is not at fault
		t.Errorf("%+v, %v", q, err)
	}
}

// If the state has a hash state of another version of crypto/sha256, the bytes are kept and hashed
// again. If the state is not valid, the bytes are dropped.
func TestStrangeStates(t *testing.T) {
	for name, test := range map[string]struct {
		old, now string
		want     int64
	}{
		"another hash state": {`"hash_state":"`, `"hash_state":"AAAA`, 3},
		"a torn state":       {`"ranges"`, `"ran`, 0},
		"ranges that cross":  {`"end":3`, `"end":-3`, 0},
		"ranges beyond":      {`"end":3`, `"end":3000`, 3},
		"too much hashed":    {`"hashed":3`, `"hashed":4`, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s, home := open(t)
			w := store.Want{SHA256: sum("right"), Upstream: store.Upstream{Total: 5}}
			i := begin(t, s, w)
			write1(t, i, []byte("rig"), 0)
			if err := i.Close(); err != nil {
				t.Fatal(err)
			}
			for _, leaf := range []string{"state.json", "durable.json"} {
				all, err := filepath.Glob(filepath.Join(home, "blobs/sha256/*/.partial-*", leaf))
				if err != nil || len(all) != 1 {
					t.Fatal(all, err)
				}
				text, err := os.ReadFile(all[0])
				if err != nil {
					t.Fatal(err)
				}
				compact := strings.NewReplacer("\t", "", "\n", "", ": ", ":").Replace(string(text))
				if leaf == "state.json" && !strings.Contains(compact, test.old) {
					t.Fatalf("%s lacks %s", compact, test.old)
				}
				write(t, all[0], strings.Replace(compact, test.old, test.now, 1))
			}
			i = begin(t, s, w)
			if got := i.Done(); got != test.want {
				t.Errorf("%d bytes, want %d", got, test.want)
			}
			for _, gap := range gaps(i.Ranges(), 5) {
				write1(t, i, []byte("right")[gap.Start:gap.End], int(gap.Start))
			}
			commit(t, i)
		})
	}
}

// gaps returns the ranges below size that are not in ranges.
func gaps(ranges []store.Range, size int64) (all []store.Range) {
	at := int64(0)
	for _, r := range append(ranges, store.Range{Start: size}) {
		if at < r.Start {
			all = append(all, store.Range{Start: at, End: r.Start})
		}
		at = r.End
	}
	return all
}

// If another program, or a network file system, changes only the times of the data, a right digest
// is accepted, and a wrong one does not count as damage on disk.
func TestTimesChangeAlone(t *testing.T) {
	for content, right := range map[string]bool{"right": true, "wrong": false} {
		s, home := open(t)
		i := begin(t, s, store.Want{SHA256: sum("right"), Upstream: store.Upstream{URL: "https://a/b"}})
		write1(t, i, []byte(content[:3]), 0)
		all, err := filepath.Glob(filepath.Join(home, "blobs/sha256/*/.partial-*/data.tmp"))
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		if err := os.Chtimes(all[0], time.Time{}, time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		write1(t, i, []byte(content[3:]), 3)
		_, err = i.Commit(t.Context())
		if m, ok := errors.AsType[*store.MismatchError](err); right && err != nil || !right && (!ok || m.Damaged) {
			t.Errorf("%s: %v", content, err)
		}
		if err := i.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
