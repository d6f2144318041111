// Package status defines the events that describe the daemon: its lifecycle state, the phase of
// loading, and for each entry the capabilities, the state of the breaker and the liveness of the
// engine. They are published on a [Board]. Their wire form is in wire/admin, and package broadcast
// sends them to clients.
package status

import "github.com/inferd-go/inferd/internal/infer"

// Event is a change of state that is sent to subscribers. The set is closed.
//
//sumtype:decl
type Event interface{ event() }

// Starting is the first state, before the config and the models are read.
type Starting struct{}

// Loading reports a phase of loading an entry's model at boot.
type Loading struct {
	Backend string // entry name
	Phase   Phase
}

// Ready means that every socket accepts and every entry answers.
type Ready struct{}

// Restarting reports a phase of the replacement of an entry's engine; other entries are not affected.
type Restarting struct {
	Backend string // entry name
	Phase   Phase
}

// Draining means that the daemon is stopping: running requests may finish, new ones are
// refused.
type Draining struct{}

// Capabilities are the abilities and the device of an entry. They are not a lifecycle event, so
// they never replace the latest lifecycle event in a backlog.
type Capabilities struct {
	Backend     string // entry name
	Abilities   infer.Abilities
	Accelerator string // "cpu", "cuda", "metal", "vulkan" or "rocm"
	GPULayers   int
	DeviceName  string // empty if unknown
	VRAMBytes   uint64 // 0 if unknown
	AudioRate   int    // samples a second; 0 without audio
	// Facts of the entry's model; 0 and empty mean unknown.
	Model                      string // its own name
	NCtx                       int    // tokens of the context
	Params, Size               uint64 // weights, and their bytes
	Architecture, Quantization string
	Template                   string // the source of its chat template, which is not sent to admin

	NoTemplate bool // the entry generates, but its model has no chat template
	Unverified bool // the libraries that compute are not the packaged ones
	// Exact reports that equal requests get answers that are the same bit for bit, whatever other
	// requests run. WantsExact reports that the config demands that; Inexact is the reason if Exact
	// is false nevertheless.
	Exact, WantsExact bool
	Inexact           string
}

// BackendState is the state of an entry's breaker, which determines whether requests go to the
// entry. It is not a lifecycle event.
type BackendState struct {
	Backend string // entry name
	State   string // "closed", "open" or "half_open"
}

// Liveness means that an entry's engine is silent, or responds again. It is not a lifecycle event,
// and is independent of the breaker.
type Liveness struct {
	Backend string // entry name
	Silent  bool
	Reason  string // for the silence
}

// healthy is the BackendState.State that a backlog omits.
const healthy = "closed"

func (Starting) event()     {}
func (Loading) event()      {}
func (Ready) event()        {}
func (Restarting) event()   {}
func (Draining) event()     {}
func (Capabilities) event() {}
func (BackendState) event() {}
func (Liveness) event()     {}

// Phase is a step of loading a model. The set is closed.
//
//sumtype:decl
type Phase interface{ phase() }

// CheckingLocal means that the file of the model is looked for.
type CheckingLocal struct{ Path string }

// Download means that a model is being fetched.
type Download struct {
	Done    uint64 // bytes
	Total   uint64 // bytes of the model; 0 if unknown
	URL     string // without user and query
	Name    string // of the model; empty if unknown
	Digest  string // SHA-256 of the model's first part in hex; empty if unknown
	Resumed uint64 // bytes of Done that an earlier attempt had fetched
	Part    int    // number of the part that is being fetched, of a split model; otherwise 0
	Parts   int    // number of parts of a split model; otherwise 0
}

// Verify means that a file is being compared with its digest.
type Verify struct{ Path string }

// Quarantine means that a file with a wrong digest was moved to the quarantine.
type Quarantine struct {
	Path, Expected, Actual string // the digests are SHA-256 in hex
	MovedTo                string
}

// Mmap means that the weights are being brought into memory.
type Mmap struct {
	Path     string
	Progress float64 // 0 to 1
}

// KVCache means that the KV cache is being allocated.
type KVCache struct{ NCtx int }

// Waiting means that an engine could not start because descriptors, processes or memory are short.
// The start will be retried.
type Waiting struct{ Reason string }

// EngineExited means that an entry's engine has ended and will be restarted.
type EngineExited struct{ Reason string }

// GaveUp means that an entry's engine died too often while loading. It is not restarted until
// an operator requests it.
type GaveUp struct{ Reason string }

func (CheckingLocal) phase() {}
func (Download) phase()      {}
func (Verify) phase()        {}
func (Quarantine) phase()    {}
func (Mmap) phase()          {}
func (KVCache) phase()       {}
func (Waiting) phase()       {}
func (EngineExited) phase()  {}
func (GaveUp) phase()        {}
