package proc_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/proc"
)

// usage returns the usage of c, which must be alive.
func usage(t *testing.T, c *proc.Child) proc.Usage {
	t.Helper()
	u, err := c.Usage()
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// until calls is until it returns true, for up to 20 s. It polls, because the kernel does not announce
// the changes for which the tests wait. In the error, what names the condition.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}

func TestUsageOfASleeper(t *testing.T) {
	c := start(t, "echo")
	echo(t, c.Conn(), "x")
	until(t, "it sleeps", func() bool { return usage(t, c).State == 'S' })
	before := usage(t, c)
	echo(t, c.Conn(), "y")
	if after := usage(t, c); after.CPU <= before.CPU || after.CPU-before.CPU > 5*time.Second || after.Tracer != 0 {
		t.Errorf("%+v, before %+v", after, before)
	}
}

// Usage never falls: the times of ended threads stay in the totals.
func TestUsageNeverFalls(t *testing.T) {
	long := 2 * time.Second // many threads end in that time
	if testing.Short() {
		long /= 10
	}
	c := start(t, "burn")
	var last proc.Usage
	rounds := 0
	until(t, "it has used enough CPU time", func() bool {
		u := usage(t, c)
		if u.CPU < last.CPU || u.Wait < last.Wait || u.Faults < last.Faults {
			t.Errorf("%+v, before %+v", u, last)
		}
		last = u
		rounds++
		return u.CPU > long
	})
	if last.State != 'R' {
		t.Errorf("it is in state %c after %d readings", last.State, rounds)
	}
}

func TestStopResumeAndEnd(t *testing.T) {
	c := start(t, "echo")
	echo(t, c.Conn(), "x")
	if err := syscall.Kill(c.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	until(t, "it is stopped", func() bool { return usage(t, c).State == 'T' })
	c.Resume()
	echo(t, c.Conn(), "y")
	if u := usage(t, c); u.State == 'T' {
		t.Errorf("it is still stopped: %+v", u)
	}
	c.Kill()
	wait(t, c)
	if u, err := c.Usage(); err == nil || proc.OutOfResources(err) {
		t.Errorf("after its end: %+v, %v", u, err)
	}
	if frozen, err := c.Frozen(); err == nil {
		t.Errorf("after its end: frozen %t", frozen)
	}
	c.Resume() // reaches no process
	c.Dump()
}

func TestDump(t *testing.T) {
	c := start(t, "echo")
	echo(t, c.Conn(), "x")
	c.Dump()
	got := wait(t, c)
	if !strings.Contains(got.Stderr, "goroutine ") || !strings.HasPrefix(got.Crash, "SIGQUIT: ") {
		t.Errorf("ended: %s, said %q", got, got.Stderr)
	}
}

// A parent without free descriptors cannot read the usage, and must not conclude that the child
// has ended.
func TestUsageWithoutDescriptors(t *testing.T) {
	c := start(t, "echo")
	echo(t, c.Conn(), "x")
	usage(t, c)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	_, errUsage := c.Usage()
	_, errFrozen := c.Frozen()
	_, errStart := proc.Start(command(t, "echo"))
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"usage": errUsage, "frozen": errFrozen, "start": errStart} {
		if !proc.OutOfResources(err) {
			t.Errorf("%s without a descriptor: %v", what, err)
		}
	}
	usage(t, c)
}

func TestFrozen(t *testing.T) {
	group := cgroup(t) // before the child starts, so that its cleanup runs after the child's
	c := start(t, "echo")
	echo(t, c.Conn(), "x")
	if frozen, err := c.Frozen(); frozen || err != nil {
		t.Errorf("frozen %t, %v", frozen, err)
	}
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(c.PID())), 0o600); err != nil {
		t.Skipf("cgroups cannot be used: %v", err)
	}
	freeze := func(value string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(group, "cgroup.freeze"), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	freeze("1")
	until(t, "it is frozen", func() bool { frozen, err := c.Frozen(); return frozen && err == nil })
	freeze("0")
	echo(t, c.Conn(), "y")
	until(t, "it runs again", func() bool { frozen, err := c.Frozen(); return !frozen && err == nil })
}

// cgroup makes a cgroup of version 2 for the test, or skips it.
func cgroup(t *testing.T) string {
	t.Helper()
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if err := unix.Statfs(root, &fs); err != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		group := filepath.Join(root, "inferd-test-"+strconv.Itoa(os.Getpid()))
		if err := os.Mkdir(group, 0o700); err != nil {
			t.Skipf("cgroups cannot be used: %v", err)
		}
		t.Cleanup(func() {
			until(t, "the cgroup is empty", func() bool { return os.Remove(group) == nil })
		})
		return group
	}
	t.Skip("there are no cgroups of version 2")
	return ""
}

func TestSuspendedTime(t *testing.T) {
	before := proc.SuspendedTime()
	if after := proc.SuspendedTime(); before < 0 || (after-before).Abs() > time.Second {
		t.Errorf("%s, then %s", before, after)
	}
}
