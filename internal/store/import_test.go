package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/gguf"
	"github.com/inferd-go/inferd/internal/store"
)

// modelFile writes a small GGUF file and returns its content. If parts is not 0, the header says that
// the file is the given part, counted from 0, of a split model.
func modelFile(t *testing.T, path string, part, parts uint32) []byte {
	t.Helper()
	var f gguf.File
	f.String("general.architecture", "llama")
	f.Uint32("general.file_type", 7)
	f.Uint32("llama.context_length", 2048)
	f.Strings("tokenizer.ggml.tokens", []string{"a", "b"})
	if parts > 0 {
		f.Uint32("split.no", part)
		f.Uint32("split.count", parts)
	}
	var buf bytes.Buffer
	if _, err := f.WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	write(t, path, buf.String())
	return buf.Bytes()
}

func TestImport(t *testing.T) {
	s, home := open(t)
	file := filepath.Join(t.TempDir(), "Tiny-Q8_0.gguf")
	data := modelFile(t, file, 0, 0)
	last := int64(0)
	got, err := s.Import(t.Context(), store.Import{Path: file, ProducedBy: "inferdctl/1"}, func(done, total int64) {
		if total != int64(len(data)) || done < last {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
	})
	if err != nil || last != int64(len(data)) {
		t.Fatal(last, err)
	}
	want := &store.Manifest{
		Schema: 1, Name: "tiny-q8_0", Format: "gguf", Blob: "sha256:" + digestOf(data), Size: int64(len(data)), ProducedBy: "inferdctl/1", ProducedAt: got.Manifest.ProducedAt,
		Source: store.Source{Registry: "local-import", Filename: "Tiny-Q8_0.gguf"},
		GGUF:   &store.Header{Arch: "llama", Quant: "Q8_0", NCtx: 2048, NVocab: 2},
	}
	if diff := cmp.Diff(want, got.Manifest); diff != "" || got.Warning != "" {
		t.Error(diff, got.Warning)
	}
	there, err := s.Manifest("tiny-q8_0")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, there); diff != "" {
		t.Error(diff)
	}
	if copied, err := os.ReadFile(got.Path); err != nil || !bytes.Equal(copied, data) {
		t.Errorf("the copy is another, %v", err)
	}
	if text, err := os.ReadFile(file); err != nil || !bytes.Equal(text, data) {
		t.Errorf("the file was changed, %v", err)
	}
	before := tree(t, home)
	for name, im := range map[string]store.Import{
		"again":                 {Path: file},
		"again with a digest":   {Path: file, SHA256: strings.ToUpper(digestOf(data))},
		"again by another link": {Path: link(t, file), Name: "tiny-q8_0"},
	} {
		if again, err := s.Import(t.Context(), im, nil); err != nil || again.Path != got.Path {
			t.Errorf("%s: %+v, %v", name, again, err)
		}
	}
	if diff := cmp.Diff(before, tree(t, home)); diff != "" {
		t.Error(diff)
	}
}

func link(t *testing.T, file string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "link.gguf")
	if err := os.Symlink(file, name); err != nil {
		t.Skip(err)
	}
	return name
}

