package filelock_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/inferd-go/inferd/internal/filelock"
)

const holdEnv = "FILELOCK_TEST_HOLD"

// TestMain runs the tests. If the variable holdEnv has a path, it instead takes the lock at that path,
// prints "held", and holds the lock until its input ends or it is killed.
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

// holder starts a process that holds the lock at path, and returns once it does.
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

// tempDir is like t.TempDir, but ignores errors of the removal: wine 8 lacks a call that it needs.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "filelock")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
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
	path := filepath.Join(tempDir(t), "inferd.lock")
	cmd := holder(t, path)
	by := ""
	if runtime.GOOS == "linux" {
		by = fmt.Sprintf(" (pid %d)", cmd.Process.Pid)
	}
	want := "another inferd-daemon" + by + " already holds the lock at " + path
	if _, err := filelock.Acquire(path); err == nil || err.Error() != want {
		t.Errorf("Acquire: %v, want %q", err, want)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the holder was not killed")
	}
	acquire(t, path) // the lock ended with its process
}

func TestHeldInThisProcess(t *testing.T) {
	path := filepath.Join(tempDir(t), "inferd.lock")
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

func TestContentOfTheFileIsKept(t *testing.T) {
	path := filepath.Join(tempDir(t), "inferd.lock")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	acquire(t, path)
	if got, err := os.ReadFile(path); err != nil || string(got) != "mine" {
		t.Errorf("the file holds %q, %v", got, err)
	}
}
