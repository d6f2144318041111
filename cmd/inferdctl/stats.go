package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/cmd/inferdctl/internal/top"
)

// stats prints the stats of the daemon.
func (c *command) stats(ctx context.Context, args []string) error {
	fs := c.flags("stats")
	asJSON := fs.Bool("json", false, "print JSON, even on a terminal")
	if _, err := c.parseVerb(fs, args); err != nil {
		return err
	}
	d, err := c.daemon(wait{}, nil)
	if err != nil {
		return err
	}
	s, err := d.Stats(ctx)
	if err != nil {
		return err
	}
	if *asJSON || !isTerminal(c.stdout) {
		return c.printLine(s.Raw)
	}
	return c.table(s)
}

// table prints stats as a table.
func (c *command) table(s *client.Stats) error {
	make(userNames).replaceUIDs(s)
	if _, err := fmt.Fprint(c.stdout, top.Table(s, widthOf(c.stdout))); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// minInterval is the shortest interval, so that top causes little load.
const minInterval = 100 * time.Millisecond

// top shows live stats, even while no daemon runs. Without a terminal it prints them once.
func (c *command) top(ctx context.Context, args []string) error {
	fs := c.flags("top")
	interval := fs.Duration("interval", time.Second, "`time` between two updates, at least 100ms")
	once := fs.Bool("once", false, "print the table once, as plain text; the default without a terminal")
	if _, err := c.parseVerb(fs, args); err != nil {
		return err
	}
	if *interval < minInterval {
		return fmt.Errorf("--interval: %s is too short, it must be at least %s", *interval, minInterval)
	}
	d, err := c.daemon(wait{}, nil)
	if err != nil {
		return err
	}
	if *once || !isTerminal(c.stdout) || !isTerminal(c.stdin) || os.Getenv("TERM") == "dumb" {
		s, err := d.Stats(ctx)
		if err != nil {
			return err
		}
		return c.table(s)
	}
	users := make(userNames)
	ask := func() (*client.Stats, error) { // one call at a time
		ctx, cancel := context.WithTimeoutCause(ctx, askTimeout, errors.New("no answer for "+askTimeout.String()))
		defer cancel()
		s, err := d.Stats(ctx)
		if err != nil {
			return nil, err
		}
		users.replaceUIDs(s)
		return s, nil
	}
	model := top.Model{Ask: ask, Interval: *interval}
	_, err = tea.NewProgram(model, tea.WithContext(ctx), tea.WithInput(c.stdin), tea.WithOutput(c.stdout)).Run()
	switch {
	case errors.Is(err, tea.ErrInterrupted):
		return exit(exitInterrupted)
	case err != nil:
		return fmt.Errorf("show: %w", err)
	}
	return nil
}

// askTimeout bounds how long top waits for an answer. The daemon itself waits half a second for the
// report of an engine that is stopped.
const askTimeout = 5 * time.Second

// userNames caches user names by uid.
type userNames map[string]string

// replaceUIDs replaces the uids in s by user names.
func (names userNames) replaceUIDs(s *client.Stats) {
	for i := range s.Callers {
		id := s.Callers[i].User
		name, ok := names[id]
		if !ok {
			name = id
			if u, err := user.LookupId(id); err == nil {
				name = u.Username
			}
			names[id] = name
		}
		s.Callers[i].User = name
	}
}
