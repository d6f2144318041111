package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"runtime"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire/admin"
)

// admin reports the messages that the admin socket sends to a new client. It returns the abilities
// of the entries, or nil if the daemon cannot be reached or is not ready.
func (d *diagnosis) admin(ctx context.Context, cl *client.Client) []infer.Abilities {
	const label = "admin"
	all := []infer.Abilities{}
	frames := 0
	for s, err := range watchUntilSilent(ctx, cl) {
		if err != nil {
			d.fail(label, "%v", err)
			return nil
		}
		if frames++; frames > statusFrames {
			break
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
	d.fail(label, "%v", errNoState)
	return nil
}

// liveness reports a failure if s says that an engine is silent.
func (d *diagnosis) liveness(s client.Status) {
	var frame struct {
		State string `json:"state"`
	}
	if err := json.Unmarshal(s.Raw, &frame); err == nil && frame.State == "silent" {
		d.fail("backend", "the engine of %s is silent: %s", s.Backend, s.Reason)
	}
}

// watchdog prints a warning on systems where the daemon does not replace wedged engines.
func (d *diagnosis) watchdog() {
	if runtime.GOOS != "linux" {
		d.ok("watchdog", "warning: on this system a wedged engine is reported as silent and not killed: end it yourself")
	}
}

// surfaces connects to each generation, embed and rerank socket that exists, and reports why the
// others do not.
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
	if s.UnknownPeers > 0 {
		d.ok("http", "warning: the users of %d connections over TCP were unknown: such clients need a key, see http.keys", s.UnknownPeers)
	}
	for _, b := range s.Backends {
		d.entry(b)
	}
}

// manyRestarts is the number of restarts within an hour that counts as a failure.
const manyRestarts = 3

// entry reports the CPU libraries and the faults of an entry.
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
