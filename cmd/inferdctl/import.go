package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/inferd-go/inferd/internal/store"
)

// importFile copies a file into the store and prints the path of its blob.
func (c *command) importFile(ctx context.Context, args []string) error {
	fs := c.flags("import")
	im := store.Import{ProducedBy: "inferdctl/" + version}
	fs.StringVar(&im.Name, "name", "", "`name` in the store; by default the file's, in lower case")
	fs.StringVar(&im.SHA256, "expect-sha256", "", "refuse a file with another `digest`")
	files, err := c.parseVerb(fs, args, "FILE")
	if err != nil {
		return err
	}
	im.Path = files[0]
	if im.SHA256 != "" {
		if im.SHA256, err = store.ParseDigest(im.SHA256); err != nil {
			return fmt.Errorf("--expect-sha256 %w", err)
		}
	}
	s, err := c.storeOrDefault()
	if err != nil {
		return err
	}
	defer s.Close()
	done, err := s.Import(ctx, im, c.copyProgress())
	if err != nil {
		if ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		return err
	}
	if done.Warning != "" {
		fmt.Fprintln(c.stderr, "warning:", clean(done.Warning))
	}
	fmt.Fprintln(c.stdout, done.Path)
	return nil
}

// progressStep is the number of bytes copied between two reports.
const progressStep = 256 << 20

// copyProgress returns a function that reports the progress of a large copy in one line, or nil if
// stderr is not a terminal.
func (c *command) copyProgress() func(done, total int64) {
	if !isTerminal(c.stderr) {
		return nil
	}
	last := int64(0)
	return func(done, total int64) {
		if done-last < progressStep && done < total || total < progressStep {
			return
		}
		last = done
		fmt.Fprintf(c.stderr, "\r%s of %s ", size(done), size(total))
		if done == total {
			fmt.Fprintln(c.stderr)
		}
	}
}
