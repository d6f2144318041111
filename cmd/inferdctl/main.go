// Command inferdctl is the operator's command for inferd: it shows the daemon's state and its
// activity log, sends requests to the daemon, controls and checks it, and maintains the model store.
// To the daemon it is an ordinary client of the public sockets or of HTTP.
//
// Exit codes: 0 means success; 1 means that the answer is no, for example that the daemon is not
// ready; 2 means an error, which is printed on stderr; 130 means that the command was interrupted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/cmd/inferdctl/internal/setup"
	"github.com/inferd-go/inferd/internal/paths"
	"github.com/inferd-go/inferd/internal/usage"
)

// version is set by the linker in a release.
var version = "0.1.0-dev"

// The exit codes.
const (
	exitOK          = 0
	exitNo          = 1
	exitError       = 2
	exitInterrupted = 130
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// An exit is an error that only sets the exit code: no message is printed.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// run executes the command line, and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &command{stdin: stdin, stdout: stdout, stderr: stderr}
	err := c.run(ctx, args)
	if code, ok := errors.AsType[exit](err); ok {
		return int(code)
	}
	switch {
	case err == nil, errors.Is(err, errAnswered):
		return exitOK
	case ctx.Err() != nil: // the interrupt has caused the error
		return exitInterrupted
	}
	fmt.Fprintln(stderr, "error:", cleanLines(err.Error())) // err may quote files of other users
	return exitError
}

// A command is one run of the program.
type command struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	addr, adminAddr, controlAddr string // as given on the command line; see client
	http                         string // URL or unix:PATH; empty means over the sockets
	config                       string // config file; empty means the default
	logDir                       string // as given on the command line; see logFolder
	showVersion                  bool
}

// client returns a client of the daemon that the flags name. A socket without a flag is in the
// folder of --addr, as it is for the daemon's --uds; see [paths.Env.Beside].
func (c *command) client(w wait) *client.Client {
	cl := &client.Client{Sockets: make(map[client.Surface]string), Wait: w.limit}
	if c.addr != "" {
		cl.Dir, _ = paths.Default().Beside(c.addr)
		cl.Sockets[c.surface()] = c.addr
	}
	cl.Sockets[client.Admin] = c.adminAddr
	cl.Sockets[client.Control] = c.controlAddr
	return cl
}

// surface returns the surface for generation: v1 if --addr is given and is not named like the
// length-prefixed socket, otherwise length-prefixed v2.
func (c *command) surface() client.Surface {
	if c.addr != "" {
		if _, leaf := paths.Default().Beside(c.addr); leaf == paths.V1Leaf {
			return client.V1
		}
	}
	return client.LP
}

// wait is the value of the flag --wait[=DURATION]: the longest wait for a daemon that is not ready.
type wait struct {
	limit time.Duration // 0 means no wait, negative no limit
}

const waitUsage = "wait until the daemon is ready, with a limit as in --wait=30s"

// String returns the default value for package flag.
func (w *wait) String() string { return strconv.FormatBool(w.limit != 0) }

// IsBoolFlag reports true: the value of the flag is optional.
func (w *wait) IsBoolFlag() bool { return true }

// Set accepts a duration or the value of a boolean flag.
func (w *wait) Set(s string) error {
	if on, err := strconv.ParseBool(s); err == nil {
		w.limit = 0
		if on {
			w.limit = -1
		}
		return nil
	}
	limit, err := time.ParseDuration(s)
	if err != nil || limit <= 0 {
		return errors.New("want a duration such as 30s")
	}
	w.limit = limit
	return nil
}

// A verb is a command of the program: its first argument.
type verb struct {
	name, usage, about string
	run                func(*command, context.Context, []string) error
}

