//go:build unix

package store_test

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/shortdir"
	"github.com/inferd-go/inferd/internal/store"
)

// The listing shows the process that uses a model, not the process that lists it.
func TestUserIsAnotherProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the holder of a lock is known on Linux")
	}
	s, home := open(t)
	put(t, s, "m", []byte("content"))
	cmd := process(t, "", "serve", home)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatal(line, err)
	}
	for range 10 {
		if l := list(t, s); len(l.Models[0].PIDs) != 1 || l.Models[0].PIDs[0] != cmd.Process.Pid {
			t.Errorf("used by %d, not by %d", l.Models[0].PIDs, cmd.Process.Pid)
		}
	}
	_, err = s.Remove("m", false)
	if inUse, ok := errors.AsType[*store.InUseError](err); !ok || inUse.PID != cmd.Process.Pid {
		t.Errorf("%v", err)
	}
}

// A process that holds a lock only for a moment, to see whether it is free, does not count as a
// user or a writer.
func TestLockOfAMoment(t *testing.T) {
	s, home := open(t)
	put(t, s, "m", []byte("content"))
	in := begin(t, s, store.Want{SHA256: sum("half"), Name: "half"})
	write1(t, in, []byte("ha"), 0)
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	moment := func(digest string, how int, look func() bool) {
		t.Helper()
		for range 5 { // if the machine is busy, a moment may take longer
			f, err := os.Open(filepath.Join(home, "locks", ".blob-"+digest+".lock"))
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.Flock(int(f.Fd()), how); err != nil {
				t.Fatal(err)
			}
			timer := time.AfterFunc(10*time.Millisecond, func() { _ = unix.Flock(int(f.Fd()), unix.LOCK_UN) })
			good := look()
			timer.Stop()
			_ = f.Close()
			if good {
				return
			}
		}
		t.Error("a lock of 10 ms counts")
	}
	moment(sum("content"), unix.LOCK_SH, func() bool { return len(list(t, s).Models[0].PIDs) == 0 })
	moment(sum("half"), unix.LOCK_EX, func() bool { return !list(t, s).Unfinished[0].Running })
}

// If a user cannot read or remove some files of a store, the other files are usable all the same.
func TestFilesOfAnotherUserAreLocal(t *testing.T) {
	const alice = 61001
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir := shortdir.InMemory(t)
	home, exe := filepath.Join(dir, "models"), filepath.Join(dir, "test")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(exe, program, 0o755), os.Mkdir(home, 0o755), os.Chown(home, alice, alice)); err != nil {
		t.Fatal(err)
	}
	as := func(role string) string {
		cmd := process(t, exe, role, home)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: alice, Gid: alice}}
		cmd.Dir = "/"
		out, err := cmd.CombinedOutput()
		if errors.Is(err, os.ErrPermission) {
			t.Skip("cannot start a process of another user:", err)
		}
		return strings.TrimSpace(string(out))
	}
	if got := as("half") + as("rest"); got != "3" {
		t.Fatal(got)
	}
	// Another user cannot read the first of these folders, and cannot change the second.
	shards := filepath.Join(home, "blobs", "sha256")
	closed, fixed := filepath.Join(shards, "00"), filepath.Join(shards, "01")
	ingest := filepath.Join(fixed, ".partial-01"+strings.Repeat("0", 62))
	if err := errors.Join(os.Mkdir(closed, 0o700), os.MkdirAll(ingest, 0o755)); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(ingest, "data.tmp"), "half")
	if got := as("problems"); got != closed {
		t.Errorf("problems: %q", got)
	}
	if got := as("list"); got != "m unverified" {
		t.Errorf("list: %q", got)
	}
	if err := os.Remove(filepath.Join(home, "manifests", "m.json")); err != nil { // leaves a blob to collect
		t.Fatal(err)
	}
	if got := as("collect"); !strings.HasPrefix(got, "blob without a manifest\nerror: ") || !strings.Contains(got, ingest) {
		t.Errorf("collect: %q", got)
	}
	if got := as("half") + as("rest"); got != "3" { // Reserve reads the states of all ingests
		t.Errorf("%q", got)
	}
	if got := as("remove"); got != "" {
		t.Errorf("remove: %q", got)
	}
	if got := as("list"); got != "" {
		t.Errorf("list: %q", got)
	}
}

// In a shared store, a file that others cannot read is not adopted by a hard link, which would keep
// its mode.
func TestAdoptOfAPrivateFile(t *testing.T) {
	home := filepath.Join(t.TempDir(), "models")
	if err := errors.Join(os.Mkdir(home, 0o755), os.Chmod(home, 0o775|os.ModeSetgid)); err != nil {
		t.Fatal(err)
	}
	s := &store.Store{Home: home}
	t.Cleanup(func() { s.Close() })
	o := newTool(t, t.TempDir())
	got, err := s.Adopt(t.Context(), o.adoption("m"))
	if err != nil || got.Method == store.Linked {
		t.Errorf("%+v, %v", got, err)
	}
	o.check()
}
