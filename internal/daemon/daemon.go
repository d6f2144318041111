// Package daemon starts inferd step by step, and shuts it down in the reverse order. It only
// connects the packages that do the work. The kinds of backends are in [Kinds].
package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
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
	"github.com/inferd-go/inferd/internal/models"
	"github.com/inferd-go/inferd/internal/paths"
	"github.com/inferd-go/inferd/internal/pull"
	"github.com/inferd-go/inferd/internal/quota"
	"github.com/inferd-go/inferd/internal/sdnotify"
	"github.com/inferd-go/inferd/internal/server"
	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/store"
	"github.com/inferd-go/inferd/internal/task"
)

// Limits of connections and memory, for each caller and in total.
const (
	connsPerCaller  = 1024
	connsTotal      = 4096
	memoryPerCaller = 256 << 20 // bytes of large messages
	memoryTotal     = 1 << 30
)

const (
	// spareFiles is the number of descriptors that connections must leave for engines, listeners,
	// the log and files of /proc.
	spareFiles = 48
	// refusals is the number of descriptors for clients that are being refused.
	refusals       = 4
	maxPendingAuth = 64 // TCP clients at once that have not sent the key yet
)

// bounds are the limits of all surfaces together.
type bounds struct {
	conns  *quota.Quota // connections
	slots  *listen.Slots
	memory *quota.Quota // bytes of large messages
}

// newBounds returns the bounds of a process that may open that number of files; 0 means any number.
// It returns an error if the number leaves no descriptor for connections.
func newBounds(files int64) (*bounds, error) {
	total := int64(connsTotal)
	if files > 0 {
		total = min(total, files-spareFiles)
	}
	if total < 1 {
		return nil, fmt.Errorf("too few descriptors: the limit is %d, and %d are needed for anything but connections; raise it (ulimit -n, LimitNOFILE)", files, spareFiles)
	}
	return &bounds{
		conns:  &quota.Quota{PerCaller: min(connsPerCaller, total), Total: total},
		slots:  listen.NewSlots(int(total) + refusals),
		memory: &quota.Quota{PerCaller: memoryPerCaller, Total: memoryTotal},
	}, nil
}

// Modes of the sockets.
const (
	ownerOnly = 0o600
	withGroup = 0o660
)

// A Program holds the values that the daemon gets from the program that runs it.
type Program struct {
	Version string
	Log     *slog.Logger
	// SetLogLevel sets the lowest level that is logged: "debug", "info", "warn", "error" or "off".
	SetLogLevel func(name string)
}

// Run serves until ctx ends, and then drains. It returns nil if ctx has ended, even if the daemon
// was not ready by then.
func Run(ctx context.Context, flags *config.Flags, env paths.Env, program Program) error {
	err, log := run(ctx, flags, env, program), program.Log
	if ctx.Err() != nil {
		if err != nil {
			log.LogAttrs(ctx, slog.LevelDebug, "start interrupted", slog.Any("err", err))
		}
		log.LogAttrs(ctx, slog.LevelInfo, "shutdown complete")
		return nil
	}
	return err
}

// journals opens the activity log. both is a logger that writes to log and to the activity log;
// journal takes the records of requests; record is the activity log itself. If there is neither a
// home folder nor INFERD_LOG_DIR, there is no activity log: both is log, and journal and record are
// nil.
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

// run starts the daemon step by step until a client can watch it, and then calls operate. Each step
// may fail, and each has its defer.
func run(ctx context.Context, flags *config.Flags, env paths.Env, program Program) error {
	ctx, fail := context.WithCancelCause(ctx) // ends on a signal, or when a part fails
	defer fail(nil)
	sockets := config.Locate(flags, env)
	bounds, err := newBounds(descriptorLimit())
	if err != nil {
		return err
	}
	lock, err := acquire(sockets, flags.Group) // 1. from here on this is the only daemon
	if err != nil {
		return err
	}
	defer lock.Release()
	log, journal, record, err := journals(program.Log, env)
	if err != nil {
		return err
	}
	defer record.Close()
	log.LogAttrs(ctx, slog.LevelInfo, "inferd starting", slog.String("version", program.Version))
	board := status.NewBoard(status.Starting{})
	desk := &desk{version: program.Version, begin: time.Now(), bounds: bounds, lost: record.Lost, chain: emptyChain(log, board)}
	d := &daemon{version: program.Version, flags: flags, env: env, sockets: sockets, log: log, journal: journal, board: board, desk: desk, bounds: bounds}
	stopAdmin, err := d.openAdmin(ctx, fail) // 2. from here on a client can watch
	if err != nil {
		return err
	}
	defer stopAdmin()
	drainPublished := d.drainWith(ctx)
	defer drainPublished()
	stopControl, err := d.openControl(ctx, fail, program.SetLogLevel)
	if err != nil {
		return err
	}
	defer stopControl()
	return d.operate(ctx, fail)
}

