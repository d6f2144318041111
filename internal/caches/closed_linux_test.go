package caches_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/caches"
)

// asOther finds models, and returns the problems. If this process is root, which may read every
// folder, the search runs with the file permissions of another user.
func asOther(t *testing.T, env caches.Env) []caches.Problem {
	t.Helper()
	found := make(chan []caches.Problem)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread, and its changed permissions, end with the goroutine
		if os.Geteuid() == 0 {
			if _, err := unix.SetfsuidRetUid(61001); err != nil {
				t.Error(err)
			}
		}
		_, problems := caches.Find(env)
		found <- problems
	}()
	return <-found
}

// The folder of an Ollama that runs as a system service may be closed to other users. The problem is
// then marked as Closed. If a variable names the same folder, the problem is not marked.
func TestClosedFolderOfAnotherUser(t *testing.T) {
	for _, closed := range []string{"ollama", "ollama/models", "ollama/models/manifests"} {
		dir := t.TempDir()
		system := filepath.Join(dir, "ollama", "models")
		if err := os.MkdirAll(filepath.Join(system, "manifests", "x"), 0o755); err != nil {
			t.Fatal(err)
		}
		folder := filepath.Join(dir, filepath.FromSlash(closed))
		if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)); err != nil { // open for the other user
			t.Fatal(err)
		}
		if err := os.Chmod(folder, 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(folder, 0o755) })
		for _, named := range []string{"", system} {
			env := caches.Env{Getenv: func(name string) string {
				if name == "OLLAMA_MODELS" {
					return named
				}
				return ""
			}, Home: filepath.Join(dir, "none"), GOOS: "linux", OllamaSystem: system}
			problems := asOther(t, env)
			if len(problems) != 1 || !errors.Is(problems[0].Err, fs.ErrPermission) || problems[0].Closed != (named == "") {
				t.Errorf("%s, named %q: %+v", closed, named, problems)
			}
		}
	}
}
