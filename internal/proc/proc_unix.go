//go:build unix

package proc

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// connFD is the child's descriptor of the connection: the first of exec's ExtraFiles.
const connFD = 3

func start(cmd Command) (*Child, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("make a connection: %w", err)
	}
	defer theirs.Close() // only the child may have it open, else the end of the child would not end the connection
	c := &Child{
		cmd: exec.Cmd{
			Path: cmd.Path, Args: append([]string{cmd.Path}, cmd.Args...), Dir: cmd.Dir,
			Env:         append([]string{}, cmd.Env...), // not nil, which would mean the parent's environment
			ExtraFiles:  append([]*os.File{theirs}, cmd.Files...),
			SysProcAttr: attributes(), WaitDelay: outputDelay,
		},
		conn: ours,
		done: make(chan struct{}),
	}
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.out
	keepDescriptors()
	started := make(chan error)
	go c.run(started)
	if err := <-started; err != nil {
		ours.Close()
		return nil, err
	}
	return c, nil
}

// run starts the child and waits for its end, on one locked thread: the kernel sends the
// parent-death signal when the thread that started the child ends, and the runtime may end idle
// threads.
func (c *Child) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := c.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	_ = c.cmd.Wait() // an error only repeats the exit state, or means that the output stayed open
	c.exit.Code = -1
	if state := c.cmd.ProcessState; state != nil {
		c.exit.Code = state.ExitCode()
		if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			c.exit.Signal = signalName(status.Signal())
		}
	}
	c.exit.Crash, c.exit.Stderr = c.out.end()
	close(c.done)
}

// noCoreFiles bounds core files to 0 bytes. A kernel that pipes cores to a program ignores the bound;
// see forbidDumps.
func noCoreFiles() error {
	return os.NewSyscallError("setrlimit", unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}))
}

// resume and dump drop the error of the signal, which fails only if the process has ended.

func resume(p *os.Process) { _ = p.Signal(syscall.SIGCONT) }

func dump(p *os.Process) { _ = p.Signal(syscall.SIGQUIT) }

func signalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return s.String()
}

// socketPair returns the two ends of a connection. No child inherits them unless they are passed to it.
func socketPair() (net.Conn, *os.File, error) {
	syscall.ForkLock.RLock() // macOS cannot make the pair close-on-exec in one call
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "connection")
	ours, err := fileConn(fds[0])
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// fileConn returns a connection with a duplicate of fd, and closes fd.
func fileConn(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "connection")
	defer f.Close()
	return net.FileConn(f)
}

var errNotInherited = errors.New("this program is started by inferd: there is no connection at its descriptor 3")

func inheritedConn() (net.Conn, error) {
	// In a program that a user has started, the descriptor may be a file of Go's runtime, or
	// under systemd a listening socket.
	kind, err := unix.GetsockoptInt(connFD, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_STREAM {
		return nil, errNotInherited
	}
	if listens, err := unix.GetsockoptInt(connFD, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listens != 0 {
		return nil, errNotInherited
	}
	conn, err := fileConn(connFD)
	if err != nil {
		return nil, fmt.Errorf("use the inherited descriptor: %w", err)
	}
	if _, ok := conn.(*net.UnixConn); !ok {
		conn.Close()
		return nil, errNotInherited
	}
	return conn, nil
}