// operate is the second half of run: from the config to the end of the daemon.
func (d *daemon) operate(ctx context.Context, fail context.CancelCauseFunc) error {
	cfg, err := d.load(ctx) // 3. the config
	if err != nil {
		return err
	}
	runner := &exchange.Runner{Log: d.log, Journal: d.journal, Grace: cfg.DrainTimeout}
	web, httpDrained, err := d.openHTTP(ctx, fail, cfg, runner) // HTTP is bound before any model is loaded
	defer httpDrained()
	if err != nil {
		return err
	}
	c, err := build(ctx, cfg, d) // 4. the backends
	defer c.close()
	if err != nil {
		return err
	}
	d.desk.setChain(c)
	runner.Handler = c.counter
	stopBackends := c.run(ctx, fail)
	defer stopBackends()
	if err := c.waitReady(ctx); err != nil { // 5. all entries are ready, or the start fails
		return err
	}
	drained, err := d.serve(ctx, fail, cfg, c, runner) // 6. the sockets exist only now: no file means not ready
	defer drained()
	if err != nil {
		return err
	}
	web.Pull = c.pull
	web.Open(c.models)
	d.ready(ctx, c) // 7. ready
	lowerHeap := raiseHeap()
	defer lowerHeap()
	<-ctx.Done()
	d.log.LogAttrs(ctx, slog.LevelInfo, "draining")
	return context.Cause(ctx)
}

// A daemon holds the values that the steps of run share.
type daemon struct {
	version string
	flags   *config.Flags
	env     paths.Env
	sockets config.Sockets
	log     *slog.Logger
	journal exchange.Journal // nil without an activity log
	board   *status.Board
	desk    *desk
	*bounds
}

// acquire makes the folder of the sockets and then takes the lock. In the other order, taking the
// lock would make the folder without access for the group.
func acquire(sockets config.Sockets, group string) (*filelock.Lock, error) {
	if err := listen.Folder(filepath.Dir(sockets.V1), group); err != nil {
		return nil, fmt.Errorf("folder of the sockets: %w", err)
	}
	lock, err := filelock.Acquire(sockets.Lock)
	if err != nil {
		return nil, fmt.Errorf("lock acquire failed: %w", err)
	}
	return lock, nil
}

// openAdmin serves the admin socket until stop is called. If serving fails, it calls fail.
func (d *daemon) openAdmin(ctx context.Context, fail context.CancelCauseFunc) (stop func(), err error) {
	ln, err := listen.Local(d.sockets.Admin, listen.Options{Mode: ownerOnly})
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	d.desk.addListener("admin", ln)
	d.notify(ctx, sdnotify.Status("loading"))
	return task.Go(ctx, fail, func(ctx context.Context) error {
		return broadcast.Serve(ctx, ln, d.board, d.conns, d.slots, d.log)
	}).Stop, nil
}

// openControl serves the control socket until stop is called. If serving fails, it calls fail.
func (d *daemon) openControl(ctx context.Context, fail context.CancelCauseFunc, setLogLevel func(string)) (stop func(), err error) {
	ln, err := listen.Local(d.sockets.Control, listen.Options{Mode: ownerOnly})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	d.desk.addListener("control", ln)
	verbs := control.Verbs{Retry: d.desk.retry, Stats: d.desk.stats, SetLogLevel: setLogLevel}
	return task.Go(ctx, fail, func(ctx context.Context) error {
		return control.Serve(ctx, ln, verbs, d.conns, d.slots, d.log)
	}).Stop, nil
}

