package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/inferd-go/inferd/client"
)

// How much status reads of a daemon that never says what state it is in.
const (
	statusFrames = 64
	statusPause  = 500 * time.Millisecond // between two frames
)

var (
	errSilent    = fmt.Errorf("timeout: it says nothing for %s", statusPause)
	errPointless = errors.New("the daemon does not say what state it is in")
)

// status prints what a newcomer is told: the capabilities of every entry and then the
// state, each as it came.
func (c *command) status(ctx context.Context, args []string) error {
	if _, err := c.parseVerb(c.flags("status"), args); err != nil {
		return err
	}
	frames := 0
	for s, err := range patient(ctx, c.client(wait{})) {
		if _, absent := errors.AsType[*client.DialError](err); absent {
			return err
		}
		if err != nil {
			return c.no(ctx, err)
		}
		if err := c.printLine(s.Raw); err != nil {
			return err
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
	return c.no(ctx, errPointless)
}

// patient is a Watch that ends with errSilent when nothing comes for a while.
func patient(ctx context.Context, cl *client.Client) func(func(client.Status, error) bool) {
	return func(yield func(client.Status, error) bool) {
		ctx, give := context.WithCancelCause(ctx)
		defer give(nil)
		alarm := time.AfterFunc(statusPause, func() { give(errSilent) })
		defer alarm.Stop()
		for s, err := range cl.Watch(ctx) {
			alarm.Reset(statusPause)
			if !yield(s, err) {
				return
			}
		}
	}
}

// no ends the command with the answer no, and says why.
func (c *command) no(ctx context.Context, reason error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	fmt.Fprintln(c.stderr, "error:", reason)
	return exit(exitNo)
}

// printLine writes a frame in one piece, so that whoever reads sees it at once.
func (c *command) printLine(line []byte) error {
	if _, err := c.stdout.Write(append(slices.Clip(line), '\n')); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}
