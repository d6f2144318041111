package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/modelname"
	"github.com/inferd-go/inferd/internal/models"
	"github.com/inferd-go/inferd/internal/paths"
	"github.com/inferd-go/inferd/internal/pull"
	"github.com/inferd-go/inferd/internal/status"
)

// pullFlags are the values of the flags of pull.
type pullFlags struct {
	options      pull.Options
	endpointOnly bool
	maxBytes     int64
	asJSON       bool
}

func (f *pullFlags) add(fs *flag.FlagSet) {
	fs.StringVar(&f.options.As, "as", "", "`name` in the store; by default the file's, in lower case")
	fs.BoolVar(&f.options.Update, "update", false, "ask the source even if the model is in the store, or had a wrong digest twice")
	fs.BoolVar(&f.options.NoWait, "no-wait", false, "fail if another process pulls the model, instead of showing its progress")
	fs.BoolVar(&f.endpointOnly, "endpoint-only", false, "connect only to HF_ENDPOINT and OLLAMA_ENDPOINT, and follow no redirect elsewhere")
	fs.Int64Var(&f.maxBytes, "max-bytes", 0, "refuse files above this `size` in bytes; by default 256 GiB")
	fs.BoolVar(&f.asJSON, "json", false, "print lines of JSON on stdout instead of progress")
}

// pull brings models into the store: the named models or, without a name, the models of the config.
func (c *command) pull(ctx context.Context, args []string) error {
	fs := c.flags("pull")
	var flags pullFlags
	flags.add(fs)
	names, err := c.parseVerb(fs, args, "NAME...")
	if err != nil {
		return err
	}
	if flags.options.As != "" && len(names) != 1 {
		return errors.New("--as needs one NAME")
	}
	if flags.maxBytes < 0 {
		return errors.New("--max-bytes must not be negative")
	}
	settings, err := c.modelSettings()
	if err != nil {
		return err
	}
	p, err := c.puller(settings, flags)
	if err != nil {
		return err
	}
	defer p.Store.Close()
	wanted := make([]wantedModel, len(names))
	for i, name := range names {
		wanted[i].typed = name
	}
	if len(names) == 0 {
		if wanted, err = settings.toPull(c.warn); err != nil {
			return err
		}
		if len(wanted) == 0 {
			fmt.Fprintln(c.stderr, "The config names no model that could be pulled; inferdctl pull NAME pulls one by name.")
			return nil
		}
	}
	return c.pullAll(ctx, p, wanted, flags)
}

func (c *command) warn(text string) { fmt.Fprintln(c.stderr, "warning:", text) }

// puller returns a puller for the store of the config, with the endpoints of the environment.
func (c *command) puller(settings modelSettings, flags pullFlags) (*pull.Puller, error) {
	p := &pull.Puller{
		Store: c.modelStore(settings), Agent: "inferdctl/" + version,
		EndpointOnly: flags.endpointOnly, MaxBytes: flags.maxBytes,
	}
	file := ""
	if settings.Catalog != nil {
		file = paths.Default().Expand(*settings.Catalog)
	}
	var err error
	if p.Catalog, err = models.Catalog(file); err != nil {
		return nil, err
	}
	return p, p.Environment(os.Getenv)
}

// A wantedModel is a model to pull: its name, or its description in the config.
type wantedModel struct {
	typed     string
	described pull.Wanted // used if typed is empty
}

// String returns the name of the model for reports, without secrets.
func (w wantedModel) String() string {
	if w.typed != "" {
		return modelname.Public(w.typed)
	}
	return w.described.Name
}

