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
	// Path of the program. It is not looked for anywhere else.
	Path  string
	Args  []string   // without the program's name
	Env   []string   // the whole environment, as "NAME=value"; nothing is inherited
	Dir   string     // working folder; empty: the parent's
	Files []*os.File // the child's descriptors from FirstFile on; the caller closes its own
}

// FirstFile is the child's descriptor of the first of [Command.Files].
const FirstFile = 4

// A Child is a process that was started. It has a process group of its own, so that
// Ctrl-C on a terminal reaches only the parent. When the parent ends, however it does,
// the child gets a SIGKILL, also while it is stopped. On the Mac there is no such
// signal: there the child has to leave by itself at the end of its connection.
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

// Kill ends the process at once, also while it is stopped. It may be called at any time
// and more than once; an ended process is not touched, nor is a new one with its number.
func (c *Child) Kill() { _ = c.cmd.Process.Kill() } // fails only if it has ended

// Resume continues a stopped process (SIGCONT). As with Kill, no other process is touched.
// On Windows it does nothing.
func (c *Child) Resume() { resume(c.cmd.Process) }

// Dump makes the process end with the stacks of its goroutines in its output (SIGQUIT), if
// it is a Go program whose runtime still works. As with Kill, no other process is touched.
// On Windows it does nothing.
func (c *Child) Dump() { dump(c.cmd.Process) }

// Done is closed when the process has ended and its output is complete. If it left
// processes of its own behind that hold its output, they are not waited for.
func (c *Child) Done() <-chan struct{} { return c.done }

// Exit returns how the process ended. It may be called once Done is closed.
func (c *Child) Exit() Exit { return c.exit }

// outputDelay is how long the output of a process that has ended may stay open.
const outputDelay = 250 * time.Millisecond

// An Exit is how a process ended, with the end of its output.
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
// and /proc/PID/exe, cwd, fd, maps and environ are root's; stat, status and task stay
// readable. An execve allows that again, so each program calls it first of all.
func ForbidDumps() error {
	if err := forbidDumps(); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	return nil
}

// ParentGone reports whether the process with the number ppid is no longer our parent.
// A child must ask after its start: a parent that dies before the child is under way is
// noticed by nothing else. (On Windows a parent that has gone is not noticed.)
func ParentGone(ppid int) bool { return os.Getppid() != ppid }
