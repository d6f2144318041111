// Package admin is the dialect of the admin socket: a line of JSON for each
// [status.Event], told by the daemon to whoever listens. Its server half only writes
// and its client half only reads. It does not know who is told when, which is the
// business of broadcast, and it opens no socket.
package admin

import (
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/status"
)

// The words of the member "status".
const (
	Starting     = "starting"
	Loading      = "loading_model"
	Ready        = "ready"
	Restarting   = "restarting"
	Draining     = "draining"
	Capabilities = "capabilities"
	BackendState = "backend_state"
)

// Values of the member "state" of [BackendState], beside those of the breaker.
const (
	Silent     = "silent"
	Responding = "responding"
)

// wireVersion is what capabilities say of the length-prefixed generation wire.
const wireVersion = 1

// members are those of a frame. A frame is flat, and its keys come sorted.
type members map[string]any

// Encode returns the frame that tells ev, without a newline.
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
	// A path may hold any byte; what is not UTF-8 in it is shown as U+FFFD.
	b, err := json.Marshal(m, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		panic(fmt.Sprintf("internal error: encode %T: %v", ev, err))
	}
	return b
}

// phase adds a phase and, beyond the contract, whose it is.
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
		m["total_bytes"] = nil // the one member that is null when unknown
		if p.Total > 0 {
			m["total_bytes"] = p.Total
		}
		m["source_url"] = p.URL
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

func (m members) capabilities(c status.Capabilities) {
	m["backend"] = c.Backend
	m["v2"] = c.V2
	m["vision"] = c.Vision
	m["audio"] = c.Audio
	m["tools"] = c.Tools
	m["thinking"] = c.Thinking
	m["embed"] = c.Embed
	m["accelerator"] = c.Accelerator
	m["gpu_layers"] = c.GPULayers
	m["wire_version"] = wireVersion
	if c.Rerank {
		m["rerank"] = true
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
	if c.Unverified {
		m["libraries"] = "unverified"
	}
}

// A Frame is what a client reads: the words that it acts on, and the line as it came,
// so that members of a newer daemon get through to whoever knows them.
type Frame struct {
	Status  string // may be a word that this package does not know
	Phase   string // empty where there is none
	Backend string // entry name; empty where none is meant
	Reason  string // why an engine ended, was given up, or is silent
	// Progress is how far the phase is that has one, from 0 to 1.
	Progress float64
	Line     []byte // the frame, without a newline
}

// Decode reads a frame. It keeps a copy of line. What is not a JSON object, or lacks
// the member "status", is refused; members and words that it does not know are not.
func Decode(line []byte) (Frame, error) {
	var m struct {
		Status  string `json:"status"`
		Phase   string `json:"phase"`
		Backend string `json:"backend"`
		Reason  string `json:"reason"`

		Progress float64 `json:"progress"`
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return Frame{}, fmt.Errorf("decode admin frame: %w", err)
	}
	if m.Status == "" {
		return Frame{}, fmt.Errorf("decode admin frame: it has no status")
	}
	return Frame{Status: m.Status, Phase: m.Phase, Backend: m.Backend, Reason: m.Reason, Progress: m.Progress, Line: slices.Clone(line)}, nil
}

// Lifecycle reports whether the frame says what state the daemon is in. Capabilities
// do not, and neither does a status that this package does not know.
func (f Frame) Lifecycle() bool {
	switch f.Status {
	case Starting, Loading, Ready, Restarting, Draining:
		return true
	default:
		return false
	}
}
