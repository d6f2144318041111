package engine

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/backend/llamacpp"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/launch"
	"github.com/inferd-go/inferd/internal/lease"
	"github.com/inferd-go/inferd/internal/link"
	"github.com/inferd-go/inferd/internal/proc"
	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/store"
	"github.com/inferd-go/inferd/internal/trust"
)

// engineName is the file name of the program that runs a model.
const engineName = "inferd-engine"

// enginePath returns the path of the engine program: named or, if that is empty, the file beside
// this program's executable. PATH is never searched, because the engine reads the prompts of all
// users.
func enginePath(named string) (string, error) {
	if named != "" {
		return filepath.Abs(named)
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the folder of the inferd program: %w", err)
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return "", fmt.Errorf("find the folder of the inferd program: %w", err)
	}
	name := engineName
	if filepath.Ext(self) == ".exe" {
		name += ".exe"
	}
	return filepath.Join(filepath.Dir(self), name), nil
}

// passed names the variables of the daemon's environment that an engine also gets. The engine parses
// untrusted files and text, so it gets no variable that loads code, changes a library or is a
// secret. INFERD_ENGINE_WEDGE has an effect only in an engine built for tests.
var passed = []string{
	"LANG", "LC_ALL", "TZ", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES", "INFERD_ENGINE_WEDGE",
}

// A launcher starts the engine of one entry.
type launcher struct {
	program     string
	libraries   *engineLibraries
	open        func(context.Context, backend.Model, func(status.Phase)) (*store.Model, error)
	name        string // of the entry
	limits      backend.Limits
	shared      []string
	settings    *llamacpp.Settings
	computeLock string   // path of the compute lock file; empty if the engines share no cores
	secrets     []string // names of variables that hold keys: they are never passed

	choice atomic.Pointer[libraryChoice] // for the last launch

	origin atomic.Pointer[backend.Origin] // of the last launch, without Settings
}

// launch starts an engine. It checks the requirements first, so that its error names the missing part
// and the remedy.
func (l *launcher) launch(ctx context.Context, phase func(status.Phase)) (Child, error) {
	model, err := l.open(ctx, l.settings.Model, phase)
	if err != nil {
		return nil, err
	}
	defer model.Close()
	l.origin.Store(&backend.Origin{File: model.Info, Digest: model.Digest})
	if _, err := os.Stat(l.program); err != nil {
		return nil, fmt.Errorf("engine program %s is missing: build it beside inferd (\"make build\"), or name it with --engine", l.program)
	}
	if err := trust.Path(l.program); err != nil {
		return nil, fmt.Errorf("engine program: %w", err)
	}
	choice, err := l.libraries.choose(ctx)
	if err != nil {
		return nil, err
	}
	l.choice.Store(&choice)
	child, err := launch.Start(l.program, launch.Contract{
		LibDir: l.libraries.folder.Path, Backends: choice.backends, Model: launch.Model{Path: model.Path, Name: model.Name}, Tasks: launch.Tasks(l.settings.Tasks),
		NCtx: l.limits.NCtx, EmbedNCtx: l.settings.EmbedNCtx, RerankNCtx: l.settings.RerankNCtx,
		Slots: l.limits.NSlots, Threads: l.limits.Threads, GPULayers: l.limits.NGPULayers,
		Pooling: l.settings.Pooling, MaxStallMS: l.limits.MaxStallMS, ComputeLock: l.computeLock, Exact: l.limits.Exact, SharedPrefixes: l.shared,
	}, model.Files, l.environment(choice.searchPath(l.libraries.folder.Path), os.LookupEnv))
	if err != nil {
		return nil, fmt.Errorf("start engine: %w", err)
	}
	guard := model.Guard
	model.Guard = nil // so that model.Close does not close it: it watches until the engine has ended
	return engineChild{child, guard}, nil
}

// environment returns the whole environment of an engine. searchPath is an additional folder for the
// system's loader; empty if there is none.
func (l *launcher) environment(searchPath string, lookup func(string) (string, bool)) []string {
	env := []string{"GGML_NO_BACKTRACE=1"} // otherwise ggml starts a debugger at a failed assertion
	for _, name := range passed {
		if value, ok := lookup(name); ok && !slices.Contains(l.secrets, name) {
			env = append(env, name+"="+value)
		}
	}
	if searchPath != "" {
		env = append(env, "LD_LIBRARY_PATH="+searchPath)
	}
	return env
}

// avoid excludes a CPU variant from later launches. It reports false if the last engine could not
// load that variant.
func (l *launcher) avoid(ctx context.Context, variant string) bool {
	choice := l.choice.Load()
	return choice != nil && l.libraries.avoid(ctx, *choice, l.name, variant)
}

// originOf returns the origin of the engine's vectors or scores for a task: the model's file at the
// last launch and, in Settings, the pooling and the values that the engine has reported.
func (l *launcher) originOf(t infer.Task, r link.Report) backend.Origin {
	var o backend.Origin
	if last := l.origin.Load(); last != nil {
		o = *last
	}
	switch t.(type) {
	case *infer.Embed:
		o.Settings = fmt.Sprintf("pooling %q, context %d, exact %v", l.settings.Pooling, r.EmbedNCtx, r.Exact)
	case *infer.Rerank:
		o.Settings = fmt.Sprintf("context %d, exact %v", r.RerankNCtx, r.Exact)
	case *infer.Generate, *infer.Count:
	}
	return o
}

// engineChild is an engine process as a [Child].
type engineChild struct {
	*proc.Child
	guard *lease.Guard // watches the model's files; may be nil
}

var (
	_ Guarded  = engineChild{}
	_ Child    = engineChild{}
	_ Observed = engineChild{}
	_ Signaled = engineChild{}
)

// Wait waits for the end of the engine, stops watching its model's files, and returns its exit.
func (c engineChild) Wait() Exit {
	<-c.Done()
	exit := c.Exit()
	if c.guard != nil {
		reason := c.guard.Check()
		c.guard.Close() // the engine no longer maps the files
		if reason != "" {
			return Exit{Reason: fmt.Sprintf("%s while the engine had it loaded (%s)", reason, exit), Output: exit.Stderr, Changed: true}
		}
	}
	if strings.Contains(exit.Stderr, "libffi.so.8") {
		return Exit{Reason: `the engine needs the library libffi.so.8: run "apt-get install libffi8"`, Final: true}
	}
	return Exit{Reason: exit.String(), Output: exit.Stderr, Illegal: exit.Signal == "SIGILL"}
}

// Changed returns a channel that is closed when a file of the model has changed or is about to
// change. It is nil if the files are not watched.
func (c engineChild) Changed() <-chan struct{} {
	if c.guard == nil {
		return nil
	}
	return c.guard.Changed()
}

// Conn returns the daemon's end of the link.
func (c engineChild) Conn() net.Conn { return c.Child.Conn() }
