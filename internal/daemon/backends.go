package daemon

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/inferd-go/inferd/internal/admit"
	"github.com/inferd-go/inferd/internal/backend/mock"
	"github.com/inferd-go/inferd/internal/breaker"
	"github.com/inferd-go/inferd/internal/config"
	"github.com/inferd-go/inferd/internal/count"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/link"
	"github.com/inferd-go/inferd/internal/paths"
	"github.com/inferd-go/inferd/internal/quota"
	"github.com/inferd-go/inferd/internal/route"
	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/store"
	"github.com/inferd-go/inferd/internal/task"
	"github.com/inferd-go/inferd/internal/wire/control"
	"github.com/inferd-go/inferd/internal/worker"
)

// backends are the entries of the config, running.
type backends struct {
	log   *slog.Logger
	board *status.Board

	mu      sync.Mutex // guards the fields below
	engines map[string]*worker.Supervisor
	tasks   []*task.Task
	entries []config.Backend // in config order
	targets []*route.Target  // in config order
	router  *route.Router    // among them, once they are ready
	caps    map[string]status.Capabilities
	known   map[string]bool // entries that have been ready once
	slowest time.Duration   // that a mock takes to be ready, or to be too late
	late    error           // of a mock that takes too long
	serving bool            // every socket accepts
	turns   string          // file by which the engines take turns; empty if they need not

	libraries *engineLibraries // of all engines
}

// start starts every entry. They load at the same time.
func (b *backends) start(ctx context.Context, fail context.CancelCauseFunc, cfg *config.Config, flags *config.Flags, env paths.Env, dir string) error {
	program, err := enginePath(flags.Engine)
	if err != nil {
		return err
	}
	// Engines do not start in our working folder.
	if dir, err = filepath.Abs(dir); err != nil {
		return fmt.Errorf("folder of the lock: %w", err)
	}
	turns, err := b.takeTurns(cfg, dir)
	if err != nil {
		return err
	}
	models := &store.Store{BuiltinDir: env.BuiltinDir()}
	libraries, err := newEngineLibraries(cfg, env, b.log)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.libraries = libraries
	b.engines = make(map[string]*worker.Supervisor)
	b.caps = make(map[string]status.Capabilities)
	b.known = make(map[string]bool)
	for _, entry := range cfg.Backends {
		target := &route.Target{Name: entry.Name, Aliases: entry.Aliases, Slots: entry.NSlots}
		target.Changed = func(s breaker.State) { b.breakerChanged(ctx, entry.Name, s) }
		b.entries = append(b.entries, entry)
		b.targets = append(b.targets, target)
		b.caps[entry.Name] = status.Capabilities{Backend: entry.Name, Accelerator: "cpu"}
		if m := entry.Mock; m != nil {
			b.board.Publish(status.Loading{Backend: entry.Name, Phase: status.CheckingLocal{Path: "(mock)"}})
			caps := b.caps[entry.Name]
			caps.Abilities = infer.Abilities{
				Generate: m.V2, Embed: m.Embed, Rerank: m.Rerank,
				Thinking: true, Vision: m.Vision, Audio: m.Audio, Tools: m.Tools,
			}
			b.caps[entry.Name] = caps
			can := infer.AllAbilities() // it takes every feature unread
			can.Embed, can.Rerank = m.Embed, m.Rerank
			target.Can = func() (infer.Abilities, bool) { return can, true }
			target.Handler = m
			target.Origin = func(infer.Task) route.Origin {
				return route.Origin{Digest: mock.Kind, Settings: strconv.Itoa(cmp.Or(m.Dimensions, mock.DefaultDimensions))}
			}
			target.Faults = []infer.Code{infer.Unavailable, infer.Internal}
			target.State = func() route.State {
				if m.Ready() {
					return route.Ready
				}
				return route.Down
			}
			timeout := cmp.Or(cfg.ReadyTimeout, worker.DefaultLoadTimeout)
			if m.ReadyAfter > timeout { // it has no progress to report
				b.late = fmt.Errorf("mock of %s: backend not ready within %s", entry.Name, timeout)
			}
			b.slowest = max(b.slowest, min(m.ReadyAfter, timeout))
			continue
		}
		entry.Threads = cmp.Or(entry.Threads, runtime.NumCPU())
		l := &launcher{
			program: program, libraries: libraries, entry: entry, models: models,
			turns: turns, secrets: cfg.TCP.KeyVariables,
		}
		sup := &worker.Supervisor{
			Name: entry.Name, Launch: l.launch, LoadTimeout: cfg.ReadyTimeout, Log: b.log,
			Publish: b.board.Publish, Threads: entry.Threads,
			OnReady: func(r link.Report) { b.ready(ctx, entry, r) }, Avoid: l.avoid,
		}
		target.Handler = sup
		target.Origin = func(t infer.Task) route.Origin { return l.originOf(t, sup.LastReport()) }
		target.Faults = []infer.Code{infer.Internal} // one that died or loads is the supervisor's business
		target.Can = sup.Abilities
		target.State = func() route.State { return routeState(sup.State()) }
		b.engines[entry.Name] = sup
		b.tasks = append(b.tasks, task.Go(ctx, fail, sup.Run))
	}
	return nil
}

