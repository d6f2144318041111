package store_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/shortdir"
	"github.com/inferd-go/inferd/internal/store"
)

// A tool is the folder of another program with the file of one model, which the store must not
// change.
type tool struct {
	t    *testing.T
	file string
	data []byte
	info os.FileInfo
}

func newTool(t *testing.T, dir string) *tool {
	t.Helper()
	dir, err := filepath.EvalSymlinks(dir) // the folder for tests may be a link
	if err != nil {
		t.Fatal(err)
	}
	o := &tool{t: t, file: filepath.Join(dir, "Tool-Q8_0.gguf")}
	o.data = modelFile(t, o.file, 0, 0)
	if err := os.Chmod(o.file, 0o640); err != nil {
		t.Fatal(err)
	}
	if o.info, err = os.Stat(o.file); err != nil {
		t.Fatal(err)
	}
	return o
}

// check fails the test if the tool's file was changed.
func (o *tool) check() {
	o.t.Helper()
	now, err := os.Stat(o.file)
	if err != nil {
		o.t.Fatal(err)
	}
	data, err := os.ReadFile(o.file)
	if err != nil || string(data) != string(o.data) || now.Mode() != o.info.Mode() || !now.ModTime().Equal(o.info.ModTime()) || !os.SameFile(now, o.info) {
		o.t.Errorf("the tool's file was changed: %v, %v", now, err)
	}
}

func (o *tool) adoption(name string) store.Adoption {
	return store.Adoption{Name: name, Files: []store.AdoptedFile{{Path: o.file, SHA256: digestOf(o.data)}}, Source: store.Source{Registry: "ollama"}, Asked: []string{"ollama:" + name}}
}

func TestAdoptByLink(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("links of open files are for Linux")
	}
	s, home := open(t)
	o := newTool(t, t.TempDir())
	got, err := s.Adopt(t.Context(), o.adoption("m"))
	if err != nil || got.Method != store.Linked && got.Method != store.Cloned {
		t.Fatalf("%+v, %v", got, err)
	}
	o.check()
	blob := filepath.Join(home, "blobs", "sha256", digestOf(o.data)[:2], digestOf(o.data), "data")
	if info, err := os.Stat(blob); err != nil || got.Method == store.Linked && !os.SameFile(info, o.info) {
		t.Errorf("%v, %v", info, err)
	}
	if l := list(t, s); names(l) != "m ok" || l.Models[0].GGUF.Quant != "Q8_0" {
		t.Errorf("%+v", l)
	}
	if _, phases := ensure(t, s, store.Ref{Name: "m"}); phases != "CheckingLocal" {
		t.Errorf("hashed again: %s", phases)
	}
	again := o.adoption("m")
	again.Asked = []string{"hf:a/b"}
	if got, err := s.Adopt(t.Context(), again); err != nil || got.Method != store.Present || fmt.Sprint(got.Manifest.Asked) != "[ollama:m hf:a/b]" {
		t.Errorf("%+v, %v", got, err)
	}
	// The tool may remove its file, and the store may remove its model: neither affects the other.
	if err := os.Rename(o.file, o.file+".away"); err != nil {
		t.Fatal(err)
	}
	if got := names(list(t, s)); got != "m ok" && got != "m unverified" { // the rename changes ctime
		t.Error(got)
	}
	ensure(t, s, store.Ref{Name: "m"})
	s.Close()
	if _, err := s.Remove("m", false); err != nil {
		t.Error(err)
	}
	if err := os.Rename(o.file+".away", o.file); err != nil {
		t.Fatal(err)
	}
	o.check()
	if got := tree(t, home); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

// If the store is on another disk than the file, the manifest refers to the file.
func TestAdoptByReference(t *testing.T) {
	s, home := open(t)
	other := shortdir.InMemory(t)
	o := newTool(t, other)
	got, err := s.Adopt(t.Context(), o.adoption("m"))
	if err != nil {
		t.Fatal(err)
	}
	if got.Method != store.Referred {
		t.Skip("the folders are on one disk: adopted by", got.Method)
	}
	o.check()
	if got := tree(t, home); len(got) != 1 {
		t.Errorf("%q", got)
	}
	l := list(t, s)
	if names(l) != "m ok" || l.Models[0].File != o.file || l.Models[0].Refers.Path != o.file || l.Models[0].Refers.Size != int64(len(o.data)) {
		t.Errorf("%+v", l.Models)
	}
	m, phases := ensure(t, s, store.Ref{Name: "m"})
	if got := content(t, m); got[0] != string(o.data) || phases != "CheckingLocal" || m.Path != o.file || m.Digest != digestOf(o.data) {
		t.Errorf("%s, %+v", phases, m)
	}
	// Changed content is noticed. The model is usable again once the file has its old content.
	write(t, o.file, strings.Repeat("x", len(o.data)))
	if _, err := s.Ensure(t.Context(), store.Ref{Name: "m"}, nil); err == nil || !strings.Contains(err.Error(), o.file) {
		t.Errorf("%v", err)
	}
	if got := names(list(t, s)); got != "m damaged" {
		t.Error(got)
	}
	write(t, o.file, string(o.data))
	if _, phases := ensure(t, s, store.Ref{Name: "m"}); phases != "CheckingLocal Verify" {
		t.Error(phases)
	}
	if err := os.Remove(o.file); err != nil {
		t.Fatal(err)
	}
	if got := names(list(t, s)); got != "m missing" {
		t.Error(got)
	}
	if _, err := s.Ensure(t.Context(), store.Ref{Name: "m"}, nil); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	write(t, o.file, string(o.data))
	s.Close()
	if _, err := s.Remove("m", false); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(o.file); err != nil {
		t.Errorf("the tool's file was removed: %v", err)
	}
}

