package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path"
	"strings"
	"text/tabwriter"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/internal/corpus"
	"github.com/inferd-go/inferd/internal/listen"
	"github.com/inferd-go/inferd/internal/paths"
)

// conform plays the transcripts in a folder against a daemon of any implementation. It skips and
// counts transcripts that need another config, a hub of models, a socket that is missing, or a
// half-close of a connection that has none.
func (c *command) conform(ctx context.Context, args []string) error {
	set := c.flags("conform")
	verbose := set.Bool("v", false, "print a line for each transcript")
	bytewise := set.Bool("bytewise", false, "send one byte at a time")
	values, err := c.parseVerb(set, args, "DIR")
	if err != nil {
		return err
	}
	all, err := corpus.Load(os.DirFS(values[0]))
	if err != nil {
		return fmt.Errorf("%s: %w", values[0], err)
	}
	cfg, err := canonicalConfig(c.config)
	if err != nil {
		return err
	}
	step := 1 << 30
	if *bytewise {
		step = 1
	}
	t := trial{cl: c.client(wait{}), config: cfg, step: step, byFolder: make(map[string]*tally)}
	for _, script := range all {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		result, detail := t.play(ctx, script)
		if *verbose || result == failed {
			fmt.Fprintf(c.stdout, "%-4s  %s  %s\n", result, script.Name, detail)
		}
	}
	t.print(c.stdout)
	switch {
	case t.sum.passed+t.sum.failed == 0:
		return errors.New("no transcript was played: is a daemon running, with a config of the transcripts (--config FILE)?")
	case t.sum.failed > 0:
		return exit(exitNo)
	}
	return nil
}

// The results of a transcript.
const (
	passed  = "ok"
	failed  = "FAIL"
	skipped = "skip"
)

// A tally counts transcripts by result. The last three are reasons to skip a transcript: it needs
// another config or a hub of models, its socket is missing, or there is no half-close.
type tally struct{ passed, failed, config, socket, half int }

func (t *tally) add(other *tally) {
	t.passed += other.passed
	t.failed += other.failed
	t.config += other.config
	t.socket += other.socket
	t.half += other.half
}

// A trial is one run of all transcripts.
type trial struct {
	cl       *client.Client
	config   string // config of the daemon, in canonical form
	step     int    // bytes per write
	byFolder map[string]*tally
	folders  []string // keys of byFolder, in the order of the transcripts
	sum      tally
}

// play plays a transcript, or skips it, and counts the result.
func (t *trial) play(ctx context.Context, script *corpus.Transcript) (result, detail string) {
	var n tally
	defer func() {
		folder := path.Dir(script.Name)
		if t.byFolder[folder] == nil {
			t.byFolder[folder] = new(tally)
			t.folders = append(t.folders, folder)
		}
		t.byFolder[folder].add(&n)
		t.sum.add(&n)
	}()
	if len(script.Hub) > 0 {
		n.config++
		return skipped, "needs a hub of models, and a daemon that starts"
	}
	if needs, err := canonical(script.Config); err != nil || needs != t.config {
		n.config++
		return skipped, "needs " + strings.TrimSpace(script.Config)
	}
	absent := ""
	err := script.Play(func(leaf string) (net.Conn, error) {
		surface, known := surfaces[leaf]
		if !known {
			return nil, fmt.Errorf("no surface has a socket %q", leaf)
		}
		nc, err := listen.Dial(ctx, t.cl.Path(surface))
		if errors.Is(err, fs.ErrNotExist) {
			absent = t.cl.Path(surface)
		}
		return nc, err
	}, t.step)
	switch {
	case absent != "":
		n.socket++
		return skipped, "there is no " + absent
	case errors.Is(err, corpus.ErrHalfClose): // a pipe cannot be half closed
		n.half++
		return skipped, err.Error()
	case err != nil:
		n.failed++
		return failed, err.Error()
	}
	n.passed++
	return passed, script.About
}

// print prints a table of the counts, by folder.
func (t *trial) print(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(table, "transcripts\tok\tFAIL\tanother config\tno socket\tno half-close\t\n")
	row := func(name string, n *tally) {
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%d\t\n", name, n.passed, n.failed, n.config, n.socket, n.half)
	}
	for _, folder := range t.folders {
		row(folder, t.byFolder[folder])
	}
	row("all", &t.sum)
	_ = table.Flush()
}

// surfaces maps the names of sockets in transcripts to surfaces.
var surfaces = map[string]client.Surface{
	paths.V1Leaf: client.V1, paths.V2Leaf: client.V2, paths.LPLeaf: client.LP, paths.EmbedLeaf: client.Embed,
	paths.RerankLeaf: client.Rerank, paths.AdminLeaf: client.Admin, paths.ControlLeaf: client.Control,
}

// canonicalConfig returns the config in file, or the default config of transcripts if file is
// empty, in canonical form.
func canonicalConfig(file string) (string, error) {
	if file == "" {
		return canonical(corpus.DefaultConfig)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	text, err := canonical(string(raw))
	if err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	return text, nil
}

// canonical returns the canonical form of JSON (RFC 8785).
func canonical(text string) (string, error) {
	v := jsontext.Value(text)
	if err := v.Canonicalize(); err != nil {
		return "", err
	}
	return string(v), nil
}
