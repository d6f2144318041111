// Package engine makes backends that answer with engine processes, one for each entry of kind
// "llamacpp". A launcher checks the requirements of an engine and starts its process. A
// [Supervisor] observes the load, passes requests on, replaces an engine that dies, and gives up
// after repeated deaths during load. The protocol of the connection is in package link; how an
// engine computes is of no concern here.
//
// The states of a [Supervisor], and the events that change them:
//
//	Loading ──ready──▶ Ready ──death──▶ Loading       (at once, or after a pause)
//	   │ └──death, up to three in a row, or while a CPU variant is left to try──┘
//	   └──third death──▶ Down ──Retry──▶ Loading
//
// A change of the model's file, or an attempt to write to it, also leads from Ready to Loading:
// running requests get a second to end, the engine is stopped, and the next engine loads the changed
// file. That does not count as a death.
//
// Before an engine has been ready once, Run returns an error instead of Down: at the third death,
// at a launch that fails, at a load that the engine reports as failed or that times out, and if a
// shared library is missing.
package engine

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/inferd-go/inferd/client/stats"
	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/backend/llamacpp"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/link"
	"github.com/inferd-go/inferd/internal/status"
)

// Kind makes the backends of entries of kind "llamacpp".
var Kind = backend.Kind{Name: llamacpp.Kind.Name, New: llamacpp.Kind.New, Start: start}

// start makes the backend of each entry. The engines share the program, the libraries and the
// compute lock file, which stop removes.
func start(h *backend.Host, entries []*backend.Entry) (all []*backend.Backend, stop func(), err error) {
	program, err := enginePath(h.Engine)
	if err != nil {
		return nil, nil, err
	}
	libraries, err := newEngineLibraries(h.EngineLib, h.Env, h.Log)
	if err != nil {
		return nil, nil, err
	}
	lock, err := makeComputeLock(entries, h.Dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		l := &launcher{
			program: program, libraries: libraries, open: h.Open, name: e.Name, limits: e.Limits, shared: e.Shared,
			settings:    e.Settings.(*llamacpp.Settings), //nolint:errcheck // of this kind
			computeLock: lock, secrets: h.Secrets,
		}
		l.limits.Threads = threads(e)
		all = append(all, newBackend(h, e, l))
	}
	return all, func() {
		if lock != "" {
			_ = os.Remove(lock) // if that fails, the next daemon removes it
		}
	}, nil
}

// newBackend returns the backend of entry e. l starts its engines.
func newBackend(h *backend.Host, e *backend.Entry, l *launcher) *backend.Backend {
	var first sync.Once // the warnings of a model are logged once
	sup := &Supervisor{
		Name: e.Name, Launch: l.launch, LoadTimeout: h.LoadTimeout, Log: h.Log,
		Publish: h.Publish, Threads: l.limits.Threads, Avoid: l.avoid,
		OnReady: func(ctx context.Context, r link.Report) {
			logReady(ctx, h.Log, e.Name, r)
			first.Do(func() { warn(ctx, h.Log, e.Name, r) })
			h.Ready()
		},
	}
	return &backend.Backend{
		Name: e.Name, Aliases: e.Aliases, Kind: e.Kind.Name, Slots: e.NSlots, Handler: sup,
		Preemptible: true,
		Faults:      []infer.Code{infer.Internal}, // not Unavailable: it comes from a dead or loading engine, which the supervisor handles
		Abilities:   sup.Abilities,
		State:       sup.State,
		Origin:      func(t infer.Task) backend.Origin { return l.originOf(t, sup.LastReport()) },
		Model:       func() string { return sup.LastReport().Model },
		Capabilities: func() status.Capabilities {
			caps := capabilities(e.Name, sup.LastReport())
			caps.Unverified = l.libraries.state() == unverified
			return caps
		},
		Stats: func(ctx context.Context, into *stats.Backend) {
			into.Libraries = l.libraries.state()
			sup.describe(ctx, into)
		},
		Run: sup.Run, WaitReady: sup.WaitReady, Retry: sup.Retry,
	}
}

// threads returns the number of compute threads of an entry's engine.
func threads(e *backend.Entry) int { return cmp.Or(e.Threads, runtime.NumCPU()) }

// computeLockFile is the name of the compute lock file, in the folder of the daemon's lock.
const computeLockFile = "compute.lock"

// makeComputeLock makes the compute lock file in dir and returns its path. With a single engine, or if the
// engines together have no more threads than the machine has cores, it makes no file and returns "".
func makeComputeLock(entries []*backend.Entry, dir string) (string, error) {
	all := 0
	for _, e := range entries {
		all += threads(e)
	}
	if len(entries) < 2 || all <= runtime.NumCPU() {
		return "", nil
	}
	path := filepath.Join(dir, computeLockFile)
	_ = os.Remove(path)                                                 // left behind by a killed daemon
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600) // O_EXCL follows no link
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return "", fmt.Errorf("create the compute lock of the engines: %w", err)
	}
	return path, nil
}

// logReady logs that an engine has become ready.
func logReady(ctx context.Context, log *slog.Logger, name string, r link.Report) {
	log.LogAttrs(ctx, slog.LevelInfo, "backend ready", slog.String("backend", name),
		slog.String("model", r.Model), slog.String("device", r.Device), slog.Int("n_ctx", r.NCtx), slog.Int("n_slots", r.Slots))
}

// warn logs the warnings in an engine's report.
func warn(ctx context.Context, log *slog.Logger, name string, r link.Report) {
	for _, w := range r.Warnings {
		log.LogAttrs(ctx, slog.LevelWarn, "model warning", slog.String("backend", name), slog.String("warning", w))
	}
	if r.Inexact != "" {
		log.LogAttrs(ctx, slog.LevelWarn, "the setting exact is not met", slog.String("backend", name), slog.String("reason", r.Inexact))
	}
	if r.NoTemplate {
		log.LogAttrs(ctx, slog.LevelWarn, "model without a chat template", slog.String("backend", name),
			slog.String("model", r.Model), slog.String("advice", "answers may be poor: conversations are written as plain text; use an instruction-tuned model"))
	}
}

// capabilities describes an engine for the admin socket.
func capabilities(name string, r link.Report) status.Capabilities {
	return status.Capabilities{
		Backend: name, Abilities: r.Abilities, Accelerator: cmp.Or(r.Device, "cpu"), GPULayers: r.GPULayers,
		Model: r.Model, NCtx: r.NCtx, Params: r.Params, Size: r.Size, Architecture: r.Architecture, Quantization: r.Quantization, Template: r.Template,
		NoTemplate: r.NoTemplate, WantsExact: r.Exact || r.Inexact != "", Exact: r.Exact, Inexact: r.Inexact,
	}
}
