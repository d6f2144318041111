package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/store"
)

// The objects that list, show and verify print with --json.
type (
	modelsJSON struct {
		Models   []modelJSON   `json:"models"`
		Ingests  []ingestJSON  `json:"ingests"`
		Problems []problemJSON `json:"problems"`
	}
	modelJSON struct {
		Name    string        `json:"name"`
		Digest  string        `json:"digest"` // "sha256:" and 64 hex digits; of the first part of a split model
		Size    int64         `json:"size_bytes"`
		Parts   []store.Part  `json:"parts"` // of a split model
		Arch    string        `json:"arch"`
		Quant   string        `json:"quant"`
		NCtx    int64         `json:"n_ctx_train"`
		License *string       `json:"license"`
		Source  store.Source  `json:"source"`
		State   store.State   `json:"state"`
		UsedBy  []string      `json:"used_by"`
		Refers  *store.Refers `json:"refers"`
		Why     string        `json:"why,omitzero"` // reason for a state other than ok
		Asked   []string      `json:"asked,omitempty"`
	}
	ingestJSON struct {
		Name   string `json:"name"`
		Digest string `json:"digest"`
		Done   int64  `json:"done_bytes"`
		Total  int64  `json:"total_bytes"`
		PID    int    `json:"pid"`
	}
	problemJSON struct {
		Path string `json:"path"`
		What string `json:"what"`
	}
)

func modelOf(e store.Entry, users map[string][]string) modelJSON {
	m := modelJSON{
		Name: e.Name, Digest: e.Blob, Size: e.TotalSize(), Parts: e.Parts, License: e.License, Source: e.Source,
		State: e.State, Refers: e.Refers, Why: e.Why, Asked: e.Asked,
	}
	if e.GGUF != nil {
		m.Arch, m.Quant, m.NCtx = e.GGUF.Arch, e.GGUF.Quant, e.GGUF.NCtx
	}
	for _, word := range append([]string{e.Name, e.Digest()}, e.Asked...) {
		for _, entry := range users[word] {
			if !slices.Contains(m.UsedBy, entry) {
				m.UsedBy = append(m.UsedBy, entry)
			}
		}
	}
	for _, pid := range e.PIDs {
		m.UsedBy = append(m.UsedBy, processName(pid))
	}
	return m
}

func processName(pid int) string {
	if pid == 0 {
		return "a process"
	}
	return fmt.Sprintf("process %d", pid)
}

func listingOf(l store.Listing, users map[string][]string) modelsJSON {
	out := modelsJSON{}
	for _, e := range l.Models {
		out.Models = append(out.Models, modelOf(e, users))
	}
	for _, u := range l.Unfinished {
		digest := ""
		if u.Digest != "" {
			digest = "sha256:" + u.Digest
		}
		out.Ingests = append(out.Ingests, ingestJSON{u.Name, digest, u.Done, u.Total, u.PID})
	}
	for _, p := range l.Problems {
		out.Problems = append(out.Problems, problemJSON{p.Path, p.What})
	}
	return out
}

// list prints the models of the store.
func (c *command) list(_ context.Context, args []string) error {
	fs := c.flags("list")
	asJSON := fs.Bool("json", false, "print JSON")
	if _, err := c.parseVerb(fs, args); err != nil {
		return err
	}
	s, users, err := c.storeVerb()
	if err != nil {
		return err
	}
	defer s.Close()
	l, err := s.List()
	if err != nil {
		return err
	}
	if *asJSON {
		return c.printJSON(listingOf(l, users))
	}
	return c.printListing(listingOf(l, users), s.Home)
}

// printListing prints models as a table, and then reasons, unfinished files and problems.
func (c *command) printListing(l modelsJSON, home string) error {
	if len(l.Models) == 0 {
		fmt.Fprintf(c.stderr, "no models in %s\n", clean(home))
	} else {
		w := tabwriter.NewWriter(c.stdout, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "NAME\tSIZE\tARCH\tQUANT\tCONTEXT\tSTATE\tUSED BY")
		for _, m := range l.Models {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.Name, size(m.Size), cell(m.Arch), cell(m.Quant), tokens(m.NCtx), m.State, cell(m.UsedBy...))
		}
		if err := w.Flush(); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	c.printRest(c.stdout, l)
	return nil
}

// printRest prints reasons, unfinished files and problems, one to a line.
func (c *command) printRest(w io.Writer, l modelsJSON) {
	for _, m := range l.Models {
		if m.Why != "" && m.State != store.Unverified {
			fmt.Fprintf(w, "%s: %s: %s\n", m.State, m.Name, clean(m.Why))
		}
	}
	for _, i := range l.Ingests {
		of := ""
		if i.Total > 0 {
			of = " of " + size(i.Total)
		}
		by := "no process writes it"
		if i.PID > 0 {
			by = "process " + fmt.Sprint(i.PID) + " writes it"
		}
		fmt.Fprintf(w, "unfinished: %s: %s%s, %s\n", clean(cmp.Or(i.Name, i.Digest, "(no name)")), size(i.Done), of, by)
	}
	for _, p := range l.Problems {
		fmt.Fprintf(w, "problem: %s: %s\n", clean(p.Path), clean(p.What))
	}
}

// cell joins words to the text of a cell in a table. It cleans the text, because other programs
// also write manifests.
func cell(words ...string) string { return cmp.Or(clean(strings.Join(words, ", ")), "-") }

// clean replaces characters that are not printable, such as a terminal's control characters.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
}

