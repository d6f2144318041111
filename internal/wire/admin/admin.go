// Package admin is the dialect of the admin socket: the daemon sends a line of JSON, called a
// frame, for each [status.Event]. The server half only writes, and the client half only reads. The
// package opens no socket; when events are sent, and to which clients, is up to package broadcast.
package admin

import (
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/status"
)

// The values of the member "status".
const (
	Starting     = "starting"
	Loading      = "loading_model"
	Ready        = "ready"
	Restarting   = "restarting"
	Draining     = "draining"
	Capabilities = "capabilities"
	BackendState = "backend_state"
)

// Values of the member "state" of [BackendState], in addition to those of the breaker.
const (
	Silent     = "silent"
	Responding = "responding"
)

// wireVersion is the version of length-prefixed generation that capabilities report.
const wireVersion = 1

// noTemplate is the value of "chat_template" if the model has no template.
const noTemplate = "none"

// unverified is the value of "libraries" if the libraries are not the packaged ones.
const unverified = "unverified"

// members are the members of a frame, which has no nested objects. Encode sorts them by name.
type members map[string]any

// Encode returns the frame of ev, without a newline.
func Encode(ev status.Event) []byte {
	m := members{"id": "admin", "type": "status"}
	switch ev := ev.(type) {
	case status.Starting:
		m["status"] = Starting
	case status.Ready:
		m["status"] = Ready
	case status.Draining:
		m["status"] = Draining
	case status.Loading:
		m["status"] = Loading
		m.phase(ev.Backend, ev.Phase)
	case status.Restarting:
		m["status"] = Restarting
		m.phase(ev.Backend, ev.Phase)
	case status.Capabilities:
		m["status"] = Capabilities
		m.capabilities(ev)
	case status.BackendState:
		m["status"] = BackendState
		m["backend"] = ev.Backend
		m["state"] = ev.State
	case status.Liveness:
		m["status"] = BackendState
		m["backend"] = ev.Backend
		m["state"] = Responding
		if ev.Silent {
			m["state"] = Silent
			m["reason"] = ev.Reason
		}
	}
	// A path may contain any bytes; invalid UTF-8 becomes U+FFFD.
	b, err := json.Marshal(m, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		panic(fmt.Sprintf("internal error: encode %T: %v", ev, err))
	}
	return b
}

// phase adds the members of a phase and, as an extension to the protocol of the reference daemon, the
// name of the entry.
func (m members) phase(backend string, p status.Phase) {
	if backend != "" {
		m["backend"] = backend
	}
	switch p := p.(type) {
	case status.CheckingLocal:
		m["phase"] = "checking_local"
		m["path"] = p.Path
	case status.Download:
		m["phase"] = "download"
		m["downloaded_bytes"] = p.Done
		m["total_bytes"] = nil // the only member that is null if unknown
		if p.Total > 0 {
			m["total_bytes"] = p.Total
		}
		m["source_url"] = p.URL
		m.download(p)
	case status.Verify:
		m["phase"] = "verify"
		m["path"] = p.Path
	case status.Quarantine:
		m["phase"] = "quarantine"
		m["path"] = p.Path
		m["expected_sha256"] = p.Expected
		m["actual_sha256"] = p.Actual
		m["quarantine_path"] = p.MovedTo
	case status.Mmap:
		m["phase"] = "mmap"
		m["path"] = p.Path
		if p.Progress > 0 {
			m["progress"] = min(p.Progress, 1)
		}
	case status.KVCache:
		m["phase"] = "kv_cache"
		m["n_ctx"] = p.NCtx
	case status.Waiting:
		m["phase"] = "waiting"
		m["reason"] = p.Reason
	case status.EngineExited:
		m["phase"] = "engine_exited"
		m["reason"] = p.Reason
	case status.GaveUp:
		m["phase"] = "gave_up"
		m["reason"] = p.Reason
	}
}

// download adds the members of a download that extend the protocol of the reference daemon, if their
// values are known.
func (m members) download(p status.Download) {
	if p.Name != "" {
		m["name"] = p.Name
	}
	if p.Resumed > 0 {
		m["resumed_bytes"] = p.Resumed
	}
	if p.Parts > 0 {
		m["part"] = p.Part
		m["parts"] = p.Parts
	}
}

func (m members) capabilities(c status.Capabilities) {
	m["backend"] = c.Backend
	can := c.Abilities
	m["v2"] = can.Generate
	m["vision"] = can.Vision
	m["audio"] = can.Audio
	m["tools"] = can.Tools
	m["thinking"] = can.Thinking
	m["embed"] = can.Embed
	m["accelerator"] = c.Accelerator
	m["gpu_layers"] = c.GPULayers
	m["wire_version"] = wireVersion
	if can.ToolsDialect != "" {
		m["tools_dialect"] = can.ToolsDialect
	}
	if can.Rerank {
		m["rerank"] = true
	}
	if can.Infill {
		m["fim"] = true
	}
	if c.DeviceName != "" {
		m["device_name"] = c.DeviceName
	}
	if c.VRAMBytes > 0 {
		m["vram_total_bytes"] = c.VRAMBytes
	}
	if c.AudioRate > 0 {
		m["audio_sample_rate"] = c.AudioRate
	}
	m.facts(c)
	if c.NoTemplate {
		m["chat_template"] = noTemplate
	}
	if c.Unverified {
		m["libraries"] = unverified
	}
	if c.WantsExact {
		m["exact"] = c.Exact
	}
	if c.Inexact != "" {
		m["inexact"] = c.Inexact
	}
}

