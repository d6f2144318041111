package libraries_test

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/libraries"
	"github.com/inferd-go/inferd/internal/paths"
)

// sums returns the digests in the table of a platform, by file name.
func sums(t *testing.T, platform string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(platform + ".sums")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`^([0-9a-f]{64})  (lib[a-z0-9_.-]+\.so)$`)
	all := make(map[string]string)
	for l := range strings.Lines(string(text)) {
		m := line.FindStringSubmatch(strings.TrimSuffix(l, "\n"))
		if m == nil {
			t.Fatalf("%s: line %q", platform, l)
		}
		all[m[2]] = m[1]
	}
	return all
}

// The tables list exactly the libraries that engines load, and belong to the release that
// scripts/engine.sh installs.
func TestTables(t *testing.T) {
	script, err := os.ReadFile("../../scripts/engine.sh")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(script), "\nversion="+paths.EngineVersion+" ") {
		t.Errorf("scripts/engine.sh does not install %s", paths.EngineVersion)
	}
	for platform, arch := range map[string]string{"linux-x64": "amd64", "linux-arm64": "arm64"} {
		t.Run(platform, func(t *testing.T) {
			if !strings.Contains(string(script), "\tplatform="+platform+"\n") {
				t.Errorf("scripts/engine.sh does not install for %s", platform)
			}
			want := []string{"libggml-base.so", "libggml.v" + paths.EngineVersion + ".so", "libllama.v" + paths.EngineVersion + ".so"}
			for _, v := range libraries.Variants(arch) {
				if v != "generic" {
					want = append(want, "libggml-cpu-"+v+".so")
				}
			}
			slices.Sort(want)
			got := sums(t, platform)
			if len(got) != len(want) {
				t.Errorf("%d libraries, want %d", len(got), len(want))
			}
			for _, name := range want {
				if got[name] == "" {
					t.Errorf("no digest of %s", name)
				}
			}
		})
	}
}

// installed returns the folder that "make engine" makes. It skips the test if the folder is missing.
func installed(t *testing.T) string {
	t.Helper()
	dir := paths.Default().EngineDir()
	if _, err := os.Stat(filepath.Join(dir, libraries.File("llama"))); err != nil {
		t.Skipf("%v: run \"make engine\"", err)
	}
	return dir
}

func TestInstalledFolder(t *testing.T) {
	f := &libraries.Folder{Path: installed(t), Version: paths.EngineVersion, Packaged: true}
	set, err := f.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !set.Verified || set.SearchPath {
		t.Errorf("verified %t, search path %t", set.Verified, set.SearchPath)
	}
	all, err := set.Backends(nil)
	if err != nil || len(all) != len(libraries.Variants(runtime.GOARCH))-1 {
		t.Errorf("backends %q, %v", all, err)
	}
	if present := libraries.Present(f.Path); !slices.Equal(present, all) {
		t.Errorf("present %q, want %q", present, all)
	}
}

// copied returns a copy of the installed folder, or skips the test.
func copied(t *testing.T) string {
	t.Helper()
	from, dir := installed(t), filepath.Join(t.TempDir(), "lib")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		to := filepath.Join(dir, e.Name())
		if to, err := os.Readlink(filepath.Join(from, e.Name())); err == nil {
			if err := os.Symlink(to, filepath.Join(dir, e.Name())); err != nil {
				t.Fatal(err)
			}
			continue
		}
		content, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A packaged folder is refused if a library is missing or differs from the packaged one. Another folder
// may have changed libraries, but no missing core library. Both are refused if other users can change
// the folder or a library.
func TestChangedFolders(t *testing.T) {
	const top = "libggml-cpu-sapphirerapids.so"
	if runtime.GOARCH != "amd64" {
		t.Skip("the names are those of another processor")
	}
	flip := func(path string) error {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		content[len(content)/2] ^= 1
		return os.WriteFile(path, content, 0o644)
	}
	for name, test := range map[string]struct {
		change          func(dir string) error
		packaged, named string // parts of the errors for a packaged and for a named folder; empty means no error
	}{
		"nothing":              {func(string) error { return nil }, "", ""},
		"one byte":             {func(dir string) error { return flip(filepath.Join(dir, "libllama.v0.5.0.so")) }, "libllama.so is not the packaged one", ""},
		"one of a variant":     {func(dir string) error { return flip(filepath.Join(dir, top)) }, top + " is not the packaged one", ""},
		"a variant is missing": {func(dir string) error { return os.Remove(filepath.Join(dir, top)) }, top + " is missing", ""},
		"the base is missing":  {func(dir string) error { return os.Remove(filepath.Join(dir, "libggml-base.so")) }, "libggml-base.so is missing", "libggml-base.so is missing"},
		"all is missing":       {os.RemoveAll, "libllama.so", "make engine"},
		"a link elsewhere": {func(dir string) error {
			link := filepath.Join(dir, "libllama.so")
			if err := os.Remove(link); err != nil {
				return err
			}
			return os.Symlink("libggml-base.so", link)
		}, "libllama.so is not the packaged one", ""},
		"a writable library": {func(dir string) error { return os.Chmod(filepath.Join(dir, top), 0o666) }, top + " can be written to by every user", top + " can be written"},
		"a writable folder":  {func(dir string) error { return os.Chmod(dir, 0o777) }, "can be written to by every user", "can be written to by every user"},
		"a sticky folder":    {func(dir string) error { return os.Chmod(dir, 0o777|os.ModeSticky) }, "can be written to by every user", "can be written"},
		"a foreign library":  {func(dir string) error { return os.WriteFile(filepath.Join(dir, "libggml-evil.so"), nil, 0o644) }, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && len(name)%3 > 0 {
				t.Skip("one folder in three, because each is a copy of 40 MB")
			}
			dir := copied(t)
			if err := test.change(dir); err != nil {
				t.Fatal(err)
			}
			for packaged, want := range map[bool]string{true: test.packaged, false: test.named} {
				f := &libraries.Folder{Path: dir, Version: paths.EngineVersion, Packaged: packaged}
				set, err := f.Check(t.Context())
				switch {
				case (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want):
					t.Errorf("packaged %t: %v, want %q", packaged, err, want)
				case err == nil && set.Verified != packaged:
					t.Errorf("packaged %t: verified %t", packaged, set.Verified)
				case err == nil && strings.Contains(strings.Join(libraries.Present(dir), " "), "evil"):
					t.Error("the foreign library is loaded")
				}
			}
		})
	}
}

// A library that changes between two checks is hashed again, even if its size and modification time
// stay the same.
func TestChangedBetweenStarts(t *testing.T) {
	dir := copied(t)
	f := &libraries.Folder{Path: dir, Version: paths.EngineVersion, Packaged: true}
	if _, err := f.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "libggml-base.so")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)-1] ^= 1
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "libggml-base.so is not the packaged one") {
		t.Errorf("Check: %v", err)
	}
}

// The libffi of a folder is used only if the folder is not packaged.
func TestLibffi(t *testing.T) {
	dir := copied(t)
	if err := os.WriteFile(filepath.Join(dir, "libffi.so.8"), []byte("foreign"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, packaged := range []bool{true, false} {
		f := &libraries.Folder{Path: dir, Version: paths.EngineVersion, Packaged: packaged}
		set, err := f.Check(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if set.SearchPath == packaged {
			t.Errorf("packaged %t: search path %t", packaged, set.SearchPath)
		}
	}
}
