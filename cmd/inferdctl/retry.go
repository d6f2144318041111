package main

import (
	"context"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/wire/control"
)

// retry starts the engine of an entry that was given up.
func (c *command) retry(ctx context.Context, args []string) error {
	fs := c.flags("retry")
	names, err := c.parseVerb(fs, args, "NAME")
	if err != nil {
		return err
	}
	nc, err := dial(ctx, c.locate().control)
	if err != nil {
		return err
	}
	defer nc.Close()
	_, err = control.Call(nc, frame.Lines.NewWriter(nc), control.Retry{Backend: names[0]})
	return err
}