// toPull returns the models of the config that have a name, or both a name and a digest, each once.
// If the config has projectors, which are not pulled, warn receives a message about them.
func (s modelSettings) toPull(warn func(string)) (all []wantedModel, err error) {
	seen := make(map[string]bool)
	add := func(model jsontext.Value) error {
		if seen[string(model)] {
			return nil
		}
		seen[string(model)] = true
		switch model.Kind() {
		case '"':
			var w wantedModel
			err := json.Unmarshal(model, &w.typed)
			all = append(all, w)
			return err
		case '{':
			var object struct {
				Name    string `json:"name"`
				SHA256  string `json:"sha256"`
				Size    int64  `json:"size_bytes"`
				URL     string `json:"source_url"`
				License string `json:"license"`
			}
			if err := json.Unmarshal(model, &object); err != nil {
				return err
			}
			if object.Name != "" && object.SHA256 != "" {
				all = append(all, wantedModel{described: pull.Wanted{
					Name: object.Name, SHA256: object.SHA256, Size: object.Size, SourceURL: object.URL, License: object.License,
				}})
			}
		default: // absent, or of a type that the daemon refuses
		}
		return nil
	}
	if err := add(s.Model); err != nil {
		return nil, fmt.Errorf("config: model: %w", err)
	}
	projectors := 0
	for _, b := range s.Backends {
		if b.Kind != "llamacpp" {
			continue
		}
		if err := add(b.Model); err != nil {
			return nil, fmt.Errorf("config: model of %s: %w", b.Name, err)
		}
		if b.MMProj.Kind() == '{' || b.MMProj.Kind() == '"' {
			projectors++
		}
	}
	if projectors > 0 {
		warn(fmt.Sprintf("the config has %d mmproj, which is not pulled: no engine accepts images yet", projectors))
	}
	return all, nil
}

// pullAll pulls one model after the other. If one fails, it continues with the next.
func (c *command) pullAll(ctx context.Context, p *pull.Puller, wanted []wantedModel, flags pullFlags) error {
	var show pullView = &plainView{out: c.stderr}
	switch {
	case flags.asJSON:
		show = &jsonView{out: c.printLine}
	case isTerminal(c.stderr):
		show = &plainView{out: c.stderr, width: max(widthOf(c.stderr), 40)}
		p.ReportEvery = barTime
	}
	p.Log = slog.New(&viewHandler{show: show})
	var failed []error
	for _, w := range wanted {
		show.begin(w.String())
		var r pull.Result
		var err error
		if w.typed != "" {
			r, err = p.Pull(ctx, w.typed, flags.options, show.phase)
		} else {
			r, err = p.Ensure(ctx, w.described, flags.options, show.phase)
		}
		if err != nil {
			show.end()
			if ctx.Err() != nil {
				fmt.Fprintln(c.stderr, "interrupted: the received bytes are kept, and the same command continues from them")
				return err
			}
			failed = append(failed, err)
			show.failure(err)
			continue
		}
		show.end()
		if err := c.pulled(r, flags.asJSON); err != nil {
			return err
		}
	}
	return errors.Join(failed...)
}

// pulled prints the result of a pull.
func (c *command) pulled(r pull.Result, asJSON bool) error {
	if asJSON {
		line, err := json.Marshal(map[string]any{
			"phase": "done", "name": r.Name, "digest": "sha256:" + r.Digest, "size_bytes": r.Size, "parts": r.Parts,
			"path": r.Path, "fetched_bytes": r.Fetched, "already": r.Already, "projector": r.Projector,
		}, json.Deterministic(true))
		if err != nil {
			return err
		}
		return c.printLine(line)
	}
	what := "pulled"
	if r.Already {
		what = "already there"
	}
	_, err := fmt.Fprintf(c.stdout, "%s: %s, %s, sha256:%s\n", r.Name, what, size(r.Size), r.Digest)
	if r.Projector != "" {
		fmt.Fprintf(c.stderr, "The model has a projector for images, which no engine uses yet: %s\n", r.Projector)
	}
	return err
}

// A pullView shows the progress of pulls.
type pullView interface {
	begin(name string)
	phase(p status.Phase)
	message(text string)
	failure(err error) // of the current pull; the command prints the error when it ends
	end()
}

// A viewHandler shows the log of the puller: retries and warnings.
type viewHandler struct {
	show  pullView
	attrs []slog.Attr
}

// Enabled reports false for levels below Info.
func (h *viewHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// Handle shows a record as a line.
func (h *viewHandler) Handle(_ context.Context, r slog.Record) error {
	var text strings.Builder
	text.WriteString(r.Message)
	sep := ": "
	add := func(a slog.Attr) bool {
		fmt.Fprintf(&text, "%s%s %s", sep, a.Key, a.Value)
		sep = ", "
		return true
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	h.show.message(text.String())
	return nil
}

// WithAttrs returns a handler with further attributes.
func (h *viewHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &viewHandler{h.show, append(slices.Clip(h.attrs), attrs...)}
}

// WithGroup returns h: the puller uses no groups.
func (h *viewHandler) WithGroup(string) slog.Handler { return h }
