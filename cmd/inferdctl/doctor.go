package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/internal/activity"
	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/backend/llamacpp"
	"github.com/inferd-go/inferd/internal/backend/mock"
	"github.com/inferd-go/inferd/internal/config"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/libraries"
	"github.com/inferd-go/inferd/internal/models"
	"github.com/inferd-go/inferd/internal/paths"
	"github.com/inferd-go/inferd/internal/pull"
	"github.com/inferd-go/inferd/internal/store"
	"github.com/inferd-go/inferd/internal/trust"
	"github.com/inferd-go/inferd/internal/wire/admin"
)

// A diagnosis prints findings and notes failures.
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

// doctor checks the requirements of a daemon and the reports of the running one, with one line
// each. Without a running daemon it reports a failure, and makes all other checks.
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

// config reads the daemon's config file. It returns nil if the other checks cannot use it.
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
		d.ok(label, "%s names no model: the daemon's flags must", file)
		return nil
	case err != nil:
		d.fail(label, "%v", err)
		return nil
	}
	d.ok(label, "%s, %d backends", file, len(cfg.Backends))
	return cfg
}

// engine looks for the program and the libraries of engines, if an entry needs one.
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

// kinds are those of the daemon, without the code that starts them.
var kinds = []*backend.Kind{&llamacpp.Kind, &mock.Kind}

