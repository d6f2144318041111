package store_test

import (
	"bufio"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/store"
)

// BenchmarkWritePath imports a file of 1 GB, and after each import runs cp, sync and sha256sum on the
// same file. The metric is the time of these commands divided by that of the import; the aim is 0.9.
// With -short the file has 128 MB.
func BenchmarkWritePath(b *testing.B) {
	size := int64(1e9)
	if testing.Short() {
		size = 128e6
	}
	dir := b.TempDir()
	file, copied := filepath.Join(dir, "model.gguf"), filepath.Join(dir, "copy")
	f, err := os.Create(file)
	if err != nil {
		b.Fatal(err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	if _, err := io.CopyN(w, rand.NewChaCha8([32]byte{40}), size); err != nil {
		b.Fatal(err)
	}
	if err := errors.Join(w.Flush(), f.Sync(), f.Close()); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(size)
	var ours, theirs time.Duration
	for b.Loop() {
		home := filepath.Join(dir, "models")
		s := &store.Store{Home: home}
		start := time.Now()
		if _, err := s.Import(b.Context(), store.Import{Path: file}, nil); err != nil {
			b.Fatal(err)
		}
		ours += time.Since(start)
		b.StopTimer()
		if err := errors.Join(s.Close(), os.RemoveAll(home)); err != nil {
			b.Fatal(err)
		}
		start = time.Now()
		for _, command := range [][]string{{"cp", file, copied}, {"sync", copied}, {"sha256sum", copied}} {
			if err := exec.CommandContext(b.Context(), command[0], command[1:]...).Run(); err != nil {
				b.Skip(err)
			}
		}
		theirs += time.Since(start)
		if err := os.Remove(copied); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(theirs.Seconds()/ours.Seconds(), "of-cp+sync+sha256sum")
}

// BenchmarkVerifiedModel opens a model of 300 MB that was verified before, as the daemon does at
// its start. The model is not hashed; the aim is 5 ms.
func BenchmarkVerifiedModel(b *testing.B) {
	dir := b.TempDir()
	file := filepath.Join(dir, "model.gguf")
	f, err := os.Create(file)
	if err != nil {
		b.Fatal(err)
	}
	if err := errors.Join(f.Truncate(300e6), f.Close()); err != nil {
		b.Fatal(err)
	}
	s := store.Store{Home: filepath.Join(dir, "models"), VerifiedFile: filepath.Join(dir, "state", "verified.json")}
	if _, err := s.Import(b.Context(), store.Import{Path: file}, nil); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		next := store.Store{Home: s.Home, VerifiedFile: s.VerifiedFile}
		m, err := next.Ensure(b.Context(), store.Ref{Name: "model"}, func(p status.Phase) {
			if _, ok := p.(status.Verify); ok {
				b.Error("it is hashed")
			}
		})
		if err != nil {
			b.Fatal(err)
		}
		m.Close()
		if err := next.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
