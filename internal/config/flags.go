package config

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/inferd-go/inferd/internal/paths"
	"github.com/inferd-go/inferd/internal/usage"
)

// Flags is what the command line and the environment say. A flag beats its variable,
// which beats the config file.
type Flags struct {
	ConfigFile string // empty is the default file, which need not exist
	Lock       string
	Group      string

	Main     string  // address of the main socket: --uds or, on Windows, --pipe
	Addr     Sockets // those that were named; Lock is not among them
	Surfaces Surfaces

	TCPAddr, V2TCPAddr, EmbedTCPAddr string // empty is none
	APIKey                           string
	TCPNoAuth                        bool

	Engine, EngineLib string

	Backend                string // "mock", "llamacpp", or empty: what the config file says
	ModelPath, ModelSHA256 string

	Entry // for a model given by ModelPath, and defaults

	Embed, Rerank         bool // what the model given by ModelPath is for; neither lets the engine see
	Pooling               string
	EmbedNCtx, RerankNCtx int // 0 is the default

	ActivePermits, QueueDepth, QueueTotal int

	ReadyTimeout, WriteTimeout, DrainTimeout time.Duration

	LogFormat string // one of the constants below

	Version  bool
	Warnings []string // about flags that do nothing yet

	unknown []variable // of the environment: they look like ours

	given map[string]bool // flags that were given, by themselves or by their variable
}

// How the daemon logs to people.
const (
	LogAuto = "auto" // JSON under a service manager, else text
	LogText = "text"
	LogJSON = "json"
)

// Entry is how much of the machine a model gets. A zero stands for the default.
type Entry struct {
	NCtx       int // tokens of context, over all slots; default 8192
	NSlots     int // sequences at once; default 4
	Threads    int // compute threads; default: the cores, shared among the engines
	NGPULayers int // layers on a GPU, if there is one; negative is all; default 0
	MaxStallMS int // between two tokens of a stream while prompts are read; default 100, or 4 steps
}

// later are flags of the reference whose surfaces or backends are not there yet. They
// are taken, so that its service files keep working, and answered with a warning.
var later = []string{
	"chat-template",
	"openai-base-url", "openai-api-key", "openai-model", "openai-timeout-secs",
	"bedrock-region", "bedrock-model-id", "bedrock-bearer-token", "bedrock-endpoint", "bedrock-timeout-secs",
}

