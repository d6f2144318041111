package store_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/store"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func sum(text string) string {
	s := sha256.Sum256([]byte(text))
	return hex.EncodeToString(s[:])
}

// ensure opens a model, and returns it with the names of the reported phases.
func ensure(t *testing.T, s *store.Store, ref store.Ref) (m *store.Model, phases string) {
	t.Helper()
	var all []string
	m, err := s.Ensure(t.Context(), ref, func(p status.Phase) { all = append(all, strings.TrimPrefix(fmt.Sprintf("%T", p), "status.")) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m, strings.Join(all, " ")
}

// content reads all files of a model from the beginning, as a process that inherits them does.
func content(t *testing.T, m *store.Model) (texts []string) {
	t.Helper()
	for _, f := range m.Files {
		text, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	return texts
}

func TestFileStaysTheOneThatWasChecked(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m.gguf")
	write(t, path, "right")
	var s store.Store
	m, phases := ensure(t, &s, store.Ref{Path: path, SHA256: sum("right")})
	if phases != "CheckingLocal Verify" {
		t.Errorf("phases: %s", phases)
	}
	write(t, path+".new", "wrong")
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if got := content(t, m); !slices.Equal(got, []string{"right"}) || m.Path != path || m.Digest != sum("right") || m.Info.Size() != 5 {
		t.Errorf("%q, %+v", got, m)
	}
	if _, err := s.Ensure(t.Context(), store.Ref{Path: path, SHA256: sum("right")}, nil); err == nil ||
		!strings.Contains(err.Error(), path+" has SHA-256 "+sum("wrong")+", but "+sum("right")+" was expected") {
		t.Errorf("the other file: %v", err)
	}
}

func TestVerifiedFileIsNotReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.gguf")
	ref := store.Ref{Path: path, SHA256: sum("right")}
	write(t, path, "right")
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, past, past); err != nil {
		t.Fatal(err)
	}
	var s store.Store
	ensure(t, &s, ref)
	if m, phases := ensure(t, &s, ref); phases != "CheckingLocal" || m.Digest != ref.SHA256 {
		t.Errorf("again: %s, digest %q", phases, m.Digest)
	}
	if _, err := s.Ensure(t.Context(), store.Ref{Path: path, SHA256: sum("left")}, nil); err == nil {
		t.Error("another digest is right, too")
	}
	write(t, path, "wrong") // of the same length
	if _, err := s.Ensure(t.Context(), ref, nil); err == nil {
		t.Error("a file that was written to is not read again")
	}
}

func TestLinksAreFollowed(t *testing.T) {
	dir := t.TempDir()
	blob, link := filepath.Join(dir, "blob"), filepath.Join(dir, "m.gguf")
	write(t, blob, "right")
	if err := os.Symlink(blob, link); err != nil {
		t.Skip(err)
	}
	var s store.Store
	if m, _ := ensure(t, &s, store.Ref{Path: link, SHA256: sum("right")}); m.Path != link {
		t.Errorf("Path = %s", m.Path)
	}
}

func TestSplitModel(t *testing.T) {
	dir := t.TempDir()
	name := func(part, of int) string { return filepath.Join(dir, fmt.Sprintf("m-%05d-of-%05d.gguf", part, of)) }
	for part := range 3 {
		write(t, name(part+1, 3), fmt.Sprint(part+1))
	}
	write(t, name(1, 1), "alone")
	write(t, name(1, 513), "many")
	var s store.Store
	for path, want := range map[string][]string{name(1, 3): {"1", "2", "3"}, name(2, 3): {"2"}, name(1, 1): {"alone"}} {
		m, _ := ensure(t, &s, store.Ref{Path: path})
		if got := content(t, m); !slices.Equal(got, want) {
			t.Errorf("%s has %q, want %q", path, got, want)
		}
	}
	if m, _ := ensure(t, &s, store.Ref{Path: name(1, 3), SHA256: sum("1")}); m.Digest != "" {
		t.Errorf("Digest = %q of the first part", m.Digest)
	}
	if _, err := s.Ensure(t.Context(), store.Ref{Path: name(1, 513)}, nil); err == nil || !strings.Contains(err.Error(), "513 parts") {
		t.Errorf("of 513 parts: %v", err)
	}
	if err := os.Remove(name(2, 3)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Ensure(t.Context(), store.Ref{Path: name(1, 3)}, nil); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "part 2 of 3") {
		t.Errorf("without its second part: %v", err)
	}
}

func TestBuiltin(t *testing.T) {
	s := store.Store{BuiltinDir: filepath.Join(t.TempDir(), "builtin")}
	m, phases := ensure(t, &s, store.Ref{Builtin: "chain"})
	if phases != "CheckingLocal" || filepath.Dir(m.Path) != s.BuiltinDir || len(m.Files) != 1 || m.Digest == "" {
		t.Errorf("%s, %+v", phases, m)
	}
	if _, err := s.Ensure(t.Context(), store.Ref{Builtin: "none"}, nil); err == nil || !strings.Contains(err.Error(), "built-in model") {
		t.Errorf("of an unknown name: %v", err)
	}
}

func TestCancel(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.gguf")
	write(t, path, "right")
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("enough")
	var s store.Store
	if _, err := s.Ensure(ctx, store.Ref{Path: path, SHA256: sum("right")}, func(p status.Phase) {
		if _, ok := p.(status.Verify); ok {
			cancel(reason)
		}
	}); !errors.Is(err, reason) {
		t.Errorf("%v", err)
	}
}

func TestChangeWhileItIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.gguf")
	write(t, path, "right")
	var s store.Store
	if _, err := s.Ensure(t.Context(), store.Ref{Path: path, SHA256: sum("right")}, func(p status.Phase) {
		if _, ok := p.(status.Verify); ok {
			write(t, path, "right and more")
		}
	}); err == nil || !strings.Contains(err.Error(), "was changed while") {
		t.Errorf("%v", err)
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	for name, test := range map[string]struct{ path, want string }{
		"a folder":       {dir, dir + " is not a regular file"},
		"a missing file": {filepath.Join(dir, "none"), filepath.Join(dir, "none")},
		"a device":       {os.DevNull, "is not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			var s store.Store
			if _, err := s.Ensure(t.Context(), store.Ref{Path: test.path}, nil); err == nil || !strings.HasPrefix(err.Error(), "model: ") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}
