// Package llama is the Go interface of llama.cpp: models, contexts and samplers, without
// exported pointers or handles. It is the only package of the module with native code. It does
// not know requests, slots or clients.
//
// llama.cpp aborts the process on invalid arguments. They are checked here first: sequence
// numbers, indices without logits, tokens outside the vocabulary. Some cannot be checked, such
// as a hostile model file; therefore the engine is a process of its own.
package llama

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/ebitengine/purego"
	yzma "github.com/hybridgroup/yzma/pkg/llama"
	"github.com/hybridgroup/yzma/pkg/loader"
	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/libraries"
)

// Versions are the releases of llama.cpp whose structs the binding has. Another one
// would not fail, but corrupt memory.
var versions = []string{"0.5.0", "0.5.0-dev"}

// mend tells an operator how to get the right libraries.
const mend = `run "make engine", or name a folder that has those of llama.cpp 0.5.0 with --engine-lib`

// noBacktrace is ggml's variable.
const noBacktrace = "GGML_NO_BACKTRACE"

// Open loads llama.cpp's libraries from a folder, with every backend in it that the program
// knows. It is [OpenBackends] without a daemon.
func Open(dir string) error {
	_, err := OpenBackends(dir, nil, func(string) error { return nil })
	return err
}

// system are the libraries of the system that llama.cpp's need.
var system = []string{"libstdc++.so.6", "libgcc_s.so.1", "libm.so.6"}

// OpenBackends loads llama.cpp's libraries from a folder, and of its backends those with the
// file names in backends; no other file of the folder is loaded. An empty list stands for all
// backends known by name. Of several CPU variants it loads the first that the processor supports, and
// returns its name. Trying is called with the name of a variant before anything of it is loaded,
// because a processor that lies about its instructions may end the process there; its error ends
// the loading.
//
// OpenBackends must be called once, before anything else of this package. A library that is not
// there is an [os.ErrNotExist]; every error names the remedy.
func OpenBackends(dir string, backends []string, trying func(variant string) error) (variant string, err error) {
	if len(backends) == 0 {
		backends = libraries.Present(dir)
	}
	for _, lib := range slices.Backward(libraries.Core()) {
		if _, err := os.Stat(loader.GetLibraryFilename(dir, lib)); err != nil {
			return "", fmt.Errorf("llama.cpp's libraries: %w: %s", err, mend)
		}
	}
	// Else a failed assertion waits for a debugger first. The libraries read it as they load.
	if _, ok := os.LookupEnv(noBacktrace); !ok {
		if err := os.Setenv(noBacktrace, "1"); err != nil {
			return "", err
		}
	}
	if err := dieOfIllegalInstructions(); err != nil {
		return "", err
	}
	// The libraries' own search path begins with their folder. What is loaded already is not
	// looked for: the system's libraries first, then each library before those that need it.
	for _, name := range system {
		_, _ = purego.Dlopen(name, purego.RTLD_NOW|purego.RTLD_GLOBAL) // it may lie beside them, in an own build
	}
	for _, lib := range libraries.Core() {
		path := loader.GetLibraryFilename(dir, lib)
		if lib == "llama" {
			if err := checkVersion(path); err != nil {
				return "", err
			}
		} else if _, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_GLOBAL); err != nil {
			return "", fmt.Errorf("llama.cpp's libraries: %w: %s", err, mend)
		}
	}
	if err := yzma.Load(dir); err != nil {
		return "", fmt.Errorf("llama.cpp's libraries in %s: %w: %s", dir, err, mend)
	}
	if err := checkLayout(); err != nil {
		return "", err
	}
	yzma.LogSet(purego.NewCallback(messages.take))
	yzma.BackendInit()
	if variant, err = loadBackends(dir, backends, trying); err != nil {
		return "", fmt.Errorf("load backends from %s: %w", dir, err)
	}
	if yzma.GGMLBackendDeviceCount() == 0 {
		return "", fmt.Errorf("no backend in %s computes on this machine: %s", dir, mend)
	}
	return variant, nil
}

// dieOfIllegalInstructions has the kernel end the process at an illegal instruction. Go's
// handler would print text and exit, and the daemon cannot trust text: a model could print it.
func dieOfIllegalInstructions() error {
	set, err := purego.Dlsym(purego.RTLD_DEFAULT, "signal")
	if err != nil {
		return err
	}
	call(set, uintptr(unix.SIGILL), 0) // SIG_DFL
	return nil
}

// loadBackends loads backends by their files, of those for the processor one.
func loadBackends(dir string, files []string, trying func(variant string) error) (loaded string, err error) {
	var problems []error // of CPU variants that were not loaded
	load, err := lookup("ggml", "ggml_backend_load")
	if err != nil {
		return "", err
	}
	for _, file := range files {
		variant, isCPU := libraries.VariantOf(file)
		path := filepath.Join(dir, file)
		switch {
		case !isCPU:
			callWithString(load, path) // without its driver it says so, and the processor computes
			continue
		case loaded != "":
			continue
		}
		if err := trying(variant); err != nil {
			return "", err
		}
		if err := supported(path); err != nil {
			problems = append(problems, err)
		} else if callWithString(load, path) != 0 {
			loaded = variant
		}
	}
	if loaded == "" && len(problems) > 0 {
		fmt.Fprintln(os.Stderr, "no CPU variant was loaded:", errors.Join(problems...))
	}
	return loaded, nil
}

