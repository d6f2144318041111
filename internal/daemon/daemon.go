// Package daemon is the whole life of inferd: the stairs up to a daemon that serves,
// and the same stairs down. It puts the parts together and owns no trade of its own;
// what a part does is written where the part is.
package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/inferd-go/inferd/internal/activity"
	"github.com/inferd-go/inferd/internal/broadcast"
	"github.com/inferd-go/inferd/internal/config"
	"github.com/inferd-go/inferd/internal/control"
	"github.com/inferd-go/inferd/internal/exchange"
	"github.com/inferd-go/inferd/internal/filelock"
	"github.com/inferd-go/inferd/internal/listen"
	"github.com/inferd-go/inferd/internal/paths"
	"github.com/inferd-go/inferd/internal/quota"
	"github.com/inferd-go/inferd/internal/sdnotify"
	"github.com/inferd-go/inferd/internal/server"
	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/task"
)

// What callers may have of the daemon itself.
const (
	connsPerCaller  = 1024
	connsTotal      = 4096
	memoryPerCaller = 256 << 20 // bytes of large messages
	memoryTotal     = 1 << 30
)

const (
	// spareFiles is how many descriptors are left for everything but connections: engines,
	// listeners, the log, files of /proc.
	spareFiles = 48
	// refusals is how many clients at once, of those that are refused, hold a descriptor.
	refusals       = 4
	strangersTotal = 64 // TCP clients at once that have not shown the key yet
)

// connections returns the bounds of the connections of a process that may open files, where
// 0 means any number.
func connections(files int64) (*quota.Quota, *listen.Slots, error) {
	total := int64(connsTotal)
	if files > 0 {
		total = min(total, files-spareFiles)
	}
	if total < 1 {
		return nil, nil, fmt.Errorf("too few descriptors: the limit is %d, and %d are needed for anything but connections; raise it (ulimit -n, LimitNOFILE)", files, spareFiles)
	}
	return &quota.Quota{PerCaller: min(connsPerCaller, total), Total: total}, listen.NewSlots(int(total) + refusals), nil
}

// Modes of the sockets.
const (
	ownerOnly = 0o600
	withGroup = 0o660
)

// A Program is what the daemon has of the program that runs it.
type Program struct {
	Version string
	Log     *slog.Logger
	// SetLogLevel logs from a level on: "debug", "info", "warn", "error" or "off".
	SetLogLevel func(name string)
}

// Run serves until ctx ends, and then drains. It returns nil if that was the reason,
// also when it came before there was anything to serve.
func Run(ctx context.Context, flags *config.Flags, env paths.Env, program Program) error {
	err, log := run(ctx, flags, env, program), program.Log
	if ctx.Err() != nil {
		if err != nil {
			log.LogAttrs(ctx, slog.LevelDebug, "stopped on the way up", slog.Any("err", err))
		}
		log.LogAttrs(ctx, slog.LevelInfo, "shutdown complete")
		return nil
	}
	return err
}

// journals opens the activity log: what log is told goes there as well, and the journal is
// told what callers do. Without a home there is none of it.
func journals(log *slog.Logger, env paths.Env) (both *slog.Logger, journal exchange.Journal, record *activity.Log, err error) {
	dir := env.LogDir()
	if dir == "" {
		log.Warn("no activity log: there is neither a home nor INFERD_LOG_DIR")
		return log, nil, nil, nil
	}
	record, err = activity.Open(dir)
	if err != nil {
		return nil, nil, nil, err
	}
	both = slog.New(slog.NewMultiHandler(log.Handler(), record.Handler("daemon")))
	return both, record, record, nil
}

