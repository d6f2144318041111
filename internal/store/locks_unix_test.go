//go:build unix

package store_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/shortdir"
	"github.com/inferd-go/inferd/internal/store"
)

// locksEnv is the environment variable that selects the locks of another process: a key of locks.
const locksEnv = "STORE_TEST_LOCKS"

// locks are the kinds of file locks with which the store must work. Some network file systems grant
// every lock to every process.
var locks = map[string]func(*os.File, bool) error{
	"locks of the system":   nil,
	"locks that never lock": func(*os.File, bool) error { return nil },
}

const (
	contendedSize  = 512 << 10
	contendedChunk = 16 << 10
)

func contended() []byte { return random(contendedSize, 90) }

// get brings the content into the store as a pull does: it waits while another process writes the
// blob. If lies is set, content has wrong bytes, and get returns after the mismatch.
func get(s *store.Store, content []byte, lies bool) error {
	want := store.Want{SHA256: digestOf(contended()), Name: "m", Upstream: store.Upstream{URL: "https://a/b", Total: contendedSize}}
	for {
		if present, err := s.Have(context.Background(), want.SHA256, nil); err != nil {
			return err
		} else if present {
			break
		}
		in, err := s.Begin(want)
		if _, busy := errors.AsType[*store.BusyError](err); busy {
			time.Sleep(time.Duration(1+rand.IntN(5)) * time.Millisecond)
			continue
		}
		if _, present := errors.AsType[*store.PresentError](err); present {
			continue
		}
		if err != nil {
			return err
		}
		for _, r := range gaps(in.Ranges(), contendedSize) {
			for at := r.Start; at < r.End && err == nil; at += contendedChunk {
				_, err = in.WriteAt(content[at:min(at+contendedChunk, r.End)], at)
			}
		}
		if err == nil {
			_, err = in.Commit(context.Background())
		}
		_, mismatch := errors.AsType[*store.MismatchError](err)
		if err := errors.Join(err, in.Close()); err != nil && !mismatch {
			return err
		}
		if mismatch && lies {
			return nil
		}
	}
	lock, err := s.LockName("m")
	for _, busy := errors.AsType[*store.BusyError](err); busy; _, busy = errors.AsType[*store.BusyError](err) {
		time.Sleep(time.Millisecond)
		lock, err = s.LockName("m")
	}
	if err != nil {
		return err
	}
	defer lock.Release()
	return s.PutManifest(&store.Manifest{Name: "m", Blob: "sha256:" + want.SHA256, Size: contendedSize}, false)
}

// Even if the locks of the file system have no effect, the state of an ingest names its writer, the
// next process continues after a killed writer, and a model is whole or refused.
func TestLocks(t *testing.T) {
	for name := range locks {
		t.Run(name, func(t *testing.T) {
			t.Setenv(locksEnv, name)
			t.Run("one writer", func(t *testing.T) { oneWriter(t, locks[name]) })
			t.Run("many writers", func(t *testing.T) { manyWriters(t, locks[name], name == "locks of the system") })
			t.Run("a user beside a removal", func(t *testing.T) { userBesideRemoval(t, locks[name], name == "locks of the system") })
		})
	}
}

// other returns a store of this process with the given locks.
func other(t *testing.T, home string, lock func(*os.File, bool) error) *store.Store {
	t.Helper()
	s := &store.Store{Home: home}
	s.SetLocks(lock)
	t.Cleanup(func() { s.Close() })
	return s
}