func verbs() []verb {
	return []verb{
		{"chat", "[-m TEXT]", "ask a question and stream the answer; on a terminal, without -m, a conversation", (*command).chat},
		{"embed", "TEXT...", "print vectors of texts, or of the lines of stdin, as JSON", (*command).embed},
		{"rerank", "--query Q DOC...", "print documents, or the lines of stdin, ranked by a query", (*command).rerank},
		{"status", "", "print the state of the daemon; exit 0 if it is ready, 1 if not", (*command).status},
		{"watch", "", "show every event of the daemon: a progress bar on a terminal, else lines of JSON", (*command).watch},
		{"stats", "", "show entries, callers and their requests: a table on a terminal, else JSON", (*command).stats},
		{"top", "", "show the stats live, until q; without a terminal, the table once", (*command).top},
		{"client", "NAME", "print the settings that connect a tool to the daemon over HTTP; --list names the tools", (*command).clientVerb},
		{"log", "[-f]", "show the activity log: readable on a terminal, else lines of JSON", (*command).log},
		{"usage", "", "sum up the activity log: requests and tokens, per caller and model", (*command).usage},
		{"pull", "[NAME...]", "bring models into the store by name, or those of the config: inferdctl pull gemma-4-e4b", (*command).pull},
		{"list", "[--json]", "list the models of the store, unfinished ones and problems", (*command).list},
		{"show", "NAME", "show one model of the store", (*command).show},
		{"import", "FILE", "copy a model's file into the store, verified, and print the path of the copy", (*command).importFile},
		{"adopt", "[--list] [NAME...]", "use models of other tools without a copy: Hugging Face, llama.cpp, Ollama, LM Studio", (*command).adopt},
		{"verify", "[NAME...]", "hash models of the store; exit 1 if one is damaged", (*command).verify},
		{"rm", "NAME...", "remove models from the store", (*command).remove},
		{"gc", "[--dry-run]", "remove unneeded files from the store", (*command).gc},
		{"retry", "NAME", "start the engine of a backend that was given up", (*command).retry},
		{"log-level", "LEVEL", "set the level that the daemon logs: debug, info, warn, error or off", (*command).logLevel},
		{"config", "check|show|init", "check the daemon's config file, print all settings in effect, or write a first file", (*command).configVerb},
		{"conform", "DIR", "play the transcripts of a folder against the daemon; exit 1 if one fails", (*command).conform},
		{"schema", "check FILE", "report whether answers can be held to a JSON Schema; exit 0 if so, 1 if not, 2 if it is no schema", (*command).schema},
		{"doctor", "", "check everything, one line each; exit 1 if anything is wrong", (*command).doctor},
	}
}

func (c *command) run(ctx context.Context, args []string) error {
	fs := c.flags("")
	if err := c.parse(fs, args); err != nil {
		return err
	}
	name := fs.Arg(0)
	switch name {
	case "":
		c.help(c.stderr)
		return exit(exitError)
	case "help":
		if fs.NArg() == 1 {
			c.help(c.stdout)
			return nil
		}
		v, err := verbOf(fs.Arg(1))
		if err != nil {
			return err
		}
		return v.run(c, ctx, []string{"--help"})
	}
	v, err := verbOf(name)
	if err != nil {
		return err
	}
	for _, w := range paths.Default().Warnings() {
		fmt.Fprintln(c.stderr, "warning:", w)
	}
	return v.run(c, ctx, fs.Args()[1:])
}

// verbOf returns the verb with the given name.
func verbOf(name string) (verb, error) {
	all := verbs()
	names := make([]string, len(all))
	for i, v := range all {
		if v.name == name {
			return v, nil
		}
		names[i] = v.name
	}
	if near := usage.Nearest(name, names); near != "" {
		return verb{}, fmt.Errorf("no command is called %q: did you mean %s?", name, near)
	}
	return verb{}, fmt.Errorf("no command is called %q: try inferdctl --help", name)
}

// flags returns a flag set with the flags of the program, to which a verb adds its own. The flags
// of the program may be before or after the verb.
func (c *command) flags(name string) *flag.FlagSet { return c.flagsBut(name, "") }

