package pull_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/hubtest"
)

// mapped writes a file of random bytes that begins like a GGUF file, and maps it.
func mapped(b *testing.B, file string, size int64) (content []byte, digest string) {
	b.Helper()
	f, err := os.Create(file)
	if err != nil {
		b.Fatal(err)
	}
	h := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(f, h), 1<<20)
	_, err = w.WriteString("GGUF")
	if err == nil {
		_, err = io.CopyN(w, rand.NewChaCha8([32]byte{41}), size-4)
	}
	if err := errors.Join(err, w.Flush(), f.Sync()); err != nil {
		b.Fatal(err)
	}
	content, err = unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err := errors.Join(err, f.Close()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := unix.Munmap(content); err != nil {
			b.Error(err)
		}
	})
	return content, hex.EncodeToString(h.Sum(nil))
}

// BenchmarkPull pulls a model of 2 GB over TLS from a server on this machine, in a process of its
// own, and beside it fetches the same file with curl, then sync and sha256sum, in turns. The metrics
// are the speed of the pull as a share of theirs (0.8 is to be reached), and the most memory of its
// process (64 MiB is to be kept). With -short the model has 128 MB.
func BenchmarkPull(b *testing.B) {
	size := int64(2e9)
	if testing.Short() {
		size = 128e6
	}
	dir := b.TempDir()
	content, digest := mapped(b, filepath.Join(dir, "served"), size)
	hub := hubtest.New(b)
	link := hub.AddFile("m.gguf", &hubtest.File{Content: content, Digest: digest})
	roots := hub.RootsFile(b)
	if out, err := exec.CommandContext(b.Context(), "curl", "--silent", "--fail", "--cacert", roots, "--range", "0-3", link).CombinedOutput(); string(out) != "GGUF" {
		b.Skipf("curl: %v: %s", err, out)
	} // the server has hashed the content by now
	b.SetBytes(size)
	var ours, theirs time.Duration
	var memory int64
	for b.Loop() {
		home := filepath.Join(dir, "models")
		cmd := exec.CommandContext(b.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childName+"="+link+"#sha256="+digest, childHome+"="+home, childHub+"="+hub.URL(), childRoots+"="+roots, childPlain+"=1")
		start := time.Now()
		out, err := cmd.CombinedOutput()
		ours += time.Since(start)
		var peak int64
		if _, scan := fmt.Sscanf(string(out), "VmHWM: %d kB", &peak); err != nil || scan != nil {
			b.Fatalf("%v: %s", err, out)
		}
		memory = max(memory, peak<<10)
		b.StopTimer()
		if err := os.RemoveAll(home); err != nil {
			b.Fatal(err)
		}
		copied := filepath.Join(dir, "copy")
		start = time.Now()
		for _, command := range [][]string{
			{"curl", "--silent", "--show-error", "--fail", "--cacert", roots, "--output", copied, link}, {"sync", copied}, {"sha256sum", copied},
		} {
			if out, err := exec.CommandContext(b.Context(), command[0], command[1:]...).CombinedOutput(); err != nil {
				b.Fatalf("%v: %v: %s", command, err, out)
			}
		}
		theirs += time.Since(start)
		if err := os.Remove(copied); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(theirs.Seconds()/ours.Seconds(), "of-curl+sync+sha256sum")
	b.ReportMetric(float64(memory)/(1<<20), "MiB-of-memory")
}