// takeTurns makes the file by which engines take turns, if they would use more threads than
// there are cores. It is empty if they need not.
func (b *backends) takeTurns(cfg *config.Config, dir string) (string, error) {
	engines, threads := 0, 0
	for _, entry := range cfg.Backends {
		if entry.Mock == nil {
			engines++
			threads += cmp.Or(entry.Threads, runtime.NumCPU())
		}
	}
	if engines < 2 || threads <= runtime.NumCPU() {
		return "", nil
	}
	path := filepath.Join(dir, turnsFile)
	_ = os.Remove(path)                                                     // of one that was killed
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, ownerOnly) // through no link
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return "", fmt.Errorf("turns of the engines: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turns = path
	return path, nil
}

// turnsFile is beside the lock.
const turnsFile = "compute.lock"

func routeState(s worker.State) route.State {
	switch s {
	case worker.Ready:
		return route.Ready
	case worker.Loading:
		return route.Waiting
	default:
		return route.Down
	}
}

// stop ends the engines and waits for them.
func (b *backends) stop() {
	b.mu.Lock()
	tasks, turns := b.tasks, b.turns
	b.mu.Unlock()
	var all sync.WaitGroup
	for _, t := range tasks {
		all.Go(t.Stop)
	}
	all.Wait()
	if turns != "" {
		_ = os.Remove(turns) // the next one makes its own
	}
}

// waitReady returns once every entry has been ready, or with the cause of ctx.
func (b *backends) waitReady(ctx context.Context) error {
	select {
	case <-time.After(b.slowest):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if b.late != nil {
		return fmt.Errorf("backend ready: %w", b.late)
	}
	for _, sup := range b.supervisors() {
		if err := sup.WaitReady(ctx); err != nil {
			return fmt.Errorf("backend ready: %w", err)
		}
	}
	return nil
}

func (b *backends) supervisors() []*worker.Supervisor {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Values(b.engines))
}

// ready is told whenever an engine has become ready. After the boot it makes the
// daemon ready again, if no other entry is still away.
func (b *backends) ready(ctx context.Context, entry config.Backend, r link.Report) {
	b.log.LogAttrs(ctx, slog.LevelInfo, "backend ready", slog.String("backend", entry.Name),
		slog.String("model", r.Model), slog.String("device", r.Device), slog.Int("n_ctx", r.NCtx), slog.Int("n_slots", r.Slots))
	sups := b.supervisors()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.known[entry.Name] {
		b.known[entry.Name] = true
		for _, w := range r.Warnings {
			b.log.LogAttrs(ctx, slog.LevelWarn, "model", slog.String("backend", entry.Name), slog.String("warning", w))
		}
		if r.Inexact != "" {
			b.log.LogAttrs(ctx, slog.LevelWarn, "exact is not kept", slog.String("backend", entry.Name), slog.String("reason", r.Inexact))
		}
		if r.NoTemplate {
			b.log.LogAttrs(ctx, slog.LevelWarn, "model without a chat template", slog.String("backend", entry.Name),
				slog.String("model", r.Model), slog.String("advice", "answers may be poor: conversations are written as plain text; use an instruction-tuned model"))
		}
	}
	if b.serving {
		b.publishLocked(sups)
	}
}

// publishLocked says that the daemon is ready, if every entry is. If one has been given
// up it says that once more, for what came since has covered it; if one is still
// loading, its own phases say so.
func (b *backends) publishLocked(sups []*worker.Supervisor) {
	for _, sup := range sups {
		if reason, ok := sup.WasGivenUp(); ok {
			b.board.Publish(status.Restarting{Backend: sup.Name, Phase: status.GaveUp{Reason: reason}})
			return
		}
	}
	for _, sup := range sups {
		if sup.State() != worker.Ready {
			return
		}
	}
	b.board.Publish(status.Ready{})
}

// breakerChanged is told when requests go no more to an entry that fails, and when they do
// again.
func (b *backends) breakerChanged(ctx context.Context, name string, s breaker.State) {
	level := slog.LevelInfo
	if s == breaker.Open {
		level = slog.LevelWarn
	}
	b.log.LogAttrs(ctx, level, "backend state", slog.String("backend", name), slog.String("breaker", string(s)))
	b.board.Publish(status.BackendState{Backend: name, State: string(s)})
}

// announce publishes what the entries can do, and that the daemon is ready.
func (b *backends) announce() {
	sups := b.supervisors()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(b.caps)) {
		caps := b.caps[name]
		if sup := b.engines[name]; sup != nil {
			r := sup.LastReport()
			caps.Abilities = r.Abilities
			caps.Accelerator, caps.GPULayers = cmp.Or(r.Device, caps.Accelerator), r.GPULayers
			caps.Model, caps.NCtx, caps.Params, caps.Size = r.Model, r.NCtx, r.Params, r.Size
			caps.Architecture, caps.Quantization = r.Architecture, r.Quantization
			caps.NoTemplate, caps.WantsExact, caps.Exact, caps.Inexact = r.NoTemplate, r.Exact || r.Inexact != "", r.Exact, r.Inexact
			caps.Unverified = b.libraries.state() == unverified
		}
		b.board.Publish(caps)
	}
	b.serving = true
	b.publishLocked(sups) // unless one has died again in between: ready comes with its next engine
}

