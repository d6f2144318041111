//go:build unix

package activity

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The log is never written through a symbolic link.
func TestLinks(t *testing.T) {
	target := filepath.Join(t.TempDir(), "target")
	if err := os.WriteFile(target, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	untouched := func(t *testing.T) {
		t.Helper()
		if got, err := os.ReadFile(target); err != nil || string(got) != "content" {
			t.Errorf("the target holds %q, %v", got, err)
		}
	}
	t.Run("at the start", func(t *testing.T) {
		dir := t.TempDir()
		plant(t, target, filepath.Join(dir, File))
		if l, err := Open(dir); err == nil || !strings.Contains(err.Error(), "symbolic link: refused") {
			t.Errorf("Open: %v", err)
			_ = l.Close()
		}
		untouched(t)
	})
	t.Run("while it is written", func(t *testing.T) {
		dir := t.TempDir()
		l := opened(t, dir, Limit)
		log := slog.New(l.Handler("x"))
		log.Info("before")
		l.Flush()
		path := filepath.Join(dir, File)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		plant(t, target, path)
		log.Info("lost")
		l.Flush()
		untouched(t)
		if l.Lost() != 1 {
			t.Errorf("%d lost", l.Lost())
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		log.Info("after")
		l.Flush()
		if all := lines(t, dir); len(all) != 1 || !strings.Contains(all[0], "after") {
			t.Errorf("lines %q", all)
		}
	})
	t.Run("at the names of older files", func(t *testing.T) {
		dir := t.TempDir()
		for _, name := range Files(dir)[1:] {
			plant(t, target, name)
		}
		l := opened(t, dir, 200) // enough for one or two lines
		log := slog.New(l.Handler("x"))
		for range 20 {
			log.Info("a line of the record")
			l.Flush()
		}
		untouched(t)
		for _, name := range Files(dir) {
			if info, err := os.Lstat(name); err != nil || !info.Mode().IsRegular() {
				t.Errorf("%s: %v, %v", name, info, err)
			}
		}
		if l.Lost() != 0 {
			t.Errorf("%d lost", l.Lost())
		}
	})
}

func plant(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

// A folder or a file that other users can change is refused: they could forge records.
func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"the folder": dir, "the file": filepath.Join(dir, File)} {
		t.Run(name, func(t *testing.T) {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, 0o777); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), path+" can be written to by every user") {
				t.Errorf("Open: %v", err)
			}
			if err := os.Chmod(path, info.Mode()); err != nil {
				t.Fatal(err)
			}
		})
	}
}