// A refused import leaves no file in the store.
func TestImportIsRefused(t *testing.T) {
	s, home := open(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "m.gguf")
	data := modelFile(t, file, 0, 0)
	put(t, s, "taken", []byte("another model"))
	modelFile(t, filepath.Join(dir, "split-00001-of-00003.gguf"), 0, 3)
	modelFile(t, filepath.Join(dir, "split-00003-of-00003.gguf"), 2, 3)
	before := tree(t, home)
	for name, test := range map[string]struct {
		im   store.Import
		want string
	}{
		"a folder":                      {store.Import{Path: dir, Name: "x"}, "is not a regular file"},
		"a missing file":                {store.Import{Path: filepath.Join(dir, "none.gguf")}, "no such file"},
		"a bad name":                    {store.Import{Path: file, Name: "../x"}, "only letters"},
		"a file without a name":         {store.Import{Path: filepath.Join(dir, ".gguf")}, "--name"},
		"a short digest":                {store.Import{Path: file, SHA256: "abc"}, "must be 64 hex characters (got abc)"},
		"another digest":                {store.Import{Path: file, SHA256: sum("x")}, fmt.Sprintf("SHA-256 mismatch: expected %s, file is %s (nothing imported)", sum("x"), digestOf(data))},
		"a taken name":                  {store.Import{Path: file, Name: "taken"}, "belongs to another model"},
		"a taken name and a digest":     {store.Import{Path: file, Name: "taken", SHA256: digestOf(data)}, "belongs to another model"},
		"a later part":                  {store.Import{Path: filepath.Join(dir, "split-00003-of-00003.gguf")}, "name its first part, split-00001-of-00003.gguf"},
		"a missing part":                {store.Import{Path: filepath.Join(dir, "split-00001-of-00003.gguf")}, "part 2 of 3"},
		"a terminal in place of a file": {store.Import{Path: os.DevNull, Name: "x"}, "is not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := s.Import(t.Context(), test.im, nil); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
			if diff := cmp.Diff(before, tree(t, home)); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		reason := errors.New("enough")
		big := filepath.Join(dir, "big.gguf")
		write(t, big, string(random(5<<20, 3)))
		if _, err := s.Import(ctx, store.Import{Path: big}, func(int64, int64) { cancel(reason) }); !errors.Is(err, reason) {
			t.Error(err)
		}
		if diff := cmp.Diff(before, tree(t, home)); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("being written", func(t *testing.T) {
		lock, err := (&store.Store{Home: home}).LockName("m")
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Release()
		want := fmt.Sprintf(`model "m" is being written by another process (pid %d)`, os.Getpid())
		if _, err := s.Import(t.Context(), store.Import{Path: file}, nil); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	})
	t.Run("changed meanwhile", func(t *testing.T) {
		once := false
		if _, err := s.Import(t.Context(), store.Import{Path: file}, func(int64, int64) {
			if !once {
				once = true
				write(t, file, "changed")
			}
		}); err == nil || !strings.Contains(err.Error(), "was changed while it was copied") {
			t.Error(err)
		}
		if diff := cmp.Diff(before, tree(t, home)); diff != "" {
			t.Error(diff)
		}
	})
}

// Files that are named like parts of a split model, but are whole models, are imported with a
// warning.
func TestImportOfWholeModelsAsParts(t *testing.T) {
	s, _ := open(t)
	dir := t.TempDir()
	for n := range 2 {
		modelFile(t, filepath.Join(dir, fmt.Sprintf("Big-%05d-of-00002.gguf", n+1)), 0, 0)
	}
	got, err := s.Import(t.Context(), store.Import{Path: filepath.Join(dir, "Big-00001-of-00002.gguf")}, nil)
	if err != nil || !strings.Contains(got.Warning, "one of 2 parts: these files are not one model") {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestImportOfASplitModel(t *testing.T) {
	s, home := open(t)
	dir := t.TempDir()
	var all [][]byte
	for n := range uint32(3) {
		all = append(all, modelFile(t, filepath.Join(dir, fmt.Sprintf("Big-%05d-of-00003.gguf", n+1)), n, 3))
	}
	got, err := s.Import(t.Context(), store.Import{Path: filepath.Join(dir, "Big-00001-of-00003.gguf")}, nil)
	if err != nil || got.Warning != "" {
		t.Fatal(got, err)
	}
	m := got.Manifest
	if m.Name != "big" || len(m.Parts) != 3 || m.Parts[2].Blob != "sha256:"+digestOf(all[2]) || m.Blob != m.Parts[0].Blob || m.TotalSize() != int64(3*len(all[0])) {
		t.Errorf("%+v", m)
	}
	model, _ := ensure(t, s, store.Ref{Name: "big"})
	if got := content(t, model); len(got) != 3 || got[2] != string(all[2]) {
		t.Errorf("%q", got)
	}
	if again, err := s.Import(t.Context(), store.Import{Path: filepath.Join(dir, "Big-00001-of-00003.gguf")}, nil); err != nil || len(again.Manifest.Parts) != 3 {
		t.Error(again, err)
	}
	if _, err := s.Import(t.Context(), store.Import{Path: filepath.Join(dir, "Big-00001-of-00003.gguf"), Name: "x", SHA256: digestOf(all[0])}, nil); err == nil {
		t.Error("a digest of three files")
	}
	if got := tree(t, home); len(got) != 4 {
		t.Errorf("%q", got)
	}
	// A file that is part of a split model by its header, but not by its name, is imported with a warning.
	lone := filepath.Join(dir, "lone.gguf")
	modelFile(t, lone, 0, 3)
	if got, err := s.Import(t.Context(), store.Import{Path: lone}, nil); err != nil || !strings.Contains(got.Warning, "3 parts") {
		t.Error(got, err)
	}
	write(t, lone, "no model")
	if got, err := s.Import(t.Context(), store.Import{Path: lone, Name: "strange"}, nil); err != nil || !strings.Contains(got.Warning, "cannot be loaded") || got.Manifest.GGUF != nil {
		t.Error(got, err)
	}
}

// An import repairs a blob that is damaged or missing.
func TestImportRepairs(t *testing.T) {
	s, _ := open(t)
	file := filepath.Join(t.TempDir(), "m.gguf")
	data := modelFile(t, file, 0, 0)
	got, err := s.Import(t.Context(), store.Import{Path: file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, damage := range []func() error{
		func() error { return os.Remove(got.Path) },
		func() error {
			return errors.Join(os.Chmod(got.Path, 0o600), os.WriteFile(got.Path, []byte("damaged"), 0o600))
		},
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Import(t.Context(), store.Import{Path: file}, nil); err != nil {
			t.Error(err)
		}
		if text, err := os.ReadFile(got.Path); err != nil || !bytes.Equal(text, data) {
			t.Errorf("%q, %v", text, err)
		}
	}
}
