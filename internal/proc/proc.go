// Package proc runs a program as a child that talks over an inherited connection, and
// that does not outlive its parent. It has both halves: [Start] for the parent,
// [InheritedConn] and [ParentGone] for the child, and [ForbidDumps] for both. It does not
// know the protocol on the connection, nor whether an ended child should be started again.
package proc

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/inferd-go/inferd/internal/printable"
)

// A Command is a program to start. Its standard input is empty, and its standard output and
// standard error are kept, see [Exit]. On Linux it inherits no other descriptor of the parent.
type Command struct {
	// Path of the program; no other folder is searched.
	Path  string
	Args  []string   // without the program's name
	Env   []string   // the whole environment, as "NAME=value"; nothing is inherited
	Dir   string     // working folder; empty: the parent's
	Files []*os.File // the child's descriptors from FirstFile on; the caller closes its own
}

// FirstFile is the child's descriptor of the first of [Command.Files].
const FirstFile = 4

// A Child is a process that was started. It has a process group of its own, so that Ctrl-C on a
// terminal reaches only the parent. When the parent ends, in any way, the kernel kills the
// child, even if it is stopped. macOS has no such signal: there the child must end by itself
// when its connection ends.
type Child struct {
	cmd  exec.Cmd
	conn net.Conn
	out  output
	done chan struct{}
	exit Exit // written before done is closed

	meter meter
}

// Start starts cmd. On Windows it fails.
func Start(cmd Command) (*Child, error) { return start(cmd) }

// Conn is the parent's end of the connection. The caller closes it; until then the last
// bytes of the child can be read, even if it has ended.
func (c *Child) Conn() net.Conn { return c.conn }

// PID is the number of the process.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Kill ends the process at once, even if it is stopped. It may be called at any time and more
// than once; after the end of the process it does nothing, even if the pid is reused.
func (c *Child) Kill() { _ = c.cmd.Process.Kill() } // fails only if it has ended

// Resume continues a stopped process (SIGCONT). Like Kill, it never reaches another process.
// On Windows it does nothing.
func (c *Child) Resume() { resume(c.cmd.Process) }

// Dump makes the process end with the stacks of its goroutines in its output (SIGQUIT), if
// it is a Go program with a working runtime. Like Kill, it never reaches another process.
// On Windows it does nothing.
func (c *Child) Dump() { dump(c.cmd.Process) }

// Done is closed when the process has ended and its output is complete. It does not wait for
// processes that the child has started and that hold its output open.
func (c *Child) Done() <-chan struct{} { return c.done }

// Exit describes the end of the process. It may be called once Done is closed.
func (c *Child) Exit() Exit { return c.exit }

// outputDelay bounds the wait for the output of a process that has ended.
const outputDelay = 250 * time.Millisecond

// An Exit describes the end of a process, with the end of its output.
type Exit struct {
	Code   int    // -1 if a signal ended it
	Signal string // such as "SIGKILL"; empty if it exited
	// Crash is the line with the reason of a crash: the first line of its output that looks
	// like a failed assertion of native code ("ggml.c:123: …"), an uncaught C++ exception, or
	// the head of a Go panic, fatal error or signal. It is empty if there is none. It is
	// printable.
	Crash string
	// Stderr is the last 16 KiB of its standard error and standard output.
	Stderr string
}

// String is for an operator: "killed by SIGKILL", or "exit code 2: reason". The reason is
// Crash or, if there is none and the code is not 0, the last line of Stderr that is not blank:
// programs print their reason last. It is printable.
func (e Exit) String() string {
	why := e.Crash
	how := fmt.Sprintf("exit code %d", e.Code)
	switch {
	case e.Signal != "":
		how = "killed by " + e.Signal
	case e.Code != 0 && why == "":
		why = lastLine(e.Stderr)
	}
	if why == "" {
		return how
	}
	return how + ": " + why
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return printable.Text(text[strings.LastIndexByte(text, '\n')+1:])
}

// InheritedConn is the child's end of the connection, which is its descriptor 3. It may
// be called once. It fails in a process that was not started by [Start].
func InheritedConn() (net.Conn, error) { return inheritedConn() }

// ForbidDumps keeps the memory of this process private. No core file is written of it or of
// its children. On Linux no other process of the same user may trace it or read its memory,
// and /proc/PID/exe, cwd, fd, maps and environ belong to root; stat, status and task stay
// readable. An execve undoes it, so each program must call it first.
func ForbidDumps() error {
	if err := forbidDumps(); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	return nil
}

// ParentGone reports whether the process with the number ppid is no longer our parent. A child
// must call it after its start: nothing else notices a parent that ended during the start. (On
// Windows it does not notice that the parent has ended.)
func ParentGone(ppid int) bool { return os.Getppid() != ppid }
