package lease_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/lease"
)

const patience = 30 * time.Second

// watched returns a guard that watches one new file, and the path of the file.
func watched(t *testing.T) (g *lease.Guard, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "model.gguf")
	if err := os.WriteFile(path, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	g = lease.New()
	t.Cleanup(g.Close)
	if err := g.Add(t.Context(), f, path); err != nil {
		t.Fatal(err)
	}
	return g, path
}

// leased is like watched, but skips the test if the file gets no lease.
func leased(t *testing.T) (g *lease.Guard, path string) {
	t.Helper()
	if g, path = watched(t); !g.Leased() {
		t.Skip("this file system grants no lease (F_SETLEASE)")
	}
	return g, path
}

func await(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("%s: not within %s", what, patience)
	}
}

// A process that opens a leased file for writing is blocked until the guard is closed.
func TestWriterIsHeld(t *testing.T) {
	for name, write := range map[string]func(path string) error{
		"write": func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteString("x")
				_ = f.Close()
			}
			return err
		},
		"truncate": func(path string) error { return os.Truncate(path, 1) },
		"open for reading and writing": func(path string) error {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err == nil {
				_ = f.Close()
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			g, path := leased(t)
			done := make(chan error, 1)
			go func() { done <- write(path) }()
			await(t, "the break", g.Changed())
			if text, err := os.ReadFile(path); err != nil || string(text) != "content" {
				t.Errorf("before the lease is given up: %q, %v", text, err)
			}
			select {
			case err := <-done:
				t.Errorf("the writer was not held: %v", err)
			default:
			}
			if reason := g.Check(); !strings.Contains(reason, path+" was opened for writing") {
				t.Errorf("reason %q", reason)
			}
			g.Close()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// Changes of names, modes and times break no lease.
func TestHarmless(t *testing.T) {
	g, path := leased(t)
	now := time.Now()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []struct { // in this order: only a moved file can be replaced
		name string
		do   func() error
	}{
		{"read", func() error { _, err := os.ReadFile(path); return err }},
		{"chmod", func() error { return os.Chmod(path, 0o444) }},
		{"utime", func() error { return os.Chtimes(path, now, info.ModTime()) }},
		{"link", func() error { return os.Link(path, path+".link") }},
		{"move", func() error { return os.Rename(path, path+".moved") }},
		{"put in its place", func() error { return os.WriteFile(path, []byte("another"), 0o600) }},
	} {
		if err := change.do(); err != nil {
			t.Errorf("%s: %v", change.name, err)
		}
	}
	if reason := g.Check(); reason != "" {
		t.Errorf("changed: %s", reason)
	}
}

// A file that stays open for writing gets no lease; its change is detected by comparison.
func TestWithoutLease(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.gguf")
	writer, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	g := lease.NewGuard(20*time.Millisecond, 20*time.Millisecond)
	defer g.Close()
	if err := g.Add(t.Context(), f, path); err != nil {
		t.Fatal(err)
	}
	if g.Leased() {
		t.Error("it has a lease")
	}
	if reason := g.Check(); reason != "" {
		t.Errorf("changed: %s", reason)
	}
	if _, err := writer.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	await(t, "the comparison", g.Changed())
	if reason := g.Check(); !strings.Contains(reason, path+" was changed") {
		t.Errorf("reason %q", reason)
	}
}

// Add waits for a writer that closes the file soon, and then gets a lease.
func TestWaitsForWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.gguf")
	writer, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK); err == nil {
		t.Fatal("a lease beside a writer")
	}
	time.AfterFunc(300*time.Millisecond, func() { _ = writer.Close() })
	g := lease.New()
	defer g.Close()
	if err := g.Add(t.Context(), f, path); err != nil {
		t.Fatal(err)
	}
	if !g.Leased() {
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
			t.Skipf("this file system grants no lease (F_SETLEASE): %v", err)
		}
		t.Error("no lease after the writer has gone")
	}
}