// facts adds the known facts about the entry's model.
func (m members) facts(c status.Capabilities) {
	for name, text := range map[string]string{"model": c.Model, "architecture": c.Architecture, "quantization": c.Quantization} {
		if text != "" {
			m[name] = text
		}
	}
	for name, n := range map[string]uint64{"n_ctx": uint64(max(c.NCtx, 0)), "n_params": c.Params, "size_bytes": c.Size} {
		if n > 0 {
			m[name] = n
		}
	}
}

// Facts describe an entry's model. An unknown fact is zero.
type Facts struct {
	Model        string `json:"model"` // the model's own name
	Architecture string `json:"architecture"`
	Quantization string `json:"quantization"`
	NCtx         int    `json:"n_ctx"`      // tokens
	Params       uint64 `json:"n_params"`   // weights
	Size         uint64 `json:"size_bytes"` // of the weights
}

// DecodeCapabilities decodes a frame with the status [Capabilities]. version is the version of
// length-prefixed generation. Missing members become zero values.
func DecodeCapabilities(line []byte) (c status.Capabilities, version int, err error) {
	var m struct {
		Backend     string `json:"backend"`
		V2          bool   `json:"v2"`
		Vision      bool   `json:"vision"`
		Audio       bool   `json:"audio"`
		Tools       bool   `json:"tools"`
		Dialect     string `json:"tools_dialect"`
		Thinking    bool   `json:"thinking"`
		Embed       bool   `json:"embed"`
		Rerank      bool   `json:"rerank"`
		Infill      bool   `json:"fim"`
		Accelerator string `json:"accelerator"`
		GPULayers   int    `json:"gpu_layers"`
		Version     int    `json:"wire_version"`
		DeviceName  string `json:"device_name"`
		VRAMBytes   uint64 `json:"vram_total_bytes"`
		AudioRate   int    `json:"audio_sample_rate"`
		Template    string `json:"chat_template"`
		Libraries   string `json:"libraries"`
		Exact       *bool  `json:"exact"`
		Inexact     string `json:"inexact"`
		Facts
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return status.Capabilities{}, 0, fmt.Errorf("decode capabilities: %w", err)
	}
	return status.Capabilities{
		Backend: m.Backend,
		Abilities: infer.Abilities{
			Generate: m.V2, Embed: m.Embed, Rerank: m.Rerank, Infill: m.Infill,
			Vision: m.Vision, Audio: m.Audio, Tools: m.Tools, ToolsDialect: m.Dialect, Thinking: m.Thinking,
		},
		Accelerator: m.Accelerator, GPULayers: m.GPULayers,
		DeviceName: m.DeviceName, VRAMBytes: m.VRAMBytes, AudioRate: m.AudioRate,
		Model: m.Model, NCtx: m.NCtx, Params: m.Params, Size: m.Size, Architecture: m.Architecture, Quantization: m.Quantization,
		NoTemplate: m.Template == noTemplate, Unverified: m.Libraries == unverified,
		WantsExact: m.Exact != nil, Exact: m.Exact != nil && *m.Exact, Inexact: m.Inexact,
	}, m.Version, nil
}

// A Frame is a decoded frame, for clients. It has the members that clients act on, and the whole
// line: a newer daemon may send further members.
type Frame struct {
	Status  string // may be unknown to this package
	Phase   string // empty if there is none
	Backend string // entry name; empty if the frame is about the daemon
	Reason  string // why an engine ended, was given up or is silent
	// Progress is the progress of the phase, from 0 to 1; it is 0 if the phase has none.
	Progress float64
	Facts    Facts  // of [Capabilities]
	Line     []byte // the frame, without a newline
}

// Decode decodes a frame, and keeps a copy of line. It returns an error if line is not a JSON
// object with a member "status", or if a known member has the wrong type or occurs twice. Unknown
// members and values are accepted.
func Decode(line []byte) (Frame, error) {
	var m struct {
		Status  string `json:"status"`
		Phase   string `json:"phase"`
		Backend string `json:"backend"`
		Reason  string `json:"reason"`

		Progress float64 `json:"progress"`

		Downloaded uint64 `json:"downloaded_bytes"`
		Total      uint64 `json:"total_bytes"`
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return Frame{}, fmt.Errorf("decode admin frame: %w", err)
	}
	if m.Status == "" {
		return Frame{}, fmt.Errorf("decode admin frame: no status")
	}
	if m.Phase == "download" && m.Total > 0 {
		m.Progress = min(float64(m.Downloaded)/float64(m.Total), 1)
	}
	f := Frame{Status: m.Status, Phase: m.Phase, Backend: m.Backend, Reason: m.Reason, Progress: m.Progress, Line: slices.Clone(line)}
	if f.Status == Capabilities {
		if err := json.Unmarshal(line, &f.Facts); err != nil {
			return Frame{}, fmt.Errorf("decode capabilities: %w", err)
		}
	}
	return f, nil
}

// Lifecycle reports whether the frame has a lifecycle state of the daemon. Capabilities, the state
// of an entry and an unknown status are none.
func (f Frame) Lifecycle() bool {
	switch f.Status {
	case Starting, Loading, Ready, Restarting, Draining:
		return true
	default:
		return false
	}
}