// flagsBut is like flags, but leaves out the flag named own, to which the verb gives another
// meaning.
func (c *command) flagsBut(name, own string) *flag.FlagSet {
	fs := flag.NewFlagSet(strings.TrimSpace("inferdctl "+name), flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	if own != "addr" {
		fs.StringVar(&c.addr, "addr", c.addr, "generation socket `path`; the other sockets are in its folder")
	}
	fs.StringVar(&c.http, "http", c.http, "`address` of HTTP in place of the sockets: http://HOST:PORT or unix:PATH; a key is in "+setup.KeyVariable)
	fs.StringVar(&c.adminAddr, "admin-addr", c.adminAddr, "admin socket `path`")
	fs.StringVar(&c.controlAddr, "control-addr", c.controlAddr, "control socket `path`")
	fs.StringVar(&c.config, "config", c.config, "config `file` of the daemon, for doctor, conform and the model store")
	fs.StringVar(&c.logDir, "log-dir", c.logDir, "`folder` of the activity log, for log, usage and doctor")
	fs.BoolVar(&c.showVersion, "version", c.showVersion, "print the version and exit")
	fs.Usage = func() { c.help(c.stdout) }
	return fs
}

// errAnswered means that a flag such as --help was answered, and that the program is done.
var errAnswered = errors.New("answered")

// parse parses flags. If they ask for help or the version, it prints that, and returns errAnswered.
// It prints no help after an error.
func (c *command) parse(fs *flag.FlagSet, args []string) error {
	help := fs.Usage
	fs.Usage = func() {}
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		help()
		return errAnswered
	case err == nil && c.showVersion:
		fmt.Fprintln(c.stdout, "inferdctl", version)
		return errAnswered
	}
	return usage.Explain(fs, err)
}

// parseVerb parses the flags and the arguments of a verb, in any order, and returns the arguments:
// one for each of names or, if the last name ends in "...", any number. It also checks --http.
func (c *command) parseVerb(fs *flag.FlagSet, args []string, names ...string) ([]string, error) {
	name := strings.TrimPrefix(fs.Name(), "inferdctl ")
	fs.Usage = func() {
		fmt.Fprintf(c.stdout, "Usage: inferdctl %s [FLAGS]\n\n", strings.Join(append([]string{name}, names...), " "))
		printFlags(c.stdout, fs)
	}
	var values []string
	for {
		if err := c.parse(fs, args); err != nil {
			return nil, err
		}
		if fs.NArg() == 0 {
			break
		}
		values = append(values, fs.Arg(0))
		args = fs.Args()[1:]
	}
	if err := c.checkHTTP(name); err != nil {
		return nil, err
	}
	switch {
	case len(names) > 0 && strings.HasSuffix(names[len(names)-1], "..."):
	case len(values) > len(names):
		return nil, &extraArgumentError{name, values[len(names)]}
	case len(values) < len(names):
		return nil, fmt.Errorf("%s needs %s", name, names[len(values)])
	}
	return values, nil
}

// An extraArgumentError means that a verb does not accept an argument.
type extraArgumentError struct{ verb, value string }

func (e *extraArgumentError) Error() string {
	return fmt.Sprintf("%s does not take %q", e.verb, e.value)
}

func (c *command) help(w io.Writer) {
	fmt.Fprint(w, "inferdctl talks to a running inferd.\n\nUsage: inferdctl [FLAGS] COMMAND\n\nCommands:\n")
	for _, v := range verbs() {
		fmt.Fprintf(w, "  %-24s %s\n", v.name+" "+v.usage, v.about)
	}
	fmt.Fprint(w, "\nFlags, before or after the command (inferdctl help COMMAND shows those of its own):\n")
	printFlags(w, c.flags(""))
}

func printFlags(w io.Writer, fs *flag.FlagSet) {
	fs.VisitAll(func(f *flag.Flag) {
		name, about := flag.UnquoteUsage(f)
		fmt.Fprintf(w, "  %-22s %s\n", strings.TrimSpace(usage.Dashed(f.Name)+" "+name), about)
	})
}
