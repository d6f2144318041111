// Command inferd-http is the reference's HTTP bridge: a separate program that answers chat
// completions and embeddings over the sockets of a running daemon. It is an ordinary client, so for
// the daemon all its requests come from one caller. The daemon's own bridge (inferd --http)
// identifies each user and speaks more dialects; this program is for installations that already use
// it, and for clients that expect its answers.
//
// Exit codes: 0 the program was stopped, or has printed the requested information; 1 it could not
// start or continue; 2 the command line is wrong.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/internal/quota"
	"github.com/inferd-go/inferd/internal/usage"
)

// version is set by the linker in a release.
var version = "0.1.0-dev"

// tokenVariable is the environment variable with the token: unlike a flag, it cannot be read by the
// other users of the machine.
const tokenVariable = "INFERD_HTTP_TOKEN" //nolint:gosec // the name of a variable

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// Exit codes.
const (
	exitOK    = 0
	exitFault = 1
	exitUsage = 2
)

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	o, err := parse(args, getenv, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "inferd-http: %v\nTry 'inferd-http --help'.\n", err)
		return exitUsage
	case o.version:
		fmt.Fprintln(stdout, "inferd-http", version)
		return exitOK
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	if err := o.serve(ctx, log); err != nil {
		fmt.Fprintln(stderr, "Error:", err)
		return exitFault
	}
	return exitOK
}

// options are the values of the flags.
type options struct {
	listen                        string
	genAddr, embedAddr, adminAddr string
	token, modelName              string
	startupSecs                   uint
	version                       bool
}

func parse(args []string, getenv func(string) string, stdout io.Writer) (*options, error) {
	o := &options{}
	fs := flag.NewFlagSet("inferd-http", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&o.listen, "listen", "127.0.0.1:8080", "`address` to listen on; other than loopback only with --token")
	fs.StringVar(&o.genAddr, "gen-addr-override", "", "`path` of the socket that generates, inferd.sock")
	fs.StringVar(&o.embedAddr, "embed-addr-override", "", "`path` of the socket that embeds, infer.embed.sock")
	fs.StringVar(&o.adminAddr, "admin-addr-override", "", "`path` of the admin socket")
	fs.StringVar(&o.token, "token", "", "bearer `token` that clients must have; better in the variable "+tokenVariable)
	fs.StringVar(&o.modelName, "model-name", "inferd", "`name` of the model in answers")
	fs.UintVar(&o.startupSecs, "startup-timeout-secs", 30, "`seconds` that a request waits for a daemon that starts")
	fs.BoolVar(&o.version, "version", false, "print the version")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			help(stdout, fs)
			return nil, err
		}
		return nil, usage.Explain(fs, err)
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if o.token == "" {
		o.token = getenv(tokenVariable)
	}
	return o, nil
}

func help(w io.Writer, fs *flag.FlagSet) {
	fmt.Fprint(w, "Usage: inferd-http [FLAGS]\n\nAnswers HTTP requests over the sockets of a running inferd.\n\n")
	fs.VisitAll(func(f *flag.Flag) {
		name, about := flag.UnquoteUsage(f)
		if f.DefValue != "" && f.DefValue != "false" {
			about += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(w, "  %-28s %s\n", strings.TrimSpace(usage.Dashed(f.Name)+" "+name), about)
	})
}

// checkListen returns an error for an address that other machines can reach, if there is no token
// to protect it.
func (o *options) checkListen(addr *net.TCPAddr) error {
	if addr.IP.IsLoopback() || o.token != "" {
		return nil
	}
	return fmt.Errorf("--listen %s is not a loopback address: it needs --token", o.listen)
}

// drainTime is the time that running requests have to finish after a signal to stop.
const drainTime = 8 * time.Second

// serve answers requests until ctx ends.
func (o *options) serve(ctx context.Context, log *slog.Logger) error {
	addr, err := net.ResolveTCPAddr("tcp", o.listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	if err := o.checkListen(addr); err != nil {
		return err
	}
	ln, err := net.ListenTCP("tcp", addr)
	if err != nil {
		return fmt.Errorf("--listen %s: %w", o.listen, err)
	}
	base, abort := context.WithCancel(context.WithoutCancel(ctx)) // the context of all requests
	defer abort()
	b := &bridge{
		client: &client.Client{
			Sockets: map[client.Surface]string{client.LP: o.genAddr, client.Embed: o.embedAddr, client.Admin: o.adminAddr},
			Wait:    time.Duration(o.startupSecs) * time.Second,
		},
		model: o.modelName, token: o.token, local: addr.IP.IsLoopback(), log: log,
		bodies: quota.Quota{PerCaller: maxMemory, Total: maxMemory},
	}
	server := &http.Server{
		Handler: b, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return base },
	}
	log.LogAttrs(ctx, slog.LevelInfo, "listening", slog.String("addr", ln.Addr().String()), slog.Bool("token", o.token != ""))
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(limit(ln, maxConns)) }() // returns when the server shuts down
	select {
	case err := <-ended:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	if server.Shutdown(late) != nil {
		abort()
		_ = server.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}
