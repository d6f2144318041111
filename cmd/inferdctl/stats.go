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

// stats shows how busy the daemon is.
func (c *command) stats(ctx context.Context, args []string) error {
	fs := c.flags("stats")
	asJSON := fs.Bool("json", false, "JSON, on a terminal too")
	if _, err := c.parseVerb(fs, args); err != nil {
		return err
	}
	s, err := c.client(wait{}).Stats(ctx)
	if err != nil {
		return err
	}
	if *asJSON || !isTerminal(c.stdout) {
		return c.printLine(s.Raw)
	}
	return c.table(s)
}

// table writes stats for people.
func (c *command) table(s *client.Stats) error {
	make(userNames).put(s)
	if _, err := fmt.Fprint(c.stdout, top.Table(s, widthOf(c.stdout))); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// shortestInterval keeps top from being what makes the daemon busy.
const shortestInterval = 100 * time.Millisecond

// top shows how busy the daemon is for as long as it is looked at, whether or not a daemon
// is there. To whom it cannot, because there is no terminal, it shows it once.
func (c *command) top(ctx context.Context, args []string) error {
	fs := c.flags("top")
	interval := fs.Duration("interval", time.Second, "`time` between two looks, at least 100ms")
	once := fs.Bool("once", false, "show it once, as plain text; so it is where there is no terminal")
	if _, err := c.parseVerb(fs, args); err != nil {
		return err
	}
	if *interval < shortestInterval {
		return fmt.Errorf("--interval: %s is too short, it must be at least %s", *interval, shortestInterval)
	}
	cl := c.client(wait{})
	if *once || !isTerminal(c.stdout) || !isTerminal(c.stdin) || os.Getenv("TERM") == "dumb" {
		s, err := cl.Stats(ctx)
		if err != nil {
			return err
		}
		return c.table(s)
	}
	users := make(userNames)
	ask := func() (*client.Stats, error) { // once at a time
		ctx, cancel := context.WithTimeoutCause(ctx, askTimeout, errors.New("it says nothing for "+askTimeout.String()))
		defer cancel()
		s, err := cl.Stats(ctx)
		if err != nil {
			return nil, err
		}
		users.put(s)
		return s, nil
	}
	model := top.Model{Ask: ask, Interval: *interval}
	_, err := tea.NewProgram(model, tea.WithContext(ctx), tea.WithInput(c.stdin), tea.WithOutput(c.stdout)).Run()
	switch {
	case errors.Is(err, tea.ErrInterrupted):
		return exit(exitInterrupted)
	case err != nil:
		return fmt.Errorf("show: %w", err)
	}
	return nil
}

// askTimeout is how long top waits for an answer. A daemon needs half a second if an
// engine is stopped.
const askTimeout = 5 * time.Second

// userNames remembers what users are called.
type userNames map[string]string

// put puts names where numbers are.
func (names userNames) put(s *client.Stats) {
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