// errUnsupported is the answer of a CPU variant for another processor.
var errUnsupported = errors.New("it does not support this processor")

// supported asks a CPU variant whether it supports the processor. A build for one machine has
// no answer.
func supported(path string) error {
	lib, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return err
	}
	score, err := purego.Dlsym(lib, "ggml_backend_score")
	if err == nil && int32(call(score)) == 0 {
		return errors.Join(fmt.Errorf("%s: %w", path, errUnsupported), purego.Dlclose(lib))
	}
	return nil
}

// checkVersion asks the library for its version, before any struct is passed to it.
func checkVersion(path string) error {
	lib, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return fmt.Errorf("llama.cpp's libraries: %w: %s", err, mend)
	}
	symbol, err := purego.Dlsym(lib, "llama_version")
	if err != nil {
		return fmt.Errorf("%s is not llama.cpp 0.5.0, it does not tell its version: %s", path, mend)
	}
	version := goString(call(symbol))
	if !slices.Contains(versions, version) {
		return fmt.Errorf("%s is llama.cpp %s, this engine is made for %s: %s", path, version, versions[0], mend)
	}
	return nil
}

// checkLayout compares defaults that the library fills in with those of the release: a
// struct that has moved shows here before it does harm. The test of this package compares
// every offset.
func checkLayout() error {
	c, m := yzma.ContextDefaultParams(), yzma.ModelDefaultParams()
	if c.NCtx != 512 || c.NBatch != 2048 || c.NUbatch != 512 || c.NSeqMax != 1 || c.RopeFreqBase != 0 ||
		c.TypeK != yzma.GGMLTypeF16 || c.TypeV != yzma.GGMLTypeF16 || c.Offload_kqv != 1 || c.NSamplers != 0 {
		return fmt.Errorf("the libraries lay out a context's parameters differently than llama.cpp 0.5.0 does: %s", mend)
	}
	if m.NGpuLayers != -1 || m.UseExtraBufts != 1 || m.VocabOnly != 0 || m.ProgressCallback != 0 {
		return fmt.Errorf("the libraries lay out a model's parameters differently than llama.cpp 0.5.0 does: %s", mend)
	}
	return nil
}

// messages is where llama.cpp's log goes. There is one per process, as in llama.cpp.
var messages = &logbook{}

// A logbook passes warnings and errors on to standard error, which the daemon keeps, and
// remembers the last errors since it was last asked.
type logbook struct {
	mu      sync.Mutex   // guards the fields below
	level   int32        // of the last message, for its continuations
	errors  []string     // not more than keptErrors
	running []*abortFlag // of the present computations
	names   *strings.Replacer
}

const keptErrors = 8

// take is llama.cpp's log callback.
func (l *logbook) take(level int32, text, _ uintptr) uintptr {
	l.mu.Lock()
	defer l.mu.Unlock()
	if yzma.LogLevel(level) == yzma.LogLevelContinue {
		level = l.level
	}
	l.level = level
	if level := yzma.LogLevel(level); level != yzma.LogLevelWarn && level != yzma.LogLevelError {
		return 0
	}
	if slices.ContainsFunc(l.running, (*abortFlag).raised) { // the error is the abort that was asked for
		return 0
	}
	line := goString(text)
	if l.names != nil {
		line = l.names.Replace(line)
	}
	_, _ = unix.Write(2, []byte(line)) // as llama.cpp itself would
	if line = strings.TrimSpace(line); yzma.LogLevel(level) == yzma.LogLevelError && line != "" {
		if len(l.errors) == keptErrors {
			l.errors = slices.Delete(l.errors, 0, 1)
		}
		l.errors = append(l.errors, line)
	}
	return 0
}

// forget drops the errors of earlier calls.
func (l *logbook) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errors = nil
}

// name puts the model's path in place of the files that it is read from.
func (l *logbook) name(path string, files []string) {
	var pairs []string
	for i, f := range slices.Backward(files) { // of /proc/self/fd/4 and /proc/self/fd/40 the longer one is tried first
		shown := path
		if i > 0 {
			shown = fmt.Sprintf("%s (part %d)", path, i+1)
		}
		pairs = append(pairs, f, shown)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names = strings.NewReplacer(pairs...)
}

// begin is forget before a computation, which end ends. The errors of two at once cannot be told
// apart.
func (l *logbook) begin(f *abortFlag) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.running) == 0 {
		l.errors = nil
	}
	l.running = append(l.running, f)
}

func (l *logbook) end(f *abortFlag) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running = slices.DeleteFunc(l.running, func(r *abortFlag) bool { return r == f })
}

// drain returns the errors since the last call as one, fallback if there were none.
func (l *logbook) drain(fallback string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.errors
	l.errors = nil
	if len(lines) == 0 {
		return errors.New(fallback)
	}
	return errors.New(strings.Join(lines, "; "))
}
