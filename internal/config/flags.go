package config

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/modelname"
	"github.com/inferd-go/inferd/internal/paths"
	"github.com/inferd-go/inferd/internal/settings"
	"github.com/inferd-go/inferd/internal/usage"
)

// Flags holds the settings of the command line and the environment. A flag beats its variable,
// which beats the config file.
type Flags struct {
	ConfigFile string // empty: the default file, which need not exist
	Lock       string

	Main string  // address of the main socket: --uds or, on Windows, --pipe
	Addr Sockets // addresses of single sockets; its Lock is not used

	Common

	TCPAddr, V2TCPAddr, EmbedTCPAddr string // empty: none
	APIKey, APIKeyEnv                string // APIKeyEnv is set only by the config file
	TCPNoAuth                        bool

	HTTP httpFlags

	Engine string

	Backend                       string // name of a kind; empty: not given
	Model, ModelPath, ModelSHA256 string

	LogFormat string // one of the constants below

	Version  bool
	Warnings []string // about flags that do nothing yet

	limits    backend.Limits // override those of all entries
	uds, pipe string

	paranoid   bool
	autoselect string // one of the constants below
	minVRAM    int

	catalog modelname.Catalog // nil until readCatalog

	kinds []*backend.Kind             // kinds of entries; the first applies to a model without a kind
	own   map[string]backend.Settings // by kind: the settings of the entry that the flags describe

	unknown []variable      // variables with inferd's prefix, but without a meaning
	set     map[string]bool // flags that were set, on the command line or by their variable
}

// Values of [Models.Verify].
const (
	VerifyOnce   = "once"
	VerifyAlways = "always"
)

// Values of model_autoselect.
const (
	autoselectOff  = "off"
	autoselectAuto = "auto"
)

// Formats of the log on stderr.
const (
	LogAuto = "auto" // JSON under a service manager, else text
	LogText = "text"
	LogJSON = "json"
)

// unimplemented are flags of the reference implementation for surfaces or backends that are not
// implemented yet. They are accepted with a warning, because service files that were written for
// the reference must work.
var unimplemented = []string{
	"chat-template",
	"openai-base-url", "openai-api-key", "openai-model", "openai-timeout-secs",
	"bedrock-region", "bedrock-model-id", "bedrock-bearer-token", "bedrock-endpoint", "bedrock-timeout-secs",
}

// notServed is the help of the unimplemented flags.
const notServed = "not served by this release yet"

// ParseFlags reads the command line and the variables of env. kinds[0] is the kind of an entry that
// names only a model. Errors are about usage; [flag.ErrHelp] means that help was requested and has
// been written to out.
func ParseFlags(args []string, env paths.Env, kinds []*backend.Kind, out io.Writer) (Flags, error) {
	f := Flags{
		kinds: kinds,
		own:   make(map[string]backend.Settings),
		set:   make(map[string]bool),
		Common: Common{
			Surfaces: Surfaces{V1: true, V2: true, LP: true, Embed: true, Rerank: true}, QueueDepth: 10, QueueTotal: 256,
			ReadyTimeout: 30 * time.Second, WriteTimeout: time.Minute, DrainTimeout: 8 * time.Second,
			Models: Models{AutoPull: true, Verify: VerifyOnce},
		},
		autoselect: autoselectOff, minVRAM: 20,
		LogFormat: LogAuto, HTTP: httpFlags{Sock: true, Page: true},
	}
	fs := flag.NewFlagSet("inferd", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	for _, k := range kinds {
		f.own[k.Name] = k.New()
	}
	for _, t := range f.tables() {
		t.Define(fs)
	}
	for _, name := range unimplemented {
		if fs.Lookup(name) == nil { // no kind defines it
			fs.String(name, "", notServed)
		}
	}
	if err := fs.Parse(settings.JoinValues(fs, args)); err != nil {
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
	return f, f.check(env)
}

// tables returns the settings of the daemon, the limits of entries, and the settings of each kind.
func (f *Flags) tables() []settings.Table {
	all := []settings.Table{settings.Of(daemonSettings, f), settings.Of(limitSettings, &f.limits)}
	for _, k := range f.kinds {
		all = append(all, f.own[k.Name].Table())
	}
	return all
}

// check returns an error for values that are out of range or conflict, and sets defaults that depend
// on other values.
func (f *Flags) check(env paths.Env) error {
	if !slices.Contains([]string{LogAuto, LogText, LogJSON}, f.LogFormat) {
		return fmt.Errorf("--log-format %q: want auto, text or json", f.LogFormat)
	}
	for _, t := range f.tables() {
		if err := t.Check(); err != nil {
			return err
		}
	}
	if f.Verify != VerifyOnce && f.Verify != VerifyAlways {
		return fmt.Errorf("--verify %.64q: want once or always", f.Verify)
	}
	if f.paranoid {
		f.Verify = VerifyAlways
		f.set["verify"] = true
	}
	if f.ActivePermits == 0 && f.IsSet("active-permits") {
		f.ActivePermits = 1 // as in the reference implementation; the config's 0 is the sum of the slots
	}
	switch windows := env.GOOS == "windows"; {
	case f.uds != "" && f.pipe != "":
		return errors.New("--uds and --pipe exclude each other")
	case f.uds != "" && windows:
		return errors.New("--uds: sockets are pipes on Windows: use --pipe")
	case f.pipe != "" && !windows:
		return errors.New("--pipe is for Windows: use --uds")
	}
	f.Main = f.uds + f.pipe
	return nil
}

// IsSet reports whether a flag was set, on the command line or by its variable.
func (f *Flags) IsSet(name string) bool { return f.set[name] }

// merge sets each flag that is not on the command line from its variable, and records which flags
// are set. For example, the variable of --ready-timeout-secs is INFERD_READY_TIMEOUT_SECS.
func (f *Flags) merge(fs *flag.FlagSet, env paths.Env) error {
	getenv := env.Getenv
	fs.Visit(func(fl *flag.Flag) { f.set[fl.Name] = true })
	var (
		failed error
		known  []string
	)
	fs.VisitAll(func(fl *flag.Flag) {
		variable := variableOf(fl.Name)
		known = append(known, variable)
		value := getenv(variable)
		if f.set[fl.Name] || value == "" || fl.Name == "version" {
			return
		}
		if err := fs.Set(fl.Name, value); err != nil {
			failed = fmt.Errorf("%s=%q: %w", variable, value, err)
			return
		}
		f.set[fl.Name] = true
	})
	for _, name := range unimplemented {
		if fl := fs.Lookup(name); fl.Usage == notServed && fl.Value.String() != "" && fl.Value.String() != "false" {
			f.Warnings = append(f.Warnings, "--"+name+" is not served by this release yet")
		}
	}
	f.unknown = unknownVariables(env, known)
	return failed
}

// variableOf returns the name of a flag's variable.
func variableOf(name string) string {
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

func printUsage(fs *flag.FlagSet, out io.Writer) {
	fmt.Fprint(out, `inferd: the one local inference daemon of a machine.

Usage: inferd [flags]

Each flag has a variable of the same name: --queue-depth is INFERD_QUEUE_DEPTH.
INFERD_LOG sets the log level: debug, info, warn, error or off.

`)
	fs.VisitAll(func(fl *flag.Flag) {
		if fl.Usage == notServed {
			return
		}
		name, text := flag.UnquoteUsage(fl)
		fmt.Fprintf(out, "  --%s %s\n        %s\n", fl.Name, name, text)
	})
}