// cleanLines cleans each line of a text.
func cleanLines(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = clean(line)
	}
	return strings.Join(lines, "\n")
}

func tokens(n int64) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

// size formats a number of bytes in decimal units, as sources of models state them.
func size(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.2f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d B", n)
}

// show prints what the store records about a model, and the entries that use it.
func (c *command) show(_ context.Context, args []string) error {
	fs := c.flags("show")
	asJSON := fs.Bool("json", false, "print JSON")
	names, err := c.parseVerb(fs, args, "NAME")
	if err != nil {
		return err
	}
	s, users, err := c.storeVerb()
	if err != nil {
		return err
	}
	defer s.Close()
	e, err := s.Show(names[0])
	if err != nil {
		return err
	}
	m := modelOf(e, users)
	if *asJSON {
		return c.printJSON(m)
	}
	source := slices.DeleteFunc([]string{m.Source.Registry, m.Source.Repo, m.Source.Revision, m.Source.Filename}, func(s string) bool { return s == "" })
	license := ""
	if m.License != nil {
		license = *m.License
	}
	w := tabwriter.NewWriter(c.stdout, 0, 8, 2, ' ', 0)
	for _, line := range [][2]string{
		{"name", m.Name},
		{"digest", cell(m.Digest)},
		{"size", fmt.Sprintf("%s (%d bytes)", size(m.Size), m.Size)},
		{"parts", tokens(int64(len(m.Parts)))},
		{"architecture", cell(m.Arch)},
		{"quantisation", cell(m.Quant)},
		{"context", tokens(m.NCtx)},
		{"license", cell(license)},
		{"source", cell(source...)},
		{"asked as", cell(m.Asked...)},
		{"state", cell(strings.TrimSuffix(string(m.State)+": "+m.Why, ": "))},
		{"used by", cell(m.UsedBy...)},
		{"file", cell(e.File)},
	} {
		fmt.Fprintf(w, "%s\t%s\n", line[0], line[1])
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// remove removes models from the store. If one fails, it goes on with the next.
func (c *command) remove(_ context.Context, args []string) error {
	fs := c.flags("rm")
	force := fs.Bool("force", false, "remove a model even if a process uses it; the process keeps its open files")
	names, err := c.parseVerb(fs, args, "NAME...")
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return errors.New("rm needs NAME")
	}
	s, _, err := c.storeVerb()
	if err != nil {
		return err
	}
	defer s.Close()
	var failed []error
	for _, name := range names {
		removed, err := s.Remove(name, *force)
		c.printRemoved("removed", removed)
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// printRemoved prints a line for each removed file, and the sum of their sizes.
func (c *command) printRemoved(verb string, removed []store.Removed) {
	sum := int64(0)
	for _, r := range removed {
		sum += r.Size
		fmt.Fprintf(c.stdout, "%s %s: %s (%s)\n", verb, r.What, clean(r.Path), size(r.Size))
	}
	if len(removed) > 1 {
		fmt.Fprintf(c.stdout, "%s in all\n", size(sum))
	}
}

// gc removes files that the store no longer needs; see [store.Store.GC]. It spares the blobs that
// the config names.
func (c *command) gc(ctx context.Context, args []string) error {
	fs := c.flags("gc")
	dry := fs.Bool("dry-run", false, "only print what would be removed")
	if _, err := c.parseVerb(fs, args); err != nil {
		return err
	}
	s, users, err := c.storeVerb()
	if err != nil {
		return err // the config may name blobs that are in use
	}
	defer s.Close()
	removed, problems, err := s.GC(ctx, store.GCOptions{
		DryRun: *dry,
		Spare:  func(digest string) bool { return len(users[digest]) > 0 },
	})
	verb := "removed"
	if *dry {
		verb = "would remove"
	}
	c.printRemoved(verb, removed)
	for _, p := range problems {
		fmt.Fprintf(c.stderr, "warning: %s: %s\n", clean(p.Path), clean(p.What))
	}
	if err == nil && len(removed) == 0 {
		fmt.Fprintln(c.stderr, "nothing to remove")
	}
	return err
}

// verify hashes the files of models. The exit code is 1 if the state of a model is not ok, or if a
// manifest cannot be used.
func (c *command) verify(ctx context.Context, args []string) error {
	fs := c.flags("verify")
	asJSON := fs.Bool("json", false, "print JSON")
	names, err := c.parseVerb(fs, args, "NAME...")
	if err != nil {
		return err
	}
	s, users, err := c.storeVerb()
	if err != nil {
		return err
	}
	defer s.Close()
	l, err := s.Verify(ctx, names, func(p store.Phase) {
		if v, ok := p.(status.Verify); ok && isTerminal(c.stderr) {
			fmt.Fprintln(c.stderr, "reading", clean(v.Path))
		}
	})
	if err != nil {
		return err
	}
	out := listingOf(l, users)
	bad := len(l.Torn) > 0 || slices.ContainsFunc(l.Models, func(e store.Entry) bool { return e.State != store.OK })
	if *asJSON {
		err = c.printJSON(out)
	} else {
		for _, m := range out.Models {
			fmt.Fprintf(c.stdout, "%s: %s\n", m.Name, cell(strings.TrimSuffix(string(m.State)+": "+m.Why, ": ")))
		}
		for _, p := range l.Torn {
			fmt.Fprintf(c.stdout, "problem: %s: %s\n", clean(p.Path), clean(p.What))
		}
	}
	if err == nil && bad {
		err = exit(exitNo)
	}
	return err
}
