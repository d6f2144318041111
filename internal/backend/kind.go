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
	// Start makes the backends of all entries of the kind, in their order, but does not run them.
	// stop frees their shared resources after all of them have ended. Start is nil in a program that
	// only reads the settings.
	Start func(h *Host, entries []*Entry) (all []*Backend, stop func(), err error)
}

// Settings are the settings of one entry that only its kind knows.
type Settings interface {
	// Table returns the settings that are read and documented from a table.
	Table() settings.Table
	// ReadModel reads an entry of which nothing but the model is given: the member "model" of o.
	// Errors are kept by o.
	ReadModel(o *settings.Object, e *Entry)
	// Read reads the members of an entry, including those of the table, after the name and the
	// limits. o keeps errors.
	Read(o *settings.Object, e *Entry) (warnings []string)
	// FromFlags completes the settings of an entry that the command line describes: the flags of
	// the table are set.
	FromFlags(e *Entry, m ModelFlags) error
	// Members returns the members of the entry that have no row in the table, for a config that is
	// shown. Absent ones are left out.
	Members() map[string]any
	// Role returns the use of the entry's limits.
	Role() Role
}

// ModelFlags name the model of an entry on the command line; all are empty if none is named.
type ModelFlags struct {
	Name   string // --model: as [Model.Name]; "builtin:" and the name of a generated model
	Path   string // --model-path: a file; "builtin:" as above
	SHA256 string // --model-sha256: digest of the file
}

// A Model says where the weights of an entry come from: one of Builtin, Path and Name.
type Model struct {
	Builtin string // name of a generated model
	Path    string // GGUF file
	// Name is a model of the store or of the catalog, or hf:…, ollama:…, https://…: see package
	// modelname. With SHA256 it is the name of a manifest.
	Name   string
	SHA256 string // of the file, or of the model of that name, in lower-case hex; empty: unknown

	// Of a model with a name and a digest; zero values are unknown.
	URL, License string
	Size         int64 // bytes
}

// A Role is the use of an entry's context.
type Role struct {
	Generates bool // it may generate text on Limits.NCtx tokens
	Encodes   bool // it is asked to embed or to rerank
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
	NCtx       int // tokens of context to generate with, over all slots; default: that of the model in the catalog, else 8192
	NSlots     int // sequences at once; default 4
	Threads    int // compute threads; default: the cores, shared among the engines
	NGPULayers int // layers on a GPU, if there is one; negative is all; default 0
	MaxStallMS int // between two tokens of a stream while prompts are prefilled; default 100, or 4 steps
	// Exact makes the bits of an answer independent of other requests, present and earlier.
	Exact bool
}

// A Host has the values and functions of the daemon for backends of all kinds.
type Host struct {
	Log *slog.Logger
	// Publish receives the phases of loading and restarting, from any goroutine.
	Publish func(status.Event)
	// Ready is called each time a backend that was loading has become ready.
	Ready func()
	// Open opens the model of an entry, checked. A model by name that is not in the store is
	// pulled first. Phases are reported to phase.
	Open func(ctx context.Context, m Model, phase func(status.Phase)) (*store.Model, error)
	// LoadTimeout bounds the time of a load without progress; 0 is the default.
	LoadTimeout time.Duration
	Env         paths.Env
	Dir         string   // for files that backends share; absolute
	Engine      string   // engine program; empty is the one beside the daemon's
	EngineLib   string   // folder of llama.cpp's libraries
	Secrets     []string // variables of the environment that hold keys: no child process gets them
}
