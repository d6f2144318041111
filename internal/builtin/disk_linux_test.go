package builtin_test

import (
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/builtin"
)

// On a full disk Ensure fails and leaves nothing behind. A limit on the file size stands in for the
// full disk: a write is cut short.
func TestEnsureOnFullDisk(t *testing.T) {
	// Unhandled, the signal would kill the process.
	exceeded := make(chan os.Signal, 1)
	signal.Notify(exceeded, unix.SIGXFSZ)
	defer signal.Stop(exceeded)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 100_000, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	_, err := builtin.Ensure(dir, "tiny")
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, unix.EFBIG) || !strings.Contains(err.Error(), dir) {
		t.Errorf("Ensure: %v, want %v for a file in %s", err, unix.EFBIG, dir)
	}
	if names := leaves(t, dir); len(names) != 0 {
		t.Errorf("left behind: %q", names)
	}
}

func TestEnsureInReadOnlyFolder(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(dir, 0o555), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 { // root ignores modes: change this thread's user
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := unix.Setfsuid(65534); err != nil {
			t.Fatal(err)
		}
		defer unix.Setfsuid(0)
	}
	_, err := builtin.Ensure(dir, "tiny")
	if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), dir) {
		t.Errorf("Ensure: %v, want %v for a file in %s", err, os.ErrPermission, dir)
	}
	if names := leaves(t, dir); len(names) != 0 {
		t.Errorf("left behind: %q", names)
	}
}

// A named pipe in place of the file does not block Ensure, which replaces it.
func TestEnsureReplacesPipe(t *testing.T) {
	dir := t.TempDir()
	path, err := builtin.Ensure(dir, "tiny")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := builtin.Ensure(dir, "tiny"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		t.Errorf("%v, %v; want a regular file", info, err)
	}
}
