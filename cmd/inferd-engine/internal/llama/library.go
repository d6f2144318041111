// Package llama is the Go interface of llama.cpp: models, contexts and samplers, without
// exported pointers or handles. It is the only package of the module with native code. It is
// independent of requests, slots and clients.
//
// llama.cpp aborts the process on invalid arguments. This package checks them first: sequence
// numbers, indices without logits, tokens outside the vocabulary. Some cannot be checked, such as a
// hostile model file; therefore the engine is a process of its own.
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

// versions are the releases of llama.cpp with the layout of structs that the binding assumes. With
// another release, calls would not fail, but corrupt memory.
var versions = []string{"0.5.0", "0.5.0-dev"}

// remedy is the advice to an operator with wrong libraries.
const remedy = `run "make engine", or name a folder that has those of llama.cpp 0.5.0 with --engine-lib`

// noBacktrace is an environment variable of ggml: if it is set, a failed assertion prints no
// backtrace.
const noBacktrace = "GGML_NO_BACKTRACE"

// Open is [OpenBackends] with all backends that are known by name and present in dir. It is for
// programs that run without the daemon: tests and benchmarks.
func Open(dir string) error {
	_, err := OpenBackends(dir, nil, func(string) error { return nil })
	return err
}

// system lists the system's libraries on which llama.cpp's libraries depend.
var system = []string{"libstdc++.so.6", "libgcc_s.so.1", "libm.so.6"}

// OpenBackends loads llama.cpp's libraries from the folder dir, and the backends with the given file
// names; it loads no other file of the folder. An empty list stands for all backends known by name.
// Of several CPU variants it loads the first that the processor supports, and returns its name.
// Before it loads a variant, it calls trying with the variant's name, because an illegal instruction
// may end the process there. If trying returns an error, so does OpenBackends.
//
// OpenBackends must be called once, before any other function of this package. The error for a
// missing library wraps [os.ErrNotExist]. Errors about missing or wrong libraries name a remedy.
func OpenBackends(dir string, backends []string, trying func(variant string) error) (variant string, err error) {
	if len(backends) == 0 {
		backends = libraries.Present(dir)
	}
	for _, lib := range slices.Backward(libraries.Core()) {
		if _, err := os.Stat(loader.GetLibraryFilename(dir, lib)); err != nil {
			return "", fmt.Errorf("llama.cpp's libraries: %w: %s", err, remedy)
		}
	}
	// The variable is set first, because the libraries read it when they are loaded. Without it, a failed assertion
	// would wait for a debugger before it ends the process.
	if _, ok := os.LookupEnv(noBacktrace); !ok {
		if err := os.Setenv(noBacktrace, "1"); err != nil {
			return "", err
		}
	}
	if err := crashOnIllegalInstruction(); err != nil {
		return "", err
	}
	// A library searches its own folder first for its dependencies, unless they are loaded already. So the
	// system's libraries are loaded first, and then each library before its dependents.
	for _, name := range system {
		_, _ = purego.Dlopen(name, purego.RTLD_NOW|purego.RTLD_GLOBAL) // if it is missing, the folder of a custom build may have it
	}
	for _, lib := range libraries.Core() {
		path := loader.GetLibraryFilename(dir, lib)
		if lib == "llama" {
			if err := checkVersion(path); err != nil {
				return "", err
			}
		} else if _, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_GLOBAL); err != nil {
			return "", fmt.Errorf("llama.cpp's libraries: %w: %s", err, remedy)
		}
	}
	if err := yzma.Load(dir); err != nil {
		return "", fmt.Errorf("llama.cpp's libraries in %s: %w: %s", dir, err, remedy)
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
		return "", fmt.Errorf("none of the backends in %s supports this machine: %s", dir, remedy)
	}
	return variant, nil
}

// crashOnIllegalInstruction makes the kernel end the process at an illegal instruction. The daemon recognises
// that death by the signal. Go's handler would print a text and exit, but a model could print the same text.
func crashOnIllegalInstruction() error {
	set, err := purego.Dlsym(purego.RTLD_DEFAULT, "signal")
	if err != nil {
		return err
	}
	call(set, uintptr(unix.SIGILL), 0) // SIG_DFL
	return nil
}

