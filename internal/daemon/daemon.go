// Package daemon is the whole life of inferd: the stairs up to a daemon that serves,
// and the same stairs down. It puts the parts together and owns no trade of its own;
// what a part does is written where the part is.
package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"

	"github.com/inferd-go/inferd/internal/admit"
	"github.com/inferd-go/inferd/internal/broadcast"
	"github.com/inferd-go/inferd/internal/config"
	"github.com/inferd-go/inferd/internal/control"
	"github.com/inferd-go/inferd/internal/filelock"
	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/listen"
	"github.com/inferd-go/inferd/internal/paths"
	"github.com/inferd-go/inferd/internal/server"
	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/task"
	v1 "github.com/inferd-go/inferd/internal/wire/v1"
)

// Modes of the sockets.
const (
	ownerOnly = 0o600
	withGroup = 0o660
)

// Run serves until ctx ends, and then drains. It returns nil if that was the reason,
// also when it came before there was anything to serve.
func Run(ctx context.Context, flags *config.Flags, env paths.Env, log *slog.Logger) error {
	err := run(ctx, flags, env, log)
	if ctx.Err() != nil {
		if err != nil {
			log.LogAttrs(ctx, slog.LevelDebug, "stopped on the way up", slog.Any("err", err))
		}
		log.LogAttrs(ctx, slog.LevelInfo, "shutdown complete")
		return nil
	}
	return err
}

func run(ctx context.Context, flags *config.Flags, env paths.Env, log *slog.Logger) error {
	ctx, fail := context.WithCancelCause(ctx) // ends on a signal, or when a part dies
	defer fail(nil)
	places := config.Locate(flags, env)

	if err := listen.Folder(filepath.Dir(places.V1), flags.Group); err != nil { // before the lock makes it for us alone
		return fmt.Errorf("folder of the sockets: %w", err)
	}
	lock, err := filelock.Acquire(places.Lock) // 1. from here on we are alone
	if err != nil {
		return fmt.Errorf("lock acquire failed: %w", err)
	}
	defer lock.Release()

	board := status.NewBoard(status.Starting{})
	adminLn, err := listen.Local(places.Admin, listen.Options{Mode: ownerOnly}) // 2. from here on a client can watch
	if err != nil {
		return fmt.Errorf("admin socket: %w", err)
	}
	admin := task.Go(ctx, fail, func(ctx context.Context) error { return broadcast.Serve(ctx, adminLn, board, log) })
	defer admin.Stop()
	drain := context.AfterFunc(ctx, func() { board.Publish(status.Draining{}) })
	defer drain()

	backends := &backends{log: log, board: board}
	controlLn, err := listen.Local(places.Control, listen.Options{Mode: ownerOnly})
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	verbs := task.Go(ctx, fail, func(ctx context.Context) error {
		return control.Serve(ctx, controlLn, control.Verbs{Retry: backends.retry}, log)
	})
	defer verbs.Stop()

	cfg, err := config.Load(flags, env) // 3. what to serve
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	for _, w := range cfg.Warnings {
		log.LogAttrs(ctx, slog.LevelWarn, "config", slog.String("warning", w))
	}

	defer backends.stop()
	if err := backends.start(ctx, fail, cfg, flags, env); err != nil { // 4. the engines
		return err
	}
	if err := backends.waitReady(ctx); err != nil { // 5. every entry, or none
		return err
	}

	gate := &admit.Gate{Next: backends.router(), Active: permits(cfg), Depth: cfg.QueueDepth}
	refuse := context.AfterFunc(ctx, gate.Close)
	defer refuse()
	srv := &server.Server{Handler: gate, Log: log, Grace: cfg.DrainTimeout, WriteTimeout: cfg.WriteTimeout}
	var surfaces sync.WaitGroup
	defer func() { // they drain when ctx ends, for whatever reason
		fail(nil)
		surfaces.Wait()
	}()
	if cfg.ServeV1 { // 6. the sockets exist only now: no file means not ready
		ln, err := listen.Local(places.V1, listen.Options{Mode: withGroup, Group: cfg.Group})
		if err != nil {
			return fmt.Errorf("v1 socket: %w", err)
		}
		surfaces.Go(func() {
			if err := srv.Serve(ctx, ln, v1Surface); err != nil {
				fail(err)
			}
		})
	}
	backends.announce() // 7. ready
	log.LogAttrs(ctx, slog.LevelInfo, "ready", slog.String("v1", places.V1), slog.String("admin", places.Admin))

	<-ctx.Done()
	log.LogAttrs(ctx, slog.LevelInfo, "draining")
	return context.Cause(ctx)
}

// permits is how many requests run at once: never more than there are slots.
func permits(cfg *config.Config) int {
	slots := 0
	for _, b := range cfg.Backends {
		slots += b.NSlots
	}
	if cfg.ActivePermits > 0 {
		return min(cfg.ActivePermits, slots)
	}
	return slots
}

// v1Surface is v1 generation: NDJSON.
var v1Surface = server.Surface{Name: "v1", Open: func(nc net.Conn) (server.Codec, error) {
	return &v1.Codec{R: frame.Lines.NewReader(nc, frame.Limit), W: frame.Lines.NewWriter(nc)}, nil
}}