func run(ctx context.Context, flags *config.Flags, env paths.Env, program Program) error {
	log := program.Log
	ctx, fail := context.WithCancelCause(ctx) // ends on a signal, or when a part dies
	defer fail(nil)
	places := config.Locate(flags, env)
	conns, slots, err := connections(descriptorLimit())
	if err != nil {
		return err
	}

	if err := listen.Folder(filepath.Dir(places.V1), flags.Group); err != nil { // before the lock makes it for us alone
		return fmt.Errorf("folder of the sockets: %w", err)
	}
	lock, err := filelock.Acquire(places.Lock) // 1. from here on we are alone
	if err != nil {
		return fmt.Errorf("lock acquire failed: %w", err)
	}
	defer lock.Release()

	log, journal, record, err := journals(log, env)
	if err != nil {
		return err
	}
	defer record.Close()
	log.LogAttrs(ctx, slog.LevelInfo, "inferd starting", slog.String("version", program.Version))

	board := status.NewBoard(status.Starting{})
	adminLn, err := listen.Local(places.Admin, listen.Options{Mode: ownerOnly}) // 2. from here on a client can watch
	if err != nil {
		return fmt.Errorf("admin socket: %w", err)
	}
	admin := task.Go(ctx, fail, func(ctx context.Context) error {
		return broadcast.Serve(ctx, adminLn, board, conns, slots, log)
	})
	defer admin.Stop()
	manager := func(assignments ...string) { // a manager that cannot be told is no reason to stop
		if err := sdnotify.Notify(env.Getenv(sdnotify.Variable), assignments...); err != nil {
			log.LogAttrs(ctx, slog.LevelWarn, "service manager", slog.Any("err", err))
		}
	}
	manager(sdnotify.Status("loading"))
	backends := &backends{log: log, board: board}
	memory := &quota.Quota{PerCaller: memoryPerCaller, Total: memoryTotal}
	desk := &desk{version: program.Version, begin: time.Now(), conns: conns, memory: memory, backends: backends, lost: record.Lost}
	draining := make(chan struct{})
	stay := context.AfterFunc(ctx, func() {
		desk.close() // first: who reads that it drains is refused from then on
		board.Publish(status.Draining{})
		manager(sdnotify.Stopping, sdnotify.Status("draining"))
		close(draining)
	})
	defer func() {
		if !stay() {
			<-draining // before the admin socket goes
		}
	}()

	controlLn, err := listen.Local(places.Control, listen.Options{Mode: ownerOnly})
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	verbs := task.Go(ctx, fail, func(ctx context.Context) error {
		return control.Serve(ctx, controlLn, control.Verbs{
			Retry: backends.retry, Stats: desk.stats, SetLogLevel: program.SetLogLevel,
		}, conns, slots, log)
	})
	defer verbs.Stop()

	cfg, err := config.Load(flags, env) // 3. what to serve
	for _, w := range cfg.Warnings {    // of a start that fails, too: they may say why it does
		log.LogAttrs(ctx, slog.LevelWarn, "config", slog.String("warning", w))
	}
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}

	defer backends.stop()
	if err := backends.start(ctx, fail, cfg, flags, env, filepath.Dir(places.Lock)); err != nil { // 4. the engines
		return err
	}
	if err := backends.waitReady(ctx); err != nil { // 5. every entry, or none
		return err
	}

	gate := backends.gate(cfg, memory)
	counter := backends.counter(gate)
	desk.open(gate, counter)
	if ctx.Err() != nil {
		desk.close() // it may have drained before there was a gate
	}
	srv := &server.Server{
		Runner:       &exchange.Runner{Handler: counter, Log: log, Journal: journal, Grace: cfg.DrainTimeout},
		WriteTimeout: cfg.WriteTimeout, Conns: conns, Slots: slots, Memory: memory,
	}
	strangers := listen.Strangers{Max: min(strangersTotal, max(1, conns.Total/4)), Slots: slots}
	var serving sync.WaitGroup
	defer func() { // they drain when ctx ends, for whatever reason
		fail(nil)
		serving.Wait()
	}()
	for _, way := range ways(cfg, places, backends.any()) { // 6. the sockets exist only now: no file means not ready
		if way.idle != "" {
			level := slog.LevelInfo
			if flags.IsSet(way.surface.Name) {
				level = slog.LevelWarn
			}
			log.LogAttrs(ctx, level, "surface not bound", slog.String("surface", way.surface.Name), slog.String("reason", way.idle))
			continue
		}
		all, err := way.open(cfg, &strangers, log)
		if err != nil {
			return err
		}
		for _, ln := range all {
			log.LogAttrs(ctx, slog.LevelInfo, "surface bound", slog.String("surface", way.surface.Name), slog.String("path", ln.Addr().String()))
			serving.Go(func() {
				if err := srv.Serve(ctx, ln, way.surface); err != nil {
					fail(err)
				}
			})
		}
	}
	backends.announce() // 7. ready
	manager(sdnotify.Ready, sdnotify.Status("ready"))
	log.LogAttrs(ctx, slog.LevelInfo, "ready", slog.String("admin", places.Admin))

	<-ctx.Done()
	log.LogAttrs(ctx, slog.LevelInfo, "draining")
	return context.Cause(ctx)
}
