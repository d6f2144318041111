// Package status says what the daemon is doing: which lifecycle state it is in,
// which phase of loading, and what each of its backends can do. It holds the words
// and the [Board] on which they are published; how they look on a wire is the
// business of wire/admin, and who listens that of broadcast.
package status

// Event is something that a watcher of the daemon is told. The set is closed.
//
//sumtype:decl
type Event interface{ event() }

// Starting is the first state, before config and models are looked at.
type Starting struct{}

// Loading says how far an entry's model is on its way into memory at boot.
type Loading struct {
	Backend string // entry name
	Phase   Phase
}

// Ready means that every socket accepts and every entry answers.
type Ready struct{}

// Restarting means that an entry's engine is being replaced; the others serve on.
type Restarting struct {
	Backend string // entry name
	Phase   Phase
}

// Draining means that the daemon has been told to stop: running requests may
// finish, no new one is taken.
type Draining struct{}

// Capabilities says what an entry can do. It is kept apart from the lifecycle:
// it never replaces the state that a newcomer is told.
type Capabilities struct {
	Backend     string // entry name
	V2          bool
	Vision      bool
	Audio       bool
	Tools       bool
	Thinking    bool
	Embed       bool
	Rerank      bool
	Accelerator string // "cpu", "cuda", "metal", "vulkan" or "rocm"
	GPULayers   int
	DeviceName  string // empty if unknown
	VRAMBytes   uint64 // 0 if unknown
	AudioRate   int    // samples a second; 0 without audio
	Unverified  bool   // the libraries that compute are not the packaged ones
}

// BackendState says that requests go to an entry, or do not, because it has failed too
// often of late. Like Capabilities it is kept apart from the lifecycle.
type BackendState struct {
	Backend string // entry name
	State   string // of its breaker: "closed", "open" or "half_open"
}

// Liveness says that an entry's engine is silent, or that it responds again. It is kept
// apart from the lifecycle and from the state of the breaker.
type Liveness struct {
	Backend string // entry name
	Silent  bool
	Reason  string // why it is silent
}

// healthy is the state that nobody has to be told of.
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

// CheckingLocal looks for the model's file.
type CheckingLocal struct{ Path string }

// Download fetches a model.
type Download struct {
	Done  uint64 // bytes
	Total uint64 // bytes; 0 if unknown
	URL   string
}

// Verify compares a file with its digest.
type Verify struct{ Path string }

// Quarantine has put aside a file whose digest is wrong.
type Quarantine struct {
	Path, Expected, Actual string // the digests are SHA-256 in hex
	MovedTo                string
}

// Mmap brings the weights into memory.
type Mmap struct {
	Path     string
	Progress float64 // 0 to 1
}

// KVCache makes room for the context.
type KVCache struct{ NCtx int }

// Waiting means that an engine cannot be started for want of descriptors, processes or
// memory, and that it is tried again.
type Waiting struct{ Reason string }

// EngineExited says that an entry's engine is gone and will be started again.
type EngineExited struct{ Reason string }

// GaveUp says that an entry's engine died too often while loading and is not
// started again until an operator says so.
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
