package store_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/store"
)

// tmpfs mounts a file system of size bytes in memory, and returns its folder. options is empty, or
// further mount options after a comma.
func tmpfs(t *testing.T, size int, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d%s", size, options)); err != nil {
		t.Skip("cannot mount:", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill makes a file that occupies size bytes of the disk, without writing to it.
func fill(t *testing.T, path string, size int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, int64(size)), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// If the disk is full at any point of an ingest, the error is ENOSPC. Once there is space, the ingest
// can be resumed and finished, and only the blob is left.
func TestDiskFills(t *testing.T) {
	data := random(1<<20, 30)
	w := store.Want{SHA256: digestOf(data), Upstream: store.Upstream{URL: "https://a/b", Total: int64(len(data))}}
	dir := tmpfs(t, 4<<20, "")
	filler := filepath.Join(dir, "filler")
	for n := range 20 {
		s := &store.Store{Home: filepath.Join(dir, fmt.Sprintf("models%d", n))}
		free := n * len(data) / 18
		fill(t, filler, 4<<20-free-(16<<10))
		err := func() (err error) {
			in, err := s.Begin(w)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, in.Close()) }()
			for at := 0; at < len(data); at += 64 << 10 {
				if _, err := in.WriteAt(data[at:at+64<<10], int64(at)); err != nil {
					return err
				}
				if err := in.Checkpoint(); err != nil {
					return err
				}
			}
			_, err = in.Commit(t.Context())
			return err
		}()
		if err != nil && !errors.Is(err, unix.ENOSPC) || err == nil && n < 15 {
			t.Errorf("fill %d: %v", n, err)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		if err == nil {
			if err := os.RemoveAll(s.Home); err != nil {
				t.Fatal(err)
			}
			continue
		}
		in, err := s.Begin(w)
		if err != nil {
			t.Fatalf("fill %d: %v", n, err)
		}
		for _, gap := range gaps(in.Ranges(), int64(len(data))) {
			write1(t, in, data[gap.Start:gap.End], int(gap.Start))
		}
		commit(t, in)
		if got := tree(t, s.Home); len(got) != 1 {
			t.Errorf("fill %d: %q", n, got)
		}
		s.Close()
		if err := os.RemoveAll(s.Home); err != nil {
			t.Fatal(err)
		}
	}
}

// An import to a disk with too little space returns an error and leaves no file. Once there is
// space, it succeeds.
func TestImportIntoAFullDisk(t *testing.T) {
	const disk = 80 << 20
	dir := tmpfs(t, disk, "")
	file, filler := filepath.Join(t.TempDir(), "m.gguf"), filepath.Join(dir, "filler")
	data := modelFile(t, file, 0, 0)
	data = append(data, random(8<<20-len(data), 31)...)
	write(t, file, string(data))
	refused, stride := 0, 1
	if testing.Short() {
		stride = 19
	}
	for n := 0; n < 20; n += stride {
		s := &store.Store{Home: filepath.Join(dir, "models")}
		free := n * disk / 20
		fill(t, filler, disk-free)
		_, err := s.Import(t.Context(), store.Import{Path: file}, nil)
		if err != nil {
			refused++
			if _, early := errors.AsType[*store.NoSpaceError](err); !early && !errors.Is(err, unix.ENOSPC) {
				t.Errorf("fill %d: %v", n, err)
			}
			if got := tree(t, s.Home); len(got) != 0 {
				t.Errorf("fill %d: %q is left", n, got)
			}
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Import(t.Context(), store.Import{Path: file}, nil); err != nil {
			t.Errorf("fill %d: with room: %v", n, err)
		}
		m, _ := ensure(t, s, store.Ref{Name: "m"})
		if got := content(t, m); got[0] != string(data) {
			t.Errorf("fill %d: it has other content", n)
		}
		m.Close()
		s.Close()
		if err := os.RemoveAll(s.Home); err != nil {
			t.Fatal(err)
		}
	}
	if imports := (19 + stride) / stride; refused < imports/2 || refused == imports {
		t.Errorf("%d of %d imports were refused", refused, imports)
	}
}

// Reserve reports too little space before the first byte is written, with the needed and the free
// bytes.
func TestNoSpace(t *testing.T) {
	dir := tmpfs(t, 80<<20, "")
	s := &store.Store{Home: filepath.Join(dir, "models")}
	defer s.Close()
	in := begin(t, s, store.Want{SHA256: sum("x"), Upstream: store.Upstream{Total: 32 << 20}})
	noSpace, ok := errors.AsType[*store.NoSpaceError](in.Reserve())
	if !ok || noSpace.Need != 96<<20 || noSpace.Free > 80<<20 || noSpace.Free < 70<<20 {
		t.Errorf("%v", noSpace)
	}
	if got := in.Done(); got != 0 {
		t.Errorf("the file has %d bytes", got)
	}
	if err := in.Discard(); err != nil {
		t.Fatal(err)
	}
	// Space that another ingest has reserved does not count as free.
	small := begin(t, s, store.Want{SHA256: sum("y"), Upstream: store.Upstream{Total: 10 << 20}})
	if err := small.Reserve(); err != nil {
		t.Fatal(err)
	}
	other := begin(t, s, store.Want{SHA256: sum("z"), Upstream: store.Upstream{Total: 10 << 20}})
	if err := other.Reserve(); err == nil {
		t.Error("reserved twice")
	}
	if err := small.Discard(); err != nil {
		t.Fatal(err)
	}
	if err := other.Reserve(); err != nil {
		t.Error(err)
	}
}

// Models can be used from a store on a read-only disk. Changes are refused with an error that says
// how to use another folder.
func TestReadOnlyStore(t *testing.T) {
	dir := tmpfs(t, 8<<20, "")
	home := filepath.Join(dir, "models")
	s := &store.Store{Home: home}
	put(t, s, "m", []byte("content"))
	put(t, s, "orphan", []byte("orphan"))
	if err := os.Remove(filepath.Join(home, "manifests", "orphan.json")); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Skip(err)
	}
	m, _ := ensure(t, s, store.Ref{Name: "m"})
	if got := content(t, m); got[0] != "content" {
		t.Errorf("%q", got)
	}
	if got := names(list(t, s)); got != "m ok" {
		t.Error(got)
	}
	_, begun := s.Begin(store.Want{SHA256: sum("x")})
	_, removed := s.Remove("m", false)
	_, _, collected := s.GC(t.Context(), store.GCOptions{Now: time.Now().Add(2 * time.Hour)})
	_, imported := s.Import(t.Context(), store.Import{Path: m.Path, Name: "n"}, nil)
	for call, err := range map[string]error{"Begin": begun, "Remove": removed, "GC": collected, "Import": imported, "PutManifest": s.PutManifest(&store.Manifest{Name: "n", Blob: "sha256:" + sum("content"), Size: 7}, false)} {
		if err == nil || !strings.Contains(err.Error(), "cannot be written to") || !strings.Contains(err.Error(), "models_home") {
			t.Errorf("%s: %v", call, err)
		}
	}
	if _, _, err := s.GC(t.Context(), store.GCOptions{DryRun: true}); err != nil {
		t.Error(err)
	}
}
