package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/inferd-go/inferd/client"
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
	return table(c.stdout, s)
}

// table writes stats for people.
func table(w io.Writer, s *client.Stats) error {
	fmt.Fprintf(w, "inferd %s, up %s: %d running, %d waiting, %d connections\n\n",
		s.Version, (time.Duration(s.UptimeMS) * time.Millisecond).Round(time.Second), s.Running, s.Waiting, s.Connections)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "BACKEND\tKIND\tSTATE\tSLOTS\tRUNNING\tWAITING\tREQUESTS\tTOKENS IN\tOUT")
	for _, b := range s.Backends {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\n",
			b.Name, b.Kind, b.State, b.Slots, b.Running, b.Waiting, b.Requests, b.InputTokens, b.OutputTokens)
	}
	fmt.Fprintln(t, "\nUSER\tPROGRAM\tRUNNING\tWAITING\tREQUESTS\tREFUSED\tTOKENS IN\tOUT")
	for _, x := range s.Callers {
		program := x.Exe
		if program == "" {
			program = "?"
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\n",
			x.User, program, x.Running, x.Waiting, x.Requests, x.Refused, x.InputTokens, x.OutputTokens)
	}
	return t.Flush()
}
