package main

import "context"

// retry restarts the engine of an entry that was given up.
func (c *command) retry(ctx context.Context, args []string) error {
	names, err := c.parseVerb(c.flags("retry"), args, "NAME")
	if err != nil {
		return err
	}
	return c.client(wait{}).Retry(ctx, names[0])
}

// logLevel sets the level that the daemon logs.
func (c *command) logLevel(ctx context.Context, args []string) error {
	levels, err := c.parseVerb(c.flags("log-level"), args, "LEVEL")
	if err != nil {
		return err
	}
	return c.client(wait{}).SetLogLevel(ctx, levels[0])
}