// model looks for the model of an entry. One by name that is missing is no failure if the daemon
// pulls it.
func (d *diagnosis) model(e *backend.Entry, cfg *config.Config) {
	label := "model[" + e.Name + "]"
	s, hasModel := e.Settings.(*llamacpp.Settings)
	switch {
	case !hasModel:
		d.ok(label, "a %s needs none", e.Kind.Name)
	case s.Model.Builtin != "":
		d.ok(label, "built-in %s", s.Model.Builtin)
	case s.Model.Name != "":
		d.named(label, s.Model, cfg)
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

// named looks for a model by name in the store, without reading its blobs.
func (d *diagnosis) named(label string, m backend.Model, cfg *config.Config) {
	catalog, err := models.Catalog(cfg.Catalog)
	if err != nil {
		d.fail(label, "%v", err)
		return
	}
	p := &pull.Puller{Store: &store.Store{Home: cfg.ModelsHome}, Catalog: catalog}
	defer p.Store.Close()
	ref, there, err := (&models.Source{Puller: p}).Known(m)
	switch {
	case err != nil:
		d.fail(label, "%v", err)
	case there:
		d.ok(label, "%s in %s", ref.Name, cfg.ModelsHome)
	case cfg.AutoPull:
		d.ok(label, "%s is not in the model store yet: the daemon pulls it", m.Name)
	default:
		d.fail(label, "%s is not in the model store, and auto_pull is false: run inferdctl pull %s", m.Name, m.Name)
	}
}

// folder checks that other users cannot replace the daemon's sockets.
func (d *diagnosis) folder(dir string) {
	const label = "sockets"
	if runtime.GOOS == "windows" {
		return // pipes have no folder
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

// record checks that the activity log can be written, by writing a file and removing it: the disk
// may be full.
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

// admin reads the backlog of the admin socket. It returns the abilities of the entries, or nil
// without a ready daemon.
func (d *diagnosis) admin(ctx context.Context, cl *client.Client) []infer.Abilities {
	const label = "admin"
	all := []infer.Abilities{}
	for s, err := range watchUntilSilent(ctx, cl) {
		if err != nil {
			d.fail(label, "%v", err)
			return nil
		}
		if s.State == "capabilities" {
			caps, version, err := admin.DecodeCapabilities(s.Raw)
			if err != nil {
				d.fail("backend", "%s: %v", s.Backend, err)
				continue
			}
			can := caps.Abilities
			all = append(all, can)
			d.ok("backend", "%s accelerator=%s gpu_layers=%d wire_version=%d v2=%t vision=%t audio=%t tools=%t thinking=%t embed=%t rerank=%t",
				s.Backend, caps.Accelerator, caps.GPULayers, version, can.Generate, can.Vision, can.Audio, can.Tools, can.Thinking, can.Embed, can.Rerank)
			if can.ToolsDialect != "" {
				d.ok("backend", "%s spells the calls of tools as %s", s.Backend, can.ToolsDialect)
			}
			if caps.NoTemplate {
				d.ok("backend", "warning: the model of %s has no chat template: conversations are written as plain text, and answers may be poor; use an instruction-tuned model", s.Backend)
			}
			if caps.VRAMBytes > 0 {
				d.ok("device", "%s vram=%.1f GiB", caps.DeviceName, float64(caps.VRAMBytes)/(1<<30))
			}
			continue
		}
		if s.State == "backend_state" {
			d.liveness(s)
			continue
		}
		if s.Ready() {
			d.ok(label, "the daemon at %s is ready", cl.Path(client.Admin))
			return all
		}
		if s.Lifecycle() {
			d.fail(label, "%s", strings.TrimSpace("the daemon is not ready: "+s.String()+" "+s.Reason))
			return nil
		}
	}
	return all
}

// liveness reports an engine that is published as silent.
func (d *diagnosis) liveness(s client.Status) {
	var frame struct {
		State string `json:"state"`
	}
	if err := json.Unmarshal(s.Raw, &frame); err == nil && frame.State == "silent" {
		d.fail("backend", "the engine of %s is silent: %s", s.Backend, s.Reason)
	}
}

// watchdog warns on systems without replacement of wedged engines.
func (d *diagnosis) watchdog() {
	if runtime.GOOS != "linux" {
		d.ok("watchdog", "warning: on this system a wedged engine is reported as silent and not killed: end it yourself")
	}
}

// surfaces connects to every socket that the entries should have.
func (d *diagnosis) surfaces(ctx context.Context, cl *client.Client, backends []infer.Abilities) {
	var generates, embeds, reranks bool
	for _, b := range backends {
		generates = generates || b.Generate
		embeds = embeds || b.Embed
		reranks = reranks || b.Rerank
	}
	for _, s := range []struct {
		surface client.Surface
		due     bool
	}{{client.V1, generates}, {client.V2, generates}, {client.LP, generates}, {client.Embed, embeds}, {client.Rerank, reranks}} {
		label := "surface[" + string(s.surface) + "]"
		if _, err := os.Lstat(cl.Path(s.surface)); errors.Is(err, os.ErrNotExist) {
			why := "no entry can serve it"
			if s.due {
				why = "it is switched off"
			}
			d.ok(label, "not bound: %s", why)
			continue
		}
		conn, err := cl.Dial(ctx, s.surface)
		if err != nil {
			d.fail(label, "%v", err)
			continue
		}
		_ = conn.Close()
		d.ok(label, "%s accepts", cl.Path(s.surface))
	}
}

func (d *diagnosis) control(ctx context.Context, cl *client.Client) {
	const label = "control"
	s, err := cl.Stats(ctx)
	if err != nil {
		d.fail(label, "%v", err)
		return
	}
	d.ok(label, "inferd %s: %d running, %d waiting", s.Version, s.Running, s.Waiting)
	if s.LogLost > 0 {
		d.fail(recordLabel, "the daemon has lost %d lines: was the disk full, or the folder gone?", s.LogLost)
	} else {
		d.ok(recordLabel, "the daemon has lost no line")
	}
	for _, b := range s.Backends {
		d.entry(b)
	}
}

// manyRestarts is the number of restarts within an hour that counts as a failure.
const manyRestarts = 3

// entry reports the faults of an entry.
func (d *diagnosis) entry(b client.BackendStats) {
	const label = "backend"
	if b.CPUVariant != "" || b.Libraries != "" {
		d.ok(label, "%s computes with the CPU variant %s of %s libraries", b.Name, cmp.Or(b.CPUVariant, "(unknown)"), cmp.Or(b.Libraries, "unknown"))
	}
	if b.Inexact != "" {
		d.fail(label, "%s is not exact, though its config asks for it: %s", b.Name, b.Inexact)
	}
	if b.State == "gave_up" {
		d.fail(label, "%s was given up: fix the cause, then run inferdctl retry %s", b.Name, b.Name)
	}
	if b.Breaker == "open" || b.Breaker == "half_open" {
		d.fail(label, "%s keeps failing: it gets one request every 30 s as a trial; the daemon's log has the errors", b.Name)
	}
	if b.RestartsHour >= manyRestarts {
		d.fail(label, "%s was restarted %d times within an hour: the daemon's log has the reasons", b.Name, b.RestartsHour)
	}
	if b.WedgedKills > 0 {
		d.ok(label, "warning: %s: the watchdog killed %d wedged engines, the last one for: %s; the daemon's log has its stacks", b.Name, b.WedgedKills, b.LastKill)
	}
	if b.Silent {
		d.fail(label, "%s does not report: its engine (process %d) is stopped, or the machine is too busy", b.Name, b.PID)
	}
	if e := b.Engine; e != nil && e.KVSize > 0 && e.KVUsed >= e.KVSize-e.KVSize/20 {
		d.ok(label, "warning: the cache of %s is full, %d of %d tokens: requests take turns; a larger n_ctx lets more run at once", b.Name, e.KVUsed, e.KVSize)
	}
}