// Content that changes between the hash and the clone or link is refused, even if the size and the
// modification time stay the same.
func TestAdoptOfAChangedFile(t *testing.T) {
	for _, at := range []store.OpKind{store.OpClone, store.OpLink} {
		s, home := open(t)
		o := newTool(t, t.TempDir())
		changed := false
		s.Before = func(op store.Op) error {
			if op.Kind != at || changed {
				return nil
			}
			changed = true
			evil := strings.Repeat("x", len(o.data))
			return errors.Join(os.WriteFile(o.file, []byte(evil), 0o600), os.Chtimes(o.file, o.info.ModTime(), o.info.ModTime()))
		}
		_, err := s.Adopt(t.Context(), o.adoption("m"))
		if !changed {
			t.Skip("cannot be adopted by", at)
		}
		if err == nil || !strings.Contains(err.Error(), "was changed while it was adopted") {
			t.Errorf("%s: %v", at, err)
		}
		if got := tree(t, home); len(got) != 0 {
			t.Errorf("%s: %q", at, got)
		}
	}
}

// A path with a link in it is refused: the link may have changed since the caller resolved the path.
func TestAdoptOverALink(t *testing.T) {
	s, _ := open(t)
	o := newTool(t, t.TempDir())
	folder := filepath.Join(filepath.Dir(o.file), "folder")
	if err := os.Symlink(filepath.Dir(o.file), folder); err != nil {
		t.Skip(err)
	}
	a := o.adoption("m")
	a.Files[0].Path = filepath.Join(folder, filepath.Base(o.file))
	if _, err := s.Adopt(t.Context(), a); err == nil || !strings.Contains(err.Error(), "through a symbolic link") {
		t.Error(err)
	}
	o.check()
}

func TestAdoptOfASplitModel(t *testing.T) {
	s, _ := open(t)
	dir := shortdir.InMemory(t)
	var a store.Adoption
	a.Name = "split"
	for n := range uint32(2) {
		file := filepath.Join(dir, fmt.Sprintf("S-%05d-of-00002.gguf", n+1))
		modelFile(t, file, n, 2)
		a.Files = append(a.Files, store.AdoptedFile{Path: file})
	}
	got, err := s.Adopt(t.Context(), a)
	if err != nil || len(got.Manifest.Parts) != 2 || got.Warning != "" {
		t.Fatalf("%+v, %v", got, err)
	}
	if m, _ := ensure(t, s, store.Ref{Name: "split"}); len(m.Files) != 2 {
		t.Errorf("%+v", m)
	}
	if _, err := s.Adopt(t.Context(), a); err != nil {
		t.Error(err)
	}
}

func TestAdoptIsRefused(t *testing.T) {
	s, home := open(t)
	dir := t.TempDir()
	o := newTool(t, dir)
	put(t, s, "taken", []byte("another"))
	before := fmt.Sprint(tree(t, home))
	lie := o.adoption("m")
	lie.Files[0].SHA256 = sum("x")
	missing := o.adoption("m")
	missing.Files[0].Path = filepath.Join(dir, "none")
	folder := o.adoption("m")
	folder.Files[0].Path = dir
	name := o.adoption("../m")
	for what, test := range map[string]struct {
		a    store.Adoption
		want string
	}{
		"a wrong digest":  {lie, o.file + " has SHA-256 " + digestOf(o.data) + ", not " + sum("x")},
		"no file":         {missing, "none"},
		"a folder":        {folder, "not a regular file"},
		"an invalid name": {name, "model name"},
		"a taken name":    {o.adoption("taken"), "belongs to another model"},
		"no files":        {store.Adoption{Name: "m"}, "0 files"},
	} {
		if _, err := s.Adopt(t.Context(), test.a); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", what, err, test.want)
		}
	}
	if got := fmt.Sprint(tree(t, home)); got != before {
		t.Errorf("%s, before %s", got, before)
	}
	o.check()
}