// notify reports to the service manager. If that fails, the daemon continues.
func (d *daemon) notify(ctx context.Context, assignments ...string) {
	if err := sdnotify.Notify(d.env.Getenv(sdnotify.Variable), assignments...); err != nil {
		d.log.LogAttrs(ctx, slog.LevelWarn, "service manager not notified", slog.Any("err", err))
	}
}

// drainWith arranges that, when ctx ends, all requests are refused and the drain is published. If
// ctx has ended, wait returns once this is done; otherwise wait cancels the arrangement.
func (d *daemon) drainWith(ctx context.Context) (wait func()) {
	published := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		d.desk.close() // first, so that clients that have read the drain event are refused
		d.board.Publish(status.Draining{})
		d.notify(ctx, sdnotify.Stopping, sdnotify.Status("draining"))
		close(published)
	})
	return func() {
		if !stop() {
			<-published // before the admin socket is closed
		}
	}
}

// load reads the config and logs its warnings. It also logs those of a refused config, because they
// may explain the refusal.
func (d *daemon) load(ctx context.Context) (*config.Config, error) {
	cfg, err := config.Load(d.flags, d.env)
	for _, w := range cfg.Warnings {
		d.log.LogAttrs(ctx, slog.LevelWarn, "config", slog.String("warning", w))
	}
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return cfg, nil
}

// models returns the source of all models.
func (d *daemon) models(cfg *config.Config) (*models.Source, error) {
	catalog, err := models.Catalog(cfg.Catalog)
	if err != nil {
		return nil, err
	}
	p := &pull.Puller{
		Store: &store.Store{
			Home: cfg.ModelsHome, BuiltinDir: d.env.BuiltinDir(), VerifiedFile: d.env.VerifiedFile(),
			Paranoid: cfg.Verify == config.VerifyAlways, Guarded: true,
		},
		Catalog: catalog, Agent: "inferd/" + d.version, Log: d.log,
	}
	return &models.Source{Puller: p, AutoPull: cfg.AutoPull, Unable: p.Environment(d.env.Getenv)}, nil
}

// ready publishes that requests are served.
func (d *daemon) ready(ctx context.Context, c *chain) {
	c.open()
	d.notify(ctx, sdnotify.Ready, sdnotify.Status("ready"))
	d.log.LogAttrs(ctx, slog.LevelInfo, "ready", slog.String("admin", d.sockets.Admin))
}

// isBound records that a surface is bound.
func (d *daemon) isBound(ctx context.Context, surface string, ln net.Listener) {
	d.desk.addListener(surface, ln)
	d.log.LogAttrs(ctx, slog.LevelInfo, "surface bound", slog.String("surface", surface), slog.String("path", ln.Addr().String()))
}

// serve binds the surfaces that a backend can serve, and serves them until ctx ends. drained ends
// ctx, and returns once all connections have ended; it is never nil.
func (d *daemon) serve(ctx context.Context, fail context.CancelCauseFunc, cfg *config.Config, c *chain, runner *exchange.Runner) (drained func(), err error) {
	srv := &server.Server{
		Runner: runner, WriteTimeout: cfg.WriteTimeout, Conns: d.conns, Slots: d.slots, Memory: d.memory,
	}
	pending := listen.PendingAuth{Max: min(maxPendingAuth, max(1, d.conns.Total/4)), Slots: d.slots}
	var serving sync.WaitGroup
	drained = func() {
		fail(nil)
		serving.Wait()
	}
	for _, b := range bindings(cfg, d.sockets, c.tasks()) {
		if b.skipReason != "" {
			level := slog.LevelInfo
			if d.flags.IsSet(b.surface.Name) {
				level = slog.LevelWarn
			}
			d.log.LogAttrs(ctx, level, "surface not bound", slog.String("surface", b.surface.Name), slog.String("reason", b.skipReason))
			continue
		}
		all, err := b.open(cfg, &pending, d.log)
		if err != nil {
			return drained, err
		}
		for _, ln := range all {
			d.isBound(ctx, b.surface.Name, ln)
			serving.Go(func() {
				if err := srv.Serve(ctx, ln, b.surface); err != nil {
					fail(err)
				}
			})
		}
	}
	return drained, nil
}
