package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/inferd-go/inferd/internal/wire/admin"
)

// watch prints every frame of the admin socket as it came, for ever or until one has the
// status that is waited for.
func (c *command) watch(ctx context.Context, args []string) error {
	fs := c.flags("watch")
	until := fs.String("until", "", "end at this `status`, such as ready; exit 1 if the daemon goes away before")
	var patience wait
	fs.Var(&patience, "wait", "wait for a daemon that is not there yet, or at most so long (--wait=30s)")
	if _, err := c.parseVerb(fs, args); err != nil {
		return err
	}
	if *until != "" && !(admin.Frame{Status: *until}).Lifecycle() {
		return fmt.Errorf("--until: no status is called %q", *until)
	}
	nc, err := patience.dial(ctx, c.locate().admin)
	if err != nil {
		return err
	}
	defer nc.Close()
	for {
		f, err := nc.nextFrame()
		switch {
		case err == nil:
		case !errors.Is(err, io.EOF):
			return fmt.Errorf("watch: %w", err)
		case *until != "":
			return c.no(ctx, fmt.Errorf("the daemon went away before it was %s", *until))
		default:
			return errors.New("the daemon has gone away")
		}
		if err := c.printLine(f.Line); err != nil {
			return err
		}
		if f.Status == *until {
			return nil
		}
	}
}
