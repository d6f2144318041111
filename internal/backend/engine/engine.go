// Package engine makes backends of engine processes, one for each entry of kind "llamacpp". A
// launcher checks all that an engine needs and starts its process; a [Supervisor] observes the
// load, hands requests to it, replaces it when it dies, and gives up after repeated deaths while it
// loads. The package knows neither the protocol of the connection (see package link) nor how an
// engine computes.
//
// The states of a [Supervisor], and the events that change them:
//
//	Loading ──ready──▶ Ready ──death──▶ Loading       (at once, or after a pause)
//	   │ └──death, up to three in a row, or while a CPU variant is left to try──┘
//	   └──third death──▶ Down ──Retry──▶ Loading
//
// A change of the model's file, or an attempt to write to it, makes Ready Loading, too: the requests
// that run get a second, the engine is stopped, and the next one loads the file as it is then. That counts
// as no death.
//
// Before the engine has been ready once, the third death ends Run with an error instead, and so
// does a load that the engine itself reports as failed.
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

// Kind makes engines of entries.
var Kind = backend.Kind{Name: llamacpp.Kind.Name, New: llamacpp.Kind.New, Start: start}

// start makes an engine of each entry. They share the program, the libraries and the compute lock
// file.
func start(h *backend.Host, entries []*backend.Entry) (all []*backend.Backend, stop func(), err error) {
	program, err := enginePath(h.Engine)
	if err != nil {
		return nil, nil, err
	}
	libraries, err := newEngineLibraries(h.EngineLib, h.Env, h.Log)
	if err != nil {
		return nil, nil, err
	}
	turns, err := takeTurns(entries, h.Dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		l := &launcher{
			program: program, libraries: libraries, open: h.Open, name: e.Name, limits: e.Limits, shared: e.Shared,
			settings: e.Settings.(*llamacpp.Settings), //nolint:errcheck // of this kind
			turns:    turns, secrets: h.Secrets,
		}
		l.limits.Threads = threads(e)
		all = append(all, newBackend(h, e, l))
	}
	return all, func() {
		if turns != "" {
			_ = os.Remove(turns) // the next daemon makes its own
		}
	}, nil
}

// newBackend describes the engine that l starts.
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
		Faults:      []infer.Code{infer.Internal}, // Unavailable is an engine that died or loads: the supervisor replaces it
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

// turnsFile is the name of the compute lock file, in the folder of the daemon's lock.
const turnsFile = "compute.lock"

// takeTurns makes the compute lock file and returns its path. If the engines together have no more
// threads than there are cores, it makes no file and returns "".
func takeTurns(entries []*backend.Entry, dir string) (string, error) {
	all := 0
	for _, e := range entries {
		all += threads(e)
	}
	if len(entries) < 2 || all <= runtime.NumCPU() {
		return "", nil
	}
	path := filepath.Join(dir, turnsFile)
	_ = os.Remove(path)                                                 // of a daemon that was killed
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600) // through no link
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return "", fmt.Errorf("turns of the engines: %w", err)
	}
	return path, nil
}

// logReady logs that an engine has become ready.
func logReady(ctx context.Context, log *slog.Logger, name string, r link.Report) {
	log.LogAttrs(ctx, slog.LevelInfo, "backend ready", slog.String("backend", name),
		slog.String("model", r.Model), slog.String("device", r.Device), slog.Int("n_ctx", r.NCtx), slog.Int("n_slots", r.Slots))
}

// warn logs the engine's warnings about a model.
func warn(ctx context.Context, log *slog.Logger, name string, r link.Report) {
	for _, w := range r.Warnings {
		log.LogAttrs(ctx, slog.LevelWarn, "model", slog.String("backend", name), slog.String("warning", w))
	}
	if r.Inexact != "" {
		log.LogAttrs(ctx, slog.LevelWarn, "exact is not kept", slog.String("backend", name), slog.String("reason", r.Inexact))
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
