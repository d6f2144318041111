package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/internal/activity"
	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/backend/llamacpp"
	"github.com/inferd-go/inferd/internal/backend/mock"
	"github.com/inferd-go/inferd/internal/config"
	"github.com/inferd-go/inferd/internal/libraries"
	"github.com/inferd-go/inferd/internal/models"
	"github.com/inferd-go/inferd/internal/paths"
	"github.com/inferd-go/inferd/internal/pull"
	"github.com/inferd-go/inferd/internal/store"
	"github.com/inferd-go/inferd/internal/trust"
)

// A diagnosis prints findings and records whether there was a failure.
type diagnosis struct {
	w      io.Writer
	failed bool
}

func (d *diagnosis) ok(label, format string, args ...any) {
	fmt.Fprintf(d.w, "[ ok ] %s: %s\n", label, cleanLines(fmt.Sprintf(format, args...)))
}

func (d *diagnosis) fail(label, format string, args ...any) {
	d.failed = true
	fmt.Fprintf(d.w, "[FAIL] %s: %s\n", label, cleanLines(fmt.Sprintf(format, args...)))
}

// doctor checks the requirements of a daemon and the reports of the running one, and prints a line
// for each check. If no daemon is ready, it reports a failure, and leaves out only the checks of
// the running daemon.
func (c *command) doctor(ctx context.Context, args []string) error {
	if _, err := c.parseVerb(c.flags("doctor"), args); err != nil {
		return err
	}
	d := &diagnosis{w: c.stdout}
	cl := c.client(wait{})
	cfg := d.config(c.config)
	if cfg != nil {
		d.engine(ctx, cfg)
		for _, b := range cfg.Backends {
			d.model(b, cfg)
		}
	}
	d.models(c)
	d.folder(filepath.Dir(cl.Path(client.Admin)))
	d.record(c.logFolder())
	backends := d.admin(ctx, cl)
	if backends != nil {
		d.surfaces(ctx, cl, backends)
		d.control(ctx, cl)
		d.watchdog()
	}
	if d.failed {
		return exit(exitNo)
	}
	return nil
}

// config reads the daemon's config file; an empty name means the default file. It returns nil if
// the file is invalid or names no model.
func (d *diagnosis) config(file string) *config.Config {
	const label = "config"
	var args []string
	if file != "" {
		args = []string{"--config", file}
	}
	env := paths.Default()
	if file == "" {
		file = env.ConfigFile()
	}
	flags, err := config.ParseFlags(args, env, kinds, io.Discard)
	if err != nil {
		d.fail(label, "%v", err)
		return nil
	}
	cfg, err := config.Load(&flags, env)
	defer func() {
		for _, w := range cfg.Warnings {
			d.ok(label, "warning: %s", w)
		}
	}()
	switch {
	case errors.Is(err, config.ErrNoModel):
		d.ok(label, "%s names no model: name one in the daemon's flags", file)
		return nil
	case err != nil:
		d.fail(label, "%v", err)
		return nil
	}
	d.ok(label, "%s, %d backends", file, len(cfg.Backends))
	return cfg
}

// engine looks for the program and the libraries of engines, if an entry needs them.
func (d *diagnosis) engine(ctx context.Context, cfg *config.Config) {
	const label = "engine"
	if !slices.ContainsFunc(cfg.Backends, func(e *backend.Entry) bool { return e.Kind == &llamacpp.Kind }) {
		return
	}
	env := paths.Default()
	folder, err := libraries.At(cfg.EngineLib, env.EngineDir(), paths.EngineVersion)
	if err != nil {
		d.fail(label, "%v", err)
		return
	}
	set, err := folder.Check(ctx)
	switch {
	case err != nil:
		d.fail(label, "%v", err)
		return
	case set.Verified:
		d.ok(label, "llama.cpp's libraries in %s are verified", folder.Path)
	default:
		d.ok(label, "warning: llama.cpp's libraries in %s are unverified: it is not the folder that \"make engine\" makes", folder.Path)
	}
	memory := &libraries.Memory{Path: env.VariantsFile(), Processor: libraries.ThisProcessor()}
	avoid, err := memory.Avoid(set.Digest)
	if err != nil {
		d.ok(label, "warning: %v", err)
	}
	if len(avoid) > 0 {
		d.ok(label, "warning: CPU variants that ended with an illegal instruction are avoided: %s; remove %s to try them again", strings.Join(avoid, ", "), memory.Path)
	}
}

