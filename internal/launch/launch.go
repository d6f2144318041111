// Package launch is the contract between inferd and an engine process at its start: one
// struct, [Contract], that the daemon writes and the engine reads. It travels as a file that
// the engine inherits, so that other users cannot see it, unlike a command line, and so that a
// program that executes itself again can read it again. The package does not know the
// meaning of the values to llama.cpp, nor the protocol of the link.
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

// A Contract is all an engine needs to know at its start. Paths are absolute: an engine
// does not work in the daemon's folder.
type Contract struct {
	Parent int    `json:"parent"`  // process number of the daemon
	LibDir string `json:"lib_dir"` // folder of llama.cpp's libraries
	// Backends are the files in LibDir of the backends to load; of several CPU variants, the
	// first that the processor supports. Empty stands for all backends known by name.
	Backends []string `json:"backends"`
	Model    Model    `json:"model"`
	Tasks    Tasks    `json:"tasks"`

	// Tokens of context, by task.
	NCtx       int `json:"n_ctx"`
	EmbedNCtx  int `json:"embed_n_ctx"`
	RerankNCtx int `json:"rerank_n_ctx"`

	Slots     int `json:"slots"`        // sequences that run at once
	Threads   int `json:"threads"`      // compute threads
	GPULayers int `json:"n_gpu_layers"` // layers on a GPU, if there is one; negative: all

	// Pooling is how vectors are made of tokens: mean, cls or last; empty: as the model says.
	Pooling string `json:"pooling"`
	// MaxStallMS bounds the milliseconds between two tokens of a stream while prompts are
	// prefilled beside it; 0: the engine decides.
	MaxStallMS int `json:"max_stall_ms"`
	// ComputeLock is the file that engines lock when they compute on the same cores; empty: no
	// other engine does.
	ComputeLock string `json:"compute_lock"`
	// Exact asks for answers with the same bits in any company.
	Exact bool `json:"exact"`
	// SharedPrefixes are texts that the operator expects at the beginning of conversations.
	SharedPrefixes []string `json:"shared_prefixes"`
}

// Tasks are what an engine may do. The zero value leaves that to the model; with Embed or Rerank
// a model that can generate does that, too.
type Tasks struct {
	NoGenerate bool `json:"no_generate"`
	Embed      bool `json:"embed"`
	Rerank     bool `json:"rerank"`
}

// A Model names the files of a model.
type Model struct {
	Path  string   `json:"path"`  // of the first file, for reports and errors
	Files []string `json:"files"` // to open, in order, one for each part
}

// MaxStall is MaxStallMS as a duration.
func (c *Contract) MaxStall() time.Duration { return time.Duration(c.MaxStallMS) * time.Millisecond }

// maxSize bounds an encoded contract, in bytes. A config, from which shared prefixes come, has
// at most 1 MiB, and JSON spells a byte of text in at most six.
const maxSize = 8 << 20

// fd is the descriptor of the contract in the engine; the files of the model follow it.
const fd = proc.FirstFile

// check refuses values that no daemon writes.
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

// Start starts an engine program in / with env as its whole environment. It fills in
// c.Parent and c.Model.Files. On Linux these name the open files in model, even if others
// have replaced them at their paths; elsewhere they are the paths. The caller closes its files.
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
		Dir: string(filepath.Separator), // the search path of llama.cpp's libraries names the working folder
	})
}

// ErrByHand is the error of Receive in a process that inferd has not started.
var ErrByHand = errors.New("this program is started by inferd, not by hand")

// Receive is the engine's side of Start. It may be called once. Its error is ErrByHand if
// inferd has not started this process. Any other error is about the contract, and comes with
// the connection, over which the daemon should be told.
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

// errBuilds is an error of programs that do not belong together.
var errBuilds = errors.New("inferd and inferd-engine are not of the same build")

// decode reads strictly: an unknown member comes from a daemon of another build.
func decode(encoded []byte) (*Contract, error) {
	var c Contract
	if err := json.Unmarshal(encoded, &c, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("%w: %w", errBuilds, err)
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	return &c, nil
}
