package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/inferd-go/inferd/internal/wire/admin"
)

// How much status reads of a daemon that never says what state it is in.
const (
	statusFrames = 64
	statusPause  = 500 * time.Millisecond // between two frames
)

// status prints what a newcomer is told: the capabilities of every entry and then the
// state, each as it came.
func (c *command) status(ctx context.Context, args []string) error {
	fs := c.flags("status")
	if _, err := c.parseVerb(fs, args); err != nil {
		return err
	}
	nc, err := dial(ctx, c.locate().admin)
	if err != nil {
		return err
	}
	defer nc.Close()
	for range statusFrames {
		if err := nc.SetReadDeadline(time.Now().Add(statusPause)); err != nil {
			return fmt.Errorf("read status: %w", err)
		}
		f, err := nc.nextFrame()
		if err != nil {
			return c.no(ctx, fmt.Errorf("read status: %w", err))
		}
		if err := c.printLine(f.Line); err != nil {
			return err
		}
		if f.Status == admin.Ready {
			return nil
		}
		if f.Lifecycle() {
			return exit(exitNo)
		}
	}
	return c.no(ctx, errors.New("the daemon does not say what state it is in"))
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
