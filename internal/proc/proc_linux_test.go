package proc_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/proc"
)

// family starts a process in role middle, in a process group of its own, as a shell does. That process
// starts a child in the given role. family returns the process and its output, and the pid and a pidfd
// of the child.
func family(t *testing.T, role string) (parent *exec.Cmd, says *bufio.Reader, child, childFD int) {
	t.Helper()
	plain := command(t, "middle")
	parent = exec.CommandContext(t.Context(), plain.Path, role)
	parent.Env = append(os.Environ(), plain.Env...)
	parent.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		parent.Process.Kill()
		parent.Wait()
	})
	says = bufio.NewReader(out)
	if _, err := fmt.Fscanln(says, &child); err != nil {
		t.Fatal(err)
	}
	if childFD, err = unix.PidfdOpen(child, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(childFD) })
	return parent, says, child, childFD
}

// ended reports whether the process of a pidfd ends within a time. The end is seen even if the process
// has not been reaped.
func ended(t *testing.T, pidfd int, within time.Duration) bool {
	t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(within.Milliseconds()))
		switch {
		case err == nil:
			return n > 0
		case !errors.Is(err, unix.EINTR):
			t.Fatal(err)
		}
	}
}

// state returns the state letter in /proc/PID/stat.
func state(t *testing.T, pid int) string {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))[0]
}

func TestStoppedChildDiesWithItsParent(t *testing.T) {
	parent, _, child, childFD := family(t, "stubborn")
	if err := syscall.Kill(child, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); state(t, child) != "T"; {
		if time.Now().After(deadline) {
			t.Fatalf("the child is %s, not stopped", state(t, child))
		}
	}
	if ended(t, childFD, 0) {
		t.Fatal("the child ended by itself")
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if !ended(t, childFD, 10*time.Second) {
		t.Error("the child has outlived its parent")
		unix.PidfdSendSignal(childFD, unix.SIGKILL, nil, 0)
	}
}

func TestInterruptOfATerminalReachesOnlyTheParent(t *testing.T) {
	parent, says, child, _ := family(t, "echo")
	if pgid, err := syscall.Getpgid(child); err != nil || pgid != child {
		t.Errorf("the child is in group %d, %v", pgid, err)
	}
	if err := syscall.Kill(-parent.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if got, err := says.ReadString('\n'); err != nil || got != "\"alive\\n\" <nil>\n" {
		t.Errorf("the child answered %s, %v", got, err)
	}
}

// The kernel kills a child when the thread that started it ends, so that thread must live as long as
// the child.
func TestChildrenOutliveOtherThreads(t *testing.T) {
	var children [16]*proc.Child
	var starts sync.WaitGroup
	cmd := command(t, "echo")
	for i := range children {
		starts.Go(func() {
			c, err := proc.Start(cmd)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() {
				c.Conn().Close()
				wait(t, c)
			})
			children[i] = c
		})
	}
	starts.Wait()
	// Occupy every idle thread of this process, and end these threads.
	var locked, ended sync.WaitGroup
	const threads = 64
	locked.Add(threads)
	for range threads {
		ended.Go(func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			locked.Done()
			locked.Wait()
		})
	}
	ended.Wait()
	for _, c := range children {
		if c != nil {
			echo(t, c.Conn(), "still here")
		}
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestNoDescriptorAndNoProcessIsLeft(t *testing.T) {
	one := func() {
		c, err := proc.Start(command(t, "say", "0", "hello\n"))
		if err != nil {
			t.Fatal(err)
		}
		wait(t, c)
		c.Conn().Close()
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", c.PID())); !os.IsNotExist(err) {
			t.Errorf("process %d is left: %v", c.PID(), err)
		}
		if _, err := proc.Start(proc.Command{Path: "/nonexistent"}); err == nil {
			t.Error("a program that is not there was started")
		}
	}
	one() // the first start makes the runtime open descriptors that it keeps
	before := descriptors(t)
	for range 50 {
		one()
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}
