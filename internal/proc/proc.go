// Package proc runs a program as a child process that has a connection to its parent and does not
// outlive it. [Start] is for the parent, [InheritedConn] and [ParentGone] are for the child, and
// [ForbidDumps] is for both. The protocol on the connection, and the decision to start an ended
// child again, are left to the callers.
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
	Files []*os.File // become the child's descriptors from FirstFile on; the caller still closes its own
}

// FirstFile is the number of the first of [Command.Files] among the child's descriptors.
const FirstFile = 4

// A Child is a process started by [Start]. It has a process group of its own, so that Ctrl-C on a
// terminal reaches only the parent. On Linux the kernel kills the child when the parent ends in any
// way, even if the child is stopped. Other systems have no such signal: there the child must end by
// itself when its connection ends.
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

// Conn returns the parent's end of the connection. The caller must close it. Until then the bytes
// that the child has sent can be read, even after the child has ended.
func (c *Child) Conn() net.Conn { return c.conn }

// PID returns the process number of the child.
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

// Done returns a channel that is closed when the process has ended and its output is complete. If
// processes that the child has started keep the output open, the channel is closed at most 250 ms
// after the child's end.
func (c *Child) Done() <-chan struct{} { return c.done }

// Exit describes the end of the process. It must not be called before the channel of Done is closed.
func (c *Child) Exit() Exit { return c.exit }

// outputDelay bounds the wait for the end of an ended process's output, which the process's children
// may keep open.
const outputDelay = 250 * time.Millisecond

// An Exit describes the end of a process, with the end of its output.
type Exit struct {
	Code   int    // -1 if a signal ended it
	Signal string // such as "SIGKILL"; empty if it exited
	// Crash is the first line of the output that looks like the reason of a crash: a failed
	// assertion of native code ("ggml.c:123: …"), an uncaught C++ exception, or the first line of
	// a Go panic, fatal error or signal. It is printable, and empty if there is no such line.
	Crash string
	// Stderr is the last 16 KiB of the process's standard error and standard output, mixed.
	Stderr string
}

// String describes the exit for an operator: "killed by SIGKILL", or "exit code 2: reason". The
// reason is Crash. If that is empty and the code is not 0, it is the last line of Stderr that is not
// blank, because programs print their reason last. The text is printable.
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

// InheritedConn returns the child's end of the connection, descriptor 3 of the child. It may be
// called once. It fails in a process that was not started by [Start].
func InheritedConn() (net.Conn, error) { return inheritedConn() }

// ForbidDumps keeps the memory of this process private. The system writes no core file of this
// process or of its children. On Linux, moreover, no other process of the same user may trace it or
// read its memory, and /proc/PID/exe, cwd, fd, maps and environ belong to root; stat, status and task
// stay readable. An execve ends that protection against other processes, so each program must call
// ForbidDumps first.
func ForbidDumps() error {
	if err := forbidDumps(); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	return nil
}

// ParentGone reports whether this process's parent is no longer the process with number ppid. A child
// must call it once after its start, because nothing else detects that the parent ended during the
// start. On Windows it cannot detect the end of the parent.
func ParentGone(ppid int) bool { return os.Getppid() != ppid }
