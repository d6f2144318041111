package daemon

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"github.com/inferd-go/inferd/internal/config"
	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/listen"
	"github.com/inferd-go/inferd/internal/server"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/embed"
	"github.com/inferd-go/inferd/internal/wire/rerank"
	v1 "github.com/inferd-go/inferd/internal/wire/v1"
	v2 "github.com/inferd-go/inferd/internal/wire/v2"
)

// A binding is a surface and its addresses.
type binding struct {
	surface server.Surface
	path    string
	tcp     netip.AddrPort // loopback; not valid if none
	// skipReason is the reason for not binding it; empty if it is bound.
	skipReason string
}

// open listens on the socket and, if there is one, the TCP address. pending, shared by all
// surfaces, limits the clients that have not sent the key yet.
func (b binding) open(cfg *config.Config, pending *listen.PendingAuth, log *slog.Logger) (all []net.Listener, err error) {
	ln, err := listen.Local(b.path, listen.Options{Mode: withGroup, Group: cfg.Group})
	if err != nil {
		return nil, fmt.Errorf("%s socket: %w", b.surface.Name, err)
	}
	all = append(all, ln)
	if b.tcp.IsValid() {
		event := "tcp_auth_rejected"
		if b.surface.Name != v1Surface.Name {
			event = b.surface.Name + "_" + event
		}
		ln, err := listen.Loopback(b.tcp, cfg.TCP.Key, pending, func(peer string) {
			log.Warn(event, slog.String("peer", peer)) //nolint:sloglint // one of three constants
		})
		if err != nil {
			_ = all[0].Close()
			return nil, fmt.Errorf("%s over TCP: %w", b.surface.Name, err)
		}
		all = append(all, ln)
	}
	return all, nil
}

// bindings returns a binding for each enabled surface. can has the tasks that the backends support:
// a surface for any other task gets a skipReason.
func bindings(cfg *config.Config, at config.Sockets, can infer.Abilities) []binding {
	all := []struct {
		binding
		wanted, possible bool
		need             string
	}{
		{binding{surface: v1Surface, path: at.V1, tcp: cfg.TCP.V1}, cfg.Surfaces.V1, can.Generate, "generates"},
		{binding{surface: v2Surface, path: at.V2, tcp: cfg.TCP.V2}, cfg.Surfaces.V2, can.Generate, "generates"},
		{binding{surface: lpSurface, path: at.LP}, cfg.Surfaces.LP, can.Generate, "generates"},
		{binding{surface: embedSurface, path: at.Embed, tcp: cfg.TCP.Embed}, cfg.Surfaces.Embed, can.Embed, "embeds"},
		{binding{surface: rerankSurface, path: at.Rerank}, cfg.Surfaces.Rerank, can.Rerank, "reranks"},
	}
	var wanted []binding
	for _, w := range all {
		if !w.wanted {
			continue
		}
		if !w.possible {
			w.skipReason = "no backend " + w.need
		}
		wanted = append(wanted, w.binding)
	}
	return wanted
}

// The surfaces. Each has a name, a framing and a dialect.
var (
	v1Surface = server.Surface{Name: "v1", Dialect: wire.V1, Open: func(nc net.Conn) (server.Codec, error) {
		return &v1.Codec{R: frame.Lines.NewReader(nc, frame.Limit), W: frame.Lines.NewWriter(nc)}, nil
	}}
	v2Surface = server.Surface{Name: "v2", Dialect: wire.V2, Open: func(nc net.Conn) (server.Codec, error) {
		return &v2.Codec{R: frame.Lines.NewReader(nc, frame.Limit), W: frame.Lines.NewWriter(nc)}, nil
	}}
	lpSurface = server.Surface{Name: "lp", Dialect: wire.V2, Open: func(nc net.Conn) (server.Codec, error) {
		return &v2.Codec{R: frame.Prefixed.NewReader(nc, frame.Limit), W: frame.Prefixed.NewWriter(nc), Blobs: true}, nil
	}}
	embedSurface = server.Surface{Name: "embed", Dialect: wire.Embed, Open: func(nc net.Conn) (server.Codec, error) {
		return &embed.Codec{R: frame.Lines.NewReader(nc, frame.Limit), W: frame.Lines.NewWriter(nc)}, nil
	}}
	rerankSurface = server.Surface{Name: "rerank", Dialect: wire.Rerank, Open: func(nc net.Conn) (server.Codec, error) {
		return &rerank.Codec{R: frame.Lines.NewReader(nc, frame.Limit), W: frame.Lines.NewWriter(nc)}, nil
	}}
)
