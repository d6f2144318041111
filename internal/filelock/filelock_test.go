//go:build unix

package filelock_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/inferd-go/inferd/internal/filelock"
)

const holdEnv = "FILELOCK_TEST_HOLD"

// TestMain lets the test binary be a process that holds a lock until it is killed. It
// says "held" once it does.
func TestMain(m *testing.M) {
	if path := os.Getenv(holdEnv); path != "" {
		lock, err := filelock.Acquire(path)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("held")
		bufio.NewReader(os.Stdin).ReadByte() // ends with the test
		lock.Release()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// holder starts a process that holds the lock at path.
func holder(t *testing.T, path string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), holdEnv+"="+path)
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
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("holder said %q, %v", line, err)
	}
	return cmd
}

func acquire(t *testing.T, path string) {
	t.Helper()
	lock, err := filelock.Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	lock.Release()
}

func TestHeldByAnotherProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inferd.lock")
	cmd := holder(t, path)
	want := "another inferd-daemon already holds the lock at " + path
	if _, err := filelock.Acquire(path); err == nil || err.Error() != want {
		t.Errorf("Acquire: %v, want %q", err, want)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the holder was not killed")
	}
	acquire(t, path) // the lock died with it
}

func TestHeldInThisProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inferd.lock")
	lock, err := filelock.Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := filelock.Acquire(path); err == nil {
		t.Error("the lock was taken twice")
	}
	lock.Release()
	acquire(t, path)
	acquire(t, path)
}

// A child that outlives the daemon must not keep the lock.
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

func TestCreatesFileAndFoldersForTheUserAlone(t *testing.T) {
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

func TestKeepsWhatTheFileHolds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inferd.lock")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	acquire(t, path)
	if got, err := os.ReadFile(path); err != nil || string(got) != "mine" {
		t.Errorf("the file holds %q, %v", got, err)
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
				t.Errorf("the folder was\n%s, and is\n%s", before, after)
			}
		})
	}
}

// describe lists the folder of path: names, modes, sizes and times.
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
