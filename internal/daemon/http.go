package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"

	"github.com/inferd-go/inferd/internal/activity"
	"github.com/inferd-go/inferd/internal/bridge"
	"github.com/inferd-go/inferd/internal/config"
	"github.com/inferd-go/inferd/internal/exchange"
	"github.com/inferd-go/inferd/internal/listen"
	"github.com/inferd-go/inferd/internal/page"
	"github.com/inferd-go/inferd/internal/sockdiag"
)

// openHTTP binds the addresses of HTTP, and serves them until ctx ends. It is called before the
// models load: otherwise another user of the machine could take the port meanwhile, and collect
// prompts and keys. Requests wait until the bridge is opened, and until then the handler of runner
// may be set. drained ends ctx, and returns once all connections have ended; it is never nil.
func (d *daemon) openHTTP(ctx context.Context, fail context.CancelCauseFunc, cfg *config.Config, runner *exchange.Runner) (b *bridge.Bridge, drained func(), err error) {
	var serving sync.WaitGroup
	var users *sockdiag.Resolver
	drained = func() {
		fail(nil)
		serving.Wait()
		if users != nil {
			_ = users.Close() // all connections have ended
		}
	}
	b = &bridge.Bridge{
		Runner: runner, Hosts: cfg.HTTP.Hosts, Origins: cfg.HTTP.Origins, AnyModel: cfg.HTTP.AnyModel,
		ReadyTimeout: cfg.ReadyTimeout, WriteTimeout: cfg.WriteTimeout,
		Conns: d.conns, Slots: d.slots, Memory: d.memory, RetryAfter: d.desk.retryAfter,
		Access: bridge.Access{Open: cfg.HTTP.Open, UID: os.Getuid(), Group: cfg.Group},
	}
	if cfg.HTTP.Page {
		b.Page = d.page()
	}
	if b.Access.Keys, err = httpKeys(cfg.HTTP.Keys, d.env.Getenv); err != nil {
		return b, drained, err
	}
	if len(cfg.HTTP.Listen) > 0 {
		users = d.identifyTCP(ctx, b)
	}
	all, err := d.listenHTTP(ctx, cfg)
	for _, ln := range all {
		d.isBound(ctx, "http", ln)
		serving.Go(func() {
			if err := b.Serve(ctx, ln); err != nil {
				fail(err)
			}
		})
	}
	return b, drained, err
}

// page returns the page for browsers.
func (d *daemon) page() *page.Page {
	p := &page.Page{Board: d.board, Stats: d.desk.stats, UID: os.Getuid()}
	if dir := d.env.LogDir(); dir != "" {
		p.Log = func(lines int) ([][]byte, error) { return activity.Tail(dir, lines) }
	}
	return p
}

// identifyTCP makes the bridge look up the users of TCP clients in the kernel. It returns nil, and
// logs a warning, if that is not possible.
func (d *daemon) identifyTCP(ctx context.Context, b *bridge.Bridge) *sockdiag.Resolver {
	users, err := sockdiag.Open()
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		b.Access.Blind = true
		d.log.LogAttrs(ctx, slog.LevelWarn, "clients of HTTP over TCP are not identified: this system cannot; without http.keys every user of this machine is accepted")
		return nil
	case err != nil: // such as a service that may not use AF_NETLINK
		d.log.LogAttrs(ctx, slog.LevelWarn, "clients of HTTP over TCP are not identified: they need a key", slog.Any("err", err))
		return nil
	}
	b.UserOf = users.UserOf
	d.desk.setUnknownPeers(users.Unknown)
	return users
}

// listenHTTP binds the socket and the addresses. After an error it also returns the listeners up to
// then.
func (d *daemon) listenHTTP(ctx context.Context, cfg *config.Config) (all []net.Listener, err error) {
	if cfg.HTTP.Sock {
		ln, err := listen.Local(d.sockets.HTTP, listen.Options{Mode: withGroup, Group: cfg.Group})
		if err != nil {
			return all, fmt.Errorf("HTTP socket: %w", err)
		}
		all = append(all, ln)
	}
	for _, addr := range cfg.HTTP.Listen {
		ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr.AddrPort))
		switch {
		case err == nil:
			all = append(all, ln)
		case addr.Optional && (errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)):
			d.log.LogAttrs(ctx, slog.LevelInfo, "surface not bound", slog.String("surface", "http"), slog.String("reason", err.Error()))
		default:
			return all, fmt.Errorf("--http %s: %w", addr, err)
		}
	}
	return all, nil
}

// httpKeys reads the keys that the config names, and checks that they differ.
func httpKeys(keys []config.HTTPKey, getenv func(string) string) (all []*bridge.Key, err error) {
	for i, k := range keys {
		var key *bridge.Key
		if k.Env != "" {
			key, err = bridge.NewKey(k.Name, getenv(k.Env))
		} else {
			key, err = bridge.NewKeyFile(k.Name, k.File)
		}
		if err != nil {
			return nil, fmt.Errorf("http.keys[%d]: %w", i, err)
		}
		all = append(all, key)
	}
	if err := bridge.Distinct(all); err != nil {
		return nil, fmt.Errorf("http.keys: %w", err)
	}
	return all, nil
}
