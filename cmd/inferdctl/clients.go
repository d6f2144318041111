package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/cmd/inferdctl/internal/overhttp"
	"github.com/inferd-go/inferd/cmd/inferdctl/internal/setup"
	"github.com/inferd-go/inferd/internal/wire/admin"
)

// clientVerb prints the text that connects a tool to the daemon: settings or a program. With --list
// it prints the names of the tools.
func (c *command) clientVerb(ctx context.Context, args []string) error {
	fs := c.flagsBut("client", "addr")
	model := fs.String("model", "", "`name` of the model; default: the first entry that generates")
	addr := fs.String("addr", "", "`address` of HTTP, such as 127.0.0.1:8080; default: the daemon's first one")
	list := fs.Bool("list", false, "print the names of the clients")
	values, err := c.parseVerb(fs, args, "NAME...")
	switch {
	case err != nil:
		return err
	case *list:
		_, err := fmt.Fprintln(c.stdout, strings.Join(setup.Names(), "\n"))
		return err
	case len(values) != 1:
		return fmt.Errorf("client needs one name: %s", strings.Join(setup.Names(), ", "))
	}
	name := values[0]
	if err := setup.Check(name); err != nil {
		return err
	}
	to, err := c.target(ctx, name, *addr)
	if err != nil {
		return err
	}
	if to.Model = *model; to.Model == "" {
		if to.Model, err = c.firstModel(ctx, *addr, to); err != nil {
			return err
		}
	}
	text, err := setup.Text(name, to)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(c.stdout, text)
	return err
}

var errNoTCP = errors.New("the daemon has no address over TCP: start inferd with --http")

// target returns the addresses of the daemon for a tool: addr or, if addr is empty, the addresses
// that the daemon reports. The listener at an address of this machine must belong to the current
// user or to root, so that no other user can collect prompts and keys.
func (c *command) target(ctx context.Context, tool, addr string) (setup.Target, error) {
	to := setup.Target{Key: os.Getenv(setup.KeyVariable) != ""}
	if addr != "" {
		if path, ok := strings.CutPrefix(addr, "unix:"); ok && !setup.NeedsTCP(tool) {
			to.Socket = path
			return to, nil
		}
		addr = strings.TrimSuffix(strings.TrimRight(strings.TrimPrefix(addr, "http://"), "/"), "/v1")
	} else {
		s, err := c.client(wait{}).Stats(ctx)
		if err != nil {
			return to, err
		}
		addr, to.Socket = httpOf(s)
	}
	switch {
	case addr != "":
		return to, c.useTCP(&to, addr)
	case setup.NeedsTCP(tool) || to.Socket == "":
		return to, errNoTCP
	}
	return to, nil
}

// useTCP checks the address addr, and sets to.Base to its URL.
func (c *command) useTCP(to *setup.Target, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("--addr: %q is no address: want one such as 127.0.0.1:8080", addr)
	}
	literal := host
	if host == "localhost" {
		literal = "127.0.0.1"
	}
	at, err := netip.ParseAddrPort(net.JoinHostPort(literal, port))
	if err == nil && at.Addr().IsUnspecified() { // the daemon listens on every address of this machine
		at = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at.Port())
		host = "127.0.0.1"
	}
	if err == nil && at.Addr().IsLoopback() {
		if err := overhttp.CheckListener(at); err != nil {
			return fmt.Errorf("%w: start inferd with --http", err)
		}
	}
	to.Base = "http://" + net.JoinHostPort(host, port)
	return nil
}

// httpOf returns the first TCP address at which a daemon serves HTTP, and the path of its HTTP
// socket. Each is empty if there is none.
func httpOf(s *client.Stats) (addr, socket string) {
	for _, l := range s.Listeners {
		_, err := netip.ParseAddrPort(l.Addr)
		switch {
		case l.Surface != "http":
		case err == nil && addr == "":
			addr = l.Addr
		case err != nil && socket == "":
			socket = l.Addr
		}
	}
	return addr, socket
}

// firstModel returns the name of the first entry that generates. It gets the name from the daemon
// at addr or, if addr is empty, over the sockets.
func (c *command) firstModel(ctx context.Context, addr string, to setup.Target) (string, error) {
	if addr != "" {
		c.http = to.Base
		if to.Base == "" {
			c.http = "unix:" + to.Socket
		}
	}
	d, err := c.daemon(wait{}, nil)
	if err != nil {
		return "", err
	}
	s, err := d.Stats(ctx)
	if err != nil {
		return "", fmt.Errorf("find a model: %w; or name one with --model", err)
	}
	generates := make(map[string]bool)
	for st, err := range watchUntilSilent(ctx, d) {
		if err != nil || st.Lifecycle() {
			break
		}
		if can, _, err := admin.DecodeCapabilities(st.Raw); err == nil && st.State == admin.Capabilities {
			generates[can.Backend] = can.Abilities.Generate
		}
	}
	for _, b := range s.Backends {
		if can, known := generates[b.Name]; can || !known { // unknown while the entry loads
			return b.Name, nil
		}
	}
	return "", errors.New("no entry of the daemon generates: name a model with --model")
}
