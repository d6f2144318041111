package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/inferd-go/inferd/internal/caches"
	"github.com/inferd-go/inferd/internal/store"
	"github.com/inferd-go/inferd/internal/usage"
)

// adopt adds models of other tools to the store without copying them. If a model cannot be
// adopted, it reports the error, continues with the next one, and exits with 2.
func (c *command) adopt(ctx context.Context, args []string) error {
	fs := c.flags("adopt")
	only := fs.Bool("list", false, "only print the models of other tools")
	as := fs.String("as", "", "`name` in the store; for a single model only")
	names, err := c.parseVerb(fs, args, "NAME...")
	if err != nil {
		return err
	}
	if *as != "" && len(names) != 1 {
		return errors.New("--as needs a single NAME")
	}
	s, _, err := c.storeVerb()
	if err != nil {
		return err
	}
	defer s.Close()
	home, err := os.UserHomeDir()
	if err != nil {
		return err
	}
	found, problems := caches.Find(caches.Env{Getenv: os.Getenv, Home: home, GOOS: runtime.GOOS})
	if found, err = chosen(found, names); err != nil {
		return err
	}
	failed := 0
	if len(names) == 0 {
		failed = c.leftOut(problems)
	}
	if len(found) == 0 {
		fmt.Fprintln(c.stderr, "no models of other tools")
	}
	if *only {
		return c.printFound(found)
	}
	for _, m := range found {
		if *as != "" {
			m.Name = *as
		}
		if err := c.adoptOne(ctx, s, m); err != nil {
			if ctx.Err() != nil {
				return err
			}
			failed++
			fmt.Fprintln(c.stderr, "error:", cleanLines(err.Error()))
		}
	}
	if failed > 0 {
		return exit(exitError)
	}
	return nil
}

// leftOut prints the files and folders that cannot be adopted, and returns the number of failures
// among them. A folder of another user that this user may not read is not a failure.
func (c *command) leftOut(problems []caches.Problem) (failed int) {
	for _, p := range problems {
		fmt.Fprintf(c.stderr, "left out: %s: %s\n", clean(p.Path), clean(p.Err.Error()))
		if !p.Closed {
			failed++
		}
	}
	return failed
}

// chosen returns the models with the given names, or all models if names is empty.
func chosen(found []caches.Model, names []string) ([]caches.Model, error) {
	if len(names) == 0 {
		return found, nil
	}
	var all []string
	for _, m := range found {
		all = append(all, m.Name)
	}
	var some []caches.Model
	for _, name := range names {
		n := slices.Index(all, name)
		if n < 0 {
			if near := usage.Nearest(name, all); near != "" {
				return nil, fmt.Errorf("no other tool has a model %q: did you mean %s?", name, near)
			}
			return nil, fmt.Errorf("no other tool has a model %q: inferdctl adopt --list prints all", name)
		}
		some = append(some, found[n])
	}
	return some, nil
}

func (c *command) printFound(found []caches.Model) error {
	w := tabwriter.NewWriter(c.stdout, 0, 8, 2, ' ', 0)
	for n, m := range found {
		if n == 0 {
			fmt.Fprintln(w, "NAME\tTOOL\tSIZE\tFILE")
		}
		total := int64(0)
		for _, f := range m.Files {
			if info, err := os.Stat(f.Path); err == nil {
				total += info.Size()
			}
		}
		file := m.Files[0].Path
		if len(m.Files) > 1 {
			file += fmt.Sprintf(" and %d more", len(m.Files)-1)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", m.Name, m.Tool, size(total), clean(file))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

func (c *command) adoptOne(ctx context.Context, s *store.Store, m caches.Model) error {
	a := store.Adoption{
		Name: m.Name, Asked: m.Asked, ProducedBy: "inferdctl/" + version,
		Source: store.Source{Registry: m.Registry, Repo: m.Repo, Revision: m.Revision, Filename: m.Files[0].Name},
	}
	if a.Source.Registry == "" {
		a.Source.Registry = m.Tool
	}
	for _, f := range m.Files {
		a.Files = append(a.Files, store.AdoptedFile{Path: f.Path, SHA256: f.SHA256})
	}
	done, err := s.Adopt(ctx, a)
	if err != nil {
		return err
	}
	if done.Warning != "" {
		fmt.Fprintln(c.stderr, "warning:", clean(done.Warning))
	}
	fmt.Fprintln(c.stdout, strings.Join([]string{"adopted", m.Name, "from", m.Tool, "by", string(done.Method)}, " "))
	return nil
}
