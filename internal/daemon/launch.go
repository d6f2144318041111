package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/inferd-go/inferd/internal/builtin"
	"github.com/inferd-go/inferd/internal/config"
	"github.com/inferd-go/inferd/internal/link"
	"github.com/inferd-go/inferd/internal/proc"
	"github.com/inferd-go/inferd/internal/route"
	"github.com/inferd-go/inferd/internal/sdnotify"
	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/trust"
	"github.com/inferd-go/inferd/internal/worker"
)

// sharedEnv is the variable that tells an engine the shared prefixes, as a JSON array of texts:
// a command line can be read by everybody.
const sharedEnv = "INFERD_ENGINE_SHARED"

// engineName is the program beside inferd's own that runs a model.
const engineName = "inferd-engine"

// enginePath returns the engine program: the one that was named, or the one beside our
// own executable. It is never looked for on PATH: what runs here reads everybody's
// prompts.
func enginePath(named string) (string, error) {
	if named != "" {
		return filepath.Abs(named)
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find our own executable: %w", err)
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return "", fmt.Errorf("find our own executable: %w", err)
	}
	name := engineName
	if filepath.Ext(self) == ".exe" {
		name += ".exe"
	}
	return filepath.Join(filepath.Dir(self), name), nil
}

// A launcher starts the engine of one entry.
type launcher struct {
	program    string
	libraries  *engineLibraries
	builtinDir string // where generated models lie
	entry      config.Backend
	turns      string   // file that engines lock which compute on the same cores; empty if there is one
	secrets    []string // variables of the environment that are not the engine's business

	choice atomic.Pointer[libraryChoice] // of the engine that was started last

	verified os.FileInfo // of the model's file when its digest was right

	origin atomic.Pointer[route.Origin] // of the engine that was started last, without settings
}

// launch makes sure of everything that an engine needs, so that what is missing is said
// with its mend, and starts one.
func (l *launcher) launch(ctx context.Context, phase func(status.Phase)) (worker.Child, error) {
	model, info, err := l.model(ctx, phase)
	if err != nil {
		return nil, err
	}
	l.origin.Store(&route.Origin{File: info, Digest: l.entry.Model.SHA256})
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
	libDir := l.libraries.folder.Path
	env := []string{
		"GGML_NO_BACKTRACE=1", // else a failed assertion starts a debugger first
		sdnotify.Variable + "=",
		"LD_LIBRARY_PATH=" + choice.searchPath(libDir),
	}
	for _, name := range l.secrets {
		env = append(env, name+"=")
	}
	shared, err := json.Marshal(l.entry.Shared)
	if err != nil {
		return nil, fmt.Errorf("shared prefixes: %w", err)
	}
	env = append(env, sharedEnv+"="+string(shared))
	child, err := proc.Start(proc.Command{
		Path: l.program,
		Args: []string{
			"--parent", strconv.Itoa(os.Getpid()),
			"--lib", libDir,
			"--backends", strings.Join(choice.backends, ","),
			"--model", model,
			"--n-ctx", strconv.Itoa(l.entry.GenerateNCtx),
			"--embed-n-ctx", strconv.Itoa(l.entry.EmbedNCtx),
			"--rerank-n-ctx", strconv.Itoa(l.entry.RerankNCtx),
			"--n-slots", strconv.Itoa(l.entry.NSlots),
			"--threads", strconv.Itoa(l.entry.Threads),
			"--n-gpu-layers", strconv.Itoa(l.entry.NGPULayers),
			"--task", string(l.entry.Task),
			"--pooling", l.entry.Pooling,
			"--turns", l.turns,
			"--max-stall", (time.Duration(l.entry.MaxStallMS) * time.Millisecond).String(),
		},
		Env: env,
	})
	if err != nil {
		return nil, fmt.Errorf("start engine: %w", err)
	}
	return engineChild{child}, nil
}

// avoid has the next engine leave out the CPU variant with which the last one ended.
func (l *launcher) avoid(ctx context.Context, variant string) bool {
	choice := l.choice.Load()
	return choice != nil && l.libraries.avoid(ctx, *choice, l.entry.Name, variant)
}

// originOf returns what the engine's vectors and scores come from: the model's file as it was
// when the engine was started last, the pooling, and the context that it reported.
func (l *launcher) originOf(r link.Report) route.Origin {
	var o route.Origin
	if last := l.origin.Load(); last != nil {
		o = *last
	}
	o.Settings = fmt.Sprintf("pooling %q, context %d", l.entry.Pooling, r.NCtx)
	return o
}

// model returns the path of the model's file, which is there and, if a digest is
// known, is the right one, and what the file system says of it.
func (l *launcher) model(ctx context.Context, phase func(status.Phase)) (string, os.FileInfo, error) {
	m := l.entry.Model
	if m.Builtin != "" {
		path, err := builtin.Ensure(l.builtinDir, m.Builtin)
		if err != nil {
			return "", nil, fmt.Errorf("built-in model %s: %w", m.Builtin, err)
		}
		phase(status.CheckingLocal{Path: path})
		info, err := os.Stat(path)
		if err != nil {
			return "", nil, fmt.Errorf("built-in model: %w", err) // names the file
		}
		return path, info, nil
	}
	path, err := filepath.Abs(m.Path)
	if err != nil {
		return "", nil, fmt.Errorf("model %s: %w", m.Path, err)
	}
	phase(status.CheckingLocal{Path: path})
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", nil, fmt.Errorf("model: %w", err) // names the file
	case !info.Mode().IsRegular():
		return "", nil, fmt.Errorf("model %s is not a regular file", path)
	}
	if m.SHA256 == "" || l.isVerified(info) {
		return path, info, nil
	}
	phase(status.Verify{Path: path})
	actual, err := digest(ctx, path)
	if err != nil {
		return "", nil, fmt.Errorf("verify model: %w", err)
	}
	if actual != m.SHA256 {
		return "", nil, fmt.Errorf("model %s has SHA-256 %s, but %s was expected", path, actual, m.SHA256)
	}
	l.verified = info
	return path, info, nil
}

// isVerified reports whether the file is still the one whose digest was right: an
// engine that is restarted should not wait for gigabytes to be read again.
func (l *launcher) isVerified(info os.FileInfo) bool {
	return l.verified != nil && os.SameFile(l.verified, info) &&
		l.verified.Size() == info.Size() && l.verified.ModTime().Equal(info.ModTime())
}

func digest(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, readerFunc(func(p []byte) (int, error) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return f.Read(p)
	})); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// engineChild is an engine process as its supervisor sees it.
type engineChild struct{ *proc.Child }

var (
	_ worker.Child    = engineChild{}
	_ worker.Observed = engineChild{}
	_ worker.Signaled = engineChild{}
)

// Wait returns how the engine ended.
func (c engineChild) Wait() worker.Exit {
	<-c.Done()
	exit := c.Exit()
	if strings.Contains(exit.Stderr, "libffi.so.8") {
		return worker.Exit{Reason: `the engine needs the library libffi.so.8: run "apt-get install libffi8"`, Final: true}
	}
	return worker.Exit{Reason: exit.String(), Output: exit.Stderr, Illegal: exit.Signal == "SIGILL"}
}

// Conn is the daemon's end of the link.
func (c engineChild) Conn() net.Conn { return c.Child.Conn() }
