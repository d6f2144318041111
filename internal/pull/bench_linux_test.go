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
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/hubtest"
)

// mapped writes a file of random bytes that begins like a GGUF file. It returns the content, mapped
// into memory, and the digest.
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

// A served is a model that can be pulled from a server on this machine.
type served struct {
	hub               *hubtest.Server
	dir               string // for the stores
	size              int64
	link, name, roots string // URL of the file; the same with its digest; file with the server's authority
}

// serve serves a model of size bytes, or of 128 MB with -short.
func serve(b *testing.B, size int64) *served {
	b.Helper()
	if testing.Short() {
		size = 128e6
	}
	v := &served{hub: hubtest.New(b), dir: b.TempDir(), size: size}
	content, digest := mapped(b, filepath.Join(v.dir, "served"), size)
	v.link = v.hub.AddFile("m.gguf", &hubtest.File{Content: content, Digest: digest})
	v.name, v.roots = v.link+"#sha256="+digest, v.hub.RootsFile(b)
	b.SetBytes(size)
	return v
}

// pull returns a command that pulls the model into the store at home.
func (v *served) pull(b *testing.B, home string) *exec.Cmd {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childName+"="+v.name, childHome+"="+home, childHub+"="+v.hub.URL(), childRoots+"="+v.roots, childPlain+"=1")
	return cmd
}

// BenchmarkFivePulls pulls a model of 1 GB over TLS in five processes at once. The metric is the
// number of bytes sent divided by the size of the model; the aim is at most 1.01. With -short the
// model has 128 MB.
func BenchmarkFivePulls(b *testing.B) {
	v := serve(b, 1e9)
	before, pulls := v.hub.Sent(), 0
	for b.Loop() {
		home := filepath.Join(v.dir, "models")
		var all sync.WaitGroup
		for range 5 {
			cmd := v.pull(b, home)
			all.Go(func() {
				if out, err := cmd.CombinedOutput(); err != nil {
					b.Errorf("%v: %s", err, out)
				}
			})
		}
		all.Wait()
		pulls++
		b.StopTimer()
		if err := os.RemoveAll(home); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(v.hub.Sent()-before)/float64(v.size)/float64(pulls), "sent/size")
}

// BenchmarkPull pulls a model of 2 GB over TLS from a server on this machine, in a process of its
// own, alternating with curl, sync and sha256sum for the same file. The metrics are the time of these
// commands divided by that of the pull (the aim is 0.8), and the peak memory of the pull's process
// (the aim is 64 MiB). With -short the model has 128 MB.
func BenchmarkPull(b *testing.B) {
	v := serve(b, 2e9)
	if out, err := exec.CommandContext(b.Context(), "curl", "--silent", "--fail", "--cacert", v.roots, "--range", "0-3", v.link).CombinedOutput(); string(out) != "GGUF" {
		b.Skipf("curl: %v: %s", err, out)
	} // the server has hashed the content by now
	var ours, theirs time.Duration
	var memory int64
	for b.Loop() {
		home := filepath.Join(v.dir, "models")
		cmd := v.pull(b, home)
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
		copied := filepath.Join(v.dir, "copy")
		start = time.Now()
		for _, command := range [][]string{
			{"curl", "--silent", "--show-error", "--fail", "--cacert", v.roots, "--output", copied, v.link}, {"sync", copied}, {"sha256sum", copied},
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
