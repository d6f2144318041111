package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/inferd-go/inferd/client"
)

// Limits for a daemon that never sends a lifecycle state.
const (
	statusFrames = 64
	statusPause  = 500 * time.Millisecond // between two frames
)

var (
	errSilent  = fmt.Errorf("timeout: no message for %s", statusPause)
	errNoState = errors.New("the daemon does not send its state")
)

// status prints the messages that the admin socket sends to a new client, unchanged: the
// capabilities of every entry, and then the state. On a terminal it also prints where the daemon
// listens.
func (c *command) status(ctx context.Context, args []string) error {
	if _, err := c.parseVerb(c.flags("status"), args); err != nil {
		return err
	}
	d, err := c.daemon(wait{}, nil)
	if err != nil {
		return err
	}
	frames := 0
	for s, err := range watchUntilSilent(ctx, d) {
		if _, absent := errors.AsType[*client.DialError](err); absent || c.http != "" && notReached(err) {
			return err
		}
		if err != nil {
			return c.answerNo(ctx, err)
		}
		if err := c.printLine(s.Raw); err != nil {
			return err
		}
		if s.Lifecycle() && isTerminal(c.stdout) {
			c.printListeners(ctx, d)
		}
		if s.Ready() {
			return nil
		}
		if s.Lifecycle() {
			return exit(exitNo)
		}
		if frames++; frames == statusFrames {
			break
		}
	}
	return c.answerNo(ctx, errNoState)
}

// notReached reports whether an error over HTTP means that no answer came: it is neither the end of
// the stream nor its silence.
func notReached(err error) bool {
	return err != nil && !errors.Is(err, client.ErrGone) && !errors.Is(err, errSilent)
}

// printListeners prints where the daemon listens, or nothing if the daemon does not report it.
func (c *command) printListeners(ctx context.Context, d daemon) {
	s, err := d.Stats(ctx)
	if err != nil {
		return
	}
	for _, l := range s.Listeners {
		fmt.Fprintln(c.stdout, "listening:", cleanLines(l.Surface), cleanLines(l.Addr))
	}
}

// watchUntilSilent is a Watch that ends with errSilent after statusPause without a message.
func watchUntilSilent(ctx context.Context, d daemon) func(func(client.Status, error) bool) {
	return func(yield func(client.Status, error) bool) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		alarm := time.AfterFunc(statusPause, func() { cancel(errSilent) })
		defer alarm.Stop()
		for s, err := range d.Watch(ctx) {
			alarm.Reset(statusPause)
			if !yield(s, err) {
				return
			}
		}
	}
}

// answerNo prints the reason, and returns the error for the exit code 1. If ctx has ended, it only
// returns the cause.
func (c *command) answerNo(ctx context.Context, reason error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	fmt.Fprintln(c.stderr, "error:", reason)
	return exit(exitNo)
}

// printLine writes a frame in one write, so that a reader gets it at once.
func (c *command) printLine(line []byte) error {
	if _, err := c.stdout.Write(append(slices.Clip(line), '\n')); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}
