package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/inferd-go/inferd/internal/shortdir"
)

// compile builds the shared library path from C source. It skips the test if there is no compiler.
func compile(t *testing.T, path, source string) {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("there is no C compiler")
	}
	cmd := exec.Command(cc, "-shared", "-fPIC", "-o", path, "-x", "c", "-", "-lpthread")
	cmd.Stdin = strings.NewReader(source)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// installation makes a copy of the data folder of "make engine" that the test can change, and sets
// XDG_DATA_HOME to it. dir is the folder of the libraries in it.
func installation(t *testing.T) (data, dir string) {
	t.Helper()
	data = shortdir.New(t)
	dir = filepath.Join(data, "inferd", "engine", "0.5.0")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(engineLib)
	if err != nil {
		t.Fatalf("%v: run \"make engine\"", err)
	}
	for _, e := range entries {
		from, to := filepath.Join(engineLib, e.Name()), filepath.Join(dir, e.Name())
		if link, err := os.Readlink(from); err == nil {
			if err := os.Symlink(link, to); err != nil {
				t.Fatal(err)
			}
			continue
		}
		content, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("XDG_DATA_HOME", data)
	t.Setenv("INFERD_ENGINE_LIB", "")
	return data, dir
}

// constructor returns the source of a library that makes a file when it is loaded.
func constructor(file string) string {
	return fmt.Sprintf(`#include <fcntl.h>
__attribute__((constructor)) static void loaded(void) { open(%q, O_CREAT | O_WRONLY, 0600); }
`, file)
}

// Libraries in the folder that are not llama.cpp's are not loaded, whatever their names are.
func TestForeignLibraries(t *testing.T) {
	for name, test := range map[string]struct {
		files    []string
		packaged bool
	}{
		"in the packaged folder": {[]string{"libggml-evil.so", "libggml-cpu-evil.so", "libggml-rpc.so", "libffi.so.8", "libstdc++.so.6", "libm.so.6"}, true},
		"in a named folder":      {[]string{"libggml-evil.so", "libggml-cpu-evil.so", "libggml-rpc.so", "libstdc++.so.6", "libm.so.6"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, dir := installation(t)
			seen := filepath.Join(shortdir.New(t), "loaded")
			for _, file := range test.files {
				compile(t, filepath.Join(dir, file), constructor(seen+"-"+file))
			}
			var args []string
			if !test.packaged {
				t.Setenv("XDG_DATA_HOME", shortdir.New(t))
				args = []string{"--engine-lib", dir}
			}
			d := serve(t, append(args, "--model-path", "builtin:chain")...)
			d.works()
			loaded, err := filepath.Glob(seen + "*")
			if err != nil || len(loaded) > 0 {
				t.Errorf("loaded: %q, %v", loaded, err)
			}
			want := map[bool]string{true: "verified", false: "unverified"}[test.packaged]
			if got := d.entries()["llamacpp"]; got.Libraries != want || got.CPUVariant == "" {
				t.Errorf("stats say %+v, want libraries %q", got, want)
			}
			out, _, _ := d.ctl("status")
			if strings.Contains(out, `"libraries":"unverified"`) == test.packaged {
				t.Errorf("status: %s", out)
			}
			if warned := strings.Count(d.stderr.String(), "engine libraries are unverified"); warned != map[bool]int{true: 0, false: 1}[test.packaged] {
				t.Errorf("%d warnings", warned)
			}
		})
	}
}

// The libraries that "make engine" installs are refused if one was changed or is missing, or if
// every user can write to one or to their folder.
func TestChangedLibrary(t *testing.T) {
	for name, test := range map[string]struct {
		change func(dir string) error
		want   string
	}{
		"one byte": {func(dir string) error {
			f, err := os.OpenFile(filepath.Join(dir, "libllama.so"), os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt([]byte{0xff}, 4096)
			return err
		}, `libllama.so is not the packaged one`},
		"one is missing":    {func(dir string) error { return os.Remove(filepath.Join(dir, "libggml-base.so")) }, "libggml-base.so is missing"},
		"writable":          {func(dir string) error { return os.Chmod(filepath.Join(dir, "libggml-base.so"), 0o666) }, "libggml-base.so can be written to by every user"},
		"a writable folder": {func(dir string) error { return os.Chmod(dir, 0o777) }, "can be written to by every user"},
	} {
		t.Run(name, func(t *testing.T) {
			_, dir := installation(t)
			if err := test.change(dir); err != nil {
				t.Fatal(err)
			}
			d := start(t, "", "--model-path", "builtin:chain")
			if code := d.exit(); code != 1 || !strings.Contains(d.stderr.String(), test.want) {
				t.Errorf("exit %d, want %q", code, test.want)
			}
			mend := "make engine"
			if strings.Contains(test.want, "written") {
				mend = "chmod o-w " + dir
			}
			if !strings.Contains(d.stderr.String(), mend) {
				t.Errorf("the log has no %q", mend)
			}
		})
	}
}

// variants are the fastest CPU variants for this processor's family.
var variants = map[string][]string{
	"amd64": {"sapphirerapids", "zen4", "cooperlake", "icelake"}, "arm64": {"armv9.2_2", "armv9.2_1", "armv8.6_2", "armv8.6_1"},
}[runtime.GOARCH]

// illegalVariants are sources of CPU variants that report support for every processor, but end with an
// illegal instruction: while they are loaded, while they are initialised, or in a thread.
var illegalVariants = []string{
	`__attribute__((constructor)) static void loaded(void) { __builtin_trap(); }`,
	`int ggml_backend_score(void) { return 9999; }
void *ggml_backend_init(void) { __builtin_trap(); return 0; }`,
	`#include <pthread.h>
static void *die(void *p) { __builtin_trap(); return p; }
int ggml_backend_score(void) { return 9999; }
void *ggml_backend_init(void) { pthread_t t; pthread_create(&t, 0, die, 0); pthread_join(t, 0); return 0; }`,
}

// withIllegalVariants returns a folder in which the fastest variants end with an illegal instruction.
func withIllegalVariants(t *testing.T) string {
	t.Helper()
	if runtime.GOARCH != "amd64" { // on other processors a trap is another signal
		t.Skip("__builtin_trap is no illegal instruction here")
	}
	var but []string
	for i := range illegalVariants {
		but = append(but, "libggml-cpu-"+variants[i]+".so")
	}
	dir := libraries(t, but...)
	for i, source := range illegalVariants {
		compile(t, filepath.Join(dir, but[i]), source)
	}
	return dir
}

// If the processor lacks instructions that it reports, the engine gets the next lower variant. The
// daemon logs that once for each variant, and the next daemon avoids those variants from its start.
func TestProcessorThatLies(t *testing.T) {
	dir, cache := withIllegalVariants(t), shortdir.New(t)
	t.Setenv("XDG_CACHE_HOME", cache)
	args := []string{"--engine-lib", dir, "--model-path", "builtin:chain"}
	const warning = "engine ended with an illegal instruction while loading"
	check := func(d *daemon, warnings int) {
		t.Helper()
		d.works()
		if got := d.entries()["llamacpp"]; got.CPUVariant == "" || strings.Contains(strings.Join(variants[:len(illegalVariants)], " "), got.CPUVariant) {
			t.Errorf("stats say %+v", got)
		}
		if n := strings.Count(d.stderr.String(), warning); n != warnings {
			t.Errorf("%d warnings, want %d", n, warnings)
		}
	}
	d := serve(t, args...)
	check(d, len(illegalVariants))
	for i := range illegalVariants {
		if want := "variant=" + variants[i] + " next=" + variants[i+1]; !strings.Contains(d.stderr.String(), want) {
			t.Errorf("the log has no %q", want)
		}
	}
	terminate(d)
	d = serve(t, args...)
	check(d, 0)
	if !strings.Contains(d.stderr.String(), "CPU variants avoided") {
		t.Error("the log has no avoided variants")
	}
	terminate(d)

	// The file of avoided variants is ignored and replaced if it is invalid. If a library has
	// changed, its variant is tried again.
	memory := filepath.Join(cache, "inferd", "cpu-variants.json")
	write(t, memory, "{")
	d = serve(t, args...)
	check(d, len(illegalVariants))
	if !strings.Contains(d.stderr.String(), memory+" is ignored") {
		t.Error("the log has no warning of the invalid file of avoided variants")
	}
	terminate(d)
	compile(t, filepath.Join(dir, "libggml-cpu-"+variants[0]+".so"), illegalVariants[1]+"\nint another;")
	check(serve(t, args...), len(illegalVariants))
}

// terminate stops a daemon, and checks that it exits with 0.
func terminate(d *daemon) {
	d.t.Helper()
	d.signal(syscall.SIGTERM)
	if code := d.exit(); code != 0 {
		d.t.Errorf("exit %d", code)
	}
}

// If no variant runs, the daemon lists them and exits. The next daemon tries them again.
func TestEveryVariantLies(t *testing.T) {
	dir := withIllegalVariants(t)
	others, err := filepath.Glob(filepath.Join(dir, "libggml-cpu-*.so"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range others {
		if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSymlink != 0 {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Setenv("XDG_CACHE_HOME", shortdir.New(t))
	for range 2 {
		d := start(t, "", "--engine-lib", dir, "--model-path", "builtin:chain")
		want := "every CPU variant ended with an illegal instruction: " + strings.Join(variants[:len(illegalVariants)], ", ")
		if code := d.exit(); code != 1 || !strings.Contains(d.stderr.String(), want) {
			t.Errorf("exit %d, want %q", code, want)
		}
		if n := strings.Count(d.stderr.String(), "illegal instruction while loading"); n != len(illegalVariants) {
			t.Errorf("%d warnings, want %d", n, len(illegalVariants))
		}
	}
}

// A run folder, logs, a config and programs that other users can change are refused, and so are
// links in place of the log and the lock. The targets of the links stay empty.
func TestGroundThatOthersCanChange(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(t *testing.T, dir string) []string // returns the arguments
		want    string                                  // "DIR" is the run folder
	}{
		"the run folder": {func(t *testing.T, dir string) []string {
			chmod(t, dir, 0o777)
			return nil
		}, `folder DIR can be written to by every user (uid UID, mode 0777): refused; run "chmod o-w DIR"`},
		"the folder of the logs": {func(t *testing.T, dir string) []string {
			if err := os.Mkdir(dir+".logs", 0o700); err != nil {
				t.Fatal(err)
			}
			chmod(t, dir+".logs", 0o777)
			return nil
		}, `folder DIR.logs can be written to by every user`},
		"a link at the log": {func(t *testing.T, dir string) []string {
			if err := os.Mkdir(dir+".logs", 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "target"), "")
			if err := os.Symlink(filepath.Join(dir, "target"), filepath.Join(dir+".logs", "inferd.ndjson")); err != nil {
				t.Fatal(err)
			}
			return nil
		}, `DIR.logs/inferd.ndjson: it is a symbolic link: refused`},
		"a link at the lock": {func(t *testing.T, dir string) []string {
			write(t, filepath.Join(dir, "target"), "")
			if err := os.Symlink(filepath.Join(dir, "target"), filepath.Join(dir, "inferd.lock")); err != nil {
				t.Fatal(err)
			}
			return nil
		}, `lock path is a symlink (refused): DIR/inferd.lock`},
		"the config": {func(t *testing.T, dir string) []string {
			path := filepath.Join(dir, "config.json")
			write(t, path, oneMock)
			chmod(t, path, 0o666)
			return nil
		}, `config: DIR/config.json can be written to by every user`},
		"the engine": {func(t *testing.T, dir string) []string {
			return []string{"--model-path", "builtin:chain", "--engine", engineCopy(t, dir, 0o777)}
		}, `engine program: DIR/bin/inferd-engine can be written to by every user`},
		"the engine's folder": {func(t *testing.T, dir string) []string {
			program := engineCopy(t, dir, 0o755)
			chmod(t, filepath.Dir(program), 0o777)
			return []string{"--model-path", "builtin:chain", "--engine", program}
		}, `engine program: folder DIR/bin can be written to by every user`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := shortdir.New(t)
			d := start(t, dir, test.prepare(t, dir)...)
			want := strings.NewReplacer("DIR", dir, "UID", fmt.Sprint(os.Getuid())).Replace(test.want)
			if code := d.exit(); code != 1 || !strings.Contains(d.stderr.String(), want) {
				t.Errorf("exit %d, want %q", code, want)
			}
			if info, err := os.Stat(filepath.Join(dir, "target")); err == nil && info.Size() > 0 {
				t.Error("the link was followed")
			}
		})
	}
}

// A link in place of the compute lock is replaced, and its target is not changed.
func TestLinkAtTheComputeLock(t *testing.T) {
	dir := shortdir.New(t)
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "compute.lock")
	write(t, target, "content")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "config.json"), `{"backends":[
		{"kind":"llamacpp","name":"a","model":{"builtin":"chain"}},{"kind":"llamacpp","name":"b","model":{"builtin":"loop"}}]}`)
	d := start(t, dir)
	d.waitReady()
	d.works()
	if info, err := os.Lstat(link); err != nil || !info.Mode().IsRegular() {
		t.Errorf("at the lock is %v, %v", info, err)
	}
	terminate(d)
	if content, err := os.ReadFile(target); err != nil || string(content) != "content" {
		t.Errorf("the target holds %q, %v", content, err)
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// engineCopy copies the engine into the new folder bin of dir. mode is that of the program.
func engineCopy(t *testing.T, dir string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, "bin", "inferd-engine")
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(bin, "inferd-engine"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o700); err != nil {
		t.Fatal(err)
	}
	chmod(t, path, mode)
	return path
}
