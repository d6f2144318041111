package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/shortdir"
	"github.com/inferd-go/inferd/internal/store"
)

// account returns the bytes that this process has passed to the kernel in writes, and the bytes
// that the kernel counts as written to disk.
func account(t *testing.T) (passed, charged int64) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skip("no account of writes:", err)
	}
	for line := range strings.Lines(string(text)) {
		_, _ = fmt.Sscanf(line, "wchar: %d", &passed)
		_, _ = fmt.Sscanf(line, "write_bytes: %d", &charged)
	}
	return passed, charged
}

// The adoption of a large file writes only metadata, by the records of the store and by the counts
// of the kernel.
func TestAdoptWritesNoContent(t *testing.T) {
	size := int64(1 << 30)
	if testing.Short() {
		size = 4 << 20
	}
	for place, dir := range map[string]func(*testing.T) string{
		"on the disk of the store": func(t *testing.T) string { t.Helper(); return t.TempDir() },
		"on another disk":          func(t *testing.T) string { t.Helper(); return shortdir.InMemory(t) },
	} {
		t.Run(place, func(t *testing.T) {
			file := filepath.Join(dir(t), "Large-Q8_0.gguf")
			modelFile(t, file, 0, 0)
			if err := os.Truncate(file, size); err != nil {
				t.Fatal(err)
			}
			written := 0
			s := &store.Store{Home: filepath.Join(t.TempDir(), "models"), Before: func(op store.Op) error {
				written += len(op.Data)
				return nil
			}}
			t.Cleanup(func() { s.Close() })
			passed, charged := account(t)
			got, err := s.Adopt(t.Context(), store.Adoption{Name: "m", Files: []store.AdoptedFile{{Path: file}}})
			if err != nil {
				t.Fatal(err)
			}
			passedNow, chargedNow := account(t)
			passed, charged = passedNow-passed, chargedNow-charged
			t.Logf("%d bytes adopted by %s: %d bytes written by the store, %d passed to the kernel, %d charged", size, got.Method, written, passed, charged)
			if written > 4<<10 || passed > 64<<10 || charged > 512<<10 {
				t.Error("it wrote more than metadata")
			}
			if l := list(t, s); names(l) != "m ok" || l.Models[0].TotalSize() != size {
				t.Errorf("%+v", l)
			}
		})
	}
}
