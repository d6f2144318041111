package computelock_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/computelock"
	"github.com/inferd-go/inferd/internal/trust"
)

// With COMPUTE_LOCK set, TestMain is the neighbour process instead: it takes the lock, prints that
// it has it, and holds it until it reads a line.
func TestMain(m *testing.M) {
	if path := os.Getenv("COMPUTE_LOCK"); path != "" {
		t, err := computelock.Open(path)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		t.Do(func() {
			fmt.Println("computing")
			_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		})
		fmt.Println("done")
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func file(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "compute.lock")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, path string) *computelock.Lock {
	t.Helper()
	mine, err := computelock.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return mine
}

// neighbour starts a process, and returns it with its input and output once it holds the lock.
func neighbour(t *testing.T, path string) (*exec.Cmd, io.WriteCloser, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "COMPUTE_LOCK="+path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	r := bufio.NewReader(out)
	if line, err := r.ReadString('\n'); line != "computing\n" {
		t.Fatalf("%q, %v", line, err)
	}
	return cmd, in, r
}

// Only one handle computes at a time, and each gets the lock although all compete for it
// permanently.
func TestOneAtATime(t *testing.T) {
	path := file(t)
	var computing atomic.Int32
	var all sync.WaitGroup
	for range 4 {
		mine := open(t, path)
		all.Go(func() {
			for range 300 {
				mine.Do(func() {
					if n := computing.Add(1); n != 1 {
						t.Errorf("%d compute at once", n)
					}
					computing.Add(-1)
				})
			}
		})
	}
	all.Wait()
}

// The lock is granted when the other process releases it, or ends.
func TestAnotherProcess(t *testing.T) {
	for name, end := range map[string]func(*exec.Cmd, io.WriteCloser){
		"goes on": func(_ *exec.Cmd, in io.WriteCloser) { _, _ = io.WriteString(in, "\n") },
		"dies":    func(cmd *exec.Cmd, _ io.WriteCloser) { _ = cmd.Process.Signal(syscall.SIGKILL) },
	} {
		t.Run(name, func(t *testing.T) {
			path := file(t)
			cmd, in, _ := neighbour(t, path)
			mine := open(t, path)
			var ended atomic.Bool
			go func() {
				ended.Store(true)
				end(cmd, in)
			}()
			mine.Do(func() {
				if !ended.Load() {
					t.Error("both compute")
				}
			})
		})
	}
}

// Only the first step waits for a neighbour that hangs while it holds the lock. Once the neighbour
// has released the lock, steps wait for it again.
func TestNeighbourHangs(t *testing.T) {
	path := file(t)
	_, in, out := neighbour(t, path)
	mine := open(t, path)
	mine.Timeout = 100 * time.Millisecond
	ran := 0
	for range 50 {
		mine.Do(func() { ran++ })
	}
	if ran != 50 {
		t.Errorf("%d steps", ran)
	}
	_, _ = io.WriteString(in, "\n")
	if line, err := out.ReadString('\n'); line != "done\n" {
		t.Fatalf("%q, %v", line, err)
	}
	for range 50 { // a lock that was granted after the timeout is released, too
		mine.Do(func() { ran++ })
	}
	another := open(t, path)
	another.Timeout = mine.Timeout
	another.Do(func() { ran++ })
}

func TestAlone(t *testing.T) {
	ran := 0
	(*computelock.Lock)(nil).Do(func() { ran++ })
	new(computelock.Lock).Do(func() { ran++ })
	if ran != 2 {
		t.Errorf("ran %d times", ran)
	}
	if _, err := computelock.Open(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is not there was opened")
	}
}

// A symbolic link is refused, whatever its target.
func TestLinkIsNotFollowed(t *testing.T) {
	path := file(t)
	link := filepath.Join(t.TempDir(), "compute.lock")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := computelock.Open(link); !errors.Is(err, trust.ErrLink) {
		t.Errorf("a link was opened: %v", err)
	}
}

// A file that every user can write is refused, because any user could hold its lock.
func TestOthersFile(t *testing.T) {
	path := file(t)
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := computelock.Open(path); err == nil || !strings.Contains(err.Error(), "chmod o-w") {
		t.Errorf("a file of mode 0666 was opened: %v", err)
	}
}

func BenchmarkAlone(b *testing.B) {
	path := filepath.Join(b.TempDir(), "compute.lock")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	mine, err := computelock.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		mine.Do(func() {})
	}
}
