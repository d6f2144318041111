package backend

import (
	"context"
	"log/slog"
	"time"

	"github.com/inferd-go/inferd/internal/paths"
	"github.com/inferd-go/inferd/internal/settings"
	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/store"
)

// A Kind is a kind of backend. It owns the settings of its entries.
type Kind struct {
	Name string // in the config, and on the wires
	// New returns the default settings of an entry.
	New func() Settings
	// Start makes the backends of all entries of the kind, in the order of entries, but does not run
	// them. The caller calls stop once all of them have ended, to free their shared resources. Start
	// is nil in a program that only reads the settings.
	Start func(h *Host, entries []*Entry) (all []*Backend, stop func(), err error)
}

// Settings are the settings of one entry that only its kind interprets.
type Settings interface {
	// Table returns the settings that have a row in a table, by which they are read and documented.
	Table() settings.Table
	// ReadModel reads an entry that consists only of a model, which is the member "model" of o. It
	// records errors in o.
	ReadModel(o *settings.Object, e *Entry)
	// Read reads the members of an entry, including those of the table. The name and the limits
	// have been read before. It records errors in o.
	Read(o *settings.Object, e *Entry) (warnings []string)
	// FromFlags completes the settings of an entry that the command line describes, after the flags of
	// the table were set.
	FromFlags(e *Entry, m ModelFlags) error
	// Members returns the members of the entry that are set and have no row in the table. They are
	// needed to print the config.
	Members() map[string]any
	// Role returns how the entry uses its context.
	Role() Role
}

// ModelFlags are the flags that name the model of an entry; all are empty if none is given.
type ModelFlags struct {
	Name   string // --model: a name as in [Model.Name], or builtin:NAME for a generated model
	Path   string // --model-path: a file, or builtin:NAME
	SHA256 string // --model-sha256: digest of the file
}

// A Model is the source of an entry's weights: one of Builtin, Path and Name.
type Model struct {
	Builtin string // name of a generated model
	Path    string // GGUF file
	// Name names a model of the store or of the catalog, or is hf:…, ollama:… or https://…; see
	// package modelname. With a SHA256, a Name is the name of a manifest.
	Name   string
	SHA256 string // of the file, or of the model of that name, in lower-case hex; empty: unknown

	// Facts about a model with a name and a digest; zero values mean unknown.
	URL, License string
	Size         int64 // bytes
}

// A Role is the use of an entry's context.
type Role struct {
	Generates bool // it may generate text, with a context of Limits.NCtx tokens
	Encodes   bool // its settings turn on embedding or reranking
	Prefixes  bool // it may keep the KV of shared prefixes
}

// An Entry is an entry of the config. Names are unique.
type Entry struct {
	Name     string
	Aliases  []string
	Limits            // NCtx and NSlots are not zero
	Shared   []string // system messages; every owner may use their KV
	Kind     *Kind
	Settings Settings
}

// Limits are the resources of an entry. A zero means the default.
type Limits struct {
	NCtx       int // tokens of context for generating, over all slots; default: the catalog's value for the model, else 8192
	NSlots     int // sequences at once; default 4
	Threads    int // compute threads; default: one for each core of the machine
	NGPULayers int // layers on a GPU, if there is one; negative is all; default 0
	MaxStallMS int // maximum milliseconds between tokens of a stream during a prefill; default 100, or 4 steps if longer
	// Exact makes an answer independent, bit for bit, of other requests, both concurrent and earlier.
	Exact bool
}

// A Host has the values and functions of the daemon for backends of all kinds.
type Host struct {
	Log *slog.Logger
	// Publish receives the phases of loading and restarting, from any goroutine.
	Publish func(status.Event)
	// Ready is called each time a loading backend becomes ready.
	Ready func()
	// Open checks and opens the model of an entry. It first pulls a named model that is not in the
	// store. It reports its phases to phase.
	Open func(ctx context.Context, m Model, phase func(status.Phase)) (*store.Model, error)
	// LoadTimeout bounds the time of a load without progress; 0 is the default.
	LoadTimeout time.Duration
	Env         paths.Env
	Dir         string   // absolute path of the folder for files that backends share
	Engine      string   // path of the engine program; empty: the file beside the daemon's executable
	EngineLib   string   // folder of llama.cpp's libraries
	Secrets     []string // names of environment variables that hold keys: no child process gets them
}
