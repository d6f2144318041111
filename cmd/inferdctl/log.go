package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/activity"
	"github.com/inferd-go/inferd/internal/paths"
)

// since is the value of the flag --since TIME.
type since struct{ time.Time }

// String returns the default value for package flag.
func (s *since) String() string { return "" }

// Set accepts a time, or a duration that is subtracted from the current time.
func (s *since) Set(text string) error {
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		s.Time = time.Now().Add(-ago)
		return nil
	}
	when, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return errors.New("want an age such as 10m or 2h, or a time such as 2026-01-31T17:00:00+01:00")
	}
	s.Time = when
	return nil
}

const sinceUsage = "only records since this `time`: an age such as 10m or 2h, or 2026-01-31T17:00:00Z"

// logFolder returns the folder of the activity log.
func (c *command) logFolder() string { return cmp.Or(c.logDir, paths.Default().LogDir()) }

// openLog opens the activity log for reading. The reader skips records before from.
func (c *command) openLog(from since) (*activity.Reader, error) {
	dir := c.logFolder()
	if dir == "" {
		return nil, errors.New("no folder of the activity log: set --log-dir, INFERD_LOG_DIR or HOME")
	}
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("activity log: %w", err)
	}
	return &activity.Reader{Dir: dir, Since: from.Time}, nil
}

// followPause is the time between two reads of a log that is followed.
const followPause = 100 * time.Millisecond

// log prints the records of the activity log, and with -f also new ones.
func (c *command) log(ctx context.Context, args []string) error {
	fs := c.flags("log")
	follow := fs.Bool("f", false, "also print new records, until Ctrl-C")
	asJSON := fs.Bool("json", false, "print lines of JSON, even on a terminal")
	bad := fs.Bool("errors", false, "only warnings, errors, and requests that were refused, failed, or whose client hung up")
	caller := fs.String("caller", "", "only records of a `caller`: uid, user name, pid, name of a key, or program by path or name")
	var from since
	fs.Var(&from, "since", sinceUsage)
	if _, err := c.parseVerb(fs, args); err != nil {
		return err
	}
	r, err := c.openLog(from)
	if err != nil {
		return err
	}
	defer r.Close()
	defer c.reportTorn(r)
	names := namesOf(*caller)
	out := bufio.NewWriter(c.stdout)
	show := func(rec *activity.Record) { fmt.Fprintf(out, "%s\n", rec.Line) }
	if isTerminal(c.stdout) && !*asJSON {
		show = func(rec *activity.Record) { fmt.Fprintln(out, readable(rec)) }
	}
	for {
		rec, err := r.Next()
		switch {
		case ctx.Err() != nil:
			return errors.Join(context.Cause(ctx), out.Flush())
		case err == nil:
			if (!*bad || rec.Bad()) && (names == nil || slices.ContainsFunc(names, rec.IsOf)) {
				show(rec)
			}
			continue
		case !errors.Is(err, io.EOF):
			return errors.Join(err, out.Flush())
		}
		if err := out.Flush(); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		if !*follow {
			return found(r)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(followPause):
		}
	}
}

// found returns an error if the folder has no log.
func found(r *activity.Reader) error {
	if !r.Found() {
		return fmt.Errorf("there is no activity log in %s: is that the daemon's INFERD_LOG_DIR?", r.Dir)
	}
	return nil
}

// reportTorn prints the number of torn lines.
func (c *command) reportTorn(r *activity.Reader) {
	if n := r.Torn(); n > 0 {
		fmt.Fprintf(c.stderr, "inferdctl: torn lines left out: %d (the daemon was killed while it wrote, or is writing)\n", n)
	}
}

// namesOf returns the names that a caller may have in records: the given name, and the uid if the
// name is that of a user. It returns nil, which means all callers, for an empty name.
func namesOf(caller string) []string {
	if caller == "" {
		return nil
	}
	names := []string{caller}
	if u, err := user.Lookup(caller); err == nil {
		names = append(names, u.Uid)
	}
	return names
}

// readable formats a record as a line of text: time, level and event, and then the other members.
func readable(rec *activity.Record) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-5s %s", rec.Time.Local().Format("2006-01-02 15:04:05.000"), plain(rec.Level), plain(rec.Event))
	in := jsontext.NewDecoder(bytes.NewReader(rec.Line))
	_, _ = in.ReadToken() // cannot fail: a record is a complete object
	for in.PeekKind() == '"' {
		name, err := in.ReadToken()
		if err != nil {
			break
		}
		key := name.String()
		value, err := in.ReadValue()
		if err != nil {
			break
		}
		switch key {
		case "t", "level", "msg":
			continue
		case "component":
			if rec.Component == "activity" {
				continue
			}
		}
		text := string(value)
		if value.Kind() == '"' {
			raw, _ := jsontext.AppendUnquote(nil, value) // cannot fail: it is valid
			text = string(raw)
		}
		fmt.Fprintf(&b, "  %s=%s", plain(key), plain(text))
	}
	return b.String()
}

// plain returns text, in quotes if it is not one printable word: clients choose their IDs, and
// control characters must not reach the terminal.
func plain(text string) string {
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r == '"' || r == ' ' || !unicode.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}

// usage prints the numbers of requests and tokens in the activity log, for each user, program,
// entry and model.
func (c *command) usage(ctx context.Context, args []string) error {
	fs := c.flags("usage")
	asJSON := fs.Bool("json", false, "print JSON, even on a terminal")
	var from since
	fs.Var(&from, "since", sinceUsage)
	if _, err := c.parseVerb(fs, args); err != nil {
		return err
	}
	r, err := c.openLog(from)
	if err != nil {
		return err
	}
	defer r.Close()
	var sum activity.Usage
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err := cmp.Or(context.Cause(ctx), err); err != nil {
			return err
		}
		sum.Add(rec)
	}
	c.reportTorn(r)
	if err := found(r); err != nil {
		return err
	}
	if *asJSON || !isTerminal(c.stdout) {
		return c.printJSON(struct {
			From  time.Time       `json:"from,omitzero"`
			To    time.Time       `json:"to,omitzero"`
			Usage []*activity.Sum `json:"usage"`
		}{sum.From, sum.To, sum.Sums()})
	}
	return usageTable(c.stdout, &sum)
}

// usageTable prints the sums as a table.
func usageTable(w io.Writer, sum *activity.Usage) error {
	all := sum.Sums()
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "no requests")
		return err
	}
	const when = "2006-01-02 15:04"
	fmt.Fprintf(w, "requests from %s to %s\n\n", sum.From.Local().Format(when), sum.To.Local().Format(when))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "USER\tPROGRAM\tENTRY\tMODEL\tREQUESTS\tTOKENS IN\tOUT\tERRORS\tGONE")
	for _, s := range all {
		program := cmp.Or(s.Exe, "?")
		if s.Key != "" {
			program = "key " + s.Key
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\n", plain(cmp.Or(s.User, "?")), plain(program),
			plain(cmp.Or(s.Entry, "-")), plain(cmp.Or(s.Model, "-")), s.Requests, s.In, s.Out, s.Errors, s.Gone)
	}
	return t.Flush()
}