// retry starts an engine again that has been given up.
func (b *backends) retry(_ context.Context, name string) error {
	b.mu.Lock()
	sup := b.engines[name]
	b.mu.Unlock()
	if sup == nil {
		return infer.Errorf(infer.Invalid, "invalid request: no engine is called %.64q", name)
	}
	return sup.Retry()
}

// any returns the tasks that at least one entry takes.
func (b *backends) any() (all infer.Abilities) {
	b.mu.Lock()
	targets := b.targets
	b.mu.Unlock()
	for _, t := range targets {
		can, _ := t.Can()
		all.Generate = all.Generate || can.Generate
		all.Embed = all.Embed || can.Embed
		all.Rerank = all.Rerank || can.Rerank
	}
	return all
}

// gate puts the gate before the entries.
func (b *backends) gate(cfg *config.Config, memory *quota.Quota) *admit.Gate {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.router = &route.Router{Targets: b.targets}
	router := b.router
	// Of an engine that generates, too, vectors and scores have the same slots as answers, but
	// take none away: an engine can pause an answer, and no batch of texts.
	type taskPlaces struct{ generate, encode admit.Place }
	places := make(map[*route.Target]taskPlaces)
	for i, t := range b.targets {
		place := admit.Place{
			Name: t.Name, Kind: b.entries[i].Kind(), Slots: t.Slots, Handler: t.Handler,
			Begin: func() func(error) { return router.Begin(t) },
		}
		if sup := b.engines[t.Name]; sup != nil {
			place.Model = func() string { return sup.LastReport().Model }
		}
		of := taskPlaces{generate: place, encode: place}
		if can, _ := t.Can(); b.engines[t.Name] != nil && can.Generate {
			of.generate.Preemptible, of.encode.NoPreempt = true, true
		}
		places[t] = of
	}
	return &admit.Gate{
		Choose: func(req *infer.Request) (admit.Place, error) {
			t, err := router.Choose(req)
			if err != nil {
				return admit.Place{}, err
			}
			if _, generates := req.Task.(*infer.Generate); generates {
				return places[t].generate, nil
			}
			return places[t].encode, nil
		},
		Active: cfg.ActivePermits, Depth: cfg.QueueDepth, Total: cfg.QueueTotal, Memory: memory,
	}
}

// counter answers requests to count tokens, in front of the gate.
func (b *backends) counter(gate *admit.Gate) *count.Desk {
	b.mu.Lock()
	defer b.mu.Unlock()
	router, kinds := b.router, make(map[*route.Target]string)
	for i, t := range b.targets {
		kinds[t] = b.entries[i].Kind()
	}
	desk := count.New(gate, func(req *infer.Request) (count.Entry, error) {
		t, err := router.Choose(req)
		if err != nil {
			return count.Entry{}, err
		}
		return count.Entry{Name: t.Name, Kind: kinds[t], Handler: t.Handler}, nil
	})
	desk.Charge = gate.Charge
	return desk
}

// list says of every entry what it is and what it is doing, and what its engine says until
// ctx ends.
func (b *backends) list(ctx context.Context) []control.Backend {
	b.mu.Lock()
	entries, targets, router, engines, libraries := b.entries, b.targets, b.router, b.engines, b.libraries
	b.mu.Unlock()
	all := make([]control.Backend, len(entries))
	var asking sync.WaitGroup
	defer asking.Wait()
	for i, e := range entries {
		all[i] = control.Backend{Name: e.Name, Kind: e.Kind(), State: "ready", Slots: e.NSlots}
		switch targets[i].State() {
		case route.Ready:
		case route.Waiting:
			all[i].State = "loading"
		case route.Down:
			all[i].State = "gave_up"
		}
		if router != nil {
			all[i].Breaker = string(router.Breaker(targets[i]))
		}
		if sup := engines[e.Name]; sup != nil {
			all[i].Libraries = libraries.state()
			asking.Go(func() { ask(ctx, sup, &all[i]) })
		}
	}
	return all
}

// ask writes down how an engine lives, and what it says of itself.
func ask(ctx context.Context, sup *worker.Supervisor, b *control.Backend) {
	now, report := sup.Status(), sup.LastReport()
	b.Model, b.Device, b.NCtx, b.CPUVariant = report.Model, report.Device, report.NCtx, report.Variant
	if report.Exact || report.Inexact != "" {
		b.Exact, b.Inexact = &report.Exact, report.Inexact
	}
	b.PID, b.Restarts, b.RestartsHour = now.PID, now.Restarts, now.RestartsHour
	b.WedgedKills, b.LastKill = now.WedgedKills, now.LastKill
	b.Reason, _ = sup.WasGivenUp()
	stats, err := sup.Stats(ctx)
	switch {
	case err == nil:
		b.Engine = engineOf(stats)
	case now.State == worker.Ready && ctx.Err() != nil:
		b.Silent = true
	}
}
