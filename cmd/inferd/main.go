// Command inferd is the one local inference daemon of a machine: it keeps one copy of a model
// loaded, and shares it over local sockets. This package parses the command line, asks for a model
// if none is configured, runs the daemon, and returns the outcome as an exit code.
//
// Exit codes: 0 it was stopped, or has printed the requested information; 1 it could not start or
// continue; 2 the command line is wrong.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/inferd-go/inferd/internal/config"
	"github.com/inferd-go/inferd/internal/daemon"
	"github.com/inferd-go/inferd/internal/paths"
	"github.com/inferd-go/inferd/internal/proc"
	"github.com/inferd-go/inferd/internal/redact"
)

// version is set by the linker in a release.
var version = "0.1.0-dev"

func main() {
	// First, because the daemon's memory has the prompts and the keys of all its callers.
	if err := proc.ForbidDumps(); err != nil {
		fmt.Fprintln(os.Stderr, "inferd:", err)
		os.Exit(1)
	}
	// Early, so that signals also interrupt the load of a model. A second signal ends the process at
	// once. SIGHUP is sent when a terminal closes; under nohup it is ignored.
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	say := &redact.Writer{W: stderr}
	flags, err := config.ParseFlags(args, paths.Default(), daemon.Kinds, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(say, "inferd: %v\nTry 'inferd --help'.\n", err)
		return 2
	case flags.Version:
		fmt.Fprintln(stdout, "inferd", version)
		return 0
	}
	level, ok := logLevel(os.Getenv("INFERD_LOG"))
	if !ok {
		fmt.Fprintf(say, "inferd: INFERD_LOG=%q is no level: debug, info, warn, error or off\n", os.Getenv("INFERD_LOG"))
		return 2
	}
	if config.Unconfigured(&flags, paths.Default()) && isTerminal(os.Stdin) && isTerminal(os.Stderr) {
		if err := askModel(ctx, &flags, paths.Default(), os.Stdin, stderr); err != nil {
			if ctx.Err() != nil {
				return 0
			}
			fmt.Fprintln(say, "Error:", err)
			return 1
		}
	}
	threshold := new(slog.LevelVar)
	threshold.Set(level)
	log := slog.New(handler(stderr, threshold, logsJSON(flags.LogFormat, os.Getenv, isDevice(os.Stderr))))
	program := daemon.Program{Version: version, Log: log, SetLogLevel: func(name string) {
		if level, ok := logLevel(name); ok {
			threshold.Set(level)
		}
	}}
	if err := daemon.Run(ctx, &flags, paths.Default(), program); err != nil {
		fmt.Fprintln(say, "Error:", err)
		return 1
	}
	return 0
}

// handler returns a handler that writes the log as text, or as JSON for log collectors. It removes
// secrets from both.
func handler(w io.Writer, level slog.Leveler, asJSON bool) slog.Handler {
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: redact.Attr}
	if asJSON {
		return slog.NewJSONHandler(w, opts)
	}
	return slog.NewTextHandler(w, opts)
}

// logsJSON reports whether to log JSON, according to --log-format. "auto" means JSON if a service
// manager has started the process and stderr is not a terminal. systemd sets JOURNAL_STREAM and
// INVOCATION_ID; launchd sets XPC_SERVICE_NAME, which is 0 in processes that are not its services.
func logsJSON(format string, getenv func(string) string, device bool) bool {
	if format != config.LogAuto {
		return format == config.LogJSON
	}
	launchd := getenv("XPC_SERVICE_NAME")
	managed := getenv("JOURNAL_STREAM") != "" || getenv("INVOCATION_ID") != "" || launchd != "" && launchd != "0"
	return managed && !device // programs in a terminal inherit the variables of the terminal's service
}

// isDevice reports whether f is a terminal or another character device; for /dev/null the format of
// the log does not matter.
func isDevice(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// off is above all levels that are used, so nothing is logged.
const off = slog.Level(100)

func logLevel(name string) (slog.Level, bool) {
	switch strings.ToLower(name) {
	case "", "info":
		return slog.LevelInfo, true
	case "debug", "trace":
		return slog.LevelDebug, true
	case "warn":
		return slog.LevelWarn, true
	case "error":
		return slog.LevelError, true
	case "off", "0":
		return off, true
	}
	return 0, false
}
