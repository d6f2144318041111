// Command inferd is the one local inference daemon of a machine: it keeps one copy of a
// model warm and shares it over local sockets. This file turns a command line into a
// running daemon and its end into an exit code.
//
// Exit codes: 0 it was told to stop, or said what it was asked for; 1 it could not start
// or go on; 2 the command line is wrong.
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
	"github.com/inferd-go/inferd/internal/redact"
)

// version is set by the linker in a release.
var version = "0.1.0-dev"

func main() {
	// Before anything else, so that a model load can be interrupted too. A second
	// signal ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, &redact.Writer{W: os.Stderr}))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags, err := config.ParseFlags(args, paths.Default(), stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "inferd: %v\nTry 'inferd --help'.\n", err)
		return 2
	case flags.Version:
		fmt.Fprintln(stdout, "inferd", version)
		return 0
	}
	level, ok := logLevel(os.Getenv("INFERD_LOG"))
	if !ok {
		fmt.Fprintf(stderr, "inferd: INFERD_LOG=%q is no level: debug, info, warn, error or off\n", os.Getenv("INFERD_LOG"))
		return 2
	}
	threshold := new(slog.LevelVar)
	threshold.Set(level)
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: threshold}))
	program := daemon.Program{Version: version, Log: log, SetLogLevel: func(name string) {
		if level, ok := logLevel(name); ok {
			threshold.Set(level)
		}
	}}
	if err := daemon.Run(ctx, &flags, paths.Default(), program); err != nil {
		fmt.Fprintln(stderr, "Error:", err)
		return 1
	}
	return 0
}

// off is above every level that is used.
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