// loadBackends loads the backends in files, but only one CPU variant. It returns the name of that variant,
// or an empty one if no variant was loaded.
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
			callWithString(load, path) // without a driver, the backend logs that, and the CPU computes
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

// errUnsupported is the error of a CPU variant for another processor.
var errUnsupported = errors.New("it does not support this processor")

// supported returns an error if a CPU variant cannot be opened, or, as errUnsupported, if it reports that it
// does not support the processor. A build for one machine reports nothing, and counts as supported.
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

// checkVersion loads llama.cpp's main library, and checks the version that it reports before any struct is
// passed to it.
func checkVersion(path string) error {
	lib, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return fmt.Errorf("llama.cpp's libraries: %w: %s", err, remedy)
	}
	symbol, err := purego.Dlsym(lib, "llama_version")
	if err != nil {
		return fmt.Errorf("%s is not llama.cpp 0.5.0, it does not report its version: %s", path, remedy)
	}
	version := goString(call(symbol))
	if !slices.Contains(versions, version) {
		return fmt.Errorf("%s is llama.cpp %s, this engine is made for %s: %s", path, version, versions[0], remedy)
	}
	return nil
}

// checkLayout compares default parameters of the library with those of the release, to find a changed struct
// before it corrupts memory. TestLayout compares every offset.
func checkLayout() error {
	c, m := yzma.ContextDefaultParams(), yzma.ModelDefaultParams()
	if c.NCtx != 512 || c.NBatch != 2048 || c.NUbatch != 512 || c.NSeqMax != 1 || c.RopeFreqBase != 0 ||
		c.TypeK != yzma.GGMLTypeF16 || c.TypeV != yzma.GGMLTypeF16 || c.Offload_kqv != 1 || c.NSamplers != 0 {
		return fmt.Errorf("the libraries lay out a context's parameters differently than llama.cpp 0.5.0 does: %s", remedy)
	}
	if m.NGpuLayers != -1 || m.UseExtraBufts != 1 || m.VocabOnly != 0 || m.ProgressCallback != 0 {
		return fmt.Errorf("the libraries lay out a model's parameters differently than llama.cpp 0.5.0 does: %s", remedy)
	}
	return nil
}

// messages receives llama.cpp's log. There is one per process, as in llama.cpp.
var messages = &logSink{}

// A logSink writes warnings and errors to standard error, where the daemon collects them. It keeps the last
// errors for drain.
type logSink struct {
	mu      sync.Mutex        // guards the fields below
	level   int32             // of the last message; continuations of it have the same level
	errors  []string          // at most keptErrors
	running []*abortFlag      // of the current computations
	names   *strings.Replacer // replaces the names of files; see name
}

const keptErrors = 8

// take is llama.cpp's log callback.
func (l *logSink) take(level int32, text, _ uintptr) uintptr {
	l.mu.Lock()
	defer l.mu.Unlock()
	if yzma.LogLevel(level) == yzma.LogLevelContinue {
		level = l.level
	}
	l.level = level
	if level := yzma.LogLevel(level); level != yzma.LogLevelWarn && level != yzma.LogLevelError {
		return 0
	}
	if slices.ContainsFunc(l.running, (*abortFlag).raised) { // the error of a requested abort
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
func (l *logSink) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errors = nil
}

// name makes later messages contain the model's path in place of the names of files.
func (l *logSink) name(path string, files []string) {
	var pairs []string
	for i, f := range slices.Backward(files) { // backward, so that /proc/self/fd/40 is tried before /proc/self/fd/4
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

// begin records the start of a computation, and end its end. begin drops earlier errors, unless
// another computation runs: the kept errors may be its own, because a message does not name its
// computation.
func (l *logSink) begin(f *abortFlag) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.running) == 0 {
		l.errors = nil
	}
	l.running = append(l.running, f)
}

func (l *logSink) end(f *abortFlag) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running = slices.DeleteFunc(l.running, func(r *abortFlag) bool { return r == f })
}

// drain returns the kept errors as one error, or fallback if there are none, and drops them.
func (l *logSink) drain(fallback string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.errors
	l.errors = nil
	if len(lines) == 0 {
		return errors.New(fallback)
	}
	return errors.New(strings.Join(lines, "; "))
}
