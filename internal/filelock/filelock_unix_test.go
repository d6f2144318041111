//go:build unix

package filelock_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/inferd-go/inferd/internal/filelock"
)

// A child process that outlives the daemon does not keep the lock.
func TestChildrenDoNotInheritTheLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inferd.lock")
	lock, err := filelock.Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "cat")
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	lock.Release()
	acquire(t, path)
}

func TestCreatesFileAndFoldersForTheUserOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	path := filepath.Join(dir, "inferd.lock")
	acquire(t, path)
	for name, want := range map[string]os.FileMode{dir: os.ModeDir | 0o700, filepath.Dir(dir): os.ModeDir | 0o700, path: 0o600} {
		info, err := os.Stat(name) // after Release: it is never removed
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", name, info.Mode(), want)
		}
	}
}

func TestRefusedPaths(t *testing.T) {
	for name, test := range map[string]struct {
		make func(path string) error
		want string
	}{
		"a link to a file": {
			func(path string) error {
				if err := os.WriteFile(path+".target", []byte("target"), 0o600); err != nil {
					return err
				}
				return os.Symlink(path+".target", path)
			},
			"lock path is a symlink (refused): ",
		},
		"a link to nothing": {
			func(path string) error { return os.Symlink(path+".nothing", path) },
			"lock path is a symlink (refused): ",
		},
		"a folder": {
			func(path string) error { return os.Mkdir(path, 0o700) },
			"lock path is not a regular file: ",
		},
		"a named pipe": {
			func(path string) error { return syscall.Mkfifo(path, 0o600) },
			"lock path is not a regular file: ",
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "inferd.lock")
			if err := test.make(path); err != nil {
				t.Fatal(err)
			}
			before := describe(t, path)
			if _, err := filelock.Acquire(path); err == nil || err.Error() != test.want+path {
				t.Errorf("Acquire: %v, want %q", err, test.want+path)
			}
			if after := describe(t, path); after != before {
				t.Errorf("folder before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

// describe returns the entries of path's folder as text, with their modes, sizes and times.
func describe(t *testing.T, path string) string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprint(e.Name(), info.Mode(), info.Size(), info.ModTime()))
	}
	return strings.Join(all, "\n")
}

// A lock file or its folder that other users can change is refused: another user could replace the
// file, and a second daemon would then lock the new file.
func TestRefusedFolders(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	path := filepath.Join(dir, "inferd.lock")
	acquire(t, path)
	for name, test := range map[string]struct{ path, want string }{
		"its folder": {dir, "folder of the lock: folder " + dir + " can be written to by every user"},
		"the file":   {path, path + " can be written to by every user"},
	} {
		t.Run(name, func(t *testing.T) {
			info, err := os.Stat(test.path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(test.path, 0o777); err != nil {
				t.Fatal(err)
			}
			if _, err := filelock.Acquire(path); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Acquire: %v, want %q", err, test.want)
			}
			if err := os.Chmod(test.path, info.Mode()); err != nil {
				t.Fatal(err)
			}
		})
	}
	acquire(t, path)
}