// ParseFlags reads the command line and the variables of env. Its errors are about usage;
// [flag.ErrHelp] means that the usage was asked for, and has been written to out.
func ParseFlags(args []string, env paths.Env, out io.Writer) (Flags, error) {
	f := Flags{given: make(map[string]bool)}
	fs := flag.NewFlagSet("inferd", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	var uds, pipe string
	var ready, write, drain int
	fs.StringVar(&f.ConfigFile, "config", "", "config `file`; default ~/.inferd/config.json")
	fs.StringVar(&f.Lock, "lock", "", "single-instance lock `file`; default inferd.lock beside the sockets")
	fs.StringVar(&uds, "uds", "", "main socket `path`; the others lie beside it. A leaf other than inferd.sock is v1's")
	fs.StringVar(&pipe, "pipe", "", "on Windows, main named `pipe`: length-prefixed, or v1's if it ends in -infer; the others begin alike")
	fs.StringVar(&f.Addr.V1, "v1-addr", "", "v1 generation socket `path`")
	fs.StringVar(&f.Addr.V2, "v2-addr", "", "v2 generation socket `path`, lines of JSON")
	fs.StringVar(&f.Addr.LP, "lp-addr", "", "v2 generation socket `path`, length-prefixed")
	fs.StringVar(&f.Addr.Embed, "embed-addr", "", "embeddings socket `path`")
	fs.StringVar(&f.Addr.Rerank, "rerank-addr", "", "rerank socket `path`")
	fs.StringVar(&f.Addr.Admin, "admin-addr", "", "admin socket `path`")
	fs.StringVar(&f.Addr.Control, "control-addr", "", "control socket `path`")
	fs.StringVar(&f.TCPAddr, "tcp", "", "loopback `address` of v1 generation, besides its socket: 127.0.0.1:47321")
	fs.StringVar(&f.V2TCPAddr, "v2-tcp", "", "loopback `address` of v2 generation, lines of JSON")
	fs.StringVar(&f.EmbedTCPAddr, "embed-tcp", "", "loopback `address` of embeddings")
	fs.StringVar(&f.APIKey, "api-key", "", "`key` that TCP clients show first; better in INFERD_API_KEY")
	fs.BoolVar(&f.TCPNoAuth, "tcp-no-auth", false, "let every user of this machine in by TCP, without a key")
	fs.BoolVar(&f.Surfaces.V1, "v1", true, "serve v1 generation")
	fs.BoolVar(&f.Surfaces.V2, "v2", true, "serve v2 generation, lines of JSON")
	fs.BoolVar(&f.Surfaces.LP, "lp", true, "serve v2 generation, length-prefixed")
	fs.BoolVar(&f.Surfaces.Embed, "embed", true, "serve embeddings, if a model embeds")
	fs.BoolVar(&f.Surfaces.Rerank, "rerank", true, "serve rerank, if a model reranks")
	fs.StringVar(&f.Group, "group", "", "`group` that may use the inference sockets")
	fs.StringVar(&f.Engine, "engine", "", "inferd-engine `program`; default: the one beside inferd")
	fs.StringVar(&f.EngineLib, "engine-lib", "", "`folder` with llama.cpp's libraries; default: what \"make engine\" made")
	fs.StringVar(&f.Backend, "backend", "", "`kind` of backend: llamacpp (with --model-path) or mock; default: the config's")
	fs.StringVar(&f.ModelPath, "model-path", "", "model to serve: a GGUF `file`, or builtin:NAME")
	fs.StringVar(&f.ModelSHA256, "model-sha256", "", "SHA-256 that the model's file must have, in `hex`")
	fs.BoolVar(&f.Embed, "llamacpp-embed", false, "the model of --model-path is to embed (default: the model says)")
	fs.StringVar(&f.Pooling, "llamacpp-embed-pooling", "", "`how` its vectors are pooled: mean (1), cls (2) or last (3) (default: the model says)")
	fs.IntVar(&f.EmbedNCtx, "llamacpp-embed-n-ctx", 0, "`tokens` of context to embed with (default 2048)")
	fs.BoolVar(&f.Rerank, "llamacpp-rerank", false, "the model of --model-path is to rerank (default: the model says)")
	fs.IntVar(&f.RerankNCtx, "llamacpp-rerank-n-ctx", 0, "`tokens` of context to rerank with (default 2048)")
	fs.IntVar(&f.NCtx, "n-ctx", 0, "`tokens` of context, shared by all slots (default 8192)")
	fs.IntVar(&f.NSlots, "n-slots", 0, "`sequences` that run at once (default 4)")
	fs.IntVar(&f.Threads, "threads", 0, "compute `threads` (default: the cores, shared among the engines)")
	fs.IntVar(&f.NGPULayers, "n-gpu-layers", 0, "`layers` to compute on a GPU, if there is one; -1 is all of them")
	fs.IntVar(&f.MaxStallMS, "max-stall-ms", 0, "`milliseconds` between two tokens of a stream while prompts are read beside it (default 100, or 4 steps if that is longer)")
	fs.IntVar(&f.ActivePermits, "active-permits", 0, "`requests` that run at once; 0 is 1 (default: the sum of the slots)")
	fs.IntVar(&f.QueueDepth, "queue-depth", 10, "`requests` of one caller that may wait")
	fs.IntVar(&f.QueueTotal, "queue-total", 256, "`requests` that may wait in all")
	fs.IntVar(&ready, "ready-timeout-secs", 30, "`seconds` that an engine may load without progress")
	fs.IntVar(&write, "write-timeout-secs", 60, "`seconds` that a client may take for a frame; 0 is no limit")
	fs.IntVar(&drain, "drain-timeout-secs", 8, "`seconds` that running requests get when the daemon stops")
	fs.StringVar(&f.LogFormat, "log-format", LogAuto, "`how` to log on stderr: text, json, or auto: JSON under a service manager")
	fs.BoolVar(&f.Version, "version", false, "print the version and exit")
	for _, name := range later {
		fs.String(name, "", "not served by this release yet")
	}

	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			printUsage(fs, out)
		}
		return f, usage.Explain(fs, err)
	}
	if fs.NArg() > 0 {
		return f, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if err := f.merge(fs, env); err != nil {
		return f, err
	}
	if !slices.Contains([]string{LogAuto, LogText, LogJSON}, f.LogFormat) {
		return f, fmt.Errorf("--log-format %q: want auto, text or json", f.LogFormat)
	}
	for name, n := range map[string]int{
		"n-ctx": f.NCtx, "n-slots": f.NSlots, "threads": f.Threads, "max-stall-ms": f.MaxStallMS, "queue-depth": f.QueueDepth, "queue-total": f.QueueTotal,
		"llamacpp-embed-n-ctx": f.EmbedNCtx, "llamacpp-rerank-n-ctx": f.RerankNCtx,
		"active-permits": f.ActivePermits, "ready-timeout-secs": ready, "write-timeout-secs": write, "drain-timeout-secs": drain,
	} {
		if n < 0 || n > 1<<30 {
			return f, fmt.Errorf("--%s %d is out of range", name, n)
		}
	}
	if f.NGPULayers != int(int32(f.NGPULayers)) {
		return f, fmt.Errorf("--n-gpu-layers %d is out of range", f.NGPULayers)
	}
	if f.ActivePermits == 0 && f.Given("active-permits") {
		f.ActivePermits = 1 // as in the reference; the config's 0 is the sum of the slots
	}
	switch windows := env.GOOS == "windows"; {
	case uds != "" && pipe != "":
		return f, errors.New("--uds and --pipe exclude each other")
	case uds != "" && windows:
		return f, errors.New("--uds: sockets are pipes on Windows: use --pipe")
	case pipe != "" && !windows:
		return f, errors.New("--pipe is for Windows: use --uds")
	}
	f.Main = uds + pipe
	f.ReadyTimeout = time.Duration(ready) * time.Second
	f.WriteTimeout = time.Duration(write) * time.Second
	f.DrainTimeout = time.Duration(drain) * time.Second
	return f, nil
}

