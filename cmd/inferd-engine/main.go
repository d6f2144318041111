// Command inferd-engine runs one model for inferd, in a process of its own, so that a crash of
// llama.cpp does not end the daemon. inferd starts it, and communicates with it over an inherited
// socket. It is not started by hand.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/assemble"
	"github.com/inferd-go/inferd/internal/launch"
	"github.com/inferd-go/inferd/internal/proc"
)

// version is set by the linker in a release.
var version = "0.1.0-dev"

// about is printed whenever the program is started by hand.
const about = "this program is started by inferd, over an inherited socket and file; there is nothing to run by hand, see 'inferd --help'"

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "inferd-engine:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	// Before anything else: the process will hold prompts of all users, which a core dump would
	// reveal.
	if err := proc.ForbidDumps(); err != nil {
		return err
	}
	if len(args) > 0 {
		return explain(args, out)
	}
	// An engine ends when the daemon closes the link. A terminal's Ctrl-C or a service manager's
	// SIGTERM reaches every process, but the engine must continue while the daemon drains.
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// llama.cpp's own threads compute. If GOMAXPROCS were larger, Go's monitor thread would wake
	// every few microseconds of a step to check whether it can reclaim the processor of the thread
	// that is in C code, and each time would take a core from the computing threads.
	runtime.GOMAXPROCS(1)
	conn, contract, err := launch.Receive()
	switch {
	case errors.Is(err, launch.ErrByHand):
		return errors.New(about)
	case err != nil:
		return assemble.Refuse(conn, err)
	case proc.ParentGone(contract.Parent):
		return errors.New("the daemon has gone")
	}
	return assemble.Run(conn, contract)
}

// explain handles a command line with arguments. inferd starts engines without arguments, so a user
// has started this one by hand.
func explain(args []string, out io.Writer) error {
	switch args[0] {
	case "-h", "-help", "--help", "help":
		fmt.Fprintln(out, "inferd-engine:", about)
	case "-version", "--version":
		fmt.Fprintf(out, "inferd-engine %s\n%s\n", version, about)
	default:
		return fmt.Errorf("unknown argument %q: %s", args[0], about)
	}
	return nil
}