// kinds are the kinds of backends that the daemon has, without the code that starts them.
var kinds = []*backend.Kind{&llamacpp.Kind, &mock.Kind}

// model looks for the model of an entry. A named model that is missing from the store is a failure
// only if the daemon does not pull it.
func (d *diagnosis) model(e *backend.Entry, cfg *config.Config) {
	label := "model[" + e.Name + "]"
	s, hasModel := e.Settings.(*llamacpp.Settings)
	switch {
	case !hasModel:
		d.ok(label, "a %s needs none", e.Kind.Name)
	case s.Model.Builtin != "":
		d.ok(label, "built-in %s", s.Model.Builtin)
	case s.Model.Name != "":
		d.namedModel(label, s.Model, cfg)
	default:
		info, err := os.Stat(s.Model.Path)
		switch {
		case err != nil:
			d.fail(label, "%v", err)
		case !info.Mode().IsRegular():
			d.fail(label, "%s is not a regular file", s.Model.Path)
		default:
			d.ok(label, "%s, %.1f GB", s.Model.Path, float64(info.Size())/1e9)
		}
	}
}

// namedModel looks up a model by name in the store. It reads no blobs.
func (d *diagnosis) namedModel(label string, m backend.Model, cfg *config.Config) {
	catalog, err := models.Catalog(cfg.Catalog)
	if err != nil {
		d.fail(label, "%v", err)
		return
	}
	p := &pull.Puller{Store: &store.Store{Home: cfg.ModelsHome}, Catalog: catalog}
	defer p.Store.Close()
	ref, stored, err := (&models.Source{Puller: p}).Known(m)
	switch {
	case err != nil:
		d.fail(label, "%v", err)
	case stored:
		d.ok(label, "%s in %s", ref.Name, cfg.ModelsHome)
	case cfg.AutoPull:
		d.ok(label, "%s is not in the model store yet: the daemon pulls it", m.Name)
	default:
		d.fail(label, "%s is not in the model store, and auto_pull is false: run inferdctl pull %s", m.Name, m.Name)
	}
}

// folder checks that other users cannot replace the sockets of the daemon.
func (d *diagnosis) folder(dir string) {
	const label = "sockets"
	if runtime.GOOS == "windows" {
		return // pipes are in no folder
	}
	info, err := os.Stat(dir)
	if err == nil {
		err = trust.Folder(dir)
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		d.ok(label, "%s does not exist yet: the daemon makes it", dir)
	case err != nil:
		d.fail(label, "%v", err)
	default:
		d.ok(label, "%s, mode %04o", dir, info.Mode().Perm())
	}
}

const recordLabel = "activity log"

// record checks that the activity log can be written, and that other users cannot replace it. It
// writes a file and removes it, since the disk may be full.
func (d *diagnosis) record(dir string) {
	if dir == "" {
		d.ok(recordLabel, "warning: there is none without INFERD_LOG_DIR or a home")
		return
	}
	switch _, err := os.Stat(dir); {
	case errors.Is(err, os.ErrNotExist):
		d.ok(recordLabel, "%s does not exist yet: the daemon makes it", dir)
		return
	case err != nil:
		d.fail(recordLabel, "%v", err)
		return
	}
	if err := tryWriting(dir); err != nil {
		d.fail(recordLabel, "lines are lost: %v", err)
		return
	}
	for _, err := range []error{trust.Folder(dir), trust.Path(filepath.Join(dir, activity.File))} {
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			d.fail(recordLabel, "%v", err)
			return
		}
	}
	files, size := 0, int64(0)
	for _, name := range activity.Files(dir) {
		if info, err := os.Stat(name); err == nil {
			files, size = files+1, size+info.Size()
		}
	}
	d.ok(recordLabel, "%s can be written to; %d files, %.1f MB", dir, files, float64(size)/1e6)
}

// tryWriting writes a file and removes it.
func tryWriting(dir string) error {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return err
	}
	_, err = f.WriteString("\n")
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}