// Given reports whether a flag was given, by itself or by its variable.
func (f *Flags) Given(name string) bool { return f.given[name] }

// merge sets the flags that were not given from their variables, and notes which were
// given at all: --ready-timeout-secs is INFERD_READY_TIMEOUT_SECS.
func (f *Flags) merge(fs *flag.FlagSet, env paths.Env) error {
	getenv := env.Getenv
	fs.Visit(func(fl *flag.Flag) { f.given[fl.Name] = true })
	var (
		failed error
		known  []string
	)
	fs.VisitAll(func(fl *flag.Flag) {
		variable := variablePrefix + strings.ToUpper(strings.ReplaceAll(fl.Name, "-", "_"))
		known = append(known, variable)
		value := getenv(variable)
		if f.given[fl.Name] || value == "" || fl.Name == "version" {
			return
		}
		if err := fs.Set(fl.Name, value); err != nil {
			failed = fmt.Errorf("%s=%q: %w", variable, value, err)
			return
		}
		f.given[fl.Name] = true
	})
	for _, name := range later {
		if value := fs.Lookup(name).Value.String(); value != "" && value != "false" {
			f.Warnings = append(f.Warnings, "--"+name+" is not served by this release yet")
		}
	}
	f.unknown = unknownVariables(env, known)
	return failed
}

func printUsage(fs *flag.FlagSet, out io.Writer) {
	fmt.Fprint(out, `inferd: the one local inference daemon of a machine.

Usage: inferd [flags]

Each flag has a variable of the same name: --queue-depth is INFERD_QUEUE_DEPTH.
INFERD_LOG sets the log level: debug, info, warn, error or off.

`)
	fs.VisitAll(func(fl *flag.Flag) {
		if fl.Usage == "not served by this release yet" {
			return
		}
		name, text := flag.UnquoteUsage(fl)
		fmt.Fprintf(out, "  --%s %s\n        %s\n", fl.Name, name, text)
	})
}
