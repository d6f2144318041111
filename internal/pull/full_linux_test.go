package pull_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/hubtest"
	"github.com/inferd-go/inferd/internal/pull"
	"github.com/inferd-go/inferd/internal/store"
)

// fullDisk is the size of a small disk. The store keeps 64 MiB of it free beside an ingest.
const fullDisk = 80 << 20

// smallDisk mounts a disk of fullDisk bytes in memory, and returns its folder.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", fullDisk)); err != nil {
		t.Skip("cannot mount:", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill fills the disk except for free bytes. The returned function makes room again.
func fill(t *testing.T, dir string, free int64) (empty func()) {
	t.Helper()
	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, fullDisk-free), f.Close()); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
	}
}

// A pull onto a disk that fills at one of twenty points returns an error that names the lack of
// space, and leaves no model in the store. Once there is room, the next pull succeeds. A file of known
// size is refused before its first byte; one of unknown size fails when the disk is full.
func TestDiskFills(t *testing.T) {
	for name, known := range map[string]bool{"of known size": true, "without a length": false} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			dir := smallDisk(t)
			c := content(4<<20, 90)
			link := b.hub.AddFile("m.gguf", &hubtest.File{Content: c}) + "#sha256=" + hubtest.Sum(c)
			b.hub.Script = func(hubtest.Request) *hubtest.Fault {
				if known {
					return nil
				}
				return &hubtest.Fault{NoLength: true, IgnoreRange: true}
			}
			refused, stride := 0, 1
			if testing.Short() {
				stride = 19
			}
			for n := 0; n < 20; n += stride {
				p := b.puller(filepath.Join(dir, "models"))
				b.Puller = p
				free := int64(n) * int64(len(c)) / 16
				if known {
					free = int64(n) * fullDisk / 20
				}
				empty := fill(t, dir, free)
				b.hub.Forget()
				r, err := p.Pull(t.Context(), link, pull.Options{}, nil)
				if err != nil {
					refused++
					b.lacks(n, err, known)
				} else if r.Size != int64(len(c)) {
					t.Errorf("fill %d: %+v", n, r)
				}
				empty()
				b.pull(link, pull.Options{})
				b.holds("m", c)
				if err := p.Store.Close(); err != nil {
					t.Error(err)
				}
				if err := os.RemoveAll(p.Store.Home); err != nil {
					t.Fatal(err)
				}
			}
			if pulls := (19 + stride) / stride; refused < pulls/2 || refused == pulls {
				t.Errorf("%d of %d pulls were refused", refused, pulls)
			}
		})
	}
}

// lacks checks that err, from a pull onto a full disk, names the lack of space, and that the store
// has no model. If the size of the file was known, no ingest may be left.
func (b *bench) lacks(n int, err error, known bool) {
	b.t.Helper()
	_, early := errors.AsType[*store.NoSpaceError](err)
	if !early && !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "inferdctl gc") {
		b.t.Errorf("fill %d: %v", n, err)
	}
	if unfinished, err := b.Store.Unfinished(); err != nil && !errors.Is(err, fs.ErrNotExist) || known && len(unfinished) > 0 {
		b.t.Errorf("fill %d: %+v is left, %v", n, unfinished, err)
	}
	l, err := b.Store.List()
	if err != nil || len(l.Models) > 0 {
		b.t.Errorf("fill %d: %+v, %v", n, l.Models, err)
	}
}