func oneWriter(t *testing.T, lock func(*os.File, bool) error) {
	t.Helper()
	home := shortdir.InMemory(t)
	cmd, _, _ := started(t, "hold", home, "0")
	s := other(t, home, lock)
	_, err := s.Begin(killedWant())
	if busy, ok := errors.AsType[*store.BusyError](err); !ok || busy.PID != cmd.Process.Pid {
		t.Errorf("beside a writer: %v", err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	begin(t, s, killedWant())
}

// started starts another process with a role. It returns after the first line that the process
// prints, which must be want.
func started(t *testing.T, role, home, want string) (*exec.Cmd, io.Closer, *bufio.Reader) {
	t.Helper()
	cmd := process(t, "", role, home)
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
	lines := bufio.NewReader(out)
	if line, err := lines.ReadString('\n'); strings.TrimSpace(line) != want {
		t.Fatalf("%s: %q, %v", role, line, err)
	}
	return cmd, in, lines
}

// manyWriters lets five processes bring one model into the store at once, one of them from a source
// that sends wrong bytes; in every second round it kills one. In the end one more call of get
// brings in the whole model. If exact is set, the locks work: then no other process fails, and no
// ingest is left.
func manyWriters(t *testing.T, lock func(*os.File, bool) error, exact bool) {
	t.Helper()
	rounds := 12
	if testing.Short() {
		rounds = 1
	}
	failed, torn := 0, 0
	for round := range rounds {
		home := shortdir.InMemory(t)
		var all []*exec.Cmd
		var outs []*bytes.Buffer
		for n := range 5 {
			role := "get"
			if n == 4 {
				role = "lie"
			}
			cmd, out := process(t, "", role, home), &bytes.Buffer{}
			cmd.Stdout = out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			all, outs = append(all, cmd), append(outs, out)
		}
		killed := all[round%5]
		if round%2 == 0 {
			time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond) // kill at a random moment
			_ = killed.Process.Kill()
		}
		for n, cmd := range all {
			if err := cmd.Wait(); err != nil && (cmd != killed || round%2 != 0) {
				failed++
				if exact {
					t.Errorf("round %d, process %d: %v: %s", round, n, err, outs[n])
				}
			}
		}
		s := other(t, home, lock)
		if !whole(t, s) {
			torn++
			if exact {
				t.Errorf("round %d: the model is not whole", round)
			}
		}
		if err := get(s, contended(), false); err != nil {
			t.Errorf("round %d: afterwards: %v", round, err)
		}
		if !whole(t, s) {
			t.Errorf("round %d: the model is not whole afterwards", round)
		}
		left, err := filepath.Glob(filepath.Join(home, "blobs/sha256/*/.partial-*"))
		if err != nil || exact && len(left) > 0 {
			t.Errorf("round %d: %q is left, %v", round, left, err)
		}
	}
	t.Logf("%d rounds: %d processes failed, %d times the model was refused", rounds, failed, torn)
}

// whole reports whether the store opens the model. It fails the test if the store opens a model
// with other content.
func whole(t *testing.T, s *store.Store) bool {
	t.Helper()
	m, err := s.Ensure(t.Context(), store.Ref{Name: "m"}, nil)
	if err != nil {
		return false
	}
	defer m.Close()
	if got := content(t, m); got[0] != string(contended()) {
		t.Errorf("the store returned other content: SHA-256 %s", sum(got[0]))
	}
	return true
}

// userBesideRemoval removes a model that another process uses. If exact is set, the locks work, and
// the removal is refused; otherwise it succeeds. In both cases the other process can still read the
// file that it has open.
func userBesideRemoval(t *testing.T, lock func(*os.File, bool) error, exact bool) {
	t.Helper()
	home := shortdir.InMemory(t)
	s := other(t, home, lock)
	put(t, s, "m", []byte("right"))
	cmd, in, lines := started(t, "show", home, "ready")
	_, err := s.Remove("m", false)
	if inUse, ok := errors.AsType[*store.InUseError](err); exact && (!ok || inUse.PID != cmd.Process.Pid && inUse.PID != 0) || !exact && err != nil {
		t.Errorf("Remove: %v", err)
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if line, err := lines.ReadString('\n'); strings.TrimSpace(line) != strconv.Quote("right") {
		t.Errorf("the user reads %q, %v", line, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
