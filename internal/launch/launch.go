// Package launch is the contract between inferd and an engine process at its start: one
// struct, [Contract], that the daemon writes and the engine reads. The engine inherits it in a
// file. Unlike a command line, that file is hidden from other users, and the engine can read it
// again after an execve of itself. The package depends neither on llama.cpp, which uses the values, nor
// on the protocol of the link.
package launch

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/inferd-go/inferd/internal/proc"
)

// A Contract has all settings of an engine's start. Paths are absolute, because the working
// folder of an engine is not the daemon's.
type Contract struct {
	Parent int    `json:"parent"`  // process number of the daemon
	LibDir string `json:"lib_dir"` // folder of llama.cpp's libraries
	// Backends names the files in LibDir that contain the llama.cpp backends to load. Of several CPU
	// variants the engine loads the first that the processor supports. If Backends is empty, the engine
	// loads every file of LibDir that has the name of a known backend.
	Backends []string `json:"backends"`
	Model    Model    `json:"model"`
	Tasks    Tasks    `json:"tasks"`

	// Context sizes in tokens, by task.
	NCtx       int `json:"n_ctx"`
	EmbedNCtx  int `json:"embed_n_ctx"`
	RerankNCtx int `json:"rerank_n_ctx"`

	Slots     int `json:"slots"`        // sequences that run at once
	Threads   int `json:"threads"`      // compute threads
	GPULayers int `json:"n_gpu_layers"` // layers on a GPU, if there is one; negative: all

	// Pooling is the method that combines the vectors of a text's tokens into one vector: mean, cls or
	// last; empty: the model's own.
	Pooling string `json:"pooling"`
	// MaxStallMS bounds the time between two tokens of a stream, in milliseconds, while other prompts
	// are prefilled; 0: the default of the engine.
	MaxStallMS int `json:"max_stall_ms"`
	// ComputeLock is the path of the compute lock, by which engines on the same cores compute in turn;
	// empty: no other engine computes on these cores.
	ComputeLock string `json:"compute_lock"`
	// Exact demands answers that are the same bit for bit, whichever other requests share their steps.
	Exact bool `json:"exact"`
	// SharedPrefixes are system messages, named by the operator, with which many conversations begin.
	// Their KV is pinned.
	SharedPrefixes []string `json:"shared_prefixes"`
}

// Tasks are the tasks of an engine. The zero value leaves the choice to the model. With Embed or
// Rerank, a generative model still generates, unless NoGenerate is set.
type Tasks struct {
	NoGenerate bool `json:"no_generate"`
	Embed      bool `json:"embed"`
	Rerank     bool `json:"rerank"`
}

// A Model names the files of a model.
type Model struct {
	Path  string   `json:"path"`  // path of the first file, for reports and errors
	Name  string   `json:"name"`  // used if the model's metadata have no name; empty: the file's name
	Files []string `json:"files"` // paths to open, in order, one for each part
}

// MaxStall returns MaxStallMS as a duration.
func (c *Contract) MaxStall() time.Duration { return time.Duration(c.MaxStallMS) * time.Millisecond }

// maxSize bounds an encoded contract, in bytes. Its largest part, the shared prefixes, comes from a
// config of at most 1 MiB, and JSON encodes a byte of text as at most six bytes.
const maxSize = 8 << 20

// fd is the descriptor of the contract in the engine; the files of the model follow it.
const fd = proc.FirstFile

// check returns an error for a value that a correct daemon never writes.
func (c *Contract) check() error {
	for _, n := range []struct {
		name  string
		value int
	}{
		{"n_ctx", c.NCtx},
		{"embed_n_ctx", c.EmbedNCtx},
		{"rerank_n_ctx", c.RerankNCtx},
		{"slots", c.Slots},
		{"threads", c.Threads},
	} {
		if n.value < 1 {
			return fmt.Errorf("%s is %d: want 1 or more", n.name, n.value)
		}
	}
	if c.MaxStallMS < 0 {
		return fmt.Errorf("max_stall_ms is %d: want 0 or more", c.MaxStallMS)
	}
	if len(c.Model.Files) == 0 {
		return errors.New("no model file")
	}
	for _, path := range append([]string{c.LibDir, c.Model.Path}, c.Model.Files...) {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("path %q is not absolute", path)
		}
	}
	if c.ComputeLock != "" && !filepath.IsAbs(c.ComputeLock) {
		return fmt.Errorf("path %q is not absolute", c.ComputeLock)
	}
	return nil
}

// Start starts an engine program with the working folder / and the environment env. It sets c.Parent
// and c.Model.Files in its copy of c. On Linux c.Model.Files are paths of inherited descriptors, so they
// name the open files in model even if other files have taken their paths; elsewhere they are the
// files' own paths. The caller closes the files in model.
func Start(program string, c Contract, model []*os.File, env []string) (*proc.Child, error) {
	c.Parent = os.Getpid()
	c.Model.Files = nil
	for i, f := range model {
		c.Model.Files = append(c.Model.Files, inherited(f, fd+1+i))
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("launch contract: %w", err)
	}
	encoded, err := json.Marshal(&c)
	if err != nil {
		return nil, fmt.Errorf("launch contract: %w", err)
	}
	f, err := fileOf(encoded)
	if err != nil {
		return nil, fmt.Errorf("launch contract: %w", err)
	}
	defer f.Close()
	return proc.Start(proc.Command{
		Path: program, Env: env, Files: append([]*os.File{f}, model...),
		Dir: string(filepath.Separator), // llama.cpp also looks for its libraries in the working folder
	})
}

// ErrByHand is the error of Receive in a process that was not started by inferd.
var ErrByHand = errors.New("this program is started by inferd, not by hand")

// Receive returns the engine's end of the connection, and the contract that Start has passed. It may
// be called once. It returns ErrByHand and no connection if inferd has not started this process. Any
// other error concerns the contract, and the connection is returned with it, to report it to the
// daemon.
func Receive() (net.Conn, *Contract, error) {
	conn, err := proc.InheritedConn()
	if err != nil {
		return nil, nil, ErrByHand
	}
	encoded, err := inheritedContract()
	if err != nil {
		return conn, nil, fmt.Errorf("launch contract: %w", err)
	}
	c, err := decode(encoded)
	if err != nil {
		return conn, nil, fmt.Errorf("launch contract: %w", err)
	}
	return conn, c, nil
}

// errOtherBuild means that daemon and engine come from different builds.
var errOtherBuild = errors.New("inferd and inferd-engine are not of the same build")

// decode decodes and checks a contract. It refuses unknown members, which a daemon of another build
// has written.
func decode(encoded []byte) (*Contract, error) {
	var c Contract
	if err := json.Unmarshal(encoded, &c, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("%w: %w", errOtherBuild, err)
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	return &c, nil
}
