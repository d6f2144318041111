package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/inferd-go/inferd/client"
)

// watch prints the messages about the daemon's state, up to the status of --until. On a terminal it
// prints the lifecycle states as one line that changes, otherwise the unchanged messages.
func (c *command) watch(ctx context.Context, args []string) error {
	fs := c.flags("watch")
	until := fs.String("until", "", "end at this `status`, such as ready; exit 1 if the daemon stops before")
	asJSON := fs.Bool("json", false, "print lines of JSON, even on a terminal")
	var w wait
	fs.Var(&w, "wait", "wait for a daemon that does not run yet, with a limit as in --wait=30s")
	if _, err := c.parseVerb(fs, args); err != nil {
		return err
	}
	if *until != "" && !(client.Status{State: *until}).Lifecycle() {
		return fmt.Errorf("--until: no status is called %q", *until)
	}
	show := func(s client.Status) error { return c.printLine(s.Raw) }
	if isTerminal(c.stdout) && !*asJSON {
		show = c.progress
	}
	for s, err := range c.client(w).Watch(ctx) {
		switch {
		case errors.Is(err, client.ErrGone) && *until != "":
			return c.answerNo(ctx, fmt.Errorf("the daemon went away before it was %s", *until))
		case err != nil:
			return err
		}
		if err := show(s); err != nil {
			return err
		}
		if s.State == *until {
			return nil
		}
	}
	return nil
}

// progress prints a status on a terminal. If the next status is to replace it, the line stays open.
func (c *command) progress(s client.Status) error {
	line := bar(s)
	if line == "" {
		return nil
	}
	const wipe = "\r\x1b[K"
	end := ""
	if s.Phase == "" || s.Reason != "" {
		end = "\n"
	}
	if _, err := fmt.Fprint(c.stdout, wipe, line, end); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// barWidth is the width of the progress bar in characters.
const barWidth = 24

// bar formats a lifecycle status as one line, with a progress bar for the phase mmap. It returns an
// empty text for other statuses.
func bar(s client.Status) string {
	if !s.Lifecycle() {
		return ""
	}
	text := s.String()
	if s.Reason != "" {
		text += ": " + s.Reason
	}
	if s.Phase != "mmap" {
		return text
	}
	progress := min(max(s.Progress, 0), 1)
	done := int(progress*barWidth + 0.5)
	return fmt.Sprintf("%s [%s%s] %3.0f%%", text, strings.Repeat("#", done), strings.Repeat("-", barWidth-done), 100*progress)
}
