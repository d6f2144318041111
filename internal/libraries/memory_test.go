package libraries_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/libraries"
)

var (
	here  = libraries.Processor{Model: "A", Flags: "1"}
	other = libraries.Processor{Model: "A", Flags: "2"}
)

func avoided(t *testing.T, m *libraries.Memory, digest string, want ...string) {
	t.Helper()
	if got, err := m.Avoid(digest); err != nil || !slices.Equal(got, want) {
		t.Errorf("avoided %q, %v, want %q", got, err, want)
	}
}

func TestMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data", "cpu-variants.json")
	m := &libraries.Memory{Path: path, Processor: here}
	avoided(t, m, "libs")
	for i, want := range []bool{true, false} {
		if news, err := m.Remember("libs", "zen4"); err != nil || news != want {
			t.Errorf("Remember %d: %t, %v", i, news, err)
		}
	}
	if _, err := m.Remember("libs", "haswell"); err != nil {
		t.Error(err)
	}
	avoided(t, m, "libs", "zen4", "haswell")
	avoided(t, m, "new libs")

	avoided(t, &libraries.Memory{Path: path, Processor: here}, "libs", "zen4", "haswell")
	avoided(t, &libraries.Memory{Path: path, Processor: here}, "new libs")
	avoided(t, &libraries.Memory{Path: path, Processor: other}, "libs")

	// An entry for another machine with the same home does not replace the entry of this machine.
	if _, err := (&libraries.Memory{Path: path, Processor: other}).Remember("libs", "x64"); err != nil {
		t.Fatal(err)
	}
	avoided(t, &libraries.Memory{Path: path, Processor: here}, "libs", "zen4", "haswell")
	avoided(t, &libraries.Memory{Path: path, Processor: other}, "libs", "x64")

	if err := m.Forget("libs"); err != nil {
		t.Fatal(err)
	}
	avoided(t, m, "libs", "zen4", "haswell") // this process still avoids them
	avoided(t, &libraries.Memory{Path: path, Processor: here}, "libs")
}

// A file that cannot be read or that other users can change is ignored with one error, and replaced by
// the next Remember. A folder in its place stays.
func TestBrokenMemory(t *testing.T) {
	for name, test := range map[string]struct {
		plant func(path string) error
		want  string
	}{
		"no JSON":       {func(path string) error { return os.WriteFile(path, []byte("{"), 0o600) }, "is ignored"},
		"another shape": {func(path string) error { return os.WriteFile(path, []byte(`{"machines":[]}`), 0o600) }, "is ignored"},
		"a folder":      {func(path string) error { return os.Mkdir(path, 0o700) }, "is not a regular file"},
		"writable": {func(path string) error {
			return errors.Join(os.WriteFile(path, []byte("{}"), 0o600), os.Chmod(path, 0o666))
		}, "can be written to by every user"},
		"a link": {func(path string) error {
			return errors.Join(os.WriteFile(path+".target", []byte("content"), 0o600), os.Symlink(path+".target", path))
		}, "symbolic link: refused"},
	} {
		t.Run(name, func(t *testing.T) {
			if runtime.GOOS == "windows" {
				t.Skip("neither modes nor links are as here")
			}
			path := filepath.Join(t.TempDir(), "cpu-variants.json")
			if err := test.plant(path); err != nil {
				t.Fatal(err)
			}
			m := &libraries.Memory{Path: path, Processor: here}
			if got, err := m.Avoid("libs"); len(got) != 0 || err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("avoided %q, %v", got, err)
			}
			avoided(t, m, "libs")
			news, err := m.Remember("libs", "zen4")
			if !news {
				t.Error("that was no news")
			}
			if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %q, %v", left, err)
			}
			if name == "a folder" {
				if err == nil {
					t.Error("it was written over a folder")
				}
				avoided(t, m, "libs", "zen4")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			avoided(t, &libraries.Memory{Path: path, Processor: here}, "libs", "zen4")
			if content, err := os.ReadFile(path + ".target"); err == nil && string(content) != "content" {
				t.Errorf("the link's target holds %q", content)
			}
		})
	}
}

func TestRemaining(t *testing.T) {
	all := []string{"a", "b", "c"}
	for name, test := range map[string]struct{ avoid, want []string }{
		"none avoided": {nil, []string{"a", "b", "c"}},
		"the best":     {[]string{"a"}, []string{"b", "c"}},
		"one between":  {[]string{"b"}, []string{"a", "c"}},
		"an unknown":   {[]string{"z"}, []string{"a", "b", "c"}},
		"all":          {[]string{"c", "b", "a"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := libraries.Remaining(all, test.avoid); !slices.Equal(got, test.want) {
				t.Errorf("remaining %q, want %q", got, test.want)
			}
		})
	}
}

// VariantOf returns the variant that a file name stands for, and refuses other names. In the list of
// each architecture, the generic variant is last.
func TestVariantOf(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64", "riscv64"} {
		names := libraries.Variants(arch)
		if len(names) == 0 || names[len(names)-1] != "generic" {
			t.Errorf("%s: %q", arch, names)
		}
	}
	for file, want := range map[string]string{
		libraries.File("ggml-cpu-zen4"): "zen4", libraries.File("ggml-cpu"): "generic", libraries.File("ggml-cuda"): "", "": "", libraries.File("ggml-cpu-"): "",
	} {
		if name, ok := libraries.VariantOf(file); ok != (want != "") || ok && name != want {
			t.Errorf("VariantOf(%q) = %q, %t", file, name, ok)
		}
	}
}

func TestParseProcessor(t *testing.T) {
	intel := "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx sse\n\nprocessor\t: 1\nmodel name\t: Another\nflags\t\t: none\n"
	p := libraries.ParseProcessor(intel)
	if p.Model != "Some CPU" || len(p.Flags) != 64 {
		t.Errorf("%+v", p)
	}
	if same := libraries.ParseProcessor("model name : Some CPU\nflags: sse fpu avx\n"); same != p {
		t.Errorf("in another order: %+v, want %+v", same, p)
	}
	if more := libraries.ParseProcessor(strings.Replace(intel, "avx", "avx avx2", 1)); more.Flags == p.Flags {
		t.Error("another flag is the same processor")
	}
	arm := libraries.ParseProcessor("processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n")
	if arm.Model != "0x41 0xd40" || arm.Flags == libraries.ParseProcessor("").Flags {
		t.Errorf("%+v", arm)
	}
}
